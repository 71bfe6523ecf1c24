#include "lpu/node/sealed_file.hpp"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <new>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"

namespace lpu::node {
namespace {

constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kLengthAt = 12;
constexpr std::size_t kDigestAt = 20;
constexpr std::size_t kHeaderBytes = 28;

template <typename T>
void append_number(std::string& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    out.push_back(static_cast<char>((value >> (8U * i)) & 0xffU));
  }
}

template <typename T>
[[nodiscard]] T read_number(std::string_view from) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<T>(static_cast<unsigned char>(from[i])) << (8U * i);
  }
  return value;
}

[[nodiscard]] std::uint64_t digest_file(std::string_view head, std::string_view body) {
  return fold(digest_text(head), digest_text(body));
}

[[nodiscard]] std::string reason(int error) {
  return std::generic_category().message(error);
}

/// Disk and quota are nobody's input; everything else about a path is.
[[noreturn]] void fail_path(const std::filesystem::path& file, int error, const std::string& expected) {
  constexpr std::array kEnvironment{ENOSPC, EDQUOT, EFBIG, EIO, ENFILE, EMFILE, ENOMEM};
  for (const int one : kEnvironment) {
    if (error == one) {
      throw EnvironmentError(file.string() + ": " + reason(error));
    }
  }
  throw InputError(file.string() + ": found \"" + reason(error) + "\"; expected " + expected);
}

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }
  [[nodiscard]] int number() const { return number_; }
  /// @return errno of the close, or 0
  int close() {
    const int number = std::exchange(number_, -1);
    return number >= 0 && ::close(number) != 0 ? errno : 0;
  }

 private:
  int number_;
};

/// Removes the temporary file unless it was renamed.
class Temporary {
 public:
  explicit Temporary(std::string path) : path_(std::move(path)) {}
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  ~Temporary() {
    if (!is_kept_) {
      ::unlink(path_.c_str());
    }
  }
  [[nodiscard]] const char* path() const { return path_.c_str(); }
  void keep() { is_kept_ = true; }

 private:
  std::string path_;
  bool is_kept_ = false;
};

/// @return errno, or 0
[[nodiscard]] int write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) {
        continue;
      }
      return errno;
    }
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

[[nodiscard]] std::string quoted(std::string_view bytes) {
  std::string out = "\"";
  for (const char c : bytes) {
    if (c >= ' ' && c <= '~' && c != '"' && c != '\\') {
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else {
      constexpr std::string_view kDigits = "0123456789abcdef";
      const auto byte = static_cast<unsigned char>(c);
      out += "\\x";
      out += kDigits[byte >> 4U];
      out += kDigits[byte & 0xfU];
    }
  }
  return out + "\"";
}

}  // namespace

std::string seal(const FileKind& kind, std::string_view body) {
  LPU_CHECK(kind.magic.size() == kVersionAt, "a magic of another length");
  std::string bytes(kind.magic);
  append_number(bytes, kind.version);
  append_number(bytes, static_cast<std::uint64_t>(body.size()));
  append_number(bytes, digest_file(bytes, body));
  bytes += body;
  return bytes;
}

std::string_view unseal(const FileKind& kind, std::string_view view, const std::string& name) {
  const auto fail = [&name](const std::string& found, const std::string& expected) {
    throw InputError(name + ": found " + found + "; expected " + expected);
  };
  if (view.substr(0, kVersionAt) != kind.magic) {
    fail(view.empty() ? "an empty file" : "magic " + quoted(view.substr(0, kVersionAt)),
         quoted(kind.magic) + ", with which " + std::string(kind.plural) + " begin");
  }
  if (view.size() < kHeaderBytes) {
    fail(std::to_string(view.size()) + " bytes",
         "a header of " + std::to_string(kHeaderBytes) + " bytes (truncated file)");
  }
  const auto version = read_number<std::uint32_t>(view.substr(kVersionAt));
  if (version != kind.version) {
    fail("format version " + std::to_string(version), "version " + std::to_string(kind.version));
  }
  const auto length = read_number<std::uint64_t>(view.substr(kLengthAt));
  const std::string_view body = view.substr(kHeaderBytes);
  if (length != body.size()) {
    fail("a body of " + std::to_string(body.size()) + " bytes", std::to_string(length) + ", as the header says");
  }
  const auto expected = read_number<std::uint64_t>(view.substr(kDigestAt));
  const std::uint64_t found = digest_file(view.substr(0, kDigestAt), body);
  if (found != expected) {
    fail("content with digest " + to_hex(found), to_hex(expected) + ", as the header says");
  }
  return body;
}

void write_durably(const std::filesystem::path& file, std::string_view bytes) {
  const std::string expected = "a path that can be written";
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    throw InputError(file.string() + ": found " +
                     (std::filesystem::is_directory(status) ? "a folder" : "no regular file") + "; expected " +
                     expected);
  }
  Temporary temporary(file.string() + "." + std::to_string(::getpid()) + ".tmp");
  Descriptor descriptor(::open(temporary.path(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (descriptor.number() < 0) {
    const int failure = errno;
    temporary.keep();  // it is not ours
    fail_path(file, failure, expected);
  }
  int failure = write_all(descriptor.number(), bytes);
  failure = failure != 0 || ::fsync(descriptor.number()) == 0 ? failure : errno;
  const int close_failure = descriptor.close();
  failure = failure != 0 ? failure : close_failure;
  failure = failure != 0 || ::rename(temporary.path(), file.c_str()) == 0 ? failure : errno;
  if (failure != 0) {
    fail_path(file, failure, expected);
  }
  temporary.keep();
  // The rename itself lasts once the folder is on disk; a file system that cannot sync folders is no reason to fail.
  const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  const Descriptor at(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (at.number() >= 0) {
    ::fsync(at.number());
  }
}

std::string read_whole(const FileKind& kind, const std::filesystem::path& file) {
  const std::string expected(kind.name);
  const Descriptor descriptor(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (descriptor.number() < 0) {
    fail_path(file, errno, expected);
  }
  struct stat status {};
  if (::fstat(descriptor.number(), &status) != 0) {
    fail_path(file, errno, expected);
  }
  if (!S_ISREG(status.st_mode)) {
    throw InputError(file.string() + ": found " + (S_ISDIR(status.st_mode) ? "a folder" : "no regular file") +
                     "; expected " + expected);
  }
  std::string bytes;
  try {
    bytes.resize(static_cast<std::size_t>(status.st_size));
  } catch (const std::bad_alloc&) {
    throw EnvironmentError(file.string() + ": no memory for its " + std::to_string(status.st_size) + " bytes");
  }
  std::size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t got = ::read(descriptor.number(), bytes.data() + filled, bytes.size() - filled);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      fail_path(file, errno, expected);
    }
    if (got == 0) {
      bytes.resize(filled);
    }
    filled += static_cast<std::size_t>(got);
  }
  return bytes;
}

}  // namespace lpu::node
