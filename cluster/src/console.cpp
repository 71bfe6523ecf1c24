#include "console.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iostream>
#include <unistd.h>
#include <utility>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "lpu/node/error.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/node/suggestion.hpp"

namespace lpu::cluster {
namespace {

using namespace std::chrono_literals;
constexpr auto kBarAfter = 2s;
constexpr auto kBarEvery = 100ms;
constexpr auto kLineEvery = 10s;

spdlog::level::level_enum parse_level(const std::string& level) {
  static const std::vector<std::string> kLevels = {"trace", "debug", "info", "warn", "error", "off"};
  if (std::find(kLevels.begin(), kLevels.end(), level) == kLevels.end()) {
    throw node::InputError("--log-level: found " + level + "; expected a level" + node::known_values(level, kLevels));
  }
  return level == "error" ? spdlog::level::err : spdlog::level::from_str(level);
}

/// "11,270", "-3", "5.88 us", "45.6 %": a number, and at most one short unit.
bool is_number(const std::string& cell) {
  const std::size_t first = cell.starts_with('-') ? 1 : 0;
  const std::size_t end = std::min(cell.find_first_not_of("0123456789,.", first), cell.size());
  constexpr std::size_t kLongestUnit = 3;  // a space and two letters
  return end > first && cell.size() - end <= kLongestUnit && (end == cell.size() || cell[end] == ' ');
}

/// Whether all of a column below its heading, or a heading alone, are numbers: such a column stands right.
bool holds_numbers(const std::vector<std::vector<std::string>>& rows, std::size_t column) {
  std::size_t numbers = 0;
  for (std::size_t row = rows.size() > 1 ? 1 : 0; row < rows.size(); ++row) {
    const std::string cell = column < rows[row].size() ? rows[row][column] : std::string();
    if (!cell.empty() && cell != "n/a" && !is_number(cell)) {
      return false;
    }
    numbers += is_number(cell) ? 1 : 0;
  }
  return numbers > 0;
}

/// Characters, not bytes: UTF-8 continuation bytes take no room.
std::size_t columns(const std::string& cell) {
  return static_cast<std::size_t>(
      std::count_if(cell.begin(), cell.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; }));
}

}  // namespace

Console::Console(OutputForm form, Verbosity verbosity, const std::string& log_level)
    : form_(form), verbosity_(verbosity) {
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  logger_ = std::make_shared<spdlog::logger>("lpu_cluster", std::move(sink));
  logger_->set_pattern("lpu_cluster: %l: %v");
  logger_->set_level(parse_level(log_level));
  if (is_quiet()) {
    logger_->set_level(spdlog::level::off);
  }
}

void Console::print(std::string_view text) const {
  std::cout.write(text.data(), static_cast<std::streamsize>(text.size()));
  std::cout.flush();
  if (!std::cout) {
    throw node::EnvironmentError("stdout: found that it takes no more; expected room for the result");
  }
}

void Console::print_line(std::string_view text) const {
  print(std::string(text) + "\n");
}

void complain(std::string_view message) {
  std::cerr << "lpu_cluster: " << node::printable(message) << std::endl;
}

ProgressLine::ProgressLine(const Console& console)
    : is_silent_(console.is_quiet()), is_terminal_(isatty(STDERR_FILENO) == 1) {}

ProgressLine::~ProgressLine() {
  if (has_bar_) {
    std::cerr << "\r\033[K" << std::flush;
  }
}

void ProgressLine::show(double share, const std::string& what) {
  if (is_silent_) {
    return;
  }
  const auto now = Clock::now();
  const double done = std::clamp(share, 0.0, 1.0);
  const std::string percent = std::to_string(static_cast<int>(std::floor(done * 100))) + " %";
  if (is_terminal_) {
    if (now - begin_ < kBarAfter || now - last_ < kBarEvery) {
      return;
    }
    constexpr std::size_t kWidth = 30;
    const auto filled = static_cast<std::size_t>(done * static_cast<double>(kWidth));
    std::cerr << "\r\033[K[" << std::string(filled, '#') << std::string(kWidth - filled, '.') << "] " << percent << "  "
              << what.substr(0, 40) << std::flush;
    has_bar_ = true;
  } else {
    if (now - last_ < kLineEvery) {
      return;
    }
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - begin_).count();
    std::cerr << "lpu_cluster: " << what << ": " << percent << " after " << seconds << " s\n" << std::flush;
  }
  last_ = now;
}

std::function<void(double, const std::string&)> ProgressLine::callback() {
  return [this](double share, const std::string& what) { show(share, what); };
}

std::string Table::text() const {
  std::vector<std::size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t column = 0; column < row.size(); ++column) {
      widths[column] = std::max(widths[column], columns(row[column]));
    }
  }
  std::string out;
  std::vector<bool> is_right;
  for (std::size_t column = 0; column < widths.size(); ++column) {
    is_right.push_back(holds_numbers(rows_, column));
  }
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    std::string line = margin_;
    for (std::size_t column = 0; column < rows_[row].size(); ++column) {
      const std::string& cell = rows_[row][column];
      const std::string gap(widths[column] - columns(cell), ' ');
      line += (column == 0 ? "" : "  ") + (is_right[column] ? gap + cell : cell + gap);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string wrapped(std::string_view text, std::size_t width, std::size_t indent) {
  std::string out;
  std::size_t used = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    if (used > 0 && used + 1 + word.size() > width) {
      out += "\n" + std::string(indent, ' ');
      used = 0;
    }
    out += (used == 0 ? "" : " ") + std::string(word);
    used += word.size() + (used == 0 ? 0 : 1);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

}  // namespace lpu::cluster
