# lpu_embed_presets(<variable> <file.json>...): generates, in the build tree, one C++ file that holds the presets' text, and
# puts its path into <variable>. Run as a script (cmake -P, with OUTPUT, ROOT and FILES set) it writes that file.

if(CMAKE_SCRIPT_MODE_FILE)
  set(text "// Generated from cluster/presets.\n#include \"embedded_presets.hpp\"\n\nnamespace lpu::cluster {\n\n")
  set(rows "")
  set(index 0)
  string(REPLACE "|" ";" FILES "${FILES}")
  foreach(file IN LISTS FILES)
    file(READ "${ROOT}/${file}" content)
    # A compiler need not take string literals over 65,536 characters.
    string(LENGTH "${content}" length)
    if(length GREATER 60000)
      message(FATAL_ERROR "${file}: ${length} characters; expected at most 60000")
    endif()
    get_filename_component(folder "${file}" DIRECTORY)
    get_filename_component(kind "${folder}" NAME)
    get_filename_component(name "${file}" NAME_WLE)
    string(APPEND text "static constexpr std::string_view kText${index} = R\"lpu_preset(${content})lpu_preset\";\n")
    string(APPEND rows "    {\"${kind}\", \"${name}\", kText${index}},\n")
    math(EXPR index "${index} + 1")
  endforeach()
  string(APPEND text "\nstatic constexpr PresetText kPresets[] = {\n${rows}};\n\n")
  string(APPEND text "std::span<const PresetText> embedded_presets() { return kPresets; }\n\n}  // namespace lpu::cluster\n")
  file(WRITE "${OUTPUT}" "${text}")
  return()
endif()

set(LPU_PRESETS_SCRIPT "${CMAKE_CURRENT_LIST_FILE}")

function(lpu_embed_presets variable)
  set(output "${CMAKE_CURRENT_BINARY_DIR}/embedded_presets.cpp")
  list(JOIN ARGN "|" files)
  list(TRANSFORM ARGN PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/" OUTPUT_VARIABLE depends)
  add_custom_command(OUTPUT "${output}"
    COMMAND ${CMAKE_COMMAND} "-DOUTPUT=${output}" "-DROOT=${CMAKE_CURRENT_SOURCE_DIR}" "-DFILES=${files}" -P "${LPU_PRESETS_SCRIPT}"
    DEPENDS ${depends} "${LPU_PRESETS_SCRIPT}" COMMENT "Embedding presets" VERBATIM)
  set(${variable} "${output}" PARENT_SCOPE)
endfunction()
