// Residual add and LayerNorm: one thread per block of rows, one row at a time in the L1 cache.
#include "cpu/elementwise.h"
#include "cpu/kernels.h"

namespace dualform::cpu::DF_ISA {

namespace {

constexpr int64_t kStackRow = 1024;  // longer rows take their buffer from the device's memory

int64_t row_size(const df_view* v) { return v->rank == 0 ? 1 : v->shape[v->rank - 1]; }

/// sum = x + residual, rounded to T where it is kept: what is normalised is what backward will read. Returns the row in A.
template <class T, class A>
const A* residual_row(T* sum, A* buffer, const T* x, const T* residual, int64_t C) {
    if (residual == nullptr && sum == nullptr) {
        if constexpr (kSame<T, A>) return x;
    }
    A* to = buffer;
    if constexpr (kSame<T, A>) to = sum != nullptr ? sum : buffer;
    for_vectors<A>(C, [&](int64_t i, int lanes) {
        Vec<A> s = load_lanes<A>(x + i, lanes);
        if (residual != nullptr) s += load_lanes<A>(residual + i, lanes);
        if (sum != nullptr) {
            store_lanes<A>(sum + i, s, lanes);
            s = load_lanes<A>(sum + i, lanes);
        }
        if (static_cast<const void*>(to) != static_cast<const void*>(sum)) store_lanes<A>(to + i, s, lanes);
    });
    return to;
}

/// The mean is the sum of an A and a rest, both subtracted: the differences stay right when the mean is large.
template <class T, class A>
void normalise_row(T* out, A* mean, A* rstd, const A* row, const T* weight, const T* bias, int64_t C, double eps) {
    double sum[1], moments[2];
    row_sums<A, 1, 1>(sum, C, [&](int64_t i, int lanes, Vec<A>* t) { t[0] = load_lanes<A>(row + i, lanes); });
    const double exact = sum[0] / double(C);
    const A rounded = A(exact);
    row_sums<A, 2, 16>(moments, C, [&](int64_t i, int lanes, Vec<A>* t) {
        t[0] = load_lanes<A>(row + i, lanes, rounded) - rounded;
        t[1] = t[0] * t[0];
    });
    const double rest = kSame<A, double> ? moments[0] / double(C) : exact - double(rounded);
    const double variance = moments[1] / double(C) - rest * rest;
    const double scale = 1.0 / __builtin_sqrt((variance < 0 ? 0.0 : variance) + eps);
    const A rest_a = A(rest), scale_a = A(scale);
    for_vectors<A>(C, [&](int64_t i, int lanes) {
        const Vec<A> h = ((load_lanes<A>(row + i, lanes) - rounded) - rest_a) * scale_a;
        store_lanes<A>(out + i, h * load_lanes<A>(weight + i, lanes) + load_lanes<A>(bias + i, lanes), lanes);
    });
    *mean = A(double(rounded) + rest);
    *rstd = scale_a;
}

template <class T>
int forward(df_queue* queue, const df_layernorm_args* args, df_error* error) {
    using A = Accumulate<T>;
    const int64_t C = row_size(args->x), N = numel(args->x) / C;
    const Rows<const T> x(args->x), residual(args->residual);
    const Rows<T> sum(args->sum), out(args->out);
    const Rows<A> mean(args->mean, 0), rstd(args->rstd, 0);
    const T *weight = data<const T>(args->weight), *bias = data<const T>(args->bias);
    const int64_t block = larger<int64_t>(1, kGrain / C), buffer_size = round_up(C, kLanes<A>);
    const auto rows = [&](int64_t b, A* buffer) {
        for (int64_t n = b * block, end = smaller(n + block, N); n < end; ++n) {
            const A* row = residual_row<T, A>(sum ? sum[n] : nullptr, buffer, x[n], residual ? residual[n] : nullptr, C);
            normalise_row<T, A>(out[n], mean[n], rstd[n], row, weight, bias, C, args->eps);
        }
    };
    if (C <= kStackRow) {
        for_pieces(queue, ceil_div(N, block), N * C, [&](int64_t b, int) {
            alignas(64) A buffer[kStackRow];
            rows(b, buffer);
        });
        return DF_OK;
    }
    const size_t bytes = size_t(buffer_size) * sizeof(A) * size_t(thread_count(queue));
    Scratch scratch(queue, bytes);
    if (!scratch) return out_of_memory(error, "residual_layernorm_forward", bytes);
    for_pieces(queue, ceil_div(N, block), N * C, [&](int64_t b, int worker) { rows(b, scratch.as<A>() + worker * buffer_size); });
    return DF_OK;
}

/// dx of one row, and the row's share of dweight and dbias added in double (when they are wanted).
template <class T, class A>
void backward_row(T* dx, double* dweight, double* dbias, const T* dout, const T* dsum, const T* sum, const T* weight, A mean, A rstd, int64_t C) {
    // With c = sum - mean: the saved mean is rounded, and beside a large mean what it lost, the mean of c, is no small part of c.
    double sums[3];
    row_sums<A, 3, 16>(sums, C, [&](int64_t i, int lanes, Vec<A>* t) {
        t[0] = load_lanes<A>(sum + i, lanes, mean) - mean;
        t[1] = load_lanes<A>(dout + i, lanes) * load_lanes<A>(weight + i, lanes);
        t[2] = t[0] * t[1];
    });
    const double lost = sums[0] / double(C);
    const A rest = A(lost), mean_g = A(sums[1] / double(C)), mean_gh = A((sums[2] - lost * sums[1]) * double(rstd) / double(C));
    if (C == 1) {  // g - mean_c g is exactly 0, which a fused multiply-add would miss
        const A h = ((A(get(sum)) - mean) - rest) * rstd, dy = A(get(dout)), g = A(sums[1]), d = -rstd * h * (g * h);
        put(dx, dsum != nullptr ? d + A(get(dsum)) : d);
        if (dweight != nullptr) {
            *dweight += double(dy * h);
            *dbias += double(dy);
        }
        return;
    }
    for_vectors<A>(C, [&](int64_t i, int lanes) {
        const Vec<A> h = ((load_lanes<A>(sum + i, lanes, mean) - mean) - rest) * rstd, dy = load_lanes<A>(dout + i, lanes);
        Vec<A> d = rstd * ((dy * load_lanes<A>(weight + i, lanes) - mean_g) - h * mean_gh);
        if (dsum != nullptr) d += load_lanes<A>(dsum + i, lanes);
        store_lanes<A>(dx + i, d, lanes);
        if (dweight != nullptr) {
            add_to<A>(dweight + i, dy * h);
            add_to<A>(dbias + i, dy);
        }
    });
}

/// Rows are cut into at most 64 blocks, fewer when their partial sums (2 C doubles each) would take more than 8 MiB.
template <class T>
int backward(df_queue* queue, const df_layernorm_args* args, df_error* error) {
    using A = Accumulate<T>;
    const int64_t C = row_size(args->dx), N = numel(args->dx) / C;
    const Rows<T> dx(args->dx);
    const Rows<const T> dout(args->dout), dsum(args->dsum), sum(args->sum);
    const Rows<const A> mean(args->mean, 0), rstd(args->rstd, 0);
    const T* weight = data<const T>(args->weight);
    const bool wanted = args->dweight != nullptr;
    const int64_t padded = round_up(C, kLanes<A>);
    const int64_t most = wanted ? larger<int64_t>(4, smaller<int64_t>(64, (int64_t{1} << 19) / padded)) : N;
    const int64_t block = larger(larger<int64_t>(1, kGrain / 2 / C), ceil_div(N, most)), blocks = ceil_div(N, block);
    const size_t bytes = wanted ? size_t(blocks) * 2 * size_t(padded) * sizeof(double) : 0;
    alignas(64) double few[2 * kStackRow];
    const bool on_stack = bytes <= sizeof few;
    Scratch scratch(queue, on_stack ? 0 : bytes);
    if (!scratch) return out_of_memory(error, "residual_layernorm_backward", bytes);
    double* partial = on_stack ? few : scratch.as<double>();
    for_pieces(queue, blocks, 2 * N * C, [&](int64_t b, int) {
        double *dweight = nullptr, *dbias = nullptr;
        if (wanted) {
            dweight = partial + b * 2 * padded;
            dbias = dweight + padded;
            for (int64_t i = 0; i < 2 * padded; ++i) dweight[i] = 0;
        }
        for (int64_t n = b * block, end = smaller(n + block, N); n < end; ++n)
            backward_row<T, A>(dx[n], dweight, dbias, dout[n], dsum ? dsum[n] : nullptr, sum[n], weight, *mean[n], *rstd[n], C);
    });
    if (!wanted) return DF_OK;
    for_pieces(queue, ceil_div(C, kTile), 2 * blocks * C, [&](int64_t piece, int) {
        const int64_t begin = piece * kTile, end = smaller(begin + kTile, C);
        for (int64_t b = 1; b < blocks; ++b)
            for (int half = 0; half < 2; ++half) {
                double* to = partial + half * padded;
                const double* from = to + b * 2 * padded;
                for (int64_t i = begin; i < end; ++i) to[i] += from[i];
            }
        for (int64_t i = begin; i < end; ++i) {
            write_scalar(args->dweight, i, partial[i], args->accumulate != 0);
            write_scalar(args->dbias, i, partial[padded + i], args->accumulate != 0);
        }
    });
    return DF_OK;
}

}  // namespace

int residual_layernorm_forward(df_queue* queue, const df_layernorm_args* args, df_error* error) {
    return dispatch(args->x->dtype, [&](auto type) { return forward<typename decltype(type)::type>(queue, args, error); });
}

int residual_layernorm_backward(df_queue* queue, const df_layernorm_args* args, df_error* error) {
    return dispatch(args->dx->dtype, [&](auto type) { return backward<typename decltype(type)::type>(queue, args, error); });
}

}  // namespace dualform::cpu::DF_ISA
