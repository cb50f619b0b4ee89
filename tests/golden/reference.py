"""The operations of df_ops.h that have no counterpart in PyTorch, written the plain way: every matrix materialised, every sum
explicit, every recurrence token by token. Differentiable by autograd and usable in any dtype, so that the same text gives the
float64 reference and the naive float32 or bfloat16 result its error is measured against.

B batch, T queries, S keys, NH query heads, NKV key/value heads, HS head size.
"""
import torch


def accumulation(dtype):
    """The dtype in which df_ops.h accumulates: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def visible(B, T, S, lengths, causal):
    """Which key each query may attend: bool (B,1,T,S)."""
    t, s = torch.arange(T)[:, None], torch.arange(S)[None, :]
    seen = (s <= t + S - T) if causal else torch.ones(T, S, dtype=torch.bool)
    seen = seen.expand(B, 1, T, S)
    if lengths is not None:
        seen = seen & (s < lengths.long()[:, None, None, None])
    return seen


def heads_first(x, NH):
    """(B,S,NKV,HS) to (B,NH,S,HS), each key head repeated for its group of query heads."""
    return x.permute(0, 2, 1, 3).repeat_interleave(NH // x.shape[2], dim=1)


class SavedAttention(torch.autograd.Function):
    """Heads-first attention whose backward works from the saved out and lse, as df_ops.h writes it."""

    @staticmethod
    def forward(ctx, q, k, v, seen, scale):
        scores = ((q @ k.transpose(-1, -2)) * scale).masked_fill(~seen, float("-inf"))
        top = scores.amax(-1, keepdim=True).clamp(min=torch.finfo(q.dtype).min)
        weights = torch.exp(scores - top)
        total = weights.sum(-1, keepdim=True)
        out = (weights @ v) / torch.where(total > 0, total, torch.ones_like(total))
        acc = accumulation(q.dtype)
        lse = torch.where(total > 0, top.to(acc) + torch.log(total.to(acc)), torch.zeros_like(total, dtype=acc))
        ctx.save_for_backward(q, k, v, seen, out, lse)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, dout):
        q, k, v, seen, out, lse = ctx.saved_tensors
        scores = ((q @ k.transpose(-1, -2)) * ctx.scale).masked_fill(~seen, float("-inf"))
        P = torch.exp(scores - lse).to(q.dtype)
        dS = P * (dout @ v.transpose(-1, -2) - (dout * out).sum(-1, keepdim=True))
        return (dS @ k) * ctx.scale, (dS.transpose(-1, -2) @ q) * ctx.scale, P.transpose(-1, -2) @ dout, None, None


def attention(q, k, v, lengths=None, scale=1.0, causal=True, saved=False):
    """out (B,T,NH,HS), and lse (B,NH,T) taken in the accumulation dtype. saved: by SavedAttention."""
    B, T, NH, _ = q.shape
    seen = visible(B, T, k.shape[1], lengths, causal)
    some = seen.any(-1, keepdim=True)
    qh, kh, vh = q.permute(0, 2, 1, 3), heads_first(k, NH), heads_first(v, NH)
    if saved:
        out = SavedAttention.apply(qh, kh, vh, seen, scale)
    else:
        scores = (qh @ kh.transpose(-1, -2)) * scale
        # A row that sees nothing is given a harmless softmax first and zeroed after, so that no gradient meets inf - inf.
        weights = torch.softmax(scores.masked_fill(~seen & some, float("-inf")), dim=-1)
        out = torch.where(some, weights, torch.zeros_like(weights)) @ vh
    with torch.no_grad():
        acc = accumulation(q.dtype)
        exact = (qh.to(acc) @ kh.to(acc).transpose(-1, -2)) * scale
        lse = torch.logsumexp(exact.masked_fill(~seen, float("-inf")), dim=-1)
    return out.permute(0, 2, 1, 3), lse


def momentum_term(v, eta, T, NH, lengths=None, state_in=None):
    """m_p = sum_{s<p} eta^(p-s) v_s for p = S-T .. S: (B,NH,T+1,HS), the last being the state after the last key.
    With state_in (B,NH,HS) = m at S-T, only the keys from S-T on are summed."""
    B, S = v.shape[:2]
    p, s = torch.arange(S - T, S + 1)[:, None], torch.arange(S)[None, :]
    summed = (s < p).expand(B, 1, T + 1, S)
    if state_in is not None:
        summed = summed & (s >= S - T)
    if lengths is not None:
        summed = summed & (s < lengths.long()[:, None, None, None])
    power = eta[:, None, None] ** (p - s).clamp(min=1).to(eta.dtype)
    weights = torch.where(summed, power, torch.zeros_like(power)).to(v.dtype)
    m = weights @ heads_first(v, NH)
    if state_in is not None:
        carried = eta[:, None] ** torch.arange(T + 1).to(eta.dtype)
        m = m + carried[None, :, :, None] * state_in[:, :, None, :]
    return m


def momentum_by_recurrence(v, eta, T, NH, lengths=None):
    """momentum_term by m_p = eta (m_{p-1} + v_{p-1}) with the state in the accumulation dtype."""
    B, S, _, HS = v.shape
    acc = accumulation(v.dtype)
    vh, eta = heads_first(v, NH).to(acc), eta.to(acc)[:, None]
    if lengths is not None:
        vh = torch.where((torch.arange(S) < lengths.long()[:, None])[:, None, :, None], vh, torch.zeros_like(vh))
    m = [torch.zeros(B, NH, HS, dtype=acc)]
    for s in range(S):
        m.append(eta * (m[-1] + vh[:, :, s]))
    return torch.stack([m[max(p, 0)] for p in range(S - T, S + 1)], dim=2).to(v.dtype)


def momentum_attention(q, k, v, eta, lengths=None, state_in=None, scale=1.0, saved=False):
    """out, attn (B,T,NH,HS), lse (B,NH,T), state_out (B,NH,HS). saved: SavedAttention and the recurrence, without state_in."""
    T, NH = q.shape[1:3]
    attn, lse = attention(q, k, v, lengths, scale, causal=True, saved=saved)
    m = momentum_by_recurrence(v, eta, T, NH, lengths) if saved else momentum_term(v, eta, T, NH, lengths, state_in)
    return attn + m[:, :, :T].permute(0, 2, 1, 3), attn, lse, m[:, :, T]


def dual_form(w0, e, xp, x, form="primal"):
    """out (M,O), and delta_w (O,I) summed one outer product at a time in the accumulation dtype."""
    acc = accumulation(w0.dtype)
    with torch.no_grad():
        delta_w = sum(torch.outer(e_n, xp_n) for e_n, xp_n in zip(e.to(acc), xp.to(acc)))
    if form == "dual":
        return x @ w0.T + (x @ xp.T) @ e, delta_w
    return x @ (w0 + e.T @ xp).T, delta_w


def linear_attention(q, k, v, decay=None, state_in=None):
    """out (B,T,NH,HS), state (B,NH,HS,HS) with the value index before the key index."""
    B, T, NH, HS = q.shape
    state = torch.zeros(B, NH, HS, HS, dtype=q.dtype) if state_in is None else state_in
    outs = []
    for t in range(T):
        if decay is not None:
            state = decay[:, None, None] * state
        state = state + v[:, t, :, :, None] * k[:, t, :, None, :]
        outs.append((state @ q[:, t, :, :, None])[..., 0])
    return torch.stack(outs, dim=1), state


def linear_attention_by_pairs(q, k, v, decay=None, state_in=None):
    """linear_attention as a sum over pairs of tokens: out_t = sum_{s<=t} decay^(t-s) (q_t . k_s) v_s + decay^(t+1) state_in q_t."""
    T, NH = q.shape[1:3]
    decay = torch.ones(NH, dtype=q.dtype) if decay is None else decay
    q, k, v = (x.permute(0, 2, 1, 3) for x in (q, k, v))
    age = torch.arange(T)[:, None] - torch.arange(T)[None, :]
    power = decay[:, None, None] ** age.clamp(min=0).to(decay.dtype)
    weights = torch.where(age >= 0, power, torch.zeros_like(power))
    out = ((q @ k.transpose(-1, -2)) * weights) @ v
    state = (weights[:, -1, :, None] * v).transpose(-1, -2) @ k
    if state_in is not None:
        carried = decay[:, None] ** torch.arange(1, T + 1).to(decay.dtype)
        out = out + carried[:, :, None] * (q @ state_in.transpose(-1, -2))
        state = state + carried[:, -1, None, None] * state_in
    return out.permute(0, 2, 1, 3), state
