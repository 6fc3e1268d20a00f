//! Nodes and gateways in this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::http::header::AUTHORIZATION;
use gateway::api::{App, Door, Keys, Limits, router};
use gateway::backend::Model;
use gateway::cluster::protocol::{JOIN, Join};
use gateway::cluster::{self, AdapterFolder, Dialer, Endpoint, Fleet, Kubernetes, Node, Sources};
use gateway::metrics::Metrics;
use gateway::models::Models;
use gateway::route::Routes;
use gateway::server::{self, Options};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::client::{Answer, post, send};
use crate::fake::{Fake, Setup};
use crate::wire::Wire;

pub(crate) const TOKEN: &str = "the-token-of-this-cluster";

/// Long enough to be cut in many places.
pub(crate) const SPEECH: &str = "Hello w\u{f6}rld, one two three. Hello one, two, three w\u{f6}rld \
    one one two two three three Hello Hello, and so on: one two three one two three one two three.";

/// A node: a fake engine, a server, and the wire to it.
pub(crate) struct Site {
    pub(crate) fake: Fake,
    pub(crate) node: Arc<Node>,
    pub(crate) router: Router,
    pub(crate) wire: Wire,
}

impl Site {
    pub(crate) async fn start(setup: Setup) -> Self {
        Self::with_weights(setup, "weights").await
    }

    pub(crate) async fn with_weights(setup: Setup, weights: &str) -> Self {
        let fake = Fake::start(setup);
        let model = fake.models.first().expect("the fake");
        let (node, address) = serve(&fake.models, &fake.metrics, &model, weights).await;
        Self { fake, router: node.router(), node, wire: Wire::to(address).await }
    }

    pub(crate) fn model(&self) -> Arc<Model> {
        self.fake.models.first().expect("the fake")
    }
}

/// Serves a model as a node.
pub(crate) async fn serve(
    models: &Arc<Models>,
    metrics: &Arc<Metrics>,
    model: &Arc<Model>,
    weights: &str,
) -> (Arc<Node>, SocketAddr) {
    serve_with(models, metrics, (model, weights), &[], None).await
}

/// Serves a model and adapters of it as a node.
pub(crate) async fn serve_with(
    models: &Arc<Models>,
    metrics: &Arc<Metrics>,
    (model, weights): (&Arc<Model>, &str),
    adapters: &[(Arc<Model>, String)],
    folder: Option<AdapterFolder>,
) -> (Arc<Node>, SocketAddr) {
    let door = cluster::Door::new(Some(TOKEN), false);
    let node = Node::new(Arc::clone(models), Arc::clone(metrics), door, folder);
    node.offer(model, weights, adapters).expect("it can be described");
    let address = listen(node.router()).await;
    (node, address)
}

/// A server that stays.
pub(crate) async fn listen(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let options = Options { streams_max: 4096, ..Options::default() };
    let gauge = Metrics::new().connections().clone();
    tokio::spawn(server::serve(listener, router, options, gauge, std::future::pending()));
    address
}

/// Nodes that are listed.
fn sources(token: &str, nodes: &[SocketAddr], timeout: Duration) -> Sources {
    Sources {
        nodes: nodes.iter().map(|node| endpoint(*node)).collect(),
        names: Vec::new().into(),
        kubernetes: Kubernetes::default(),
        dialer: Dialer::new(Some(token), None, None).expect("a dialer"),
        door: Some(cluster::Door::new(Some(TOKEN), false)),
        request_timeout: Some(timeout),
    }
}

/// A gateway without a model of its own.
pub(crate) struct Gateway {
    pub(crate) router: Router,
    pub(crate) models: Arc<Models>,
    pub(crate) metrics: Arc<Metrics>,
    _fleet: Fleet,
}

pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    format!("http://{address}").parse().expect("an endpoint")
}

impl Gateway {
    pub(crate) fn start(nodes: &[SocketAddr]) -> Self {
        Self::showing(TOKEN, nodes)
    }

    pub(crate) fn showing(token: &str, nodes: &[SocketAddr]) -> Self {
        Self::with(token, nodes, Duration::from_secs(60))
    }

    pub(crate) fn with(token: &str, nodes: &[SocketAddr], timeout: Duration) -> Self {
        Self::finding(sources(token, nodes, timeout))
    }

    /// With pools over what these nodes serve.
    pub(crate) fn routed(nodes: &[SocketAddr], routes: Routes) -> Self {
        Self::new(sources(TOKEN, nodes, Duration::from_secs(60)), routes)
    }

    pub(crate) fn finding(sources: Sources) -> Self {
        Self::new(sources, Routes::default())
    }

    fn new(sources: Sources, routes: Routes) -> Self {
        let (models, metrics) = (Models::new(), Metrics::new());
        models.set_loaded();
        let fleet = Fleet::start(sources, &models, &metrics);
        let door: Door = Keys::default().into();
        let (all, count) = (Arc::clone(&models), Arc::clone(&metrics));
        let app = App::routed(all, count, door, Limits::default(), None, routes);
        let router = router(app).merge(fleet.router());
        Self { router, models, metrics, _fleet: fleet }
    }

    /// Of these sites, all of which are in.
    pub(crate) async fn of(sites: &[&Site]) -> Self {
        let nodes: Vec<SocketAddr> = sites.iter().map(|site| site.wire.address).collect();
        let gateway = Self::start(&nodes);
        gateway.nodes(sites.len()).await;
        gateway.model("org/fake").await;
        gateway
    }

    /// A node names itself, once.
    pub(crate) async fn join(&self, node: SocketAddr) {
        let named = Join { host: Some(node.ip().to_string()), port: node.port(), tls: false };
        let request = Request::post(JOIN).header(AUTHORIZATION, format!("Bearer {TOKEN}"));
        let body = serde_json::to_string(&named).expect("JSON");
        let answer = send(&self.router, request.body(body.into()).expect("a request")).await;
        assert_eq!(answer.status, 204, "{}", answer.body);
    }

    /// Waits until so many nodes are in.
    pub(crate) async fn nodes(&self, count: usize) {
        until("nodes are in", || self.up() == count).await;
    }

    pub(crate) fn up(&self) -> usize {
        let text = self.metrics.render();
        let up = |line: &&str| line.starts_with("hearth_cluster_node_up{") && line.ends_with(" 1");
        text.lines().filter(up).count()
    }

    /// The model of this name, when it is there.
    pub(crate) async fn model(&self, name: &str) -> Arc<Model> {
        until("the model is there", || self.models.get(name).is_some()).await;
        self.models.get(name).expect("the model")
    }

    /// The value of a series.
    pub(crate) fn figure(&self, series: &str) -> f64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        line.unwrap_or(0.0)
    }
}

/// Waits for what has to come.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

/// A chat with more fields.
pub(crate) fn chat(more: &Value) -> Value {
    let mut body = json!({"model": "org/fake", "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 400});
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

/// Asks, and expects an answer.
pub(crate) async fn ask(router: &Router, body: &Value) -> Answer {
    let answer = post(router, "/v1/chat/completions", body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

/// What an answer says: its choices, without what differs between two of the same.
pub(crate) fn said(answer: &Answer) -> Value {
    let body = answer.json();
    json!({"choices": body["choices"], "usage": {
        "prompt": body["usage"]["prompt_tokens"], "made": body["usage"]["completion_tokens"]}})
}
