#pragma once
#include <string>

#include <boost/json.hpp>

#include "command_line.hpp"

namespace lpu::cluster {

/// Indented JSON; objects and arrays that fit a line of 100 characters stay on it. Doubles in their shortest spelling
/// that reads back to the same bits; not a number and infinity are null.
[[nodiscard]] std::string pretty(const boost::json::value& value);
/// The same on one line.
[[nodiscard]] std::string compact(const boost::json::value& value);

/// `schema`, `version`, `command`: what every object starts with.
[[nodiscard]] boost::json::object result_object(const CommandLine& line);

}  // namespace lpu::cluster
