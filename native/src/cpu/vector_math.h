// Functions on the vectors of simd.h that more than one kernel needs: partial rows, exact sums, tanh, the normal distribution.
#pragma once

#include "cpu/simd.h"

namespace dualform::cpu::DF_ISA {

template <class A, class B>
constexpr bool kSame = false;
template <class A>
constexpr bool kSame<A, A> = true;

// ---- ends of rows ----

/// lanes elements from p, the other lanes filler: a row's end without a read beyond it. A whole vector when lanes is kLanes<A>.
template <class A, class T>
inline Vec<A> load_lanes(const T* p, int lanes, A filler = A(0)) {
    if (lanes == kLanes<A>) return load(p);
    A values[kLanes<A>];
    for (int i = 0; i < kLanes<A>; ++i) values[i] = i < lanes ? A(get(p + i)) : filler;
    return load(values);
}
template <class A, class T>
inline void store_lanes(T* p, Vec<A> v, int lanes) {
    if (lanes == kLanes<A>) return store(p, v);
    A values[kLanes<A>];
    store(values, v);
    for (int i = 0; i < lanes; ++i) put(p + i, values[i]);
}

/// f(i, lanes) for the vectors of a row of n elements; lanes is below kLanes<A> for the last one only.
template <class A, class F>
inline __attribute__((always_inline)) void for_vectors(int64_t n, F&& f) {
    int64_t i = 0;
    for (; i + kLanes<A> <= n; i += kLanes<A>) f(i, kLanes<A>);
    if (i < n) f(i, int(n - i));
}

/// out[i] = f(in[i]...). out may be one of in.
template <class A, class F, class... In>
inline __attribute__((always_inline)) void map(A* out, int64_t n, F&& f, const In*... in) {
    int64_t i = 0;
    for (; i + kLanes<A> <= n; i += kLanes<A>) store(out + i, f(load(in + i)...));
    if (i < n) store_lanes<A>(out + i, f(load_lanes<A>(in + i, int(n - i))...), int(n - i));
}

// ---- sums ----

typedef double TwiceDoubles __attribute__((vector_size(2 * kVectorBytes)));

template <class A>
constexpr int kDoubles = int(sizeof(double) / sizeof(A));

/// The i-th of the kDoubles<A> vectors of double that hold v. Converted whole: gcc 12 takes half a vector apart into quarters.
inline Vec<double> widen(Vec<float> v, int i) {
    const TwiceDoubles both = __builtin_convertvector(v, TwiceDoubles);
    Vec<double> halves[2];
    __builtin_memcpy(halves, &both, sizeof both);
    return halves[i];
}
inline Vec<double> widen(Vec<double> v, int) { return v; }

/// sums[0 .. kLanes<A>) += v
template <class A>
inline void add_to(double* sums, Vec<A> v) {
    for (int h = 0; h < kDoubles<A>; ++h) store(sums + h * kLanes<double>, load(sums + h * kLanes<double>) + widen(v, h));
}

/// A sum of vectors in double; sums of double keep what each addition rounds away and add it at the end.
template <class A>
class WideSum {
public:
    void add(Vec<A> v) {
        for (int h = 0; h < kDoubles<A>; ++h) {
            const Vec<double> before = sum_[h], x = widen(v, h);
            sum_[h] = before + x;
            if constexpr (kSame<A, double>) {
                const Vec<double> part = sum_[h] - before;
                lost_ += (before - (sum_[h] - part)) + (x - part);
            }
        }
    }
    double total() const {
        Vec<double> sum = sum_[0];
        for (int h = 1; h < kDoubles<A>; ++h) sum += sum_[h];
        const double plain = lane_sum<double>(sum), exact = plain + lane_sum<double>(lost_);
        return exact == exact ? exact : plain;  // what infinity rounds away is not a number
    }

private:
    Vec<double> sum_[kDoubles<A>] = {}, lost_ = {};
};

/// The sums over a row of n elements of K terms. term(i, lanes, t) puts the terms of elements i.. into t, 0 in lanes that lie beyond the
/// row. Each lane adds runs of Run terms in A and the sums of the runs in double; with Run = 1 nothing but the terms is rounded to A.
template <class A, int K, int Run, class F>
inline __attribute__((always_inline)) void row_sums(double (&sums)[K], int64_t n, F&& term) {
    WideSum<A> wide[K];
    for (int64_t first = 0; first < n; first += Run * kLanes<A>) {
        Vec<A> run[K] = {};
        for_vectors<A>(smaller(n - first, int64_t{Run} * kLanes<A>), [&](int64_t i, int lanes) {
            Vec<A> t[K];
            term(first + i, lanes, t);
            for (int k = 0; k < K; ++k) run[k] += t[k];
        });
        for (int k = 0; k < K; ++k) wide[k].add(run[k]);
    }
    for (int k = 0; k < K; ++k) sums[k] = wide[k].total();
}

// ---- functions ----

inline float square_root(float x) { return __builtin_sqrtf(x); }
inline double square_root(double x) { return __builtin_sqrt(x); }

/// |x| by its sign bit alone.
template <class A>
inline Vec<A> absolute(Vec<A> x) {
    using U = typename BitsOf<A>::u;
    typedef U UVec __attribute__((vector_size(kVectorBytes)));
    return bit_cast<Vec<A>>(bit_cast<UVec>(x) & (~U{0} >> 1));
}
inline Vec<float> vabs(Vec<float> x) { return absolute<float>(x); }
inline Vec<double> vabs(Vec<double> x) { return absolute<double>(x); }

/// e^x for x <= 0, NaN for NaN: without an upper end, and 0 where float has no normal number, which leaves half the work of vexp.
/// Float: 1 + r + r^2 q(r) with a least squares fit of q, error 3e-9.
inline Vec<float> vexp_below(Vec<float> x) {
    const Vec<float> magic = splat<float>(12582912.0f);
    const Vec<float> shifted = x * 1.44269504f + magic, n = shifted - magic;
    const Vec<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vec<float> p = splat<float>(0.00138145394f);
    p = p * r + 0.00836874545f;
    p = p * r + 0.0416683890f;
    p = p * r + 0.166665211f;
    p = p * r + 0.499999940f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const Vec<float> power = bit_cast<Vec<float>>((bit_cast<Words>(shifted) << 23) + 0x3f800000u);
    return x < -87.0f ? Vec<float>{} : p * power;
}
inline Vec<double> vexp_below(Vec<double> x) { return vexp<double>(x); }

/// f of every lane, for what has no vector form here.
template <class A, class F>
inline Vec<A> each_lane(Vec<A> x, F&& f) {
    A lanes[kLanes<A>];
    store(lanes, x);
    for (int i = 0; i < kLanes<A>; ++i) lanes[i] = f(lanes[i]);
    return load(lanes);
}

/// 1 / (1 + e^-x)
template <class A>
inline Vec<A> vsigmoid(Vec<A> x) {
    return A(1) / (A(1) + vexp<A>(-x));
}

/// Float: below 0.65 an odd polynomial (least squares fit, error 3e-10), above it 1 - 2 / (e^2|x| + 1).
inline Vec<float> vtanh(Vec<float> x) {
    const Vec<float> a = vabs(x), z = x * x;
    Vec<float> p = splat<float>(0.0020646653f);
    p = p * z - 0.0080919685f;
    p = p * z + 0.0216663470f;
    p = p * z - 0.0539405632f;
    p = p * z + 0.1333315790f;
    p = p * z - 0.3333332961f;
    const Vec<float> near = x + x * z * p;
    const Vec<float> far = 1.0f - 2.0f / (vexp<float>(2.0f * a) + 1.0f);
    return a < 0.65f ? near : (x < 0 ? -far : far);
}
inline Vec<double> vtanh(Vec<double> x) {
    return each_lane<double>(x, [](double v) { return tanh(v); });
}

/// Phi(x), the normal distribution function, given gauss = e^(-x^2/2). Float: Phi(-a) = gauss (1 - u) P(u) with u = a / (4 + a), P a least
/// squares fit of Mills' ratio with relative error 8e-8 for every a >= 0, 8e-9 where gauss counts. P(0) is exactly 1/2: about 0, where the
/// slope of GELU is steepest, u and what is taken from 1/2 are small, so little is lost to rounding (1e-7 in all, like erff).
inline Vec<float> normal_cdf(Vec<float> x, Vec<float> gauss) {
    const Vec<float> a = 0.25f * vabs(x), u = a / (1.0f + a);
    Vec<float> p = splat<float>(-0.0192385956f);
    p = p * u + 0.0949420750f;
    p = p * u - 0.1570940243f;
    p = p * u + 0.0315768681f;
    p = p * u + 0.1569246511f;
    p = p * u + 0.0785295326f;
    p = p * u - 0.7986286023f;
    p = p * u + 1.3084934199f;
    p = p * u - 1.0957697464f;
    p = p * u + 0.5f;
    const Vec<float> tail = gauss * ((1.0f - u) * p);
    return x > 0 ? 1.0f - tail : tail;
}
inline Vec<double> normal_cdf(Vec<double> x, Vec<double>) {
    return each_lane<double>(x, [](double v) { return 0.5 * erfc(-v * 0.70710678118654752440); });
}

// ---- rounding ----

/// double to bfloat16 with one rounding: float on the way is rounded to odd, which keeps the information that the second step needs.
inline bf16 round_to_bf16(double x) {
    const float nearest = float(x);
    const double back = double(nearest);
    if (back == x || x != x) return to_bf16(nearest);
    uint32_t bits = bit_cast<uint32_t>(nearest);
    if ((x < 0 ? -back : back) > (x < 0 ? -x : x)) bits -= 1;
    return to_bf16(bit_cast<float>(bits | 1u));
}
inline void put_rounded(float* p, double x) { *p = float(x); }
inline void put_rounded(double* p, double x) { *p = x; }
inline void put_rounded(bf16* p, double x) { *p = round_to_bf16(x); }

}  // namespace dualform::cpu::DF_ISA
