// Reductions over any set of axes, in a fixed order: sums in double, chunks of the reduced elements in one kernel, chunks of an output in
// the next.
//
// When the last axis is reduced, 256 threads share one output and read neighbouring elements; otherwise 32 neighbouring outputs are
// taken together, 8 threads each, so that a warp still reads neighbouring elements.
#include "kernels.h"
#include "launch.h"
#include "views.h"

namespace dualform::cuda {

namespace {

constexpr int kThreads = 256;

struct Reduction {
    Floats out, x, dx, dout;
    Walk<3> kept;    /* outputs: out or dout, x, dx */
    Walk<2> reduced; /* x, dx */
    int op;
    int outputs_per_block; /* 1 or 32 */
    int64_t chunk;         /* reduced elements per block */
    int64_t chunks;
};

/// Whether `value` replaces `best` as the extreme; NaN is more extreme than any number, as in NumPy.
__device__ inline bool more_extreme(double value, double best, int op) {
    if (best != best) return false;
    return value != value || (op == DF_REDUCE_MAX ? value > best : value < best);
}

__device__ inline double combine(double a, double b, int op) {
    if (op == DF_REDUCE_SUM || op == DF_REDUCE_MEAN) return a + b;
    return more_extreme(b, a, op) ? b : a;
}

__device__ inline double neutral(int op) { return op == DF_REDUCE_MAX ? -INFINITY : op == DF_REDUCE_MIN ? INFINITY : 0.0; }

/// partials[chunk][output]: one block per (outputs_per_block outputs, chunk).
__global__ void __launch_bounds__(kThreads) reduce_partials(double* partials, Reduction p) {
    __shared__ double lanes[kThreads];
    const int side = p.outputs_per_block, lane = threadIdx.x / side, lane_count = kThreads / side;
    const int64_t groups = ceil_div(p.kept.count, side);
    const int64_t output = blockIdx.x % groups * side + threadIdx.x % side, chunk = blockIdx.x / groups;
    const int64_t end = smaller(p.reduced.count, (chunk + 1) * p.chunk);
    double value = neutral(p.op);
    if (output < p.kept.count) {
        int64_t base[3], at[2];
        p.kept.offsets(output, base);
        for (int64_t r = chunk * p.chunk + lane; r < end; r += lane_count) {
            p.reduced.offsets(r, at);
            value = combine(value, p.x.load(base[1] + at[0]), p.op);
        }
    }
    lanes[threadIdx.x] = value;
    for (int step = lane_count / 2; step > 0; step /= 2) {
        __syncthreads();
        if (lane < step) lanes[threadIdx.x] = combine(lanes[threadIdx.x], lanes[threadIdx.x + step * side], p.op);
    }
    if (lane == 0 && output < p.kept.count) partials[chunk * p.kept.count + output] = lanes[threadIdx.x];
}

/// One thread per output takes its chunks in order.
__global__ void reduce_totals(const double* partials, Reduction p) {
    for (int64_t i = first_element(); i < p.kept.count; i += element_stride()) {
        double value = neutral(p.op);
        for (int64_t chunk = 0; chunk < p.chunks; ++chunk) value = combine(value, partials[chunk * p.kept.count + i], p.op);
        if (p.op == DF_REDUCE_MEAN) value /= static_cast<double>(p.reduced.count);
        int64_t base[3];
        p.kept.offsets(i, base);
        p.out.store(base[0], value);
    }
}

/// sum and mean: every element of dx gets its output's gradient.
__global__ void reduce_backward_sum(Reduction p, float factor) {
    const int64_t count = p.kept.count * p.reduced.count;
    const bool inner_reduced = p.outputs_per_block == 1;
    for (int64_t i = first_element(); i < count; i += element_stride()) {
        const int64_t output = inner_reduced ? i / p.reduced.count : i % p.kept.count;
        const int64_t r = inner_reduced ? i % p.reduced.count : i / p.kept.count;
        int64_t base[3], at[2];
        p.kept.offsets(output, base);
        p.reduced.offsets(r, at);
        p.dx.store(base[2] + at[1], p.dout.load(base[0]) * factor);
    }
}

/// max and min: a block finds the first element equal to the extreme of each of its outputs (the first NaN when there is one), then
/// writes dx.
__global__ void __launch_bounds__(kThreads) reduce_backward_extreme(Reduction p) {
    __shared__ double extremes[kThreads];
    __shared__ long long firsts[kThreads];
    const int side = p.outputs_per_block, lane = threadIdx.x / side, lane_count = kThreads / side;
    const int64_t output = blockIdx.x * static_cast<int64_t>(side) + threadIdx.x % side;
    const bool inside = output < p.kept.count;
    int64_t base[3] = {}, at[2];
    double best = neutral(p.op);
    long long first = p.reduced.count;
    if (inside) {
        p.kept.offsets(output, base);
        for (int64_t r = lane; r < p.reduced.count; r += lane_count) {
            p.reduced.offsets(r, at);
            const double value = p.x.load(base[1] + at[0]);
            if (first == p.reduced.count || more_extreme(value, best, p.op)) {
                best = value;
                first = r;
            }
        }
    }
    extremes[threadIdx.x] = best;
    firsts[threadIdx.x] = first;
    for (int step = lane_count / 2; step > 0; step /= 2) {
        __syncthreads();
        if (lane < step) {
            const int other = threadIdx.x + step * side;
            const double a = extremes[threadIdx.x], b = extremes[other];
            const bool equal = a == b || (a != a && b != b);
            if (firsts[other] != p.reduced.count &&
                (firsts[threadIdx.x] == p.reduced.count || more_extreme(b, a, p.op) || (equal && firsts[other] < firsts[threadIdx.x]))) {
                extremes[threadIdx.x] = b;
                firsts[threadIdx.x] = firsts[other];
            }
        }
    }
    __syncthreads();
    if (!inside) return;
    first = firsts[threadIdx.x % side];
    const float dout = p.dout.load(base[0]);
    for (int64_t r = lane; r < p.reduced.count; r += lane_count) {
        p.reduced.offsets(r, at);
        p.dx.store(base[2] + at[1], r == first ? dout : 0.0f);
    }
}

/// `result` is out or dout: it may lack the reduced axes or have them as 1.
Reduction reduction(const df_reduce_args* args, const df_view* result) {
    Reduction p = {};
    const df_view* x = args->x != nullptr ? args->x : args->dx;
    p.out = floats(args->out);
    p.x = floats(args->x);
    p.dx = floats(args->dx);
    p.dout = floats(args->dout);
    p.op = args->op;
    const bool keeps_rank = result->rank == x->rank;
    int result_axis = 0;
    for (int axis = 0; axis < x->rank; ++axis) {
        const int64_t dx_stride = stride_of(args->dx, axis);
        if ((args->axes >> axis) & 1u) {
            p.reduced.append(x->shape[axis], {x->stride[axis], dx_stride});
        } else {
            p.kept.append(x->shape[axis], {result->stride[keeps_rank ? axis : result_axis], x->stride[axis], dx_stride});
            ++result_axis;
        }
    }
    p.kept.finish();
    p.reduced.finish();
    const bool inner_reduced = x->rank == 0 || ((args->axes >> (x->rank - 1)) & 1u) != 0;
    p.outputs_per_block = inner_reduced ? 1 : kWarp;
    return p;
}

}  // namespace

int reduce_forward(const Call& call, const df_reduce_args* args) {
    if (const int status = call.require_device_floats({args->out, args->x})) return status;
    Reduction p = reduction(args, args->out);
    // 4096 elements keep a block of 256 busy; at most 256 chunks bound the scratch and the second kernel's loop.
    p.chunk = larger<int64_t>(4096, ceil_div(p.reduced.count, 256));
    p.chunks = ceil_div(p.reduced.count, p.chunk);
    Scratch partials(call, p.chunks * p.kept.count * static_cast<int64_t>(sizeof(double)));
    if (!partials) return partials.failure();
    const int64_t groups = ceil_div(p.kept.count, p.outputs_per_block);
    if (const int status = launch(call, "reduce_partials", groups * p.chunks, kThreads, 0, reduce_partials, partials.as<double>(), p))
        return status;
    return launch(call, "reduce_totals", element_blocks(p.kept.count, kThreads), kThreads, 0, reduce_totals, partials.as<double>(), p);
}

int reduce_backward(const Call& call, const df_reduce_args* args) {
    if (const int status = call.require_device_floats({args->out, args->x, args->dx, args->dout})) return status;
    const Reduction p = reduction(args, args->dout);
    if (p.op == DF_REDUCE_MAX || p.op == DF_REDUCE_MIN)
        return launch(call, "reduce_backward_extreme", ceil_div(p.kept.count, p.outputs_per_block), kThreads, 0, reduce_backward_extreme,
                      p);
    const float factor = p.op == DF_REDUCE_MEAN ? static_cast<float>(1.0 / static_cast<double>(p.reduced.count)) : 1.0f;
    return launch(call, "reduce_backward_sum", element_blocks(p.kept.count * p.reduced.count, kThreads), kThreads, 0, reduce_backward_sum,
                  p, factor);
}

}  // namespace dualform::cuda
