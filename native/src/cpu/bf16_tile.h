// A small matrix product of bfloat16 on padded tiles, sums in float32: the counterpart of tile_gemm where the processor multiplies
// bfloat16 itself (AMX tiles, or AVX512_BF16's products of pairs). Elsewhere operands are widened and tile_gemm serves.
//
// The left operand lies in rows. The right one lies in pairs: the terms 2p and 2p+1 of the sum next to each other, [k/2][n][2], so that one
// 32-bit lane holds what one step adds. Both are padded with zeros: rows of the left operand to kStep terms, n and m to whole vectors.
#pragma once

#include "cpu/tile_registers.h"

namespace dualform::cpu::DF_ISA {

namespace bf16_tile {
constexpr int kStep = 32;   // terms of one tile product: k is a multiple of it
constexpr int kBlock = 16;  // rows and columns of a tile: m and n are multiples of it

/// Two bfloat16 in a word, the first one in the low half.
typedef uint32_t Pairs __attribute__((vector_size(kVectorBytes)));

#if defined(__AVX512F__)

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

/// N tiles of a strip of 16 rows: see strip_gemm.
template <int N>
inline __attribute__((always_inline)) void strip_tiles(float* c, const bf16* a, const bf16* b, ptrdiff_t column, ptrdiff_t depth, int k, bool add) {
    if (add) {
        DF_TILE_LOAD(0, c, ptrdiff_t{64});
        if (N > 1) DF_TILE_LOAD(1, c + 256, ptrdiff_t{64});
        if (N > 2) DF_TILE_LOAD(2, c + 512, ptrdiff_t{64});
        if (N > 3) DF_TILE_LOAD(3, c + 768, ptrdiff_t{64});
    } else {
        DF_TILE_ZERO(0);
        if (N > 1) DF_TILE_ZERO(1);
        if (N > 2) DF_TILE_ZERO(2);
        if (N > 3) DF_TILE_ZERO(3);
    }
    for (int p = 0; p < k; p += kStep, a += 512, b += depth) {
        DF_TILE_LOAD(4, a, ptrdiff_t{64});
        DF_TILE_LOAD(5, b, ptrdiff_t{64});
        DF_TILE_DOT(0, 4, 5);
        if (N > 1) {
            DF_TILE_LOAD(6, b + column, ptrdiff_t{64});
            DF_TILE_DOT(1, 4, 6);
        }
        if (N > 2) {
            DF_TILE_LOAD(5, b + 2 * column, ptrdiff_t{64});
            DF_TILE_DOT(2, 4, 5);
        }
        if (N > 3) {
            DF_TILE_LOAD(6, b + 3 * column, ptrdiff_t{64});
            DF_TILE_DOT(3, 4, 6);
        }
    }
    DF_TILE_STORE(0, c, ptrdiff_t{64});
    if (N > 1) DF_TILE_STORE(1, c + 256, ptrdiff_t{64});
    if (N > 2) DF_TILE_STORE(2, c + 512, ptrdiff_t{64});
    if (N > 3) DF_TILE_STORE(3, c + 768, ptrdiff_t{64});
}

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

constexpr int kDotChain = 64;  // terms that gemm_dot adds one after another before they join c

/// c (4 rows, V vectors) (+)=, k at most kDotChain.
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

/// Never inlined: where it is, gcc 12 spills some of its sums.
__attribute__((noinline)) inline void gemm_dot(float* c, ptrdiff_t ldc, const bf16* a, ptrdiff_t lda, const bf16* b, ptrdiff_t ldb, int m, int n,
                                               int k, bool add) {
    for (int j = 0; j < n; j += 64)
        for (int i = 0; i < m; i += 4) {
            float* c_ij = c + i * ldc + j;
            int p = 0;
            do {
                const int depth = smaller(kDotChain, k - p);
                const bool adds = add || p > 0;
                const bf16 *a_i = a + i * lda + p, *b_j = b + 2 * j + p * ldb;
                switch (smaller(64, n - j) / 16) {
                    case 1: micro_dot<1>(c_ij, ldc, a_i, lda, b_j, ldb, depth, adds); break;
                    case 2: micro_dot<2>(c_ij, ldc, a_i, lda, b_j, ldb, depth, adds); break;
                    case 3: micro_dot<3>(c_ij, ldc, a_i, lda, b_j, ldb, depth, adds); break;
                    default: micro_dot<4>(c_ij, ldc, a_i, lda, b_j, ldb, depth, adds); break;
                }
                p += depth;
            } while (p < k);
        }
}

/// c (m,n) float32 (+)= a (m,k) b (k,n). a in rows, lda elements apart; b in pairs, ldb words to a row of pairs. m, n multiples of kBlock,
/// k of kStep (0 clears c, or leaves it when add). With tiles, a TileSession must live on this thread.
inline void gemm(bool tiles, float* c, ptrdiff_t ldc, const bf16* a, ptrdiff_t lda, const bf16* b, ptrdiff_t ldb, int m, int n, int k, bool add) {
    if (tiles) gemm_tiles(c, ldc, a, lda, b, ldb, m, n, k, add);
    else gemm_dot(c, ldc, a, lda, b, ldb, m, n, k, add);
}

/// One tile of a strip with AVX512_BF16.
inline void strip_dot(float* c, const bf16* a, const bf16* b, ptrdiff_t depth, int k, bool add) {
    for (int p = 0; p < k; p += kDotChain, add = true) {
        Vec<float> sum[kBlock] = {};
        for (int x = p; x < smaller(p + kDotChain, k); x += kStep)
            for (int pair = 0; pair < kStep; pair += 2) {
                Pairs b_x;
                __builtin_memcpy(&b_x, b + x / kStep * depth + pair * kBlock, sizeof b_x);
#pragma GCC unroll 16
                for (int r = 0; r < kBlock; ++r) {
                    uint32_t word;
                    __builtin_memcpy(&word, a + x * kBlock + r * kStep + pair, sizeof word);
                    asm("vdpbf16ps %2, %1, %0" : "+v"(sum[r]) : "v"(Pairs{} | word), "v"(b_x));
                }
            }
        for (int r = 0; r < kBlock; ++r) store(c + r * kBlock, add ? load(c + r * kBlock) + sum[r] : sum[r]);
    }
}

/// c (16,n) float32 (+)= a (16,k) b (k,n), all in tiles that lie as they are read: c [n / 16][16][16], a [k / 32][16][32], a tile of b
/// [16 pairs][16][2]; from one to that of the next 16 columns are column elements, to that of the next 32 terms depth elements.
inline void strip_gemm(bool tiles, float* c, const bf16* a, const bf16* b, ptrdiff_t column, ptrdiff_t depth, int n, int k, bool add) {
    if (!tiles) {
        for (int j = 0; j < n; j += kBlock, c += kBlock * kBlock, b += column) strip_dot(c, a, b, depth, k, add);
        return;
    }
    for (; n >= 64; n -= 64, c += 1024, b += 4 * column) strip_tiles<4>(c, a, b, column, depth, k, add);
    switch (n / kBlock) {
        case 1: strip_tiles<1>(c, a, b, column, depth, k, add); break;
        case 2: strip_tiles<2>(c, a, b, column, depth, k, add); break;
        case 3: strip_tiles<3>(c, a, b, column, depth, k, add); break;
        default: break;
    }
}

/// to[i], to[i + 16] = a_i, b_i rounded to nearest even (AVX512_BF16).
inline void store_rounded(bf16* to, Vec<float> a, Vec<float> b) {
    Pairs both;
    asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(b), "v"(a));
    __builtin_memcpy(to, &both, sizeof both);
}

/// to[2i], to[2i + 1] = a_i, b_i rounded to nearest even.
inline void store_pairs(bf16* to, Vec<float> a, Vec<float> b) {
    typedef uint16_t Halves __attribute__((vector_size(kVectorBytes)));
    const Halves interleave = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    Halves both;
    asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(b), "v"(a));
    both = __builtin_shuffle(both, interleave);
    __builtin_memcpy(to, &both, sizeof both);
}

/// to[i] = v_i rounded to nearest even.
inline void store_rounded(bf16* to, Vec<float> v) {
    HalfWords half;
    asm("vcvtneps2bf16 %1, %0" : "=v"(half) : "v"(v));
    __builtin_memcpy(to, &half, sizeof half);
}

constexpr bool kCompiled = true;

#else

inline void gemm(bool, float*, ptrdiff_t, const bf16*, ptrdiff_t, const bf16*, ptrdiff_t, int, int, int, bool) { __builtin_unreachable(); }
inline void store_pairs(bf16*, Vec<float>, Vec<float>) { __builtin_unreachable(); }
inline void store_rounded(bf16*, Vec<float>) { __builtin_unreachable(); }
constexpr bool kCompiled = false;

#endif

// ---- packing ----

/// Two bfloat16, moved as one.
struct Word {
    bf16 half[2];
};

/// to[c][r] = from[r][c] for 32-bit words: rows x cols becomes cols x rows. In squares of four, two of them below each other where vectors are
/// long enough.
template <class W>
inline void transpose_words(W* to, ptrdiff_t to_stride, const W* from, ptrdiff_t from_stride, int rows, int cols) {
    static_assert(sizeof(W) == 4, "a word has 32 bits");
    typedef uint32_t Quad __attribute__((vector_size(16)));
    typedef int32_t Picks __attribute__((vector_size(16)));
    const Picks low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, first = {0, 1, 4, 5}, second = {2, 3, 6, 7};
    int r = 0;
#if defined(__AVX2__)
    typedef uint32_t Pair __attribute__((vector_size(32)));
    typedef int32_t PairPicks __attribute__((vector_size(32)));
    const PairPicks lows = {0, 8, 1, 9, 4, 12, 5, 13}, highs = {2, 10, 3, 11, 6, 14, 7, 15};
    const PairPicks firsts = {0, 1, 8, 9, 4, 5, 12, 13}, seconds = {2, 3, 10, 11, 6, 7, 14, 15};
    for (; r + 8 <= rows; r += 8) {
        const W* f = from + r * from_stride;
        int c = 0;
        for (; c + 4 <= cols; c += 4) {
            const auto rows_at = [&](int i) {  // i and i + 4; by one instruction, for which gcc 12 has a detour
                typedef int Ints __attribute__((vector_size(16)));
                Ints near, far;
                __builtin_memcpy(&near, f + i * from_stride + c, sizeof near);
                __builtin_memcpy(&far, f + (i + 4) * from_stride + c, sizeof far);
                return bit_cast<Pair>(__builtin_ia32_vinsertf128_si256(__builtin_ia32_si256_si(near), far, 1));
            };
            const auto put_column = [&](int i, Pair x) { __builtin_memcpy(to + (c + i) * to_stride + r, &x, sizeof x); };
            const Pair x0 = rows_at(0), x1 = rows_at(1), x2 = rows_at(2), x3 = rows_at(3);
            const Pair a = __builtin_shuffle(x0, x1, lows), b = __builtin_shuffle(x2, x3, lows);
            const Pair d = __builtin_shuffle(x0, x1, highs), e = __builtin_shuffle(x2, x3, highs);
            put_column(0, __builtin_shuffle(a, b, firsts));
            put_column(1, __builtin_shuffle(a, b, seconds));
            put_column(2, __builtin_shuffle(d, e, firsts));
            put_column(3, __builtin_shuffle(d, e, seconds));
        }
        for (; c < cols; ++c)
            for (int i = 0; i < 8; ++i) __builtin_memcpy(to + c * to_stride + r + i, f + i * from_stride + c, sizeof *to);
    }
#endif
    for (; r + 4 <= rows; r += 4) {
        const W* f = from + r * from_stride;
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
            for (int i = 0; i < 4; ++i) __builtin_memcpy(to + c * to_stride + r + i, f + i * from_stride + c, sizeof *to);
    }
    for (; r < rows; ++r)
        for (int c = 0; c < cols; ++c) __builtin_memcpy(to + c * to_stride + r, from + r * from_stride + c, sizeof *to);
}

/// to[r][c] = row r, zeros up to depth and up to total rows: a left operand.
inline void pack_rows(bf16* to, int depth, const bf16* first, int64_t stride, int n, int total, int HS) {
    for (int r = 0; r < n; ++r) {
        __builtin_memcpy(to + r * depth, first + r * stride, size_t(HS) * sizeof(bf16));
        __builtin_memset(to + r * depth + HS, 0, size_t(depth - HS) * sizeof(bf16));
    }
    if (n < total) __builtin_memset(to + n * depth, 0, size_t(total - n) * size_t(depth) * sizeof(bf16));
}

/// to[c / 2][r] = the pair (c, c + 1) of +-row r, zeros up to depth and up to lanes rows: a right operand whose columns are rows.
/// rows: lanes x depth of scratch.
inline void pack_row_pairs(bf16* to, int lanes, const bf16* first, int64_t stride, int n, int HS, int depth, bool negate, bf16* rows) {
    pack_rows(rows, depth, first, stride, n, lanes, HS);
    if (negate)
        for (int i = 0; i < n * depth; ++i) rows[i].bits ^= 0x8000;
    transpose_words(reinterpret_cast<Word*>(to), lanes, reinterpret_cast<const Word*>(rows), depth / 2, lanes, depth / 2);
}

/// to[2c], to[2c + 1] = even[c], odd[c]; a row that is null is 0.
inline void pair_rows(bf16* to, const bf16* even, const bf16* odd, int n) {
    const auto put_pair = [&](int c, uint32_t pair) { __builtin_memcpy(to + 2 * c, &pair, sizeof pair); };
    if (odd != nullptr)
        for (int c = 0; c < n; ++c) put_pair(c, uint32_t(even[c].bits) | uint32_t(odd[c].bits) << 16);
    else if (even != nullptr)
        for (int c = 0; c < n; ++c) put_pair(c, even[c].bits);
    else
        __builtin_memset(to, 0, size_t(n) * 2 * sizeof(bf16));
}

/// to[c][r] = row r, zeros up to kTile rows and up to rows channels: a left operand whose rows are columns. pairs: kTile x HS of scratch.
inline void pack_columns(bf16* to, int total, const bf16* first, int64_t stride, int n, int HS, int rows, bf16* pairs) {
    for (int r = 0; r < total; r += 2)  // pairs[r / 2][c] = (row r, row r + 1)
        pair_rows(pairs + r * HS, r < n ? first + r * stride : nullptr, r + 1 < n ? first + (r + 1) * stride : nullptr, HS);
    transpose_words(reinterpret_cast<Word*>(to), total / 2, reinterpret_cast<const Word*>(pairs), HS, total / 2, HS);
    if (HS < rows) __builtin_memset(to + HS * total, 0, size_t(rows - HS) * size_t(total) * sizeof(bf16));
}

/// Rows of a left operand at any strides, padded with zeros to padded_rows x padded_depth: to[r ld + p] = from[r row + p col]. ld is even.
inline void pack_left(bf16* to, ptrdiff_t ld, const bf16* from, ptrdiff_t row, ptrdiff_t col, int rows, int padded_rows, int depth,
                      int padded_depth) {
    if (col == 1) {
        for (int r = 0; r < rows; ++r) __builtin_memcpy(to + r * ld, from + r * row, size_t(depth) * sizeof(bf16));
    } else if (row == 1) {
        constexpr int kRows = 64, kPairs = 16;
        bf16 pairs[kPairs * kRows * 2];  // which then turn
        for (int r = 0; r < rows; r += kRows)
            for (int p = 0; p < depth; p += 2 * kPairs) {
                const int tall = smaller(kRows, rows - r), deep = smaller(2 * kPairs, depth - p);
                for (int x = 0; x < deep; x += 2) {
                    const bf16* even = from + r + (p + x) * col;
                    pair_rows(pairs + x * kRows, even, x + 1 < deep ? even + col : nullptr, tall);
                }
                transpose_words(reinterpret_cast<Word*>(to + r * ld + p), ld / 2, reinterpret_cast<const Word*>(pairs), kRows, (deep + 1) / 2,
                                tall);
            }
    } else {
        for (int r = 0; r < rows; ++r)
            for (int p = 0; p < depth; ++p) to[r * ld + p] = from[r * row + p * col];
    }
    for (int r = 0; r < padded_rows; ++r)
        for (int p = r < rows ? depth : 0; p < padded_depth; ++p) to[r * ld + p] = bf16{0};
}

/// A right operand at any strides, padded with zeros: to[(p/2 ld + n) 2 + p%2] = from[p row + n col].
inline void pack_right(bf16* to, ptrdiff_t ld, const bf16* from, ptrdiff_t row, ptrdiff_t col, int depth, int padded_depth, int cols,
                       int padded_cols) {
    const int even = depth / 2 * 2;
    if (row == 1 && col % 2 == 0) {
        transpose_words(reinterpret_cast<Word*>(to), ld, reinterpret_cast<const Word*>(from), col / 2, cols, even / 2);
    } else if (col == 1) {
        for (int p = 0; p < even; p += 2) pair_rows(to + p * ld, from + p * row, from + (p + 1) * row, cols);
    } else {
        for (int p = 0; p < even; ++p)
            for (int n = 0; n < cols; ++n) to[(p / 2 * ld + n) * 2 + p % 2] = from[p * row + n * col];
    }
    for (int p = 0; p < padded_depth; ++p)
        for (int n = p < even ? cols : 0; n < padded_cols; ++n)
            to[(p / 2 * ld + n) * 2 + p % 2] = p < depth && n < cols ? from[p * row + n * col] : bf16{0};
}

/// (a_i, b_i) rounded to bfloat16, a in the low halves.
inline Pairs pair(Vec<float> a, Vec<float> b) {
    const Words x = bit_cast<Words>(a), y = bit_cast<Words>(b);
    const Words low = (x + 0x7fffu + ((x >> 16) & 1u)) >> 16, high = (y + 0x7fffu + ((y >> 16) & 1u)) & 0xffff0000u;
    const Words pair = low | high;
    // A NaN stays one; rounding must not carry into its exponent and sign.
    const Words nan_x = bit_cast<Words>(a != a), nan_y = bit_cast<Words>(b != b);
    return (pair & ~(nan_x & 0xffffu) & ~(nan_y & 0xffff0000u)) | (nan_x & 0x7fc0u) | (nan_y & 0x7fc00000u);
}

/// Rows of float32 (depth and cols whole) as the sum of two bfloat16, each in pairs.
inline void split_pairs(bf16* high, bf16* low, const float* from, ptrdiff_t ld, int depth, int cols) {
    for (int p = 0; p < depth; p += 2)
        for (int n = 0; n < cols; n += kLanes<float>) {
            const Vec<float> even = load(from + p * ld + n), odd = load(from + (p + 1) * ld + n);
            const Pairs first = pair(even, odd);
            const Words words = bit_cast<Words>(first);
            // What is infinite or no number has no rest.
            const Vec<float> rest_even = even - bit_cast<Vec<float>>(words << 16), rest_odd = odd - bit_cast<Vec<float>>(words & 0xffff0000u);
            const Pairs second = pair(rest_even == rest_even ? rest_even : Vec<float>{}, rest_odd == rest_odd ? rest_odd : Vec<float>{});
            __builtin_memcpy(high + (p / 2 * ld + n) * 2, &first, sizeof first);
            __builtin_memcpy(low + (p / 2 * ld + n) * 2, &second, sizeof second);
        }
}

}  // namespace bf16_tile

}  // namespace dualform::cpu::DF_ISA
