#pragma once

namespace lpu::cluster {

/// The whole program: parse the command line, do the verb, print the result.
///
/// @return an exit code of node::ExitCode; every error has been printed, in one line, on stderr
[[nodiscard]] int run(int argc, char** argv);

}  // namespace lpu::cluster
