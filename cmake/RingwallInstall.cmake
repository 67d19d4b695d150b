# cmake --install, and a Debian package by cpack -G DEB.
include(GNUInstallDirs)
find_package(Python3 COMPONENTS Interpreter REQUIRED)

install(TARGETS runsc containerd-shim-runsc-v1 RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
set(man_page ${CMAKE_BINARY_DIR}/runsc.8)
add_custom_command(
  OUTPUT ${man_page}
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tools/gen_man $<TARGET_FILE:runsc>
          ${PROJECT_VERSION} > ${man_page}
  DEPENDS runsc ${CMAKE_SOURCE_DIR}/tools/gen_man)
add_custom_target(man ALL DEPENDS ${man_page})
install(FILES ${man_page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)
install(FILES ${CMAKE_SOURCE_DIR}/packaging/runsc.bash
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME runsc)
install(FILES ${CMAKE_SOURCE_DIR}/docs/oci.md ${CMAKE_SOURCE_DIR}/LICENSE
              ${CMAKE_SOURCE_DIR}/packaging/daemonset.yaml
        DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME ringwall)
set(CPACK_PACKAGE_VENDOR Ringwall)
set(CPACK_PACKAGE_CONTACT "Ringwall developers <ringwall@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "sandbox for Linux containers: an OCI runtime with its own kernel")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
include(CPack)
