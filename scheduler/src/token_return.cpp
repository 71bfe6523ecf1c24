#include "token_return.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "lpu/interconnect/route.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity.hpp"
#include "reservation_table.hpp"
#include "stage_builder.hpp"

namespace lpu::scheduler {

using node::ChipProgram;
using node::Direction;
using node::Hemisphere;
using node::Instruction;
using node::Opcode;
using node::OperandKind;
using node::OperatorPart;
using node::StreamOperand;

namespace {

/// Where a register operand may fall: derived from what the register holds.
RegisterReach reach_of(const ChipProgram& text, const Instruction& in, std::int32_t context) {
  RegisterReach out;
  if (in.base_register == 0 || node::info(in.opcode).unit != node::Unit::kMem) {
    return out;
  }
  const node::BaseRegister& base = text.registers[in.base_register];
  std::set<std::int32_t> slices;
  for (const node::Displacement& at : node::all_displacements(base, std::min(context, 4096))) {
    slices.insert(at.slice);
    out.both_banks = out.both_banks || at.address % 2 != 0;
  }
  out.slices.assign(slices.begin(), slices.end());
  return out;
}

/// Visit the loop indices and the cycle of every instance.
template <typename Visit>
void for_each_turn(const Instruction& in, Visit&& visit) {
  for (std::int32_t a = 0; a < in.count[0]; ++a) {
    for (std::int32_t b = 0; b < in.count[1]; ++b) {
      for (std::int32_t c = 0; c < in.count[2]; ++c) {
        visit(a,
              b,
              c,
              std::int64_t{in.start} + std::int64_t{a} * in.period[0] + std::int64_t{b} * in.period[1] +
                  std::int64_t{c} * in.period[2]);
      }
    }
  }
}

enum class Commit : std::uint8_t { kProbe, kTake };

/// A chip's text with room for more: what is taken in steady state, and the links' passages.
class Extension {
 public:
  Extension(const node::ChipSpec& chip, ChipProgram text, std::int64_t period, std::int32_t context)
      : chip_(chip), context_(context), text_(std::move(text)), table_(chip, period), links_(chip, period) {
    std::map<std::int32_t, std::vector<std::int64_t>> pushes;
    for (const Instruction& in : text_.instructions) {
      const bool is_free = table_.try_units(in, 0, reach_of(text_, in, context));
      LPU_CHECK(is_free, "a text meets itself");
      for (const StreamOperand& operand : in.operands) {
        if (operand.kind == OperandKind::kOut) {
          LPU_CHECK(table_.try_stream(in, 0, operand), "streams of a text meet");
        }
      }
      if (node::info(in.opcode).unit == node::Unit::kC2c) {
        record(in, pushes);
      }
      table_.clear_log();  // nothing of it is ever given back
    }
    for (auto& [link, at] : pushes) {
      std::sort(at.begin(), at.end());
      for (const std::int64_t push : at) {
        const std::int64_t start = links_.start_of(link, push);
        LPU_CHECK(start >= 0, "a link's queue overflows");
        links_.send(link, push, start);
      }
    }
  }

  ChipProgram& text() { return text_; }

  /// A scratch row in both hemispheres' slice 0, behind what lies there.
  void add_row(const std::string& name, std::int32_t layer_slot) {
    std::vector<bool> is_taken(static_cast<std::size_t>(chip_.vectors_per_slice), false);
    for (const node::Allocation& a : text_.allocations) {
      const node::BaseRegister& base = text_.registers[a.base_register];
      std::int32_t copies = std::max(base.copies, 1);
      if (base.kind == node::RegisterKind::kPosition) {
        copies = context_;
      } else if (base.kind == node::RegisterKind::kExpert) {
        copies = base.experts;
      }
      for (std::int32_t x = 0; x < a.count[0]; ++x) {
        for (std::int32_t y = 0; y < a.count[1]; ++y) {
          for (std::int32_t z = 0; z < a.count[2]; ++z) {
            if (a.slice + x * a.slice_stride[0] + y * a.slice_stride[1] + z * a.slice_stride[2] != 0) {
              continue;
            }
            for (std::int32_t copy = 0; copy < copies; ++copy) {
              is_taken[static_cast<std::size_t>(a.address + x * a.address_stride[0] + y * a.address_stride[1] +
                                                z * a.address_stride[2] + copy * base.stride)] = true;
            }
          }
        }
      }
    }
    address_ = static_cast<std::int32_t>(std::find(is_taken.begin(), is_taken.end(), false) - is_taken.begin());
    LPU_CHECK(address_ < chip_.vectors_per_slice, "scratch is full");
    text_.tensors.push_back(
        {.name = name, .owner = node::TensorOwner::kReplicated, .layer_slot = layer_slot, .rows = 1, .sources = {}});
    tensor_ = static_cast<std::uint16_t>(text_.tensors.size() - 1);
    text_.tensors.back().sources.push_back(tensor_);
    for (const Hemisphere hemisphere : {Hemisphere::kWest, Hemisphere::kEast}) {
      text_.allocations.push_back({.tensor = tensor_, .hemisphere = hemisphere, .slice = 0, .address = address_});
    }
  }

  /// Which of the token's rows (users of the micro-batch) it is.
  void set_row(std::int32_t row) {
    row_ = row;
    text_.tensors[tensor_].rows = row + 1;
    for (std::size_t i = text_.allocations.size() - 2; i < text_.allocations.size(); ++i) {
      text_.allocations[i].row = row;
    }
    use_received();
  }

  std::uint16_t transfer(const std::string& name, std::int32_t layer_slot) {
    text_.transfers.push_back({name, layer_slot, 1});
    return static_cast<std::uint16_t>(text_.transfers.size() - 1);
  }

  /// Send the row on links, not before `earliest`, at a time that suits the receivers: start on the wire.
  template <typename Accept>
  std::int64_t send(const std::vector<std::int32_t>& links,
                    std::uint16_t transfer,
                    std::int64_t earliest,
                    Accept&& accept) {
    const std::int64_t lead = chip_.sxm_position - chip_.slice_position(source_[0].index);
    for (std::int64_t at = earliest; at < earliest + table_.period(); ++at) {
      std::int64_t start = -2;
      const bool may = std::all_of(links.begin(), links.end(), [&](std::int32_t link) {
        const std::int64_t found = links_.start_of(link, at + lead);
        const bool agrees = found >= 0 && (start == -2 || start == found);
        start = found;
        return agrees;
      });
      if (!may || !accept(start)) {
        continue;
      }
      std::vector<Instruction> group;
      std::array<bool, 2> is_read{};
      for (const std::int32_t link : links) {
        const Hemisphere hemisphere = chip_.link_hemisphere[static_cast<std::size_t>(link)];
        if (!is_read[static_cast<std::size_t>(hemisphere)]) {
          is_read[static_cast<std::size_t>(hemisphere)] = true;
          Instruction read = source_[static_cast<std::size_t>(hemisphere)];
          read.start = static_cast<std::int32_t>(at);
          read.hemisphere = hemisphere;
          read.operands[0].kind = OperandKind::kOut;
          read.operands[0].hemisphere = hemisphere;
          read.operands[0].reach = static_cast<std::uint8_t>(chip_.sxm_position);
          group.push_back(read);
        }
        Instruction out;
        out.opcode = Opcode::kSend;
        out.start = static_cast<std::int32_t>(at + lead);
        out.hemisphere = hemisphere;
        out.index = static_cast<std::uint8_t>(link);
        out.transfer = transfer;
        out.operands[0] = source_[0].operands[0];
        out.operands[0].kind = OperandKind::kIn;
        out.operands[0].hemisphere = hemisphere;
        group.push_back(out);
      }
      if (place(group, Commit::kTake)) {
        for (const std::int32_t link : links) {
          links_.send(link, at + lead, start);
        }
        text_.makespan = std::max(text_.makespan, static_cast<std::int32_t>(start + chip_.link_serialisation.count()));
        return start;
      }
    }
    throw NoWayBack("no slot for the token's way back in an interval of " + std::to_string(table_.period()) +
                    " cycles");
  }

  /// Take the row from a link into both hemispheres: cycle from which it can be read;
  /// -1 where no slot is free. A probe takes nothing.
  std::int64_t receive(std::int32_t link, std::uint16_t transfer, std::int64_t arrival, Commit commit) {
    const Hemisphere hemisphere = chip_.link_hemisphere[static_cast<std::size_t>(link)];
    const Hemisphere other = hemisphere == Hemisphere::kWest ? Hemisphere::kEast : Hemisphere::kWest;
    const std::int64_t inward = chip_.sxm_position - chip_.slice_position(0);
    const std::int64_t to_vxm = chip_.sxm_position - chip_.vxm_position;
    for (std::int64_t wait = 0; wait <= (chip_.link_queue_vectors - 1) * chip_.link_serialisation.count(); ++wait) {
      if (!links_.may_take(link, arrival, arrival + wait)) {
        continue;
      }
      const std::int64_t at = arrival + wait;
      const auto row = [&](OperandKind kind, Hemisphere side, Direction direction, std::int32_t reach) {
        StreamOperand operand;
        operand.kind = kind;
        operand.hemisphere = side;
        operand.direction = direction;
        operand.reach = static_cast<std::uint8_t>(reach);
        operand.tensor = tensor_;
        operand.row = row_;
        return operand;
      };
      Instruction take;
      take.opcode = Opcode::kReceive;
      take.start = static_cast<std::int32_t>(at);
      take.hemisphere = hemisphere;
      take.index = static_cast<std::uint8_t>(link);
      take.transfer = transfer;
      take.argument = static_cast<std::int32_t>(wait);
      take.operands[0] = row(OperandKind::kOut, hemisphere, Direction::kInward, chip_.vxm_position);
      Instruction near = source_[0];
      near.opcode = Opcode::kWrite;
      near.start = static_cast<std::int32_t>(at + inward);
      near.hemisphere = hemisphere;
      near.operands[0] = row(OperandKind::kIn, hemisphere, Direction::kInward, 0);
      Instruction copy;
      copy.opcode = Opcode::kCopy;
      copy.start = static_cast<std::int32_t>(at + to_vxm);
      copy.index = 15;
      copy.alus = 1;
      copy.operands[0] = row(OperandKind::kIn, hemisphere, Direction::kInward, 0);
      copy.operands[1] = row(OperandKind::kOut, other, Direction::kOutward, chip_.slice_position(0));
      Instruction far = near;
      far.start = static_cast<std::int32_t>(at + to_vxm + chip_.vxm_latency.count() + chip_.slice_position(0) -
                                            chip_.vxm_position);
      far.hemisphere = other;
      far.operands[0] = row(OperandKind::kIn, other, Direction::kOutward, 0);
      if (place({take, near, copy, far}, commit)) {
        if (commit == Commit::kProbe) {
          return far.start;
        }
        links_.receive(link, arrival, at);
        text_.makespan =
            std::max(text_.makespan, static_cast<std::int32_t>(far.start + chip_.instruction_propagation.count() + 1));
        return far.start + chip_.instruction_propagation.count() + 1;
      }
    }
    return -1;
  }

  /// The row that send() reads: the token's own at the last stage, the received one elsewhere.
  void use_row(const node::Allocation& at) {
    Instruction& source = source_[static_cast<std::size_t>(at.hemisphere)];
    source = {};
    source.opcode = Opcode::kRead;
    source.hemisphere = at.hemisphere;
    source.index = static_cast<std::uint8_t>(at.slice);
    source.address = static_cast<std::uint16_t>(at.address);
    source.base_register = at.base_register;
    source.operands[0].tensor = at.tensor;
    source.operands[0].row = at.row;
  }
  void use_received() {
    for (const Hemisphere hemisphere : {Hemisphere::kWest, Hemisphere::kEast}) {
      use_row({.tensor = tensor_, .hemisphere = hemisphere, .row = row_, .slice = 0, .address = address_});
    }
  }

  void close() {
    std::int64_t bytes = 0;
    for (const Instruction& in : text_.instructions) {
      bytes += node::text_size(in, chip_).count();
    }
    for (node::Allocation& a : text_.allocations) {
      if (text_.tensors[a.tensor].name == "program_text") {
        a.count[0] = static_cast<std::int32_t>(node::ceil_div(bytes, chip_.vector_bytes));
        text_.tensors[a.tensor].rows = a.count[0];
      }
    }
    std::stable_sort(
        text_.instructions.begin(), text_.instructions.end(), [](const Instruction& a, const Instruction& b) {
          return std::tuple(a.start, node::info(a.opcode).unit, a.index, a.hemisphere) <
                 std::tuple(b.start, node::info(b.opcode).unit, b.index, b.hemisphere);
        });
    // They have grown by a few: half of what they take is room for more.
    text_.instructions.shrink_to_fit();
    text_.tensors.shrink_to_fit();
    text_.allocations.shrink_to_fit();
    text_.transfers.shrink_to_fit();
  }

 private:
  void record(const Instruction& in, std::map<std::int32_t, std::vector<std::int64_t>>& pushes) {
    for_each_turn(in, [&](std::int32_t a, std::int32_t b, std::int32_t c, std::int64_t at) {
      const std::int32_t link = in.index + a * in.index_stride[0] + b * in.index_stride[1] + c * in.index_stride[2];
      if (in.opcode == Opcode::kSend) {
        pushes[link].push_back(at);
      } else {
        links_.receive(link, at - in.argument, at);
      }
    });
  }

  bool place(std::vector<Instruction> group, Commit commit) {
    const std::size_t before = table_.mark();
    // All of the group's values ride on streams of their own number; the first that is free everywhere.
    for (std::int32_t stream = 0; stream < chip_.streams_per_direction; ++stream) {
      bool is_free = true;
      for (Instruction& in : group) {
        for (StreamOperand& operand : in.operands) {
          if (operand.kind == OperandKind::kIn || operand.kind == OperandKind::kOut) {
            operand.stream = static_cast<std::uint8_t>(stream);
          }
        }
      }
      for (const Instruction& in : group) {
        is_free = is_free && table_.try_units(in, 0, {});
        for (const StreamOperand& operand : in.operands) {
          is_free = is_free && (operand.kind != OperandKind::kOut || table_.try_stream(in, 0, operand));
        }
      }
      if (is_free && commit == Commit::kProbe) {
        table_.roll_back(before);
        return true;
      }
      if (is_free) {
        table_.clear_log();
        for (Instruction& in : group) {
          in.operator_part = static_cast<std::uint8_t>(OperatorPart::kEnds);
          text_.instructions.push_back(in);
          declare_operation(text_, in);
        }
        return true;
      }
      table_.roll_back(before);
    }
    return false;
  }

  const node::ChipSpec& chip_;
  std::int32_t context_;
  ChipProgram text_;
  ReservationTable table_;
  LinkTable links_;
  std::array<Instruction, 2> source_{};  ///< per hemisphere
  std::uint16_t tensor_ = 0;
  std::int32_t address_ = 0;
  std::int32_t row_ = 0;
};

/// Cycle of an iteration from which a user's new token can be read on a chip of the last stage.
std::int64_t token_ready(const ChipProgram& text, std::int32_t user, const node::ChipSpec& chip) {
  std::int64_t last = -1;
  for (const Instruction& in : text.instructions) {
    const StreamOperand& moved = in.operands[0];
    if (in.opcode != Opcode::kWrite || text.tensors[moved.tensor].name != "token") {
      continue;
    }
    for_each_turn(in, [&](std::int32_t a, std::int32_t b, std::int32_t c, std::int64_t cycle) {
      if (moved.row + a * moved.row_stride[0] + b * moved.row_stride[1] + c * moved.row_stride[2] == user) {
        last = std::max(last, cycle);
      }
    });
  }
  LPU_CHECK(last >= 0, "a token that the last stage does not write");
  return last + chip.instruction_propagation.count() + 1;
}

}  // namespace

std::int32_t return_token(ClusterProgram& program, const interconnect::Topology& topology) {
  const node::ChipSpec& chip = program.chip;
  std::vector<std::int32_t> first_stage;
  std::vector<std::int32_t> last_stage;
  program.token_latency = 0;
  for (const node::ChipBinding& binding : program.bindings) {
    if (binding.text >= 0 && binding.stage == 0) {
      first_stage.push_back(binding.chip);
    }
    if (binding.text >= 0 && binding.stage == program.pipeline_parallel - 1) {
      last_stage.push_back(binding.chip);
      for (std::int32_t user = 0; user < program.plan.micro_batch; ++user) {
        const ChipProgram& text = program.texts[static_cast<std::size_t>(binding.text)];
        program.token_latency = std::max(program.token_latency, binding.offset + token_ready(text, user, chip));
      }
    }
  }
  if (program.pipeline_parallel == 1) {
    return 0;
  }
  const auto is_idle = [&](std::int32_t c) {
    return static_cast<std::size_t>(c) >= program.bindings.size() ||
           program.bindings[static_cast<std::size_t>(c)].text < 0;
  };
  // Shortest way from any chip of the last stage to any of the first; among equals the one over the most idle chips.
  interconnect::Route best;
  std::int32_t target = -1;
  std::pair<std::size_t, std::ptrdiff_t> least{1'000, 0};
  for (const std::int32_t from : last_stage) {
    const std::vector<std::int32_t> hops = interconnect::hops_from(topology, from);
    for (const std::int32_t to : first_stage) {
      const auto distance = hops[static_cast<std::size_t>(to)];
      if (distance < 0 || static_cast<std::size_t>(distance) > least.first) {
        continue;
      }
      const interconnect::Route route = interconnect::find_route(topology, from, to);
      const auto busy = std::count_if(
          route.begin() + 1, route.end(), [&](const interconnect::Hop& hop) { return !is_idle(hop.chip); });
      if (std::pair(route.size(), busy) < least) {
        least = {route.size(), busy};
        best = route;
        target = to;
      }
    }
  }
  LPU_CHECK(target >= 0, "the last stage does not reach the first");

  std::map<std::int32_t, Extension> extensions;
  const std::int32_t layers = program.bindings[static_cast<std::size_t>(last_stage.front())].first_layer;
  const auto extend = [&](std::int32_t c) -> Extension& {
    const auto found = extensions.find(c);
    if (found != extensions.end()) {
      return found->second;
    }
    while (static_cast<std::size_t>(c) >= program.bindings.size()) {
      const auto id = static_cast<std::int32_t>(program.bindings.size());
      program.bindings.push_back({.chip = id,
                                  .text = -1,
                                  .stage = program.pipeline_parallel,
                                  .peers = topology.peers[static_cast<std::size_t>(id)],
                                  .slot_owner = {}});
    }
    node::ChipBinding& binding = program.bindings[static_cast<std::size_t>(c)];
    ChipProgram text;
    if (binding.text >= 0) {
      text = program.texts[static_cast<std::size_t>(binding.text)];
    } else {
      text.registers.emplace_back();
      text.tensors.push_back({.name = "program_text", .scope = node::TensorScope::kStatic, .rows = 1, .sources = {}});
      text.allocations.push_back({.tensor = 0, .slice = 1});
      text.allocations.back().row_stride[0] = text.allocations.back().address_stride[0] = 1;
      binding.first_layer = layers;
      binding.stage = program.pipeline_parallel;  // behind all stages: it only forwards
    }
    return extensions.emplace(c, Extension(chip, std::move(text), program.initiation_interval, program.plan.context))
        .first->second;
  };
  const auto offset = [&](std::int32_t c) { return program.bindings[static_cast<std::size_t>(c)].offset; };

  std::int64_t latest = 0;
  const std::int32_t source = best.front().chip;
  const ChipProgram source_text =
      program.texts[static_cast<std::size_t>(program.bindings[static_cast<std::size_t>(source)].text)];
  std::int32_t token_layer = 0;
  for (std::int32_t user = 0; user < program.plan.micro_batch; ++user) {
    const std::string name = "token.back" + std::to_string(user);
    const std::string wire = "token.return" + std::to_string(user);
    std::int64_t ready = token_ready(source_text, user, chip);
    for (std::size_t hop = 0; hop <= best.size(); ++hop) {
      const std::int32_t c = hop < best.size() ? best[hop].chip : target;
      Extension& here = extend(c);
      const std::int32_t first_layer = program.bindings[static_cast<std::size_t>(c)].first_layer;
      if (hop == 0) {
        for (const node::Allocation& a : here.text().allocations) {
          if (here.text().tensors[a.tensor].name == "token") {
            node::Allocation row = a;
            row.row = user;
            row.address = a.address + user;
            here.use_row(row);
            token_layer = first_layer + here.text().tensors[a.tensor].layer_slot;
          }
        }
      }
      if (hop == best.size()) {
        break;
      }
      const std::int32_t link = best[hop].link;
      const node::LinkPeer peer = topology.peers[static_cast<std::size_t>(c)][static_cast<std::size_t>(link)];
      Extension& there = extend(peer.chip);
      const std::int32_t their_layer = program.bindings[static_cast<std::size_t>(peer.chip)].first_layer;
      there.add_row("token", token_layer - their_layer);
      there.set_row(user);
      const std::uint16_t inbound = there.transfer(wire, token_layer - their_layer);
      const auto arrival = [&](std::int64_t start) {
        return start + offset(c) + chip.link_latency().count() - offset(peer.chip);
      };
      const std::int64_t start =
          here.send({link}, here.transfer(wire, token_layer - first_layer), ready, [&](std::int64_t at) {
            return there.receive(peer.link, inbound, arrival(at), Commit::kProbe) >= 0;
          });
      ready = there.receive(peer.link, inbound, arrival(start), Commit::kTake);
      there.use_received();
    }
    latest = std::max(latest, ready + offset(target));
    // From there to the other chips of stage 0, over the local links.
    Extension& root = extend(target);
    std::vector<std::int32_t> links;
    for (const std::int32_t c : first_stage) {
      if (c != target) {
        for (std::int32_t link = 0; link < chip.links(); ++link) {
          if (topology.peers[static_cast<std::size_t>(target)][static_cast<std::size_t>(link)].chip == c) {
            links.push_back(link);
            break;
          }
        }
      }
    }
    if (links.empty()) {
      continue;
    }
    const std::int32_t root_layer = program.bindings[static_cast<std::size_t>(target)].first_layer;
    struct Leaf {
      Extension* chip;
      node::LinkPeer peer;
      std::uint16_t inbound;
    };
    std::vector<Leaf> leaves;
    for (const std::int32_t link : links) {
      const node::LinkPeer peer = topology.peers[static_cast<std::size_t>(target)][static_cast<std::size_t>(link)];
      Extension& leaf = extend(peer.chip);
      const std::int32_t their_layer = program.bindings[static_cast<std::size_t>(peer.chip)].first_layer;
      leaf.add_row("token", token_layer - their_layer);
      leaf.set_row(user);
      leaves.push_back({&leaf, peer, leaf.transfer(name, token_layer - their_layer)});
    }
    const auto arrival = [&](std::int64_t start, const Leaf& leaf) {
      return start + offset(target) + chip.link_latency().count() - offset(leaf.peer.chip);
    };
    const std::int64_t start =
        root.send(links, root.transfer(name, token_layer - root_layer), ready, [&](std::int64_t at) {
          return std::all_of(leaves.begin(), leaves.end(), [&](const Leaf& leaf) {
            return leaf.chip->receive(leaf.peer.link, leaf.inbound, arrival(at, leaf), Commit::kProbe) >= 0;
          });
        });
    for (const Leaf& leaf : leaves) {
      const std::int64_t done = leaf.chip->receive(leaf.peer.link, leaf.inbound, arrival(start, leaf), Commit::kTake);
      latest = std::max(latest, done + offset(leaf.peer.chip));
    }
  }
  for (auto& [c, extension] : extensions) {
    extension.close();
    program.texts.push_back(std::move(extension.text()));
    program.bindings[static_cast<std::size_t>(c)].text = static_cast<std::int32_t>(program.texts.size()) - 1;
  }
  program.token_latency = latest;
  return static_cast<std::int32_t>(best.size()) + (first_stage.size() > 1 ? 1 : 0);
}

}  // namespace lpu::scheduler
