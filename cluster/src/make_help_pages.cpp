#include <iostream>
#include <string_view>

#include "help_pages.hpp"

// Prints the man page or the completion; called while building.
int main(int argc, char** argv) {
  const std::string_view form = argc == 2 ? argv[1] : "";
  if (form != "man" && form != "bash") {
    std::cerr << "make_help_pages: found " << (form.empty() ? "nothing" : form) << "; expected man or bash\n";
    return 2;
  }
  std::cout << (form == "man" ? lpu::cluster::man_page() : lpu::cluster::bash_completion()) << std::flush;
  return std::cout.good() ? 0 : 4;
}
