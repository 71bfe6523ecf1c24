#pragma once
#include <filesystem>
#include <string>

#include "command_line.hpp"
#include "configuration.hpp"
#include "console.hpp"
#include "lpu/scheduler/compile.hpp"

namespace lpu::cluster {

/// Compiles and proves; progress on stderr.
/// @throws ScheduleViolation  the proof found a breach; what compile() throws
[[nodiscard]] scheduler::Compiled compile_and_verify(const scheduler::CompileRequest& request, const Console& console);

/// @throws ScheduleViolation  the first breach
void require_legal(const scheduler::ClusterProgram& program, const Console& console);

/// The file named after the verb, or by --program.
[[nodiscard]] std::string program_file(const CommandLine& line);

/// The one word after the verb is a file, and there is no other.
[[nodiscard]] std::string only_word(const CommandLine& line, const std::string& what);
void refuse_words(const CommandLine& line);

/// -o, and its folder exists and can be written.
[[nodiscard]] std::string output_file(const CommandLine& line, const std::string& suffix);
/// The same for another flag that names a file to write.
/// @param shown  the flag as messages call it
[[nodiscard]] std::string writable_file(const std::string& file, const std::string& shown, const std::string& suffix);
/// Temporary name, sync, rename: no reader ever sees half a file.
/// @throws EnvironmentError  it cannot be written
void write_text_file(const std::filesystem::path& file, const std::string& text);
/// --output-dir exists and can be written; empty: not given.
[[nodiscard]] std::string output_folder(const CommandLine& line);

/// Prints a result object, or its text, and writes results.json where --output-dir asks for it.
void print_result(const CommandLine& line,
                  const Console& console,
                  const boost::json::object& object,
                  const std::string& text);

}  // namespace lpu::cluster
