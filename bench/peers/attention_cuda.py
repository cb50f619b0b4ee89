"""Attention and momentum attention of PyTorch on a GPU, beside ours.

    python bench/peers/attention_cuda.py --bench df_bench --plugin libdualform_cuda.so [--device cpu --backend cpu --tiny]

scaled_dot_product_attention is timed with each of its backends by name (cuDNN, flash, memory-efficient) and as it chooses by itself. For
momentum attention the same call and the momentum term, m_p = sum_{s<p} eta^(p-s) v_s, in the quickest way we know in PyTorch: chunks of 128
positions, inside a chunk one product with a triangle of powers, between chunks the carries by one more product (Toeplitz in chunks). Also
flash-attn's own function where that package is installed.
"""

import math

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import peer

ETA = 0.9
CHUNK = 128


def momentum_loop(v, eta):
    """The recurrence as it is written: m_0 = 0, m_p = eta (m_{p-1} + v_{p-1}). v (B,T,NH,HS), eta (NH)."""
    m, rows = torch.zeros_like(v[:, 0]), []
    for t in range(v.shape[1]):
        rows.append(m)
        m = eta[:, None] * (m + v[:, t])
    return torch.stack(rows, 1)


class Momentum:
    """The same in chunks. Its tables depend on eta and the shape only and are made once, which favours the peer."""

    def __init__(self, shape, eta, dtype):
        b, t, heads, size = shape
        self.shape = shape
        self.chunk = chunk = min(CHUNK, t)
        self.chunks = -(-t // chunk)
        eta = eta.double()
        i = torch.arange(chunk, device=eta.device)
        distance = i[:, None] - i[None, :]
        powers = torch.where(distance > 0, eta[:, None, None] ** distance.clamp(min=0), 0.0)  # (NH, chunk, chunk)
        to_end = eta[:, None] ** (chunk - i)  # what is left of v_i at the start of the next chunk
        n = torch.arange(self.chunks, device=eta.device)
        apart = n[:, None] - n[None, :] - 1
        carry = torch.where(apart >= 0, (eta[:, None, None] ** chunk) ** apart.clamp(min=0), 0.0)  # (NH, chunks, chunks)
        self.powers, self.to_end, self.carry, self.decay = (
            x.to(dtype) for x in (powers, to_end[:, None, :], carry, (eta[:, None] ** i)[:, None, :, None]))

    def __call__(self, v):
        b, t, heads, size = self.shape
        rest = self.chunks * self.chunk - t
        x = F.pad(v, (0, 0, 0, 0, 0, rest)) if rest else v
        x = x.view(b, self.chunks, self.chunk, heads, size).permute(0, 3, 1, 2, 4)  # (B, NH, chunks, chunk, HS)
        inside = self.powers[:, None] @ x
        totals = (self.to_end[:, None] @ x).squeeze(3)  # (B, NH, chunks, HS)
        before = self.carry @ totals
        m = inside + self.decay * before[:, :, :, None]
        return m.permute(0, 2, 3, 1, 4).reshape(b, self.chunks * self.chunk, heads, size)[:, :t]


BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION, "default": None}


def flash_attn():
    try:
        from flash_attn import flash_attn_func
        return flash_attn_func
    except Exception as e:
        if not isinstance(e, ImportError):
            print(f"  flash-attn: {peer.why(e)}", flush=True)
        return None


def attend(q, k, v, backend, causal=True):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    if backend is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped).transpose(1, 2)
    with sdpa_kernel([backend]):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped).transpose(1, 2)


def in_tf32(call):
    """The same with products of float32 rounded as tf32, while they are queued."""
    def run(i):
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            call(i)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False
    return run


def peers(options, shape, dtype, timed, momentum, causal=True):
    b, t, s, heads, key_heads, size = shape
    device = options.device
    torch_dtype = torch.bfloat16 if dtype == "bf16" else torch.float32
    term = Momentum((b, t, heads, size), torch.full((heads,), ETA, device=device), torch_dtype) if momentum else None

    def make(function):
        def one():
            q = torch.randn(b, t, heads, size, device=device, dtype=torch_dtype)
            k, v = (torch.randn(b, s, key_heads, size, device=device, dtype=torch_dtype) for _ in range(2))
            dout = torch.randn_like(q)

            def forward():
                out = function(q, k, v)
                return out if term is None else out + term(v)

            held = sum(x.numel() * x.element_size() for x in (q, k, v, dout, q))
            if timed == "forward":
                def run():
                    with torch.no_grad():
                        forward()
                return run, held
            for x in (q, k, v):
                x.requires_grad_(True)
            out = forward()
            return lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True), 2 * held
        return one

    functions = {f"torch sdpa {name}": lambda q, k, v, backend=backend: attend(q, k, v, backend, causal) for name, backend in BACKENDS.items()
                 if device == "cuda" or name not in ("cudnn", "efficient")}
    flash = flash_attn() if device == "cuda" and dtype == "bf16" else None
    if flash:
        functions["flash-attn"] = lambda q, k, v: flash(q, k, v, causal=causal)
    calls = {}
    for name, function in functions.items():
        try:
            call = peer.sets_of(make(function), device)
            call(0)
            calls[name] = call
            if dtype == "f32" and device == "cuda":
                calls[f"{name}, tf32"] = in_tf32(call)
        except Exception as e:  # a backend that does not take the case says so in many ways
            print(f"  {name} {shape} {dtype}: {peer.why(e)}", flush=True)
    return calls


def check(options):
    """Our formula beside what is timed here: the momentum term in chunks, in float64, also where the last chunk is not full."""
    for t in (1, 100, 128, 129, 700):
        v = torch.randn(2, t, 3, 8, device=options.device, dtype=torch.float64)
        eta = torch.tensor([0.0, 0.9, 0.999], device=options.device, dtype=torch.float64)
        exact = momentum_loop(v, eta)
        if t > 1:
            peer.agrees(f"momentum in chunks, T = {t}", Momentum(v.shape, eta, torch.float64)(v), exact, 1e-12)
        elif Momentum(v.shape, eta, torch.float64)(v).abs().max() != 0:
            raise SystemExit("momentum in chunks, T = 1: not 0")
    q, k, v = (torch.randn(1, 33, h, 16, device=options.device) for h in (4, 2, 2))
    scores = torch.einsum("bthd,bshd->bhts", q, k.repeat_interleave(2, 2)) / math.sqrt(16)
    peer.agrees("sdpa, not causal", attend(q, k, v, None, False), torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v.repeat_interleave(2, 2)), 1e-5)
    weights = scores.masked_fill(torch.ones(33, 33, device=options.device).triu(1).bool(), -math.inf).softmax(-1)
    peer.agrees("sdpa with grouped heads", attend(q, k, v, None), torch.einsum("bhts,bshd->bthd", weights, v.repeat_interleave(2, 2)), 1e-5)


def main():
    options = peer.arguments(__doc__)
    comparison = peer.Comparison(options)
    check(options)
    # B,T,S,NH,NKV,HS. What the targets are about first.
    half = [((4, 4096, 4096, 16, 16, 128), "bf16"), ((4, 4096, 4096, 32, 32, 64), "bf16"), ((8, 2048, 2048, 16, 16, 128), "bf16"),
            ((8, 2048, 2048, 32, 32, 64), "bf16")]
    more = [((2, 4096, 4096, 32, 8, 128), "bf16"), ((1, 1000, 1000, 16, 16, 64), "bf16"), ((2, 2048, 2048, 16, 16, 64), "f32")]
    runs = [("attention", half, True), ("momentum-attention", half, True), ("attention", more, True), ("attention", half[:2], False)]
    if options.tiny:
        tiny = [((1, 9, 9, 2, 2, 8), "f32"), ((1, 9, 9, 4, 2, 8), "bf16")]
        runs = [("attention", tiny, True), ("momentum-attention", tiny[:1], True), ("attention", tiny[:1], False)]
    for op, cases, causal in runs:
        for timed in ("forward", "backward"):
            comparison.compare(op, cases, timed,
                               lambda shape, dtype, op=op, timed=timed, causal=causal:
                               peers(options, shape, dtype, timed, op != "attention", causal),
                               () if causal else ("--causal", "false"), causal=causal)
    comparison.end()


if __name__ == "__main__":
    main()
