# Installs the program with its presets, models, scripts, man page and completion (component program: the Debian package),
# and the public headers with a CMake package of lpu:: targets (component development).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(LPU_PACKAGE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/lpu_cluster")
install(TARGETS lpu_node lpu_interconnect lpu_scheduler lpu_cluster EXPORT lpu_clusterTargets COMPONENT development
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT development
  FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT development)
install(EXPORT lpu_clusterTargets NAMESPACE lpu:: DESTINATION "${LPU_PACKAGE_DIR}" COMPONENT development)
configure_package_config_file(scripts/cmake/lpu_clusterConfig.cmake.in lpu_clusterConfig.cmake INSTALL_DESTINATION "${LPU_PACKAGE_DIR}")
write_basic_package_version_file(lpu_clusterConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/lpu_clusterConfig.cmake" "${PROJECT_BINARY_DIR}/lpu_clusterConfigVersion.cmake"
  DESTINATION "${LPU_PACKAGE_DIR}" COMPONENT development)

set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME program)
set(LPU_SHARE "${CMAKE_INSTALL_DATADIR}/lpu_cluster")
install(TARGETS lpu_cluster_exe RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
install(DIRECTORY cluster/presets DESTINATION "${LPU_SHARE}" FILES_MATCHING PATTERN "*.json")
install(DIRECTORY cluster/models DESTINATION "${LPU_SHARE}")
install(PROGRAMS scripts/scaling_report.py scripts/sweep.py scripts/lpu_results.py DESTINATION "${LPU_SHARE}/scripts")
install(FILES scripts/lpu_figures.py DESTINATION "${LPU_SHARE}/scripts")
install(DIRECTORY scripts/schema scripts/experiments scripts/slurm DESTINATION "${LPU_SHARE}/scripts" USE_SOURCE_PERMISSIONS
  PATTERN local_slurm.sh EXCLUDE)
install(FILES "${PROJECT_BINARY_DIR}/share/man/man1/lpu_cluster.1" DESTINATION "${CMAKE_INSTALL_MANDIR}/man1")
install(FILES "${PROJECT_BINARY_DIR}/share/bash-completion/completions/lpu_cluster"
  DESTINATION "${CMAKE_INSTALL_DATADIR}/bash-completion/completions")
install(FILES README.md DESTINATION "${CMAKE_INSTALL_DATADIR}/doc/lpu-cluster")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DATADIR}/doc/lpu-cluster" RENAME copyright)

# cpack -G DEB: one package, the program. Its libraries are found by dpkg-shlibdeps; mpirun is no library.
set(CPACK_PACKAGE_NAME lpu-cluster)
set(CPACK_PACKAGE_VENDOR "lpu_cluster")
set(CPACK_PACKAGE_CONTACT "lpu_cluster maintainers <lpu-cluster@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "emulator of clusters of Language Processing Units")
set(CPACK_PACKAGE_DESCRIPTION "Compiles a language model into one cycle-exact program per chip of a cluster, proves
 that the programs never conflict, and executes them in lockstep over MPI.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES TRUE)
set(CPACK_COMPONENTS_ALL program)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME lpu-cluster)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS openmpi-bin)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "python3, python3-jsonschema, python3-matplotlib, python3-pandas")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "bash-completion, slurm-client")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION TRUE)
include(CPack)
