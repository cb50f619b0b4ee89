"""What the GPU peers share: options, timing on a device, runs of ours and theirs in turns, one JSON line for each comparison.

Timing: on CUDA between two events around a batch of calls, with one call queued ahead, over sets of tensors that together are larger than
the L2 (160 MiB), so that no call finds its inputs in it; the median over samples. As a CUDA graph: the same batch, captured once.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

ROTATED_BYTES = 160 << 20
SHORT = 2e-3  # seconds of one sample


def arguments(description, more=lambda parser: None):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--bench", type=Path, help="df_bench; without it only the peers run")
    parser.add_argument("--backend", default="cuda", help="of df_bench")
    parser.add_argument("--plugin", help="of df_bench")
    parser.add_argument("--kernels", default="plain,mma,hopper", help="of ours, with commas")
    parser.add_argument("--java", help="java, for works that df_bench does not have")
    parser.add_argument("--application", help="dualform-cli.jar")
    parser.add_argument("--rounds", type=int, default=3, help="of ours and theirs in turns")
    parser.add_argument("--seconds", type=float, default=0.2, help="of samples in each run")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, one round: does it run at all")
    parser.add_argument("--json", type=Path, help="file for one JSON line a comparison")
    more(parser)
    options = parser.parse_args()
    if options.tiny:
        options.rounds, options.seconds = 1, 0.0
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("this PyTorch sees no GPU")
    torch.manual_seed(20221220)
    # float32 products stay float32 products: tf32 is named where it is used.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return options


def median_ms(call, device, seconds):
    """call(i) queues the i-th call. Median milliseconds of one."""
    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    made = 0

    def batch(calls):
        nonlocal made
        if device == "cuda":
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            call(made)  # so that the device never waits for the host; with tensors of its own
            made += 1
            start.record()
            for i in range(calls):
                call(made + i)
            stop.record()
            stop.synchronize()
            elapsed = start.elapsed_time(stop) / 1e3
        else:
            begin = time.perf_counter()
            for i in range(calls):
                call(made + i)
            elapsed = time.perf_counter() - begin
        made += calls
        return elapsed / calls

    batch(1)
    wait()
    once = min(batch(1) for _ in range(3))
    calls = max(1, math.ceil(SHORT / max(once, 1e-7))) if seconds > 0 else 1
    calls = min(calls, 2000)
    batch(calls)
    samples, begin = [], time.perf_counter()
    while len(samples) < 5 or time.perf_counter() - begin < seconds:
        samples.append(batch(calls))
    return 1e3 * statistics.median(samples)


def sets_of(make, device):
    """make() gives (call, bytes of its tensors). So many of them that together they leave the L2."""
    first, size = make()
    count = 1 if device == "cpu" else min(64, max(1, math.ceil(ROTATED_BYTES / max(size, 1))))
    calls = [first] + [make()[0] for _ in range(count - 1)]
    return lambda i: calls[i % count]()


def graphed(call, count):
    """The same calls as one replay of a CUDA graph: call(i) for i below count. None where it cannot be captured."""
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for i in range(3):
                call(i)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for i in range(count):
                call(i)
        return graph.replay
    except Exception as e:
        print(f"  no CUDA graph: {why(e)}", flush=True)
        torch.cuda.synchronize()
        return None


PROCESS_SECONDS = 300  # one df_bench with all its shapes, checks in float64 among them


def why(e):
    """One line of an exception, whatever it is: some have no text, others many lines."""
    return f"{type(e).__name__}: {(str(e).strip().splitlines() or [''])[0]}"[:300]


def variants(options, dtype):
    """(kernels, precision) of ours that are compared: not the plain ones, where others are asked for. float32 has one way for each precision
    of products on tensor cores, which no kernels of sm_90a have."""
    kinds = [k for k in options.kernels.split(",") if k]
    kinds = [k for k in kinds if k != "plain"] or kinds
    if dtype == "bf16" or kinds == ["plain"]:
        return [(k, "float32") for k in kinds]
    return [("mma" if "mma" in kinds else kinds[0], precision) for precision in ("tf32", "bf16x3")]


def ours(options, kernels, precision, work, shapes, dtype, timed, extra=(), check=True):
    """df_bench over all shapes, in one process: {shape: its line}. What fails is said, and the shapes behind it run all the same."""
    lines, rest = {}, list(shapes)
    while rest:
        command = [str(options.bench), work, "--dtype", dtype, "--pass", timed, "--backend", options.backend, "--seconds", str(options.seconds),
                   "--ceilings", "false", "--check", "true" if check else "false", "--json", *extra]
        for shape in rest:
            command += ["--shape", ",".join(map(str, shape))]
        if options.plugin:
            command += ["--plugin", options.plugin]
        if options.backend != "cpu":
            command += ["--option", f"kernels={kernels}", "--option", f"precision={precision}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_SECONDS)
            out, reason = done.stdout, done.stderr.strip() if done.returncode != 0 else ""
        except subprocess.TimeoutExpired as e:
            out, reason = e.stdout or b"", f"more than {PROCESS_SECONDS} s"
            out = out.decode() if isinstance(out, bytes) else out
        made = [json.loads(line) for line in out.splitlines() if line.endswith("}")]
        for shape, line in zip(rest, made):
            if line["correct"] is not False:
                lines[tuple(shape)] = line
        if reason:
            print(f"  ours, {kernels} {precision}, {work} {dtype} {timed}: {reason}", flush=True)
        if not reason and len(made) == len(rest):
            break
        rest = rest[len(made) + 1:]  # the one behind the last line has no answer
    return lines


class Comparison:
    """Collects rows and prints them as they come."""

    def __init__(self, options):
        self.options = options
        self.failed = False
        if options.json:
            options.json.write_text("")
        self.about = {"torch": torch.__version__, "torch_cuda": torch.version.cuda,
                      "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu"}
        print(", ".join(f"{k} {v}" for k, v in self.about.items()), flush=True)

    def row(self, op, shape, dtype, timed, kernels, ours, peer, peer_ms, **more):
        row = {"op": op, "shape": list(shape), "dtype": dtype, "pass": timed, "kernels": kernels,
               "ours_ms": round(ours, 5) if ours else None, "peer": peer, "peer_ms": round(peer_ms, 5) if peer_ms else None,
               "ratio": round(peer_ms / ours, 3) if ours and peer_ms else None, **more, **self.about}
        text = json.dumps(row)
        if self.options.json:
            with self.options.json.open("a") as f:
                f.write(text + "\n")
        print(f"{op} {','.join(map(str, shape))} {dtype} {timed}: {kernels} {row['ours_ms']} ms, {peer} {row['peer_ms']} ms, "
              f"ratio {row['ratio']}", flush=True)

    def compare(self, op, cases, timed, make, extra=(), **more):
        """cases: [(shape, dtype)]. make(shape, dtype): {name: call(i), or (call(i), works in each call)}. In each round ours, one process for
        each kind of kernels and dtype, and then every peer; rows come at the end, so that what one of both cannot do costs no other row."""
        o = self.options
        mine, theirs, ran = {}, {}, {}
        right = {}  # (dtype, kind): shapes that were answered rightly in the first round; the others are not tried again
        for turn in range(o.rounds):
            for dtype in dict.fromkeys(dtype for _, dtype in cases):
                shapes = [shape for shape, d in cases if d == dtype]
                for kind in variants(o, dtype) if o.bench else []:
                    tried = right.get((dtype, kind), shapes)
                    lines = ours(o, *kind, op, tried, dtype, timed, extra, check=turn == 0)
                    self.failed = self.failed or len(lines) < len(tried)
                    right[dtype, kind] = [shape for shape in tried if tuple(shape) in lines]
                    for shape, line in lines.items():
                        mine.setdefault((shape, dtype, *kind), []).append(line["median_ms"])
                        ran[shape, dtype, *kind] = " ".join(line["ran"])
            for shape, dtype in cases:
                calls = {}
                try:
                    calls = make(shape, dtype)
                except Exception as e:  # torch, Triton or a package may fail in any way
                    print(f"  peers of {op} {shape} {dtype}: {why(e)}", flush=True)
                for name, call in calls.items():
                    times = theirs.setdefault((shape, dtype), {}).setdefault(name, [])
                    call, works = call if isinstance(call, tuple) else (call, 1)
                    try:
                        times.append(median_ms(call, o.device, o.seconds) / works)
                    except Exception as e:
                        print(f"  {name}, {op} {shape} {dtype} {timed}: {why(e)}", flush=True)
                calls.clear()
                if o.device == "cuda":
                    torch.cuda.empty_cache()
        for shape, dtype in cases:
            kinds = [kind for kind in variants(o, dtype) if mine.get((shape, dtype, *kind))] if o.bench else []
            for name, times in theirs.get((shape, dtype), {}).items():
                for kind in kinds or [(None, "float32")] if times else []:
                    times_of_ours = mine.get((shape, dtype, *kind))
                    self.row(op, shape, dtype, timed, kind[0] if kind[1] == "float32" else f"{kind[0]} {kind[1]}",
                             statistics.median(times_of_ours) if times_of_ours else None, name, statistics.median(times),
                             ran=ran.get((shape, dtype, *kind), ""), **more)

    def end(self):
        print("ours failed" if self.failed else "compared", flush=True)
        sys.exit(1 if self.failed else 0)


def agrees(what, value, expected, limit):
    """Ends the program when a peer does not compute what ours computes."""
    apart = ((value.double() - expected.double()).abs().max() / expected.double().abs().max()).item()
    if not apart <= limit:
        sys.exit(f"{what}: off by {apart:.3g} of the largest value, at most {limit} expected")
    print(f"{what}: agrees within {apart:.1e}", flush=True)
