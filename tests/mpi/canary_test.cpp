#include <gtest/gtest.h>
#include <mpi.h>
// Rank 1 fails while the others wait for it: the harness must report, not hang.
TEST(Canary, RankOneFailsWhileOthersWait) {
  int r = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &r);
  ASSERT_NE(r, 1);
  MPI_Barrier(MPI_COMM_WORLD);
}
