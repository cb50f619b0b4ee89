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

/// Whether a state is written with all its bits.
inline bool leaves_in_float32(const df_view* view) { return view != nullptr && view->dtype == DF_F32; }

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

/// How T is cut.
struct Segments {
    int64_t count, length; /* length a multiple of 64 when there are several */
};

/// `blocks` blocks would walk all of T each. With fewer than the 132 multiprocessors of the largest device this is written for, part of it
/// idles: then twice as many, but no segment below 512 tokens, where three launches cost more than they save.
constexpr Segments linear_attention_segments(int64_t tokens, int64_t blocks) {
    constexpr int64_t kMultiprocessors = 132, kLeast = 512;
    const int64_t wanted = smaller(ceil_div(2 * kMultiprocessors, larger<int64_t>(blocks, 1)), tokens / kLeast);
    if (blocks >= kMultiprocessors || wanted < 2) return {1, tokens};
    const int64_t length = ceil_div(ceil_div(tokens, wanted), 64) * 64;
    return {ceil_div(tokens, length), length};
}
static_assert(linear_attention_segments(8192, 132).count == 1 && linear_attention_segments(1023, 1).count == 1, "one pass");
static_assert(linear_attention_segments(1024, 1).count == 2 && linear_attention_segments(1025, 1).length == 576, "the last is the short one");
static_assert(linear_attention_segments(8192, 64).count == 5 && linear_attention_segments(8192, 64).length == 1664, "fills the device");

/// ddecay, from a forward sweep that carries the state's derivative beside it. Nothing to do without ddecay.
int linear_attention_decay_gradient(const Call& call, const df_linear_attention_args* args);

/// On tensor cores; *served stays false where these kernels do not take the dtype (choice.h), and then nothing has been queued.
int linear_attention_forward_mma(const Call& call, const df_linear_attention_args* args, bool* served);
/// dq, dk, dv and dstate_in.
int linear_attention_backward_mma(const Call& call, const df_linear_attention_args* args, bool* served);
/// For compute capability 9.0, bfloat16, head sizes 64 and 128; the rest is left to the others.
int linear_attention_forward_hopper(const Call& call, const df_linear_attention_args* args, bool* served);
int linear_attention_backward_hopper(const Call& call, const df_linear_attention_args* args, bool* served);
/// One token, the state read and written once; *served stays false for more tokens or a layout that 16-byte accesses cannot follow.
int linear_attention_forward_step(const Call& call, const df_linear_attention_args* args, bool* served);

}  // namespace dualform::cuda
