#pragma once
#include <cstdint>
#include <vector>

#include "lpu/node/numeric_value.hpp"

namespace lpu::node {

/// What a NumericChip holds between two iterations, which is all that its future depends on: its cache. Values and
/// lanes that rows share are in it once.
struct NumericSnapshot {
  struct Value {
    std::int32_t label = -1;
    std::int32_t lanes = -1;     ///< index of `lanes`; -1: one number for all
    std::vector<float> numbers;  ///< as many as lanes, or one; of a row that came over a link, its bytes alone
    Packed packed = Packed::kNo;
  };
  struct Row {
    std::int32_t place = 0;   ///< in SRAM
    std::int32_t value = -1;  ///< index of `values`; -1: the row was written with nothing
    std::int32_t part = 0;
  };
  std::uint64_t fold = 0;
  std::vector<Lanes> lanes;
  std::vector<Value> values;
  std::vector<Row> rows;  ///< by place, ascending
};

}  // namespace lpu::node
