// Which tiles of queries and keys a block of the Hopper attention kernels works on, and in which order. Plain arithmetic, the same on the
// host, where tests/native/hopper/schedule.cpp counts every tile and every pair of query and key.
#pragma once

#include "views.h"

namespace dualform::cuda {

constexpr int kSliceRows = 64; /* query rows of a warpgroup: what one wgmma computes */

/// Queries in slices of kSliceRows, a block taking `slices` neighbouring ones; keys in tiles of `tile_keys`. When causal, query t sees
/// keys up to t + S - T. Key tiles start where the positions of query slices start (so tile 0 may begin before key 0), whence the
/// diagonal of a slice lies in one tile: tile_keys is then a multiple of kSliceRows.
struct AttentionTiles {
    int queries = 0, keys = 0; /* T, S */
    int units = 0;             /* pairs of batch and query head, in this order */
    int together = 1;          /* units worked on at the same time, so that their keys and values stay in L2 */
    int slices = 1, tile_keys = 1;
    bool causal = false;

    __host__ __device__ int offset() const { return keys - queries; }
    /// First key of tile 0: 0, or when causal the largest position <= 0 that is congruent to a query block's.
    __host__ __device__ int base() const {
        if (!causal) return 0;
        const int rest = offset() % tile_keys;
        return rest > 0 ? rest - tile_keys : rest;
    }
    __host__ __device__ int tile_start(int tile) const { return base() + tile * tile_keys; }
    /// Keys below this are seen by query t; 0 for a row outside of the tensor.
    __host__ __device__ int limit(int t, int length) const {
        if (t >= queries) return 0;
        return causal ? larger(smaller(t + offset() + 1, length), 0) : length;
    }
    /// Key tiles that the slice of queries from t0 on needs, from tile 0 on.
    __host__ __device__ int slice_tiles(int t0, int length) const {
        const int end = t0 >= queries ? 0 : limit(smaller(t0 + kSliceRows, queries) - 1, length);
        return end == 0 ? 0 : (end - base() + tile_keys - 1) / tile_keys;
    }
    /// Whether the 64 positions of the slice from t0 on lie in this tile, the last one that it needs (then all of them do). When causal.
    __host__ __device__ bool on_diagonal(int t0, int tile) const {
        const int first = diagonal_column(t0, tile);
        return first >= 0 && first < tile_keys;
    }
    /// Column in the tile of the slice's first position, a multiple of kSliceRows.
    __host__ __device__ int diagonal_column(int t0, int tile) const { return t0 + offset() - tile_start(tile); }
    __host__ __device__ int block_rows() const { return slices * kSliceRows; }
    /// Query blocks of a unit, and of all.
    __host__ __device__ int query_blocks() const { return (queries + block_rows() - 1) / block_rows(); }
    __host__ __device__ int count() const { return units * query_blocks(); }

    struct Place {
        int unit, t0; /* first query */
    };
    /// The block of rank `rank`, 0 <= rank < count(): the longest first, unit by unit in groups of `together`.
    __host__ __device__ Place place(int rank) const {
        const int whole = together * query_blocks(); /* at most count() */
        const int first = rank / whole * together, width = smaller(together, units - first);
        const int in_group = rank % whole, block = in_group / width;
        return {first + in_group % width, (causal ? query_blocks() - 1 - block : block) * block_rows()};
    }
};

/// The rank that `worker`, one of `workers`, takes of the ranks from first_rank on, which is a multiple of `workers`: there and back
/// again, so that nobody always gets the longer ones. May be beyond the last; then this worker is done.
__host__ __device__ inline int turn_rank(int first_rank, int worker, int workers) {
    return first_rank + (first_rank / workers % 2 == 0 ? worker : workers - 1 - worker);
}

}  // namespace dualform::cuda
