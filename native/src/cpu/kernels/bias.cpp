// bias_backward: column sums. A task is a block of rows of some columns, whose double sums stay in the L1 cache; eight rows are added in
// registers before they join them, in double too.
#include "cpu/elementwise.h"
#include "cpu/kernels.h"

namespace dualform::cpu::DF_ISA {

namespace {

constexpr int64_t kFewestRows = 128, kMostBlocks = 32;  // the second bounds the scratch for partial sums
constexpr int kTogether = 8;

/// sums[0 .. n) += the columns of N rows, added in pairs. n is rounded up to a multiple of kLanes<A> in sums.
template <int N, class T, class A>
inline void add_rows(double* sums, const T* const* row, int64_t n) {
    for_vectors<A>(n, [&](int64_t i, int lanes) {
        Vec<A> x[N];
        for (int r = 0; r < N; ++r) x[r] = load_lanes<A>(row[r] + i, lanes);
        for (int h = 0; h < kDoubles<A>; ++h) {
            Vec<double> sum[N];
            for (int r = 0; r < N; ++r) sum[r] = widen(x[r], h);
            for (int half = N / 2; half > 0; half /= 2)
                for (int r = 0; r < half; ++r) sum[r] += sum[r + half];
            double* to = sums + i + h * kLanes<double>;
            store(to, load(to) + sum[0]);
        }
    });
}

template <class T>
int column_sums(df_queue* queue, const df_bias_args* args, df_error* error) {
    using A = Accumulate<T>;
    const df_view* dout = args->dout;
    const int64_t C = dout->shape[dout->rank - 1], N = numel(dout) / C;
    const int64_t columns = ceil_div(C, kTile), block = larger(kFewestRows, ceil_div(N, kMostBlocks)), blocks = ceil_div(N, block);
    const Rows<const T> rows(dout);
    const auto sum_block = [&](double* sums, int64_t b, int64_t first, int64_t n) {
        for (int64_t i = 0; i < round_up(n, kLanes<A>); ++i) sums[i] = 0;
        int64_t row = b * block;
        const int64_t end = smaller(row + block, N);
        const T* of[kTogether];
        for (; row + kTogether <= end; row += kTogether) {
            for (int r = 0; r < kTogether; ++r) of[r] = rows[row + r] + first;
            add_rows<kTogether, T, A>(sums, of, n);
        }
        for (; row < end; ++row) {
            of[0] = rows[row] + first;
            add_rows<1, T, A>(sums, of, n);
        }
    };
    const int64_t padded = columns * kTile;
    const size_t bytes = blocks > 1 ? size_t(blocks * padded) * sizeof(double) : 0;
    Scratch scratch(queue, bytes);
    if (!scratch) return out_of_memory(error, "bias_backward", bytes);
    double* partial = scratch.as<double>();
    for_pieces(queue, blocks * columns, N * C, [&](int64_t piece, int) {
        const int64_t b = piece / columns, first = piece % columns * kTile, n = smaller<int64_t>(kTile, C - first);
        if (blocks > 1) return sum_block(partial + b * padded + first, b, first, n);
        alignas(64) double sums[kTile];
        sum_block(sums, 0, first, n);
        for (int64_t i = 0; i < n; ++i) write_scalar(args->dbias, first + i, sums[i], args->accumulate != 0);
    });
    if (blocks == 1) return DF_OK;
    for_pieces(queue, columns, blocks * C, [&](int64_t piece, int) {
        const int64_t first = piece * kTile, end = smaller(first + kTile, C);
        for (int64_t b = 1; b < blocks; ++b)
            for (int64_t i = first; i < end; ++i) partial[i] += partial[b * padded + i];
        for (int64_t i = first; i < end; ++i) write_scalar(args->dbias, i, partial[i], args->accumulate != 0);
    });
    return DF_OK;
}

}  // namespace

int bias_backward(df_queue* queue, const df_bias_args* args, df_error* error) {
    return dispatch(args->dout->dtype, [&](auto type) { return column_sums<typename decltype(type)::type>(queue, args, error); });
}

}  // namespace dualform::cpu::DF_ISA
