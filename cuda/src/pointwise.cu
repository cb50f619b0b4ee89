// Elementwise ops over strided, broadcast views: one thread per element, neighbouring threads on neighbouring elements.
#include "kernels.h"
#include "launch.h"
#include "views.h"

namespace dualform::cuda {

namespace {

constexpr int kThreads = 256;

/// Calls f(i) for the elements of this thread.
template <class F>
__device__ inline void for_elements(int64_t count, F&& f) {
    for (int64_t i = first_element(); i < count; i += element_stride()) f(i);
}

__device__ inline float unary(float x, int op) {
    switch (op) {
        case DF_UNARY_NEG: return -x;
        case DF_UNARY_EXP: return expf(x);
        case DF_UNARY_LOG: return logf(x);
        case DF_UNARY_SQRT: return sqrtf(x);
        case DF_UNARY_RSQRT: return 1.0f / sqrtf(x);
        case DF_UNARY_RECIPROCAL: return 1.0f / x;
        case DF_UNARY_SQUARE: return x * x;
        case DF_UNARY_ABS: return fabsf(x);
        case DF_UNARY_TANH: return tanhf(x);
        case DF_UNARY_SIGMOID: return 1.0f / (1.0f + expf(-x));
        case DF_UNARY_RELU: return x <= 0 ? 0.0f : x; /* NaN stays NaN */
        case DF_UNARY_SIN: return sinf(x);
        default: return cosf(x);
    }
}

__device__ inline float unary_slope(float x, int op) {
    switch (op) {
        case DF_UNARY_NEG: return -1.0f;
        case DF_UNARY_EXP: return expf(x);
        case DF_UNARY_LOG: return 1.0f / x;
        case DF_UNARY_SQRT: return 0.5f / sqrtf(x);
        case DF_UNARY_RSQRT: return -0.5f / (x * sqrtf(x));
        case DF_UNARY_RECIPROCAL: return -1.0f / (x * x);
        case DF_UNARY_SQUARE: return 2.0f * x;
        case DF_UNARY_ABS: return x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f;
        case DF_UNARY_TANH: {
            const float cosine = coshf(x); /* 1 - tanh^2 would cancel; an infinite cosh gives 0 */
            return 1.0f / cosine / cosine;
        }
        case DF_UNARY_SIGMOID: return 1.0f / (1.0f + expf(-x)) * (1.0f / (1.0f + expf(x)));
        case DF_UNARY_RELU: return x > 0 ? 1.0f : 0.0f;
        case DF_UNARY_SIN: return cosf(x);
        default: return -sinf(x);
    }
}

__device__ inline float binary(float a, float b, int op) {
    switch (op) {
        case DF_BINARY_ADD: return a + b;
        case DF_BINARY_SUB: return a - b;
        case DF_BINARY_MUL: return a * b;
        case DF_BINARY_DIV: return a / b;
        case DF_BINARY_MAX: return a > b || a != a ? a : b; /* NaN in either gives NaN */
        default: return a < b || a != a ? a : b;
    }
}

__global__ void unary_forward_elements(Floats out, Floats x, Walk<2> walk, int op) {
    for_elements(walk.count, [&](int64_t i) {
        int64_t at[2];
        walk.offsets(i, at);
        out.store(at[0], unary(x.load(at[1]), op));
    });
}

__global__ void unary_backward_elements(Floats dx, Floats dout, Floats x, Walk<3> walk, int op) {
    for_elements(walk.count, [&](int64_t i) {
        int64_t at[3];
        walk.offsets(i, at);
        dx.store(at[0], dout.load(at[1]) * unary_slope(x.load(at[2]), op));
    });
}

__global__ void binary_elements(Floats out, Floats a, Floats b, Walk<3> walk, int op) {
    for_elements(walk.count, [&](int64_t i) {
        int64_t at[3];
        walk.offsets(i, at);
        out.store(at[0], binary(a.load(at[1]), b.load(at[2]), op));
    });
}

/// Integers wrap around; the core refuses div.
__global__ void binary_ints(int32_t* out, const int32_t* a, const int32_t* b, Walk<3> walk, int op) {
    for_elements(walk.count, [&](int64_t i) {
        int64_t at[3];
        walk.offsets(i, at);
        const int32_t x = a[at[1]], y = b[at[2]];
        const uint32_t ux = static_cast<uint32_t>(x), uy = static_cast<uint32_t>(y);
        switch (op) {
            case DF_BINARY_ADD: out[at[0]] = static_cast<int32_t>(ux + uy); break;
            case DF_BINARY_SUB: out[at[0]] = static_cast<int32_t>(ux - uy); break;
            case DF_BINARY_MUL: out[at[0]] = static_cast<int32_t>(ux * uy); break;
            case DF_BINARY_MAX: out[at[0]] = larger(x, y); break;
            default: out[at[0]] = smaller(x, y); break;
        }
    });
}

__global__ void affine_elements(Floats out, Floats x, Walk<2> walk, double alpha, double beta) {
    for_elements(walk.count, [&](int64_t i) {
        int64_t at[2];
        walk.offsets(i, at);
        out.store(at[0], alpha * x.load(at[1]) + beta);
    });
}

__global__ void copy_elements(Floats out, Floats x, Walk<2> walk) {
    for_elements(walk.count, [&](int64_t i) {
        int64_t at[2];
        walk.offsets(i, at);
        out.store(at[0], x.load(at[1]));
    });
}

__global__ void copy_ints(int32_t* out, const int32_t* x, Walk<2> walk) {
    for_elements(walk.count, [&](int64_t i) {
        int64_t at[2];
        walk.offsets(i, at);
        out[at[0]] = x[at[1]];
    });
}

__global__ void fill_elements(Floats out, Walk<1> walk, float value) {
    for_elements(walk.count, [&](int64_t i) {
        int64_t at[1];
        walk.offsets(i, at);
        out.store(at[0], value);
    });
}

__global__ void fill_ints(int32_t* out, Walk<1> walk, int32_t value) {
    for_elements(walk.count, [&](int64_t i) {
        int64_t at[1];
        walk.offsets(i, at);
        out[at[0]] = value;
    });
}

/// One warp per row: each lane keeps its first largest, then lanes are compared; NaN counts as largest, ties go to the lower index.
__global__ void argmax_warp(int32_t* out, Floats x, Walk<2> rows, int64_t columns) {
    const int64_t n = blockIdx.x * static_cast<int64_t>(blockDim.x / kWarp) + threadIdx.x / kWarp;
    if (n >= rows.count) return;
    int64_t at[2];
    rows.offsets(n, at);
    float best = -INFINITY;
    int64_t where = columns; /* none yet */
    for (int64_t c = threadIdx.x % kWarp; c < columns; c += kWarp) {
        const float value = x.load(at[1] + c);
        if (where == columns || value > best || (value != value && best == best)) {
            best = value;
            where = c;
        }
    }
    for (int step = kWarp / 2; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(kAllLanes, best, step);
        const long long index = __shfl_xor_sync(kAllLanes, static_cast<long long>(where), step);
        const bool both_nan = other != other && best != best;
        const bool larger_value = other > best || (other != other && best == best);
        const bool tie = (other == best || both_nan) && index < where;
        if (index != columns && (where == columns || larger_value || tie)) {
            best = other;
            where = index;
        }
    }
    if (threadIdx.x % kWarp == 0) out[at[0]] = static_cast<int32_t>(where);
}

int64_t blocks_for(int64_t count) { return element_blocks(count, kThreads); }

}  // namespace

int unary_forward(const Call& call, const df_pointwise_args* args) {
    if (const int status = call.require_device_floats({args->out, args->x})) return status;
    const Walk<2> w = walk<2>({args->out, args->x});
    return launch(call, "unary_forward_elements", blocks_for(w.count), kThreads, 0, unary_forward_elements, floats(args->out),
                  floats(args->x), w,
                  args->op);
}

int unary_backward(const Call& call, const df_pointwise_args* args) {
    if (const int status = call.require_device_floats({args->dx, args->dout, args->x})) return status;
    const Walk<3> w = walk<3>({args->dx, args->dout, args->x});
    return launch(call, "unary_backward_elements", blocks_for(w.count), kThreads, 0, unary_backward_elements, floats(args->dx),
                  floats(args->dout),
                  floats(args->x), w, args->op);
}

int binary_forward(const Call& call, const df_pointwise_args* args) {
    const Walk<3> w = walk<3>({args->out, args->x, args->b});
    if (args->out->dtype == DF_I32 && args->x->dtype == DF_I32 && args->b->dtype == DF_I32 && args->op != DF_BINARY_DIV)
        return launch(call, "binary_ints", blocks_for(w.count), kThreads, 0, binary_ints, static_cast<int32_t*>(args->out->data),
                      static_cast<const int32_t*>(args->x->data), static_cast<const int32_t*>(args->b->data), w, args->op);
    if (const int status = call.require_device_floats({args->out, args->x, args->b})) return status;
    return launch(call, "binary_elements", blocks_for(w.count), kThreads, 0, binary_elements, floats(args->out), floats(args->x),
                  floats(args->b), w, args->op);
}

int affine(const Call& call, const df_pointwise_args* args) {
    if (const int status = call.require_device_floats({args->out, args->x})) return status;
    const Walk<2> w = walk<2>({args->out, args->x});
    return launch(call, "affine_elements", blocks_for(w.count), kThreads, 0, affine_elements, floats(args->out), floats(args->x), w,
                  args->alpha,
                  args->beta);
}

int copy(const Call& call, const df_pointwise_args* args) {
    const Walk<2> w = walk<2>({args->out, args->x});
    if (args->out->dtype == DF_I32 && args->x->dtype == DF_I32)
        return launch(call, "copy_ints", blocks_for(w.count), kThreads, 0, copy_ints, static_cast<int32_t*>(args->out->data),
                      static_cast<const int32_t*>(args->x->data), w);
    if (const int status = call.require_device_floats({args->out, args->x})) return status;
    return launch(call, "copy_elements", blocks_for(w.count), kThreads, 0, copy_elements, floats(args->out), floats(args->x), w);
}

int fill(const Call& call, const df_pointwise_args* args) {
    const Walk<1> w = walk<1>({args->out});
    if (args->out->dtype == DF_I32)
        return launch(call, "fill_ints", blocks_for(w.count), kThreads, 0, fill_ints, static_cast<int32_t*>(args->out->data), w,
                      static_cast<int32_t>(args->alpha));
    if (const int status = call.require_device_floats({args->out})) return status;
    return launch(call, "fill_elements", blocks_for(w.count), kThreads, 0, fill_elements, floats(args->out), w,
                  static_cast<float>(args->alpha));
}

int argmax(const Call& call, const df_pointwise_args* args) {
    if (const int status = call.require_device_floats({args->x})) return status;
    Walk<2> rows;
    for (int axis = 0; axis < args->x->rank - 1; ++axis) rows.append(args->x->shape[axis], {args->out->stride[axis],
        args->x->stride[axis]});
    rows.finish();
    constexpr int kRowsPerBlock = 4;
    return launch(call, "argmax_warp", ceil_div(rows.count, kRowsPerBlock), kRowsPerBlock * kWarp, 0, argmax_warp,
                  static_cast<int32_t*>(args->out->data), floats(args->x), rows, last_dim(args->x));
}

}  // namespace dualform::cuda
