# df_flags: warnings as errors, hardening, sanitizers. Every target of ours links it privately.
add_library(df_flags INTERFACE)
target_compile_options(df_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Werror -Wshadow=local -Wno-psabi -fstack-protector-strong -ffile-prefix-map=${DF_ROOT}=.>)
target_link_options(df_flags INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--exclude-libs,ALL)
if(DF_SANITIZE)
  target_compile_options(df_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${DF_SANITIZE} -fno-omit-frame-pointer -g1 -fno-sanitize-recover=all>)
  target_link_options(df_flags INTERFACE -fsanitize=${DF_SANITIZE})
  if(DF_SANITIZE MATCHES "undefined")
    # An enum that comes through the C ABI is an int of the caller's: its range is checked and refused, not assumed.
    target_compile_options(df_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize=enum>)
  endif()
elseif(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_definitions(df_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:_FORTIFY_SOURCE=2>)
endif()
# The exported config must not carry df_flags; it is build-only.
install(TARGETS df_flags EXPORT dualform)
