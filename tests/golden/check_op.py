"""Compares `./dualform op` with PyTorch in float64 on random tensors, and checks how it answers bad input.

    python tests/golden/check_op.py --dualform ./dualform --cases 40 --seed 1
    python tests/golden/check_op.py --self-test

README.md beside this file has the tolerances.
"""
import argparse
import contextlib
import io
import json
import math
import os
import pathlib
import random
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import reference
import stand_in

DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16}
UNIT_ROUNDOFF = {torch.float32: 2.0 ** -24, torch.bfloat16: 2.0 ** -8}
FLOAT64_TOLERANCE = 1e-11
ACCUMULATED = {"lse", "state", "dw"}  # float32, or float64 for F64 inputs
GRADIENTS = {"dq", "dk", "dv", "deta", "ddecay", "ds0", "dw0", "de", "dxp", "dx"}
OPS = ("attention", "momentum-attention", "dual-form", "linear-attention")
NAIVE_SHUFFLES = 5
TIMEOUT_SECONDS = 300


@dataclass
class Answer:
    code: int
    stdout: str
    stderr: str


class Command:
    """`./dualform`, or whatever prefix serves in its place."""

    def __init__(self, prefix):
        self.prefix = shlex.split(prefix)

    def __call__(self, *arguments):
        done = subprocess.run(self.prefix + list(arguments), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_SECONDS)
        return Answer(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


class StandIn:
    """stand_in.py inside this process."""

    def __call__(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = stand_in.main(list(arguments))
        return Answer(code, out.getvalue(), err.getvalue())


@dataclass
class Case:
    op: str
    tensors: dict
    settings: dict = field(default_factory=dict)
    backward: bool = False

    @property
    def dtype(self):
        return self.tensors["w0" if self.op == "dual-form" else "q"].dtype

    def __str__(self):
        shapes = " ".join(f"{name}{tuple(t.shape)}".replace(" ", "") for name, t in self.tensors.items())
        return f"{self.op} {shapes} {self.settings}{' backward' if self.backward else ''}"

    def arguments(self, source, target, device="auto"):
        words = ["op", self.op, "--in", str(source), "--out", str(target)]
        words += ["--backward"] if self.backward else []
        words += ["--device", device] if device != "auto" else []
        for key, value in self.settings.items():
            words += ["--set", f"{key}={value}"]
        return words


# ---- what is expected ----

# The naive forms of each operation, the float64 reference first.
FORMS = {"attention": ("softmax", "saved"), "momentum-attention": ("softmax", "saved"), "dual-form": ("primal", "dual"),
         "linear-attention": ("recurrence", "pairs")}


def computed(case, dtype, form=None):
    """Every output of the case, taken in dtype from the case's (already rounded) inputs; gradients by autograd."""
    form = form or FORMS[case.op][0]
    given = {name: t if t.dtype == torch.int32 else t.to(dtype) for name, t in case.tensors.items()}
    settings = case.settings
    leaf = {name: t.clone().requires_grad_(True) for name, t in given.items() if t.is_floating_point() and name != "dout"}
    if case.op == "dual-form":
        names = ["w0", "e", "xp", "x"]
        out, dw = reference.dual_form(*(leaf[name] for name in names), form=form)
        results = {"out": out, "dw": dw}
    elif case.op == "linear-attention":
        names = ["q", "k", "v", "decay", "s0"]
        function = reference.linear_attention_by_pairs if form == "pairs" else reference.linear_attention
        out, state = function(*(leaf.get(name) for name in names))
        results = {"out": out, "state": state}
    else:
        names = ["q", "k", "v"]
        q, k, v = (leaf[name] for name in names)
        shared = dict(lengths=given.get("lengths"), scale=float(settings.get("scale", 1 / math.sqrt(q.shape[3]))), saved=form == "saved")
        if case.op == "attention":
            out, lse = reference.attention(q, k, v, causal=settings.get("causal", "true") == "true", **shared)
        else:
            if "eta" not in leaf:
                # A number is not a tensor of the inputs' dtype: it keeps the accumulation dtype.
                leaf["eta"] = torch.full((q.shape[2],), float(settings["eta"]), dtype=reference.accumulation(dtype), requires_grad=True)
            names.append("eta")
            out, _, lse, _ = reference.momentum_attention(q, k, v, leaf["eta"], **shared)
        results = {"out": out, "lse": lse}
    if case.backward:
        names = [name for name in names if name in leaf]
        found = torch.autograd.grad((out * given["dout"]).sum(), [leaf[name] for name in names], allow_unused=True)
        results.update({"d" + name: torch.zeros_like(leaf[name]) if g is None else g for name, g in zip(names, found)})
    return {name: t.detach().double() for name, t in results.items()}


def shuffled(case, seed):
    """A case of the same shapes, settings and values, each tensor's values in another order."""
    generator = torch.Generator().manual_seed(seed)

    def shuffle(name, t):
        order = torch.arange(t.numel()) if name in ("lengths", "eta", "decay") else torch.randperm(t.numel(), generator=generator)
        return t.reshape(-1)[order].reshape(t.shape)

    return Case(case.op, {name: shuffle(name, t) for name, t in case.tensors.items()}, case.settings, case.backward)


def naive_errors(case):
    """Relative error of the naive operation for each output, in the dtype that output is accumulated in. One run alone errs little
    by luck (exactly 0 where there is a single key), so this is the worst over every form and over shuffled values."""
    wide = reference.accumulation(case.dtype)
    errors = {}
    for sample in [case] + [shuffled(case, seed) for seed in range(NAIVE_SHUFFLES)]:
        expected = computed(sample, torch.float64)
        for form in FORMS[case.op]:
            for dtype in {case.dtype, wide}:
                for name, got in computed(sample, dtype, form).items():
                    if dtype == (wide if name in ACCUMULATED else case.dtype):
                        size = magnitude(sample, name, expected[name])
                        error = distance(got, expected[name]) / size if size > 0 else 0.0
                        errors[name] = max(errors.get(name, 0.0), error)
    return errors


def output_dtypes(case, name):
    wide = reference.accumulation(case.dtype)
    if name in ACCUMULATED:
        return {wide}
    if name == "ds0":  # the inputs' dtype, of which s0 is one that may differ
        return {case.dtype, case.tensors["s0"].dtype}
    return {case.dtype}


def exact_zeros(case, name):
    """Mask of elements that must be exactly 0, or None: rows with nothing to attend, and padding."""
    if "attention" not in case.op or case.op == "linear-attention":
        return None
    q, k, lengths = case.tensors["q"], case.tensors["k"], case.tensors.get("lengths")
    B, T, S = q.shape[0], q.shape[1], k.shape[1]
    causal = case.settings.get("causal", "true") == "true"
    if name in ("out", "dq"):
        return ~reference.visible(B, T, S, lengths, causal).any(-1)[:, 0, :, None, None].expand(q.shape)
    if name in ("dk", "dv") and lengths is not None:
        return (torch.arange(S)[None, :] >= lengths.long()[:, None])[:, :, None, None].expand(k.shape)
    return None


def largest(t):
    finite = t[torch.isfinite(t)]
    return finite.abs().max().item() if finite.numel() else 0.0


def distance(a, b):
    """Largest difference; infinities must agree exactly, and NaN is infinitely far."""
    same = a == b
    difference = torch.where(same, torch.zeros_like(a), (a - b).abs())
    return torch.nan_to_num(difference, nan=math.inf, posinf=math.inf).max().item()


def magnitude(case, name, expected):
    """What errors are relative to. lse is a logarithm: an error in it counts against 1 at least."""
    if name == "lse":
        return max(largest(expected), 1.0)
    return max(largest(expected), largest(case.tensors["dout"].double())) if name in GRADIENTS else largest(expected)


def ratio(case, name, got, expected, naive_error):
    """Error over tolerance."""
    size = magnitude(case, name, expected)
    if case.dtype == torch.float64:
        tolerance = FLOAT64_TOLERANCE * size
    else:
        tolerance = (2 * naive_error + UNIT_ROUNDOFF[got.dtype]) * size
    error = distance(got.double(), expected)
    return error / tolerance if tolerance > 0 else (0.0 if error == 0 else math.inf)


def judged(case, outputs):
    """(worst ratio, its tensor, complaints) for the tensors a run wrote."""
    expected = computed(case, torch.float64)
    naives = naive_errors(case) if case.dtype != torch.float64 else {}
    if set(outputs) != set(expected):
        return math.inf, "", [f"wrote {sorted(outputs)}, expected {sorted(expected)}"]
    complaints, worst = [], (0.0, "")
    for name, want in expected.items():
        got = outputs[name]
        if got.dtype not in output_dtypes(case, name):
            complaints.append(f"{name}: dtype {got.dtype}, expected {output_dtypes(case, name)}")
        elif got.shape != want.shape:
            complaints.append(f"{name}: shape {tuple(got.shape)}, expected {tuple(want.shape)}")
        else:
            worst = max(worst, (ratio(case, name, got, want, naives.get(name)), name))
            zeros = exact_zeros(case, name)
            if zeros is not None and (got[zeros] != 0).any():
                complaints.append(f"{name}: not exactly 0 where nothing is attended")
    if not worst[0] <= 1:
        complaints.append(f"{worst[1]}: error {worst[0]:.3g} times the tolerance")
    return worst[0], worst[1], complaints


# ---- random cases ----

def tensor(generator, dtype, *shape, std=1.0, mean=0.0):
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * std + mean).to(dtype)


def random_length(rng):
    return rng.choice([1, 2, rng.randint(3, 40), rng.randint(3, 40), rng.randint(3, 40), rng.randint(100, 180)])


def attention_case(rng, generator, op, dtype, backward):
    B, HS = rng.randint(1, 3), rng.choice([1, 5, 8, 16, 33, 40, 64, 80, 128, 256])
    NKV = rng.choice([1, 2, 3])
    NH = NKV * rng.choice([1, 1, 2, 4])
    T = random_length(rng)
    S = rng.choice([T, T, T + rng.randint(1, 30), max(1, T - rng.randint(1, 30))])
    if dtype != torch.float64 and backward:
        S = max(S, 4)  # with one key dq and dk are exactly 0, naively too: only float64 has a tolerance for that
    tensors = {"q": tensor(generator, dtype, B, T, NH, HS, std=rng.choice([1.0, 1.0, 3.0])),
               "k": tensor(generator, dtype, B, S, NKV, HS, mean=rng.choice([0.0, 0.0, 2.0])),
               "v": tensor(generator, dtype, B, S, NKV, HS)}
    if rng.random() < 0.4:
        tensors["lengths"] = torch.tensor([rng.choice([0, S, rng.randint(0, S)]) for _ in range(B)], dtype=torch.int32)
    settings = {}
    if rng.random() < 0.3:
        settings["scale"] = rng.choice(["0.3", "1", "1.5e-1"])
    if op == "attention":
        settings.update(rng.choice([{}, {"causal": "true"}, {"causal": "false"}]))
    elif rng.random() < 0.6:
        tensors["eta"] = torch.tensor([rng.choice([0.0, 0.5, rng.uniform(0, 0.98)]) for _ in range(NH)], dtype=torch.float64).to(dtype)
    else:
        settings["eta"] = rng.choice(["0", "0.5", "0.9", "9.5e-1"])
    if backward:
        tensors["dout"] = tensor(generator, dtype, B, T, NH, HS)
    return Case(op, tensors, settings, backward)


def dual_form_case(rng, generator, op, dtype, backward):
    M, N, O, I = (rng.choice([1, rng.randint(2, 50), rng.randint(2, 50), rng.randint(60, 150)]) for _ in range(4))
    tensors = {"w0": tensor(generator, dtype, O, I), "e": tensor(generator, dtype, N, O), "xp": tensor(generator, dtype, N, I),
               "x": tensor(generator, dtype, M, I)}
    if backward:
        tensors["dout"] = tensor(generator, dtype, M, O)
    return Case(op, tensors, rng.choice([{}, {"form": "auto"}, {"form": "primal"}, {"form": "dual"}]), backward)


def linear_attention_case(rng, generator, op, dtype, backward):
    B, NH, T, HS = rng.randint(1, 2), rng.randint(1, 3), random_length(rng), rng.choice([1, 5, 16, 33, 64])
    # Keys of about unit length, as a model would have: otherwise the state's size grows with HS and hides small terms.
    tensors = {"q": tensor(generator, dtype, B, T, NH, HS), "k": tensor(generator, dtype, B, T, NH, HS, std=HS ** -0.5),
               "v": tensor(generator, dtype, B, T, NH, HS)}
    if rng.random() < 0.6:
        tensors["decay"] = torch.tensor([rng.choice([0.0, 1.0, 0.9, rng.random()]) for _ in range(NH)], dtype=torch.float64).to(dtype)
    if rng.random() < 0.5:
        tensors["s0"] = tensor(generator, rng.choice([dtype, reference.accumulation(dtype)]), B, NH, HS, HS)
    if backward:
        tensors["dout"] = tensor(generator, dtype, B, T, NH, HS)
    return Case(op, tensors, {}, backward)


DRAW = {"attention": attention_case, "momentum-attention": attention_case, "dual-form": dual_form_case,
        "linear-attention": linear_attention_case}


def random_cases(count, seed):
    """Operations and dtypes take turns; three cases of four have gradients."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    groups = [(op, dtype) for op in OPS for dtype in DTYPES]
    for number in range(count):
        op, dtype = groups[number % len(groups)]
        yield f"{op} {dtype}", DRAW[op](rng, generator, op, DTYPES[dtype], rng.random() < 0.75)


# ---- running ----

class Checker:
    def __init__(self, program, folder, device="auto", log=print):
        self.program, self.folder, self.device, self.log = program, pathlib.Path(folder), device, log
        self.passed = self.failed = self.serial = 0

    def tally(self, what, complaints):
        if complaints:
            self.failed += 1
            self.log(f"FAILED {what}: " + "; ".join(complaints))
        else:
            self.passed += 1
        return not complaints

    def fresh_paths(self):
        """An input path, and an output path alone in a folder of its own, so that anything left behind is seen."""
        self.serial += 1
        out = self.folder / f"out{self.serial}"
        out.mkdir()
        return self.folder / f"in{self.serial}.safetensors", out / "out.safetensors"

    def outputs(self, case):
        """(tensors written, complaints)."""
        source, target = self.fresh_paths()
        save_file({name: t.contiguous() for name, t in case.tensors.items()}, str(source))
        answer = self.program(*case.arguments(source, target, self.device))
        source.unlink()
        if answer.code != 0:
            return None, [f"exit code {answer.code}: {answer.stderr.strip()[-500:]}"]
        complaints = [f"wrote to stderr: {answer.stderr.strip()[:300]}"] if answer.stderr else []
        beside = sorted(path.name for path in target.parent.iterdir())
        if beside != [target.name]:
            return None, complaints + [f"left {beside} in the output folder"]
        try:
            tensors = load_file(str(target))
        except SafetensorError as e:
            return None, complaints + [f"unreadable output: {e}"]
        target.unlink()
        return tensors, complaints

    def check(self, case):
        outputs, complaints = self.outputs(case)
        worst, name = math.inf, ""
        if outputs is not None:
            worst, name, more = judged(case, outputs)
            complaints += more
        self.tally(str(case), complaints)
        return worst, name

    def check_random(self, count, seed):
        groups = {}
        for group, case in random_cases(count, seed):
            groups.setdefault(group, []).append(self.check(case))
        for group, results in groups.items():
            worst, name = max(results)
            self.log(f"{group:24} {len(results):3} cases   worst error/tolerance {worst:.2g} {name}")

    def check_eta_zero(self, seed):
        """eta = 0 is attention bit for bit, out and lse, and dq and dk with them."""
        same = 0
        for dtype_name, dtype in DTYPES.items():
            case = attention_case(random.Random(seed), torch.Generator().manual_seed(seed), "attention", dtype, True)
            case.settings.pop("causal", None)
            plain, complaints = self.outputs(case)
            momentum, more = self.outputs(Case("momentum-attention", case.tensors, {**case.settings, "eta": "0"}, True))
            complaints += more
            if not complaints:
                complaints = [f"{name} differs" for name in ("out", "lse", "dq", "dk")
                              if not torch.equal(plain[name].view(torch.uint8), momentum[name].view(torch.uint8))]
            same += self.tally(f"eta = 0 against attention, {dtype_name}", complaints)
        self.log(f"{'eta = 0 is attention':24} {len(DTYPES):3} cases   {same} bit for bit")

    def check_bad_input(self):
        answered = 0
        table = bad_inputs()
        for bad in table:
            answered += self.tally(f"bad input, {bad.what}", self.bad_input_complaints(bad))
        self.log(f"{'bad input':24} {len(table):3} cases   {answered} answered as they should be")

    def bad_input_complaints(self, bad):
        source, target = self.fresh_paths()
        if isinstance(bad.content, bytes):
            source.write_bytes(bad.content)
        elif bad.content is not None:
            save_file(bad.content, str(source))
        if bad.source:
            source = self.folder / bad.source
        if bad.target:
            target = target.parent / bad.target
        places = {"IN": str(source), "OUT": str(target)}
        answer = self.program(*[places.get(word, word) for word in bad.words])
        complaints = []
        if answer.code != bad.code:
            complaints.append(f"exit code {answer.code}, expected {bad.code}")
        if not answer.stderr.strip() or answer.stderr.rstrip("\n").count("\n"):
            complaints.append(f"stderr {answer.stderr[:300]!r}, expected one line")
        if answer.stdout:
            complaints.append(f"stdout {answer.stdout[:300]!r}, expected nothing")
        left = [path.name for path in self.folder.glob(f"out{self.serial}/**/*")]
        return complaints + ([f"left {left} in the output folder"] if left else [])


# ---- bad input ----

@dataclass
class Bad:
    what: str
    words: list           # IN and OUT stand for the paths
    content: object       # tensors, raw bytes, or None for no file
    code: int = 2
    source: str = ""      # other input path inside the checker's folder
    target: str = ""      # other output path inside the output folder


def raw_file(header, data=b""):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(content).to_bytes(8, "little") + content + data


def bad_inputs():
    g = torch.Generator().manual_seed(5)
    f32 = torch.float32

    def one(dtype, *shape):
        return tensor(g, dtype, *shape)

    attention = {"q": one(f32, 2, 3, 4, 8), "k": one(f32, 2, 5, 2, 8), "v": one(f32, 2, 5, 2, 8), "dout": one(f32, 2, 3, 4, 8)}
    momentum = {**attention, "eta": torch.full((4,), 0.5)}
    no_eta = attention
    dual = {"w0": one(f32, 3, 4), "e": one(f32, 5, 3), "xp": one(f32, 5, 4), "x": one(f32, 2, 4), "dout": one(f32, 2, 3)}
    linear = {"q": one(f32, 1, 4, 2, 3), "k": one(f32, 1, 4, 2, 3), "v": one(f32, 1, 4, 2, 3), "dout": one(f32, 1, 4, 2, 3)}
    table = []

    def add(what, op, content, *more, **places):
        table.append(Bad(what, ["op", op, "--in", "IN", "--out", "OUT", *more], content, **places))

    def changed(base, **changes):
        return {name: t for name, t in {**base, **changes}.items() if t is not None}

    def lengths(*values):
        return torch.tensor(values, dtype=torch.int32)

    # The command itself.
    add("unknown operation", "softmax-attention", attention)
    table.append(Bad("no operation", ["op"], None))
    table.append(Bad("no --in", ["op", "attention", "--out", "OUT"], None))
    table.append(Bad("no --out", ["op", "attention", "--in", "IN"], attention))
    add("unknown option", "attention", attention, "--frobnicate")
    add("unknown device", "attention", attention, "--device", "abacus")
    if not os.path.exists("/dev/nvidiactl"):
        add("cuda without a GPU", "attention", attention, "--device", "cuda", code=3)
    # Settings.
    add("unknown setting", "attention", attention, "--set", "temperature=1")
    add("a setting of another operation", "linear-attention", linear, "--set", "scale=1")
    add("setting without a value", "attention", attention, "--set", "scale")
    add("scale=fast", "attention", attention, "--set", "scale=fast")
    add("scale=nan", "attention", attention, "--set", "scale=nan")
    add("scale=inf", "attention", attention, "--set", "scale=inf")
    add("causal=perhaps", "attention", attention, "--set", "causal=perhaps")
    add("causal=false for momentum", "momentum-attention", momentum, "--set", "causal=false")
    for eta in ("nan", "1", "-0.1", "inf", "", "0.5x"):
        add(f"eta={eta}", "momentum-attention", no_eta, "--set", f"eta={eta}")
    add("no eta", "momentum-attention", no_eta)
    add("form=fast", "dual-form", dual, "--set", "form=fast")
    # Tensors.
    add("no v", "attention", changed(attention, v=None))
    add("no dout", "attention", changed(attention, dout=None), "--backward")
    add("rank 3", "attention", changed(attention, q=one(f32, 3, 4, 8)))
    add("other head size", "attention", changed(attention, k=one(f32, 2, 5, 2, 7)))
    add("other number of keys", "attention", changed(attention, v=one(f32, 2, 6, 2, 8)))
    add("heads not a multiple", "attention", changed(attention, k=one(f32, 2, 5, 3, 8), v=one(f32, 2, 5, 3, 8)))
    add("head size 257", "attention", {"q": one(f32, 1, 2, 1, 257), "k": one(f32, 1, 2, 1, 257), "v": one(f32, 1, 2, 1, 257)})
    add("no queries", "attention", changed(attention, q=torch.zeros(2, 0, 4, 8)))
    add("shape of dout", "attention", changed(attention, dout=one(f32, 2, 4, 4, 8)), "--backward")
    add("mixed dtypes", "attention", changed(attention, k=one(torch.float64, 2, 5, 2, 8)))
    add("dtype of dout", "attention", changed(attention, dout=one(torch.float64, 2, 3, 4, 8)), "--backward")
    add("integer tensors", "attention", {name: t.to(torch.int32) for name, t in attention.items()})
    add("float16", "attention", {name: t.half() for name, t in attention.items()})
    add("lengths too long", "attention", changed(attention, lengths=lengths(5, 6)))
    add("lengths negative", "attention", changed(attention, lengths=lengths(-1, 5)))
    add("lengths float", "attention", changed(attention, lengths=torch.ones(2)))
    add("shape of lengths", "attention", changed(attention, lengths=lengths(5)))
    add("eta tensor with 1", "momentum-attention", changed(momentum, eta=torch.tensor([0.5, 1.0, 0.5, 0.5])))
    add("eta tensor with NaN", "momentum-attention", changed(momentum, eta=torch.tensor([0.5, math.nan, 0.5, 0.5])))
    add("shape of eta", "momentum-attention", changed(momentum, eta=torch.full((3,), 0.5)))
    add("dtype of eta", "momentum-attention", changed(momentum, eta=momentum["eta"].bfloat16()))
    add("columns of x", "dual-form", changed(dual, x=one(f32, 2, 5)))
    add("rows of e and xp", "dual-form", changed(dual, e=one(f32, 6, 3)))
    add("no w0", "dual-form", changed(dual, w0=None))
    add("decay above 1", "linear-attention", changed(linear, decay=torch.tensor([0.5, 1.5])))
    add("shape of s0", "linear-attention", changed(linear, s0=one(f32, 1, 2, 3, 4)))
    add("grouped heads", "linear-attention", changed(linear, k=one(f32, 1, 4, 1, 3), v=one(f32, 1, 4, 1, 3)))
    # Files.
    whole = raw_file({"q": {"dtype": "F32", "shape": [1, 1, 1, 2], "data_offsets": [0, 8]},
                      "k": {"dtype": "F32", "shape": [1, 1, 1, 2], "data_offsets": [8, 16]},
                      "v": {"dtype": "F32", "shape": [1, 1, 1, 2], "data_offsets": [16, 24]}}, bytes(24))
    add("file without its last byte", "attention", whole[:-1])
    add("file with a byte too many", "attention", whole + b"\0")
    add("file cut in the header", "attention", whole[:40])
    add("file cut in the header's length", "attention", whole[:5])
    add("empty file", "attention", b"")
    add("header length 2^63 - 1", "attention", (2 ** 63 - 1).to_bytes(8, "little") + whole[8:])
    add("header not JSON", "attention", raw_file(b'{"q": {"dtype" "F32"}}'))
    add("header not UTF-8", "attention", raw_file(b'{"\xff\xfe": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)))
    add("header an array", "attention", raw_file(b"[1, 2, 3]"))
    add("nested header", "attention", raw_file(b'{"q":' + b"[" * 20000 + b"]" * 20000 + b"}"))
    for what, entry, data in (
            ("unknown dtype", {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}, bytes(4)),
            ("size not that of the shape", {"dtype": "F32", "shape": [3], "data_offsets": [0, 4]}, bytes(4)),
            ("offsets backwards", {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}, bytes(4)),
            ("negative dimension", {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}, bytes(4)),
            ("overflowing shape", {"dtype": "F32", "shape": [2 ** 32, 2 ** 32], "data_offsets": [0, 0]}, b"")):
        add(what, "attention", raw_file({"q": entry}, data))
    add("overlapping tensors", "attention", raw_file({name: {"dtype": "F32", "shape": [1, 1, 1, 1], "data_offsets": [0, 4]}
                                                      for name in "qkv"}, bytes(4)))
    add("no such file", "attention", None)
    add("a folder as input", "attention", None, source=".")
    add("no output folder", "attention", attention, target="missing/out.safetensors")
    return table


# ---- the checker checked ----

class Spoiled:
    """The stand-in with one thing wrong: `answer` may change what was said, `tensors` what was written."""

    def __init__(self, answer=None, tensors=None):
        self.stand_in, self.answer, self.tensors = StandIn(), answer, tensors

    def __call__(self, *arguments):
        answer = self.stand_in(*arguments)
        target = pathlib.Path(arguments[arguments.index("--out") + 1]) if "--out" in arguments else None
        if self.tensors and target and target.exists():
            outputs = load_file(str(target))
            self.tensors(outputs)
            save_file(outputs, str(target))
        if self.answer:
            self.answer(answer, target)
        return answer


def sample_case(op, dtype):
    """A case with every optional tensor, a query that sees nothing, and padding."""
    g = torch.Generator().manual_seed(9)
    if op == "dual-form":
        shapes = {"w0": (7, 9), "e": (11, 7), "xp": (11, 9), "x": (5, 9), "dout": (5, 7)}
    elif op == "linear-attention":
        shapes = {"q": (2, 9, 2, 5), "k": (2, 9, 2, 5), "v": (2, 9, 2, 5), "s0": (2, 2, 5, 5), "dout": (2, 9, 2, 5)}
    else:
        shapes = {"q": (2, 9, 4, 5), "k": (2, 8, 2, 5), "v": (2, 8, 2, 5), "dout": (2, 9, 4, 5)}
    tensors = {name: tensor(g, dtype, *shape) for name, shape in shapes.items()}
    if op == "momentum-attention":
        tensors["eta"] = torch.tensor([0.0, 0.5, 0.9, 0.7], dtype=torch.float64).to(dtype)
    if op == "linear-attention":
        tensors["decay"] = torch.tensor([1.0, 0.75], dtype=torch.float64).to(dtype)
    if op in ("attention", "momentum-attention"):
        tensors["lengths"] = torch.tensor([8, 6], dtype=torch.int32)
    return Case(op, tensors, {}, True)


def spoilers():
    """(what, case, Spoiled) of single faults in good runs, each of which must be noticed."""
    shift = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.1}
    for op in OPS:
        for dtype_name, dtype in DTYPES.items():
            case = sample_case(op, dtype)
            for name in computed(case, torch.float64):
                def nudge(outputs, name=name, dtype=dtype):
                    t = outputs[name].reshape(-1)
                    first = torch.isfinite(t).nonzero()[-1]
                    size = max(largest(t.double()), 3.0 if name in GRADIENTS else 1.0)
                    t[first] = t[first] + (shift[torch.float32] if name in ACCUMULATED and dtype != torch.float64 else shift[dtype]) * size

                def poison(outputs, name=name):
                    outputs[name].reshape(-1)[0] = math.nan

                def forget(outputs, name=name):
                    del outputs[name]

                def other_dtype(outputs, name=name, dtype=dtype):
                    t = outputs[name]
                    outputs[name] = t.float() if t.dtype != torch.float32 else t.double()

                def other_shape(outputs, name=name):
                    outputs[name] = outputs[name][None]

                for fault in (nudge, poison, forget, other_dtype, other_shape):
                    yield f"{op} {dtype_name} {name} {fault.__name__}", case, Spoiled(tensors=fault)
    case = sample_case("attention", torch.float64)

    def tiny(name, *place):
        def fault(outputs):
            outputs[name][place] = 1e-300
        return fault

    yield "padded key with a gradient", case, Spoiled(tensors=tiny("dk", 1, 7, 0, 0))
    yield "row that sees nothing", case, Spoiled(tensors=tiny("out", 0, 0, 0, 0))
    yield "a tensor too many", case, Spoiled(tensors=lambda outputs: outputs.update(extra=torch.zeros(1)))
    yield "exit code 1", case, Spoiled(answer=lambda answer, _: setattr(answer, "code", 1))
    yield "warning on stderr", case, Spoiled(answer=lambda answer, _: setattr(answer, "stderr", "WARNING: x\n"))
    yield "file beside the output", case, Spoiled(answer=lambda _, target: (target.parent / "out.tmp").touch())


def bad_input_spoilers():
    """Faults in the answer to bad input; every entry of the table must notice each."""
    yield "exit code 0", lambda answer, _: setattr(answer, "code", 0)
    yield "exit code 1", lambda answer, _: setattr(answer, "code", 1)
    yield "silence", lambda answer, _: setattr(answer, "stderr", "")
    yield "two lines", lambda answer, _: setattr(answer, "stderr", "one\ntwo\n")
    yield "help page", lambda answer, _: setattr(answer, "stdout", "usage\n")


def self_test(cases, seed, folder):
    checker = Checker(StandIn(), folder)
    checker.check_random(cases, seed)
    checker.check_eta_zero(seed)
    checker.check_bad_input()

    def noticed(what, program, run, expected):
        quiet = Checker(program, tempfile.mkdtemp(dir=folder), log=lambda line: None)
        run(quiet)
        checker.tally(f"self-test, {what}", [] if quiet.failed == expected else [f"{quiet.failed} of {expected} noticed"])

    faults = 0
    for what, case, program in spoilers():
        noticed(what, program, lambda quiet: quiet.check(case), 1)
        faults += 1
    for what, answer in bad_input_spoilers():
        noticed(what, Spoiled(answer=answer), Checker.check_bad_input, len(bad_inputs()))
        faults += 1

    def leave(_, target):
        if target and target.parent.is_dir():
            target.write_bytes(b"")
    noticed("output left behind", Spoiled(answer=leave), Checker.check_bad_input,
            sum("OUT" in bad.words and not bad.target for bad in bad_inputs()))
    noticed("eta = 0 not attention", Spoiled(tensors=lambda outputs: outputs["out"].mul_(1 + random.random())),
            lambda quiet: quiet.check_eta_zero(seed), len(DTYPES))
    print(f"{'faults put in':24} {faults + 2:3} cases")
    return checker


def main():
    parser = argparse.ArgumentParser(description="checks ./dualform op against PyTorch in float64")
    parser.add_argument("--dualform", default="./dualform", help="command prefix (default ./dualform)")
    parser.add_argument("--cases", type=int, default=40, help="random cases, over all operations and dtypes (default 40)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="auto", help="passed on when not auto")
    parser.add_argument("--self-test", action="store_true", help="check the checker against the NumPy stand-in")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.self_test:
            checker = self_test(options.cases, options.seed, folder)
        else:
            checker = Checker(Command(options.dualform), folder, options.device)
            # The first start may build the program and say so.
            checker.outputs(sample_case("attention", torch.float64))
            checker.check_random(options.cases, options.seed)
            checker.check_eta_zero(options.seed)
            checker.check_bad_input()
    print(f"{checker.passed} passed, {checker.failed} failed")
    return 1 if checker.failed else 0


if __name__ == "__main__":
    sys.exit(main())
