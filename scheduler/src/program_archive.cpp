#include "program_archive.hpp"

#include <algorithm>
#include <istream>
#include <ranges>
#include <sstream>
#include <streambuf>
#include <utility>
#include <vector>

#include <cereal/archives/portable_binary.hpp>

#include "lpu/node/error.hpp"
#include "program_fields.hpp"

namespace lpu::scheduler {
namespace {

using fields::Struct;
using fields::Table;

template <typename T>
concept Scalar = std::is_arithmetic_v<T>;
template <typename T>
concept Enumerator = std::is_enum_v<T>;

// Numbers take as many bytes as they need. Sparse structs start with a mask: bit i is set where field i differs from a
// default-made struct and follows. Most of an instruction is default (three loops, four operands), so that both
// together make it three times smaller than in memory.

template <typename T>
[[nodiscard]] bool is_same(const T& a, const T& b) {
  if constexpr (Struct<T>) {
    bool same = true;
    fields::each<T>([&](const auto& field) { same = same && is_same(fields::get(a, field), fields::get(b, field)); });
    return same;
  } else if constexpr (std::ranges::range<T>) {
    return std::ranges::equal(a, b, [](const auto& x, const auto& y) { return is_same(x, y); });
  } else {
    return a == b;
  }
}

/// Numbers near 0 become small: 0, -1, 1, -2 are 0, 1, 2, 3.
[[nodiscard]] constexpr std::uint64_t zigzag(std::int64_t value) {
  return static_cast<std::uint64_t>(value) << 1U ^ (value < 0 ? ~std::uint64_t{0} : 0U);
}
[[nodiscard]] constexpr std::int64_t unzigzag(std::uint64_t value) {
  return static_cast<std::int64_t>(value >> 1U ^ ((value & 1U) != 0 ? ~std::uint64_t{0} : 0U));
}

class Writer {
 public:
  explicit Writer(std::ostream& out) : archive_(out) {}

  template <Scalar T>
  void put(const T& value) {
    if constexpr (std::is_signed_v<T>) {
      put_number(zigzag(value));
    } else {
      put_number(value);
    }
  }
  template <Enumerator T>
  void put(const T& value) {
    archive_(static_cast<std::uint8_t>(value));
  }
  template <typename Tag>
  void put(const node::Quantity<Tag>& value) {
    put(value.count());
  }
  void put(const std::string& value) {
    put_size(value.size());
    archive_(cereal::binary_data(value.data(), value.size()));
  }
  template <typename T>
  void put(const std::vector<T>& values) {
    put_size(values.size());
    for (const T& value : values) {
      put(value);
    }
  }
  template <typename T, std::size_t N>
  void put(const std::array<T, N>& values) {
    for (const T& value : values) {
      put(value);
    }
  }
  template <typename T, std::size_t N>
  void put(const T (&values)[N]) {
    for (const T& value : values) {
      put(value);
    }
  }
  template <Struct T>
  void put(const T& value) {
    std::uint32_t mask = ~std::uint32_t{0};
    if constexpr (Table<T>::kSparse) {
      mask = 0;
      std::uint32_t bit = 1;
      const T ordinary{};
      fields::each<T>([&](const auto& field) {
        mask |= is_same(fields::get(value, field), fields::get(ordinary, field)) ? 0U : bit;
        bit <<= 1U;
      });
      put_number(mask);
    }
    std::uint32_t bit = 1;
    fields::each<T>([&](const auto& field) {
      if (!Table<T>::kSparse || (mask & bit) != 0) {
        put(fields::get(value, field));
      }
      bit <<= 1U;
    });
  }

 private:
  void put_size(std::size_t size) { put_number(size); }
  /// Seven bits a byte, the lowest first; the top bit says that another byte follows.
  void put_number(std::uint64_t value) {
    for (; value >= 0x80U; value >>= 7U) {
      archive_(static_cast<std::uint8_t>(value | 0x80U));
    }
    archive_(static_cast<std::uint8_t>(value));
  }
  cereal::PortableBinaryOutputArchive archive_;
};

/// A stream over bytes that someone else holds.
class ViewBuffer : public std::streambuf {
 public:
  explicit ViewBuffer(std::string_view bytes) {
    char* begin = const_cast<char*>(bytes.data());  // streambuf's interface; a get area is only read
    setg(begin, begin, begin + bytes.size());
  }
  [[nodiscard]] std::uint64_t remaining() const { return static_cast<std::uint64_t>(egptr() - gptr()); }
};

class Reader {
 public:
  explicit Reader(std::string_view body) : buffer_(body), stream_(&buffer_), archive_(stream_) {}

  [[nodiscard]] std::uint64_t remaining() const { return buffer_.remaining(); }

  template <Scalar T>
  void take(std::string_view name, T& value) {
    const std::uint64_t number = take_number(name);
    if constexpr (std::is_signed_v<T>) {
      value = narrow<T>(name, unzigzag(number));
    } else {
      value = narrow<T>(name, number);
    }
  }
  void take(std::string_view name, bool& value) {
    std::uint8_t byte = 0;
    archive_(byte);
    if (byte > 1) {
      fail(name, std::to_string(byte), "0 or 1");
    }
    value = byte != 0;
  }
  template <Enumerator T>
  void take(std::string_view name, T& value) {
    std::uint8_t byte = 0;
    archive_(byte);
    if (!fields::is_enumerator<T>(byte)) {
      fail(name, std::to_string(byte), "a smaller enumerator");
    }
    value = static_cast<T>(byte);
  }
  template <typename Tag>
  void take(std::string_view name, node::Quantity<Tag>& value) {
    std::int64_t count = 0;
    take(name, count);
    value = node::Quantity<Tag>(count);
  }
  void take(std::string_view name, std::string& value) {
    value.resize(take_size(name));
    archive_(cereal::binary_data(value.data(), value.size()));
  }
  template <typename T>
  void take(std::string_view name, std::vector<T>& values) {
    values.resize(take_size(name));
    for (T& value : values) {
      take(name, value);
    }
  }
  template <typename T, std::size_t N>
  void take(std::string_view name, std::array<T, N>& values) {
    for (T& value : values) {
      take(name, value);
    }
  }
  template <typename T, std::size_t N>
  void take(std::string_view name, T (&values)[N]) {
    for (T& value : values) {
      take(name, value);
    }
  }
  template <Struct T>
  void take(std::string_view name, T& value) {
    std::uint32_t mask = ~std::uint32_t{0};
    if constexpr (Table<T>::kSparse) {
      mask = narrow<std::uint32_t>(name, take_number(name));
      constexpr std::uint64_t kFields = std::tuple_size_v<std::remove_cvref_t<decltype(Table<T>::kFields)>>;
      static_assert(kFields <= 32);
      if (std::uint64_t{mask} >> kFields != 0) {
        fail(name, "field mask " + std::to_string(mask), "at most " + std::to_string(kFields) + " fields");
      }
    }
    std::uint32_t bit = 1;
    fields::each<T>([&](const auto& field) {
      if (!Table<T>::kSparse || (mask & bit) != 0) {
        fields::set(value, field, [&](auto& target) { take(field.name, target); });
      }
      bit <<= 1U;
    });
  }

 private:
  [[noreturn]] static void fail(std::string_view name, const std::string& found, const std::string& expected) {
    throw node::InputError(std::string(name) + ": found " + found + "; expected " + expected);
  }
  template <typename T, typename Wide>
  static T narrow(std::string_view name, Wide number) {
    if (!std::in_range<T>(number)) {
      fail(name, std::to_string(number), "a number of " + std::to_string(8 * sizeof(T)) + " bits");
    }
    return static_cast<T>(number);
  }
  std::uint64_t take_number(std::string_view name) {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      std::uint8_t byte = 0;
      archive_(byte);
      value |= std::uint64_t{byte & 0x7fU} << shift;
      if (byte < 0x80U) {
        return value;
      }
    }
    fail(name, "a number without end", "at most 10 bytes");
  }
  /// Every element takes a byte at least.
  std::size_t take_size(std::string_view name) {
    const std::uint64_t size = take_number(name);
    if (size > remaining()) {
      fail(name,
           std::to_string(size) + " elements",
           "at most " + std::to_string(remaining()) + ", which is all that the rest of the file can hold");
    }
    return static_cast<std::size_t>(size);
  }

  ViewBuffer buffer_;
  std::istream stream_;
  cereal::PortableBinaryInputArchive archive_;
};

/// The one order of a body's parts, for both directions.
template <typename Program, typename Part>
void each_part(Program& program, const Part& part) {
  part("inputs", program.inputs);
  part("program", program);
  part("initiation_interval", program.initiation_interval);
  part("bindings", program.bindings);
}
template <typename Text, typename Part>
void each_text_part(Text& text, const Part& part) {
  part("text", text);
  part("tensors", text.tensors);
  part("allocations", text.allocations);
  part("registers", text.registers);
  part("transfers", text.transfers);
  part("instructions", text.instructions);
}

}  // namespace

std::string encode(const ClusterProgram& program) {
  std::ostringstream out;
  {
    Writer writer(out);
    const auto put = [&writer](std::string_view /*name*/, const auto& part) { writer.put(part); };
    each_part(program, put);
    writer.put(std::uint64_t{program.texts.size()});
    for (const node::ChipProgram& text : program.texts) {
      each_text_part(text, put);
    }
  }
  return std::move(out).str();
}

ClusterProgram decode(std::string_view body) {
  ClusterProgram program;
  try {
    Reader reader(body);
    const auto take = [&reader](std::string_view name, auto& part) { reader.take(name, part); };
    each_part(program, take);
    std::uint64_t texts = 0;
    take("texts", texts);
    // Texts are made one by one, each only when its bytes are there.
    for (std::uint64_t i = 0; i < texts; ++i) {
      each_text_part(program.texts.emplace_back(), take);
    }
    if (reader.remaining() != 0) {
      throw node::InputError("body: found " + std::to_string(reader.remaining()) +
                             " bytes after the last text; expected none");
    }
  } catch (const cereal::Exception&) {
    throw node::InputError("body: found its end in the middle of a field; expected a whole program");
  }
  return program;
}

}  // namespace lpu::scheduler
