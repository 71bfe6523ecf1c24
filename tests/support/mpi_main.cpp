// main() of every multi-rank test: one verdict for all ranks, and no rank left waiting.
#include <cstdio>

#include <gtest/gtest.h>
#include <mpi.h>

namespace {
// A rank that fails an ASSERT leaves the test body early; its peers would wait for it in the next
// collective. Aborting the job at once turns that hang into a message and an exit code.
class AbortOnFatalFailure : public testing::EmptyTestEventListener {
  void OnTestPartResult(const testing::TestPartResult& r) override {
    if (!r.failed()) {
      return;
    }
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    std::fprintf(
        stderr, "[rank %d] %s:%d: %s\n", rank, r.file_name() ? r.file_name() : "?", r.line_number(), r.summary());
    std::fflush(nullptr);
    if (r.fatally_failed()) {
      MPI_Abort(MPI_COMM_WORLD, 1);
    }
  }
};
}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  testing::InitGoogleTest(&argc, argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (rank != 0) {
    delete listeners.Release(listeners.default_result_printer());
  }
  listeners.Append(new AbortOnFatalFailure);
  int mine = RUN_ALL_TESTS();
  if (testing::UnitTest::GetInstance()->test_to_run_count() == 0) {
    mine = 1;
  }
  int worst = 0;
  MPI_Allreduce(&mine, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return worst;
}
