// Optimizer steps (one thread per element, state kept in float) and the gradient norm (two stages, double, fixed order).
#include "kernels.h"
#include "launch.h"
#include "views.h"

namespace dualform::cuda {

namespace {

constexpr int kThreads = 256;

struct Step {
    Floats param, m, v, master, grad;
    const float* scale;
    Walk<5> walk; /* param, m, v, master, grad */
    double lr, beta1, beta2, eps, weight_decay, correction1, correction2; /* corrections: 1 - beta^step */
};

/// With a master copy, param is the rounding of what the master holds.
__device__ inline void store_param(const Step& p, const int64_t (&at)[5], double next) {
    if (!p.master) {
        p.param.store(at[0], next);
        return;
    }
    const float kept = static_cast<float>(next);
    p.master.store(at[3], kept);
    p.param.store(at[0], kept);
}

__global__ void adamw_elements(Step p) {
    const double scale = p.scale == nullptr ? 1.0 : *p.scale;
    for (int64_t i = first_element(); i < p.walk.count; i += element_stride()) {
        int64_t at[5];
        p.walk.offsets(i, at);
        const double g = scale * p.grad.load(at[4]);
        const double m = p.beta1 * p.m.load(at[1]) + (1 - p.beta1) * g;
        const double v = p.beta2 * p.v.load(at[2]) + (1 - p.beta2) * g * g;
        const double value = p.master ? p.master.load(at[3]) : p.param.load(at[0]);
        const double next = value - p.lr * (p.weight_decay * value + m / p.correction1 / (sqrt(v / p.correction2) + p.eps));
        p.m.store(at[1], m);
        p.v.store(at[2], v);
        store_param(p, at, next);
    }
}

__global__ void sgd_elements(Step p) {
    const double scale = p.scale == nullptr ? 1.0 : *p.scale;
    for (int64_t i = first_element(); i < p.walk.count; i += element_stride()) {
        int64_t at[5];
        p.walk.offsets(i, at);
        const double value = p.master ? p.master.load(at[3]) : p.param.load(at[0]);
        double step = scale * p.grad.load(at[4]) + p.weight_decay * value;
        if (p.m) {
            step += p.beta1 * p.m.load(at[1]);
            p.m.store(at[1], step);
        }
        store_param(p, at, value - p.lr * step);
    }
}

/// partials[block] = sum of squares of the block's share, walked with a grid stride.
__global__ void squared_norm_partials(double* partials, Floats x, Walk<1> walk) {
    double sum = 0;
    for (int64_t i = first_element(); i < walk.count; i += element_stride()) {
        int64_t at[1];
        walk.offsets(i, at);
        const double value = x.load(at[0]);
        sum += value * value;
    }
    sum = sum_block(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void squared_norm_total(float* out, const double* partials, int64_t n, bool accumulate) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += partials[i];
    sum = sum_block(sum);
    if (threadIdx.x == 0) *out = static_cast<float>(accumulate ? *out + sum : sum);
}

__global__ void clip_scale_value(float* scale, const float* sumsq, double max_norm) {
    if (threadIdx.x != 0) return;
    const double sum = *sumsq, factor = max_norm / (sqrt(sum) + 1e-6);
    *scale = !(sum - sum == 0) ? *sumsq : factor < 1 ? static_cast<float>(factor) : 1.0f; /* NaN or inf stays visible */
}

Step step(const df_optimizer_args* args) {
    Step p = {};
    p.param = floats(args->param);
    p.m = floats(args->m);
    p.v = floats(args->v);
    p.master = floats(args->master);
    p.grad = floats(args->grad);
    p.scale = args->scale == nullptr ? nullptr : static_cast<const float*>(args->scale->data);
    p.walk = walk<5>({args->param, args->m, args->v, args->master, args->grad});
    p.lr = args->lr;
    p.beta1 = args->beta1;
    p.beta2 = args->beta2;
    p.eps = args->eps;
    p.weight_decay = args->weight_decay;
    return p;
}

}  // namespace

int squared_norm(const Call& call, const df_optimizer_args* args) {
    if (const int status = call.require_device_floats({args->sumsq, args->x})) return status;
    const Walk<1> w = walk<1>({args->x});
    // At most 1024 blocks, whatever the device: the order of the sum depends on the size of x alone.
    const int64_t blocks = smaller<int64_t>(ceil_div(w.count, 4 * kThreads), 1024);
    Scratch partials(call, blocks * static_cast<int64_t>(sizeof(double)));
    if (!partials) return partials.failure();
    if (const int status = launch(call, "squared_norm_partials", blocks, kThreads, 0, squared_norm_partials, partials.as<double>(),
                                  floats(args->x), w))
        return status;
    return launch(call, "squared_norm_total", 1, kThreads, 0, squared_norm_total, static_cast<float*>(args->sumsq->data),
                  partials.as<double>(), blocks,
                  args->accumulate != 0);
}

int clip_scale(const Call& call, const df_optimizer_args* args) {
    if (const int status = call.require_device_floats({args->scale, args->sumsq})) return status;
    return launch(call, "clip_scale_value", 1, kWarp, 0, clip_scale_value, static_cast<float*>(args->scale->data),
                  static_cast<const float*>(args->sumsq->data), args->max_norm);
}

int adamw_step(const Call& call, const df_optimizer_args* args) {
    if (const int status = call.require_device_floats({args->param, args->m, args->v, args->master, args->grad, args->scale}))
        return status;
    Step p = step(args);
    p.correction1 = 1 - pow(args->beta1, static_cast<double>(args->step));
    p.correction2 = 1 - pow(args->beta2, static_cast<double>(args->step));
    return launch(call, "adamw_elements", element_blocks(p.walk.count, kThreads), kThreads, 0, adamw_elements, p);
}

int sgd_step(const Call& call, const df_optimizer_args* args) {
    if (const int status = call.require_device_floats({args->param, args->m, args->master, args->grad, args->scale})) return status;
    const Step p = step(args);
    return launch(call, "sgd_elements", element_blocks(p.walk.count, kThreads), kThreads, 0, sgd_elements, p);
}

}  // namespace dualform::cuda
