# Installs the program, the presets as files, the public headers and a CMake package with lpu:: targets.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(LPU_PACKAGE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/lpu_cluster")
install(TARGETS lpu_node lpu_interconnect lpu_scheduler lpu_cluster EXPORT lpu_clusterTargets
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(TARGETS lpu_cluster_exe RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
install(DIRECTORY cluster/presets DESTINATION "${CMAKE_INSTALL_DATADIR}/lpu_cluster" FILES_MATCHING PATTERN "*.json")
install(DIRECTORY cluster/models DESTINATION "${CMAKE_INSTALL_DATADIR}/lpu_cluster")
install(FILES LICENSE README.md DESTINATION "${CMAKE_INSTALL_DOCDIR}" OPTIONAL)
install(EXPORT lpu_clusterTargets NAMESPACE lpu:: DESTINATION "${LPU_PACKAGE_DIR}")

configure_package_config_file(scripts/cmake/lpu_clusterConfig.cmake.in lpu_clusterConfig.cmake INSTALL_DESTINATION "${LPU_PACKAGE_DIR}")
write_basic_package_version_file(lpu_clusterConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/lpu_clusterConfig.cmake" "${PROJECT_BINARY_DIR}/lpu_clusterConfigVersion.cmake"
  DESTINATION "${LPU_PACKAGE_DIR}")
