// The dual form for one query row, as decoding calls it: s_n = x . xp_n, then out = x w0^T + sum_n s_n e_n. No weight is formed: xp, e and
// w0 are read once, in 16-byte accesses, and nothing else is large. Sums in float32, in a fixed order.
#include "dual_form.h"
#include "launch.h"
#include "vectors.h"
#include "views.h"

namespace dualform::cuda {

namespace {

constexpr int kStepThreads = 256, kStepWarps = kStepThreads / kWarp;
constexpr int kOct = 8; /* elements of an access: 16 bytes of bf16, twice 16 of float32 */
constexpr int kOutColumns = 32, kColumnLanes = kOutColumns / kOct, kTermGroups = kStepThreads / kColumnLanes;

struct DualStep {
    Floats out, w0, e, xp, x;
    int64_t out_problem = 0, w0_problem = 0, e_problem = 0, xp_problem = 0, x_problem = 0; /* strides */
    int64_t w0_row = 0, e_row = 0, xp_row = 0;
    int64_t problems = 1, n = 0, inner = 0, o = 0;
    float* scores = nullptr; /* (P, N) */
    bool vectors = false;
};

struct Oct {
    float value[kOct];
};

/// Elements at.. at + 8, of which `there` exist; the rest are 0.
__device__ inline Oct load_oct(const Floats& data, int64_t at, int there, bool vectors) {
    Oct oct;
    if (vectors && there == kOct) {
        load_vector(data, at, oct.value);
        return oct;
    }
#pragma unroll
    for (int i = 0; i < kOct; ++i) oct.value[i] = i < there ? data.load(at + i) : 0.0f;
    return oct;
}

__device__ inline int there(int64_t column, int64_t width) {
    return static_cast<int>(larger<int64_t>(0, smaller<int64_t>(kOct, width - column)));
}

/// a . b over `width` elements, by a warp: every lane receives it.
__device__ inline float dot_warp(const Floats& a, int64_t a_at, const Floats& b, int64_t b_at, int64_t width, bool vectors) {
    float sum = 0;
#pragma unroll 2
    for (int64_t c = static_cast<int64_t>(threadIdx.x % kWarp) * kOct; c < width; c += kWarp * kOct) {
        const Oct x = load_oct(a, a_at + c, there(c, width), vectors), y = load_oct(b, b_at + c, there(c, width), vectors);
        float part[kOct];
#pragma unroll
        for (int i = 0; i < kOct; ++i) part[i] = x.value[i] * y.value[i];
        sum += ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
    }
    return sum_lanes(sum);
}

/// One warp per term.
__global__ void __launch_bounds__(kStepThreads) dual_step_scores(const DualStep p) {
    const int64_t term = blockIdx.x * static_cast<int64_t>(kStepWarps) + threadIdx.x / kWarp, problem = term / p.n, n = term % p.n;
    if (problem >= p.problems) return;
    const float score = dot_warp(p.x, problem * p.x_problem, p.xp, problem * p.xp_problem + n * p.xp_row, p.inner, p.vectors);
    if (threadIdx.x % kWarp == 0) p.scores[term] = score;
}

/// One block per (problem, 32 columns of out): 64 groups of 4 lanes walk the terms, then warps take the rows of w0.
__global__ void __launch_bounds__(kStepThreads) dual_step_out(const DualStep p) {
    __shared__ float sums[kTermGroups][kOutColumns + 1];
    const int64_t column_blocks = ceil_div(p.o, kOutColumns), problem = blockIdx.x / column_blocks;
    const int64_t o0 = blockIdx.x % column_blocks * kOutColumns;
    const int lane = threadIdx.x % kColumnLanes, group = threadIdx.x / kColumnLanes;
    const int64_t column = o0 + lane * kOct;
    float sum[kOct] = {};
#pragma unroll 4
    for (int64_t n = group; n < p.n; n += kTermGroups) {
        const float score = p.scores[problem * p.n + n];
        const Oct e = load_oct(p.e, problem * p.e_problem + n * p.e_row + column, there(column, p.o), p.vectors);
#pragma unroll
        for (int i = 0; i < kOct; ++i) sum[i] = fmaf(score, e.value[i], sum[i]);
    }
#pragma unroll
    for (int i = 0; i < kOct; ++i) sums[group][lane * kOct + i] = sum[i];
    __syncthreads();
    for (int i = threadIdx.x / kWarp; i < kOutColumns && o0 + i < p.o; i += kStepWarps) {
        const float base = dot_warp(p.x, problem * p.x_problem, p.w0, problem * p.w0_problem + (o0 + i) * p.w0_row, p.inner, p.vectors);
        float update = 0;
#pragma unroll
        for (int g = 0; g < kTermGroups; g += kWarp) update += sums[g + threadIdx.x % kWarp][i];
        update = sum_lanes(update);
        if (threadIdx.x % kWarp == 0) p.out.store(problem * p.out_problem + o0 + i, base + update);
    }
}

}  // namespace

int dual_form_forward_step(const Call& call, const df_dual_args* args, bool* served) {
    const int rank = args->e->rank;
    const auto size = [&](const df_view* view, int from_last) { return view->shape[rank - 1 - from_last]; };
    const auto problem = [&](const df_view* view) { return rank == 3 ? view->stride[0] : 0; };
    *served = args->form == DF_FORM_DUAL && args->delta_w == nullptr && size(args->x, 1) == 1 && numel(args->e) > 0;
    if (!*served) return DF_OK;
    DualStep p;
    p.out = floats(args->out);
    p.w0 = floats(args->w0);
    p.e = floats(args->e);
    p.xp = floats(args->xp);
    p.x = floats(args->x);
    p.out_problem = problem(args->out);
    p.w0_problem = problem(args->w0);
    p.e_problem = problem(args->e);
    p.xp_problem = problem(args->xp);
    p.x_problem = problem(args->x);
    p.w0_row = args->w0->stride[rank - 2];
    p.e_row = args->e->stride[rank - 2];
    p.xp_row = args->xp->stride[rank - 2];
    p.problems = rank == 3 ? args->e->shape[0] : 1;
    p.n = size(args->e, 1);
    p.inner = size(args->x, 0);
    p.o = size(args->e, 0);
    p.vectors = rows_aligned(p.w0, {p.w0_problem, p.w0_row}) && rows_aligned(p.e, {p.e_problem, p.e_row}) &&
                rows_aligned(p.xp, {p.xp_problem, p.xp_row}) && rows_aligned(p.x, {p.x_problem});
    Scratch scores(call, p.problems * p.n * static_cast<int64_t>(sizeof(float)));
    if (!scores) return scores.failure();
    p.scores = scores.as<float>();
    if (const int status = launch(call, "dual_step_scores", ceil_div(p.problems * p.n, kStepWarps), kStepThreads, 0, dual_step_scores, p))
        return status;
    return launch(call, "dual_step_out", p.problems * ceil_div(p.o, kOutColumns), kStepThreads, 0, dual_step_out, p);
}

}  // namespace dualform::cuda
