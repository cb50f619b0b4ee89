"""The works of `dualform bench` in PyTorch, on the same CPU with the same number of threads.

    python bench/peers/torch_cpu.py [--only REGEX] [--threads N] [--seconds S] [--rounds R] [--peer-only] [--json FILE]

Ours and PyTorch's runs take turns: in each round `./dualform bench ... --json` as a process of its own, then the peer here for as long.
A ratio is the median of PyTorch's medians over that of ours: above 1 we are faster. Needs a build of PyTorch for CPUs, and nothing else.
"""

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "passive"  # threads that wait must not take the processors from ours

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
ETA = 0.9
CHUNK = 128
VOCABULARY = 256


def normal(dtype, *shape, deviation=1.0):
    return (torch.randn(*shape) * deviation).to(dtype)


class Attention:
    """Causal; tensors (B,T,NH,HS) seen as (B,NH,T,HS), as a GPT has them. With momentum, plus D v, D the powers of eta, made once."""

    def __init__(self, shape, dtype, momentum):
        b, t, s, heads, key_heads, size = shape if len(shape) == 6 else (shape[0], shape[1], shape[1], shape[2], shape[2], shape[3])
        self.q = normal(dtype, b, t, heads, size)
        self.k, self.v = normal(dtype, b, s, key_heads, size), normal(dtype, b, s, key_heads, size)
        self.inputs = [self.q, self.k, self.v]
        self.dout = normal(dtype, b, t, heads, size)
        self.mask = None if t == s else torch.ones(t, s, dtype=torch.bool).tril(s - t)
        self.grouped = heads != key_heads
        self.decay = None
        if momentum:
            assert t == s and not self.grouped, "the peer's momentum attention has as many keys as queries, and one head for each"
            distance = torch.arange(t)[:, None] - torch.arange(t)[None, :]
            powers = torch.tensor(ETA, dtype=torch.float64) ** distance
            # Denormal numbers would slow the peer down.
            self.decay = torch.where((distance > 0) & (powers > 1e-30), powers, 0.0).to(dtype)

    def forward(self):
        q, k, v = (x.transpose(1, 2) for x in self.inputs)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=self.mask is None, enable_gqa=self.grouped)
        out = out.transpose(1, 2)
        if self.decay is not None:
            out = out + torch.matmul(self.decay, self.v.flatten(2)).view_as(self.v)
        return out


class LinearAttention:
    """In chunks: batched products, and the sum of the states before each chunk."""

    def __init__(self, shape, dtype):
        deviation = 1 / math.sqrt(shape[3])
        self.shape = shape
        self.inputs = [normal(dtype, *shape, deviation=deviation), normal(dtype, *shape, deviation=deviation), normal(dtype, *shape)]
        self.dout = normal(dtype, *shape)
        self.chunk = math.gcd(shape[1], CHUNK)
        self.mask = torch.ones(self.chunk, self.chunk, dtype=dtype).tril()

    def forward(self):
        b, t, heads, size = self.shape
        q, k, v = (x.view(b, t // self.chunk, self.chunk, heads, size).permute(0, 3, 1, 2, 4).contiguous() for x in self.inputs)
        states = k.transpose(3, 4) @ v
        before = states.cumsum(2) - states
        out = ((q @ k.transpose(3, 4)) * self.mask) @ v + q @ before
        return out.permute(0, 2, 3, 1, 4).reshape(self.shape)


class DualForm:
    """(w0 + e^T xp), then x times it, of all problems in one batch."""

    def __init__(self, shape, dtype):
        p, n, m, o, i = shape if len(shape) == 5 else (1, *shape)
        self.inputs = [normal(dtype, p, o, i, deviation=1 / math.sqrt(i)), normal(dtype, p, n, o, deviation=1 / math.sqrt(n)),
                       normal(dtype, p, n, i), normal(dtype, p, m, i)]
        self.dout = normal(dtype, p, m, o)
        self.weight, self.out = torch.empty_like(self.inputs[0]), torch.empty_like(self.dout)

    def forward(self):
        w0, e, xp, x = self.inputs
        if w0.requires_grad:
            return torch.bmm(x, torch.baddbmm(w0, e.transpose(1, 2), xp).transpose(1, 2))
        torch.baddbmm(w0, e.transpose(1, 2), xp, out=self.weight)
        return torch.bmm(x, self.weight.transpose(1, 2), out=self.out)


class Matmul:
    def __init__(self, shape, dtype):
        m, n, k = shape
        self.inputs = [normal(dtype, m, k), normal(dtype, k, n)]
        self.dout = normal(dtype, m, n)
        self.out = torch.empty_like(self.dout)

    def forward(self):
        a, b = self.inputs
        return a @ b if a.requires_grad else torch.mm(a, b, out=self.out)


class Layernorm:
    def __init__(self, shape, dtype):
        self.inputs = [normal(dtype, *shape), normal(dtype, shape[1]), normal(dtype, shape[1])]
        self.dout = normal(dtype, *shape)

    def forward(self):
        x, weight, bias = self.inputs
        return F.layer_norm(x, weight.shape, weight, bias)


class Gelu:
    def __init__(self, shape, dtype):
        self.inputs = [normal(dtype, *shape), normal(dtype, shape[1])]
        self.dout = normal(dtype, *shape)

    def forward(self):
        x, bias = self.inputs
        return F.gelu(x + bias, approximate="tanh")


class CrossEntropy:
    def __init__(self, shape, dtype):
        self.inputs = [normal(dtype, *shape)]
        self.targets = torch.randint(shape[1], (shape[0],))
        self.dout = None

    def forward(self):
        return F.cross_entropy(self.inputs[0], self.targets)


class AdamW:
    def __init__(self, shape, dtype):
        self.inputs, self.dout = [], None
        self.parameter = torch.nn.Parameter(normal(dtype, *shape))
        self.parameter.grad = normal(dtype, *shape)
        self.optimizer = torch.optim.AdamW([self.parameter], lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def forward(self):
        self.optimizer.step()


class Block(torch.nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.qkv, self.projection = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.fc, self.out = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (part.view(b, t, self.heads, c // self.heads).transpose(1, 2) for part in self.qkv(self.ln1(x)).split(c, dim=2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, c)
        x = x + self.projection(mixed)
        return x + self.out(F.gelu(self.fc(self.ln2(x)), approximate="tanh"))


class Gpt(torch.nn.Module):
    def __init__(self, context, layers, width, heads):
        super().__init__()
        self.wte, self.wpe = torch.nn.Embedding(VOCABULARY, width), torch.nn.Embedding(context, width)
        self.blocks = torch.nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln = torch.nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.02)

    def forward(self, ids, targets):
        x = self.wte(ids) + self.wpe.weight
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(F.linear(self.ln(x), self.wte.weight).view(-1, VOCABULARY), targets.view(-1))


class GptStep:
    """Forward, backward, clipping, AdamW over all parameters in one call; forward alone without a record."""

    def __init__(self, shape, dtype, compiled):
        b, t, layers, width, heads = shape
        self.inputs, self.dout = [], None
        self.model = Gpt(t, layers, width, heads).to(dtype)
        self.loss = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        self.ids, self.targets = torch.randint(VOCABULARY, (b, t)), torch.randint(VOCABULARY, (b, t))

    def forward(self):
        return self.loss(self.ids, self.targets)

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        self.forward().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()


WORKS = {
    "attention": lambda shape, dtype, _: Attention(shape, dtype, False),
    "momentum-attention": lambda shape, dtype, _: Attention(shape, dtype, True),
    "linear-attention": lambda shape, dtype, _: LinearAttention(shape, dtype),
    "dual-form": lambda shape, dtype, _: DualForm(shape, dtype),
    "matmul": lambda shape, dtype, _: Matmul(shape, dtype),
    "layernorm": lambda shape, dtype, _: Layernorm(shape, dtype),
    "gelu": lambda shape, dtype, _: Gelu(shape, dtype),
    "cross-entropy": lambda shape, dtype, _: CrossEntropy(shape, dtype),
    "adamw": lambda shape, dtype, _: AdamW(shape, dtype),
    "gpt-step": GptStep,
}

ATTENTION = ["4,256,12,64", "1,1024,12,64", "1,2048,12,64", "1,1024,8,128"]
LAYERS = ["2048,1152,384", "2048,384,384", "2048,1536,384", "2048,384,1536"]


def cases():
    for dtype in ("f32", "bf16"):
        for forward_or_both in ("forward", "both"):
            for shape in ATTENTION:
                yield "attention", shape, dtype, forward_or_both
        for shape in ATTENTION[:3]:
            yield "momentum-attention", shape, dtype, "both"
        yield "dual-form", "96,1024,1024,64,64", dtype, "forward"
        yield "dual-form", "2048,2048,768,768", dtype, "forward"
        for forward_or_both in ("forward", "both"):
            yield "linear-attention", "1,4096,8,64", dtype, forward_or_both
        for shape in LAYERS:
            yield "matmul", shape, dtype, "forward"
            yield "matmul", shape, dtype, "both"
        for name, shape in (("layernorm", "2048,384"), ("gelu", "2048,1536"), ("cross-entropy", "2048,50257")):
            yield name, shape, dtype, "forward"
            yield name, shape, dtype, "both"
    yield "adamw", "10000000", "f32", "forward"
    yield "gpt-step", "8,256,6,384,6", "f32", "both"


def runner(work, timed):
    """One run of the peer's pass."""
    if timed == "forward" or not (work.inputs or isinstance(work, GptStep)):
        def run():
            with torch.no_grad():
                work.forward()
        return run
    if isinstance(work, GptStep):
        return work.step
    for x in work.inputs:
        x.requires_grad_(True)
    if timed == "both":
        return lambda: torch.autograd.grad(work.forward(), work.inputs, work.dout)
    out = work.forward()
    return lambda: torch.autograd.grad(out, work.inputs, work.dout, retain_graph=True)


def sample(run, seconds):
    """Median and least seconds of one run: warmed up, at least 7 samples."""
    start = time.perf_counter()
    while True:
        t = time.perf_counter()
        run()
        once = time.perf_counter() - t
        if time.perf_counter() - start > 0.2 * seconds:
            break
    calls = max(1, math.ceil(2e-5 / max(once, 1e-8)))
    samples = []
    start = time.perf_counter()
    while len(samples) < 7 or time.perf_counter() - start < seconds:
        t = time.perf_counter()
        for _ in range(calls):
            run()
        samples.append((time.perf_counter() - t) / calls)
    return statistics.median(samples), min(samples)


def ours(program, name, shape, dtype, timed, threads, seconds):
    command = [str(program), "bench", name, "--shape", shape, "--dtype", dtype, "--pass", timed, "--threads", str(threads),
               "--device", "cpu", "--seconds", str(seconds), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX", help='works whose line "NAME DTYPE PASS SHAPE" matches')
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=1.0, help="of samples in each run")
    parser.add_argument("--rounds", type=int, default=3, help="of ours and the peer's runs in turn")
    parser.add_argument("--peer-only", action="store_true", help="do not run ours")
    parser.add_argument("--compile", action="store_true", help="torch.compile the GPT")
    parser.add_argument("--dualform", type=Path, default=ROOT / "dualform", help="the program")
    parser.add_argument("--json", type=Path, help="file to write")
    return parser.parse_args()


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    about = {"torch": torch.__version__, "python": sys.version.split()[0], "threads": options.threads, "rounds": options.rounds}
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{'work':52} {'ours ms':>11} {'torch ms':>11} {'ratio':>7} {'GFLOP/s':>9} {'of peak':>8} {'error':>9}")
    rows = []
    for name, shape, dtype, timed in cases():
        title = f"{name} {dtype} {timed} {shape}"
        if not re.search(options.only, title):
            continue
        sizes = [int(size) for size in shape.split(",")]
        run = runner(WORKS[name](sizes, torch.bfloat16 if dtype == "bf16" else torch.float32, options.compile), timed)
        mine, peer = [], []
        for _ in range(options.rounds):
            if not options.peer_only:
                mine.append(ours(options.dualform.resolve(), name, shape, dtype, timed, options.threads, options.seconds))
            peer.append(sample(run, options.seconds))
        row = {"op": name, "shape": sizes, "dtype": dtype, "pass": timed, "threads": options.threads,
               "peer_median_ms": 1e3 * statistics.median(median for median, _ in peer),
               "peer_min_ms": 1e3 * min(least for _, least in peer)}
        text = f"{title:52} {'':11} {row['peer_median_ms']:11.5g}"
        if mine:
            row["ours_median_ms"] = statistics.median(one["median_ms"] for one in mine)
            row["ours_min_ms"] = min(one["min_ms"] for one in mine)
            row["ratio"] = row["peer_median_ms"] / row["ours_median_ms"]
            row["relative_error"] = max(one["relative_error"] for one in mine)
            row["peak_gflops"] = max(one["peak_gflops"] for one in mine)
            rates = [one["gflops"] for one in mine if one["gflops"] is not None]
            row["gflops"] = statistics.median(rates) if rates else None
            share = "" if row["gflops"] is None else f"{row['gflops']:9.1f} {row['gflops'] / row['peak_gflops']:8.0%}"
            text = (f"{title:52} {row['ours_median_ms']:11.5g} {row['peer_median_ms']:11.5g} {row['ratio']:7.2f} {share:18} "
                    f"{row['relative_error']:9.1e}")
        rows.append(row)
        print(text, flush=True)
    if options.json:
        options.json.write_text(json.dumps({**about, "works": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
