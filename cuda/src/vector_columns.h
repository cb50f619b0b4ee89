// Column sums whose terms a kernel has summed by blocks of rows already: the second half, in a fixed order.
#pragma once

#include "launch.h"
#include "numbers.h"

namespace dualform::cuda {

#if defined(__CUDACC__) || defined(DF_CUDA_EMULATION)

/// One block per 32 columns: column c of first and second is the sum of its partials, in double, 8 lanes in turn and then in order.
/// partials (chunks, 2, columns).
__global__ static void __launch_bounds__(256) vector_column_totals(Floats first, Floats second, const float* partials, int64_t columns,
                                                                   int64_t chunks, bool accumulate) {
    __shared__ double lanes[2][8][kWarp];
    const int x = threadIdx.x % kWarp, y = threadIdx.x / kWarp;
    const int64_t c = blockIdx.x * static_cast<int64_t>(kWarp) + x;
    double sums[2] = {0, 0};
    if (c < columns)
        for (int64_t chunk = y; chunk < chunks; chunk += 8) {
            if (first) sums[0] += partials[2 * chunk * columns + c];
            if (second) sums[1] += partials[(2 * chunk + 1) * columns + c];
        }
    lanes[0][y][x] = sums[0];
    lanes[1][y][x] = sums[1];
    __syncthreads();
    const Floats out = y == 0 ? first : second;
    if (y > 1 || c >= columns || !out) return;
    double total = accumulate ? out.load(c) : 0.0;
    for (int lane = 0; lane < 8; ++lane) total += lanes[y][lane][x];
    out.store(c, total);
}

#endif

}  // namespace dualform::cuda
