#include "lpu/cluster/run.hpp"

int main(int argc, char** argv) {
  return lpu::cluster::run(argc, argv);
}
