//! A model on a node of the cluster is as much at home as one in this process: it sees everything,
//! and when the node is lost or its device hangs, what is secret goes nowhere else.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use gateway::api::{App, Door, Limits, router};
use gateway::backend::local::EngineState;
use gateway::cluster::{self, Dialer, Endpoint, Fleet, Kubernetes, Node, Sources};
use gateway::metrics::Metrics;
use gateway::models::Models;
use govern::policy::Label;
use serde_json::json;

use crate::caller::{Inbound, open, provider, request, routes, send, until};
use crate::fake::{Fake, Setup};
use crate::governed::House;
use crate::leaving::listen;
use crate::line::Wire;
use crate::upstream::Upstream;

const TOKEN: &str = "the-token-of-this-cluster";

/// A node with the fake model, and the wire to it.
async fn node(setup: Setup) -> (Fake, Wire) {
    let fake = Fake::start(setup);
    let (models, metrics) = (Arc::clone(&fake.models), Arc::clone(&fake.metrics));
    let node = Node::new(models, metrics, cluster::Door::new(Some(TOKEN), false), None);
    let model = fake.models.first().expect("the fake");
    node.offer(&model, "weights", &[]).expect("it can be described");
    let wire = Wire::to(listen(node.router()).await).await;
    (fake, wire)
}

/// A gateway whose only model is that node's.
struct Front {
    router: Router,
    models: Arc<Models>,
    _fleet: Fleet,
}

impl Front {
    fn new(house: &House, wire: &Wire, config: &str) -> Self {
        let (models, metrics) = (Models::new(), Metrics::new());
        models.set_loaded();
        let node: Endpoint = format!("http://{}", wire.address).parse().expect("an endpoint");
        let sources = Sources {
            nodes: vec![node],
            names: Vec::new().into(),
            kubernetes: Kubernetes::default(),
            dialer: Dialer::new(Some(TOKEN), None, None).expect("a dialer"),
            door: None,
            request_timeout: Some(Duration::from_secs(60)),
        };
        let fleet = Fleet::start(sources, &models, &metrics);
        let routes = routes(config, &["org/fake"]).expect("a configuration");
        let door = Door::Governed(house.governor.clone(), None);
        let app = App::routed(Arc::clone(&models), metrics, door, Limits::default(), None, routes);
        Self { router: router(app), models, _fleet: fleet }
    }

    /// The node takes requests.
    fn is_there(&self) -> bool {
        let model = self.models.get("org/fake");
        model.is_some_and(|model| model.engine.state() == EngineState::Ready)
    }

    /// Requests of all labels, whole and streamed, by turns in all dialects: while the node does
    /// not answer, the provider does as far as it may see them.
    async fn ask(&self, keys: &[(Label, String)], when: &str, answers: bool) {
        for (at, (label, key)) in keys.iter().enumerate() {
            for streams in [false, true] {
                let inbound = Inbound::ALL[(at + usize::from(streams)) % Inbound::ALL.len()];
                let words = format!("this is {}", label.name());
                let (path, body) = inbound.request("p", streams, &words);
                let got = send(&self.router, request(key, &path, &body)).await;
                let (text, route) = (got.text(), got.route());
                let about = format!(
                    "{when} {label:?} {inbound:?} {streams}: {} {route} {text}",
                    got.status
                );
                if answers || *label == Label::Public {
                    assert_eq!(got.status, 200, "{about}");
                    let by = if answers { "org/fake; " } else { "far/m; " };
                    assert!(route.starts_with(by) && !inbound.breaks(&text), "{about}");
                } else if got.status == 200 {
                    // It was sent there before anybody knew.
                    assert!(streams && inbound.breaks(&text) && !inbound.ends(&text), "{about}");
                } else {
                    assert!([429, 500, 502, 503, 504].contains(&got.status), "{about}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_secret_stays_with_the_node() {
    let far = Upstream::well("far").await;
    let hangs = Some(Duration::from_millis(300));
    let (fake, wire) = node(Setup { hangs, ..Setup::default() }).await;
    let house = House::new().await;
    let plain = house.gateway("", Setup::default());
    let mut keys = Vec::new();
    for label in Label::ALL {
        let policy = json!({ "label": label.name() });
        keys.push((label, house.key(&plain.router, label.name(), policy).await));
    }
    let more = "max_label = \"public\"\nlost_fields = \"drop\"\n";
    let config = format!(
        "{}[pools.p]\ntargets = [\"org/fake\", \"far/m\"]\n",
        provider("far", "compatible", &far.url, more)
    );
    let front = Front::new(&house, &wire, &config);
    until("it is there", || front.is_there()).await;
    front.ask(&keys, "at first", true).await;
    assert_eq!(far.count(), 0);

    wire.kill(true);
    front.ask(&keys, "lost a moment ago", false).await;
    until("it is known", || !front.is_there()).await;
    front.ask(&keys, "lost", false).await;
    wire.kill(false);
    until("it is there again", || front.is_there()).await;

    fake.gate.close();
    front.ask(&keys, "hanging", false).await;
    until("it is known", || !front.is_there()).await;
    front.ask(&keys, "known to hang", false).await;
    fake.gate.open();

    let seen = far.seen();
    assert!(seen.len() >= 8, "{} were answered there", seen.len());
    for seen in seen {
        let body = String::from_utf8_lossy(&seen.body);
        assert!(body.contains("this is public"), "too secret for who saw it: {body}");
    }
}

/// A node's queue is a queue like one of this process: behind it are providers, until it is short.
#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_queue_overflows_and_comes_back() {
    let far = Upstream::well("far").await;
    let pace = Duration::from_millis(3);
    let (fake, wire) = node(Setup { endless: true, pace, rows: 1, ..Setup::default() }).await;
    let house = House::new().await;
    let plain = house.gateway("", Setup::default());
    let key = house.key(&plain.router, "team", json!({})).await;
    let config = format!(
        "{}[pools.p]\ntargets = [\"org/fake\"]\n\
         overflow = {{ to = [\"far/m\"], when = {{ queue = 2 }} }}\n",
        provider("far", "compatible", &far.url, "")
    );
    let front = Front::new(&house, &wire, &config);
    until("it is there", || front.is_there()).await;
    let ask = |streams: bool, most: u32| {
        let (path, mut body) = Inbound::Chat.request("p", streams, "hi");
        body["max_tokens"] = most.into();
        request(&key, &path, &body)
    };
    let waiting = || front.models.get("org/fake").map_or(0, |model| model.engine.waiting());
    // One runs, two wait.
    let mut held = Vec::new();
    for count in 0..3_usize {
        let (router, request) = (front.router.clone(), ask(true, 4_000));
        held.push(tokio::spawn(async move { open(&router, request).await }));
        until("the queue is so long", || waiting() == count).await;
    }
    let over = send(&front.router, ask(false, 3)).await;
    assert_eq!(over.route(), "far/m; pool=p; reason=overflow; attempt=1");
    held.iter().for_each(tokio::task::JoinHandle::abort);
    until("nobody waits", || waiting() == 0).await;
    until("it comes back", || {
        let shown = front.models.get("org/fake").map(|model| model.engine.open());
        shown == Some(0)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let calm = send(&front.router, ask(false, 3)).await;
    assert!(calm.route().starts_with("far/m"), "{}", calm.route());
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let back = send(&front.router, ask(false, 3)).await;
    assert_eq!(back.route().split("; ").next(), Some("org/fake"), "{}", back.text());
    assert_eq!(far.count(), 2);
    drop(fake);
}
