//! A node that is lost in the middle of an answer: the caller does not see it.

use std::time::{Duration, Instant};

use axum::body::Body;
use gateway::backend::local::EngineState;
use gateway::route::Routes;
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::client::{get, open, post};
use crate::fake::Setup;
use crate::kit::{Gateway, SPEECH, Site, ask, chat, said, until};

const CHAT: &str = "/v1/chat/completions";

fn slow() -> Setup {
    Setup { speech: SPEECH, pace: Duration::from_millis(2), ..Setup::default() }
}

/// Reads a stream until a text has come.
pub(crate) async fn read_until(body: &mut Body, text: &str, seen: &mut String) {
    while !seen.contains(text) {
        let frame = body.frame().await.expect("more").expect("no break");
        seen.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("UTF-8"));
    }
}

/// A stream in the middle of its answer: who makes it, and what has come of it.
pub(crate) async fn under_way<'s>(
    gateway: &Gateway,
    [one, two]: [&'s Site; 2],
) -> (&'s Site, Body, String) {
    let body = chat(&json!({"stream": true})).to_string();
    let response = open(&gateway.router, "/v1/chat/completions", body).await;
    let route = response.headers()["x-hearth-route"].to_str().expect("text").to_owned();
    let first = if route.contains(&one.wire.address.to_string()) { one } else { two };
    let (mut body, mut seen) = (response.into_body(), String::new());
    read_until(&mut body, "two", &mut seen).await;
    (first, body, seen)
}

/// The text that a stream's chunks make.
pub(crate) fn text(stream: &str) -> String {
    let chunks = stream.lines().filter_map(|line| line.strip_prefix("data: {"));
    let contents = chunks.map(|chunk| {
        let chunk: serde_json::Value = serde_json::from_str(&format!("{{{chunk}")).expect("JSON");
        chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
    });
    contents.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_the_engine_itself() {
    let (one, two) = (Site::start(slow()).await, Site::start(slow()).await);
    let gateway = Gateway::of(&[&one, &two]).await;
    let bodies = [
        json!({}),
        json!({"n": 3, "temperature": 1.5}),
        json!({"logprobs": true, "top_logprobs": 2}),
        json!({"max_tokens": 7}),
        json!({"stop": "three."}),
        json!({"prompt_logprobs": 1}),
    ];
    for more in bodies {
        let body = chat(&more);
        let (here, there) = (ask(&one.fake.router, &body).await, ask(&gateway.router, &body).await);
        assert_eq!(said(&there), said(&here), "{more}");
        let route = there.headers["x-hearth-route"].to_str().expect("text");
        assert!(route.starts_with("org/fake; node=127.0.0.1:"), "{route}");
    }
    let list = get(&gateway.router, "/v1/models").await.json();
    assert_eq!(list["data"][0]["id"], "org/fake");
    assert_eq!(get(&gateway.router, "/ready").await.status, 200);
    // What depends on the tokenizer alone needs no node.
    let asked = json!({"model": "org/fake", "prompt": "Hello one"}).to_string();
    let (here, there) = (
        post(&one.fake.router, "/tokenize", asked.clone()).await,
        post(&gateway.router, "/tokenize", asked).await,
    );
    assert_eq!(there.json(), here.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_at_any_byte_is_not_seen() {
    let (one, two) = (Site::start(slow()).await, Site::start(slow()).await);
    let gateway = Gateway::of(&[&one, &two]).await;
    let bodies = [json!({"n": 2}), json!({"logprobs": true, "top_logprobs": 1})];
    let bodies = bodies.map(|more| chat(&more));
    let wanted = [ask(&one.fake.router, &bodies[0]).await, ask(&one.fake.router, &bodies[1]).await];
    for round in 0..24_u64 {
        // Both in turn, so that a second cut meets the stream where it went.
        one.wire.cut_after(120 + round * 97);
        two.wire.cut_after(150 + round * 61);
        let at = usize::from(round % 2 == 1);
        let answer = ask(&gateway.router, &bodies[at]).await;
        assert_eq!(said(&answer), said(&wanted[at]), "round {round}");
        gateway.nodes(2).await;
    }
    let resumed = gateway.figure("hearth_cluster_resumes_total{model=\"org/fake\"}");
    assert!(resumed >= 12.0, "{resumed} resumes");
    one.fake.idle().await;
    two.fake.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_out_within_two_seconds_and_its_late_words_count_for_nothing() {
    let site = || Site::start(Setup { pace: Duration::from_millis(15), ..slow() });
    let (one, two) = (site().await, site().await);
    let gateway = Gateway::of(&[&one, &two]).await;
    let wanted = ask(&one.fake.router, &chat(&json!({}))).await.json();
    let (first, mut body, mut seen) = under_way(&gateway, [&one, &two]).await;
    first.wire.stall(true);
    let paused = Instant::now();
    until("it is out", || gateway.up() == 1).await;
    assert!(paused.elapsed() < Duration::from_millis(2_600), "{:?}", paused.elapsed());
    read_until(&mut body, "[DONE]", &mut seen).await;
    let took = paused.elapsed();
    assert!(took > Duration::from_millis(1_000) && took < Duration::from_secs(4), "{took:?}");
    assert_eq!(text(&seen), wanted["choices"][0]["message"]["content"].as_str().expect("text"));
    assert_eq!(gateway.up(), 1);
    // It wakes: what it has to say is read by nobody, and it is in again.
    first.wire.stall(false);
    gateway.nodes(2).await;
    let again = ask(&gateway.router, &chat(&json!({}))).await.json();
    assert_eq!(again["choices"], wanted["choices"]);
    first.fake.idle().await;
}

/// The process lives and beats; its device does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_device_hangs_loses_its_streams_to_another() {
    let hangs = Some(Duration::from_millis(400));
    let site = || Site::start(Setup { hangs, ..slow() });
    let (one, two) = (site().await, site().await);
    let gateway = Gateway::of(&[&one, &two]).await;
    let wanted = ask(&one.fake.router, &chat(&json!({}))).await.json();
    let (first, mut body, mut seen) = under_way(&gateway, [&one, &two]).await;
    first.fake.gate.close();
    let begun = Instant::now();
    read_until(&mut body, "[DONE]", &mut seen).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(text(&seen), wanted["choices"][0]["message"]["content"].as_str().expect("text"));
    assert_eq!(gateway.up(), 2, "it speaks");
    // It gets nothing, though prompts alike went there.
    for _ in 0..4 {
        let answer = ask(&gateway.router, &chat(&json!({}))).await;
        let route = answer.headers["x-hearth-route"].to_str().expect("text");
        assert!(!route.contains(&first.wire.address.to_string()), "{route}");
    }
    first.fake.gate.open();
    let engine = first.model().engine.clone();
    until("it goes on", || engine.state() == EngineState::Ready).await;
    first.fake.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_node_callers_are_told_when_to_come_again() {
    let one = Site::start(slow()).await;
    let gateway = Gateway::start(&[one.wire.address]);
    // Not known yet: not ready, and no mistake of the caller.
    let early = post(&gateway.router, "/v1/chat/completions", chat(&json!({})).to_string()).await;
    assert!([200, 503].contains(&early.status), "{}", early.body);
    gateway.model("org/fake").await;
    one.wire.kill(true);
    gateway.nodes(0).await;
    // It may be back within a moment, which is waited for once.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let begun = Instant::now();
    let answer = post(&gateway.router, "/v1/chat/completions", chat(&json!({})).to_string()).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.headers.contains_key("retry-after") && begun.elapsed() < Duration::from_secs(1));
    assert!(answer.body.contains("no node that serves org/fake is there"), "{}", answer.body);
    assert_eq!(get(&gateway.router, "/ready").await.status, 503);
    one.wire.kill(false);
    gateway.nodes(1).await;
    ask(&gateway.router, &chat(&json!({}))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_request_waits_a_moment_for_its_only_node() {
    let one = Site::start(slow()).await;
    let pool = "[pools.p]\ntargets = [\"gone\", \"org/fake\"]\n";
    let here = ["gone", "org/fake"].map(str::to_owned);
    let routes = Routes::new(&toml::from_str(pool).expect("a pool"), &here).expect("routes");
    let gateway = Gateway::routed(&[one.wire.address], routes);
    gateway.model("org/fake").await;
    for model in ["org/fake", "p"] {
        for stream in [false, true] {
            one.wire.kill(true);
            gateway.nodes(0).await;
            let router = gateway.router.clone();
            let body = chat(&json!({ "model": model, "stream": stream }));
            let asked = tokio::spawn(async move { post(&router, CHAT, body.to_string()).await });
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(!asked.is_finished(), "it waits");
            one.wire.kill(false);
            let answer = asked.await.expect("no panic");
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_waits_a_moment_for_its_only_node_and_then_says_why_it_ends() {
    let one = Site::start(slow()).await;
    let gateway = Gateway::of(&[&one]).await;
    let wanted = ask(&one.fake.router, &chat(&json!({}))).await;
    // It comes back within the moment.
    one.wire.cut_after(900);
    let answer = ask(&gateway.router, &chat(&json!({}))).await;
    assert_eq!(said(&answer), said(&wanted));
    gateway.nodes(1).await;
    // It does not.
    let body = chat(&json!({"stream": true})).to_string();
    let mut body = open(&gateway.router, "/v1/chat/completions", body).await.into_body();
    let mut seen = String::new();
    read_until(&mut body, "one", &mut seen).await;
    one.wire.kill(true);
    let begun = Instant::now();
    read_until(&mut body, "error", &mut seen).await;
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(8), "{took:?}");
    assert!(!seen.contains("[DONE]") || seen.find("error") < seen.find("[DONE]"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_finishes_and_gets_nothing_new() {
    let site = || Site::start(Setup { pace: Duration::from_millis(10), ..slow() });
    let (one, two) = (site().await, site().await);
    let gateway = Gateway::of(&[&one, &two]).await;
    let wanted = ask(&one.fake.router, &chat(&json!({}))).await;
    let running: Vec<_> = (0..8)
        .map(|number| {
            let router = gateway.router.clone();
            // Of a prompt that a node holds it would get all.
            let body =
                chat(&json!({"messages": [{"role": "user", "content": format!("{number}?")}]}));
            tokio::spawn(async move { ask(&router, &body).await.json() })
        })
        .collect();
    let open = || (one.model().engine.open(), two.model().engine.open());
    until("both have some", || open().0 > 0 && open().1 > 0 && open().0 + open().1 == 8).await;
    let model = one.model();
    let drain = tokio::spawn(async move { model.engine.drain(Duration::from_secs(20)).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let steps = one.fake.launched.lock().expect("the time").expect("it has run");
    for _ in 0..4 {
        assert_eq!(said(&ask(&gateway.router, &chat(&json!({}))).await), said(&wanted));
    }
    assert_eq!(*one.fake.launched.lock().expect("the time"), Some(steps), "nothing new began");
    for answer in running {
        assert_eq!(answer.await.expect("no panic")["choices"], wanted.json()["choices"]);
    }
    assert!(drain.await.expect("no panic"), "what it had came to its end");
    assert_eq!(gateway.figure("hearth_cluster_resumes_total{model=\"org/fake\"}"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_up_frees_the_node() {
    let one = Site::start(Setup { endless: true, ..slow() }).await;
    let gateway = Gateway::of(&[&one]).await;
    let body = chat(&json!({"stream": true, "max_tokens": 4000})).to_string();
    let mut body = open(&gateway.router, "/v1/chat/completions", body).await.into_body();
    read_until(&mut body, "one", &mut String::new()).await;
    assert_eq!(one.model().engine.open(), 1);
    drop(body);
    one.fake.idle().await;
    let model = gateway.model("org/fake").await;
    until("the gateway has ended it", || model.engine.open() == 0).await;
    until("pages are free", || one.model().engine.stats().pages_held == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_cluster_says_so_and_says_it_soon() {
    let pace = Duration::from_millis(5);
    let one = Site::start(Setup { endless: true, pace, rows: 1, waiting: 1, ..slow() }).await;
    let gateway = Gateway::of(&[&one]).await;
    let body = chat(&json!({"max_tokens": 300})).to_string();
    let begun = Instant::now();
    let all: Vec<_> = (0..8)
        .map(|_| {
            let (router, body) = (gateway.router.clone(), body.clone());
            tokio::spawn(async move {
                let answer = post(&router, "/v1/chat/completions", body).await;
                (answer.status, answer.headers.contains_key("retry-after"), begun.elapsed())
            })
        })
        .collect();
    let (mut served, mut refused) = (0, 0);
    for answer in all {
        match answer.await.expect("no panic") {
            (200, ..) => served += 1,
            (429, true, took) => {
                assert!(took < Duration::from_secs(1), "{took:?}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((served, refused), (2, 6));
}
