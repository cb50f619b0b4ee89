"""A training step of a GPT on a GPU in PyTorch, beside `dualform bench gpt-step`: forward, backward, clipping, AdamW over all parameters in one
call; eager, with torch.compile, and the whole step as a CUDA graph.

    python bench/peers/gpt_step_cuda.py --java java --application dualform-cli.jar [--device cpu --backend cpu --tiny]

Both train the same model on the same kind of batch: 256 tokens, tied embedding, learned positions, GELU in its tanh form. In bfloat16 PyTorch's
parameters are bfloat16 with moments in bfloat16 too; ours keep float32 moments and a float32 copy, which is more work.
"""

import json
import os
import statistics
import subprocess

import torch
import torch.nn.functional as F

import peer

VOCABULARY = 256


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


class Step:
    def __init__(self, shape, dtype, device, compiled=False, capturable=False):
        b, t, layers, width, heads = shape
        self.model = Gpt(t, layers, width, heads).to(device, dtype)
        self.loss = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True,
                                           capturable=capturable)
        self.ids, self.targets = (torch.randint(VOCABULARY, (b, t), device=device) for _ in range(2))
        self.zero = not capturable

    def __call__(self, i=0):
        self.optimizer.zero_grad(set_to_none=self.zero)
        loss = self.loss(self.ids, self.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss


def peers(options, shape, dtype):
    calls = {"torch eager": Step(shape, dtype, options.device)}
    if options.device == "cpu":
        return calls
    try:
        calls["torch.compile"] = compiled = Step(shape, dtype, "cuda", compiled=True)
        for _ in range(3):
            compiled()
    except Exception as e:  # a compiler of PyTorch's own may be missing
        print(f"  torch.compile: {str(e).splitlines()[0]}", flush=True)
        calls.pop("torch.compile", None)
    replay = peer.graphed(Step(shape, dtype, "cuda", capturable=True), 1)
    if replay:
        calls["torch CUDA graph"] = lambda i: replay()
    return calls


def ours_ms(options, kernels, shape, dtype):
    backend = "cpu" if options.backend == "cpu" else "cuda"
    command = [options.java, "-Dorg.bytedeco.javacpp.maxPhysicalBytes=0", "-jar", options.application, "bench", "gpt-step",
               "--shape", ",".join(map(str, shape)), "--dtype", dtype, "--device", backend, "--seconds", str(options.seconds), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "DUALFORM_KERNELS": kernels})
    return (json.loads(done.stdout)["median_ms"], "") if done.returncode == 0 else (None, done.stderr.strip())


def check(options):
    """That the step trains: the same batch again and again, its loss must fall from ln 256 (5.55)."""
    step = Step((4, 16, 1, 32, 2), torch.float32, options.device)
    losses = [step().item() for _ in range(30)]
    if not (5.3 < losses[0] < 5.8 and losses[-1] < losses[0]):
        raise SystemExit(f"the peer does not train: {losses[0]:.3f} to {losses[-1]:.3f}")


def main():
    options = peer.arguments(__doc__)
    comparison = peer.Comparison(options)
    check(options)
    shapes = [((8, 1024, 12, 768, 12), "bf16"), ((8, 256, 6, 384, 6), "bf16"), ((8, 256, 6, 384, 6), "f32")]
    if options.tiny:
        shapes = [((2, 8, 1, 16, 2), "f32")]
    kinds = [k for k in options.kernels.split(",") if k] if options.java and options.backend in ("cpu", "cuda") else []
    if not kinds:
        print("ours left out: no Java and application given, or a backend that Java does not know", flush=True)
    for shape, dtype in shapes:
        made = peers(options, shape, torch.bfloat16 if dtype == "bf16" else torch.float32)
        mine, theirs = {}, {name: [] for name in made}
        for _ in range(options.rounds):
            for kernels in kinds:
                ms, reason = ours_ms(options, kernels, shape, dtype)
                if ms is None:
                    print(f"  ours, {kernels}: {reason}", flush=True)
                    comparison.failed = True
                else:
                    mine.setdefault(kernels, []).append(ms)
            for name, call in made.items():
                theirs[name].append(peer.median_ms(call, options.device, options.seconds))
        for name, times in theirs.items():
            for kernels in kinds or [None]:
                ours = statistics.median(mine[kernels]) if mine.get(kernels) else None
                comparison.row("gpt-step", shape, dtype, "both", kernels, ours, name, statistics.median(times))
        made.clear()
        if options.device == "cuda":
            torch.cuda.empty_cache()
    comparison.end()


if __name__ == "__main__":
    main()
