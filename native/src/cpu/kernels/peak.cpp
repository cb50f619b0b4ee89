// What a core can do at most: multiply-adds on values that stay in registers. No memory is touched inside the loops.
#include "cpu/kernels.h"
#include "cpu/simd.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace dualform::cpu::DF_ISA {

namespace {

// Enough for a latency of 5 at two a cycle, and few enough for the 16 registers of SSE and AVX2.
constexpr int kAccumulators = 12;

/// The compiler may no longer know the values.
template <class V>
inline void forget(V& values) {
    asm volatile("" : "+m"(values));
}

/// Each sum tends to 1: neither overflow nor denormal numbers.
template <class A>
double multiply_adds_in(int64_t rounds) {
    Vec<A> sum[kAccumulators], factor = splat(A(0.75)), addend = splat(A(0.25));
    for (int i = 0; i < kAccumulators; ++i) sum[i] = splat(A(1 + 0.125 * i));
    forget(sum), forget(factor), forget(addend);
    for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
        for (int i = 0; i < kAccumulators; ++i) sum[i] = sum[i] * factor + addend;
    }
    forget(sum);
    return 2.0 * kLanes<A> * kAccumulators * double(rounds);
}

#if defined(__AVX512F__)
/// Two products into each lane.
__attribute__((target("avx512bf16"))) double dot_products(int64_t rounds) {
    __m512 sum[kAccumulators];
    for (int i = 0; i < kAccumulators; ++i) sum[i] = _mm512_set1_ps(1 + 0.125f * float(i));
    __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f403f40), b = (__m512bh)_mm512_set1_epi32(0x3e803e80);  // 0.75, 0.25
    forget(sum), forget(a), forget(b);
    for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
        for (int i = 0; i < kAccumulators; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], a, b);
    }
    forget(sum);
    return 4.0 * 16 * kAccumulators * double(rounds);
}

/// 16 x 16 sums of 32 products: four tiles of sums, two of each factor.
__attribute__((target("amx-tile,amx-bf16"))) double tile_products(int64_t rounds) {
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shape;
    alignas(64) uint16_t factors[16 * 32];
    for (int i = 0; i < 16 * 32; ++i) factors[i] = uint16_t(0x3f00 + i % 128);  // in [0.5, 1)
    _tile_loadconfig(&shape);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, factors, 64);
    _tile_loadd(5, factors, 64);
    _tile_loadd(6, factors, 64);
    _tile_loadd(7, factors, 64);
    for (int64_t r = 0; r < rounds; ++r) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return 2.0 * 16 * 16 * 32 * 4 * double(rounds);
}
#endif

}  // namespace

double multiply_adds(int dtype, Bf16Products products, int64_t rounds) {
    if (dtype == DF_F64) return multiply_adds_in<double>(rounds);
#if defined(__AVX512F__)
    if (dtype == DF_BF16 && products == Bf16Products::kTiles) return tile_products(rounds);
    if (dtype == DF_BF16 && products == Bf16Products::kDot) return dot_products(rounds);
#else
    (void)products;
#endif
    return multiply_adds_in<float>(rounds);
}

}  // namespace dualform::cpu::DF_ISA
