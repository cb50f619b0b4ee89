"""A training step of a GPT on a GPU in PyTorch, beside `dualform bench gpt-step`: forward, backward, clipping, AdamW over all parameters in one
call; eager, with torch.compile, and the whole step as a CUDA graph.

    python bench/peers/gpt_step_cuda.py --java java --application dualform-cli.jar [--vocabulary N] [--device cpu --backend cpu --tiny]

Both train the same model on the same kind of batch: tied embedding, learned positions, GELU in its tanh form. Ours with each kind of kernels runs
call by call and as a graph. In bfloat16 PyTorch's parameters are bfloat16 with moments in bfloat16 too; ours keep float32 moments and a float32
copy, which is more work.
"""

import gc
import json
import os
import statistics
import subprocess

import torch
import torch.nn.functional as F

import peer

GPT2_VOCABULARY, SMALL_VOCABULARY = 50257, 256
PROCESS_SECONDS = 300


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
    def __init__(self, vocabulary, context, layers, width, heads):
        super().__init__()
        self.vocabulary = vocabulary
        self.wte, self.wpe = torch.nn.Embedding(vocabulary, width), torch.nn.Embedding(context, width)
        self.blocks = torch.nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln = torch.nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.02)

    def forward(self, ids, targets):
        x = self.wte(ids) + self.wpe.weight
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(F.linear(self.ln(x), self.wte.weight).view(-1, self.vocabulary), targets.view(-1))


class Step:
    def __init__(self, shape, vocabulary, dtype, device, compiled=False, capturable=False):
        b, t, layers, width, heads = shape
        self.model = Gpt(vocabulary, t, layers, width, heads).to(device, dtype)
        self.loss = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True,
                                           capturable=capturable)
        self.ids, self.targets = (torch.randint(vocabulary, (b, t), device=device) for _ in range(2))
        self.zero = not capturable

    def __call__(self, i=0):
        self.optimizer.zero_grad(set_to_none=self.zero)
        loss = self.loss(self.ids, self.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss


def peers(options, shape, vocabulary, dtype):
    """Functions that make a peer: one after the other is on the device, since each may fill it."""
    def compiled():
        step = Step(shape, vocabulary, dtype, options.device, compiled=True)
        for _ in range(3):
            step()
        return step

    def graph():
        replay = peer.graphed(Step(shape, vocabulary, dtype, options.device, capturable=True), 1)
        if replay is None:
            raise RuntimeError("it cannot be captured")
        return lambda i: replay()

    makers = {"torch eager": lambda: Step(shape, vocabulary, dtype, options.device)}
    if options.device == "cuda":
        makers.update({"torch.compile": compiled, "torch CUDA graph": graph})
    return makers


def ours_ms(options, kernels, graphs, shape, vocabulary, dtype):
    command = [options.java, "-Dorg.bytedeco.javacpp.maxPhysicalBytes=0", "-jar", options.application, "bench", "gpt-step",
               "--shape", ",".join(map(str, shape)), "--dtype", dtype, "--device", "cpu" if options.backend == "cpu" else "cuda",
               "--seconds", str(options.seconds), "--json"]
    if vocabulary != SMALL_VOCABULARY:
        command += ["--vocabulary", str(vocabulary)]
    if options.backend != "cpu":
        command += ["--graphs", "true" if graphs else "false"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "DUALFORM_KERNELS": kernels}, timeout=PROCESS_SECONDS)
        return (json.loads(done.stdout)["median_ms"], "") if done.returncode == 0 else (None, done.stderr.strip())
    except (subprocess.TimeoutExpired, ValueError, KeyError) as e:
        return None, peer.why(e)


def check(options):
    """That the step trains: the same batch again and again, its loss must fall from ln 256 (5.55)."""
    step = Step((4, 16, 1, 32, 2), SMALL_VOCABULARY, torch.float32, options.device)
    losses = [step().item() for _ in range(30)]
    if not (5.3 < losses[0] < 5.8 and losses[-1] < losses[0]):
        raise SystemExit(f"the peer does not train: {losses[0]:.3f} to {losses[-1]:.3f}")


def main():
    options = peer.arguments(__doc__, lambda parser: parser.add_argument("--vocabulary", type=int, help=f"of every model "
                             f"({GPT2_VOCABULARY} for GPT-2 124M, {SMALL_VOCABULARY} for the small ones)"))
    comparison = peer.Comparison(options)
    check(options)
    # B,T,L,C,NH. GPT-2 124M with 64k tokens in a step, then a small model.
    works = [((64, 1024, 12, 768, 12), GPT2_VOCABULARY, "bf16"), ((8, 256, 6, 384, 6), SMALL_VOCABULARY, "bf16"),
             ((8, 256, 6, 384, 6), SMALL_VOCABULARY, "f32")]
    if options.tiny:
        works = [((2, 8, 1, 16, 2), SMALL_VOCABULARY, "f32")]
    with_ours = options.java and options.backend in ("cpu", "cuda")
    if not with_ours:
        print("ours left out: no Java and application given, or a backend that Java does not know", flush=True)
    for shape, vocabulary, dtype in works:
        vocabulary = options.vocabulary or vocabulary
        kinds = [k for k in options.kernels.split(",") if k]
        kinds = [k for k in kinds if k != "plain"] or kinds
        kinds = [(k, graphs) for k in kinds for graphs in ((False,) if options.backend == "cpu" else (False, True))] if with_ours else []
        mine, theirs, kept = {}, {}, {}
        for _ in range(options.rounds):
            for kind in list(kinds):
                ms, reason = ours_ms(options, *kind, shape, vocabulary, dtype)
                if ms is None:
                    print(f"  ours, {kind[0]}{', graph' if kind[1] else ''} {shape} {dtype}: {reason}", flush=True)
                    comparison.failed = True
                    kinds.remove(kind)  # the same again in the next round
                else:
                    mine.setdefault(kind, []).append(ms)
            for name, make in peers(options, shape, vocabulary, torch.bfloat16 if dtype == "bf16" else torch.float32).items():
                call = None
                try:
                    call = kept.get(name) or make()
                    if name == "torch.compile":  # a minute or two; what it holds between its steps is little
                        kept[name] = call
                    theirs.setdefault(name, []).append(peer.median_ms(call, options.device, options.seconds))
                except Exception as e:  # memory, PyTorch's compiler, a capture
                    print(f"  {name} {shape} {dtype}: {peer.why(e)}", flush=True)
                call = None
                gc.collect()
                if options.device == "cuda":
                    torch.cuda.empty_cache()
        for name, times in theirs.items():
            for kind in list(mine) or [None]:
                comparison.row("gpt-step", shape, dtype, "both", kind and kind[0] + (" graph" if kind[1] else ""),
                               statistics.median(mine[kind]) if kind else None, name, statistics.median(times), vocabulary=vocabulary)
    comparison.end()


if __name__ == "__main__":
    main()
