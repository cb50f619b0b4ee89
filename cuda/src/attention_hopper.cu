// Attention and momentum attention forward for Hopper: bfloat16, head sizes 64 and 128.
//
// A block stays on its SM and walks over blocks of queries, the longest first. One warpgroup, the producer, copies tiles by TMA into a
// ring in shared memory; each of the others owns 64 queries: scores by wgmma into registers, softmax in base 2, P to bfloat16 where it
// lies (an accumulator is the A operand of the next product), P V by wgmma. The scores of tile j are issued before P V of tile j - 1, so
// that tensor cores work during softmax. What is stored of a row is its output and its lse.
//
// Masks are ranges of keys per row, applied in the first and the last tile of a slice, the only ones that can need it. Keys from
// lengths[b] on are never multiplied: their scores are replaced, their values in the last tile are overwritten with zeros.
//
// Momentum: with the slice's first position p0, row r adds eta^r c (c: m at p0, from momentum_carries) and, for the 64 positions of the
// slice, D V with D[r][i] = eta^(r - i), i < r. These keys lie in the slice's last tile. Where only the sum is asked for, l D is added
// to P of that tile once its row sum l is final: no product more. Where the attention part is asked for too, it is stored first, and D V
// is a product over the 64 keys in shared memory.
#include "attention_hopper.h"

#include "attention_tiles.h"
#include "choice.h"
#include "hopper.h"
#include "momentum.h"

namespace dualform::cuda {

namespace {

using namespace hopper;

enum class Momentum { kNone, kFolded, kSeparate };

/// What a block works on: written by the producer, read again where it is needed, for the consumers' registers are full.
struct Work {
    int t0; /* first query, -1: nothing is left */
    int batch, head, length;
    uint32_t end, ends[3]; /* turn of the ring behind the tiles that the block needs, and that each slice needs */
    uint32_t next; /* parity of q_full's phase for what comes after */
};

constexpr int kProducerRegisters = 24;

/// Tile sizes and registers, from the sizes of shared memory (227 KiB) and of the register file (65536), at which ptxas spills nothing.
template <int HS>
struct Shape;
template <>
struct Shape<128> {
    static constexpr int kSlices = 2, kStages = 2, kKeys = 128, kRegisters = 240; /* 160 KiB; three slices spill */
};
template <>
struct Shape<64> {
    static constexpr int kSlices = 3, kStages = 4, kKeys = 128, kRegisters = 160; /* 152 KiB */
};
/// Shared memory, in bytes from a multiple of 1024 on.
template <int HS>
struct Layout {
    using S = Shape<HS>;
    static constexpr int kPanels = HS / kPanelColumns;
    static constexpr uint32_t kQueryPanel = kSliceRows * kRowBytes, kKeyPanel = S::kKeys * kRowBytes;
    static constexpr uint32_t kSliceBytes = kPanels * kQueryPanel, kTileBytes = kPanels * kKeyPanel;
    static constexpr uint32_t kKeysAt = S::kSlices * kSliceBytes, kValuesAt = kKeysAt + S::kStages * kTileBytes;
    static constexpr uint32_t kBarriersAt = kValuesAt + S::kStages * kTileBytes;
    static constexpr int kBarriers = 2 + 4 * S::kStages;
    static constexpr uint32_t kWorkAt = kBarriersAt + 8 * kBarriers;
    static constexpr size_t kBytes = kAtomBytes + kWorkAt + sizeof(Work);
    static_assert(kBytes <= kSharedBytes, "a block's shared memory");
    static_assert(kWarpgroup * (kProducerRegisters + S::kSlices * S::kRegisters) <= 65536, "an SM's registers");
    static constexpr int kThreads = (S::kSlices + 1) * kWarpgroup;
    static constexpr int kLaunched = 65536 / kThreads / 8 * 8; /* registers a thread of the block starts with */
    static_assert(kProducerRegisters + S::kSlices * S::kRegisters <= (S::kSlices + 1) * kLaunched,
                  "setmaxnreg only hands on what the block was launched with, and waits for ever for more");
};

struct Forward {
    CUtensorMap q, k, v, out, attn; /* attn: kSeparate */
    AttentionTiles tiles;
    int query_heads, group; /* group: query heads per key head */
    float* lse;
    int64_t lse_batch, lse_head;
    const int32_t* lengths;
    int64_t lengths_stride;
    Floats eta;
    const double* carries;
    MomentumChunks chunks;
    float scale_log2; /* scale log2(e) */
};

#if DF_HOPPER_CODE

__device__ __forceinline__ int length_of(const Forward& p, int batch) {
    return p.lengths == nullptr ? p.tiles.keys : smaller(larger(p.lengths[batch * p.lengths_stride], 0), p.tiles.keys);
}

/// A place in a ring of stages, and the parity of the barrier phase to wait for there.
template <int Stages>
struct Turn {
    uint32_t count = 0;
    __device__ uint32_t stage() const { return count % Stages; }
    __device__ uint32_t full() const { return count / Stages % 2; }      /* of the consumer */
    __device__ uint32_t empty() const { return full() ^ 1u; } /* of the producer: the phase before; the first round need not wait */
    __device__ bool first_round() const { return count < Stages; }
};

/// A barrier of one slice's warpgroup, with an id known to the compiler.
__device__ __forceinline__ void slice_sync(int slice) {
    if (slice == 0)
        named_sync<1, kWarpgroup>();
    else if (slice == 1)
        named_sync<2, kWarpgroup>();
    else
        named_sync<3, kWarpgroup>();
}

/// The accumulator (64 x HS) as bfloat16 into the slice's panels, from there by TMA to rows t0.. of `map`.
template <int HS>
__device__ __forceinline__ void store_slice(const float (&o)[HS / 2], char* panels, const CUtensorMap* map, int slice, int t0, int head,
                                            int batch) {
    const int row = first_row(threadIdx.x), column = first_column(threadIdx.x);
    const bool leader = threadIdx.x % kWarpgroup == 0;
    if (leader) bulk_wait_read<0>(); /* an earlier store out of the same panels */
    slice_sync(slice);
#pragma unroll
    for (int n = 0; n < HS / 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i)
            *reinterpret_cast<uint32_t*>(panels + n / 8 * Layout<HS>::kQueryPanel + panel_offset(row + 8 * i, n % 8 * 8 + column)) =
                pack_bf16(o[4 * n + 2 * i], o[4 * n + 2 * i + 1]);
    async_proxy_fence();
    slice_sync(slice);
    if (leader) {
#pragma unroll
        for (int panel = 0; panel < HS / kPanelColumns; ++panel)
            store_rows(map, panels + panel * Layout<HS>::kQueryPanel, panel * kPanelColumns, t0, head, batch);
        bulk_commit();
    }
}

#endif

template <int HS, Momentum kMomentum>
__global__ void __launch_bounds__(Layout<HS>::kThreads, 1) attention_forward_wgmma(const __grid_constant__ Forward p) {
#if DF_HOPPER_CODE
    using L = Layout<HS>;
    using S = Shape<HS>;
    constexpr int kKeys = S::kKeys, kStages = S::kStages;
    char* const shared = aligned_shared();
    uint64_t* const barriers = reinterpret_cast<uint64_t*>(shared + L::kBarriersAt);
    uint64_t *const q_full = barriers, *const q_empty = barriers + 1;
    uint64_t *const k_full = barriers + 2, *const k_empty = k_full + kStages;
    uint64_t *const v_full = k_empty + kStages, *const v_empty = v_full + kStages;
    volatile Work* const work = reinterpret_cast<Work*>(shared + L::kWorkAt);
    if (threadIdx.x == 0) {
        barrier_init(q_full, 1);
        barrier_init(q_empty, S::kSlices);
        for (int i = 0; i < kStages; ++i) {
            barrier_init(k_full + i, 1);
            barrier_init(v_full + i, 1);
            barrier_init(k_empty + i, S::kSlices);
            barrier_init(v_empty + i, S::kSlices);
        }
        barrier_init_fence();
    }
    __syncthreads();
    const int warpgroup = threadIdx.x / kWarpgroup;

    if (warpgroup == 0) {
        registers_decrease<kProducerRegisters>();
        if (threadIdx.x != 0) return;
        const int count = p.tiles.count(), workers = static_cast<int>(gridDim.x);
        Turn<kStages> turn;
        uint32_t q_parity = 1; /* of the phase before the first: passed at once */
        for (int first_rank = 0;; first_rank += workers, q_parity ^= 1u) {
            const int rank = turn_rank(first_rank, static_cast<int>(blockIdx.x), workers);
            if (rank >= count) {
                if (first_rank > 0) barrier_wait(q_empty, q_parity);
                work->t0 = -1;
                barrier_arrive(q_full);
                return;
            }
            const AttentionTiles::Place place = p.tiles.place(rank);
            const int batch = place.unit / p.query_heads, head = place.unit % p.query_heads, key_head = head / p.group;
            const int length = length_of(p, batch);
            const uint32_t first_turn = turn.count;
            int tiles = 0;
            for (int slice = 0; slice < S::kSlices; ++slice)
                tiles = larger(tiles, p.tiles.slice_tiles(place.t0 + slice * kSliceRows, length));
            const auto load_queries = [&] {
                if (first_rank > 0) barrier_wait(q_empty, q_parity);
                work->t0 = place.t0;
                work->batch = batch;
                work->head = head;
                work->length = length;
                work->end = first_turn + static_cast<uint32_t>(tiles);
                for (int slice = 0; slice < S::kSlices; ++slice)
                    work->ends[slice] =
                        first_turn + static_cast<uint32_t>(p.tiles.slice_tiles(place.t0 + slice * kSliceRows, length));
                work->next = q_parity;
                barrier_arrive_expect(q_full, S::kSlices * L::kSliceBytes);
                for (int slice = 0; slice < S::kSlices; ++slice)
                    for (int panel = 0; panel < L::kPanels; ++panel)
                        load_rows(shared + slice * L::kSliceBytes + panel * L::kQueryPanel, &p.q, q_full, panel * kPanelColumns,
                                  place.t0 + slice * kSliceRows, head, batch);
            };
            if (tiles == 0) load_queries();
            for (int tile = 0; tile < tiles; ++tile, ++turn.count) {
                const uint32_t stage = turn.stage();
                char* const keys = shared + L::kKeysAt + stage * L::kTileBytes;
                char* const values = shared + L::kValuesAt + stage * L::kTileBytes;
                if (!turn.first_round()) barrier_wait(k_empty + stage, turn.empty());
                barrier_arrive_expect(k_full + stage, L::kTileBytes);
                for (int panel = 0; panel < L::kPanels; ++panel)
                    load_rows(keys + panel * L::kKeyPanel, &p.k, k_full + stage, panel * kPanelColumns, p.tiles.tile_start(tile), key_head,
                              batch);
                if (!turn.first_round()) barrier_wait(v_empty + stage, turn.empty());
                barrier_arrive_expect(v_full + stage, L::kTileBytes);
                for (int panel = 0; panel < L::kPanels; ++panel)
                    load_rows(values + panel * L::kKeyPanel, &p.v, v_full + stage, panel * kPanelColumns, p.tiles.tile_start(tile),
                              key_head, batch);
                /* behind the first tile, which finds room while the block before is still being finished */
                if (tile == 0) load_queries();
            }
        }
    }

    registers_increase<S::kRegisters>();
    const int slice = warpgroup - 1, row = first_row(threadIdx.x), column = first_column(threadIdx.x);
    const bool leader = threadIdx.x % kWarpgroup == 0;
    char* const panels = shared + slice * L::kSliceBytes;
    const uint32_t q_at = shared_address(panels);
    const auto shift_of = [&](float top) { return top == -INFINITY ? 0.0f : top * p.scale_log2; };
    Turn<kStages> turn; /* of the tile in work */
    uint32_t q_parity = 0;
    for (;;) {
        barrier_wait(q_full, q_parity);
        if (work->t0 < 0) return;
        const auto first_query = [&] { return work->t0 + slice * kSliceRows; };
        const auto slice_tiles = [&] { return p.tiles.slice_tiles(first_query(), work->length); };
        const auto end = [&]() -> uint32_t { return work->ends[slice]; };

        float o[HS / 2], highest[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < HS / 2; ++i) o[i] = 0;
        if (turn.count != end()) {
            float s[kKeys / 2], scaling[2];
            uint32_t weights[kKeys / 4];
            const auto issue_scores = [&] {
                barrier_wait(k_full + turn.stage(), turn.full());
                const uint32_t k_at = shared_address(shared + L::kKeysAt + turn.stage() * L::kTileBytes);
                wgmma_fence();
#pragma unroll
                for (int step = 0; step < HS / 16; ++step)
                    wgmma<Major::kK, Major::kK>(s, k_major(q_at, L::kQueryPanel, step), k_major(k_at, L::kKeyPanel, step), step > 0);
                wgmma_commit();
            };
            const auto issue_values = [&](const Turn<kStages>& own) {
                barrier_wait(v_full + own.stage(), own.full());
                const uint32_t v_at = shared_address(shared + L::kValuesAt + own.stage() * L::kTileBytes);
                wgmma_fence();
#pragma unroll
                for (int step = 0; step < kKeys / 16; ++step)
                    wgmma<Major::kMN>(o, weights[4 * step], weights[4 * step + 1], weights[4 * step + 2], weights[4 * step + 3],
                                      mn_major(v_at, L::kKeyPanel, step), true);
                wgmma_commit();
            };
            const auto release = [&](uint64_t* empty, const Turn<kStages>& own) {
                if (leader) barrier_arrive(empty + own.stage());
            };
            /* scores outside of the rows' ranges become -inf */
            const auto mask = [&](int tile) {
                const int begin = p.tiles.tile_start(tile), t0 = first_query(), length = work->length;
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int first = -begin - column, last = p.tiles.limit(t0 + row + 8 * i, length) - begin - column;
#pragma unroll
                    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
                        for (int j = 0; j < 2; ++j)
                            if (8 * n + j < first || 8 * n + j >= last) s[4 * n + 2 * i + j] = -INFINITY;
                }
            };
            const auto softmax = [&] { /* of what the row has seen: -inf only where a row has seen nothing */
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    float top = highest[i];
#pragma unroll
                    for (int n = 0; n < kKeys / 8; ++n) top = fmaxf(top, fmaxf(s[4 * n + 2 * i], s[4 * n + 2 * i + 1]));
                    top = max_lanes(top, 4); /* four lanes share a row */
                    const float shift = shift_of(top);
                    scaling[i] = exp2_approx(fmaf(highest[i], p.scale_log2, -shift));
                    highest[i] = top;
                    float added = 0;
#pragma unroll
                    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
                        for (int j = 0; j < 2; ++j) {
                            float& x = s[4 * n + 2 * i + j];
                            x = exp2_approx(fmaf(x, p.scale_log2, -shift));
                            added += x;
                        }
                    total[i] = fmaf(total[i], scaling[i], added);
                }
            };
            /* of the last tile */
            const auto finish = [&](int tile) {
#pragma unroll
                for (int i = 0; i < 2; ++i) total[i] = sum_lanes(total[i], 4);
                if constexpr (kMomentum == Momentum::kFolded) {
                    const float log2_eta = log2f(p.eta.load(work->head));
                    const int t0 = first_query();
                    if (log2_eta == -INFINITY || !p.tiles.on_diagonal(t0, tile)) return;
                    const int first = p.tiles.diagonal_column(t0, tile);
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        const int from = first - column, to = from + row + 8 * i;
                        /* l eta^(r - i) as one power of two; a row that sees nothing is divided by 1 */
                        const float exponent = fmaf(static_cast<float>(to), log2_eta, total[i] == 0 ? 0.0f : log2f(total[i]));
#pragma unroll
                        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
                            for (int j = 0; j < 2; ++j)
                                if (8 * n + j >= from && 8 * n + j < to) {
                                    float& x = s[4 * n + 2 * i + j];
                                    x += exp2_approx(fmaf(-static_cast<float>(8 * n + j), log2_eta, exponent));
                                }
                    }
                }
            };
            const auto to_weights = [&] {
#pragma unroll
                for (int i = 0; i < kKeys / 4; ++i) weights[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
            };

            issue_scores();
            wgmma_wait<0>();
            release(k_empty, turn);
            mask(0);
            softmax();
            if (turn.count + 1 == end()) finish(0);
            to_weights();
            while (++turn.count != end()) {
                const Turn<kStages> before = {turn.count - 1};
                issue_scores();
                issue_values(before);
                wgmma_wait<1>();
                release(k_empty, turn);
                if (turn.count + 1 != end()) {
                    softmax();
                } else {
                    const int tile = slice_tiles() - 1;
                    mask(tile);
                    softmax();
                    finish(tile);
                }
                wgmma_wait<0>();
                release(v_empty, before);
                to_weights();
#pragma unroll
                for (int n = 0; n < HS / 8; ++n)
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        o[4 * n + 2 * i] *= scaling[i];
                        o[4 * n + 2 * i + 1] *= scaling[i];
                    }
            }
            const Turn<kStages> last = {turn.count - 1};
            const int hidden = work->length - p.tiles.tile_start(slice_tiles() - 1); /* first row of values that nobody may see */
            if (p.lengths != nullptr && hidden < kKeys) {
                barrier_wait(v_full + last.stage(), last.full());
                char* const values = shared + L::kValuesAt + last.stage() * L::kTileBytes;
                for (int unit = threadIdx.x % kWarpgroup; unit < (kKeys - hidden) * 8; unit += kWarpgroup)
#pragma unroll
                    for (int panel = 0; panel < L::kPanels; ++panel)
                        *reinterpret_cast<uint4*>(values + panel * L::kKeyPanel + hidden * kRowBytes + unit * 16) = make_uint4(0, 0, 0, 0);
                async_proxy_fence();
                slice_sync(slice);
            }
            issue_values(last);
            wgmma_wait<0>();
            if constexpr (kMomentum != Momentum::kSeparate) release(v_empty, last);
        }

        const int t0 = first_query();
        if (t0 < p.tiles.queries) {
            const int batch = work->batch, head = work->head;
            const float log2_eta = kMomentum == Momentum::kNone ? -INFINITY : log2f(p.eta.load(head)); /* -inf: nothing is added */
            float inverse[2];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                inverse[i] = total[i] == 0 ? 1.0f : 1.0f / total[i];
                const int t = t0 + row + 8 * i;
                if (column == 0 && t < p.tiles.queries)
                    p.lse[batch * p.lse_batch + head * p.lse_head + t] =
                        total[i] == 0 ? -INFINITY : fmaf(shift_of(highest[i]), 0.693147180559945f, logf(total[i]));
            }
#pragma unroll
            for (int n = 0; n < HS / 8; ++n)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    o[4 * n + 2 * i] *= inverse[i];
                    o[4 * n + 2 * i + 1] *= inverse[i];
                }
            if constexpr (kMomentum == Momentum::kSeparate) {
                store_slice<HS>(o, panels, &p.attn, slice, t0, head, batch);
                const int tile = slice_tiles() - 1;
                if (tile >= 0 && log2_eta != -INFINITY && p.tiles.on_diagonal(t0, tile)) {
                    const Turn<kStages> last = {turn.count - 1};
                    const uint32_t first = static_cast<uint32_t>(p.tiles.diagonal_column(t0, tile));
                    const uint32_t v_at = shared_address(shared + L::kValuesAt + last.stage() * L::kTileBytes + first * kRowBytes);
                    uint32_t powers[kSliceRows / 4];
#pragma unroll
                    for (int k = 0; k < kSliceRows / 8; ++k)
#pragma unroll
                        for (int i = 0; i < 2; ++i) {
                            const int distance = row + 8 * i - 8 * k - column; /* r - i; the next column is one nearer */
                            powers[2 * k + i] =
                                pack_bf16(distance > 0 ? exp2_approx(static_cast<float>(distance) * log2_eta) : 0.0f,
                                     distance > 1 ? exp2_approx(static_cast<float>(distance - 1) * log2_eta) : 0.0f);
                        }
                    wgmma_fence();
#pragma unroll
                    for (int step = 0; step < kSliceRows / 16; ++step)
                        wgmma<Major::kMN>(o, powers[4 * step], powers[4 * step + 1], powers[4 * step + 2], powers[4 * step + 3],
                                          mn_major(v_at, L::kKeyPanel, step), true);
                    wgmma_commit();
                    wgmma_wait<0>();
                }
            }
            if constexpr (kMomentum != Momentum::kNone)
                if (log2_eta != -INFINITY) {
                    const double* const carry = p.carries + p.chunks.carry(batch, head, p.chunks.prefix + t0 / kSliceRows);
                    const float factor[2] = {exp2_approx(static_cast<float>(row) * log2_eta),
                                             exp2_approx(static_cast<float>(row + 8) * log2_eta)};
#pragma unroll
                    for (int n = 0; n < HS / 8; ++n)
#pragma unroll
                        for (int j = 0; j < 2; ++j) {
                            const float c = static_cast<float>(carry[8 * n + column + j]);
                            o[4 * n + j] = fmaf(factor[0], c, o[4 * n + j]);
                            o[4 * n + 2 + j] = fmaf(factor[1], c, o[4 * n + 2 + j]);
                        }
                }
            store_slice<HS>(o, panels, &p.out, slice, t0, head, batch);
        }
        if (kMomentum == Momentum::kSeparate && slice_tiles() > 0 && leader)
            barrier_arrive(v_empty + Turn<kStages>{turn.count - 1}.stage());
        const uint32_t block_end = work->end;
        q_parity = work->next;
        slice_sync(slice); /* everybody has read what there was to do */
        for (; turn.count != block_end; ++turn.count) /* tiles that only other slices need */
            if (leader) {
                barrier_wait(k_full + turn.stage(), turn.full());
                barrier_arrive(k_empty + turn.stage());
                barrier_wait(v_full + turn.stage(), turn.full());
                barrier_arrive(v_empty + turn.stage());
            }
        if (leader) {
            bulk_wait_read<0>();
            barrier_arrive(q_empty);
        }
    }
#endif
}

template <int HS, Momentum kMomentum>
int run(const Call& call, const df_attention_args* args, Forward p) {
    using L = Layout<HS>;
    p.tiles.slices = Shape<HS>::kSlices;
    p.tiles.tile_keys = Shape<HS>::kKeys;
    // Keys and values of the heads worked on together take about half of the L2 cache of an H100 or H200 (50 and 60 MB).
    constexpr int64_t kResident = 24 << 20;
    const int64_t head_bytes = 4 * static_cast<int64_t>(p.tiles.keys) * HS;
    p.tiles.together = static_cast<int>(smaller<int64_t>(larger<int64_t>(kResident / head_bytes, 1) * p.group, p.tiles.units));
    const struct {
        CUtensorMap* map;
        const df_view* view;
        int rows;
    } maps[] = {{&p.q, args->q, kSliceRows},
                {&p.k, args->k, Shape<HS>::kKeys},
                {&p.v, args->v, Shape<HS>::kKeys},
                {&p.out, args->out, kSliceRows},
                {&p.attn, kMomentum == Momentum::kSeparate ? args->attn : args->out, kSliceRows}};
    for (const auto& m : maps)
        if (const int status = rows_map(call, m.map, m.view, m.rows)) return status;
    const int64_t blocks = smaller<int64_t>(p.tiles.count(), call.queue->multiprocessors);
    return launch_block(call, "attention_forward_wgmma", blocks, L::kThreads, L::kBytes, attention_forward_wgmma<HS, kMomentum>, p);
}

}  // namespace

/// Of scores as exponents of 2. Above 0, so that what is masked stays out.
static float scale_log2(const df_attention_args* args) { return static_cast<float>(args->scale * 1.4426950408889634); }

bool attention_forward_hopper_serves(const Call& call, const df_attention_args* args) {
    if (kernels() != Kernels::kHopper || !device_fits(call)) return false;
    const int64_t head_size = args->q->shape[3];
    constexpr int64_t kLongest = 1 << 30; /* positions and their sums are 32-bit */
    if ((head_size != 64 && head_size != 128) || args->q->shape[1] > kLongest || args->k->shape[1] > kLongest || !(scale_log2(args) >= 0x1p-126f) || !(scale_log2(args) < INFINITY))
        return false;
    for (const df_view* view : {args->q, args->k, args->v, args->out, args->attn})
        if (view != nullptr && !tensor_map_fits(view)) return false;
    return args->q->shape[0] * args->q->shape[2] * ceil_div(args->q->shape[1], kSliceRows) <= kLongest;
}

int attention_forward_hopper(const Call& call, const df_attention_args* args) {
    Forward p = {};
    p.tiles.queries = static_cast<int>(args->q->shape[1]);
    p.tiles.keys = static_cast<int>(args->k->shape[1]);
    p.tiles.units = static_cast<int>(args->q->shape[0] * args->q->shape[2]);
    p.tiles.causal = args->causal != 0 || args->eta != nullptr;
    p.query_heads = static_cast<int>(args->q->shape[2]);
    p.group = static_cast<int>(args->q->shape[2] / args->k->shape[2]);
    p.lse = static_cast<float*>(args->lse->data);
    p.lse_batch = args->lse->stride[0];
    p.lse_head = args->lse->stride[1];
    if (args->lengths != nullptr) {
        p.lengths = static_cast<const int32_t*>(args->lengths->data);
        p.lengths_stride = args->lengths->stride[0];
    }
    p.scale_log2 = scale_log2(args);
    const bool wide = args->q->shape[3] == 128;
    if (args->eta == nullptr) return wide ? run<128, Momentum::kNone>(call, args, p) : run<64, Momentum::kNone>(call, args, p);

    p.eta = floats(args->eta);
    p.chunks = MomentumChunks(args);
    Scratch scratch(call, p.chunks.carry_bytes());
    if (!scratch) return scratch.failure();
    p.carries = scratch.as<double>();
    if (const int status = momentum_carries(call, args, p.chunks, scratch.as<double>())) return status;
    if (args->attn == nullptr) return wide ? run<128, Momentum::kFolded>(call, args, p) : run<64, Momentum::kFolded>(call, args, p);
    return wide ? run<128, Momentum::kSeparate>(call, args, p) : run<64, Momentum::kSeparate>(call, args, p);
}

}  // namespace dualform::cuda
