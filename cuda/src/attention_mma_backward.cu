// Attention and momentum attention backward on tensor cores, in two passes: dq by blocks that own queries, dk and dv by blocks that own
// keys. Scores are computed in both, seven products instead of five; in return a result has one owner, which sums in a fixed order, and
// no atomics, no float copy of dq and no order between blocks are needed: the same bits every time.
//
// Everything is in the accumulators of the warp that owns its 16 rows. In the keys' pass scores are computed transposed, so that P^T and
// dS^T are at once the A operands of dv += P^T dout and dk += dS^T q; the group's query heads follow one another inside the block.
//
// Momentum: lambda's part inside a tile of 64 positions is a product of dout with the upper triangle eta^(p-s), which is added to P^T
// before the one product with dout (dS is made from P alone); the rest comes as a reverse carry, eta^(64-r) lambda.
#include "attention_mma.h"
#include "choice.h"
#include "launch.h"

namespace dualform::cuda {

namespace {

constexpr float kLog2E = 1.44269504088896340736f;

/// P = exp(scale score - lse); 0 where the row saw nothing of weight.
__device__ inline float probability(float score, float scale, float lse) {
    return lse == -INFINITY ? 0.0f : exp2_approx(fmaf(score, scale, -lse) * kLog2E);
}

/// c (16 x 8 N) = rows a0.. of a times rows 0..8 N - 1 of b: scores, or dP. Float32 in two parts is summed as in the forward pass, since a
/// weight is exp(score - lse) with lse from there, and dP - delta cancels most of dP where v has a large mean.
template <Products P, int D, bool Whole, int N, class Tile>
__device__ inline void rows_times_rows(float (&c)[N][4], const Tile& a, int a0, const Tile& b, int width) {
    constexpr int kRun = P == Products::kBf16x3 ? kMmaRun : D;
#pragma unroll
    for (int run0 = 0; run0 < D; run0 += kRun) {
        if (!Whole && run0 >= width) continue;
        float run[N][4] = {}, small[P == Products::kBf16x3 ? N : 2][4] = {};
#pragma unroll
        for (int k0 = run0; k0 < run0 + kRun; k0 += 16) {
            if (!Whole && k0 >= width) continue;
            const FragmentA<P> rows = a.a_rows(a0, k0);
#pragma unroll
            for (int n = 0; n < N; n += 2) {
                constexpr bool kParts = P == Products::kBf16x3;
                multiply_add(run[n], run[n + 1], small[kParts ? n : 0], small[kParts ? n + 1 : 1], rows, b.b_rows(8 * n, k0));
            }
        }
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if constexpr (P == Products::kBf16x3) run[n][i] += small[n][i];
                c[n][i] = run0 == 0 ? run[n][i] : c[n][i] + run[n][i];
            }
    }
}

/// sum (16 x 8 N) += weights (16 x Depth) times rows 0..Depth-1 of the tile, columns from column0 below width. Float32 in two parts is
/// summed over one tile on tensor cores, which cut sums towards zero, and added up outside.
template <Products P, int Depth, int N, class Tile>
__device__ inline void accumulate(float (&sum)[N][4], const float (&weights)[Depth / 8][4], const Tile& tile, int column0, int width) {
    FragmentA<P> a[Depth / 16];
#pragma unroll
    for (int i = 0; i < Depth / 16; ++i) a[i] = from_accumulators<P>(weights[2 * i], weights[2 * i + 1]);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
        if (column0 + 8 * n >= width) continue;
        if constexpr (P == Products::kBf16x3) {
            float run[2][4] = {}, small[2][4] = {};
#pragma unroll
            for (int i = 0; i < Depth / 16; ++i)
                multiply_add(run[0], run[1], small[0], small[1], a[i], tile.b_columns(16 * i, column0 + 8 * n));
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                sum[n][i] += run[0][i] + small[0][i];
                sum[n + 1][i] += run[1][i] + small[1][i];
            }
        } else {
#pragma unroll
            for (int i = 0; i < Depth / 16; ++i) multiply_add(sum[n], sum[n + 1], a[i], tile.b_columns(16 * i, column0 + 8 * n));
        }
    }
}

/// D: the head size's room; Whole: it is D. Keys: of a tile.
template <Products P, int D_, bool Whole, int Keys, int Blocks>
struct Queries {
    static constexpr Products kProducts = P;
    static constexpr int D = D_, kRows = kTile, kThreads = kTile / 16 * kWarp, kKeys = Keys, kBlocks = Blocks;
    static constexpr bool kWhole = Whole;
    static constexpr size_t kShared = static_cast<size_t>(2 * kRows + 2 * Keys) * MmaTile<P, D>::kRowBytes;
};

/// One block per (b, head, tile of 64 queries): dq. A warp owns 16 queries.
template <class F>
__global__ void __launch_bounds__(F::kThreads, F::kBlocks) attention_backward_queries_tensor(AttentionProblem p, bool wide, bool paired) {
    constexpr Products P = F::kProducts;
    constexpr int D = F::D, kN = F::kKeys / 8;
    using Tile = MmaTile<P, D>;
    const int width = F::kWhole ? D : p.head_size;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, t = lane % 4;
    const int heads = p.query_heads, batch = p.chunks.batch, tiles = static_cast<int>(ceil_div(p.queries, F::kRows));
    const int head = static_cast<int>(blockIdx.x % heads), b = static_cast<int>(blockIdx.x / heads % batch);
    const int tile = tiles - 1 - static_cast<int>(blockIdx.x / heads / batch);
    const int key_head = head / (heads / p.key_heads);
    const int T = static_cast<int>(p.queries), S = static_cast<int>(p.keys), offset = S - T, t0 = tile * F::kRows;
    const int length = static_cast<int>(p.length(b)), first_key = first_key_tile(T, S, p.causal);
    const auto limit = [&](int row) { return p.causal ? smaller(row + offset + 1, length) : length; };
    const auto key_tiles = [&](int end) { return end <= 0 ? 0 : (end - first_key + F::kKeys - 1) / F::kKeys; };
    const int block_tiles = key_tiles(limit(smaller(t0 + F::kRows, T) - 1));
    const int row0 = t0 + warp * 16;
    const int warp_tiles = row0 < T ? key_tiles(limit(smaller(row0 + 16, T) - 1)) : 0;

    Tile q_tile, dout_tile, k_tile, v_tile;
    q_tile.base = shared_address(dynamic_shared());
    dout_tile.base = q_tile.base + F::kRows * Tile::kRowBytes;
    k_tile.base = dout_tile.base + F::kRows * Tile::kRowBytes;
    v_tile.base = k_tile.base + F::kKeys * Tile::kRowBytes;
    const MmaRows k = mma_rows<P>(p.k, b, key_head, length, wide), v = mma_rows<P>(p.v, b, key_head, length, wide);
    if (block_tiles > 0) {
        load_tile<F::kRows, F::kThreads>(q_tile, mma_rows<P>(p.q, b, head, T, wide), t0, width);
        load_tile<F::kRows, F::kThreads>(dout_tile, mma_rows<P>(p.dout, b, head, T, wide), t0, width);
        load_tile<F::kKeys, F::kThreads>(k_tile, k, first_key, width);
        load_tile<F::kKeys, F::kThreads>(v_tile, v, first_key, width);
        cp_async_commit();
    }
    float lse[2], delta[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = row0 + g + 8 * h;
        lse[h] = row < T ? p.lse[b * p.lse_batch + head * p.lse_head + row] : -INFINITY;
        delta[h] = row < T ? p.delta[(static_cast<int64_t>(b) * heads + head) * T + row] : 0.0f;
    }

    float sum[D / 8][4] = {};
#pragma unroll 1
    for (int j = 0; j < block_tiles; ++j) {
        const int s0 = first_key + j * F::kKeys;
        const bool mine = j < warp_tiles;
        float score[kN][4] = {}, dscore[kN][4] = {};
        cp_async_wait<0>();
        __syncthreads();
        if (mine) {
            rows_times_rows<P, D, F::kWhole>(score, q_tile, warp * 16, k_tile, width);
            rows_times_rows<P, D, F::kWhole>(dscore, dout_tile, warp * 16, v_tile, width);
        }
        __syncthreads();
        if (j + 1 < block_tiles) load_tile<F::kKeys, F::kThreads>(v_tile, v, s0 + F::kKeys, width);
        if (mine) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int end = limit(row0 + g + 8 * h) - s0;
#pragma unroll
                for (int n = 0; n < kN; ++n)
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        const int key = 8 * n + 2 * t + e;
                        const bool visible = key < end && key >= -s0;
                        const float weight = probability(score[n][2 * h + e], p.scale, lse[h]) * (dscore[n][2 * h + e] - delta[h]);
                        score[n][2 * h + e] = visible ? weight : 0.0f;
                    }
            }
            accumulate<P, F::kKeys, D / 8>(sum, score, k_tile, 0, width);
        }
        __syncthreads();
        if (j + 1 < block_tiles) load_tile<F::kKeys, F::kThreads>(k_tile, k, s0 + F::kKeys, width);
        cp_async_commit();
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = row0 + g + 8 * h;
        if (row >= T) continue;
        const int64_t at = b * p.dq.batch + row * p.dq.row + head * p.dq.head;
#pragma unroll
        for (int n = 0; n < D / 8; ++n)
            store_pair(p.dq.data, at, 8 * n + 2 * t, width, paired, sum[n][2 * h] * p.scale, sum[n][2 * h + 1] * p.scale);
    }
}

/// Columns: of dk and dv that a block computes; where they are fewer than D, D / Columns blocks share a tile of keys and each computes
/// its scores. Queries: of a tile. Stages: tiles of queries in shared memory.
template <Products P, int D_, bool Whole, int Columns, int Queries, int Stages, int Blocks>
struct Keys {
    static constexpr Products kProducts = P;
    static constexpr int D = D_, kRows = kTile, kThreads = kTile / 16 * kWarp, kColumns = Columns, kQueries = Queries, kStages = Stages,
                         kBlocks = Blocks;
    static constexpr bool kWhole = Whole;
    static constexpr int kTileBytes = Queries * MmaTile<P, D>::kRowBytes;
    static constexpr size_t kShared = static_cast<size_t>(2 * kRows) * MmaTile<P, D>::kRowBytes +
                                      static_cast<size_t>(Stages) * 2 * kTileBytes + (Stages * 2 * Queries + kTile + 1) * sizeof(float);
};

/// One block per (b, key head, tile of 64 keys, group of columns): dk and dv. A warp owns 16 keys.
template <class F>
__global__ void __launch_bounds__(F::kThreads, F::kBlocks) attention_backward_keys_tensor(AttentionProblem p, bool wide, bool paired) {
    constexpr Products P = F::kProducts;
    constexpr int D = F::D, kN = F::kQueries / 8, kGroups = D / F::kColumns;
    using Tile = MmaTile<P, D>;
    const int width = F::kWhole ? D : p.head_size;
    const int tid = threadIdx.x, lane = tid % kWarp, warp = tid / kWarp, g = lane / 4, t = lane % 4;
    const int column0 = static_cast<int>(blockIdx.x % kGroups) * F::kColumns, block = static_cast<int>(blockIdx.x / kGroups);
    const int batch = p.chunks.batch, group = p.query_heads / p.key_heads;
    const int key_head = block % p.key_heads, b = block / p.key_heads % batch, tile = block / p.key_heads / batch;
    const int T = static_cast<int>(p.queries), S = static_cast<int>(p.keys), offset = S - T, s0 = tile * kTile;
    const int tiles = (S + kTile - 1) / kTile;
    const int length = static_cast<int>(p.length(b)), keys = smaller(larger(length - s0, 0), kTile); /* of this tile */
    // With a causal mask tiles of queries begin at the position of the first key, so that momentum's triangle is 64 queries from there.
    const int own = s0 - offset;
    const int t_begin = !p.causal ? 0 : own >= 0 ? own : own + -own / F::kQueries * F::kQueries;
    const int query_tiles = keys == 0 || t_begin >= T ? 0 : (T - t_begin + F::kQueries - 1) / F::kQueries;
    const int total = query_tiles * group;

    unsigned char* const shared = dynamic_shared();
    Tile k_tile, v_tile, q_tile[F::kStages], dout_tile[F::kStages];
    k_tile.base = shared_address(shared);
    v_tile.base = k_tile.base + F::kRows * Tile::kRowBytes;
#pragma unroll
    for (int stage = 0; stage < F::kStages; ++stage) {
        q_tile[stage].base = v_tile.base + F::kRows * Tile::kRowBytes + 2 * stage * F::kTileBytes;
        dout_tile[stage].base = q_tile[stage].base + F::kTileBytes;
    }
    float* const statistics = reinterpret_cast<float*>(shared + 2 * F::kRows * Tile::kRowBytes + 2 * F::kStages * F::kTileBytes);
    float* const powers = statistics + 2 * F::kStages * F::kQueries;

    const auto load = [&](int i) { /* the i-th tile of queries, heads of the group one after another */
        const int head = key_head * group + i / query_tiles, t0 = t_begin + i % query_tiles * F::kQueries, stage = i % F::kStages;
        Tile q = q_tile[0], dout = dout_tile[0];
        q.base += 2 * stage * F::kTileBytes;
        dout.base += 2 * stage * F::kTileBytes;
        load_tile<F::kQueries, F::kThreads>(q, mma_rows<P>(p.q, b, head, T, wide), t0, width);
        load_tile<F::kQueries, F::kThreads>(dout, mma_rows<P>(p.dout, b, head, T, wide), t0, width);
        for (int n = tid; n < F::kQueries; n += F::kThreads) {
            const int row = t0 + n;
            const bool inside = row >= 0 && row < T;
            float* const to = statistics + 2 * stage * F::kQueries + n;
            to[0] = inside ? p.lse[b * p.lse_batch + head * p.lse_head + row] : -INFINITY;
            to[F::kQueries] = inside ? p.delta[(static_cast<int64_t>(b) * p.query_heads + head) * T + row] : 0.0f;
        }
    };
    if (total > 0) {
        load_tile<F::kRows, F::kThreads>(k_tile, mma_rows<P>(p.k, b, key_head, length, wide), s0, width);
        load_tile<F::kRows, F::kThreads>(v_tile, mma_rows<P>(p.v, b, key_head, length, wide), s0, width);
        load(0);
        cp_async_commit();
    }

    float dk[F::kColumns / 8][4] = {}, dv[F::kColumns / 8][4] = {}, eta = 0;
#pragma unroll 1
    for (int i = 0; i < total; ++i) {
        const int head = key_head * group + i / query_tiles, at_tile = i % query_tiles, t0 = t_begin + at_tile * F::kQueries;
        if (F::kStages > 1) {
            if (i + 1 < total) load(i + 1);
            cp_async_commit();
        }
        if (at_tile == 0) {
            eta = p.eta ? p.eta.load(head) : 0.0f;
            if (eta != 0)
                for (int n = tid; n <= kTile; n += F::kThreads)
                    powers[n] = static_cast<float>(pow(static_cast<double>(eta), static_cast<double>(n)));
        }
        cp_async_wait<(F::kStages > 1 ? 1 : 0)>();
        __syncthreads();
        if (at_tile == 0 && eta != 0) {
            const double* carry = p.reverse_carries + ((static_cast<int64_t>(b) * p.query_heads + head) * tiles + tile) * p.head_size;
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int r = warp * 16 + g + 8 * h;
                if (r >= keys) continue;
                const float power = powers[kTile - r];
#pragma unroll
                for (int n = 0; n < F::kColumns / 8; ++n)
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        const int column = column0 + 8 * n + 2 * t + e;
                        if (column < width) dv[n][2 * h + e] = fmaf(power, static_cast<float>(carry[column]), dv[n][2 * h + e]);
                    }
            }
        }
        const int stage = i % F::kStages;
        Tile q = q_tile[0], dout = dout_tile[0];
        q.base += 2 * stage * F::kTileBytes;
        dout.base += 2 * stage * F::kTileBytes;
        const float* const lse = statistics + 2 * stage * F::kQueries;
        if (warp * 16 < keys) {
            float score[kN][4] = {}, dscore[kN][4] = {};
            rows_times_rows<P, D, F::kWhole>(score, k_tile, warp * 16, q, width);
            rows_times_rows<P, D, F::kWhole>(dscore, v_tile, warp * 16, dout, width);
            const bool diagonal = eta != 0 && t0 < own + kTile;
#pragma unroll
            for (int n = 0; n < kN; ++n)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const int column = 8 * n + 2 * t + e, row = t0 + column; /* the query */
                    const float row_lse = lse[column], row_delta = lse[F::kQueries + column];
#pragma unroll
                    for (int h = 0; h < 2; ++h) {
                        const int r = warp * 16 + g + 8 * h, after = row - own - r; /* positions from this key to the query */
                        const bool visible = r < keys && row >= 0 && row < T && (!p.causal || after >= 0);
                        float weight = probability(score[n][2 * h + e], p.scale, row_lse);
                        weight = visible ? weight : 0.0f;
                        dscore[n][2 * h + e] = visible ? weight * (dscore[n][2 * h + e] - row_delta) : 0.0f;
                        if (diagonal && r < keys && after > 0 && row < own + kTile) weight += powers[after];
                        score[n][2 * h + e] = weight;
                    }
                }
            accumulate<P, F::kQueries, F::kColumns / 8>(dv, score, dout, column0, width);
            accumulate<P, F::kQueries, F::kColumns / 8>(dk, dscore, q, column0, width);
        }
        __syncthreads();
        if (F::kStages == 1) {
            if (i + 1 < total) load(i + 1);
            cp_async_commit();
        }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int s = s0 + warp * 16 + g + 8 * h;
        if (s >= S) continue;
        const int64_t dk_at = b * p.dk.batch + s * p.dk.row + key_head * p.dk.head, dv_at = b * p.dv.batch + s * p.dv.row + key_head * p.dv.head;
#pragma unroll
        for (int n = 0; n < F::kColumns / 8; ++n) {
            const int column = column0 + 8 * n + 2 * t;
            store_pair(p.dk.data, dk_at, column, width, paired, dk[n][2 * h] * p.scale, dk[n][2 * h + 1] * p.scale);
            store_pair(p.dv.data, dv_at, column, width, paired, dv[n][2 * h], dv[n][2 * h + 1]);
        }
    }
}

template <class Q, class K>
int serve(const Call& call, const AttentionProblem& p, int64_t batch) {
    const bool wide = rows_aligned(p.q, 16) && rows_aligned(p.k, 16) && rows_aligned(p.v, 16) && rows_aligned(p.dout, 16);
    const auto paired = [](const Heads& x) { return rows_aligned(x, x.data.dtype == DF_BF16 ? 4 : 8); };
    if (const int status = launch(call, "attention_backward_queries_tensor", batch * p.query_heads * ceil_div(p.queries, Q::kRows),
                                  Q::kThreads, Q::kShared, attention_backward_queries_tensor<Q>, p, wide, paired(p.dq)))
        return status;
    constexpr int kGroups = K::D / K::kColumns;
    return launch(call, "attention_backward_keys_tensor", batch * p.key_heads * ceil_div(p.keys, K::kRows) * kGroups, K::kThreads,
                  K::kShared, attention_backward_keys_tensor<K>, p, wide, paired(p.dk) && paired(p.dv));
}

}  // namespace

int attention_backward_mma(const Call& call, const AttentionProblem& p, int64_t batch) {
    constexpr Products kBf16 = Products::kBf16, kTf32 = Products::kTf32, kBf16x3 = Products::kBf16x3;
    const int HS = p.head_size;
    if (p.q.data.dtype == DF_BF16) {
        if (HS == 64) return serve<Queries<kBf16, 64, true, 64, 2>, Keys<kBf16, 64, true, 64, 64, 2, 2>>(call, p, batch);
        if (HS < 64) return serve<Queries<kBf16, 64, false, 64, 2>, Keys<kBf16, 64, false, 64, 64, 2, 2>>(call, p, batch);
        // Unrolled without ends to look for, the keys' pass of 128 channels keeps more loads in flight than it has registers for.
        if (HS == 128) return serve<Queries<kBf16, 128, true, 64, 2>, Keys<kBf16, 128, false, 128, 32, 2, 2>>(call, p, batch);
        if (HS < 128) return serve<Queries<kBf16, 128, false, 64, 2>, Keys<kBf16, 128, false, 128, 32, 2, 2>>(call, p, batch);
        return serve<Queries<kBf16, 256, false, 32, 1>, Keys<kBf16, 256, false, 128, 32, 1, 1>>(call, p, batch);
    }
    if (precision() == Precision::kTf32) {
        if (HS <= 64) return serve<Queries<kTf32, 64, false, 64, 2>, Keys<kTf32, 64, false, 64, 32, 1, 2>>(call, p, batch);
        return serve<Queries<kTf32, 128, false, 32, 1>, Keys<kTf32, 128, false, 128, 32, 1, 1>>(call, p, batch);
    }
    if (HS <= 64) return serve<Queries<kBf16x3, 64, false, 64, 2>, Keys<kBf16x3, 64, false, 64, 32, 1, 2>>(call, p, batch);
    return serve<Queries<kBf16x3, 128, false, 32, 1>, Keys<kBf16x3, 128, false, 128, 16, 1, 1>>(call, p, batch);
}

}  // namespace dualform::cuda
