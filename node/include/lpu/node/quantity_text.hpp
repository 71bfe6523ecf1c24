#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "lpu/node/quantity.hpp"

namespace lpu::node {

/// What a number measures; decides which units it may carry. Values are held in the base unit.
enum class Dimension : std::uint8_t {
  kCount,           ///< things; the unit is their name and may be left out; `k` = 1,024
  kBytes,           ///< B; kB = 10^3, KiB = 2^10, and so on
  kCycles,          ///< chip clock; ns, us, ms where a clock is given (rounded up)
  kHertz,           ///< Hz, kHz, MHz, GHz
  kBytesPerSecond,  ///< B/s, kB/s, MB/s, GB/s, TB/s, Gbit/s
  kMilliWatts,      ///< mW, W, kW
};

/// Reads "220 MiB", "217cycles", "12.5 GB/s", "4k": a decimal number, then its unit.
///
/// Decimal, exact: the value must be a whole number of base units (times given in seconds are rounded up to cycles).
///
/// @param noun   kCount: name of the thing counted, accepted after the number ("slices")
/// @param clock  kCycles: turns seconds into cycles; 0: only cycles are accepted
/// @param where  start of the message: file and path, or flag
/// @throws InputError  "<where>: found <text>; expected …": no unit where one matters (says which to append), an
/// unknown
///                     unit, a fraction of the base unit, more than 64 bits hold
[[nodiscard]] std::int64_t parse_quantity(std::string_view text,
                                          Dimension dimension,
                                          const std::string& where,
                                          std::string_view noun = {},
                                          Hertz clock = Hertz(0));

/// Shortest exact spelling, which parse_quantity() reads back: "220 MiB", "217 cycles", "44 slices".
[[nodiscard]] std::string format_quantity(std::int64_t value, Dimension dimension, std::string_view noun = {});

/// "11,270".
[[nodiscard]] std::string with_thousands(std::int64_t value);
/// "11,270 cycles = 12.5 us".
[[nodiscard]] std::string cycles_with_time(Cycles cycles, Hertz clock);
/// Three significant digits with a decimal unit, for people: "1.31 GB", "220 kB".
[[nodiscard]] std::string approximate_bytes(Bytes bytes);
/// Shortest decimal that reads back to the same double: "1e-05", "500000".
[[nodiscard]] std::string shortest(double value);
/// `value` with a fixed number of decimals.
[[nodiscard]] std::string fixed(double value, int decimals);

}  // namespace lpu::node
