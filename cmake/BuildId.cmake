# The build id: one hash over the native, CUDA and CMake sources (paths and contents), the same in the core, the plug-in and the Java
# classes.   cmake -DDF_ROOT=<checkout> -DDF_CACHE=<file.cmake> [-DDF_PROPERTIES=<file>] [-DDF_JAVA_VERSION=<version>] -P BuildId.cmake
# writes DF_CACHE, an initial cache for cmake -C which sets DF_BUILD_ID, and DF_PROPERTIES, a Java properties file. A file whose
# contents would not change is left alone.
file(GLOB_RECURSE sources LIST_DIRECTORIES false RELATIVE ${DF_ROOT}
     ${DF_ROOT}/native/include/* ${DF_ROOT}/native/src/* ${DF_ROOT}/cmake/*
     ${DF_ROOT}/cuda/*.cu ${DF_ROOT}/cuda/*.cuh ${DF_ROOT}/cuda/*.h ${DF_ROOT}/cuda/*.cpp)
list(FILTER sources EXCLUDE REGEX "(^|/)target/")
list(SORT sources)
set(listing "")
foreach(source IN LISTS sources)
  file(SHA256 ${DF_ROOT}/${source} hash)
  string(APPEND listing "${source} ${hash}\n")
endforeach()
string(SHA256 id "${listing}")
string(SUBSTRING ${id} 0 16 id)

function(write_if_changed path content)
  if(EXISTS ${path})
    file(READ ${path} present)
    if(present STREQUAL content)
      return()
    endif()
  endif()
  file(WRITE ${path} "${content}")
endfunction()

if(DF_CACHE)
  write_if_changed(${DF_CACHE} "set(DF_BUILD_ID ${id} CACHE STRING \"hash of the sources\" FORCE)\n")
endif()
if(DF_PROPERTIES)
  write_if_changed(${DF_PROPERTIES} "version=${DF_JAVA_VERSION}\nbuildId=${id}\n")
endif()
message(STATUS "dualform build id ${id}")
