"""Tiny models of many decoder families with their float32 outputs, for tests/data/families.

    python families.py              every family
    python families.py cohere2 glm  these

Needs torch, transformers and safetensors (the versions are in tests/data/README.md). What a family
is stands in family_specs.py and family_specs_more.py; this file fills it with random weights, scales them so that the logits
have a standard deviation of 3, writes the folder as it would be published, reads it back and stores
what transformers computes from the files in float32. Each feature that a spec names under `ablate`
is switched off once, and the logits have to move: a fixture that cannot show a mistake is refused.
"""

import json
import math
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

import family_specs
import family_specs_more

torch.set_num_threads(1)
logging.set_verbosity_error()
logging.disable_progress_bar()

SPECS = family_specs.SPECS | family_specs_more.SPECS
OUT = Path(__file__).resolve().parent.parent / "data" / "families"
SHORT, LONG, GREEDY = 5, 40, 12
LOGIT_STD = 3.0
MARGIN_MIN = 5e-3
MOVES_MIN = 0.02


def prompts(vocab):
    """Two prompts of fixed random ids; the first ids are left to special tokens."""
    draw = torch.Generator().manual_seed(7)
    return [torch.randint(4, vocab, (1, n), generator=draw) for n in (SHORT, LONG)]


def fill(model, seed, spec):
    """Random weights in the order of their names, so that a seed is a model."""
    draw = torch.Generator().manual_seed(seed)
    tied = model.get_output_embeddings() is not None and (
        model.get_output_embeddings().weight is model.get_input_embeddings().weight
    )
    biases = [(n, b) for n, b in model.named_buffers() if n.endswith("e_score_correction_bias")]
    with torch.no_grad():
        for name, p in sorted(list(model.named_parameters()) + biases, key=lambda item: item[0]):
            noise = torch.randn(p.shape, generator=draw, dtype=torch.float32)
            p.copy_(value(name, p, noise, tied, spec))


def value(name, p, noise, tied, spec):
    for pattern, std in spec.get("std", []):
        if re.search(pattern, name):
            return noise * std
    if name.endswith("e_score_correction_bias"):
        return noise * 0.15
    if "norm" in name.lower():
        if name.endswith("bias"):
            return noise * 0.15
        return noise * 0.25 + (0.0 if spec.get("zero_centred") else 1.0)
    if p.ndim == 1:
        return noise * 0.3
    if "embed" in name:
        return noise * spec.get("embedding", 0.35 if tied else 1.0)
    gain = 1.3
    if re.search(r"(q_proj|k_proj|qkv_proj|query_key_value|q_[ab]_proj|kv_[ab]_proj)", name):
        gain = 1.6
    elif re.search(r"(router.*|gate)\.weight$", name):
        gain = 2.0
    elif re.search(r"(o_proj|down_proj|dense|fc2|c_proj|output_linear)", name):
        gain = 1.8
    return noise * gain / math.sqrt(p.shape[-1])


def calibrate(model, spec):
    """Scales the head, or the final norm where the head is the embedding, to the wanted logits."""
    ids = prompts(model.config.get_text_config().vocab_size)[1]
    head = model.get_output_embeddings().weight
    tied = head is model.get_input_embeddings().weight
    base = model
    while not hasattr(base, "embed_tokens"):
        base = getattr(base, "language_model", None) or base.model
    norm = getattr(base, "norm", None) or getattr(base, "final_layernorm", None)
    with torch.no_grad():
        for _ in range(4):
            by = LOGIT_STD / model(ids, use_cache=False).logits.float().std().item()
            if not tied or getattr(norm, "weight", None) is None:
                head.mul_(by)
                continue
            one = 1.0 if spec.get("zero_centred") else 0.0
            norm.weight.copy_((norm.weight + one) * by - one)
            if getattr(norm, "bias", None) is not None:
                norm.bias.mul_(by)


def build(config_dir, seed, spec):
    config = AutoConfig.from_pretrained(config_dir)
    cls = spec.get("cls", AutoModelForCausalLM)
    make = cls.from_config if cls is AutoModelForCausalLM else cls._from_config
    model = make(config, attn_implementation="eager", dtype=torch.float32).eval()
    eager_experts(model)
    fill(model, seed, spec)
    calibrate(model, spec)
    return model


def eager_experts(model):
    """Some builds have one way only to run experts; any of them is right."""
    try:
        model.set_experts_implementation("eager")
    except Exception:
        pass


def load(folder, spec):
    cls = spec.get("cls", AutoModelForCausalLM)
    model, info = cls.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["mismatched_keys"], (folder, info)
    assert set(info["unexpected_keys"]) <= set(spec.get("extra", {})), info["unexpected_keys"]
    eager_experts(model)
    return model.eval()


def published(model, spec):
    """The tensors under the names of published files, in the type of published files."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tensors = load_file(Path(folder) / "model.safetensors")
    keep = re.compile(spec.get("keep_f32", "e_score_correction_bias"))
    out = {}
    for name, tensor in sorted(tensors.items()):
        wanted = torch.float32 if keep.search(name) else torch.bfloat16
        out[name] = tensor.to(wanted).contiguous()
    draw = torch.Generator().manual_seed(1)
    for name, shape in spec.get("extra", {}).items():
        out[name] = torch.randn(shape, generator=draw).to(torch.bfloat16)
    return out


@torch.no_grad()
def run(model, ids, hidden=False):
    out = model(ids, use_cache=False, output_hidden_states=hidden)
    return (out.logits[0].float(), out.hidden_states) if hidden else out.logits[0].float()


@torch.no_grad()
def greedy(model, ids, cached=True):
    """Chosen ids and the smallest distance between the best two logits."""
    chosen, margin, past, feed = [], math.inf, None, ids
    for _ in range(GREEDY):
        out = model(feed, use_cache=cached, past_key_values=past)
        best = out.logits[0, -1].float().topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        chosen.append(best.indices[0].item())
        token = torch.tensor([[chosen[-1]]])
        past = out.past_key_values if cached else None
        ids = torch.cat([ids, token], dim=1)
        feed = token if cached else ids
    return chosen, margin


def expected(model, spec):
    """What the test compares. Fails where two ways of running the oracle do not agree."""
    out, margins = {}, []
    for i, ids in enumerate(prompts(model.config.get_text_config().vocab_size)):
        logits, hidden = run(model, ids, hidden=True)
        out[f"p{i}.input_ids"] = ids[0].to(torch.int32)
        out[f"p{i}.last_logits"] = logits[-1].clone()
        if i == 0:
            out["p0.logits"] = logits
            out.update({f"p0.hidden.{k}": h[0].float() for k, h in enumerate(hidden)})
        chosen, margin = greedy(model, ids)
        if not spec.get("stateful_rope"):
            assert chosen == greedy(model, ids, cached=False)[0], "cache and no cache differ"
        out[f"p{i}.greedy"] = torch.tensor(chosen, dtype=torch.int32)
        margins.append(margin)
    return {k: v.contiguous().clone() for k, v in out.items()}, min(margins)


def moves(folder, spec, ids, logits):
    """How far the last logits of the long prompt go with each named feature switched off."""
    out = {}
    for what, patch in spec.get("ablate", {}).items():
        with tempfile.TemporaryDirectory() as other:
            config = json.loads((folder / "config.json").read_text())
            for key, to in patch.items():
                where = config
                *path, last = key.split(".")
                for part in path:
                    where = where[part]
                where[last] = to
            Path(other, "config.json").write_text(json.dumps(config))
            shutil.copy(folder / "model.safetensors", other)
            model = load(other, {**spec, "extra": load_file(folder / "model.safetensors")})
            other_logits = run(model, ids)[-1]
            out[what] = round((other_logits - logits).abs().max().item(), 3)
    weak = {k: v for k, v in out.items() if v < MOVES_MIN}
    assert not weak, f"these cannot be seen: {weak}"
    return out


def write(name):
    spec = SPECS[name]
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(spec["config"], indent=2) + "\n")
    for seed in range(spec.get("seed", 1), spec.get("seed", 1) + 40):
        tensors = published(build(folder, seed, spec), spec)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        model = load(folder, spec)
        try:
            result, margin = expected(model, spec)
        except AssertionError as why:
            print(name, seed, why)
            continue
        distinct = len(set(result["p0.greedy"].tolist() + result["p1.greedy"].tolist()))
        if margin > MARGIN_MIN and distinct >= 7:
            break
    else:
        raise SystemExit(f"{name}: no seed is decided clearly")
    save_file(result, folder / "expected.safetensors")
    ids = prompts(model.config.get_text_config().vocab_size)[1]
    moved = moves(folder, spec, ids, result["p1.last_logits"])
    size = sum(f.stat().st_size for f in folder.iterdir())
    std = result["p0.logits"].std().item()
    print(f"{name}: seed {seed}, {size} bytes, logit std {std:.2f}, margin {margin:.3f}, {moved}")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or SPECS:
        write(wanted)
