// Softmax cross-entropy in accesses of W: a row's largest logit and its sum of exponentials in one pass, its gradient in a second.
#include "ids.h"
#include "kernels.h"
#include "launch.h"
#include "vector_ops.h"

namespace dualform::cuda {

namespace {

constexpr int kThreads = 512; /* a row of 50 thousand: 12 accesses of 8 a thread */

/// One block per row. A thread keeps the largest logit it has seen and the sum of exponentials relative to it. The row is read once from
/// memory and once more from cache, where a row of 100 KiB stays while its block works on it: bytes per element, one logit read, one
/// gradient written. dlogits may be logits: a thread reads its own elements once more before it overwrites them.
template <int W>
__global__ void __launch_bounds__(kThreads) cross_entropy_row_online(CrossEntropyRows p) {
    __shared__ float warp_largest[kThreads / kWarp];
    __shared__ int32_t row_target; /* read once: every thread of the block takes the same path */
    const int64_t n = blockIdx.x, row = n * p.logits_row, dlogits_row = n * p.dlogits_row;
    if (threadIdx.x == 0) row_target = p.targets[n];
    __syncthreads();
    const int32_t target = row_target;
    const int64_t whole = p.vocabulary / W * W; /* the rest goes one by one */
    if (target == p.ignored || !within(target, p.vocabulary)) {
        const float nothing = target == p.ignored ? 0.0f : NAN;
        if (threadIdx.x == 0) p.losses[n] = nothing;
        if (p.dlogits)
            for (int64_t v = threadIdx.x; v < p.vocabulary; v += kThreads) p.dlogits.store(dlogits_row + v, nothing);
        return;
    }
    float largest = -INFINITY;
    double sum = 0;
    for (int64_t v = threadIdx.x * static_cast<int64_t>(W); v < whole; v += static_cast<int64_t>(kThreads) * W) {
        float x[W];
        load_vector(p.logits, row + v, x);
        float here = x[0];
#pragma unroll
        for (int j = 1; j < W; ++j) here = fmaxf(here, x[j]);
        if (here > largest) {
            sum *= expf(largest - here);
            largest = here;
        }
        float part = 0;
        if (largest > -INFINITY)
#pragma unroll
            for (int j = 0; j < W; ++j) part += expf(x[j] - largest);
        else /* all -inf: nothing, or NaN, which fmaxf passes over and which must stay visible */
#pragma unroll
            for (int j = 0; j < W; ++j) part += x[j] != x[j] ? x[j] : 0.0f;
        sum += part;
    }
    for (int64_t v = whole + threadIdx.x; v < p.vocabulary; v += kThreads) {
        const float x = p.logits.load(row + v);
        if (x > largest) {
            sum *= expf(largest - x);
            largest = x;
        }
        sum += largest > -INFINITY ? expf(x - largest) : x != x ? x : 0.0f;
    }
    float top = max_lanes(largest);
    if (threadIdx.x % kWarp == 0) warp_largest[threadIdx.x / kWarp] = top;
    __syncthreads();
    for (int w = 0; w < kThreads / kWarp; ++w) top = fmaxf(top, warp_largest[w]);
    const float target_logit = p.logits.load(row + target);
    sum = sum_block(largest > -INFINITY ? sum * expf(largest - top) : sum); /* and a barrier: target_logit is read before it is overwritten */
    if (threadIdx.x == 0) p.losses[n] = static_cast<float>(log(sum) + (static_cast<double>(top) - target_logit));
    if (!p.dlogits) return;
    const double count = *p.count;
    const float factor = static_cast<float>(1.0 / (sum * count));
    const auto gradient = [&](float x, int64_t v) {
        const float e = expf(x - top);
        return v == target ? static_cast<float>((e / sum - 1.0) / count) : e * factor;
    };
    for (int64_t v = threadIdx.x * static_cast<int64_t>(W); v < whole; v += static_cast<int64_t>(kThreads) * W) {
        float x[W];
        load_vector(p.logits, row + v, x);
#pragma unroll
        for (int j = 0; j < W; ++j) x[j] = gradient(x[j], v + j);
        store_vector(p.dlogits, dlogits_row + v, x);
    }
    for (int64_t v = whole + threadIdx.x; v < p.vocabulary; v += kThreads) p.dlogits.store(dlogits_row + v, gradient(p.logits.load(row + v), v));
}

}  // namespace

int cross_entropy_rows_vector(const Call& call, const CrossEntropyRows& p, bool* served) {
    *served = false;
    const bool wide = p.logits.dtype == DF_BF16;
    const int width = wide ? 8 : 4;
    if (p.logits_row % width != 0 || (p.dlogits && p.dlogits_row % width != 0)) return DF_OK;
    if (!(wide ? is_aligned<8>(p.logits) && is_aligned<8>(p.dlogits) : is_aligned<4>(p.logits) && is_aligned<4>(p.dlogits))) return DF_OK;
    *served = true;
    return wide ? launch(call, "cross_entropy_row_online", p.rows, kThreads, 0, cross_entropy_row_online<8>, p)
                : launch(call, "cross_entropy_row_online", p.rows, kThreads, 0, cross_entropy_row_online<4>, p);
}

}  // namespace dualform::cuda
