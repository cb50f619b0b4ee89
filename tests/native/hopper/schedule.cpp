// The schedule of the Hopper attention kernels, counted on the host: every block of queries is somebody's exactly once, the longest first,
// and every pair of query and key that must meet does, in a tile that is loaded. Backward: every tile of keys is one block's, and where dq
// is summed in turns, each turn comes once and waits for blocks of lower numbers only.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

#ifndef DF_CUDA_EMULATION
#error "compiled with the emulation's definitions of __host__ and __device__"
#endif
#include "attention_tiles.h"

namespace {

using dualform::cuda::AttentionTiles;
using dualform::cuda::kSliceRows;

int failures = 0;

void require(bool ok, const char* what, const AttentionTiles& t, int length) {
    if (ok) return;
    if (++failures <= 20)
        std::printf("FAILED: %s: T=%d S=%d length=%d causal=%d slices=%d tile=%d units=%d together=%d\n", what, t.queries, t.keys, length,
                    t.causal, t.slices, t.tile_keys, t.units, t.together);
}

void ranks(const AttentionTiles& t) {
    std::vector<int> seen(static_cast<size_t>(t.count()));
    for (const int workers : {1, 2, 3, 7, 132}) {
        std::fill(seen.begin(), seen.end(), 0);
        for (int worker = 0; worker < workers; ++worker)
            for (int first = 0;; first += workers) { /* as the kernel walks */
                const int rank = dualform::cuda::turn_rank(first, worker, workers);
                if (rank >= t.count()) {
                    /* and never a rank further on */
                    for (int later = first; later < t.count() + 2 * workers; later += workers)
                        require(dualform::cuda::turn_rank(later, worker, workers) >= t.count(), "a worker stops too early", t, 0);
                    break;
                }
                const AttentionTiles::Place place = t.place(rank);
                const bool inside = place.unit >= 0 && place.unit < t.units && place.t0 >= 0 && place.t0 < t.queries &&
                                    place.t0 % t.block_rows() == 0;
                require(inside, "a place outside", t, 0);
                if (inside) ++seen[static_cast<size_t>(place.unit * t.query_blocks() + place.t0 / t.block_rows())];
            }
        for (const int n : seen) require(n == 1, "a block that is not taken once", t, 0);
    }
    for (int rank = 1; rank < t.count(); ++rank) { /* inside a group of units no block is longer than the one before */
        const AttentionTiles::Place before = t.place(rank - 1), now = t.place(rank);
        if (before.unit / t.together == now.unit / t.together && t.causal)
            require(now.t0 <= before.t0, "a longer block comes later", t, 0);
    }
}

void pairs(const AttentionTiles& t, int length) {
    require(t.base() <= 0 && t.base() > -t.tile_keys, "base", t, length);
    for (int t0 = 0; t0 < t.query_blocks() * t.block_rows(); t0 += kSliceRows) {
        const int tiles = t.slice_tiles(t0, length);
        int longest = 0;
        for (int r = 0; r < kSliceRows; ++r) {
            const int q = t0 + r;
            int visible = 0; /* by the op's definition */
            for (int s = 0; s < t.keys; ++s) visible += q < t.queries && s < length && (!t.causal || s <= q + t.keys - t.queries);
            require(t.limit(q, length) == visible, "limit", t, length);
            longest = visible > longest ? visible : longest;
            /* tiles between the first and the last are unmasked in the kernel: whole, for every row that exists */
            if (q < t.queries)
                for (int tile = 1; tile + 1 < tiles; ++tile)
                    require(t.tile_start(tile) >= 0 && t.tile_start(tile) + t.tile_keys <= visible, "a tile that needs a mask", t, length);
        }
        require(tiles == 0 ? longest == 0 : t.tile_start(tiles) >= longest && t.tile_start(tiles - 1) < longest, "tiles", t, length);
        if (!t.causal || t0 >= t.queries) continue;
        /* Momentum: the keys at the slice's positions below the length are in its last tile, all of them, or there are none. */
        const int position = t0 + t.offset();
        if (tiles > 0 && t.on_diagonal(t0, tiles - 1)) {
            const int column = t.diagonal_column(t0, tiles - 1);
            require(column % kSliceRows == 0 && column + kSliceRows <= t.tile_keys && t.tile_start(tiles - 1) + column == position,
                    "the diagonal", t, length);
        } else {
            /* keys that a row's momentum takes from its own slice: position <= s < p, 0 <= s < length */
            const int last = position + (t.queries - t0 < kSliceRows ? t.queries - t0 : kSliceRows) - 1;
            const int from = position > 0 ? position : 0, to = last < length ? last : length;
            require(from >= to, "a diagonal that is left out", t, length);
        }
    }
}

/// What KeyTile asks of the kernel's arguments.
struct Backward {
    int queries, keys, query_tiles, key_tiles, query_heads, key_heads;
    bool causal;
    const int32_t* lengths;
    int64_t lengths_stride;
    const int* turns;
};

void require(bool ok, const char* what, const Backward& p, int queries_of_tile) {
    if (ok) return;
    if (++failures <= 20)
        std::printf("FAILED: backward: %s: T=%d S=%d causal=%d heads=%d,%d tile=%d length=%d turns=%d\n", what, p.queries, p.keys, p.causal,
                    p.query_heads, p.key_heads, queries_of_tile, p.lengths != nullptr ? p.lengths[0] : -1, p.turns != nullptr);
}

void key_tiles(const Backward& p, int batch, int queries_of_tile) {
    using dualform::cuda::kKeyRows;
    std::vector<int> owners(static_cast<size_t>(batch * p.key_heads * p.key_tiles));
    std::vector<int> turns(static_cast<size_t>(batch * p.query_heads * p.query_tiles)); /* as the kernel counts them */
    for (int block = 0; block < batch * p.key_heads * p.key_tiles; ++block) {
        dualform::cuda::KeyTile work;
        work.find(p, block, queries_of_tile);
        const bool inside = work.b >= 0 && work.b < batch && work.key_head >= 0 && work.key_head < p.key_heads && work.tile >= 0 &&
                            work.tile < p.key_tiles && work.s0 == work.tile * kKeyRows && work.first_tile >= 0 &&
                            work.count == work.group * (p.query_tiles - work.first_tile);
        require(inside, "a block outside", p, queries_of_tile);
        if (!inside) continue;
        ++owners[static_cast<size_t>((work.b * p.key_heads + work.key_head) * p.key_tiles + work.tile)];
        for (int t = 0; t < p.queries; ++t) /* by the op's definition: the first key of the tile is the first that is seen */
            if (work.s0 < work.length && (!p.causal || work.s0 <= t + p.keys - p.queries))
                require(t / queries_of_tile >= work.first_tile, "a pair that does not meet", p, queries_of_tile);
        if (p.turns == nullptr) continue;
        for (int head = work.first_head(); head < work.first_head() + work.group; ++head)
            for (int m = work.first_tile; m < p.query_tiles; ++m) {
                int& now = turns[static_cast<size_t>((work.b * p.query_heads + head) * p.query_tiles + m)];
                require(work.turn(p, m, queries_of_tile) == now, "a turn that has not come", p, queries_of_tile);
                ++now;
            }
    }
    for (const int n : owners) require(n == 1, "a tile that is not one block's", p, queries_of_tile);
}

void backward(int T, int S, bool causal) {
    const int turn = 0;
    for (const int queries_of_tile : {64, 128})
        for (const int group : {1, 3})
            for (const int* turns : {static_cast<const int*>(nullptr), &turn})
                for (const int length : {-1, 0, 1, 128, S - 1, S}) {
                    const int32_t lengths[] = {length, S};
                    Backward p = {T, S, (T + queries_of_tile - 1) / queries_of_tile, (S + dualform::cuda::kKeyRows - 1) / dualform::cuda::kKeyRows,
                                  2 * group, 2, causal, length < 0 ? nullptr : lengths, 1, turns};
                    key_tiles(p, 2, queries_of_tile);
                }
}

}  // namespace

int main() {
    for (const bool causal : {false, true})
        for (const int slices : {2, 3})
            for (const int T : {1, 63, 64, 65, 128, 191, 200, 385})
                for (const int S : {1, 31, 64, 65, 127, 129, 200, 384, 450}) {
                    if (slices == 2) backward(T, S, causal);
                    AttentionTiles t;
                    t.queries = T;
                    t.keys = S;
                    t.causal = causal;
                    t.slices = slices;
                    t.tile_keys = 128;
                    for (const int units : {1, 5, 12})
                        for (const int together : {1, 4, 12}) {
                            t.units = units;
                            t.together = together < units ? together : units;
                            ranks(t);
                        }
                    for (const int length : {0, 1, 64, 100, S - 1, S})
                        if (length >= 0 && length <= S) pairs(t, length);
                }
    if (failures == 0) std::printf("schedule: every block once, every pair met\n");
    return failures != 0;
}
