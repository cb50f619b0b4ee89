// Causal linear attention and its gradients, all as one sweep in chunks of 32 tokens.
//
// The sweep itself: linear_attention.h.
//
// One block per (b, head, 32 indices of z): it holds its 32 x HS slice of R in shared memory and owns 32 columns of out. Memory does not
// grow with T, and the cost is linear in T.
#include "linear_attention.h"

#include "choice.h"
#include "kernels.h"
#include "launch.h"
#include "momentum.h"

namespace dualform::cuda {

namespace {

constexpr int kChunk = 32; /* tokens, and z indices, of a block: 1024 products of 32 for 256 threads */
constexpr int kPitch = kChunk + 1;
constexpr int kOwn = kChunk / kSide; /* a thread owns 2 x 2 of a 32 x 32 tile */

struct Sweep {
    Tokens out, x, y, z;
    State initial, last;
    Floats decay;           /* absent: 1 */
    bool initial_is_before; /* the initial state still has to be decayed for the first token */
    bool last_is_after;     /* store R as the last token saw it; otherwise as a next token would */
    int64_t tokens;
    int heads, head_size;
    /* with tangents: ddecay partials (NH, B, slices) instead of out */
    Tokens dout;
    State dstate_out;
    double* partials;
    int batch;
};

/// 32 x 32 from `rows`, zero outside.
__device__ inline void stage_chunk(float* shared, const Rows& rows, int64_t row0, int column0, int width) {
    stage<kChunk, kChunk>(shared, kPitch, rows, row0, column0, width);
}

/// Dynamic shared memory: R and, with tangents, N = dR/ddecay, each [32][HS rounded up to odd]; then five 32 x 33 tiles.
template <bool Tangents>
__global__ void __launch_bounds__(kTileThreads, 1) linear_attention_sweep(Sweep p) {
#ifdef DF_CUDA_EMULATION
    float* const shared = static_cast<float*>(emulation::dynamic_shared());
#else
    extern __shared__ float shared[];
#endif
    __shared__ float powers[kChunk + 1], slopes[kChunk + 1]; /* decay^n and its derivative n decay^(n-1) */
    const int pitch = p.head_size | 1, slices = static_cast<int>(ceil_div(p.head_size, kChunk));
    float* const carried = shared;
    float* const tangent = Tangents ? carried + kChunk * pitch : carried;
    float* const x_tile = tangent + kChunk * pitch;
    float* const y_tile = x_tile + kChunk * kPitch;
    float* const z_tile = y_tile + kChunk * kPitch;
    float* const weights = z_tile + kChunk * kPitch;
    float* const sloped = weights + kChunk * kPitch;
    const int a0 = static_cast<int>(blockIdx.x % slices) * kChunk;
    const int head = static_cast<int>(blockIdx.x / slices % p.heads);
    const int64_t b = blockIdx.x / slices / p.heads;
    const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
    const int own = smaller(kChunk, p.head_size - a0); /* z indices of this slice */
    const double decay = p.decay ? p.decay.load(head) : 1.0;
    for (int n = threadIdx.x; n <= kChunk; n += kTileThreads) {
        powers[n] = static_cast<float>(pow(decay, static_cast<double>(n)));
        slopes[n] = n == 0 ? 0.0f : static_cast<float>(n * pow(decay, static_cast<double>(n - 1)));
    }
    for (int e = threadIdx.x; e < kChunk * p.head_size; e += kTileThreads) {
        const int a = e / p.head_size, c = e % p.head_size;
        const float value = p.initial.data && a < own ? p.initial.data.load(p.initial.at(b, head, a0 + a, c)) : 0.0f;
        carried[a * pitch + c] = p.initial_is_before ? (decay == 0 ? 0.0f : static_cast<float>(decay) * value) : value;
        if (Tangents) tangent[a * pitch + c] = value;
    }
    const Rows x = p.x.rows(b, head, p.tokens), y = p.y.rows(b, head, p.tokens), z = p.z.rows(b, head, p.tokens);
    double gradient = 0;
    for (int64_t t0 = 0; t0 < p.tokens; t0 += kChunk) {
        const int n = static_cast<int>(smaller<int64_t>(kChunk, p.tokens - t0));
        float scores[kOwn][kOwn] = {}, from_state[kOwn][kOwn] = {}, from_tangent[kOwn][kOwn] = {};
        for (int c0 = 0; c0 < p.head_size; c0 += kChunk) {
            __syncthreads();
            stage_chunk(x_tile, x, t0, c0, p.head_size);
            stage_chunk(y_tile, y, t0, c0, p.head_size);
            __syncthreads();
            const int depth = smaller(kChunk, p.head_size - c0);
            float score[kOwn][kOwn] = {}, state[kOwn][kOwn] = {}, slope[kOwn][kOwn] = {};
            for (int c = 0; c < depth; ++c)
#pragma unroll
                for (int i = 0; i < kOwn; ++i) {
                    const float xv = x_tile[(ty + kSide * i) * kPitch + c];
#pragma unroll
                    for (int j = 0; j < kOwn; ++j) {
                        score[i][j] = fmaf(xv, y_tile[(tx + kSide * j) * kPitch + c], score[i][j]);
                        state[i][j] = fmaf(xv, carried[(tx + kSide * j) * pitch + c0 + c], state[i][j]);
                        if (Tangents) slope[i][j] = fmaf(xv, tangent[(tx + kSide * j) * pitch + c0 + c], slope[i][j]);
                    }
                }
#pragma unroll
            for (int i = 0; i < kOwn; ++i)
#pragma unroll
                for (int j = 0; j < kOwn; ++j) {
                    scores[i][j] += score[i][j];
                    from_state[i][j] += state[i][j];
                    from_tangent[i][j] += slope[i][j];
                }
        }
        /* z and weights were last read before the barriers above */
        stage_chunk(z_tile, z, t0, a0, p.head_size);
#pragma unroll
        for (int i = 0; i < kOwn; ++i)
#pragma unroll
            for (int j = 0; j < kOwn; ++j) {
                const int row = ty + kSide * i, column = tx + kSide * j, apart = row - column;
                weights[row * kPitch + column] = apart < 0 ? 0.0f : scores[i][j] * powers[apart];
                if (Tangents) sloped[row * kPitch + column] = apart < 0 ? 0.0f : scores[i][j] * slopes[apart];
            }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kOwn; ++i)
#pragma unroll
            for (int j = 0; j < kOwn; ++j) {
                const int row = ty + kSide * i, a = tx + kSide * j;
                float inside = 0;
                for (int k = 0; k <= row && k < n; ++k)
                    inside = fmaf(Tangents ? sloped[row * kPitch + k] : weights[row * kPitch + k], z_tile[k * kPitch + a], inside);
                if (row >= n || a >= own) continue;
                if (Tangents) {
                    const float value = inside + slopes[row] * from_state[i][j] + powers[row] * from_tangent[i][j];
                    const Rows dout = p.dout.rows(b, head, p.tokens);
                    gradient += static_cast<double>(value) * dout.data.load(dout.base + (t0 + row) * dout.stride + a0 + a);
                } else {
                    const Rows out = p.out.rows(b, head, p.tokens);
                    out.data.store(out.base + (t0 + row) * out.stride + a0 + a, fmaf(powers[row], from_state[i][j], inside));
                }
            }
        const bool ends = t0 + kChunk >= p.tokens;
        if (ends && !p.last.data && !Tangents) break;
        const int shift = ends && p.last_is_after ? 1 : 0; /* one decay less: the state as the last token saw it */
        for (int c0 = 0; c0 < p.head_size; c0 += kChunk) {
            __syncthreads();
            stage_chunk(y_tile, y, t0, c0, p.head_size);
            __syncthreads();
#pragma unroll
            for (int i = 0; i < kOwn; ++i)
#pragma unroll
                for (int j = 0; j < kOwn; ++j) {
                    const int a = ty + kSide * i, c = tx + kSide * j;
                    if (c0 + c >= p.head_size) continue;
                    float added = 0, sloped_added = 0;
                    for (int k = 0; k < n; ++k) {
                        const float outer = z_tile[k * kPitch + a] * y_tile[k * kPitch + c];
                        added = fmaf(powers[n - k - shift], outer, added);
                        if (Tangents) sloped_added = fmaf(slopes[n - k - shift], outer, sloped_added);
                    }
                    float& r = carried[a * pitch + c0 + c];
                    if (Tangents) {
                        float& d = tangent[a * pitch + c0 + c];
                        d = fmaf(powers[n - shift], d, fmaf(slopes[n - shift], r, sloped_added));
                    }
                    r = fmaf(powers[n - shift], r, added);
                }
        }
    }
    if (!p.last.data && !Tangents) return;
    __syncthreads();
    for (int e = threadIdx.x; e < own * p.head_size; e += kTileThreads) {
        const int a = e / p.head_size, c = e % p.head_size;
        if (p.last.data) p.last.data.store(p.last.at(b, head, a0 + a, c), carried[a * pitch + c]);
        if (Tangents && p.dstate_out.data)
            gradient += static_cast<double>(tangent[a * pitch + c]) * p.dstate_out.data.load(p.dstate_out.at(b, head, a0 + a, c));
    }
    if (Tangents) {
        gradient = sum_block(gradient);
        if (threadIdx.x == 0) p.partials[(head * static_cast<int64_t>(p.batch) + b) * slices + a0 / kChunk] = gradient;
    }
}

Sweep sweep(const df_linear_attention_args* args, const df_view* out, const df_view* x, const df_view* y, const df_view* z, bool reversed) {
    Sweep s = {};
    s.out = tokens(out, reversed);
    s.x = tokens(x, reversed);
    s.y = tokens(y, reversed);
    s.z = tokens(z, reversed);
    s.decay = floats(args->decay);
    s.tokens = args->q->shape[1];
    s.batch = static_cast<int>(args->q->shape[0]);
    s.heads = static_cast<int>(args->q->shape[2]);
    s.head_size = static_cast<int>(args->q->shape[3]);
    return s;
}

template <bool Tangents>
int run(const Call& call, const char* name, const Sweep& s) {
    if (s.head_size > 256) return fail(call.error, DF_UNSUPPORTED, "%s: head size %d, expected 1..256", call.op, s.head_size);
    const int64_t blocks = static_cast<int64_t>(s.batch) * s.heads * ceil_div(s.head_size, kChunk);
    const size_t floats = (Tangents ? 2 : 1) * kChunk * static_cast<size_t>(s.head_size | 1) + 5 * kChunk * kPitch;
    return launch(call, name, blocks, kTileThreads, floats * sizeof(float), linear_attention_sweep<Tangents>, s);
}

/// The first of the kernels that serves, where kernels other than plain are chosen.
int on_tensor_cores(const Call& call, const df_linear_attention_args* args, bool* served,
                    std::initializer_list<int (*)(const Call&, const df_linear_attention_args*, bool*)> kernel) {
    if (kernels() == Kernels::kPlain) return DF_OK;
    for (const auto serve : kernel) {
        const int status = serve(call, args, served);
        if (status != DF_OK || *served) return status;
    }
    return DF_OK;
}

}  // namespace

int linear_attention_forward(const Call& call, const df_linear_attention_args* args) {
    if (const int status = call.require_device_floats({args->out, args->state_out, args->q, args->k, args->v, args->decay, args->state_in}))
        return status;
    bool served = false;
    if (const int status = on_tensor_cores(call, args, &served, {linear_attention_forward_step, linear_attention_forward_hopper,
                                                                 linear_attention_forward_mma}))
        return status;
    if (served) return DF_OK;
    Sweep s = sweep(args, args->out, args->q, args->k, args->v, false);
    s.initial = state(args->state_in, false);
    s.initial_is_before = true;
    s.last = state(args->state_out, false);
    s.last_is_after = true;
    return run<false>(call, "linear_attention_sweep out", s);
}

int linear_attention_backward(const Call& call, const df_linear_attention_args* args) {
    if (const int status = call.require_device_floats({args->dq, args->dk, args->dv, args->ddecay, args->dstate_in, args->dout,
                                                       args->dstate_out, args->q,
                                                       args->k, args->v, args->decay, args->state_in}))
        return status;
    bool served = false;
    if (const int status = on_tensor_cores(call, args, &served, {linear_attention_backward_hopper, linear_attention_backward_mma}))
        return status;
    if (served) return linear_attention_decay_gradient(call, args);
    Sweep dq = sweep(args, args->dq, args->dout, args->v, args->k, false);
    dq.initial = state(args->state_in, true);
    dq.initial_is_before = true;
    if (const int status = run<false>(call, "linear_attention_sweep dq", dq)) return status;

    Sweep dk = sweep(args, args->dk, args->v, args->dout, args->q, true);
    dk.initial = state(args->dstate_out, true);
    if (const int status = run<false>(call, "linear_attention_sweep dk", dk)) return status;

    Sweep dv = sweep(args, args->dv, args->k, args->q, args->dout, true);
    dv.initial = state(args->dstate_out, false);
    dv.last = state(args->dstate_in, false); /* decay dS_1: what a token before the first would see */
    if (const int status = run<false>(call, "linear_attention_sweep dv", dv)) return status;
    return linear_attention_decay_gradient(call, args);
}

int linear_attention_decay_gradient(const Call& call, const df_linear_attention_args* args) {
    if (args->ddecay == nullptr || args->decay == nullptr) return DF_OK;
    Sweep tangent = sweep(args, nullptr, args->q, args->k, args->v, false);
    tangent.initial = state(args->state_in, false);
    tangent.initial_is_before = true;
    tangent.last_is_after = true;
    tangent.dout = tokens(args->dout, false);
    tangent.dstate_out = state(args->dstate_out, false);
    const int64_t per_head = tangent.batch * ceil_div(tangent.head_size, kChunk);
    Scratch partials(call, tangent.heads * per_head * static_cast<int64_t>(sizeof(double)));
    if (!partials) return partials.failure();
    tangent.partials = partials.as<double>();
    if (const int status = run<true>(call, "linear_attention_sweep ddecay", tangent)) return status;
    return sum_per_head(call, floats(args->ddecay), tangent.heads, per_head, partials.as<double>(), args->accumulate != 0);
}

}  // namespace dualform::cuda
