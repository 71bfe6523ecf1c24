#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "lpu/scheduler/cluster_program.hpp"

/// The fields of a program's structs, named once: program files, listings and the assembler all walk these tables, so
/// that none can know a field that the others do not.
namespace lpu::scheduler::fields {

/// A data member under the name that listings give it (units in the name, where the type does not say them).
template <typename Struct, typename Value>
struct Field {
  std::string_view name;
  Value Struct::*member;
};
template <typename Struct, typename Value>
Field(std::string_view, Value Struct::*) -> Field<Struct, Value>;

/// Fields that a pointer to member cannot name with their meaning: two that are bits of one byte, and an enumerator
/// that is stored as a number.
struct HeldField {
  static constexpr std::uint8_t kMost = 15;
  std::string_view name = "held";
};
struct RegisteredField {
  std::string_view name = "registered";
};
struct PartField {
  std::string_view name = "part";
};

template <typename Struct, typename Value>
[[nodiscard]] const Value& get(const Struct& from, const Field<Struct, Value>& field) {
  return from.*(field.member);
}
[[nodiscard]] inline std::uint8_t get(const node::StreamOperand& from, const HeldField& /*field*/) {
  return from.held;
}
[[nodiscard]] inline bool get(const node::StreamOperand& from, const RegisteredField& /*field*/) {
  return from.is_registered != 0;
}
[[nodiscard]] inline node::OperatorPart get(const node::Instruction& from, const PartField& /*field*/) {
  return static_cast<node::OperatorPart>(from.operator_part);
}

/// Hands `change` a value to write to, and stores it.
template <typename Struct, typename Value, typename Change>
void set(Struct& to, const Field<Struct, Value>& field, const Change& change) {
  change(to.*(field.member));
}
template <typename Change>
void set(node::StreamOperand& to, const HeldField& /*field*/, const Change& change) {
  std::uint8_t value = to.held;
  change(value);
  to.held = value & 0xfU;
}
template <typename Change>
void set(node::StreamOperand& to, const RegisteredField& /*field*/, const Change& change) {
  bool value = to.is_registered != 0;
  change(value);
  to.is_registered = value ? 1U : 0U;
}
template <typename Change>
void set(node::Instruction& to, const PartField& field, const Change& change) {
  node::OperatorPart value = get(to, field);
  change(value);
  to.operator_part = static_cast<std::uint8_t>(value);
}

/// Table<Struct>::fields is the tuple of a struct's fields. `is_sparse`: files hold only those that differ from the
/// default.
template <typename Struct>
struct Table;

template <>
struct Table<node::StreamOperand> {
  using S = node::StreamOperand;
  static constexpr bool kSparse = true;
  static constexpr std::tuple kFields{Field{"kind", &S::kind},
                                      Field{"hemisphere", &S::hemisphere},
                                      Field{"direction", &S::direction},
                                      Field{"stream", &S::stream},
                                      Field{"streams", &S::streams},
                                      Field{"stream_stride", &S::stream_stride},
                                      Field{"reach", &S::reach},
                                      HeldField{},
                                      RegisteredField{},
                                      Field{"tensor", &S::tensor},
                                      Field{"row", &S::row},
                                      Field{"row_stride", &S::row_stride}};
};

template <>
struct Table<node::Instruction> {
  using S = node::Instruction;
  static constexpr bool kSparse = true;
  static constexpr std::tuple kFields{Field{"opcode", &S::opcode},
                                      Field{"hemisphere", &S::hemisphere},
                                      Field{"unit_index", &S::index},
                                      Field{"alus", &S::alus},
                                      Field{"start_cycle", &S::start},
                                      Field{"count", &S::count},
                                      Field{"period_cycles", &S::period},
                                      Field{"index_stride", &S::index_stride},
                                      Field{"address", &S::address},
                                      Field{"address_stride", &S::address_stride},
                                      Field{"base_register", &S::base_register},
                                      Field{"mode", &S::mode},
                                      Field{"transfer", &S::transfer},
                                      Field{"argument", &S::argument},
                                      PartField{},
                                      Field{"operands", &S::operands}};
};

template <>
struct Table<node::OperationCount> {
  using S = node::OperationCount;
  static constexpr bool kSparse = false;
  static constexpr std::tuple kFields{Field{"opcode", &S::opcode}, Field{"vectors", &S::vectors}};
};

template <>
struct Table<node::Tensor> {
  using S = node::Tensor;
  static constexpr bool kSparse = false;
  static constexpr std::tuple kFields{Field{"name", &S::name},
                                      Field{"scope", &S::scope},
                                      Field{"owner", &S::owner},
                                      Field{"layer_slot", &S::layer_slot},
                                      Field{"rows", &S::rows},
                                      Field{"rows_per_slot", &S::rows_per_slot},
                                      Field{"sources", &S::sources},
                                      Field{"made_by", &S::made_by},
                                      Field{"used_by", &S::used_by}};
};

template <>
struct Table<node::Allocation> {
  using S = node::Allocation;
  static constexpr bool kSparse = true;
  static constexpr std::tuple kFields{Field{"tensor", &S::tensor},
                                      Field{"hemisphere", &S::hemisphere},
                                      Field{"base_register", &S::base_register},
                                      Field{"row", &S::row},
                                      Field{"slice", &S::slice},
                                      Field{"address", &S::address},
                                      Field{"count", &S::count},
                                      Field{"row_stride", &S::row_stride},
                                      Field{"slice_stride", &S::slice_stride},
                                      Field{"address_stride", &S::address_stride}};
};

template <>
struct Table<node::Displacement> {
  using S = node::Displacement;
  static constexpr bool kSparse = true;
  static constexpr std::tuple kFields{Field{"slice", &S::slice},
                                      Field{"address", &S::address},
                                      Field{"row", &S::row},
                                      Field{"enabled", &S::is_enabled}};
};

template <>
struct Table<node::AppendMap> {
  using S = node::AppendMap;
  static constexpr bool kSparse = true;
  static constexpr std::tuple kFields{Field{"is_column", &S::is_column},
                                      Field{"positions_per_tile", &S::positions_per_tile},
                                      Field{"planes", &S::planes},
                                      Field{"hemisphere", &S::hemisphere},
                                      Field{"plane", &S::plane},
                                      Field{"columns", &S::columns},
                                      Field{"slice_stride", &S::slice_stride},
                                      Field{"first_column", &S::first_column},
                                      Field{"columns_per_cycle", &S::columns_per_cycle},
                                      Field{"round_stride", &S::round_stride},
                                      Field{"row_stride", &S::row_stride}};
};

template <>
struct Table<node::BaseRegister> {
  using S = node::BaseRegister;
  static constexpr bool kSparse = true;
  static constexpr std::tuple kFields{Field{"kind", &S::kind},
                                      Field{"copies", &S::copies},
                                      Field{"stride", &S::stride},
                                      Field{"row_stride", &S::row_stride},
                                      Field{"user_in_batch", &S::user_in_batch},
                                      Field{"expert_slot", &S::expert_slot},
                                      Field{"experts", &S::experts},
                                      Field{"layer_slot", &S::layer_slot},
                                      Field{"append", &S::append},
                                      Field{"table", &S::table}};
};

template <>
struct Table<node::Transfer> {
  using S = node::Transfer;
  static constexpr bool kSparse = false;
  static constexpr std::tuple kFields{
      Field{"name", &S::name}, Field{"layer_slot", &S::layer_slot}, Field{"vectors", &S::vectors}};
};

/// Without the lists, which listings give a line an element.
template <>
struct Table<node::ChipProgram> {
  using S = node::ChipProgram;
  static constexpr bool kSparse = false;
  static constexpr std::tuple kFields{Field{"layers", &S::layers}, Field{"makespan_cycles", &S::makespan}};
};

template <>
struct Table<node::LinkPeer> {
  using S = node::LinkPeer;
  static constexpr bool kSparse = false;
  static constexpr std::tuple kFields{Field{"chip", &S::chip}, Field{"link", &S::link}};
};

template <>
struct Table<node::ChipBinding> {
  using S = node::ChipBinding;
  static constexpr bool kSparse = false;
  static constexpr std::tuple kFields{Field{"chip", &S::chip},
                                      Field{"text", &S::text},
                                      Field{"stage", &S::stage},
                                      Field{"group_position", &S::group_position},
                                      Field{"first_layer", &S::first_layer},
                                      Field{"offset_cycles", &S::offset},
                                      Field{"peers", &S::peers},
                                      Field{"slot_owner", &S::slot_owner}};
};

template <>
struct Table<node::IterationPlan> {
  using S = node::IterationPlan;
  static constexpr bool kSparse = false;
  static constexpr std::tuple kFields{Field{"initiation_interval_cycles", &S::initiation_interval},
                                      Field{"token_period_cycles", &S::token_period},
                                      Field{"groups", &S::groups},
                                      Field{"micro_batch", &S::micro_batch},
                                      Field{"context", &S::context},
                                      Field{"vocabulary", &S::vocabulary},
                                      Field{"experts", &S::experts},
                                      Field{"experts_per_token", &S::experts_per_token},
                                      Field{"expert_slots", &S::expert_slots},
                                      Field{"seed", &S::seed}};
};

template <>
struct Table<node::ChipSpec> {
  using S = node::ChipSpec;
  static constexpr bool kSparse = false;
  static constexpr std::tuple kFields{Field{"name", &S::name},
                                      Field{"clock_hz", &S::clock},
                                      Field{"superlanes", &S::superlanes},
                                      Field{"lanes_per_superlane", &S::lanes_per_superlane},
                                      Field{"vector_bytes", &S::vector_bytes},
                                      Field{"slices_per_hemisphere", &S::slices_per_hemisphere},
                                      Field{"banks_per_slice", &S::banks_per_slice},
                                      Field{"vectors_per_slice", &S::vectors_per_slice},
                                      Field{"streams_per_direction", &S::streams_per_direction},
                                      Field{"mxm_planes_per_hemisphere", &S::mxm_planes_per_hemisphere},
                                      Field{"mxm_rows", &S::mxm_rows},
                                      Field{"mxm_columns", &S::mxm_columns},
                                      Field{"mxm_install_columns_per_cycle", &S::mxm_install_columns_per_cycle},
                                      Field{"mxm_accumulators_per_plane", &S::mxm_accumulators_per_plane},
                                      Field{"vxm_alus", &S::vxm_alus},
                                      Field{"sxm_streams_per_cycle", &S::sxm_streams_per_cycle},
                                      Field{"icu_queues", &S::icu_queues},
                                      Field{"fetch_bytes_per_cycle", &S::fetch_bytes_per_cycle},
                                      Field{"instruction_bytes", &S::instruction_bytes},
                                      Field{"loop_bytes", &S::loop_bytes},
                                      Field{"slices_per_position", &S::slices_per_position},
                                      Field{"vxm_position", &S::vxm_position},
                                      Field{"sxm_position", &S::sxm_position},
                                      Field{"mxm_position", &S::mxm_position},
                                      Field{"instruction_propagation_cycles", &S::instruction_propagation},
                                      Field{"vxm_latency_cycles", &S::vxm_latency},
                                      Field{"vxm_transcendental_latency_cycles", &S::vxm_transcendental_latency},
                                      Field{"mxm_latency_cycles", &S::mxm_latency},
                                      Field{"sxm_latency_cycles", &S::sxm_latency},
                                      Field{"local_links", &S::local_links},
                                      Field{"global_links", &S::global_links},
                                      Field{"link_hemisphere", &S::link_hemisphere},
                                      Field{"link_queue_vectors", &S::link_queue_vectors},
                                      Field{"link_serialisation_cycles", &S::link_serialisation},
                                      Field{"link_flight_cycles", &S::link_flight},
                                      Field{"c2c_endpoint_cycles", &S::c2c_endpoint},
                                      Field{"moe_routing_cycles", &S::moe_routing},
                                      Field{"link_rate_bytes_per_second", &S::link_rate},
                                      Field{"link_overhead_bytes", &S::link_overhead_bytes},
                                      Field{"die_links", &S::die_links},
                                      Field{"lanes_per_link", &S::lanes_per_link},
                                      Field{"lane_rate_bytes_per_second", &S::lane_rate},
                                      Field{"pcie_rate_bytes_per_second", &S::pcie_rate},
                                      Field{"pcie_latency_cycles", &S::pcie_latency},
                                      Field{"power_average_milliwatts", &S::power_average}};
};

/// What stands before texts and bindings. The initiation interval is the plan's: one place to edit.
template <>
struct Table<ClusterProgram> {
  using S = ClusterProgram;
  static constexpr bool kSparse = false;
  static constexpr std::tuple kFields{Field{"model", &S::model},
                                      Field{"chips", &S::chips},
                                      Field{"tensor_parallel", &S::tensor_parallel},
                                      Field{"pipeline_parallel", &S::pipeline_parallel},
                                      Field{"user_slots", &S::user_slots},
                                      Field{"token_latency_cycles", &S::token_latency},
                                      Field{"busy_span_cycles", &S::busy_span},
                                      Field{"clockwork", &S::plan},
                                      Field{"chip", &S::chip}};
};

// A field that is added to a struct must be added to its table: the sizes (of this ABI) are the reminder.
#if defined(__GLIBCXX__) && defined(__x86_64__)
static_assert(sizeof(node::StreamOperand) == 20 && sizeof(node::Instruction) == 128 &&
              sizeof(node::OperationCount) == 16 && sizeof(node::Tensor) == 120 && sizeof(node::Allocation) == 68 &&
              sizeof(node::Displacement) == 12 && sizeof(node::AppendMap) == 44 && sizeof(node::BaseRegister) == 104 &&
              sizeof(node::Transfer) == 40 && sizeof(node::ChipProgram) == 128 && sizeof(node::LinkPeer) == 8 &&
              sizeof(node::ChipBinding) == 80 && sizeof(node::IterationPlan) == 56 && sizeof(node::ChipSpec) == 288 &&
              sizeof(ClusterProgram) == 496);
#endif

template <typename T>
concept Struct = requires {
  Table<T>::kFields;
};

/// Calls visit(field) for each field, in order.
template <Struct S, typename Visit>
void each(const Visit& visit) {
  std::apply([&visit](const auto&... field) { (visit(field), ...); }, Table<S>::kFields);
}

/// Spelling of an enumerator in listings; empty beyond the last one. Values are counted from 0 without gaps.
[[nodiscard]] std::string_view spelling(node::Opcode value);
[[nodiscard]] std::string_view spelling(node::Hemisphere value);
[[nodiscard]] std::string_view spelling(node::Direction value);
[[nodiscard]] std::string_view spelling(node::OperandKind value);
[[nodiscard]] std::string_view spelling(node::TensorScope value);
[[nodiscard]] std::string_view spelling(node::TensorOwner value);
[[nodiscard]] std::string_view spelling(node::RegisterKind value);
[[nodiscard]] std::string_view spelling(node::OperatorPart value);
[[nodiscard]] std::string_view spelling(node::Unit value);

template <typename Enum>
[[nodiscard]] bool is_enumerator(std::uint64_t value) {
  return value < 256 && !spelling(static_cast<Enum>(value)).empty();
}

}  // namespace lpu::scheduler::fields
