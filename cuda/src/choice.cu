#include "choice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace dualform::cuda {

namespace {

struct Option {
    const char* key;
    const char* variable;
    const char* values[3]; /* the first is the default */
    const char* expected;
    std::atomic<int> set{-1}, environment{-1}; /* index into values; -1: not given */

    int value() const {
        const int given = set.load(std::memory_order_acquire);
        if (given >= 0) return given;
        const int inherited = environment.load(std::memory_order_acquire);
        return inherited >= 0 ? inherited : 0;
    }
    const char* name() const { return values[value()]; }
};

Option kernels_option{"kernels", "DUALFORM_KERNELS", {"plain", "mma", "hopper"}, "plain, mma or hopper", {-1}, {-1}};
Option precision_option{"precision", "DUALFORM_PRECISION", {"float32", "tf32", "bf16x3"}, "float32, tf32 or bf16x3", {-1}, {-1}};
Option deterministic_option{"deterministic", "DUALFORM_DETERMINISTIC", {"false", "true", nullptr}, "true or false", {-1}, {-1}};
Option* const kOptions[] = {&kernels_option, &precision_option, &deterministic_option};

/// The most that there is for an op; everything not named here has plain kernels only. Of products, mma is cuBLASLt, where it is found.
struct Served {
    const char* op;
    Kernels most;
};
constexpr Served kServed[] = {
    {"attention_forward", Kernels::kHopper},
    {"attention_backward", Kernels::kHopper},
    {"linear_attention_forward", Kernels::kHopper},
    {"linear_attention_backward", Kernels::kHopper}, /* ddecay: plain */
    {"delta_accumulate", Kernels::kMma},
    {"delta_apply", Kernels::kMma},
    {"dual_form_forward", Kernels::kMma},
    {"dual_form_backward", Kernels::kMma},
    {"matmul", Kernels::kMma},
    {"matmul_gelu", Kernels::kMma},
    {"residual_layernorm", Kernels::kMma},
    {"bias_gelu", Kernels::kMma},
    {"cross_entropy", Kernels::kMma},
    {"adamw", Kernels::kMma},
};

int find(const Option& option, const char* source, const char* value, int* found, df_error* error) {
    *found = -1;
    if (value == nullptr || *value == 0) return DF_OK;
    for (int i = 0; i < 3 && option.values[i] != nullptr; ++i)
        if (strcmp(value, option.values[i]) == 0) *found = i;
    if (*found < 0) return fail(error, DF_INVALID_ARGUMENT, "%s: %.40s, expected %s", source, value, option.expected);
    return DF_OK;
}

}  // namespace

Kernels kernels() { return static_cast<Kernels>(kernels_option.value()); }
Precision precision() { return static_cast<Precision>(precision_option.value()); }
bool deterministic() { return deterministic_option.value() == 1; }

int set_choice(const char* key, const char* value, bool* known, df_error* error) {
    *known = false;
    for (Option* option : kOptions) {
        if (strcmp(key, option->key) != 0) continue;
        *known = true;
        int found = -1;
        if (const int status = find(*option, key, value, &found, error)) return status;
        option->set.store(found, std::memory_order_release);
    }
    return DF_OK;
}

int read_choices(df_error* error) {
    for (Option* option : kOptions) {
        int found = -1;
        /* where the option is given, the variable yields to it, right or wrong */
        const bool yields = option->set.load(std::memory_order_acquire) >= 0;
        if (!yields)
            if (const int status = find(*option, option->variable, getenv(option->variable), &found, error)) return status;
        option->environment.store(found, std::memory_order_release);
    }
    return DF_OK;
}

void describe_choices(char* json, size_t n) {
    const auto add = [&](const char* format, const char* a, const char* b) {
        const size_t used = strlen(json);
        if (used < n) snprintf(json + used, n - used, format, a, b);
    };
    if (n > 0) json[0] = 0;
    add(",\"kernels\":\"%s\",\"precision\":\"%s\"", kernels_option.name(), precision_option.name());
    add(",\"deterministic\":%s,\"served_by\":{%s", deterministic_option.name(), "");
    const char* comma = "";
    for (const Served& served : kServed) {
        const int most = static_cast<int>(served.most), chosen = kernels_option.value();
        add("%s\"%s\"", comma, served.op);
        add(":\"%s\"%s", kernels_option.values[chosen < most ? chosen : most], "");
        comma = ",";
    }
    add("%s%s", "}", "");
}

}  // namespace dualform::cuda
