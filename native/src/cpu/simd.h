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

template <int N>
struct Constant { static constexpr int value = N; };

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
/// As many floats as a vector holds doubles.
typedef float HalfVector __attribute__((vector_size(kVectorBytes / 2)));
inline Vec<double> doubles(HalfVector x) {
#if defined(__AVX512F__)  // one instruction, for which gcc 12 has three
    return __builtin_ia32_cvtps2pd512_mask(x, Vec<double>{}, 0xff, 4);
#else
    return __builtin_convertvector(x, Vec<double>);
#endif
}
inline HalfVector floats(Vec<double> x) {
#if defined(__AVX512F__)
    return __builtin_ia32_cvtpd2ps512_mask(x, HalfVector{}, 0xff, 4);
#else
    return __builtin_convertvector(x, HalfVector);
#endif
}
/// Unaligned loads of kLanes<double> elements, converted to double; and stores, rounded.
inline Vec<double> load_doubles(const double* p) { return load(p); }
inline Vec<double> load_doubles(const float* p) {
    HalfVector x;
    __builtin_memcpy(&x, p, sizeof x);
    return doubles(x);
}
inline Vec<double> load_doubles(const bf16* p) {
    typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 4)));
    typedef uint32_t Wholes __attribute__((vector_size(kVectorBytes / 2)));
    Halves h;
    __builtin_memcpy(&h, p, sizeof h);
    return doubles(bit_cast<HalfVector>(__builtin_convertvector(h, Wholes) << 16));
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

/// Aligned stores past the caches, for what is not read again before others have filled them: the line is not read first, and pushes nothing
/// out. streamed() orders them before what this thread writes next.
#if defined(__AVX512F__)
inline void stream(float* p, Vec<float> v) { __builtin_ia32_movntps512(p, v); }
inline void stream(double* p, Vec<double> v) { __builtin_ia32_movntpd512(p, v); }
#elif defined(__AVX2__)
inline void stream(float* p, Vec<float> v) { __builtin_ia32_movntps256(p, v); }
inline void stream(double* p, Vec<double> v) { __builtin_ia32_movntpd256(p, v); }
#elif defined(__SSE2__)
inline void stream(float* p, Vec<float> v) { __builtin_ia32_movntps(p, v); }
inline void stream(double* p, Vec<double> v) { __builtin_ia32_movntpd(p, v); }
#else
inline void stream(float* p, Vec<float> v) { store(p, v); }
inline void stream(double* p, Vec<double> v) { store(p, v); }
#endif
inline void streamed() {
#if defined(__SSE2__)
    __builtin_ia32_sfence();
#endif
}

inline void store_doubles(double* p, Vec<double> v) { store(p, v); }
inline void store_doubles(float* p, Vec<double> v) {
    const HalfVector x = floats(v);
    __builtin_memcpy(p, &x, sizeof x);
}

/// mask lanes are all ones or zero (the result of a comparison).
template <class V, class M>
inline V select(M mask, V yes, V no) {
    return mask ? yes : no;
}
/// a > b ? a : b, so b where either is NaN.
template <class V>
inline V vmax(V a, V b) { return a > b ? a : b; }
template <class V>
inline V vmin(V a, V b) { return a < b ? a : b; }
#if defined(__AVX__)
// One instruction with exactly that meaning; from the expression the compiler makes a comparison and a choice.
inline Vec<float> vmax(Vec<float> a, Vec<float> b) {
    Vec<float> m;
    asm("vmaxps %2, %1, %0" : "=v"(m) : "v"(a), "v"(b));
    return m;
}
inline Vec<float> vmin(Vec<float> a, Vec<float> b) {
    Vec<float> m;
    asm("vminps %2, %1, %0" : "=v"(m) : "v"(a), "v"(b));
    return m;
}
#endif

/// x, in a register: where those are few, the compiler would read it from memory again for each use.
template <class V>
inline V in_register(V x) {
#if defined(__x86_64__)
#if defined(__AVX512F__)
    asm("" : "+v"(x));
#else
    asm("" : "+x"(x));
#endif
#elif defined(__aarch64__)
    asm("" : "+w"(x));
#else
    asm("" : "+m"(x));
#endif
    return x;
}

/// x, rounded: the compiler must not contract a product into a later sum, so that two places that compute it agree in every bit.
template <class V>
inline V rounded(V x) { return in_register(x); }

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

/// e^x for x that is not far above 0 (below 80): half the work of vexp. Float: 2^n 2^r with x / ln2 = n + r; the polynomial of 2^r has
/// relative error 2e-9 (minimax fit) and r is rounded once. Exactly 0 for -inf and where e^x is below 2^-125, which keeps denormal numbers,
/// slow on many processors, away; NaN for NaN.
inline Vec<float> exp_of_shifted(Vec<float> x) {
#if !defined(__FMA__) && !defined(__aarch64__)
    return vexp<float>(x);  // r would be rounded twice
#else
    const float magic = 12582912.0f, log2_e = 1.44269504088896340736f, lowest = -86.5f;
    const Vec<float> shifted = x * log2_e + magic, n = shifted - magic, r = x * log2_e - n;
    Vec<float> p = splat<float>(0.00015345812f);
    p = p * r + 0.00133999309f;
    p = p * r + 0.00961848907f;
    p = p * r + 0.0555032864f;
    p = p * r + 0.240226462f;
    p = p * r + 0.693147182f;
    p = p * r + 1.0f;
#if defined(__AVX512F__)
    Vec<float> y;
    asm("vcmpnleps %3, %1, %%k1\n\tvscalefps %2, %4, %0%{%%k1%}%{z%}" : "=&v"(y) : "v"(x), "v"(n), "v"(splat<float>(lowest)), "v"(p) : "k1");
    return y;
#else
    const Words exponent = bit_cast<Words>(shifted) << 23;  // the integer n in the low bits of the sum moves into the exponent
    const Words y = bit_cast<Words>(p) + exponent;
    return bit_cast<Vec<float>>(y & ~bit_cast<Words>(x <= lowest));
#endif
#endif
}
inline Vec<double> exp_of_shifted(Vec<double> x) { return vexp<double>(x); }

/// ln x of finite normal x > 0, to a few units in the last place: x = 2^k m with m in [sqrt(1/2), sqrt 2), ln m = 2 artanh((m - 1) / (m + 1)).
inline Vec<double> log_of_normal(Vec<double> x) {
    typedef int64_t IVec __attribute__((vector_size(kVectorBytes)));
    typedef uint64_t UVec __attribute__((vector_size(kVectorBytes)));
    const UVec bits = bit_cast<UVec>(x);
    const UVec k = bit_cast<UVec>(bit_cast<IVec>(bits - uint64_t{0x3fe6a09e667f3bcd}) >> 52);
    const Vec<double> m = bit_cast<Vec<double>>(bits - (k << 52));
    const Vec<double> exponent = bit_cast<Vec<double>>(k + uint64_t{0x4338000000000000}) - 6755399441055744.0;
    const Vec<double> s = (m - 1.0) / (m + 1.0), z = s * s;
    Vec<double> p = splat<double>(2.0 / 19);
    p = p * z + 2.0 / 17;
    p = p * z + 2.0 / 15;
    p = p * z + 2.0 / 13;
    p = p * z + 2.0 / 11;
    p = p * z + 2.0 / 9;
    p = p * z + 2.0 / 7;
    p = p * z + 2.0 / 5;
    p = p * z + 2.0 / 3;
    p = p * z + 2.0;
    return exponent * 0.69314718055994530942 + s * p;
}

// ---- a small matrix product on padded tiles ----

#if defined(__AVX512F__)
constexpr bool kWideVectors = true;  // of the length of a cache line
#else
constexpr bool kWideVectors = false;
#endif

/// How a left operand lies: its rows are contiguous, or its columns, or kPanelRows rows at a time, column after column. The compiler must
/// know, or each number that is broadcast costs an address.
enum class Major { kRow, kColumn, kPanel };
constexpr int kPanelRows = 6;

namespace tile {
// A block of rows x vectors sums stays in registers. Each step of the sum loads the vectors of b and broadcasts a number of each row of a
// for rows times vectors multiply-adds: the fewer loads and instructions for each, the less else on the core disturbs.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kVectors = 4;  // of 32 registers
constexpr int kUnroll = 4;   // terms
constexpr bool kFewRegisters = false;
template <int V>
constexpr int kTall = V == 4 ? 6 : V == 3 ? 8 : 12;
#else
constexpr int kVectors = 2;  // of 16 registers
constexpr int kUnroll = 2;   // with more, sums of one term are kept while the next one's begin, and registers run out
#if defined(__x86_64__)
constexpr bool kFewRegisters = true;
#else
constexpr bool kFewRegisters = false;  // or not known to be
#endif
template <int V>
constexpr int kTall = V == 2 ? 6 : 8;
#endif
template <int V, Major M>
constexpr int kHeight = M == Major::kPanel ? kPanelRows : kTall<V>;
constexpr int kChain = 16;  // terms added one after another before they join c: near pairwise accuracy

/// f(place of each of the R x V vectors).
template <int R, int V, class F>
inline __attribute__((always_inline)) void each(F&& f) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) f(r, v);
    }
}

/// Where rows from i on begin. lda: from row to row of a, from column to column, or the columns of a panel.
template <Major M, class A>
inline const A* left_at(const A* a, ptrdiff_t lda, int i) {
    if constexpr (M == Major::kRow) return a + i * lda;
    else if constexpr (M == Major::kColumn) return a + i;
    else return a + i / kPanelRows * kPanelRows * lda + i % kPanelRows;
}
/// From term to term of a row.
template <Major M>
inline ptrdiff_t step_of(ptrdiff_t lda) { return M == Major::kRow ? 1 : M == Major::kColumn ? lda : ptrdiff_t{kPanelRows}; }

/// Sums of R rows: a (R,depth), as left_at gives it, times b (depth, V vectors) in one chain. Rows of b are Ldb elements apart, or ldb
/// where Ldb is 0.
template <class A, int R, int V, int Ldb, Major M>
inline __attribute__((always_inline)) void sums(Vec<A> (&sum)[R][V], const A* a, ptrdiff_t lda, const A* b, ptrdiff_t ldb, int depth) {
    const A* row[R];
    for (int r = 0; r < R; ++r) row[r] = M == Major::kRow ? a + r * lda : a;
    const ptrdiff_t step = step_of<M>(lda);
    const auto term = [&](ptrdiff_t at, const A* b_row, bool first) __attribute__((always_inline)) {
        Vec<A> b_p[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) b_p[v] = kFewRegisters ? in_register(load(b_row + v * kLanes<A>)) : load(b_row + v * kLanes<A>);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Vec<A> a_rp = splat<A>(M == Major::kRow ? row[r][at] : row[0][at + r]);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[r][v] = first ? rounded(a_rp * b_p[v]) : sum[r][v] + a_rp * b_p[v];
        }
    };
    if constexpr (Ldb != 0) ldb = Ldb;
    int p = 0;
    // A chain begins with its first products, whose zeros keep their signs: clearing the sums would take 5 to 9 % of its time.
    if (kFewRegisters && depth >= kUnroll) {
#pragma GCC unroll 4
        for (int x = 0; x < kUnroll; ++x) term(x * step, b + x * ldb, x == 0);
        p = kUnroll;
    } else {
        each<R, V>([&](int r, int v) __attribute__((always_inline)) { sum[r][v] = Vec<A>{}; });
    }
    for (; p + kUnroll <= depth; p += kUnroll) {
#pragma GCC unroll 4
        for (int x = 0; x < kUnroll; ++x) term((p + x) * step, b + (p + x) * ldb, false);
    }
    for (; p < depth; ++p) term(p * step, b + p * ldb, false);
}

/// f(Constant<R>, i) for blocks of R rows from i on, which make up m rows.
template <int Height, class F>
inline __attribute__((always_inline)) void blocks(int m, F&& f) {
    int i = 0;
    for (; i + Height <= m; i += Height) f(Constant<Height>{}, i);
    for (; i + 4 <= m; i += 4) f(Constant<4>{}, i);
    if (i + 2 <= m) {
        f(Constant<2>{}, i);
        i += 2;
    }
    if (i < m) f(Constant<1>{}, i);
}

/// c = sum, or += when add.
template <class A, int R, int V>
inline __attribute__((always_inline)) void join(A* c, ptrdiff_t ldc, const Vec<A> (&sum)[R][V], bool add) {
    const auto at = [c, ldc](int r, int v) { return c + r * ldc + v * kLanes<A>; };
    if (add) each<R, V>([&](int r, int v) { store(at(r, v), load(at(r, v)) + sum[r][v]); });
    else each<R, V>([&](int r, int v) { store(at(r, v), sum[r][v]); });
}

/// p, of which GCC knows nothing: else it keeps what is stored there in registers from chain to chain, for which there is no room.
template <class A>
inline A* somewhere(A* p) {
    asm("" : "+r"(p));
    return p;
}

/// c (m, V vectors) (+)= a (m,k) b (k, V vectors). Sums of a chain join c. Rows of b and of c are Ld elements apart, or ldb and ldc where
/// Ld is 0.
template <class A, int V, Major M, int Ld, int kChain>
inline void product(A* c, ptrdiff_t ldc, const A* a, ptrdiff_t lda, const A* b, ptrdiff_t ldb, int m, int k, bool add) {
    if constexpr (Ld != 0) ldc = ldb = Ld;
    const ptrdiff_t step = step_of<M>(lda);
    constexpr int kSlice = kWideVectors ? kChain : 256;  // terms that all rows take at a time
    static_assert(kSlice % kChain == 0, "a slice has whole chains");
    int p = 0;
    do {
        const int depth = smaller(kSlice, k - p);
        blocks<kHeight<V, M>>(m, [&](auto height, int i) __attribute__((always_inline)) {
            constexpr int R = decltype(height)::value;
            const A *a_q = left_at<M>(a + p * step, lda, i), *b_q = b + p * ldb;
            bool adds = add || p > 0;
            for (int q = 0; q == 0 || q < depth; q += kChain) {
                Vec<A> sum[R][V];
                sums<A, R, V, Ld, M>(sum, a_q, lda, b_q, ldb, smaller(kChain, depth - q));
                a_q += kChain * step;
                b_q += kChain * ldb;
                join<A, R, V>(somewhere(c + i * ldc), ldc, sum, adds);
                adds = true;
            }
        });
        p += depth;
    } while (p < k);
}
}  // namespace tile

/// c (m,n) = a (m,k) b (k,n), or += when add. Rows contiguous, leading dimensions in elements. n is rounded up to a multiple of
/// kLanes<A>: b must be readable and c writable there. One thread; the order of summation depends on k alone. Element (i,p) of a is
/// a[i*lda + p*step], one of the two being 1: lda = 1 reads a transposed. b is read in panels of kVectors vectors; c should stay in the L2
/// cache. k = 0 clears c (or leaves it when add).
template <class A, int kChain = tile::kChain>
inline void tile_gemm(A* c, ptrdiff_t ldc, const A* a, ptrdiff_t lda, const A* b, ptrdiff_t ldb, int m, int n, int k, bool add,
                      ptrdiff_t step = 1) {
    constexpr int kWidth = tile::kVectors * kLanes<A>;
    constexpr int kUsual = 64;  // elements from row to row of b and c
    const auto columns = [&](auto vectors, auto apart, int j) {
        constexpr int V = decltype(vectors)::value, Ld = decltype(apart)::value;
        if (step == 1) tile::product<A, V, Major::kRow, Ld, kChain>(c + j, ldc, a, lda, b + j, ldb, m, k, add);
        else tile::product<A, V, Major::kColumn, Ld, kChain>(c + j, ldc, a, step, b + j, ldb, m, k, add);
    };
    int j = 0;
    for (; n - j > kWidth - kLanes<A>; j += kWidth) {
        if (ldb == kUsual && ldc == kUsual) columns(Constant<tile::kVectors>{}, Constant<kUsual>{}, j);
        else columns(Constant<tile::kVectors>{}, Constant<0>{}, j);
    }
    const int left = (n - j + kLanes<A> - 1) / kLanes<A>;
    if (left == 1) columns(Constant<1>{}, Constant<0>{}, j);
    if constexpr (tile::kVectors == 4) {
        if (left == 2) columns(Constant<2>{}, Constant<0>{}, j);
        if (left == 3) columns(Constant<3>{}, Constant<0>{}, j);
    }
}

}  // namespace dualform::cpu::DF_ISA
