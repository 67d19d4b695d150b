# How a folder becomes a library, and a file a test.
#
#   ringwall_library(<name> [SOURCES file...] [DEPS target...])
#       Static library rw_<name> (alias ringwall::<name>) of the folder's *.c and *.S files, or of
#       SOURCES. Flags and the include directory (the root of the tree) come along. DEPS are names
#       of other ringwall libraries (base, mm, ...) or any CMake target or -l library; a name whose
#       folder comes later, or does not exist yet, is looked up when the whole tree has been read.
#       The layer is left out of names: mm is sentry/mm, proc is sentry/fs/proc, ptrace is
#       platform/ptrace; only gofer/proto is gofer_proto.
#
#   ringwall_executable(<name> [SOURCES file...] [DEPS target...])
#       The same for a program called <name>.
#
#   ringwall_unit_test(<name> SOURCES file... [DEPS target...])
#       A criterion program test_<name>, registered with ctest under "unit/<name>", label "unit".
#
# A folder's CMakeLists.txt is then one line:
#       ringwall_library(mm DEPS base mem wait cred platform)

include(CheckCCompilerFlag)
include(CheckLinkerFlag)

# Adds to target ringwall_flags each flag that the compiler takes.
function(ringwall_add_flags)
  foreach(flag IN LISTS ARGN)
    string(MAKE_C_IDENTIFIER "have${flag}" var)
    check_c_compiler_flag("-Werror ${flag}" ${var})
    if(${var})
      target_compile_options(ringwall_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:${flag}>)
    endif()
  endforeach()
endfunction()

function(ringwall_add_link_flags)
  foreach(flag IN LISTS ARGN)
    string(MAKE_C_IDENTIFIER "have_link${flag}" var)
    check_linker_flag(C "${flag}" ${var})
    if(${var})
      target_link_options(ringwall_flags INTERFACE "${flag}")
    endif()
  endforeach()
endfunction()

# Folder names and library names are the same without the layer: sentry_mm and mm, sentry_fs_proc
# and proc, platform_ptrace and ptrace mean one library.
function(ringwall_short_name name out)
  string(REGEX REPLACE "^(sentry_fs_|sentry_|fs_|platform_)" "" short "${name}")
  set(${out} ${short} PARENT_SCOPE)
endfunction()

# DEPS to link items: rw_<name> when a library of that name exists at the end of configuration.
function(ringwall_link target)
  foreach(dep IN LISTS ARGN)
    if(dep MATCHES "^-|::|/")
      target_link_libraries(${target} PUBLIC ${dep})
    else()
      set_property(GLOBAL APPEND PROPERTY RINGWALL_LINKS "${target}|${dep}")
    endif()
  endforeach()
endfunction()

# Called once by the root, after every folder was read.
function(ringwall_resolve_links)
  get_property(links GLOBAL PROPERTY RINGWALL_LINKS)
  foreach(link IN LISTS links)
    string(REPLACE "|" ";" pair "${link}")
    list(GET pair 0 target)
    list(GET pair 1 dep)
    ringwall_short_name(${dep} dep)
    if(TARGET rw_${dep})
      target_link_libraries(${target} PUBLIC rw_${dep})
    elseif(TARGET ${dep})
      target_link_libraries(${target} PUBLIC ${dep})
    else()
      message(STATUS "${target}: no library ${dep} yet")
    endif()
  endforeach()
endfunction()

function(ringwall_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  if(NOT arg_SOURCES)
    file(GLOB arg_SOURCES CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c
         ${CMAKE_CURRENT_SOURCE_DIR}/*.S)
  endif()
  ringwall_short_name(${name} name)
  if(NOT arg_SOURCES)
    # Headers only, for now.
    add_library(rw_${name} INTERFACE)
    return()
  endif()
  add_library(rw_${name} STATIC ${arg_SOURCES})
  add_library(ringwall::${name} ALIAS rw_${name})
  target_link_libraries(rw_${name} PUBLIC ringwall_flags)
  ringwall_link(rw_${name} ${arg_DEPS})
endfunction()

function(ringwall_executable name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  if(NOT arg_SOURCES)
    file(GLOB arg_SOURCES CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c
         ${CMAKE_CURRENT_SOURCE_DIR}/*.S)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PUBLIC ringwall_flags)
  ringwall_link(${name} ${arg_DEPS})
endfunction()

# Programs that are started for every command of a client load no shared object: half of a short
# command's time. Sanitizers need theirs.
function(ringwall_static target)
  if(NOT RINGWALL_SANITIZE)
    set_target_properties(${target} PROPERTIES RINGWALL_STATIC ON)
  endif()
endfunction()

function(ringwall_unit_test name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(test_${name} ${arg_SOURCES})
  target_link_libraries(test_${name} PUBLIC ringwall_flags ringwall_test_flags)
  if(RINGWALL_SANITIZE MATCHES "thread")
    # Criterion cannot run there; the same tests run on a small runner with its interface.
    target_include_directories(test_${name} BEFORE PRIVATE ${CMAKE_SOURCE_DIR}/tests/unit/inprocess)
    target_sources(test_${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/unit/inprocess/runner.c)
    add_test(NAME unit/${name} COMMAND test_${name})
  else()
    target_link_libraries(test_${name} PUBLIC PkgConfig::CRITERION)
    add_test(NAME unit/${name} COMMAND test_${name} --jobs 1)
  endif()
  ringwall_link(test_${name} ${arg_DEPS})
  set_tests_properties(unit/${name} PROPERTIES LABELS unit TIMEOUT 120)
endfunction()
