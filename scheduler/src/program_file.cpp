#include "lpu/scheduler/program_file.hpp"

#include <new>
#include <string>
#include <string_view>

#include "lpu/node/error.hpp"
#include "lpu/node/sealed_file.hpp"
#include "lpu/scheduler/well_formed.hpp"
#include "program_archive.hpp"

namespace lpu::scheduler {
namespace {

constexpr node::FileKind kKind{
    .magic = "LPUPROG\n", .version = 2, .name = "a program file (*.lpuprog)", .plural = "program files"};

}  // namespace

std::string to_bytes(const ClusterProgram& program) {
  const auto fault = find_form_fault(program);
  LPU_CHECK(!fault, fault->message());
  return node::seal(kKind, encode(program));
}

void save_program(const ClusterProgram& program, const std::filesystem::path& file) {
  node::write_durably(file, to_bytes(program));
}

ClusterProgram load_program(const std::filesystem::path& file) {
  return from_bytes(node::read_whole(kKind, file), file.string());
}

ClusterProgram from_bytes(std::string_view bytes, const std::string& name) {
  const std::string_view body = node::unseal(kKind, bytes, name);
  try {
    ClusterProgram program = decode(body);
    check_well_formed(program);
    return program;
  } catch (const node::InputError& error) {
    throw node::InputError(name + ": " + error.what());
  } catch (const std::bad_alloc&) {
    throw node::EnvironmentError(name + ": no memory for the program");
  }
}

}  // namespace lpu::scheduler
