// Copies between tensors and what products read: converted, transposed, in panels.
#pragma once

#include "cpu/simd.h"

namespace dualform::cpu::DF_ISA {

typedef float Quad __attribute__((vector_size(16)));
inline Quad load_quad(const float* p) {
    Quad v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
inline Quad load_quad(const bf16* p) {
    typedef uint16_t Halves __attribute__((vector_size(8)));
    typedef uint32_t Wholes __attribute__((vector_size(16)));
    Halves h;
    __builtin_memcpy(&h, p, sizeof h);
    return bit_cast<Quad>(__builtin_convertvector(h, Wholes) << 16);
}

/// to[j] = from[j], converted.
template <class A, class T>
inline void widen(A* to, const T* from, int64_t n) {
    int64_t j = 0;
    if constexpr (sizeof(A) == sizeof(Accumulate<T>))
        for (; j + kLanes<A> <= n; j += kLanes<A>) store(to + j, load(from + j));
    if constexpr (sizeof(A) == 4 && sizeof(T) <= 4)
        for (; j + 4 <= n; j += 4) {
            const Quad x = load_quad(from + j);
            __builtin_memcpy(to + j, &x, sizeof x);
        }
    for (; j < n; ++j) to[j] = A(get(from + j));
}

/// to[r ld + c] = from[r + c stride], in squares of four, and a pair of columns more, where the type allows.
template <class A, class T>
inline void transpose(A* to, int64_t ld, const T* from, int64_t stride, int64_t rows, int64_t cols) {
    int64_t c = 0;
    if constexpr (sizeof(A) == 4 && sizeof(T) <= 4) {
        typedef int32_t Picks __attribute__((vector_size(16)));
        const Picks low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, first = {0, 1, 4, 5}, second = {2, 3, 6, 7};
        for (; c + 4 <= cols; c += 4) {
            const T* f = from + c * stride;
            int64_t r = 0;
            for (; r + 4 <= rows; r += 4) {
                const Quad x0 = load_quad(f + r), x1 = load_quad(f + stride + r);
                const Quad x2 = load_quad(f + 2 * stride + r), x3 = load_quad(f + 3 * stride + r);
                const Quad a = __builtin_shuffle(x0, x1, low), b = __builtin_shuffle(x2, x3, low);
                const Quad d = __builtin_shuffle(x0, x1, high), e = __builtin_shuffle(x2, x3, high);
                const Quad y[4] = {__builtin_shuffle(a, b, first), __builtin_shuffle(a, b, second), __builtin_shuffle(d, e, first),
                                   __builtin_shuffle(d, e, second)};
                for (int i = 0; i < 4; ++i) __builtin_memcpy(to + (r + i) * ld + c, &y[i], sizeof y[i]);
            }
            for (; r < rows; ++r)
                for (int i = 0; i < 4; ++i) to[r * ld + c + i] = get(f + i * stride + r);
        }
        if (c + 2 <= cols) {
            const T* f = from + c * stride;
            int64_t r = 0;
            for (; r + 4 <= rows; r += 4) {
                const Quad x0 = load_quad(f + r), x1 = load_quad(f + stride + r);
                const Quad y[2] = {__builtin_shuffle(x0, x1, low), __builtin_shuffle(x0, x1, high)};
                for (int i = 0; i < 4; ++i)
                    __builtin_memcpy(to + (r + i) * ld + c, reinterpret_cast<const A*>(&y[i / 2]) + i % 2 * 2, 2 * sizeof(A));
            }
            for (; r < rows; ++r)
                for (int i = 0; i < 2; ++i) to[r * ld + c + i] = get(f + i * stride + r);
            c += 2;
        }
    }
    for (; c < cols; ++c)
        for (int64_t r = 0; r < rows; ++r) to[r * ld + c] = A(get(from + c * stride + r));
}

/// Rows as a left operand in panels (Major::kPanel): to[(r / kPanelRows cols + c) kPanelRows + r % kPanelRows] = from[r stride + c].
template <class A, class T>
inline void pack_panels(A* to, const T* from, int64_t stride, int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r += kPanelRows)
        transpose(to + r * cols, kPanelRows, from + r * stride, stride, cols, smaller(int64_t{kPanelRows}, rows - r));
}
/// The same of rows that are columns: to[(c / kPanelRows total + r) kPanelRows + c % kPanelRows] = from[r stride + c].
template <class A, class T>
inline void pack_column_panels(A* to, int64_t total, const T* from, int64_t stride, int64_t rows, int64_t cols) {
    const int64_t whole = cols / kPanelRows * kPanelRows;
    for (int64_t r = 0; r < rows; ++r, to += kPanelRows, from += stride) {
        for (int64_t c = 0; c < whole; c += kPanelRows) {
            if constexpr (sizeof(T) == sizeof(A)) __builtin_memcpy(to + c * total, from + c, kPanelRows * sizeof(A));
            else widen(to + c * total, from + c, kPanelRows);
        }
        for (int64_t c = whole; c < cols; ++c) to[whole * total + c - whole] = A(get(from + c));
    }
}

}  // namespace dualform::cpu::DF_ISA
