// Column sums over many rows, in a fixed order: the gradients of biases and of LayerNorm's weights.
//
// A functor gives the terms of one element; rows are cut into chunks, a block of 32 columns x 8 lanes sums a chunk in double, and a
// second kernel adds the chunks of a column in order.
#pragma once

#include "launch.h"
#include "views.h"

namespace dualform::cuda {

/// The two terms of row n, column c.
struct Terms {
    double first, second;
};

/// The functor of a plain sum over rows.
struct ColumnOf {
    Floats data;
    Walk<1> rows;
    __device__ Terms operator()(int64_t n, int64_t c) const {
        int64_t offset[1];
        rows.offsets(n, offset);
        return {data.load(offset[0] + c), 0};
    }
};

constexpr int kColumnLanes = 8;

#if defined(__CUDACC__) || defined(DF_CUDA_EMULATION)

/// One block per (32 columns, chunk of rows): thread (x, y) sums column x over every eighth row; lanes are added in order.
template <class Functor>
__global__ void column_partials(double* partials, int64_t rows, int64_t columns, int64_t rows_per_chunk, int64_t column_blocks,
                                Functor terms) {
    __shared__ double lanes[2][kColumnLanes][kWarp];
    const int x = threadIdx.x % kWarp, y = threadIdx.x / kWarp;
    const int64_t c = blockIdx.x % column_blocks * kWarp + x, chunk = blockIdx.x / column_blocks;
    const int64_t end = smaller(rows, (chunk + 1) * rows_per_chunk);
    double first = 0, second = 0;
    if (c < columns)
        for (int64_t n = chunk * rows_per_chunk + y; n < end; n += kColumnLanes) {
            const Terms t = terms(n, c);
            first += t.first;
            second += t.second;
        }
    lanes[0][y][x] = first;
    lanes[1][y][x] = second;
    __syncthreads();
    if (y < 2 && c < columns) {
        double sum = 0;
        for (int lane = 0; lane < kColumnLanes; ++lane) sum += lanes[y][lane][x];
        partials[(chunk * 2 + y) * columns + c] = sum;
    }
}

/// One thread per column adds its chunks in order.
__global__ static void column_totals(Floats first, Floats second, const double* partials, int64_t columns, int64_t chunks,
                                     bool accumulate) {
    for (int64_t c = first_element(); c < columns; c += element_stride())
        for (int which = 0; which < 2; ++which) {
            const Floats out = which == 0 ? first : second;
            if (!out) continue;
            double sum = accumulate ? out.load(c) : 0.0;
            for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partials[(chunk * 2 + which) * columns + c];
            out.store(c, sum);
        }
}

/// first[c] (+)= sum over rows of terms(n, c).first, second[c] likewise; either may be absent.
template <class Functor>
int sum_columns(const Call& call, int64_t rows, int64_t columns, Floats first, Floats second, bool accumulate, const Functor& terms) {
    // 64 rows keep a block busy; 256 chunks are enough blocks for any device, and bound the scratch.
    const int64_t rows_per_chunk = larger<int64_t>(64, ceil_div(rows, 256)), chunks = ceil_div(rows, rows_per_chunk);
    Scratch partials(call, 2 * chunks * columns * static_cast<int64_t>(sizeof(double)));
    if (!partials) return partials.failure();
    const int64_t column_blocks = ceil_div(columns, kWarp);
    if (const int status = launch(call, "column_partials", column_blocks * chunks, kWarp * kColumnLanes, 0, column_partials<Functor>,
                                  partials.as<double>(), rows, columns, rows_per_chunk, column_blocks, terms))
        return status;
    return launch(call, "column_totals", element_blocks(columns, 128), 128, 0, column_totals, first, second, partials.as<double>(),
                  columns, chunks,
                  accumulate);
}

#endif

}  // namespace dualform::cuda
