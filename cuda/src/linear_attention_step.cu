// One token of causal linear attention, as decoding calls it: S = decay S + v (x) k, out = S q, in float32 whatever the inputs.
//
// Memory decides: a state of HS^2 floats is read once and written once, in 16-byte accesses, and nothing else is large. A row is read by as
// many lanes as it has pieces of 16 bytes, at most 32; one block per (b, head, 4 rows for each such group of lanes), the 4 in flight at once.
#include "launch.h"
#include "linear_attention.h"
#include "running_state.h"

namespace dualform::cuda {

namespace {

constexpr int kStepWarps = 4, kStepThreads = kStepWarps * kWarp, kInFlight = 4, kQuad = 4; /* floats of a 16-byte access */

struct Step {
    Tokens out, q, k, v;
    State before, after; /* either may be absent */
    Floats decay;
    int heads = 0, head_size = 0;
    int lanes = 0;          /* of a row: a power of two */
    int rows_per_block = 0; /* kStepWarps * kInFlight * (32 / lanes) */
};

__device__ inline float4 load_quad(const Floats& data, int64_t at) {
    if (data.dtype != DF_BF16) return *reinterpret_cast<const float4*>(static_cast<const float*>(data.data) + at);
    const uint2 pairs = *reinterpret_cast<const uint2*>(static_cast<const bf16*>(data.data) + at);
    return {low_bf16(pairs.x), high_bf16(pairs.x), low_bf16(pairs.y), high_bf16(pairs.y)};
}

/// PerLane 16-byte pieces of a row per lane: column 4 (lane + i lanes).
template <int PerLane>
__global__ void __launch_bounds__(kStepThreads) linear_attention_step(const Step p) {
    const int blocks_per_head = static_cast<int>(ceil_div(p.head_size, p.rows_per_block));
    const int head = static_cast<int>(blockIdx.x / blocks_per_head % p.heads);
    const int64_t b = blockIdx.x / blocks_per_head / p.heads;
    const int lane = threadIdx.x % kWarp % p.lanes, group = threadIdx.x / p.lanes, groups = kStepThreads / p.lanes;
    const int a0 = static_cast<int>(blockIdx.x % blocks_per_head) * p.rows_per_block + group;
    const float decay = p.decay ? p.decay.load(head) : 1.0f;
    const bool reads = p.before.data && decay != 0;

    float4 state[kInFlight][PerLane];
    float v[kInFlight];
    const int64_t v_at = p.v.rows(b, head, 1).base, q_at = p.q.rows(b, head, 1).base, k_at = p.k.rows(b, head, 1).base;
#pragma unroll
    for (int r = 0; r < kInFlight; ++r) {
        const int a = a0 + r * groups;
        v[r] = a < p.head_size ? p.v.data.load(v_at + a) : 0.0f;
#pragma unroll
        for (int i = 0; i < PerLane; ++i) {
            const int c = kQuad * (lane + i * p.lanes);
            state[r][i] = {0, 0, 0, 0};
            if (reads && a < p.head_size && c < p.head_size) state[r][i] = load_quad(p.before.data, p.before.at(b, head, a, c));
        }
    }
    float4 q[PerLane], k[PerLane];
#pragma unroll
    for (int i = 0; i < PerLane; ++i) {
        const int c = kQuad * (lane + i * p.lanes);
        q[i] = k[i] = {0, 0, 0, 0};
        if (c >= p.head_size) continue;
        q[i] = {p.q.data.load(q_at + c), p.q.data.load(q_at + c + 1), p.q.data.load(q_at + c + 2), p.q.data.load(q_at + c + 3)};
        k[i] = {p.k.data.load(k_at + c), p.k.data.load(k_at + c + 1), p.k.data.load(k_at + c + 2), p.k.data.load(k_at + c + 3)};
    }
#pragma unroll
    for (int r = 0; r < kInFlight; ++r) {
        const int a = a0 + r * groups;
        float sum = 0;
#pragma unroll
        for (int i = 0; i < PerLane; ++i) {
            float4 s = state[r][i];
            s.x = fmaf(decay, s.x, v[r] * k[i].x);
            s.y = fmaf(decay, s.y, v[r] * k[i].y);
            s.z = fmaf(decay, s.z, v[r] * k[i].z);
            s.w = fmaf(decay, s.w, v[r] * k[i].w);
            sum += (s.x * q[i].x + s.y * q[i].y) + (s.z * q[i].z + s.w * q[i].w);
            const int c = kQuad * (lane + i * p.lanes);
            if (p.after.data && a < p.head_size && c < p.head_size)
                *reinterpret_cast<float4*>(static_cast<float*>(p.after.data.data) + p.after.at(b, head, a, c)) = s;
        }
        sum = sum_lanes(sum, p.lanes);
        if (lane == 0 && a < p.head_size) p.out.data.store(p.out.rows(b, head, 1).base + a, sum);
    }
}

/// Whether pieces of four elements lie at multiples of their size.
bool quads(const State& s) {
    const uintptr_t bytes = s.data.dtype == DF_BF16 ? 8 : 16;
    return !s.data || (reinterpret_cast<uintptr_t>(s.data.data) % bytes == 0 && s.row % kQuad == 0 && s.head % kQuad == 0 &&
                       s.batch % kQuad == 0);
}

}  // namespace

int linear_attention_forward_step(const Call& call, const df_linear_attention_args* args, bool* served) {
    Step p;
    p.head_size = static_cast<int>(args->q->shape[3]);
    p.heads = static_cast<int>(args->q->shape[2]);
    p.before = state(args->state_in, false);
    p.after = state(args->state_out, false);
    *served = args->q->shape[1] == 1 && p.head_size % kQuad == 0 && p.head_size <= 256 && quads(p.before) && quads(p.after) &&
              (!p.after.data || p.after.data.dtype == DF_F32);
    if (!*served) return DF_OK;
    p.out = tokens(args->out, false);
    p.q = tokens(args->q, false);
    p.k = tokens(args->k, false);
    p.v = tokens(args->v, false);
    p.decay = floats(args->decay);
    p.lanes = 1;
    while (p.lanes < kWarp && p.lanes * kQuad < p.head_size) p.lanes *= 2;
    p.rows_per_block = kStepThreads / p.lanes * kInFlight;
    const int64_t blocks = args->q->shape[0] * p.heads * ceil_div(p.head_size, p.rows_per_block);
    return launch(call, "linear_attention_step", blocks, kStepThreads, 0,
                  p.head_size > kWarp * kQuad ? linear_attention_step<2> : linear_attention_step<1>, p);
}

}  // namespace dualform::cuda
