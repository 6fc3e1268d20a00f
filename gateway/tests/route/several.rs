//! Streams with several choices, translated and passed on: each arrives with its own number and its
//! own end, and no stream is whole before all of them are.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::caller::{Answer, Inbound, gateway, provider, request, send};
use crate::speech::{Tongue, chunk, end, stream_head};
use crate::upstream::{Seen, Step, Upstream};

const DROPS: &str = "lost_fields = \"drop\"\n";

/// What a choice says, and why it ends.
type Told = BTreeMap<u64, (String, String)>;

/// An event about a choice: a word, or its end.
fn event(tongue: Tongue, index: u64, word: &str, ends: bool) -> String {
    let data = match tongue {
        Tongue::Gemini => {
            let mut candidate = json!({ "content": { "parts": [{ "text": word }] } });
            // Google leaves a 0 out.
            if index > 0 {
                candidate["index"] = index.into();
            }
            if ends {
                candidate = json!({ "index": index, "finishReason": "STOP" });
            }
            json!({ "candidates": [candidate], "responseId": "g1",
                "usageMetadata": { "promptTokenCount": 11, "candidatesTokenCount": 4 } })
        }
        tongue => {
            let finish = if ends { json!("stop") } else { Value::Null };
            let said = if ends { "" } else { word };
            let mut choice = json!({ "index": index, "finish_reason": finish });
            match tongue {
                Tongue::Completions => choice["text"] = said.into(),
                _ => choice["delta"] = json!({ "role": "assistant", "content": said }),
            }
            // Some tell in every event what was used so far.
            json!({ "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                "choices": [choice], "usage": { "prompt_tokens": 11, "completion_tokens": 4 } })
        }
    };
    format!("data: {data}\n\n")
}

/// The first choice is over long before the second one.
fn one_by_one(seen: &Seen) -> Vec<Step> {
    let tongue = seen.tongue();
    let say = |index, word, ends| chunk(event(tongue, index, word, ends));
    let mut steps = vec![stream_head(), say(0, "one", false), say(0, "", true)];
    // Longer than whatever may follow an answer is waited for.
    steps.push(Step::Pause(Duration::from_millis(1300)));
    steps.extend([say(1, "an", false), say(1, "other", false), say(1, "", true)]);
    if tongue != Tongue::Gemini {
        steps.push(chunk("data: [DONE]\n\n"));
    }
    steps.push(end());
    steps
}

fn data(body: &str) -> impl Iterator<Item = Value> {
    let lines = body.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.filter_map(|data| serde_json::from_str(data).ok())
}

fn told(body: &str) -> Told {
    let mut told = Told::new();
    for event in data(body) {
        let lists = [&event["choices"], &event["candidates"]];
        for choice in lists.into_iter().filter_map(Value::as_array).flatten() {
            let own = told.entry(choice["index"].as_u64().unwrap_or(0)).or_default();
            let paths = ["/delta/content", "/text", "/content/parts/0/text"];
            let words = paths.iter().filter_map(|path| choice.pointer(path)?.as_str());
            words.for_each(|words| own.0 += words);
            let ends = [&choice["finish_reason"], &choice["finishReason"]];
            ends.into_iter().filter_map(Value::as_str).for_each(|reason| {
                assert!(own.1.is_empty(), "it ends twice: {body}");
                own.1 = reason.to_lowercase();
            });
        }
    }
    told
}

/// Two answers asked for at once, by a caller of this dialect.
async fn two(inbound: Inbound, kind: &str, more: &str, upstream: &Upstream) -> Answer {
    let router = gateway(&provider("p", kind, &upstream.url, more));
    let (path, mut body) = inbound.request("p/m", true, "hi");
    match inbound {
        Inbound::Gemini => body["generationConfig"] = json!({ "candidateCount": 2 }),
        // Each prompt is answered; of several no chat is made.
        Inbound::Completions if kind == "vllm" => body["prompt"] = json!(["a", "b"]),
        _ => body["n"] = 2.into(),
    }
    if inbound == Inbound::Chat {
        body["stream_options"] = json!({ "include_usage": true });
    }
    send(&router, request("", &path, &body)).await
}

const WAYS: [(Inbound, &str); 7] = [
    (Inbound::Chat, "gemini"),
    (Inbound::Gemini, "compatible"),
    (Inbound::Chat, "compatible"),
    (Inbound::Gemini, "gemini"),
    (Inbound::Completions, "vllm"),
    (Inbound::Completions, "compatible"),
    (Inbound::Completions, "gemini"),
];

/// The second one vanished where a stream was translated, and was cut off behind the first one's
/// end where it was passed on.
#[tokio::test(flavor = "multi_thread")]
async fn all_choices_arrive() {
    let upstream = Upstream::start(one_by_one).await;
    for (inbound, kind) in WAYS {
        let got = two(inbound, kind, "", &upstream).await;
        let body = got.text();
        assert_eq!(got.status, 200, "{inbound:?} {kind}: {body}");
        let word = |text: &str| (text.to_owned(), "stop".to_owned());
        let expect = Told::from([(0, word("one")), (1, word("another"))]);
        assert_eq!(told(&body), expect, "{inbound:?} {kind}: {body}");
        assert!(!inbound.breaks(&body), "{inbound:?} {kind}: {body}");
        if inbound == Inbound::Chat && kind == "gemini" {
            let counts = data(&body).filter(|event| event["usage"].is_object());
            assert_eq!(counts.count(), 1, "{body}");
            assert_eq!(body.matches("\"role\"").count(), 2, "{body}");
        }
        let asked = upstream.seen().pop().expect("a request").json();
        if kind == "gemini" {
            assert_eq!(asked["generationConfig"]["candidateCount"], 2);
        } else if kind != "vllm" {
            assert_eq!(asked["n"], 2);
        }
    }
}

/// One of two is not the answer, however cleanly the stream ends behind it. Who says that it ends
/// is believed.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_is_not_whole() {
    let upstream = Upstream::start(|_| Vec::new()).await;
    for (inbound, kind) in WAYS {
        for says_so in [false, true] {
            upstream.turn(move |seen| {
                let tongue = seen.tongue();
                let all = event(tongue, 0, "one", false) + &event(tongue, 0, "", true);
                let done = if says_so { "data: [DONE]\n\n" } else { "" };
                vec![stream_head(), chunk(all + done), end()]
            });
            // Google may make fewer, and has no word for the end; what has begun has to end.
            let fewer = kind == "gemini";
            if fewer && !says_so {
                upstream.turn(|seen| {
                    let tongue = seen.tongue();
                    let one = event(tongue, 0, "one", false) + &event(tongue, 1, "half", false);
                    let pause = Step::Pause(Duration::from_millis(60));
                    let ends = chunk(event(tongue, 0, "", true));
                    vec![stream_head(), chunk(one), pause, ends, end()]
                });
            } else if fewer {
                upstream.turn(|seen| {
                    let one = event(seen.tongue(), 0, "one", false);
                    let ends = event(seen.tongue(), 0, "", true);
                    vec![stream_head(), chunk(one + &ends), end()]
                });
            }
            let got = two(inbound, kind, "", &upstream).await;
            let body = got.text();
            // Nothing has left if it is all there at once.
            let breaks = inbound.breaks(&body) || got.status == 502;
            assert_eq!(breaks, !says_so, "{inbound:?} {kind}: {body}");
        }
    }
}

/// A dialect with one answer only is asked for one: by name, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_one_answer_is_asked_for_one() {
    let upstream = Upstream::well("word").await;
    let got = two(Inbound::Chat, "anthropic", DROPS, &upstream).await;
    assert_eq!((got.status, got.header("x-hearth-dropped")), (200, "n"), "{}", got.text());
    let body = got.text();
    let one = Told::from([(0, ("Hello from word".to_owned(), "stop".to_owned()))]);
    assert_eq!(told(&body), one, "{body}");
    assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    for (inbound, kind, more) in [
        (Inbound::Messages, "compatible", ""),
        (Inbound::Responses, "compatible", ""),
        (Inbound::Chat, "anthropic", ""),
    ] {
        let before = upstream.count();
        let got = two(inbound, kind, more, &upstream).await;
        let error: Value = serde_json::from_slice(&got.bytes).expect("JSON");
        let message = error["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(got.status, 400, "{inbound:?}: {error}");
        assert!(message.contains("'n'") || message.contains("n:"), "{inbound:?}: {error}");
        assert_eq!(upstream.count(), before);
    }
}
