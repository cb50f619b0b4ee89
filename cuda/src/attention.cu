// Attention and momentum attention, forward and backward, in tiles of 64 queries by 64 keys.
//
// A block of 16 x 16 threads owns a tile of queries (forward, dq) or of keys (dk and dv); a thread owns 4 rows and HS / 16 columns
// of the result in registers. Scores live in registers, probabilities in shared memory; nothing of size T x S exists. No atomics: a
// result has one owner, which sums in a fixed order (dk and dv loop over the group of query heads inside the block).
//
// A mask is always a range of keys per query (or of queries per key). What lies outside is passed over, never multiplied by 0.
#include "attention.h"
#include "attention_hopper.h"
#include "attention_hopper_backward.h"
#include "kernels.h"
#include "launch.h"
#include "tile.h"

namespace dualform::cuda {

namespace {

Heads heads(const df_view* view) {
    Heads h;
    h.data = floats(view);
    h.batch = stride_of(view, 0);
    h.row = stride_of(view, 1);
    h.head = stride_of(view, 2);
    return h;
}

using Problem = AttentionProblem;

constexpr int kDeltaRows = 4; /* per block of attention_backward_delta */
static_assert(kRun * kWarp >= 256, "a warp covers the largest head size");

/// Keys of the tile at s0 that a row with this limit sees: [0, result).
__device__ inline int visible_keys(int64_t limit, int64_t s0) { return static_cast<int>(larger<int64_t>(0, smaller<int64_t>(limit - s0,
    kTile))); }

/// powers[n] = eta^n for n = 0..kTile, each correctly rounded from double.
__device__ inline void fill_powers(float* powers, double eta) {
    for (int n = threadIdx.x; n <= kTile; n += kTileThreads) powers[n] = static_cast<float>(pow(eta, static_cast<double>(n)));
}

/// One block per (b, head, query tile). Shared: the stage, the probabilities, the powers of eta.
template <int Columns>
__global__ void __launch_bounds__(kTileThreads, 1) attention_forward_tile(Problem p) {
    __shared__ float staging[kStageFloats];
    __shared__ float weights[kWeightFloats];
    __shared__ float powers[kTile + 1];
    const int64_t tiles = ceil_div(p.queries, kTile), tile = blockIdx.x % tiles;
    const int head = static_cast<int>(blockIdx.x / tiles % p.query_heads);
    const int64_t b = blockIdx.x / tiles / p.query_heads, t0 = tile * kTile;
    const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
    const int key_head = head / (p.query_heads / p.key_heads);
    const int64_t length = p.length(b);
    const Rows q = p.q.rows(b, head, 0, p.queries);
    const Rows k = p.k.rows(b, key_head, 0, length), v = p.v.rows(b, key_head, 0, length);

    float sum[kPerThread][Columns] = {}, row_max[kPerThread], row_sum[kPerThread];
    int64_t limit[kPerThread];
    for (int i = 0; i < kPerThread; ++i) {
        limit[i] = p.limit(t0 + ty + kSide * i, length);
        row_max[i] = -INFINITY;
        row_sum[i] = 0;
    }
    const int64_t last_row = smaller(t0 + kTile, p.queries) - 1, end = p.limit(last_row, length);
    for (int64_t s0 = 0; s0 < end; s0 += kTile) {
        float score[kPerThread][kPerThread];
        product_transposed(score, q, t0, k, s0, p.head_size, staging);
        int first[kPerThread], last[kPerThread];
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) {
            first[i] = 0;
            last[i] = visible_keys(limit[i], s0);
            float largest = -INFINITY;
#pragma unroll
            for (int j = 0; j < kPerThread; ++j) {
                score[i][j] = tx + kSide * j < last[i] ? score[i][j] * p.scale : -INFINITY;
                largest = fmaxf(largest, score[i][j]);
            }
            largest = fmaxf(max_lanes(largest, kSide), row_max[i]);
            const float shift = largest == -INFINITY ? 0.0f : largest, correction = expf(row_max[i] - shift);
            float added = 0;
#pragma unroll
            for (int j = 0; j < kPerThread; ++j) {
                const float weight = tx + kSide * j < last[i] ? expf(score[i][j] - shift) : 0.0f;
                weights[(ty + kSide * i) * kWeightPitch + tx + kSide * j] = weight;
                added += weight;
            }
            row_sum[i] = row_sum[i] * correction + sum_lanes(added, kSide);
            row_max[i] = largest;
#pragma unroll
            for (int c = 0; c < Columns; ++c) sum[i][c] *= correction;
        }
        product_values(sum, weights, first, last, v, s0, 0, p.head_size, staging);
    }

    const float eta = p.eta ? p.eta.load(head) : 0.0f;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
        const int64_t t = t0 + ty + kSide * i;
        const bool empty = limit[i] == 0 || row_sum[i] == 0;
#pragma unroll
        for (int c = 0; c < Columns; ++c) {
            sum[i][c] = empty ? 0.0f : sum[i][c] / row_sum[i];
            if (p.attn.data && t < p.queries && tx + kSide * c < p.head_size)
                p.attn.data.store(b * p.attn.batch + t * p.attn.row + head * p.attn.head + tx + kSide * c, sum[i][c]);
        }
        if (t < p.queries && tx == 0)
            p.lse[b * p.lse_batch + head * p.lse_head + t] = empty ? -INFINITY : row_max[i] + logf(row_sum[i]);
    }
    if (eta != 0) { /* the same for the whole block; with 0 nothing at all is added */
        fill_powers(powers, eta);
        __syncthreads(); /* and everyone is done with the probabilities */
        const int64_t p0 = t0 + p.keys - p.queries; /* position of the tile's first query */
        const double* carry = p.carries + p.chunks.carry(b, head, p.chunks.prefix + tile);
        int first[kPerThread], last[kPerThread];
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) {
            const int r = ty + kSide * i;
            first[i] = 0;
            last[i] = smaller(r, visible_keys(length, p0));
#pragma unroll
            for (int j = 0; j < kPerThread; ++j) weights[r * kWeightPitch + tx + kSide * j] = powers[larger(r - tx - kSide * j, 0)];
#pragma unroll
            for (int c = 0; c < Columns; ++c)
                if (tx + kSide * c < p.head_size) sum[i][c] = fmaf(powers[r], static_cast<float>(carry[tx + kSide * c]), sum[i][c]);
        }
        product_values(sum, weights, first, last, v, p0, 0, p.head_size, staging);
    }
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
        const int64_t t = t0 + ty + kSide * i;
        if (t >= p.queries) continue;
#pragma unroll
        for (int c = 0; c < Columns; ++c)
            if (tx + kSide * c < p.head_size)
                p.out.data.store(b * p.out.batch + t * p.out.row + head * p.out.head + tx + kSide * c, sum[i][c]);
    }
}

/// One warp per (b, head, query): delta = dout . attention's output, a lane taking one run of kRun channels. Summed in the order of
/// product_transposed, so that a query that sees one key gets dP - delta = 0 exactly.
__global__ void attention_backward_delta(Problem p, int64_t rows) {
    __shared__ float partial[kDeltaRows][kWarp];
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int64_t row = blockIdx.x * static_cast<int64_t>(kDeltaRows) + warp;
    if (row >= rows) return;
    const int64_t t = row % p.queries, head = row / p.queries % p.query_heads, b = row / p.queries / p.query_heads;
    const int64_t dout_at = b * p.dout.batch + t * p.dout.row + head * p.dout.head;
    const int64_t attn_at = b * p.attn.batch + t * p.attn.row + head * p.attn.head;
    const int first = lane * kRun, last = smaller(first + kRun, p.head_size);
    float sum = 0;
    for (int d = first; d < last; ++d) sum = fmaf(p.dout.data.load(dout_at + d), p.attn.data.load(attn_at + d), sum);
    partial[warp][lane] = sum;
    __syncwarp();
    if (lane != 0) return;
    float total = 0;
    for (int stage = 0; stage * kDepth < p.head_size; ++stage) {
        float staged = 0;
        for (int run = stage * kDepth / kRun; run < (stage + 1) * kDepth / kRun && run * kRun < p.head_size; ++run) staged += partial[warp][run];
        total += staged;
    }
    p.delta[row] = total;
}

/// P = exp(scale score - lse); 0 where the row saw nothing of weight.
__device__ inline float probability(float score, float scale, float lse) { return lse == -INFINITY ? 0.0f : expf(score * scale - lse); }

/// One block per (b, head, query tile): dq.
template <int Columns>
__global__ void __launch_bounds__(kTileThreads, 1) attention_backward_queries(Problem p) {
    __shared__ float staging[kStageFloats];
    __shared__ float weights[kWeightFloats];
    const int64_t tiles = ceil_div(p.queries, kTile), tile = blockIdx.x % tiles;
    const int head = static_cast<int>(blockIdx.x / tiles % p.query_heads);
    const int64_t b = blockIdx.x / tiles / p.query_heads, t0 = tile * kTile;
    const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
    const int key_head = head / (p.query_heads / p.key_heads);
    const int64_t length = p.length(b);
    const Rows q = p.q.rows(b, head, 0, p.queries), dout = p.dout.rows(b, head, 0, p.queries);
    const Rows k = p.k.rows(b, key_head, 0, length), v = p.v.rows(b, key_head, 0, length);

    float sum[kPerThread][Columns] = {}, lse[kPerThread], delta[kPerThread];
    int64_t limit[kPerThread];
    for (int i = 0; i < kPerThread; ++i) {
        const int64_t t = t0 + ty + kSide * i;
        limit[i] = p.limit(t, length);
        lse[i] = t < p.queries ? p.lse[b * p.lse_batch + head * p.lse_head + t] : -INFINITY;
        delta[i] = t < p.queries ? p.delta[(b * p.query_heads + head) * p.queries + t] : 0.0f;
    }
    const int64_t last_row = smaller(t0 + kTile, p.queries) - 1, end = p.limit(last_row, length);
    for (int64_t s0 = 0; s0 < end; s0 += kTile) {
        float score[kPerThread][kPerThread], dprobability[kPerThread][kPerThread];
        product_transposed(score, q, t0, k, s0, p.head_size, staging);
        product_transposed(dprobability, dout, t0, v, s0, p.head_size, staging);
        int first[kPerThread], last[kPerThread];
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) {
            first[i] = 0;
            last[i] = visible_keys(limit[i], s0);
#pragma unroll
            for (int j = 0; j < kPerThread; ++j)
                weights[(ty + kSide * i) * kWeightPitch + tx + kSide * j] =
                    tx + kSide * j < last[i] ? probability(score[i][j], p.scale, lse[i]) * (dprobability[i][j] - delta[i]) : 0.0f;
        }
        product_values(sum, weights, first, last, k, s0, 0, p.head_size, staging);
    }
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
        const int64_t t = t0 + ty + kSide * i;
        if (t >= p.queries) continue;
#pragma unroll
        for (int c = 0; c < Columns; ++c)
            if (tx + kSide * c < p.head_size)
                p.dq.data.store(b * p.dq.batch + t * p.dq.row + head * p.dq.head + tx + kSide * c, sum[i][c] * p.scale);
    }
}

/// One block per (b, key head, key tile, group of channels): dk and dv, over the query heads of the group and the query tiles that see
/// these keys. Scores are computed transposed: a thread's rows are keys. Momentum adds the upper triangle eta^(p-s) times dout, and the
/// reverse carry. Two results of 16 columns a thread do not fit its registers: above 128 channels two blocks share them, and each
/// computes the scores.
template <int Columns>
__global__ void __launch_bounds__(kTileThreads, 1) attention_backward_keys(Problem p, int column_groups) {
    __shared__ float staging[kStageFloats];
    __shared__ float weights[kWeightFloats];
    __shared__ float powers[kTile + 1];
    const int64_t tiles = ceil_div(p.keys, kTile), block = blockIdx.x / column_groups, tile = block % tiles;
    const int key_head = static_cast<int>(block / tiles % p.key_heads);
    const int64_t b = block / tiles / p.key_heads, s0 = tile * kTile;
    const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
    /* first channel of this thread */
    const int column0 = static_cast<int>(blockIdx.x % column_groups) * kSide * Columns, own = column0 + tx;
    const int group = p.query_heads / p.key_heads;
    const int64_t length = p.length(b), offset = p.keys - p.queries;
    const Rows k = p.k.rows(b, key_head, 0, length), v = p.v.rows(b, key_head, 0, length);
    const int keys = visible_keys(length, s0); /* of this tile */
    const int64_t t_first = keys == 0 ? p.queries : p.causal ? larger<int64_t>(s0 - offset, 0) : 0;

    float dk[kPerThread][Columns] = {}, dv[kPerThread][Columns] = {};
    for (int head = key_head * group; head < (key_head + 1) * group; ++head) {
        const Rows q = p.q.rows(b, head, 0, p.queries), dout = p.dout.rows(b, head, 0, p.queries);
        const float* const lse = p.lse + b * p.lse_batch + head * p.lse_head;
        const float* const delta = p.delta + (b * p.query_heads + head) * p.queries;
        for (int64_t t0 = t_first; t0 < p.queries; t0 += kTile) {
            float score[kPerThread][kPerThread], dprobability[kPerThread][kPerThread];
            product_transposed(score, k, s0, q, t0, p.head_size, staging);
            product_transposed(dprobability, v, s0, dout, t0, p.head_size, staging);
            int first[kPerThread], last[kPerThread];
#pragma unroll
            for (int i = 0; i < kPerThread; ++i) {
                const int r = ty + kSide * i;
                first[i] = p.causal ? static_cast<int>(smaller<int64_t>(larger<int64_t>(s0 + r - offset - t0, 0), kTile)) : 0;
                last[i] = r < keys ? static_cast<int>(smaller<int64_t>(p.queries - t0, kTile)) : 0;
#pragma unroll
                for (int j = 0; j < kPerThread; ++j) {
                    const int column = tx + kSide * j;
                    const bool visible = column >= first[i] && column < last[i];
                    const float weight = visible ? probability(score[i][j], p.scale, lse[t0 + column]) : 0.0f;
                    score[i][j] = visible ? weight * (dprobability[i][j] - delta[t0 + column]) : 0.0f;
                    weights[r * kWeightPitch + column] = weight;
                }
            }
            product_values(dv, weights, first, last, dout, t0, column0, p.head_size, staging);
            __syncthreads();
#pragma unroll
            for (int i = 0; i < kPerThread; ++i)
#pragma unroll
                for (int j = 0; j < kPerThread; ++j) weights[(ty + kSide * i) * kWeightPitch + tx + kSide * j] = score[i][j];
            product_values(dk, weights, first, last, q, t0, column0, p.head_size, staging);
        }
        const float eta = p.eta ? p.eta.load(head) : 0.0f;
        if (eta != 0 && keys > 0) {
            __syncthreads(); /* the powers of the head before may still be read */
            fill_powers(powers, eta);
            __syncthreads();
            const double* carry = p.reverse_carries + ((b * p.query_heads + head) * tiles + tile) * p.head_size;
            int first[kPerThread], last[kPerThread];
#pragma unroll
            for (int i = 0; i < kPerThread; ++i) {
                const int r = ty + kSide * i;
                first[i] = r + 1;
                last[i] = r < keys ? kTile : 0;
#pragma unroll
                for (int j = 0; j < kPerThread; ++j) weights[r * kWeightPitch + tx + kSide * j] = powers[larger(tx + kSide * j - r, 0)];
#pragma unroll
                for (int c = 0; c < Columns; ++c)
                    if (r < keys && own + kSide * c < p.head_size)
                        dv[i][c] = fmaf(powers[kTile - r], static_cast<float>(carry[own + kSide * c]), dv[i][c]);
            }
            product_values(dv, weights, first, last, dout, s0 - offset, column0, p.head_size, staging);
        }
    }
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
        const int64_t s = s0 + ty + kSide * i;
        if (s >= p.keys) continue;
#pragma unroll
        for (int c = 0; c < Columns; ++c) {
            if (own + kSide * c >= p.head_size) continue;
            p.dk.data.store(b * p.dk.batch + s * p.dk.row + key_head * p.dk.head + own + kSide * c, dk[i][c] * p.scale);
            p.dv.data.store(b * p.dv.batch + s * p.dv.row + key_head * p.dv.head + own + kSide * c, dv[i][c]);
        }
    }
}

Problem problem(const df_attention_args* args) {
    Problem p = {};
    p.out = heads(args->out);
    p.attn = heads(args->attn);
    p.dq = heads(args->dq);
    p.dk = heads(args->dk);
    p.dv = heads(args->dv);
    p.dout = heads(args->dout);
    p.q = heads(args->q);
    p.k = heads(args->k);
    p.v = heads(args->v);
    p.lse = static_cast<float*>(args->lse->data);
    p.lse_batch = args->lse->stride[0];
    p.lse_head = args->lse->stride[1];
    if (args->lengths != nullptr) {
        p.lengths = static_cast<const int32_t*>(args->lengths->data);
        p.lengths_stride = args->lengths->stride[0];
    }
    p.eta = floats(args->eta);
    p.chunks = MomentumChunks(args);
    p.queries = args->q->shape[1];
    p.keys = args->k->shape[1];
    p.query_heads = static_cast<int>(args->q->shape[2]);
    p.key_heads = static_cast<int>(args->k->shape[2]);
    p.head_size = static_cast<int>(args->q->shape[3]);
    p.scale = static_cast<float>(args->scale);
    p.causal = args->causal != 0 || args->eta != nullptr;
    return p;
}

/// Columns of the result a thread owns: registers per thread grow with it, so a small head size should not pay for 256.
template <class Launch>
int by_columns(const Call& call, int head_size, Launch&& run) {
    if (head_size <= 64) return run(std::integral_constant<int, 4>());
    if (head_size <= 128) return run(std::integral_constant<int, 8>());
    if (head_size <= 256) return run(std::integral_constant<int, 16>());
    return fail(call.error, DF_UNSUPPORTED, "%s: head size %d, expected 1..256", call.op, head_size);
}

}  // namespace

int attention_forward(const Call& call, const df_attention_args* args) {
    if (const int status = call.require_device_floats({args->out, args->attn, args->q, args->k, args->v, args->lse, args->eta}))
        return status;
    if (attention_forward_hopper_serves(call, args)) return attention_forward_hopper(call, args);
    Problem p = problem(args);
    Scratch scratch(call, args->eta != nullptr ? p.chunks.carry_bytes() : 1);
    if (!scratch) return scratch.failure();
    if (args->eta != nullptr) {
        p.carries = scratch.as<double>();
        if (const int status = momentum_carries(call, args, p.chunks, scratch.as<double>())) return status;
    }
    if (attention_mma_serves(p)) return attention_forward_mma(call, p, args->q->shape[0]);
    const int64_t blocks = args->q->shape[0] * p.query_heads * ceil_div(p.queries, kTile);
    return by_columns(call, p.head_size, [&](auto columns) {
        return launch(call, "attention_forward_tile", blocks, kTileThreads, 0, attention_forward_tile<decltype(columns)::value>, p);
    });
}

int attention_backward(const Call& call, const df_attention_args* args) {
    if (const int status = call.require_device_floats(
            {args->dq, args->dk, args->dv, args->deta, args->dout, args->q, args->k, args->v, args->out, args->attn, args->lse, args->eta}))
        return status;
    if (attention_backward_hopper_serves(call, args)) return attention_backward_hopper(call, args);
    Problem p = problem(args);
    if (args->attn == nullptr) p.attn = p.out;
    const int64_t batch = args->q->shape[0], rows = batch * p.query_heads * p.queries;
    Scratch delta(call, rows * static_cast<int64_t>(sizeof(float)));
    Scratch reverse(call, args->eta != nullptr
                              ? batch * p.query_heads * ceil_div(p.keys, kTile) * p.head_size * static_cast<int64_t>(sizeof(double))
                              : 1);
    if (!delta) return delta.failure();
    if (!reverse) return reverse.failure();
    p.delta = delta.as<float>();
    if (const int status = launch(call, "attention_backward_delta", ceil_div(rows, kDeltaRows), kDeltaRows * kWarp, 0,
                                  attention_backward_delta, p, rows))
        return status;
    if (args->eta != nullptr) {
        p.reverse_carries = reverse.as<double>();
        if (const int status = momentum_reverse_carries(call, args, p.chunks, reverse.as<double>())) return status;
    }
    const int64_t query_blocks = batch * p.query_heads * ceil_div(p.queries, kTile);
    const int64_t key_blocks = batch * p.key_heads * ceil_div(p.keys, kTile);
    const int status = attention_mma_serves(p) ? attention_backward_mma(call, p, batch) : by_columns(call, p.head_size, [&](auto columns) {
        constexpr int kColumns = decltype(columns)::value;
        if (const int failed = launch(call, "attention_backward_queries", query_blocks, kTileThreads, 0,
                                      attention_backward_queries<kColumns>, p))
            return failed;
        constexpr int kKeyColumns = kColumns < 8 ? kColumns : 8, kGroups = kColumns / kKeyColumns;
        return launch(call, "attention_backward_keys", key_blocks * kGroups, kTileThreads, 0, attention_backward_keys<kKeyColumns>, p,
                      kGroups);
    });
    if (status != DF_OK || args->eta == nullptr || args->deta == nullptr) return status;
    return momentum_eta_gradient(call, args, p.chunks);
}

}  // namespace dualform::cuda
