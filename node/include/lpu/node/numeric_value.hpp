#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "lpu/node/counted_pointer.hpp"
#include "lpu/node/numeric_kernels.hpp"
#include "lpu/node/routing.hpp"
#include "lpu/node/stored_type.hpp"

namespace lpu::node {

struct NumericValue;
using ValuePtr = CountedPointer<const NumericValue>;

/// Which element of the model each lane of a vector holds; -1: padding. Shared by all vectors of one layout.
using Lanes = std::vector<std::int32_t>;
using LanesPtr = std::shared_ptr<const Lanes>;

/// A list that most values do without: 8 bytes where it is empty.
template <typename T>
class RareList {
 public:
  RareList() = default;
  RareList(std::vector<T> items) {  // NOLINT(google-explicit-constructor): it stands for the vector
    if (!items.empty()) {
      auto own = make_counted<Items>();
      own->items = std::move(items);
      items_ = std::move(own);
    }
  }
  [[nodiscard]] bool empty() const { return !items_; }
  [[nodiscard]] std::size_t size() const { return items_ ? items_->items.size() : 0; }
  [[nodiscard]] const T* begin() const { return items_ ? items_->items.data() : nullptr; }
  [[nodiscard]] const T* end() const { return begin() + size(); }
  [[nodiscard]] const T& operator[](std::size_t at) const { return items_->items[at]; }

 private:
  struct Items final : Counted {
    std::vector<T> items;
  };
  CountedPointer<const Items> items_;
};

/// One row of SRAM or of a stream: byte part % 4 of each lane of the value; of weights, those of column part / 4.
struct Cell {
  ValuePtr value;
  std::int32_t part = 0;
};

/// The columns of a chip's matrix in the order of their rows in SRAM, four rows each. Their numbers stay where the
/// checkpoint has them.
struct WeightColumns {
  struct Column {
    const std::byte* row = nullptr;  ///< of a stored matrix: the elements that the lanes name; null: padding
    std::int32_t label = -1;         ///< element of the output that it makes; -1: padding
    std::uint16_t tile = 0;
    StoredType type = StoredType::kFloat32;
  };
  std::vector<Column> columns;
  std::vector<LanesPtr> lanes;  ///< per tile
  std::int64_t elements = 0;    ///< of a stored row
};

/// A tile that stands in a pair of MXM planes: its columns, in the order of their install.
struct WeightTile {
  /// Columns that lie side by side in one matrix of weights; else one.
  struct Run {
    Cell first;
    std::int32_t columns = 1;
  };
  std::vector<Run> runs;
  bool is_blocked = false;  ///< lanes are positions of a softmax: sums run in blocks of them

  /// @param column  its first row
  void push_back(Cell column);
};

/// One activation vector that a tile was multiplied with; an accumulator is the list of them.
struct ProductTerm {
  std::shared_ptr<const WeightTile> tile;
  ValuePtr activation;
};

/// What the numbers of a value that came over a link stand for, once its rows are together.
enum class Packed : std::uint8_t { kNo, kCandidate, kChoices };

/// What stands in a group of rows: 320 lanes of fp32, or what a pass has not reduced to that yet.
///
/// Sums that cross tiles stay unevaluated (`terms`, or the elements themselves) until the pass that ends them: it
/// evaluates them in the order of the model's elements, so that no result depends on the partition.
struct NumericValue final : Counted {
  std::int32_t label = -1;     ///< of a column that is multiplied with: the element of the output; -1: padding
  LanesPtr lanes;              ///< null: one number for all lanes
  std::vector<float> numbers;  ///< as many as lanes, or one
  const WeightColumns* weights = nullptr;  ///< owned by the model; a cell's part says which column. Null: none
  RareList<ProductTerm> terms;
  RareList<ExpertChoice> choices;  ///< a router's answer, ascending
  float factor = 0.0F;             ///< with has_factor: numbers are to be multiplied by it, in one fma with a sum
  std::int32_t token = -1;         ///< a candidate's id; its logit is numbers[0]
  bool has_factor = false;
  Packed packed = Packed::kNo;
};

/// A row as a link carries it: byte `part` of each lane's number; a candidate's id and a router's answer are numbers,
/// too.
/// @param bytes  as many as a vector has
void encode(const Cell& row, std::span<std::byte> bytes);

/// The inverse, one row of four: the value holds the row's bytes alone.
[[nodiscard]] Cell decode(std::span<const std::byte> bytes, std::int32_t part, const LanesPtr& lanes, Packed packed);

/// The value that four rows hold together: theirs, where they belong to one value, else lanes put together byte by
/// byte.
/// @return nullptr where rows are missing or have no numbers to be put together
[[nodiscard]] ValuePtr assemble(const Cell* rows, std::int32_t count);
/// Likewise of a column that is installed: weights stay what they are.
[[nodiscard]] Cell assemble_column(const Cell* rows);

/// Sum of all terms, label by label: fp32, lanes = labels in the order of the columns.
[[nodiscard]] ValuePtr evaluate(const NumericKernels& kernels, const std::vector<ProductTerm>& terms);

/// The elements of some vectors, in the layout of `lanes` (its paddings and what none of them has: 0); with null lanes
/// all elements, one vector behind the other, paddings left out.
[[nodiscard]] ValuePtr collect(const std::vector<ValuePtr>& parts, const LanesPtr& lanes);

}  // namespace lpu::node
