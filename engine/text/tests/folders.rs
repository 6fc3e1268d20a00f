//! Folders without tokenizer.json, against the libraries that define them.

mod common;

use std::collections::HashMap;

use common::{data, folder, ids, lines};
use serde_json::{Value, json};
use text::{GgufVocab, TextFiles, TextModel};

/// Says how ours differs, if it does.
fn difference(model: &TextModel, case: &Value) -> Option<String> {
    let expect = ids(&case["ids"]);
    let limit = case["limit"].as_u64().map(|limit| limit as usize);
    let (found, types) = match (case["a"].as_str().zip(case["b"].as_str()), limit) {
        (Some((a, b)), None) => model.encode_pair(a, b).unwrap(),
        (Some((a, b)), Some(limit)) => {
            model.encode_pair_truncated(a, b, None, Some(limit)).unwrap()
        }
        (None, Some(limit)) => {
            model.encode_truncated(case["text"].as_str().unwrap(), limit).unwrap()
        }
        (None, None) => {
            let text = case["text"].as_str().unwrap();
            (model.encode(text, case["special"] == true).unwrap(), Vec::new())
        }
    };
    if found != expect {
        return Some(format!("{found:?} for {case}"));
    }
    if case["types"].is_array() && types != ids(&case["types"]) {
        return Some(format!("types {types:?} for {case}"));
    }
    let decoded = case["decoded"].as_str()?;
    let ours = model.decode(&found, true);
    (ours != decoded).then(|| format!("decodes as {ours:?}: {case}"))
}

#[test]
fn folders_cut_as_their_libraries_do() {
    let mut models = HashMap::new();
    let mut wrong = Vec::new();
    let cases = lines(&data("folders.jsonl"));
    assert!(cases.len() > 1000);
    for case in &cases {
        let name = case["folder"].as_str().unwrap();
        let model = models.entry(name).or_insert_with(|| folder(name));
        wrong.extend(difference(model, case));
    }
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Everything that `of` cuts in the goldens, cut by another model with the same ids.
fn same_cuts(ours: &TextModel, of: &str, special: bool) {
    let mut count = 0;
    for case in lines(&data("folders.jsonl")) {
        let wanted = case["folder"] == of && case["limit"].is_null();
        let Some(text) = case["text"].as_str().filter(|_| wanted && case["special"] == special)
        else {
            continue;
        };
        let expect = ids(&case["ids"]);
        assert_eq!(ours.encode(text, special).unwrap(), expect, "{text:?}");
        if let Some(decoded) = case["decoded"].as_str() {
            assert_eq!(ours.decode(&expect, true), decoded, "{text:?}");
        }
        count += 1;
    }
    assert!(count > 40, "{count} cases");
}

#[test]
fn gguf_unigram_equals_sentencepiece() {
    let vocab: GgufVocab = serde_json::from_slice(&data("gguf_t5.json")).unwrap();
    let model = TextModel::from_gguf(vocab.clone()).unwrap();
    same_cuts(&model, "spm_unigram", false);
    // What is out of use keeps its id and its text, and no text is cut into it.
    let unused = model.vocab_size() as u32 - 1;
    assert_eq!(model.token_bytes(unused), b"[PAD230]");
    assert!(!model.encode("[PAD230]", false).unwrap().contains(&unused));
    // The model of XLM-R: both ends, and two between two texts.
    let one = model.encode("a", false).unwrap();
    let expect = [&[1], one.as_slice(), &[2, 2], &one, &[2]].concat();
    let types = vec![0; expect.len()];
    assert_eq!(model.encode_pair("a", "a").unwrap(), (expect, types));
    // T5's own: no beginning.
    let t5 = GgufVocab { add_bos: None, add_eos: None, ..vocab };
    let t5 = TextModel::from_gguf(t5).unwrap();
    let expect = [one.as_slice(), &[2], &one, &[2]].concat();
    assert_eq!(t5.encode_pair("a", "a").unwrap().0, expect);
}

#[test]
fn gguf_word_piece_equals_bert() {
    let text = String::from_utf8(data("folders/bert/vocab.txt")).unwrap();
    let words: Vec<&str> = text.lines().collect();
    // As converters spell it: the first five are special.
    let spelled = |(id, word): (usize, &&str)| match word.strip_prefix("##") {
        _ if id < 5 => (*word).to_owned(),
        Some(rest) => rest.to_owned(),
        None => format!("\u{2581}{word}"),
    };
    let vocab = GgufVocab {
        model: "bert".into(),
        tokens: words.iter().enumerate().map(spelled).collect(),
        types: Some((0..words.len()).map(|id| if id < 5 { 3 } else { 1 }).collect()),
        unk: Some(1),
        bos: Some(2),
        sep: Some(3),
        ..GgufVocab::default()
    };
    let model = TextModel::from_gguf(vocab.clone()).unwrap();
    same_cuts(&model, "bert", true);
    let folder = folder("bert");
    let pair = ("the quick fox", "why not?");
    let expect = folder.encode_pair(pair.0, pair.1).unwrap();
    assert_eq!(model.encode_pair(pair.0, pair.1).unwrap(), expect);
    let (ids, types) = model.encode_pair_truncated(pair.0, pair.1, None, Some(6)).unwrap();
    assert_eq!((ids.len(), types), (6, vec![0, 0, 0, 0, 1, 1]));
    assert_eq!(model.encode_typed("x").unwrap().1, [0, 0, 0]);
    let cased = GgufVocab { lowercase: Some(false), ..vocab };
    let cased = TextModel::from_gguf(cased).unwrap();
    assert_ne!(cased.encode("THE", false).unwrap(), model.encode("THE", false).unwrap());
}

#[test]
fn the_configuration_says_what_stands_around_a_text() {
    let tokenizer_json = data("tokenizers/byte_level.json");
    let check = |config: Value, single: &[&str], pair: &[&str]| {
        let config = config.to_string().into_bytes();
        let files = TextFiles {
            tokenizer_json: &tokenizer_json,
            tokenizer_config: Some(&config),
            ..TextFiles::default()
        };
        let model = TextModel::from_bytes(files).unwrap();
        let names = |ids: &[u32]| ids.iter().map(|&id| model.token_text(id)).collect::<Vec<_>>();
        assert_eq!(names(&model.encode("a", true).unwrap()), single);
        assert_eq!(names(&model.encode_pair("a", "b").unwrap().0), pair);
        assert_eq!(model.encode("a", false).unwrap().len(), 1);
    };
    let (bos, eos) = ("<|im_start|>", "<|im_end|>");
    let with = |more: Value| {
        let mut config = json!({"bos_token": bos, "eos_token": eos});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    check(with(json!({})), &["a"], &["a", "b"]);
    check(with(json!({"add_bos_token": true})), &[bos, "a"], &[bos, "a", bos, "b"]);
    let both = with(json!({"add_bos_token": true, "add_eos_token": true}));
    check(both, &[bos, "a", eos], &[bos, "a", eos, bos, "b", eos]);
    check(with(json!({"add_eos_token": true})), &["a", eos], &["a", eos, "b", eos]);
    // Encoders have tokens of their own there.
    check(with(json!({"add_bos_token": true, "cls_token": bos})), &["a"], &["a", "b"]);
}

#[test]
fn truncation_spares_the_special_tokens() {
    let model = folder("bert");
    let (ids, _) = model.encode_truncated("the quick brown fox jumps", 4).unwrap();
    assert_eq!((ids.len(), ids[0], ids[3]), (4, 2, 3));
    assert_eq!(model.encode_truncated("the quick", 2).unwrap().0, [2, 3]);
    let error = model.encode_truncated("the quick", 1).unwrap_err().to_string();
    assert!(error.contains("2 special tokens do not fit into 1"), "{error}");
    assert_eq!(model.special_tokens_added(true), 3);
    assert!(model.encode_pair_truncated("a", "b", None, Some(2)).is_err());
    let whole = model.encode_pair("the fox", "why").unwrap();
    let bound = |b_tokens| model.encode_pair_truncated("the fox", "why", b_tokens, Some(1000));
    assert_eq!(bound(None).unwrap(), whole);
    assert_eq!(bound(Some(1000)).unwrap(), whole);
    // The second text alone loses its end; both keep what stands around them.
    let long = model.encode_pair_truncated("the fox", &"why ".repeat(50), Some(2), None).unwrap();
    assert_eq!(long, whole);
}

#[test]
fn what_a_folder_lacks_is_named() {
    let vocab = br#"{"a": 0, "b": 1}"#;
    let check = |files: TextFiles<'_>, expect: &str| {
        let error = TextModel::from_bytes(files).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    let bytes = |config: &'static [u8], vocab: &'static [u8], merges: &'static [u8]| TextFiles {
        vocab_json: Some(vocab),
        merges_txt: Some(merges),
        tokenizer_config: Some(config),
        ..TextFiles::default()
    };
    let gpt2 = br#"{"tokenizer_class": "GPT2TokenizerFast"}"#;
    assert!(TextModel::from_bytes(bytes(gpt2, vocab, b"")).is_ok());
    check(bytes(b"{}", vocab, b""), "names no tokenizer_class");
    check(bytes(br#"{"tokenizer_class": "CLIPTokenizer"}"#, vocab, b""), "CLIPTokenizer is not");
    check(bytes(gpt2, br#"{"a": 0, "b": 2}"#, b""), "\"b\" has the id 2 in a vocabulary of 2");
    check(bytes(gpt2, br#"{"a": 0, "b": 0}"#, b""), "have the id 0");
    check(bytes(gpt2, vocab, b"ab"), "merges.txt: line 1 is no pair");
    check(bytes(gpt2, vocab, b"a b"), "line 1 needs \"ab\", which is not in the vocabulary");
    let gap = br#"{"tokenizer_class": "GPT2Tokenizer",
        "added_tokens_decoder": {"4": {"content": "<x>"}}}"#;
    check(bytes(gap, vocab, b""), "the added token \"<x>\" has the id 4, where 2 comes next");
    let words = |config: &'static [u8], words: &'static [u8]| TextFiles {
        vocab_txt: Some(words),
        tokenizer_config: Some(config),
        ..TextFiles::default()
    };
    check(words(b"{}", b"[UNK]\n[SEP]\na"), "cls_token \"[CLS]\" is not in the vocabulary");
    check(words(br#"{"tokenizer_class": "MPNetTokenizer"}"#, b"a"), "MPNetTokenizer is not");
    check(words(br#"{"do_lower_case": 1}"#, b"a"), "do_lower_case is 1");
    let pieces = |config: &'static [u8], model: &'static [u8]| TextFiles {
        tokenizer_model: Some(model),
        tokenizer_config: Some(config),
        ..TextFiles::default()
    };
    check(pieces(b"{}", b"{"), "tokenizer.model: wire type");
    check(pieces(b"{}", b""), "tokenizer.model: no pieces");
    check(pieces(b"{}", b"\x12\x02\x18\x03"), "model type 3 is not supported");
    check(pieces(b"{}", b"\x0a\x00"), "piece 0 has no text");
    let shifted = br#"{"tokenizer_class": "MBartTokenizer"}"#;
    check(pieces(shifted, b"\x0a\x03\x0a\x01a"), "MBartTokenizer is not supported");
}
