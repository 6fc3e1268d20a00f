"""One small linear layer in each published container of quantized weights, for tests/data/containers.

    python containers.py            all
    python containers.py gptq_b3    those whose name starts so

NAME.safetensors holds the tensors as a published file does, under PREFIX, and `expected`, the
float32 weights [out, in] that they stand for. NAME.json holds the `quantization_config`. Where the
library that defines a format runs on a CPU, it has to give the same weights (compressed-tensors,
bitsandbytes); the others are written from the format's definition, and read back by other code than
wrote them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent.parent / "data" / "containers"
PREFIX = "model.layers.0.self_attn.o_proj."
F16, BF16, F32, F8 = torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn
CASES = {}


def case(name, make, *args, **keys):
    assert name not in CASES, name
    CASES[name] = (make, args, keys)


def draw(seed):
    return torch.Generator().manual_seed(seed)


def bitstream(codes, bits):
    """Codes along the last axis, densely from the lowest bit of each word of 32 up."""
    codes = codes.numpy().astype(np.uint64)
    each = (codes[..., None] >> np.arange(bits, dtype=np.uint64)) & np.uint64(1)
    flat = each.reshape(*codes.shape[:-1], -1).astype(np.uint8)
    assert flat.shape[-1] % 32 == 0, flat.shape
    words = np.packbits(flat, axis=-1, bitorder="little").view("<u4")
    return torch.from_numpy(words.astype(np.int64)).to(torch.int32)


def unstream(words, bits, count):
    """The same backwards, a code at a time."""
    words = words.to(torch.int64) & 0xFFFFFFFF
    out = torch.zeros(*words.shape[:-1], count, dtype=torch.int64)
    for i in range(count):
        word, shift = divmod(i * bits, 32)
        value = words[..., word] >> shift
        if shift + bits > 32:
            value = value | (words[..., word + 1] << (32 - shift))
        out[..., i] = value & ((1 << bits) - 1)
    return out


# GPTQ. qweight [in * bits / 32, out] packs along the inputs, qzeros [groups, out * bits / 32] along
# the outputs; the first version stores zero points less one.
def gptq(bits, group, sym=True, desc_act=False, version=1, out=32):
    g = draw(bits * 1000 + group + 7 * sym + 3 * desc_act + version)
    size, width = (64, 64) if group == -1 else (group, 2 * group)
    groups = width // size
    codes = torch.randint(0, 1 << bits, (width, out), generator=g)
    scales = (torch.rand(groups, out, generator=g) * 0.02 + 0.002).to(F16)
    zeros = torch.full((groups, out), 1 << (bits - 1))
    if not sym:
        zeros = torch.randint(1 if version == 1 else 0, 1 << bits, (groups, out), generator=g)
    order = torch.arange(width)
    g_idx = order // size
    if desc_act:
        g_idx = g_idx[torch.randperm(width, generator=g)]
    qweight = bitstream(codes.T, bits).T.contiguous()
    qzeros = bitstream(zeros - int(version == 1), bits)
    tensors = {
        "qweight": qweight, "qzeros": qzeros, "scales": scales, "g_idx": g_idx.to(torch.int32),
    }
    config = {
        "quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": desc_act, "sym": sym,
        "checkpoint_format": "gptq" if version == 1 else "gptq_v2", "damp_percent": 0.01,
        "lm_head": False, "static_groups": False, "true_sequential": True,
    }
    read = unstream(qweight.T, bits, width).T
    zero = unstream(qzeros, bits, out) + int(version == 1)
    expected = (read - zero[g_idx]).float() * scales.float()[g_idx]
    return tensors, config, expected.T


for bits in (2, 3, 4, 8):
    case(f"gptq_b{bits}_g32", gptq, bits, 32)
    case(f"gptq_b{bits}_g64_asym_act", gptq, bits, 64, sym=False, desc_act=True)
    case(f"gptq_v2_b{bits}_g64_asym", gptq, bits, 64, sym=False, version=2)
case("gptq_b4_g128_act", gptq, 4, 128, desc_act=True)
case("gptq_b4_channel", gptq, 4, -1)
case("gptq_b3_channel_asym", gptq, 3, -1, sym=False)
case("gptq_b8_channel_act", gptq, 8, -1, desc_act=True)
case("gptq_v2_b4_g128_act", gptq, 4, 128, desc_act=True, version=2)


# AWQ. Eight outputs to a word in the order 0 2 4 6 1 3 5 7, zero points as they are.
def awq(group, out=24):
    g = draw(40 + group)
    groups, width = 2, 2 * group
    codes = torch.randint(0, 16, (width, out), generator=g)
    zeros = torch.randint(0, 16, (groups, out), generator=g)
    scales = (torch.rand(groups, out, generator=g) * 0.02 + 0.002).to(F16)
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def pack(values):
        return bitstream(values.reshape(-1, out // 8, 8)[:, :, order].reshape(-1, out), 4)

    def unpack(words):
        place = [0, 4, 1, 5, 2, 6, 3, 7]
        parts = [(words.to(torch.int64) >> (4 * place[j])) & 15 for j in range(8)]
        return torch.stack(parts, dim=-1).reshape(-1, out)

    tensors = {"qweight": pack(codes), "qzeros": pack(zeros), "scales": scales}
    config = {
        "quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True,
        "version": "gemm", "modules_to_not_convert": None,
    }
    rows = torch.arange(width) // group
    assert torch.equal(unpack(tensors["qweight"]), codes)
    expected = (codes - unpack(tensors["qzeros"])[rows]).float() * scales.float()[rows]
    return tensors, config, expected.T


for group in (32, 64, 128):
    case(f"awq_g{group}", awq, group)


# FP8.
def fp8_values(g, out, width):
    """All 254 finite codes occur."""
    codes = torch.randint(0, 256, (out, width), generator=g).to(torch.uint8)
    codes[(codes & 0x7F) == 0x7F] = 0
    codes.view(-1)[:256] = torch.tensor([c if c & 0x7F != 0x7F else 1 for c in range(256)], dtype=torch.uint8)
    return codes.view(F8)


def grown(scale, block, shape):
    """Scales of blocks, one for each weight; blocks at the edges are partial."""
    rows, cols = (torch.arange(n) // b for n, b in zip(shape, block))
    return scale.float()[rows][:, cols]


def fp8(config, kind, name, dtype=F32, extra=(), out=24, width=96, block=None):
    g = draw(len(name) * 7 + out + width + (dtype == BF16))
    weight = fp8_values(g, out, width)
    shape = {
        "scalar": (), "one": (1,), "channel": (out, 1), "vector": (out,),
        "block": tuple(-(-n // b) for n, b in zip((out, width), block or (1, 1))),
    }[kind]
    scale = (torch.rand(shape, generator=g) * 0.001 + 0.0002).to(dtype)
    tensors = {"weight": weight, name: scale}
    for other in extra:
        tensors[other] = torch.tensor(0.0123)
    if kind == "block":
        full = grown(scale, block, (out, width))
    else:
        full = scale.float().reshape(-1, 1) if scale.numel() > 1 else scale.float().reshape(1, 1)
    return tensors, config, weight.float() * full


def fp8_config(scheme, **keys):
    return {"quant_method": "fp8", "activation_scheme": scheme, **keys}


case("fp8_tensor_static", fp8, fp8_config("static", ignored_layers=["lm_head"]), "scalar", "weight_scale", extra=["input_scale"])
case("fp8_tensor_dynamic", fp8, fp8_config("dynamic"), "one", "weight_scale")
case("fp8_tensor_bf16", fp8, fp8_config("dynamic"), "scalar", "weight_scale", BF16)
case("fp8_channel", fp8, fp8_config("dynamic"), "channel", "weight_scale", BF16)
BLOCKS = fp8_config("dynamic", fmt="e4m3", weight_block_size=[128, 128], modules_to_not_convert=["lm_head"])
case("fp8_block", fp8, BLOCKS, "block", "weight_scale_inv", out=200, width=136, block=(128, 128))
case("fp8_block_bf16", fp8, BLOCKS, "block", "weight_scale_inv", BF16, out=24, width=200, block=(128, 128))
case(
    "fp8_fbgemm", fp8,
    {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]},
    "channel", "weight_scale", extra=["input_scale_ub"],
)
MODELOPT = {
    "quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": None, "ignore": ["lm_head"],
    "producer": {"name": "modelopt", "version": "0.29.0"},
    "hf_quant_config": {
        "producer": {"name": "modelopt", "version": "0.29.0"},
        "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
    },
}
case("fp8_modelopt", fp8, MODELOPT, "scalar", "weight_scale", extra=["input_scale"])


# compressed-tensors: the library itself packs and unpacks.
def scheme(bits, kind, strategy, **keys):
    return {
        "num_bits": bits, "type": kind, "strategy": strategy, "symmetric": True, "dynamic": False,
        "actorder": None, "block_structure": None, "group_size": None, "observer": "minmax",
        "observer_kwargs": {}, **keys,
    }


def ct_config(form, weights, inputs=None):
    return {
        "quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"],
        "kv_cache_scheme": None, "global_compression_ratio": None,
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"], "weights": weights, "input_activations": inputs,
                "output_activations": None,
            }
        },
    }


def ct_int(form, bits, group=None, symmetric=True, actorder=False, out=16):
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    g = draw(bits * 100 + (group or 0) + 5 * symmetric + actorder)
    groups, width = (2, 2 * group) if group else (1, 64)
    low, high = -(1 << (bits - 1)), 1 << (bits - 1)
    codes = torch.randint(low, high, (out, width), generator=g).to(torch.int8)
    scale = (torch.rand(out, groups, generator=g) * 0.02 + 0.002).to(BF16)
    zero = torch.zeros(out, groups, dtype=torch.int8)
    if not symmetric:
        zero = torch.randint(low, high, (out, groups), generator=g).to(torch.int8)
    place = torch.arange(width) // (group or width)
    if actorder:
        place = place[torch.randperm(width, generator=g)]
    weights = scheme(
        bits, "int", "group" if group else "channel", group_size=group, symmetric=symmetric,
        actorder="group" if actorder else None,
    )
    inputs = scheme(8, "int", "token", dynamic=True) if form == "int-quantized" else None
    expected = (codes.float() - zero.float()[:, place]) * scale.float()[:, place]
    if form == "int-quantized":
        tensors = {"weight": codes, "weight_scale": scale}
        if not symmetric:
            tensors["weight_zero_point"] = zero
        return tensors, ct_config(form, weights, inputs), expected

    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    tensors = {
        "weight_packed": pack_to_int32(codes, bits), "weight_scale": scale,
        "weight_shape": torch.tensor([out, width]),
    }
    if not symmetric:
        tensors["weight_zero_point"] = pack_to_int32(zero, bits, packed_dim=0).contiguous()
    if not actorder:
        args = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))
        wide = {**tensors, "weight_scale": scale.float()}
        theirs = BaseCompressor.get_value_from_registry(form).decompress(wide, args)["weight"]
        assert torch.equal(theirs.float(), expected), "compressed-tensors reads something else"
    else:
        tensors["weight_g_idx"] = place.to(torch.int32)
    return tensors, ct_config(form, weights), expected


PACKED = "pack-quantized"
case("ct_int4_g128", ct_int, PACKED, 4, 128)
case("ct_int4_g32_asym", ct_int, PACKED, 4, 32, symmetric=False)
case("ct_int4_channel", ct_int, PACKED, 4)
case("ct_int4_channel_asym", ct_int, PACKED, 4, symmetric=False)
case("ct_int4_g64_actorder", ct_int, PACKED, 4, 64, actorder=True)
case("ct_int4_g64_asym_actorder", ct_int, PACKED, 4, 64, symmetric=False, actorder=True)
case("ct_int8_g128", ct_int, PACKED, 8, 128)
case("ct_int8_channel", ct_int, PACKED, 8)
case("ct_int8_g64_asym", ct_int, PACKED, 8, 64, symmetric=False)
case("ct_int3_g64", ct_int, PACKED, 3, 64)
case("ct_w8a8", ct_int, "int-quantized", 8)
case("ct_w8a8_asym", ct_int, "int-quantized", 8, symmetric=False)


def ct_float(strategy, **keys):
    return scheme(8, "float", strategy, **keys)


ACTS = ct_float("token", dynamic=True)
FLOAT = "float-quantized"
case("ct_fp8_tensor", fp8, ct_config(FLOAT, ct_float("tensor"), ct_float("tensor")), "one", "weight_scale", BF16, extra=["input_scale"])
case("ct_fp8_channel", fp8, ct_config(FLOAT, ct_float("channel"), ACTS), "channel", "weight_scale", BF16)
case(
    "ct_fp8_block", fp8, ct_config(FLOAT, ct_float("block", block_structure=[128, 128]), ACTS),
    "block", "weight_scale", BF16, out=136, width=144, block=(128, 128),
)
case("ct_fp8_naive", fp8, ct_config("naive-quantized", ct_float("channel"), ACTS), "channel", "weight_scale", F32)


# Four-bit floats.
FP4 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
FP4 = torch.tensor(FP4 + [-v for v in FP4])


def mxfp4(out=16, width=96, experts=2):
    """The names of gpt-oss: blocks of 32 and their powers of two; the bias of 127 is the scale's."""
    g = draw(61)
    codes = torch.randint(0, 16, (experts, out, width // 32, 16, 2), generator=g).to(torch.uint8)
    scales = torch.randint(118, 131, (experts, out, width // 32), generator=g).to(torch.uint8)
    blocks = codes[..., 0] | codes[..., 1] << 4
    values = FP4[codes.long()].reshape(experts, out, width // 32, 32)
    expected = torch.ldexp(values, scales.int().unsqueeze(-1) - 127).reshape(experts, out, width)
    config = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    return {"blocks": blocks, "scales": scales}, config, expected


def nvfp4(form, out=24, width=96):
    """Blocks of 16 with an FP8 scale, and one scale of the tensor, by which modelopt multiplies and
    compressed-tensors divides."""
    g = draw(62 + len(form))
    codes = torch.randint(0, 16, (out, width // 2, 2), generator=g).to(torch.uint8)
    packed = codes[..., 0] | codes[..., 1] << 4
    scale = (torch.rand(out, width // 16, generator=g) * 400 + 20).to(F8)
    values = FP4[codes.long()].reshape(out, width)
    small = scale.float().repeat_interleave(16, dim=1)
    whole = torch.tensor(0.000037)
    if form == "modelopt":
        config = {**MODELOPT, "quant_algo": "NVFP4", "group_size": 16}
        config["hf_quant_config"] = {
            "quantization": {
                "quant_algo": "NVFP4", "group_size": 16, "kv_cache_quant_algo": None,
                "exclude_modules": ["lm_head"],
            }
        }
        tensors = {"weight": packed, "weight_scale": scale, "weight_scale_2": whole, "input_scale": torch.tensor(0.01)}
        return tensors, config, values * (small * whole)
    weights = scheme(4, "float", "tensor_group", group_size=16)
    divisor = torch.tensor([26880.0])
    tensors = {"weight_packed": packed, "weight_scale": scale, "weight_global_scale": divisor}
    return tensors, ct_config("nvfp4-pack-quantized", weights), values * (small / divisor)


case("mxfp4", mxfp4)
case("nvfp4_modelopt", nvfp4, "modelopt")
case("nvfp4_ct", nvfp4, "compressed-tensors")


# bitsandbytes: the library packs, and unpacks to check.
def bnb4(kind, double, out=24, width=128, block=64):
    from bitsandbytes import functional as bnb

    weight = (torch.randn(out, width, generator=draw(71)) * 0.05).to(BF16)
    packed, state = bnb.quantize_4bit(
        weight, blocksize=block, compress_statistics=double, quant_type=kind, quant_storage=torch.uint8
    )
    tensors = {"weight": packed}
    tensors.update({f"weight.{name}": value for name, value in state.as_dict(packed=True).items()})
    config = {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False,
        "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double,
        "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": ["lm_head"], "llm_int8_threshold": 6.0,
    }
    absmax = tensors["weight.absmax"].float()
    if double:
        book, small = tensors["weight.nested_quant_map"], tensors["weight.nested_absmax"]
        read = json.loads(bytes(tensors[f"weight.quant_state.bitsandbytes__{kind}"].tolist()))
        places = torch.arange(absmax.numel()) // read["nested_blocksize"]
        absmax = book[tensors["weight.absmax"].long()] * small[places] + read["nested_offset"]
    flat = packed.reshape(-1)
    codes = torch.stack([flat >> 4, flat & 15], dim=-1).reshape(-1)
    values = tensors["weight.quant_map"][codes.long()] * absmax[torch.arange(codes.numel()) // block]
    expected = values.reshape(out, width)
    state.dtype = F32
    theirs = bnb.dequantize_4bit(packed, state)
    assert (theirs.float() - expected).abs().max() < 1e-6, "bitsandbytes reads something else"
    return tensors, config, expected


def bnb8(out=24, width=128):
    g = draw(72)
    codes = torch.randint(-127, 128, (out, width), generator=g).to(torch.int8)
    scb = torch.rand(out, generator=g) * 0.2 + 0.05
    tensors = {"weight": codes, "SCB": scb, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    config = {
        "quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": True,
        "llm_int8_threshold": 6.0, "llm_int8_skip_modules": ["lm_head"],
        "llm_int8_has_fp16_weight": False, "llm_int8_enable_fp32_cpu_offload": False,
    }
    return tensors, config, codes.float() * scb[:, None] / 127


for kind in ("nf4", "fp4"):
    case(f"bnb_{kind}", bnb4, kind, False)
    # The first has two blocks of block scales, which are 256 each.
    case(f"bnb_{kind}_double", bnb4, kind, True, out=17 if kind == "nf4" else 3, width=1024)
case("bnb_int8", bnb8)


def write(name):
    make, args, keys = CASES[name]
    tensors, config, expected = make(*args, **keys)
    named = {}
    for tensor, value in tensors.items():
        full = {"blocks": "_blocks", "scales": "_scales"}.get(tensor, "") if name == "mxfp4" else ""
        prefix = "model.layers.0.mlp.experts.down_proj" if full else PREFIX
        named[prefix + (full or tensor)] = value.contiguous().clone()
    named["expected"] = expected.float().contiguous().clone()
    assert torch.isfinite(named["expected"]).all(), name
    save_file(named, OUT / f"{name}.safetensors", metadata={"format": "pt"})
    hf_quant_config = config.get("hf_quant_config")
    config = {key: value for key, value in config.items() if key != "hf_quant_config"}
    about = {"prefix": prefix if full else PREFIX, "shape": list(expected.shape), "quantization_config": config}
    if hf_quant_config:
        about["hf_quant_config"] = hf_quant_config
    (OUT / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")
    kinds = {k: f"{str(v.dtype)[6:]}{list(v.shape)}" for k, v in tensors.items()}
    std = named["expected"].std().item()
    print(f"{name}: {(OUT / f'{name}.safetensors').stat().st_size} bytes, std {std:.3g}, {kinds}")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for wanted in CASES:
        if not sys.argv[1:] or any(wanted.startswith(start) for start in sys.argv[1:]):
            write(wanted)
