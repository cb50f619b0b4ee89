// A state R of value by key indices that four warps keep in registers, and its products on tensor cores: what causal linear attention and
// the dual form are made of.
//
// A block owns 64 value indices a, a warp 16 of them, all key indices c: state[n] is the accumulator fragment (mma.h) of rows a and
// columns 8n.. of c. Held so, R is at once the accumulator of  R += z^T y  and, packed in pairs, the B operand of  x R^T : it never goes
// through shared memory. x, y (rows of c) and z (rows of a) come in tiles of Chunk rows, bf16, chunks of 16 bytes swizzled; float32
// operands as two tiles, the nearest bf16 and the nearest to what is left, and then every product is three (not low times low).
#pragma once

#include "mma.h"
#include "tile.h"

namespace dualform::cuda {

constexpr int kStateWarps = 4, kStateThreads = kStateWarps * kWarp, kStateColumns = 64; /* value indices of a block, 16 a warp */

/// Sizes of tiles in shared memory: keys padded to Size, Parts bf16 tiles per operand.
template <int Size, int Chunk, int Parts>
struct StateTiles {
    static constexpr int kWide = Chunk * Size * 2;             /* bytes of one part of x or y */
    static constexpr int kNarrow = Chunk * kStateColumns * 2;  /* of z */
    static constexpr int kWeights = Chunk * Chunk * 2;         /* of the scores */
    static constexpr int kX = 0, kY = Parts * kWide, kZ = 2 * Parts * kWide;
    static constexpr int kStage = kZ + Parts * kNarrow;
    static constexpr int shared(int stages) { return stages * kStage + Parts * kWeights; }
};

#if defined(__CUDACC__) || defined(DF_CUDA_EMULATION)

/// high + low is value, to 16 bits of mantissa; an infinite value has no rest.
__device__ inline float rest_of(float value, float high) {
    const float rest = value - high;
    return rest == rest ? rest : 0.0f;
}

/// Address of chunk 2 pair + half of row `row` + more, more a multiple of 8: what swizzle<Chunks> says, put so that over all pairs and all
/// `more` known to the compiler only four addresses differ by more than a constant. Otherwise it keeps one in a register for each.
template <int Chunks>
__device__ inline SharedAddress chunk_address(SharedAddress tile, int row, int half, int more, int pair) {
    static_assert(Chunks >= 8, "the swizzle over eight rows");
    const int own = (row * Chunks + (2 * (pair % 4) ^ (half ^ (row & 7)))) * 16;
    return tile + own + (more * Chunks + pair / 4 * 8) * 16;
}

/// One tile: rows row0.. of `rows`, columns column0..; zero beyond the rows' end and the width. bf16 rows of 16-byte addresses are copied
/// asynchronously (commit and wait are the caller's), all others go through registers.
template <int Columns, int Chunk, int Parts>
__device__ inline void load_rows(SharedAddress tile, const Rows& rows, int64_t row0, int column0, int width, bool vectors) {
    constexpr int kChunks = Columns / 8, kPart = Chunk * Columns * 2;
    for (int e = threadIdx.x; e < Chunk * kChunks; e += kStateThreads) {
        const int r = e / kChunks, c = e % kChunks, column = column0 + 8 * c;
        const int64_t row = row0 + r;
        const int there = row >= rows.begin && row < rows.end ? larger(0, smaller(8, width - column)) : 0;
        const int64_t at = rows.base + row * rows.stride + column;
        const SharedAddress to = tile + swizzle<kChunks>(r, c);
        if (Parts == 1 && vectors) {
            const bf16* const data = static_cast<const bf16*>(rows.data.data);
            cp_async_16(to, there > 0 ? data + at : data, 2 * there);
            continue;
        }
        float value[8];
        if (Parts == 2 && vectors && there == 8) {
            const float4* const from = reinterpret_cast<const float4*>(static_cast<const float*>(rows.data.data) + at);
            const float4 first = from[0], second = from[1];
            value[0] = first.x, value[1] = first.y, value[2] = first.z, value[3] = first.w;
            value[4] = second.x, value[5] = second.y, value[6] = second.z, value[7] = second.w;
        } else {
#pragma unroll
            for (int i = 0; i < 8; ++i) value[i] = i < there ? rows.data.load(at + i) : 0.0f;
        }
        uint32_t high[4], low[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            high[i] = pack_bf16(value[2 * i], value[2 * i + 1]);
            if (Parts == 2)
                low[i] = pack_bf16(rest_of(value[2 * i], low_bf16(high[i])), rest_of(value[2 * i + 1], high_bf16(high[i])));
        }
        store_shared_16(to, high[0], high[1], high[2], high[3]);
        if (Parts == 2) store_shared_16(to + kPart, low[0], low[1], low[2], low[3]);
    }
}

/// The z fragments of a warp's 16 value indices, tokens 16 s..: {b0 of a 0..7, b1, b0 of a 8..15, b1}. As an A operand z^T (rows a):
/// {[0], [2], [1], [3]}.
template <int Chunk, int Parts>
__device__ inline void load_z(uint32_t (&z)[Parts][Chunk / 16][4], SharedAddress tile) {
    constexpr int kPart = Chunk * kStateColumns * 2;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
    for (int p = 0; p < Parts; ++p)
#pragma unroll
        for (int s = 0; s < Chunk / 16; ++s)
            ldmatrix_x4_trans(z[p][s], tile + p * kPart + swizzle<kStateColumns / 8>(16 * s + lane % 16, 2 * warp + lane / 16));
}

/// scores[i][j] = x_i . y_j weight(i, j) to shared memory, bf16. Causal: only 16-column blocks that reach the diagonal, and 0 above it.
/// Warp w computes 16 rows.
template <int Size, int Chunk, int Parts, bool Causal, class Weight>
__device__ inline void store_scores(SharedAddress scores, SharedAddress x, SharedAddress y, int steps, Weight weight) {
    constexpr int kRowTiles = Chunk / 16, kPairs = Chunk * Chunk / 1024, kPart = StateTiles<Size, Chunk, Parts>::kWide;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int row0 = warp % kRowTiles * 16, column0 = warp / kRowTiles * kPairs * 16;
    float sum[kPairs][2][4] = {};
#pragma unroll 2
    for (int s = 0; s < steps; ++s) {
        uint32_t a[Parts][4];
#pragma unroll
        for (int p = 0; p < Parts; ++p) ldmatrix_x4(a[p], chunk_address<Size / 8>(x + p * kPart, lane % 16, lane / 16, row0, s));
#pragma unroll
        for (int n = 0; n < kPairs; ++n) {
            const int j = column0 + 16 * n;
            if (Causal && j > row0) continue; /* the same for the whole warp */
            uint32_t b[Parts][4];
#pragma unroll
            for (int p = 0; p < Parts; ++p)
                ldmatrix_x4(b[p], chunk_address<Size / 8>(y + p * kPart, lane % 8 + lane / 16 * 8, lane / 8 % 2, j, s));
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                mma_m16n8k16_bf16(sum[n][half], a[0], b[0][2 * half], b[0][2 * half + 1]);
                if (Parts == 2) {
                    mma_m16n8k16_bf16(sum[n][half], a[0], b[Parts - 1][2 * half], b[Parts - 1][2 * half + 1]);
                    mma_m16n8k16_bf16(sum[n][half], a[Parts - 1], b[0][2 * half], b[0][2 * half + 1]);
                }
            }
        }
    }
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
        if (Causal && column0 + 16 * n > row0) continue;
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int lower = 0; lower < 2; ++lower) {
                const int i = row0 + g + 8 * lower, j = column0 + 16 * n + 8 * half + 2 * t;
                const float first = weight(sum[n][half][2 * lower], i, j), second = weight(sum[n][half][2 * lower + 1], i, j + 1);
                const uint32_t high = pack_bf16(first, second);
                const SharedAddress to = scores + swizzle<Chunk / 8>(i, j / 8) + j % 8 * 2;
                store_shared_4(to, high);
                if (Parts == 2)
                    store_shared_4(to + Chunk * Chunk * 2, pack_bf16(rest_of(first, low_bf16(high)), rest_of(second, high_bf16(high))));
            }
    }
}

/// out[m] (rows 16 m.. of the chunk, the warp's 16 value indices) += scores z.
template <int Chunk, int Parts, bool Causal>
__device__ inline void add_scores_z(float (&out)[Chunk / 16][2][4], SharedAddress scores, const uint32_t (&z)[Parts][Chunk / 16][4]) {
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int m = 0; m < Chunk / 16; ++m)
#pragma unroll
        for (int s = 0; s < (Causal ? m + 1 : Chunk / 16); ++s) {
            uint32_t a[Parts][4];
#pragma unroll
            for (int p = 0; p < Parts; ++p)
                ldmatrix_x4(a[p], scores + p * Chunk * Chunk * 2 + swizzle<Chunk / 8>(16 * m + lane % 16, 2 * s + lane / 16));
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                mma_m16n8k16_bf16(out[m][half], a[0], z[0][s][2 * half], z[0][s][2 * half + 1]);
                if (Parts == 2) {
                    mma_m16n8k16_bf16(out[m][half], a[0], z[Parts - 1][s][2 * half], z[Parts - 1][s][2 * half + 1]);
                    mma_m16n8k16_bf16(out[m][half], a[Parts - 1], z[0][s][2 * half], z[0][s][2 * half + 1]);
                }
            }
        }
}

/// out[m] += x R^T. StateParts 2 keeps 16 bits of R: twice the products, the same loads.
template <int Size, int Chunk, int Parts, int StateParts>
__device__ inline void add_x_state(float (&out)[Chunk / 16][2][4], const float (&state)[Size / 8][4], SharedAddress x, int steps) {
    constexpr int kPart = StateTiles<Size, Chunk, Parts>::kWide;
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int s = 0; s < Size / 16; ++s) {
        if (s >= steps) continue; /* a run-time bound would put the state's registers into local memory */
        uint32_t high[4], low[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float first = state[2 * s + i % 2][i / 2 * 2], second = state[2 * s + i % 2][i / 2 * 2 + 1];
            high[i] = pack_bf16(first, second);
            if (StateParts == 2) low[i] = pack_bf16(rest_of(first, low_bf16(high[i])), rest_of(second, high_bf16(high[i])));
        }
#pragma unroll
        for (int m = 0; m < Chunk / 16; ++m) {
            uint32_t a[Parts][4];
#pragma unroll
            for (int p = 0; p < Parts; ++p) ldmatrix_x4(a[p], chunk_address<Size / 8>(x + p * kPart, lane % 16, lane / 16, 16 * m, s));
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                mma_m16n8k16_bf16(out[m][half], a[0], high[2 * half], high[2 * half + 1]);
                if (StateParts == 2) mma_m16n8k16_bf16(out[m][half], a[0], low[2 * half], low[2 * half + 1]);
                if (Parts == 2) mma_m16n8k16_bf16(out[m][half], a[Parts - 1], high[2 * half], high[2 * half + 1]);
            }
        }
    }
}

/// How z is weighted in an update: z_j weight(j), in `Parts` bf16 parts or, where three are asked for, exactly to float32.
/// left[part][s]: an A operand, rows a, columns tokens 16 s...
template <int Chunk, int Parts, int LeftParts, class Weight>
__device__ inline void weigh_z(uint32_t (&left)[LeftParts][Chunk / 16][4], const uint32_t (&z)[Parts][Chunk / 16][4], Weight weight) {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int s = 0; s < Chunk / 16; ++s)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int j = 16 * s + 2 * t + i / 2 * 8, from = i == 1 ? 2 : i == 2 ? 1 : i;
            float first = low_bf16(z[0][s][from]), second = high_bf16(z[0][s][from]);
            if (Parts == 2) {
                first += low_bf16(z[Parts - 1][s][from]);
                second += high_bf16(z[Parts - 1][s][from]);
            }
            first *= weight(j);
            second *= weight(j + 1);
#pragma unroll
            for (int part = 0; part < LeftParts; ++part) {
                left[part][s][i] = pack_bf16(first, second);
                first = rest_of(first, low_bf16(left[part][s][i]));
                second = rest_of(second, high_bf16(left[part][s][i]));
            }
        }
}

/// R = keep R + left y, of all parts of left or the first only. A chunk is summed by itself and added in float32: tensor cores cut their
/// sums at every step. Where R must be exact to float32 the first part is cut only within 16 tokens, and the small parts have a sum of
/// their own.
template <int Size, int Chunk, int Parts, int LeftParts>
__device__ inline void update_state(float (&state)[Size / 8][4], float keep, const uint32_t (&left)[LeftParts][Chunk / 16][4],
                                    bool all_parts, SharedAddress y, int steps) {
    constexpr int kPart = StateTiles<Size, Chunk, Parts>::kWide;
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int n = 0; n < Size / 16; ++n) {
        if (n >= steps) continue;
        float sum[2][4] = {}, small[2][4] = {};
#pragma unroll
        for (int s = 0; s < Chunk / 16; ++s) {
            uint32_t b[Parts][4];
#pragma unroll
            for (int p = 0; p < Parts; ++p)
                ldmatrix_x4_trans(b[p], chunk_address<Size / 8>(y + p * kPart, lane % 16, lane / 16, 16 * s, n));
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                if (!all_parts) {
                    mma_m16n8k16_bf16(sum[half], left[0][s], b[0][2 * half], b[0][2 * half + 1]);
                    continue;
                }
                float first[4] = {};
                mma_m16n8k16_bf16(first, left[0][s], b[0][2 * half], b[0][2 * half + 1]);
#pragma unroll
                for (int i = 0; i < 4; ++i) sum[half][i] += first[i];
#pragma unroll
                for (int part = 1; part < LeftParts; ++part)
                    mma_m16n8k16_bf16(small[half], left[part][s], b[0][2 * half], b[0][2 * half + 1]);
                if (Parts == 2) mma_m16n8k16_bf16(small[half], left[0][s], b[Parts - 1][2 * half], b[Parts - 1][2 * half + 1]);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int i = 0; i < 4; ++i) state[2 * n + half][i] = fmaf(keep, state[2 * n + half][i], sum[half][i] + small[half][i]);
    }
}

/// f(a, c, value&) for every element of the warp's state inside `values` by `keys`, a counted from the block's first value index.
template <int Size, class F>
__device__ inline void each_state_element(float (&state)[Size / 8][4], int values, int keys, F f) {
    const int lane = threadIdx.x % kWarp, a0 = threadIdx.x / kWarp * 16 + lane / 4, c0 = lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < Size / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int a = a0 + i / 2 * 8, c = 8 * n + c0 + i % 2;
            if (a < values && c < keys) f(a, c, state[n][i]);
        }
}

/// Rows row0.. of `rows`, columns column0.. plus the warp's 16: from accumulators. With `vectors` (columns in fours, their addresses
/// multiples of the four's size) two lanes first exchange halves, so that a lane stores four neighbours and a warp whole sectors.
template <int Chunk>
__device__ inline void store_rows(const Rows& rows, const float (&out)[Chunk / 16][2][4], int64_t row0, int column0, int width,
                                  bool vectors) {
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4, first = column0 + threadIdx.x / kWarp * 16;
    const bool odd = t % 2 != 0;
#pragma unroll
    for (int m = 0; m < Chunk / 16; ++m)
#pragma unroll
        for (int lower = 0; lower < 2; ++lower) {
            const int64_t row = row0 + 16 * m + g + 8 * lower;
            const int64_t at = rows.base + row * rows.stride;
            const bool there = row < rows.end;
            const float a0 = out[m][0][2 * lower], a1 = out[m][0][2 * lower + 1], b0 = out[m][1][2 * lower], b1 = out[m][1][2 * lower + 1];
            if (!vectors) {
                const float value[4] = {a0, a1, b0, b1};
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int column = first + 2 * t + i / 2 * 8 + i % 2;
                    if (there && column < width) rows.data.store(at + column, value[i]);
                }
                continue;
            }
            const int column = first + (odd ? 8 + 2 * (t - 1) : 2 * t);
            const bool inside = there && column < width;
            if (rows.data.dtype == DF_BF16) {
                const uint32_t a = pack_bf16(a0, a1), b = pack_bf16(b0, b1), other = __shfl_xor_sync(kAllLanes, odd ? a : b, 1);
                const uint2 four = {odd ? other : a, odd ? b : other};
                if (inside) *reinterpret_cast<uint2*>(static_cast<bf16*>(rows.data.data) + at + column) = four;
            } else {
                const float other0 = __shfl_xor_sync(kAllLanes, odd ? a0 : b0, 1), other1 = __shfl_xor_sync(kAllLanes, odd ? a1 : b1, 1);
                const float4 four = {odd ? other0 : a0, odd ? other1 : a1, odd ? b0 : other0, odd ? b1 : other1};
                if (inside) *reinterpret_cast<float4*>(static_cast<float*>(rows.data.data) + at + column) = four;
            }
        }
}

#endif

}  // namespace dualform::cuda
