// What every attention kernel is given: where the tensors lie, what a query sees.
#pragma once

#include "momentum.h"
#include "views.h"

namespace dualform::cuda {

/// A (B, rows, heads, HS) tensor.
struct Heads {
    Floats data;
    int64_t batch = 0, row = 0, head = 0; /* strides */
    __host__ __device__ Rows rows(int64_t b, int64_t h, int64_t begin, int64_t end) const {
        Rows r;
        r.data = data;
        r.base = b * batch + h * head;
        r.stride = row;
        r.begin = begin;
        r.end = end;
        return r;
    }
};

struct AttentionProblem {
    Heads out, attn, dq, dk, dv, dout, q, k, v;
    float* lse;
    int64_t lse_batch, lse_head;
    const int32_t* lengths;
    int64_t lengths_stride;
    Floats eta; /* absent: plain attention */
    const double* carries;
    const double* reverse_carries;
    float* delta; /* (B, NH, T) */
    MomentumChunks chunks;
    int64_t queries, keys; /* T, S */
    int query_heads, key_heads, head_size;
    float scale;
    bool causal;

    __host__ __device__ int64_t length(int64_t b) const {
        return lengths == nullptr ? keys : smaller<int64_t>(larger<int64_t>(lengths[b * lengths_stride], 0), keys);
    }
    /// Keys below this are seen by query t; 0 for a row outside the tensor.
    __host__ __device__ int64_t limit(int64_t t, int64_t length) const {
        if (t >= queries) return 0;
        return causal ? larger<int64_t>(smaller(t + keys - queries + 1, length), 0) : length;
    }
};

/// Whether the kernels of attention_mma.cu and attention_mma_backward.cu serve this: chosen by name, bfloat16, or float32 in a precision
/// that tensor cores have, and then head sizes up to 128.
bool attention_mma_serves(const AttentionProblem& p);
/// The kernels after momentum_carries, or after delta and momentum_reverse_carries.
int attention_forward_mma(const Call& call, const AttentionProblem& p, int64_t batch);
int attention_backward_mma(const Call& call, const AttentionProblem& p, int64_t batch);

}  // namespace dualform::cuda
