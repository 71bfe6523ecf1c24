#pragma once
#include <filesystem>
#include <iosfwd>
#include <string>

#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::scheduler {

/// The inverse of inspect_json(): an edited listing becomes a program again. The order of instruction lines is free
/// (they are put into a text's order); whether the program is legal is verify()'s business.
///
/// @param name  how messages call the listing
/// @throws node::InputError  "<name>:<line>: <field>: found …; expected …": not JSON, an unknown or missing field, a
/// type or
///         a number that the field cannot hold, an index that names nothing, a listing that is cut off or only a
///         selection
[[nodiscard]] ClusterProgram assemble(std::istream& in, const std::string& name);
[[nodiscard]] ClusterProgram assemble(const std::filesystem::path& file);

}  // namespace lpu::scheduler
