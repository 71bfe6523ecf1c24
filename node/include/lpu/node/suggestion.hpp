#pragma once
#include <span>
#include <string>
#include <string_view>

namespace lpu::node {

/// The candidate that `found` is most likely a misspelling of; empty when none is near.
///
/// Optimal string alignment distance (insert, delete, replace, swap of neighbours, each 1), case ignored; near is at
/// most a third of the longer word, and at least 1. Ties: the first candidate.
[[nodiscard]] std::string_view nearest(std::string_view found, std::span<const std::string> candidates);

/// "; known: a, b, c" and, where one is near, "; did you mean b?".
[[nodiscard]] std::string known_values(std::string_view found, std::span<const std::string> candidates);

/// "; did you mean b?", or nothing. For tables too long to list.
[[nodiscard]] std::string did_you_mean(std::string_view found, std::span<const std::string> candidates);

/// The text on one line, for messages: control characters as \xNN.
[[nodiscard]] std::string printable(std::string_view text);

/// "a, b, c".
[[nodiscard]] std::string join(std::span<const std::string> words, std::string_view separator = ", ");

}  // namespace lpu::node
