// What the forward and backward kernels on tensor cores share: where tiles of keys lie, rows of a tensor, the choice of an instantiation.
#pragma once

#include "attention.h"
#include "mma_tile.h"

namespace dualform::cuda {

/// Key tiles begin at first + 64 k, so that with a causal mask the 64 queries from a multiple of 64 on stand at the positions of one key
/// tile: the diagonal is one tile, and it is the tile of momentum. -64 < first <= 0; keys below 0 are rows of 0 that nobody sees.
__host__ __device__ constexpr int first_key_tile(int64_t queries, int64_t keys, bool causal) {
    const int64_t past = (keys - queries) % kTile; /* of the first query's position, by 64 */
    return !causal || past == 0 ? 0 : static_cast<int>(past > 0 ? past - kTile : past);
}
static_assert(first_key_tile(64, 64, true) == 0 && first_key_tile(1, 64, true) == -1 && first_key_tile(65, 64, true) == -1 &&
                  first_key_tile(64, 65, true) == -63 && first_key_tile(7, 3, true) == -4 && first_key_tile(7, 3, false) == 0,
              "a tile begins at the first query's position");

/// Products summed on tensor cores, which cut sums towards zero, before they are added to a score.
constexpr int kMmaRun = 64;

/// Largest T and S: positions are int on the device.
constexpr int64_t kMmaLongest = 1 << 30;

#if defined(__CUDACC__) || defined(DF_CUDA_EMULATION)

/// Row r of (b, head) for r in [0, end).
template <Products P>
__device__ inline MmaRows mma_rows(const Heads& tensor, int64_t b, int64_t head, int64_t end, bool wide) {
    constexpr int kElement = P == Products::kBf16 ? 2 : 4;
    MmaRows rows;
    rows.data = static_cast<const unsigned char*>(tensor.data.data) + (b * tensor.batch + head * tensor.head) * kElement;
    rows.stride = tensor.row;
    rows.end = static_cast<int>(end);
    rows.wide = wide;
    return rows;
}

#endif

/// Whether every row starts at a multiple of `bytes`.
inline bool rows_aligned(const Heads& tensor, int64_t bytes) {
    return rows_aligned(tensor.data, {tensor.batch, tensor.row, tensor.head}, bytes);
}

}  // namespace dualform::cuda
