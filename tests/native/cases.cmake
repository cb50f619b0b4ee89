# df_cases: the case of every op with its plain reference.
if(TARGET df_cases)
  return()
endif()
function(df_test_target name)
  target_include_directories(${name} PRIVATE ${DF_ROOT}/tests/native)
  target_link_libraries(${name} PRIVATE df_flags dualform Threads::Threads)
  # The references are read and compiled often and run little. No contraction: the plain float op rounds every product.
  target_compile_options(${name} PRIVATE -O1 -ffp-contract=off)
endfunction()
file(GLOB DF_CASE_SOURCES CONFIGURE_DEPENDS ${DF_ROOT}/tests/native/cases/*.cpp)
add_library(df_cases OBJECT ${DF_CASE_SOURCES} ${DF_ROOT}/tests/native/case.cpp ${DF_ROOT}/tests/native/fixture.cpp ${DF_ROOT}/tests/native/check.cpp)
df_test_target(df_cases)
