#include <algorithm>

#include "lowering.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity.hpp"

// Between stages each chip hands its own part of the residual (and of the ffn's hidden vector, where a stage ends in
// the middle of a layer) to the chip at its own position of the next stage: to its gateway over a local link, over the
// gateway's cable, and from the far gateway over a local link again. The next stage then gathers.
//
//   stage s     q ──local──► p ══cable══► p' ──local──► q'     stage s + 1          q XOR p = q' XOR p' = offset
//
// Vectors leave on the cable exactly one serialisation apart, so that the next stage knows its arrivals without knowing
// the sender's schedule: the first arrives in its cycle 0.

namespace lpu::scheduler {

using node::Direction;
using node::Hemisphere;
using node::Opcode;
using node::OperandKind;
using node::OperatorPart;

namespace {
constexpr std::int32_t kRelaySlice = 6;
}

std::int32_t Lowering::slot_of_offset(std::int32_t offset) const {
  if (offset == 0) {
    return own_slot();
  }
  const std::int32_t link = offset - 1;
  return link < kWestLocalLinks ? link : own_slot() + 1 + link - kWestLocalLinks;
}

std::uint64_t Lowering::positions_at(const HopPlan& plan, std::int32_t offset) const {
  std::uint64_t mask = 0;
  for (const Gateway& gateway : plan.gateways) {
    mask |= std::uint64_t{1} << static_cast<unsigned>(gateway.position ^ offset);
  }
  return mask;
}

std::vector<Lowering::LinkUse> Lowering::gateway_links(const HopPlan& plan, std::int32_t Gateway::*link) {
  std::map<std::int32_t, std::uint64_t> by_link;
  for (const Gateway& gateway : plan.gateways) {
    by_link[gateway.*link] |= std::uint64_t{1} << static_cast<unsigned>(gateway.position);
  }
  std::vector<LinkUse> out;
  for (const auto& [number, positions] : by_link) {
    out.push_back({number, positions});
  }
  return out;
}

PlacementId Lowering::send_row(const std::array<BufferId, 2>& rows,
                               TensorId tensor_id,
                               std::int32_t row,
                               const std::vector<LinkUse>& uses,
                               std::uint16_t transfer,
                               std::int64_t earliest,
                               std::int64_t latest,
                               std::int64_t* departs) {
  // The vector stands in both hemispheres; each of the uses (chips by position) takes its own link.
  const node::ChipSpec& chip = builder_.chip();
  Template shape;
  shape.part = OperatorPart::kHop;
  std::array<VariableId, 2> value{-1, -1};
  std::array<std::size_t, 2> reader{};
  const std::int64_t lead = chip.sxm_position - 1;
  for (const LinkUse& use : uses) {
    const Hemisphere hemisphere = chip.link_hemisphere[static_cast<std::size_t>(use.link)];
    const auto side = static_cast<std::size_t>(hemisphere);
    if (value[side] < 0) {
      value[side] = shape.value(1);
      shape.drafts.push_back(read_row(
          builder_, rows[side], row, lead, chip.sxm_position, {.hemisphere = hemisphere, .variable = value[side]}));
      reader[side] = shape.drafts.size() - 1;
      shape.drafts.back().positions = 0;
    }
    shape.drafts[reader[side]].positions |= use.positions;
    Draft send = unit(Opcode::kSend, lead, hemisphere, use.link, 0);
    send.instruction.transfer = transfer;
    send.positions = use.positions;
    add(send,
        operand(OperandKind::kIn, {.hemisphere = hemisphere, .variable = value[side]}, {tensor_id, row}, 0),
        value[side]);
    shape.drafts.push_back(std::move(send));
  }
  LinkTable& table = builder_.links();
  std::int64_t start = std::max(earliest - lead, builder_.ready_time(shape));
  for (; start + lead <= latest; ++start) {
    std::int64_t first = -2;
    const bool is_free = std::all_of(uses.begin(), uses.end(), [&](const LinkUse& use) {
      const std::int64_t at = table.start_of(use.link, start + lead);
      const bool agrees = at >= 0 && (first == -2 || first == at) && (*departs < 0 || at == *departs);
      first = at;
      return agrees;
    });
    if (!is_free) {
      continue;
    }
    const PlacementId id = builder_.try_place(shape, start, 1);
    if (id >= 0) {
      for (const LinkUse& use : uses) {
        table.send(use.link, start + lead, first);
      }
      *departs = first;
      return id;
    }
  }
  throw NoSchedule("a hop's send from cycle " + std::to_string(earliest));
}

PlacementId Lowering::receive_row(const std::array<BufferId, 2>& rows,
                                  TensorId tensor_id,
                                  const std::vector<std::pair<LinkUse, std::int32_t>>& uses,
                                  std::uint16_t transfer,
                                  std::int64_t arrival,
                                  PlacementId sent) {
  // Into the link's hemisphere and, through the VXM, into the other one. Where weights pass the VXM in a crowded
  // interval, the copy is made later, from SRAM: it would find no cycle just then.
  const bool copies_later = path_.widens && load_ == Load::kLoaded;
  const node::ChipSpec& chip = builder_.chip();
  LinkTable& table = builder_.links();
  const std::int64_t longest_wait = (chip.link_queue_vectors - 1) * chip.link_serialisation.count();
  std::string why = "the link's order";
  for (std::int64_t wait = 0; wait <= longest_wait; ++wait) {
    Template shape;
    shape.part = OperatorPart::kHop;
    shape.not_before = arrival + wait;
    shape.after = sent;
    bool may = true;
    std::int32_t stagger = 0;
    for (const auto& [use, row] : uses) {
      const Hemisphere hemisphere = chip.link_hemisphere[static_cast<std::size_t>(use.link)];
      const Hemisphere other = hemisphere == Hemisphere::kWest ? Hemisphere::kEast : Hemisphere::kWest;
      may = may && table.may_take(use.link, arrival, arrival + wait + stagger);
      const VariableId value = shape.value(1);
      const VariableId copied = shape.value(1);
      const Lane inward{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = value};
      const Lane outward{.hemisphere = other, .variable = copied};
      const BufferId near = rows[static_cast<std::size_t>(hemisphere)];
      const BufferId far = copies_later ? -1 : rows[static_cast<std::size_t>(other)];
      Draft take = unit(Opcode::kReceive, stagger, hemisphere, use.link, 0);
      take.instruction.transfer = transfer;
      take.instruction.argument = static_cast<std::int32_t>(wait + stagger);
      take.positions = use.positions;
      add(take,
          operand(
              OperandKind::kOut, inward, {tensor_id, row}, far >= 0 ? chip.vxm_position : position_of(builder_, near)),
          value);
      shape.drafts.push_back(std::move(take));
      shape.drafts.push_back(write_row(builder_, near, row, stagger, chip.sxm_position, inward));
      shape.drafts.back().positions = use.positions;
      if (far >= 0) {
        const std::int64_t at = stagger + chip.sxm_position - chip.vxm_position;
        Draft copy = unit(Opcode::kCopy, at, hemisphere, 14, 1);
        copy.positions = use.positions;
        add(copy, operand(OperandKind::kIn, inward, {tensor_id, row}, 0), value);
        add(copy, operand(OperandKind::kOut, outward, {tensor_id, row}, position_of(builder_, far)), copied);
        shape.drafts.push_back(std::move(copy));
        shape.drafts.push_back(
            write_row(builder_, far, row, at + chip.vxm_latency.count(), chip.vxm_position, outward));
        shape.drafts.back().positions = use.positions;
      }
      ++stagger;
    }
    if (!may) {
      continue;
    }
    const PlacementId id = builder_.try_place(shape, arrival + wait, 1);
    if (id >= 0) {
      stagger = 0;
      for (const auto& [use, row] : uses) {
        table.receive(use.link, arrival, arrival + wait + stagger++);
      }
      return copies_later ? copy_across(rows, tensor_id, uses) : id;
    }
    if (wait == longest_wait) {
      why = builder_.why_refused(shape, arrival + wait);
    }
  }
  throw NoSchedule("a hop's receive at cycle " + std::to_string(arrival) + ": " + why);
}

PlacementId Lowering::copy_across(const std::array<BufferId, 2>& rows,
                                  TensorId tensor_id,
                                  const std::vector<std::pair<LinkUse, std::int32_t>>& uses) {
  const node::ChipSpec& chip = builder_.chip();
  PlacementId last = -1;
  for (const auto& [use, row] : uses) {
    const auto from = static_cast<std::size_t>(chip.link_hemisphere[static_cast<std::size_t>(use.link)]);
    const std::size_t to = 1 - from;
    if (rows[to] < 0) {
      continue;
    }
    Template shape;
    shape.part = OperatorPart::kHop;
    const VariableId value = shape.value(1);
    const VariableId copied = shape.value(1);
    const Lane inward{.hemisphere = kHemispheres[from], .direction = Direction::kInward, .variable = value};
    const Lane outward{.hemisphere = kHemispheres[to], .variable = copied};
    shape.drafts.push_back(read_row(builder_, rows[from], row, 0, chip.vxm_position, inward));
    Draft copy = unit(Opcode::kCopy, 0, kHemispheres[from], 14, 1);
    add(copy, operand(OperandKind::kIn, inward, {tensor_id, row}, 0), value);
    add(copy, operand(OperandKind::kOut, outward, {tensor_id, row}, position_of(builder_, rows[to])), copied);
    shape.drafts.push_back(std::move(copy));
    shape.drafts.push_back(write_row(builder_, rows[to], row, chip.vxm_latency.count(), chip.vxm_position, outward));
    for (Draft& draft : shape.drafts) {
      draft.positions = use.positions;
    }
    last = builder_.place(shape);
  }
  return last;
}

void Lowering::exit_own(Gathered& out, const Gathered& value, const Gathered* update, std::int64_t earliest) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t width = path_.wire_bytes;
  const std::int32_t groups = batch_ * value.packing.groups;
  const std::int32_t row = own_slot() * groups * width;
  Template shape;
  shape.part = OperatorPart::kHop;
  Draft adding = unit(update != nullptr ? Opcode::kAdd : Opcode::kCopy, 0, Hemisphere::kEast, 14, 2, paced(groups));
  for (const Gathered* term : {&value, update}) {
    if (term == nullptr) {
      continue;
    }
    const VariableId x = shape.value(width);
    const Lane lane{.hemisphere = Hemisphere::kEast, .direction = Direction::kInward, .variable = x, .streams = width};
    shape.drafts.push_back(read_rows(builder_, term->part[1], row, 0, chip.vxm_position, lane, paced(groups), width));
    add(adding, operand(OperandKind::kIn, lane, {term->tensor, row, {width, 0, 0}}, 0), x);
    builder_.add_source(out.tensor, term->tensor);
  }
  for (const Hemisphere hemisphere : kHemispheres) {
    const BufferId buffer = hemisphere == Hemisphere::kWest ? out.own_west : out.part[1];
    const VariableId made = shape.value(width);
    const Lane lane{.hemisphere = hemisphere, .variable = made, .streams = width};
    add(adding,
        operand(OperandKind::kOut, lane, {out.tensor, row, {width, 0, 0}}, position_of(builder_, buffer)),
        made);
    shape.drafts.push_back(
        write_rows(builder_, buffer, row, chip.vxm_latency.count(), chip.vxm_position, lane, paced(groups), width));
  }
  shape.drafts.push_back(std::move(adding));
  builder_.place(shape, earliest);
}

PlacementId Lowering::pass_row(const std::array<BufferId, 2>& from,
                               std::int32_t row,
                               const std::vector<LinkUse>& sends,
                               const std::array<BufferId, 2>& to,
                               const std::vector<std::pair<LinkUse, std::int32_t>>& takes,
                               TensorId tensor_id,
                               std::uint16_t transfer,
                               std::int64_t earliest) {
  const std::int64_t latency = builder_.chip().link_latency().count();
  std::int64_t first = kUnset;
  for (;;) {
    const auto undo = builder_.checkpoint();
    const LinkTable links_before = builder_.links();
    std::int64_t departs = -1;
    const PlacementId sent = send_row(from, tensor_id, row, sends, transfer, earliest, kForever, &departs);
    first = first == kUnset ? departs : first;
    try {
      const PlacementId taken = receive_row(to, tensor_id, takes, transfer, departs + latency, sent);
      builder_.keep();
      return taken;
    } catch (const NoSchedule&) {
      if (departs - first > search_span()) {
        throw;
      }
      builder_.restore(undo);
      builder_.links() = links_before;
      earliest = departs + 1;
    }
  }
}

void Lowering::leave() {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t next_layer = (stage_.first_block + stage_.blocks) / 3;
  const std::int32_t slot = next_layer - stage_.layer(0);
  Gathered residual = gathered("residual", slot, shard_.hidden, {}, 0);
  residual.own_west = ensure_own_west(residual);
  // Weights on their way through the VXM leave no cycle for relays: nothing moves before the last window is over.
  const std::int64_t earliest = path_.widens && builder_.period() == 0 ? builder_.end_of_all() : 0;
  exit_own(residual, residual_, update_ ? &*update_ : nullptr, earliest);
  std::vector<Gathered*> ports{&residual};
  for (Gathered* port : extra_ports()) {
    port->own_west = ensure_own_west(*port);
    ports.push_back(port);
  }
  // First to the gateways, row by row; then over the cable, one serialisation apart.
  struct Row {
    Gathered* port;
    std::array<BufferId, 2> rows;
    std::int32_t row;
    PlacementId at_gateway;
  };
  std::vector<Row> cable;
  for (Gathered* port : ports) {
    const std::int32_t per_slot = batch_ * rows_per_token(port->packing);
    builder_.add_source(port->tensor, port->tensor);
    const std::uint16_t transfer =
        builder_.transfer("hop.local." + builder_.tensor_at(port->tensor).name, slot, per_slot);
    const std::array<BufferId, 2> own{port->own_west, port->part[1]};
    std::array<BufferId, 2> relay{-1, -1};
    if (exit_.block > 1) {
      for (std::size_t side = 0; side < 2; ++side) {
        relay[side] =
            builder_.buffer(port->tensor, kHemispheres[side], kRelaySlice, 2, per_slot * shard_.tensor_parallel);
      }
    }
    std::vector<Row> forwarded;
    for (std::int32_t r = 0; r < per_slot; ++r) {
      const std::int32_t own_row = own_slot() * per_slot + r;
      cable.push_back({port, own, own_row, -1});
      if (exit_.block == 1) {
        continue;
      }
      std::vector<LinkUse> sends;
      std::vector<std::pair<LinkUse, std::int32_t>> takes;
      for (std::int32_t offset = 1; offset < exit_.block; ++offset) {
        sends.push_back({offset - 1, positions_at(exit_, offset)});
        takes.push_back({{offset - 1, positions_at(exit_, 0)}, slot_of_offset(offset) * per_slot + r});
      }
      const PlacementId taken = pass_row(own, own_row, sends, relay, takes, port->tensor, transfer, earliest);
      for (const auto& [use, row] : takes) {
        forwarded.push_back({port, relay, row, taken});
      }
    }
    cable.insert(cable.end(), forwarded.begin(), forwarded.end());
  }
  const std::vector<LinkUse> links = gateway_links(exit_, &Gateway::out_link);
  const std::uint16_t transfer = builder_.transfer("hop.cable", slot, static_cast<std::int32_t>(cable.size()));
  const std::int64_t service = chip.link_serialisation.count();
  const std::int64_t lead = chip.sxm_position - 1;
  // The first departure must be late enough for every row to be in the link's queue in time.
  std::int64_t first = 0;
  for (std::size_t i = 0; i < cable.size(); ++i) {
    const std::int64_t ready =
        builder_.at(cable[i].rows[1])
            .ready[static_cast<std::size_t>(cable[i].row - builder_.at(cable[i].rows[1]).first_row)];
    first = std::max(first, ready + lead - static_cast<std::int64_t>(i) * service);
  }
  const std::int64_t last_first = first + search_span();
  for (;; ++first) {
    if (first > last_first) {
      throw NoSchedule("a hop's cable");
    }
    const auto undo = builder_.checkpoint();
    const LinkTable links_before = builder_.links();
    try {
      PlacementId last = -1;
      for (std::size_t i = 0; i < cable.size(); ++i) {
        std::int64_t departs = first + static_cast<std::int64_t>(i) * service;
        const std::int64_t push_from = i == 0 ? departs : departs - (chip.link_queue_vectors - 1) * service + 1;
        last =
            send_row(cable[i].rows, cable[i].port->tensor, cable[i].row, links, transfer, push_from, departs, &departs);
      }
      builder_.keep();
      hop_departure_ = first;
      last_placement_ = last;
      return;
    } catch (const NoSchedule&) {
      builder_.restore(undo);
      builder_.links() = links_before;
    }
  }
}

void Lowering::enter() {
  const node::ChipSpec& chip = builder_.chip();
  std::vector<Gathered*> ports{&residual_};
  for (Gathered* port : extra_ports()) {
    ports.push_back(port);
  }
  const std::vector<LinkUse> links = gateway_links(entry_, &Gateway::in_link);
  std::int32_t rows_in = 0;
  for (const Gathered* port : ports) {
    rows_in += batch_ * rows_per_token(port->packing) * entry_.block;
  }
  const std::uint16_t cable = builder_.transfer("hop.cable", 0, rows_in);
  std::int64_t arrival = 0;
  const std::int64_t service = chip.link_serialisation.count();
  struct Relay {
    std::array<BufferId, 2> own, rows;
    std::uint16_t transfer;
  };
  // As the sender orders them: value by value, own rows first, then row by row those of the others.
  for (Gathered* port : ports) {
    const std::int32_t per_slot = batch_ * rows_per_token(port->packing);
    port->own_west = ensure_own_west(*port);
    builder_.add_source(port->tensor, port->tensor);
    Relay relay{{port->own_west, port->part[1]}, {-1, -1}, 0};
    if (entry_.block > 1) {
      relay.transfer = builder_.transfer("hop.local." + builder_.tensor_at(port->tensor).name, 0, per_slot);
      for (std::size_t side = 0; side < 2; ++side) {
        relay.rows[side] =
            builder_.buffer(port->tensor, kHemispheres[side], kRelaySlice, 2, per_slot * shard_.tensor_parallel);
      }
    }
    for (std::int32_t r = 0; r < per_slot; ++r) {
      std::vector<std::pair<LinkUse, std::int32_t>> takes;
      for (const LinkUse& use : links) {
        takes.emplace_back(use, own_slot() * per_slot + r);
      }
      receive_row(relay.own, port->tensor, takes, cable, arrival, -1);
      arrival += service;
    }
    for (std::int32_t r = 0; r < per_slot && entry_.block > 1; ++r) {
      std::int64_t together = 0;
      for (std::int32_t offset = 1; offset < entry_.block; ++offset) {
        std::vector<std::pair<LinkUse, std::int32_t>> takes;
        for (const LinkUse& use : links) {
          takes.emplace_back(use, slot_of_offset(offset) * per_slot + r);
        }
        const PlacementId taken = receive_row(relay.rows, port->tensor, takes, cable, arrival, -1);
        together = builder_.placement(taken).end;
        arrival += service;
      }
      // On to all others at about the same time, so that the links are free together for what is gathered.
      for (std::int32_t offset = 1; offset < entry_.block; ++offset) {
        pass_row(relay.rows,
                 slot_of_offset(offset) * per_slot + r,
                 {{offset - 1, positions_at(entry_, 0)}},
                 relay.own,
                 {{{offset - 1, positions_at(entry_, offset)}, own_slot() * per_slot + r}},
                 port->tensor,
                 relay.transfer,
                 together + chip.sxm_position - 1);
      }
    }
  }
}

BufferId Lowering::ensure_own_west(const Gathered& value) {
  if (value.own_west >= 0) {
    return value.own_west;
  }
  const std::int32_t per_slot = batch_ * rows_per_token(value.packing);
  return builder_.buffer(value.tensor, Hemisphere::kWest, 4, path_.wire_bytes, per_slot, own_slot() * per_slot);
}

}  // namespace lpu::scheduler
