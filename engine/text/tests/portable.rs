//! A text model that went over a wire cuts, decodes and renders as the one that it came from.

mod common;

use std::collections::HashMap;

use common::{data, folder, ids, lines};
use serde_json::{Value, json};
use text::{ChatInput, GgufVocab, TextFiles, TextModel};

fn carried(model: &TextModel) -> TextModel {
    let bytes = model.to_portable().expect("it can be written");
    let there = TextModel::from_portable(&bytes).expect("what was written can be read");
    assert_eq!(there.to_portable().expect("again"), bytes, "a second trip changes nothing");
    there
}

/// Everything that is asked of a vocabulary without a text.
fn same_tokens(here: &TextModel, there: &TextModel) {
    assert_eq!(here.vocab_size(), there.vocab_size());
    assert_eq!((here.bos(), here.eos()), (there.bos(), there.eos()));
    for id in 0..u32::try_from(here.vocab_size()).expect("small") + 2 {
        assert_eq!(here.token_bytes(id), there.token_bytes(id), "{id}");
        assert_eq!(here.is_special(id), there.is_special(id), "{id}");
    }
}

#[test]
fn folders_of_every_form_cut_as_before() {
    let mut models: HashMap<String, (TextModel, TextModel)> = HashMap::new();
    for case in lines(&data("folders.jsonl")) {
        let name = case["folder"].as_str().expect("a folder");
        let (here, there) = models.entry(name.to_owned()).or_insert_with(|| {
            let here = folder(name);
            let there = carried(&here);
            same_tokens(&here, &there);
            (here, there)
        });
        if let Some(text) = case["text"].as_str() {
            for special in [false, true] {
                let tokens = here.encode(text, special).expect("text");
                assert_eq!(there.encode(text, special).expect("text"), tokens, "{name} {text:?}");
                assert_eq!(there.decode(&tokens, special), here.decode(&tokens, special));
            }
        }
    }
    assert!(models.len() > 5);
}

#[test]
fn every_kind_of_decoder_decodes_as_before() {
    let mut models: HashMap<String, TextModel> = HashMap::new();
    for case in lines(&data("decodings.jsonl")) {
        let name = case["tokenizer"].as_str().expect("a name");
        let there = models.entry(name.to_owned()).or_insert_with(|| {
            let json = data(&format!("tokenizers/{name}.json"));
            // As in the goldens' own test.
            let clean = json!({"clean_up_tokenization_spaces": true}).to_string();
            let wish = matches!(name, "wordpiece_cleanup" | "byte_level" | "llama2");
            let files = TextFiles {
                tokenizer_json: &json,
                tokenizer_config: wish.then_some(clean.as_bytes()),
                ..TextFiles::default()
            };
            let here = TextModel::from_bytes(files).expect("a tokenizer");
            let there = carried(&here);
            same_tokens(&here, &there);
            there
        });
        if case["encode"].is_null() {
            let text = there.decode(&ids(&case["ids"]), case["skip"] == true);
            assert_eq!(text, case["text"].as_str().expect("text"), "{name}");
        }
    }
    assert!(models.len() > 3);
}

#[test]
fn a_gguf_vocabulary_and_templates_travel() {
    let fixture: Value = serde_json::from_slice(&data("gguf_vocab.json")).expect("JSON");
    let vocab = fixture.get("vocab").unwrap_or(&fixture).clone();
    let mut vocab: GgufVocab = serde_json::from_value(vocab).expect("a vocabulary");
    // Two ids of one spelling: the library keeps one of them.
    let twin = vocab.tokens[5].clone();
    let last = vocab.tokens.len() - 1;
    vocab.tokens[last] = twin;
    vocab.chat_template = Some("{{ bos_token }}{{ messages[0].content }}!".to_owned());
    let here = TextModel::from_gguf(vocab).expect("a model");
    let there = carried(&here);
    same_tokens(&here, &there);
    let chat = ChatInput {
        messages: vec![json!({"role": "user", "content": "so"})],
        ..ChatInput::default()
    };
    assert_eq!(there.render_chat(&chat).expect("text"), here.render_chat(&chat).expect("text"));
    assert_eq!(there.template_sources(), here.template_sources());
}

#[test]
fn other_bytes_are_refused() {
    let bytes = folder("gpt2").to_portable().expect("bytes");
    assert!(TextModel::from_portable(&bytes[..bytes.len() / 2]).is_err());
    assert!(TextModel::from_portable(b"{}").is_err());
    let mut other: Value = serde_json::from_slice(&bytes).expect("JSON");
    other["respelled"] = json!([[4_000_000_000_u32, "far"]]);
    let far = TextModel::from_portable(other.to_string().as_bytes()).expect_err("too far");
    assert!(far.to_string().contains("4000000000"), "{far}");
    other["more"] = json!(1);
    assert!(TextModel::from_portable(other.to_string().as_bytes()).is_err());
}
