#include "program_fields.hpp"

namespace lpu::scheduler::fields {

// Switches without a default: a new enumerator without a spelling is a warning.

std::string_view spelling(node::Opcode value) {
  const auto table = node::opcode_table();
  const auto at = static_cast<std::size_t>(value);
  return at < table.size() ? table[at].name : std::string_view{};
}

std::string_view spelling(node::Hemisphere value) {
  switch (value) {
    case node::Hemisphere::kWest:
      return "west";
    case node::Hemisphere::kEast:
      return "east";
  }
  return {};
}

std::string_view spelling(node::Direction value) {
  switch (value) {
    case node::Direction::kOutward:
      return "outward";
    case node::Direction::kInward:
      return "inward";
  }
  return {};
}

std::string_view spelling(node::OperandKind value) {
  switch (value) {
    case node::OperandKind::kNone:
      return "none";
    case node::OperandKind::kIn:
      return "in";
    case node::OperandKind::kOut:
      return "out";
    case node::OperandKind::kResident:
      return "resident";
  }
  return {};
}

std::string_view spelling(node::TensorScope value) {
  switch (value) {
    case node::TensorScope::kStatic:
      return "static";
    case node::TensorScope::kCache:
      return "cache";
    case node::TensorScope::kIteration:
      return "iteration";
  }
  return {};
}

std::string_view spelling(node::TensorOwner value) {
  switch (value) {
    case node::TensorOwner::kChip:
      return "chip";
    case node::TensorOwner::kReplicated:
      return "replicated";
    case node::TensorOwner::kGathered:
      return "gathered";
  }
  return {};
}

std::string_view spelling(node::RegisterKind value) {
  switch (value) {
    case node::RegisterKind::kNone:
      return "none";
    case node::RegisterKind::kBuffer:
      return "buffer";
    case node::RegisterKind::kUser:
      return "user";
    case node::RegisterKind::kAppend:
      return "append";
    case node::RegisterKind::kExpert:
      return "expert";
    case node::RegisterKind::kToken:
      return "token";
    case node::RegisterKind::kPosition:
      return "position";
  }
  return {};
}

std::string_view spelling(node::OperatorPart value) {
  switch (value) {
    case node::OperatorPart::kInstall:
      return "install";
    case node::OperatorPart::kActivationSlots:
      return "activation_slots";
    case node::OperatorPart::kFill:
      return "fill";
    case node::OperatorPart::kVxm:
      return "vxm";
    case node::OperatorPart::kSxm:
      return "sxm";
    case node::OperatorPart::kAttention:
      return "attention";
    case node::OperatorPart::kRouter:
      return "router";
    case node::OperatorPart::kWires:
      return "wires";
    case node::OperatorPart::kWaiting:
      return "waiting";
    case node::OperatorPart::kHop:
      return "hop";
    case node::OperatorPart::kEnds:
      return "ends";
  }
  return {};
}

std::string_view spelling(node::Unit value) {
  switch (value) {
    case node::Unit::kMem:
      return "mem";
    case node::Unit::kMxm:
      return "mxm";
    case node::Unit::kVxm:
      return "vxm";
    case node::Unit::kSxm:
      return "sxm";
    case node::Unit::kC2c:
      return "c2c";
  }
  return {};
}

}  // namespace lpu::scheduler::fields
