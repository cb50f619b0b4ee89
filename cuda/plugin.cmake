# Builds libdualform_cuda.so and puts it, stripped, where the jar is made from; without nvcc it says so and builds nothing.
#   cmake -DDF_ROOT=<checkout> -DDF_TARGET=<build folder> -DDF_DESTINATION=<folder> -DDF_JOBS=<n> -P plugin.cmake
cmake_minimum_required(VERSION 3.25)
if(DEFINED ENV{CUDACXX})
  set(nvcc $ENV{CUDACXX})
endif()
find_program(nvcc NAMES nvcc HINTS $ENV{CUDA_PATH}/bin $ENV{CUDA_HOME}/bin PATHS /usr/local/cuda/bin)
set(library ${DF_DESTINATION}/libdualform_cuda.so)
if(NOT nvcc)
  file(REMOVE ${library})
  message(STATUS "dualform: no nvcc on PATH or in /usr/local/cuda/bin, so the CUDA plug-in is left out of this build")
  return()
endif()

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()
set(build ${DF_TARGET}/cmake)
run(${CMAKE_COMMAND} -DDF_ROOT=${DF_ROOT} -DDF_CACHE=${DF_TARGET}/build-id.cmake -P ${DF_ROOT}/cmake/BuildId.cmake)
run(${CMAKE_COMMAND} -C ${DF_TARGET}/build-id.cmake -S ${DF_ROOT}/cmake -B ${build} -DCMAKE_BUILD_TYPE=Release
    -DDF_CUDA=AUTO -DDF_TESTS=OFF -DDF_BENCH=OFF -DCMAKE_CUDA_COMPILER=${nvcc} -DCMAKE_INSTALL_LIBDIR=lib
    -DCMAKE_INSTALL_PREFIX=${DF_TARGET}/native-install)
# With AUTO the configuration leaves the plug-in out, and says why, where this nvcc cannot compile it.
execute_process(COMMAND ${CMAKE_COMMAND} --build ${build} --target help OUTPUT_VARIABLE targets COMMAND_ERROR_IS_FATAL ANY)
if(NOT targets MATCHES "dualform_cuda[\r\n]")
  file(REMOVE ${library})
  return()
endif()
run(${CMAKE_COMMAND} --build ${build} --target dualform_cuda --parallel ${DF_JOBS})
file(GLOB_RECURSE built ${build}/*libdualform_cuda.so)
file(MAKE_DIRECTORY ${DF_DESTINATION})
find_program(strip NAMES strip REQUIRED)
run(${strip} --strip-unneeded -o ${library}.part ${built})
file(RENAME ${library}.part ${library})
