// Argument checks of elementwise ops, reductions, optimizer steps and random fills.
#include <float.h>
#include <math.h>

#include <vector>

#include "api/arguments.h"

namespace {

using namespace dualform;

long long ll(int64_t x) { return static_cast<long long>(x); }

/// NumPy broadcasting: v's trailing dimensions equal out's or are 1.
void check_broadcast(const Arguments& call, const char* name, const df_view& v, const df_view& out) {
    bool ok = v.rank <= out.rank;
    for (int i = 1; ok && i <= v.rank; ++i) ok = v.shape[v.rank - i] == 1 || v.shape[v.rank - i] == out.shape[out.rank - i];
    if (!ok) call.refuse("%s: its shape does not broadcast to that of out", name);
}

void check_enum(const Arguments& call, int value, int last) {
    if (value < 0 || value > last) call.refuse("op: %d, expected 0..%d", value, last);
}

/// out (or dout) has x's shape with the reduced axes 1, or lacks them.
void check_reduced(const Arguments& call, const char* name, const df_view& out, const df_view& x, unsigned int axes) {
    bool kept = out.rank == x.rank;
    for (int i = 0; kept && i < x.rank; ++i) kept = out.shape[i] == ((axes >> i & 1u) ? 1 : x.shape[i]);
    int j = 0;
    bool dropped = true;
    for (int i = 0; dropped && i < x.rank; ++i) {
        if (axes >> i & 1u) continue;
        dropped = j < out.rank && out.shape[j] == x.shape[i];
        ++j;
    }
    dropped = dropped && j == out.rank;
    if (!kept && !dropped) call.refuse("%s: rank %d of another shape, expected x's shape with the reduced axes 1 or left out", name, out.rank);
}

void check_axes(const Arguments& call, const df_view& x, unsigned int axes) {
    if (x.rank < 32 && (axes >> x.rank) != 0) call.refuse("axes: bit mask %u, expected bits below the rank %d", axes, x.rank);
}

void check_positive(const Arguments& call, const char* name, double value, bool zero_allowed) {
    if (!(zero_allowed ? value >= 0 : value > 0) || isinf(value))
        call.refuse("%s: %g, expected a finite number %s 0", name, value, zero_allowed ? ">=" : ">");
}

void check_beta(const Arguments& call, const char* name, double value) {
    if (!(value >= 0 && value < 1)) call.refuse("%s: %g, expected 0 <= %s < 1", name, value, name);
}

void check_finite(const Arguments& call, const char* name, double value) {
    if (!isfinite(value)) call.refuse("%s: %g, expected a finite number", name, value);
}

/// A finite number that out's dtype can hold.
void check_holds(const Arguments& call, const char* name, double value, const df_view& out) {
    const double largest = out.dtype == DF_F64 ? DBL_MAX : out.dtype == DF_F32 ? double(FLT_MAX) : 0x1.fep127;
    if (!(fabs(value) <= largest))
        call.refuse("%s: %g, expected a finite number within +-%g (%s)", name, value, largest, dtype_name(out.dtype));
}

/// Parameter, its gradient and its state: param decides the call's dtype.
void parameter(Arguments& call, df_optimizer_args& args, df_tensor* param, df_tensor* master, const df_tensor* grad, const df_tensor* scale) {
    args.param = call.output("param", param);
    args.grad = call.input("grad", grad, Kind::kCallOrAccumulate);
    call.same_shape("grad", args.grad, "param", args.param);
    if (master != nullptr) args.master = call.output("master", master, Kind::kAccumulate);
    call.same_shape("master", args.master, "param", args.param);
    if (scale != nullptr) args.scale = call.input("scale", scale, Kind::kAccumulate);
    call.scalar("scale", args.scale);
}

/// One row-major run of elements, as the ranges of adamw count them.
void check_flat(const Arguments& call, const char* name, const df_view* view) {
    if (view != nullptr && (view->rank != 1 || !is_contiguous(*view))) call.refuse("%s: expected one contiguous dimension", name);
}

/// `has_state`: seed and offset come from there.
df_status random_fill(df_tensor* out, bool has_state, df_tensor* state, uint64_t seed, uint64_t offset, double a, double b, bool normal) {
    return guard([&] {
        Arguments call(normal ? "random-normal" : "random-uniform");
        df_random_args args = {};
        args.out = call.output("out", out);
        if (has_state) {
            args.state = call.output("state", state, Kind::kI32);
            if (args.state->rank != 1 || args.state->shape[0] != 4) call.refuse("state: expected shape (4)");
            call.check_overlap();
        }
        check_holds(call, normal ? "mean" : "lo", a, *args.out);
        check_holds(call, normal ? "std" : "hi", b, *args.out);
        if (normal && b < 0) call.refuse("std: %g, expected at least 0", b);
        if (!normal && !(a < b)) call.refuse("hi: %g, expected above lo = %g", b, a);
        if (!normal && !isfinite(b - a)) call.refuse("hi: %g, expected hi - lo to be finite (lo = %g)", b, a);
        args.seed = seed;
        args.offset = offset;
        args.a = a;
        args.b = b;
        run(call, normal ? &df_backend_ops::random_normal : &df_backend_ops::random_uniform, args);
    });
}

}  // namespace

extern "C" {

df_status df_unary_forward(df_tensor* out, const df_tensor* x, df_unary op) {
    return guard([&] {
        Arguments call("unary");
        df_pointwise_args args = {};
        args.x = call.input("x", x);
        args.out = call.output("out", out);
        call.same_shape("out", args.out, "x", args.x);
        check_enum(call, op, DF_UNARY_COS);
        call.may_be(args.out, args.x);
        call.check_overlap();
        args.op = op;
        run(call, &df_backend_ops::unary_forward, args);
    });
}

df_status df_unary_backward(df_tensor* dx, const df_tensor* dout, const df_tensor* x, df_unary op) {
    return guard([&] {
        Arguments call("unary");
        df_pointwise_args args = {};
        args.x = call.input("x", x);
        args.dout = call.input("dout", dout);
        call.same_shape("dout", args.dout, "x", args.x);
        args.dx = call.output("dx", dx);
        call.same_shape("dx", args.dx, "x", args.x);
        check_enum(call, op, DF_UNARY_COS);
        call.may_be(args.dx, args.dout);
        call.check_overlap();
        args.op = op;
        run(call, &df_backend_ops::unary_backward, args);
    });
}

df_status df_binary_forward(df_tensor* out, const df_tensor* a, const df_tensor* b, df_binary op) {
    return guard([&] {
        Arguments call("binary");
        df_pointwise_args args = {};
        args.x = call.input("a", a, Kind::kAny);
        args.b = call.input("b", b, Kind::kAny);
        args.out = call.output("out", out, Kind::kAny);
        if (args.b->dtype != args.x->dtype) call.refuse("b: dtype %s, expected %s (that of a)", dtype_name(args.b->dtype), dtype_name(args.x->dtype));
        if (args.out->dtype != args.x->dtype) call.refuse("out: dtype %s, expected %s (that of a)", dtype_name(args.out->dtype), dtype_name(args.x->dtype));
        check_broadcast(call, "a", *args.x, *args.out);
        check_broadcast(call, "b", *args.b, *args.out);
        check_enum(call, op, DF_BINARY_MIN);
        if (op == DF_BINARY_DIV && args.x->dtype == DF_I32) call.refuse("a: dtype I32, expected a floating dtype for div");
        call.may_be(args.out, args.x);
        call.may_be(args.out, args.b);
        call.check_overlap();
        args.op = op;
        run(call, &df_backend_ops::binary_forward, args);
    });
}

df_status df_affine(df_tensor* out, const df_tensor* x, double alpha, double beta) {
    return guard([&] {
        Arguments call("affine");
        df_pointwise_args args = {};
        args.x = call.input("x", x);
        args.out = call.output("out", out);
        call.same_shape("out", args.out, "x", args.x);
        call.may_be(args.out, args.x);
        call.check_overlap();
        args.alpha = alpha;
        args.beta = beta;
        run(call, &df_backend_ops::affine, args);
    });
}

df_status df_copy(df_tensor* out, const df_tensor* x) {
    return guard([&] {
        Arguments call("copy");
        df_pointwise_args args = {};
        args.x = call.input("x", x, Kind::kAny);
        args.out = call.output("out", out, is_floating(args.x->dtype) ? Kind::kFloat : Kind::kI32);
        check_broadcast(call, "x", *args.x, *args.out);
        call.check_overlap();
        run(call, &df_backend_ops::copy, args);
    });
}

df_status df_fill(df_tensor* out, double value) {
    return guard([&] {
        Arguments call("fill");
        df_pointwise_args args = {};
        args.out = call.output("out", out, Kind::kAny);
        if (args.out->dtype == DF_I32 && !(value >= -2147483648.0 && value <= 2147483647.0 && value == floor(value)))
            call.refuse("value: %g, expected a 32-bit integer", value);
        args.alpha = value;
        run(call, &df_backend_ops::fill, args);
    });
}

df_status df_reduce_forward(df_tensor* out, const df_tensor* x, df_reduction op, unsigned int axes) {
    return guard([&] {
        Arguments call("reduce");
        df_reduce_args args = {};
        args.x = call.input("x", x);
        args.out = call.output("out", out, Kind::kCallOrAccumulate);
        check_enum(call, op, DF_REDUCE_MIN);
        check_axes(call, *args.x, axes);
        check_reduced(call, "out", *args.out, *args.x, axes);
        call.check_overlap();
        args.op = op;
        args.axes = axes;
        run(call, &df_backend_ops::reduce_forward, args);
    });
}

df_status df_reduce_backward(df_tensor* dx, const df_tensor* dout, const df_tensor* x, const df_tensor* out, df_reduction op, unsigned int axes) {
    return guard([&] {
        Arguments call("reduce");
        df_reduce_args args = {};
        args.x = call.input("x", x);
        args.dx = call.output("dx", dx);
        call.same_shape("dx", args.dx, "x", args.x);
        args.dout = call.input("dout", dout, Kind::kCallOrAccumulate);
        args.out = call.input("out", out, Kind::kCallOrAccumulate);
        check_enum(call, op, DF_REDUCE_MIN);
        check_axes(call, *args.x, axes);
        check_reduced(call, "dout", *args.dout, *args.x, axes);
        check_reduced(call, "out", *args.out, *args.x, axes);
        call.check_overlap();
        args.op = op;
        args.axes = axes;
        run(call, &df_backend_ops::reduce_backward, args);
    });
}

df_status df_argmax(df_tensor* out, const df_tensor* x) {
    return guard([&] {
        Arguments call("argmax");
        df_pointwise_args args = {};
        args.x = call.input("x", x);
        args.out = call.output("out", out, Kind::kI32);
        if (args.x->rank < 1) call.refuse("x: a scalar, expected at least one dimension");
        check_reduced(call, "out", *args.out, *args.x, 1u << (args.x->rank - 1));
        if (args.x->shape[args.x->rank - 1] > INT32_MAX) call.refuse("x: last dimension %lld, expected at most 2^31-1", ll(args.x->shape[args.x->rank - 1]));
        call.check_overlap();
        run(call, &df_backend_ops::argmax, args);
    });
}

df_status df_squared_norm(df_tensor* sumsq, const df_tensor* x, int accumulate) {
    return guard([&] {
        Arguments call("squared-norm");
        df_optimizer_args args = {};
        args.x = call.input("x", x);
        args.sumsq = call.output("sumsq", sumsq, Kind::kAccumulate);
        call.scalar("sumsq", args.sumsq);
        call.check_overlap();
        args.accumulate = accumulate != 0;
        run(call, &df_backend_ops::squared_norm, args);
    });
}

df_status df_clip_scale(df_tensor* scale, const df_tensor* sumsq, double max_norm) {
    return guard([&] {
        Arguments call("clip-scale");
        df_optimizer_args args = {};
        args.sumsq = call.input("sumsq", sumsq);
        if (call.dtype() == DF_BF16) call.refuse("sumsq: dtype BF16, expected F32 or F64");
        args.scale = call.output("scale", scale, Kind::kAccumulate);
        call.scalar("sumsq", args.sumsq);
        call.scalar("scale", args.scale);
        check_positive(call, "max_norm", max_norm, false);
        call.check_overlap();
        args.max_norm = max_norm;
        run(call, &df_backend_ops::clip_scale, args);
    });
}

df_status df_adamw_step(df_tensor* param, df_tensor* m, df_tensor* v, df_tensor* master, const df_tensor* grad, const df_tensor* scale, double lr,
                        double beta1, double beta2, double eps, double weight_decay, int64_t step) {
    return guard([&] {
        Arguments call("adamw");
        df_optimizer_args args = {};
        parameter(call, args, param, master, grad, scale);
        args.m = call.output("m", m, Kind::kAccumulate);
        args.v = call.output("v", v, Kind::kAccumulate);
        call.same_shape("m", args.m, "param", args.param);
        call.same_shape("v", args.v, "param", args.param);
        check_finite(call, "lr", lr);
        check_beta(call, "beta1", beta1);
        check_beta(call, "beta2", beta2);
        check_positive(call, "eps", eps, true);
        check_finite(call, "weight_decay", weight_decay);
        if (step < 1) call.refuse("step: %lld, expected at least 1", ll(step));
        call.check_overlap();
        args.lr = lr;
        args.beta1 = beta1;
        args.beta2 = beta2;
        args.eps = eps;
        args.weight_decay = weight_decay;
        args.step = step;
        run(call, &df_backend_ops::adamw_step, args);
    });
}

df_status df_clip_step(df_tensor* scale, df_tensor* step, const df_tensor* sumsq, const df_tensor* loss, const df_tensor* max_norm) {
    return guard([&] {
        Arguments call("clip-step");
        df_optimizer_args args = {};
        args.sumsq = call.input("sumsq", sumsq);
        if (call.dtype() == DF_BF16) call.refuse("sumsq: dtype BF16, expected F32 or F64");
        args.scale = call.output("scale", scale, Kind::kAccumulate);
        args.steps = call.output("step", step, Kind::kI32);
        if (loss != nullptr) args.loss = call.input("loss", loss, Kind::kAccumulate);
        if (max_norm != nullptr) args.limit = call.input("max_norm", max_norm, Kind::kAccumulate);
        call.scalar("sumsq", args.sumsq);
        call.scalar("scale", args.scale);
        call.scalar("step", args.steps);
        call.scalar("loss", args.loss);
        call.scalar("max_norm", args.limit);
        call.check_overlap();
        run(call, &df_backend_ops::clip_scale, args);
    });
}

df_status df_adamw_ranges(df_tensor* param, df_tensor* m, df_tensor* v, df_tensor* master, const df_tensor* grad, const df_tensor* scale,
                          const df_tensor* rates, const df_tensor* steps, const int64_t* bounds, const double* weight_decays, int count, double lr,
                          double beta1, double beta2, double eps, int64_t step) {
    return guard([&] {
        Arguments call("adamw");
        df_optimizer_args args = {};
        parameter(call, args, param, master, grad, scale);
        args.m = call.output("m", m, Kind::kAccumulate);
        args.v = call.output("v", v, Kind::kAccumulate);
        call.same_shape("m", args.m, "param", args.param);
        call.same_shape("v", args.v, "param", args.param);
        check_flat(call, "param", args.param);
        check_flat(call, "m", args.m);
        check_flat(call, "v", args.v);
        check_flat(call, "master", args.master);
        check_flat(call, "grad", args.grad);
        if ((rates == nullptr) != (steps == nullptr))
            call.refuse("%s: null, expected both rates and steps or neither", rates == nullptr ? "rates" : "steps");
        if (rates != nullptr) {
            args.rates = call.input("rates", rates, {"K"}, Kind::kAccumulate);
            args.steps = call.input("steps", steps, Kind::kI32);
            call.scalar("steps", args.steps);
        } else {
            check_finite(call, "lr", lr);
            if (step < 1) call.refuse("step: %lld, expected at least 1", ll(step));
        }
        check_beta(call, "beta1", beta1);
        check_beta(call, "beta2", beta2);
        check_positive(call, "eps", eps, true);
        if (count < 0) call.refuse("count: %d, expected at least 0", count);
        if (count > 0 && (bounds == nullptr || weight_decays == nullptr))
            call.refuse("%s: null, expected %d ranges", bounds == nullptr ? "bounds" : "weight_decays", count);
        std::vector<df_range> ranges(static_cast<size_t>(count));
        int64_t from = 0;
        for (int i = 0; i < count; ++i) {
            df_range& r = ranges[static_cast<size_t>(i)] = {bounds[2 * i], bounds[2 * i + 1], weight_decays[i]};
            if (r.from < from || r.to <= r.from || r.to > args.param->shape[0])
                call.refuse("bounds: part %d is %lld..%lld, expected ascending parts within 0..%lld", i, ll(r.from), ll(r.to),
                            ll(args.param->shape[0]));
            check_finite(call, "weight_decays", r.weight_decay);
            from = r.to;
        }
        call.check_overlap();
        if (count == 0) return;
        args.lr = lr;
        args.beta1 = beta1;
        args.beta2 = beta2;
        args.eps = eps;
        args.step = step;
        args.ranges = ranges.data();
        args.range_count = count;
        run(call, &df_backend_ops::adamw_step, args);
    });
}

df_status df_sgd_step(df_tensor* param, df_tensor* momentum_buffer, df_tensor* master, const df_tensor* grad, const df_tensor* scale, double lr,
                      double momentum, double weight_decay) {
    return guard([&] {
        Arguments call("sgd");
        df_optimizer_args args = {};
        parameter(call, args, param, master, grad, scale);
        if (momentum_buffer != nullptr) args.m = call.output("momentum_buffer", momentum_buffer, Kind::kAccumulate);
        call.same_shape("momentum_buffer", args.m, "param", args.param);
        check_finite(call, "lr", lr);
        check_beta(call, "momentum", momentum);
        if (momentum != 0 && momentum_buffer == nullptr) call.refuse("momentum_buffer: null, expected a tensor with momentum %g", momentum);
        check_finite(call, "weight_decay", weight_decay);
        call.check_overlap();
        args.lr = lr;
        args.beta1 = momentum;
        args.weight_decay = weight_decay;
        run(call, &df_backend_ops::sgd_step, args);
    });
}

df_status df_random_uniform(df_tensor* out, uint64_t seed, uint64_t offset, double lo, double hi) {
    return random_fill(out, false, nullptr, seed, offset, lo, hi, false);
}

df_status df_random_normal(df_tensor* out, uint64_t seed, uint64_t offset, double mean, double std) {
    return random_fill(out, false, nullptr, seed, offset, mean, std, true);
}

df_status df_random_uniform_next(df_tensor* out, df_tensor* state, double lo, double hi) {
    return random_fill(out, true, state, 0, 0, lo, hi, false);
}

df_status df_random_normal_next(df_tensor* out, df_tensor* state, double mean, double std) {
    return random_fill(out, true, state, 0, 0, mean, std, true);
}

}  // extern "C"
