// Backward of attention and momentum attention on Hopper, bfloat16, head sizes 64 and 128.
//
// A block keeps a tile of 128 keys: its K and V in shared memory, dk and dv in the registers of two warpgroups of 64 keys each. It walks the
// query tiles that see these keys, for every query head of the group in turn, so dk and dv have one owner and one order. A third
// warpgroup has two threads that load and a warp that takes dq away:
//   S^T = K Q^T and dP^T = V dout^T      64 keys x queries, in registers
//   dv += P^T dout,  dk += dS^T Q        P^T and dS^T as A operands from the registers where they were made
//   dq  = dS K                           dS through shared memory once; the block's part is added to a float sum in global memory
// The sum of dq over key tiles arrives in any order, or, deterministic, from the last tile to the first: a counter per query tile says
// whose turn it is. Blocks are numbered in the order of those turns; devices start them in the order of their numbers, which CUDA does not promise but
// this relies on: the one that is waited for is then running or done. (A second pass over the
// keys for dq would need no turns, but seven products instead of five.) Two small kernels stand around: one before makes per query the two
// numbers that the walk needs, one after rounds dq.
//
// What lies outside a row's range is selected away, and rows of K behind the key length are set to 0 in shared memory, so NaN in padding
// changes no bit. Inside the range of a tile products with probability 0 are formed: a NaN in a future key of the same tile reaches dq.
#include "attention_hopper_backward.h"

#include "attention_tiles.h"
#include "choice.h"
#include "hopper.h"
#include "momentum.h"

namespace dualform::cuda {

namespace {

using namespace hopper;

constexpr float kLog2e = 1.44269504088896341f;
constexpr int kBlockThreads = 384; /* loads and adds; two multiply */
constexpr int kMultiplying = 256;
constexpr int kStages = 2; /* of q and dout */
constexpr int kStoreThreads = 256;

/// Tile sizes by head size, and where things lie in shared memory. 64 queries at head size 128 leave room for both accumulators.
template <int HS>
struct Tile {
    static constexpr int kQueries = HS == 64 ? 128 : 64;
    static constexpr int kPanels = HS / kPanelColumns, kQueryPanels = kQueries / kPanelColumns;
    static constexpr uint32_t kKeyPanel = kKeyRows * kRowBytes, kQueryPanel = kQueries * kRowBytes;
    static constexpr uint32_t kKeyBytes = kPanels * kKeyPanel, kQueryBytes = kPanels * kQueryPanel;
    static constexpr uint32_t kRowNumberBytes = kQueries * sizeof(float);
    static constexpr uint32_t kSumBytes = kQueries * HS * sizeof(float);
    static constexpr uint32_t kK = 0, kV = kK + kKeyBytes, kQ = kV + kKeyBytes, kDout = kQ + kStages * kQueryBytes,
                              kScores = kDout + kStages * kQueryBytes, kSum = kScores + kQueryPanels * kKeyPanel,
                              kLse = kSum + kSumBytes, kDelta = kLse + kStages * kRowNumberBytes,
                              kBarriers = kDelta + kStages * kRowNumberBytes, kWork = kBarriers + (1 + 4 * kStages) * 8, kEnd = kWork + 64;
    static constexpr size_t kShared = kEnd + kAtomBytes;
    static_assert(kShared <= kSharedBytes && kSumBytes == 8 * kMultiplying * 16, "a block's shared memory");
};

struct Problem {
    CUtensorMap q, k, v, dout, dk, dv;
    float* dq_sum;      /* (B, NH, query tiles, one tile as the threads hold it) */
    const float *lse2, *delta; /* (B, NH, query tiles x queries of a tile): lse log2(e), infinity where there is no row; dout . attn */
    const double* reverse_carries;
    int* turns; /* (B, NH, query tiles), or null: in any order */
    const int32_t* lengths;
    int64_t lengths_stride;
    Floats eta;
    int queries, keys, query_tiles, key_tiles, query_heads, key_heads;
    float scale;
    bool causal;
};

#if DF_HOPPER_CODE

/* A block of 384 threads starts with 168 registers a thread; setmaxnreg can only hand these on, and waits for ever for more. */
constexpr int kFewRegisters = 24, kManyRegisters = 240;
static_assert(kFewRegisters + 2 * kManyRegisters <= 3 * 168, "registers of a block");

/// Waits until the counter says `turn`. Then what was added before this turn has landed.
__device__ __forceinline__ void await_turn(const int* counter, int turn) {
#ifdef DF_CUDA_EMULATION
    if (*counter != turn) emulation::fault("a turn that has not come, of blocks that run in order");
#else
    int now;
    do asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(counter) : "memory");
    while (now != turn);
    asm volatile("fence.proxy.async.global;" ::: "memory");
#endif
}
/// After bulk_wait: what this thread added has landed.
__device__ __forceinline__ void pass_turn(int* counter) {
#ifdef DF_CUDA_EMULATION
    ++*counter;
#else
    asm volatile("fence.proxy.async.global;" ::: "memory");
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(counter) : "memory");
#endif
}

template <int HS, bool Momentum>
__device__ __forceinline__ void multiply(const Problem& p, char* shared, uint64_t* kv_full, uint64_t* q_full,
                                         uint64_t* dout_full, uint64_t* q_empty, uint64_t* dout_empty) {
    using T = Tile<HS>;
    constexpr int kQueries = T::kQueries;
    const KeyTile& work = *reinterpret_cast<const KeyTile*>(shared + T::kWork);
    const int consumer = static_cast<int>(threadIdx.x) / kWarpgroup - 1, thread = static_cast<int>(threadIdx.x) - kWarpgroup;
    const int lane = thread % kWarp;
    const int row = consumer * 64 + first_row(thread), column = first_column(thread); /* of the tile: this row and row + 8 */
    const bool leads = thread % kWarpgroup == 0;
    const uint32_t base = shared_address(shared), own_k = base + T::kK + consumer * 64 * kRowBytes,
                   own_v = base + T::kV + consumer * 64 * kRowBytes, scores = base + T::kScores;
    const float scale_log2 = p.scale * kLog2e;
    float dk[HS / 2] = {}, dv[HS / 2] = {};

    if (work.count > 0) {
        barrier_wait(kv_full, 0);
        if (work.s0 + kKeyRows > work.length) { /* 0 times NaN must not reach dq */
            const int units = HS / 8, first = (work.length - work.s0) * units;
            for (int u = first + thread; u < kKeyRows * units; u += kMultiplying) {
                const int r = u / units, c = u % units * 8;
                *reinterpret_cast<float4*>(shared + T::kK + c / kPanelColumns * T::kKeyPanel + panel_offset(r, c % kPanelColumns)) = {0, 0, 0, 0};
            }
            async_proxy_fence();
            named_sync<1, kMultiplying>();
        }
    }
    int i = 0;
    for (int head = work.first_head(); work.count > 0 && head < work.first_head() + work.group; ++head) {
        float log2_eta = -INFINITY;
        if constexpr (Momentum) log2_eta = log2f(p.eta.load(head));
        for (int m = work.first_tile; m < p.query_tiles; ++m, ++i) {
            const int stage = i % kStages, t0 = m * kQueries;
            const uint32_t parity = i / kStages & 1, q = base + T::kQ + stage * T::kQueryBytes, dout = base + T::kDout + stage * T::kQueryBytes;
            const float* const lse2 = reinterpret_cast<const float*>(shared + T::kLse + stage * T::kRowNumberBytes);
            const float* const delta = reinterpret_cast<const float*>(shared + T::kDelta + stage * T::kRowNumberBytes);
            float score[kQueries / 2], dscore[kQueries / 2];
            barrier_wait(&q_full[stage], parity);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < HS / 16; ++k)
                wgmma<Major::kK, Major::kK>(score, k_major(own_k, T::kKeyPanel, k), k_major(q, T::kQueryPanel, k), k > 0);
            wgmma_commit();
            barrier_wait(&dout_full[stage], parity);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < HS / 16; ++k)
                wgmma<Major::kK, Major::kK>(dscore, k_major(own_v, T::kKeyPanel, k), k_major(dout, T::kQueryPanel, k), k > 0);
            wgmma_commit();
            wgmma_wait<1>();
            // Query columns [first, last) see key row `row`, [first8, last8) key row `row` + 8.
            const bool edge = (p.causal && work.s0 + kKeyRows - 1 - work.offset > t0) || t0 + kQueries > p.queries ||
                              work.s0 + kKeyRows > work.length;
            const int first = p.causal ? work.s0 + row - work.offset - t0 : 0, first8 = p.causal ? first + 8 : 0;
            const int last = work.s0 + row < work.length ? p.queries - t0 : 0, last8 = work.s0 + row + 8 < work.length ? p.queries - t0 : 0;
#pragma unroll
            for (int n = 0; n < kQueries / 8; ++n) {
                const float2 l = *reinterpret_cast<const float2*>(lse2 + 8 * n + column);
                score[4 * n] = exp2_approx(fmaf(score[4 * n], scale_log2, -l.x));
                score[4 * n + 1] = exp2_approx(fmaf(score[4 * n + 1], scale_log2, -l.y));
                score[4 * n + 2] = exp2_approx(fmaf(score[4 * n + 2], scale_log2, -l.x));
                score[4 * n + 3] = exp2_approx(fmaf(score[4 * n + 3], scale_log2, -l.y));
                if (edge) {
                    const int c = 8 * n + column;
                    if (c < first || c >= last) score[4 * n] = 0;
                    if (c + 1 < first || c + 1 >= last) score[4 * n + 1] = 0;
                    if (c < first8 || c >= last8) score[4 * n + 2] = 0;
                    if (c + 1 < first8 || c + 1 >= last8) score[4 * n + 3] = 0;
                }
            }
            wgmma_wait<0>();
#pragma unroll
            for (int n = 0; n < kQueries / 8; ++n) {
                const float2 d = *reinterpret_cast<const float2*>(delta + 8 * n + column);
                dscore[4 * n] = score[4 * n] * (dscore[4 * n] - d.x);
                dscore[4 * n + 1] = score[4 * n + 1] * (dscore[4 * n + 1] - d.y);
                dscore[4 * n + 2] = score[4 * n + 2] * (dscore[4 * n + 2] - d.x);
                dscore[4 * n + 3] = score[4 * n + 3] * (dscore[4 * n + 3] - d.y);
                if (edge) { /* v and dout may hold what is no number where nothing is seen */
#pragma unroll
                    for (int j = 0; j < 4; ++j)
                        if (score[4 * n + j] == 0) dscore[4 * n + j] = 0;
                }
            }
            if constexpr (Momentum) {
                // Queries at positions behind a key and inside the block's tile add eta^(distance) to P^T, for dv only.
                const int behind = t0 + work.offset - work.s0; /* from the tile's first key to this tile's first query */
                if (log2_eta != -INFINITY && behind < kKeyRows && behind + kQueries > 1) {
                    const int end = smaller(kKeyRows - behind, p.queries - t0);
#pragma unroll
                    for (int n = 0; n < kQueries / 8; ++n) {
#pragma unroll
                        for (int j = 0; j < 4; ++j) {
                            const int c = 8 * n + column + j % 2, distance = behind + c - row - j / 2 * 8;
                            if (distance > 0 && c < end) score[4 * n + j] += exp2_approx(static_cast<float>(distance) * log2_eta);
                        }
                    }
                }
            }
            uint32_t weights[kQueries / 4], dweights[kQueries / 4];
#pragma unroll
            for (int k = 0; k < kQueries / 4; ++k) {
                weights[k] = pack_bf16(score[2 * k], score[2 * k + 1]);
                dweights[k] = pack_bf16(dscore[2 * k], dscore[2 * k + 1]);
            }
            named_sync<1, kMultiplying>(); /* the product for the dq before has read dS */
#pragma unroll
            for (int k = 0; k < kQueries / 16; ++k) {
                const uint32_t r = consumer * 64 + thread % kWarpgroup / kWarp * 16 + lane % 16, c = k % 4 * 16 + lane / 16 * 8;
                stmatrix_x4(scores + k / 4 * T::kKeyPanel + panel_offset(r, c),
                            {dweights[4 * k], dweights[4 * k + 1], dweights[4 * k + 2], dweights[4 * k + 3]});
            }
            async_proxy_fence();
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < kQueries / 16; ++k)
                wgmma<Major::kMN>(dv, weights[4 * k], weights[4 * k + 1], weights[4 * k + 2], weights[4 * k + 3],
                                  mn_major(dout, T::kQueryPanel, k), true);
            wgmma_commit();
            named_sync<1, kMultiplying>(); /* dS is whole */
            // Each warpgroup makes 64 x 64 of dq: its half of the columns, or of the rows.
            float dq[32];
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < kKeyRows / 16; ++k)
                wgmma<Major::kMN, Major::kMN>(dq, mn_major(scores + (HS == 64 ? consumer * T::kKeyPanel : 0), T::kKeyPanel, k),
                                              mn_major(base + T::kK + (HS == 64 ? 0 : consumer * T::kKeyPanel), T::kKeyPanel, k), k > 0);
            wgmma_commit();
#pragma unroll
            for (int k = 0; k < kQueries / 16; ++k)
                wgmma<Major::kMN>(dk, dweights[4 * k], dweights[4 * k + 1], dweights[4 * k + 2], dweights[4 * k + 3],
                                  mn_major(q, T::kQueryPanel, k), true);
            wgmma_commit();
            wgmma_wait<2>();
            if (leads) barrier_arrive(&dout_empty[stage]);
            wgmma_wait<1>();
            if (i > 0) named_sync<3, kMultiplying + kWarp>(); /* the dq before has left */
            float4* const sum = reinterpret_cast<float4*>(shared + T::kSum);
#pragma unroll
            for (int n = 0; n < 8; ++n) sum[n * kMultiplying + thread] = {dq[4 * n], dq[4 * n + 1], dq[4 * n + 2], dq[4 * n + 3]};
            async_proxy_fence();
            named_arrive<2, kMultiplying + kWarp>();
            wgmma_wait<0>();
            if (leads) barrier_arrive(&q_empty[stage]);
        }
        if constexpr (Momentum) {
            // Queries behind the tile: eta^(keys to its end) times lambda there. The carries are of tiles of kTile keys.
            constexpr int kParts = kKeyRows / kTile;
            const int parts = (p.keys + kTile - 1) / kTile, part = work.tile * kParts + kParts - 1;
            if (log2_eta != -INFINITY && part < parts) {
                const double* const carry = p.reverse_carries + (static_cast<int64_t>(work.b * p.query_heads + head) * parts + part) * HS;
                const float decay = exp2_approx(static_cast<float>(kKeyRows - row) * log2_eta),
                            decay8 = exp2_approx(static_cast<float>(kKeyRows - row - 8) * log2_eta);
#pragma unroll
                for (int n = 0; n < HS / 8; ++n) {
                    const float x = static_cast<float>(carry[8 * n + column]), y = static_cast<float>(carry[8 * n + column + 1]);
                    dv[4 * n] = fmaf(decay, x, dv[4 * n]);
                    dv[4 * n + 1] = fmaf(decay, y, dv[4 * n + 1]);
                    dv[4 * n + 2] = fmaf(decay8, x, dv[4 * n + 2]);
                    dv[4 * n + 3] = fmaf(decay8, y, dv[4 * n + 3]);
                }
            }
        }
    }

    // dk and dv leave where k and v were: both warpgroups have read these for the last time.
    named_sync<1, kMultiplying>();
    const bool seen = work.s0 + row < work.length, seen8 = work.s0 + row + 8 < work.length;
#pragma unroll
    for (int n = 0; n < HS / 8; ++n) {
        char* const at = shared + n / 8 * T::kKeyPanel + panel_offset(row, n % 8 * 8 + column); /* row + 8: same swizzle */
        *reinterpret_cast<uint32_t*>(at + T::kK) = seen ? pack_bf16(dk[4 * n] * p.scale, dk[4 * n + 1] * p.scale) : 0;
        *reinterpret_cast<uint32_t*>(at + T::kK + 8 * kRowBytes) = seen8 ? pack_bf16(dk[4 * n + 2] * p.scale, dk[4 * n + 3] * p.scale) : 0;
        *reinterpret_cast<uint32_t*>(at + T::kV) = seen ? pack_bf16(dv[4 * n], dv[4 * n + 1]) : 0;
        *reinterpret_cast<uint32_t*>(at + T::kV + 8 * kRowBytes) = seen8 ? pack_bf16(dv[4 * n + 2], dv[4 * n + 3]) : 0;
    }
    async_proxy_fence();
    named_sync<1, kMultiplying>();
    if (thread != 0) return;
    for (int panel = 0; panel < T::kPanels; ++panel) {
        store_rows(&p.dk, shared + T::kK + panel * T::kKeyPanel, panel * kPanelColumns, work.s0, work.key_head, work.b);
        store_rows(&p.dv, shared + T::kV + panel * T::kKeyPanel, panel * kPanelColumns, work.s0, work.key_head, work.b);
    }
    bulk_commit();
    bulk_wait<0>();
}

#endif

/// One block per (b, key head, tile of 128 keys).
template <int HS, bool Momentum>
__global__ void __launch_bounds__(kBlockThreads, 1) attention_backward_wgmma(const __grid_constant__ Problem p) {
#if DF_HOPPER_CODE
    using T = Tile<HS>;
    constexpr int kQueries = T::kQueries;
    char* const shared = aligned_shared();
    uint64_t* const kv_full = reinterpret_cast<uint64_t*>(shared + T::kBarriers);
    uint64_t *const q_full = kv_full + 1, *const dout_full = q_full + kStages, *const q_empty = dout_full + kStages,
                    *const dout_empty = q_empty + kStages;
    KeyTile& work = *reinterpret_cast<KeyTile*>(shared + T::kWork);
    if (threadIdx.x == 0) {
        work.find(p, static_cast<int>(blockIdx.x), kQueries);
        barrier_init(kv_full, 1);
        for (int s = 0; s < kStages; ++s) {
            barrier_init(&q_full[s], 1);
            barrier_init(&dout_full[s], 1);
            barrier_init(&q_empty[s], 2);
            barrier_init(&dout_empty[s], 2);
        }
        barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x >= kWarpgroup) {
        registers_increase<kManyRegisters>();
        multiply<HS, Momentum>(p, shared, kv_full, q_full, dout_full, q_empty, dout_empty);
        return;
    }
    registers_decrease<kFewRegisters>();
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const bool one = threadIdx.x % kWarp == 0;
    if ((warp == 0 || warp == 2) && one) { /* one loads K, V and the tiles of q, the other those of dout */
        if (work.count == 0) return;
        if (warp == 0) {
            barrier_arrive_expect(kv_full, 2 * T::kKeyBytes);
            for (int panel = 0; panel < T::kPanels; ++panel) {
                const uint32_t at = panel * T::kKeyPanel;
                load_rows(shared + T::kK + at, &p.k, kv_full, panel * kPanelColumns, work.s0, work.key_head, work.b);
                load_rows(shared + T::kV + at, &p.v, kv_full, panel * kPanelColumns, work.s0, work.key_head, work.b);
            }
        }
        const CUtensorMap* const map = warp == 0 ? &p.q : &p.dout;
        char *const tiles = shared + (warp == 0 ? T::kQ : T::kDout), *const rows = shared + (warp == 0 ? T::kLse : T::kDelta);
        uint64_t *const full = warp == 0 ? q_full : dout_full, *const empty = warp == 0 ? q_empty : dout_empty;
        const int first_head = work.first_head();
        const int64_t first_row_number = ((work.b * static_cast<int64_t>(p.query_heads) + first_head) * p.query_tiles + work.first_tile) * kQueries;
        const float* numbers = (warp == 0 ? p.lse2 : p.delta) + first_row_number;
        int i = 0;
        for (int head = first_head; head < first_head + work.group; ++head) {
            for (int m = work.first_tile; m < p.query_tiles; ++m, ++i) {
                const int stage = i % kStages;
                if (i >= kStages) barrier_wait(&empty[stage], (i / kStages & 1) ^ 1);
                barrier_arrive_expect(&full[stage], T::kQueryBytes + T::kRowNumberBytes);
#pragma unroll 1
                for (int panel = 0; panel < T::kPanels; ++panel)
                    load_rows(tiles + stage * T::kQueryBytes + panel * T::kQueryPanel, map, &full[stage], panel * kPanelColumns, m * kQueries,
                              head, work.b);
                bulk_load(rows + stage * T::kRowNumberBytes, numbers, T::kRowNumberBytes, &full[stage]);
                numbers += kQueries;
            }
            numbers += work.first_tile * kQueries;
        }
    } else if (warp == 1) { /* takes dq away */
        int left = work.count;
        for (int head = work.first_head(); left > 0; ++head)
            for (int m = work.first_tile; m < p.query_tiles; ++m) {
                named_sync<2, kMultiplying + kWarp>();
                if (one) {
                    const int64_t tile = (work.b * static_cast<int64_t>(p.query_heads) + head) * p.query_tiles + m;
                    if (p.turns != nullptr) await_turn(p.turns + tile, work.turn(p, m, kQueries));
                    bulk_add(p.dq_sum + tile * (T::kSumBytes / sizeof(float)), reinterpret_cast<const float*>(shared + T::kSum), T::kSumBytes);
                    bulk_commit();
                    if (p.turns != nullptr) {
                        bulk_wait<0>();
                        pass_turn(p.turns + tile);
                    } else {
                        bulk_wait_read<0>();
                    }
                }
                __syncwarp();
                if (--left > 0) named_arrive<3, kMultiplying + kWarp>(); /* nobody waits after the last */
            }
        if (one) bulk_wait<0>();
    }
#endif
}

/// A (B, T, NH, HS) tensor of BF16 whose rows start at multiples of 16 bytes.
struct Heads {
    bf16* data;
    int64_t batch, row, head; /* strides */
};

Heads heads(const df_view* view) { return {static_cast<bf16*>(view->data), view->stride[0], view->stride[1], view->stride[2]}; }

/// One warp per row of the query tiles, also those behind the last query: lse2 and delta.
template <int HS>
__global__ void attention_backward_row_numbers(float* lse2, float* delta, int64_t rows, int64_t padded_queries, int64_t queries, int query_heads,
                                               Heads dout, Heads attn, const float* lse, int64_t lse_batch, int64_t lse_head) {
    constexpr int kEach = HS / kWarp;
    const int lane = threadIdx.x % kWarp;
    const int64_t row = (blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x) / kWarp;
    if (row >= rows) return;
    const int64_t t = row % padded_queries, head = row / padded_queries % query_heads, b = row / padded_queries / query_heads;
    float sum = 0, l = -INFINITY;
    if (t < queries) {
        const bf16* const x = dout.data + b * dout.batch + t * dout.row + head * dout.head + lane * kEach;
        const bf16* const y = attn.data + b * attn.batch + t * attn.row + head * attn.head + lane * kEach;
#pragma unroll
        for (int d = 0; d < kEach; ++d) sum = fmaf(to_float(x[d]), to_float(y[d]), sum);
        l = lse[b * lse_batch + head * lse_head + t];
    }
    sum = sum_lanes(sum);
    if (lane != 0) return;
    lse2[row] = l == -INFINITY ? INFINITY : l * kLog2e; /* a row that saw nothing gives every key 0 */
    delta[row] = sum;
}

/// One block per (b, head, query tile): the sum, scaled and rounded, from where the threads of attention_backward_wgmma held it.
template <int HS>
__global__ void attention_backward_round_queries(Heads dq, const float4* dq_sum, int query_tiles, int64_t queries, int query_heads, float scale) {
    constexpr int kQueries = Tile<HS>::kQueries, kWarps = kStoreThreads / kWarp;
    const int m = static_cast<int>(blockIdx.x % query_tiles);
    const int64_t head = blockIdx.x / query_tiles % query_heads, b = blockIdx.x / query_tiles / query_heads;
    const float4* const tile = dq_sum + blockIdx.x * static_cast<int64_t>(8 * kMultiplying);
    const int lane = threadIdx.x % kWarp, n = lane / 4;
    // A warp takes the 64 columns of the rows r and r + 8: one quad of threads and its eight n.
    for (int quad = threadIdx.x / kWarp; quad < kMultiplying / 4; quad += kWarps) {
        const int thread = quad * 4 + lane % 4, consumer = thread / kWarpgroup;
        const float4 value = tile[n * kMultiplying + thread];
        const int r = first_row(thread) + (HS == 64 ? consumer * 64 : 0), c = 8 * n + first_column(thread) + (HS == 64 ? 0 : consumer * 64);
        const float pairs[2][2] = {{value.x, value.y}, {value.z, value.w}};
        for (int i = 0; i < 2; ++i) {
            const int64_t t = m * static_cast<int64_t>(kQueries) + r + 8 * i;
            if (t >= queries) continue;
            const uint32_t low = to_bf16(pairs[i][0] * scale).bits, high = to_bf16(pairs[i][1] * scale).bits;
            *reinterpret_cast<uint32_t*>(dq.data + b * dq.batch + t * dq.row + head * dq.head + c) = low | high << 16;
        }
    }
}

template <int HS>
int run(const Call& call, const df_attention_args* args) {
    using T = Tile<HS>;
    const bool in_turns = deterministic();
    Problem p = {};
    p.queries = static_cast<int>(args->q->shape[1]);
    p.keys = static_cast<int>(args->k->shape[1]);
    p.query_heads = static_cast<int>(args->q->shape[2]);
    p.key_heads = static_cast<int>(args->k->shape[2]);
    p.query_tiles = static_cast<int>(ceil_div(p.queries, T::kQueries));
    p.key_tiles = static_cast<int>(ceil_div(p.keys, kKeyRows));
    p.scale = static_cast<float>(args->scale);
    p.causal = args->causal != 0 || args->eta != nullptr;
    p.eta = floats(args->eta);
    if (args->lengths != nullptr) {
        p.lengths = static_cast<const int32_t*>(args->lengths->data);
        p.lengths_stride = args->lengths->stride[0];
    }
    const struct {
        CUtensorMap* map;
        const df_view* view;
        int rows;
    } maps[] = {{&p.q, args->q, T::kQueries}, {&p.dout, args->dout, T::kQueries}, {&p.k, args->k, kKeyRows},
                {&p.v, args->v, kKeyRows},    {&p.dk, args->dk, kKeyRows},        {&p.dv, args->dv, kKeyRows}};
    for (const auto& m : maps)
        if (const int status = rows_map(call, m.map, m.view, m.rows)) return status;

    const int64_t batch = args->q->shape[0], heads_in_all = batch * p.query_heads, tiles = heads_in_all * p.query_tiles;
    const int64_t padded = static_cast<int64_t>(p.query_tiles) * T::kQueries, rows = heads_in_all * padded;
    const int64_t sum_bytes = tiles * T::kSumBytes, number_bytes = rows * static_cast<int64_t>(sizeof(float)),
                  turn_bytes = in_turns ? ceil_div(tiles * static_cast<int64_t>(sizeof(int)), 16) * 16 : 0;
    const MomentumChunks chunks(args);
    Scratch scratch(call, sum_bytes + turn_bytes + 2 * number_bytes);
    Scratch reverse(call, args->eta != nullptr ? heads_in_all * ceil_div(p.keys, kTile) * HS * static_cast<int64_t>(sizeof(double)) : 1);
    if (!scratch) return scratch.failure();
    if (!reverse) return reverse.failure();
    p.dq_sum = scratch.as<float>();
    p.turns = in_turns ? scratch.as<int>(sum_bytes) : nullptr;
    float *const lse2 = scratch.as<float>(sum_bytes + turn_bytes), *const delta = scratch.as<float>(sum_bytes + turn_bytes + number_bytes);
    p.lse2 = lse2;
    p.delta = delta;
    p.reverse_carries = reverse.as<double>();

    if (const int status = call.check(cudaMemsetAsync(p.dq_sum, 0, static_cast<size_t>(sum_bytes + turn_bytes), call.stream), "dq's sum"))
        return status;
    const df_view* const attn = args->attn != nullptr ? args->attn : args->out;
    if (const int status = launch(call, "attention_backward_row_numbers", ceil_div(rows, kStoreThreads / kWarp), kStoreThreads, 0,
                                  attention_backward_row_numbers<HS>, lse2, delta, rows, padded, static_cast<int64_t>(p.queries),
                                  p.query_heads, heads(args->dout), heads(attn), static_cast<const float*>(args->lse->data),
                                  args->lse->stride[0], args->lse->stride[1]))
        return status;
    if (args->eta != nullptr)
        if (const int status = momentum_reverse_carries(call, args, chunks, reverse.as<double>())) return status;
    const int64_t blocks = batch * p.key_heads * p.key_tiles;
    const auto kernel = args->eta != nullptr ? attention_backward_wgmma<HS, true> : attention_backward_wgmma<HS, false>;
    constexpr const char* kName = "attention_backward_wgmma";
    if (const int status = in_turns ? launch_block<BlockOrder::kRising>(call, kName, blocks, kBlockThreads, T::kShared, kernel, p)
                                    : launch_block(call, kName, blocks, kBlockThreads, T::kShared, kernel, p))
        return status;
    if (const int status = launch(call, "attention_backward_round_queries", tiles, kStoreThreads, 0, attention_backward_round_queries<HS>,
                                  heads(args->dq), reinterpret_cast<const float4*>(p.dq_sum), p.query_tiles, static_cast<int64_t>(p.queries),
                                  p.query_heads, p.scale))
        return status;
    return args->eta != nullptr && args->deta != nullptr ? momentum_eta_gradient(call, args, chunks) : DF_OK;
}

}  // namespace

bool attention_backward_hopper_serves(const Call& call, const df_attention_args* args) {
    const int64_t head_size = args->q->shape[3];
    if (kernels() != Kernels::kHopper || !device_fits(call) || (head_size != 64 && head_size != 128)) return false;
    const df_view* const attn = args->attn != nullptr ? args->attn : args->out;
    for (const df_view* view : {args->q, args->k, args->v, args->dout, attn, args->dq, args->dk, args->dv})
        if (!tensor_map_fits(view)) return false;
    return args->lse->dtype == DF_F32;
}

int attention_backward_hopper(const Call& call, const df_attention_args* args) {
    return args->q->shape[3] == 64 ? run<64>(call, args) : run<128>(call, args);
}

}  // namespace dualform::cuda
