#include <lpu/cluster/presets.hpp>

int main() {
  const auto chip = lpu::cluster::load_chip("tsp-v1", "consumer").chip;
  return chip.sram() == lpu::node::Bytes(230'686'720) ? 0 : 1;
}
