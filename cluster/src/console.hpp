#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace spdlog {
class logger;
}

namespace lpu::cluster {

enum class OutputForm : std::uint8_t { kText, kJson };
enum class Verbosity : std::uint8_t { kNormal, kQuiet };

/// Where a verb prints: the result on stdout, progress and logs on stderr.
class Console {
 public:
  Console(OutputForm form, Verbosity verbosity, const std::string& log_level);

  [[nodiscard]] bool is_json() const { return form_ == OutputForm::kJson; }
  [[nodiscard]] bool is_quiet() const { return verbosity_ == Verbosity::kQuiet; }
  [[nodiscard]] spdlog::logger& log() const { return *logger_; }

  /// @throws EnvironmentError  stdout takes no more (disk full)
  void print(std::string_view text) const;
  void print_line(std::string_view text) const;

 private:
  OutputForm form_;
  Verbosity verbosity_;
  std::shared_ptr<spdlog::logger> logger_;
};

/// One line on stderr, after the program's name; always shown.
void complain(std::string_view message);

/// Shows how far a step is: a bar where it takes over 2 s and stderr is a terminal, else a line every 10 s.
class ProgressLine {
 public:
  explicit ProgressLine(const Console& console);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(double share, const std::string& what);
  /// For functions that report progress to a callback.
  [[nodiscard]] std::function<void(double, const std::string&)> callback();

 private:
  using Clock = std::chrono::steady_clock;

  bool is_silent_;
  bool is_terminal_;
  bool has_bar_ = false;
  Clock::time_point begin_ = Clock::now();
  Clock::time_point last_ = begin_;
};

/// Columns of text, aligned: numbers to the right, words to the left.
class Table {
 public:
  explicit Table(std::string margin = "  ") : margin_(std::move(margin)) {}
  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  [[nodiscard]] std::string text() const;

 private:
  std::string margin_;
  std::vector<std::vector<std::string>> rows_;
};

/// Breaks a text at spaces into lines of at most `width`; the later ones start with `indent` spaces.
[[nodiscard]] std::string wrapped(std::string_view text, std::size_t width, std::size_t indent);

}  // namespace lpu::cluster
