#!/usr/bin/env python3
"""Checks `dualform icl metrics` against NumPy and SciPy on random records, and its sentences on unusable ones.

    check_metrics.py [--cases N] [--seed S] COMMAND...

COMMAND is what comes before `icl metrics`, for example `./dualform`. The formulas are written here a second time, from the papers:
SimAOU, SimAM, Kendall and Rec2FTP from Dai et al. 2022 (arXiv:2212.10559), raw SimAOU and SimAM-delta from Deutch et al. 2023
(arXiv:2311.07772). Needs numpy and scipy. Exit code 1 when anything differs.
"""
import argparse
import json
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import scipy.stats

LIMIT = 1e-11
SETTINGS = ("zs", "icl", "ftzs")


def lists(array):
    return np.asarray(array).tolist()


def draw(rng, case):
    """Random records: settings -> list of dicts, shapes and oddities depending on the case."""
    layers = int(rng.integers(1, 6))
    heads = int(rng.integers(1, 9))
    hidden = heads * int(rng.integers(1, 12))
    examples = int(rng.choice([1, 2, 17, 99, 100, 101, 137]))
    lengths = rng.integers(1, 40 if case % 4 else 8, size=int(rng.integers(1, 12)))
    context = 1 + int((lengths + 1).sum())
    as_float = rng.random() < 0.5
    ties = case % 3 == 0
    scale = float(rng.choice([0.01, 1.0, 30.0]))
    labels = int(rng.integers(2, 6))

    def numbers(*shape):
        values = scale * rng.standard_normal(shape)
        if ties:
            values = np.round(values / scale * 2)
        return lists(values.astype(np.float32) if as_float else values)

    records = {setting: [] for setting in SETTINGS}
    for i in range(examples):
        query = int(rng.integers(1, 30))
        gold = int(rng.integers(labels))
        base = scale * rng.standard_normal((layers, hidden))
        for setting in SETTINGS:
            ctx = {"icl": context, "zs": int(rng.integers(0, 2)), "ftzs": 1}[setting]
            record = {
                "self_attn_out_hiddens": lists(base + np.asarray(numbers(layers, hidden)) * float(rng.choice([0.1, 1.0, 2.0]))),
                "attn_map": numbers(layers, heads, query),
                "attn_map_ctx": numbers(layers, ctx) if ctx else [],
                "attn_q": numbers(layers, hidden),
                "gold_label": gold,
                "pred_label": gold if rng.random() < 0.6 else int(rng.integers(labels)),
            }
            if setting != "ftzs" and case % 5 == 1:
                del record["attn_q"]  # as the published code writes it
            if case % 7 == 2:
                record["note"] = {"ignored": [1, [2, None], "\u00e9"]}
                record["gold_label"] = str(record["gold_label"])
            records[setting].append(record)
        if case % 6 == 4 and i % 5 == 0:  # nothing moves, or nothing is there
            records["ftzs"][i]["self_attn_out_hiddens"] = records["zs"][i]["self_attn_out_hiddens"]
            records["icl"][i]["attn_map"] = lists(np.zeros((layers, heads, query)))
        if case % 8 == 5 and i % 3 == 0:
            records["icl"][i]["attn_map_ctx"] = lists(np.ones((layers, context)))  # Kendall is undefined
    records["ft"] = [{"attn_q": numbers(layers, int(n) + 1, hidden)} for n in lengths]
    return records


def write(folder, records):
    for setting, rows in records.items():
        (folder / setting).mkdir(parents=True)
        with open(folder / setting / "record_info.jsonl", "w", encoding="utf-8") as out:
            for row in rows:
                out.write(json.dumps(row) + "\n")


def cosine(a, b):
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1) + 1e-20)


def unit(a):
    return a / (np.linalg.norm(a, axis=-1, keepdims=True) + 1e-20)


def mean_of_defined(values):
    defined = [v for v in values if not np.isnan(v)]
    return float(np.mean(defined)) if defined else None


def tau(x, y):
    return float(scipy.stats.kendalltau(x, y).statistic) if len(x) > 1 else float("nan")


def masses(logits, groups):
    """Softmax mass of each demonstration; sums are exact, so that equal logits in another order tie."""
    weights = np.exp(logits - logits.max())
    weights /= math.fsum(weights)
    return [math.fsum(weights[groups == g]) for g in range(groups[-1] + 1)]


def expected(records):
    zs, icl, ft = (records[s] for s in SETTINGS)
    layers = len(zs[0]["self_attn_out_hiddens"])

    def right(record):
        return str(record["gold_label"]) == str(record["pred_label"])

    gained = [i for i in range(len(zs)) if right(ft[i]) and not right(zs[i])]
    out = {"rec2ftp": 100 * sum(right(icl[i]) for i in gained) / len(gained) if gained else None}

    h = [np.asarray([r["self_attn_out_hiddens"] for r in rows], dtype=np.float64) for rows in (zs, icl, ft)]
    u = [unit(a) for a in h]
    out["sim_aou"] = cosine(u[1] - u[0], u[2] - u[0]).mean(0)
    out["sim_aou_raw"] = cosine(h[1] - h[0], h[2] - h[0]).mean(0)
    # 1 - cos as half a squared distance: next to 1 the cosine itself has no digits left, and the root makes 1e-16 into 1e-8.
    floor = ((u[1] - u[0]) ** 2).sum(-1) / 2 * ((u[2] - u[0]) ** 2).sum(-1) / 2
    out["sim_aou_floor"] = (np.sqrt(floor) / 2).mean(0)

    maps = [[np.asarray(r["attn_map"], dtype=np.float64) for r in rows] for rows in (zs, icl, ft)]
    examples = range(len(zs))
    out["sim_am_before"] = np.mean([cosine(maps[1][i], maps[0][i]).mean(1) for i in examples], axis=0)
    out["sim_am"] = np.mean([cosine(maps[1][i], maps[2][i]).mean(1) for i in examples], axis=0)
    out["sim_am_delta"] = np.mean(
        [cosine(maps[1][i] - maps[0][i], maps[2][i] - maps[0][i]).mean(1) for i in examples], axis=0)

    lengths = [len(d["attn_q"][0]) - 1 for d in records["ft"]]
    keep, groups, at = [], [], 1
    for number, n in enumerate(lengths):
        keep += range(at, at + n)
        groups += [number] * n
        at += n + 1
    groups = np.asarray(groups)
    keys = [np.concatenate([np.asarray(d["attn_q"][l], dtype=np.float64)[1:] for d in records["ft"]]) for l in range(layers)]
    token, example = [], []
    for l in range(layers):
        tokens, demonstrations = [], []
        for i in range(min(100, len(zs))):
            m_icl = np.asarray(icl[i]["attn_map_ctx"][l], dtype=np.float64)[keep]
            m_ft = (keys[l] * np.asarray(ft[i]["attn_q"][l], dtype=np.float64)).sum(-1)
            tokens.append(tau(m_icl, m_ft))
            demonstrations.append(tau(masses(m_icl, groups), masses(m_ft, groups)))
        token.append(mean_of_defined(tokens))
        example.append(mean_of_defined(demonstrations))
    out["kendall_token"], out["kendall_example"] = token, example
    return out


def run(command, folder, *more):
    return subprocess.run([*command, "icl", "metrics", "--records", str(folder), *more], capture_output=True, text=True, check=False)


def difference(a, b):
    if a is None or b is None:
        return 0.0 if a is None and b is None else float("inf")
    return abs(a - b)


def refuse(value):
    raise ValueError(f"{value} is not JSON")


def check_case(command, folder, case, seed):
    """The largest difference over all keys, and the key."""
    records = draw(np.random.default_rng([seed, case]), case)
    write(folder, records)
    done = run(command, folder, "--json")
    if done.returncode != 0 or done.stderr:
        raise AssertionError(f"case {case}: exit code {done.returncode}: {done.stderr}")
    found = json.loads(done.stdout, parse_constant=refuse)
    worst = (0.0, "nothing")
    for key, value in expected(records).items():
        pairs = [(value, found[key])] if key == "rec2ftp" else list(zip(value, found[key], strict=True))
        scale = 100 if key == "rec2ftp" else 1
        worst = max([worst, *((difference(a, b) / scale, key) for a, b in pairs)])
    human = run(command, folder)
    if human.returncode != 0 or "SimAOU" not in human.stdout:
        raise AssertionError(f"case {case}: no table: {human.stderr}")
    return worst


def spoil(record, key, value):
    return {**record, key: value}


def bad_cases(good):
    """Name, words the sentence must have, and a change of the files' texts."""
    first = good["zs"][0]

    def replaced(setting, line, record):
        def change(texts):
            rows = texts[setting].splitlines()
            rows[line] = record if isinstance(record, str) else json.dumps(record)
            texts[setting] = "\n".join(rows) + "\n"
        return change

    def removed(setting, lines):
        def change(texts):
            texts[setting] = "".join(row + "\n" for row in texts[setting].splitlines()[lines:])
        return change

    short = spoil(first, "self_attn_out_hiddens", [row[:-1] for row in first["self_attn_out_hiddens"]])
    ragged = spoil(first, "attn_map", [first["attn_map"][0], *[[head[:-1] for head in l] for l in first["attn_map"][1:]]])
    nan = json.dumps(spoil(first, "self_attn_out_hiddens", [[float("nan")] + first["self_attn_out_hiddens"][0][1:]]
                           + first["self_attn_out_hiddens"][1:]))
    huge = json.dumps(first).replace('"attn_map": [[[', '"attn_map": [[[1e999, ', 1)
    heads = spoil(good["icl"][1], "attn_map", [l[:1] for l in good["icl"][1]["attn_map"]])
    no_ctx = {k: v for k, v in good["icl"][1].items() if k != "attn_map_ctx"}
    return [
        ("not JSON", ["zs/record_info.jsonl:2"], replaced("zs", 1, '{"self_attn_out_hiddens": [[1, 2')),
        ("not an object", ["icl/record_info.jsonl:1", "object"], replaced("icl", 0, "[1, 2]")),
        ("two on a line", ["zs/record_info.jsonl:1"], replaced("zs", 0, json.dumps(first) + json.dumps(first))),
        ("too narrow", ["zs/record_info.jsonl:2", "self_attn_out_hiddens"], replaced("zs", 1, short)),
        ("ragged", ["zs/record_info.jsonl:1", "attn_map[1]"], replaced("zs", 0, ragged)),
        ("NaN", ["zs/record_info.jsonl:2", "self_attn_out_hiddens[0][0]", "NaN"], replaced("zs", 1, nan)),
        ("overflow", ["zs/record_info.jsonl:2", "attn_map[0][0][0]", "Infinity"], replaced("zs", 1, huge)),
        ("a word", ["zs/record_info.jsonl:2", "attn_q"], replaced("zs", 1, spoil(first, "attn_q", [["x"]]))),
        ("null", ["zs/record_info.jsonl:2", "attn_map", "null"], replaced("zs", 1, spoil(first, "attn_map", None))),
        ("no label", ["zs/record_info.jsonl:1", "gold_label"], replaced("zs", 0, {k: v for k, v in first.items() if k != "gold_label"})),
        ("label of another kind", ["zs/record_info.jsonl:1", "pred_label"], replaced("zs", 0, spoil(first, "pred_label", [1]))),
        ("heads", ["icl/record_info.jsonl:2", "heads"], replaced("icl", 1, heads)),
        ("no context", ["icl/record_info.jsonl:2", "attn_map_ctx"], replaced("icl", 1, no_ctx)),
        ("fewer examples", ["ftzs/record_info.jsonl:2", "same number"], removed("ftzs", 1)),
        ("no examples", ["zs/record_info.jsonl"], lambda texts: texts.update(zs="", icl="", ftzs="")),
        ("no demonstrations", ["ft/record_info.jsonl"], lambda texts: texts.update(ft="\n\n")),
        ("one demonstration fewer", ["icl/record_info.jsonl:1", "attn_map_ctx", "ft/record_info.jsonl"], removed("ft", 1)),
        ("layers of a demonstration", ["ft/record_info.jsonl:1", "layers"], replaced("ft", 0, {"attn_q": good["ft"][0]["attn_q"][:1]})),
        ("width of a demonstration", ["ft/record_info.jsonl:1"],
         replaced("ft", 0, {"attn_q": [[t[:-1] for t in l] for l in good["ft"][0]["attn_q"]]})),
        ("not UTF-8", ["zs/record_info.jsonl:1"], replaced("zs", 0, '{"gold_label": "\udce9"}')),
        ("missing file", ["ftzs/record_info.jsonl", "no such file"], lambda texts: texts.pop("ftzs")),
    ]


def check_bad(command, folder):
    failures = 0
    rng = np.random.default_rng(11)
    good = {s: [] for s in SETTINGS}
    for i in range(3):
        for s in SETTINGS:
            good[s].append({"self_attn_out_hiddens": lists(rng.standard_normal((2, 4))), "attn_map": lists(rng.standard_normal((2, 2, 3))),
                            "attn_map_ctx": lists(rng.standard_normal((2, 8 if s == "icl" else 1))),
                            "attn_q": lists(rng.standard_normal((2, 4))), "gold_label": i % 2, "pred_label": 0})
    good["ft"] = [{"attn_q": lists(rng.standard_normal((2, n + 1, 4)))} for n in (2, 3)]
    cases = bad_cases(good)
    for name, words, change in cases:
        texts = {s: "".join(json.dumps(row) + "\n" for row in rows) for s, rows in good.items()}
        change(texts)
        at = folder / name.replace(" ", "-")
        for setting, text in texts.items():
            (at / setting).mkdir(parents=True)
            (at / setting / "record_info.jsonl").write_text(text, encoding="utf-8", errors="surrogateescape")
        done = run(command, at, "--json")
        sentence = done.stderr.strip()
        if done.returncode != 2 or done.stdout or len(sentence.splitlines()) != 1 or not all(w in sentence for w in words):
            failures += 1
            print(f"FAILED {name}: exit code {done.returncode}, {done.stdout!r}, {done.stderr!r}, expected {words}")
        else:
            print(f"refused {name}: {sentence.replace(str(at) + '/', '')}")
    missing = run(command, folder / "nowhere", "--json")
    if missing.returncode != 2 or len(missing.stderr.strip().splitlines()) != 1:
        failures += 1
        print(f"FAILED no folder: {missing}")
    print(f"{len(cases) + 1 - failures} of {len(cases) + 1} unusable inputs refused as they should be")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.command:
        parser.error("a command is expected, such as ./dualform")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="check-metrics-"))
    failures = 0
    largest = 0.0
    try:
        for case in range(options.cases):
            worst, key = check_case(options.command, folder / f"case{case}", case, options.seed)
            largest = max(largest, worst)
            if not worst <= LIMIT:
                failures += 1
                print(f"FAILED case {case}: {key} differs by {worst:.2e}, limit {LIMIT:.0e}")
            shutil.rmtree(folder / f"case{case}")
        print(f"{options.cases} random cases, largest difference {largest:.2e}")
        failures += check_bad(options.command, folder / "bad")
    finally:
        shutil.rmtree(folder)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
