#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <exception>
#include <new>

namespace dualform {

namespace {
// A plain array: it needs no destructor when a thread ends inside a JVM.
thread_local char last_error[1024] = "no error";
}  // namespace

void raise(df_status status, const char* format, ...) {
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    throw Error{status, text};
}

df_status remember(df_status status, const char* sentence) noexcept {
    snprintf(last_error, sizeof last_error, "%s", sentence);
    return status;
}

df_status status_of_exception() noexcept {
    try {
        throw;
    } catch (const Error& e) {
        return remember(e.status, e.sentence.c_str());
    } catch (const std::bad_alloc&) {
        return remember(DF_OUT_OF_MEMORY, "no memory for dualform's own bookkeeping");
    } catch (const std::exception& e) {
        return remember(DF_INTERNAL, e.what());
    } catch (...) {
        return remember(DF_INTERNAL, "an unknown exception");
    }
}

}  // namespace dualform

extern "C" {
const char* df_last_error(void) { return dualform::last_error; }
}
