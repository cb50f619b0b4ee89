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

constexpr int kKeyRows = 128; /* keys of a block of the backward pass: 64 for each of the two warpgroups that multiply */

/// What a block of the backward pass does: the keys [s0, s0 + kKeyRows) and, for each query head of its group, the query tiles
/// [first_tile, query_tiles). P holds queries, keys, query_tiles, key_tiles, query_heads, key_heads, causal, lengths with their stride, and
/// turns, null where dq is summed in any order.
struct KeyTile {
    int b, key_head, tile, s0, length, offset, group, first_tile, count;

    template <class P>
    __host__ __device__ void find(const P& p, int block, int queries_of_tile) {
        const int place = block % p.key_tiles;
        // In turns the last tile comes first. Otherwise the first does, which under a causal mask has most to do.
        tile = p.turns != nullptr ? p.key_tiles - 1 - place : place;
        key_head = block / p.key_tiles % p.key_heads;
        b = block / p.key_tiles / p.key_heads;
        s0 = tile * kKeyRows;
        length = p.lengths == nullptr ? p.keys : smaller(larger(p.lengths[b * p.lengths_stride], 0), p.keys);
        offset = p.keys - p.queries;
        group = p.query_heads / p.key_heads;
        first_tile = s0 >= length ? p.query_tiles : p.causal ? larger(s0 - offset, 0) / queries_of_tile : 0;
        count = group * (p.query_tiles - first_tile);
    }
    __host__ __device__ int first_head() const { return key_head * group; }
    /// Key tiles after this one that add to the dq of query tile m.
    template <class P>
    __host__ __device__ int turn(const P& p, int m, int queries_of_tile) const {
        int last = (length - 1) / kKeyRows;
        if (p.causal) last = smaller(last, (smaller((m + 1) * queries_of_tile, p.queries) - 1 + offset) / kKeyRows);
        return last - tile;
    }
};

}  // namespace dualform::cuda
