// Causal linear attention and its gradients for Hopper: the sweeps of linear_attention.h in one pass, bfloat16, head sizes 64 and 128.
//
// One block per (sweep, b, head, 64 columns of z), two blocks a multiprocessor. A warpgroup's one thread copies chunks of 64 tokens of x, y
// and z by TMA into a ring; the other warpgroup keeps the state, transposed (keys by values), in its registers as wgmma accumulators:
//   scores = x y^T and out = x R^T (R by way of shared memory, as bfloat16), then out += scores z, then R = decay^n R + (y decay^n)^T z with
//   y transposed and weighted in registers. out leaves by TMA.
// Rows of a chunk stay in their order; a sweep that runs backwards takes the chunks from the last and counts the tokens of each from its
// end. TMA fills rows beyond T with zeros and does not store them, so T may be any.
#include "choice.h"
#include "hopper.h"
#include "linear_attention.h"
#include "mma.h"

namespace dualform::cuda {

namespace {

constexpr int kChunk = 64, kSweeps = 3;
constexpr uint32_t kPanelBytes = kChunk * hopper::kRowBytes;

/// Shared memory, in bytes from a multiple of 1024 on: half of what a multiprocessor has.
template <int HS>
struct Layout {
    static constexpr int kPanels = HS / hopper::kPanelColumns, kStages = HS == 64 ? 3 : 2;
    static constexpr uint32_t kY = kPanels * kPanelBytes /* x is at 0 */, kZ = 2 * kY, kStageBytes = kZ + kPanelBytes;
    static constexpr uint32_t kStateAt = kStages * kStageBytes, kOutAt = kStateAt + HS * hopper::kRowBytes;
    static constexpr uint32_t kBarriersAt = kOutAt + kPanelBytes;
    static constexpr size_t kBytes = hopper::kAtomBytes + kBarriersAt + 2 * kStages * sizeof(uint64_t);
    static_assert(2 * (kBytes + 2048) <= hopper::kSharedBytes, "two blocks a multiprocessor");
};

struct Sweep {
    CUtensorMap out, x, y, z;
    State initial, last;
    bool initial_is_before, last_is_after; /* as in linear_attention_mma.cu */
    bool exact;                            /* R to float32: y decay^n in three bfloat16 */
    bool reversed;
};

struct Sweeps {
    Sweep sweep[kSweeps];
    int sweeps, batch, heads, head_size, tokens;
    Floats decay; /* absent: 1 */
};

#if DF_HOPPER_CODE && (defined(__CUDACC__) || defined(DF_CUDA_EMULATION))

/// Powers of a head's decay, laid out so that a thread finds those of its rows and columns at constant distances from one address, whatever
/// the direction: an address for each would take the registers that the state needs.
struct Powers {
    float up[kChunk + 1];       /* decay^m */
    float down[2 * kChunk + 1]; /* decay^(64 - m), 0 from 65 on */
    float apart[2 * kChunk];    /* [64 + i - j]: decay^|i - j| where row i has seen row j, else 0 */

    __device__ void fill(double decay, bool reversed) {
        for (int m = threadIdx.x; m <= 2 * kChunk; m += blockDim.x) {
            const int seen = reversed ? kChunk - m : m - kChunk;
            if (m <= kChunk) up[m] = power(decay, m);
            down[m] = m <= kChunk ? power(decay, kChunk - m) : 0.0f;
            if (m < 2 * kChunk) apart[m] = seen < 0 ? 0.0f : power(decay, seen);
        }
    }
    /// Of the state as row i of a chunk of n sees it: of rows beyond n it does not matter.
    __device__ float from_state(int i, int n, bool reversed) const { return up[!reversed ? i : i < n ? n - 1 - i : 0]; }
    /// [j]: of row j in the state after the chunk, with `shift` decays less.
    __device__ const float* to_state(int n, int shift, bool reversed) const { return reversed ? up + 1 - shift : down + kChunk - n + shift; }

private:
    __device__ static float power(double decay, int m) { return static_cast<float>(pow(decay, static_cast<double>(m))); }
};

__device__ inline float rest_of(float value, int part) {
    for (int i = 0; i < part; ++i) {
        const float rest = value - low_bf16(pack_bf16(value, 0.0f));
        value = rest == rest ? rest : 0.0f; /* what is infinite has no rest */
    }
    return value;
}
#endif

template <int HS>
__global__ void __launch_bounds__(2 * hopper::kWarpgroup, 2) linear_attention_wgmma(const __grid_constant__ Sweeps p) {
#if DF_HOPPER_CODE
    using hopper::Major;
    using L = Layout<HS>;
    constexpr int kStages = L::kStages, kPanels = L::kPanels, kSteps = kChunk / 16, kWarps = 4; /* that consume */
    constexpr int kProducerRegisters = 40, kRegisters = 216; /* times 128 threads: half the register file */
    __shared__ Powers powers;
    char* const shared = hopper::aligned_shared();
    uint64_t *const full = reinterpret_cast<uint64_t*>(shared + L::kBarriersAt), *const empty = full + kStages;
    int block = static_cast<int>(blockIdx.x);
    const int slice = block % kPanels, head = block / kPanels % p.heads;
    block /= kPanels * p.heads;
    const int batch = block % p.batch;
    const Sweep& s = p.sweep[block / p.batch];
    const int chunks = (p.tokens + kChunk - 1) / kChunk;
    const double decay = p.decay ? p.decay.load(head) : 1.0;
    if (threadIdx.x == 0) {
        for (int i = 0; i < kStages; ++i) {
            hopper::barrier_init(full + i, 1);
            hopper::barrier_init(empty + i, kWarps);
        }
        hopper::barrier_init_fence();
    }
    powers.fill(decay, s.reversed);
    __syncthreads();

    if (threadIdx.x < hopper::kWarpgroup) {
        hopper::registers_decrease<kProducerRegisters>();
        if (threadIdx.x != 0) return;
        for (int i = 0; i < chunks; ++i) {
            const int stage = i % kStages, row = (s.reversed ? chunks - 1 - i : i) * kChunk;
            if (i >= kStages) hopper::barrier_wait(empty + stage, (i / kStages + 1) % 2);
            char* const to = shared + stage * L::kStageBytes;
            hopper::barrier_arrive_expect(full + stage, L::kStageBytes);
            for (int panel = 0; panel < kPanels; ++panel) {
                hopper::load_rows(to + panel * kPanelBytes, &s.x, full + stage, panel * hopper::kPanelColumns, row, head, batch);
                hopper::load_rows(to + L::kY + panel * kPanelBytes, &s.y, full + stage, panel * hopper::kPanelColumns, row, head, batch);
            }
            hopper::load_rows(to + L::kZ, &s.z, full + stage, slice * hopper::kPanelColumns, row, head, batch);
        }
        return;
    }

    hopper::registers_increase<kRegisters>();
    const int row = hopper::first_row(threadIdx.x), column = hopper::first_column(threadIdx.x);
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x % hopper::kWarpgroup / kWarp;
    const bool leader = threadIdx.x == hopper::kWarpgroup;
    char* const state_tile = shared + L::kStateAt;
    SharedAddress own[8]; /* where the thread's part of 8 columns lies in the tiles of the state and of out */
#pragma unroll
    for (int n = 0; n < 8; ++n) own[n] = shared_address(state_tile + hopper::panel_offset(row, 8 * n + column));

    /* R transposed: key 64 panel + row + 8 i, value 64 slice + 8 n + column + j at state[panel][4 n + 2 i + j] */
    float state[kPanels][32];
    const auto each_element = [&](auto f) {
#pragma unroll
        for (int panel = 0; panel < kPanels; ++panel)
#pragma unroll
            for (int e = 0; e < 32; ++e)
                f(slice * 64 + e / 4 * 8 + column + e % 2, panel * 64 + row + e / 2 % 2 * 8, state[panel][e]);
    };
    const float first = s.initial_is_before ? static_cast<float>(decay) : 1.0f;
    each_element([&](int a, int c, float& r) {
        r = s.initial.data && first != 0 ? first * s.initial.data.load(s.initial.at(batch, head, a, c)) : 0.0f;
    });

    for (int i = 0; i < chunks; ++i) {
        const int stage = i % kStages, row0 = (s.reversed ? chunks - 1 - i : i) * kChunk;
        const int n = smaller(kChunk, p.tokens - row0);
        char *const y_tile = shared + stage * L::kStageBytes + L::kY;
        const uint32_t x = hopper::shared_address(shared + stage * L::kStageBytes), y = hopper::shared_address(y_tile);
        const uint32_t z = hopper::shared_address(shared + stage * L::kStageBytes + L::kZ), r = hopper::shared_address(state_tile);
#pragma unroll
        for (int panel = 0; panel < kPanels; ++panel)
#pragma unroll
            for (int e = 0; e < 32; e += 2)
                store_shared_4(own[e / 4] + panel * kPanelBytes + e / 2 % 2 * hopper::kAtomBytes,
                               pack_bf16(state[panel][e], state[panel][e + 1]));
        hopper::async_proxy_fence();
        hopper::named_sync<1, hopper::kWarpgroup>();
        hopper::barrier_wait(full + stage, i / kStages % 2);

        float scores[32], out[32];
        hopper::wgmma_fence();
#pragma unroll
        for (int step = 0; step < HS / 16; ++step)
            hopper::wgmma<Major::kK, Major::kK>(scores, hopper::k_major(x, kPanelBytes, step), hopper::k_major(y, kPanelBytes, step),
                                                step > 0);
        hopper::wgmma_commit();
#pragma unroll
        for (int step = 0; step < HS / 16; ++step)
            hopper::wgmma<Major::kK, Major::kMN>(out, hopper::k_major(x, kPanelBytes, step),
                                                 hopper::mn_major(r, HS * hopper::kRowBytes, step), step > 0);
        hopper::wgmma_commit();
        hopper::wgmma_wait<1>();
        uint32_t weights[16];
        const float* const apart = powers.apart + kChunk + row - column;
#pragma unroll
        for (int e = 0; e < 32; e += 2) {
            const int at = e / 2 % 2 * 8 - e / 4 * 8;
            weights[e / 2] = pack_bf16(scores[e] * apart[at], scores[e + 1] * apart[at - 1]);
        }
        hopper::wgmma_wait<0>();
        const float scale[2] = {powers.from_state(row, n, s.reversed), powers.from_state(row + 8, n, s.reversed)};
#pragma unroll
        for (int e = 0; e < 32; ++e) out[e] *= scale[e / 2 % 2];
        hopper::wgmma_fence();
#pragma unroll
        for (int step = 0; step < kSteps; ++step)
            hopper::wgmma<Major::kMN>(out, weights[4 * step], weights[4 * step + 1], weights[4 * step + 2], weights[4 * step + 3],
                                      hopper::mn_major(z, kPanelBytes, step), true);
        hopper::wgmma_commit();
        hopper::wgmma_wait<0>();
        if (leader) hopper::bulk_wait_read<0>();
        hopper::named_sync<1, hopper::kWarpgroup>();
#pragma unroll
        for (int e = 0; e < 32; e += 2)
            store_shared_4(own[e / 4] + (L::kOutAt - L::kStateAt) + e / 2 % 2 * hopper::kAtomBytes, pack_bf16(out[e], out[e + 1]));
        hopper::async_proxy_fence();
        hopper::named_sync<1, hopper::kWarpgroup>();
        if (leader) {
            hopper::store_rows(&s.out, shared + L::kOutAt, slice * hopper::kPanelColumns, row0, head, batch);
            hopper::bulk_commit();
        }

        const bool ends = i + 1 == chunks;
        if (!ends || s.last.data) {
            const int shift = ends && s.last_is_after ? 1 : 0; /* one decay less: the state as the last token saw it */
            const float keep = powers.up[n - shift], *const to_state = powers.to_state(n, shift, s.reversed) + column;
#pragma unroll
            for (int panel = 0; panel < kPanels; ++panel) {
                float added[32];
                for (int part = s.exact ? 2 : 0; part >= 0; --part) { /* the smallest first */
                    uint32_t y_transposed[kSteps][4];
#pragma unroll
                    for (int step = 0; step < kSteps; ++step) {
                        const uint32_t from = hopper::panel_offset(16 * step + lane % 8 + lane / 16 * 8, 16 * warp + lane / 8 % 2 * 8);
                        ldmatrix_x4_trans(y_transposed[step], shared_address(y_tile + panel * kPanelBytes + from));
#pragma unroll
                        for (int k = 0; k < 4; ++k) {
                            const float before = to_state[16 * step + k / 2 * 8], after = to_state[16 * step + k / 2 * 8 + 1];
                            y_transposed[step][k] = pack_bf16(rest_of(low_bf16(y_transposed[step][k]) * before, part),
                                                                 rest_of(high_bf16(y_transposed[step][k]) * after, part));
                        }
                    }
                    hopper::wgmma_fence();
#pragma unroll
                    for (int step = 0; step < kSteps; ++step)
                        hopper::wgmma<Major::kMN>(added, y_transposed[step][0], y_transposed[step][1], y_transposed[step][2],
                                                  y_transposed[step][3], hopper::mn_major(z, kPanelBytes, step),
                                                  step > 0 || part < (s.exact ? 2 : 0));
                    hopper::wgmma_commit();
                    hopper::wgmma_wait<0>();
                }
#pragma unroll
                for (int e = 0; e < 32; ++e) state[panel][e] = fmaf(keep, state[panel][e], added[e]);
            }
        }
        __syncwarp(); /* the warp's lanes have read y */
        if (lane == 0) hopper::barrier_arrive(empty + stage);
    }
    if (s.last.data) each_element([&](int a, int c, float& r) { s.last.data.store(s.last.at(batch, head, a, c), r); });
    if (leader) hopper::bulk_wait<0>();
#endif
}

class Work {
public:
    explicit Work(const df_linear_attention_args* args) : args_(args), p_() {
        p_.decay = floats(args->decay);
        p_.batch = static_cast<int>(args->q->shape[0]);
        p_.tokens = static_cast<int>(args->q->shape[1]);
        p_.heads = static_cast<int>(args->q->shape[2]);
        p_.head_size = static_cast<int>(args->q->shape[3]);
    }
    /// One pass fills the device, or T is too short to be cut; TMA takes every view.
    bool serves(const Call& call, int sweeps, std::initializer_list<const df_view*> views) const {
        if (kernels() != Kernels::kHopper || !hopper::device_fits(call) || (p_.head_size != 64 && p_.head_size != 128)) return false;
        for (const df_view* view : views)
            if (!hopper::tensor_map_fits(view)) return false;
        const int64_t blocks = int64_t{sweeps} * p_.batch * p_.heads * (p_.head_size / 64);
        return blocks <= kMaxBlocks && linear_attention_segments(p_.tokens, blocks).count == 1;
    }
    Sweep& add(const Call& call, int* status, const df_view* out, const df_view* x, const df_view* y, const df_view* z, bool reversed) {
        Sweep& s = p_.sweep[p_.sweeps++];
        s.reversed = reversed;
        const df_view* const views[] = {out, x, y, z};
        CUtensorMap* const maps[] = {&s.out, &s.x, &s.y, &s.z};
        for (int i = 0; i < 4 && *status == DF_OK; ++i) *status = hopper::rows_map(call, maps[i], views[i], kChunk);
        return s;
    }
    int run(const Call& call, const char* name) const {
        const int64_t blocks = int64_t{p_.sweeps} * p_.batch * p_.heads * (p_.head_size / 64);
        return p_.head_size == 64
                   ? hopper::launch_block(call, name, blocks, 2 * hopper::kWarpgroup, Layout<64>::kBytes, linear_attention_wgmma<64>, p_)
                   : hopper::launch_block(call, name, blocks, 2 * hopper::kWarpgroup, Layout<128>::kBytes, linear_attention_wgmma<128>, p_);
    }

private:
    const df_linear_attention_args* args_;
    Sweeps p_;
};

}  // namespace

int linear_attention_forward_hopper(const Call& call, const df_linear_attention_args* args, bool* served) {
    Work work(args);
    *served = work.serves(call, 1, {args->out, args->q, args->k, args->v});
    if (!*served) return DF_OK;
    int status = DF_OK;
    Sweep& s = work.add(call, &status, args->out, args->q, args->k, args->v, false);
    s.initial = state(args->state_in, false);
    s.initial_is_before = true;
    s.last = state(args->state_out, false);
    s.last_is_after = true;
    s.exact = leaves_in_float32(args->state_out);
    return status != DF_OK ? status : work.run(call, "linear_attention_wgmma out");
}

int linear_attention_backward_hopper(const Call& call, const df_linear_attention_args* args, bool* served) {
    Work work(args);
    *served = work.serves(call, kSweeps, {args->dq, args->dk, args->dv, args->dout, args->q, args->k, args->v});
    if (!*served) return DF_OK;
    int status = DF_OK;
    Sweep& dq = work.add(call, &status, args->dq, args->dout, args->v, args->k, false);
    dq.initial = state(args->state_in, true);
    dq.initial_is_before = true;
    Sweep& dk = work.add(call, &status, args->dk, args->v, args->dout, args->q, true);
    dk.initial = state(args->dstate_out, true);
    Sweep& dv = work.add(call, &status, args->dv, args->k, args->q, args->dout, true);
    dv.initial = state(args->dstate_out, false);
    dv.last = state(args->dstate_in, false); /* decay dS_1: what a token before the first would see */
    dv.exact = leaves_in_float32(args->dstate_in);
    return status != DF_OK ? status : work.run(call, "linear_attention_wgmma dq dk dv");
}

}  // namespace dualform::cuda
