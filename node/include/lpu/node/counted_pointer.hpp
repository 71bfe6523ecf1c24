#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

namespace lpu::node {

/// Base of what CountedPointer owns: the number of its owners. A copy begins without any.
class Counted {
 public:
  Counted() = default;
  Counted(const Counted& /*other*/) noexcept {}
  Counted(Counted&& /*other*/) noexcept {}
  Counted& operator=(const Counted& /*other*/) noexcept { return *this; }  // NOLINT(bugprone-unhandled-self-assignment)
  Counted& operator=(Counted&& /*other*/) noexcept { return *this; }
  ~Counted() = default;

 private:
  template <typename T>
  friend class CountedPointer;
  mutable std::uint32_t owners_ = 0;
};

/// One of the owners of an object, all of them on one thread: 8 bytes, and no atomic operation for a copy, of which
/// a cell on the streams has several a cycle (std::shared_ptr: 16 bytes, and atomic as soon as MPI has a thread).
template <typename T>
class CountedPointer {
 public:
  CountedPointer() = default;
  CountedPointer(std::nullptr_t) {}  // NOLINT(google-explicit-constructor): as std::shared_ptr
  explicit CountedPointer(T* object) : object_(object) { add(); }
  CountedPointer(const CountedPointer& other) : object_(other.object_) { add(); }
  CountedPointer(CountedPointer&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  template <typename U>
  CountedPointer(const CountedPointer<U>& other) : object_(other.get()) {  // NOLINT(google-explicit-constructor)
    add();
  }
  template <typename U>
  CountedPointer(CountedPointer<U>&& other) noexcept  // NOLINT(google-explicit-constructor)
      : object_(std::exchange(other.object_, nullptr)) {}
  CountedPointer& operator=(CountedPointer other) noexcept {
    swap(other);
    return *this;
  }
  ~CountedPointer() {
    // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDelete): the analyzer does not follow the count
    if (object_ != nullptr && --object_->owners_ == 0) {
      delete object_;
    }
  }

  void swap(CountedPointer& other) noexcept { std::swap(object_, other.object_); }
  [[nodiscard]] T* get() const { return object_; }
  [[nodiscard]] T& operator*() const { return *object_; }
  [[nodiscard]] T* operator->() const { return object_; }
  [[nodiscard]] explicit operator bool() const { return object_ != nullptr; }
  [[nodiscard]] friend bool operator==(const CountedPointer& a, const CountedPointer& b) {
    return a.object_ == b.object_;
  }

 private:
  template <typename U>
  friend class CountedPointer;
  void add() {
    if (object_ != nullptr) {
      ++object_->owners_;
    }
  }

  T* object_ = nullptr;
};

template <typename T, typename... Arguments>
[[nodiscard]] CountedPointer<T> make_counted(Arguments&&... arguments) {
  return CountedPointer<T>(new T(std::forward<Arguments>(arguments)...));
}

}  // namespace lpu::node
