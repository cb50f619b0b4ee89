# Where nvcc is looked for, by the native build and by the Maven build alike: the one CUDACXX names, else PATH, else /usr/local/cuda/bin.
# Sets DF_NVCC, false when there is none that runs. A CUDACXX that does not work is an error, not a reason to take another.
set(DF_NVCC_MISSING "no nvcc in CUDACXX, PATH or /usr/local/cuda/bin")
if(NOT "$ENV{CUDACXX}" STREQUAL "")
  set(DF_NVCC $ENV{CUDACXX})
else()
  find_program(DF_NVCC nvcc PATHS /usr/local/cuda/bin DOC "the CUDA compiler")
  if(DF_NVCC)
    # A wrapper or link may outlive the toolkit it leads to.
    execute_process(COMMAND ${DF_NVCC} --version RESULT_VARIABLE DF_NVCC_STATUS OUTPUT_QUIET ERROR_QUIET)
    if(NOT DF_NVCC_STATUS EQUAL 0)
      set(DF_NVCC_MISSING "${DF_NVCC} does not run")
      set(DF_NVCC FALSE)
    endif()
  endif()
endif()
