"""The formulas of df_ops.h in NumPy float64, behind the command line of `./dualform op`. The checker is checked against it:

    python stand_in.py op NAME --in IN.safetensors --out OUT.safetensors [--backward] [--device auto|cpu] [--set key=value]...

Gradients follow the recurrences written in df_ops.h, not autograd, so it also checks those formulas against reference.py.
"""
import math
import os
import sys

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

FLOATS = (torch.float64, torch.float32, torch.bfloat16)


class UsageError(Exception):
    pass


class Unavailable(Exception):
    pass


def require(condition, sentence):
    if not condition:
        raise UsageError(sentence)


class Inputs:
    """The tensors of the file and the settings, read by name and checked against what is expected."""

    def __init__(self, tensors, settings, backward):
        self.tensors, self.settings, self.backward = tensors, settings, backward
        self.dtype = None

    def tensor(self, name, *shape, optional=False, dtypes=None):
        """Float64 NumPy array; shape entries may be None for any size of at least 1."""
        if name not in self.tensors:
            require(optional, f"{name}: missing from the input file")
            return None
        t = self.tensors[name]
        allowed = dtypes or ((self.dtype,) if self.dtype else FLOATS)
        require(t.dtype in allowed, f"{name}: dtype {t.dtype}, expected {allowed}")
        if self.dtype is None:
            self.dtype = t.dtype
        fits = t.dim() == len(shape) and all(n >= 1 and want in (None, n) for n, want in zip(t.shape, shape))
        require(fits, f"{name}: shape {tuple(t.shape)}, expected {shape}")
        return t.numpy() if t.dtype == torch.int32 else t.double().numpy()

    def number(self, name, default=None):
        if name not in self.settings:
            return default
        try:
            value = float(self.settings.pop(name))
        except ValueError:
            raise UsageError(f"{name}: not a number")
        require(math.isfinite(value), f"{name}: {value}, expected a finite number")
        return value

    def word(self, name, allowed, default):
        value = self.settings.pop(name, default)
        require(value in allowed, f"{name}: '{value}', expected one of {allowed}")
        return value

    def finish(self):
        require(not self.settings, f"unknown setting {sorted(self.settings)}")


def attention_inputs(given):
    q = given.tensor("q", None, None, None, None)
    B, T, NH, HS = q.shape
    k = given.tensor("k", B, None, None, HS)
    S, NKV = k.shape[1:3]
    require(NH % NKV == 0, f"q: {NH} heads, expected a multiple of {NKV}")
    require(HS <= 256, f"q: head size {HS}, expected at most 256")
    v = given.tensor("v", B, S, NKV, HS)
    lengths = given.tensor("lengths", B, optional=True, dtypes=(torch.int32,))
    require(lengths is None or ((lengths >= 0) & (lengths <= S)).all(), f"lengths: expected 0..{S}")
    dout = given.tensor("dout", B, T, NH, HS) if given.backward else None
    return q, k, v, np.full(B, S) if lengths is None else lengths, dout, given.number("scale", 1 / math.sqrt(HS))


def heads(q, k):
    """(b, h, key head) of every query head."""
    B, _, NH, _ = q.shape
    return [(b, h, h // (NH // k.shape[2])) for b in range(B) for h in range(NH)]


def attention_head(q, k, v, length, scale, causal):
    T, S = len(q), len(k)
    t, s = np.arange(T)[:, None], np.arange(S)[None, :]
    scores = np.where((s < length) & ((s <= t + S - T) | (not causal)), scale * (q @ k.T), -np.inf)
    top = np.maximum(scores.max(1, keepdims=True), -1e30)
    weights = np.exp(scores - top)
    total = weights.sum(1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (top + np.log(total))[:, 0]
    P = np.where(scores > -np.inf, np.exp(scores - np.where(lse > -np.inf, lse, 0.0)[:, None]), 0.0)
    return weights @ v / np.where(total > 0, total, 1.0), lse, P


def attention_head_backward(dout, q, k, v, out, P, scale):
    delta = (dout * out).sum(1, keepdims=True)
    dS = P * (dout @ v.T - delta)
    return scale * dS @ k, scale * dS.T @ q, P.T @ dout


def attention(given, momentum=False):
    q, k, v, lengths, dout, scale = attention_inputs(given)
    causal = given.word("causal", ("true",) if momentum else ("true", "false"), "true") == "true"
    B, T, NH, HS = q.shape
    S = k.shape[1]
    if momentum:
        eta = given.tensor("eta", NH, optional=True)
        if eta is None:
            number = given.number("eta")
            require(number is not None, "eta: neither a tensor nor a setting")
            eta = np.full(NH, number)
        require(((eta >= 0) & (eta < 1)).all(), f"eta: {eta}, expected 0 <= eta < 1")
    given.finish()
    out, lse = np.zeros_like(q), np.zeros((B, NH, T))
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    deta = np.zeros(NH)
    for b, h, kv in heads(q, k):
        head = (q[b, :, h], k[b, :, kv], v[b, :, kv])
        attn, lse[b, h], P = attention_head(*head, lengths[b], scale, causal)
        out[b, :, h] = attn
        if given.backward:
            g = dout[b, :, h]
            dq[b, :, h], dk_h, dv_h = attention_head_backward(g, *head, attn, P, scale)
            dk[b, :, kv] += dk_h
            dv[b, :, kv] += dv_h
        if momentum and eta[h] != 0 or momentum and given.backward:
            vs = np.where(np.arange(S)[:, None] < lengths[b], head[2], 0.0)
            m = np.zeros((S, HS))
            for p in range(1, S):
                m[p] = eta[h] * (m[p - 1] + vs[p - 1])
            first = max(T - S, 0)
            out[b, first:, h] += m[max(S - T, 0):]
            if given.backward:
                later = np.zeros(HS)
                for p in range(S - 1, 0, -1):
                    t = p - (S - T)
                    later = (g[t] if t >= 0 else 0.0) + eta[h] * later
                    deta[h] += later @ (m[p - 1] + vs[p - 1])
                    if p - 1 < lengths[b]:
                        dv[b, p - 1, kv] += eta[h] * later
    results = {"out": out, "lse": lse}
    if given.backward:
        results.update(dq=dq, dk=dk, dv=dv, **({"deta": deta} if momentum else {}))
    return results, {"lse"}


def momentum_attention(given):
    return attention(given, momentum=True)


def dual_form(given):
    w0 = given.tensor("w0", None, None)
    O, I = w0.shape
    e = given.tensor("e", None, O)
    xp = given.tensor("xp", len(e), I)
    x = given.tensor("x", None, I)
    form = given.word("form", ("auto", "primal", "dual"), "auto")
    dout = given.tensor("dout", len(x), O) if given.backward else None
    given.finish()
    dw = np.einsum("no,ni->oi", e, xp)
    results = {"dw": dw, "out": np.einsum("mi,oi->mo", x, w0 + dw) if form == "primal" else x @ w0.T + (x @ xp.T) @ e}
    if given.backward:
        G = dout.T @ x
        results.update(dw0=G, de=xp @ G.T, dxp=e @ G, dx=dout @ (w0 + dw))
    return results, {"dw"}


def linear_attention(given):
    q = given.tensor("q", None, None, None, None)
    B, T, NH, HS = q.shape
    require(HS <= 256, f"q: head size {HS}, expected at most 256")
    k, v = given.tensor("k", B, T, NH, HS), given.tensor("v", B, T, NH, HS)
    decay = given.tensor("decay", NH, optional=True)
    require(decay is None or ((decay >= 0) & (decay <= 1)).all(), "decay: expected 0 <= decay <= 1")
    s0 = given.tensor("s0", B, NH, HS, HS, optional=True,
                      dtypes=(given.dtype, torch.float64 if given.dtype == torch.float64 else torch.float32))
    dout = given.tensor("dout", B, T, NH, HS) if given.backward else None
    given.finish()
    gamma = np.ones(NH) if decay is None else decay
    out, state = np.zeros_like(q), np.zeros((B, NH, HS, HS))
    dq, dk, dv, ddecay, ds0 = np.zeros_like(q), np.zeros_like(q), np.zeros_like(q), np.zeros(NH), np.zeros_like(state)
    for b in range(B):
        for h in range(NH):
            states = [np.zeros((HS, HS)) if s0 is None else s0[b, h]]
            for t in range(T):
                states.append(gamma[h] * states[-1] + np.outer(v[b, t, h], k[b, t, h]))
                out[b, t, h] = states[-1] @ q[b, t, h]
            state[b, h] = states[-1]
            if given.backward:
                dstate = np.zeros((HS, HS))
                for t in reversed(range(T)):
                    dstate = np.outer(dout[b, t, h], q[b, t, h]) + gamma[h] * dstate
                    dq[b, t, h] = states[t + 1].T @ dout[b, t, h]
                    dk[b, t, h] = dstate.T @ v[b, t, h]
                    dv[b, t, h] = dstate @ k[b, t, h]
                    ddecay[h] += (dstate * states[t]).sum()
                ds0[b, h] = gamma[h] * dstate
    results = {"out": out, "state": state}
    if given.backward:
        results.update(dq=dq, dk=dk, dv=dv)
        results.update({"ddecay": ddecay} if decay is not None else {})
        results.update({"ds0": ds0} if s0 is not None else {})
    return results, {"state"}


OPS = {"attention": attention, "momentum-attention": momentum_attention, "dual-form": dual_form, "linear-attention": linear_attention}


def parse(argv):
    require(len(argv) >= 2 and argv[0] == "op", "expected: op NAME")
    require(argv[1] in OPS, f"unknown operation '{argv[1]}'")
    options, settings, rest = {"--device": "auto"}, {}, list(argv[2:])
    while rest:
        option = rest.pop(0)
        if option == "--backward":
            options[option] = True
            continue
        require(option in ("--in", "--out", "--device", "--set"), f"unknown option '{option}'")
        require(rest, f"{option}: no value")
        value = rest.pop(0)
        if option == "--set":
            key, equals, setting = value.partition("=")
            require(equals, f"--set {value}: expected key=value")
            settings[key] = setting
        else:
            options[option] = value
    require("--in" in options and "--out" in options, "--in and --out are required")
    require(options["--device"] in ("auto", "cpu", "cuda"), f"unknown device '{options['--device']}'")
    return argv[1], options, settings


def run(argv):
    name, options, settings = parse(argv)
    if options["--device"] == "cuda":
        raise Unavailable("the stand-in has no CUDA")
    try:
        tensors = load_file(options["--in"])
    except (OSError, SafetensorError, ValueError, KeyError) as e:
        raise UsageError(f"{options['--in']}: {e}")
    given = Inputs(tensors, settings, "--backward" in options)
    results, accumulated = OPS[name](given)
    wide = torch.float64 if given.dtype == torch.float64 else torch.float32
    stored = {key: torch.from_numpy(np.ascontiguousarray(value)).to(wide if key in accumulated else given.dtype)
              for key, value in results.items()}
    require(os.path.isdir(os.path.dirname(options["--out"]) or "."), f"{options['--out']}: no such folder")
    save_file(stored, options["--out"])


def main(argv):
    try:
        run(argv)
        return 0
    except (UsageError, Unavailable) as e:
        print(" ".join(str(e).split()), file=sys.stderr)
        return 2 if isinstance(e, UsageError) else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
