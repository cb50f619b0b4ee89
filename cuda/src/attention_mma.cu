// Attention and momentum attention forward on tensor cores (mma.sync, cp.async; any device from compute capability 8.0).
//
// A block owns 64 or 128 queries of a (b, head), a warp 16 or 32 of them: their scores and their part of the result are its accumulators.
// Keys come in tiles of 64. K and V have one buffer each; while a tile's softmax runs its V and the next K are on their way. The softmax is
// online, in base 2: with c = |scale| log2 e a weight is 2^((s - m) c), so a score that is the largest weighs exactly 1.
//
// Momentum costs no pass of its own: on a warp's last tile, which holds its diagonal (attention_mma.h), the row's sum l is final, and
// l eta^(r-j) is added to the weight of each key j below row r before the one product with V; division by l at the end leaves
// eta^(r-j) v_j. Keys before the tile come as a carry, eta^r c. Only when the attention part is wanted by itself does the tile of momentum
// take a second product.
//
// Per 64 keys a warp of 16 rows reads 64 HS elements of K and of V from shared memory, for 4 16 64 HS multiply-adds and 1024 powers of 2.
// Weights are rounded to the operands' arithmetic; sums are float32. Tensor cores cut a sum towards zero at every step, which counts where
// the result is more exact than an output in bfloat16: scores are summed in runs of 64 products, which are added up outside, and with
// float32 in two parts the result is summed so too.
//
// A key that a row does not see weighs 0 in its products, so a NaN or infinity in v[s] reaches the rows of its tile that do not see s.
// Keys at and beyond lengths[b] are never read.
#include "attention_mma.h"
#include "choice.h"
#include "launch.h"

namespace dualform::cuda {

namespace {

constexpr float kLog2E = 1.44269504088896340736f;

/// D: the head size's room. Whole: the head size is D, so that loops have no ends to look for. MTiles: tiles of 16 rows a warp owns.
template <Products P, int D_, bool Whole, int MTiles_, int Warps, int Blocks>
struct Forward {
    static constexpr Products kProducts = P;
    static constexpr int D = D_, kMTiles = MTiles_, kThreads = Warps * kWarp, kRows = Warps * MTiles_ * 16, kBlocks = Blocks;
    static constexpr bool kWhole = Whole;
    static constexpr size_t kShared = static_cast<size_t>(kRows + 2 * kTile) * MmaTile<P, D>::kRowBytes + (kTile + 1) * sizeof(float);
};

/// One block per (b, head, tile of queries), tiles from the last: with a causal mask they are the longest.
template <class F>
__global__ void __launch_bounds__(F::kThreads, F::kBlocks) attention_forward_tensor(AttentionProblem p, bool wide, bool paired) {
    constexpr Products P = F::kProducts;
    constexpr int D = F::D, kMTiles = F::kMTiles, kN = kTile / 8;
    constexpr bool kParts = P == Products::kBf16x3;
    constexpr int kSpan = D > 128 || (kParts && D > 64) ? kN / 2 : kN; /* tiles of scores in one run: registers */
    using Tile = MmaTile<P, D>;
    const int width = F::kWhole ? D : p.head_size;
    const int tid = threadIdx.x, lane = tid % kWarp, warp = tid / kWarp, g = lane / 4, t = lane % 4;

    const int heads = p.query_heads, batch = p.chunks.batch, tiles = static_cast<int>(ceil_div(p.queries, F::kRows));
    const int head = static_cast<int>(blockIdx.x % heads), b = static_cast<int>(blockIdx.x / heads % batch);
    const int tile = tiles - 1 - static_cast<int>(blockIdx.x / heads / batch);
    const int key_head = head / (heads / p.key_heads);
    const int T = static_cast<int>(p.queries), S = static_cast<int>(p.keys), offset = S - T, t0 = tile * F::kRows;
    const int length = static_cast<int>(p.length(b)), first_key = first_key_tile(T, S, p.causal);
    const auto limit = [&](int row) { return p.causal ? smaller(row + offset + 1, length) : length; };
    const auto key_tiles = [&](int end) { return end <= 0 ? 0 : (end - first_key + kTile - 1) / kTile; };
    const int block_tiles = key_tiles(limit(smaller(t0 + F::kRows, T) - 1));
    const int row0 = t0 + warp * 16 * kMTiles; /* of this warp */
    const int warp_tiles = row0 < T ? key_tiles(limit(smaller(row0 + 16 * kMTiles, T) - 1)) : 0;

    unsigned char* const shared = dynamic_shared();
    Tile q_tile, k_tile, v_tile;
    q_tile.base = shared_address(shared);
    k_tile.base = q_tile.base + F::kRows * Tile::kRowBytes;
    v_tile.base = k_tile.base + kTile * Tile::kRowBytes;
    float* const powers = reinterpret_cast<float*>(shared + (F::kRows + 2 * kTile) * Tile::kRowBytes);
    const MmaRows k = mma_rows<P>(p.k, b, key_head, length, wide), v = mma_rows<P>(p.v, b, key_head, length, wide);
    if (block_tiles > 0) {
        load_tile<F::kRows, F::kThreads>(q_tile, mma_rows<P>(p.q, b, head, T, wide), t0, width);
        load_tile<kTile, F::kThreads>(k_tile, k, first_key, width);
        cp_async_commit();
        load_tile<kTile, F::kThreads>(v_tile, v, first_key, width);
        cp_async_commit();
    }
    const float eta = p.eta ? p.eta.load(head) : 0.0f;
    if (eta != 0) /* the same for the whole block; with 0 nothing at all is added */
        for (int n = tid; n <= kTile; n += F::kThreads) powers[n] = static_cast<float>(pow(static_cast<double>(eta), static_cast<double>(n)));
    __syncthreads();

    // The warp's diagonal tile begins at the position of the 64 queries it belongs to. It is the warp's last, unless no row of the warp
    // reaches it: then the carry is all there is of momentum.
    const int chunk = row0 / kTile, diagonal = (chunk * kTile + offset - first_key) / kTile;
    const bool folds = eta != 0 && diagonal >= 0 && diagonal == warp_tiles - 1;
    const bool flips = p.scale < 0;
    const float c = fmaxf(fabsf(p.scale) * kLog2E, 0x1p-126f); /* not 0: 0 times -infinity would be NaN */

    float out[kMTiles][D / 8][4] = {};
    // Of rows g and g + 8, this lane's part of the sums. Float32 weights lose bits as operands: they are divided by the sum of what is left
    // of them, so that they sum to 1 and a large mean of v does not show; lse is of the whole weights.
    constexpr bool kTwoSums = P != Products::kBf16;
    float largest[kMTiles][2], sum[kMTiles][2], kept[kMTiles][2];
#pragma unroll
    for (int m = 0; m < kMTiles; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            largest[m][h] = -INFINITY;
            sum[m][h] = kept[m][h] = 0;
        }

    const auto row_sum = [&](int m, int h) {
        const float whole = sum_lanes(kTwoSums ? kept[m][h] : sum[m][h], 4);
        return whole == 0 ? 1.0f : whole; /* a row without weight: its result is 0, and what is added to it */
    };
    const auto store = [&](const Heads& to, int m, const float (&whole)[2], const double* carry) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = row0 + 16 * m + g + 8 * h;
            if (row >= T) continue;
            const int64_t at = b * to.batch + row * to.row + head * to.head;
            const float power = carry != nullptr ? powers[row % kTile] : 0.0f;
#pragma unroll
            for (int n = 0; n < D / 8; ++n) {
                const int column = 8 * n + 2 * t;
                if (column >= width) continue;
                float x = out[m][n][2 * h] / whole[h], y = out[m][n][2 * h + 1] / whole[h];
                if (carry != nullptr) {
                    x = fmaf(power, static_cast<float>(carry[column]), x);
                    if (column + 1 < width) y = fmaf(power, static_cast<float>(carry[column + 1]), y);
                }
                store_pair(to.data, at, column, width, paired, x, y);
            }
        }
    };

#pragma unroll 1
    for (int j = 0; j < block_tiles; ++j) {
        const int s0 = first_key + j * kTile;
        const bool mine = j < warp_tiles;
        float score[kMTiles][kN][4] = {}, correction[kMTiles][2] = {};
        cp_async_wait<1>(); /* K, and before the first tile Q */
        __syncthreads();
        if (mine) {
#pragma unroll
            for (int n0 = 0; n0 < kN; n0 += kSpan)
#pragma unroll
                for (int run0 = 0; run0 < D; run0 += kMmaRun) {
                    if (!F::kWhole && run0 >= width) continue;
                    float run[kMTiles][kSpan][4] = {}, small[kMTiles][kParts ? kSpan : 2][4] = {};
#pragma unroll
                    for (int k0 = run0; k0 < run0 + kMmaRun; k0 += 16) {
                        if (!F::kWhole && k0 >= width) continue;
                        FragmentA<P> a[kMTiles];
#pragma unroll
                        for (int m = 0; m < kMTiles; ++m) a[m] = q_tile.a_rows(warp * 16 * kMTiles + 16 * m, k0);
#pragma unroll
                        for (int n = 0; n < kSpan; n += 2) {
                            const FragmentB<P> keys = k_tile.b_rows(8 * (n0 + n), k0);
#pragma unroll
                            for (int m = 0; m < kMTiles; ++m)
                                multiply_add(run[m][n], run[m][n + 1], small[m][kParts ? n : 0], small[m][kParts ? n + 1 : 1], a[m], keys);
                        }
                    }
#pragma unroll
                    for (int m = 0; m < kMTiles; ++m)
#pragma unroll
                        for (int n = 0; n < kSpan; ++n)
#pragma unroll
                            for (int i = 0; i < 4; ++i) {
                                if constexpr (kParts) run[m][n][i] += small[m][n][i];
                                score[m][n0 + n][i] = run0 == 0 ? run[m][n][i] : score[m][n0 + n][i] + run[m][n][i];
                            }
                }
        }
        __syncthreads();
        if (j + 1 < block_tiles) load_tile<kTile, F::kThreads>(k_tile, k, s0 + kTile, width);
        cp_async_commit();

        if (mine) {
            if (flips) {
#pragma unroll
                for (int m = 0; m < kMTiles; ++m)
#pragma unroll
                    for (int n = 0; n < kN; ++n)
#pragma unroll
                        for (int i = 0; i < 4; ++i) score[m][n][i] = -score[m][n][i];
            }
            if (s0 < 0 || s0 + kTile > limit(row0)) {
#pragma unroll
                for (int m = 0; m < kMTiles; ++m)
#pragma unroll
                    for (int h = 0; h < 2; ++h) {
                        const int end = limit(row0 + 16 * m + g + 8 * h) - s0;
#pragma unroll
                        for (int n = 0; n < kN; ++n)
#pragma unroll
                            for (int e = 0; e < 2; ++e) {
                                const int key = 8 * n + 2 * t + e;
                                if (key >= end || key < -s0) score[m][n][2 * h + e] = -INFINITY;
                            }
                    }
            }
#pragma unroll
            for (int m = 0; m < kMTiles; ++m)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    float top = largest[m][h];
#pragma unroll
                    for (int n = 0; n < kN; ++n) top = fmaxf(top, fmaxf(score[m][n][2 * h], score[m][n][2 * h + 1]));
                    top = max_lanes(top, 4);
                    const float shift = top == -INFINITY ? 0.0f : top;
                    correction[m][h] = exp2_approx((largest[m][h] - shift) * c);
                    largest[m][h] = top;
                    float added = 0, added_kept = 0;
#pragma unroll
                    for (int n = 0; n < kN; ++n)
#pragma unroll
                        for (int e = 0; e < 2; ++e) {
                            float& weight = score[m][n][2 * h + e];
                            weight = exp2_approx((weight - shift) * c);
                            added += weight;
                            if constexpr (kTwoSums) {
                                weight = as_operand<P>(weight);
                                added_kept += weight;
                            }
                        }
                    sum[m][h] = fmaf(sum[m][h], correction[m][h], added);
                    if constexpr (kTwoSums) kept[m][h] = fmaf(kept[m][h], correction[m][h], added_kept);
                }
        }

        cp_async_wait<1>(); /* V */
        __syncthreads();
        if (mine) {
            const bool fold = folds && j == diagonal, apart = fold && p.attn.data;
#pragma unroll 1
            for (int pass = apart ? 0 : 1; pass < 2; ++pass) {
                if (pass == 1 && fold) {
                    const int r0 = row0 % kTile;
#pragma unroll
                    for (int m = 0; m < kMTiles; ++m)
#pragma unroll
                        for (int h = 0; h < 2; ++h) {
                            const float l = row_sum(m, h);
                            const int r = r0 + 16 * m + g + 8 * h;
#pragma unroll
                            for (int n = 0; n < kN; ++n)
#pragma unroll
                                for (int e = 0; e < 2; ++e) {
                                    const int below = r - (8 * n + 2 * t + e);
                                    const float weight = apart ? 0.0f : score[m][n][2 * h + e];
                                    score[m][n][2 * h + e] = below > 0 ? fmaf(l, powers[below], weight) : weight;
                                }
                        }
                }
                if constexpr (P == Products::kBf16x3) {
                    FragmentA<P> weights[kTile / 16];
                    static_assert(kMTiles == 1, "registers");
#pragma unroll
                    for (int i = 0; i < kTile / 16; ++i) weights[i] = from_accumulators<P>(score[0][2 * i], score[0][2 * i + 1]);
#pragma unroll
                    for (int n = 0; n < D / 8; n += 2) {
                        if (!F::kWhole && 8 * n >= width) continue;
                        float run[2][4] = {}, small[2][4] = {};
#pragma unroll
                        for (int i = 0; i < kTile / 16; ++i)
                            multiply_add(run[0], run[1], small[0], small[1], weights[i], v_tile.b_columns(16 * i, 8 * n));
#pragma unroll
                        for (int i = 0; i < 4; ++i) {
                            out[0][n][i] = fmaf(out[0][n][i], correction[0][i / 2], run[0][i] + small[0][i]);
                            out[0][n + 1][i] = fmaf(out[0][n + 1][i], correction[0][i / 2], run[1][i] + small[1][i]);
                        }
                    }
                } else {
#pragma unroll
                    for (int m = 0; m < kMTiles; ++m)
#pragma unroll
                        for (int n = 0; n < D / 8; ++n)
#pragma unroll
                            for (int i = 0; i < 4; ++i) out[m][n][i] *= correction[m][i / 2];
#pragma unroll
                    for (int k0 = 0; k0 < kTile; k0 += 16) {
                        FragmentA<P> weights[kMTiles];
#pragma unroll
                        for (int m = 0; m < kMTiles; ++m) weights[m] = from_accumulators<P>(score[m][k0 / 8], score[m][k0 / 8 + 1]);
#pragma unroll
                        for (int n = 0; n < D / 8; n += 2) {
                            if (!F::kWhole && 8 * n >= width) continue;
                            const FragmentB<P> values = v_tile.b_columns(k0, 8 * n);
#pragma unroll
                            for (int m = 0; m < kMTiles; ++m) multiply_add(out[m][n], out[m][n + 1], weights[m], values);
                        }
                    }
                }
                if (pass == 0) {
#pragma unroll
                    for (int m = 0; m < kMTiles; ++m) {
                        const float whole[2] = {row_sum(m, 0), row_sum(m, 1)};
                        store(p.attn, m, whole, nullptr);
                        correction[m][0] = correction[m][1] = 1;
                    }
                }
            }
        }
        __syncthreads();
        if (j + 1 < block_tiles) load_tile<kTile, F::kThreads>(v_tile, v, s0 + kTile, width);
        cp_async_commit();
    }

    if (row0 >= T) return;
    const double* carry = eta != 0 ? p.carries + p.chunks.carry(b, head, p.chunks.prefix + chunk) : nullptr;
#pragma unroll
    for (int m = 0; m < kMTiles; ++m) {
        const float whole[2] = {row_sum(m, 0), row_sum(m, 1)};
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = row0 + 16 * m + g + 8 * h;
            const float weights = sum_lanes(sum[m][h], 4);
            if (row < T && t == 0)
                p.lse[b * p.lse_batch + head * p.lse_head + row] =
                    weights == 0 ? -INFINITY : largest[m][h] * fabsf(p.scale) + logf(weights);
        }
        if (p.attn.data && !folds) store(p.attn, m, whole, nullptr);
        store(p.out, m, whole, carry);
    }
}

template <class F>
int serve(const Call& call, const AttentionProblem& p, int64_t batch) {
    const bool wide = rows_aligned(p.q, 16) && rows_aligned(p.k, 16) && rows_aligned(p.v, 16);
    const int64_t pair = p.out.data.dtype == DF_BF16 ? 4 : 8;
    const bool paired = rows_aligned(p.out, pair) && (!p.attn.data || (p.attn.data.dtype == p.out.data.dtype && rows_aligned(p.attn, pair)));
    return launch(call, "attention_forward_tensor", batch * p.query_heads * ceil_div(p.queries, F::kRows), F::kThreads, F::kShared,
                  attention_forward_tensor<F>, p, wide, paired);
}

}  // namespace

bool attention_mma_serves(const AttentionProblem& p) {
    if (kernels() == Kernels::kPlain || p.queries > kMmaLongest || p.keys > kMmaLongest) return false;
    const int dtype = p.q.data.dtype;
    for (const Heads* x : {&p.k, &p.v, &p.dout})
        if (x->data && x->data.dtype != dtype) return false;
    return dtype == DF_BF16 ? p.head_size <= 256 : precision() != Precision::kFloat32 && p.head_size <= 128;
}

int attention_forward_mma(const Call& call, const AttentionProblem& p, int64_t batch) {
    const int HS = p.head_size;
    if (p.q.data.dtype == DF_BF16) {
        if (HS == 64) return serve<Forward<Products::kBf16, 64, true, 2, 4, 2>>(call, p, batch);
        if (HS < 64) return serve<Forward<Products::kBf16, 64, false, 1, 4, 2>>(call, p, batch);
        if (HS == 128) return serve<Forward<Products::kBf16, 128, true, 1, 8, 1>>(call, p, batch);
        if (HS < 128) return serve<Forward<Products::kBf16, 128, false, 1, 8, 1>>(call, p, batch);
        return serve<Forward<Products::kBf16, 256, false, 1, 4, 1>>(call, p, batch);
    }
    if (precision() == Precision::kTf32) {
        if (HS <= 64) return serve<Forward<Products::kTf32, 64, false, 1, 4, 2>>(call, p, batch);
        return serve<Forward<Products::kTf32, 128, false, 1, 4, 1>>(call, p, batch);
    }
    if (HS <= 64) return serve<Forward<Products::kBf16x3, 64, false, 1, 4, 2>>(call, p, batch);
    return serve<Forward<Products::kBf16x3, 128, false, 1, 4, 1>>(call, p, batch);
}

}  // namespace dualform::cuda
