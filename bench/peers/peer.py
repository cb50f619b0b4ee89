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


def arguments(description):
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
            call(made)
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
    except RuntimeError as e:
        print(f"  no CUDA graph: {str(e).splitlines()[0]}", flush=True)
        torch.cuda.synchronize()
        return None


def ours_ms(options, kernels, work, shape, dtype, timed, extra=()):
    """One process of df_bench: (milliseconds, its line), or None and the reason when it fails."""
    command = [str(options.bench), work, "--shape", ",".join(map(str, shape)), "--dtype", dtype, "--pass", timed, "--backend", options.backend,
               "--seconds", str(options.seconds), "--ceilings", "false", "--json", *extra]
    if options.plugin:
        command += ["--plugin", options.plugin]
    if options.backend != "cpu":
        command += ["--option", f"kernels={kernels}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return None, done.stderr.strip()
    line = json.loads(done.stdout)
    return line["median_ms"], line


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

    def compare(self, op, shape, dtype, timed, peers, ours_shape=None, extra=()):
        """peers: {name: call(i), or (call(i), works in each call), or None}. Ours with each kind of kernels and every peer take turns."""
        o = self.options
        mine, theirs = {}, {name: [] for name in peers}
        kinds = [k for k in o.kernels.split(",") if k] if o.bench else []
        for _ in range(o.rounds):
            for kernels in kinds:
                ms, line = ours_ms(o, kernels, op, ours_shape or shape, dtype, timed, extra)
                if ms is None:
                    print(f"  ours, {kernels}: {line}", flush=True)
                    self.failed = True
                else:
                    mine.setdefault(kernels, []).append(ms)
            for name, call in peers.items():
                if call is None:
                    continue
                call, works = call if isinstance(call, tuple) else (call, 1)
                try:
                    theirs[name].append(median_ms(call, o.device, o.seconds) / works)
                except RuntimeError as e:
                    print(f"  {name}: {str(e).splitlines()[0]}", flush=True)
                    peers[name] = None
        for name, times in theirs.items():
            peer_ms = statistics.median(times) if times else None
            for kernels in kinds or [None]:
                ours = statistics.median(mine[kernels]) if mine.get(kernels) else None
                if peer_ms is not None:
                    self.row(op, shape, dtype, timed, kernels, ours, name, peer_ms)

    def end(self):
        print("ours failed" if self.failed else "compared", flush=True)
        sys.exit(1 if self.failed else 0)


def agrees(what, value, expected, limit):
    """Ends the program when a peer does not compute what ours computes."""
    apart = ((value.double() - expected.double()).abs().max() / expected.double().abs().max()).item()
    if not apart <= limit:
        sys.exit(f"{what}: off by {apart:.3g} of the largest value, at most {limit} expected")
    print(f"{what}: agrees within {apart:.1e}", flush=True)
