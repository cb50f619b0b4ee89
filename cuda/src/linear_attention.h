// What the kernels of causal linear attention share: how a sweep reads tokens and states.
//
// The sweep over token triples (x_i, y_i, z_i), with the carried state R as the first token of a chunk sees it:
//   out_i = sum_{j<=i} decay^(i-j) (x_i . y_j) z_j + decay^i R x_i,      R <- decay^n R + sum_j decay^(n-j) z_j (x) y_j
//   forward x=q y=k z=v, R starts as decay S_0.        dq: x=dout y=v z=k, R starts as decay S_0^T.
//   dk (from the last token back): x=v y=dout z=q.     dv (likewise): x=k y=q z=dout.     R starts as dS after the last token.
#pragma once

#include "queue.h"
#include "tile.h"

namespace dualform::cuda {

/// A (B, T, NH, HS) tensor read in sweep order: token i of the sweep is row i, or T - 1 - i when reversed.
struct Tokens {
    Floats data;
    int64_t batch = 0, row = 0, head = 0, first = 0;
    __host__ __device__ Rows rows(int64_t b, int64_t h, int64_t tokens) const {
        Rows r;
        r.data = data;
        r.base = b * batch + h * head + first;
        r.stride = row;
        r.end = tokens;
        return r;
    }
};

inline Tokens tokens(const df_view* view, bool reversed) {
    Tokens t;
    if (view == nullptr) return t;
    t.data = floats(view);
    t.batch = view->stride[0];
    t.row = reversed ? -view->stride[1] : view->stride[1];
    t.head = view->stride[2];
    t.first = reversed ? (view->shape[1] - 1) * view->stride[1] : 0;
    return t;
}

/// A (B, NH, HS, HS) state, optionally read with value and key index exchanged.
struct State {
    Floats data;
    int64_t batch = 0, head = 0, row = 0, column = 0;
    __host__ __device__ int64_t at(int64_t b, int64_t h, int a, int c) const { return b * batch + h * head + a * row + c * column; }
};

inline State state(const df_view* view, bool transposed) {
    State s;
    if (view == nullptr) return s;
    s.data = floats(view);
    s.batch = view->stride[0];
    s.head = view->stride[1];
    s.row = transposed ? 1 : view->stride[2];
    s.column = transposed ? view->stride[2] : 1;
    return s;
}

/// ddecay, from a forward sweep that carries the state's derivative beside it. Nothing to do without ddecay.
int linear_attention_decay_gradient(const Call& call, const df_linear_attention_args* args);

/// On tensor cores; *served stays false where these kernels do not take the dtype (choice.h), and then nothing has been queued.
int linear_attention_forward_mma(const Call& call, const df_linear_attention_args* args, bool* served);
/// dq, dk, dv and dstate_in.
int linear_attention_backward_mma(const Call& call, const df_linear_attention_args* args, bool* served);
/// One token, the state read and written once; *served stays false for more tokens or a layout that 16-byte accesses cannot follow.
int linear_attention_forward_step(const Call& call, const df_linear_attention_args* args, bool* served);

}  // namespace dualform::cuda
