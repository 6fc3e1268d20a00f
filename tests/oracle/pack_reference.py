"""Packs the reference fixtures into tests/data/reference.tar.zst.

    python pack_reference.py FOLDER     the folder that holds llama_gqa, qwen3, ...

With them go tests/data/families, families_gguf, encoders and containers, as the scripts beside this one left them.
One solid archive: what the fixtures share (tokenizers, one Llama in many containers) is stored once.
Names are sorted and times are zero, so the same files give the same bytes. Files of 16 and 32-bit
numbers are split into planes of first bytes, second bytes and so on (NAME.planesN), which saves a
fourteenth. Left out are the GGUF types that others cover and `p2.logits`, whose log-probabilities
stay.
"""

import io
import json
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data"
OUT = DATA / "reference.tar.zst"
MADE_HERE = ["containers", "encoders", "families", "families_gguf"]
GGUF_KEPT = {"q2_k", "q4_k_m"}
# Their containers are in `containers`, and models in 8-bit floats are there as llama_fp8_block;
# `families/moonlight` is a deepseek_v3.
FOLDERS_LEFT_OUT = {"deepseek_v3", "llama_ct_fp8", "llama_fp8_tensor"}
TENSORS_LEFT_OUT = {"p2.logits"}


def wanted(path):
    kind = path.name.split(".")[0].removeprefix("llama-")
    return not path.name.startswith("llama-") or kind in GGUF_KEPT


def without(data, names):
    """A safetensors file less some tensors, the others in their order."""
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if not names & set(header):
        return data
    kept, out = {}, b""
    if "__metadata__" in header:
        kept["__metadata__"] = header.pop("__metadata__")
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if name in names:
            continue
        begin, end = entry["data_offsets"]
        kept[name] = {**entry, "data_offsets": [len(out), len(out) + end - begin]}
        out += body[begin:end]
    text = json.dumps(kept, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + out


def width(data):
    """Bytes of a number where one type fills most of a safetensors file, else 1."""
    length = struct.unpack("<Q", data[:8])[0]
    sizes = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            sizes[entry["dtype"]] = sizes.get(entry["dtype"], 0) + end - begin
    most = max(sizes, key=sizes.get)
    if sizes[most] * 10 < sum(sizes.values()) * 7:
        return 1
    return {"F32": 4, "BF16": 2, "F16": 2}.get(most, 1)


def split(data, planes):
    whole = len(data) // planes * planes
    return b"".join(data[i:whole:planes] for i in range(planes)) + data[whole:]


def files(source):
    """Names in the archive and where they lie, sorted."""
    found = {}
    for root, pattern in [(source, "*/**/*")] + [(DATA, f"{name}/**/*") for name in MADE_HERE]:
        for path in root.glob(pattern):
            name = str(path.relative_to(root))
            # Blocks of each type lie beside the tests of the kernels.
            if name.startswith("gguf_blocks/"):
                continue
            if name.split("/")[0] in FOLDERS_LEFT_OUT:
                continue
            if path.is_file() and wanted(path) and (root == DATA or name.split("/")[0] not in MADE_HERE):
                found[name] = path
    assert all(any(name.startswith(made) for name in found) for made in MADE_HERE)
    return sorted(found.items())


def main(source):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, path in files(Path(source)):
            data = path.read_bytes()
            if path.name.endswith("reference.safetensors"):
                data = without(data, TENSORS_LEFT_OUT)
            # The numbers of a container repeat whole.
            whole = path.suffix != ".safetensors" or name.startswith("containers")
            planes = 1 if whole else width(data)
            if planes > 1:
                name, data = f"{name}.planes{planes}", split(data, planes)
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    zstd = ["zstd", "--ultra", "-22", "--long=25", "-c", "-T1"]
    OUT.write_bytes(subprocess.run(zstd, input=archive.getvalue(), stdout=-1, check=True).stdout)
    print(f"{len(archive.getvalue())} bytes in {OUT.stat().st_size}")


if __name__ == "__main__":
    main(*sys.argv[1:])
