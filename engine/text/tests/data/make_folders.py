"""Writes the fixtures of folders that have no tokenizer.json, and of encoders in GGUF.

    python -m venv v && v/bin/pip install transformers==5.23.0 sentencepiece tokenizers==0.23.3 jinja2 protobuf
    v/bin/python make_folders.py

Written once; the tests only read the result. The training text is odd.json, our own. Each folder
holds small files as a model's folder would; `folders.jsonl` says what SentencePiece itself or the
class of transformers makes of texts and pairs there.
"""

import io
import json
import pathlib
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
import transformers as tf

HERE = pathlib.Path(__file__).parent
ODD = json.loads((HERE / "odd.json").read_text())
MORE = ["Ｆｕｌｌ width ℃ ﬁne", "x　y", "a<sep>b <sep> c", "日本 語 a", "e\u0301te", "  lead", "trail  ", "ünïcödé Straße", "I.B.M. (c) 2024"]
MARKED = ("<s>", "</s>", "<|im_", "<unk>", "<pad>", "\x00")
TEXTS = ODD + MORE
PAIRS = [("the quick brown fox", "jumps over the lazy dog"), ("", "x"), ("why ? no !", "?"), ("日本語", "weather in Köln, isn't it? " * 3), ("a b c d e f g h i j k l m", "a b c")]
RULES = [("Ａ-Ｚ", None), ("℃", "°C"), ("ﬁ", "fi"), ("　", " "), ("\u00a0", " "), ("\n", " "), ("\t", " "), ("\r", " "), ("e\u0301", "é"), ("a\u0308", "ä")]
CASES = []


def rules_file():
    lines = []
    for source, target in RULES:
        if target is None:
            for code in list(range(0xFF21, 0xFF3B)) + list(range(0xFF41, 0xFF5B)):
                lines.append((chr(code), chr(code - 0xFEE0)))
        else:
            lines.append((source, target))
    path = pathlib.Path(tempfile.mkdtemp()) / "rules.tsv"
    hexes = lambda text: " ".join(f"{ord(c):X}" for c in text)
    path.write_text("".join(f"{hexes(a)}\t{hexes(b)}\n" for a, b in lines))
    return str(path)


def write(name, files):
    folder = HERE / "folders" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        if isinstance(content, bytes):
            (folder / file).write_bytes(content)
        elif isinstance(content, str):
            (folder / file).write_text(content)
        else:
            (folder / file).write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")))
    return folder


def piece_model(**options):
    out = io.BytesIO()
    lines = [t.replace("\n", " ").replace("\x00", "") for t in TEXTS * 3]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=out, minloglevel=2, num_threads=1, **options)
    return out.getvalue()


# Where transformers and its tokenizers library cut otherwise than SentencePiece, and we as they do:
# a text behind an added token begins anew; pieces of equal likelihood come in another order; a
# rule that matches the beginning of a grapheme replaces all of it; bytes can be written out.
OTHERWISE = {
    "spm_bpe": ["<sep>"],
    "spm_bpe_plain": ["e\u0301\u0301"],
    "spm_unigram": ["<sep>", "e\u0301\u0301", "a" * 100, "ab" * 50],
    "spm_unigram_bytes": ["<0x41>", "a" * 100, "ab" * 50],
}


def by_sentencepiece(folder):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(HERE / "folders" / folder / "tokenizer.model"))
    for text in TEXTS:
        if not any(mark in text for mark in [*MARKED, *OTHERWISE.get(folder, [])]):
            ids = processor.encode(text)
            # SentencePiece writes an unknown piece as " ⁇ ", libraries as its name.
            decoded = None if processor.unk_id() in ids else processor.decode(ids)
            CASES.append({"folder": folder, "text": text, "special": False, "ids": ids, "decoded": decoded})


def by_transformers(folder, tokenizer, decode=True):
    for text in TEXTS:
        for special in (False, True):
            made = tokenizer(text, add_special_tokens=special)
            case = {"folder": folder, "text": text, "special": special, "ids": made["input_ids"]}
            if decode and special:
                out = tokenizer.decode(made["input_ids"], skip_special_tokens=True)
                case["decoded"] = None if "\ufffd" in out else out
            CASES.append(case)
    for a, b in PAIRS:
        for limit in (None, 12, 7):
            more = {} if limit is None else dict(truncation="longest_first", max_length=limit)
            made = tokenizer(a, b, return_token_type_ids=True, **more)
            types = tokenizer._tokenizer.encode(a, b).type_ids if limit is None else None
            CASES.append({"folder": folder, "a": a, "b": b, "limit": limit, "ids": made["input_ids"], "types": types})
    long = "the quick brown fox jumps over the lazy dog"
    for limit in (5, 2):
        CASES.append({"folder": folder, "text": long, "limit": limit, "ids": tokenizer(long, truncation=True, max_length=limit)["input_ids"]})


BPE = dict(model_type="bpe", vocab_size=620, byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False)
USER = ["<|im_start|>", "<|im_end|>", "<sep>"]

# Legacy: as SentencePiece itself cuts.
write("spm_bpe", {"tokenizer.model": piece_model(**BPE, user_defined_symbols=USER[2:], control_symbols=["<ctl>"]), "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True, "add_eos_token": False}})
by_sentencepiece("spm_bpe")
# Without a prefix, with collapsed spaces and rules for characters.
write("spm_bpe_plain", {"tokenizer.model": piece_model(**{**BPE, "byte_fallback": False, "character_coverage": 1.0, "remove_extra_whitespaces": True, "normalization_rule_name": "", "normalization_rule_tsv": rules_file()}, add_dummy_prefix=False), "tokenizer_config.json": {"tokenizer_class": "GemmaTokenizer"}})
by_sentencepiece("spm_bpe_plain")
write("spm_unigram", {"tokenizer.model": piece_model(model_type="unigram", vocab_size=230, character_coverage=0.98, normalization_rule_tsv=rules_file(), user_defined_symbols=USER[2:])})
by_sentencepiece("spm_unigram")
# The same as a GGUF header of kind t5 holds it.
proto = sentencepiece_model_pb2.ModelProto.FromString((HERE / "folders/spm_unigram/tokenizer.model").read_bytes())
vocab = {
    "model": "t5", "tokens": [p.piece for p in proto.pieces] + ["[PAD230]"], "scores": [p.score for p in proto.pieces] + [-10000.0],
    "types": [p.type for p in proto.pieces] + [5], "bos": 1, "eos": 2, "unk": 0, "add_bos": True, "add_eos": True,
    "add_space_prefix": True, "remove_extra_whitespaces": True, "precompiled_charsmap": list(proto.normalizer_spec.precompiled_charsmap),
}
(HERE / "gguf_t5.json").write_text(json.dumps(vocab, ensure_ascii=False, separators=(",", ":")))
write("spm_unigram_bytes", {"tokenizer.model": piece_model(model_type="unigram", vocab_size=480, byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False)})
by_sentencepiece("spm_unigram_bytes")
unescaped = sentencepiece_model_pb2.ModelProto.FromString(piece_model(**{**BPE, "byte_fallback": True}))
unescaped.normalizer_spec.escape_whitespaces = False
for piece in unescaped.pieces:
    piece.piece = piece.piece.replace("▁", " ")
write("spm_unescaped", {"tokenizer.model": unescaped.SerializeToString(), "tokenizer_config.json": {"add_bos_token": False, "legacy": True}})
by_sentencepiece("spm_unescaped")

# As the class of transformers cuts, with tokens that only the configuration knows.
added = {str(620 + i): {"content": t, "lstrip": False, "rstrip": i == 1, "normalized": False, "single_word": False, "special": True} for i, t in enumerate(USER[:2])}
folder = write("llama", {"tokenizer.model": piece_model(**BPE), "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, "add_eos_token": True, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "added_tokens_decoder": added}})
by_transformers("llama", tf.LlamaTokenizer.from_pretrained(folder))
folder = write("xlm_roberta", {"tokenizer.model": piece_model(model_type="unigram", vocab_size=230, character_coverage=0.98, normalization_rule_tsv=rules_file()), "tokenizer_config.json": {"tokenizer_class": "XLMRobertaTokenizer"}})
with tempfile.TemporaryDirectory() as copy:
    pathlib.Path(copy, "sentencepiece.bpe.model").write_bytes((folder / "tokenizer.model").read_bytes())
    by_transformers("xlm_roberta", tf.XLMRobertaTokenizer.from_pretrained(copy))

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.train_from_iterator([t for t in TEXTS if t] * 3, trainers.BpeTrainer(vocab_size=350, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[], show_progress=False))
model = json.loads(tokenizer.to_str())["model"]
merges = "#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in model["merges"])
special = {"350": "<|endoftext|>", "351": "<|im_start|>", "352": "<|im_end|>"}
added = {i: {"content": t, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True} for i, t in special.items()}
folder = write("qwen2", {"vocab.json": model["vocab"], "merges.txt": merges, "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False, "eos_token": "<|im_end|>", "bos_token": None, "added_tokens_decoder": added}})
by_transformers("qwen2", tf.Qwen2Tokenizer.from_pretrained(folder))
vocab = {**model["vocab"], "<|endoftext|>": 350}
folder = write("gpt2", {"vocab.json": vocab, "merges.txt": merges, "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": True, "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}})
by_transformers("gpt2", tf.GPT2Tokenizer.from_pretrained(folder), decode=False)
vocab = {**model["vocab"], **{t: 350 + i for i, t in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])}}
folder = write("roberta", {"vocab.json": vocab, "merges.txt": merges, "tokenizer_config.json": {"tokenizer_class": "RobertaTokenizer"}})
by_transformers("roberta", tf.RobertaTokenizer.from_pretrained(folder))

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
for name, options in [("bert", {}), ("bert_cased", {"do_lower_case": False, "tokenize_chinese_chars": False}), ("bert_accents", {"do_lower_case": True, "strip_accents": False})]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=options.get("do_lower_case", True), strip_accents=options.get("strip_accents"), handle_chinese_chars=options.get("tokenize_chinese_chars", True))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator([t for t in TEXTS if t] * 3, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, limit_alphabet=90, show_progress=False))
    vocab = sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)
    folder = write(name, {"vocab.txt": "".join(t + "\n" for t in vocab), "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", **options}})
    by_transformers(name, tf.BertTokenizer.from_pretrained(folder))

with open(HERE / "folders.jsonl", "w") as file:
    for case in CASES:
        file.write(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")
