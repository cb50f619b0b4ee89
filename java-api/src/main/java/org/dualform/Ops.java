package org.dualform;

import static org.dualform.internal.global.DualformNative.*;

/**
 * The operations: one call each into the native library, destination first; outputs, values saved for the backward pass, inputs,
 * parameters. {@link org.dualform.autograd.Tape} has a recorded form of each differentiable one.
 *
 * <p>Legend: B batch, T queries (time), S keys, NH query heads, NKV key and value heads, HS head size, C channels, V vocabulary, N rows.
 * All floating tensors of a call share one dtype unless said otherwise; <em>acc</em> is the accumulation dtype, F32 for F32 and BF16, F64
 * for F64. Outputs do not overlap inputs unless said. Every op is deterministic: same inputs, same bits, whatever the number of threads.
 *
 * <p>Every op throws {@link NullPointerException} with the argument's name for a null that is not allowed;
 * {@link IllegalStateException} for a closed tensor; {@link InvalidArgumentException} for a wrong shape, dtype, device, overlap or range,
 * and no output is written then; {@link DeviceOutOfMemoryException} when scratch memory is out; {@link UnsupportedOperationException}
 * when the tensors' backend lacks the op or dtype; {@link DeviceLostException} when a GPU failed. A call allocates no memory outside the
 * device's pool.
 *
 * <p>Threading: all methods may be called from any thread. A tensor closed by another thread during a call stays alive until the call
 * returns.
 */
public final class Ops {
    private Ops() {}

    private static int flag(boolean value) {
        return value ? 1 : 0;
    }

    /** The bit mask of axes; none means all of x. */
    private static int axisMask(Tensor x, int[] axes) {
        int rank = Arguments.notNull(x, "x").rank();
        if (Arguments.notNull(axes, "axes").length == 0) {
            return (1 << rank) - 1;
        }
        int mask = 0;
        for (int axis : axes) {
            int bit = 1 << Arguments.axis(axis, rank, "axes");
            if ((mask & bit) != 0) {
                throw new InvalidArgumentException("axes: " + axis + " is there twice");
            }
            mask |= bit;
        }
        return mask;
    }

    /**
     * Softmax attention; saves only the log-sum-exp for the backward pass.
     *
     * <pre>{@code
     * Softmax attention.
     *    P[t,s] = softmax_s(scale q_t . k_s) over the keys s < lengths[b] with, when causal, s <= t + S - T;   out_t = sum_s P[t,s] v_s
     *    lse_t = log sum_s exp(scale q_t . k_s)
     *  A row with no key gives out = 0 exactly and lse = -inf. Query head h reads key head h / (NH / NKV).
     *  out (B,T,NH,HS)  lse (B,NH,T) acc, saved for backward  q (B,T,NH,HS)  k v (B,S,NKV,HS)  lengths (B) I32 (optional), 0..S.
     *  NH a multiple of NKV, HS 1..256. No T x S matrix is ever formed: extra memory is O(B NH T).
     * }</pre>
     *
     * <p>Source: Vaswani et al. 2017, arXiv:1706.03762; computed in tiles as in arXiv:2205.14135.
     *
     * @param out the result (B,T,NH,HS)
     * @param lse (B,NH,T) acc, log-sum-exp of the scores
     * @param q queries (B,T,NH,HS)
     * @param k keys (B,S,NKV,HS)
     * @param v values (B,S,NKV,HS)
     * @param lengths (B) I32, keys of each batch row that count, 0 to S; null for all
     * @param scale factor of the scores, usually {@code 1/sqrt(HS)}
     * @param causal whether query t sees only keys {@code s <= t + S - T}
     */
    public static void attentionForward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor lengths, double scale,
            boolean causal) {
        try (Call call = Call.begin()) {
            call.check(df_attention_forward(
                    call.use(out, "out"), call.use(lse, "lse"), call.use(q, "q"), call.use(k, "k"), call.use(v, "v"),
                    call.optional(lengths, "lengths"), scale, flag(causal)));
        }
    }

    /**
     * Gradients of {@link #attentionForward attention}.
     *
     * <pre>{@code
     * Gradients of attention. With delta_t = dout_t . out_t and dP[t,s] = dout_t . v_s,  dS = P (dP - delta):
     *    dq_t = scale sum_s dS[t,s] k_s,   dk_s = scale sum_t dS[t,s] q_t,   dv_s = sum_t P[t,s] dout_t
     *       (dk, dv summed over the head group)
     *  Assigns dq dk dv, shaped like q k v; keys that no query sees get 0 exactly. out and lse as saved by forward.
     * }</pre>
     *
     * @param dq gradient of q, assigned
     * @param dk gradient of k, assigned
     * @param dv gradient of v, assigned
     * @param dout gradient of the result (B,T,NH,HS)
     * @param q queries (B,T,NH,HS)
     * @param k keys (B,S,NKV,HS)
     * @param v values (B,S,NKV,HS)
     * @param out the result, as saved by forward
     * @param lse (B,NH,T) acc, as saved by forward
     * @param lengths (B) I32, keys of each batch row that count, 0 to S; null for all
     * @param scale as in forward
     * @param causal as in forward
     */
    public static void attentionBackward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out,
            Tensor lse, Tensor lengths, double scale, boolean causal) {
        try (Call call = Call.begin()) {
            call.check(df_attention_backward(
                    call.use(dq, "dq"), call.use(dk, "dk"), call.use(dv, "dv"), call.use(dout, "dout"), call.use(q, "q"),
                    call.use(k, "k"), call.use(v, "v"), call.use(out, "out"), call.use(lse, "lse"), call.optional(lengths, "lengths"),
                    scale, flag(causal)));
        }
    }

    /**
     * Momentum attention: causal attention plus an exponential average of the earlier values.
     *
     * <pre>{@code
     * Momentum attention (Dai et al. 2212.10559, MoAttn): causal attention plus, for the query at position p = t + S - T,
     *    m_p = sum_{s<p} eta^(p-s) v_s        recurrence m_0 = 0, m_p = eta (m_{p-1} + v_{p-1});     out_t = attn_t + m_p
     *  Keys s >= lengths[b] are neither attended nor summed. eta = 0 gives attention bit for bit (nothing is added, stateIn either).
     *  Queries with p <= 0 have m = 0.
     *  out (B,T,NH,HS)  attn (B,T,NH,HS) (optional; the attention part, saved for backward)  lse (B,NH,T) acc  q k v lengths as
     *  in attention  eta (NH) acc dtype or the inputs' dtype, 0 <= eta < 1.
     *  Cached decoding, O(T) instead of O(S) for the added term: stateIn (B,NH,HS) acc (optional) is m at the first query's
     *  position S - T; then only v_s with s >= S - T is summed. stateOut (B,NH,HS) acc (optional) receives m_S, the
     *  stateIn of the next call. stateIn needs T <= S.
     * }</pre>
     *
     * <p>Source: Dai et al. 2022, arXiv:2212.10559 (MoAttn).
     *
     * @param out the result (B,T,NH,HS)
     * @param attn (B,T,NH,HS), receives the attention part, needed for the backward pass; may be null
     * @param lse (B,NH,T) acc, log-sum-exp of the scores
     * @param stateOut (B,NH,HS) acc, receives the state after the last key; may be null
     * @param q queries (B,T,NH,HS)
     * @param k keys (B,S,NKV,HS)
     * @param v values (B,S,NKV,HS)
     * @param lengths (B) I32, keys of each batch row that count, 0 to S; null for all
     * @param eta (NH) in acc or the dtype of q, {@code 0 <= eta < 1}
     * @param stateIn (B,NH,HS) acc, the state at the first query's position; null for none
     * @param scale factor of the scores, usually {@code 1/sqrt(HS)}
     */
    public static void momentumAttentionForward(Tensor out, Tensor attn, Tensor lse, Tensor stateOut, Tensor q, Tensor k, Tensor v,
            Tensor lengths, Tensor eta, Tensor stateIn, double scale) {
        try (Call call = Call.begin()) {
            call.check(df_momentum_attention_forward(
                    call.use(out, "out"), call.optional(attn, "attn"), call.use(lse, "lse"), call.optional(stateOut, "stateOut"),
                    call.use(q, "q"), call.use(k, "k"), call.use(v, "v"), call.optional(lengths, "lengths"), call.use(eta, "eta"),
                    call.optional(stateIn, "stateIn"), scale));
        }
    }

    /**
     * Gradients of {@link #momentumAttentionForward momentum attention} without a carried state.
     *
     * <pre>{@code
     * Gradients of momentum attention (without state_in). dq, dk as in attention with delta_t = dout_t . attn_t. With
     *  lambda_p = dout_p + eta lambda_{p+1} (0 beyond the last query):
     *    dv_s = attention's + sum_{p>s} eta^(p-s) dout_p (0 where s >= lengths[b]),
     *       deta_h = sum_{b,p} lambda_p . (m_{p-1} + v_{p-1})   (well defined at eta = 0)
     *  deta (NH) (optional), dtype of eta; adds when accumulateDeta. attn and lse as saved by forward.
     * }</pre>
     *
     * <p>Source: Dai et al. 2022, arXiv:2212.10559 (MoAttn).
     *
     * @param dq gradient of q, assigned
     * @param dk gradient of k, assigned
     * @param dv gradient of v, assigned
     * @param deta (NH), gradient of eta; null if not wanted
     * @param dout gradient of the result (B,T,NH,HS)
     * @param q queries (B,T,NH,HS)
     * @param k keys (B,S,NKV,HS)
     * @param v values (B,S,NKV,HS)
     * @param attn the attention part, as saved by forward
     * @param lse as saved by forward
     * @param lengths (B) I32, keys of each batch row that count, 0 to S; null for all
     * @param eta (NH) in acc or the dtype of q, {@code 0 <= eta < 1}
     * @param scale as in forward
     * @param accumulateDeta whether deta adds
     */
    public static void momentumAttentionBackward(Tensor dq, Tensor dk, Tensor dv, Tensor deta, Tensor dout, Tensor q, Tensor k,
            Tensor v, Tensor attn, Tensor lse, Tensor lengths, Tensor eta, double scale, boolean accumulateDeta) {
        try (Call call = Call.begin()) {
            call.check(df_momentum_attention_backward(
                    call.use(dq, "dq"), call.use(dk, "dk"), call.use(dv, "dv"), call.optional(deta, "deta"), call.use(dout, "dout"),
                    call.use(q, "q"), call.use(k, "k"), call.use(v, "v"), call.use(attn, "attn"), call.use(lse, "lse"),
                    call.optional(lengths, "lengths"), call.use(eta, "eta"), scale, flag(accumulateDeta)));
        }
    }

    /**
     * The weight update of one gradient step as a sum of outer products.
     *
     * <pre>{@code
     * deltaW (O,I) acc (+)= sum_n e_n (x) xp_n = e^T xp.   e (N,O)  xp (N,I). Adds when accumulate.
     * }</pre>
     *
     * <p>Source: Dai et al. 2022, arXiv:2212.10559, section 3.
     *
     * @param deltaW the sum (O,I) acc
     * @param e (N,O)
     * @param xp (N,I)
     * @param accumulate whether to add to what is there instead of assigning
     */
    public static void deltaAccumulate(Tensor deltaW, Tensor e, Tensor xp, boolean accumulate) {
        try (Call call = Call.begin()) {
            call.check(df_delta_accumulate(
                    call.use(deltaW, "deltaW"), call.use(e, "e"), call.use(xp, "xp"), flag(accumulate)));
        }
    }

    /**
     * A linear layer with its weight update applied.
     *
     * <pre>{@code
     * out = x (w0 + deltaW)^T, the sum formed in acc.   out (M,O)  x (M,I)  w0 (O,I) (optional)  deltaW (O,I) acc.
     * }</pre>
     *
     * <p>Source: Dai et al. 2022, arXiv:2212.10559, section 3.
     *
     * @param out the result (M,O)
     * @param x (M,I)
     * @param w0 (O,I); null for none
     * @param deltaW (O,I) acc
     */
    public static void deltaApply(Tensor out, Tensor x, Tensor w0, Tensor deltaW) {
        try (Call call = Call.begin()) {
            call.check(df_delta_apply(
                    call.use(out, "out"), call.use(x, "x"), call.optional(w0, "w0"), call.use(deltaW, "deltaW")));
        }
    }

    /**
     * The dual form of a gradient step: accumulate and apply in one call.
     *
     * <pre>{@code
     * The dual form of a gradient step (science: 2212.10559, 1.1), accumulate and apply in one call:
     *    primal  out = x (w0 + e^T xp)^T          dual  out = x w0^T + (x xp^T) e         equal in exact arithmetic
     *  auto takes primal when deltaW is asked for or O I <= M (O + I), the cheaper by multiply-adds; no N x M matrix is formed.
     *  out (M,O)  deltaW (O,I) acc (optional)  w0 (O,I)  e (N,O)  xp (N,I)  x (M,I).
     * }</pre>
     *
     * <p>Source: Irie et al. 2022, arXiv:2202.05798; Dai et al. 2022, arXiv:2212.10559.
     *
     * @param out the result (M,O)
     * @param deltaW (O,I) acc, receives the weight update; may be null
     * @param w0 (O,I)
     * @param e (N,O)
     * @param xp (N,I)
     * @param x (M,I)
     * @param form how it is evaluated
     */
    public static void dualFormForward(Tensor out, Tensor deltaW, Tensor w0, Tensor e, Tensor xp, Tensor x, DualForm form) {
        int code = Arguments.notNull(form, "form").ordinal();
        try (Call call = Call.begin()) {
            call.check(df_dual_form_forward(
                    call.use(out, "out"), call.optional(deltaW, "deltaW"), call.use(w0, "w0"), call.use(e, "e"), call.use(xp, "xp"),
                    call.use(x, "x"), code));
        }
    }

    /**
     * Gradients of {@link #dualFormForward the dual form}.
     *
     * <pre>{@code
     * With G = dout^T x:  dw0 = G,  de = xp G^T,  dxp = e G,  dx = dout (w0 + e^T xp). Each output optional; dw0 adds when
     *  accumulateDw0. form as in forward.
     * }</pre>
     *
     * @param dw0 (O,I); null if not wanted
     * @param de (N,O), assigned; null if not wanted
     * @param dxp (N,I), assigned; null if not wanted
     * @param dx (M,I), assigned; null if not wanted
     * @param dout gradient of the result (M,O)
     * @param w0 (O,I)
     * @param e (N,O)
     * @param xp (N,I)
     * @param x (M,I)
     * @param form how it is evaluated
     * @param accumulateDw0 whether dw0 adds
     */
    public static void dualFormBackward(Tensor dw0, Tensor de, Tensor dxp, Tensor dx, Tensor dout, Tensor w0, Tensor e, Tensor xp,
            Tensor x, DualForm form, boolean accumulateDw0) {
        int code = Arguments.notNull(form, "form").ordinal();
        try (Call call = Call.begin()) {
            call.check(df_dual_form_backward(
                    call.optional(dw0, "dw0"), call.optional(de, "de"), call.optional(dxp, "dxp"), call.optional(dx, "dx"),
                    call.use(dout, "dout"), call.use(w0, "w0"), call.use(e, "e"), call.use(xp, "xp"), call.use(x, "x"), code,
                    flag(accumulateDw0)));
        }
    }

    /**
     * Causal linear attention: the dual form with a running state, linear in T.
     *
     * <pre>{@code
     * Causal linear attention: the dual form with a running state, in chunks, cost linear in T.
     *    S_t = decay S_{t-1} + v_t (x) k_t,     out_t = S_t q_t        (state: value index before key index; no scale, no softmax)
     *  out (B,T,NH,HS)  stateOut (B,NH,HS,HS) acc (optional) = S after the last token  q k v (B,T,NH,HS)
     *  decay (NH) acc or inputs' dtype (optional; 1), 0 <= decay <= 1
     *       stateIn (B,NH,HS,HS) acc or inputs' dtype (optional; 0). HS 1..256.
     * }</pre>
     *
     * <p>Source: Katharopoulos et al. 2020, arXiv:2006.16236; Sun et al. 2023, arXiv:2307.08621 (decay).
     *
     * @param out the result (B,T,NH,HS)
     * @param stateOut (B,NH,HS,HS) acc, receives the state after the last token, value index before key index; may be null
     * @param q queries (B,T,NH,HS)
     * @param k keys (B,T,NH,HS)
     * @param v values (B,T,NH,HS)
     * @param decay (NH) in acc or the dtype of q, {@code 0 <= decay <= 1}; null for 1
     * @param stateIn (B,NH,HS,HS) in acc or the dtype of q; null for 0
     */
    public static void linearAttentionForward(Tensor out, Tensor stateOut, Tensor q, Tensor k, Tensor v, Tensor decay,
            Tensor stateIn) {
        try (Call call = Call.begin()) {
            call.check(df_linear_attention_forward(
                    call.use(out, "out"), call.optional(stateOut, "stateOut"), call.use(q, "q"), call.use(k, "k"), call.use(v, "v"),
                    call.optional(decay, "decay"), call.optional(stateIn, "stateIn")));
        }
    }

    /**
     * Gradients of {@link #linearAttentionForward linear attention}.
     *
     * <pre>{@code
     * With dS_t = dout_t (x) q_t + decay dS_{t+1}, for the last token dS_T = dout_T (x) q_T + dstateOut (optional, acc or inputs' dtype):
     *    dq_t = S_t^T dout_t,  dk_t = dS_t^T v_t,  dv_t = dS_t k_t,  ddecay_h = sum_{b,t} <dS_t, S_{t-1}>,  dstateIn = decay dS_1
     *  Assigns dq dk dv; ddecay (NH) (optional), dtype of decay, adds when accumulateDdecay; dstateIn (optional), dtype of stateIn.
     * }</pre>
     *
     * @param dq gradient of q, assigned
     * @param dk gradient of k, assigned
     * @param dv gradient of v, assigned
     * @param ddecay (NH), gradient of decay; null if not wanted
     * @param dstateIn (B,NH,HS,HS), gradient of stateIn, assigned; null if not wanted
     * @param dout gradient of the result (B,T,NH,HS)
     * @param dstateOut (B,NH,HS,HS), gradient of stateOut; null for 0
     * @param q queries (B,T,NH,HS)
     * @param k keys (B,T,NH,HS)
     * @param v values (B,T,NH,HS)
     * @param decay as in forward
     * @param stateIn as in forward
     * @param accumulateDdecay whether ddecay adds
     */
    public static void linearAttentionBackward(Tensor dq, Tensor dk, Tensor dv, Tensor ddecay, Tensor dstateIn, Tensor dout,
            Tensor dstateOut, Tensor q, Tensor k, Tensor v, Tensor decay, Tensor stateIn, boolean accumulateDdecay) {
        try (Call call = Call.begin()) {
            call.check(df_linear_attention_backward(
                    call.use(dq, "dq"), call.use(dk, "dk"), call.use(dv, "dv"), call.optional(ddecay, "ddecay"),
                    call.optional(dstateIn, "dstateIn"), call.use(dout, "dout"), call.optional(dstateOut, "dstateOut"),
                    call.use(q, "q"), call.use(k, "k"), call.use(v, "v"), call.optional(decay, "decay"),
                    call.optional(stateIn, "stateIn"), flag(accumulateDdecay)));
        }
    }

    /**
     * Matrix product.
     *
     * <pre>{@code
     * out (+)= op(a) op(b) + bias.   op(a) is (M,K): a is (..,M,K), or (..,K,M) when transA; op(b) (K,N) likewise; out (..,M,N); bias (N)
     *  (optional). Leading dimensions are a batch: equal in a, b and out, or absent in b (shared by the batch). Adds to out when
     *  accumulate. a and b share a dtype; out has it too, or acc.
     * }</pre>
     *
     * @param out the result (..,M,N)
     * @param a (..,M,K), or (..,K,M) when transA
     * @param b (..,K,N), or (..,N,K) when transB
     * @param bias (N); null for none
     * @param transA whether a is transposed
     * @param transB whether b is transposed
     * @param accumulate whether to add to what is there instead of assigning
     */
    public static void matmul(Tensor out, Tensor a, Tensor b, Tensor bias, boolean transA, boolean transB, boolean accumulate) {
        try (Call call = Call.begin()) {
            call.check(df_matmul(
                    call.use(out, "out"), call.use(a, "a"), call.use(b, "b"), call.optional(bias, "bias"), flag(transA), flag(transB),
                    flag(accumulate)));
        }
    }

    /**
     * Gradient of a bias: the sum over all leading dimensions.
     *
     * <pre>{@code
     * dbias (C) (+)= sum over all leading dimensions of dout (..,C). dbias: dtype of dout, or acc.
     * }</pre>
     *
     * @param dbias (C), in the dtype of dout or acc
     * @param dout (..,C)
     * @param accumulate whether to add to what is there instead of assigning
     */
    public static void biasBackward(Tensor dbias, Tensor dout, boolean accumulate) {
        try (Call call = Call.begin()) {
            call.check(df_bias_backward(
                    call.use(dbias, "dbias"), call.use(dout, "dout"), flag(accumulate)));
        }
    }

    /**
     * Residual sum and LayerNorm, fused.
     *
     * <pre>{@code
     * Residual add and LayerNorm over the last dimension, fused.
     *    sum = x + residual,  mean, rstd = 1/sqrt(var + eps) over C,  out = (sum - mean) rstd weight + bias
     *  sum (..,C) (optional when residual is absent; saved for backward)  out (..,C)  mean rstd (N) acc saved  x (..,C)  residual (..,C)
     *  (optional)  weight bias (C).
     * }</pre>
     *
     * <p>Source: Ba et al. 2016, arXiv:1607.06450.
     *
     * @param sum (..,C), receives what is normalised; may be null when residual is
     * @param out the result (..,C)
     * @param mean (N) acc, saved for the backward pass
     * @param rstd (N) acc, saved for the backward pass
     * @param x (..,C)
     * @param residual (..,C); null for none
     * @param weight (C)
     * @param bias (C)
     * @param eps added to the variance
     */
    public static void residualLayernormForward(Tensor sum, Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor residual,
            Tensor weight, Tensor bias, double eps) {
        try (Call call = Call.begin()) {
            call.check(df_residual_layernorm_forward(
                    call.optional(sum, "sum"), call.use(out, "out"), call.use(mean, "mean"), call.use(rstd, "rstd"), call.use(x, "x"),
                    call.optional(residual, "residual"), call.use(weight, "weight"), call.use(bias, "bias"), eps));
        }
    }

    /**
     * Gradients of {@link #residualLayernormForward residual and LayerNorm}.
     *
     * <pre>{@code
     * With h = (sum - mean) rstd, g = dout weight:  dx = rstd (g - mean_c g - h mean_c(g h)) + dsum
     *       (the gradient of x and of residual)
     *    dweight (+)= sum_n dout h,  dbias (+)= sum_n dout.     dsum (..,C) (optional): gradient arriving at sum itself.
     *  dweight dbias (C) (optional, both or none): dtype of weight, or acc; add when accumulate. sum: what was normalised.
     * }</pre>
     *
     * @param dx (..,C), gradient of x and of residual, assigned
     * @param dweight (C); null if not wanted
     * @param dbias (C); null if not wanted
     * @param dout gradient of the result (..,C)
     * @param dsum (..,C), gradient arriving at the sum itself; null for 0
     * @param sum what was normalised
     * @param weight (C)
     * @param mean as saved by forward
     * @param rstd as saved by forward
     * @param accumulate whether dweight and dbias add
     */
    public static void residualLayernormBackward(Tensor dx, Tensor dweight, Tensor dbias, Tensor dout, Tensor dsum, Tensor sum,
            Tensor weight, Tensor mean, Tensor rstd, boolean accumulate) {
        try (Call call = Call.begin()) {
            call.check(df_residual_layernorm_backward(
                    call.use(dx, "dx"), call.optional(dweight, "dweight"), call.optional(dbias, "dbias"), call.use(dout, "dout"),
                    call.optional(dsum, "dsum"), call.use(sum, "sum"), call.use(weight, "weight"), call.use(mean, "mean"),
                    call.use(rstd, "rstd"), flag(accumulate)));
        }
    }

    /**
     * Bias and GELU, fused.
     *
     * <pre>{@code
     * out = gelu(x + bias).  exact: u/2 (1 + erf(u/sqrt 2));  tanh: u/2 (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3))).  x out (..,C)
     *       bias (C)
     *  (optional). out may be x.
     * }</pre>
     *
     * <p>Source: Hendrycks and Gimpel 2016, arXiv:1606.08415.
     *
     * @param out the result (..,C); may be x
     * @param x (..,C)
     * @param bias (C); null for none
     * @param kind which GELU
     */
    public static void biasGeluForward(Tensor out, Tensor x, Tensor bias, Gelu kind) {
        int code = Arguments.notNull(kind, "kind").ordinal();
        try (Call call = Call.begin()) {
            call.check(df_bias_gelu_forward(
                    call.use(out, "out"), call.use(x, "x"), call.optional(bias, "bias"), code));
        }
    }

    /**
     * Gradients of {@link #biasGeluForward bias and GELU}.
     *
     * <pre>{@code
     * dx = dout gelu'(x + bias); dbias (C) (optional; +=) sum of dx. dx may be dout.
     * }</pre>
     *
     * @param dx (..,C), assigned; may be dout
     * @param dbias (C); null if not wanted
     * @param dout gradient of the result (..,C)
     * @param x (..,C)
     * @param bias (C); null for none
     * @param kind which GELU
     * @param accumulate whether dbias adds
     */
    public static void biasGeluBackward(Tensor dx, Tensor dbias, Tensor dout, Tensor x, Tensor bias, Gelu kind, boolean accumulate) {
        int code = Arguments.notNull(kind, "kind").ordinal();
        try (Call call = Call.begin()) {
            call.check(df_bias_gelu_backward(
                    call.use(dx, "dx"), call.optional(dbias, "dbias"), call.use(dout, "dout"), call.use(x, "x"),
                    call.optional(bias, "bias"), code, flag(accumulate)));
        }
    }

    /**
     * Matrix product and the GELU of it.
     *
     * <pre>{@code
     * pre = op(a) op(b) + bias,  out = gelu(pre).   Shapes and batch as in matmul.
     *  pre (..,M,N) (optional; saved for backward)  bias (N) (optional).  out pre: dtype of a.
     *  This is matmul, then biasGeluForward, bit for bit, where the backend does not do both in one; where it does, gelu may read
     *  pre before it is rounded.
     * }</pre>
     *
     * @param out the result (..,M,N)
     * @param pre what the GELU is taken of (..,M,N), saved for the backward pass; null if not wanted
     * @param a (..,M,K), or (..,K,M) when transA
     * @param b (..,K,N), or (..,N,K) when transB
     * @param bias (N); null for none
     * @param transA whether a is transposed
     * @param transB whether b is transposed
     * @param kind which GELU
     */
    public static void matmulGeluForward(Tensor out, Tensor pre, Tensor a, Tensor b, Tensor bias, boolean transA, boolean transB,
            Gelu kind) {
        int code = Arguments.notNull(kind, "kind").ordinal();
        try (Call call = Call.begin()) {
            call.check(df_matmul_gelu_forward(
                    call.use(out, "out"), call.optional(pre, "pre"), call.use(a, "a"), call.use(b, "b"), call.optional(bias, "bias"),
                    flag(transA), flag(transB), code));
        }
    }

    /**
     * The gradient that arrives at {@code pre} of {@link #matmulGeluForward product and GELU} through a second product.
     *
     * <pre>{@code
     * The gradient that arrives at pre through a second product, out op(w)^T, whose gradient is dout:
     *    dpre = (dout op(w)) gelu'(pre),  dbias (N) (optional; +=) sum of dpre.
     *  dpre pre (..,M,N)  dout (..,M,K)  op(w) (K,N): w is (K,N), or (N,K) when transW; batch as in matmul.
     *  This is matmul, then biasGeluBackward, bit for bit, where the backend does not do both in one.
     * }</pre>
     *
     * @param dpre (..,M,N), assigned
     * @param dbias (N); null if not wanted
     * @param dout gradient of the second product (..,M,K)
     * @param w factor of the second product, transposed (K,N), or (N,K) when transW
     * @param pre (..,M,N), as saved by the forward pass
     * @param transW whether w is transposed
     * @param kind which GELU
     * @param accumulate whether dbias adds
     */
    public static void matmulGeluBackward(Tensor dpre, Tensor dbias, Tensor dout, Tensor w, Tensor pre, boolean transW, Gelu kind,
            boolean accumulate) {
        int code = Arguments.notNull(kind, "kind").ordinal();
        try (Call call = Call.begin()) {
            call.check(df_matmul_gelu_backward(
                    call.use(dpre, "dpre"), call.optional(dbias, "dbias"), call.use(dout, "dout"), call.use(w, "w"), call.use(pre, "pre"),
                    flag(transW), code, flag(accumulate)));
        }
    }

    /**
     * Token and position embeddings, summed.
     *
     * <pre>{@code
     * out[b,t] = wte[ids[b,t]] + wpe[position + t].   out (B,T,C)  ids (B,T) I32  wte (V,C)  wpe (P,C) (optional), position + T <= P.
     *  An id outside 0..V-1 is an InvalidArgumentException with its place, and out is not written.
     * }</pre>
     *
     * @param out the result (B,T,C)
     * @param ids (B,T) I32
     * @param wte token embeddings (V,C)
     * @param wpe position embeddings (P,C); null for none
     * @param position of the first token, {@code position + T <= P}
     */
    public static void embeddingForward(Tensor out, Tensor ids, Tensor wte, Tensor wpe, long position) {
        try (Call call = Call.begin()) {
            call.check(df_embedding_forward(
                    call.use(out, "out"), call.use(ids, "ids"), call.use(wte, "wte"), call.optional(wpe, "wpe"), position));
        }
    }

    /**
     * Gradients of {@link #embeddingForward embeddings}.
     *
     * <pre>{@code
     * dwte (V,C) (optional), dwpe (P,C) (optional): sums of dout rows, in a fixed order; assign (other rows 0) or add when accumulate.
     * }</pre>
     *
     * @param dwte (V,C); null if not wanted
     * @param dwpe (P,C); null if not wanted
     * @param dout gradient of the result (B,T,C)
     * @param ids (B,T) I32
     * @param position as in forward
     * @param accumulate whether to add to what is there instead of assigning
     */
    public static void embeddingBackward(Tensor dwte, Tensor dwpe, Tensor dout, Tensor ids, long position, boolean accumulate) {
        try (Call call = Call.begin()) {
            call.check(df_embedding_backward(
                    call.optional(dwte, "dwte"), call.optional(dwpe, "dwpe"), call.use(dout, "dout"), call.use(ids, "ids"), position,
                    flag(accumulate)));
        }
    }

    /**
     * Softmax cross-entropy, fused with its gradient.
     *
     * <pre>{@code
     * Softmax cross-entropy fused with its gradient.
     *    losses_n = logsumexp(logits_n) - logits_n[target_n], 0 where target_n == ignoreIndex;
     *       loss = sum losses / count of the others (0 if none)
     *    dlogits = d loss / d logits = (softmax - onehot) / count, 0 on ignored rows
     *  loss () or (1) acc  losses (N) acc  dlogits (N,V) (optional; may be logits itself)  logits (N,V)
     *       targets (N) I32, 0..V-1 or ignoreIndex.
     * }</pre>
     *
     * @param loss () or (1) acc, the mean
     * @param losses (N) acc, one per row
     * @param dlogits (N,V), receives the gradient of loss; may be logits; null if not wanted
     * @param logits (N,V)
     * @param targets (N) I32
     * @param ignoreIndex target of rows that do not count
     */
    public static void crossEntropy(Tensor loss, Tensor losses, Tensor dlogits, Tensor logits, Tensor targets, int ignoreIndex) {
        try (Call call = Call.begin()) {
            call.check(df_cross_entropy(
                    call.use(loss, "loss"), call.use(losses, "losses"), call.optional(dlogits, "dlogits"), call.use(logits, "logits"),
                    call.use(targets, "targets"), ignoreIndex));
        }
    }

    /**
     * An elementwise function.
     *
     * <pre>{@code
     * out = f(x), elementwise. out may be x.
     * }</pre>
     *
     * @param out the result, shaped like x; may be x
     * @param x any shape
     * @param op which function
     */
    public static void unaryForward(Tensor out, Tensor x, Unary op) {
        int code = Arguments.notNull(op, "op").ordinal();
        try (Call call = Call.begin()) {
            call.check(df_unary_forward(
                    call.use(out, "out"), call.use(x, "x"), code));
        }
    }

    /**
     * Gradient of {@link #unaryForward an elementwise function}.
     *
     * <pre>{@code
     * dx = dout f'(x). abs and relu have slope 0 at 0. dx may be dout.
     * }</pre>
     *
     * @param dx shaped like x, assigned; may be dout
     * @param dout gradient of the result
     * @param x the argument of forward
     * @param op which function
     */
    public static void unaryBackward(Tensor dx, Tensor dout, Tensor x, Unary op) {
        int code = Arguments.notNull(op, "op").ordinal();
        try (Call call = Call.begin()) {
            call.check(df_unary_backward(
                    call.use(dx, "dx"), call.use(dout, "dout"), call.use(x, "x"), code));
        }
    }

    /**
     * An elementwise function of two tensors.
     *
     * <pre>{@code
     * out = a op b with NumPy broadcasting of both to out's shape. out may be a or b where their shapes are equal.
     * }</pre>
     *
     * @param out the result; may be a or b where their shapes are equal
     * @param a any shape that broadcasts to out
     * @param b any shape that broadcasts to out
     * @param op which function
     */
    public static void binaryForward(Tensor out, Tensor a, Tensor b, Binary op) {
        int code = Arguments.notNull(op, "op").ordinal();
        try (Call call = Call.begin()) {
            call.check(df_binary_forward(
                    call.use(out, "out"), call.use(a, "a"), call.use(b, "b"), code));
        }
    }

    /**
     * Scales and shifts.
     *
     * <pre>{@code
     * out = alpha x + beta. out may be x.
     * }</pre>
     *
     * @param out the result, shaped like x; may be x
     * @param x any shape
     * @param alpha factor
     * @param beta summand
     */
    public static void affine(Tensor out, Tensor x, double alpha, double beta) {
        try (Call call = Call.begin()) {
            call.check(df_affine(
                    call.use(out, "out"), call.use(x, "x"), alpha, beta));
        }
    }

    /**
     * Copies, converting the dtype and broadcasting.
     *
     * <pre>{@code
     * out = x, converted to out's dtype (float to float, or I32 to I32) and broadcast to out's shape.
     * }</pre>
     *
     * @param out the copy
     * @param x any shape that broadcasts to out
     */
    public static void copy(Tensor out, Tensor x) {
        try (Call call = Call.begin()) {
            call.check(df_copy(
                    call.use(out, "out"), call.use(x, "x")));
        }
    }

    /**
     * Sets every element.
     *
     * <pre>{@code
     * out = value in every element. I32 too.
     * }</pre>
     *
     * @param out what is set
     * @param value the value, rounded to the dtype
     */
    public static void fill(Tensor out, double value) {
        try (Call call = Call.begin()) {
            call.check(df_fill(
                    call.use(out, "out"), value));
        }
    }

    /**
     * Reduces over axes.
     *
     * <pre>{@code
     * Reduces the given axes. out has x's shape with those axes 1, or without them. Sums are
     *  taken pairwise or in double. out: dtype of x, or acc.
     * }</pre>
     *
     * @param out the result, in the dtype of x or acc; the shape of x without the axes, or with 1 there
     * @param x any shape
     * @param op what is taken
     * @param axes which axes; none for all
     */
    public static void reduceForward(Tensor out, Tensor x, Reduction op, int... axes) {
        int code = Arguments.notNull(op, "op").ordinal();
        int mask = axisMask(x, axes);
        try (Call call = Call.begin()) {
            call.check(df_reduce_forward(
                    call.use(out, "out"), call.use(x, "x"), code, mask));
        }
    }

    /**
     * Gradient of {@link #reduceForward a reduction}.
     *
     * <pre>{@code
     * dx from dout (shaped like out). max and min send the gradient to the first extreme element. out as computed by forward.
     * }</pre>
     *
     * @param dx shaped like x, assigned
     * @param dout gradient of the result
     * @param x the argument of forward
     * @param out the result, as computed by forward
     * @param op what was taken
     * @param axes as in forward
     */
    public static void reduceBackward(Tensor dx, Tensor dout, Tensor x, Tensor out, Reduction op, int... axes) {
        int code = Arguments.notNull(op, "op").ordinal();
        int mask = axisMask(x, axes);
        try (Call call = Call.begin()) {
            call.check(df_reduce_backward(
                    call.use(dx, "dx"), call.use(dout, "dout"), call.use(x, "x"), call.use(out, "out"), code, mask));
        }
    }

    /**
     * Index of the largest element along the last axis.
     *
     * <pre>{@code
     * out[..] = index of the first largest element along the last axis. out I32, x without its last axis. NaN counts as largest.
     * }</pre>
     *
     * @param out I32, the shape of x without its last axis
     * @param x rank at least 1
     */
    public static void argmax(Tensor out, Tensor x) {
        try (Call call = Call.begin()) {
            call.check(df_argmax(
                    call.use(out, "out"), call.use(x, "x")));
        }
    }

    /**
     * Sum of squares, in a fixed order.
     *
     * <pre>{@code
     * sumsq () acc (+)= sum x^2 in a fixed order; adds when accumulate.
     * }</pre>
     *
     * @param sumsq () acc
     * @param x any shape
     * @param accumulate whether to add to what is there instead of assigning
     */
    public static void squaredNorm(Tensor sumsq, Tensor x, boolean accumulate) {
        try (Call call = Call.begin()) {
            call.check(df_squared_norm(
                    call.use(sumsq, "sumsq"), call.use(x, "x"), flag(accumulate)));
        }
    }

    /**
     * Factor that clips a global gradient norm.
     *
     * <pre>{@code
     * scale () = min(1, maxNorm / (sqrt(sumsq) + 1e-6)); NaN or inf when sumsq is. Both acc.
     * }</pre>
     *
     * <p>Source: Pascanu et al. 2012, arXiv:1211.5063.
     *
     * @param scale () acc, receives the factor
     * @param sumsq () acc, the sum of squares over all gradients
     * @param maxNorm largest norm allowed
     */
    public static void clipScale(Tensor scale, Tensor sumsq, double maxNorm) {
        try (Call call = Call.begin()) {
            call.check(df_clip_scale(
                    call.use(scale, "scale"), call.use(sumsq, "sumsq"), maxNorm));
        }
    }

    /**
     * The decision over a step, taken on the device, so that a {@link Device#capture captured} step needs no host.
     *
     * <pre>{@code
     * finite says whether sumsq and loss (optional) are.
     *    scale = min(1, maxNorm / (sqrt(sumsq) + 1e-6)) (1 without maxNorm),  step += 1      if finite
     *    scale = NaN, step as it was                                          if not: adamwRanges then changes nothing
     *  scale () acc  step () I32  sumsq () acc  loss () acc (optional)  maxNorm () acc, above 0 (optional).
     * }</pre>
     *
     * @param scale () acc, factor of every gradient
     * @param step () I32, counts the steps that were taken
     * @param sumsq () acc, sum of squares of the gradients
     * @param loss () acc; null for none
     * @param maxNorm () acc, largest norm allowed; null for any
     */
    public static void clipStep(Tensor scale, Tensor step, Tensor sumsq, Tensor loss, Tensor maxNorm) {
        try (Call call = Call.begin()) {
            call.check(df_clip_step(
                    call.use(scale, "scale"), call.use(step, "step"), call.use(sumsq, "sumsq"), call.optional(loss, "loss"),
                    call.optional(maxNorm, "maxNorm")));
        }
    }

    /**
     * One AdamW step with decoupled weight decay.
     *
     * <pre>{@code
     * AdamW with decoupled decay (Loshchilov and Hutter 1711.05101), step >= 1:
     *    g = scale grad;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  p -= lr (weightDecay p + mhat / (sqrt(vhat) + eps)),
     *       hats divide by 1 - b^step
     *  param any float  m v acc  grad any float  master acc (optional: then it is updated and param = its rounding)  scale () acc
     *  (optional; 1). All but scale have param's shape.
     * }</pre>
     *
     * <p>Source: Loshchilov and Hutter 2017, arXiv:1711.05101.
     *
     * @param param updated, any float
     * @param m updated, acc
     * @param v updated, acc
     * @param master updated, acc, of which param is the rounding; null for none
     * @param grad any float
     * @param scale () acc, factor of grad; null for 1
     * @param lr learning rate
     * @param beta1 decay of m
     * @param beta2 decay of v
     * @param eps added to the root
     * @param weightDecay decoupled decay
     * @param step from 1
     */
    public static void adamwStep(Tensor param, Tensor m, Tensor v, Tensor master, Tensor grad, Tensor scale, double lr, double beta1,
            double beta2, double eps, double weightDecay, long step) {
        try (Call call = Call.begin()) {
            call.check(df_adamw_step(
                    call.use(param, "param"), call.use(m, "m"), call.use(v, "v"), call.optional(master, "master"),
                    call.use(grad, "grad"), call.optional(scale, "scale"), lr, beta1, beta2, eps, weightDecay, step));
        }
    }

    /**
     * {@link #adamwStep} over parts of flat tensors in one call, bit for bit as one call for each part; the numbers of the step come from
     * the host, or from the device.
     *
     * <pre>{@code
     * Part i is the elements bounds[2i]..bounds[2i+1]-1 and has the decay weightDecays[i]; parts ascend. With rates and steps (both or
     *  neither) the numbers of the step come from the device instead of lr and step: step number s = steps, from 1, as clipStep counts it,
     *  has the learning rate rates[min(s, K) - 1], and where scale is not finite, or s < 1, nothing changes.
     *  param m v master grad (N), contiguous, dtypes as in adamwStep  scale () acc (optional; 1)  rates (K) acc  steps () I32.
     * }</pre>
     *
     * <p>Source: Loshchilov and Hutter 2017, arXiv:1711.05101.
     *
     * @param param updated, any float
     * @param m updated, acc
     * @param v updated, acc
     * @param master updated, acc, of which param is the rounding; null for none
     * @param grad any float
     * @param scale () acc, factor of grad; null for 1
     * @param rates (K) acc, learning rate of each step; null for lr
     * @param steps () I32, number of this step, from 1; null for step
     * @param bounds first element and one past the last of each part
     * @param weightDecays decoupled decay of each part
     * @param lr learning rate, without rates
     * @param beta1 decay of m
     * @param beta2 decay of v
     * @param eps added to the root
     * @param step from 1, without steps
     */
    public static void adamwRanges(Tensor param, Tensor m, Tensor v, Tensor master, Tensor grad, Tensor scale, Tensor rates, Tensor steps,
            long[] bounds, double[] weightDecays, double lr, double beta1, double beta2, double eps, long step) {
        int count = Arguments.notNull(weightDecays, "weightDecays").length;
        if (Arguments.notNull(bounds, "bounds").length != 2 * count) {
            throw new InvalidArgumentException("bounds: " + bounds.length + " numbers, expected two for each of " + count
                    + " weight decays");
        }
        try (Call call = Call.begin()) {
            call.check(df_adamw_ranges(
                    call.use(param, "param"), call.use(m, "m"), call.use(v, "v"), call.optional(master, "master"),
                    call.use(grad, "grad"), call.optional(scale, "scale"), call.optional(rates, "rates"), call.optional(steps, "steps"),
                    bounds, weightDecays, count, lr, beta1, beta2, eps, step));
        }
    }

    /**
     * One SGD step.
     *
     * <pre>{@code
     * g = scale grad + weightDecay p;  buf = momentum buf + g (g itself without buf);  p -= lr buf.   momentumBuffer acc (optional).
     * }</pre>
     *
     * @param param updated, any float
     * @param momentumBuffer updated, acc; null for none
     * @param master updated, acc, of which param is the rounding; null for none
     * @param grad any float
     * @param scale () acc, factor of grad; null for 1
     * @param lr learning rate
     * @param momentum factor of the buffer
     * @param weightDecay added to the gradient, times param
     */
    public static void sgdStep(Tensor param, Tensor momentumBuffer, Tensor master, Tensor grad, Tensor scale, double lr,
            double momentum, double weightDecay) {
        try (Call call = Call.begin()) {
            call.check(df_sgd_step(
                    call.use(param, "param"), call.optional(momentumBuffer, "momentumBuffer"), call.optional(master, "master"),
                    call.use(grad, "grad"), call.optional(scale, "scale"), lr, momentum, weightDecay));
        }
    }

    /**
     * Uniform draws.
     *
     * <pre>{@code
     * Philox4x32-10 counter-based draws: element i uses words (i mod 4) of block (offset + i/4) under key seed, i in row-major order,
     *  whatever the strides: uniform = lo + (hi - lo) u, u = (word + 0.5) 2^-32 (computed in double; F32 below hi).
     * }</pre>
     *
     * <p>Source: Salmon et al. 2011 (Philox4x32-10).
     *
     * @param out what is set
     * @param seed the key
     * @param offset the first block of the counter
     * @param lo lower end
     * @param hi upper end
     */
    public static void randomUniform(Tensor out, long seed, long offset, double lo, double hi) {
        try (Call call = Call.begin()) {
            call.check(df_random_uniform(
                    call.use(out, "out"), seed, offset, lo, hi));
        }
    }

    /**
     * Normal draws.
     *
     * <pre>{@code
     * Box-Muller on word pairs (0,1) and (2,3) of the same blocks, in double: r = sqrt(-2 ln u0), mean + std r cos/sin(2 pi u1).
     * }</pre>
     *
     * <p>Source: Salmon et al. 2011 (Philox4x32-10).
     *
     * @param out what is set
     * @param seed the key
     * @param offset the first block of the counter
     * @param mean their mean
     * @param std their standard deviation
     */
    public static void randomNormal(Tensor out, long seed, long offset, double mean, double std) {
        try (Call call = Call.begin()) {
            call.check(df_random_normal(
                    call.use(out, "out"), seed, offset, mean, std));
        }
    }

    /**
     * {@link #randomUniform} with the generator's state on the device, so that a {@link Device#capture captured} fill draws anew at each
     * replay.
     *
     * <pre>{@code
     * The same draws with the generator's state on the device: state (4) I32 holds the words seed, seed >> 32, offset, offset >> 32;
     *  afterwards offset has moved on by the blocks that were used, ceil(n/4).
     * }</pre>
     *
     * <p>Source: Salmon et al. 2011 (Philox4x32-10).
     *
     * @param out what is set
     * @param state (4) I32, updated
     * @param lo lower end
     * @param hi upper end
     */
    public static void randomUniformNext(Tensor out, Tensor state, double lo, double hi) {
        try (Call call = Call.begin()) {
            call.check(df_random_uniform_next(
                    call.use(out, "out"), call.use(state, "state"), lo, hi));
        }
    }

    /**
     * {@link #randomNormal} with the generator's state on the device, as {@link #randomUniformNext} has it.
     *
     * <pre>{@code
     * Box-Muller on word pairs (0,1) and (2,3) of the same blocks, in double: r = sqrt(-2 ln u0), mean + std r cos/sin(2 pi u1).
     * }</pre>
     *
     * <p>Source: Salmon et al. 2011 (Philox4x32-10).
     *
     * @param out what is set
     * @param state (4) I32, updated
     * @param mean their mean
     * @param std their standard deviation
     */
    public static void randomNormalNext(Tensor out, Tensor state, double mean, double std) {
        try (Call call = Call.begin()) {
            call.check(df_random_normal_next(
                    call.use(out, "out"), call.use(state, "state"), mean, std));
        }
    }
}
