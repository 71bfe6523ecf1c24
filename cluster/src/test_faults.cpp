#include "test_faults.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <string_view>
#include <thread>
#include <vector>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"

namespace lpu::cluster {
namespace {

constexpr std::string_view kVariable = "LPU_CLUSTER_TEST_FAULTS";
constexpr std::string_view kKnown =
    "delay=N, flip=CHIP.LINK.K, swap=CHIP.LINK.K, cut=CHIP.LINK.K, bit=CHIP.LINK.N, low=CHIP.LINK.N, lose=CHIP.LINK.N "
    "or skip=CHIP.K.I, numbers from 0, separated by commas";

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    out.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

struct Fault {
  std::string_view kind;
  std::vector<std::int64_t> numbers;
};

Fault parse(std::string_view text) {
  const std::size_t at = text.find('=');
  Fault out{.kind = text.substr(0, at), .numbers = {}};
  const std::string_view rest = at == std::string_view::npos ? "" : text.substr(at + 1);
  for (const std::string_view word : split(rest, '.')) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error == std::errc() && end == word.data() + word.size() && number >= 0) {
      out.numbers.push_back(number);
    }
  }
  const std::size_t expected = out.kind == "delay" ? 1 : 3;
  constexpr std::array<std::string_view, 8> kKinds = {"delay", "flip", "swap", "cut", "bit", "low", "lose", "skip"};
  const bool is_known = std::find(kKinds.begin(), kKinds.end(), out.kind) != kKinds.end();
  if (!is_known || out.numbers.size() != expected) {
    throw node::InputError(std::string(kVariable) + ": found " + std::string(text) + "; expected " +
                           std::string(kKnown));
  }
  return out;
}

std::function<void()> random_delay(std::int64_t most_us, std::int32_t rank) {
  return [most_us, state = static_cast<std::uint64_t>(rank)]() mutable {
    state = node::mix(state);
    const auto delay = static_cast<std::int64_t>(state % static_cast<std::uint64_t>(most_us + 1));
    std::this_thread::sleep_for(std::chrono::microseconds(delay));
  };
}

interconnect::Tamperer tamperer(std::string_view kind, interconnect::Delivery end, std::int64_t iteration) {
  using interconnect::Tampering;
  const auto is_at = [end](const interconnect::Delivery& to) { return to.chip == end.chip && to.link == end.link; };
  if (kind == "cut") {
    return [=](interconnect::Delivery to, node::MessageHeader& header, std::span<std::uint64_t>) {
      return is_at(to) && header.iteration >= iteration ? Tampering::kLose : Tampering::kDeliver;
    };
  }
  const bool is_flip = kind == "flip";
  return [=, is_done = false](
             interconnect::Delivery to, node::MessageHeader& header, std::span<std::uint64_t> values) mutable {
    if (is_done || !is_at(to) || header.iteration != iteration) {
      return Tampering::kDeliver;
    }
    is_done = true;
    values.front() ^= is_flip ? std::uint64_t{1} << 17U : 0U;
    return is_flip ? Tampering::kDeliver : Tampering::kHoldBack;
  };
}

bool is_numeric(const Fault& fault) {
  return fault.kind == "bit" || fault.kind == "low" || fault.kind == "lose";
}

/// Loses a vector, or flips a bit of its first byte that is not 0.
/// @param kind  bit: a high one, which no addition to a larger number rounds away; low: the lowest, which in the first
///              of a value's four vectors is the last of the mantissa
interconnect::PayloadTamperer numeric_tamperer(std::string_view kind, interconnect::Delivery end, std::int64_t number) {
  const bool is_flip = kind != "lose";
  const auto bit = kind == "low" ? std::byte{0x01} : std::byte{0x40};
  return [=, seen = std::int64_t{0}](interconnect::Delivery to, std::span<std::byte> vector) mutable {
    if (to.chip != end.chip || to.link != end.link) {
      return true;
    }
    const auto found = std::find_if(vector.begin(), vector.end(), [](std::byte byte) { return byte != std::byte{0}; });
    if (is_flip && found == vector.end()) {
      return true;
    }
    const bool is_hit = seen++ == number;
    if (is_hit && is_flip) {
      *found ^= bit;
    }
    return is_flip || !is_hit;
  };
}

}  // namespace

std::string faults_of_environment() {
  const char* text = std::getenv(kVariable.data());  // NOLINT(concurrency-mt-unsafe): nobody sets variables
  return text == nullptr ? std::string() : std::string(text);
}

void plant_faults(const std::string& faults, std::int32_t rank, RunOptions& options) {
  for (const std::string_view text : split(faults, ',')) {
    const Fault fault = parse(text);
    const std::int64_t first = fault.numbers.front();
    if (fault.kind == "delay") {
      options.pause = random_delay(first, rank);
    } else if (fault.kind == "skip") {
      options.skip_chip = static_cast<std::int32_t>(first);
      options.skip_iteration = fault.numbers[1];
      options.skip_instruction = static_cast<std::int32_t>(fault.numbers[2]);
    } else if (!is_numeric(fault)) {
      options.tamperer =
          tamperer(fault.kind,
                   {.chip = static_cast<std::int32_t>(first), .link = static_cast<std::int32_t>(fault.numbers[1])},
                   fault.numbers[2]);
    }
  }
}

void plant_numeric_faults(const std::string& faults, GenerateOptions& options) {
  for (const std::string_view text : split(faults, ',')) {
    const Fault fault = parse(text);
    if (is_numeric(fault)) {
      options.tamperer = numeric_tamperer(
          fault.kind,
          {.chip = static_cast<std::int32_t>(fault.numbers[0]), .link = static_cast<std::int32_t>(fault.numbers[1])},
          fault.numbers[2]);
    }
  }
}

}  // namespace lpu::cluster
