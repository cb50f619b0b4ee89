"""Causal linear attention on a GPU in PyTorch, beside ours: in chunks with batched products, eager and as a CUDA graph, and with the kernels of
flash-linear-attention where that package is installed.

    python bench/peers/linear_attention_cuda.py --bench df_bench --plugin libdualform_cuda.so [--device cpu --backend cpu --tiny]
"""

import math

import torch

import peer

CHUNK = 128
CALLS_IN_A_GRAPH = 8


def loop(q, k, v):
    """S_t = S_{t-1} + v_t (x) k_t, out_t = S_t q_t, one token after the other."""
    state, rows = torch.zeros(*q.shape[:1], *q.shape[2:], q.shape[3], dtype=q.dtype, device=q.device), []
    for t in range(q.shape[1]):
        state = state + v[:, t, :, :, None] * k[:, t, :, None, :]
        rows.append((state @ q[:, t, :, :, None]).squeeze(-1))
    return torch.stack(rows, 1)


class Chunks:
    def __init__(self, shape, dtype, device):
        self.shape, self.chunk = shape, math.gcd(shape[1], CHUNK)
        self.mask = torch.ones(self.chunk, self.chunk, dtype=dtype, device=device).tril()

    def __call__(self, q, k, v):
        b, t, heads, size = self.shape
        q, k, v = (x.view(b, t // self.chunk, self.chunk, heads, size).permute(0, 3, 1, 2, 4) for x in (q, k, v))
        states = k.transpose(3, 4) @ v
        before = states.cumsum(2) - states
        out = ((q @ k.transpose(3, 4)) * self.mask) @ v + q @ before
        return out.permute(0, 2, 3, 1, 4).reshape(self.shape)


def flash_linear_attention():
    try:
        from fla.ops.linear_attn import chunk_linear_attn
        return lambda q, k, v: chunk_linear_attn(q, k, v, scale=1.0, normalize=False)[0]
    except ImportError:
        return None


def peers(options, shape, dtype, timed):
    device = options.device

    def make(function):
        def one():
            q, k = (torch.randn(*shape, device=device, dtype=dtype) / math.sqrt(shape[3]) for _ in range(2))
            v, dout = (torch.randn(*shape, device=device, dtype=dtype) for _ in range(2))
            held = 5 * q.numel() * q.element_size()
            if timed == "forward":
                def run():
                    with torch.no_grad():
                        function(q, k, v)
                return run, held
            for x in (q, k, v):
                x.requires_grad_(True)
            out = function(q, k, v)
            return lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True), 2 * held
        return one

    chunks = peer.sets_of(make(Chunks(shape, dtype, device)), device)
    calls = {"torch in chunks": chunks}
    if device == "cuda" and timed == "forward":
        replay = peer.graphed(chunks, CALLS_IN_A_GRAPH)
        calls[f"torch in chunks, CUDA graph of {CALLS_IN_A_GRAPH}"] = (lambda i: replay(), CALLS_IN_A_GRAPH) if replay else None
    fla = flash_linear_attention() if device == "cuda" else None
    if fla:
        calls["flash-linear-attention"] = peer.sets_of(make(fla), device)
    return calls


def check(options):
    for t in (128, 96, 7):
        shape = (2, t, 3, 8)
        q, k, v = (torch.randn(*shape, device=options.device, dtype=torch.float64) for _ in range(3))
        peer.agrees(f"linear attention in chunks, T = {t}", Chunks(shape, torch.float64, options.device)(q, k, v), loop(q, k, v), 1e-12)


def main():
    options = peer.arguments(__doc__)
    comparison = peer.Comparison(options)
    check(options)
    shapes = [((1, 9, 2, 8), "f32")] if options.tiny else [((4, 4096, 16, 64), "bf16"), ((4, 4096, 16, 128), "bf16"), ((1, 4096, 8, 64), "f32")]
    for shape, dtype in shapes:
        for timed in ("forward", "backward"):
            made = peers(options, shape, torch.bfloat16 if dtype == "bf16" else torch.float32, timed)
            comparison.compare("linear-attention", shape, dtype, timed, made)
            made.clear()
            if options.device == "cuda":
                torch.cuda.empty_cache()
    comparison.end()


if __name__ == "__main__":
    main()
