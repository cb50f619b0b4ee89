# Builds libdualform_cuda.so and puts it, stripped, where the jar is made from; without nvcc it says so and builds nothing.
#   cmake -DDF_ROOT=<checkout> -DDF_BUILD=<build folder> -DDF_DESTINATION=<folder> -DDF_JOBS=<n> -P plugin.cmake
cmake_minimum_required(VERSION 3.25)
include(${DF_ROOT}/cmake/Nvcc.cmake)
set(library ${DF_DESTINATION}/libdualform_cuda.so)
if(NOT DF_NVCC)
  file(REMOVE ${library})
  message(STATUS "dualform: ${DF_NVCC_MISSING}, so the CUDA plug-in is left out of this build")
  return()
endif()

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()
run(${CMAKE_COMMAND} -DDF_ROOT=${DF_ROOT} -DDF_CACHE=${DF_BUILD}/build-id.cmake -P ${DF_ROOT}/cmake/BuildId.cmake)
run(${CMAKE_COMMAND} -C ${DF_BUILD}/build-id.cmake -S ${DF_ROOT}/cmake -B ${DF_BUILD} -DCMAKE_BUILD_TYPE=Release
    -DDF_CUDA=AUTO -DDF_TESTS=OFF -DDF_BENCH=OFF -DCMAKE_CUDA_COMPILER=${DF_NVCC})
# With AUTO the configuration leaves the plug-in out, and says why, where this nvcc cannot compile it.
execute_process(COMMAND ${CMAKE_COMMAND} --build ${DF_BUILD} --target help OUTPUT_VARIABLE targets COMMAND_ERROR_IS_FATAL ANY)
if(NOT targets MATCHES "dualform_cuda[\r\n]")
  file(REMOVE ${library})
  return()
endif()
run(${CMAKE_COMMAND} --build ${DF_BUILD} --target dualform_cuda --parallel ${DF_JOBS})
file(MAKE_DIRECTORY ${DF_DESTINATION})
find_program(strip NAMES strip REQUIRED)
run(${strip} --strip-unneeded -o ${library}.part ${DF_BUILD}/libdualform_cuda.so)
file(RENAME ${library}.part ${library})
