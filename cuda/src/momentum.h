// The momentum term in chunks of kTile positions: m_p = eta^r c + sum_{start <= s < p} eta^(p-s) v_s for position p = start + r, where the
// carry c is m at the chunk's first position. The carries come from two small kernels, linear in the number of keys; the sum inside
// a chunk is a product with the lower triangle eta^(r-j), done by the attention kernels.
#pragma once

#include "queue.h"
#include "tile.h"

namespace dualform::cuda {

/// Where the chunks of positions lie. Position p is key p, and query p - offset. Chunk k covers positions
/// [base + 64 k, base + 64 (k + 1)), cut at S; query tile i is chunk prefix + i.
struct MomentumChunks {
    int64_t queries = 0, keys = 0; /* T, S */
    int64_t offset = 0;            /* S - T */
    int64_t prefix = 0;            /* chunks before the first query; 0 when a carried state replaces them */
    int64_t base = 0, count = 0;
    int batch = 0, heads = 0, head_size = 0;

    MomentumChunks() = default;
    MomentumChunks(const df_attention_args* args);
    __host__ __device__ int64_t start(int64_t chunk) const { return base + chunk * kTile; }
    __host__ __device__ int64_t end(int64_t chunk) const { return smaller(start(chunk) + kTile, keys); }
    /// Carries are (B, NH, count, HS).
    __host__ __device__ int64_t carry(int64_t b, int64_t head,
                                      int64_t chunk) const { return ((b * heads + head) * count + chunk) * head_size; }
    int64_t carry_bytes() const { return batch * heads * count * head_size * static_cast<int64_t>(sizeof(double)); }
};

/// carries[chunk] = m at the chunk's first position; state_out, when present, m at position S. Heads with eta = 0 get zeros.
int momentum_carries(const Call& call, const df_attention_args* args, const MomentumChunks& chunks, double* carries);

/// Key tiles of kTile positions from 0: reverse_carries[tile] = lambda at the first position after the tile, where
/// lambda_p = dout_p + eta lambda_{p+1}. (B, NH, ceil(S / 64), HS).
int momentum_reverse_carries(const Call& call, const df_attention_args* args, const MomentumChunks& chunks, double* reverse_carries);

/// deta (+)= sum_{b,p} dout_p . dm_p/deta, by carrying the tangent n_p = dm_p/deta beside m: n_p = eta n_{p-1} + m_{p-1} + v_{p-1}. Equal
/// to
/// sum_p lambda_p . (m_{p-1} + v_{p-1}), and needs no reverse pass.
int momentum_eta_gradient(const Call& call, const df_attention_args* args, const MomentumChunks& chunks);

/// out[head] (+)= sum of partials[head][0..n), in a fixed order, in double.
int sum_per_head(const Call& call, Floats out, int heads, int64_t n, const double* partials, bool accumulate);

}  // namespace dualform::cuda
