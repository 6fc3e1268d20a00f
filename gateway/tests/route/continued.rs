//! Streams that a provider breaks off, and that a model of this server goes on with: in every
//! dialect and wherever they are cut, without a gap and without a repeat, and booked as two
//! attempts at one request. What cannot be continued ends with an error, as every broken stream
//! does where the pool says nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clap::{Args as _, FromArgMatches as _};
use futures_util::StreamExt as _;
use futures_util::stream;
use gateway::api::cache::Settings;
use gateway::api::{App, Keys, Limits, router};
use gateway::config::{Config, Flags};
use gateway::metrics::Metrics;
use gateway::models::Models;
use gateway::wiring::{self, Target};
use govern::secret::{Keyring, Master};
use serde_json::{Value, json};

use crate::caller::{Inbound, provider, request, routes, send, until};
use crate::fake::{Fake, SPEECH, Setup};
use crate::governed::House;
use crate::leaving::{asked, listen, read_until};
use crate::speech::{Tongue, chunk, end, events, stream_head};
use crate::upstream::{Step, Upstream};

/// Who breaks off, and a pool in which `own` goes on.
pub(crate) fn config(kind: &str, upstream: &Upstream, own: &str) -> String {
    let more = "idle_timeout = \"300ms\"\nlost_fields = \"drop\"\nmax_label = \"restricted\"\n";
    format!(
        "{}[pools.p]\ntargets = [\"ill/m\", {own}]\nbroken_stream = \"continue\"\n",
        provider("ill", kind, &upstream.url, more)
    )
}

/// The first events of an answer, and then this. What a reset overtakes is lost, so it waits.
pub(crate) fn cut(events: &[String], then: Step) -> Vec<Step> {
    vec![stream_head(), chunk(events.concat()), Step::Pause(Duration::from_millis(60)), then]
}

/// What a stream says, in its dialect's own terms.
#[derive(Debug, Default, PartialEq)]
struct Told {
    text: String,
    /// Ids of the answer and of what it consists of, and models: each once.
    names: BTreeSet<String>,
    finish: String,
    /// Tokens of the prompt and of the answer.
    usage: (u64, u64),
}

/// Checks that what a response announces is ended once, and that its last event repeats it.
fn well_formed(data: &[Value], text: &str, count: &dyn Fn(&str) -> usize) {
    let output = &data.last().expect("events")["response"]["output"];
    let items = output.as_array().expect("items");
    let parts = items.iter().flat_map(|item| item["content"].as_array().expect("parts"));
    let texts = parts.map(|part| part["text"].as_str().expect("a text"));
    let texts: Vec<_> = texts.collect();
    assert_eq!(texts.concat(), text);
    for (kind, many) in [
        ("response.output_item.added", items.len()),
        ("response.output_item.done", items.len()),
        ("response.content_part.added", texts.len()),
        ("response.output_text.done", texts.len()),
        ("response.content_part.done", texts.len()),
        ("response.created", 1),
    ] {
        assert_eq!(count(kind), many, "{kind}");
    }
}

/// Reads a whole stream, and checks that it is well-formed.
fn told(inbound: Inbound, body: &str) -> Told {
    let data: Vec<Value> = body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}")))
        .collect();
    let mut told = Told::default();
    let mut kinds = Vec::new();
    for (at, event) in data.iter().enumerate() {
        let text = match inbound {
            Inbound::Chat => &event["choices"][0]["delta"]["content"],
            Inbound::Messages => &event["delta"]["text"],
            Inbound::Responses => match event["type"].as_str() {
                Some("response.output_text.delta") => &event["delta"],
                _ => &Value::Null,
            },
            Inbound::Gemini => &event["candidates"][0]["content"]["parts"][0]["text"],
            Inbound::Completions => &event["choices"][0]["text"],
        };
        told.text += text.as_str().unwrap_or_default();
        let named = ["/id", "/model", "/message/id", "/item_id", "/responseId"];
        let named = named.iter().filter_map(|path| event.pointer(path)?.as_str());
        told.names.extend(named.map(str::to_owned));
        let finish = ["/choices/0/finish_reason", "/delta/stop_reason", "/response/status"];
        let finish = finish.iter().chain(&["/candidates/0/finishReason"]);
        let finish = finish.filter_map(|path| event.pointer(path)?.as_str()).next();
        told.finish = finish.map_or(told.finish, str::to_owned);
        let usage = [&event["usage"], &event["response"]["usage"], &event["usageMetadata"]];
        for usage in usage.into_iter().filter(|usage| usage.is_object()) {
            let count = |names: [&str; 3]| names.iter().find_map(|name| usage[*name].as_u64());
            let input = count(["prompt_tokens", "input_tokens", "promptTokenCount"]);
            let output = count(["completion_tokens", "output_tokens", "candidatesTokenCount"]);
            told.usage = (input.unwrap_or_default(), output.unwrap_or_default());
        }
        if inbound == Inbound::Responses {
            assert_eq!(event["sequence_number"], json!(at), "{body}");
        }
        kinds.extend(event["type"].as_str().map(str::to_owned));
    }
    let count = |kind: &str| kinds.iter().filter(|own| *own == kind).count();
    match inbound {
        Inbound::Messages => {
            let blocks = count("content_block_start");
            assert_eq!(blocks, count("content_block_stop"), "{body}");
            assert_eq!((count("message_start"), count("message_stop")), (1, 1), "{body}");
            let starts = data.iter().filter(|event| event["type"] == "content_block_start");
            for (at, start) in starts.enumerate() {
                assert_eq!(start["index"], json!(at), "{body}");
            }
        }
        Inbound::Responses => well_formed(&data, &told.text, &count),
        Inbound::Chat => assert_eq!(body.matches("\"role\"").count(), 1, "{body}"),
        Inbound::Gemini | Inbound::Completions => {}
    }
    told
}

/// A gateway with the demo model, whose greedy answers depend on every token of the prompt.
async fn demo(config: &str) -> Router {
    let command = Flags::augment_args(clap::Command::new("test").no_binary_name(true));
    let wanted = ["--context", "256", "--rows-max", "4", "--threads", "1"];
    let flags = Flags::from_arg_matches(&command.get_matches_from(wanted)).expect("flags");
    let own = Config::load(&flags, std::iter::empty()).expect("a configuration").config;
    let (models, metrics) = (Models::new(), Metrics::new());
    let planned = wiring::plan(&own, &Target::Cpu(None), &own.models[0]).await;
    models.add(planned.expect("a plan").start(&own, &metrics).expect("it starts"));
    models.set_loaded();
    let routes = routes(config, &["demo"]).expect("a configuration");
    let keys = Keys::default();
    router(App::routed(Arc::clone(&models), metrics, keys, Limits::default(), None, routes))
}

/// New tokens that each request here asks for.
const ASKED: u64 = 16;

/// A request with a bound, greedy.
fn bounded(inbound: Inbound, model: &str) -> (String, Value) {
    let (path, mut body) = inbound.request(model, true, "Tell me of the sea.");
    match inbound {
        Inbound::Gemini => {
            let how = json!({ "temperature": 0, "maxOutputTokens": ASKED });
            body["generationConfig"] = how;
        }
        _ => {
            let field =
                if inbound == Inbound::Responses { "max_output_tokens" } else { "max_tokens" };
            body[field] = ASKED.into();
            body["temperature"] = 0.into();
        }
    }
    (path, body)
}

/// What the model makes behind a beginning of its answer.
async fn alone(router: &Router, inbound: Inbound, text: &str, most: u64) -> String {
    if inbound == Inbound::Completions {
        let (path, mut body) =
            inbound.request("demo", false, &format!("Tell me of the sea.{text}"));
        (body["temperature"], body["max_tokens"]) = (0.into(), most.into());
        let got = send(router, request("", &path, &body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
        let answer: Value = serde_json::from_slice(&got.bytes).expect("JSON");
        return answer["choices"][0]["text"].as_str().expect("a text").to_owned();
    }
    let (path, mut body) = Inbound::Chat.request("demo", false, "Tell me of the sea.");
    (body["temperature"], body["max_tokens"]) = (0.into(), most.into());
    if !text.is_empty() {
        let turn = json!({ "role": "assistant", "content": text });
        body["messages"].as_array_mut().expect("messages").push(turn);
        body["continue_final_message"] = true.into();
    }
    let got = send(router, request("", &path, &body)).await;
    assert_eq!(got.status, 200, "{}", got.text());
    let answer: Value = serde_json::from_slice(&got.bytes).expect("JSON");
    answer["choices"][0]["message"]["content"].as_str().expect("a text").to_owned()
}

/// Callers' dialects and providers' kinds whose streams can be continued, and how many events of
/// the provider can be all that there is.
const WAYS: [(Inbound, &str, Tongue, usize); 12] = [
    (Inbound::Chat, "compatible", Tongue::Chat, 4),
    (Inbound::Messages, "anthropic", Tongue::Messages, 6),
    (Inbound::Chat, "anthropic", Tongue::Messages, 6),
    (Inbound::Chat, "gemini", Tongue::Gemini, 2),
    (Inbound::Messages, "compatible", Tongue::Chat, 4),
    (Inbound::Responses, "compatible", Tongue::Chat, 4),
    (Inbound::Responses, "anthropic", Tongue::Messages, 6),
    (Inbound::Gemini, "compatible", Tongue::Chat, 4),
    (Inbound::Responses, "openai", Tongue::Responses, 9),
    (Inbound::Gemini, "gemini", Tongue::Gemini, 2),
    (Inbound::Completions, "vllm", Tongue::Completions, 2),
    (Inbound::Completions, "anthropic", Tongue::Messages, 6),
];

/// Events before the first token.
fn before(tongue: Tongue) -> usize {
    match tongue {
        Tongue::Chat => 1,
        Tongue::Messages => 2,
        Tongue::Responses => 3,
        _ => 0,
    }
}

/// The text of these events, and what is taken to be used for it.
fn handed(inbound: Inbound, tongue: Tongue, count: usize) -> (String, u64) {
    let tokens = ["Hello", " from", " first"];
    let some = count.saturating_sub(before(tongue)).min(3);
    let used = match (tongue, inbound) {
        // Its first event says so.
        (Tongue::Messages, _) => 3,
        // A chunk that is passed on counts for a token.
        (Tongue::Chat, Inbound::Chat) => count,
        _ => some,
    };
    (tokens[..some].concat(), u64::try_from(used).expect("few"))
}

/// One stream, cut behind so many events in one of the ways that streams break.
async fn case((inbound, kind, tongue): (Inbound, &str, Tongue), count: usize, how: usize) {
    let then = [Step::Reset, Step::Close, end(), Step::Silence][how].clone();
    let silent = matches!(then, Step::Silence);
    let ill =
        Upstream::start(move |seen| cut(&events(seen.tongue(), "first")[..count], then.clone()));
    let ill = ill.await;
    // A prompt is asked of who completes first, but for one that may be too long for it.
    let own = "{ target = \"demo\", context = 1 }";
    let router = demo(&config(kind, &ill, own)).await;
    let case = format!("{inbound:?} {kind} behind {count} events, broken in way {how}");
    let (path, body) = bounded(inbound, "p");
    let got = send(&router, request("", &path, &body)).await;
    assert_eq!(got.status, 200, "{case}: {}", got.text());
    let (text, used) = handed(inbound, tongue, count);
    let body = got.text();
    let told = told(inbound, &body);
    // What only announces an answer waits for what follows, and then somebody else makes all of it.
    let is_passed = format!("{inbound:?}") == format!("{tongue:?}");
    if is_passed && !silent && count > 0 && count <= before(tongue) {
        assert_eq!(told.text, alone(&router, inbound, "", ASKED).await, "{case}: {body}");
        assert!(got.route().starts_with("demo; pool=p"), "{case}: {}", got.route());
        return;
    }
    // What a chat has begun goes on as one.
    let speaks = if tongue == Tongue::Completions { inbound } else { Inbound::Chat };
    let rest = alone(&router, speaks, &text, ASKED - used).await;
    assert_eq!(told.text, text + &rest, "{case}: {body}");
    assert!(inbound.ends(&body) && !inbound.breaks(&body), "{case}: {body}");
    assert!(body.contains("\"continued_by\":\"demo\""), "{case}: {body}");
    // One answer of one model, with one item in it.
    let names = if inbound == Inbound::Gemini { 1 } else { 2 };
    assert!(told.names.len() <= names, "{case}: {told:?}");
    assert!(got.route().starts_with("ill/m; pool=p"), "{case}");
    if inbound != Inbound::Chat
        && ["max_tokens", "incomplete", "MAX_TOKENS"].contains(&&*told.finish)
    {
        assert_eq!(told.usage.1, ASKED, "{case}: {body}");
    }
    if silent {
        until("the provider is left", || ill.left() == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_goes_on_wherever_it_is_cut() {
    let mut cases = Vec::new();
    for (way, (inbound, kind, tongue, most)) in WAYS.into_iter().enumerate() {
        // Nothing that is translated leaves before the first word of it.
        let passes = format!("{inbound:?}") == format!("{tongue:?}");
        for count in if passes { 1 } else { before(tongue) + 1 }..=most {
            cases.push(((inbound, kind, tongue), count, (way + count) % 4));
        }
    }
    let all = stream::iter(cases).map(|(way, count, how)| case(way, count, how));
    all.buffer_unordered(4).for_each(|()| async {}).await;
}

/// How a request is made that is broken off behind its second token.
pub(crate) struct Case<'a> {
    pub(crate) kind: &'a str,
    pub(crate) inbound: Inbound,
    /// Fields of the request's body.
    pub(crate) more: Value,
    /// Further lines of the pool.
    pub(crate) pool: &'a str,
}

/// Each is answered with these events, and the caller is told that they broke off.
pub(crate) async fn refused(
    what: &str,
    case: &Case<'_>,
    script: impl Fn(Tongue) -> Vec<String> + Send + Sync + 'static,
) {
    let ill = Upstream::start(move |seen| cut(&script(seen.tongue()), Step::Close)).await;
    let text = config(case.kind, &ill, "\"org/fake\"");
    let text = text.replace("broken_stream = \"continue\"\n", case.pool);
    let fake = Fake::start(Setup {
        routes: routes(&text, &["org/fake"]).expect("a configuration"),
        ..Setup::default()
    });
    let (path, mut body) = case.inbound.request("p", true, "hi");
    for (name, value) in case.more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    let got = send(&fake.router, request("", &path, &body)).await;
    assert_eq!(got.status, 200, "{what}: {}", got.text());
    broken(what, case.inbound, &got.text());
    assert_eq!(fake.steps.load(std::sync::atomic::Ordering::SeqCst), 0, "{what}");
}

/// It ends with an error, and says nothing of anybody who goes on.
fn broken(what: &str, inbound: Inbound, body: &str) {
    assert!(inbound.breaks(body) && !inbound.ends(body), "{what}: {body}");
    assert!(!body.contains("continued_by") && !body.contains(SPEECH), "{what}: {body}");
}

pub(crate) const CONTINUE: &str = "broken_stream = \"continue\"\n";

/// Events up to the second token.
pub(crate) fn two(tongue: Tongue) -> Vec<String> {
    events(tongue, "first")[..before(tongue) + 2].to_vec()
}

/// Events up to the second token, and the beginning of a call.
fn call(tongue: Tongue) -> Vec<String> {
    let mut all = two(tongue);
    if tongue == Tongue::Messages {
        let block = json!({ "type": "tool_use", "id": "t1", "name": "f", "input": {} });
        let start = json!({ "type": "content_block_start", "index": 1, "content_block": block });
        let stop = json!({ "type": "content_block_stop", "index": 0 });
        for event in [stop, start] {
            all.push(format!("event: {}\ndata: {event}\n\n", event["type"].as_str().expect("one")));
        }
    } else {
        let call = json!({ "index": 0, "id": "t1", "function": { "name": "f", "arguments": "{" } });
        let choice = json!({ "index": 0, "delta": { "tool_calls": [call] } });
        let chunk = json!({ "id": "c1", "object": "chat.completion.chunk", "created": 1,
            "model": "m", "choices": [choice] });
        all.push(format!("data: {chunk}\n\n"));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_continued_ends_with_an_error() {
    for (inbound, kind) in [
        (Inbound::Chat, "compatible"),
        (Inbound::Chat, "anthropic"),
        (Inbound::Messages, "compatible"),
        (Inbound::Messages, "anthropic"),
    ] {
        let case = |more: Value, pool| Case { kind, inbound, more, pool };
        let tool = match inbound {
            Inbound::Messages => json!({ "name": "f", "input_schema": { "type": "object" } }),
            _ => json!({ "type": "function", "function": { "name": "f" } }),
        };
        let what = format!("{inbound:?} {kind}");
        refused(&format!("a call, {what}"), &case(json!({ "tools": [tool] }), CONTINUE), call)
            .await;
        refused(&format!("no word of it, {what}"), &case(json!({}), ""), two).await;
        let error = "broken_stream = \"error\"\n";
        refused(&format!("an error, {what}"), &case(json!({}), error), two).await;
        // The first two tokens are all that was asked for.
        let bound = json!({ "max_tokens": 2 });
        refused(&format!("no token is left, {what}"), &case(bound, CONTINUE), two).await;
    }
    let schema = json!({ "type": "json_schema", "json_schema": { "name": "s", "schema": {} } });
    for (what, more) in [
        ("scores", json!({ "logprobs": true })),
        ("a shape", json!({ "response_format": schema })),
        ("choices", json!({ "n": 2 })),
        ("what no model here knows", json!({ "top_k_of_tomorrow": 1 })),
    ] {
        let case = Case { kind: "compatible", inbound: Inbound::Chat, more, pool: CONTINUE };
        refused(what, &case, two).await;
    }
    for (what, more) in [
        ("an echo", json!({ "echo": true })),
        ("scores", json!({ "logprobs": 1 })),
        ("several texts", json!({ "prompt": ["a", "b"] })),
        ("tokens of another model", json!({ "prompt": [1, 2, 3] })),
    ] {
        let inbound = Inbound::Completions;
        let case = Case { kind: "vllm", inbound, more, pool: CONTINUE };
        refused(what, &case, two).await;
    }
}

/// Two attempts at one operation. What the caller is told was used is what both used, and who goes
/// on is told in the stream.
#[tokio::test(flavor = "multi_thread")]
async fn both_attempts_are_booked() {
    for (inbound, kind) in [
        (Inbound::Chat, "compatible"),
        (Inbound::Messages, "compatible"),
        (Inbound::Chat, "anthropic"),
        (Inbound::Messages, "anthropic"),
        (Inbound::Responses, "openai"),
        (Inbound::Gemini, "gemini"),
        (Inbound::Completions, "vllm"),
    ] {
        let ill = Upstream::start(|seen| cut(&two(seen.tongue()), end())).await;
        let house = House::new().await;
        let config = config(kind, &ill, "\"org/fake\"");
        let config = config.replace("\"ill/m\"", "{ target = \"ill/m\", arm = \"a\" }");
        let fake = house.gateway(&config, Setup::default());
        let master = Master::parse(Master::generate().expose()).expect("a key");
        house.governor.record_with(Arc::new(Keyring { current: master, old: Vec::new() }));
        let key = house.key(&fake.router, "team", json!({ "record": "full" })).await;
        let (path, mut body) = inbound.request("p", true, "hi");
        if matches!(inbound, Inbound::Chat | Inbound::Completions) {
            body["stream_options"] = json!({ "include_usage": true });
        }
        let got = send(&fake.router, request(&key, &path, &body)).await;
        let text = got.text();
        let told = told(inbound, &text);
        assert_eq!(told.text, format!("Hello from{SPEECH}"), "{text}");
        let lines = house.settled(&fake.router, 2).await;
        let seen: Vec<_> = lines
            .iter()
            .map(|line| {
                (line["attempt"].as_u64(), line["backend"].as_str(), line["outcome"].as_str())
            })
            .collect();
        let done = (Some(2), Some("local"), Some("done"));
        assert_eq!(seen, [done, (Some(1), Some("ill"), Some("failed"))], "{lines:?}");
        assert_eq!(lines[0]["operation"], lines[1]["operation"]);
        assert_eq!(lines[0]["request_id"], lines[1]["request_id"]);
        assert_eq!((&lines[0]["arm"], &lines[1]["arm"]), (&json!(""), &json!("a")));
        let sum = |name: &str| lines.iter().filter_map(|line| line["tokens"][name].as_u64()).sum();
        assert_eq!(told.usage, (sum("input"), sum("output")), "{text} {lines:?}");
        assert!(lines.iter().all(|line| line["tokens"]["output"] != 0), "{lines:?}");
        // What is recorded is the whole answer, once.
        let id = lines[0]["operation"].as_str().expect("an id");
        let line = format!("GET /bodies/{id}");
        let recorded = house.admin(&fake.router, &line, &Value::Null).await;
        let attempts = recorded["attempts"].as_array().expect("attempts");
        assert_eq!(attempts.len(), 1, "{recorded}");
        assert_eq!(attempts[0]["answer"], json!(text), "{recorded}");
        assert_eq!(attempts[0]["request"], json!(body.to_string()), "{recorded}");
        if inbound == Inbound::Gemini {
            assert_eq!(text.matches("\"continued_by\":\"org/fake\"").count(), 1, "{text}");
            continue;
        }
        // Where it changes hands, and at the end.
        assert_eq!(text.matches("\"continued_by\":\"org/fake\"").count(), 2, "{text}");
        let seam = text.find(": hearth {\"continued_by\"").expect("a comment");
        assert!(text[..seam].contains(" from") && !text[..seam].contains("rld"), "{text}");
    }
}

/// What may not go to the model here does not go there, in the middle of an answer either.
#[tokio::test(flavor = "multi_thread")]
async fn labels_and_policies_bind() {
    let ill = Upstream::start(|seen| cut(&two(seen.tongue()), end())).await;
    let low = "{ target = \"org/fake\", max_label = \"public\" }";
    let long = "x".repeat(600);
    for (what, own, policy, text, goes_on) in [
        ("its label", low, json!({ "label": "internal" }), "hi", false),
        ("no label above it", low, json!({ "label": "public" }), "hi", true),
        // The provider's tokens are estimated, ours are counted: a byte each.
        ("its length", "\"org/fake\"", json!({ "max_context": 500 }), &*long, false),
        ("enough room", "\"org/fake\"", json!({ "max_context": 2_000 }), &*long, true),
    ] {
        let house = House::new().await;
        let fake = house.gateway(&config("compatible", &ill, own), Setup::default());
        let key = house.key(&fake.router, "team", policy).await;
        let (path, body) = Inbound::Chat.request("p", true, text);
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert_eq!(got.status, 200, "{what}: {}", got.text());
        if goes_on {
            assert_eq!(told(Inbound::Chat, &got.text()).text, format!("Hello from{SPEECH}"));
        } else {
            broken(what, Inbound::Chat, &got.text());
            let lines = house.settled(&fake.router, 1).await;
            assert_eq!((lines.len(), &lines[0]["outcome"]), (1, &json!("failed")), "{lines:?}");
        }
    }
}

/// A model here that dies, or has no room for the text, goes on with nothing.
#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_go_on_does_not() {
    let ill = Upstream::start(|seen| cut(&two(seen.tongue()), end())).await;
    for setup in
        [Setup { fail_at: Some(0), ..Setup::default() }, Setup { context: 16, ..Setup::default() }]
    {
        let text = config("compatible", &ill, "\"org/fake\"");
        let routes = routes(&text, &["org/fake"]).expect("a configuration");
        let fake = Fake::start(Setup { routes, ..setup });
        let (path, body) = Inbound::Chat.request("p", true, "hi");
        let got = send(&fake.router, request("", &path, &body)).await;
        broken("an engine that cannot", Inbound::Chat, &got.text());
    }
}

/// Whoever leaves while somebody else goes on keeps nobody busy, and pays for what was read.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_frees_everything() {
    let ill = Upstream::start(|seen| cut(&two(seen.tongue()), Step::Silence)).await;
    for inbound in [Inbound::Chat, Inbound::Messages] {
        let house = House::new().await;
        let pace = Duration::from_millis(3);
        let setup = Setup { endless: true, pace, ..Setup::default() };
        let fake = house.gateway(&config("compatible", &ill, "\"org/fake\""), setup);
        let key = house.key(&fake.router, "team", json!({})).await;
        let address = listen(fake.router.clone()).await;
        let (path, mut body) = inbound.request("p", true, "hi");
        body["max_tokens"] = 3_000.into();
        let mut client = asked(address, &key, &path, &body).await;
        read_until(&mut client, "three").await;
        // A provider that is silent has been left by now.
        let left = ill.left();
        until("the provider is left", || ill.left() == ill.count()).await;
        assert!(left <= ill.count());
        drop(client);
        fake.idle().await;
        let lines = house.settled(&fake.router, 2).await;
        let outcomes: Vec<_> = lines.iter().map(|line| line["outcome"].as_str()).collect();
        assert_eq!(outcomes, [Some("cancelled"), Some("failed")], "{lines:?}");
        assert!(lines[0]["tokens"]["output"].as_u64() > Some(5), "{lines:?}");
    }
}

/// When all streams break, a fifth of a pool's requests is continued, beside a few in any case.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_continued_is_tried_again() {
    let ill = Upstream::start(|seen| cut(&two(seen.tongue()), end())).await;
    let names: Vec<String> = (0..40).map(|at| format!("ill/m{at}")).collect();
    // Each is asked once, so that none is left alone for its failures.
    let rules =
        names.iter().map(|to| format!("{{ metadata = {{ turn = \"{to}\" }}, to = [\"{to}\"] }}"));
    let text = format!(
        "{}[pools.p]\ntargets = {names:?}\nfallback = [\"org/fake\"]\nrules = [{}]\n{CONTINUE}",
        provider("ill", "compatible", &ill.url, ""),
        rules.collect::<Vec<_>>().join(", ")
    );
    let routes = routes(&text, &["org/fake"]).expect("a configuration");
    let fake = Fake::start(Setup { routes, ..Setup::default() });
    let mut continued = 0;
    for to in &names {
        let (path, mut body) = Inbound::Chat.request("p", true, "hi");
        body["metadata"] = json!({ "turn": to });
        let got = send(&fake.router, request("", &path, &body)).await;
        continued += u32::from(got.text().contains("continued_by"));
    }
    assert!((25..=28).contains(&continued), "{continued}");
    assert_eq!(ill.count(), 40);
}

/// Its beginning was drawn elsewhere, so that the same request is answered anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_continued_is_not_given_again() {
    let ill = Upstream::start(|seen| cut(&two(seen.tongue()), end())).await;
    let routes = routes(&config("compatible", &ill, "\"org/fake\""), &["org/fake"]);
    let (ttl, bytes_max) = (Duration::from_secs(600), 1 << 20);
    let cache = Some(Settings { ttl, bytes_max, any: false, shared: None });
    let routes = routes.expect("a configuration");
    let fake = Fake::start(Setup { routes, cache, ..Setup::default() });
    let (path, mut body) = Inbound::Chat.request("p", true, "hi");
    body["temperature"] = 0.into();
    for count in 1..=2 {
        let got = send(&fake.router, request("", &path, &body)).await;
        assert_eq!(told(Inbound::Chat, &got.text()).text, format!("Hello from{SPEECH}"));
        assert_eq!((got.header("x-hearth-cache"), ill.count()), ("miss", count));
    }
    // What comes whole is.
    ill.turn(|seen| crate::speech::good(seen, "first"));
    for expect in ["miss", "hit"] {
        let got = send(&fake.router, request("", &path, &body)).await;
        assert_eq!(got.header("x-hearth-cache"), expect, "{}", got.text());
    }
}

/// A pool that has nobody to go on cannot promise it.
#[test]
fn somebody_must_be_there() {
    let base = "[providers.a]\nkind = \"compatible\"\nbase_url = \"http://127.0.0.1:1/v1\"\n";
    let pool = "[pools.p]\ntargets = [\"a/m\"]\nbroken_stream = \"continue\"\n";
    let refused = routes(&format!("{base}{pool}"), &["own"]).err().expect("refused");
    assert!(refused.contains("[pools.p]: broken_stream: none"), "{refused}");
    let fallback = format!("{base}{pool}fallback = [\"own\"]\n");
    assert!(routes(&fallback, &["own"]).is_ok());
}
