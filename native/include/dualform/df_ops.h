/* dualform ops: each takes tensors that carry their shapes, destination first; outputs, saved values, inputs, parameters.
 *
 * Legend: B batch, T queries (time), S keys, NH query heads, NKV key/value heads, HS head size, C channels, V vocabulary, N rows.
 * float = F32, BF16 or F64; all floating tensors of one call share a dtype unless said otherwise. acc = the accumulation
 * dtype: F32 for F32 and BF16, F64 for F64. Sums are taken in acc or better. Outputs never overlap inputs unless said.
 * Nullable arguments are marked (optional). Gradients of activations assign; gradients of parameters add when accumulate != 0.
 * Every floating op is deterministic: same inputs, same bits, whatever the number of threads.
 */
#ifndef DUALFORM_DF_OPS_H
#define DUALFORM_DF_OPS_H

#include "dualform/df.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum df_form { DF_FORM_AUTO = 0, DF_FORM_PRIMAL = 1, DF_FORM_DUAL = 2 } df_form;
typedef enum df_gelu { DF_GELU_EXACT = 0, DF_GELU_TANH = 1 } df_gelu;
typedef enum df_unary {
    DF_UNARY_NEG = 0, DF_UNARY_EXP = 1, DF_UNARY_LOG = 2, DF_UNARY_SQRT = 3, DF_UNARY_RSQRT = 4, DF_UNARY_RECIPROCAL = 5,
    DF_UNARY_SQUARE = 6, DF_UNARY_ABS = 7, DF_UNARY_TANH = 8, DF_UNARY_SIGMOID = 9, DF_UNARY_RELU = 10, DF_UNARY_SIN = 11,
    DF_UNARY_COS = 12
} df_unary;
typedef enum df_binary {
    DF_BINARY_ADD = 0, DF_BINARY_SUB = 1, DF_BINARY_MUL = 2, DF_BINARY_DIV = 3, DF_BINARY_MAX = 4, DF_BINARY_MIN = 5
} df_binary;
typedef enum df_reduction { DF_REDUCE_SUM = 0, DF_REDUCE_MEAN = 1, DF_REDUCE_MAX = 2, DF_REDUCE_MIN = 3 } df_reduction;

/* ---- attention ---- */

/** Softmax attention.
 *    P[t,s] = softmax_s(scale q_t . k_s) over the keys s < lengths[b] with, when causal, s <= t + S - T;   out_t = sum_s P[t,s] v_s
 *    lse_t = log sum_s exp(scale q_t . k_s)
 *  A row with no key gives out = 0 exactly and lse = -inf. Query head h reads key head h / (NH / NKV).
 *  out (B,T,NH,HS)  lse (B,NH,T) acc, saved for backward  q (B,T,NH,HS)  k v (B,S,NKV,HS)  lengths (B) I32 (optional), 0..S.
 *  NH a multiple of NKV, HS 1..256. No T x S matrix is ever formed: extra memory grows with T and S, as q, k and v do. */
DF_API df_status df_attention_forward(df_tensor* out, df_tensor* lse, const df_tensor* q, const df_tensor* k, const df_tensor* v,
                                      const df_tensor* lengths, double scale, int causal);

/** Gradients of attention. With delta_t = dout_t . out_t and dP[t,s] = dout_t . v_s,  dS = P (dP - delta):
 *    dq_t = scale sum_s dS[t,s] k_s,   dk_s = scale sum_t dS[t,s] q_t,   dv_s = sum_t P[t,s] dout_t   (dk, dv summed over the head group)
 *  Assigns dq dk dv, shaped like q k v; keys that no query sees get 0 exactly. out and lse as saved by forward.
 *  P[t,s] is recomputed as exp(scale q_t . k_s - lse_t): where scores are so large that lse_t rounds to the largest of them (tied scores
 *  near the dtype's largest number, for instance), the P[t,s] of a row do not sum to 1. That is inherent in saving lse alone. */
DF_API df_status df_attention_backward(df_tensor* dq, df_tensor* dk, df_tensor* dv, const df_tensor* dout, const df_tensor* q,
                                       const df_tensor* k, const df_tensor* v, const df_tensor* out, const df_tensor* lse,
                                       const df_tensor* lengths, double scale, int causal);

/** Momentum attention (Dai et al. 2212.10559, MoAttn): causal attention plus, for the query at position p = t + S - T,
 *    m_p = sum_{s<p} eta^(p-s) v_s        recurrence m_0 = 0, m_p = eta (m_{p-1} + v_{p-1});     out_t = attn_t + m_p
 *  Keys s >= lengths[b] are neither attended nor summed. eta = 0 gives attention bit for bit (nothing is added, state_in either).
 *  Queries with p <= 0 have m = 0.
 *  out (B,T,NH,HS)  attn (B,T,NH,HS) (optional; the attention part, saved for backward)  lse (B,NH,T) acc  q k v lengths as
 *  in attention  eta (NH) acc dtype or the inputs' dtype, 0 <= eta < 1.
 *  Cached decoding, O(T) instead of O(S) for the added term: state_in (B,NH,HS) acc (optional) is m at the first query's
 *  position S - T; then only v_s with s >= S - T is summed. state_out (B,NH,HS) acc (optional) receives m_S, the
 *  state_in of the next call. state_in needs T <= S. */
DF_API df_status df_momentum_attention_forward(df_tensor* out, df_tensor* attn, df_tensor* lse, df_tensor* state_out,
                                               const df_tensor* q, const df_tensor* k, const df_tensor* v,
                                               const df_tensor* lengths, const df_tensor* eta, const df_tensor* state_in,
                                               double scale);

/** Gradients of momentum attention (without state_in). dq, dk as in attention with delta_t = dout_t . attn_t. With
 *  lambda_p = dout_p + eta lambda_{p+1} (0 beyond the last query):
 *    dv_s = attention's + sum_{p>s} eta^(p-s) dout_p (0 where s >= lengths[b]),       deta_h = sum_{b,p} lambda_p . (m_{p-1} + v_{p-1})   (well defined at eta = 0)
 *  deta (NH) (optional), dtype of eta; adds when accumulate_deta. attn and lse as saved by forward. */
DF_API df_status df_momentum_attention_backward(df_tensor* dq, df_tensor* dk, df_tensor* dv, df_tensor* deta, const df_tensor* dout,
                                                const df_tensor* q, const df_tensor* k, const df_tensor* v, const df_tensor* attn,
                                                const df_tensor* lse, const df_tensor* lengths, const df_tensor* eta, double scale,
                                                int accumulate_deta);

/* ---- the dual form ---- */

/** delta_w (O,I) acc (+)= sum_n e_n (x) xp_n = e^T xp.   e (N,O)  xp (N,I). Adds when accumulate. */
DF_API df_status df_delta_accumulate(df_tensor* delta_w, const df_tensor* e, const df_tensor* xp, int accumulate);

/** out = x (w0 + delta_w)^T, the sum formed in acc.   out (M,O)  x (M,I)  w0 (O,I) (optional)  delta_w (O,I) acc. */
DF_API df_status df_delta_apply(df_tensor* out, const df_tensor* x, const df_tensor* w0, const df_tensor* delta_w);

/** The dual form of a gradient step (science: 2212.10559, 1.1), accumulate and apply in one call:
 *    primal  out = x (w0 + e^T xp)^T          dual  out = x w0^T + (x xp^T) e         equal in exact arithmetic
 *  auto takes primal when delta_w is asked for or O I <= M (O + I), the cheaper by multiply-adds; no N x M matrix is formed.
 *  out (M,O)  delta_w (O,I) acc (optional)  w0 (O,I)  e (N,O)  xp (N,I)  x (M,I).
 *  P problems at once, a head each for instance: every tensor, w0 too, with a leading P. */
DF_API df_status df_dual_form_forward(df_tensor* out, df_tensor* delta_w, const df_tensor* w0, const df_tensor* e,
                                      const df_tensor* xp, const df_tensor* x, df_form form);

/** With G = dout^T x:  dw0 = G,  de = xp G^T,  dxp = e G,  dx = dout (w0 + e^T xp). Each output optional; dw0 adds when
 *  accumulate_dw0. form and a leading P as in forward. */
DF_API df_status df_dual_form_backward(df_tensor* dw0, df_tensor* de, df_tensor* dxp, df_tensor* dx, const df_tensor* dout,
                                       const df_tensor* w0, const df_tensor* e, const df_tensor* xp, const df_tensor* x, df_form form,
                                       int accumulate_dw0);

/** Causal linear attention: the dual form with a running state, in chunks, cost linear in T.
 *    S_t = decay S_{t-1} + v_t (x) k_t,     out_t = S_t q_t        (state: value index before key index; no scale, no softmax)
 *  out (B,T,NH,HS)  state_out (B,NH,HS,HS) acc (optional) = S after the last token  q k v (B,T,NH,HS)
 *  decay (NH) acc or inputs' dtype (optional; 1), 0 <= decay <= 1  state_in (B,NH,HS,HS) acc or inputs' dtype (optional; 0). HS 1..256. */
DF_API df_status df_linear_attention_forward(df_tensor* out, df_tensor* state_out, const df_tensor* q, const df_tensor* k,
                                             const df_tensor* v, const df_tensor* decay, const df_tensor* state_in);

/** With dS_t = dout_t (x) q_t + decay dS_{t+1}, for the last token dS_T = dout_T (x) q_T + dstate_out (optional, acc or inputs' dtype):
 *    dq_t = S_t^T dout_t,  dk_t = dS_t^T v_t,  dv_t = dS_t k_t,  ddecay_h = sum_{b,t} <dS_t, S_{t-1}>,  dstate_in = decay dS_1
 *  Assigns dq dk dv; ddecay (NH) (optional), dtype of decay, adds when accumulate_ddecay; dstate_in (optional), dtype of state_in. */
DF_API df_status df_linear_attention_backward(df_tensor* dq, df_tensor* dk, df_tensor* dv, df_tensor* ddecay, df_tensor* dstate_in,
                                              const df_tensor* dout, const df_tensor* dstate_out, const df_tensor* q, const df_tensor* k,
                                              const df_tensor* v, const df_tensor* decay, const df_tensor* state_in,
                                              int accumulate_ddecay);

/* ---- around them ---- */

/** out (+)= op(a) op(b) + bias.   op(a) is (M,K): a is (..,M,K), or (..,K,M) when trans_a; op(b) (K,N) likewise; out (..,M,N); bias (N)
 *  (optional). Leading dimensions are a batch: equal in a, b and out, or absent in b (shared by the batch). Adds to out when
 *  accumulate. a and b share a dtype; out has it too, or acc. */
DF_API df_status df_matmul(df_tensor* out, const df_tensor* a, const df_tensor* b, const df_tensor* bias, int trans_a, int trans_b,
                           int accumulate);

/** dbias (C) (+)= sum over all leading dimensions of dout (..,C). dbias: dtype of dout, or acc. */
DF_API df_status df_bias_backward(df_tensor* dbias, const df_tensor* dout, int accumulate);

/** Residual add and LayerNorm over the last dimension, fused.
 *    sum = x + residual,  mean, rstd = 1/sqrt(var + eps) over C,  out = (sum - mean) rstd weight + bias
 *  sum (..,C) (optional when residual is absent; saved for backward)  out (..,C)  mean rstd (N) acc saved  x (..,C)  residual (..,C)
 *  (optional)  weight bias (C). */
DF_API df_status df_residual_layernorm_forward(df_tensor* sum, df_tensor* out, df_tensor* mean, df_tensor* rstd, const df_tensor* x,
                                               const df_tensor* residual, const df_tensor* weight, const df_tensor* bias, double eps);

/** With h = (sum - mean) rstd, g = dout weight:  dx = rstd (g - mean_c g - h mean_c(g h)) + dsum      (the gradient of x and of residual)
 *    dweight (+)= sum_n dout h,  dbias (+)= sum_n dout.     dsum (..,C) (optional): gradient arriving at sum itself.
 *  dweight dbias (C) (optional, both or none): dtype of weight, or acc; add when accumulate. sum: what was normalised. */
DF_API df_status df_residual_layernorm_backward(df_tensor* dx, df_tensor* dweight, df_tensor* dbias, const df_tensor* dout,
                                                const df_tensor* dsum, const df_tensor* sum, const df_tensor* weight,
                                                const df_tensor* mean, const df_tensor* rstd, int accumulate);

/** out = gelu(x + bias).  exact: u/2 (1 + erf(u/sqrt 2));  tanh: u/2 (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3))).  x out (..,C)  bias (C)
 *  (optional). out may be x. */
DF_API df_status df_bias_gelu_forward(df_tensor* out, const df_tensor* x, const df_tensor* bias, df_gelu kind);
/** dx = dout gelu'(x + bias); dbias (C) (optional; +=) sum of dx. dx may be dout. */
DF_API df_status df_bias_gelu_backward(df_tensor* dx, df_tensor* dbias, const df_tensor* dout, const df_tensor* x,
                                       const df_tensor* bias, df_gelu kind, int accumulate);

/** A product and the GELU of it.   pre = op(a) op(b) + bias,  out = gelu(pre).   Shapes and batch as in df_matmul.
 *  pre (..,M,N) (optional; saved for backward)  bias (N) (optional).  out pre: dtype of a.
 *  This is df_matmul, then df_bias_gelu_forward, bit for bit, where the backend does not do both in one; where it does, gelu may read
 *  pre before it is rounded. */
DF_API df_status df_matmul_gelu_forward(df_tensor* out, df_tensor* pre, const df_tensor* a, const df_tensor* b, const df_tensor* bias,
                                        int trans_a, int trans_b, df_gelu kind);
/** The gradient that arrives at pre through a second product, out op(w)^T, whose gradient is dout:
 *    dpre = (dout op(w)) gelu'(pre),  dbias (N) (optional; +=) sum of dpre.
 *  dpre pre (..,M,N)  dout (..,M,K)  op(w) (K,N): w is (K,N), or (N,K) when trans_w; batch as in df_matmul.
 *  This is df_matmul, then df_bias_gelu_backward, bit for bit, where the backend does not do both in one. */
DF_API df_status df_matmul_gelu_backward(df_tensor* dpre, df_tensor* dbias, const df_tensor* dout, const df_tensor* w, const df_tensor* pre,
                                         int trans_w, df_gelu kind, int accumulate);

/** out[b,t] = wte[ids[b,t]] + wpe[position + t].   out (B,T,C)  ids (B,T) I32  wte (V,C)  wpe (P,C) (optional), position + T <= P.
 *  An id outside 0..V-1 is DF_INVALID_ARGUMENT with its place, and out is not written. */
DF_API df_status df_embedding_forward(df_tensor* out, const df_tensor* ids, const df_tensor* wte, const df_tensor* wpe, int64_t position);
/** dwte (V,C) (optional), dwpe (P,C) (optional): sums of dout rows, in a fixed order; assign (other rows 0) or add when accumulate.
 *  dwte and dwpe: each the dtype of dout or acc. */
DF_API df_status df_embedding_backward(df_tensor* dwte, df_tensor* dwpe, const df_tensor* dout, const df_tensor* ids, int64_t position,
                                       int accumulate);

/** Softmax cross-entropy fused with its gradient.
 *    losses_n = logsumexp(logits_n) - logits_n[target_n], 0 where target_n == ignore_index;   loss = sum losses / count of the others (0 if none)
 *    dlogits = d loss / d logits = (softmax - onehot) / count, 0 on ignored rows
 *  loss () or (1) acc  losses (N) acc  dlogits (N,V) (optional; may be logits itself)  logits (N,V)  targets (N) I32, 0..V-1 or ignore_index. */
DF_API df_status df_cross_entropy(df_tensor* loss, df_tensor* losses, df_tensor* dlogits, const df_tensor* logits,
                                  const df_tensor* targets, int ignore_index);

/** out = f(x), elementwise. out may be x. */
DF_API df_status df_unary_forward(df_tensor* out, const df_tensor* x, df_unary op);
/** dx = dout f'(x). abs and relu have slope 0 at 0. dx may be dout. */
DF_API df_status df_unary_backward(df_tensor* dx, const df_tensor* dout, const df_tensor* x, df_unary op);
/** out = a op b with NumPy broadcasting of both to out's shape. out may be a or b where their shapes are equal. */
DF_API df_status df_binary_forward(df_tensor* out, const df_tensor* a, const df_tensor* b, df_binary op);
/** out = alpha x + beta. out may be x. */
DF_API df_status df_affine(df_tensor* out, const df_tensor* x, double alpha, double beta);
/** out = x, converted to out's dtype (float to float, or I32 to I32) and broadcast to out's shape. */
DF_API df_status df_copy(df_tensor* out, const df_tensor* x);
/** out = value in every element. I32 too. */
DF_API df_status df_fill(df_tensor* out, double value);
/** Reduces the axes whose bit is set in axes (bit i: axis i). out has x's shape with those axes 1, or without them. Sums are
 *  taken pairwise or in double. out: dtype of x, or acc. */
DF_API df_status df_reduce_forward(df_tensor* out, const df_tensor* x, df_reduction op, unsigned int axes);
/** dx from dout (shaped like out). max and min send the gradient to the first extreme element. out as computed by forward. */
DF_API df_status df_reduce_backward(df_tensor* dx, const df_tensor* dout, const df_tensor* x, const df_tensor* out, df_reduction op,
                                    unsigned int axes);
/** out[..] = index of the first largest element along the last axis. out I32, x without its last axis. NaN counts as largest. */
DF_API df_status df_argmax(df_tensor* out, const df_tensor* x);

/* ---- training ---- */

/** sumsq () acc (+)= sum x^2 in a fixed order; adds when accumulate. */
DF_API df_status df_squared_norm(df_tensor* sumsq, const df_tensor* x, int accumulate);
/** scale () = min(1, max_norm / (sqrt(sumsq) + 1e-6)); NaN or inf when sumsq is. Both acc. */
DF_API df_status df_clip_scale(df_tensor* scale, const df_tensor* sumsq, double max_norm);
/** AdamW with decoupled decay (Loshchilov and Hutter 1711.05101), step >= 1:
 *    g = scale grad;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  p -= lr (weight_decay p + mhat / (sqrt(vhat) + eps)),  hats divide by 1 - b^step
 *  param any float  m v acc  grad any float  master acc (optional: then it is updated and param = its rounding)  scale () acc
 *  (optional; 1). All but scale have param's shape. */
DF_API df_status df_adamw_step(df_tensor* param, df_tensor* m, df_tensor* v, df_tensor* master, const df_tensor* grad,
                               const df_tensor* scale, double lr, double beta1, double beta2, double eps, double weight_decay,
                               int64_t step);
/** The decision over a step, taken on the device, so that a captured step needs no host: finite says whether sumsq and loss (optional) are.
 *    scale = min(1, max_norm / (sqrt(sumsq) + 1e-6)) (1 without max_norm),  step += 1      if finite
 *    scale = NaN, step as it was                                                           if not: df_adamw_ranges then changes nothing
 *  scale () acc  step () I32  sumsq () acc  loss () acc (optional)  max_norm () acc, above 0 (optional). */
DF_API df_status df_clip_step(df_tensor* scale, df_tensor* step, const df_tensor* sumsq, const df_tensor* loss, const df_tensor* max_norm);
/** df_adamw_step over parts of flat tensors in one call, the bits those of one df_adamw_step a part: part i, of count, is the elements
 *  bounds[2i]..bounds[2i+1]-1 and has the decay weight_decays[i]; parts ascend. With rates and steps (both or neither) the numbers of the step
 *  come from the device instead of lr and step: step number s = steps, from 1, as df_clip_step counts it, has the learning rate
 *  rates[min(s, K) - 1], and where scale is not finite, or s < 1, nothing changes.
 *  param m v master grad (N), contiguous, dtypes as in df_adamw_step  scale () acc (optional; 1)  rates (K) acc  steps () I32. */
DF_API df_status df_adamw_ranges(df_tensor* param, df_tensor* m, df_tensor* v, df_tensor* master, const df_tensor* grad,
                                 const df_tensor* scale, const df_tensor* rates, const df_tensor* steps, const int64_t* bounds,
                                 const double* weight_decays, int count, double lr, double beta1, double beta2, double eps, int64_t step);
/** g = scale grad + weight_decay p;  buf = momentum buf + g (g itself without buf);  p -= lr buf.   momentum_buffer acc (optional). */
DF_API df_status df_sgd_step(df_tensor* param, df_tensor* momentum_buffer, df_tensor* master, const df_tensor* grad,
                             const df_tensor* scale, double lr, double momentum, double weight_decay);

/** Philox4x32-10 counter-based draws: element i uses words (i mod 4) of block (offset + i/4) under key seed, i in row-major order,
 *  whatever the strides: uniform = lo + (hi - lo) u, u = (word + 0.5) 2^-32 (computed in double; F32 below hi). */
DF_API df_status df_random_uniform(df_tensor* out, uint64_t seed, uint64_t offset, double lo, double hi);
/** Box-Muller on word pairs (0,1) and (2,3) of the same blocks, in double: r = sqrt(-2 ln u0), mean + std r cos/sin(2 pi u1). */
DF_API df_status df_random_normal(df_tensor* out, uint64_t seed, uint64_t offset, double mean, double std);
/** The same draws with the generator's state on the device, so that a captured fill draws anew at each replay: state (4) I32 holds the words
 *  seed, seed >> 32, offset, offset >> 32; afterwards offset has moved on by the blocks that were used, ceil(n/4). */
DF_API df_status df_random_uniform_next(df_tensor* out, df_tensor* state, double lo, double hi);
DF_API df_status df_random_normal_next(df_tensor* out, df_tensor* state, double mean, double std);

#ifdef __cplusplus
}
#endif
#endif
