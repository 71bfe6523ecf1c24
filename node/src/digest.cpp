#include "lpu/node/digest.hpp"

#include <array>

namespace lpu::node {

std::uint64_t digest_bytes(std::span<const std::byte> bytes) {
  std::uint64_t digest = 0;
  std::uint64_t word = 0;
  unsigned filled = 0;
  for (const std::byte byte : bytes) {
    word |= static_cast<std::uint64_t>(byte) << (8U * filled);
    if (++filled == 8) {
      digest = fold(digest, word);
      word = 0;
      filled = 0;
    }
  }
  return fold(fold(digest, word), bytes.size());
}

std::uint64_t digest_text(std::string_view text) {
  return digest_bytes(std::as_bytes(std::span(text)));
}

std::string to_hex(std::uint64_t digest) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out(16, '0');
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[out.size() - 1 - i] = kDigits[(digest >> (4U * i)) & 0xfU];
  }
  return out;
}

}  // namespace lpu::node
