# Target ringwall_flags: what every object and program of the tree is built with. Each flag is asked
# for, since gcc and clang differ. Code for stubs and other rings sets flags of its own instead.

add_library(ringwall_flags INTERFACE)
target_include_directories(ringwall_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(ringwall_flags INTERFACE _GNU_SOURCE)
if(RINGWALL_DEBUG)
  target_compile_definitions(ringwall_flags INTERFACE RINGWALL_DEBUG)
endif()

ringwall_add_flags(
  -Wall -Wextra -Werror -Wshadow -Wconversion -Wsign-conversion -Wformat=2 -Wvla -Wundef
  -Wpointer-arith -Wwrite-strings -Wcast-qual -Wcast-function-type -Wstrict-prototypes
  -Wmissing-prototypes -Wswitch-enum -Wimplicit-fallthrough -fno-common -fno-strict-aliasing
  -fstack-protector-strong -fcf-protection=full -fPIE
  -fmacro-prefix-map=${CMAKE_SOURCE_DIR}/=)

if(CMAKE_C_COMPILER_ID MATCHES "Clang")
  # It also counts variables of nested MIN and MAX; gcc, which builds everything too, does not.
  ringwall_add_flags(-Wno-shadow)
endif()

if(RINGWALL_SANITIZE)
  # Sanitizers enlarge frames, bring their own stack layout and confuse flow warnings.
  # They load shared objects, which a program at one address does not.
  set(sanitized $<NOT:$<BOOL:$<TARGET_PROPERTY:RINGWALL_FIXED>>>)
  target_compile_options(ringwall_flags INTERFACE
    "$<${sanitized}:-fsanitize=${RINGWALL_SANITIZE};-fno-omit-frame-pointer>")
  target_link_options(ringwall_flags INTERFACE "$<${sanitized}:-fsanitize=${RINGWALL_SANITIZE}>")
  target_compile_definitions(ringwall_flags INTERFACE $<${sanitized}:RINGWALL_SANITIZE>)
  if(RINGWALL_SANITIZE MATCHES "undefined")
    target_compile_options(ringwall_flags INTERFACE $<${sanitized}:-fno-sanitize-recover=undefined>)
  endif()
else()
  ringwall_add_flags(-Wframe-larger-than=4096 -fstack-clash-protection -ftrivial-auto-var-init=zero)
  # Without the flow analysis of -O2 it takes what a call has set for what stood there before.
  if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
    ringwall_add_flags(-Wnull-dereference)
  endif()
  # Distributions predefine another level.
  target_compile_options(ringwall_flags INTERFACE
    "$<$<COMPILE_LANGUAGE:C>:SHELL:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3>")
endif()
if(RINGWALL_ANALYZE)
  # For a person to read: it takes objects on intrusive lists for leaks, and does not see that out
  # parameters are set whenever a call succeeds.
  ringwall_add_flags(-fanalyzer -Wno-analyzer-malloc-leak
                     -Wno-analyzer-use-of-uninitialized-value -Wno-error)
endif()

target_link_options(ringwall_flags INTERFACE
  $<IF:$<BOOL:$<TARGET_PROPERTY:RINGWALL_FIXED>>,-static;-no-pie,$<IF:$<BOOL:$<TARGET_PROPERTY:RINGWALL_STATIC>>,-static-pie,-pie>>)
ringwall_add_link_flags(-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,-z,separate-code
                         -Wl,-z,pack-relative-relocs)

# For test programs, after ringwall_flags: criterion's macros declare functions and pad structures in
# ways of their own, and a test may keep its data on the stack.
add_library(ringwall_test_flags INTERFACE)
target_compile_options(
  ringwall_test_flags
  INTERFACE -Wno-missing-prototypes -Wno-sign-conversion -Wno-conversion -Wno-cast-qual
            -Wno-switch-enum -Wno-undef -Wno-format-zero-length -Wframe-larger-than=65536)
