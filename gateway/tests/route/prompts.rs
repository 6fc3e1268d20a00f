//! Plain completions by providers that only chat: the prompt is what a user says, the answer is the
//! text behind it, and what no chat can say is refused by name.

use serde_json::{Value, json};

use crate::caller::{Answer, Inbound, ask, gateway, provider, request, routes, send};
use crate::speech::{Tongue, answer, chunk, end, stream_head};
use crate::upstream::{Seen, Step, Upstream};

const DROPS: &str = "lost_fields = \"drop\"\n";

/// Asks for the completion of `hi`, with these fields too.
async fn complete(router: &axum::Router, model: &str, stream: bool, more: &Value) -> Answer {
    let (path, mut body) = Inbound::Completions.request(model, stream, "hi");
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    send(router, request("", &path, &body)).await
}

fn json_of(got: &Answer) -> Value {
    assert_eq!(got.status, 200, "{}", got.text());
    serde_json::from_slice(&got.bytes).expect("JSON")
}

/// The chunks of a stream that has its end.
fn chunks(got: &Answer) -> Vec<Value> {
    let text = got.text();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    events.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

/// What each choice says in these chunks.
fn texts(chunks: &[Value], index: u64) -> Vec<&str> {
    let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().expect("choices"));
    let own = choices.filter(|choice| choice["index"] == index);
    own.map(|choice| choice["text"].as_str().expect("a text")).collect()
}

/// The one turn that a provider was sent, and the most tokens that it may answer.
fn turn(seen: &Seen) -> (Value, Value) {
    let sent = seen.json();
    match seen.tongue() {
        Tongue::Gemini => {
            let most = &sent["generationConfig"]["maxOutputTokens"];
            (sent["contents"].clone(), most.clone())
        }
        _ => (sent["messages"].clone(), sent["max_tokens"].clone()),
    }
}

#[tokio::test]
async fn whoever_chats_completes_a_prompt() {
    let well = Upstream::well("afar").await;
    let said = json!([{ "role": "user", "content": "hi" }]);
    let parts = json!([{ "role": "user", "parts": [{ "text": "hi" }] }]);
    for (kind, path, turns) in [
        ("compatible", "/v1/chat/completions", &said),
        ("mistral", "/v1/chat/completions", &said),
        ("anthropic", "/v1/messages", &said),
        ("gemini", "/v1/models/m:", &parts),
    ] {
        let router = gateway(&provider("p", kind, &well.url, ""));
        let got = complete(&router, "p/m", false, &json!({})).await;
        let answer = json_of(&got);
        assert_eq!(answer["object"], "text_completion", "{kind} {answer}");
        assert!(answer["id"].as_str().is_some_and(|id| id.starts_with("cmpl-")), "{answer}");
        assert_eq!(answer["model"], "p/m", "{kind}");
        let choice = json!({ "index": 0, "text": "Hello from afar", "logprobs": null,
            "finish_reason": "stop" });
        assert_eq!(answer["choices"], json!([choice]), "{kind}");
        assert_eq!(answer["usage"]["total_tokens"], 14, "{kind} {answer}");
        assert_eq!(got.route(), "p/m; pool=p/m; reason=priority; attempt=1", "{kind}");
        assert_eq!(got.header("x-hearth-dropped"), "", "{kind}");
        let seen = well.seen().pop().expect("a request");
        assert!(seen.path.starts_with(path), "{kind} {}", seen.path);
        // Who sets no limit has this dialect's own.
        assert_eq!(turn(&seen), (turns.clone(), json!(16)), "{kind}");

        let more = json!({ "stream_options": { "include_usage": true }, "max_tokens": 40 });
        let got = complete(&router, "p/m", true, &more).await;
        let chunks = chunks(&got);
        assert_eq!(texts(&chunks, 0).concat(), "Hello from afar", "{kind} {chunks:?}");
        assert!(chunks.iter().all(|chunk| chunk["object"] == "text_completion"), "{kind}");
        let (last, others) = chunks.split_last().expect("chunks");
        assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &json!(14)));
        assert!(others.iter().all(|chunk| chunk["usage"].is_null()), "{kind}");
        let seen = well.seen().pop().expect("a request");
        assert_eq!(turn(&seen), (turns.clone(), json!(40)), "{kind}");
    }
}

/// Two answers of a chat, whole or in turns.
fn two(seen: &Seen) -> Vec<Step> {
    if !seen.streams() {
        let choice = |index: u32, text: &str| {
            let message = json!({ "role": "assistant", "content": text });
            json!({ "index": index, "finish_reason": "stop", "message": message })
        };
        let body = json!({ "id": "c1", "choices": [choice(0, " there"), choice(1, " you")] });
        return answer(200, "", body.to_string().as_bytes());
    }
    let event = |index: u32, delta: Value, finish: Value| {
        let choice = json!({ "index": index, "delta": delta, "finish_reason": finish });
        chunk(format!("data: {}\n\n", json!({ "id": "c1", "choices": [choice] })))
    };
    let say = |index, text: &str| event(index, json!({ "content": text }), Value::Null);
    let stop = |index| event(index, json!({}), json!("stop"));
    let done = chunk("data: [DONE]\n\n");
    vec![stream_head(), say(1, " you"), say(0, " there"), stop(0), stop(1), done, end()]
}

/// No chat repeats what it was asked, so that is done here: once in front of each answer.
#[tokio::test]
async fn the_prompt_is_repeated() {
    let upstream = Upstream::start(two).await;
    let router = gateway(&provider("p", "compatible", &upstream.url, ""));
    for (echo, front) in [(true, "hi"), (false, "")] {
        let more = json!({ "echo": echo, "n": 2 });
        let answer = json_of(&complete(&router, "p/m", false, &more).await);
        for (at, rest) in [" there", " you"].into_iter().enumerate() {
            assert_eq!(answer["choices"][at]["text"], format!("{front}{rest}"), "{answer}");
        }
        let chunks = chunks(&complete(&router, "p/m", true, &more).await);
        for (index, rest) in [(0, " there"), (1, " you")] {
            let parts: Vec<&str> = [front, rest].into_iter().filter(|p| !p.is_empty()).collect();
            let (end, said) =
                texts(&chunks, index).split_last().map(|(e, s)| (*e, s.to_vec())).expect("chunks");
            assert_eq!((end, said), ("", parts), "{chunks:?}");
        }
        let sent = upstream.seen().pop().expect("a request").json();
        assert!(sent.get("echo").is_none() && sent["n"] == 2, "{sent}");
    }
}

/// Requests that a chat has no words for, and the field that is named.
fn beyond() -> [(Value, &'static str); 11] {
    [
        (json!({ "prompt": "" }), "prompt"),
        (json!({ "prompt": vec!["a"; 200] }), "prompt"),
        (json!({ "prompt": vec!["a"; 300] }), "prompt"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "suffix": "!" }), "suffix"),
        (json!({ "prompt": [1, 2, 3] }), "prompt"),
        (json!({ "prompt": [[1, 2], [3]] }), "prompt"),
        (json!({ "prompt": ["a", "b"] }), "prompt"),
        (json!({ "echo": true, "max_tokens": 0 }), "max_tokens"),
        (json!({ "echo": true, "logprobs": 1 }), "echo"),
        (json!({ "best_of": 3 }), "best_of"),
    ]
}

/// Fields that Anthropic's dialect has no words for.
fn fields() -> Value {
    json!({ "add_special_tokens": false, "return_token_ids": true, "seed": 7 })
}

#[tokio::test]
async fn what_no_chat_can_say_is_refused_by_name() {
    let well = Upstream::well("afar").await;
    let config = provider("strict", "anthropic", &well.url, "")
        + &provider("lax", "anthropic", &well.url, DROPS);
    let router = gateway(&config);
    for stream in [false, true] {
        for model in ["strict/m", "lax/m"] {
            for (more, param) in beyond() {
                let got = complete(&router, model, stream, &more).await;
                assert_eq!((got.status, well.count()), (400, 0), "{more} {}", got.text());
                let error: Value = serde_json::from_slice(&got.bytes).expect("JSON");
                assert_eq!(error["error"]["param"], param, "{error}");
                assert_eq!(error["error"]["code"], "unsupported_parameter", "{error}");
            }
        }
        // These it can go without, where its operator says so.
        let got = complete(&router, "strict/m", stream, &fields()).await;
        assert_eq!((got.status, well.count()), (400, 0), "{}", got.text());
        assert!(
            got.text().contains("'add_special_tokens', 'return_token_ids', 'seed'"),
            "{}",
            got.text()
        );
    }
    let got = complete(&router, "lax/m", false, &fields()).await;
    assert_eq!(json_of(&got)["choices"][0]["text"], "Hello from afar");
    let dropped = "add_special_tokens, return_token_ids, seed";
    assert_eq!(got.header("x-hearth-dropped"), dropped);
}

/// A chat about a text is another thing than the text gone on with: who does that comes first,
/// wherever it stands.
#[tokio::test]
async fn who_completes_comes_first() {
    let [chats, completes] = [Upstream::well("chats").await, Upstream::well("completes").await];
    let own = "completions = true\n";
    let router = gateway(&format!(
        "{}{}{}[pools.p]\ntargets = [\"chats/m\", \"completes/m\", \"asked/m\"]\n\
         [pools.chats-alone]\ntargets = [\"asked/m\", \"chats/m\"]\nstrategy = \"priority\"\n",
        provider("chats", "compatible", &chats.url, ""),
        provider("asked", "compatible", &chats.url, ""),
        provider("completes", "compatible", &completes.url, own),
    ));
    for stream in [false, true] {
        let got = complete(&router, "p", stream, &json!({})).await;
        assert_eq!(got.route(), "completes/m; pool=p; reason=completes; attempt=1");
        assert_eq!(completes.seen().pop().expect("a request").path, "/v1/completions");
        // Chats know nothing of it.
        let got = ask(&router, Inbound::Chat, "p", stream).await;
        assert_eq!(got.route(), "chats/m; pool=p; reason=priority; attempt=1");
        let got = complete(&router, "chats-alone", stream, &json!({})).await;
        assert_eq!(got.route(), "asked/m; pool=chats-alone; reason=priority; attempt=1");
    }
    // The same before anybody is asked.
    let body = json!({ "model": "p", "prompt": "hi" });
    let told = json_of(&send(&router, request("", "/v1/route/explain", &body)).await);
    assert_eq!((&told["order"][0], &told["reason"]), (&json!("completes/m"), &json!("completes")));
    // It fails: the others answer in their own way.
    completes.turn(|_| vec![Step::Reset]);
    let got = complete(&router, "p", false, &json!({})).await;
    assert_eq!(got.route(), "chats/m; pool=p; reason=completes; attempt=2");
    assert_eq!(json_of(&got)["choices"][0]["text"], "Hello from chats");
}

/// Of OpenAI's models few complete, and have it in their names; an operator knows better.
#[tokio::test]
async fn who_completes_is_seen_by_its_name_or_said() {
    let well = Upstream::well("afar").await;
    let config = provider("openai", "openai", &well.url, "")
        + &provider("all", "azure", &well.url, "completions = true\n")
        + &provider("none", "vllm", &well.url, "completions = false\n");
    let router = gateway(&config);
    for (model, path) in [
        ("openai/gpt-3.5-turbo-instruct", "/v1/completions"),
        ("openai/ft:davinci-002:acme", "/v1/completions"),
        ("openai/babbage-002", "/v1/completions"),
        ("openai/gpt-5-mini", "/v1/chat/completions"),
        ("all/my-deployment", "/v1/completions"),
        ("none/m", "/v1/chat/completions"),
    ] {
        let answer = json_of(&complete(&router, model, false, &json!({})).await);
        assert_eq!(answer["choices"][0]["text"], "Hello from afar", "{model}");
        assert_eq!(well.seen().pop().expect("a request").path, path, "{model}");
    }
    for kind in ["anthropic", "gemini", "jina"] {
        let config = provider("p", kind, &well.url, "completions = true\n");
        let refused = routes(&config, &[]).err().unwrap_or_default();
        assert!(refused.contains("completions: a "), "{kind} {refused}");
    }
}

/// Somebody else may have words for it: who only chats is passed over, and is not ill.
#[tokio::test]
async fn what_no_chat_can_say_goes_to_who_completes() {
    let [chats, completes] = [Upstream::well("chats").await, Upstream::well("completes").await];
    let router = gateway(&format!(
        "{}{}[pools.p]\ntargets = [\"chats/m\"]\nfallback = [\"completes/m\"]\n\
         [pools.late]\ntargets = [\"chats/m\", {{ target = \"completes/m\", context = 1 }}]\n",
        provider("chats", "compatible", &chats.url, ""),
        provider("completes", "vllm", &completes.url, ""),
    ));
    for (more, pool) in beyond().into_iter().flat_map(|(m, _)| [(m.clone(), "p"), (m, "late")]) {
        let got = complete(&router, pool, false, &more).await;
        assert_eq!(got.status, 200, "{more} {}", got.text());
        assert!(got.route().starts_with("completes/m; "), "{}", got.route());
        assert_eq!(chats.count(), 0);
        let sent = completes.seen().pop().expect("a request");
        assert_eq!(sent.path, "/v1/completions");
        for (name, value) in more.as_object().expect("fields") {
            assert_eq!(&sent.json()[name], value, "passed on as it is");
        }
    }
    assert_eq!(chats.count(), 0);
    // Who is only to step in does not go before those who are well.
    let got = complete(&router, "p", false, &json!({})).await;
    assert_eq!(got.route(), "chats/m; pool=p; reason=priority; attempt=1");
}

/// More than was asked for is not handed out, nor is the prompt repeated for it.
#[tokio::test]
async fn only_those_asked_for_are_handed_out() {
    let upstream = Upstream::start(two).await;
    let router = gateway(&provider("p", "compatible", &upstream.url, ""));
    for stream in [false, true] {
        let got = complete(&router, "p/m", stream, &json!({ "echo": true })).await;
        assert_eq!((got.status, got.text().matches("hi").count()), (200, 1), "{}", got.text());
        assert!(!got.text().contains(" you"), "{}", got.text());
    }
}

/// Log-probabilities have a form of their own here, and a refusal's words have no other place.
#[tokio::test]
async fn scores_and_refusals_have_this_dialects_form() {
    let upstream = Upstream::start(|_| {
        let top = json!([{ "token": "Hm", "logprob": -0.5, "bytes": [72, 109] },
            { "token": "Ah", "logprob": -1.5, "bytes": [65, 104] }]);
        let entry = json!({ "token": "Hm", "logprob": -0.5, "bytes": [72, 109],
            "top_logprobs": top });
        let message = json!({ "role": "assistant", "content": "Hm", "refusal": ": no." });
        let choice = json!({ "index": 0, "finish_reason": "stop", "message": message,
            "logprobs": { "content": [entry] } });
        answer(200, "", json!({ "id": "c1", "choices": [choice] }).to_string().as_bytes())
    })
    .await;
    let router = gateway(&provider("p", "compatible", &upstream.url, ""));
    let answer = json_of(&complete(&router, "p/m", false, &json!({ "logprobs": 2 })).await);
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], "Hm: no.", "{answer}");
    let scores = json!({ "tokens": ["Hm"], "token_logprobs": [-0.5],
        "top_logprobs": [{ "Hm": -0.5, "Ah": -1.5 }], "text_offset": [0] });
    assert_eq!(choice["logprobs"], scores, "{answer}");
    let sent = upstream.seen().pop().expect("a request").json();
    assert_eq!((&sent["logprobs"], &sent["top_logprobs"]), (&json!(true), &json!(2)), "{sent}");
}
