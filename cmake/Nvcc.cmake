# Where nvcc is looked for, by the native build and by the Maven build alike: the one CUDACXX names, else PATH, else /usr/local/cuda/bin.
# Sets DF_NVCC, false when there is none. A CUDACXX that does not work is an error, not a reason to take another.
if(NOT "$ENV{CUDACXX}" STREQUAL "")
  set(DF_NVCC $ENV{CUDACXX})
else()
  find_program(DF_NVCC nvcc PATHS /usr/local/cuda/bin DOC "the CUDA compiler")
endif()
set(DF_NVCC_MISSING "no nvcc in CUDACXX, PATH or /usr/local/cuda/bin")
