//! Bodies and streams that were whole once and then changed, by seed: nothing panics, what is read
//! is written again as it was, and whoever looks only at a part leaves the rest alone.
//! `WIRE_FUZZ_ROUNDS` sets the number of rounds.

use serde_json::{Value, json};
use wire::glance::Most;
use wire::openai::{chat_to_json, completion_to_json, render_rerank};
use wire::responses::{Outline, references};
use wire::sse::Events;
use wire::{Broken, Glance, Limits, Lost, cohere, openai};

use crate::rest::rest;

/// A small generator, so that a failing round is named by its number alone.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % sides
    }

    /// Cuts, changes, repeats and puts in.
    fn mutate(&mut self, body: &mut Vec<u8>) {
        for _ in 0..=self.roll(6) {
            let at = self.roll(body.len().max(1)).min(body.len());
            match self.roll(5) {
                0 => body.truncate(at),
                1 if at < body.len() => body[at] = u8::try_from(self.roll(256)).unwrap_or(0),
                2 => {
                    let piece = PIECES[self.roll(PIECES.len())].repeat(1 + self.roll(3));
                    body.splice(at..at, piece.bytes());
                }
                3 => {
                    let end = (at + self.roll(20)).min(body.len());
                    body.drain(at..end);
                }
                _ => {
                    let end = (at + self.roll(30)).min(body.len());
                    let copy = body[at..end].to_vec();
                    body.splice(at..at, copy);
                }
            }
        }
    }
}

/// Calls `each` with bodies that were whole once.
fn mutated(seeds: &[&str], mut each: impl FnMut(u64, &[u8], &mut Dice)) {
    let rounds = std::env::var("WIRE_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok());
    for round in 1..rounds.unwrap_or(20_000_u64) {
        let mut dice = Dice(round.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut body = seeds[dice.roll(seeds.len())].as_bytes().to_vec();
        dice.mutate(&mut body);
        each(round, &body, &mut dice);
    }
}

const SEEDS: [&str; 10] = [
    r#"{"model":"m","messages":[{"role":"system","content":[{"type":"text","text":"\u00e9"}]},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"stop":["a"],"logit_bias":{"1":-1.5},"stream":true,"stream_options":{"include_usage":true}}"#,
    r#"{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","strict":true}}],"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"type":"function","function":{"name":"f"}}]}},"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}},"reasoning":{"effort":"low","max_tokens":5}}"#,
    r#"{"model":"m","prompt":"x","structured_outputs":{"structural_tag":"{\"structures\":[{\"begin\":\"<a>\",\"schema\":{},\"end\":\"</a>\"}],\"triggers\":[\"<\"]}"},"ignore_eos":false}"#,
    r#"{"model":"m","prompt":[[1,2],[3]],"n":2,"logprobs":3,"echo":true,"seed":-9,"max_tokens":5}"#,
    r#"{"messages":[{"role":"user","content":"x"}],"chat_template_kwargs":{"a":[{}]}}"#,
    r#"{"tokens":[1,2,3],"model":null}"#,
    r#"{"model":"m","input":["a",[1,2]],"encoding_format":"base64","dimensions":3,"truncate_prompt_tokens":-1}"#,
    r#"{"model":"m","query":"q","documents":["a",{"text":"b"}],"top_n":1,"return_documents":false}"#,
    r#"{"model":"m","query":"q","documents":["a"],"top_n":1,"max_tokens_per_doc":9,"priority":0}"#,
    r#"{"model":"m","text_1":["a"],"text_2":["b","c"],"truncate_prompt_tokens":8}"#,
];

const PIECES: [&str; 16] = [
    "[",
    "]",
    "{",
    "}",
    "null",
    "-1",
    "1e400",
    "5.0",
    "\"\"",
    "\\ud800",
    ",",
    ":",
    "true",
    "18446744073709551616",
    "\"type\"",
    "\u{fffd}",
];

#[test]
fn no_bytes_panic_a_parser() {
    let limits = Limits::default();
    mutated(&SEEDS, |round, body, _| {
        let errors = [
            openai::parse_chat(body, &limits).err(),
            openai::parse_completion(body, &limits).err(),
            openai::parse_completion_forward(body, &limits).err(),
            openai::parse_tokenize(body, &limits).err(),
            openai::parse_detokenize(body).err(),
            openai::parse_embeddings(body, &limits).err(),
            openai::parse_rerank(body, &limits).err(),
            cohere::parse(body, &limits).err(),
            openai::parse_score(body, &limits).err(),
        ];
        for error in errors.into_iter().flatten() {
            assert!(!error.message.is_empty() && error.message.len() < 2000, "round {round}");
            let shape: Value =
                serde_json::from_slice(&openai::answer::error(&error)).expect("JSON");
            assert!(shape["error"]["type"].is_string());
        }
    });
}

/// What is read and written again is read as the same.
#[test]
fn what_was_read_is_read_again() {
    let limits = Limits::default();
    let mut again = [0; 4];
    mutated(&SEEDS, |round, body, _| {
        if let Ok(request) = openai::parse_chat(body, &limits) {
            let written = chat_to_json(&request).to_string();
            let back = openai::parse_chat(written.as_bytes(), &limits);
            assert_eq!(back.map_err(|e| e.message), Ok(request), "round {round}: {written}");
            again[0] += 1;
        }
        if let Ok(request) = openai::parse_completion(body, &limits) {
            let written = completion_to_json(&request).to_string();
            let back = openai::parse_completion(written.as_bytes(), &limits);
            assert_eq!(back.map_err(|e| e.message), Ok(request), "round {round}: {written}");
            again[1] += 1;
        }
        if let Ok(mut request) = openai::parse_rerank(body, &limits) {
            let written = render_rerank(&request, true, &mut Lost::default()).to_string();
            let back = openai::parse_rerank(written.as_bytes(), &limits);
            request.return_documents = false;
            assert_eq!(back.map_err(|e| e.message), Ok(request), "round {round}: {written}");
            again[2] += 1;
        }
        if let Ok(request) = cohere::parse(body, &limits) {
            let written = cohere::render(&request, &mut Lost::default()).to_string();
            let back = cohere::parse(written.as_bytes(), &limits);
            assert_eq!(back.map_err(|e| e.message), Ok(request), "round {round}: {written}");
            again[3] += 1;
        }
    });
    assert!(again.iter().all(|times| *times > 0), "{again:?}");
}

const GLANCED: [&str; 4] = [
    SEEDS[0],
    SEEDS[6],
    r#"{"model":"m","stream":false,"max_tokens":7,"max_completion_tokens":null,"stream_options":{"include_usage":false},"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,AA"}}]}],"user":"u","metadata":{"a":"b"},"n":2}"#,
    r#" { "contents" : [] , "generationConfig" : { "maxOutputTokens" : 5 , "topK" : 1 } } "#,
];

#[test]
fn a_glance_leaves_the_rest_alone() {
    let mut seen = 0;
    mutated(&GLANCED, |round, body, dice| {
        let named = dice.roll(2) == 0;
        let look = |body: &[u8]| match named {
            true => Glance::named(body, "m", false),
            false => Glance::of(body),
        };
        let glance = match look(body) {
            Ok(glance) => glance,
            Err(error) => {
                assert!(!error.message.is_empty() && error.message.len() < 2000, "round {round}");
                return;
            }
        };
        seen += 1;
        assert!(glance.prompt_at(body) <= body.len());
        let usage = dice.roll(2) == 0;
        let most = Some(Most { field: "max_tokens", tokens: 3 }).filter(|_| dice.roll(2) == 0);
        let sent = glance.rewrite(body, "n\"", usage, most);
        let shown = String::from_utf8_lossy(&sent);
        assert_eq!(rest(&sent), rest(body), "round {round}: {shown}");
        let after = look(&sent).unwrap_or_else(|error| panic!("{round}: {error}: {shown}"));
        assert_eq!(after.model, if named { "m" } else { "n\"" }, "round {round}");
        assert!(!usage || !after.stream || after.include_usage || named, "round {round}: {shown}");
        assert!(most.is_none() || after.max_tokens == Some(3), "round {round}: {shown}");
        assert_eq!(after.rewrite(&sent, "n\"", usage, most), sent, "round {round}: {shown}");
    });
    assert!(seen > 0);
}

const KEPT: [&str; 3] = [
    r#"{"model":"m","store":false,"input":[{"type":"message","role":"user","content":"a"},{"type":"item_reference","id":"msg_1"},{"type":"reasoning","id":"rs_1","encrypted_content":"g"}],"previous_response_id":null}"#,
    r#"{"store":false,"model":"m","input":"item_reference","conversation":{"id":"c"},"background":false}"#,
    r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"b"}]},{"id":"msg_1","type":null}],"store":false,"background":null,"previous_response_id":"resp_1"}"#,
];

/// A request that is said to stand alone names nothing, in whatever way its fields are written: to
/// whoever reads the last of several, and to whoever reads the first.
#[test]
fn an_outline_overlooks_nothing() {
    let names = |body: &Value| {
        let set = |name: &str| body.get(name).is_some_and(|said| !said.is_null());
        let items = body["input"].as_array().map(Vec::as_slice).unwrap_or_default();
        let bare = |item: &Value| item["type"] == "reasoning" && item["encrypted_content"] == "";
        set("previous_response_id")
            || set("conversation")
            || body["background"] == true
            || body["store"] != false
            || !references(items).is_empty()
            || items.iter().any(bare)
    };
    let (mut alone, mut read) = (0, 0);
    mutated(&KEPT, |round, body, _| {
        let Some(outline) = Outline::of(body) else { return };
        read += 1;
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
        assert!(!outline.stands_alone() || !names(&value), "round {round}: {value}");
        alone += u32::from(outline.stands_alone());
    });
    assert!(alone > 0 && read > 1_000, "{alone} of {read}");
}

/// Options that nobody can read were replaced by others.
#[test]
fn a_glance_mends_no_body() {
    let body = br#"{"model":"m","stream":true,"stream_options":{"a":"\ud800"}}"#;
    let refused = Glance::of(body).expect_err("refused");
    assert!(refused.message.contains("stream_options"), "{}", refused.message);
}

/// A body that is one long text was repeated whole in its refusal.
#[test]
fn a_glance_repeats_no_body() {
    let long = json!("\u{7f}".repeat(10_000)).to_string();
    for body in [long.clone(), format!(r#"{{"generationConfig":{long}}}"#)] {
        let refused = Glance::named(body.as_bytes(), "m", false).expect_err("refused");
        assert!(refused.message.len() < 1000, "{} bytes", refused.message.len());
    }
}

const STREAMS: [&str; 2] = [
    "event: a\ndata: {\"x\":1}\n\n: ping\r\n\r\ndata: one\ndata: two\r\rdata\nid: 7\n\ndata: [DONE]\n\n",
    "\u{feff}data:\u{e9}\n\nevent:b\nretry: 5\ndata: \n\n",
];

/// Events do not depend on how their bytes are cut, and none is longer than its bound. Where the
/// bound is met depends on what was waiting: those before it are the same.
#[test]
fn events_in_any_pieces() {
    mutated(&STREAMS, |round, body, dice| {
        let limit = if dice.roll(2) == 0 { 8 + dice.roll(60) } else { 1 << 16 };
        let mut read = |step: Option<usize>| -> (Vec<(String, String)>, bool) {
            let (mut events, mut all) = (Events::new(limit), Vec::new());
            let mut each = |name: &str, data: &str| -> Result<(), Broken> {
                assert!(name.len() + data.len() <= limit);
                all.push((name.to_owned(), data.to_owned()));
                Ok(())
            };
            let mut rest = body;
            let mut sound = true;
            while sound && !rest.is_empty() {
                let most = step.map_or(rest.len(), |most| 1 + dice.roll(most)).min(rest.len());
                let (piece, behind) = rest.split_at(most);
                sound = events.push(piece, &mut each).is_ok();
                rest = behind;
            }
            (all, sound)
        };
        let (whole, sound) = read(None);
        for step in [1, 9] {
            let (pieces, all) = read(Some(step));
            assert!(whole.starts_with(&pieces) || pieces.starts_with(&whole), "round {round}");
            assert!(pieces == whole || !all || !sound, "round {round}");
            assert!(limit < 1 << 16 || all == sound, "round {round}");
        }
    });
}

const RANKINGS: [&str; 2] = [
    r#"{"model":"m","results":[{"index":1,"document":{"text":"b"},"relevance_score":0.5},{"index":0,"relevance_score":-1e-3}],"usage":{"total_tokens":7}}"#,
    r#"{"id":"x","results":[{"index":0,"relevance_score":1}],"meta":{"tokens":{"input_tokens":5}}}"#,
];

#[test]
fn no_bytes_panic_a_ranking() {
    use wire::Dialect::{Cohere, Embeddings, Rerank, Score};
    mutated(&RANKINGS, |round, body, _| {
        match cohere::read_answer(body, 2) {
            Ok(scores) => assert!(scores.len() <= 2 && scores.iter().all(|(at, _)| *at < 2)),
            Err(Broken(why)) => assert!(!why.is_empty() && why.len() < 4096, "round {round}"),
        }
        for dialect in [Cohere, Embeddings, Rerank, Score] {
            let used = wire::relay::whole(dialect, body).ok().and_then(|said| said.usage);
            assert!(used.is_none_or(|used| used.completion_tokens == 0), "round {round}");
        }
        let error = cohere::read_error(500, body);
        assert!(error.message.len() <= 2048, "round {round}");
        let shown: Value = serde_json::from_slice(&cohere::error(&error, "r")).expect("JSON");
        assert_eq!(shown["id"], json!("r"));
    });
}
