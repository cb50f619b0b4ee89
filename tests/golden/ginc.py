"""Writes what the published GINC generator makes, as checksums, for GincTest.

    python ginc.py --generator DIR/generate_data.py [--published DIR/data/GINC_...] --out ginc.json

GENERATOR is the script of Xie et al. 2021 (arXiv:2111.02080), which is not part of this repository. It is run as it is, with NumPy; the
modules that it only needs to store its results are replaced, and so is hmmlearn, by the two methods that it calls. With --published the
files that its authors made are compared too: parameters, and the validation documents, which come after all the training documents from
the same random numbers, so that they are equal only if those are.
"""
import argparse
import hashlib
import json
import pickle
import runpy
import sys
import tempfile
import types
from bisect import bisect_right
from pathlib import Path

import numpy as np


class MultinomialHMM:
    """As hmmlearn 0.2.5: two uniform numbers for each observation, the first that the cumulative sum exceeds; forward algorithm."""

    def __init__(self, n_components):
        self.n_components = n_components

    def sample(self, n_samples, random_state=None):
        assert random_state is None
        first = lambda cdf, u: at if (at := bisect_right(cdf, u)) < len(cdf) else 0
        start = np.cumsum(self.startprob_).tolist()
        rows = np.cumsum(self.transmat_, axis=1).tolist()
        emission = np.cumsum(self.emissionprob_, axis=1).tolist()
        draws = np.random.rand(2 * n_samples).tolist()
        states, symbols = [], []
        for t in range(n_samples):
            states.append(first(rows[states[-1]] if t else start, draws[2 * t]))
            symbols.append(first(emission[states[-1]], draws[2 * t + 1]))
        return np.array(symbols)[:, np.newaxis], np.array(states)

    def predict_proba(self, observations):
        observed = np.asarray(observations).ravel()
        rows, p = [], self.startprob_
        for t, symbol in enumerate(observed):
            p = (p if t == 0 else p @ self.transmat_) * self.emissionprob_[:, symbol]
            with np.errstate(invalid="ignore"):
                p = p / p.sum()  # an impossible observation gives NaN, as there
            rows.append(p)
        return np.array(rows)


found = {}


class DataFrame:
    def __init__(self, samples):
        self.samples = samples

    def to_json(self, path, orient, lines):
        index = {"/": 0}
        for length in (1, 2):
            for a in "abcdefghijklmnopqrstuvwxyz":
                for b in "abcdefghijklmnopqrstuvwxyz" if length == 2 else [""]:
                    if a != b:
                        index[a + b] = len(index)
        name = Path(path).stem
        groups = {}
        for sample in self.samples:
            groups.setdefault(sample.get("n_examples", "documents"), []).append(sample)
        for n, samples in groups.items():
            digest = hashlib.sha256()
            for sample in samples:
                symbols = [index[word] for word in sample["text"].split(" ")]
                digest.update(bytes(symbols))
                if "label" in sample:
                    digest.update(bytes([index[str(sample["label"])]]))
                else:
                    digest.update(bytes([int(sample["hmm_idx"])]))
            first = samples[0]
            found.setdefault(name, {})[str(n)] = {"sha256": digest.hexdigest(), "count": len(samples)}
            if "label" in first:
                found[name][str(n)]["label"] = str(first["label"])
                if n < 3:
                    found[name][str(n)]["text"] = first["text"]


def stub(name, **attributes):
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    sys.modules[name] = module


stub("hmmlearn")
stub("hmmlearn.hmm", MultinomialHMM=MultinomialHMM)
stub("tqdm", tqdm=lambda values: values)
stub("pandas", DataFrame=DataFrame)
stub("joblib", Parallel=None, delayed=None)
stub("tokenizers", Tokenizer=None)
stub("tokenizers.models", Unigram=None, WordLevel=None)
stub("tokenizers.trainers", UnigramTrainer=None, WordLevelTrainer=None)
stub("tokenizers.pre_tokenizers", Whitespace=None)
stub("tokenizers.processors", TemplateProcessing=None)

parser = argparse.ArgumentParser()
parser.add_argument("--generator", required=True)
parser.add_argument("--published")
parser.add_argument("--symbols", type=int, default=50)
parser.add_argument("--prompt-length", type=int)
parser.add_argument("--out", required=True)
options = parser.parse_args()

with tempfile.TemporaryDirectory() as root:
    sys.argv = ["generate_data.py", "--transition_temp", "0.1", "--start_temp", "10.0", "--n_symbols", str(options.symbols), "--n_values",
                "10", "--n_slots", "10", "--value_identity_coeff", "0.9", "--n_hmms", "10", "--root", root]
    if options.prompt_length:
        sys.argv += ["--prompt_length", str(options.prompt_length)]
    # hmmlearn's class pickles by its module's name.
    MultinomialHMM.__module__ = "hmmlearn.hmm"
    made = runpy.run_path(options.generator, run_name="__main__")

weights = np.arange(1, 101, dtype=float)
result = {
    "symbols": options.symbols,
    "numpy": np.__version__,
    "values": [int(v) for v in made["all_values"].ravel()],
    # Sums weighted by place, so that no two entries can be exchanged.
    "start": [float((hmm.startprob_ * weights).sum()) for hmm in made["hmm_list"]],
    "slot": [float((slot.ravel() * weights).sum()) for slot, _ in made["hmm_params"]],
    "entity": [float((entity.ravel() * weights).sum()) for _, entity in made["hmm_params"]],
    "firstStart": [float(v) for v in made["hmm_list"][0].startprob_],
    "firstSlot": [float(v) for v in made["hmm_params"][0][0].ravel()],
    "firstEntity": [float(v) for v in made["hmm_params"][0][1].ravel()],
    "files": found,
}

Path(options.out).write_text(json.dumps(result, indent=1) + "\n")


class Parameters(pickle.Unpickler):
    """Arrays and what holds them; the class of the HMMs becomes an empty one."""

    def find_class(self, module, name):
        return super().find_class(module, name) if module.split(".")[0] in ("numpy", "copyreg", "builtins") else type(name, (), {})


if options.published:
    folder = Path(options.published)
    load = lambda name: Parameters(open(folder / name, "rb")).load()
    assert (load("fixed_params.pkl") == made["all_values"]).all()
    parameters = load("id_params.pkl") + load("ood_params.pkl")
    difference = max(np.abs(a - b).max() for p, q in zip(parameters, made["hmm_params"]) for a, b in zip(p, q))
    starts = max(np.abs(a.startprob_ - b.startprob_).max() for a, b in zip(load("id_hmms.pkl") + load("ood_hmms.pkl"), made["hmm_list"]))
    rows = [json.loads(line) for line in (folder / "val.json").read_text().splitlines()]
    DataFrame(rows).to_json(folder / "published.json", "records", True)
    print("parameters differ by", difference, "start by", starts, "validation documents equal",
          found["published"]["documents"] == found["val"]["documents"],
          "hiddens equal", all((np.array(a["hiddens"]) == b["hiddens"]).all() for a, b in zip(rows, made["id_samples_val"])))
