#include "command_line.hpp"

#include <algorithm>
#include <cstddef>
#include <iterator>

#include <boost/program_options.hpp>

#include "command_line_tables.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/node/suggestion.hpp"

namespace lpu::cluster {
namespace {

namespace po = boost::program_options;
using node::InputError;

const FlagRow* find_flag(std::string_view flag) {
  const auto rows = flag_rows();
  const auto row = std::find_if(rows.begin(), rows.end(), [&](const FlagRow& r) { return r.name == flag; });
  return row == rows.end() ? nullptr : &*row;
}

const VerbRow& row_of(Verb verb) {
  return verb_rows()[static_cast<std::size_t>(verb)];
}

std::vector<std::string> verb_names() {
  std::vector<std::string> out;
  for (const VerbRow& row : verb_rows()) {
    out.emplace_back(row.name);
  }
  return out;
}

std::vector<std::string> flag_names(std::optional<Verb> verb) {
  std::vector<std::string> out;
  for (const FlagRow& row : flag_rows()) {
    if (!verb || is_flag_of(row, *verb)) {
      out.push_back("--" + std::string(row.name));
    }
  }
  return out;
}

[[noreturn]] void refuse_flag(const std::string& flag, std::optional<Verb> verb) {
  throw InputError(flag + ": found an unknown flag; expected one of lpu_cluster" +
                   (verb ? " " + std::string(name(*verb)) : "") + " --help" +
                   node::did_you_mean(flag, flag_names(verb)));
}

/// "help" and "version" are flags here.
[[noreturn]] void refuse_verb(const std::string& word) {
  const std::string flag = "--" + word;
  const FlagRow* row = find_flag(word);
  const bool is_flag = row != nullptr && is_of_every_verb(*row);
  throw InputError(word + ": found an unknown verb; expected one of the known ones" +
                   (is_flag ? "; known: " + node::join(verb_names()) + "; did you mean " + flag + "?"
                            : node::known_values(word, verb_names())));
}

/// The words of the call as Boost sees them: no guessing of shortened flags.
po::parsed_options parse_words(const std::vector<std::string>& words) {
  po::options_description description;
  for (const FlagRow& row : flag_rows()) {
    const std::string names = std::string(row.name) + (row.letter == 0 ? std::string() : std::string{',', row.letter});
    if (row.value_name.empty()) {
      description.add_options()(names.c_str(), "");
    } else {
      description.add_options()(names.c_str(), po::value<std::string>(), "");
    }
  }
  namespace style = po::command_line_style;
  const int how = (style::unix_style & ~style::allow_guessing & ~style::allow_sticky);
  return po::command_line_parser(words).options(description).style(how).allow_unregistered().run();
}

std::string as_typed(const std::vector<std::string>& words) {
  std::string out = "lpu_cluster";
  for (const std::string& word : words) {
    const bool is_plain = !word.empty() && word.find_first_of(" \t\n\"'\\$`*?;&|<>()") == std::string::npos;
    out += ' ';
    if (is_plain) {
      out += word;
      continue;
    }
    out += '\'';
    for (const char c : word) {
      out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    }
    out += '\'';
  }
  return out;
}

void take_flag(CommandLine& line, const po::option& option) {
  const FlagRow& row = *find_flag(option.string_key);
  const std::string flag = "--" + option.string_key;
  if (line.verb && !is_flag_of(row, *line.verb)) {
    throw InputError(flag + ": found a flag that " + std::string(name(*line.verb)) +
                     " does not take; expected one of lpu_cluster " + std::string(name(*line.verb)) + " --help" +
                     node::did_you_mean(flag, flag_names(line.verb)));
  }
  const std::string value = option.value.empty() ? std::string() : option.value.front();
  if (row.name == "set") {
    line.settings.push_back(value);
    return;
  }
  if (!line.values.emplace(option.string_key, value).second && !row.value_name.empty()) {
    throw InputError(flag + ": found it twice; expected one value");
  }
}

std::string padded(std::string_view text, std::size_t width) {
  return std::string(text) + std::string(text.size() < width ? width - text.size() : 1, ' ');
}

std::string flag_help(const FlagRow& row) {
  std::string out =
      "  " +
      padded("--" + std::string(row.name) + (row.value_name.empty() ? "" : " ") + std::string(row.value_name), 24);
  out += std::string(row.doc) + "\n";
  if (!row.range.empty()) {
    const std::string_view shown = row.shown.empty() ? row.initial : row.shown;
    out += std::string(26, ' ') + std::string(row.range) + "; default: " + std::string(shown) + "\n";
  }
  return out;
}

std::string general_help() {
  std::string out = "lpu_cluster: " + std::string(kSummary) +
                    "\n\nusage: lpu_cluster [VERB] [flags]; without a verb: demo\n\nverbs:\n";
  for (const VerbRow& row : verb_rows()) {
    out += "  " + padded(row.name, 10) + std::string(row.doc) + "\n";
  }
  out += "\nflags of every verb:\n";
  for (const FlagRow& row : flag_rows()) {
    if (is_of_every_verb(row)) {
      out += flag_help(row);
    }
  }
  out += "\nexamples:\n" + std::string(kExamples);
  return out;
}

}  // namespace

std::string_view name(Verb verb) {
  return row_of(verb).name;
}

std::string CommandLine::value(std::string_view flag) const {
  const auto found = values.find(flag);
  if (found != values.end()) {
    return found->second;
  }
  const FlagRow* row = find_flag(flag);
  LPU_CHECK(row != nullptr, flag);
  return std::string(row->initial);
}

CommandLine parse_command_line(std::span<const char* const> arguments) {
  std::vector<std::string> words(arguments.begin(), arguments.end());
  CommandLine line;
  line.command = as_typed(words);
  if (!words.empty() && !words.front().empty() && words.front().front() != '-') {
    const auto verbs = verb_rows();
    const auto row =
        std::find_if(verbs.begin(), verbs.end(), [&](const VerbRow& r) { return r.name == words.front(); });
    if (row == verbs.end()) {
      refuse_verb(words.front());
    }
    line.verb = row->verb;
    words.erase(words.begin());
  } else {
    const auto asks = [&](std::string_view flag) { return std::find(words.begin(), words.end(), flag) != words.end(); };
    if (!asks("--help") && !asks("-h") && !asks("--version")) {
      line.verb = Verb::kDemo;
    }
  }
  try {
    for (const po::option& option : parse_words(words).options) {
      if (option.unregistered) {
        const std::string flag = option.original_tokens.front();
        refuse_flag(flag.substr(0, flag.find('=')), line.verb);
      }
      if (option.position_key != -1) {
        line.words.insert(line.words.end(), option.value.begin(), option.value.end());
        continue;
      }
      take_flag(line, option);
    }
  } catch (const po::invalid_command_line_syntax& error) {
    const std::string flag = error.get_option_name();
    throw InputError(flag + ": found " +
                     (error.kind() == po::invalid_command_line_syntax::extra_parameter
                          ? "a value; expected none"
                          : "no value; expected one after it"));
  } catch (const po::error& error) {
    throw InputError("command line: found " + std::string(error.what()) + "; expected flags of lpu_cluster --help");
  }
  return line;
}

std::string help(std::optional<Verb> verb) {
  if (!verb) {
    return general_help();
  }
  const VerbRow& row = row_of(*verb);
  std::string out = "lpu_cluster " + std::string(row.name) + ": " + std::string(row.doc) + "\n\nusage: lpu_cluster " +
                    std::string(row.name) + (row.usage.empty() ? "" : " ") + std::string(row.usage) +
                    " [flags]\n\nflags:\n";
  for (const FlagRow& flag : flag_rows()) {
    if (is_flag_of(flag, *verb)) {
      out += flag_help(flag);
    }
  }
  out += "\nexamples:\n" + std::string(row.examples);
  return out;
}

std::int64_t parse_integer(const std::string& flag,
                           const std::string& text,
                           std::int64_t minimum,
                           std::int64_t maximum) {
  const std::string where = "--" + flag;
  const std::int64_t value = node::parse_quantity(text, node::Dimension::kCount, where);
  if (value < minimum || value > maximum) {
    throw InputError(where + ": found " + text + "; expected " + std::to_string(minimum) + " to " +
                     std::to_string(maximum));
  }
  return value;
}

std::vector<std::string> parse_list(const std::string& flag, const std::string& text) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    out.push_back(text.substr(at, end - at));
    if (out.back().empty()) {
      throw InputError("--" + flag + ": found " + (text.empty() ? "nothing" : text) +
                       "; expected values with commas between them");
    }
    at = end + 1;
  }
  return out;
}

std::pair<std::int64_t, std::int64_t> parse_span(const std::string& flag, const std::string& text) {
  if (text.empty() || text.find_first_not_of("0123456789-") != std::string::npos) {
    throw InputError("--" + flag + ": found " + text + "; expected a number or two of them, such as 0-7");
  }
  const std::size_t dash = text.find('-');
  const std::string first = text.substr(0, dash);
  const std::string last = dash == std::string::npos ? first : text.substr(dash + 1);
  constexpr std::int64_t kMost = std::int64_t{1} << 60U;
  const std::pair<std::int64_t, std::int64_t> out = {parse_integer(flag, first, 0, kMost),
                                                     parse_integer(flag, last, 0, kMost)};
  if (out.second < out.first) {
    throw InputError("--" + flag + ": found " + text + "; expected the smaller number first");
  }
  return out;
}

}  // namespace lpu::cluster
