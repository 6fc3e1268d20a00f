"""Writes the tokenizer fixtures: small trained tokenizers and what the real libraries do with them.

    python -m venv v && v/bin/pip install tokenizers sentencepiece gguf numpy
    v/bin/python make_tokenizers.py

Written once; the tests only read the result. The training text is the list below, our own.
"""

import io
import json
import pathlib
import random
import sys

import gguf
import sentencepiece
import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
random.seed(7)

ODD = [
    "", " ", "  ", "a", " a", "a ", "  a  b  ", "\n", "\n\n\n", " \n \n", "\t\tx", "\r\n", "a\r\nb\rc",
    "Hello, world!", "It's they'll WE'VE I'm don't DON'T", "foo_bar.baz(1,2);", "x=1;y=22;z=333;1234567890",
    "3.14159 1,000,000 ½ ²", "Größe Straße ÄÖÜ ñandú façade", "naïve café e\u0301 e\u0301\u0301 a\u0308",
    "日本語のテキスト。", "我们喜欢中文，真的！", "한국어 텍스트", "ру́сский текст", "עברית עִברית", "العربية", "हिन्दी में",
    "ไทย", "😀", "👨‍👩‍👧‍👦 family", "🇩🇪🇫🇷", "👍🏽!", "a😀b", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "\u200b\u200d\ufeff", "\u00a0\u2003x\u3000y",
    "<|im_start|>user\nhi<|im_end|>", "<|im_start|> <|im_end|>x<|im_end|>", "<tool_call>{\"a\": 1}</tool_call>",
    "<think>\n\n</think>", "<s>a</s>", "</s></s> x", "<0x41> <0xE2>", "▁a▁▁b", "[INST] x [/INST]",
    "if (a &&  b) {\n    return \"x\\n\";\n}\n", "a" * 100, " " * 70, "\n" * 40, "é" * 33, "ab" * 50,
    "http://example.org/a?b=c&d=%20#e", "UPPER lower MiXeD CamelCaseWord", "…—–“”‘’", "\x00\x01\x7f", "\ud7ff\ue000\uffff\U0010ffff",
    "the quick brown fox jumps over the lazy dog", "The weather in Helsinki is 12 degrees and it rains .", "why ? no ! a , b do n't 's 've",
]


def save(name, value):
    with open(HERE / name, "w") as file:
        json.dump(value, file, ensure_ascii=False, separators=(",", ":"))


def gguf_fixture():
    """The vocabulary of the reference GGUF file, as its header holds it."""
    reader = gguf.GGUFReader(sys.argv[1])  # gguf_llama/llama-q8_0.gguf of the reference fixtures
    names = {
        "model": "model", "pre": "pre", "tokens": "tokens", "scores": "scores", "token_type": "types", "merges": "merges",
        "bos_token_id": "bos", "eos_token_id": "eos", "unknown_token_id": "unk", "padding_token_id": "pad",
        "add_bos_token": "add_bos", "add_eos_token": "add_eos", "add_space_prefix": "add_space_prefix",
    }
    out = {}
    for field in reader.fields.values():
        if field.name.startswith("tokenizer.ggml.") and field.name[15:] in names:
            out[names[field.name[15:]]] = field.contents()
        if field.name == "tokenizer.chat_template":
            out["chat_template"] = field.contents()
    save("gguf_vocab.json", out)


def sentencepiece_fixture():
    """A SentencePiece BPE model with byte fallback, as converters put it into a GGUF header."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([t.replace("\n", " ").replace("\x00", "") for t in ODD * 3]),
        model_writer=model, model_type="bpe", vocab_size=700, byte_fallback=True, character_coverage=0.98,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True,
        max_sentencepiece_length=16, user_defined_symbols=["<|im_start|>", "<|im_end|>"], allow_whitespace_only_pieces=True,
        split_digits=True, minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    size = processor.vocab_size()

    def kind(i):
        if processor.is_unknown(i):
            return 2
        if processor.is_control(i):
            return 3
        if processor.is_byte(i):
            return 6
        return 4 if processor.id_to_piece(i) in ("<|im_start|>", "<|im_end|>") else 1

    vocab = {
        "model": "llama", "pre": "default", "tokens": [processor.id_to_piece(i) for i in range(size)],
        "scores": [processor.get_score(i) for i in range(size)], "types": [kind(i) for i in range(size)],
        "bos": processor.bos_id(), "eos": processor.eos_id(), "unk": processor.unk_id(), "add_bos": True,
    }
    texts = [t for t in ODD if not any(s in t for s in ("<s>", "</s>", "<|im_"))]
    texts = [t for t in texts if "\x00" not in t]
    cases = [{"text": t, "ids": processor.encode(t), "decoded": processor.decode(processor.encode(t))} for t in texts]
    save("sentencepiece.json", {"vocab": vocab, "cases": cases})


def train(name, tokenizer, trainer, add):
    texts = [t for t in ODD if t]
    tokenizer.train_from_iterator(texts * 3, trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(add)
    return name, tokenizer


def decoder_fixtures():
    """One tokenizer for each way of decoding; texts of encodings and of random ids."""
    special = ["<unk>", "<s>", "</s>"]
    made = []
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.append(train("byte_level", t, trainers.BpeTrainer(vocab_size=350, initial_alphabet=alphabet, show_progress=False), ["<think>", "für"]))

    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)]
    made.append(train("llama2", t, trainers.BpeTrainer(vocab_size=520, special_tokens=special + byte_tokens, limit_alphabet=60, max_token_length=12, show_progress=False), ["<think>"]))

    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    made.append(train("metaspace", t, trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False), ["<think>"]))

    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.NFKC()
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    t.decoder = decoders.Metaspace(prepend_scheme="first")
    made.append(train("unigram", t, trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False), []))

    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece(cleanup=True)
    made.append(train("wordpiece", t, trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False), []))
    clean = Tokenizer.from_str(t.to_str())
    clean.decoder = decoders.WordPiece(cleanup=False)
    made.append(("wordpiece_cleanup", clean))

    (HERE / "tokenizers").mkdir(exist_ok=True)
    cases = []
    for name, tokenizer in made:
        parsed = json.loads(tokenizer.to_str())
        save(f"tokenizers/{name}.json", parsed)
        size = tokenizer.get_vocab_size()
        lists = [tokenizer.encode(text, add_special_tokens=False).ids for text in ODD]
        lists += [[random.randrange(size) for _ in range(random.randrange(1, 12))] for _ in range(60)]
        for ids in lists:
            for skip in (False, True):
                text = tokenizer.decode(ids, skip_special_tokens=skip)
                if name == "wordpiece_cleanup":
                    for a, b in [(" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")]:
                        text = text.replace(a, b)
                # Bytes that are not UTF-8 are counted differently there: see decode.rs.
                if "\ufffd" not in text:
                    cases.append({"tokenizer": name, "ids": ids, "skip": skip, "text": text})
        for text in ODD:
            cases.append({"tokenizer": name, "encode": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids})
    with open(HERE / "decodings.jsonl", "w") as file:
        for case in cases:
            file.write(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")


save("odd.json", ODD)
gguf_fixture()
sentencepiece_fixture()
decoder_fixtures()
