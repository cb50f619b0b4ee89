// Vectors of the instruction set a file is compiled for, by GCC's vector extensions: no intrinsics, one source for all.
#pragma once

#include <math.h>

#include "cpu/cpu.h"

namespace dualform::cpu::DF_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

/// A: float or double.
template <class A>
struct VecOf {
    typedef A type __attribute__((vector_size(kVectorBytes)));
};
template <class A>
using Vec = typename VecOf<A>::type;
template <class A>
constexpr int kLanes = kVectorBytes / int(sizeof(A));

/// Signed and unsigned integers as wide as A.
template <class A>
struct BitsOf { using i = int32_t; using u = uint32_t; };
template <>
struct BitsOf<double> { using i = int64_t; using u = uint64_t; };

template <class To, class From>
inline To bit_cast(const From& from) {
    static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}

// ---- scalars ----

inline float to_float(bf16 x) { return bit_cast<float>(uint32_t(x.bits) << 16); }
inline bf16 to_bf16(float x) {
    const uint32_t u = bit_cast<uint32_t>(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return bf16{uint16_t((u >> 16) | 0x40u)};
    return bf16{uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}
/// One element in its accumulation type, and back with one rounding to nearest even.
inline float get(const float* p) { return *p; }
inline double get(const double* p) { return *p; }
inline float get(const bf16* p) { return to_float(*p); }
template <class A>
inline void put(float* p, A x) { *p = float(x); }
template <class A>
inline void put(double* p, A x) { *p = double(x); }
template <class A>
inline void put(bf16* p, A x) { *p = to_bf16(float(x)); }

// ---- vectors ----

/// Minus zero, not plus: x + 0 is an addition to the compiler, for -0 + 0 is 0, while x - 0 is x and a plain broadcast.
template <class A>
inline Vec<A> splat(A x) { return x - Vec<A>{}; }

/// Unaligned loads of kLanes<A> elements, converted to A; and stores.
inline Vec<float> load(const float* p) {
    Vec<float> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
inline Vec<double> load(const double* p) {
    Vec<double> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
typedef uint16_t HalfWords __attribute__((vector_size(kVectorBytes / 2)));
typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
inline Vec<float> load(const bf16* p) {
    HalfWords h;
    __builtin_memcpy(&h, p, sizeof h);
#if defined(__AVX512F__)  // one instruction, for which gcc 12 has four
    typedef short Shorts __attribute__((vector_size(sizeof h)));
    typedef int Ints __attribute__((vector_size(kVectorBytes)));
    return bit_cast<Vec<float>>(__builtin_ia32_pmovzxwd512_mask(bit_cast<Shorts>(h), Ints{}, 0xffff) << 16);
#else
    return bit_cast<Vec<float>>(__builtin_convertvector(h, Words) << 16);
#endif
}
inline void store(float* p, Vec<float> v) { __builtin_memcpy(p, &v, sizeof v); }
inline void store(double* p, Vec<double> v) { __builtin_memcpy(p, &v, sizeof v); }
inline void store(bf16* p, Vec<float> v) {
    const Words u = bit_cast<Words>(v);
    const Words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const Words nan = (u >> 16) | 0x40u;
    const Words is_nan = bit_cast<Words>((u & 0x7fffffffu) > 0x7f800000u);
    const HalfWords h = __builtin_convertvector((nan & is_nan) | (rounded & ~is_nan), HalfWords);
    __builtin_memcpy(p, &h, sizeof h);
}

/// mask lanes are all ones or zero (the result of a comparison).
template <class V, class M>
inline V select(M mask, V yes, V no) {
    return mask ? yes : no;
}
template <class V>
inline V vmax(V a, V b) { return a > b ? a : b; }
template <class V>
inline V vmin(V a, V b) { return a < b ? a : b; }

/// Sums and maxima over the lanes, in a fixed (pairwise) order.
template <class A>
inline A lane_sum(Vec<A> v) {
    A lanes[kLanes<A>];
    store(lanes, v);
    for (int half = kLanes<A> / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
}
template <class A>
inline A lane_max(Vec<A> v) {
    A lanes[kLanes<A>];
    store(lanes, v);
    A m = lanes[0];
    for (int i = 1; i < kLanes<A>; ++i) m = lanes[i] > m ? lanes[i] : m;
    return m;
}

/// e^x to about one unit in the last place; 0 below the denormals, inf above, NaN for NaN. -inf gives 0.
/// x = n ln2 + r with |r| <= ln2/2, Taylor series of e^r (degree 7 in float, 13 in double), scaled by 2^n in two steps.
template <class A>
inline Vec<A> vexp(Vec<A> x) {
    using I = typename BitsOf<A>::i;
    typedef I IVec __attribute__((vector_size(kVectorBytes)));
    constexpr bool f = sizeof(A) == 4;
    const A magic = f ? A(12582912.0) : A(6755399441055744.0);  // 1.5 * 2^(mantissa bits): adding it rounds to an integer
    const A high = f ? A(88.9) : A(709.9), low = f ? A(-104.0) : A(-746.0);
    const Vec<A> clamped = x > high ? splat<A>(high) : (x < low ? splat<A>(low) : x);
    const Vec<A> shifted = clamped * A(1.4426950408889634074) + magic;
    const Vec<A> n = shifted - magic;
    // ln2 in two parts: the first has enough trailing zeros that n * part is exact.
    const A ln2_high = f ? A(0.693359375) : A(6.93145751953125e-1), ln2_low = f ? A(-2.12194440054690583e-4) : A(1.42860682030941723212e-6);
    const Vec<A> r = (clamped - n * ln2_high) - n * ln2_low;
    Vec<A> p;
    if constexpr (f) {
        p = splat<A>(A(1.0 / 5040));
        p = p * r + A(1.0 / 720);
    } else {
        p = splat<A>(A(1.0 / 6227020800.0));
        p = p * r + A(1.0 / 479001600.0);
        p = p * r + A(1.0 / 39916800.0);
        p = p * r + A(1.0 / 3628800.0);
        p = p * r + A(1.0 / 362880.0);
        p = p * r + A(1.0 / 40320.0);
        p = p * r + A(1.0 / 5040.0);
        p = p * r + A(1.0 / 720.0);
    }
    p = p * r + A(1.0 / 120);
    p = p * r + A(1.0 / 24);
    p = p * r + A(1.0 / 6);
    p = p * r + A(0.5);
    p = p * r + A(1);
    p = p * r + A(1);
    constexpr int mantissa = f ? 23 : 52;
    constexpr I bias = f ? 127 : 1023;
    const IVec ni = bit_cast<IVec>(shifted) - bit_cast<IVec>(splat<A>(magic));
    const IVec half = ni >> 1;
    const Vec<A> scale1 = bit_cast<Vec<A>>((half + bias) << mantissa);
    const Vec<A> scale2 = bit_cast<Vec<A>>((ni - half + bias) << mantissa);
    const Vec<A> y = p * scale1 * scale2;
    return x != x ? x : y;
}

// ---- a small matrix product on padded tiles ----

namespace tile {
// A block of kRows x kVectors sums stays in registers. Each step of the sum loads kVectors vectors of b and broadcasts kRows numbers of a
// for kRows kVectors multiply-adds: few enough loads for two load ports to keep two multiply-add ports busy.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 4, kVectors = 4;  // of 32 registers
#else
constexpr int kRows = 4, kVectors = 2;  // of 16 registers
#endif
constexpr int kChain = 32;  // terms added one after another before they join c: near pairwise accuracy

/// c (R, V vectors) (+)= a (R,depth) b (depth, V vectors), depth at most kChain.
template <class A, int R, int V>
inline __attribute__((always_inline)) void micro(A* c, ptrdiff_t ldc, const A* a, ptrdiff_t lda, ptrdiff_t step, const A* b, ptrdiff_t ldb,
                                                 int depth, bool add) {
    Vec<A> sum[R][V] = {};
    const auto term = [&](int p) __attribute__((always_inline)) {
        Vec<A> b_p[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) b_p[v] = load(b + p * ldb + v * kLanes<A>);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Vec<A> a_rp = splat<A>(a[r * lda + p * step]);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[r][v] += a_rp * b_p[v];
        }
    };
    int p = 0;
    for (; p + 2 <= depth; p += 2) {
        term(p);
        term(p + 1);
    }
    if (p < depth) term(p);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            A* to = c + r * ldc + v * kLanes<A>;
            store(to, add ? load(to) + sum[r][v] : sum[r][v]);
        }
    }
}

template <class A, int V>
inline void rows(A* c, ptrdiff_t ldc, const A* a, ptrdiff_t lda, ptrdiff_t step, const A* b, ptrdiff_t ldb, int m, int depth, bool add) {
    static_assert(kRows == 4, "what remains is 1 to 3 rows");
    int i = 0;
    for (; i + kRows <= m; i += kRows) micro<A, kRows, V>(c + i * ldc, ldc, a + i * lda, lda, step, b, ldb, depth, add);
    c += i * ldc;
    a += i * lda;
    switch (m - i) {
        case 1: return micro<A, 1, V>(c, ldc, a, lda, step, b, ldb, depth, add);
        case 2: return micro<A, 2, V>(c, ldc, a, lda, step, b, ldb, depth, add);
        case 3: return micro<A, 3, V>(c, ldc, a, lda, step, b, ldb, depth, add);
        default: return;
    }
}
}  // namespace tile

/// c (m,n) = a (m,k) b (k,n), or += when add. Rows contiguous, leading dimensions in elements. n is rounded up to a multiple of
/// kLanes<A>: b must be readable and c writable there. One thread; the order of summation depends on k alone. Element (i,p) of a is
/// a[i*lda + p*step]: lda = 1 reads a transposed. b is read in panels of kVectors vectors, kChain rows at a time, which stay in the L1
/// cache while the rows of a pass; c should stay in the L2 cache. k = 0 clears c (or leaves it when add).
template <class A>
inline void tile_gemm(A* c, ptrdiff_t ldc, const A* a, ptrdiff_t lda, const A* b, ptrdiff_t ldb, int m, int n, int k, bool add,
                      ptrdiff_t step = 1) {
    constexpr int kWidth = tile::kVectors * kLanes<A>;
    for (int j = 0; j < n; j += kWidth) {
        const int vectors = smaller(tile::kVectors, (n - j + kLanes<A> - 1) / kLanes<A>);
        int p = 0;
        bool adds = add;
        do {
            const int depth = smaller(tile::kChain, k - p);
            A* c_j = c + j;
            const A *a_p = a + p * step, *b_pj = b + p * ldb + j;
            if (vectors == tile::kVectors) tile::rows<A, tile::kVectors>(c_j, ldc, a_p, lda, step, b_pj, ldb, m, depth, adds);
            else if (vectors == 1) tile::rows<A, 1>(c_j, ldc, a_p, lda, step, b_pj, ldb, m, depth, adds);
            else if constexpr (tile::kVectors == 4) {
                if (vectors == 2) tile::rows<A, 2>(c_j, ldc, a_p, lda, step, b_pj, ldb, m, depth, adds);
                else tile::rows<A, 3>(c_j, ldc, a_p, lda, step, b_pj, ldb, m, depth, adds);
            }
            adds = true;
            p += depth;
        } while (p < k);
    }
}

}  // namespace dualform::cpu::DF_ISA
