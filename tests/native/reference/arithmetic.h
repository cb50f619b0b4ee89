// The arithmetic a plain op is written in: double for the reference, float for the naive op in F32 or BF16.
#pragma once

#include <algorithm>
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

/// What becomes of the operands of a product in F32: nothing, or what tensor cores do where the backend's option "precision" says so. tf32:
/// rounded to 11 bits, ties away from zero. bf16x3: x = hi + lo + rest in bfloat16, and lo lo is left out.
enum class Operands { kFloat32, kTf32, kBf16x3 };
/// Of this process: set once, from the options.
inline Operands& float32_operands() {
    static Operands operands = Operands::kFloat32;
    return operands;
}

inline float round_to_tf32(float x) {
    uint32_t u;
    std::memcpy(&u, &x, sizeof u);
    if ((u & 0x7f800000u) != 0x7f800000u) u = (u + 0x1000u) & ~0x1fffu;
    std::memcpy(&x, &u, sizeof x);
    return x;
}

/// c + sum, cut towards zero.
inline float add_cut(float c, double sum) {
    const double exact = static_cast<double>(c) + sum;
    const float nearest = static_cast<float>(exact);
    return std::fabs(static_cast<double>(nearest)) > std::fabs(exact) ? std::nextafterf(nearest, 0.0f) : nearest;
}

/// A: what sums and products are formed in. stored(): a value the naive op keeps in a tensor of the call's dtype. products(): one element of
/// a product of matrices, which tensor cores may form: sum of x(i) y(i) for i in [first, first + n).
template <class A>
struct Arithmetic {
    using Type = A;
    bool bf16 = false;
    Operands operands = Operands::kFloat32;
    A stored(A x) const { return bf16 ? static_cast<A>(round_to_bf16(x)) : x; }
    template <class X, class Y>
    A products(int64_t first, int64_t n, X&& x, Y&& y) const {
        if (operands == Operands::kFloat32) return pairwise_sum_from<A>(first, n, [&](int64_t i) { return x(i) * y(i); });
        // Tensor cores add 4 products (tf32) or 8 (bfloat16) to a float, towards zero; runs of 64 are added as floats are.
        constexpr int64_t kRun = 64;
        if (n > kRun) {
            const int64_t half = (n / 2 + kRun - 1) / kRun * kRun;
            return products(first, half, x, y) + products(first + half, n - half, x, y);
        }
        float sum = 0;
        const bool tf32 = operands == Operands::kTf32;
        const int64_t step = tf32 ? 4 : 8;
        for (int part = tf32 ? 2 : 0; part < 3; ++part) /* lo hi, hi lo, hi hi */
            for (int64_t i0 = first; i0 < first + n; i0 += step) {
                double block = 0;
                for (int64_t i = i0; i < std::min(i0 + step, first + n); ++i) {
                    const double a = x(i), b = y(i);
                    const double a_hi = tf32 ? round_to_tf32(static_cast<float>(a)) : round_to_bf16(a);
                    const double b_hi = tf32 ? round_to_tf32(static_cast<float>(b)) : round_to_bf16(b);
                    block += (part == 0 ? round_to_bf16(a - a_hi) : a_hi) * (part == 1 ? round_to_bf16(b - b_hi) : b_hi);
                }
                sum = add_cut(sum, block);
            }
        return static_cast<A>(sum);
    }
};

/// Calls f(Arithmetic<A>): exact is the reference, else the naive op of dtype.
template <class F>
void in_arithmetic(int dtype, bool exact, F&& f, Operands operands = Operands::kFloat32) {
    if (exact || dtype == DF_F64)
        f(Arithmetic<double>{});
    else
        f(Arithmetic<float>{dtype == DF_BF16, operands});
}

}  // namespace dualform::test
