"""The same shape in Hugging Face transformers on the same card: what somebody gets who runs the
model in the library that it was published for. Random weights in bf16, random tokens, greedy.

Ways: `eager` (generate with its usual cache), `paged` (generate_batch, continuous batching),
`static` (generate with a static cache, which compiles the model: slow to start, last). A way that
the installed version does not have, or that takes too long, is noted and left out.

    peer.py --device cuda:0 [--json FILE] [--seconds 150] [--tiny]
"""

import argparse
import json
import signal
import statistics
import time
from pathlib import Path

import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.generation.configuration_utils import ContinuousBatchingConfig

# The published configuration of Llama 3.1 8B.
LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    },
}
TINY = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 4096,
}
# Tokens whose time is the difference of a long and a short run: the prompt's time falls out.
LONG, SHORT = 49, 1
PAGE_TOKENS = 256
# One way may take this long.
EACH_S = 60


class TooLong(Exception):
    """A way took longer than it may."""


def ring(_signal, _frame):
    raise TooLong


class Peer:
    """A model on a device."""

    def __init__(self, device, config):
        self.device = torch.device(device)
        config = LlamaConfig(**config)
        config.eos_token_id, config.bos_token_id, config.pad_token_id = None, None, 0
        config._attn_implementation = "sdpa"
        torch.set_default_dtype(torch.bfloat16)
        with self.device:
            self.model = LlamaForCausalLM(config).eval()
        self.vocab = config.vocab_size

    def ids(self, rows, tokens):
        return torch.randint(1, self.vocab, (rows, tokens), device=self.device)

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def timed(self, run):
        self.wait()
        begin = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - begin

    def generate(self, rows, context, made, **how):
        self.model.generate(
            self.ids(rows, context), max_new_tokens=made, min_new_tokens=made, do_sample=False, **how
        )

    def paged(self, rows, context, made):
        config = GenerationConfig(max_new_tokens=made, do_sample=False, eos_token_id=-1, pad_token_id=0)
        # Pages for what is asked, and no more: claiming all memory takes its time.
        blocks = rows * -(-(context + LONG) // PAGE_TOKENS) + 8
        paging = ContinuousBatchingConfig(
            page_size=PAGE_TOKENS, num_blocks=blocks, max_batch_tokens=max(256, 8 * context)
        )
        made_all = self.model.generate_batch(
            self.ids(rows, context).tolist(), generation_config=config,
            continuous_batching_config=paging, persistent_manager=True,
        )
        found = {len(one.generated_tokens) for one in made_all.values()}
        assert found == {made} and len(made_all) == rows, f"{len(made_all)} answers of {found} tokens"

    def step_ms(self, way, rows, context):
        run = {
            "eager": lambda made: self.generate(rows, context, made),
            "paged": lambda made: self.paged(rows, context, made),
            "static": lambda made: self.generate(
                rows, context, made, cache_implementation="static"
            ),
        }[way]
        # The first runs compile, or fill pools of memory, for what is asked first.
        run(LONG)
        run(SHORT)
        long = min(self.timed(lambda: run(LONG)) for _ in range(2))
        short = min(self.timed(lambda: run(SHORT)) for _ in range(2))
        if way == "paged":
            self.model.destroy_cached_continuous_batching_manager()
        return 1e3 * (long - short) / (LONG - SHORT)

    def first_token_ms(self, tokens):
        def run():
            self.model(self.ids(1, tokens), logits_to_keep=1, use_cache=True).logits.argmax()

        run()
        return 1e3 * statistics.median(self.timed(run) for _ in range(5))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=150, help="no way begins after these")
    parser.add_argument("--tiny", action="store_true", help="a shape for trying this program out")
    args = parser.parse_args()
    begin = time.monotonic()
    transformers.logging.set_verbosity_error()
    signal.signal(signal.SIGALRM, ring)
    context, prompt = (16, 32) if args.tiny else (1024, 2048)
    stamp = {
        "peer": "transformers", "version": transformers.__version__, "torch": torch.__version__,
        "device": args.device, "shape": "tiny" if args.tiny else "llama-3.1-8b", "dtype": "bf16",
    }
    if args.device.startswith("cuda"):
        stamp["card"] = torch.cuda.get_device_name()

    def tell(figures):
        text = json.dumps({**stamp, **figures})
        print(text, flush=True)
        if args.json:
            with args.json.open("a") as file:
                file.write(text + "\n")

    def attempt(what, measure):
        left = args.seconds - (time.monotonic() - begin)
        try:
            if left < 1:
                raise TooLong
            signal.alarm(int(min(left, EACH_S)) + 1)
            tell({**what, **measure()})
        except TooLong:
            tell({**what, "left_out": "no time for it"})
        except Exception as error:  # Whatever a version of the library does not do.
            tell({**what, "left_out": f"{type(error).__name__}: {error}"[:300]})
        finally:
            signal.alarm(0)

    # Not inference_mode: generate_batch works on tensors from another thread.
    with torch.no_grad():
        peer = Peer(args.device, TINY if args.tiny else LLAMA_8B)

        def decode(way, rows):
            def measure():
                step_ms = peer.step_ms(way, rows, context)
                return {"step_ms": step_ms, "tokens_per_s": 1e3 * rows / step_ms}

            attempt({"way": way, "batch": rows, "context": context}, measure)

        def prefill():
            first_token_ms = peer.first_token_ms(prompt)
            return {"first_token_ms": first_token_ms, "tokens_per_s": 1e3 * prompt / first_token_ms}

        attempt({"way": "prefill", "prompt": prompt}, prefill)
        for way, batches in [("eager", [1, 8, 32]), ("paged", [8, 32]), ("static", [1])]:
            for rows in batches:
                decode(way, rows)


if __name__ == "__main__":
    main()
