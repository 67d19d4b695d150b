# cmake --install, and a Debian package by cpack -G DEB.
include(GNUInstallDirs)
find_package(Python3 COMPONENTS Interpreter REQUIRED)

# Without what a debugger needs, and with the names of functions, which `runsc debug` shows.
foreach(program runsc runsc-decoder containerd-shim-runsc-v1)
  set(stripped ${CMAKE_BINARY_DIR}/install/${program})
  add_custom_command(
    OUTPUT ${stripped}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/install
    COMMAND ${CMAKE_OBJCOPY} --strip-debug $<TARGET_FILE:${program}> ${stripped}
    DEPENDS ${program})
  add_custom_target(${program}-install ALL DEPENDS ${stripped})
  install(PROGRAMS ${stripped} DESTINATION ${CMAKE_INSTALL_BINDIR})
endforeach()
set(man_page ${CMAKE_BINARY_DIR}/runsc.8)
add_custom_command(
  OUTPUT ${man_page}
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tools/gen_man $<TARGET_FILE:runsc>
          ${PROJECT_VERSION} > ${man_page}
  DEPENDS runsc ${CMAKE_SOURCE_DIR}/tools/gen_man)
add_custom_target(man ALL DEPENDS ${man_page})
install(FILES ${man_page} ${CMAKE_SOURCE_DIR}/packaging/containerd-shim-runsc-v1.8
        DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)
install(FILES ${CMAKE_SOURCE_DIR}/packaging/runsc.bash
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME runsc)
install(FILES ${CMAKE_SOURCE_DIR}/docs/oci.md ${CMAKE_SOURCE_DIR}/LICENSE
              ${CMAKE_SOURCE_DIR}/packaging/daemonset.yaml
              ${CMAKE_SOURCE_DIR}/packaging/runtimeclass.yaml
        DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME ringwall)
set(CPACK_PACKAGE_VENDOR Ringwall)
set(CPACK_PACKAGE_CONTACT "Ringwall developers <ringwall@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "sandbox for Linux containers: an OCI runtime with its own kernel")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES OFF)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
include(CPack)
