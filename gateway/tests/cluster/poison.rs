//! A request that breaks the nodes that take it must not take the whole fleet with it. One that
//! nodes do not take harms nobody, and is asked of all of them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use gateway::cluster::protocol::GENERATE;
use serde_json::json;

use crate::client::post;
use crate::fake::Setup;
use crate::kit::{Gateway, Site, ask, chat, listen, until};
use crate::wire::Wire;

/// What nodes do with a request for tokens, and how often one has come to any of them.
#[derive(Clone, Default)]
struct Fate {
    /// Their wire dies at it, and they do not come back.
    dies: Arc<AtomicBool>,
    /// They are well and do not take it.
    refuses: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Fate {
    /// Between a node and the wire to it.
    async fn meet(self, wire: Arc<OnceLock<Wire>>, request: Request, next: Next) -> Response {
        if request.uri().path() != GENERATE {
            return next.run(request).await;
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.dies.load(Ordering::SeqCst) {
            wire.get().expect("the wire").kill(true);
            return std::future::pending().await;
        }
        if self.refuses.load(Ordering::SeqCst) {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        next.run(request).await
    }
}

/// A node that shares a fate; it lives as long as its fake does.
async fn site(fate: &Fate) -> (Site, Arc<OnceLock<Wire>>) {
    let site = Site::start(Setup::default()).await;
    let (fate, wire) = (fate.clone(), Arc::new(OnceLock::new()));
    let own = Arc::clone(&wire);
    let meets = from_fn(move |request: Request, next: Next| {
        fate.clone().meet(Arc::clone(&own), request, next)
    });
    let address = listen(site.router.clone().layer(meets)).await;
    assert!(wire.set(Wire::to(address).await).is_ok(), "it has one wire");
    (site, wire)
}

fn addresses(sites: &[(Site, Arc<OnceLock<Wire>>)]) -> Vec<SocketAddr> {
    sites.iter().map(|(_, wire)| wire.get().expect("the wire").address).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nodes_die_of_meets_six_of_a_large_fleet() {
    let fate = Fate::default();
    let mut sites = Vec::new();
    for _ in 0..12 {
        sites.push(site(&fate).await);
    }
    let gateway = Gateway::start(&addresses(&sites));
    gateway.nodes(12).await;
    gateway.model("org/fake").await;
    fate.dies.store(true, Ordering::SeqCst);
    let answer = post(&gateway.router, "/v1/chat/completions", chat(&json!({})).to_string()).await;
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert!(answer.body.contains("6 times in a row a node broke off"), "{}", answer.body);
    assert_eq!(fate.asked.load(Ordering::SeqCst), 6);
    until("what died is out", || gateway.up() == 6).await;
    // The rest serves whoever comes.
    fate.dies.store(false, Ordering::SeqCst);
    ask(&gateway.router, &chat(&json!({}))).await;
    assert_eq!(gateway.up(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nodes_do_not_take_is_asked_of_all() {
    let (fate, well) = (Fate::default(), Fate::default());
    fate.refuses.store(true, Ordering::SeqCst);
    let mut sites = Vec::new();
    for _ in 0..9 {
        sites.push(site(&fate).await);
    }
    sites.push(site(&well).await);
    let gateway = Gateway::start(&addresses(&sites));
    gateway.nodes(10).await;
    gateway.model("org/fake").await;
    // The first choice stays where a prompt was read: others begin elsewhere.
    for number in 0..20 {
        let content = format!("Number {number}.");
        let body = chat(&json!({"messages": [{"role": "user", "content": content}]}));
        ask(&gateway.router, &body).await;
    }
    assert_eq!(well.asked.load(Ordering::SeqCst), 20);
    let refused = fate.asked.load(Ordering::SeqCst);
    assert!(refused > 20, "{refused} times one of the others was asked");
}
