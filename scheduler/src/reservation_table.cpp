#include "reservation_table.hpp"

#include <algorithm>

#include "lpu/node/error.hpp"

namespace lpu::scheduler {

using node::Direction;
using node::Hemisphere;
using node::Instruction;
using node::Opcode;
using node::StreamOperand;
using node::Unit;

namespace {

constexpr std::uint16_t kReadPort = 1;
constexpr std::uint16_t kWritePort = 2;
constexpr std::uint16_t kBank0 = 4;
constexpr std::uint16_t kSliceQueue = 16;
constexpr std::int64_t kBeforeZero = 64;  // inward diagonals and far slices may fall before cycle 0 of an iteration

enum Row : std::uint32_t { kAlus, kAluQueues, kPlanes, kPlaneQueues, kSxm, kLinkPush, kLinkTake, kSlices };

std::uint32_t slice_row(const node::ChipSpec& chip, Hemisphere hemisphere, std::int32_t slice) {
  return kSlices +
         static_cast<std::uint32_t>(static_cast<std::int32_t>(hemisphere) * chip.slices_per_hemisphere + slice);
}
std::uint32_t stream_row(const node::ChipSpec& chip, Hemisphere hemisphere, Direction direction, std::int32_t stream) {
  return kSlices +
         static_cast<std::uint32_t>(2 * chip.slices_per_hemisphere +
                                    (static_cast<std::int32_t>(hemisphere) * 2 + static_cast<std::int32_t>(direction)) *
                                        chip.streams_per_direction +
                                    stream);
}
std::uint16_t bit(std::int32_t at) {
  return static_cast<std::uint16_t>(1U << static_cast<unsigned>(at));
}

std::int32_t sxm_queue(Opcode opcode) {
  if (opcode == Opcode::kTranspose) {
    return 0;
  }
  return opcode == Opcode::kRotate || opcode == Opcode::kReduceStep ? 1 : 2;
}

template <typename Visit>
bool for_each_instance(const Instruction& in, std::int64_t start, Visit&& visit) {
  for (std::int32_t a = 0; a < in.count[0]; ++a) {
    for (std::int32_t b = 0; b < in.count[1]; ++b) {
      const std::int64_t cycle = start + in.start + std::int64_t{a} * in.period[0] + std::int64_t{b} * in.period[1];
      for (std::int32_t c = 0; c < in.count[2]; ++c) {
        if (!visit(a, b, c, cycle + std::int64_t{c} * in.period[2])) {
          return false;
        }
      }
    }
  }
  return true;
}

}  // namespace

ReservationTable::ReservationTable(const node::ChipSpec& chip, std::int64_t period)
    : chip_(chip),
      period_(period),
      rows_(stream_row(chip, Hemisphere::kEast, Direction::kInward, chip.streams_per_direction - 1) + 1) {}

bool ReservationTable::take(std::uint32_t row, std::int64_t cycle, std::uint16_t bits) {
  std::int64_t column = cycle + kBeforeZero;
  if (period_ > 0) {
    column %= period_;
    if (column < 0) {
      column += period_;
    }
  }
  const auto number = static_cast<std::size_t>(column) / kPage;
  Row& pages = rows_[row];
  if (number >= pages.size()) {
    pages.resize(number + 1);
  }
  std::unique_ptr<Page>& page = pages[number];
  if (!page) {
    page = std::make_unique<Page>();
  }
  auto& cell = (*page)[static_cast<std::size_t>(column) % kPage];
  if ((cell & bits) != 0) {
    return false;
  }
  cell = static_cast<std::uint16_t>(cell | bits);
  log_.push_back({row, static_cast<std::uint32_t>(column), bits});
  return true;
}

void ReservationTable::roll_back(std::size_t mark) {
  while (log_.size() > mark) {
    free(log_.back());
    log_.pop_back();
  }
}

void ReservationTable::give_back(const std::vector<Cell>& cells) {
  for (const Cell& taken : cells) {
    free(taken);
  }
}

std::int64_t ReservationTable::last_install(std::int64_t from, std::int64_t to) const {
  std::uint16_t ports = 0;
  for (std::int32_t plane = 0; plane < 2 * chip_.mxm_planes_per_hemisphere; ++plane) {
    ports = static_cast<std::uint16_t>(ports | bit(plane * 3));
  }
  const Row& pages = rows_[kPlanes];
  while (to > from) {
    --to;
    const std::int64_t column = ((to + kBeforeZero) % period_ + period_) % period_;
    const auto number = static_cast<std::size_t>(column) / kPage;
    if (number < pages.size() && pages[number] &&
        ((*pages[number])[static_cast<std::size_t>(column) % kPage] & ports) != 0) {
      return to;
    }
  }
  return from - 1;
}

bool ReservationTable::try_memory(const Instruction& in, std::int64_t start, const RegisterReach& reach) {
  const bool is_read = in.opcode == Opcode::kRead;
  const StreamOperand& operand = in.operands[0];
  const std::int32_t sign = operand.direction == Direction::kOutward ? 1 : -1;
  const std::int32_t home = chip_.slice_position(in.index);
  std::array<bool, 64> is_queued{};
  return for_each_instance(in, start, [&](std::int32_t a, std::int32_t b, std::int32_t c, std::int64_t cycle) {
    const std::int32_t address =
        in.address + a * in.address_stride[0] + b * in.address_stride[1] + c * in.address_stride[2];
    for (const std::int32_t displaced : reach.slices) {
      const std::int32_t slice =
          in.index + a * in.index_stride[0] + b * in.index_stride[1] + c * in.index_stride[2] + displaced;
      const std::int64_t at = cycle + sign * (chip_.slice_position(slice) - home);
      auto bits = static_cast<std::uint16_t>(is_read ? kReadPort : kWritePort);
      bits = static_cast<std::uint16_t>(
          bits | (reach.both_banks ? kBank0 | (kBank0 << 1) : (address % 2 == 0 ? kBank0 : kBank0 << 1)));
      if (!is_queued[static_cast<std::size_t>(slice)]) {
        is_queued[static_cast<std::size_t>(slice)] = true;
        bits = static_cast<std::uint16_t>(bits | kSliceQueue);
      }
      if (!take(slice_row(chip_, in.hemisphere, slice), at, bits)) {
        return false;
      }
    }
    return true;
  });
}

bool ReservationTable::try_units(const Instruction& in, std::int64_t start, const RegisterReach& reach) {
  const std::size_t before = mark();
  bool is_free = true;
  switch (node::info(in.opcode).unit) {
    case Unit::kMem:
      is_free = try_memory(in, start, reach);
      break;
    case Unit::kVxm: {
      std::uint16_t bits = 0;
      for (std::int32_t alu = 0; alu < in.alus; ++alu) {
        bits = static_cast<std::uint16_t>(bits | bit(in.index + alu));
      }
      is_free = take(kAluQueues, start + in.start, bit(in.index)) &&
                for_each_instance(in, start, [&](std::int32_t, std::int32_t, std::int32_t, std::int64_t cycle) {
                  return take(kAlus, cycle, bits);
                });
      break;
    }
    case Unit::kSxm: {
      const auto hemisphere = static_cast<std::int32_t>(in.hemisphere);
      is_free = take(kSxm, start + in.start, bit(2 + hemisphere * 3 + sxm_queue(in.opcode))) &&
                for_each_instance(in, start, [&](std::int32_t, std::int32_t, std::int32_t, std::int64_t cycle) {
                  return take(kSxm, cycle, bit(hemisphere));
                });
      break;
    }
    case Unit::kMxm: {
      const std::int32_t port = in.opcode == Opcode::kInstall ? 0 : in.opcode == Opcode::kCompute ? 1 : 2;
      is_free = for_each_instance(in, start, [&](std::int32_t a, std::int32_t b, std::int32_t c, std::int64_t cycle) {
        const std::int32_t plane = in.index + a * in.index_stride[0] + b * in.index_stride[1] + c * in.index_stride[2] +
                                   static_cast<std::int32_t>(in.hemisphere) * chip_.mxm_planes_per_hemisphere;
        // Computes that follow one another slowly keep the array until the last of them.
        const std::int64_t held = in.opcode == Opcode::kCompute && b + 1 < in.count[1] ? in.period[1] : 1;
        bool is_taken = true;
        for (std::int64_t i = 0; is_taken && i < held; ++i) {
          is_taken = take(kPlanes, cycle + i, bit(plane * 3 + port));
        }
        return is_taken && (a != 0 || b != 0 || take(kPlaneQueues, cycle, bit(plane * 3 + port)));
      });
      break;
    }
    case Unit::kC2c: {
      const auto row = in.opcode == Opcode::kSend ? kLinkPush : kLinkTake;
      is_free = for_each_instance(in, start, [&](std::int32_t a, std::int32_t b, std::int32_t c, std::int64_t cycle) {
        return take(
            row, cycle, bit(in.index + a * in.index_stride[0] + b * in.index_stride[1] + c * in.index_stride[2]));
      });
      break;
    }
  }
  if (!is_free) {
    roll_back(before);
  }
  return is_free;
}

bool ReservationTable::try_stream(const Instruction& in, std::int64_t start, const StreamOperand& operand) {
  const std::size_t before = mark();
  const bool is_memory = node::info(in.opcode).unit == Unit::kMem;
  const std::int64_t latency = is_memory ? 0 : node::latency(in.opcode, chip_).count();
  const std::int32_t sign = operand.direction == Direction::kOutward ? 1 : -1;
  const std::int32_t home = node::unit_position(in, chip_);
  const bool is_free =
      for_each_instance(in, start, [&](std::int32_t a, std::int32_t b, std::int32_t c, std::int64_t cycle) {
        const std::array<std::int32_t, 3> at{a, b, c};
        for (std::size_t loop = 0; loop < 3; ++loop) {
          if ((operand.held >> loop & 1U) != 0 && at[loop] != in.count[loop] - 1) {
            return true;
          }
        }
        std::int32_t position = home;
        if (is_memory) {
          position =
              chip_.slice_position(in.index + a * in.index_stride[0] + b * in.index_stride[1] + c * in.index_stride[2]);
        }
        // On the diagonal the unit's own position cancels: an instance on another slice issues as much later (or
        // earlier).
        const std::int64_t diagonal = cycle + latency - sign * home;
        const std::int32_t low = std::min(position, std::int32_t{operand.reach});
        const std::int32_t high = std::max(position, std::int32_t{operand.reach});
        const auto bits = static_cast<std::uint16_t>(((1U << static_cast<unsigned>(high + 1)) - 1U) &
                                                     ~((1U << static_cast<unsigned>(low)) - 1U));
        for (std::int32_t stream = 0; stream < operand.streams; ++stream) {
          if (!take(stream_row(chip_,
                               operand.hemisphere,
                               operand.direction,
                               operand.stream + stream + c * operand.stream_stride),
                    diagonal,
                    bits)) {
            return false;
          }
        }
        return true;
      });
  if (!is_free) {
    roll_back(before);
  }
  return is_free;
}

LinkTable::LinkTable(const node::ChipSpec& chip, std::int64_t period, std::int64_t grid)
    : chip_(&chip),
      period_(period),
      grid_(grid),
      sent_(static_cast<std::size_t>(chip.links())),
      received_(static_cast<std::size_t>(chip.links())) {}

namespace {

/// Calls visit(in, out, is_own) for each passage, moved by every multiple of the period that may matter near `cycle`;
/// own: of the same iteration.
template <typename Passages, typename Visit>
void for_each_near(const Passages& passages, std::int64_t period, std::int64_t cycle, Visit&& visit) {
  for (const auto& passage : passages) {
    if (period == 0) {
      visit(passage.in, passage.out, true);
      continue;
    }
    const std::int64_t laps = (cycle - passage.in) / period;
    visit(passage.in, passage.out, true);
    for (std::int64_t lap = laps - 1; lap <= laps + 1; ++lap) {
      if (lap != 0) {
        visit(passage.in + lap * period, passage.out + lap * period, false);
      }
    }
  }
}

}  // namespace

namespace {

std::int64_t residue(std::int64_t cycle, std::int64_t period) {
  return (cycle % period + period) % period;
}

}  // namespace

std::int64_t LinkTable::start_of(std::int32_t link, std::int64_t push) const {
  const Sent& sent = sent_[static_cast<std::size_t>(link)];
  const std::int64_t service = chip_->link_serialisation.count();
  const auto next =
      std::lower_bound(sent.by_push.begin(), sent.by_push.end(), push, [](const Passage& passage, std::int64_t at) {
        return passage.in < at;
      });
  // A vector may queue behind its own iteration's: behind another's it would leave earlier in the first iterations,
  // which have no predecessors, than in later ones.
  const std::int64_t start = next == sent.by_push.begin() ? push : std::max(push, std::prev(next)->out + service);
  if (start % grid_ != 0 || (next != sent.by_push.end() && (next->in == push || next->out < start + service))) {
    return -1;
  }
  std::int32_t queued = 1;
  if (period_ > 0) {
    // The same vector one period on must find the wire free, too.
    if (start + service > push + period_ || !fits_others(sent, {push, start}, queued)) {
      return -1;
    }
  } else {
    for (auto before = next; before != sent.by_push.begin() && std::prev(before)->out > push; --before) {
      ++queued;
    }
  }
  return queued <= chip_->link_queue_vectors ? start : -1;
}

bool LinkTable::fits_others(const Sent& sent, Passage vector, std::int32_t& queued) const {
  const auto& circle = sent.by_residue;
  if (circle.empty()) {
    return true;
  }
  const std::int64_t service = chip_->link_serialisation.count();
  const std::int64_t at = residue(vector.in, period_);
  const auto next = std::lower_bound(circle.begin(), circle.end(), at, [&](const Passage& passage, std::int64_t cycle) {
    return residue(passage.in, period_) < cycle;
  });
  // The nearest one ahead and behind, each moved by as many periods as it takes.
  const Passage& ahead = next == circle.end() ? circle.front() : *next;
  const std::int64_t to_ahead = residue(ahead.in - vector.in, period_);
  const std::int64_t ahead_moved = vector.in + to_ahead - ahead.in;
  if (to_ahead == 0 || (ahead_moved != 0 && ahead.out + ahead_moved < vector.out + service)) {
    return false;
  }
  auto before = static_cast<std::size_t>(next - circle.begin());
  for (std::size_t walked = 0; walked < circle.size(); ++walked) {
    before = (before == 0 ? circle.size() : before) - 1;
    const Passage& behind = circle[before];
    const std::int64_t behind_moved = vector.in - residue(vector.in - behind.in, period_) - behind.in;
    if (walked == 0 && behind_moved != 0 && behind.out + behind_moved + service > vector.out) {
      return false;
    }
    if (behind.out + behind_moved <= vector.in) {
      break;
    }
    ++queued;
  }
  return true;
}

void LinkTable::send(std::int32_t link, std::int64_t push, std::int64_t start) {
  Sent& sent = sent_[static_cast<std::size_t>(link)];
  const auto is_before = [](const Passage& a, const Passage& b) { return a.in < b.in; };
  const Passage vector{push, start};
  sent.by_push.insert(std::upper_bound(sent.by_push.begin(), sent.by_push.end(), vector, is_before), vector);
  if (period_ > 0) {
    const auto is_before_on_circle = [this](const Passage& a, const Passage& b) {
      return residue(a.in, period_) < residue(b.in, period_);
    };
    sent.by_residue.insert(
        std::upper_bound(sent.by_residue.begin(), sent.by_residue.end(), vector, is_before_on_circle), vector);
  }
}

bool LinkTable::may_take(std::int32_t link, std::int64_t arrival, std::int64_t take) const {
  // Arrivals are at least one serialisation apart, so a wait below (depth - 1) of them cannot overfill the queue.
  if (take < arrival || take - arrival > (chip_->link_queue_vectors - 1) * chip_->link_serialisation.count()) {
    return false;
  }
  bool is_legal = true;
  for_each_near(
      received_[static_cast<std::size_t>(link)], period_, arrival, [&](std::int64_t in, std::int64_t out, bool) {
        is_legal = is_legal && in != arrival && out != take && (in < arrival) == (out < take);
      });
  return is_legal;
}

void LinkTable::receive(std::int32_t link, std::int64_t arrival, std::int64_t take) {
  received_[static_cast<std::size_t>(link)].push_back({arrival, take});
}

}  // namespace lpu::scheduler
