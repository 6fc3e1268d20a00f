//! An API server of Kubernetes, as a gateway meets it: what it lists and what it tells as it
//! happens, tokens and authorities that are replaced, and times when it is away.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::stream;
use gateway::cluster::{Dialer, Kubernetes, Sources};
use gateway::metrics::Metrics;
use gateway::server::{self, Options};
use gateway::tls::{Clients, Files, Tls};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::authority::Authority;
use crate::client::post;
use crate::fake::Setup;
use crate::kit::{Gateway, Site, TOKEN, chat, listen, until};
use crate::wire::Wire;

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices";

/// An API server with the slices of one service.
#[derive(Clone)]
struct Api {
    known: Arc<Mutex<Known>>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    /// What is to be shown.
    token: String,
    version: u64,
    slices: BTreeMap<String, Value>,
    /// Lines of watches, each with the version that it leads to.
    events: Vec<(u64, String)>,
    refused: usize,
    lists: usize,
}

impl Api {
    fn new(token: &str) -> Self {
        let known = Known { token: token.to_owned(), ..Known::default() };
        Self { known: Arc::new(Mutex::new(known)), changed: watch::channel(()).0 }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nobody panicked")
    }

    fn router(&self) -> Router {
        Router::new().route(SLICES, get(answer)).with_state(self.clone())
    }

    /// A slice with one pod: this site.
    fn put(&self, kind: &str, name: &str, site: &Site, ready: bool) {
        let address = site.wire.address;
        let conditions = json!({"ready": ready, "serving": ready, "terminating": false});
        let pod = json!({"addresses": [address.ip().to_string()], "conditions": conditions,
            "targetRef": {"kind": "Pod", "uid": name}});
        let port = json!({"name": "cluster", "port": address.port(), "protocol": "TCP"});
        let slice = json!({"metadata": {"name": name}, "addressType": "IPv4",
            "endpoints": [pod], "ports": [port]});
        self.tell(kind, slice);
    }

    fn delete(&self, name: &str) {
        let slice = self.known().slices[name].clone();
        self.tell("DELETED", slice);
    }

    /// What was listed is too old to be watched on from.
    fn expire(&self) {
        self.tell("ERROR", json!({"kind": "Status", "metadata": {}, "code": 410}));
    }

    fn tell(&self, kind: &str, mut object: Value) {
        let mut known = self.known();
        known.version += 1;
        let version = known.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        known.events.push((version, line));
        if let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned) {
            match kind {
                "DELETED" => known.slices.remove(&name),
                _ => known.slices.insert(name, object),
            };
        }
        drop(known);
        self.changed.send_replace(());
    }

    /// Events behind this version, each in two pieces.
    fn watch(&self, from: u64) -> Body {
        let begun = (self.clone(), from, self.changed.subscribe(), VecDeque::new());
        Body::from_stream(stream::unfold(
            begun,
            |(api, mut seen, mut news, mut parts)| async move {
                loop {
                    if let Some(part) = parts.pop_front() {
                        return Some((Ok::<String, Infallible>(part), (api, seen, news, parts)));
                    }
                    for (version, line) in &api.known().events {
                        if *version > seen {
                            seen = *version;
                            let (head, tail) = line.split_at(line.len() / 2);
                            parts.extend([head.to_owned(), tail.to_owned()]);
                        }
                    }
                    if parts.is_empty() && news.changed().await.is_err() {
                        return None;
                    }
                }
            },
        ))
    }
}

async fn answer(
    State(api): State<Api>,
    Path(namespace): Path<String>,
    Query(asked): Query<HashMap<String, String>>,
    head: HeaderMap,
) -> Response {
    let mut known = api.known();
    let refusal = |status: StatusCode| {
        let told = json!({"kind": "Status", "code": status.as_u16(), "message": "no"});
        (status, told.to_string()).into_response()
    };
    let shown = head.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if shown != Some(format!("Bearer {}", known.token).as_str()) {
        known.refused += 1;
        return refusal(StatusCode::UNAUTHORIZED);
    }
    let selector = asked.get("labelSelector").map(String::as_str);
    if (namespace.as_str(), selector) != ("models", Some("kubernetes.io/service-name=nodes")) {
        return refusal(StatusCode::FORBIDDEN);
    }
    if asked.contains_key("watch") {
        let from = asked.get("resourceVersion").and_then(|version| version.parse().ok());
        let Some(from) = from else { return refusal(StatusCode::BAD_REQUEST) };
        drop(known);
        return api.watch(from).into_response();
    }
    known.lists += 1;
    let items: Vec<&Value> = known.slices.values().collect();
    let version = json!({"resourceVersion": known.version.to_string()});
    let list = json!({"kind": "EndpointSliceList", "metadata": version, "items": items});
    list.to_string().into_response()
}

/// The files of an account, as a pod has them.
struct Account(PathBuf);

impl Account {
    fn new(name: &str) -> Self {
        // The client is the one of `hearth serve`, which does this at its start.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let name = format!("hearth-kubernetes-{name}-{}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0).expect("a folder");
        folder.put("namespace", "models\n");
        folder
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("written");
    }

    /// A gateway that asks with it.
    fn gateway(&self, api: &str) -> Gateway {
        Gateway::finding(Sources {
            nodes: Vec::new(),
            names: Vec::new().into(),
            kubernetes: Kubernetes {
                services: vec!["http://nodes:cluster".parse().expect("a service")],
                api: Some(api.parse().expect("a URL")),
                account: self.0.clone(),
            },
            dialer: Dialer::new(Some(TOKEN), None, None).expect("a dialer"),
            door: None,
            request_timeout: Some(Duration::from_secs(60)),
        })
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether this node makes the next answer.
async fn answers(gateway: &Gateway, site: &Site) -> bool {
    let answer = post(&gateway.router, "/v1/chat/completions", chat(&json!({})).to_string()).await;
    let node = format!("node={};", site.wire.address);
    let route = answer.headers.get("x-hearth-route").and_then(|route| route.to_str().ok());
    answer.status == 200 && route.is_some_and(|route| route.contains(&node))
}

/// Waits until answers are this node's, and sees that they stay so.
async fn moves_to(gateway: &Gateway, site: &Site) {
    let mut left = 2_000;
    while !answers(gateway, site).await {
        left -= 1;
        assert!(left > 0, "never answered by {}", site.wire.address);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..8 {
        assert!(answers(gateway, site).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_the_endpoints_that_slices_tell_of() {
    let account = Account::new("slices");
    account.put("token", "yesterdays-token");
    let (one, two) = (Site::start(Setup::default()).await, Site::start(Setup::default()).await);
    let api = Api::new("todays-token");
    api.put("ADDED", "s", &one, true);
    let wire = Wire::to(listen(api.router()).await).await;
    let gateway = account.gateway(&format!("http://{}", wire.address));
    until("the token is refused", || api.known().refused > 0).await;
    assert_eq!((gateway.up(), one.wire.opened()), (0, 0));
    account.put("token", "todays-token\n");
    gateway.model("org/fake").await;
    moves_to(&gateway, &one).await;

    // One that is not ready is not spoken to. It has been told of when all is listed anew.
    let lists = api.known().lists;
    api.put("ADDED", "t", &two, false);
    api.expire();
    until("all is listed anew", || api.known().lists > lists).await;
    assert_eq!(two.wire.opened(), 0);
    api.put("MODIFIED", "t", &two, true);
    gateway.nodes(2).await;

    // A pod that the service does not select any more gets nothing, though it works.
    api.delete("s");
    moves_to(&gateway, &two).await;
    assert_eq!(gateway.up(), 2);

    // The API server is away: what it told last holds, even for a node that was away itself.
    wire.kill(true);
    let opened = two.wire.opened();
    two.wire.cut();
    until("the node is spoken to again", || two.wire.opened() > opened).await;
    gateway.nodes(2).await;
    moves_to(&gateway, &two).await;

    // It comes back with another token, and tells nothing of what has happened meanwhile.
    api.put("ADDED", "s", &one, true);
    api.delete("t");
    api.known().events.clear();
    api.known().token = "tomorrows-token".to_owned();
    account.put("token", "tomorrows-token");
    wire.kill(false);
    moves_to(&gateway, &one).await;

    // Let go and dead: it is forgotten.
    two.wire.kill(true);
    let node = format!("node=\"{}\"", two.wire.address);
    until("it is forgotten", || !gateway.metrics.render().contains(&node)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_goes_to_whom_the_accounts_authority_vouches_for() {
    let account = Account::new("authority");
    account.put("token", "todays-token");
    let (house, other) = (Authority::new("house"), Authority::new("other"));
    account.put("ca.crt", &other.pem());
    let own = house.issue(1, &["ip:127.0.0.1"]);
    account.put("own.pem", &own.certificate);
    account.put("own.key", &own.key);
    let tls = Tls::open(Files {
        certificate: account.0.join("own.pem"),
        key: account.0.join("own.key"),
        client_authorities: None,
        revoked: None,
        clients: Clients::Unasked,
    });
    let site = Site::start(Setup::default()).await;
    let api = Api::new("todays-token");
    api.put("ADDED", "s", &site, true);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let wire = Wire::to(listener.local_addr().expect("an address")).await;
    let options = Options { tls: Some(Arc::new(tls.expect("TLS"))), ..Options::default() };
    let gauge = Metrics::new().connections().clone();
    tokio::spawn(server::serve(listener, api.router(), options, gauge, std::future::pending()));
    let gateway = account.gateway(&format!("https://{}", wire.address));
    until("it has tried again", || wire.opened() > 1).await;
    let asked = {
        let known = api.known();
        (known.lists, known.refused)
    };
    assert_eq!(asked, (0, 0));
    account.put("ca.crt", &house.pem());
    gateway.model("org/fake").await;
    assert!(answers(&gateway, &site).await);
}
