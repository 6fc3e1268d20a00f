//! Embeddings, rankings and scores over HTTP. Behind them runs a model that a test can hold and
//! break: its vectors say what it read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use gateway::api::{App, Keys, Limits, router};
use gateway::backend::embed::Options;
use gateway::backend::local::EngineState;
use gateway::backend::{PoolModel, Reads, Task};
use gateway::metrics::Metrics;
use gateway::models::Models;
use gateway::route::Routes;
use scheduler::types::Fault;
use serde_json::{Value, json};

use super::client::{Answer, get, post, send};
use super::fake::{Fake, Setup};
use super::reader::{CONTEXT, Reader, pool_model};

struct Server {
    router: Router,
    models: Arc<Models>,
    steps: Arc<AtomicUsize>,
    gate: Option<Sender<Result<(), Fault>>>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Held {
    gate: bool,
    queue_max: Option<usize>,
    timeout: Option<Duration>,
    hangs: Option<Duration>,
    /// How pairs are written, where they become one text.
    pair: Option<[String; 3]>,
    routes: Routes,
}

/// A server with a model that embeds, `e`, and one that ranks, `r`.
fn server(held: Held) -> Server {
    let (models, metrics) = (Models::new(), Metrics::new());
    let steps = Arc::new(AtomicUsize::new(0));
    let (send, receive) = channel();
    let mut gate = held.gate.then_some(receive);
    let reads = Reads {
        prompts: vec![("query".to_owned(), "Q:".to_owned()), ("web".to_owned(), "W".to_owned())],
        default_prompt: None,
        include_prompt: false,
        lower_case: false,
        pair: held.pair.clone(),
    };
    for (id, task) in [("e", Task::Embed), ("r", Task::Rerank)] {
        let scores = task == Task::Rerank;
        let reader = Reader { scores, steps: Arc::clone(&steps), gate: gate.take() };
        let options = Options {
            name: id.to_owned(),
            queue_max: held.queue_max.unwrap_or(64),
            request_timeout: held.timeout,
            step_timeout: held.hangs,
        };
        let model = pool_model((id, task), reader, options, metrics.model(id));
        models.add_pool(PoolModel { reads: reads.clone(), ..model });
    }
    models.set_loaded();
    let limits = Limits::default();
    let (all, count) = (Arc::clone(&models), Arc::clone(&metrics));
    let app = App::routed(all, count, Keys::default(), limits, None, held.routes);
    let gate = held.gate.then_some(send);
    Server { router: router(app), models, steps, gate, metrics }
}

async fn ask(router: &Router, path: &str, body: &Value) -> Answer {
    post(router, path, body.to_string()).await
}

/// `data[i].embedding` of an answer.
fn vectors(answer: &Answer) -> Vec<Vec<f64>> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    let list = json["data"].as_array().expect("data").clone();
    let numbers = |one: &Value| -> Vec<f64> {
        let list = one["embedding"].as_array().expect("numbers");
        list.iter().map(|n| n.as_f64().expect("a number")).collect()
    };
    list.iter().map(numbers).collect()
}

/// A byte that is its own token.
fn id(letter: u8) -> f64 {
    f64::from(letter)
}

#[tokio::test]
async fn embeddings_keep_their_order() {
    let server = server(Held::default());
    let check = async |input: Value, expect: &[[f64; 4]], tokens: u64| {
        let body = json!({"model": "e", "input": input});
        let answer = ask(&server.router, "/v1/embeddings", &body).await;
        assert_eq!(vectors(&answer), expect, "{input}");
        let json = answer.json();
        assert_eq!(json["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
        assert_eq!((&json["object"], &json["model"]), (&json!("list"), &json!("e")));
    };
    check(json!("ab"), &[[2.0, id(b'a'), id(b'b'), 0.0]], 2).await;
    check(json!([7, 8, 9]), &[[3.0, 7.0, 9.0, 0.0]], 3).await;
    // More than a step.
    let words = ["abcdefgh", "b", "cdefghijkl", "d"];
    let expect = [
        [8.0, id(b'a'), id(b'h'), 0.0],
        [1.0, id(b'b'), id(b'b'), 0.0],
        [10.0, id(b'c'), id(b'l'), 0.0],
        [1.0, id(b'd'), id(b'd'), 0.0],
    ];
    check(json!(words), &expect, 20).await;
}

#[tokio::test]
async fn base64_is_the_same_numbers() {
    let server = server(Held::default());
    let body = json!({"model": "e", "input": ["ab", "xyz"]});
    let floats = vectors(&ask(&server.router, "/v1/embeddings", &body).await);
    let body = json!({"model": "e", "input": ["ab", "xyz"], "encoding_format": "base64"});
    let packed = ask(&server.router, "/v1/embeddings", &body).await.json();
    let table = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (i, wanted) in floats.iter().enumerate() {
        let text = packed["data"][i]["embedding"].as_str().expect("text");
        let mut bits: Vec<bool> = Vec::new();
        for letter in text.bytes().filter(|letter| *letter != b'=') {
            let six = table.iter().position(|known| *known == letter).expect("base64");
            bits.extend((0..6).rev().map(|bit| six >> bit & 1 == 1));
        }
        let byte = |bits: &[bool]| bits.iter().fold(0_u8, |byte, bit| byte << 1 | u8::from(*bit));
        let bytes: Vec<u8> = bits.chunks_exact(8).map(byte).collect();
        let found: Vec<f64> = bytes
            .chunks_exact(4)
            .map(|word| f64::from(f32::from_le_bytes([word[0], word[1], word[2], word[3]])))
            .collect();
        assert_eq!(&found, wanted);
    }
}

#[tokio::test]
async fn embeddings_take_options() {
    let server = server(Held::default());
    let check = async |extra: Value, expect: [f64; 4]| {
        let mut body = json!({"model": "e", "input": "ab"});
        for (name, value) in extra.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let answer = ask(&server.router, "/v1/embeddings", &body).await;
        assert_eq!(vectors(&answer), [expect], "{extra}");
    };
    let long = "abcdefghijklmnopqrstuvwxyz";
    let (a, b) = (id(b'a'), id(b'b'));
    check(json!({"input_type": "query"}), [4.0, id(b'Q'), b, 2.0]).await;
    check(json!({"input_type": "document"}), [2.0, a, b, 0.0]).await;
    check(json!({"prompt_name": "web"}), [3.0, id(b'W'), b, 1.0]).await;
    check(json!({"input": long, "truncate_prompt_tokens": -1}), [12.0, a, id(b'l'), 0.0]).await;
    check(json!({"input": long, "truncate_prompt_tokens": 3}), [3.0, a, id(b'c'), 0.0]).await;
    let ids: Vec<u32> = (1..30).collect();
    check(json!({"input": ids, "truncate_prompt_tokens": 99}), [12.0, 1.0, 12.0, 0.0]).await;

    let body = json!({"model": "e", "input": [3, 4], "dimensions": 2});
    let found = vectors(&ask(&server.router, "/v1/embeddings", &body).await);
    // [2, 3] at length one.
    let length = 13_f64.sqrt();
    assert!((found[0][0] - 2.0 / length).abs() < 1e-6, "{found:?}");
    assert!((found[0][1] - 3.0 / length).abs() < 1e-6 && found[0].len() == 2, "{found:?}");
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused() {
    let server = server(Held::default());
    let check = async |path: &str, body: Value, status: u16, param: &str, says: &str| {
        let answer = ask(&server.router, path, &body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        let error = answer.json()["error"].clone();
        assert_eq!(error["param"], param, "{body}: {error}");
        assert!(error["message"].as_str().expect("text").contains(says), "{body}: {error}");
    };
    let embed = |input: Value| json!({"model": "e", "input": input});
    let (path, long) = ("/v1/embeddings", "abcdefghijklm");
    check(path, embed(json!(["a", long])), 400, "input[1]", "12 tokens at most").await;
    check(path, embed(json!(["a", long])), 400, "input[1]", "'input[1]' has 13").await;
    check(path, embed(json!([[1], [1, 99_999]])), 400, "input[1]", "99999").await;
    check(path, embed(json!("x".repeat(600_000))), 400, "input[0]", "far more").await;
    let dimensions = json!({"model": "e", "input": "a", "dimensions": 5});
    check(path, dimensions, 400, "dimensions", "have 4 numbers").await;
    let named = json!({"model": "e", "input": "a", "prompt_name": "sql"});
    check(path, named, 400, "prompt_name", "'query', 'web'").await;
    check(path, json!({"model": "x", "input": "a"}), 404, "model", "/v1/models").await;
    check(path, json!({"model": "r", "input": "a"}), 400, "model", "/v1/rerank").await;
    let rank = json!({"model": "e", "query": "a", "documents": ["b"]});
    check("/v1/rerank", rank, 400, "model", "it serves /v1/embeddings").await;
    let rank = json!({"model": "r", "query": "a", "documents": ["b", long]});
    check("/rerank", rank, 400, "documents[1]", "12 tokens at most").await;
    let score = json!({"model": "e", "text_1": "a", "text_2": "b"});
    check("/v1/score", score, 400, "model", "it serves /v1/embeddings").await;
    let chat = json!({"model": "e", "messages": [{"role": "user", "content": "a"}]});
    check("/v1/chat/completions", chat, 400, "model", "it serves /v1/embeddings").await;

    let fake = Fake::start(Setup::default());
    let answer = ask(&fake.router, path, &json!({"model": "org/fake", "input": "a"})).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.body.contains("it serves /v1/chat/completions"), "{}", answer.body);
}

#[tokio::test]
async fn rankings_and_scores() {
    let server = server(Held::default());
    let body = json!({"model": "r", "query": "q", "documents": ["b", {"text": "d"}, "c", "d"]});
    for path in ["/v1/rerank", "/rerank"] {
        let answer = ask(&server.router, path, &body).await;
        let json = answer.json();
        let order: Vec<_> = json["results"]
            .as_array()
            .expect("results")
            .iter()
            .map(|one| {
                let score = one["relevance_score"].as_f64().expect("a score");
                (one["index"].as_u64().expect("a number"), score, one["document"]["text"].clone())
            })
            .collect();
        // Equal scores keep the order of the request.
        let (b, c, d) = (id(b'b'), id(b'c'), id(b'd'));
        let expect =
            [(1, d, json!("d")), (3, d, json!("d")), (2, c, json!("c")), (0, b, json!("b"))];
        assert_eq!(order, expect, "{path}");
        assert_eq!(json["usage"]["total_tokens"], 8, "the query counts with each document");
        assert!(json["id"].as_str().expect("an id").starts_with("rerank-"));
    }
    let body = json!({"model": "r", "query": "q", "documents": ["b", "c"], "top_n": 1,
        "return_documents": false});
    let json = ask(&server.router, "/v1/rerank", &body).await.json();
    assert_eq!(json["results"], json!([{"index": 1, "relevance_score": id(b'c')}]));

    let body = json!({"model": "r", "text_1": "q", "text_2": ["a", "z"]});
    let json = ask(&server.router, "/v1/score", &body).await.json();
    let one = |index: u32, score: f64| json!({"index": index, "object": "score", "score": score});
    assert_eq!(json["data"], json!([one(0, id(b'a')), one(1, id(b'z'))]));
    assert_eq!((&json["object"], &json["model"]), (&json!("list"), &json!("r")));
}

/// Cohere's own form: no documents come back, what is too long is cut, errors are its own.
#[tokio::test]
async fn cohere_s_rankings() {
    let server = server(Held::default());
    let cohere = async |more: Value| {
        let mut body = json!({"model": "r", "query": "q", "documents": ["b", "d", "c"]});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        ask(&server.router, "/v2/rerank", &body).await
    };
    let answer = cohere(json!({"top_n": 2})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    let (c, d) = (id(b'c'), id(b'd'));
    let expect = json!([{"index": 1, "relevance_score": d}, {"index": 2, "relevance_score": c}]);
    assert_eq!(json["results"], expect);
    let meta = json!({"api_version": {"version": "2"}, "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": 6, "output_tokens": 0}});
    assert_eq!(json["meta"], meta);
    assert_eq!(json.as_object().expect("an object").len(), 3, "{json}");

    // 12 tokens are read: one of the query, eleven of the document.
    let long = "abcdefghijklmnop";
    let json = cohere(json!({"documents": [long]})).await.json();
    assert_eq!(json["results"][0]["relevance_score"], id(b'k'), "{json}");
    assert_eq!(json["meta"]["tokens"]["input_tokens"], 12);
    let json = cohere(json!({"documents": [long, "a"], "max_tokens_per_doc": 3})).await.json();
    assert_eq!(json["results"][0]["relevance_score"], id(b'c'), "{json}");
    assert_eq!(json["meta"]["tokens"]["input_tokens"], 4 + 2);

    for (more, status, words) in [
        (json!({"top_n": 0}), 400, "'top_n'"),
        (json!({"relevant_spans": {}}), 400, "'relevant_spans'"),
        (json!({"model": "nobody"}), 404, "'nobody' does not exist"),
        (json!({"model": "e"}), 400, "it serves /v1/embeddings"),
    ] {
        let answer = cohere(more).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        let json = answer.json();
        assert!(json["message"].as_str().expect("words").contains(words), "{json}");
        assert_eq!(json["id"], answer.headers["x-request-id"].to_str().expect("text"));
        assert_eq!(json.as_object().expect("an object").len(), 2, "{json}");
    }
    let body = json!({"model": "r", "query": "q", "documents": [long], "max_tokens_per_doc": 3});
    let json = ask(&server.router, "/v1/rerank", &body).await.json();
    assert_eq!(json["results"][0]["relevance_score"], id(b'c'), "{json}");
    assert_eq!(json["results"][0]["document"]["text"], long);
}

/// A name that stands for a model of this process.
#[tokio::test]
async fn pools_of_models_here() {
    let file = "[pools.numbers]\ntargets = [\"e\"]\n[pools.ranks]\ntargets = [\"r\"]\n";
    let routing = toml::from_str(file).expect("TOML");
    let local = ["e", "r"].map(str::to_owned);
    let routes = Routes::new(&routing, &local).expect("a configuration");
    let server = server(Held { routes, ..Held::default() });
    let body = json!({"model": "numbers", "input": ["ab", "abcdefghijkl", "abcdefghijkl"]});
    let answer = ask(&server.router, "/v1/embeddings", &body).await;
    assert_eq!(vectors(&answer)[0], [2.0, id(b'a'), id(b'b'), 0.0]);
    assert_eq!(answer.headers["x-hearth-route"], "e; pool=numbers; reason=priority; attempt=1");
    assert_eq!(answer.json()["model"], "e");
    for path in ["/v1/rerank", "/v2/rerank"] {
        let body = json!({"model": "ranks", "query": "q", "documents": ["b", "c"]});
        let answer = ask(&server.router, path, &body).await;
        assert_eq!(answer.json()["results"][0]["index"], 1, "{}", answer.body);
        assert_eq!(answer.headers["x-hearth-route"], "r; pool=ranks; reason=priority; attempt=1");
    }
    let body = json!({"model": "ranks", "text_1": "q", "text_2": "b"});
    let answer = ask(&server.router, "/v1/score", &body).await;
    assert_eq!(answer.json()["data"][0]["score"], id(b'b'), "{}", answer.body);
    // The name is there and does something else; a name beside the pools is looked up as ever.
    let body = json!({"model": "ranks", "input": "a"});
    let answer = ask(&server.router, "/v1/embeddings", &body).await;
    assert_eq!((answer.status, answer.body.contains("it serves /v1/rerank")), (400, true));
    let answer = ask(&server.router, "/v1/embeddings", &json!({"model": "e", "input": "ab"})).await;
    assert_eq!((answer.status, answer.headers.contains_key("x-hearth-route")), (200, false));
}

/// A reranker that is asked in words: `<query|document>` here. The end always stays.
#[tokio::test]
async fn pairs_can_be_written() {
    let pair = Some(["<", "|", ">"].map(str::to_owned));
    let server = server(Held { pair, ..Held::default() });
    let body = |document: &str, truncate: Option<u32>| json!({"model": "r", "text_1": "qq", "text_2": document, "truncate_prompt_tokens": truncate});
    let check = async |document: &str, truncate: Option<u32>, tokens: u32| {
        let json = ask(&server.router, "/v1/score", &body(document, truncate)).await.json();
        assert_eq!(json["data"][0]["score"], id(b'>'), "{json}");
        assert_eq!(json["usage"]["total_tokens"], tokens);
    };
    check("abc", None, 8).await;
    check("abcdefghijkl", Some(99), 12).await;
    check("abc", Some(6), 6).await;
    for (document, truncate, says) in [
        ("abcdefghijkl", None, "12 tokens at most"),
        ("abc", Some(5), "nothing is left of the document"),
    ] {
        let answer = ask(&server.router, "/v1/score", &body(document, truncate)).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert_eq!(answer.json()["error"]["param"], "text_2[0]");
        assert!(answer.body.contains(says), "{}", answer.body);
    }
}

#[tokio::test]
async fn models_say_what_they_do() {
    let server = server(Held::default());
    let list = get(&server.router, "/v1/models").await.json();
    let tasks: Vec<_> =
        list["data"].as_array().expect("models").iter().map(|m| &m["task"]).collect();
    assert_eq!(tasks, ["embed", "rerank"]);
    let one = get(&server.router, "/v1/models/r").await.json();
    assert_eq!((&one["task"], &one["max_model_len"]), (&json!("rerank"), &json!(CONTEXT)));
    for body in [json!({"model": "r", "prompt": "ab"}), json!({"prompt": "ab"})] {
        let tokens = ask(&server.router, "/tokenize", &body).await.json();
        assert_eq!(tokens["tokens"], json!([id(b'a') as u32, id(b'b') as u32]));
    }
    let fake = Fake::start(Setup::default());
    let list = get(&fake.router, "/v1/models").await.json();
    assert_eq!(list["data"][0]["task"], "generate");
}

/// Spawns a request and waits until the model has it.
async fn begun(server: &Server, body: Value, open: usize) -> tokio::task::JoinHandle<Answer> {
    let router = server.router.clone();
    let asked = tokio::spawn(async move { ask(&router, "/v1/embeddings", &body).await });
    let engine = server.models.pool("e").expect("the model").engine.clone();
    wait(|| engine.open() == open).await;
    asked
}

async fn wait(done: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it does not happen");
}

#[tokio::test]
async fn a_long_list_does_not_keep_a_short_one_waiting() {
    let server = server(Held { gate: true, ..Held::default() });
    let gate = server.gate.clone().expect("a gate");
    let step = || gate.send(Ok(())).expect("the model waits");
    // Twelve tokens each: one a step, and a step is under way when the short list comes.
    let list = vec!["abcdefghijkl"; 20];
    let long = begun(&server, json!({"model": "e", "input": list}), 1).await;
    wait(|| server.steps.load(Ordering::SeqCst) == 1).await;
    let short = begun(&server, json!({"model": "e", "input": ["ab", "cd"]}), 2).await;
    step();
    step();
    let answer = short.await.expect("an answer");
    assert_eq!(vectors(&answer).len(), 2, "after two steps of twenty");
    assert!(!long.is_finished());
    (0..20).for_each(|_| step());
    assert_eq!(vectors(&long.await.expect("an answer")).len(), 20);
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let server = server(Held { gate: true, queue_max: Some(2), ..Held::default() });
    let body = json!({"model": "e", "input": "ab"});
    let first = begun(&server, body.clone(), 1).await;
    let second = begun(&server, body.clone(), 2).await;
    let refused = ask(&server.router, "/v1/embeddings", &body).await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    let seconds = refused.headers["retry-after"].to_str().expect("text").parse::<u64>();
    assert!((1..=60).contains(&seconds.expect("seconds")));
    drop(server.gate);
    for asked in [first, second] {
        assert_eq!(asked.await.expect("an answer").status, 200);
    }
}

#[tokio::test]
async fn whoever_leaves_is_not_computed() {
    let server = server(Held { gate: true, ..Held::default() });
    let list = vec!["abcdefghijkl"; 20];
    let long = begun(&server, json!({"model": "e", "input": list}), 1).await;
    wait(|| server.steps.load(Ordering::SeqCst) == 1).await;
    long.abort();
    let gone = long.await;
    assert!(gone.is_err(), "the caller hung up");
    let gate = server.gate.expect("a gate");
    gate.send(Ok(())).expect("the model waits");
    let engine = server.models.pool("e").expect("the model").engine.clone();
    wait(|| engine.open() == 0).await;
    assert_eq!(server.steps.load(Ordering::SeqCst), 1, "one step of twenty");
    let text = server.metrics.render();
    let line = "hearth_request_success_total{finished_reason=\"cancelled\",model=\"e\"} 1";
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn time_is_up() {
    let timeout = Some(Duration::from_millis(20));
    let server = server(Held { gate: true, timeout, ..Held::default() });
    let body = json!({"model": "e", "input": vec!["abcdefghijkl"; 3]});
    let asked = begun(&server, body, 1).await;
    wait(|| server.steps.load(Ordering::SeqCst) == 1).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    server.gate.as_ref().expect("a gate").send(Ok(())).expect("the model waits");
    assert_eq!(asked.await.expect("an answer").status, 504);
}

#[tokio::test]
async fn a_model_that_hangs_gets_nothing_until_it_goes_on() {
    let hangs = Some(Duration::from_millis(200));
    let server = server(Held { gate: true, hangs, ..Held::default() });
    let body = json!({"model": "e", "input": "ab"});
    let asked = begun(&server, body.clone(), 1).await;
    let answer = asked.await.expect("an answer");
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("hangs"), "{}", answer.body);
    assert_eq!(ask(&server.router, "/v1/embeddings", &body).await.status, 503);
    let gate = server.gate.as_ref().expect("a gate");
    gate.send(Ok(())).expect("the model waits");
    let engine = server.models.pool("e").expect("the model").engine.clone();
    wait(|| engine.state() == EngineState::Ready).await;
    let asked = begun(&server, body, 1).await;
    gate.send(Ok(())).expect("the model waits");
    assert_eq!(asked.await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_fault_ends_its_step_alone_and_a_dead_device_the_model() {
    let server = server(Held { gate: true, ..Held::default() });
    let gate = server.gate.as_ref().expect("a gate");
    let body = json!({"model": "e", "input": "ab"});
    let asked = begun(&server, body.clone(), 1).await;
    gate.send(Err(Fault::Step("a hiccup".to_owned()))).expect("the model waits");
    let answer = asked.await.expect("an answer");
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert!(answer.body.contains("a hiccup"));

    gate.send(Ok(())).expect("the model lives");
    assert_eq!(ask(&server.router, "/v1/embeddings", &body).await.status, 200);

    let asked = begun(&server, body.clone(), 1).await;
    gate.send(Err(Fault::Dead("it fell off".to_owned()))).expect("the model waits");
    assert_eq!(asked.await.expect("an answer").status, 503);
    let answer = ask(&server.router, "/v1/embeddings", &body).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("it fell off"), "{}", answer.body);
    assert_eq!(get(&server.router, "/ready").await.status, 503);
    let rank = json!({"model": "r", "query": "a", "documents": ["b"]});
    let other = ask(&server.router, "/v1/rerank", &rank).await;
    assert_eq!(other.status, 200, "the other model lives: {}", other.body);
}

#[tokio::test]
async fn a_drain_lets_open_requests_end() {
    let server = server(Held { gate: true, ..Held::default() });
    let body = json!({"model": "e", "input": "ab"});
    let asked = begun(&server, body.clone(), 1).await;
    let engine = server.models.pool("e").expect("the model").engine.clone();
    let drain = tokio::spawn(async move { engine.drain(Duration::from_secs(30)).await });
    wait(|| server.models.ready().is_err()).await;
    let refused = ask(&server.router, "/v1/embeddings", &body).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    drop(server.gate);
    assert_eq!(asked.await.expect("an answer").status, 200);
    assert!(drain.await.expect("a drain"), "all came to their end");
}

#[tokio::test]
async fn answers_carry_ids_and_are_counted() {
    let server = server(Held::default());
    let body = json!({"model": "e", "input": ["ab", "cde"]}).to_string();
    let request = Request::post("/v1/embeddings").header("x-request-id", "mine");
    let answer = send(&server.router, request.body(Body::from(body)).expect("a request")).await;
    let headers: &HeaderMap = &answer.headers;
    assert_eq!(headers["x-request-id"], "mine");
    assert_eq!(headers["content-type"], "application/json");
    let text = server.metrics.render();
    for line in [
        "hearth_http_requests_total{code=\"200\",route=\"/v1/embeddings\"} 1",
        "hearth_request_success_total{finished_reason=\"stop\",model=\"e\"} 1",
        "hearth_prompt_tokens_total{model=\"e\"} 5",
        "hearth_iteration_tokens_sum{model=\"e\"} 5",
        "hearth_num_requests_running{model=\"e\"} 0",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

/// Large bodies are prepared on another thread; an answer of megabytes is written there too.
#[tokio::test]
async fn the_largest_request() {
    let server = server(Held::default());
    let list: Vec<String> = (0..2048).map(|n| format!("{n}")).collect();
    let body = json!({"model": "e", "input": list}).to_string();
    let answer = post(&server.router, "/v1/embeddings", body).await;
    let found = vectors(&answer);
    assert_eq!(found.len(), 2048);
    assert_eq!(found[2047], [4.0, id(b'2'), id(b'7'), 0.0]);
}
