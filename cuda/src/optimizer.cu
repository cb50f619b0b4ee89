// Optimizer steps (one thread per element, or AdamW over all parameters at once, state kept in float) and the gradient norm (two stages,
// double, fixed order).
#include "choice.h"
#include "kernels.h"
#include "launch.h"
#include "vectors.h"
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

/// The numbers of an AdamW step that all elements share; corrections: 1 / (1 - beta^step), for a division in double takes long.
struct Adamw {
    double scale, lr, beta1, beta2, eps, correction1, correction2;

    /// The value after the step; m and v are updated. Every rounding is spelt out: each kernel gives the same bits.
    __device__ double next(double value, double grad, double& m, double& v, double weight_decay) const {
        const double g = scale * grad;
        m = fma(beta1, m, (1 - beta1) * g);
        v = fma(beta2, v, (1 - beta2) * g * g);
        return fma(-lr, fma(weight_decay, value, m * correction1 / (sqrt(v * correction2) + eps)), value);
    }
};

__global__ void adamw_elements(Step p) {
    const Adamw adamw = {p.scale == nullptr ? 1.0 : *p.scale, p.lr, p.beta1, p.beta2, p.eps, 1 / p.correction1, 1 / p.correction2};
    for (int64_t i = first_element(); i < p.walk.count; i += element_stride()) {
        int64_t at[5];
        p.walk.offsets(i, at);
        double m = p.m.load(at[1]), v = p.v.load(at[2]);
        const double next = adamw.next(p.master ? p.master.load(at[3]) : p.param.load(at[0]), p.grad.load(at[4]), m, v, p.weight_decay);
        p.m.store(at[1], m);
        p.v.store(at[2], v);
        store_param(p, at, next);
    }
}

/// AdamW over parts of flat tensors. The parts travel as arguments of the kernel, 3 KiB of the 4 that every device takes, so nothing has to be
/// copied to the device first; more parts than these are more launches.
constexpr int kParts = 96;
struct FlatStep {
    Floats param, m, v, master, grad;
    const float *scale, *rates;
    const int32_t* steps; /* on the device, or null: lr and the corrections are given */
    int64_t rate_count;
    double lr, beta1, beta2, eps, correction1, correction2;
    int parts;
    int64_t first_block[kParts], from[kParts], to[kParts];
    double weight_decay[kParts];
};

constexpr int kGroup = 4;   /* neighbouring elements of a thread: 16 bytes of float */
constexpr int kRounds = 4;  /* groups of a thread: enough loads in flight, and a block amortises its start */
constexpr int64_t kFlatChunk = kThreads * kGroup * kRounds;

/// One block per chunk of a part, counted in groups of the whole tensor so that whole groups are aligned; groups that reach over the part's
/// ends go element by element, all groups without `vectors` (kernels "plain", or a tensor that is not aligned). 28 bytes moved per
/// element of a float parameter (4 read and 3 written), 30 with a master copy and bfloat16 values and float gradients.
__global__ void __launch_bounds__(kThreads) adamw_flat(FlatStep p, bool vectors) {
    __shared__ double lr, corrections[2];
    const double scale = p.scale == nullptr ? 1.0 : *p.scale;
    const int32_t step = p.steps == nullptr ? 1 : *p.steps;
    if (p.steps != nullptr && (step < 1 || scale - scale != 0)) return; /* every thread reads the same */
    if (threadIdx.x == 0) {
        lr = p.steps == nullptr ? p.lr : p.rates[smaller<int64_t>(step, p.rate_count) - 1];
        corrections[0] = 1 / (p.steps == nullptr ? p.correction1 : 1 - pow(p.beta1, static_cast<double>(step)));
        corrections[1] = 1 / (p.steps == nullptr ? p.correction2 : 1 - pow(p.beta2, static_cast<double>(step)));
    }
    __syncthreads();
    const Adamw adamw = {scale, lr, p.beta1, p.beta2, p.eps, corrections[0], corrections[1]};
    int part = 0; /* the last whose first block is not beyond this one */
    for (int above = p.parts; above - part > 1;) {
        const int middle = (part + above) / 2;
        if (p.first_block[middle] <= blockIdx.x)
            part = middle;
        else
            above = middle;
    }
    const int64_t from = p.from[part], to = p.to[part];
    const double weight_decay = p.weight_decay[part];
    const int64_t start = from / kGroup * kGroup + (blockIdx.x - p.first_block[part]) * kFlatChunk;
    const Floats& values = p.master ? p.master : p.param;
    for (int round = 0; round < kRounds; ++round) {
        const int64_t i = start + (static_cast<int64_t>(round) * kThreads + threadIdx.x) * kGroup;
        if (i >= to) return;
        if (vectors && i >= from && i + kGroup <= to) {
            float value[kGroup], m[kGroup], v[kGroup], grad[kGroup];
            load_vector(values, i, value);
            load_vector(p.m, i, m);
            load_vector(p.v, i, v);
            load_vector(p.grad, i, grad);
            double next[kGroup];
#pragma unroll
            for (int j = 0; j < kGroup; ++j) {
                double m_j = m[j], v_j = v[j];
                next[j] = adamw.next(value[j], grad[j], m_j, v_j, weight_decay);
                m[j] = static_cast<float>(m_j);
                v[j] = static_cast<float>(v_j);
                value[j] = static_cast<float>(next[j]);
            }
            store_vector(p.m, i, m);
            store_vector(p.v, i, v);
            if (p.master) {
                store_vector(p.master, i, value);
                store_vector(p.param, i, value);
            } else {
                store_vector(p.param, i, next);
            }
            continue;
        }
        for (int64_t k = larger(i, from); k < smaller(i + kGroup, to); ++k) {
            double m = p.m.load(k), v = p.v.load(k);
            const double next = adamw.next(values.load(k), p.grad.load(k), m, v, weight_decay);
            p.m.store(k, m);
            p.v.store(k, v);
            if (p.master) {
                const float kept = static_cast<float>(next);
                p.master.store(k, kept);
                p.param.store(k, kept);
            } else {
                p.param.store(k, next);
            }
        }
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

/// The decision over a step: factor, and the count of steps that were taken.
__global__ void clip_step_decision(float* scale, int32_t* steps, const float* sumsq, const float* loss, const float* limit) {
    if (threadIdx.x != 0) return;
    const double sum = *sumsq, mean = loss == nullptr ? 0.0 : *loss;
    if (!(sum - sum == 0) || !(mean - mean == 0)) {
        *scale = NAN;
        return;
    }
    const double factor = limit == nullptr ? 1.0 : *limit / (sqrt(sum) + 1e-6);
    *scale = factor < 1 ? static_cast<float>(factor) : 1.0f;
    *steps += 1;
}

template <class T>
T* data_of(const df_view* view) { return view == nullptr ? nullptr : static_cast<T*>(view->data); }

int adamw_parts(const Call& call, const df_optimizer_args* args) {
    FlatStep p = {};
    p.param = floats(args->param);
    p.m = floats(args->m);
    p.v = floats(args->v);
    p.master = floats(args->master);
    p.grad = floats(args->grad);
    p.scale = data_of<const float>(args->scale);
    p.rates = data_of<const float>(args->rates);
    p.steps = data_of<const int32_t>(args->steps);
    p.rate_count = args->rates == nullptr ? 0 : args->rates->shape[0];
    p.lr = args->lr;
    p.beta1 = args->beta1;
    p.beta2 = args->beta2;
    p.eps = args->eps;
    p.correction1 = 1 - pow(args->beta1, static_cast<double>(args->step));
    p.correction2 = 1 - pow(args->beta2, static_cast<double>(args->step));
    bool vectors = kernels() != Kernels::kPlain;
    for (const Floats& x : {p.param, p.m, p.v, p.master, p.grad}) vectors = vectors && is_aligned<kGroup>(x);
    for (int first = 0; first < args->range_count; first += kParts) {
        p.parts = smaller(kParts, args->range_count - first);
        int64_t blocks = 0;
        for (int i = 0; i < p.parts; ++i) {
            const df_range& range = args->ranges[first + i];
            p.first_block[i] = blocks;
            p.from[i] = range.from;
            p.to[i] = range.to;
            p.weight_decay[i] = range.weight_decay;
            blocks += ceil_div(range.to - range.from / kGroup * kGroup, kFlatChunk);
        }
        if (const int status = launch(call, "adamw_flat", blocks, kThreads, 0, adamw_flat, p, vectors)) return status;
    }
    return DF_OK;
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
    if (const int status = call.require_device_floats({args->scale, args->sumsq, args->loss, args->limit})) return status;
    if (args->steps != nullptr)
        return launch(call, "clip_step_decision", 1, kWarp, 0, clip_step_decision, data_of<float>(args->scale), data_of<int32_t>(args->steps),
                      data_of<const float>(args->sumsq), data_of<const float>(args->loss), data_of<const float>(args->limit));
    return launch(call, "clip_scale_value", 1, kWarp, 0, clip_scale_value, static_cast<float*>(args->scale->data),
                  static_cast<const float*>(args->sumsq->data), args->max_norm);
}

int adamw_step(const Call& call, const df_optimizer_args* args) {
    if (const int status = call.require_device_floats({args->param, args->m, args->v, args->master, args->grad, args->scale, args->rates}))
        return status;
    if (args->ranges != nullptr) return adamw_parts(call, args);
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
