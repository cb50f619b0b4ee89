// Gradient norm, clipping, AdamW and SGD. Every tensor may have its own dtype; the arithmetic is in the accumulation type of the parameter.
#include "cpu/elementwise.h"
#include "cpu/kernels.h"

namespace dualform::cpu::DF_ISA {

namespace {

constexpr int kChains = 4;  // of additions, which are slower one after another than memory is

/// sums += x^2, lane by lane. The squares are formed in double: those of tiny or huge floats neither vanish nor overflow on the way.
template <class A>
void add_squares(Vec<double> (&sums)[kChains], const A* x, int n) {
    const auto add = [&](Vec<double>* to, Vec<A> v) {
        for (int h = 0; h < kDoubles<A>; ++h) to[h] += widen(v, h) * widen(v, h);
    };
    constexpr int kStep = kChains / kDoubles<A>;
    int i = 0;
    for (; i + kStep * kLanes<A> <= n; i += kStep * kLanes<A>)
        for (int c = 0; c < kStep; ++c) add(sums + c * kDoubles<A>, load(x + i + c * kLanes<A>));
    for_vectors<A>(n - i, [&](int64_t j, int lanes) { add(sums, load_lanes<A>(x + i + j, lanes)); });
}

/// A parameter, its gradient and its state (two tensors at most) as tiles in A: update(p, a, b, g, n) changes p, a and b.
template <class A, class F>
void for_parameter(df_queue* queue, const df_optimizer_args* args, F&& update) {
    const df_view* value = args->master != nullptr ? args->master : args->param;
    const Space<5> space(args->param, {value, args->m, args->v, args->grad, args->param});
    const int64_t* stride = space.inner_stride;
    for_tiles(queue, space, [&](const int64_t* offset, int64_t, int n) {
        alignas(64) A tiles[4][kTile];
        const df_view* const state[3] = {value, args->m, args->v};
        A* targets[3] = {};
        for (int k = 0; k < 3; ++k) {
            if (state[k] == nullptr) continue;
            const A* now = read_tile<A>(tiles[k], state[k], offset[k], stride[k], n);
            targets[k] = const_cast<A*>(now);  // a writable tensor's own memory, or the tile
        }
        const A* grad = read_tile<A>(tiles[3], args->grad, offset[3], stride[3], n);
        update(targets[0], targets[1], targets[2], grad, n);
        for (int k = 0; k < 3; ++k)
            if (state[k] != nullptr) write_tile<A>(state[k], offset[k], stride[k], targets[k], n);
        if (args->master != nullptr) write_tile<A>(args->param, offset[4], stride[4], targets[0], n);
    });
}

template <class A>
void adamw(df_queue* queue, const df_optimizer_args* args) {
    const A scale = args->scale != nullptr ? A(read_scalar(args->scale)) : A(1);
    const A b1 = A(args->beta1), b2 = A(args->beta2), rest1 = A(1 - args->beta1), rest2 = A(1 - args->beta2);
    const A m_hat = A(1 / (1 - pow(args->beta1, double(args->step)))), v_hat = A(1 / (1 - pow(args->beta2, double(args->step))));
    const A lr = A(args->lr), eps = A(args->eps), decay = A(args->weight_decay);
    for_parameter<A>(queue, args, [&](A* p, A* m, A* v, const A* grad, int n) {
#pragma GCC ivdep
        for (int i = 0; i < n; ++i) {
            const A g = scale * grad[i];
            const A m_i = b1 * m[i] + rest1 * g, v_i = b2 * v[i] + rest2 * g * g;
            m[i] = m_i;
            v[i] = v_i;
            p[i] -= lr * (decay * p[i] + m_i * m_hat / (square_root(v_i * v_hat) + eps));
        }
    });
}

/// The elements of a range, as tensors of their own.
struct Part {
    df_view views[5];
    df_optimizer_args args;

    Part(const df_optimizer_args& whole, const df_range& range) : args(whole) {
        const df_view** members[5] = {&args.param, &args.m, &args.v, &args.master, &args.grad};
        for (int i = 0; i < 5; ++i) {
            if (*members[i] == nullptr) continue;
            views[i] = **members[i];
            const int64_t size = views[i].dtype == DF_F64 ? 8 : views[i].dtype == DF_BF16 ? 2 : 4;
            views[i].data = static_cast<char*>(views[i].data) + range.from * size;
            views[i].shape[0] = range.to - range.from;
            *members[i] = &views[i];
        }
        args.weight_decay = range.weight_decay;
    }
};

template <class A>
void adamw_ranges(df_queue* queue, const df_optimizer_args* args) {
    if (args->ranges == nullptr) return adamw<A>(queue, args);
    df_optimizer_args whole = *args;
    if (args->steps != nullptr) {
        const int32_t step = *data<const int32_t>(args->steps);
        const double scale = args->scale != nullptr ? read_scalar(args->scale) : 1;
        if (step < 1 || scale - scale != 0) return;
        whole.step = step;
        whole.lr = read_scalar(args->rates, smaller<int64_t>(step, args->rates->shape[0]) - 1);
    }
    for (int i = 0; i < args->range_count; ++i) {
        const Part part(whole, args->ranges[i]);
        adamw<A>(queue, &part.args);
    }
}

template <class A>
void sgd(df_queue* queue, const df_optimizer_args* args) {
    const A scale = args->scale != nullptr ? A(read_scalar(args->scale)) : A(1);
    const A lr = A(args->lr), momentum = A(args->beta1), decay = A(args->weight_decay);
    for_parameter<A>(queue, args, [&](A* p, A* buffer, A*, const A* grad, int n) {
        if (buffer == nullptr) {
#pragma GCC ivdep
            for (int i = 0; i < n; ++i) p[i] -= lr * (scale * grad[i] + decay * p[i]);
            return;
        }
#pragma GCC ivdep
        for (int i = 0; i < n; ++i) {
            const A step = momentum * buffer[i] + (scale * grad[i] + decay * p[i]);
            buffer[i] = step;
            p[i] -= lr * step;
        }
    });
}

}  // namespace

int squared_norm(df_queue* queue, const df_optimizer_args* args, df_error* error) {
    const Space<1> space(args->x, {args->x});
    const int64_t pieces = space.pieces();
    double one[1];
    const size_t bytes = size_t(pieces) * sizeof(double);
    Scratch scratch(queue, pieces == 1 ? 0 : bytes);
    if (!scratch) return out_of_memory(error, "squared_norm", bytes);
    double* partial = pieces == 1 ? one : scratch.as<double>();
    for_pieces(queue, pieces, space.size(), [&](int64_t piece, int) {
        Vec<double> sums[kChains] = {};
        space.tiles(piece, [&](const int64_t* offset, int64_t, int n) {
            alignas(64) double buffer[kTile];
            if (args->x->dtype == DF_F64) {
                add_squares<double>(sums, read_tile<double>(buffer, args->x, offset[0], space.inner_stride[0], n), n);
            } else {
                float* floats = reinterpret_cast<float*>(buffer);
                add_squares<float>(sums, read_tile<float>(floats, args->x, offset[0], space.inner_stride[0], n), n);
            }
        });
        partial[piece] = lane_sum<double>((sums[0] + sums[1]) + (sums[2] + sums[3]));
    });
    double sum = 0;
    for (int64_t piece = 0; piece < pieces; ++piece) sum += partial[piece];
    write_scalar(args->sumsq, 0, sum, args->accumulate != 0);
    return DF_OK;
}

int clip_scale(df_queue*, const df_optimizer_args* args, df_error*) {
    const double sumsq = read_scalar(args->sumsq), scale = args->max_norm / (__builtin_sqrt(sumsq) + 1e-6);
    const bool finite = sumsq - sumsq == 0;
    if (args->steps == nullptr) {
        write_scalar(args->scale, 0, !finite ? sumsq : (scale < 1 ? scale : 1));
        return DF_OK;
    }
    const double loss = args->loss != nullptr ? read_scalar(args->loss) : 0;
    if (!finite || loss - loss != 0) {
        write_scalar(args->scale, 0, __builtin_nan(""));
        return DF_OK;
    }
    const double limited = args->limit != nullptr ? read_scalar(args->limit) / (__builtin_sqrt(sumsq) + 1e-6) : 1;
    write_scalar(args->scale, 0, limited < 1 ? limited : 1);
    ++*data<int32_t>(args->steps);
    return DF_OK;
}

int adamw_step(df_queue* queue, const df_optimizer_args* args, df_error*) {
    if (args->param->dtype == DF_F64) adamw_ranges<double>(queue, args);
    else adamw_ranges<float>(queue, args);
    return DF_OK;
}

int sgd_step(df_queue* queue, const df_optimizer_args* args, df_error*) {
    if (args->param->dtype == DF_F64) sgd<double>(queue, args);
    else sgd<float>(queue, args);
    return DF_OK;
}

}  // namespace dualform::cpu::DF_ISA
