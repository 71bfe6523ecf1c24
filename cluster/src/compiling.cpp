#include "compiling.hpp"

#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <filesystem>
#include <system_error>
#include <unistd.h>

#include <spdlog/spdlog.h>

#include "json_output.hpp"
#include "lpu/node/error.hpp"
#include "lpu/scheduler/verify.hpp"

namespace lpu::cluster {
namespace {

namespace fs = std::filesystem;
using node::EnvironmentError;
using node::InputError;

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void require_writable_folder(const fs::path& folder, const std::string& where) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw InputError(where + ": found " + (fs::exists(folder, error) ? "no folder at " : "no ") + folder.string() +
                     "; expected an existing folder");
  }
  if (access(folder.c_str(), W_OK | X_OK) != 0) {
    throw InputError(where + ": found " + folder.string() +
                     ", which cannot be written; expected a folder with write permission");
  }
}

}  // namespace

void write_text_file(const fs::path& file, const std::string& text) {
  const std::string temporary = file.string() + ".tmp";
  const auto fail = [&](const std::string& what) {
    const std::error_code code(errno, std::generic_category());
    unlink(temporary.c_str());
    throw EnvironmentError(file.string() + ": found that it cannot be " + what + " (" + code.message() + ")");
  };
  const int descriptor = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) {
    fail("opened");
  }
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t written = write(descriptor, text.data() + done, text.size() - done);
    if (written < 0 && errno != EINTR) {
      close(descriptor);
      fail("written");
    }
    done += written > 0 ? static_cast<std::size_t>(written) : 0;
  }
  const bool is_synced = fsync(descriptor) == 0;
  if (close(descriptor) != 0 || !is_synced || std::rename(temporary.c_str(), file.c_str()) != 0) {
    fail("written");
  }
}

void require_legal(const scheduler::ClusterProgram& program, const Console& console) {
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<node::Violation> breaches = scheduler::verify(program, 1);
  console.log().info("verified in {:.2f} s", seconds_since(begin));
  if (!breaches.empty()) {
    throw node::ScheduleViolation(breaches.front());
  }
}

scheduler::Compiled compile_and_verify(const scheduler::CompileRequest& request, const Console& console) {
  ProgressLine progress(console);
  const auto begin = std::chrono::steady_clock::now();
  scheduler::Compiled compiled = scheduler::compile(request, progress.callback());
  console.log().info("compiled in {:.2f} s: {} distinct texts, TP {} x PP {}",
                     seconds_since(begin),
                     compiled.program.texts.size(),
                     compiled.program.tensor_parallel,
                     compiled.program.pipeline_parallel);
  progress.show(1, "verify");
  require_legal(compiled.program, console);
  return compiled;
}

std::string only_word(const CommandLine& line, const std::string& what) {
  if (line.words.size() != 1) {
    throw InputError(std::string(name(*line.verb)) + ": found " +
                     (line.words.empty() ? "nothing after it" : std::to_string(line.words.size()) + " words after it") +
                     "; expected " + what);
  }
  return line.words.front();
}

void refuse_words(const CommandLine& line) {
  if (line.words.empty()) {
    return;
  }
  const std::string& word = line.words.front();
  const bool is_program = *line.verb == Verb::kRun && word.ends_with(".lpuprog");
  throw InputError(std::string(name(*line.verb)) + ": found " + word +
                   " after it; expected flags only, see lpu_cluster " + std::string(name(*line.verb)) + " --help" +
                   (is_program ? "; did you mean --program " + word + "?" : ""));
}

std::string program_file(const CommandLine& line) {
  if (line.has("program")) {
    refuse_words(line);
    return line.value("program");
  }
  return only_word(line, "one program file");
}

std::string output_file(const CommandLine& line, const std::string& suffix) {
  return writable_file(line.value("output"), "-o", suffix);
}

std::string writable_file(const std::string& file, const std::string& shown, const std::string& suffix) {
  if (file.empty()) {
    throw InputError(shown + ": found nothing; expected the file to write, such as model" + suffix);
  }
  // What is written is renamed over what was there: a device or a pipe would be gone.
  std::error_code error;
  if (const fs::file_status status = fs::status(file, error); fs::exists(status) && !fs::is_regular_file(status)) {
    throw InputError(shown + ": found " + file + (fs::is_directory(status) ? ", a folder" : ", no regular file") +
                     "; expected the name of a file to write");
  }
  const fs::path parent = fs::path(file).parent_path();
  require_writable_folder(parent.empty() ? fs::path(".") : parent, shown);
  return file;
}

std::string output_folder(const CommandLine& line) {
  if (!line.has("output-dir")) {
    return {};
  }
  require_writable_folder(line.value("output-dir"), "--output-dir");
  return line.value("output-dir");
}

void print_result(const CommandLine& line,
                  const Console& console,
                  const boost::json::object& object,
                  const std::string& text) {
  const std::string json = pretty(object) + "\n";
  const std::string folder = output_folder(line);
  if (!folder.empty()) {
    write_text_file(fs::path(folder) / "results.json", json);
  }
  console.print(console.is_json() ? json : text);
}

}  // namespace lpu::cluster
