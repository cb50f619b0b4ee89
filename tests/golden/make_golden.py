"""Writes the golden tensors: python tests/golden/make_golden.py tests/golden/data

One safetensors file is one call of one function of df_ops.h (a forward with its backward where there is one), computed by PyTorch
in float64. README.md beside this file says how names and settings are stored.
"""
import json
import math
import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import reference

FOLDER = None
SIZES = {}


def text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def sort_metadata(path):
    """The library writes the metadata in the order of a hash map; sorted, the same tensors always make the same file."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    compact = json.dumps(header, separators=(",", ":")).encode()
    compact += b" " * (-len(compact) % 8)
    path.write_bytes(len(compact).to_bytes(8, "little") + compact + content[end:])


def write(function, case, tensors, **settings):
    """tensors and settings under the argument names of df_<function>; None means the optional argument is absent."""
    stored = {name: t.detach().contiguous().clone() for name, t in tensors.items() if t is not None}
    path = FOLDER / f"{function}-{case}.safetensors"
    save_file(stored, str(path), {"function": function, **{name: text(value) for name, value in settings.items()}})
    sort_metadata(path)
    SIZES[path.name] = path.stat().st_size


class Draw:
    """Seeded tensors; every case has a seed of its own, so adding one leaves the others as they are."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape, mean=0.0, std=1.0):
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64) * std + mean

    def uniform(self, *shape, lo=0.0, hi=1.0):
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64) * (hi - lo) + lo

    def integers(self, *shape, below):
        return torch.randint(0, below, shape, generator=self.generator, dtype=torch.int32)


def gradients(outputs, inputs):
    """Gradients of sum <output, doutput> for (output, doutput) pairs; an input no output depends on gets zeros."""
    total = sum((out * dout).sum() for out, dout in outputs)
    found = torch.autograd.grad(total, inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found)]


def leaves(*tensors):
    return [None if t is None else t.clone().requires_grad_(True) for t in tensors]


def i32(*values):
    return torch.tensor(values, dtype=torch.int32)


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


# ---- attention ----

def attention_case(case, seed, B, T, S, NH, NKV, HS, causal=True, lengths=None, scale=None, key_mean=0.0):
    draw = Draw(seed)
    scale = 1.0 / math.sqrt(HS) if scale is None else scale
    q, k, v = leaves(draw.normal(B, T, NH, HS), draw.normal(B, S, NKV, HS, mean=key_mean), draw.normal(B, S, NKV, HS))
    dout = draw.normal(B, T, NH, HS)
    out, lse = reference.attention(q, k, v, lengths, scale, causal)
    dq, dk, dv = gradients([(out, dout)], [q, k, v])
    write("attention", case, dict(out=out, lse=lse, q=q, k=k, v=v, lengths=lengths, dout=dout, dq=dq, dk=dk, dv=dv),
          scale=scale, causal=causal)


def attention():
    attention_case("causal", 101, 2, 6, 6, 2, 2, 5)
    attention_case("causal-fewer-queries-grouped", 102, 2, 3, 7, 4, 2, 5)
    attention_case("causal-more-queries", 103, 2, 7, 4, 2, 1, 1, scale=0.7)
    attention_case("causal-lengths", 104, 3, 5, 7, 2, 1, 5, lengths=i32(0, 2, 7))
    attention_case("full-lengths", 105, 3, 4, 6, 2, 1, 5, causal=False, lengths=i32(0, 3, 6))
    attention_case("head40-peaked", 106, 1, 5, 5, 1, 1, 40, scale=0.6, key_mean=1.0)
    attention_case("full-one-query", 107, 1, 1, 19, 3, 3, 8, causal=False)


def momentum_case(case, seed, B, T, S, NH, NKV, HS, eta, lengths=None, deta_before=None):
    draw = Draw(seed)
    scale = 1.0 / math.sqrt(HS)
    q, k, v, eta = leaves(draw.normal(B, T, NH, HS), draw.normal(B, S, NKV, HS), draw.normal(B, S, NKV, HS), eta)
    dout = draw.normal(B, T, NH, HS)
    out, attn, lse, state = reference.momentum_attention(q, k, v, eta, lengths, None, scale)
    dq, dk, dv, deta = gradients([(out, dout)], [q, k, v, eta])
    accumulate = deta_before is not None
    write("momentum_attention", case,
          dict(out=out, attn=attn, lse=lse, state_out=state, q=q, k=k, v=v, lengths=lengths, eta=eta, dout=dout, dq=dq, dk=dk, dv=dv,
               deta=deta + deta_before if accumulate else deta, deta_before=deta_before),
          scale=scale, accumulate_deta=accumulate)


def momentum_state_case(case, seed, B, T, S, NH, NKV, HS, eta, lengths=None, carried=True):
    """Forward only. carried: state_in is what the earlier keys leave, and the result is checked to be that of the whole
    sequence; otherwise state_in is arbitrary."""
    draw = Draw(seed)
    scale = 1.0 / math.sqrt(HS)
    q, k, v = draw.normal(B, T, NH, HS), draw.normal(B, S, NKV, HS), draw.normal(B, S, NKV, HS)
    state_in = reference.momentum_term(v, eta, T, NH, lengths)[:, :, 0] if carried else draw.normal(B, NH, HS)
    out, attn, lse, state = reference.momentum_attention(q, k, v, eta, lengths, state_in, scale)
    if carried:
        whole, _, _, last = reference.momentum_attention(q, k, v, eta, lengths, None, scale)
        assert (out - whole).abs().max() < 1e-14 and (state - last).abs().max() < 1e-14
    write("momentum_attention", case,
          dict(out=out, attn=attn, lse=lse, state_out=state, q=q, k=k, v=v, lengths=lengths, eta=eta, state_in=state_in), scale=scale)


def momentum_attention():
    momentum_case("causal", 201, 2, 6, 6, 2, 2, 5, f64(0.9, 0.0))
    momentum_case("fewer-queries-grouped-lengths", 202, 3, 3, 7, 4, 2, 3, f64(0.0, 0.5, 0.99, 0.25), lengths=i32(0, 3, 7))
    momentum_case("more-queries", 203, 2, 7, 4, 2, 1, 1, f64(0.75, 0.0))
    momentum_case("head40-accumulate", 204, 1, 5, 5, 1, 1, 40, f64(0.97), deta_before=f64(1.5))
    momentum_case("lengths", 205, 3, 8, 8, 2, 2, 2, f64(0.6, 0.95), lengths=i32(0, 1, 5))
    momentum_state_case("state-carried", 206, 2, 3, 9, 2, 1, 5, f64(0.9, 0.3))
    momentum_state_case("state-arbitrary-lengths", 207, 2, 4, 9, 2, 2, 5, f64(0.8, 0.5), lengths=i32(7, 3), carried=False)
    momentum_state_case("state-one-token", 208, 1, 1, 6, 2, 2, 5, f64(0.99, 0.1))


# ---- the dual form ----

def dual_form_case(case, seed, M, N, O, I, form, accumulate=False):
    draw = Draw(seed)
    w0, e, xp, x = leaves(draw.normal(O, I), draw.normal(N, O), draw.normal(N, I), draw.normal(M, I))
    dout = draw.normal(M, O)
    out, delta_w = reference.dual_form(w0, e, xp, x, "dual" if form == "dual" else "primal")
    dw0, de, dxp, dx = gradients([(out, dout)], [w0, e, xp, x])
    before = draw.normal(O, I) if accumulate else None
    write("dual_form", case,
          dict(out=out, delta_w=delta_w, w0=w0, e=e, xp=xp, x=x, dout=dout, dw0=dw0 + before if accumulate else dw0, dw0_before=before,
               de=de, dxp=dxp, dx=dx),
          form=form, accumulate_dw0=accumulate)


def dual_form():
    dual_form_case("primal", 301, 7, 9, 5, 6, "primal")
    dual_form_case("dual", 302, 3, 4, 11, 9, "dual")
    dual_form_case("auto-many-examples", 303, 13, 17, 3, 4, "auto", accumulate=True)
    dual_form_case("auto-one-query", 304, 1, 2, 12, 10, "auto")

    for case, seed, accumulate in (("assign", 311, False), ("add", 312, True)):
        draw = Draw(seed)
        e, xp = draw.normal(9, 5), draw.normal(9, 7)
        before = draw.normal(5, 7) if accumulate else None
        total = sum(torch.outer(e_n, xp_n) for e_n, xp_n in zip(e, xp))
        write("delta_accumulate", case, dict(delta_w=total + before if accumulate else total, delta_w_before=before, e=e, xp=xp),
              accumulate=accumulate)

    for case, seed, base in (("with-w0", 321, True), ("alone", 322, False)):
        draw = Draw(seed)
        x, w0, delta_w = draw.normal(6, 7), draw.normal(5, 7) if base else None, draw.normal(5, 7)
        write("delta_apply", case, dict(out=F.linear(x, delta_w + w0 if base else delta_w), x=x, w0=w0, delta_w=delta_w))


def linear_attention_case(case, seed, B, T, NH, HS, decay=None, state=False, accumulate=False):
    draw = Draw(seed)
    q, k, v, decay = leaves(draw.normal(B, T, NH, HS), draw.normal(B, T, NH, HS), draw.normal(B, T, NH, HS), decay)
    state_in, = leaves(draw.normal(B, NH, HS, HS) if state else None)
    dout = draw.normal(B, T, NH, HS)
    dstate_out = draw.normal(B, NH, HS, HS) if state else None
    out, state_out = reference.linear_attention(q, k, v, decay, state_in)
    outputs = [(out, dout)] + ([(state_out, dstate_out)] if state else [])
    names = {"q": q, "k": k, "v": v, "decay": decay, "state_in": state_in}
    wanted = {name: t for name, t in names.items() if t is not None}
    grads = {"d" + name: g for name, g in zip(wanted, gradients(outputs, list(wanted.values())))}
    if accumulate:
        grads["ddecay_before"] = draw.normal(NH)
        grads["ddecay"] = grads["ddecay"] + grads["ddecay_before"]
    write("linear_attention", case, dict(out=out, state_out=state_out, **names, dout=dout, dstate_out=dstate_out, **grads),
          accumulate_ddecay=accumulate)


def linear_attention():
    linear_attention_case("plain", 401, 2, 7, 2, 5)
    linear_attention_case("decay", 402, 2, 9, 3, 4, decay=f64(0.0, 1.0, 0.9))
    linear_attention_case("decay-state", 403, 2, 6, 2, 5, decay=f64(0.5, 0.99), state=True, accumulate=True)
    linear_attention_case("state-head16", 404, 1, 5, 1, 16, state=True)
    linear_attention_case("decay-zero-state-head1", 405, 1, 4, 3, 1, decay=f64(0.0, 1.0, 0.7), state=True)


# ---- around them ----

def matmul_case(case, seed, a_shape, b_shape, trans_a=False, trans_b=False, bias=False, accumulate=False):
    draw = Draw(seed)
    a, b = draw.normal(*a_shape), draw.normal(*b_shape)
    out = (a.transpose(-1, -2) if trans_a else a) @ (b.transpose(-1, -2) if trans_b else b)
    bias = draw.normal(out.shape[-1]) if bias else None
    before = draw.normal(*out.shape) if accumulate else None
    out = out if bias is None else out + bias
    write("matmul", case, dict(out=out + before if accumulate else out, out_before=before, a=a, b=b, bias=bias),
          trans_a=trans_a, trans_b=trans_b, accumulate=accumulate)


def matmul():
    matmul_case("plain", 501, (5, 7), (7, 3))
    matmul_case("trans-a", 502, (9, 4), (9, 6), trans_a=True)
    matmul_case("trans-b-bias", 503, (4, 33), (6, 33), trans_b=True, bias=True)
    matmul_case("trans-both-accumulate", 504, (8, 5), (3, 8), trans_a=True, trans_b=True, accumulate=True)
    matmul_case("batch", 505, (2, 3, 4, 5), (2, 3, 5, 2))
    matmul_case("batch-trans-b-accumulate", 506, (3, 4, 5), (3, 2, 5), trans_b=True, accumulate=True)
    matmul_case("batch-shared-b-bias", 507, (3, 4, 5), (5, 6), bias=True)
    matmul_case("batch-trans-a-shared-b", 508, (2, 5, 4), (6, 5), trans_a=True, trans_b=True)
    matmul_case("bias-accumulate", 509, (1, 40), (40, 9), bias=True, accumulate=True)


def bias_backward():
    for case, seed, accumulate in (("assign", 521, False), ("add", 522, True)):
        draw = Draw(seed)
        dout = draw.normal(3, 4, 5)
        before = draw.normal(5) if accumulate else None
        dbias = dout.sum((0, 1))
        write("bias_backward", case, dict(dbias=dbias + before if accumulate else dbias, dbias_before=before, dout=dout),
              accumulate=accumulate)


def layernorm_case(case, seed, shape, residual=False, dsum=False, accumulate=False, mean=0.0, eps=1e-5):
    draw = Draw(seed)
    C = shape[-1]
    x, weight, bias = leaves(draw.normal(*shape, mean=mean), draw.normal(C, mean=1.0, std=0.3), draw.normal(C))
    residual = draw.normal(*shape) if residual else None
    total = x if residual is None else x + residual
    out = F.layer_norm(total, (C,), weight, bias, eps)
    rows = total.reshape(-1, C)
    dout = draw.normal(*shape)
    dsum = draw.normal(*shape) if dsum else None
    dx, dweight, dbias = gradients([(out, dout)] + ([] if dsum is None else [(total, dsum)]), [x, weight, bias])
    before = (draw.normal(C), draw.normal(C)) if accumulate else (None, None)
    write("residual_layernorm", case,
          dict(sum=total, out=out, mean=rows.mean(1), rstd=1 / torch.sqrt(rows.var(1, unbiased=False) + eps), x=x, residual=residual,
               weight=weight, bias=bias, dout=dout, dsum=dsum, dx=dx, dweight=dweight + before[0] if accumulate else dweight,
               dbias=dbias + before[1] if accumulate else dbias, dweight_before=before[0], dbias_before=before[1]),
          eps=eps, accumulate=accumulate)


def residual_layernorm():
    layernorm_case("plain", 601, (5, 9))
    layernorm_case("residual-dsum", 602, (2, 3, 16), residual=True, dsum=True)
    layernorm_case("residual-accumulate-large-mean", 603, (4, 33), residual=True, accumulate=True, mean=300.0)
    layernorm_case("dsum-three-channels", 604, (6, 3), dsum=True, eps=1e-3)


def gelu_case(case, seed, kind, bias=True, accumulate=False):
    draw = Draw(seed)
    rows, C = 6, 7
    x, = leaves(torch.cat([draw.normal(rows - 1, C, std=2.0), f64(-30.0, -8.0, -1e-9, 0.0, 1e-9, 8.0, 30.0)[None]]))
    b, = leaves(draw.normal(C, std=0.5) if bias else None)
    out = F.gelu(x if b is None else x + b, approximate="tanh" if kind == "tanh" else "none")
    dout = draw.normal(rows, C)
    dx, = gradients([(out, dout)], [x])
    dbias = dx.sum(0) if bias else None
    before = draw.normal(C) if accumulate else None
    write("bias_gelu", case, dict(out=out, x=x, bias=b, dout=dout, dx=dx, dbias=dbias + before if accumulate else dbias,
                                  dbias_before=before), kind=kind, accumulate=accumulate)


def bias_gelu():
    gelu_case("exact", 611, "exact")
    gelu_case("tanh", 612, "tanh")
    gelu_case("exact-no-bias", 613, "exact", bias=False)
    gelu_case("tanh-accumulate", 614, "tanh", accumulate=True)


def embedding_case(case, seed, B, T, V, P, C, position=0, accumulate=False):
    draw = Draw(seed)
    ids = draw.integers(B, T, below=V)
    ids[0, 0], ids[-1, -1] = V - 1, 0
    wte, wpe = leaves(draw.normal(V, C), draw.normal(P, C) if P else None)
    out = F.embedding(ids.long(), wte)
    if P:
        out = out + wpe[position:position + T]
    dout = draw.normal(B, T, C)
    grads = gradients([(out, dout)], [wte, wpe] if P else [wte])
    dwte, dwpe = grads if P else (grads[0], None)
    te, pe = (draw.normal(V, C), draw.normal(P, C)) if accumulate else (None, None)
    write("embedding", case, dict(out=out, ids=ids, wte=wte, wpe=wpe, dout=dout, dwte=dwte + te if accumulate else dwte,
                                  dwpe=dwpe + pe if accumulate else dwpe, dwte_before=te, dwpe_before=pe),
          position=position, accumulate=accumulate)


def embedding():
    embedding_case("positions", 621, 2, 5, 7, 5, 6)
    embedding_case("later-position-accumulate", 622, 3, 4, 5, 9, 3, position=5, accumulate=True)
    embedding_case("tokens-only", 623, 2, 9, 4, 0, 5)


def cross_entropy_case(case, seed, N, V, ignored=(), ignore_index=-100, mean=0.0, std=1.0):
    draw = Draw(seed)
    logits, = leaves(draw.normal(N, V, mean=mean, std=std))
    targets = draw.integers(N, below=V)
    for n in ignored:
        targets[n] = ignore_index
    losses = F.cross_entropy(logits, targets.long(), ignore_index=ignore_index, reduction="none")
    count = int((targets != ignore_index).sum())
    loss = losses.sum() / max(count, 1)
    if count:
        assert torch.allclose(loss, F.cross_entropy(logits, targets.long(), ignore_index=ignore_index), rtol=1e-14, atol=0)
    dlogits, = gradients([(loss, torch.ones_like(loss))], [logits])
    write("cross_entropy", case, dict(loss=loss, losses=losses, dlogits=dlogits, logits=logits, targets=targets), ignore_index=ignore_index)


def cross_entropy():
    cross_entropy_case("plain", 631, 6, 9)
    cross_entropy_case("ignored", 632, 7, 11, ignored=(0, 3, 6), ignore_index=-1)
    cross_entropy_case("all-ignored", 633, 3, 5, ignored=(0, 1, 2))
    cross_entropy_case("large-logits", 634, 4, 17, ignored=(2,), mean=500.0, std=30.0)


UNARY = {
    "neg": torch.neg, "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal,
    "square": torch.square, "abs": torch.abs, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu, "sin": torch.sin,
    "cos": torch.cos,
}
BINARY = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "max": torch.maximum, "min": torch.minimum}


def unary():
    for number, (op, function) in enumerate(UNARY.items()):
        draw = Draw(641 + number)
        positive = op in ("log", "sqrt", "rsqrt", "reciprocal")
        x = draw.uniform(3, 13, lo=0.05, hi=9.0) if positive else draw.normal(3, 13, std=2.0)
        if op == "reciprocal":
            x[1] = -x[1]
        if op in ("abs", "relu"):
            x[0, :2] = f64(0.0, -0.0)
        x, = leaves(x)
        out = function(x)
        dout = draw.normal(3, 13)
        dx, = gradients([(out, dout)], [x])
        write("unary", op, dict(out=out, x=x, dout=dout, dx=dx), op=op)


def binary():
    shapes = {"add": ((2, 3, 5), (5,)), "sub": ((4, 1), (1, 6)), "mul": ((2, 1, 5), (3, 1)), "div": ((3, 4), (3, 4)),
              "max": ((), (2, 7)), "min": ((2, 3, 1, 4), (3, 2, 4))}
    for number, (op, function) in enumerate(BINARY.items()):
        draw = Draw(661 + number)
        a, b = (draw.normal(*shape) if shape else draw.normal(1).reshape(()) for shape in shapes[op])
        write("binary", op, dict(out=function(a, b), a=a, b=b), op=op)


def extremes_backward(dout, x, axes, op):
    """The gradient goes to the first extreme element, in row-major order over the reduced axes."""
    kept = [i for i in range(x.dim()) if i not in axes]
    order = kept + list(axes)
    rows = x.permute(order).reshape(math.prod(x.shape[i] for i in kept), -1).numpy()
    first = rows.argmax(1) if op == "max" else rows.argmin(1)
    dx = np.zeros_like(rows)
    dx[np.arange(len(rows)), first] = dout.reshape(-1).numpy()
    back = np.argsort(order).tolist()
    return torch.from_numpy(dx).reshape([x.shape[i] for i in order]).permute(back)


def reduce_case(case, seed, op, shape, axes, keep, ties=False):
    draw = Draw(seed)
    x = draw.integers(*shape, below=3).double() if ties else draw.normal(*shape, mean=50.0 if op == "mean" else 0.0)
    x, = leaves(x)
    function = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin}[op]
    out = function(x, dim=axes, keepdim=keep)
    dout = draw.normal(*out.shape) if out.dim() else draw.normal(1).reshape(())
    dx = extremes_backward(dout, x.detach(), axes, op) if op in ("max", "min") else gradients([(out, dout)], [x])[0]
    write("reduce", case, dict(out=out, x=x, dout=dout, dx=dx), op=op, axes=sum(1 << i for i in axes))


def reduce():
    reduce_case("sum-first-and-last", 671, "sum", (3, 4, 5), (0, 2), keep=True)
    reduce_case("sum-all", 672, "sum", (3, 4, 5), (0, 1, 2), keep=False)
    reduce_case("mean-middle", 673, "mean", (3, 7, 5), (1,), keep=False)
    reduce_case("max-last-ties", 674, "max", (4, 9), (1,), keep=False, ties=True)
    reduce_case("max-first-and-last-ties", 675, "max", (3, 4, 5), (0, 2), keep=False, ties=True)
    reduce_case("min-two-axes", 676, "min", (2, 3, 4), (1, 2), keep=True)


def elementwise_rest():
    draw = Draw(681)
    x = draw.normal(4, 9)
    write("affine", "scale-and-shift", dict(out=-1.75 * x + 0.3, x=x), alpha=-1.75, beta=0.3)

    x = draw.normal(3, 1)
    write("copy", "broadcast", dict(out=x.expand(2, 3, 4), x=x))
    # Around the ties of rounding to nearest even, and what must survive a conversion.
    bits = torch.tensor([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0xBF818000 - (1 << 32), 0x00000000,
                         0x80000000 - (1 << 32), 0x7F7FFFFF, 0x7F800000, 0xFF800000 - (1 << 32), 0x00400000], dtype=torch.int32)
    x = torch.cat([bits.view(torch.float32), draw.normal(20).float()])
    write("copy", "float32-to-bfloat16", dict(out=x.bfloat16(), x=x))
    write("copy", "bfloat16-to-float32", dict(out=x.bfloat16().float(), x=x.bfloat16()))
    ids = draw.integers(5, below=100)
    write("copy", "int32-broadcast", dict(out=ids.expand(3, 5), x=ids))

    write("fill", "float64", dict(out=torch.full((3, 5), -0.1, dtype=torch.float64)), value=-0.1)
    write("fill", "int32", dict(out=torch.full((7,), -100, dtype=torch.int32)), value=-100.0)

    x = draw.integers(6, 11, below=4).double()
    x[2, 5] = x[2, 8] = float("nan")
    x[3] = float("-inf")
    write("argmax", "ties-and-nan", dict(out=torch.from_numpy(x.numpy().argmax(-1)).int(), x=x))


# ---- training ----

def clipping():
    draw = Draw(701)
    x = draw.normal(5, 31)
    total = (x * x).sum()
    before = draw.uniform(1, lo=1.0, hi=2.0).reshape(())
    write("squared_norm", "assign", dict(sumsq=total, x=x), accumulate=False)
    write("squared_norm", "add", dict(sumsq=total + before, sumsq_before=before, x=x), accumulate=True)
    for case, max_norm in (("clipped", 1.0), ("within", 100.0)):
        parameter = torch.nn.Parameter(torch.zeros_like(x))
        parameter.grad = x.clone()
        torch.nn.utils.clip_grad_norm_([parameter], max_norm)
        scale = torch.clamp(max_norm / (torch.sqrt(total) + 1e-6), max=1.0)
        assert torch.allclose(parameter.grad, x * scale, rtol=1e-14, atol=0)
        write("clip_scale", case, dict(scale=scale, sumsq=total), max_norm=max_norm)


def adamw_case(prefix, seed, shape, steps, lr, betas, eps, weight_decay, scale=None, master=False):
    draw = Draw(seed)
    parameter = torch.nn.Parameter(draw.normal(*shape))
    optimizer = torch.optim.AdamW([parameter], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    m, v = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for step in range(1, steps + 1):
        grad = draw.normal(*shape, std=0.1 * step)
        before = dict(param_before=parameter.detach().clone(), m_before=m.clone(), v_before=v.clone())
        if master:
            before["master_before"] = before["param_before"]
        parameter.grad = grad * scale if scale is not None else grad.clone()
        optimizer.step()
        m, v = optimizer.state[parameter]["exp_avg"], optimizer.state[parameter]["exp_avg_sq"]
        write("adamw_step", f"{prefix}{step}",
              dict(param=parameter, m=m, v=v, master=parameter if master else None, grad=grad, scale=scale, **before),
              lr=lr, beta1=betas[0], beta2=betas[1], eps=eps, weight_decay=weight_decay, step=step)


def sgd_case(prefix, seed, shape, steps, lr, momentum, weight_decay, scale=None):
    draw = Draw(seed)
    parameter = torch.nn.Parameter(draw.normal(*shape))
    optimizer = torch.optim.SGD([parameter], lr=lr, momentum=momentum, weight_decay=weight_decay)
    buffer = torch.zeros(shape, dtype=torch.float64) if momentum else None
    for step in range(1, steps + 1):
        grad = draw.normal(*shape)
        before = dict(param_before=parameter.detach().clone(), momentum_buffer_before=None if buffer is None else buffer.clone())
        parameter.grad = grad * scale if scale is not None else grad.clone()
        optimizer.step()
        if momentum:
            buffer = optimizer.state[parameter]["momentum_buffer"]
        write("sgd_step", f"{prefix}{step}", dict(param=parameter, momentum_buffer=buffer, grad=grad, scale=scale, **before),
              lr=lr, momentum=momentum, weight_decay=weight_decay)


def optimizers():
    adamw_case("step", 711, (3, 11), 3, 1e-2, (0.9, 0.999), 1e-8, 0.1)
    quarter, half = torch.tensor(0.25, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    adamw_case("scaled-master-step", 712, (17,), 2, 3e-3, (0.8, 0.95), 1e-6, 0.0, scale=quarter, master=True)
    sgd_case("momentum-step", 721, (3, 11), 3, 0.05, 0.9, 0.01)
    sgd_case("plain-scaled-step", 722, (9,), 1, 0.1, 0.0, 0.0, scale=half)


# ---- random numbers ----

MASK = 0xFFFFFFFF


def philox4x32_10(counter, key):
    """Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011): 10 rounds on four 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def philox_words(seed, offset, n):
    words = []
    for block in range((n + 3) // 4):
        count = (offset + block) & 0xFFFFFFFFFFFFFFFF
        words += philox4x32_10((count & MASK, count >> 32, 0, 0), (seed & MASK, seed >> 32))
    return words


def philox_known_answers():
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)
    assert philox4x32_10((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox4x32_10((MASK,) * 4, (MASK,) * 2) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    assert philox4x32_10(*pi) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


def random_draws():
    philox_known_answers()
    cases = [("from-zero", (41,), 0, 0), ("large-seed-carry", (3, 13), 0x123456789ABCDEF0, 0xFFFFFFFE), ("offset", (6,), 42, 7)]
    for case, shape, seed, offset in cases:
        n = math.prod(shape)
        u = [(word + 0.5) * 2.0 ** -32 for word in philox_words(seed, offset, n)]
        uniform = [-2.0 + (3.5 - -2.0) * u_i for u_i in u[:n]]
        normal = []
        for u0, u1 in zip(u[0::2], u[1::2]):
            r = math.sqrt(-2.0 * math.log(u0))
            normal += [0.5 + 2.0 * r * math.cos(2.0 * math.pi * u1), 0.5 + 2.0 * r * math.sin(2.0 * math.pi * u1)]
        write("random_uniform", case, dict(out=f64(*uniform).reshape(shape)), seed=seed, offset=offset, lo=-2.0, hi=3.5)
        write("random_normal", case, dict(out=f64(*normal[:n]).reshape(shape)), seed=seed, offset=offset, mean=0.5, std=2.0)


def main():
    global FOLDER
    if len(sys.argv) != 2:
        sys.exit("usage: python make_golden.py FOLDER")
    FOLDER = pathlib.Path(sys.argv[1])
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for group in (attention, momentum_attention, dual_form, linear_attention, matmul, bias_backward, residual_layernorm, bias_gelu,
                  embedding, cross_entropy, unary, binary, reduce, elementwise_rest, clipping, optimizers, random_draws):
        group()
    largest = max(SIZES, key=SIZES.get)
    print(f"torch {torch.__version__}, numpy {np.__version__}: {len(SIZES)} files, {sum(SIZES.values())} bytes, "
          f"largest {largest} {SIZES[largest]} bytes")


if __name__ == "__main__":
    main()
