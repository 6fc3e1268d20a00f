//! A node that speaks and fails at every request: it is left alone while others serve the model,
//! tried again now and then, and comes back by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use futures_util::future::join_all;
use futures_util::stream;
use gateway::cluster::protocol::{GENERATE, READ, Told, Used, Why};
use serde_json::{Value, json};

use crate::client::post;
use crate::fake::Setup;
use crate::kit::{Gateway, Site, ask, chat, listen, said, until};
use crate::read::{Place, all_in, texts};
use crate::wire::Wire;

/// What a node does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Well,
    Refuses,
    BreaksOff,
    /// Its engine fails, as it says.
    Fails,
    /// It has no room.
    Full,
    /// It blames the request.
    Blames,
    SaysNothing,
}

const DEEDS: [Deed; 7] = [
    Deed::Well,
    Deed::Refuses,
    Deed::BreaksOff,
    Deed::Fails,
    Deed::Full,
    Deed::Blames,
    Deed::SaysNothing,
];

/// What a node does with requests from now on, and how often one has come.
#[derive(Clone, Default)]
pub(crate) struct Fate {
    deed: Arc<AtomicU8>,
    asked: Arc<AtomicUsize>,
}

impl Fate {
    pub(crate) fn is(&self, deed: Deed) {
        let at = DEEDS.iter().position(|known| *known == deed).expect("a deed");
        self.deed.store(u8::try_from(at).expect("few"), Ordering::SeqCst);
        self.asked.store(0, Ordering::SeqCst);
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn meet(self, request: Request, next: Next) -> Response {
        if ![GENERATE, READ].contains(&request.uri().path()) {
            return next.run(request).await;
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        match DEEDS[usize::from(self.deed.load(Ordering::SeqCst))] {
            Deed::Well => next.run(request).await,
            Deed::Refuses => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            Deed::BreaksOff => {
                let broken = Err::<String, _>(std::io::Error::other("broken off"));
                Body::from_stream(stream::iter([broken])).into_response()
            }
            Deed::Fails => {
                let told = Told::Refused(Why::Engine("a fault".to_owned()), Used::default());
                format!("{}\n", serde_json::to_string(&told).expect("JSON")).into_response()
            }
            Deed::Full => StatusCode::TOO_MANY_REQUESTS.into_response(),
            Deed::Blames => StatusCode::BAD_REQUEST.into_response(),
            Deed::SaysNothing => std::future::pending().await,
        }
    }

    /// The wire to a node that has this fate.
    pub(crate) async fn wire(&self, node: Router) -> Wire {
        let own = self.clone();
        let meets = from_fn(move |request: Request, next: Next| own.clone().meet(request, next));
        Wire::to(listen(node.layer(meets)).await).await
    }
}

/// A node with a fate, and one without.
struct Pair {
    gateway: Gateway,
    fate: Fate,
    /// Of the first.
    node: String,
    requests: AtomicUsize,
    _sites: [Site; 2],
}

impl Pair {
    async fn start() -> Self {
        let (mut one, two) =
            (Site::start(Setup::default()).await, Site::start(Setup::default()).await);
        let fate = Fate::default();
        one.wire = fate.wire(one.router.clone()).await;
        let gateway = Gateway::of(&[&one, &two]).await;
        let (node, requests) = (one.wire.address.to_string(), AtomicUsize::new(0));
        Self { gateway, fate, node, requests, _sites: [one, two] }
    }

    /// What is answered to another prompt each time, and whether the first node was asked first:
    /// each is for about half of them.
    async fn answers(&self) -> (Value, bool) {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let words = json!([{"role": "user", "content": format!("{number:05}")}]);
        let body = chat(&json!({"messages": words, "max_tokens": 8}));
        let answer = ask(&self.gateway.router, &body).await;
        let route = answer.headers["x-hearth-route"].to_str().expect("text");
        (said(&answer), route.contains(&format!("node={};", self.node)))
    }

    /// What metrics say of the first node.
    async fn is_shown(&self, available: bool) {
        let (node, may) = (&self.node, u8::from(available));
        let line = format!("hearth_cluster_node_available{{node=\"{node}\"}} {may}\n");
        until("it is shown", || self.gateway.metrics.render().contains(&line)).await;
    }
}

/// As often as it may be asked in this time: until it is left alone, and then at the end of each
/// pause, which doubles from a second.
fn tries(time: Duration) -> usize {
    let mut tries = 3;
    while Duration::from_secs((1 << (tries - 2)) - 1) <= time {
        tries += 1;
    }
    tries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_fails_is_asked_now_and_then_and_comes_back() {
    assert_eq!(
        [0, 999, 1_000, 2_999, 3_000].map(|ms| tries(Duration::from_millis(ms))),
        [3, 3, 4, 4, 5]
    );
    for deed in [Deed::Refuses, Deed::BreaksOff, Deed::Fails] {
        let pair = Pair::start().await;
        let wanted = pair.answers().await.0;
        pair.fate.is(deed);
        let begun = Instant::now();
        for _ in 0..24 {
            assert_eq!(pair.answers().await.0, wanted, "{deed:?}");
        }
        pair.is_shown(false).await;
        assert!(pair.gateway.up() == 2 && pair.fate.asked() >= 3, "{deed:?}");
        // When it is to be tried again, one of many at once does.
        tokio::time::sleep(Duration::from_millis(1_050)).await;
        let many = join_all((0..16).map(|_| pair.answers())).await;
        assert!(many.iter().all(|(said, _)| *said == wanted), "{deed:?}");
        let (asked, most) = (pair.fate.asked(), tries(begun.elapsed()));
        assert!((4..=most).contains(&asked), "{deed:?}: asked {asked} times, at most {most}");
        pair.fate.is(Deed::Well);
        let back = Instant::now();
        while !pair.answers().await.1 {
            assert!(back.elapsed() < Duration::from_secs(6), "{deed:?}: it does not come back");
        }
        let many = join_all((0..24).map(|_| pair.answers())).await;
        let own = many.iter().filter(|(_, first)| *first).count();
        assert!((2..=22).contains(&own), "{deed:?}: {own} of 24");
        pair.is_shown(true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_and_requests_at_fault_say_nothing_of_a_node() {
    for deed in [Deed::Full, Deed::Blames] {
        let pair = Pair::start().await;
        pair.fate.is(deed);
        let mut first = 0;
        for _ in 0..24 {
            first += usize::from(pair.answers().await.1);
            assert_eq!(pair.fate.asked(), first, "{deed:?}");
        }
        assert!(first >= 2, "{deed:?}: the choice is the same");
        pair.is_shown(true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_node_is_asked_whatever_it_did() {
    let mut site = Site::start(Setup::default()).await;
    let fate = Fate::default();
    site.wire = fate.wire(site.router.clone()).await;
    let gateway = Gateway::of(&[&site]).await;
    fate.is(Deed::Refuses);
    let body = chat(&json!({}));
    for _ in 0..4 {
        let before = fate.asked();
        let answer = post(&gateway.router, "/v1/chat/completions", body.to_string()).await;
        assert!(answer.status >= 500 && fate.asked() > before, "{}", answer.body);
    }
    fate.is(Deed::Well);
    ask(&gateway.router, &body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_says_nothing_is_not_waited_for() {
    let pair = Pair::start().await;
    pair.fate.is(Deed::SaysNothing);
    let begun = Instant::now();
    let all = join_all((0..16).map(|_| pair.answers())).await;
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(14), "{took:?}");
    assert!(all.iter().all(|(said, _)| *said == all[0].0));
    pair.is_shown(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_fails_to_read_is_left_alone_as_well() {
    let places = [Place::start().await, Place::start().await];
    let fates = [Fate::default(), Fate::default()];
    let mut wires = Vec::new();
    for (place, fate) in places.iter().zip(&fates) {
        wires.push(fate.wire(place.node.router()).await);
    }
    let gateway = Gateway::start(&[wires[0].address, wires[1].address]);
    all_in(&gateway, 2).await;
    fates[0].is(Deed::Refuses);
    let begun = Instant::now();
    for number in 0..40 {
        let body = texts(&format!("abc{number}")).to_string();
        let answer = post(&gateway.router, "/v1/embeddings", body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let asked = fates[0].asked();
    let most = tries(begun.elapsed());
    assert!((3..=most).contains(&asked), "asked {asked} times, at most {most}");
    assert_eq!(fates[1].asked(), 40);
    fates[0].is(Deed::Well);
    let back = Instant::now();
    // Many at once: one at a time would all go to the other where that was measured as faster.
    let body = texts("abc").to_string();
    let many = || (0..16).map(|_| post(&gateway.router, "/v1/embeddings", body.clone()));
    while fates[0].asked() < 4 {
        assert!(back.elapsed() < Duration::from_secs(6), "it does not come back");
        assert!(join_all(many()).await.iter().all(|answer| answer.status == 200));
    }
    // One that says nothing is not waited for until the request is late.
    fates[0].is(Deed::SaysNothing);
    let begun = Instant::now();
    assert!(join_all(many()).await.iter().all(|answer| answer.status == 200));
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(14), "{took:?}");
}
