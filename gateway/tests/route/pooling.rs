//! Embeddings, rankings, scores and plain completions through providers: what goes there and comes
//! back, who is asked when one fails, who never is, and what the books say.

use std::sync::Arc;
use std::time::Duration;

use gateway::backend::Task;
use gateway::backend::embed::Options;
use serde_json::{Value, json};

use crate::caller::{Answer, gateway, provider, request, send};
use crate::fake::{Fake, Setup};
use crate::governed::House;
use crate::reader::{Reader, pool_model};
use crate::speech::answer;
use crate::upstream::{Seen, Step, Upstream};

/// What a provider says: vectors, rankings in the dialect of the path, scores, texts.
pub(crate) fn numbers(seen: &Seen) -> Vec<Step> {
    let usage = json!({ "prompt_tokens": 7, "total_tokens": 7 });
    let ranks = |more: Value| {
        let mut ranks = json!({ "results": [
            { "index": 1, "relevance_score": 0.75 }, { "index": 0, "relevance_score": 0.25 }] });
        ranks.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("one"));
        ranks
    };
    let body = match &*seen.path {
        path if path.ends_with("/v2/rerank") => ranks(json!({ "id": "far",
            "meta": { "billed_units": { "search_units": 1 }, "tokens": { "input_tokens": 7 } } })),
        path if path.ends_with("/rerank") => ranks(json!({ "model": "m", "usage": usage })),
        path if path.ends_with("/score") => json!({ "object": "list", "usage": usage,
            "data": [{ "index": 0, "object": "score", "score": 0.5 }] }),
        path if path.ends_with("/completions") => json!({ "object": "text_completion",
            "choices": [{ "index": 0, "text": "there", "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9 } }),
        _ => json!({ "object": "list", "model": "m", "usage": usage,
            "data": [{ "object": "embedding", "index": 0, "embedding": [0.5, -1.0] }] }),
    };
    answer(200, "", format!(" {body}").as_bytes())
}

/// Path and body of a request for each route.
fn routes(model: &str) -> [(&'static str, Value); 5] {
    let ranking = json!({ "model": model, "query": "q", "documents": ["a", "b"] });
    [
        ("/v1/embeddings", json!({ "model": model, "input": ["hi"] })),
        ("/v1/rerank", ranking.clone()),
        ("/v2/rerank", ranking),
        ("/v1/score", json!({ "model": model, "text_1": "a", "text_2": "b" })),
        ("/v1/completions", json!({ "model": model, "prompt": "hi", "max_tokens": 3 })),
    ]
}

/// Where a provider of this kind is asked; `None`: it is not.
fn far(kind: &str, path: &str) -> Option<&'static str> {
    match (kind, path) {
        ("hearth", "/v1/embeddings") | ("jina", "/v1/embeddings") => Some("/v1/embeddings"),
        ("compatible", "/v1/embeddings") => Some("/v1/embeddings"),
        ("cohere", "/v1/embeddings") => Some("/v1/compatibility/v1/embeddings"),
        ("hearth" | "jina", "/v1/rerank" | "/v2/rerank") => Some("/v1/rerank"),
        ("cohere", "/v1/rerank" | "/v2/rerank") => Some("/v1/v2/rerank"),
        ("hearth", "/v1/score") => Some("/v1/score"),
        ("hearth", "/v1/completions") => Some("/v1/completions"),
        _ => None,
    }
}

const KINDS: [&str; 5] = ["hearth", "jina", "cohere", "compatible", "anthropic"];

async fn ask(router: &axum::Router, path: &str, body: &Value) -> Answer {
    send(router, request("", path, body)).await
}

/// The words of an error, in whatever shape.
fn words(got: &Answer) -> String {
    let body: Value = serde_json::from_slice(&got.bytes).expect("JSON");
    let words = body["error"]["message"].as_str().or(body["message"].as_str());
    words.unwrap_or_else(|| panic!("{body}")).to_owned()
}

#[tokio::test]
async fn every_route_by_every_kind() {
    let upstream = Upstream::start(numbers).await;
    let config: String = KINDS.map(|kind| provider(kind, kind, &upstream.url, "")).concat();
    let router = gateway(&config);
    for kind in KINDS {
        for (path, body) in routes(&format!("{kind}/some/m")) {
            // Of a prompt they make a chat.
            if path == "/v1/completions" && !["hearth", "jina"].contains(&kind) {
                continue;
            }
            let before = upstream.count();
            let got = ask(&router, path, &body).await;
            let Some(far) = far(kind, path) else {
                assert_eq!((got.status, upstream.count()), (400, before), "{kind} {path}");
                let words = words(&got);
                assert!(words.starts_with(&format!("The provider '{kind}' does not ")), "{words}");
                continue;
            };
            assert_eq!(got.status, 200, "{kind} {path}: {}", got.text());
            assert_eq!(got.header("content-type"), "application/json");
            let route = format!("{kind}/some/m; pool={kind}/some/m; reason=priority; attempt=1");
            assert_eq!(got.route(), route);
            let seen = upstream.seen().pop().expect("a request");
            assert_eq!((&*seen.path, seen.json()["model"].as_str()), (far, Some("some/m")));
            let said: Value = serde_json::from_slice(&got.bytes).expect("JSON");
            if path.ends_with("/rerank") {
                assert_eq!(said["results"][0]["relevance_score"], 0.75, "{said}");
                assert_eq!(said["results"][0]["index"], 1, "{said}");
                let documents = &said["results"][0]["document"]["text"];
                let anew = kind == "cohere" && path == "/v1/rerank";
                assert_eq!(documents == "b", anew, "{kind} {path} {said}");
                assert_eq!(said["meta"].is_object(), path == "/v2/rerank", "{kind} {path} {said}");
                assert_eq!(said["usage"].is_object(), path == "/v1/rerank", "{kind} {path} {said}");
            } else {
                assert!(got.bytes.starts_with(b" {"), "as it was written: {}", got.text());
            }
        }
    }
    // Who ranks and embeds does not chat.
    let chat = json!({ "model": "jina/m", "messages": [{ "role": "user", "content": "hi" }] });
    let got = ask(&router, "/v1/chat/completions", &chat).await;
    assert_eq!((got.status, &*words(&got)), (400, "The provider 'jina' does not serve chats."));
}

/// Bytes that nobody here has a word for arrive as they were written.
#[tokio::test]
async fn what_is_passed_on_stays_as_it_was() {
    let upstream = Upstream::start(numbers).await;
    let config = provider("p", "hearth", &upstream.url, "");
    let router = gateway(&config);
    let body = r#"{ "input":[[1,2]], "x" : 1e400, "model" : "p/m","dimensions":2 }"#;
    let asked = axum::http::Request::post("/v1/embeddings")
        .header("content-type", "application/json")
        .header("authorization", "Bearer caller")
        .body(body.into())
        .expect("a request");
    let got = send(&router, asked).await;
    assert_eq!(got.status, 200, "{}", got.text());
    let seen = upstream.seen().pop().expect("a request");
    let sent = String::from_utf8(seen.body).expect("UTF-8");
    assert_eq!(sent, body.replace("p/m", "m"));
    let key = seen.headers.iter().find(|(name, _)| name == "authorization");
    assert_eq!(key.map(|(_, value)| &**value), Some("Bearer key-of-a-test"));
}

/// What a ranking is translated into, and what has no word there.
#[tokio::test]
async fn rankings_are_translated() {
    let upstream = Upstream::start(numbers).await;
    let lost = "lost_fields = \"drop\"\n";
    let config = [
        provider("jina", "jina", &upstream.url, ""),
        provider("kind", "jina", &upstream.url, lost),
        provider("cohere", "cohere", &upstream.url, ""),
        provider("hearth", "hearth", &upstream.url, ""),
    ];
    let router = gateway(&config.concat());
    let base = |model: &str, more: Value| {
        let mut body = json!({ "model": model, "query": "q", "documents": ["a", "b"] });
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("one"));
        body
    };
    let sent = || upstream.seen().pop().expect("a request").json();
    // The best alone, even of a provider that sends all.
    let got = ask(&router, "/v2/rerank", &base("jina/m", json!({ "top_n": 1 }))).await;
    let said: Value = serde_json::from_slice(&got.bytes).expect("JSON");
    assert_eq!(said["results"], json!([{ "index": 1, "relevance_score": 0.75 }]));
    assert_eq!(said["meta"]["tokens"]["input_tokens"], 7, "{said}");
    assert_eq!(sent(), base("m", json!({ "top_n": 1, "return_documents": false })));
    // Engines know how to cut.
    let more = json!({ "max_tokens_per_doc": 5 });
    let got = ask(&router, "/v2/rerank", &base("hearth/m", more.clone())).await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert_eq!(
        (&sent()["max_tokens_per_doc"], &sent()["truncate_prompt_tokens"]),
        (&json!(5), &json!(-1))
    );
    // Others do not: refused by name, or dropped and named.
    let before = upstream.count();
    let got = ask(&router, "/v2/rerank", &base("jina/m", more.clone())).await;
    assert_eq!((got.status, upstream.count()), (400, before), "{}", got.text());
    assert!(words(&got).contains("'max_tokens_per_doc'"), "{}", got.text());
    let got = ask(&router, "/v2/rerank", &base("kind/m", more)).await;
    assert_eq!((got.status, got.header("x-hearth-dropped")), (200, "max_tokens_per_doc"));
    let more = json!({ "truncate_prompt_tokens": 8, "return_documents": false });
    let got = ask(&router, "/v1/rerank", &base("cohere/m", more)).await;
    assert_eq!((got.status, words(&got).contains("'truncate_prompt_tokens'")), (400, true));
    let got = ask(&router, "/v1/rerank", &base("cohere/m", json!({}))).await;
    let said: Value = serde_json::from_slice(&got.bytes).expect("JSON");
    let expect = json!({ "index": 1, "relevance_score": 0.75, "document": { "text": "b" } });
    assert_eq!((&said["results"][0], &said["model"]), (&expect, &json!("cohere/m")));
    assert_eq!(said["usage"]["total_tokens"], 7);
    assert_eq!(sent(), base("m", json!({})));
}

/// Until an answer is whole the next target is asked; one that fails is left alone.
#[tokio::test]
async fn faults_of_providers() {
    type Fault = (&'static str, u16, fn(&Seen) -> Vec<Step>);
    let faults: [Fault; 9] = [
        ("429", 429, |_| answer(429, "retry-after: 7\r\n", b"{}")),
        ("500", 502, |_| answer(500, "", b"{}")),
        ("503", 503, |_| answer(503, "", b"")),
        ("reset", 502, |_| vec![Step::Reset]),
        ("silence", 504, |_| vec![Step::Silence]),
        ("no JSON", 502, |_| answer(200, "", b"{oops}")),
        ("an error", 502, |_| answer(200, "", b"{\"error\":{\"message\":\"no\"}}")),
        ("half", 502, |seen| {
            let Some(Step::Bytes(mut all)) = numbers(seen).pop() else { panic!("bytes") };
            all.truncate(all.len() - 9);
            vec![Step::Bytes(all), Step::Close]
        }),
        ("a page", 502, |_| {
            let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 1\r\n\r\n<";
            vec![Step::Bytes(page.into())]
        }),
    ];
    for (name, status, fault) in faults {
        let (ill, well) = (Upstream::start(fault).await, Upstream::start(numbers).await);
        let times = "first_byte_timeout = \"400ms\"\n";
        let config = format!(
            "{}{}[pools.one]\ntargets = [\"ill/m\"]\n\
             [pools.two]\ntargets = [\"ill/n\", \"well/m\"]\n",
            provider("ill", "hearth", &ill.url, times),
            provider("well", "hearth", &well.url, times),
        );
        let router = gateway(&config);
        for (path, body) in routes("two") {
            let got = ask(&router, path, &body).await;
            assert_eq!(got.status, 200, "{name} {path}: {}", got.text());
            assert!(got.route().starts_with("well/m; pool=two;"), "{name}: {}", got.route());
        }
        let asked = if name == "429" { 1 } else { 3 };
        assert_eq!((ill.count(), well.count()), (asked, 5), "{name}: then it is left alone");
        let (path, body) = &routes("one")[2];
        let got = ask(&router, path, body).await;
        assert_eq!(got.status, status, "{name}: {}", got.text());
        assert_eq!(got.header("retry-after") == "7", name == "429", "{name}");
        let shown: Value = serde_json::from_slice(&got.bytes).expect("JSON");
        assert!(shown["id"].is_string() && shown["message"].is_string(), "{name}: {shown}");
    }
}

/// A request at fault goes to nobody else, and its error comes in the caller's own dialect.
#[tokio::test]
async fn a_request_at_fault() {
    let ill = Upstream::start(|_| answer(400, "", b"{\"message\":\"too many words\"}")).await;
    let well = Upstream::start(numbers).await;
    for kind in ["hearth", "cohere"] {
        let config = format!(
            "{}{}[pools.two]\ntargets = [\"ill/m\", \"well/m\"]\n",
            provider("ill", kind, &ill.url, ""),
            provider("well", kind, &well.url, ""),
        );
        let router = gateway(&config);
        for (path, body) in routes("two").iter().take(3) {
            let got = ask(&router, path, body).await;
            assert_eq!((got.status, well.count()), (400, 0), "{kind} {path}: {}", got.text());
            assert_eq!(words(&got), "too many words");
        }
        // Found here, before anybody is asked: only where it is translated.
        let wrong = json!({ "model": "two", "query": "q", "documents": ["a"], "top_n": 0 });
        let path = if kind == "hearth" { "/v2/rerank" } else { "/v1/rerank" };
        let (before, got) = (ill.count(), ask(&router, path, &wrong).await);
        assert_eq!((got.status, ill.count()), (400, before), "{kind}: {}", got.text());
        assert!(words(&got).contains("'top_n'"), "{}", got.text());
    }
    // A ranking of documents that nobody sent.
    let odd = Upstream::start(|_| {
        answer(200, "", b"{\"results\":[{\"index\":2,\"relevance_score\":1}]}")
    })
    .await;
    let router = gateway(&provider("p", "jina", &odd.url, ""));
    let (path, body) = &routes("p/m")[2];
    assert_eq!(ask(&router, path, body).await.status, 502);
}

/// Each is a line of the ledger with what the provider says was used, and what a label keeps back
/// is seen by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn the_books_and_the_labels() {
    let ill = Upstream::start(|_| answer(500, "", b"{}")).await;
    let upstream = Upstream::start(numbers).await;
    let house = House::new().await;
    let config = format!(
        "{}{}[pools.two]\ntargets = [\"ill/m\", \"p/m\"]\n",
        provider("ill", "hearth", &ill.url, ""),
        provider("p", "hearth", &upstream.url, ""),
    );
    let fake = house.gateway(&config, Setup::default());
    let key = house.key(&fake.router, "team", json!({})).await;
    for (count, (path, body)) in (1..).zip(routes("p/m")) {
        let got = send(&fake.router, request(&key, path, &body)).await;
        assert_eq!(got.status, 200, "{path}: {}", got.text());
        let line = &house.settled(&fake.router, count).await[0];
        let surface = match path {
            "/v1/embeddings" => "embeddings",
            "/v1/score" => "score",
            "/v1/completions" => "completion",
            _ => "rerank",
        };
        assert_eq!((&line["surface"], &line["backend"]), (&json!(surface), &json!("p")), "{line}");
        assert_eq!((&line["model"], &line["outcome"]), (&json!("p/m"), &json!("done")), "{line}");
        let output = if surface == "completion" { 2 } else { 0 };
        let used = (&line["tokens"]["input"], &line["tokens"]["output"]);
        assert_eq!(used, (&json!(7), &json!(output)), "{line}");
    }
    let (path, body) = &routes("two")[0];
    let got = send(&fake.router, request(&key, path, body)).await;
    assert_eq!(got.status, 200, "{}", got.text());
    let lines = house.settled(&fake.router, 7).await;
    let mut found: Vec<String> = lines[..2]
        .iter()
        .map(|line| format!("{} {} {}", line["backend"], line["attempt"], line["outcome"]))
        .collect();
    found.sort();
    assert_eq!(found, ["\"ill\" 1 \"failed\"", "\"p\" 2 \"done\""]);
    // A provider may see what is internal, where nobody says more.
    let secret = house.key(&fake.router, "secret", json!({ "label": "confidential" })).await;
    let before = upstream.count();
    for (path, body) in routes("p/m") {
        let got = send(&fake.router, request(&secret, path, &body)).await;
        assert_eq!((got.status, upstream.count()), (403, before), "{path}: {}", got.text());
    }
}

/// A model of this server that reads and does not write.
pub(crate) fn add_reader(fake: &Fake, name: &str) {
    let reader = Reader { scores: false, steps: Arc::default(), gate: None };
    let options =
        Options { name: name.to_owned(), queue_max: 64, request_timeout: None, step_timeout: None };
    let model = pool_model((name, Task::Embed), reader, options, fake.metrics.model(name));
    fake.models.add_pool(model);
}

/// A model of this server that answers where a provider has failed goes on with its operation: one
/// request by the rates, and a line for each attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_here_goes_on_with_the_operation() {
    let ill = Upstream::start(|_| answer(500, "", b"{}")).await;
    let house = House::new().await;
    let targets = "[pools.home]\ntargets = [\"ill/m\", \"e\"]\n";
    let config = format!("{}{targets}", provider("ill", "hearth", &ill.url, ""));
    let fake = house.gateway(&config, Setup::default());
    add_reader(&fake, "e");
    let rates = json!({ "rates": [{ "requests_per_minute": 2 }] });
    let key = house.key(&fake.router, "team", rates).await;
    let (path, body) = &routes("home")[0];
    for left in ["1", "0"] {
        let got = send(&fake.router, request(&key, path, body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
        assert_eq!(got.header("x-ratelimit-remaining-requests"), left);
    }
    assert_eq!(send(&fake.router, request(&key, path, body)).await.status, 429);
    let lines = house.settled(&fake.router, 4).await;
    let mut found: Vec<String> = lines
        .iter()
        .map(|line| format!("{} {} {}", line["model"], line["attempt"], line["outcome"]))
        .collect();
    found.sort();
    let (failed, done) = ("\"e\" 2 \"done\"", "\"ill/m\" 1 \"failed\"");
    assert_eq!(found, [failed, failed, done, done]);
    let operations: std::collections::BTreeSet<_> =
        lines.iter().map(|line| line["operation"].to_string()).collect();
    assert_eq!(operations.len(), 2, "{lines:?}");
}

/// However steadily a whole answer comes, it has to come to its end.
#[tokio::test]
async fn a_trickle_has_an_end() {
    let ill = Upstream::start(|seen| {
        let Some(Step::Bytes(all)) = numbers(seen).pop() else { panic!("bytes") };
        let (head, tail) = all.split_at(all.len() - 40);
        vec![Step::Bytes(head.into()), Step::Slowly(tail.into(), Duration::from_millis(100))]
    })
    .await;
    let well = Upstream::start(numbers).await;
    let times = "idle_timeout = \"900ms\"\ntotal_timeout = \"700ms\"\n";
    let config = format!(
        "{}{}[pools.two]\ntargets = [\"ill/n\", \"well/m\"]\n",
        provider("ill", "hearth", &ill.url, times),
        provider("well", "hearth", &well.url, times),
    );
    let router = gateway(&config);
    for number in [0, 4] {
        let (path, body) = &routes("ill/m")[number];
        let started = std::time::Instant::now();
        let got = ask(&router, path, body).await;
        assert_eq!(got.status, 504, "{path}: {}", got.text());
        assert!(started.elapsed() < Duration::from_secs(3), "{path}");
        let (path, body) = &routes("two")[number];
        let got = ask(&router, path, body).await;
        assert_eq!((got.status, got.route().starts_with("well/m")), (200, true), "{path}");
    }
}
