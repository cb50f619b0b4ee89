// Reductions over any set of axes. The kept axes and the reduced axes are two index spaces; x is their product.
//
// Where the last axis is reduced, an output folds tiles of x; where it is kept, a tile of outputs folds rows of x. Outputs with much to
// fold are cut into parts of a fixed size, whose states (one double each) are merged in order.
#include "cpu/elementwise.h"
#include "cpu/kernels.h"

namespace dualform::cpu::DF_ISA {

namespace {

enum { kX, kOut, kDout, kDx, kTensors };  // where an op's tensors stand in a space

/// Sum (or mean, divided at the end). A state is the sum so far.
struct Sum {
    double divisor;
    double first() const { return 0; }
    double merge(double a, double b) const { return a + b; }
    template <class A>
    void fold(double& state, const A* x, int n, int64_t, double) const {
        double sum[1];
        row_sums<A, 1, 1>(sum, n, [&](int64_t i, int lanes, Vec<A>* t) { t[0] = load_lanes<A>(x + i, lanes); });
        state += sum[0];
    }
    template <class A>
    void fold_columns(double* state, const A* x, int n, int64_t, const double*) const {
        for (int i = 0; i < n; ++i) state[i] += double(x[i]);
    }
    double result(double state) const { return state / divisor; }
};

/// Maximum of sign x, times sign: max and min. NaN comes through.
struct Extreme {
    double sign;
    double first() const { return -double(INFINITY); }
    double merge(double a, double b) const { return a > b || a != a ? a : b; }
    template <class A>
    void fold(double& state, const A* x, int n, int64_t, double) const {
        const A s = A(sign);
        Vec<A> most = splat<A>(-A(INFINITY));
        for_vectors<A>(n, [&](int64_t i, int lanes) {
            const Vec<A> v = s * load_lanes<A>(x + i, lanes, -s * A(INFINITY));
            most = (v > most) | (v != v) ? v : most;
        });
        A lanes[kLanes<A>];
        store(lanes, most);
        for (int i = 0; i < kLanes<A>; ++i) state = merge(state, double(lanes[i]));
    }
    template <class A>
    void fold_columns(double* state, const A* x, int n, int64_t, const double*) const {
        for (int i = 0; i < n; ++i) {
            const double v = sign * double(x[i]);
            state[i] = v > state[i] || v != v ? v : state[i];
        }
    }
    double result(double state) const { return sign * state; }
};

/// The place of the first element that equals the output (or is NaN as it is). A state is that place, -1 before it is found.
struct FirstEqual {
    static bool equal(double x, double target) { return x == target || (x != x && target != target); }
    double first() const { return -1; }
    double merge(double a, double b) const { return a >= 0 ? a : b; }
    template <class A>
    void fold(double& state, const A* x, int n, int64_t index, double target) const {
        for (int i = 0; i < n && state < 0; ++i)
            if (equal(double(x[i]), target)) state = double(index + i);
    }
    template <class A>
    void fold_columns(double* state, const A* x, int n, int64_t index, const double* target) const {
        for (int i = 0; i < n; ++i) {
            const double v = double(x[i]), t = target[i];
            state[i] = state[i] < 0 && (v == t || (v != v && t != t)) ? double(index) : state[i];
        }
    }
};

/// The kept (or the reduced) axes of x as a view; v is shaped like x, or like out with the reduced axes 1 or missing.
df_view axes_of(const df_view* v, const df_view* x, unsigned axes, bool reduced) {
    df_view part = *v;
    part.rank = 0;
    for (int axis = 0, own = 0; axis < x->rank; ++axis) {
        const bool is_reduced = (axes >> axis & 1u) != 0;
        const int at = v->rank == x->rank ? axis : own;
        own += is_reduced ? 0 : 1;
        if (is_reduced != reduced) continue;
        part.shape[part.rank] = x->shape[axis];
        part.stride[part.rank++] = v->stride[at];
    }
    return part;
}

struct Problem {
    df_view reduced_x, reduced_dx, kept[kTensors];
    const df_view* kept_views[kTensors] = {};
    const df_view* reduced_views[kTensors] = {};
    bool last_is_reduced = false;

    explicit Problem(const df_reduce_args* args) {
        const df_view* like = args->x;
        const df_view* const views[kTensors] = {like, args->out, args->dout, args->dx};
        for (int k = 0; k < kTensors; ++k) {
            if (views[k] == nullptr) continue;
            kept[k] = axes_of(views[k], like, args->axes, false);
            kept_views[k] = &kept[k];
        }
        reduced_x = axes_of(like, like, args->axes, true);
        reduced_views[kX] = &reduced_x;
        if (args->dx != nullptr) {
            reduced_dx = axes_of(args->dx, like, args->axes, true);
            reduced_views[kDx] = &reduced_dx;
        }
        for (int axis = 0; axis < like->rank; ++axis)
            if (like->shape[axis] > 1) last_is_reduced = (args->axes >> axis & 1u) != 0;
    }
    Problem(const Problem&) = delete;
    Problem& operator=(const Problem&) = delete;
};

using Axes = Space<kTensors>;

/// Folds x for every output and hands the states to finish(offset of the output in each tensor, state). target(offset) is what
/// FirstEqual looks for.
template <class A, class Fold, class Target, class Finish>
int fold_tiles(df_queue* queue, const Axes& kept, const Axes& reduced, const df_view* x, const Fold& f, Target&& target, Finish&& finish,
              df_error* error) {
    const int64_t outputs = kept.size(), parts = reduced.pieces(), group = larger<int64_t>(1, kGrain / reduced.size());
    const size_t bytes = parts > 1 ? size_t(outputs * parts) * sizeof(double) : 0;
    Scratch scratch(queue, bytes);
    if (!scratch) return out_of_memory(error, "reduce", bytes);
    double* states = scratch.as<double>();
    for_pieces(queue, ceil_div(outputs, group) * parts, outputs * reduced.size(), [&](int64_t piece, int) {
        const int64_t part = piece % parts, begin = piece / parts * group, end = smaller(begin + group, outputs);
        for (int64_t o = begin; o < end; ++o) {
            int64_t at[kTensors];
            kept.locate(o, at);
            double state = f.first();
            const double wanted = target(at);
            reduced.tiles(part, [&](const int64_t* offset, int64_t index, int n) {
                alignas(64) A buffer[kTile];
                f.template fold<A>(state, read_tile<A>(buffer, x, at[kX] + offset[kX], reduced.inner_stride[kX], n), n, index, wanted);
            });
            if (parts == 1) finish(at, state);
            else states[o * parts + part] = state;
        }
    });
    for (int64_t o = 0; parts > 1 && o < outputs; ++o) {
        int64_t at[kTensors];
        kept.locate(o, at);
        double state = states[o * parts];
        for (int64_t part = 1; part < parts; ++part) state = f.merge(state, states[o * parts + part]);
        finish(at, state);
    }
    return DF_OK;
}

template <class A, class Fold, class Target, class Finish>
int fold_rows(df_queue* queue, const Axes& kept, const Axes& reduced, const df_view* x, const Fold& f, Target&& target, Finish&& finish,
              df_error* error) {
    constexpr int64_t kFewestRows = 16, kMostPieces = 64;
    const int64_t outputs = kept.size(), rows = reduced.size(), pieces = kept.pieces();
    const int64_t wanted_parts = larger<int64_t>(1, smaller(kMostPieces / pieces, rows / kFewestRows));
    const int64_t block = ceil_div(rows, wanted_parts), parts = ceil_div(rows, block);
    const size_t bytes = parts > 1 ? size_t(outputs * parts) * sizeof(double) : 0;
    Scratch scratch(queue, bytes);
    if (!scratch) return out_of_memory(error, "reduce", bytes);
    double* states = scratch.as<double>();
    const auto finish_tile = [&](const int64_t* offset, int n, const double* state) {
        for (int i = 0; i < n; ++i) {
            int64_t at[kTensors];
            for (int k = 0; k < kTensors; ++k) at[k] = offset[k] + i * kept.inner_stride[k];
            finish(at, state[i]);
        }
    };
    for_pieces(queue, pieces * parts, outputs * rows, [&](int64_t piece, int) {
        const int64_t part = piece % parts, begin = part * block, end = smaller(begin + block, rows);
        kept.tiles(piece / parts, [&](const int64_t* offset, int64_t o, int n) {
            alignas(64) A buffer[kTile];
            alignas(64) double few[kTile], wanted[kTile];
            double* state = parts == 1 ? few : states + part * outputs + o;
            for (int i = 0; i < n; ++i) {
                int64_t at[kTensors];
                for (int k = 0; k < kTensors; ++k) at[k] = offset[k] + i * kept.inner_stride[k];
                state[i] = f.first();
                wanted[i] = target(at);
            }
            for (int64_t r = begin; r < end; ++r) {
                int64_t at[kTensors];
                reduced.locate(r, at);
                f.template fold_columns<A>(state, read_tile<A>(buffer, x, offset[kX] + at[kX], kept.inner_stride[kX], n), n, r, wanted);
            }
            if (parts == 1) finish_tile(offset, n, state);
        });
    });
    if (parts == 1) return DF_OK;
    for_pieces(queue, pieces, outputs * parts, [&](int64_t piece, int) {
        kept.tiles(piece, [&](const int64_t* offset, int64_t o, int n) {
            double* state = states + o;
            for (int64_t part = 1; part < parts; ++part)
                for (int i = 0; i < n; ++i) state[i] = f.merge(state[i], state[part * outputs + i]);
            finish_tile(offset, n, state);
        });
    });
    return DF_OK;
}

template <class Fold, class Target, class Finish>
int fold(df_queue* queue, const Problem& problem, const Axes& kept, const Axes& reduced, const df_view* x, const Fold& f, Target&& target,
         Finish&& finish, df_error* error) {
    const auto run = [&](auto zero) {
        using A = decltype(zero);
        return problem.last_is_reduced ? fold_tiles<A>(queue, kept, reduced, x, f, target, finish, error)
                                       : fold_rows<A>(queue, kept, reduced, x, f, target, finish, error);
    };
    return x->dtype == DF_F64 ? run(double{}) : run(float{});
}

/// dx = dout spread over the reduced axes, times factor.
template <class A>
void spread(df_queue* queue, const df_reduce_args* args, double divisor) {
    df_view dout = *args->dout;
    dout.rank = args->dx->rank;
    for (int axis = 0, own = 0; axis < dout.rank; ++axis) {
        const bool reduced = (args->axes >> axis & 1u) != 0;
        const int at = args->dout->rank == dout.rank ? axis : own;
        own += reduced ? 0 : 1;
        dout.shape[axis] = reduced ? 1 : args->dx->shape[axis];
        dout.stride[axis] = reduced ? 0 : args->dout->stride[at];
    }
    const Space<2> space(args->dx, {args->dx, &dout});
    const A by = A(divisor);
    for_tiles(queue, space, [&](const int64_t* offset, int64_t, int n) {
        alignas(64) A to[kTile], from[kTile];
        A* dx = tile_target<A>(to, args->dx, offset[0], space.inner_stride[0]);
        map<A>(dx, n, [&](Vec<A> d) { return d / by; }, read_tile<A>(from, &dout, offset[1], space.inner_stride[1], n));
        write_tile<A>(args->dx, offset[0], space.inner_stride[0], dx, n);
    });
}

void clear(df_queue* queue, const df_view* dx) {
    const Space<1> space(dx, {dx});
    for_tiles(queue, space, [&](const int64_t* offset, int64_t, int n) {
        const float zeros[kTile] = {};
        write_tile<float>(dx, offset[0], space.inner_stride[0], zeros, n);
    });
}

}  // namespace

int reduce_forward(df_queue* queue, const df_reduce_args* args, df_error* error) {
    const Problem problem(args);
    const Axes kept(problem.kept_views[kX], problem.kept_views), reduced(problem.reduced_views[kX], problem.reduced_views);
    const auto run = [&](const auto& f) {
        return fold(
            queue, problem, kept, reduced, args->x, f, [](const int64_t*) { return 0.0; },
            [&](const int64_t* at, double state) { write_scalar(args->out, at[kOut], f.result(state)); }, error);
    };
    switch (args->op) {
        case DF_REDUCE_SUM: return run(Sum{1});
        case DF_REDUCE_MEAN: return run(Sum{double(reduced.size())});
        case DF_REDUCE_MAX: return run(Extreme{1});
        default: return run(Extreme{-1});
    }
}

int reduce_backward(df_queue* queue, const df_reduce_args* args, df_error* error) {
    if (args->op == DF_REDUCE_SUM || args->op == DF_REDUCE_MEAN) {
        double count = 1;
        for (int axis = 0; axis < args->dx->rank; ++axis)
            if ((args->axes >> axis & 1u) != 0) count *= double(args->dx->shape[axis]);
        const double divisor = args->op == DF_REDUCE_MEAN ? count : 1;
        if (args->dx->dtype == DF_F64) spread<double>(queue, args, divisor);
        else spread<float>(queue, args, divisor);
        return DF_OK;
    }
    const Problem problem(args);
    const Axes kept(problem.kept_views[kX], problem.kept_views), reduced(problem.reduced_views[kX], problem.reduced_views);
    clear(queue, args->dx);
    return fold(
        queue, problem, kept, reduced, args->x, FirstEqual{}, [&](const int64_t* at) { return read_scalar(args->out, at[kOut]); },
        [&](const int64_t* at, double state) {
            if (state < 0) return;
            int64_t inside[kTensors];
            reduced.locate(int64_t(state), inside);
            write_scalar(args->dx, at[kDx] + inside[kDx], read_scalar(args->dout, at[kDout]));
        },
        error);
}

}  // namespace dualform::cpu::DF_ISA
