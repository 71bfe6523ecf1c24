# Sets LPU_COMMIT: the commit this tree was configured at, with a + where tracked files differ from it; unknown without git.
set(LPU_COMMIT "unknown")
find_package(Git QUIET)
if(GIT_FOUND AND EXISTS "${PROJECT_SOURCE_DIR}/.git")
  execute_process(COMMAND "${GIT_EXECUTABLE}" rev-parse --short=12 HEAD WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE result)
  if(result EQUAL 0)
    execute_process(COMMAND "${GIT_EXECUTABLE}" diff --quiet HEAD WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
      ERROR_QUIET RESULT_VARIABLE is_changed)
    set(LPU_COMMIT "${commit}")
    if(NOT is_changed EQUAL 0)
      string(APPEND LPU_COMMIT "+")
    endif()
  endif()
  if(EXISTS "${PROJECT_SOURCE_DIR}/.git/logs/HEAD")  # a commit configures anew, and rebuilds one file
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/.git/logs/HEAD")
  endif()
endif()
