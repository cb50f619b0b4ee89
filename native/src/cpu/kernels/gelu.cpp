// Bias and GELU. Backward cuts (N, C) into column blocks of one tile and fixed row blocks, so that dbias has a fixed order of summation.
#include "cpu/elementwise.h"
#include "cpu/kernels.h"

namespace dualform::cpu::DF_ISA {

namespace {

constexpr double kCubic = 0.044715, kSqrt2OverPi = 0.79788456080286535588, kInvSqrt2Pi = 0.39894228040143267794;

/// gelu(u) = u Phi(u); in the tanh form u sigmoid(2 z), z = sqrt(2/pi) (u + 0.044715 u^3), which is the same as u/2 (1 + tanh z).
template <bool Exact, class A>
inline Vec<A> gelu(Vec<A> u) {
    if constexpr (Exact) return u * normal_cdf(u, vexp_below(A(-0.5) * u * u));
    const Vec<A> two_z = u * (A(2 * kSqrt2OverPi) + A(2 * kSqrt2OverPi * kCubic) * u * u);
    const Vec<A> e = vexp_below(-vabs(two_z)), r = u / (A(1) + e);
    return u > 0 ? r : e * r;
}

/// Beyond 40 the slope is 0 or 1 in every dtype; without the bound inf would meet 0.
template <bool Exact, class A>
inline Vec<A> gelu_slope(Vec<A> x) {
    const A bound = 40;
    const Vec<A> u = x < -bound ? splat<A>(-bound) : (x > bound ? splat<A>(bound) : x);
    if constexpr (Exact) {
        const Vec<A> gauss = vexp_below(A(-0.5) * u * u);
        return normal_cdf(u, gauss) + u * gauss * A(kInvSqrt2Pi);
    }
    const Vec<A> square = u * u;
    const Vec<A> two_z = u * (A(2 * kSqrt2OverPi) + A(2 * kSqrt2OverPi * kCubic) * square);
    const Vec<A> e = vexp_below(-vabs(two_z)), r = A(1) / (A(1) + e), rest = e * r;
    const Vec<A> two_z_slope = u * (A(2 * kSqrt2OverPi) + A(6 * kSqrt2OverPi * kCubic) * square);
    return (u > 0 ? r : rest) + (rest * r) * two_z_slope;
}

template <bool Exact, class A>
void forward(df_queue* queue, const df_gelu_args* args) {
    const Space<3> space(args->out, {args->out, args->x, args->bias});
    for_tiles(queue, space, [&](const int64_t* offset, int64_t, int n) {
        alignas(64) A to[kTile], from[kTile], shift[kTile];
        A* out = tile_target<A>(to, args->out, offset[0], space.inner_stride[0]);
        const A* x = read_tile<A>(from, args->x, offset[1], space.inner_stride[1], n);
        if (args->bias != nullptr) {
            const A* bias = read_tile<A>(shift, args->bias, offset[2], space.inner_stride[2], n);
            map<A>(out, n, [](Vec<A> v, Vec<A> b) { return gelu<Exact, A>(v + b); }, x, bias);
        } else {
            map<A>(out, n, [](Vec<A> v) { return gelu<Exact, A>(v); }, x);
        }
        write_tile<A>(args->out, offset[0], space.inner_stride[0], out, n);
    });
}

template <bool Exact, class T>
int backward(df_queue* queue, const df_gelu_args* args, df_error* error) {
    using A = Accumulate<T>;
    const df_view* last = args->dx;
    const int64_t C = last->rank == 0 ? 1 : last->shape[last->rank - 1], N = numel(last) / C;
    const bool reduces = args->dbias != nullptr;
    const Rows<T> dx(args->dx);
    const Rows<const T> dout(args->dout), x(args->x);
    const T* bias = args->bias != nullptr ? data<const T>(args->bias) : nullptr;
    const int64_t columns = ceil_div(C, kTile), fewest_rows = larger<int64_t>(1, 4096 / smaller<int64_t>(C, kTile));
    const int64_t block = larger(fewest_rows, ceil_div(N, larger<int64_t>(1, 64 / columns))), blocks = ceil_div(N, block);
    const int64_t padded = columns * kTile;
    const size_t bytes = reduces && blocks > 1 ? size_t(blocks * padded) * sizeof(double) : 0;
    Scratch scratch(queue, bytes);
    if (!scratch) return out_of_memory(error, "bias_gelu_backward", bytes);
    for_pieces(queue, blocks * columns, 2 * N * C, [&](int64_t piece, int) {
        const int64_t b = piece / columns, first = piece % columns * kTile;
        const int n = int(smaller<int64_t>(kTile, C - first));
        alignas(64) A shift[kTile] = {};
        alignas(64) double sums[kTile] = {};
        const A* shift_c = bias != nullptr ? read_as<A, T>(shift, bias + first, 1, n) : shift;
        for (int64_t row = b * block, end = smaller(row + block, N); row < end; ++row) {
            T* dx_n = dx[row] + first;
            const T *dout_n = dout[row] + first, *x_n = x[row] + first;
            for_vectors<A>(n, [&](int64_t i, int lanes) {
                const Vec<A> u = load_lanes<A>(x_n + i, lanes) + load_lanes<A>(shift_c + i, lanes);
                const Vec<A> d = load_lanes<A>(dout_n + i, lanes) * gelu_slope<Exact, A>(u);
                store_lanes<A>(dx_n + i, d, lanes);
                if (reduces) add_to<A>(sums + i, d);
            });
        }
        if (!reduces) return;
        for (int i = 0; i < n; ++i) {
            if (blocks == 1) write_scalar(args->dbias, first + i, sums[i], args->accumulate != 0);
            else scratch.as<double>()[b * padded + first + i] = sums[i];
        }
    });
    if (!reduces || blocks == 1) return DF_OK;
    for_pieces(queue, columns, blocks * C, [&](int64_t piece, int) {
        const int64_t first = piece * kTile, end = smaller(first + kTile, C);
        double* total = scratch.as<double>();
        for (int64_t b = 1; b < blocks; ++b)
            for (int64_t i = first; i < end; ++i) total[i] += total[b * padded + i];
        for (int64_t i = first; i < end; ++i) write_scalar(args->dbias, i, total[i], args->accumulate != 0);
    });
    return DF_OK;
}

}  // namespace

int bias_gelu_forward(df_queue* queue, const df_gelu_args* args, df_error*) {
    const bool exact = args->kind == DF_GELU_EXACT;
    if (args->out->dtype == DF_F64) (exact ? forward<true, double> : forward<false, double>)(queue, args);
    else (exact ? forward<true, float> : forward<false, float>)(queue, args);
    return DF_OK;
}

int bias_gelu_backward(df_queue* queue, const df_gelu_args* args, df_error* error) {
    return dispatch(args->dx->dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        return args->kind == DF_GELU_EXACT ? backward<true, T>(queue, args, error) : backward<false, T>(queue, args, error);
    });
}

}  // namespace dualform::cpu::DF_ISA
