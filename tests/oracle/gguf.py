"""Some of tests/data/families as GGUF files, for tests/data/families_gguf: bfloat16, with the names,
keys and row orders of llama.cpp's converter, and a vocabulary that means nothing.

    python gguf.py LLAMA_CPP cohere2 olmo3 ...

LLAMA_CPP is a checkout of llama.cpp with its `conversion` package. What the files must compute is
what stands in the family's expected.safetensors: no weight changes its value.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
llama_cpp = Path(sys.argv[1])
sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]

import conversion
import gguf
import torch
from conversion.base import ModelBase

DATA = Path(__file__).resolve().parent.parent / "data"


def vocabulary(model):
    """As many tokens as the table has rows; the converter wants some."""
    count = model.hparams["vocab_size"]
    writer = model.gguf_writer
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([f"t{i}" for i in range(count)])
    writer.add_token_types([1] * count)
    writer.add_token_merges(["t 1"])


for name in sys.argv[2:]:
    folder = DATA / "families" / name
    architecture = ModelBase.load_hparams(folder, False)["architectures"][0]
    converter = conversion.get_model_class(architecture)
    converter.set_vocab = vocabulary
    with torch.inference_mode():
        out = DATA / "families_gguf" / f"{name}.gguf"
        converter(folder, gguf.LlamaFileType.MOSTLY_BF16, out).write()
    print(name, architecture)
