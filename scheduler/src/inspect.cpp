#include "lpu/scheduler/inspect.hpp"

#include <algorithm>
#include <cstddef>
#include <iomanip>
#include <ostream>
#include <sstream>

#include "lpu/node/digest.hpp"
#include "lpu/node/quantity_text.hpp"
#include "program_fields.hpp"
#include "selection.hpp"

namespace lpu::scheduler {
namespace {

using node::Instruction;
using node::OperandKind;
using node::Unit;

/// "3", "3 + 2 i0 - i2": loops of one turn add nothing.
template <typename Count, typename Stride>
[[nodiscard]] std::string affine(std::int64_t base, const Count (&count)[3], const Stride (&stride)[3]) {
  std::string out = std::to_string(base);
  for (std::size_t l = 0; l < 3; ++l) {
    const std::int64_t step = +stride[l];  // a number, also where it is stored as a char
    if (count[l] <= 1 || step == 0) {
      continue;
    }
    out += step < 0 ? " - " : " + ";
    if (step != 1 && step != -1) {
      out += std::to_string(step < 0 ? -step : step) + " ";
    }
    out += "i" + std::to_string(l);
  }
  return out;
}

[[nodiscard]] const char* letter(node::Hemisphere hemisphere) {
  return hemisphere == node::Hemisphere::kWest ? "W" : "E";
}

/// "0-7, 9": runs of consecutive numbers.
[[nodiscard]] std::string runs(const std::vector<std::int32_t>& numbers) {
  std::string out;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t end = i + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) {
      ++end;
    }
    out += (out.empty() ? "" : ", ") + std::to_string(numbers[i]);
    if (end - i > 1) {
      out += "-" + std::to_string(numbers[end - 1]);
    }
    i = end;
  }
  return out.empty() ? "none" : out;
}

[[nodiscard]] std::string plural(std::int64_t count, const std::string& noun) {
  return node::with_thousands(count) + " " + noun + (count == 1 ? "" : "s");
}

[[nodiscard]] std::string time(std::int64_t cycles, const node::ChipSpec& chip) {
  return node::cycles_with_time(node::Cycles(cycles), chip.clock);
}

[[nodiscard]] std::string tensor_name(const node::ChipProgram& text, std::uint16_t tensor) {
  return tensor < text.tensors.size() ? text.tensors[tensor].name : "tensor " + std::to_string(tensor);
}

[[nodiscard]] std::string unit_text(const Instruction& instruction) {
  const Unit unit = node::info(instruction.opcode).unit;
  const std::string index = affine(instruction.index, instruction.count, instruction.index_stride);
  std::string out(fields::spelling(unit));
  switch (unit) {
    case Unit::kMem:
    case Unit::kMxm:
      return out + " " + letter(instruction.hemisphere) + index;
    case Unit::kVxm:
      out += " alu " + index;
      return instruction.alus > 1 ? out + "-" + std::to_string(instruction.index + instruction.alus - 1) : out;
    case Unit::kSxm:
      return out + " " + letter(instruction.hemisphere);
    case Unit::kC2c:
      return out + " link " + index;
  }
  return out;
}

[[nodiscard]] std::string loops_text(const Instruction& instruction) {
  std::string out;
  for (std::size_t l = 0; l < 3; ++l) {
    if (instruction.count[l] > 1) {
      out += (out.empty() ? "i" : ", i") + std::to_string(l) + " " + std::to_string(instruction.count[l]) + " x " +
             std::to_string(instruction.period[l]);
    }
  }
  return out.empty() ? "-" : out;
}

[[nodiscard]] std::string held_text(std::uint8_t held) {
  std::string out;
  for (unsigned l = 0; l < 4; ++l) {
    if ((held >> l & 1U) != 0) {
      out += (out.empty() ? " held over i" : ", i") + std::to_string(l);
    }
  }
  return out;
}

/// Loops in whose first turn a compute overwrites: " where i0, i2 = 0"; nothing: always.
[[nodiscard]] std::string first_text(const Instruction& instruction) {
  std::string out;
  for (unsigned l = 0; l < 3; ++l) {
    if ((instruction.mode >> l & 1U) != 0) {
      out += (out.empty() ? " where i" : ", i") + std::to_string(l);
    }
  }
  return out.empty() ? out : out + " = 0";
}

[[nodiscard]] std::string operand_text(const Instruction& instruction,
                                       const node::StreamOperand& operand,
                                       const node::ChipProgram& text) {
  std::string out(operand.kind == OperandKind::kResident ? "tile" : fields::spelling(operand.kind));
  if (operand.kind != OperandKind::kResident) {
    out += std::string(" ") + letter(operand.hemisphere) +
           (operand.direction == node::Direction::kOutward ? "> s" : "< s") + std::to_string(operand.stream);
    if (operand.streams > 1) {
      out += "-" + std::to_string(operand.stream + operand.streams - 1);
    }
    if (operand.stream_stride != 0 && instruction.count[2] > 1) {
      out += (operand.stream_stride < 0 ? " - " : " + ") + std::to_string(std::abs(operand.stream_stride)) + " i2";
    }
    if (operand.kind == OperandKind::kOut) {
      out += " to " + std::to_string(operand.reach);
    }
  }
  out += " " + tensor_name(text, operand.tensor) + "[" + affine(operand.row, instruction.count, operand.row_stride);
  if (operand.is_registered != 0) {
    out += " + r" + std::to_string(instruction.base_register);
  }
  return out + "]" + held_text(operand.held);
}

/// What an instruction says beside its unit, loops and operands.
[[nodiscard]] std::string detail_text(const Instruction& instruction, const node::ChipProgram& text) {
  std::string out;
  const std::string address = affine(instruction.address, instruction.count, instruction.address_stride);
  using node::Opcode;
  const Opcode opcode = instruction.opcode;
  if (opcode == Opcode::kRead || opcode == Opcode::kWrite) {
    out = "at " + address;
    out += opcode == Opcode::kWrite && (instruction.mode & node::kWriteMasked) != 0 ? " masked" : "";
  } else if (opcode == Opcode::kCompute) {
    out = "acc " + address;
    if ((instruction.mode & node::kComputeOverwrites) != 0) {
      out += " overwrite" + first_text(instruction);
    }
  } else if (opcode == Opcode::kDrain) {
    out = "acc " + address + ", sums of " + std::to_string(instruction.argument);
  } else if (opcode == Opcode::kSend || opcode == Opcode::kReceive) {
    out = "t" + std::to_string(instruction.transfer);
    if (instruction.transfer < text.transfers.size()) {
      out += " " + text.transfers[instruction.transfer].name;
    }
    if (opcode == Opcode::kReceive) {
      out += ", waited " + std::to_string(instruction.argument);
    }
  }
  if (instruction.base_register != 0) {
    out += (out.empty() ? "+ r" : " + r") + std::to_string(instruction.base_register);
  }
  return out;
}

/// The first places of a table, and the last.
[[nodiscard]] std::string places_text(const std::vector<node::Displacement>& table) {
  constexpr std::size_t kShown = 3;
  std::string out;
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (i == kShown && table.size() > kShown + 1) {
      out += " ... " + std::to_string(table.size()) + " in all, last";
      i = table.size() - 1;
    }
    out += " (slice " + std::to_string(table[i].slice) + ", address " + std::to_string(table[i].address) + ")";
  }
  return out;
}

[[nodiscard]] std::string register_text(const node::BaseRegister& base) {
  const std::string step = "address " + std::to_string(base.stride) + ", row " + std::to_string(base.row_stride);
  std::string out(fields::spelling(base.kind));
  switch (base.kind) {
    case node::RegisterKind::kNone:
      return out;
    case node::RegisterKind::kBuffer:
      return out + ": " + std::to_string(base.copies) + " copies, each + address " + std::to_string(base.stride);
    case node::RegisterKind::kUser:
    case node::RegisterKind::kAppend: {
      out += ": user " + std::to_string(base.user_in_batch) + " of the batch, one place a user slot:";
      out += places_text(base.table);
      if (base.kind == node::RegisterKind::kAppend) {
        const node::AppendMap& map = base.append;
        out += std::string("; ") + (map.is_column ? "columns" : "masked rows") + " of hemisphere " +
               std::to_string(map.hemisphere) + ", plane " + std::to_string(map.plane) + ", " +
               std::to_string(map.positions_per_tile) + " positions a tile";
      }
      return out;
    }
    case node::RegisterKind::kExpert:
      return out + ": slot " + std::to_string(base.expert_slot) + " of " + std::to_string(base.experts) +
             " experts, each + " + step + ", layer slot " + std::to_string(base.layer_slot);
    case node::RegisterKind::kToken:
      return out + ": user " + std::to_string(base.user_in_batch) + " of the batch, " + std::to_string(base.experts) +
             " tokens in " + std::to_string(base.table.size()) + " pieces, each + " + step;
    case node::RegisterKind::kPosition:
      return out + ": each + " + step;
  }
  return out;
}

/// Text cut at spaces into lines that stand under each other behind a label.
std::string wrapped(const std::string& text) {
  constexpr std::size_t kLabel = 12;
  constexpr std::size_t kWidth = 108;
  std::string out;
  std::size_t begin = 0;
  while (text.size() - begin > kWidth) {
    const std::size_t space = text.rfind(' ', begin + kWidth);
    if (space == std::string::npos || space <= begin) {
      break;
    }
    out += text.substr(begin, space - begin) + "\n" + std::string(kLabel, ' ');
    begin = space + 1;
  }
  return out + text.substr(begin);
}

void print_header(const ClusterProgram& program, std::ostream& out) {
  const node::ChipSpec& chip = program.chip;
  out << "program     " << program.model << ", tp " << program.tensor_parallel << " x pp " << program.pipeline_parallel
      << " on " << plural(program.chips, "chip") << " of " << chip.name << " at "
      << node::format_quantity(chip.clock.count(), node::Dimension::kHertz) << "\n"
      << "digest      " << node::to_hex(schedule_digest(program)) << "\n"
      << "interval    " << time(program.initiation_interval, chip) << "\n"
      << "latency     " << time(program.token_latency, chip) << " a token\n"
      << "busy span   " << time(program.busy_span, chip) << "\n"
      << "users       " << plural(program.user_slots, "slot") << ", micro-batch " << program.plan.micro_batch
      << ", context " << node::with_thousands(program.plan.context) << "\n";
  if (program.plan.experts > 0) {
    out << "experts     " << program.plan.experts << ", " << program.plan.experts_per_token << " a token, "
        << program.plan.expert_slots << " slots\n";
  }
  out << "texts       " << program.texts.size() << " distinct\n"
      << "inputs      " << wrapped(program.inputs) << "\n";
}

void print_bindings(const ClusterProgram& program, const Selection& selection, std::ostream& out) {
  out << "\n  chip  text  stage  place  layer        offset  link:peer.link, slots\n";
  for (const node::ChipBinding& binding : program.bindings) {
    if (!selection.has_chip(binding.chip)) {
      continue;
    }
    out << std::setw(6) << binding.chip;
    if (binding.text < 0) {
      out << "  idle\n";
      continue;
    }
    out << std::setw(6) << binding.text << std::setw(7) << binding.stage << std::setw(7) << binding.group_position
        << std::setw(7) << binding.first_layer << std::setw(14) << node::with_thousands(binding.offset) << "  ";
    const char* separator = "";
    for (std::size_t link = 0; link < binding.peers.size(); ++link) {
      if (binding.peers[link].chip >= 0) {
        out << separator << link << ":" << binding.peers[link].chip << "." << binding.peers[link].link;
        separator = " ";
      }
    }
    if (!binding.slot_owner.empty()) {
      out << separator << "slots";
      for (const std::int32_t owner : binding.slot_owner) {
        out << " " << owner;
      }
    }
    out << "\n";
  }
}

void print_counts(const char* what, const std::vector<node::OperationCount>& counts, std::ostream& out) {
  for (std::size_t i = 0; i < counts.size(); ++i) {
    out << (i == 0 ? what : ", ") << fields::spelling(counts[i].opcode) << " x " << counts[i].vectors;
  }
}

void print_memory(const node::ChipProgram& text, std::ostream& out) {
  for (std::size_t t = 0; t < text.tensors.size(); ++t) {
    const node::Tensor& tensor = text.tensors[t];
    out << "    " << tensor.name << ": " << plural(tensor.rows, "row") << ", " << fields::spelling(tensor.scope) << ", "
        << fields::spelling(tensor.owner);
    if (tensor.owner == node::TensorOwner::kGathered) {
      out << " (" << tensor.rows_per_slot << " rows a slot)";
    }
    out << ", layer slot " << tensor.layer_slot;
    for (std::size_t i = 0; i < tensor.sources.size(); ++i) {
      out << (i == 0 ? ", from " : ", ") << tensor_name(text, tensor.sources[i]);
    }
    print_counts(", made by ", tensor.made_by, out);
    print_counts(", used by ", tensor.used_by, out);
    out << "\n";
    for (const node::Allocation& allocation : text.allocations) {
      if (allocation.tensor != t) {
        continue;
      }
      out << "      " << letter(allocation.hemisphere)
          << affine(allocation.slice, allocation.count, allocation.slice_stride) << " at "
          << affine(allocation.address, allocation.count, allocation.address_stride);
      if (allocation.base_register != 0) {
        out << " + r" << static_cast<int>(allocation.base_register);
      }
      out << ": rows " << affine(allocation.row, allocation.count, allocation.row_stride);
      for (std::size_t l = 0; l < 3; ++l) {
        if (allocation.count[l] > 1) {
          out << ", i" << l << " < " << allocation.count[l];
        }
      }
      out << "\n";
    }
  }
}

void print_instructions(const ClusterProgram& program,
                        const Selection& selection,
                        const node::ChipProgram& text,
                        std::ostream& out) {
  out << "  instructions\n   index     cycle         us  unit              loops\n";
  for (std::size_t i = 0; i < text.instructions.size(); ++i) {
    const Instruction& instruction = text.instructions[i];
    if (selection.has(instruction)) {
      const double us = node::to_microseconds(node::Cycles(instruction.start), program.chip.clock);
      out << std::setw(8) << i << std::setw(10) << instruction.start << std::setw(11) << node::fixed(us, 3) << "  "
          << describe(instruction, text, program.chip) << "\n";
    }
  }
}

void print_text(const ClusterProgram& program, const Selection& selection, std::size_t at, std::ostream& out) {
  const node::ChipProgram& text = program.texts[at];
  out << "\ntext " << at << ": chips " << runs(chips_of(program, static_cast<std::int32_t>(at))) << "; "
      << plural(text.layers, "layer") << ", "
      << plural(static_cast<std::int64_t>(text.instructions.size()), "instruction") << ", makespan "
      << time(text.makespan, program.chip) << "\n";
  out << "  tensors\n";
  print_memory(text, out);
  if (text.registers.size() > 1) {
    out << "  registers\n";
    for (std::size_t r = 1; r < text.registers.size(); ++r) {
      out << "    r" << r << " " << register_text(text.registers[r]) << "\n";
    }
  }
  if (!text.transfers.empty()) {
    out << "  transfers\n";
    for (std::size_t t = 0; t < text.transfers.size(); ++t) {
      out << "    t" << t << " " << text.transfers[t].name << ", layer slot " << text.transfers[t].layer_slot << ": "
          << plural(text.transfers[t].vectors, "vector") << " a link\n";
    }
  }
  print_instructions(program, selection, text, out);
}

}  // namespace

std::string describe(const Instruction& instruction, const node::ChipProgram& text, const node::ChipSpec& chip) {
  std::ostringstream out;
  const std::string place = unit_text(instruction) + " @" + std::to_string(node::unit_position(instruction, chip));
  out << std::left << std::setw(16) << place << "  " << std::setw(20) << loops_text(instruction) << "  " << std::setw(8)
      << node::info(instruction.opcode).name;
  std::string separator = "  ";
  const auto add = [&](const std::string& part) {
    if (!part.empty()) {
      out << separator << part;
      separator = "; ";
    }
  };
  add(detail_text(instruction, text));
  for (const node::StreamOperand& operand : instruction.operands) {
    if (operand.kind != OperandKind::kNone) {
      add(operand_text(instruction, operand, text));
    }
  }
  return std::move(out).str();
}

void inspect(const ClusterProgram& program, const InspectOptions& options, std::ostream& out) {
  const Selection selection(program, options);
  print_header(program, out);
  print_bindings(program, selection, out);
  for (std::size_t text = 0; text < program.texts.size(); ++text) {
    if (selection.has_text(text)) {
      print_text(program, selection, text, out);
    }
  }
}

}  // namespace lpu::scheduler
