# Builds the native tests and runs them with ctest.
#   cmake -DDF_ROOT=<checkout> -DDF_BUILD=<folder> [-DDF_SANITIZE=<sanitizers>] -DDF_JOBS=<n> -DDF_LONG=<true|false> -P native-suite.cmake
# A sanitized build has a smaller set of tests, which tests/native chooses; those labelled "long" run with DF_LONG.
cmake_minimum_required(VERSION 3.25)

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()
run(${CMAKE_COMMAND} -DDF_ROOT=${DF_ROOT} -DDF_CACHE=${DF_BUILD}/build-id.cmake -P ${DF_ROOT}/cmake/BuildId.cmake)
# Sanitizers make optimised code slow to compile and little faster to run.
set(kind -DCMAKE_BUILD_TYPE=Release -DDF_CUDA=AUTO -DDF_BENCH=ON)
if(DF_SANITIZE)
  set(kind -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O1 -DDF_CUDA=OFF -DDF_BENCH=OFF)
endif()
run(${CMAKE_COMMAND} -C ${DF_BUILD}/build-id.cmake -S ${DF_ROOT}/cmake -B ${DF_BUILD} ${kind}
    -DDF_TESTS=ON "-DDF_SANITIZE=${DF_SANITIZE}")
run(${CMAKE_COMMAND} --build ${DF_BUILD} --parallel ${DF_JOBS})

set(selection "")
if(NOT DF_LONG)
  list(APPEND selection -LE long)
endif()
run(${CMAKE_COMMAND} -E chdir ${DF_BUILD} ctest --output-on-failure --no-tests=error ${selection})
