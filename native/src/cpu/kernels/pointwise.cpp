// Elementwise operations, copies, fills and argmax: tiles of the merged index space (elementwise.h).
#include "cpu/elementwise.h"
#include "cpu/kernels.h"

namespace dualform::cpu::DF_ISA {

namespace {

// ---- one operand ----

/// out[i] = f(x[i]) for functions that the compiler vectorises by itself or that only the C library has. out may be x.
template <class A, class F>
void each(A* out, const A* x, int n, F&& f) {
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) out[i] = f(x[i]);
}

template <class A>
void unary_tile(A* out, const A* x, int n, int op) {
    using V = Vec<A>;
    switch (op) {
        case DF_UNARY_NEG: return map<A>(out, n, [](V v) { return -v; }, x);
        case DF_UNARY_EXP: return map<A>(out, n, [](V v) { return vexp<A>(v); }, x);
        case DF_UNARY_LOG: return each(out, x, n, [](A v) { return kSame<A, float> ? A(logf(float(v))) : A(log(double(v))); });
        case DF_UNARY_SQRT: return each(out, x, n, [](A v) { return square_root(v); });
        case DF_UNARY_RSQRT: return each(out, x, n, [](A v) { return A(1) / square_root(v); });
        case DF_UNARY_RECIPROCAL: return map<A>(out, n, [](V v) { return A(1) / v; }, x);
        case DF_UNARY_SQUARE: return map<A>(out, n, [](V v) { return v * v; }, x);
        case DF_UNARY_ABS: return each(out, x, n, [](A v) { return A(__builtin_fabs(double(v))); });
        case DF_UNARY_TANH: return map<A>(out, n, [](V v) { return vtanh(v); }, x);
        case DF_UNARY_SIGMOID: return map<A>(out, n, [](V v) { return vsigmoid<A>(v); }, x);
        case DF_UNARY_RELU: return map<A>(out, n, [](V v) { return v <= 0 ? V{} : v; }, x);
        case DF_UNARY_SIN: return each(out, x, n, [](A v) { return kSame<A, float> ? A(sinf(float(v))) : A(sin(double(v))); });
        default: return each(out, x, n, [](A v) { return kSame<A, float> ? A(cosf(float(v))) : A(cos(double(v))); });
    }
}

/// e / (1 + e)^2 with e = exp(-|x|): sigmoid' of x, and tanh' of x/2 over 4, without cancellation at large |x|.
template <class A>
Vec<A> logistic_density(Vec<A> x) {
    const Vec<A> e = vexp<A>(-vabs(x)), q = A(1) + e;
    return e / (q * q);
}

template <class A>
void unary_slope_tile(A* dx, const A* dout, const A* x, int n, int op) {
    using V = Vec<A>;
    alignas(64) A f[kTile];
    switch (op) {
        case DF_UNARY_NEG: return map<A>(dx, n, [](V d) { return -d; }, dout);
        case DF_UNARY_EXP: return map<A>(dx, n, [](V d, V v) { return d * vexp<A>(v); }, dout, x);
        case DF_UNARY_LOG: return map<A>(dx, n, [](V d, V v) { return d / v; }, dout, x);
        case DF_UNARY_SQRT:
            unary_tile<A>(f, x, n, DF_UNARY_SQRT);
            return map<A>(dx, n, [](V d, V s) { return A(0.5) * d / s; }, dout, f);
        case DF_UNARY_RSQRT:
            unary_tile<A>(f, x, n, DF_UNARY_RSQRT);
            return map<A>(dx, n, [](V d, V s, V v) { return A(-0.5) * d * s / v; }, dout, f, x);
        case DF_UNARY_RECIPROCAL: return map<A>(dx, n, [](V d, V v) { return -d / v / v; }, dout, x);
        case DF_UNARY_SQUARE: return map<A>(dx, n, [](V d, V v) { return d * (v + v); }, dout, x);
        case DF_UNARY_ABS: return map<A>(dx, n, [](V d, V v) { return v > 0 ? d : (v < 0 ? -d : (v == 0 ? V{} : v)); }, dout, x);
        case DF_UNARY_TANH: return map<A>(dx, n, [](V d, V v) { return d * (A(4) * logistic_density<A>(v + v)); }, dout, x);
        case DF_UNARY_SIGMOID: return map<A>(dx, n, [](V d, V v) { return d * logistic_density<A>(v); }, dout, x);
        case DF_UNARY_RELU: return map<A>(dx, n, [](V d, V v) { return v > 0 ? d : (v <= 0 ? V{} : v); }, dout, x);
        case DF_UNARY_SIN:
            unary_tile<A>(f, x, n, DF_UNARY_COS);
            return map<A>(dx, n, [](V d, V c) { return d * c; }, dout, f);
        default:
            unary_tile<A>(f, x, n, DF_UNARY_SIN);
            return map<A>(dx, n, [](V d, V s) { return -d * s; }, dout, f);
    }
}

/// out = f(x) tile by tile, f(out, x, n) in A; x is broadcast to out's shape.
template <class A, class F>
void for_one(df_queue* queue, const df_view* out, const df_view* x, F&& f) {
    const Space<2> space(out, {out, x});
    for_tiles(queue, space, [&](const int64_t* offset, int64_t, int n) {
        alignas(64) A to[kTile], from[kTile];
        A* target = tile_target<A>(to, out, offset[0], space.inner_stride[0]);
        f(target, read_tile<A>(from, x, offset[1], space.inner_stride[1], n), n);
        write_tile<A>(out, offset[0], space.inner_stride[0], target, n);
    });
}

/// out = f(a, b) likewise.
template <class A, class F>
void for_two(df_queue* queue, const df_view* out, const df_view* a, const df_view* b, F&& f) {
    const Space<3> space(out, {out, a, b});
    for_tiles(queue, space, [&](const int64_t* offset, int64_t, int n) {
        alignas(64) A to[kTile], left[kTile], right[kTile];
        A* target = tile_target<A>(to, out, offset[0], space.inner_stride[0]);
        const A* a_tile = read_tile<A>(left, a, offset[1], space.inner_stride[1], n);
        f(target, a_tile, read_tile<A>(right, b, offset[2], space.inner_stride[2], n), n);
        write_tile<A>(out, offset[0], space.inner_stride[0], target, n);
    });
}

/// f(A{}) with the type that a tensor of this dtype is computed in.
template <class F>
void in_accumulation_type(int dtype, F&& f) {
    if (dtype == DF_F64) f(double{});
    else f(float{});
}

// ---- two operands ----

template <class A>
void binary_tile(A* out, const A* a, const A* b, int n, int op) {
    using V = Vec<A>;
    switch (op) {
        case DF_BINARY_ADD: return map<A>(out, n, [](V x, V y) { return x + y; }, a, b);
        case DF_BINARY_SUB: return map<A>(out, n, [](V x, V y) { return x - y; }, a, b);
        case DF_BINARY_MUL: return map<A>(out, n, [](V x, V y) { return x * y; }, a, b);
        case DF_BINARY_DIV: return map<A>(out, n, [](V x, V y) { return x / y; }, a, b);
        // NaN in either operand comes through: in x because x != x, in y because no comparison with it holds.
        case DF_BINARY_MAX: return map<A>(out, n, [](V x, V y) { return (x > y) | (x != x) ? x : y; }, a, b);
        default: return map<A>(out, n, [](V x, V y) { return (x < y) | (x != x) ? x : y; }, a, b);
    }
}

/// Integers wrap around.
int32_t binary_integer(int32_t a, int32_t b, int op) {
    switch (op) {
        case DF_BINARY_ADD: return int32_t(uint32_t(a) + uint32_t(b));
        case DF_BINARY_SUB: return int32_t(uint32_t(a) - uint32_t(b));
        case DF_BINARY_MUL: return int32_t(uint32_t(a) * uint32_t(b));
        case DF_BINARY_MAX: return larger(a, b);
        default: return smaller(a, b);
    }
}

template <class F>
void integer_tile(int32_t* out, int64_t out_stride, const int32_t* a, int64_t a_stride, const int32_t* b, int64_t b_stride, int n, F&& f) {
    if (out_stride == 1 && a_stride == 1 && b_stride == 1) {
#pragma GCC ivdep
        for (int i = 0; i < n; ++i) out[i] = f(a[i], b[i]);
    } else {
        for (int i = 0; i < n; ++i) out[i * out_stride] = f(a[i * a_stride], b[i * b_stride]);
    }
}

void binary_integers(df_queue* queue, const df_pointwise_args* args) {
    const Space<3> space(args->out, {args->out, args->x, args->b});
    for_tiles(queue, space, [&](const int64_t* offset, int64_t, int n) {
        const int64_t* stride = space.inner_stride;
        int32_t* out = data<int32_t>(args->out) + offset[0];
        const int32_t *a = data<int32_t>(args->x) + offset[1], *b = data<int32_t>(args->b) + offset[2];
        const auto run = [&](auto f) { integer_tile(out, stride[0], a, stride[1], b, stride[2], n, f); };
        switch (args->op) {
            case DF_BINARY_ADD: return run([](int32_t x, int32_t y) { return binary_integer(x, y, DF_BINARY_ADD); });
            case DF_BINARY_SUB: return run([](int32_t x, int32_t y) { return binary_integer(x, y, DF_BINARY_SUB); });
            case DF_BINARY_MUL: return run([](int32_t x, int32_t y) { return binary_integer(x, y, DF_BINARY_MUL); });
            case DF_BINARY_MAX: return run([](int32_t x, int32_t y) { return binary_integer(x, y, DF_BINARY_MAX); });
            default: return run([](int32_t x, int32_t y) { return binary_integer(x, y, DF_BINARY_MIN); });
        }
    });
}

// ---- copies ----

/// Copies elements of one size as they are.
template <class Bits>
void copy_bits(df_queue* queue, const df_view* out, const df_view* x) {
    const Space<2> space(out, {out, x});
    for_tiles(queue, space, [&](const int64_t* offset, int64_t, int n) {
        Bits* to = data<Bits>(out) + offset[0];
        const Bits* from = data<const Bits>(x) + offset[1];
        const int64_t to_stride = space.inner_stride[0], from_stride = space.inner_stride[1];
        if (to_stride == 1 && from_stride == 1) {
            __builtin_memmove(to, from, size_t(n) * sizeof(Bits));
        } else if (to_stride == 1 && from_stride == 0) {
            for (int i = 0; i < n; ++i) to[i] = *from;
        } else {
            for (int i = 0; i < n; ++i) to[i * to_stride] = from[i * from_stride];
        }
    });
}

template <class T>
void fill_with(df_queue* queue, const df_view* out, T value) {
    const Space<1> space(out, {out});
    for_tiles(queue, space, [&](const int64_t* offset, int64_t, int n) {
        T* to = data<T>(out) + offset[0];
        const int64_t stride = space.inner_stride[0];
        if (stride == 1) {
            for (int i = 0; i < n; ++i) to[i] = value;
        } else {
            for (int i = 0; i < n; ++i) to[i * stride] = value;
        }
    });
}

int32_t to_integer(double value) {
    if (value != value) return 0;
    if (value <= -2147483648.0) return INT32_MIN;
    return value >= 2147483647.0 ? INT32_MAX : int32_t(value);
}

// ---- argmax ----

/// Blocks are compared by their largest element, found with vectors; only the winning block is searched.
template <class T>
int32_t row_argmax(const T* row, int64_t n) {
    using A = Accumulate<T>;
    constexpr int64_t kBlock = 256;
    A best = 0;
    int64_t at = -1;
    for (int64_t first = 0; first < n; first += kBlock) {
        const int64_t size = smaller(kBlock, n - first);
        Vec<A> most = splat<A>(-A(INFINITY));
        for_vectors<A>(size, [&](int64_t i, int lanes) {
            const Vec<A> v = load_lanes<A>(row + first + i, lanes, -A(INFINITY));
            most = (v > most) | (v != v) ? v : most;
        });
        A lanes[kLanes<A>];
        store(lanes, most);
        A top = lanes[0];
        for (int i = 1; i < kLanes<A>; ++i) top = lanes[i] > top || lanes[i] != lanes[i] ? lanes[i] : top;
        if (at < 0 || top > best || top != top) {
            best = top;
            at = first;
            if (top != top) break;
        }
    }
    for (int64_t i = at;; ++i) {
        const A v = A(get(row + i));
        if (v == best || v != v) return int32_t(i);
    }
}

}  // namespace

int unary_forward(df_queue* queue, const df_pointwise_args* args, df_error*) {
    in_accumulation_type(args->out->dtype, [&](auto zero) {
        using A = decltype(zero);
        for_one<A>(queue, args->out, args->x, [&](A* out, const A* x, int n) { unary_tile<A>(out, x, n, args->op); });
    });
    return DF_OK;
}

int unary_backward(df_queue* queue, const df_pointwise_args* args, df_error*) {
    in_accumulation_type(args->dx->dtype, [&](auto zero) {
        using A = decltype(zero);
        for_two<A>(queue, args->dx, args->dout, args->x,
                   [&](A* dx, const A* dout, const A* x, int n) { unary_slope_tile<A>(dx, dout, x, n, args->op); });
    });
    return DF_OK;
}

int binary_forward(df_queue* queue, const df_pointwise_args* args, df_error* error) {
    if (args->out->dtype == DF_I32) {
        if (args->op == DF_BINARY_DIV) return fail(error, DF_UNSUPPORTED, "binary: div of I32, expected a floating dtype");
        binary_integers(queue, args);
        return DF_OK;
    }
    in_accumulation_type(args->out->dtype, [&](auto zero) {
        using A = decltype(zero);
        for_two<A>(queue, args->out, args->x, args->b,
                   [&](A* out, const A* a, const A* b, int n) { binary_tile<A>(out, a, b, n, args->op); });
    });
    return DF_OK;
}

int affine(df_queue* queue, const df_pointwise_args* args, df_error*) {
    in_accumulation_type(args->out->dtype, [&](auto zero) {
        using A = decltype(zero);
        const A alpha = A(args->alpha), beta = A(args->beta);
        for_one<A>(queue, args->out, args->x,
                   [&](A* out, const A* x, int n) { map<A>(out, n, [&](Vec<A> v) { return alpha * v + beta; }, x); });
    });
    return DF_OK;
}

int copy(df_queue* queue, const df_pointwise_args* args, df_error*) {
    const df_view *out = args->out, *x = args->x;
    if (out->dtype == x->dtype) {
        if (out->dtype == DF_BF16) copy_bits<uint16_t>(queue, out, x);
        else if (out->dtype == DF_F64) copy_bits<uint64_t>(queue, out, x);
        else copy_bits<uint32_t>(queue, out, x);
        return DF_OK;
    }
    in_accumulation_type(out->dtype == DF_F64 ? DF_F64 : x->dtype, [&](auto zero) {
        using A = decltype(zero);
        for_one<A>(queue, out, x, [](A* to, const A* from, int n) {
            if (to != from) __builtin_memmove(to, from, size_t(n) * sizeof(A));
        });
    });
    return DF_OK;
}

int fill(df_queue* queue, const df_pointwise_args* args, df_error*) {
    switch (args->out->dtype) {
        case DF_F32: fill_with(queue, args->out, float(args->alpha)); break;
        case DF_BF16: fill_with(queue, args->out, round_to_bf16(args->alpha)); break;
        case DF_F64: fill_with(queue, args->out, args->alpha); break;
        default: fill_with(queue, args->out, to_integer(args->alpha));
    }
    return DF_OK;
}

int argmax(df_queue* queue, const df_pointwise_args* args, df_error*) {
    const int64_t C = args->x->rank == 0 ? 1 : args->x->shape[args->x->rank - 1], N = numel(args->x) / C;
    const int64_t block = larger<int64_t>(1, kGrain / C);
    const Rows<int32_t> out(args->out, 0);
    return dispatch(args->x->dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        const Rows<const T> x(args->x);
        for_pieces(queue, ceil_div(N, block), N * C, [&](int64_t b, int) {
            for (int64_t n = b * block, end = smaller(n + block, N); n < end; ++n) *out[n] = row_argmax<T>(x[n], C);
        });
        return DF_OK;
    });
}

}  // namespace dualform::cpu::DF_ISA
