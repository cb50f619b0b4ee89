"""What Hugging Face's GPT-2 makes of our models, and the other way round.

    python tests/golden/nn_huggingface.py [FOLDER]

In FOLDER (tests/golden/nn beside this file) it loads exported and exported-sinusoidal, which org.dualform.nn.GoldenModels wrote, with
GPT2LMHeadModel, and writes FOLDER/NAME-logits.safetensors: ids, logits in float32 and, of the same weights, in float64. Then it makes
a GPT2LMHeadModel of its own with random weights, saves it to FOLDER/huggingface, and writes its logits likewise. Needs torch,
transformers and safetensors.
"""
import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

ROWS, TOKENS = 2, 9


def record(folder, name):
    model, report = GPT2LMHeadModel.from_pretrained(folder / name, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if report.get(kind):
            sys.exit(f"{name}: {kind}: {report[kind]}")
    model.eval()
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(model.config.vocab_size, (ROWS, TOKENS), generator=generator)
    with torch.no_grad():
        logits = model(ids).logits
        exact = model.double()(ids).logits
    # One entry: safetensors writes several in no fixed order, and the same versions shall give the same bytes.
    versions = {"made_with": f"torch {torch.__version__}, transformers {transformers.__version__}"}
    tensors = {"ids": ids.int(), "logits": logits.contiguous(), "exact": exact.contiguous()}
    save_file(tensors, folder / f"{name}-logits.safetensors", versions)
    print(f"{name}: logits up to {logits.abs().max():.2f}, float32 against float64 {(logits - exact).abs().max():.1e}")


def make(path):
    torch.manual_seed(2)
    config = GPT2Config(vocab_size=103, n_positions=18, n_embd=20, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.save_pretrained(path)
    for other in path.iterdir():
        if other.name not in ("config.json", "model.safetensors"):
            other.unlink()
    print(f"{path.name}: {sorted(json.loads((path / 'config.json').read_text()))}")


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "nn")
    make(root / "huggingface")
    for each in ("exported", "exported-sinusoidal", "huggingface"):
        record(root, each)
