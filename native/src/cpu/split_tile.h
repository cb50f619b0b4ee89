// Products of float32 by products of bfloat16, as accurate: x = x0 + x1 + x2 exactly, each part with the 8 bits of a bfloat16, and
//   x y = x0 y0 + (x0 y1 + x1 y0) + (x1 y1 + x0 y2 + x2 y0) + what is below 2^-24 |x y|, half a unit in the last place.
// Where AMX multiplies bfloat16 more than six times as fast as float32 is multiplied, this is faster than float32's own instructions.
//
// An operand lies in blocks of 32 lines (rows of the left one, columns of the right one), steps of 32 terms: [step][part][2 tiles][1 KiB].
// A tile of the left operand is [16 lines][16 words], one of the right operand [16 words][16 lines]. Word w has the terms w and w + 16 of the
// step: any order of the terms will do that is the same on both sides.
#pragma once

#include "cpu/tile_registers.h"

namespace dualform::cpu::DF_ISA {

namespace split_tile {
constexpr int kParts = 3;
constexpr int kBlock = 32;  // lines
constexpr int kStep = 32;   // terms
constexpr int kTileElements = 512;
constexpr int kStepElements = kParts * 2 * kTileElements;
constexpr int kLineElements = kStepElements / kBlock;  // of a step
constexpr int kMostLines = 256;
constexpr int kSlice = 4;   // steps whose products stay in registers: their operands fit the L1 cache

// The processor takes numbers below 2^-126 for 0, so a sum of k terms is off by up to k 2^-123 more than its roundings. Beside the product of
// the largest magnitudes of its two lines that is nothing, unless all of a line is tiny: those lines are poisoned, as ones with infinities are by
// themselves (inf - inf = NaN), and what is not finite is computed once more by float32's instructions. (Where a line's large terms all meet
// zeros, and its others are below 2^-100, those count for less than float32 would have them.)
constexpr float kTiny = 0x1p-44f, kHuge = 0x1p50f;

#if defined(__AVX512F__)

/// The parts of x in the high halves; what the low half of the last one holds is not for use.
inline __attribute__((always_inline)) void split(Vec<float> x, Words (&part)[kParts]) {
#pragma GCC unroll 3
    for (int i = 0; i < kParts - 1; ++i) {
        part[i] = (bit_cast<Words>(x) + 0x8000u) & 0xffff0000u;
        x -= bit_cast<Vec<float>>(part[i]);
    }
    part[kParts - 1] = bit_cast<Words>(x);
}

inline Words larger_of(Words a, Words b) { return a > b ? a : b; }

/// Words of the parts of x and y, a tile's row of each part, which lie 2 kTileElements apart. seen: the bits of the largest magnitudes so far.
inline __attribute__((always_inline)) void split_words(bf16* to, Vec<float> x, Vec<float> y, Words& seen) {
    seen = larger_of(seen, larger_of(bit_cast<Words>(x) & 0x7fffffffu, bit_cast<Words>(y) & 0x7fffffffu));
    Words x_part[kParts], y_part[kParts];
    split(x, x_part);
    split(y, y_part);
#pragma GCC unroll 3
    for (int i = 0; i < kParts; ++i) {
        const Words both = (x_part[i] >> 16) | (y_part[i] & 0xffff0000u);
        __builtin_memcpy(to + i * 2 * kTileElements, &both, sizeof both);
    }
}

/// Turns the 16 x 16 words of a tile.
inline void turn(bf16* tile) {
    typedef int32_t Picks __attribute__((vector_size(kVectorBytes)));
    Words x[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) __builtin_memcpy(&x[r], tile + r * 32, sizeof x[r]);
    const auto stage = [&](auto distance, const Picks& low, const Picks& high) __attribute__((always_inline)) {
        constexpr int s = decltype(distance)::value;
#pragma GCC unroll 16
        for (int r = 0; r < 16; ++r) {
            if ((r & s) != 0) continue;
            const Words a = x[r], b = x[r + s];
            x[r] = __builtin_shuffle(a, b, low);
            x[r + s] = __builtin_shuffle(a, b, high);
        }
    };
    // Squares of s by s change places across the diagonal of squares of 2 s.
    stage(Constant<1>{}, Picks{0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30},
          Picks{1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31});
    stage(Constant<2>{}, Picks{0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
          Picks{2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31});
    stage(Constant<4>{}, Picks{0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},
          Picks{4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31});
    stage(Constant<8>{}, Picks{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
          Picks{8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31});
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) __builtin_memcpy(tile + r * 32, &x[r], sizeof x[r]);
}

/// Where the words of a line of an operand of steps steps begin: step 0, part 0.
template <bool Left>
inline bf16* line_at(bf16* to, int64_t line, int64_t steps) {
    return to + line / kBlock * steps * kStepElements + line % kBlock / 16 * kTileElements + line % 16 * (Left ? 32 : 2);
}

/// The lanes whose bits are at least those of x, one bit each.
inline unsigned lanes_from(Words bits, float x) {
    unsigned lanes;
    asm("vpcmpud $5, %2, %1, %%k1\n\tkmovw %%k1, %0" : "=r"(lanes) : "v"(bits), "v"(Words{} + bit_cast<uint32_t>(x)) : "k1");
    return lanes;
}
/// NaN into each slice of a line whose largest magnitude is tiny; false if that is 0.
template <bool Left>
inline bool poison(bf16* to, int64_t line, int64_t steps, uint32_t most) {
    if (most == 0) return false;
    for (int64_t s = 0; s < steps; s += kSlice) line_at<Left>(to, line, steps)[s * kStepElements].bits = 0x7fc0;
    return true;
}

/// Zeros in the tiles behind those of lines lines, up to padded lines.
inline void clear_rest(bf16* to, int64_t lines, int64_t padded, int64_t steps) {
    for (int64_t first = round_up(lines, int64_t{16}); first < padded; first += 16)
        for (int64_t s = 0; s < steps; ++s)
            for (int part = 0; part < kParts; ++part)
                __builtin_memset(line_at<true>(to, first, steps) + s * kStepElements + part * 2 * kTileElements, 0, kTileElements * sizeof(bf16));
}

/// An operand of steps steps: lines whose terms are contiguous, stride elements apart. The lines are whole steps long. Poisons: tiny lines are
/// poisoned; not those of an operand which is computed, and for which 0 is near enough. Returns whether all is ordinary: no poisoned line, nothing
/// from kHuge on. Products of ordinary operands are finite.
template <bool Left, bool Poisons = true>
inline bool pack_lines(bf16* to, const float* from, ptrdiff_t stride, int64_t lines, int64_t steps) {
    Words most = {};
    bool ordinary = true;
    for (int64_t first = 0; first < lines; first += 16) {
        const int64_t tall = smaller(int64_t{16}, lines - first);
        bf16* tiles = line_at<true>(to, first, steps);
        Words seen[16];
        for (int64_t r = 0; r < tall; ++r) {
            const float* line = from + (first + r) * stride;
            Words of_line = {};
            for (int64_t s = 0; s < steps; ++s, line += kStep)
                split_words(tiles + s * kStepElements + r * 32, load(line), load(line + 16), of_line);
            seen[r] = of_line;
        }
        for (int64_t s = 0; s < steps; ++s)
            for (int part = 0; part < kParts; ++part) {
                bf16* tile = tiles + s * kStepElements + part * 2 * kTileElements;
                for (int64_t r = tall; r < 16; ++r) store(reinterpret_cast<float*>(tile + r * 32), Vec<float>{});
                if (!Left) turn(tile);
            }
        for (int64_t r = 0; r < tall; ++r) {
            most = larger_of(most, seen[r]);
            if (!Poisons || lanes_from(seen[r], kTiny) != 0) continue;
            uint32_t of_line = 0;
            for (int i = 0; i < 16; ++i) of_line = larger(of_line, uint32_t(seen[r][i]));
            if (poison<Left>(to, first + r, steps, of_line)) ordinary = false;
        }
    }
    return ordinary && lanes_from(most, kHuge) == 0;
}

/// The same of contiguous lines, whose terms are stride elements apart; whole tiles of lines, at most kMostLines.
template <bool Left, bool Poisons = true>
inline bool pack_terms(bf16* to, const float* from, ptrdiff_t stride, int64_t lines, int64_t steps) {
    Words seen[kMostLines / 16] = {};
    for (int64_t s = 0; s < steps; ++s, from += kStep * stride)
        for (int64_t first = 0; first < lines; first += 16) {
            bf16* tiles = line_at<true>(to, first, steps) + s * kStepElements;
            Words of_tile = seen[first / 16];
            for (int w = 0; w < 16; ++w) split_words(tiles + w * 32, load(from + w * stride + first), load(from + (w + 16) * stride + first), of_tile);
            seen[first / 16] = of_tile;
            if (Left)
                for (int part = 0; part < kParts; ++part) turn(tiles + part * 2 * kTileElements);
        }
    bool ordinary = true;
    for (int64_t first = 0; first < lines; first += 16) {
        const Words of_tile = seen[first / 16];
        ordinary &= lanes_from(of_tile, kHuge) == 0;
        for (unsigned tiny = Poisons ? ~lanes_from(of_tile, kTiny) & 0xffff : 0; tiny != 0; tiny &= tiny - 1) {
            const int lane = __builtin_ctz(tiny);
            if (poison<Left>(to, first + lane, steps, of_tile[lane])) ordinary = false;
        }
    }
    return ordinary;
}

/// sum (32,32) = a b of steps steps. The small products come first: one by one they would each be rounded to the large ones' last place.
/// Short: they come first within each of few steps, which saves loads.
/// Mirrored: they come in another order, so that a b has the bits of (b^T a^T)^T not mirrored.
/// Meanwhile lines cache lines from next on are fetched with each of the five groups of products of a step.
template <bool Mirrored = false, bool Short = false>
inline __attribute__((always_inline)) void block(float* sum, ptrdiff_t ld, const bf16* a, const bf16* b, int steps, const char* next = nullptr,
                                                 int lines = 0) {
    constexpr ptrdiff_t kRow = 64;
    const ptrdiff_t sums = ld * 4;
    DF_TILE_ZERO(0);
    DF_TILE_ZERO(1);
    DF_TILE_ZERO(2);
    DF_TILE_ZERO(3);
#define DF_ROW(part, r) DF_TILE_LOAD(r, a_s + (part * 2 + r - 4) * kTileElements, kRow)
#define DF_COLUMN(part, r) DF_TILE_LOAD(r, b_s + (part * 2 + r - 6) * kTileElements, kRow)
// Four products after a load of both operands, of the left one, of the right one.
#define DF_BOTH(part_a, part_b) \
    DF_ROW(part_a, 4);          \
    DF_COLUMN(part_b, 6);       \
    DF_TILE_DOT(0, 4, 6);       \
    DF_COLUMN(part_b, 7);       \
    DF_TILE_DOT(1, 4, 7);       \
    DF_ROW(part_a, 5);          \
    DF_TILE_DOT(2, 5, 6);       \
    DF_TILE_DOT(3, 5, 7)
#define DF_LEFT(part)     \
    fetch();              \
    DF_ROW(part, 4);      \
    DF_TILE_DOT(0, 4, 6); \
    DF_TILE_DOT(1, 4, 7); \
    DF_ROW(part, 5);      \
    DF_TILE_DOT(2, 5, 6); \
    DF_TILE_DOT(3, 5, 7)
#define DF_RIGHT(part)    \
    fetch();              \
    DF_COLUMN(part, 6);   \
    DF_TILE_DOT(0, 4, 6); \
    DF_COLUMN(part, 7);   \
    DF_TILE_DOT(1, 4, 7); \
    DF_TILE_DOT(2, 5, 6); \
    DF_TILE_DOT(3, 5, 7)
    const auto fetch = [&] __attribute__((always_inline)) {
        for (int i = 0; i < lines; ++i, next += 64) __builtin_prefetch(next, 0, 2);
    };
    for (int s = 0; s < steps; ++s) {
        const bf16 *a_s = a + s * kStepElements, *b_s = b + s * kStepElements;
        if constexpr (Mirrored) {
            DF_BOTH(0, 2);
            DF_RIGHT(1);
            DF_LEFT(1);
            DF_RIGHT(0);
            DF_LEFT(2);
        } else {
            DF_BOTH(2, 0);
            DF_LEFT(1);
            DF_RIGHT(1);
            DF_LEFT(0);
            DF_RIGHT(2);
        }
        if constexpr (Short) {
            if constexpr (Mirrored) {
                DF_LEFT(0);
            } else {
                DF_RIGHT(0);
            }
        }
        fetch();
    }
    for (int s = 0; s < steps && !Short; ++s) {
        const bf16 *a_s = a + s * kStepElements, *b_s = b + s * kStepElements;
        DF_BOTH(0, 0);
    }
#undef DF_ROW
#undef DF_COLUMN
#undef DF_BOTH
#undef DF_LEFT
#undef DF_RIGHT
    DF_TILE_STORE(0, sum, sums);
    DF_TILE_STORE(1, sum + 16, sums);
    DF_TILE_STORE(2, sum + 16 * ld, sums);
    DF_TILE_STORE(3, sum + 16 * ld + 16, sums);
}

/// Whether all of sum (32,32) is.
inline bool is_finite(const float* sum) {
    Vec<float> nothing[4] = {};  // x 0 for each x
    for (int i = 0; i < kBlock * kBlock; i += 64) {
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) nothing[v] += load(sum + i + v * 16) * 0.0f;
    }
    return lane_sum<float>((nothing[0] + nothing[1]) + (nothing[2] + nothing[3])) == 0;
}

/// What of sum (32,32) is not finite becomes what exact has there.
inline void take_finite(float* sum, const float* exact) {
    for (int i = 0; i < kBlock * kBlock; ++i) sum[i] = sum[i] - sum[i] == 0 ? sum[i] : exact[i];
}

/// to (rows, 32) = sum, plus total, bias (of columns) and to itself where they are to be added: null if not.
inline void join(float* to, ptrdiff_t ld, const float* sum, int rows, const float* total, ptrdiff_t ldt, const float* bias, bool accumulate) {
    const auto each = [&](auto&& f) __attribute__((always_inline)) {
        for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
            for (int c = 0; c < kBlock; c += 16) store(to + r * ld + c, f(load(sum + r * kBlock + c), r, c));
    };
    const auto plus_total = [&](Vec<float> x, int r, int c) __attribute__((always_inline)) { return x + load(total + r * ldt + c); };
    if (bias == nullptr && !accumulate) {
        if (total == nullptr) each([](Vec<float> x, int, int) __attribute__((always_inline)) { return x; });
        else each(plus_total);
        return;
    }
    each([&](Vec<float> x, int r, int c) __attribute__((always_inline)) {
        if (total != nullptr) x = plus_total(x, r, c);
        if (bias != nullptr) x += load(bias + c);
        return accumulate ? x + load(to + r * ld + c) : x;
    });
}

/// to (rows, 32) = a b of steps steps, or += when add. checks: where a sum is not finite, it is taken from what repeat(exact) leaves in
/// exact (32,32); products of ordinary operands need no check.
template <bool Mirrored = false, class Repeat>
inline __attribute__((always_inline)) void block_product(float* to, ptrdiff_t ld, int rows, const bf16* a, const bf16* b, int steps, bool add,
                                                         bool checks, Repeat&& repeat) {
    constexpr int kShort = 2;
    if (!add && !checks && steps <= kShort && rows == kBlock) return block<Mirrored, true>(to, ld, a, b, steps);
    alignas(64) float sum[kBlock * kBlock];
    if (steps <= kShort) block<Mirrored, true>(sum, kBlock, a, b, steps);
    else block<Mirrored>(sum, kBlock, a, b, smaller(steps, kSlice));
    for (int s = kSlice; s < steps; s += kSlice) {
        alignas(64) float more[kBlock * kBlock];
        block<Mirrored>(more, kBlock, a + s * kStepElements, b + s * kStepElements, smaller(steps - s, kSlice));
        for (int i = 0; i < kBlock * kBlock; i += 16) store(sum + i, load(sum + i) + load(more + i));
    }
    if (__builtin_expect(checks && !is_finite(sum), 0)) {
        alignas(64) float exact[kBlock * kBlock] = {};
        repeat(exact);
        take_finite(sum, exact);
    }
    join(to, ld, sum, rows, add ? to : nullptr, ld, nullptr, false);
}

#else

template <bool, bool = true>
inline bool pack_lines(bf16*, const float*, ptrdiff_t, int64_t, int64_t) { __builtin_unreachable(); }
template <bool, bool = true>
inline bool pack_terms(bf16*, const float*, ptrdiff_t, int64_t, int64_t) { __builtin_unreachable(); }
inline void clear_rest(bf16*, int64_t, int64_t, int64_t) { __builtin_unreachable(); }
template <bool = false, class Repeat>
inline void block_product(float*, ptrdiff_t, int, const bf16*, const bf16*, int, bool, bool, Repeat&&) { __builtin_unreachable(); }

#endif

}  // namespace split_tile

}  // namespace dualform::cpu::DF_ISA
