"""Causal linear attention on a GPU in PyTorch, beside ours, with and without decay: in chunks with batched products, eager and as a CUDA graph,
and with the kernels of flash-linear-attention where that package is installed (simple_gla where there is decay).

    python bench/peers/linear_attention_cuda.py --bench df_bench --plugin libdualform_cuda.so [--device cpu --backend cpu --tiny]
"""

import math

import torch

import peer

CHUNK = 128
CALLS_IN_A_GRAPH = 8
DECAY = 0.97


def loop(q, k, v, decay):
    """S_t = decay S_{t-1} + v_t (x) k_t, out_t = S_t q_t, one token after the other."""
    state, rows = torch.zeros(*q.shape[:1], *q.shape[2:], q.shape[3], dtype=q.dtype, device=q.device), []
    for t in range(q.shape[1]):
        state = decay * state + v[:, t, :, :, None] * k[:, t, :, None, :]
        rows.append((state @ q[:, t, :, :, None]).squeeze(-1))
    return torch.stack(rows, 1)


class Chunks:
    """The same in chunks. Tables of powers depend on the decay and the shape only and are made once, which favours the peer."""

    def __init__(self, shape, decay, dtype, device):
        self.shape, self.chunk = shape, math.gcd(shape[1], CHUNK)
        i = torch.arange(self.chunk, device=device, dtype=torch.float64)
        n = torch.arange(shape[1] // self.chunk, device=device, dtype=torch.float64)
        self.decays = decay != 1

        def powers(exponent):  # below the diagonal and on it
            return torch.where(exponent >= 0, decay ** exponent.clamp(min=0), 0.0).to(dtype)

        self.inside = powers(i[:, None] - i[None, :])
        self.to_end, self.from_start = powers(self.chunk - 1 - i)[:, None], powers(i + 1)[:, None]
        self.carry = powers(self.chunk * (n[:, None] - n[None, :] - 1))  # of the states after chunks, before a chunk

    def __call__(self, q, k, v):
        b, t, heads, size = self.shape
        q, k, v = (x.view(b, t // self.chunk, self.chunk, heads, size).permute(0, 3, 1, 2, 4) for x in (q, k, v))
        states = (k * self.to_end if self.decays else k).transpose(3, 4) @ v
        if self.decays:
            before = (self.carry @ states.flatten(3)).view(states.shape)
            q_before = q * self.from_start
        else:
            before, q_before = states.cumsum(2) - states, q
        out = ((q @ k.transpose(3, 4)) * self.inside) @ v + q_before @ before
        return out.permute(0, 2, 3, 1, 4).reshape(self.shape)


def flash_linear_attention(options, decay):
    """The function, once it agrees with the loop."""
    if options.device != "cuda":
        return None
    try:
        if decay == 1:
            from fla.ops.linear_attn import chunk_linear_attn

            def function(q, k, v):
                return chunk_linear_attn(q, k, v, scale=1.0, normalize=False)[0]
        else:
            from fla.ops.simple_gla import chunk_simple_gla
            gates = {}

            def function(q, k, v):  # the decay's logarithm of every token and head, made once
                shape = q.shape[:3]
                if shape not in gates:
                    gates[shape] = torch.full(shape, math.log(decay), device=q.device, dtype=torch.float32)
                return chunk_simple_gla(q, k, v, g=gates[shape], scale=1.0)[0]
        q, k, v = (torch.randn(2, 300, 2, 64, device="cuda", dtype=torch.bfloat16) / 8 for _ in range(3))
        expected = loop(*(x.double() for x in (q, k, v)), decay)
        apart = ((function(q, k, v).double() - expected).abs().max() / expected.abs().max()).item()
        if not apart <= 5e-2:
            raise RuntimeError(f"off by {apart:.3g} of the largest value")
        print(f"flash-linear-attention, decay {decay}: agrees within {apart:.1e}", flush=True)
        return function
    except Exception as e:  # not installed, or its compiler fails
        print(f"  flash-linear-attention, decay {decay}: {peer.why(e)}", flush=True)
        return None


def peers(options, shape, dtype, timed, decay, fla):
    device = options.device
    torch_dtype = torch.bfloat16 if dtype == "bf16" else torch.float32

    def make(function):
        def one():
            q, k = (torch.randn(*shape, device=device, dtype=torch_dtype) / math.sqrt(shape[3]) for _ in range(2))
            v, dout = (torch.randn(*shape, device=device, dtype=torch_dtype) for _ in range(2))
            held = 5 * q.numel() * q.element_size()
            if timed == "forward":
                def run():
                    with torch.no_grad():
                        function(q, k, v)
                return run, held
            for x in (q, k, v):
                x.requires_grad_(True)
            if timed == "both":
                return lambda: torch.autograd.grad(function(q, k, v), (q, k, v), dout), 2 * held
            out = function(q, k, v)
            return lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True), 2 * held
        return one

    chunks = peer.sets_of(make(Chunks(shape, decay, torch_dtype, device)), device)
    calls = {"torch in chunks": chunks}
    if device == "cuda" and timed == "forward":
        replay = peer.graphed(chunks, CALLS_IN_A_GRAPH)
        if replay:
            calls[f"torch in chunks, CUDA graph of {CALLS_IN_A_GRAPH}"] = (lambda i: replay(), CALLS_IN_A_GRAPH)
    if fla:
        try:
            calls["flash-linear-attention"] = peer.sets_of(make(fla), device)
        except Exception as e:
            print(f"  flash-linear-attention {shape} {dtype} {timed}: {peer.why(e)}", flush=True)
    return calls


def check(options):
    for decay in (1, DECAY, 0.5):
        for t in (128, 96, 7, 384):
            shape = (2, t, 3, 8)
            q, k, v = (torch.randn(*shape, device=options.device, dtype=torch.float64) for _ in range(3))
            peer.agrees(f"linear attention in chunks, decay {decay}, T = {t}", Chunks(shape, decay, torch.float64, options.device)(q, k, v),
                        loop(q, k, v, decay), 1e-12)


def main():
    options = peer.arguments(__doc__)
    comparison = peer.Comparison(options)
    check(options)
    # B,T,NH,HS. The kernels of sm_90a serve what fills a device without being cut along T: B NH HS/64 of 132 and more, forward.
    cases = [((16, 4096, 16, 64), "bf16"), ((16, 4096, 16, 128), "bf16"), ((4, 2048, 64, 64), "bf16"), ((4, 4096, 16, 64), "bf16"),
             ((4, 4096, 16, 128), "bf16"), ((1, 4096, 8, 64), "f32")]
    if options.tiny:
        cases = [((1, 9, 2, 8), "f32")]
    for decay in (DECAY, 1):
        fla = flash_linear_attention(options, decay)
        for timed in ("forward", "both", "backward"):
            comparison.compare("linear-attention", cases if decay != 1 else cases[:4], timed,
                               lambda shape, dtype, timed=timed: peers(options, shape, dtype, timed, decay, fla),
                               ("--decay", str(decay)), decay=decay)
    comparison.end()


if __name__ == "__main__":
    main()
