// Errors inside the core are exceptions that never leave it: guard() turns them into a status and this thread's sentence.
#pragma once

#include <string>
#include <utility>

#include "dualform/df_backend.h"

namespace dualform {

extern const char kVersion[];
extern const char kBuildId[];

struct Error {
    df_status status;
    std::string sentence;
};

/// Throws Error with a printf-formatted sentence.
[[noreturn]] void raise(df_status status, const char* format, ...) __attribute__((format(printf, 2, 3)));

/// Remembers the sentence for df_last_error() and returns the status.
df_status remember(df_status status, const char* sentence) noexcept;

/// Turns the exception in flight into a status; called in a catch block.
df_status status_of_exception() noexcept;

/// Runs f; DF_OK when it returns.
template <class F>
df_status guard(F&& f) noexcept {
    try {
        std::forward<F>(f)();
        return DF_OK;
    } catch (...) {
        return status_of_exception();
    }
}

/// Throws when a backend call did not come to DF_OK.
inline void check(int status, const df_error& error) {
    if (status != DF_OK) throw Error{static_cast<df_status>(status), error.text};
}

}  // namespace dualform
