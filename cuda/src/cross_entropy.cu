// Softmax cross-entropy with its gradient: one block per row, exponentials summed in double.
#include "ids.h"
#include "kernels.h"
#include "launch.h"
#include "vector_ops.h"
#include "views.h"

namespace dualform::cuda {

namespace {

constexpr int kThreads = 256;

struct Loss {
    Floats dlogits, logits;
    const int32_t* targets;
    float *losses, *loss;
    double* count; /* rows that are not ignored */
    int64_t rows, vocabulary, dlogits_row, logits_row;
    int32_t ignored;
};

/// One block counts the rows that are not ignored.
__global__ void cross_entropy_count(Loss p) {
    double count = 0;
    for (int64_t n = threadIdx.x; n < p.rows; n += blockDim.x) count += p.targets[n] != p.ignored;
    count = sum_block(count);
    if (threadIdx.x == 0) *p.count = count;
}

/// One block per row: largest logit, sum of exponentials, loss, gradient. dlogits may be logits: a thread reads its own elements once more
/// before it overwrites them.
__global__ void __launch_bounds__(kThreads) cross_entropy_row(Loss p) {
    __shared__ float warp_largest[kThreads / kWarp];
    __shared__ int32_t row_target; /* read once: every thread of the block takes the same path */
    const int64_t n = blockIdx.x;
    if (threadIdx.x == 0) row_target = p.targets[n];
    __syncthreads();
    const int32_t target = row_target;
    if (target == p.ignored || !within(target, p.vocabulary)) {
        const float nothing = target == p.ignored ? 0.0f : NAN;
        if (threadIdx.x == 0) p.losses[n] = nothing;
        if (p.dlogits)
            for (int64_t v = threadIdx.x; v < p.vocabulary; v += kThreads) p.dlogits.store(n * p.dlogits_row + v, nothing);
        return;
    }
    float largest = -INFINITY;
    for (int64_t v = threadIdx.x; v < p.vocabulary; v += kThreads) largest = fmaxf(largest, p.logits.load(n * p.logits_row + v));
    largest = max_lanes(largest);
    if (threadIdx.x % kWarp == 0) warp_largest[threadIdx.x / kWarp] = largest;
    __syncthreads();
    for (int w = 0; w < kThreads / kWarp; ++w) largest = fmaxf(largest, warp_largest[w]);
    const float target_logit = p.logits.load(n * p.logits_row + target);
    double sum = 0;
    for (int64_t v = threadIdx.x; v < p.vocabulary; v += kThreads) sum += expf(p.logits.load(n * p.logits_row + v) - largest);
    sum = sum_block(sum); /* and a barrier: target_logit is read before anything is overwritten */
    if (threadIdx.x == 0) p.losses[n] = static_cast<float>(log(sum) + (static_cast<double>(largest) - target_logit));
    if (!p.dlogits) return;
    const double count = *p.count;
    for (int64_t v = threadIdx.x; v < p.vocabulary; v += kThreads) {
        const double softmax = expf(p.logits.load(n * p.logits_row + v) - largest) / sum;
        p.dlogits.store(n * p.dlogits_row + v, (softmax - (v == target ? 1.0 : 0.0)) / count);
    }
}

/// One block: the mean over the rows that are not ignored.
__global__ void cross_entropy_mean(Loss p) {
    double sum = 0;
    for (int64_t n = threadIdx.x; n < p.rows; n += blockDim.x) sum += p.losses[n];
    sum = sum_block(sum);
    if (threadIdx.x == 0) *p.loss = *p.count == 0 ? 0.0f : static_cast<float>(sum / *p.count);
}

}  // namespace

int cross_entropy(const Call& call, const df_cross_entropy_args* args) {
    if (const int status = call.require_device_floats({args->loss, args->losses, args->dlogits, args->logits})) return status;
    Loss p = {};
    p.dlogits = floats(args->dlogits);
    p.logits = floats(args->logits);
    p.targets = static_cast<const int32_t*>(args->targets->data);
    p.losses = static_cast<float*>(args->losses->data);
    p.loss = static_cast<float*>(args->loss->data);
    p.rows = args->logits->shape[0];
    p.vocabulary = args->logits->shape[1];
    p.dlogits_row = stride_of(args->dlogits, 0);
    p.logits_row = args->logits->stride[0];
    p.ignored = args->ignore_index;
    if (const int status = check_ids(call, args->targets, {"targets", p.vocabulary, true, p.ignored})) return status;
    Scratch count(call, sizeof(double));
    if (!count) return count.failure();
    p.count = count.as<double>();
    if (const int status = launch(call, "cross_entropy_count", 1, kThreads, 0, cross_entropy_count, p)) return status;
    bool served = false;
    if (kernels() != Kernels::kPlain) {
        const CrossEntropyRows rows = {p.dlogits, p.logits,     p.targets,     p.losses,     p.count,
                                       p.rows,    p.vocabulary, p.dlogits_row, p.logits_row, p.ignored};
        if (const int status = cross_entropy_rows_vector(call, rows, &served)) return status;
    }
    if (const int status = served ? int{DF_OK} : launch(call, "cross_entropy_row", p.rows, kThreads, 0, cross_entropy_row, p)) return status;
    return launch(call, "cross_entropy_mean", 1, kThreads, 0, cross_entropy_mean, p);
}

}  // namespace dualform::cuda
