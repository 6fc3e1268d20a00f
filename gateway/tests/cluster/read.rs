//! Models that make vectors and scores, at nodes: answers are those of the model itself, whichever
//! node is lost meanwhile, and whoever leaves leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn};
use gateway::api::{App, Keys, Limits, router};
use gateway::backend::Task;
use gateway::backend::embed::{Input, Options};
use gateway::cluster::protocol::{READ, READER, Read, ReadTold, STATE, VERSION, VERSION_HEADER};
use gateway::cluster::{self, Node};
use gateway::metrics::Metrics;
use gateway::models::Models;
use scheduler::types::Fault;
use serde_json::{Value, json};

use hearth_tests::dice::Dice;

use crate::client::{Answer, get, post, send};
use crate::fake::Setup;
use crate::kit::{Gateway, Site, TOKEN, endpoint, listen, until};
use crate::reader::{Reader, pool_model};
use crate::wire::Wire;

type Gate = Sender<Result<(), Fault>>;

/// A node with a model that embeds, `e`, and one that ranks, `r`.
pub(crate) struct Place {
    models: Arc<Models>,
    pub(crate) node: Arc<Node>,
    /// All of its models' API, for answers that no cluster had a hand in.
    own: Router,
    wire: Wire,
    /// Steps of both models.
    steps: Arc<AtomicUsize>,
    /// Where a test holds the first one.
    gate: Option<Gate>,
}

impl Place {
    pub(crate) async fn start() -> Self {
        Self::with(false, 64).await
    }

    /// Where its first model waits for a word before each step.
    async fn held() -> Self {
        Self::with(true, 64).await
    }

    async fn with(holds: bool, queue_max: usize) -> Self {
        let (models, metrics) = (Models::new(), Metrics::new());
        let steps = Arc::new(AtomicUsize::new(0));
        let (send, receive) = channel();
        let mut gate = holds.then_some(receive);
        let door = cluster::Door::new(Some(TOKEN), false);
        let node = Node::new(Arc::clone(&models), Arc::clone(&metrics), door, None);
        for (id, task) in [("e", Task::Embed), ("r", Task::Rerank)] {
            let scores = task == Task::Rerank;
            let reader = Reader { scores, steps: Arc::clone(&steps), gate: gate.take() };
            let options = Options {
                name: id.to_owned(),
                queue_max,
                request_timeout: None,
                step_timeout: None,
            };
            let model = pool_model((id, task), reader, options, metrics.model(id));
            node.offer_reader(&models.add_pool(model), "weights").expect("it can be described");
        }
        models.set_loaded();
        let wire = Wire::to(listen(node.router()).await).await;
        let (all, count) = (Arc::clone(&models), Arc::clone(&metrics));
        let own = router(App::new(all, count, Keys::default(), Limits::default(), None));
        Self { models, node, own, wire, steps, gate: holds.then_some(send) }
    }

    fn open(&self) -> usize {
        self.models.pools().iter().map(|model| model.engine.open()).sum()
    }

    fn steps(&self) -> usize {
        self.steps.load(Ordering::SeqCst)
    }
}

async fn gateway(places: &[&Place]) -> Gateway {
    let nodes: Vec<_> = places.iter().map(|place| place.wire.address).collect();
    let gateway = Gateway::start(&nodes);
    all_in(&gateway, places.len()).await;
    gateway
}

pub(crate) async fn all_in(gateway: &Gateway, nodes: usize) {
    gateway.nodes(nodes).await;
    until("the models are there", || gateway.models.pools().len() == 2).await;
}

async fn ask(router: &Router, path: &str, body: &Value) -> Answer {
    post(router, path, body.to_string()).await
}

/// An answer without what differs between two of the same.
fn said(answer: &Answer) -> Value {
    let mut body = answer.json();
    for name in ["id", "created"] {
        body.as_object_mut().expect("an object").remove(name);
    }
    body
}

pub(crate) fn texts(text: &str) -> Value {
    json!({"model": "e", "input": text})
}

/// The address of the node that an answer names.
fn node_of(answer: &Answer) -> String {
    let route = answer.headers["x-hearth-route"].to_str().expect("text");
    let node = route.split("; ").find_map(|part| part.strip_prefix("node="));
    node.expect("a node").to_owned()
}

/// A request under way.
fn asked(gateway: &Gateway, body: &Value) -> tokio::task::JoinHandle<Answer> {
    let (router, body) = (gateway.router.clone(), body.clone());
    tokio::spawn(async move { ask(&router, "/v1/embeddings", &body).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_the_model_itself() {
    let (one, two) = (Place::start().await, Place::start().await);
    let gateway = gateway(&[&one, &two]).await;
    let many: Vec<String> = (0..40).map(|number| format!("text {number}")).collect();
    let documents = ["abc", "x", "abz"];
    for (path, body) in [
        ("/v1/embeddings", texts("ab")),
        ("/v1/embeddings", json!({"model": "e", "input": many})),
        ("/v1/embeddings", json!({"model": "e", "input": [[1, 2, 200], [7]]})),
        ("/v1/embeddings", json!({"model": "e", "input": "abc", "encoding_format": "base64"})),
        ("/v1/embeddings", json!({"model": "e", "input": "abc", "dimensions": 2})),
        ("/v1/rerank", json!({"model": "r", "query": "q", "documents": documents})),
        ("/v2/rerank", json!({"model": "r", "query": "q", "documents": documents, "top_n": 2})),
        ("/v1/score", json!({"model": "r", "text_1": "a", "text_2": ["b", "c"]})),
        ("/tokenize", json!({"model": "e", "prompt": "Hello one"})),
    ] {
        let (here, there) =
            (ask(&one.own, path, &body).await, ask(&gateway.router, path, &body).await);
        assert_eq!((here.status, there.status), (200, 200), "{path}: {} {}", here.body, there.body);
        assert_eq!(said(&there), said(&here), "{path} {body}");
    }
    // What a model does not do is refused in the same words.
    for (path, body) in [
        ("/v1/rerank", json!({"model": "e", "query": "q", "documents": ["a"]})),
        ("/v1/chat/completions", json!({"model": "e", "messages": []})),
        ("/v1/embeddings", json!({"model": "e", "input": "far more than twelve tokens"})),
        ("/v1/embeddings", json!({"model": "e", "input": "abc", "dimensions": 9})),
    ] {
        let (here, there) =
            (ask(&one.own, path, &body).await, ask(&gateway.router, path, &body).await);
        assert_eq!((here.status, &here.body), (400, &there.body), "{path} {body}");
    }
    let (here, there) =
        (get(&one.own, "/v1/models").await, get(&gateway.router, "/v1/models").await);
    let listed = |answer: &Answer| {
        let mut all = answer.json()["data"].as_array().expect("models").clone();
        all.sort_by_key(|model| model["id"].to_string());
        all
    };
    assert_eq!(listed(&there), listed(&here));
    let (here, there) =
        (get(&one.own, "/v1/models/r").await, get(&gateway.router, "/v1/models/r").await);
    assert_eq!(there.json(), here.json());
    assert_eq!(get(&gateway.router, "/ready").await.status, 200);
    // Each answer says who made it.
    let node = node_of(&ask(&gateway.router, "/v1/embeddings", &texts("ab")).await);
    assert!([&one, &two].iter().any(|place| node == place.wire.address.to_string()), "{node}");
    let before = gateway.figure("hearth_prompt_tokens_total{model=\"e\"}");
    ask(&gateway.router, "/v1/embeddings", &texts("abcde")).await;
    assert_eq!(gateway.figure("hearth_prompt_tokens_total{model=\"e\"}") - before, 5.0);
    assert_eq!(gateway.figure("hearth_cluster_resumes_total{model=\"e\"}"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_node_is_lost_is_read_by_another() {
    let (one, two) = (Place::held().await, Place::held().await);
    let gateway = gateway(&[&one, &two]).await;
    let answer = asked(&gateway, &texts("abc"));
    until("a node reads it", || one.steps() + two.steps() == 1).await;
    let (lost, other) = if one.steps() == 1 { (&one, &two) } else { (&two, &one) };
    lost.wire.kill(true);
    until("the other reads it", || other.steps() == 1).await;
    until("what is lost is cancelled", || gateway.up() == 1).await;
    other.gate.as_ref().expect("a gate").send(Ok(())).expect("it waits");
    let answer = answer.await.expect("no panic");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["usage"]["prompt_tokens"], 3);
    assert_eq!(node_of(&answer), other.wire.address.to_string());
    assert_eq!(gateway.figure("hearth_cluster_resumes_total{model=\"e\"}"), 1.0);
    assert_eq!(gateway.figure("hearth_prompt_tokens_total{model=\"e\"}"), 3.0, "read once");
    lost.gate.as_ref().expect("a gate").send(Ok(())).expect("it waits");
    until("nothing is left there", || lost.open() == 0 && other.open() == 0).await;
    // With the second gone too, a caller waits a moment and is told.
    other.wire.kill(true);
    until("none is there", || gateway.up() == 0).await;
    let refused = ask(&gateway.router, "/v1/embeddings", &texts("abc")).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body.contains("no node that serves e is there"), "{}", refused.body);
    assert_eq!(get(&gateway.router, "/ready").await.status, 503);
    assert_eq!(gateway.models.offered_pools().len(), 2, "listed for a while");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_at_any_byte_is_not_seen() {
    let (one, two) = (Place::start().await, Place::start().await);
    let gateway = gateway(&[&one, &two]).await;
    let many: Vec<String> = (0..60).map(|number| format!("text {number}")).collect();
    let body = json!({"model": "e", "input": many});
    let wanted = said(&ask(&one.own, "/v1/embeddings", &body).await);
    for round in 0..24_u64 {
        one.wire.cut_after(60 + round * 47);
        two.wire.cut_after(80 + round * 61);
        let answer = ask(&gateway.router, "/v1/embeddings", &body).await;
        assert_eq!(said(&answer), wanted, "round {round}");
        gateway.nodes(2).await;
    }
    let again = gateway.figure("hearth_cluster_resumes_total{model=\"e\"}");
    assert!(again >= 8.0, "{again} times asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_leaves_nothing_at_the_node() {
    let place = Place::held().await;
    let gateway = gateway(&[&place]).await;
    // Three steps of it.
    let many = vec!["abcdefghijkl"; 3];
    let answer = asked(&gateway, &json!({"model": "e", "input": many}));
    until("it is read", || place.steps() == 1).await;
    answer.abort();
    assert!(answer.await.is_err());
    let reader = gateway.models.pool("e").expect("the model").engine.clone();
    until("the gateway has forgotten it", || reader.open() == 0).await;
    // Word of it is on its way to the node.
    tokio::time::sleep(Duration::from_millis(200)).await;
    place.gate.as_ref().expect("a gate").send(Ok(())).expect("it waits");
    until("so has the node", || place.open() == 0).await;
    assert_eq!(place.steps(), 1, "nobody wanted the rest");
    let text = gateway.metrics.render();
    let left = "hearth_request_success_total{finished_reason=\"cancelled\",model=\"e\"} 1";
    assert!(text.contains(left), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_where_the_line_is_short_and_a_full_cluster_says_so() {
    let (one, two) = (Place::with(true, 2).await, Place::with(true, 2).await);
    let gateway = gateway(&[&one, &two]).await;
    let count = |place: &Place| place.models.pool("e").expect("the model").engine.open();
    let mut answers = Vec::new();
    for expect in 1..=4 {
        answers.push(asked(&gateway, &texts("abc")));
        until("it is there", || count(&one) + count(&two) == expect).await;
        assert!(count(&one).abs_diff(count(&two)) <= 1, "{} {}", count(&one), count(&two));
    }
    let full = ask(&gateway.router, "/v1/embeddings", &texts("abc")).await;
    assert_eq!(
        (full.status, full.headers.contains_key("retry-after")),
        (429, true),
        "{}",
        full.body
    );
    // A node that is held by one model reads with its other.
    let scored = json!({"model": "r", "text_1": "a", "text_2": "b"});
    assert_eq!(ask(&gateway.router, "/v1/score", &scored).await.status, 200);
    drop((one.gate, two.gate));
    for answer in answers {
        assert_eq!(answer.await.expect("no panic").status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_up_at_the_gateway_and_at_the_node() {
    let place = Place::held().await;
    let gateway = Gateway::with(TOKEN, &[place.wire.address], Duration::from_millis(400));
    all_in(&gateway, 1).await;
    let first = asked(&gateway, &texts("abc"));
    until("it is read", || place.steps() == 1).await;
    let second = asked(&gateway, &texts("def"));
    until("another waits", || place.open() == 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    place.gate.as_ref().expect("a gate").send(Ok(())).expect("it waits");
    // The one under way was read after all; the one that waited is never begun.
    assert_eq!(first.await.expect("no panic").status, 200);
    let late = second.await.expect("no panic");
    assert_eq!((late.status, place.steps()), (504, 1), "{}", late.body);
    // A node that does not end it by itself is not waited for.
    let begun = Instant::now();
    let stuck = ask(&gateway.router, "/v1/embeddings", &texts("abc")).await;
    assert_eq!(stuck.status, 504, "{}", stuck.body);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_that_fail_and_nodes_that_die_of_it_are_not_asked_for_ever() {
    let places = [Place::held().await, Place::held().await, Place::held().await];
    let gateway = gateway(&[&places[0], &places[1], &places[2]]).await;
    for place in &places {
        let gate = place.gate.as_ref().expect("a gate");
        gate.send(Err(Fault::Step("a hiccup".to_owned()))).expect("it waits");
    }
    let failed = ask(&gateway.router, "/v1/embeddings", &texts("abc")).await;
    assert_eq!(failed.status, 500, "{}", failed.body);
    assert!(failed.body.contains("a hiccup"), "{}", failed.body);
    let steps: usize = places.iter().map(Place::steps).sum();
    assert_eq!(steps, 2, "what breaks two engines might break them all");

    let asked = Arc::new(AtomicUsize::new(0));
    let mut nodes = Vec::new();
    let mut kept = Vec::new();
    for _ in 0..8 {
        let place = Place::start().await;
        let (wire, count) = (Arc::new(std::sync::OnceLock::<Wire>::new()), Arc::clone(&asked));
        let own = Arc::clone(&wire);
        let dies = from_fn(move |request: axum::extract::Request, next: Next| {
            let (wire, count) = (Arc::clone(&own), Arc::clone(&count));
            async move {
                if request.uri().path() == READ {
                    count.fetch_add(1, Ordering::SeqCst);
                    wire.get().expect("the wire").kill(true);
                }
                next.run(request).await
            }
        });
        let address = listen(place.node.router().layer(dies)).await;
        assert!(wire.set(Wire::to(address).await).is_ok());
        nodes.push(wire.get().expect("the wire").address);
        kept.push((place, wire));
    }
    let gateway = Gateway::start(&nodes);
    all_in(&gateway, 8).await;
    let failed = ask(&gateway.router, "/v1/embeddings", &texts("abc")).await;
    assert_eq!(failed.status, 500, "{}", failed.body);
    assert!(failed.body.contains("6 times in a row a node broke off"), "{}", failed.body);
    assert_eq!(asked.load(Ordering::SeqCst), 6);
    until("the rest is there", || gateway.up() == 2).await;
}

/// A node's state as a gateway of some version hears it: status and first line.
async fn state(router: &Router, version: Option<u32>) -> (u16, String) {
    let address = listen(router.clone()).await;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new());
    let client = client.build_http::<Body>();
    let mut request = Request::get(format!("{}{STATE}", endpoint(address)))
        .header(AUTHORIZATION, format!("Bearer {TOKEN}"));
    if let Some(version) = version {
        request = request.header(VERSION_HEADER, version);
    }
    let answer = client.request(request.body(Body::empty()).expect("a request")).await;
    let answer = answer.expect("an answer");
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    let frame = http_body_util::BodyExt::frame(&mut body).await.expect("a frame").expect("whole");
    (status, String::from_utf8(frame.into_data().expect("data").to_vec()).expect("UTF-8"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_too_old_is_told_so_and_keeps_what_it_knows() {
    let place = Place::start().await;
    let (status, line) = state(&place.node.router(), None).await;
    assert_eq!(status, 426);
    let wanted = "a gateway speaks version 1 of the cluster's protocol and is not told of e, r";
    assert!(line.contains(wanted) && line.contains("update the gateway"), "{line}");
    let (status, line) = state(&place.node.router(), Some(VERSION)).await;
    assert!(status == 200 && line.contains("\"readers\":[{\"name\":\"e\""), "{line}");
    // Beside a model that it knows, that one is served to it as before.
    let both = Site::start(Setup::default()).await;
    let model = place.models.pool("e").expect("the model");
    both.node.offer_reader(&model, "weights").expect("it can be described");
    let (status, line) = state(&both.router, None).await;
    assert_eq!(status, 200);
    assert!(line.contains("org/fake") && !line.contains("readers"), "{line}");
    let (status, line) = state(&both.router, Some(VERSION + 1)).await;
    assert!(status == 200 && line.contains("org/fake") && line.contains("readers"), "{line}");
}

async fn tell(router: &Router, method: &str, path: &str, body: Vec<u8>) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(AUTHORIZATION, format!("Bearer {TOKEN}"));
    let answer = send(router, request.body(Body::from(body)).expect("a request"));
    tokio::time::timeout(Duration::from_secs(20), answer).await.expect("an answer")
}

async fn fingerprint(place: &Place) -> String {
    let card = tell(&place.node.router(), "GET", &format!("{READER}e"), Vec::new()).await;
    card.json()["fingerprint"].as_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stands_whatever_it_is_told() {
    let place = Place::start().await;
    let node = place.node.router();
    let print = fingerprint(&place).await;
    let inputs = [
        Input { ids: vec![1, 2, 3], types: vec![0, 0, 1], skip: 1 },
        Input { ids: vec![7; 12], types: Vec::new(), skip: 0 },
    ];
    let good = Read::new(("e", &print), &inputs, Some(60_000));
    let line = |read: &Read| [&serde_json::to_vec(read).expect("JSON")[..], b"\n"].concat();
    let answer = tell(&node, "POST", READ, line(&good)).await;
    let lines: Vec<ReadTold> =
        answer.body.lines().map(|line| serde_json::from_str(line).expect("a word")).collect();
    assert!(matches!(lines[..], [ReadTold::Vector(_), ReadTold::Vector(_), ReadTold::Done(..)]));
    let changed = |change: fn(&mut Read)| {
        let mut read = good.clone();
        change(&mut read);
        line(&read)
    };
    for (body, expect) in [
        (changed(|read| read.fingerprint = "other".to_owned()), 409),
        (changed(|read| read.model = "x".to_owned()), 404),
        (changed(|read| read.inputs[0].0[1] = 4_000_000_000), 400),
        (changed(|read| read.inputs[0].0.clear()), 400),
        (changed(|read| read.inputs[1].0.push(7)), 400),
        (changed(|read| read.inputs[0].1.push(0)), 400),
        (changed(|read| read.inputs[0].2 = 4), 400),
        (Vec::new(), 400),
        (b"{}\n".to_vec(), 400),
    ] {
        let answer = tell(&node, "POST", READ, body).await;
        assert_eq!(answer.status, expect, "{}", answer.body);
    }
    for seed in 0..600 {
        let body = Dice(seed).damage(&line(&good));
        let status = tell(&node, "POST", READ, body).await.status;
        assert!([200, 400, 404, 409].contains(&status), "seed {seed}: {status}");
    }
    until("nothing is left", || place.open() == 0).await;
    assert_eq!(tell(&node, "POST", READ, line(&good)).await.body.lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_stands_whatever_a_node_answers() {
    let (liar, honest) = (Place::start().await, Place::start().await);
    let wanted = said(&ask(&honest.own, "/v1/embeddings", &texts("abc")).await);
    let (told, lies) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, lied) = (Arc::clone(&told), Arc::clone(&lies));
    // Words of which none is the right answer, and damaged ones.
    let says = from_fn(move |request: axum::extract::Request, next: Next| {
        let (count, lied) = (Arc::clone(&count), Arc::clone(&lied));
        async move {
            if request.uri().path() != READ {
                return next.run(request).await;
            }
            lied.fetch_add(1, Ordering::SeqCst);
            let number = count.fetch_add(1, Ordering::SeqCst);
            let mut dice = Dice(u64::try_from(number).expect("small"));
            let vector = "{\"vector\":[1,2,3,4]}\n";
            let said: Vec<u8> = match number % 6 {
                0 => format!("{vector}{vector}{{\"done\":[1,2]}}\n").into(),
                1 => "{\"vector\":[1,2,3]}\n{\"done\":[1,2]}\n".into(),
                2 => "{\"done\":[1,2]}\n".into(),
                3 => vector.into(),
                4 => vec![b'1'; 5 << 20],
                _ => {
                    let mut said = dice.damage(b"{\"vector\":[1,2,3,4]}\n{\"dine\":[1,2]}\n");
                    said.truncate(said.len() / 2);
                    said
                }
            };
            axum::response::IntoResponse::into_response(said)
        }
    });
    let address = listen(liar.node.router().layer(says)).await;
    // A gateway leaves who lies three times alone, so each is asked for little.
    for round in 0..12 {
        let gateway = Gateway::start(&[address, honest.wire.address]);
        all_in(&gateway, 2).await;
        for _ in 0..8 {
            let answer = ask(&gateway.router, "/v1/embeddings", &texts("abc")).await;
            assert_eq!(answer.status, 200, "round {round}: {}", answer.body);
            assert_eq!(said(&answer), wanted, "round {round}");
        }
    }
    assert!(lies.load(Ordering::SeqCst) >= 12, "it was hardly asked: {lies:?}");
}
