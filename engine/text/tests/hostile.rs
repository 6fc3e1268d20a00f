//! Broken and hostile files and templates end in an error: no panic, no endless work.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{TINY, data, root, with_template};
use serde_json::{Value, json};
use text::{ChatInput, GgufVocab, TemplateError, TextFiles, TextModel};

/// A small generator (splitmix64), so that a failing seed fails again.
struct Seed(u64);

impl Seed {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }
}

/// Changes bytes: flips, removes, doubles, or puts in what parsers stumble over.
fn mutate_bytes(seed: &mut Seed, bytes: &[u8]) -> Vec<u8> {
    const PIECES: [&[u8]; 14] = [
        b"{{",
        b"}}",
        b"{%",
        b"%}",
        b"\"",
        b"\\u",
        b"[",
        b"{",
        b"-1",
        b"4294967296",
        b"null",
        b"\xff",
        b"' * 99999 ~ '",
        b"(",
    ];
    let mut out = bytes.to_vec();
    for _ in 0..=seed.next(3) {
        let at = seed.next(out.len());
        let length = seed.next(20).min(out.len().saturating_sub(at));
        match seed.next(4) {
            0 if at < out.len() => out[at] ^= 1 << seed.next(8),
            1 => drop(out.drain(at..at + length)),
            2 => {
                let copy = out[at..at + length].to_vec();
                out.splice(at..at, copy);
            }
            _ => drop(out.splice(at..at, PIECES[seed.next(PIECES.len())].iter().copied())),
        }
    }
    out
}

/// Changes one place of a JSON document and leaves it JSON, so that the change gets past the
/// parser.
fn mutate_json(seed: &mut Seed, json: &mut Value) {
    let values = [
        json!(null),
        json!(-1),
        json!(0),
        json!(4_294_967_295_u32),
        json!(1e300),
        json!(""),
        json!("▁"),
        json!("(?!"),
        json!("\u{0}\u{10ffff}"),
        json!([]),
        json!({}),
        json!(true),
        json!("BPE"),
        json!("Sequence"),
        json!("ByteLevel"),
        json!("WordPiece"),
        json!("Unigram"),
        json!({"type": "Strip", "content": " ", "start": 9, "stop": 9}),
        json!({"type": "FixedLength", "length": 0}),
        json!({"type": "Replace", "pattern": {"Regex": "(a*)*"}, "content": "aaaa"}),
        json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    ];
    let mut place = json;
    for depth in 0..8 {
        let size = match &*place {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        };
        if size == 0 || (depth > 0 && seed.next(4) == 0) {
            break;
        }
        let at = seed.next(size);
        place = match place {
            Value::Array(list) => &mut list[at],
            Value::Object(map) => map.values_mut().nth(at).expect("within its size"),
            other => other,
        };
    }
    *place = values[seed.next(values.len())].clone();
}

/// Loads and, if that works, uses the model. Nothing is expected but an answer in time.
fn exercise(files: TextFiles<'_>) -> bool {
    let start = Instant::now();
    let Ok(model) = TextModel::from_bytes(files) else { return false };
    let model = Arc::new(model);
    for text in ["", "Hello wörld 123\n <|im_start|> \u{10ffff}😀", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
    {
        if let Ok(ids) = model.encode(text, true) {
            let mut detokenizer = model.detokenizer(&ids, true);
            detokenizer.push(ids.first().copied().unwrap_or(0));
            model.decode(&ids, false);
        }
    }
    let messages = vec![json!({"role": "user", "content": "hi"})];
    let _ = model.render_chat(&ChatInput { messages, ..ChatInput::default() });
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    true
}

/// Panics inside the tokenizers library are expected here and caught; their messages would only
/// fill the log.
fn quietly(run: impl FnOnce()) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.location().is_some_and(|at| at.file().contains("engine/text")) {
            hook(info);
        }
    }));
    run();
}

#[test]
fn mutated_tokenizer_files() {
    let names = ["byte_level", "llama2", "metaspace", "unigram", "wordpiece"];
    let mut loaded = 0;
    quietly(|| {
        for round in 0..300 {
            let mut seed = Seed(round);
            let bytes = data(&format!("tokenizers/{}.json", names[round as usize % 5]));
            let mutated = if seed.next(3) == 0 {
                mutate_bytes(&mut seed, &bytes)
            } else {
                let mut json: Value = serde_json::from_slice(&bytes).unwrap();
                // The vocabulary is most of the file but not where the rules are.
                let parts = ["decoder", "normalizer", "pre_tokenizer", "model", "added_tokens"];
                let part = parts[seed.next(parts.len())];
                mutate_json(&mut seed, &mut json[part]);
                json.to_string().into_bytes()
            };
            loaded +=
                u32::from(exercise(TextFiles { tokenizer_json: &mutated, ..TextFiles::default() }));
        }
    });
    assert!(loaded > 20, "only {loaded} mutations went beyond the parser");
}

#[test]
fn mutated_configs_and_templates() {
    let config = std::fs::read(root().join("engine/models/demo/tokenizer_config.json")).unwrap();
    let tokenizer_json = data("tokenizers/byte_level.json");
    let templates = ["qwen3", "llama3", "harmony", "mistral"];
    for round in 0..300 {
        let mut seed = Seed(round);
        let mutated = mutate_bytes(&mut seed, &config);
        let name = templates[seed.next(4)];
        let template = data(&format!("templates/{name}.jinja"));
        let template = mutate_bytes(&mut seed, &template);
        let template = String::from_utf8_lossy(&template);
        exercise(TextFiles {
            tokenizer_json: &tokenizer_json,
            tokenizer_config: (round % 2 == 0).then_some(&mutated),
            special_tokens_map: (round % 3 == 0).then_some(&mutated),
            chat_template: (round % 2 == 1).then_some(&template),
            ..TextFiles::default()
        });
    }
}

/// Thousands of small changes to the older forms, each loaded and, if that works, used.
#[test]
fn mutated_folders() {
    let model = data("folders/spm_bpe/tokenizer.model");
    let unigram = data("folders/spm_unigram/tokenizer.model");
    let words = data("folders/bert/vocab.txt");
    let vocab = data("folders/qwen2/vocab.json");
    let merges = data("folders/qwen2/merges.txt");
    let config = data("folders/qwen2/tokenizer_config.json");
    let (start, mut loaded) = (Instant::now(), 0);
    quietly(|| {
        for round in 0..1800 {
            let mut seed = Seed(round);
            let which = round % 4;
            let source = [&unigram, &words, &vocab, &model][which as usize];
            let mutated = mutate_bytes(&mut seed, source);
            let other = mutate_bytes(&mut seed, if which == 2 { &merges } else { &config });
            let part = Some(mutated.as_slice());
            let files = match which {
                1 => TextFiles { vocab_txt: part, ..TextFiles::default() },
                2 => TextFiles {
                    vocab_json: if seed.next(2) == 0 { part } else { Some(&vocab) },
                    merges_txt: Some(&other),
                    tokenizer_config: Some(&config),
                    ..TextFiles::default()
                },
                _ => TextFiles { tokenizer_model: part, ..TextFiles::default() },
            };
            loaded += u32::from(exercise(files));
        }
    });
    assert!(loaded > 200, "only {loaded} mutations went beyond the parser");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn mutated_templates() {
    let names = ["qwen3coder", "mistral_tekken", "command7", "glm45", "deepseek31", "smollm3"];
    let sources = names.map(|name| data(&format!("templates/{name}.jinja")));
    let messages = vec![
        json!({"role": "user", "content": "hi"}),
        json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "abcdefgh1", "function": {"name": "f", "arguments": {"a": [1, "x"]}}}]}),
    ];
    let chat = ChatInput { messages, add_generation_prompt: true, ..ChatInput::default() };
    let mut rendered = 0;
    for round in 0..2000 {
        let mut seed = Seed(round);
        let source = mutate_bytes(&mut seed, &sources[round as usize % sources.len()]);
        let source = String::from_utf8_lossy(&source);
        if let Ok(model) = with_template(&source) {
            rendered += u32::from(model.render_chat(&chat).is_ok());
        }
    }
    assert!(rendered > 200, "only {rendered} mutations render");
}

/// What `--chat-template` shows to the operator: where in the file, and what.
#[test]
fn errors_in_templates_have_a_line() {
    for (source, line, what) in [
        ("a\n{% if x %}\nb", 3, "syntax error"),
        ("a\n\n{{ x | nope }}", 3, "nope"),
        ("{% for %}", 1, "syntax error"),
        ("{{ 'abc }}", 1, "syntax error"),
        ("x\n{% nothing %}", 2, "nothing"),
    ] {
        let compiled = with_template(source);
        let error = match compiled {
            Err(error) => error.to_string(),
            Ok(model) => model.render_chat(&ChatInput::default()).unwrap_err().to_string(),
        };
        assert!(error.contains(&format!(":{line})")), "{source:?}: {error}");
        assert!(error.contains(what), "{source:?}: {error}");
    }
}

#[test]
fn mutated_gguf_vocabularies() {
    let good: [Value; 3] = [
        serde_json::from_slice(&data("gguf_t5.json")).unwrap(),
        serde_json::from_slice(&data("gguf_vocab.json")).unwrap(),
        serde_json::from_slice::<Value>(&data("sentencepiece.json")).unwrap()["vocab"].clone(),
    ];
    for round in 0..150 {
        let mut seed = Seed(round);
        let mut json = good[round as usize % 3].clone();
        mutate_json(&mut seed, &mut json);
        if let Ok(vocab) = serde_json::from_value::<GgufVocab>(json)
            && let Ok(model) = TextModel::from_gguf(vocab)
        {
            let ids = model.encode("Hello wörld <|im_start|>", true).unwrap_or_default();
            model.decode(&ids, true);
        }
    }
}

#[test]
fn an_id_far_away_makes_no_table() {
    let json = TINY.replace("\"a\": 2", "\"a\": 4294967295");
    let files = TextFiles { tokenizer_json: json.as_bytes(), ..TextFiles::default() };
    let error = TextModel::from_bytes(files).unwrap_err().to_string();
    assert!(error.contains("token id 4294967295 for a vocabulary of 3"), "{error}");
}

#[test]
fn a_decoder_that_cannot_stream_is_refused() {
    for (decoder, reason) in [
        (
            json!({"type": "CTC", "pad_token": "", "word_delimiter_token": "|", "cleanup": true}),
            "decoder CTC is not supported",
        ),
        (
            json!({"type": "Sequence", "decoders": [{"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 0, "stop": 1}]}),
            "decoder Strip",
        ),
        (json!({"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"}), "decoder Replace"),
    ] {
        let mut json: Value = serde_json::from_str(TINY).unwrap();
        json["decoder"] = decoder;
        let bytes = json.to_string().into_bytes();
        let files = TextFiles { tokenizer_json: &bytes, ..TextFiles::default() };
        let error = TextModel::from_bytes(files).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

fn render(template: &str, chat: &ChatInput) -> Result<String, TemplateError> {
    with_template(template).expect("the template compiles").render_chat(chat)
}

#[test]
fn templates_that_do_not_end_are_ended() {
    let start = Instant::now();
    for template in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}\
         {% for b in range(99999) %}{{ 'text' * 999 }}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(x) %}{% for i in x %}{% if true %}{{ f(x) }}{% endif %}{% endfor %}\
         {% endmacro %}{{ f([1]) }}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% include 'default' %}",
    ] {
        let error = render(template, &ChatInput::default()).unwrap_err();
        assert!(matches!(error, TemplateError::Exhausted(_)), "{template}: {error:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn errors_say_whose_they_are() {
    let raised = render("a{{ raise_exception('only ' ~ 1) }}", &ChatInput::default());
    assert_eq!(raised, Err(TemplateError::Raised("only 1".into())));
    // Also from inside a macro and a call block.
    let nested = "{% macro f() %}{{ caller() }}{% endmacro %}\
        {% call f() %}{{ raise_exception('deep') }}{% endcall %}";
    assert_eq!(render(nested, &ChatInput::default()), Err(TemplateError::Raised("deep".into())));
    let bug = render("\n\n{{ messages.x.y }}", &ChatInput::default());
    assert!(matches!(&bug, Err(TemplateError::Invalid(text)) if text.contains(":3)")), "{bug:?}");
    let messages = vec![json!("hi")];
    let input = render("x", &ChatInput { messages, ..ChatInput::default() });
    assert_eq!(input, Err(TemplateError::Input("messages[0] is not an object".into())));
    let model = TextModel::from_bytes(TextFiles {
        tokenizer_json: TINY.as_bytes(),
        ..TextFiles::default()
    });
    let missing = model.unwrap().render_chat(&ChatInput::default());
    let expect = TemplateError::Missing("this model has no chat template".into());
    assert_eq!(missing, Err(expect));
    let both = ChatInput {
        messages: vec![json!({"role": "assistant", "content": "x"})],
        add_generation_prompt: true,
        continue_final_message: true,
        ..ChatInput::default()
    };
    assert!(matches!(render("x", &both), Err(TemplateError::Input(_))));
}

#[test]
fn long_runs_of_one_character_encode_in_time() {
    let model = common::demo();
    let start = Instant::now();
    for text in [" ".repeat(100_000), "\n".repeat(100_000), "a".repeat(100_000), "é".repeat(50_000)]
    {
        let ids = model.encode(&text, false).unwrap();
        assert_eq!(model.decode(&ids, false), text);
    }
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}
