//! Words that make no sense, from nodes and to nodes, by seed: nobody falls over, nothing stays
//! behind, and what can be answered is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::header::AUTHORIZATION;
use axum::routing::{get, post};
use futures_util::{StreamExt as _, stream};
use gateway::cluster::protocol::{
    Adapter, Ask, Delta, GENERATE, JOIN, Load, MODEL, STATE, Served, Snapshot, State,
};
use scheduler::types::{Made, RequestId};
use serde_json::json;

use hearth_tests::dice::Dice;

use crate::client::send;
use crate::fake::Setup;
use crate::kit::{Gateway, SPEECH, Site, TOKEN, ask, chat, listen, said, until};

async fn tell(router: &Router, body: Vec<u8>) -> u16 {
    let request = Request::post(GENERATE).header(AUTHORIZATION, format!("Bearer {TOKEN}"));
    let request = request.body(Body::from(body)).expect("a request");
    let answer = tokio::time::timeout(Duration::from_secs(20), send(router, request)).await;
    answer.expect("an answer").status
}

pub(crate) async fn fingerprint(site: &Site) -> String {
    let path = format!("{MODEL}org/fake");
    let request = Request::get(path).header(AUTHORIZATION, format!("Bearer {TOKEN}"));
    let card = send(&site.router, request.body(Body::empty()).expect("a request")).await;
    card.json()["fingerprint"].as_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stands_whatever_it_is_told() {
    let site = Site::start(Setup { speech: SPEECH, ..Setup::default() }).await;
    let fingerprint = fingerprint(&site).await;
    let mut request = scheduler::types::Request::greedy(RequestId(0), (0..40).collect(), 12);
    request.made = vec![Made { tokens: vec![1, 2, 3], ended: false }];
    request.sampling.logit_bias = vec![(3, f32::NEG_INFINITY)];
    let ask = Ask::new(("org/fake", &fingerprint), &request, None, Some(60_000));
    let mut good = serde_json::to_vec(&ask).expect("JSON");
    good.extend_from_slice(b"\n");
    assert_eq!(tell(&site.router, good.clone()).await, 200);
    let wrong = Ask { fingerprint: "other".to_owned(), ..ask.clone() };
    assert_eq!(
        tell(&site.router, [&serde_json::to_vec(&wrong).expect("JSON")[..], b"\n"].concat()).await,
        409
    );
    let far = Ask { prompt: vec![4_000_000_000], ..ask.clone() };
    assert_eq!(
        tell(&site.router, [&serde_json::to_vec(&far).expect("JSON")[..], b"\n"].concat()).await,
        400
    );
    let made = Ask { made: vec![(vec![4_000_000_000], false)], ..ask.clone() };
    assert_eq!(
        tell(&site.router, [&serde_json::to_vec(&made).expect("JSON")[..], b"\n"].concat()).await,
        400
    );
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..600 {
        let mut dice = Dice(seed);
        let mut body = dice.damage(&good);
        if dice.below(3) == 0 {
            // A good request, and then nonsense.
            body = good.clone();
            let words = b"{\"allow\":5}\n{\"cancel\":0}\n\"stop\"\n";
            body.extend(dice.damage(words));
        }
        let status = tell(&site.router, body).await;
        assert!([200, 400, 404, 409, 429].contains(&status), "seed {seed}: {status}");
        *seen.entry(status).or_insert(0) += 1;
    }
    assert!(seen.len() >= 3, "{seen:?}");
    site.fake.idle().await;
    assert_eq!(tell(&site.router, good).await, 200);
}

/// A node of the test's own: its card is a real one.
pub(crate) async fn pretend(
    site: &Site,
    state: impl Fn(usize) -> Vec<u8> + Clone + Send + Sync + 'static,
    made: impl Fn(usize) -> Vec<u8> + Clone + Send + Sync + 'static,
) -> (std::net::SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let path = format!("{MODEL}org/fake");
    let request = Request::get(&path).header(AUTHORIZATION, format!("Bearer {TOKEN}"));
    let card = send(&site.router, request.body(Body::empty()).expect("a request")).await.body;
    let (states, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, told) = (Arc::clone(&states), Arc::clone(&asked));
    let router = Router::new()
        .route(
            STATE,
            get(move || {
                let first = state(count.fetch_add(1, Ordering::SeqCst));
                async move {
                    let rest = stream::pending::<Result<Vec<u8>, std::io::Error>>();
                    Body::from_stream(stream::iter([Ok(first)]).chain(rest))
                }
            }),
        )
        .route(&format!("{MODEL}{{*name}}"), get(move || async move { card }))
        .route(
            GENERATE,
            post(move || {
                let answer = made(told.fetch_add(1, Ordering::SeqCst));
                async move { answer }
            }),
        );
    (listen(router).await, states, asked)
}

/// Its state, whole.
pub(crate) fn whole(fingerprint: &str, version: u64) -> Vec<u8> {
    // Nobody seems to be faster.
    let load = Load { open_max: 100, rows: 8, us_per_kilotoken: 1, ..Load::default() };
    let (name, fingerprint) = ("org/fake".to_owned(), fingerprint.to_owned());
    let adapters = vec![Adapter { name: "own".to_owned(), fingerprint: "other".to_owned() }];
    let served = Served { name, fingerprint, load, pages: vec![1, 2, 3], adapters };
    let state = State::Snapshot(Snapshot { version, models: vec![served], ..Snapshot::default() });
    let mut line = serde_json::to_vec(&state).expect("JSON");
    line.push(b'\n');
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_gap_all_of_it_is_asked_for_again() {
    let site = Site::start(Setup::default()).await;
    let fingerprint = fingerprint(&site).await;
    let state = move |count: usize| {
        let mut lines = whole(&fingerprint, 7);
        let next = if count == 0 { 9 } else { 8 };
        let delta = State::Delta(Delta { version: next, ..Delta::default() });
        lines.extend(serde_json::to_vec(&delta).expect("JSON"));
        lines.push(b'\n');
        lines
    };
    let (address, states, _) = pretend(&site, state, |_| Vec::new()).await;
    let gateway = Gateway::start(&[address]);
    until("it is asked again", || states.load(Ordering::SeqCst) >= 2).await;
    gateway.nodes(1).await;
    // It says nothing more: two seconds later it is out.
    tokio::time::sleep(Duration::from_millis(2_300)).await;
    until("it is asked a third time", || states.load(Ordering::SeqCst) >= 3).await;
}

/// It would hold up whoever asks for it, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_description_that_never_comes_holds_up_nobody() {
    let states = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&states);
    let state = move || {
        count.fetch_add(1, Ordering::SeqCst);
        let line = String::from_utf8(whole("print", 1)).expect("JSON");
        let line = line.replace("org/fake", "org/other");
        let rest = stream::pending::<Result<String, std::io::Error>>();
        async move { Body::from_stream(stream::iter([Ok(line)]).chain(rest)) }
    };
    let card = || std::future::pending::<Body>();
    let router =
        Router::new().route(STATE, get(state)).route(&format!("{MODEL}{{*name}}"), get(card));
    let mute = listen(router).await;
    let site = Site::start(Setup { speech: SPEECH, ..Setup::default() }).await;
    let gateway = Gateway::start(&[mute, site.wire.address]);
    gateway.nodes(2).await;
    let begun = Instant::now();
    gateway.model("org/fake").await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    ask(&gateway.router, &chat(&json!({}))).await;
    // It says nothing more: it is out within two seconds, whatever is asked of it.
    until("it is asked again", || states.load(Ordering::SeqCst) >= 2).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_stands_whatever_nodes_tell() {
    let site = Site::start(Setup { speech: SPEECH, ..Setup::default() }).await;
    let print = fingerprint(&site).await;
    let state = {
        let print = print.clone();
        move |count: usize| {
            let mut lines = whole(&print, 7);
            let mut dice = Dice(u64::try_from(count).expect("small"));
            if count % 3 == 2 {
                return dice.damage(&lines);
            }
            lines.extend(dice.damage(b"{\"delta\":{\"version\":8,\"draining\":false,\
                \"models\":[{\"name\":\"org/fake\",\"load\":{\"open\":1},\"added\":[5],\"removed\":[]}],\
                \"gpus\":[{\"index\":0,\"uuid\":\"u\",\"name\":\"n\",\"busy_percent\":9}]}}\n{\"beat\":8}\n"));
            lines
        }
    };
    let made =
        |count: usize| {
            let seed = u64::try_from(count).expect("small");
            let mut dice = Dice(seed + 1000);
            // Never a whole answer that looks good: its end is always cut off.
            let mut lines = dice.damage(
                b"{\"tokens\":[[0,72],[0,256]]}\n{\"scored\":[0,5,[0,1,[]]]}\n\
            {\"prompt\":[1,[[0,1,[]]]]}\n{\"ended\":[0,\"stop\"]}\n{\"ended\":[0,\"length\"]}\n",
            );
            lines.retain(|byte| *byte != b'7');
            match dice.below(3) {
            0 => b"{\"tokens\":[[7,1]]}\n".to_vec(),
            1 => b"{\"done\":{\"prompt\":1,\"cached\":0,\"made\":0,\"queue_us\":0,\"prefill_us\":0,\
                \"decode_us\":0,\"preemptions\":0}}\n".to_vec(),
            _ => [b"{\"ended\":[9,\"stop\"]}\n".to_vec(), lines].concat(),
        }
        };
    let (address, states, asked) = pretend(&site, state, made).await;
    let gateway = Gateway::start(&[address, site.wire.address]);
    gateway.model("org/fake").await;
    until("the real one is in", || gateway.up() >= 1).await;
    let wanted = said(&ask(&site.fake.router, &chat(&json!({}))).await);
    for _ in 0..60 {
        let answer = ask(&gateway.router, &chat(&json!({}))).await;
        assert_eq!(said(&answer), wanted);
    }
    assert!(asked.load(Ordering::SeqCst) > 0, "the other one was never asked");
    assert!(states.load(Ordering::SeqCst) > 0);
    // The route for names is bounded too.
    let long = "x".repeat(10_000);
    let request = Request::post(JOIN).header(AUTHORIZATION, format!("Bearer {TOKEN}"));
    let answer = send(&gateway.router, request.body(long.into()).expect("a request")).await;
    assert_eq!(answer.status, 413);
}
