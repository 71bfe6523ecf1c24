# The architecture, as a table the configure step enforces.
set(LPU_MAY_USE_node "")
set(LPU_MAY_USE_interconnect node)
set(LPU_MAY_USE_scheduler node interconnect)
set(LPU_MAY_USE_cluster node interconnect scheduler)

# Flags of our own code. They travel on this target and reach neither third-party headers (SYSTEM) nor users of an installed tree.
add_library(lpu_options INTERFACE)
target_compile_features(lpu_options INTERFACE cxx_std_20)
target_compile_options(lpu_options INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wswitch-enum
  -Wnon-virtual-dtor -Wold-style-cast -ffp-contract=off
  $<$<BOOL:${LPU_WERROR}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(lpu_options INTERFACE -Wno-restrict)  # "literal" + std::string is reported at -O3 (gcc bug 105651)
endif()
foreach(s IN LISTS LPU_SANITIZE)
  target_compile_options(lpu_options INTERFACE -fsanitize=${s} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(lpu_options INTERFACE -fsanitize=${s})
endforeach()

# lpu_add_library(<folder> HEADERS h... SOURCES s... [USES folder...] [LINKS ext...] [PUBLIC_LINKS ext...])
# LINKS stay inside the folder: what interconnect links (MPI) no other folder can include. PUBLIC_LINKS: only what a public header names.
function(lpu_add_library name)
  cmake_parse_arguments(ARG "" "" "HEADERS;SOURCES;USES;LINKS;PUBLIC_LINKS" ${ARGN})
  foreach(u IN LISTS ARG_USES)
    if(NOT u IN_LIST LPU_MAY_USE_${name})
      message(FATAL_ERROR "lpu_${name} may not use lpu_${u}; allowed: ${LPU_MAY_USE_${name}} (scripts/cmake/LpuTargets.cmake)")
    endif()
  endforeach()
  add_library(lpu_${name} STATIC)
  add_library(lpu::${name} ALIAS lpu_${name})
  set_target_properties(lpu_${name} PROPERTIES EXPORT_NAME ${name})
  target_sources(lpu_${name} PRIVATE ${ARG_SOURCES}
    PUBLIC FILE_SET HEADERS BASE_DIRS include FILES ${ARG_HEADERS})
  target_compile_features(lpu_${name} PUBLIC cxx_std_20)
  target_include_directories(lpu_${name} PRIVATE src)
  list(TRANSFORM ARG_USES PREPEND lpu::)
  target_link_libraries(lpu_${name} PUBLIC ${ARG_USES} ${ARG_PUBLIC_LINKS} PRIVATE ${ARG_LINKS} $<BUILD_INTERFACE:lpu_options>)
endfunction()
