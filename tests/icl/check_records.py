"""Makes the records of `dualform icl --compare-finetuning` again with PyTorch and Hugging Face's GPT-2, and compares.

    python tests/icl/check_records.py MODEL RESULTS/records/seed-1 [--queries N]

MODEL is a model folder with softmax attention. Everything is computed from `episode.json` (tokens, learning rate): prompts, finetuning of
keys and values, attention outputs, logits, queries and predictions. Prints the largest difference of each field, relative to the largest
value in its record; fails above 1e-4. Needs torch, transformers and numpy; no part of the build.
"""

import argparse
import copy
import json

import numpy as np
import torch
from transformers import GPT2LMHeadModel

LIMIT = 1e-4


class Model:
    def __init__(self, gpt):
        self.gpt = gpt
        self.width, self.heads = gpt.config.n_embd, gpt.config.n_head
        self.scale = (self.width // self.heads) ** -0.5

    def observe(self, tokens):
        """Log-probabilities (T,V), and per layer attention outputs, scaled queries and keys (T,C)."""
        outputs, queries, keys, hooks = [], [], [], []

        def projected(module, inputs, result):
            q, k, _ = result[0].detach().double().split(self.width, -1)
            queries.append(q * self.scale)
            keys.append(k)

        for block in self.gpt.transformer.h:
            hooks.append(block.attn.c_attn.register_forward_hook(projected))
            hooks.append(block.attn.c_proj.register_forward_hook(lambda m, i, o: outputs.append(o[0].detach().double())))
        with torch.no_grad():
            log_probabilities = self.gpt(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
        for hook in hooks:
            hook.remove()
        return log_probabilities, outputs, queries, keys

    def record(self, context, query, answers):
        _, outputs, queries, keys = self.observe(context + query)
        maps = []
        size = self.width // self.heads
        for q, k in zip(queries, keys):
            heads = [k[:, h * size:(h + 1) * size] @ q[-1, h * size:(h + 1) * size] for h in range(self.heads)]
            maps.append(torch.stack(heads))
        scores = []
        for answer in answers:
            log_probabilities, *_ = self.observe(context + query + answer)
            first = len(context) + len(query) - 1
            scores.append(np.mean([log_probabilities[first + i, token].item() for i, token in enumerate(answer)]))
        return {
            "self_attn_out_hiddens": [o[-1].tolist() for o in outputs],
            "attn_map": [m[:, len(context):].tolist() for m in maps],
            "attn_map_ctx": [m[:, :len(context)].sum(0).tolist() for m in maps],
            "attn_q": [q[-1].tolist() for q in queries],
            "pred_label": int(np.argmax(scores)),
        }


def finetune(gpt, episode):
    """One step of gradient descent per demonstration on keys and values; returns model, records and losses."""
    tuned = Model(copy.deepcopy(gpt))
    mask = torch.ones(3 * tuned.width)
    mask[:tuned.width] = 0
    records, losses = [], []
    for demonstration in episode["demonstrations"]:
        answer = episode["answers"][demonstration["label"]]
        tokens = [episode["beginning"]] + demonstration["input"] + answer
        records.append({"attn_q": [q.tolist() for q in tuned.observe(tokens)[2]]})
        tuned.gpt.zero_grad()
        logits = tuned.gpt(torch.tensor([tokens])).logits[0, :-1]
        each = torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[1:]), reduction="none")
        loss = (each[-len(answer):] if episode["label_only"] else each).mean()
        losses.append(loss.item())
        loss.backward()
        with torch.no_grad():
            for block in tuned.gpt.transformer.h:
                for parameter in (block.attn.c_attn.weight, block.attn.c_attn.bias):
                    parameter -= episode["learning_rate"] * parameter.grad * mask
    return tuned, records, losses


def compare(folder, setting, expected, worst):
    with open(f"{folder}/{setting}/record_info.jsonl", encoding="utf-8") as lines:
        for want, line in zip(expected, lines):
            found = json.loads(line)
            for key, value in want.items():
                a, b = np.array(found[key], float), np.array(value, float)
                assert a.shape == b.shape, (setting, key, a.shape, b.shape)
                difference = np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)
                worst[setting, key] = max(worst.get((setting, key), 0), difference)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("model")
    options.add_argument("records")
    options.add_argument("--queries", type=int, default=10)
    options = options.parse_args()
    with open(f"{options.records}/episode.json", encoding="utf-8") as file:
        episode = json.load(file)
    assert not episode["layer_causal"]
    gpt = GPT2LMHeadModel.from_pretrained(options.model, attn_implementation="eager").eval()
    answers, bare = episode["answers"], [episode["beginning"]]
    context = list(bare)
    for demonstration in episode["demonstrations"]:
        context += demonstration["input"] + answers[demonstration["label"]] + [episode["separator"]]
    queries = [query["input"] for query in episode["queries"][:options.queries]]
    tuned, steps, losses = finetune(gpt, episode)
    worst = {("ft", "losses"): max(abs(a - b) for a, b in zip(losses, episode["finetuning_losses"], strict=True))}
    compare(options.records, "zs", [Model(gpt).record(bare, query, answers) for query in queries], worst)
    compare(options.records, "icl", [Model(gpt).record(context, query, answers) for query in queries], worst)
    compare(options.records, "ft", steps, worst)
    compare(options.records, "ftzs", [tuned.record(bare, query, answers) for query in queries], worst)
    for (setting, key), difference in worst.items():
        print(f"{setting:5} {key:22} {difference:.1e}")
    assert max(worst.values()) <= LIMIT, f"differences above {LIMIT}"


if __name__ == "__main__":
    main()
