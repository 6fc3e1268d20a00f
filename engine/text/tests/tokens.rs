//! Text to tokens and back, against stored results of the libraries that define them.

mod common;

use std::fs;
use std::path::Path;

use common::{data, demo, lines, root};
use hearth_tests::fixtures;
use serde_json::Value;
use text::{ChatInput, GgufVocab, TextError, TextFiles, TextModel};

fn ids(json: &Value) -> Vec<u32> {
    json.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn file(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn odd() -> Vec<String> {
    serde_json::from_slice(&data("odd.json")).unwrap()
}

fn tokenizer(name: &str) -> TextModel {
    let tokenizer_json = data(&format!("tokenizers/{name}.json"));
    // A BPE model ignores the wish; the WordPiece model of that name follows it.
    let config = br#"{"clean_up_tokenization_spaces": true}"#;
    let wish = matches!(name, "wordpiece_cleanup" | "byte_level" | "llama2");
    let files = TextFiles {
        tokenizer_json: &tokenizer_json,
        tokenizer_config: wish.then_some(config),
        ..TextFiles::default()
    };
    TextModel::from_bytes(files).unwrap()
}

/// The lines of a file of the repository's test data.
fn packed_lines(name: &str) -> Vec<Value> {
    let content = fixtures::packed(&root().join("tests/data").join(name)).unwrap();
    lines(&content)
}

#[test]
fn demo_prompts_have_their_reference_ids() {
    let model = demo();
    let references = packed_lines("reference.jsonl");
    assert_eq!(references.len(), 40);
    for reference in references {
        let prompt = reference["prompt"].as_str().unwrap();
        let expect = ids(&reference["prompt_ids"]);
        assert_eq!(model.encode(prompt, false).unwrap(), expect);
        assert_eq!(model.decode(&expect, false), prompt);
    }
}

#[test]
fn demo_conversations_render_as_the_reference_prompts() {
    let model = demo();
    let eval = packed_lines("eval.jsonl");
    for reference in packed_lines("reference.jsonl") {
        let item = eval.iter().find(|item| item["id"] == reference["id"]).expect("in eval.jsonl");
        let chat = ChatInput {
            messages: item["messages"].as_array().unwrap().clone(),
            tools: item["tools"].as_array().cloned(),
            add_generation_prompt: true,
            ..ChatInput::default()
        };
        assert_eq!(model.render_chat(&chat).unwrap(), reference["prompt"].as_str().unwrap());
    }
}

#[test]
fn demo_special_tokens() {
    let model = demo();
    assert_eq!((model.bos(), model.eos()), (Some(2032), Some(2035)));
    assert_eq!(model.vocab_size(), 2048);
    assert!(model.has_chat_template() && model.chat_template_error().is_none());
    let text = "<|im_start|>hi<think>x</think><|im_end|>";
    let ids = model.encode(text, false).unwrap();
    assert_eq!(model.encode(text, true).unwrap(), [&[2032], ids.as_slice()].concat());
    assert_eq!(model.decode(&ids, true), "hi<think>x</think>");
    assert_eq!(model.decode(&ids, false), text);
    assert_eq!(model.token_text(2035), "<|im_end|>");
    assert_eq!(model.token_bytes(2035), b"<|im_end|>");
    assert_eq!(model.token_id("<think>"), Some(2037));
    assert!(model.is_special(2035) && !model.is_special(2037) && !model.is_special(5));
    assert!(model.token_bytes(2048).is_empty() && model.token_bytes(u32::MAX).is_empty());
    assert_eq!(model.decode(&[u32::MAX, 2048], false), "");
}

#[test]
fn reference_models_have_their_ids() {
    let mut prompts = 0;
    for dir in fs::read_dir(fixtures::references()).unwrap().flatten() {
        let reference = dir.path().join("reference.json");
        if !reference.exists() || !dir.path().join("tokenizer.json").exists() {
            continue;
        }
        let model = TextModel::from_dir(&dir.path()).unwrap();
        let reference: Value = serde_json::from_slice(&file(&reference)).unwrap();
        for prompt in reference["prompts"].as_array().into_iter().flatten() {
            let text = prompt["text"].as_str().unwrap();
            assert_eq!(model.encode(text, false).unwrap(), ids(&prompt["input_ids"]));
            prompts += 1;
        }
    }
    assert!(prompts >= 28, "{prompts} prompts");
}

#[test]
fn gguf_vocabulary_equals_its_tokenizer_json() {
    let vocab: GgufVocab = serde_json::from_slice(&data("gguf_vocab.json")).unwrap();
    let ours = TextModel::from_gguf(vocab).unwrap();
    let path = fixtures::reference("gguf_llama/tokenizer.json");
    let tokenizer_json = file(&path);
    let files = TextFiles { tokenizer_json: &tokenizer_json, ..TextFiles::default() };
    let theirs = TextModel::from_bytes(files).unwrap();
    assert_eq!(ours.vocab_size(), theirs.vocab_size());
    assert!(ours.has_chat_template());
    assert_eq!((ours.bos(), ours.eos()), (Some(369), Some(370)));
    for text in odd() {
        for special in [false, true] {
            let expect = theirs.encode(&text, special).unwrap();
            assert_eq!(ours.encode(&text, special).unwrap(), expect, "{text:?}");
            for skip in [false, true] {
                assert_eq!(ours.decode(&expect, skip), theirs.decode(&expect, skip), "{text:?}");
            }
        }
    }
    for id in 0..384 {
        assert_eq!(ours.token_bytes(id), theirs.token_bytes(id));
        assert_eq!(ours.is_special(id), theirs.is_special(id), "{id}");
    }
}

#[test]
fn gguf_sentencepiece_equals_sentencepiece() {
    let fixture: Value = serde_json::from_slice(&data("sentencepiece.json")).unwrap();
    let vocab: GgufVocab = serde_json::from_value(fixture["vocab"].clone()).unwrap();
    let bos = vocab.bos.unwrap();
    let model = TextModel::from_gguf(vocab.clone()).unwrap();
    for case in fixture["cases"].as_array().unwrap() {
        let (text, expect) = (case["text"].as_str().unwrap(), ids(&case["ids"]));
        assert_eq!(model.encode(text, false).unwrap(), expect, "{text:?}");
        assert_eq!(model.decode(&expect, false), case["decoded"].as_str().unwrap(), "{text:?}");
        assert_eq!(model.encode(text, true).unwrap()[0], bos);
    }
    // Added tokens are found in the text, and what follows one begins like a text of its own.
    let id = |token: &str| model.token_id(token).unwrap();
    let marked = model.encode("<|im_start|>a<|im_end|>", false).unwrap();
    let letter = model.encode("a", false).unwrap();
    let expect = [&[id("<|im_start|>")], letter.as_slice(), &[id("<|im_end|>")]].concat();
    assert_eq!(marked, expect);
    assert_eq!(model.token_bytes(id("<0xE2>")), [0xe2]);
    let plain = TextModel::from_gguf(GgufVocab { add_space_prefix: Some(false), ..vocab }).unwrap();
    assert_eq!(plain.decode(&plain.encode(" a b", false).unwrap(), false), " a b");
    assert_ne!(plain.encode("a", false).unwrap(), letter);
}

#[test]
fn every_kind_of_decoder_equals_the_tokenizers_library() {
    let cases = lines(&data("decodings.jsonl"));
    assert!(cases.len() > 1000);
    let mut model: Option<(String, TextModel)> = None;
    for case in cases {
        let name = case["tokenizer"].as_str().unwrap();
        if model.as_ref().is_none_or(|(loaded, _)| loaded != name) {
            model = Some((name.to_owned(), tokenizer(name)));
        }
        let (_, model) = model.as_ref().unwrap();
        let ids = ids(&case["ids"]);
        if let Some(text) = case["encode"].as_str() {
            assert_eq!(model.encode(text, false).unwrap(), ids, "{name} {text:?}");
        } else {
            let text = model.decode(&ids, case["skip"] == true);
            assert_eq!(text, case["text"].as_str().unwrap(), "{name} {ids:?}");
        }
    }
}

#[test]
fn limits_of_training_are_not_limits_of_serving() {
    let mut json: Value = serde_json::from_slice(&data("tokenizers/byte_level.json")).unwrap();
    json["truncation"] = serde_json::json!(
        {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = serde_json::json!({"strategy": {"Fixed": 9}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
    let bytes = json.to_string().into_bytes();
    let files = TextFiles { tokenizer_json: &bytes, ..TextFiles::default() };
    let model = TextModel::from_bytes(files).unwrap();
    let text = "xyz ".repeat(50);
    let expect = tokenizer("byte_level").encode(&text, false).unwrap();
    assert_eq!(model.encode(&text, false).unwrap(), expect);
    assert_eq!(model.encode("x", false).unwrap().len(), 1);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let check = |vocab: GgufVocab, expect: &str| {
        let error = TextModel::from_gguf(vocab).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    let vocab = GgufVocab {
        model: "gpt2".into(),
        tokens: vec!["a".into(), "b".into()],
        merges: Some(Vec::new()),
        ..GgufVocab::default()
    };
    assert!(TextModel::from_gguf(vocab.clone()).is_ok());
    let with = |change: fn(&mut GgufVocab)| {
        let mut changed = vocab.clone();
        change(&mut changed);
        changed
    };
    check(
        with(|v| v.model = "rwkv".into()),
        "\"rwkv\" is not supported; supported: gpt2, llama, t5, bert",
    );
    check(with(|v| v.pre = Some("afmoe".into())), "\"afmoe\" is not supported; supported: default");
    check(with(|v| v.merges = None), "needs tokenizer.ggml.merges");
    check(with(|v| v.merges = Some(vec!["a c".into()])), "`c` out of vocabulary");
    check(with(|v| v.tokens.clear()), "no tokens");
    check(with(|v| v.bos = Some(2)), "bos token 2 is outside the 2 tokens");
    check(with(|v| v.types = Some(vec![1])), "1 token types, 2 tokens");
    check(with(|v| v.model = "llama".into()), "needs tokenizer.ggml.scores");
    // Two ids of one spelling occur in padded vocabularies; both keep their text.
    let twice = TextModel::from_gguf(with(|v| v.tokens.push("a".into()))).unwrap();
    assert_eq!((twice.vocab_size(), twice.decode(&[0, 1, 2], false).as_str()), (3, "aba"));
}

#[test]
fn a_missing_or_broken_file_is_named() {
    let missing = TextModel::from_dir(Path::new("/nowhere")).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "/nowhere/tokenizer.json: not found, and no tokenizer.model, vocab.json with merges.txt, \
         or vocab.txt instead"
    );
    let tokenizer_json = data("tokenizers/byte_level.json");
    let check = |config: Option<&[u8]>, map: Option<&[u8]>, expect: &str| {
        let files = TextFiles {
            tokenizer_json: &tokenizer_json,
            tokenizer_config: config,
            special_tokens_map: map,
            ..TextFiles::default()
        };
        let error = TextModel::from_bytes(files).unwrap_err();
        assert!(matches!(error, TextError::Invalid { .. }));
        assert!(error.to_string().starts_with(expect), "{error}");
    };
    check(Some(b"[]"), None, "tokenizer_config.json: invalid type");
    check(
        Some(br#"{"chat_template": 3}"#),
        None,
        "tokenizer_config.json: chat_template is neither",
    );
    check(None, Some(b"{"), "special_tokens_map.json: EOF");
    let error = TextModel::from_bytes(TextFiles::default()).unwrap_err();
    assert!(error.to_string().starts_with("tokenizer.json: EOF"));
}

#[test]
fn templates_by_name_and_by_file() {
    let config = br#"{"chat_template": [
        {"name": "default", "template": "D{{ bos_token }}"},
        {"name": "tool_use", "template": "T"},
        {"name": "broken", "template": "{% if %}"}
    ], "bos_token": "<|im_start|>"}"#;
    let tokenizer_json = data("tokenizers/byte_level.json");
    let files = TextFiles {
        tokenizer_json: &tokenizer_json,
        tokenizer_config: Some(config),
        ..TextFiles::default()
    };
    let mut model = TextModel::from_bytes(files).unwrap();
    let chat = |name: Option<&str>, tools: bool| ChatInput {
        chat_template: name.map(str::to_owned),
        tools: tools.then(Vec::new),
        ..ChatInput::default()
    };
    assert_eq!(model.render_chat(&chat(None, false)).unwrap(), "D<|im_start|>");
    assert_eq!(model.render_chat(&chat(None, true)).unwrap(), "T");
    assert_eq!(model.render_chat(&chat(Some("default"), true)).unwrap(), "D<|im_start|>");
    let error = model.chat_template_error().unwrap().to_string();
    assert!(error.contains("tokenizer_config.json: syntax error"), "{error}");
    assert!(model.render_chat(&chat(Some("broken"), false)).is_err());
    let error = model.render_chat(&chat(Some("none"), false)).unwrap_err().to_string();
    assert!(error.contains("default, tool_use, broken"), "{error}");
    let error = model.render_chat(&chat(Some("{{ 1 }}"), false)).unwrap_err().to_string();
    assert!(error.contains("not bring the source"), "{error}");
    assert!(model.set_chat_template("{% if %}").is_err());
    assert_eq!(model.render_chat(&chat(None, true)).unwrap(), "T");
    model.set_chat_template("new {{ bos_token }}").unwrap();
    assert_eq!(model.render_chat(&chat(None, true)).unwrap(), "new <|im_start|>");
}
