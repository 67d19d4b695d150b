include(${CMAKE_CURRENT_SOURCE_DIR}/kernel.deps.cmake)
