"""Tiny encoders and cross encoders with their float32 outputs, for tests/data/encoders.

    python encoders.py            all
    python encoders.py nomic_bert this one

Random weights, stored in float32 or bfloat16 under the names of published files; what transformers
computes in float32 from the files as they lie there. See families.py, which does the same for
decoders.
"""

import json
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging

torch.set_num_threads(1)
logging.set_verbosity_error()
logging.disable_progress_bar()

OUT = Path(__file__).resolve().parent.parent / "data" / "encoders"
LENGTHS = (6, 23)
MOVES_MIN = 0.02


def bert(arch, model_type="bert", **keys):
    out = {
        "architectures": [arch], "model_type": model_type, "vocab_size": 96, "hidden_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 64, "type_vocab_size": 2, "initializer_range": 0.02,
        "layer_norm_eps": 1e-12, "pad_token_id": 0, "position_embedding_type": "absolute",
        "torch_dtype": "float32", "transformers_version": "4.46.0", "use_cache": True,
    }
    out.update(keys)
    return out


ROBERTA = dict(
    pad_token_id=1, bos_token_id=0, eos_token_id=2, type_vocab_size=1, layer_norm_eps=1e-5,
    max_position_embeddings=66,
)
ONE_LABEL = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
DISTILBERT = {
    "architectures": ["DistilBertModel"], "model_type": "distilbert", "activation": "gelu",
    "attention_dropout": 0.1, "dim": 32, "dropout": 0.1, "hidden_dim": 48, "n_heads": 4,
    "n_layers": 2, "initializer_range": 0.02, "max_position_embeddings": 64, "pad_token_id": 0,
    "qa_dropout": 0.1, "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False,
    "tie_weights_": True, "vocab_size": 96, "torch_dtype": "float32",
    "transformers_version": "4.46.0",
}
NOMIC = {
    "activation_function": "swiglu", "architectures": ["NomicBertModel"], "attn_pdrop": 0.0,
    "bos_token_id": None, "causal": False, "dense_seq_output": True, "embd_pdrop": 0.0,
    "eos_token_id": None, "fused_bias_fc": True, "fused_dropout_add_ln": True,
    "initializer_range": 0.02, "layer_norm_epsilon": 1e-12, "max_trained_positions": 2048,
    "mlp_fc1_bias": False, "mlp_fc2_bias": False, "model_type": "nomic_bert", "n_embd": 32,
    "n_head": 4, "n_inner": 48, "n_layer": 2, "n_positions": 8192, "pad_vocab_size_multiple": 32,
    "parallel_block": False, "parallel_block_tied_norm": False, "prenorm": False,
    "qkv_proj_bias": False, "reorder_and_upcast_attn": False, "resid_pdrop": 0.0,
    "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None, "rotary_scaling_factor": None,
    "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True, "torch_dtype": "float32",
    "transformers_version": "4.37.2", "type_vocab_size": 2, "use_cache": True,
    "use_flash_attn": True, "use_rms_norm": False, "use_xentropy": True, "vocab_size": 96,
}
# What those keys are called by the class that is the oracle.
NOMIC_NATIVE = {
    "architectures": ["NomicBertModel"], "model_type": "nomic_bert", "vocab_size": 96,
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "hidden_act": "silu", "max_position_embeddings": 2048, "type_vocab_size": 2,
    "layer_norm_eps": 1e-12, "pad_token_id": 0, "dtype": "float32",
    "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"},
}
MODERN = {
    "architectures": ["ModernBertModel"], "model_type": "modernbert", "vocab_size": 96,
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "hidden_activation": "gelu", "max_position_embeddings": 64, "norm_eps": 1e-5,
    "norm_bias": False, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1, "cls_token_id": 1,
    "sep_token_id": 2, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0,
    "attention_bias": False, "attention_dropout": 0.0, "global_attn_every_n_layers": 3,
    "local_attention": 8, "mlp_bias": False, "mlp_dropout": 0.0, "embedding_dropout": 0.0,
    "decoder_bias": True, "classifier_pooling": "mean", "classifier_dropout": 0.0,
    "classifier_bias": False, "classifier_activation": "gelu", "deterministic_flash_attn": False,
    "position_embedding_type": "absolute", "reference_compile": False, "layer_norm_eps": 1e-5,
    "sparse_pred_ignore_index": -100, "sparse_prediction": False, "torch_dtype": "float32",
    "initializer_range": 0.02, "initializer_cutoff_factor": 2.0, "gradient_checkpointing": False,
    "repad_logits_with_grad": False, "tie_word_embeddings": True, "transformers_version": "4.48.0",
}
WINDOWS = {
    "window 10": {"local_attention": 10}, "all local but first": {"global_attn_every_n_layers": 5},
    "one base": {"global_rope_theta": 10000.0},
}


def labelled(config, arch, **keys):
    return {**config, "architectures": [arch], **ONE_LABEL, **keys}


SPECS = {
    "bert": dict(config=bert("BertModel"), ablate={"tanh gelu": {"hidden_act": "relu"}}),
    "bert_classify": dict(config=labelled(bert(""), "BertForSequenceClassification")),
    "roberta": dict(config=bert("RobertaModel", "roberta", **ROBERTA)),
    "roberta_classify": dict(
        config=labelled(bert("", "roberta", **ROBERTA), "RobertaForSequenceClassification")
    ),
    "xlm_roberta": dict(config=bert("XLMRobertaModel", "xlm-roberta", **ROBERTA)),
    "xlm_roberta_classify": dict(
        config=labelled(bert("", "xlm-roberta", **ROBERTA), "XLMRobertaForSequenceClassification")
    ),
    "nomic_bert": dict(config=NOMIC, oracle_config=NOMIC_NATIVE),
    "nomic_bert_native": dict(config=NOMIC_NATIVE),
    "modernbert": dict(config=MODERN, ablate=WINDOWS),
    "modernbert_classify": dict(
        config=labelled(MODERN, "ModernBertForSequenceClassification"), ablate=WINDOWS
    ),
    "modernbert_classify_cls": dict(
        config=labelled(
            MODERN, "ModernBertForSequenceClassification", classifier_pooling="cls",
            torch_dtype="bfloat16",
        ),
    ),
    "distilbert": dict(config=DISTILBERT),
    "distilbert_classify": dict(
        config=labelled(DISTILBERT, "DistilBertForSequenceClassification"),
    ),
}
SPECS["bert"]["ablate"] = {"relu": {"hidden_act": "relu"}}


def inputs(config):
    """Ids, and the second half of the long input as a second segment where there are segments."""
    draw = torch.Generator().manual_seed(5)
    for length in LENGTHS:
        ids = torch.randint(4, 96, (1, length), generator=draw)
        types = torch.zeros_like(ids)
        if config.get("type_vocab_size", 1) > 1:
            types[0, length // 2 :] = 1
        yield ids, types


def fill(model, seed):
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters(), key=lambda item: item[0]):
            noise = torch.randn(p.shape, generator=draw, dtype=torch.float32)
            low = name.lower()
            if "norm" in low:
                p.copy_(noise * 0.15 if low.endswith("bias") else 1 + noise * 0.25)
            elif p.ndim == 1:
                p.copy_(noise * 0.2)
            elif "embedding" in low:
                p.copy_(noise * (1.0 if "word" in low or "tok" in low else 0.4))
            else:
                # The published models get a large gain by training; without it nothing moves.
                p.copy_(noise * 1.5 / math.sqrt(p.shape[-1]))


def oracle(folder, spec):
    """The model as transformers reads it from the folder."""
    with tempfile.TemporaryDirectory() as other:
        shutil.copy(folder / "model.safetensors", other)
        config = spec.get("oracle_config", spec["config"])
        Path(other, "config.json").write_text(json.dumps(config))
        cls = getattr(transformers, config["architectures"][0])
        model, info = cls.from_pretrained(
            other, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model.eval()


def save(folder, spec):
    config = spec.get("oracle_config", spec["config"])
    cls = getattr(transformers, config["architectures"][0])
    with tempfile.TemporaryDirectory() as other:
        Path(other, "config.json").write_text(json.dumps(config))
        model = cls(transformers.AutoConfig.from_pretrained(other))
        fill(model, 11)
        model.save_pretrained(other)
        tensors = load_file(Path(other, "model.safetensors"))
    kind = torch.bfloat16 if spec["config"].get("torch_dtype") == "bfloat16" else torch.float32
    tensors = {name: tensor.to(kind).contiguous() for name, tensor in sorted(tensors.items())}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def run(model, config):
    out = {}
    for i, (ids, types) in enumerate(inputs(config)):
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if config.get("type_vocab_size", 1) > 1:
            given["token_type_ids"] = types
            out[f"s{i}.token_type_ids"] = types[0].to(torch.int32)
        out[f"s{i}.input_ids"] = ids[0].to(torch.int32)
        result = model(**given, output_hidden_states=True)
        last = result.hidden_states[-1][0] if "logits" in result else result.last_hidden_state[0]
        if "logits" in result:
            out[f"s{i}.logits"] = result.logits[0].float()
            base = getattr(model, model.base_model_prefix)
            last = base(**given).last_hidden_state[0]
        out[f"s{i}.last_hidden_state"] = last.float()
        out[f"s{i}.pooled"] = last.float().mean(0)
    return {name: tensor.contiguous().clone() for name, tensor in out.items()}


def write(name):
    spec = SPECS[name]
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(spec["config"], indent=2) + "\n")
    save(folder, spec)
    config = spec.get("oracle_config", spec["config"])
    result = run(oracle(folder, spec), config)
    save_file(result, folder / "expected.safetensors")
    moved = {}
    for what, patch in spec.get("ablate", {}).items():
        other = run(oracle(folder, {"config": {**config, **patch}}), config)
        key = "s1.last_hidden_state"
        moved[what] = round((other[key] - result[key]).abs().max().item(), 3)
    assert all(by > MOVES_MIN for by in moved.values()), moved
    size = sum(file.stat().st_size for file in folder.iterdir())
    logits = [round(result[f"s{i}.logits"].item(), 3) for i in (0, 1) if "s0.logits" in result]
    print(f"{name}: {size} bytes, logits {logits}, {moved}")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or SPECS:
        write(wanted)
