// The arithmetic a plain op is written in: double for the reference, float for the naive op in F32 or BF16.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "dualform/df.h"

namespace dualform::test {

/// Nearest bfloat16, ties to even.
inline double round_to_bf16(double x) {
    if (!std::isfinite(x)) return x;
    float f = static_cast<float>(x);
    uint32_t u;
    std::memcpy(&u, &f, sizeof u);
    if (std::isfinite(f) && static_cast<double>(f) != x) {  // to odd, so that the second rounding is the only one
        if (std::fabs(static_cast<double>(f)) > std::fabs(x)) --u;
        u |= 1u;
    }
    u = (u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u;
    std::memcpy(&f, &u, sizeof f);
    return f;
}

inline double round_to(int dtype, double x) {
    switch (dtype) {
        case DF_F32:
            return static_cast<float>(x);
        case DF_BF16:
            return round_to_bf16(x);
        default:
            return x;
    }
}

/// sum of f(i) for i in [0, n), by halves down to eight.
template <class A, class F>
A pairwise_sum_from(int64_t first, int64_t n, F&& f) {
    if (n > 8) return pairwise_sum_from<A>(first, n / 2, f) + pairwise_sum_from<A>(first + n / 2, n - n / 2, f);
    A s = 0;
    for (int64_t i = first; i < first + n; ++i) s += f(i);
    return s;
}
template <class A, class F>
A pairwise_sum(int64_t n, F&& f) {
    return pairwise_sum_from<A>(0, n, f);
}

/// A: what sums and products are formed in. stored(): a value the naive op keeps in a tensor of the call's dtype.
template <class A>
struct Arithmetic {
    using Type = A;
    bool bf16 = false;
    A stored(A x) const { return bf16 ? static_cast<A>(round_to_bf16(x)) : x; }
};

/// Calls f(Arithmetic<A>): exact is the reference, else the naive op of dtype.
template <class F>
void in_arithmetic(int dtype, bool exact, F&& f) {
    if (exact || dtype == DF_F64)
        f(Arithmetic<double>{});
    else
        f(Arithmetic<float>{dtype == DF_BF16});
}

}  // namespace dualform::test
