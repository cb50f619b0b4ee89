// A small matrix product of bfloat16 on padded tiles, sums in float32: the counterpart of tile_gemm where the processor multiplies
// bfloat16 itself (AMX tiles, or AVX512_BF16's products of pairs). Elsewhere operands are widened and tile_gemm serves.
//
// The left operand lies in rows. The right one lies in pairs: the terms 2p and 2p+1 of the sum next to each other, [k/2][n][2], so that one
// 32-bit lane holds what one step adds. Both are padded with zeros: rows of the left operand to kStep terms, n and m to whole vectors.
#pragma once

#include "cpu/simd.h"

namespace dualform::cpu::DF_ISA {

namespace bf16_tile {
constexpr int kStep = 32;   // terms of one tile product: k is a multiple of it
constexpr int kBlock = 16;  // rows and columns of a tile: m and n are multiples of it

/// Two bfloat16 in a word, the first one in the low half.
typedef uint32_t Pairs __attribute__((vector_size(kVectorBytes)));

/// (a_i, b_i) rounded to bfloat16, a in the low halves.
inline Pairs pair(Vec<float> a, Vec<float> b) {
    const Words x = bit_cast<Words>(a), y = bit_cast<Words>(b);
    const Words low = (x + 0x7fffu + ((x >> 16) & 1u)) >> 16, high = (y + 0x7fffu + ((y >> 16) & 1u)) & 0xffff0000u;
    const Words pair = low | high;
    // A NaN stays one; rounding must not carry into its exponent and sign.
    const Words nan_x = bit_cast<Words>(a != a), nan_y = bit_cast<Words>(b != b);
    return (pair & ~(nan_x & 0xffffu) & ~(nan_y & 0xffff0000u)) | (nan_x & 0x7fc0u) | (nan_y & 0x7fc00000u);
}

#if defined(__AVX512F__)

/// Tile registers: all eight hold 16 rows of 64 bytes while a TileSession lives. A thread must not keep them beyond a task: the next
/// user of the thread may be anyone, and their contents slow down every switch.
class TileSession {
public:
    explicit TileSession(bool wanted) : wanted_(wanted) {
        if (!wanted_) return;
        struct alignas(64) Configuration {
            uint8_t palette, start_row, reserved[14];
            uint16_t row_bytes[16];
            uint8_t rows[16];
        } configuration = {};
        configuration.palette = 1;
        for (int i = 0; i < 8; ++i) {
            configuration.row_bytes[i] = 64;
            configuration.rows[i] = 16;
        }
        asm volatile("ldtilecfg %0" : : "m"(configuration));
    }
    ~TileSession() {
        if (wanted_) asm volatile("tilerelease");
    }
    TileSession(const TileSession&) = delete;
    TileSession& operator=(const TileSession&) = delete;

private:
    bool wanted_;
};

#define DF_TILE_ZERO(t) asm volatile("tilezero %%tmm" #t ::)
#define DF_TILE_LOAD(t, p, stride) asm volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(p), "r"(stride) : "memory")
#define DF_TILE_STORE(t, p, stride) asm volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(p), "r"(stride) : "memory")
#define DF_TILE_DOT(c, a, b) asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)

/// 32 x 32 of c: four tiles of sums, two of each operand.
inline void block_tiles(float* c, ptrdiff_t ldc, const bf16* a, ptrdiff_t lda, const bf16* b, ptrdiff_t ldb, int k, bool add) {
    const ptrdiff_t c_stride = ldc * 4, a_stride = lda * 2, b_stride = ldb * 4;
    float* c1 = c + 16 * ldc;
    if (add) {
        DF_TILE_LOAD(0, c, c_stride);
        DF_TILE_LOAD(1, c + 16, c_stride);
        DF_TILE_LOAD(2, c1, c_stride);
        DF_TILE_LOAD(3, c1 + 16, c_stride);
    } else {
        DF_TILE_ZERO(0);
        DF_TILE_ZERO(1);
        DF_TILE_ZERO(2);
        DF_TILE_ZERO(3);
    }
    const bf16* a1 = a + 16 * lda;
    for (int p = 0; p < k; p += kStep) {
        const bf16* b_p = b + p * ldb;
        DF_TILE_LOAD(4, a + p, a_stride);
        DF_TILE_LOAD(6, b_p, b_stride);
        DF_TILE_DOT(0, 4, 6);
        DF_TILE_LOAD(7, b_p + 32, b_stride);
        DF_TILE_DOT(1, 4, 7);
        DF_TILE_LOAD(5, a1 + p, a_stride);
        DF_TILE_DOT(2, 5, 6);
        DF_TILE_DOT(3, 5, 7);
    }
    DF_TILE_STORE(0, c, c_stride);
    DF_TILE_STORE(1, c + 16, c_stride);
    DF_TILE_STORE(2, c1, c_stride);
    DF_TILE_STORE(3, c1 + 16, c_stride);
}

/// 16 x 16 of c, where 32 do not fit.
inline void one_tile(float* c, ptrdiff_t ldc, const bf16* a, ptrdiff_t lda, const bf16* b, ptrdiff_t ldb, int k, bool add) {
    const ptrdiff_t c_stride = ldc * 4, a_stride = lda * 2, b_stride = ldb * 4;
    if (add) DF_TILE_LOAD(0, c, c_stride);
    else DF_TILE_ZERO(0);
    for (int p = 0; p < k; p += kStep) {
        DF_TILE_LOAD(4, a + p, a_stride);
        DF_TILE_LOAD(6, b + p * ldb, b_stride);
        DF_TILE_DOT(0, 4, 6);
    }
    DF_TILE_STORE(0, c, c_stride);
}

#undef DF_TILE_ZERO
#undef DF_TILE_LOAD
#undef DF_TILE_STORE
#undef DF_TILE_DOT

inline void gemm_tiles(float* c, ptrdiff_t ldc, const bf16* a, ptrdiff_t lda, const bf16* b, ptrdiff_t ldb, int m, int n, int k, bool add) {
    for (int j = 0; j < n; j += 32)
        for (int i = 0; i < m; i += 32) {
            float* c_ij = c + i * ldc + j;
            const bf16 *a_i = a + i * lda, *b_j = b + 2 * j;
            if (i + 32 <= m && j + 32 <= n) {
                block_tiles(c_ij, ldc, a_i, lda, b_j, ldb, k, add);
                continue;
            }
            one_tile(c_ij, ldc, a_i, lda, b_j, ldb, k, add);
            if (i + 32 <= m) one_tile(c_ij + 16 * ldc, ldc, a_i + 16 * lda, lda, b_j, ldb, k, add);
            if (j + 32 <= n) one_tile(c_ij + 16, ldc, a_i, lda, b_j + 32, ldb, k, add);
        }
}

/// c (4 rows, V vectors) (+)=.
template <int V>
inline __attribute__((always_inline)) void micro_dot(float* c, ptrdiff_t ldc, const bf16* a, ptrdiff_t lda, const bf16* b, ptrdiff_t ldb, int k,
                                                     bool add) {
    constexpr int R = 4;
    Vec<float> sum[R][V] = {};
    for (int p = 0; p < k; p += 2) {
        Pairs b_p[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) __builtin_memcpy(&b_p[v], b + p * ldb + v * 32, sizeof b_p[v]);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            uint32_t word;
            __builtin_memcpy(&word, a + r * lda + p, sizeof word);
            const Pairs a_rp = Pairs{} | word;
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) asm("vdpbf16ps %2, %1, %0" : "+v"(sum[r][v]) : "v"(a_rp), "v"(b_p[v]));
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            float* to = c + r * ldc + v * kLanes<float>;
            store(to, add ? load(to) + sum[r][v] : sum[r][v]);
        }
    }
}

inline void gemm_dot(float* c, ptrdiff_t ldc, const bf16* a, ptrdiff_t lda, const bf16* b, ptrdiff_t ldb, int m, int n, int k, bool add) {
    for (int j = 0; j < n; j += 64)
        for (int i = 0; i < m; i += 4) {
            float* c_ij = c + i * ldc + j;
            const bf16 *a_i = a + i * lda, *b_j = b + 2 * j;
            switch (smaller(64, n - j) / 16) {
                case 1: micro_dot<1>(c_ij, ldc, a_i, lda, b_j, ldb, k, add); break;
                case 2: micro_dot<2>(c_ij, ldc, a_i, lda, b_j, ldb, k, add); break;
                case 3: micro_dot<3>(c_ij, ldc, a_i, lda, b_j, ldb, k, add); break;
                default: micro_dot<4>(c_ij, ldc, a_i, lda, b_j, ldb, k, add); break;
            }
        }
}

/// c (m,n) float32 (+)= a (m,k) b (k,n). a in rows, lda elements apart; b in pairs, ldb words to a row of pairs. m, n multiples of kBlock,
/// k of kStep (0 clears c, or leaves it when add). With tiles, a TileSession must live on this thread.
inline void gemm(bool tiles, float* c, ptrdiff_t ldc, const bf16* a, ptrdiff_t lda, const bf16* b, ptrdiff_t ldb, int m, int n, int k, bool add) {
    if (tiles) gemm_tiles(c, ldc, a, lda, b, ldb, m, n, k, add);
    else gemm_dot(c, ldc, a, lda, b, ldb, m, n, k, add);
}

constexpr bool kCompiled = true;

#else

class TileSession {
public:
    explicit TileSession(bool) {}
};
inline void gemm(bool, float*, ptrdiff_t, const bf16*, ptrdiff_t, const bf16*, ptrdiff_t, int, int, int, bool) { __builtin_unreachable(); }
constexpr bool kCompiled = false;

#endif

// ---- packing ----

/// to[c][r] = from[r][c] for 32-bit words: rows x cols becomes cols x rows. In squares of four.
inline void transpose_words(uint32_t* to, ptrdiff_t to_stride, const uint32_t* from, ptrdiff_t from_stride, int rows, int cols) {
    typedef uint32_t Quad __attribute__((vector_size(16)));
    typedef int32_t Picks __attribute__((vector_size(16)));
    const Picks low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, first = {0, 1, 4, 5}, second = {2, 3, 6, 7};
    int r = 0;
    for (; r + 4 <= rows; r += 4) {
        const uint32_t* f = from + r * from_stride;
        int c = 0;
        for (; c + 4 <= cols; c += 4) {
            Quad x[4];
            for (int i = 0; i < 4; ++i) __builtin_memcpy(&x[i], f + i * from_stride + c, sizeof x[i]);
            const Quad a = __builtin_shuffle(x[0], x[1], low), b = __builtin_shuffle(x[2], x[3], low);
            const Quad d = __builtin_shuffle(x[0], x[1], high), e = __builtin_shuffle(x[2], x[3], high);
            const Quad y[4] = {__builtin_shuffle(a, b, first), __builtin_shuffle(a, b, second), __builtin_shuffle(d, e, first),
                               __builtin_shuffle(d, e, second)};
            for (int i = 0; i < 4; ++i) __builtin_memcpy(to + (c + i) * to_stride + r, &y[i], sizeof y[i]);
        }
        for (; c < cols; ++c)
            for (int i = 0; i < 4; ++i) to[c * to_stride + r + i] = f[i * from_stride + c];
    }
    for (; r < rows; ++r)
        for (int c = 0; c < cols; ++c) to[c * to_stride + r] = from[r * from_stride + c];
}

}  // namespace bf16_tile

}  // namespace dualform::cpu::DF_ISA
