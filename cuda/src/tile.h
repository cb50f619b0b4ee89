// Products of tiles in shared memory: the two inner loops of attention, of the dual form and of matmul.
//
// 256 threads work as 16 x 16: thread (ty, tx) owns rows ty + 16 i and columns tx + 16 j of a tile, so that a warp reads shared memory
// either at neighbouring columns (no bank conflict) or at one address per row (broadcast).
#pragma once

#include "views.h"

namespace dualform::cuda {

constexpr int kTile = 64;      /* rows of a query or key tile */
constexpr int kDepth = 32;     /* columns staged at a time for a product over the head size */
constexpr int kRun = 8, kGroup = 4; /* products summed before they join the stage's sum, and that the total: short chains keep the rounding error small */
constexpr int kSide = 16;      /* threads along each side of a block */
constexpr int kTileThreads = kSide * kSide; /* launch bounds (256, 1) leave a thread all 255 registers: no kernel here may spill */
constexpr int kPerThread = kTile / kSide;                              /* rows, and columns of scores, a thread owns */
constexpr int kStagePitch = kDepth + 1;                                /* odd: no bank conflict down a column */
constexpr int kWeightPitch = kTile + 1;
constexpr int kStageFloats = 2 * kTile * kStagePitch;                  /* holds both operands, or 4096 values */
constexpr int kWeightFloats = kTile * kWeightPitch;
static_assert(kStageFloats >= 4096, "values share the operands' stage");

/// A matrix with contiguous rows: row r is at data[base + r stride]; rows outside [begin, end) read as 0 and are never touched, so no
/// bit of a padded row can reach a result.
struct Rows {
    Floats data;
    int64_t base = 0, stride = 0, begin = 0, end = 0;
};

#if defined(__CUDACC__) || defined(DF_CUDA_EMULATION)

/// shared[r][c] = rows[row0 + r][column0 + c], zero outside; consecutive threads read consecutive columns.
template <int R, int C>
__device__ inline void stage(float* shared, int pitch, const Rows& rows, int64_t row0, int column0, int width) {
    for (int e = threadIdx.x; e < R * C; e += kTileThreads) {
        const int r = e / C, c = e % C;
        const int64_t row = row0 + r;
        const bool inside = row >= rows.begin && row < rows.end && column0 + c < width;
        shared[r * pitch + c] = inside ? rows.data.load(rows.base + row * rows.stride + column0 + c) : 0.0f;
    }
}

/// product[i][j] = sum_d a[a0 + ty + 16 i][d] b[b0 + tx + 16 j][d]. `shared` holds kStageFloats. Starts with a barrier.
__device__ inline void product_transposed(float (&product)[kPerThread][kPerThread], const Rows& a, int64_t a0, const Rows& b, int64_t b0,
                                          int width,
                                      float* shared) {
    float* const a_stage = shared;
    float* const b_stage = shared + kTile * kStagePitch;
    const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
    for (int i = 0; i < kPerThread; ++i)
        for (int j = 0; j < kPerThread; ++j) product[i][j] = 0;
    for (int column0 = 0; column0 < width; column0 += kDepth) {
        __syncthreads();
        stage<kTile, kDepth>(a_stage, kStagePitch, a, a0, column0, width);
        stage<kTile, kDepth>(b_stage, kStagePitch, b, b0, column0, width);
        __syncthreads();
        const int depth = smaller(kDepth, width - column0);
        float staged[kPerThread][kPerThread] = {};
        for (int d0 = 0; d0 < depth; d0 += kRun) { /* beyond the width both operands are 0 */
            float partial[kPerThread][kPerThread] = {};
#pragma unroll 2 /* 4 makes attention_backward_keys spill */
            for (int d = d0; d < d0 + kRun; ++d) {
                float x[kPerThread], y[kPerThread];
#pragma unroll
                for (int i = 0; i < kPerThread; ++i) x[i] = a_stage[(ty + kSide * i) * kStagePitch + d];
#pragma unroll
                for (int j = 0; j < kPerThread; ++j) y[j] = b_stage[(tx + kSide * j) * kStagePitch + d];
#pragma unroll
                for (int i = 0; i < kPerThread; ++i)
#pragma unroll
                    for (int j = 0; j < kPerThread; ++j) partial[i][j] = fmaf(x[i], y[j], partial[i][j]);
            }
#pragma unroll
            for (int i = 0; i < kPerThread; ++i)
#pragma unroll
                for (int j = 0; j < kPerThread; ++j) staged[i][j] += partial[i][j];
        }
#pragma unroll
        for (int i = 0; i < kPerThread; ++i)
#pragma unroll
            for (int j = 0; j < kPerThread; ++j) product[i][j] += staged[i][j];
    }
}

/// sum[i][c] += sum over j in [first[i], last[i]) of weights[ty + 16 i][j] values[v0 + j][column0 + tx + 16 c]. Entries outside a row's
/// range are passed over, not multiplied by 0. `shared` holds kStageFloats; `weights` [64][kWeightPitch] may have been written just before
/// the call: it starts with a barrier. Call product_transposed or a barrier before writing weights again.
template <int Columns>
__device__ inline void product_values(float (&sum)[kPerThread][Columns], const float* weights, const int (&first)[kPerThread],
                                      const int (&last)[kPerThread], const Rows& values, int64_t v0, int column0, int width,
                                      float* shared) {
    constexpr int kWidth = kSide * Columns, kStaged = 4096 / kWidth;
    const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
    const int64_t left = values.end - v0;
    const int rows = left < kTile ? static_cast<int>(left) : kTile;
    for (int j0 = 0; j0 < rows; j0 += kStaged) {
        __syncthreads();
        stage<kStaged, kWidth>(shared, kWidth, values, v0 + j0, column0, width);
        __syncthreads();
        const int staged = smaller(kStaged, rows - j0);
        for (int j = 0; j < staged; j += kGroup) { /* rows staged beyond the values' end are 0 */
            float w[kPerThread][kGroup];
            bool whole = true;
#pragma unroll
            for (int i = 0; i < kPerThread; ++i) {
                whole = whole && j0 + j >= first[i] && j0 + j + kGroup <= last[i];
#pragma unroll
                for (int u = 0; u < kGroup; ++u) w[i][u] = weights[(ty + kSide * i) * kWeightPitch + j0 + j + u];
            }
#pragma unroll
            for (int c = 0; c < Columns; ++c) {
                float v[kGroup];
#pragma unroll
                for (int u = 0; u < kGroup; ++u) v[u] = shared[(j + u) * kWidth + tx + kSide * c];
#pragma unroll
                for (int i = 0; i < kPerThread; ++i) {
                    float added = 0;
#pragma unroll
                    for (int u = 0; u < kGroup; ++u)
                        if (whole || (j0 + j + u >= first[i] && j0 + j + u < last[i])) added = fmaf(w[i][u], v[u], added);
                    sum[i][c] += added;
                }
            }
        }
    }
}

#endif

}  // namespace dualform::cuda
