// Causal linear attention and its gradients on tensor cores: the sweeps of linear_attention.h in one pass, the state in registers.
//
// One block per (sweep, segment of T, b, head, 64 indices of z). Where sweeps, batch, heads and slices fill the device there is one segment:
// x and y are read once per slice (the second slice finds them in L2), z once, out written once. Else T is cut: a first launch walks every
// segment but the last from a zero state and keeps where it ends (y and z read), a small one carries those ends through, and the sweeps
// start from them. The three sweeps of the backward are one launch. Every sum has one fixed order.
//
// bfloat16: products of the inputs as they are; scores, the state as an operand, and z decay^n are rounded to bfloat16, the state itself is
// float32. A state that leaves in float32 is exact to float32: its z decay^n is three bfloat16. float32 inputs: everything in two bfloat16
// (Precision bf16x3). Precision tf32 is served so too: memory decides here, and two parts are the more accurate.
#include "choice.h"
#include "launch.h"
#include "linear_attention.h"
#include "running_state.h"

namespace dualform::cuda {

namespace {

constexpr int kSweeps = 3;

struct Sweep {
    Tokens out, x, y, z;
    State initial, last;
    bool initial_is_before = false; /* the initial state still has to be decayed for the first token */
    bool last_is_after = false;     /* store R as the last token saw it; otherwise as a next token would */
    bool exact = false;             /* of bfloat16 inputs: R to float32 */
    bool vectors_in = false, vectors_out = false;
};

struct Sweeps {
    Sweep sweep[kSweeps];
    int sweeps = 0, batch = 0, heads = 0, head_size = 0, slices = 0;
    int64_t tokens = 0;
    Segments segments = {1, 0};
    Floats decay;             /* absent: 1 */
    float* carried = nullptr; /* (sweep, segment but the last, B, NH, HS, HS): R as the next segment's first token sees it */
    bool ends_only = false;   /* the first launch of several segments */
    __device__ State carried_state(int64_t sweep_index, int64_t segment) const {
        State c;
        c.column = 1;
        c.row = head_size;
        c.head = c.row * head_size;
        c.batch = heads * c.head;
        c.data.data = carried + (sweep_index * (segments.count - 1) + segment) * batch * c.batch;
        return c;
    }
};

__device__ inline float power(double decay, int64_t n) { return static_cast<float>(pow(decay, static_cast<double>(n))); }

/// Blocks a multiprocessor holds at once: what the registers of the state leave room for.
constexpr int resident_blocks(int size) { return size == 256 ? 1 : 2; }

/// Dynamic shared memory: Stages stages of x, y and z, then the scores.
template <int Size, int Chunk, int Parts, int Stages>
__global__ void __launch_bounds__(kStateThreads, resident_blocks(Size)) linear_attention_mma(const Sweeps p) {
    using Tiles = StateTiles<Size, Chunk, Parts>;
    __shared__ float powers[Chunk + 1];
    const SharedAddress shared = shared_address(dynamic_shared()), scores = shared + Stages * Tiles::kStage;
    int64_t block = blockIdx.x;
    const int a0 = static_cast<int>(block % p.slices) * kStateColumns;
    block /= p.slices;
    const int head = static_cast<int>(block % p.heads);
    block /= p.heads;
    const int64_t b = block % p.batch;
    block /= p.batch;
    const int64_t walked = p.segments.count - (p.ends_only ? 1 : 0), segment = block % walked, which = block / walked;
    const Sweep& s = p.sweep[which];

    const double decay = p.decay ? p.decay.load(head) : 1.0;
    for (int n = threadIdx.x; n <= Chunk; n += kStateThreads) powers[n] = power(decay, n);
    const int64_t begin = segment * p.segments.length, end = smaller(begin + p.segments.length, p.tokens);
    const int chunks = static_cast<int>(ceil_div(end - begin, Chunk)), values = smaller(kStateColumns, p.head_size - a0);
    const int steps = static_cast<int>(ceil_div(p.head_size, 16));
    const bool last_segment = segment == p.segments.count - 1, keeps = p.ends_only || (last_segment && s.last.data);
    const Rows x = s.x.rows(b, head, end), y = s.y.rows(b, head, end), z = s.z.rows(b, head, end), out = s.out.rows(b, head, end);

    const auto load = [&](int chunk) {
        const SharedAddress stage = shared + (Stages == 1 ? 0 : chunk % Stages * Tiles::kStage);
        const int64_t row = begin + static_cast<int64_t>(chunk) * Chunk;
        if (!p.ends_only) load_rows<Size, Chunk, Parts>(stage + Tiles::kX, x, row, 0, p.head_size, s.vectors_in);
        load_rows<Size, Chunk, Parts>(stage + Tiles::kY, y, row, 0, p.head_size, s.vectors_in);
        load_rows<kStateColumns, Chunk, Parts>(stage + Tiles::kZ, z, row, a0, p.head_size, s.vectors_in);
        cp_async_commit();
    };
    load(0);

    float state[Size / 8][4] = {};
    const bool carries = segment > 0 && !p.ends_only;
    const State initial = carries ? p.carried_state(which, segment - 1) : s.initial;
    if (carries || (segment == 0 && initial.data)) {
        const float first = !carries && s.initial_is_before ? static_cast<float>(decay) : 1.0f;
        each_state_element<Size>(state, values, p.head_size, [&](int a, int c, float& r) {
            r = first == 0 ? 0.0f : first * initial.data.load(initial.at(b, head, a0 + a, c));
        });
    }

    for (int chunk = 0; chunk < chunks; ++chunk) {
        const SharedAddress stage = shared + (Stages == 1 ? 0 : chunk % Stages * Tiles::kStage);
        const int64_t row = begin + static_cast<int64_t>(chunk) * Chunk;
        const bool ends = chunk + 1 == chunks;
        cp_async_wait<0>();
        __syncthreads();
        if (Stages > 1 && !ends) load(chunk + 1); /* into the stage that the barrier has freed */

        uint32_t z_parts[Parts][Chunk / 16][4];
        if (p.ends_only) {
            load_z<Chunk>(z_parts, stage + Tiles::kZ);
        } else {
            store_scores<Size, Chunk, Parts, true>(scores, stage + Tiles::kX, stage + Tiles::kY, steps, [&](float score, int i, int j) {
                return j > i ? 0.0f : score * powers[i - j];
            });
            float sum[Chunk / 16][2][4] = {};
            add_x_state<Size, Chunk, Parts, Parts>(sum, state, stage + Tiles::kX, steps);
#pragma unroll
            for (int m = 0; m < Chunk / 16; ++m)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float scale = powers[16 * m + threadIdx.x % kWarp / 4 + i / 2 * 8];
                    sum[m][0][i] *= scale;
                    sum[m][1][i] *= scale;
                }
            load_z<Chunk>(z_parts, stage + Tiles::kZ);
            __syncthreads();
            add_scores_z<Chunk, Parts, true>(sum, scores, z_parts);
            store_rows<Chunk>(out, sum, row, a0, p.head_size, s.vectors_out);
            if (ends && !keeps) return;
        }

        const int n = static_cast<int>(smaller<int64_t>(Chunk, end - row));
        const int shift = ends && last_segment && s.last_is_after ? 1 : 0; /* one decay less: the state as the last token saw it */
        const auto weight = [&](int j) { return powers[larger(n - j - shift, 0)]; }; /* beyond n z is 0 */
        uint32_t left[Parts == 1 ? 3 : 2][Chunk / 16][4];
        weigh_z<Chunk>(left, z_parts, weight);
        update_state<Size, Chunk, Parts>(state, powers[n - shift], left, Parts == 2 || s.exact, stage + Tiles::kY, steps);
        if (Stages == 1 && !ends) {
            __syncthreads();
            load(chunk + 1);
        }
    }
    const State last = p.ends_only ? p.carried_state(which, segment) : s.last;
    each_state_element<Size>(state, values, p.head_size, [&](int a, int c, float& r) { last.data.store(last.at(b, head, a0 + a, c), r); });
}

/// carried[segment] += decay^length carried[segment - 1], one thread per element of a state.
__global__ void __launch_bounds__(256) carry_segments(const Sweeps p) {
    const int64_t size = static_cast<int64_t>(p.head_size) * p.head_size, states = static_cast<int64_t>(p.batch) * p.heads * size;
    for (int64_t e = first_element(); e < p.sweeps * states; e += element_stride()) {
        const int64_t which = e / states, head = e % states / size % p.heads;
        const float keep = power(p.decay ? p.decay.load(head) : 1.0, p.segments.length);
        float* at = p.carried + which * (p.segments.count - 1) * states + e % states;
        float before = *at;
        for (int64_t segment = 1; segment < p.segments.count - 1; ++segment) {
            at += states;
            before = *at = fmaf(keep, before, *at);
        }
    }
}

template <int Size, int Chunk, int Parts, int Stages>
int launch_sweeps(const Call& call, const char* name, const Sweeps& p) {
    const int64_t walked = p.segments.count - (p.ends_only ? 1 : 0);
    return launch(call, name, p.sweeps * walked * p.batch * p.heads * p.slices, kStateThreads,
                  StateTiles<Size, Chunk, Parts>::shared(Stages),
                  linear_attention_mma<Size, Chunk, Parts, Stages>, p);
}

/// Two stages where they fit in the 99 KiB a block can have on every device, else one; chunks of 64 tokens, or of 32 where the
/// state leaves no registers or shared memory for more.
int launch_sweeps(const Call& call, const char* name, const Sweeps& p, bool half) {
    if (half) {
        if (p.head_size <= 64) return launch_sweeps<64, 64, 1, 2>(call, name, p);
        if (p.head_size <= 128) return launch_sweeps<128, 64, 1, 2>(call, name, p);
        return launch_sweeps<256, 32, 1, 2>(call, name, p);
    }
    if (p.head_size <= 64) return launch_sweeps<64, 64, 2, 1>(call, name, p);
    if (p.head_size <= 128) return launch_sweeps<128, 64, 2, 1>(call, name, p);
    return launch_sweeps<256, 32, 2, 1>(call, name, p);
}

class Work {
public:
    Work(const df_linear_attention_args* args) : args_(args) {
        p_.decay = floats(args->decay);
        p_.tokens = args->q->shape[1];
        p_.batch = static_cast<int>(args->q->shape[0]);
        p_.heads = static_cast<int>(args->q->shape[2]);
        p_.head_size = static_cast<int>(args->q->shape[3]);
        p_.slices = static_cast<int>(ceil_div(p_.head_size, kStateColumns));
    }
    bool serves() const {
        const bool half = args_->q->dtype == DF_BF16;
        return p_.head_size <= 256 && p_.tokens > 0 && (half || precision() != Precision::kFloat32);
    }
    Sweep& add(const df_view* out, const df_view* x, const df_view* y, const df_view* z, bool reversed) {
        Sweep& s = p_.sweep[p_.sweeps++];
        s.out = tokens(out, reversed);
        s.x = tokens(x, reversed);
        s.y = tokens(y, reversed);
        s.z = tokens(z, reversed);
        const auto aligned = [](const Tokens& t) { return rows_aligned(t.data, {t.batch, t.row, t.head, t.first}); };
        s.vectors_in = aligned(s.x) && aligned(s.y) && aligned(s.z);
        s.vectors_out = aligned(s.out) && p_.head_size % 4 == 0;
        return s;
    }
    int run(const Call& call, const char* name) {
        const bool half = args_->q->dtype == DF_BF16;
        p_.segments = linear_attention_segments(p_.tokens, static_cast<int64_t>(p_.sweeps) * p_.batch * p_.heads * p_.slices);
        if (p_.segments.count == 1) return launch_sweeps(call, name, p_, half);
        const int64_t states = p_.sweeps * (p_.segments.count - 1) * p_.batch * p_.heads, size = int64_t{p_.head_size} * p_.head_size;
        Scratch carried(call, states * size * static_cast<int64_t>(sizeof(float)));
        if (!carried) return carried.failure();
        p_.carried = carried.as<float>();
        p_.ends_only = true;
        if (const int status = launch_sweeps(call, "linear_attention_mma segments", p_, half)) return status;
        p_.ends_only = false;
        if (const int status = launch(call, "carry_segments", element_blocks(states * size / (p_.segments.count - 1), 256), 256, 0,
                                      carry_segments, p_))
            return status;
        return launch_sweeps(call, name, p_, half);
    }

private:
    const df_linear_attention_args* args_;
    Sweeps p_;
};

}  // namespace

int linear_attention_forward_mma(const Call& call, const df_linear_attention_args* args, bool* served) {
    Work work(args);
    *served = work.serves();
    if (!*served) return DF_OK;
    Sweep& s = work.add(args->out, args->q, args->k, args->v, false);
    s.initial = state(args->state_in, false);
    s.initial_is_before = true;
    s.last = state(args->state_out, false);
    s.last_is_after = true;
    s.exact = leaves_in_float32(args->state_out);
    return work.run(call, "linear_attention_mma out");
}

int linear_attention_backward_mma(const Call& call, const df_linear_attention_args* args, bool* served) {
    Work work(args);
    *served = work.serves();
    if (!*served) return DF_OK;
    Sweep& dq = work.add(args->dq, args->dout, args->v, args->k, false);
    dq.initial = state(args->state_in, true);
    dq.initial_is_before = true;
    Sweep& dk = work.add(args->dk, args->v, args->dout, args->q, true);
    dk.initial = state(args->dstate_out, true);
    Sweep& dv = work.add(args->dv, args->k, args->q, args->dout, true);
    dv.initial = state(args->dstate_out, false);
    dv.last = state(args->dstate_in, false); /* decay dS_1: what a token before the first would see */
    dv.exact = leaves_in_float32(args->dstate_in);
    return work.run(call, "linear_attention_mma dq dk dv");
}

}  // namespace dualform::cuda
