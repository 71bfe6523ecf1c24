#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace lpu::node {

/// 64-bit mixing (splitmix64 finaliser, Steele et al. 2014): every bit of the input moves every bit of the output.
[[nodiscard]] constexpr std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27U)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31U);
}

/// Order-dependent fold of a word into a running digest.
[[nodiscard]] constexpr std::uint64_t fold(std::uint64_t digest, std::uint64_t word) {
  return mix(digest ^ mix(word));
}

/// Digest of bytes, the same on every machine (little-endian words, length folded last).
[[nodiscard]] std::uint64_t digest_bytes(std::span<const std::byte> bytes);
[[nodiscard]] std::uint64_t digest_text(std::string_view text);
/// 16 lower-case hexadecimal digits.
[[nodiscard]] std::string to_hex(std::uint64_t digest);

}  // namespace lpu::node
