# SPDX-License-Identifier: Apache-2.0
# The four kinds of target there are: herald_library, herald_program, herald_test, herald_fuzzer.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(OpenSSL 3.0 REQUIRED)
find_package(tl-expected REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
pkg_check_modules(LZ4 REQUIRED IMPORTED_TARGET liblz4)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(URING REQUIRED IMPORTED_TARGET liburing)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(BPF REQUIRED IMPORTED_TARGET libbpf)
pkg_check_modules(P11KIT REQUIRED p11-kit-1)
pkg_check_modules(SYSTEMD REQUIRED IMPORTED_TARGET libsystemd)
find_package(tomlplusplus REQUIRED)

add_library(herald_flags INTERFACE)
target_include_directories(herald_flags INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR})
target_compile_options(herald_flags INTERFACE
  -Wall -Wextra -Werror -Wshadow -Wpointer-arith -Wcast-qual -Wvla -Wformat=2
  $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor -Woverloaded-virtual>
  # gcc 12 reports libstdc++ internals that it inlined, under optimisation and under sanitizers.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict -Wno-stringop-overflow -Wno-array-bounds -Wno-maybe-uninitialized -Wno-stringop-overread>
  -fstack-protector-strong -D_FILE_OFFSET_BITS=64)
target_compile_definitions(herald_flags INTERFACE
  HERALD_VERSION="${PROJECT_VERSION}" SPDLOG_FMT_EXTERNAL
  $<$<CONFIG:Release>:_FORTIFY_SOURCE=2>)
if(HERALD_SANITIZE)
  target_compile_options(herald_flags INTERFACE
    -fsanitize=${HERALD_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(herald_flags INTERFACE -fsanitize=${HERALD_SANITIZE})
  # gcc 12 warns of the fences in Asio, which ThreadSanitizer does not model.
  if(HERALD_SANITIZE STREQUAL thread AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    target_compile_options(herald_flags INTERFACE -Wno-tsan)
  endif()
endif()
if(HERALD_FUZZ)
  # Coverage in the libraries, too: without it a fuzzer is blind behind its own source file.
  target_compile_options(herald_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
target_link_libraries(herald_flags INTERFACE Threads::Threads)

# herald_library(NAME SOURCES a.cpp ... DEPS target ...): one static library per folder.
function(herald_library name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  target_link_libraries(${name} PUBLIC herald_flags ${A_DEPS})
endfunction()

# herald_program(NAME SOURCES ... DEPS ...): a program in bin/.
function(herald_program name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE herald_flags ${A_DEPS})
endfunction()

# What CTest is told of a test, from the options of the two functions below.
# LOAD: what it computes, in thirds of a processor; 3 unless it waits most of the time. CTest's PROCESSORS
#   are these thirds, and ./check starts `ctest -j` with three for each processor.
# COST: about the seconds it takes, so that no long one begins last.
# SERIAL: nothing runs beside it, for what a busy host would break; each says why.
# LONG: left out of ./check, which has ten minutes; --ci and --nightly run it (they set HERALD_LONG).
# LONG_SANITIZED: the same of the sanitizers' builds only.
set(herald_test_options SERIAL LONG LONG_SANITIZED)
set(herald_test_values LABEL TIMEOUT COST LOAD)
macro(herald_test_properties name)
  if("$ENV{HERALD_TIER}" STREQUAL nightly)
    set(A_TIMEOUT 7200)
  elseif(NOT A_TIMEOUT)
    set(A_TIMEOUT 300)
  endif()
  if(NOT A_LOAD)
    set(A_LOAD 3)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS ${A_LABEL} TIMEOUT ${A_TIMEOUT} SKIP_RETURN_CODE 77
    PROCESSORS ${A_LOAD})
  if(A_COST)
    set_tests_properties(${name} PROPERTIES COST ${A_COST})
  endif()
  if(A_SERIAL)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL TRUE)
  endif()
endmacro()

# herald_test_command(VARIABLE LABEL command...): whole daemons get a network, and so the ports, of their own.
function(herald_test_command variable label)
  set(command ${ARGN})
  if(label STREQUAL e2e)
    list(PREPEND command ${PROJECT_SOURCE_DIR}/tests/own_network)
  endif()
  set(${variable} ${command} PARENT_SCOPE)
endfunction()

# herald_test(NAME LABEL unit|sim|e2e SOURCES ... DEPS ... [TIMEOUT s] [COST s] [LOAD n] [SERIAL]
# [LONG] [LONG_SANITIZED] [EACH_FILE] [NIGHTLY_PARTS n]): a Catch2 program that CTest runs; with EACH_FILE
# once for NAME_FILE of each source FILE_test.cpp, side by side; with NIGHTLY_PARTS as NAME_1 to NAME_n in
# the nightly tier, each told its part of the work by HERALD_PART ("2/4").
function(herald_test name)
  cmake_parse_arguments(A "EACH_FILE;${herald_test_options}" "NIGHTLY_PARTS;${herald_test_values}" "SOURCES;DEPS" ${ARGN})
  if(HERALD_FUZZ)
    return()
  endif()
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE herald_catch_main herald_flags ${A_DEPS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_compile_definitions(${name} PRIVATE
    HERALD_SOURCE_DIR="${PROJECT_SOURCE_DIR}" HERALD_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
  # tests_unit, tests_sim, ...: all programs of a label, for builds that run no others.
  if(NOT TARGET tests_${A_LABEL})
    add_custom_target(tests_${A_LABEL})
  endif()
  add_dependencies(tests_${A_LABEL} ${name})
  if((A_LONG OR (A_LONG_SANITIZED AND HERALD_SANITIZE)) AND NOT "$ENV{HERALD_LONG}")
    set_property(GLOBAL APPEND PROPERTY herald_left_out ${name})
    return()
  endif()
  herald_test_command(command ${A_LABEL} ${PROJECT_SOURCE_DIR}/tests/run $<TARGET_FILE:${name}>)
  if(A_NIGHTLY_PARTS AND "$ENV{HERALD_TIER}" STREQUAL nightly)
    foreach(part RANGE 1 ${A_NIGHTLY_PARTS})
      add_test(NAME ${name}_${part} COMMAND ${command})
      herald_test_properties(${name}_${part})
      set_tests_properties(${name}_${part} PROPERTIES ENVIRONMENT HERALD_PART=${part}/${A_NIGHTLY_PARTS})
    endforeach()
    return()
  endif()
  if(NOT A_EACH_FILE)
    add_test(NAME ${name} COMMAND ${command})
    herald_test_properties(${name})
    return()
  endif()
  foreach(source ${A_SOURCES})
    if(source MATCHES "([a-z_]+)_test\\.cpp$")
      # Catch2 gives each case a tag that is its file's name.
      add_test(NAME ${name}_${CMAKE_MATCH_1} COMMAND ${command} --filenames-as-tags "[#${CMAKE_MATCH_1}_test]")
      herald_test_properties(${name}_${CMAKE_MATCH_1})
    endif()
  endforeach()
endfunction()

# herald_script_test(NAME LABEL l COMMAND ... [TIMEOUT s] [COST s] [LOAD n] [SERIAL] [LONG]): a script that CTest
# runs; exit status 77 means SKIPPED.
function(herald_script_test name)
  cmake_parse_arguments(A "${herald_test_options}" "${herald_test_values}" "COMMAND" ${ARGN})
  if(HERALD_FUZZ)
    return()
  endif()
  if(A_LONG AND NOT "$ENV{HERALD_LONG}")
    set_property(GLOBAL APPEND PROPERTY herald_left_out ${name})
    return()
  endif()
  herald_test_command(command ${A_LABEL} ${A_COMMAND})
  add_test(NAME ${name} COMMAND ${command} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  herald_test_properties(${name})
  set_tests_properties(${name} PROPERTIES
    ENVIRONMENT "HERALD_BIN_DIR=${CMAKE_BINARY_DIR}/bin;HERALD_BUILD_DIR=${CMAKE_BINARY_DIR}")
endfunction()

# herald_fuzzer(NAME MALLOC_MIB n CORPUS dir ... SOURCES ... DEPS ...): a libFuzzer target; CTest replays its corpus
# and goes on for HERALD_FUZZ_SECONDS (of the environment, when configuring; 5 when unset). An allocation of n MiB or
# more is a failure: tests/fuzz/README.md says why which n.
function(herald_fuzzer name)
  cmake_parse_arguments(A "" "MALLOC_MIB" "CORPUS;SOURCES;DEPS" ${ARGN})
  if(NOT HERALD_FUZZ)
    return()
  endif()
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE herald_flags ${A_DEPS})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  set(seconds "$ENV{HERALD_FUZZ_SECONDS}")
  if(NOT seconds MATCHES "^[1-9][0-9]*$")
    set(seconds 5)
  endif()
  math(EXPR timeout "${seconds} + 300")
  # New inputs go to the build folder, so that a run never changes the committed corpus.
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/corpus/${name})
  add_test(NAME ${name} COMMAND ${name} -max_total_time=${seconds} -rss_limit_mb=1024
    -malloc_limit_mb=${A_MALLOC_MIB} -timeout=10 ${CMAKE_BINARY_DIR}/corpus/${name} ${A_CORPUS})
  set_tests_properties(${name} PROPERTIES LABELS fuzz TIMEOUT ${timeout} PROCESSORS 3)
endfunction()
