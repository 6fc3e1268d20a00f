//! All nodes that a gateway knows: those that its configuration lists, those that a name in the
//! DNS stands for, those that are endpoints of a service of Kubernetes, and those that have named
//! themselves. Each has a task that follows its state; what a node serves becomes a model of this
//! gateway.

mod entry;
mod found;
mod keep;
mod kubernetes;
mod learn;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::{BodyExt as _, Limited};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::dial::Dialer;
use super::endpoint::Endpoint;
use super::member::Member;
use super::node::Door;
use super::protocol::{self, Join};
use super::read::ClusterReader;
use super::remote::ClusterEngine;
use super::service::{Roster, Service};
use crate::metrics::Metrics;
use crate::models::Models;
use crate::server::Peer;
use crate::tls::ClientNames;
use entry::{Doing, Finder, Origin, Why};

pub use found::{LookUp, Names, join};
pub use kubernetes::{Kubernetes, KubernetesService, ServicePort};

/// Nodes of one gateway.
const NODES_MAX: usize = 1024;
/// Between two looks at all of it.
const REVIEW: Duration = Duration::from_secs(1);
/// Of so many of these, one looks at models that were refused.
const LEARN_EVERY: u64 = 3;
/// Longest word of a node that names itself.
const JOIN_BYTES_MAX: usize = 4 << 10;

/// Where nodes come from, and how they are spoken to.
pub struct Sources {
    /// Listed: they stay, whether they speak or not.
    pub nodes: Vec<Endpoint>,
    /// Names whose addresses are nodes, all of them.
    pub names: Names,
    /// Services whose endpoints are nodes.
    pub kubernetes: Kubernetes,
    /// What connections are made with.
    pub dialer: Dialer,
    /// Who may name himself as a node; `None`: nobody.
    pub door: Option<Door>,
    /// A request that takes longer is ended.
    pub request_timeout: Option<Duration>,
}

/// See the module. When the last handle is gone, nobody follows nodes any more.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    dialer: Dialer,
    door: Option<Door>,
    request_timeout: Option<Duration>,
    models: Arc<Models>,
    metrics: Arc<Metrics>,
    roster: Roster,
    entries: Mutex<Vec<Entry>>,
    /// There are more than are followed, and the log says so.
    is_full: AtomicBool,
    /// By the model's name.
    engines: Mutex<HashMap<String, Known>>,
    /// Of models that are being described: each is asked for once, however many nodes have it.
    learning: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// A model that nodes serve.
#[derive(Clone)]
enum Known {
    Writes(ClusterEngine),
    Reads(ClusterReader),
}

impl Known {
    fn service(&self) -> &Service {
        match self {
            Self::Writes(engine) => &engine.shared.service,
            Self::Reads(reader) => &reader.shared.service,
        }
    }

    /// Once a second.
    fn review(&self) {
        match self {
            Self::Writes(engine) => engine.review(),
            Self::Reads(reader) => reader.review(),
        }
    }
}

/// A node and why it is known.
struct Entry {
    member: Arc<Member>,
    why: Why,
    keeper: AbortHandle,
}

/// A node that a name or a service stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    endpoint: Endpoint,
    /// It takes requests. One that does not may be one that begins, or one that drains.
    ready: bool,
}

impl Fleet {
    /// Begins to follow nodes; what they serve is put among `models`. Within a runtime.
    #[must_use]
    pub fn start(sources: Sources, models: &Arc<Models>, metrics: &Arc<Metrics>) -> Self {
        let Sources { nodes, names, kubernetes, dialer, door, request_timeout } = sources;
        let fleet = Self(Arc::new(Inner {
            dialer,
            door,
            request_timeout,
            models: Arc::clone(models),
            metrics: Arc::clone(metrics),
            roster: Roster::default(),
            entries: Mutex::default(),
            is_full: AtomicBool::new(false),
            engines: Mutex::default(),
            learning: Mutex::default(),
            tasks: Mutex::default(),
        }));
        models.expect_nodes();
        for endpoint in nodes {
            fleet.0.add(&endpoint, Origin::Listed);
        }
        let mut tasks = vec![tokio::spawn(review(Arc::downgrade(&fleet.0))).abort_handle()];
        let mut finders = (0..).map(Finder);
        let Names { all, look_up, pause } = names;
        for (name, finder) in all.into_iter().zip(&mut finders) {
            let how = (Arc::clone(&look_up), pause);
            let found = found::follow(Arc::downgrade(&fleet.0), finder, name, how);
            tasks.push(tokio::spawn(found).abort_handle());
        }
        let Kubernetes { services, api, account } = kubernetes;
        for (service, finder) in services.into_iter().zip(&mut finders) {
            let Some(api) = api.clone() else { break };
            let asked = (api, account.clone());
            let told = kubernetes::follow(Arc::downgrade(&fleet.0), finder, service, asked);
            tasks.push(tokio::spawn(told).abort_handle());
        }
        *fleet.0.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        fleet
    }

    /// The route on which nodes name themselves.
    pub fn router(&self) -> Router {
        Router::new().route(protocol::JOIN, post(joined)).with_state(self.clone())
    }
}

impl Inner {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node is there, or is there still; `false`: too many are known.
    fn add(self: &Arc<Self>, endpoint: &Endpoint, origin: Origin) -> bool {
        let mut entries = self.entries();
        let added = self.name(&mut entries, endpoint, origin);
        self.publish(&entries);
        added
    }

    /// What a name or a service stands for now, all of it. A node that it stood for before and
    /// that nobody else knows is let go: it gets nothing new, and ends what it has.
    fn stands_for(self: &Arc<Self>, finder: Finder, named: &[Named]) {
        let mut entries = self.entries();
        // One that is not ready is left alone: it tells the fleet itself what it can do.
        for node in named.iter().filter(|node| node.ready) {
            self.name(&mut entries, &node.endpoint, Origin::Found(finder));
        }
        let named: HashSet<_> = named.iter().map(|node| &node.endpoint).collect();
        let now = Instant::now();
        for Entry { member, why, .. } in entries.iter_mut() {
            if !named.contains(&member.endpoint) && why.dropped(finder, now) {
                tracing::info!(node = %member.endpoint, "a node is let go");
                self.metrics.cluster().gpus(&member.endpoint.authority(), &[]);
            }
        }
        self.publish(&entries);
    }

    fn name(
        self: &Arc<Self>,
        entries: &mut Vec<Entry>,
        endpoint: &Endpoint,
        origin: Origin,
    ) -> bool {
        let now = Instant::now();
        if let Some(known) = entries.iter_mut().find(|e| e.member.endpoint == *endpoint) {
            known.why.named(origin, now);
            return true;
        }
        if entries.len() >= NODES_MAX {
            if !self.is_full.swap(true, Ordering::Relaxed) {
                let most = NODES_MAX;
                tracing::error!(most, node = %endpoint, "more nodes than are followed: left out");
            }
            return false;
        }
        tracing::info!(node = %endpoint, ?origin, "a node is known");
        let member = Member::new(endpoint.clone());
        let keeper = keep::keep(Arc::downgrade(self), Arc::clone(&member));
        let keeper = tokio::spawn(keeper).abort_handle();
        let mut why = Why::default();
        why.named(origin, now);
        entries.push(Entry { member, why, keeper });
        true
    }

    /// Those that were not let go may get requests.
    fn publish(&self, entries: &[Entry]) {
        let stay = || entries.iter().filter(|entry| !entry.why.is_let_go());
        let now = stay().map(|entry| Arc::as_ptr(&entry.member));
        if !self.roster.list().iter().map(Arc::as_ptr).eq(now) {
            self.roster.set(stay().map(|entry| Arc::clone(&entry.member)).collect());
        }
    }

    /// Forgets nodes that nobody has named for a while and that do not speak, and those that were
    /// let go and have ended what they had.
    fn forget(&self) {
        let mut entries = self.entries();
        let now = Instant::now();
        entries.retain(|Entry { member, why, keeper }| {
            let doing = Doing { up: member.is_up(), busy: member.is_busy() };
            let stays = why.stays(doing, self.request_timeout, now);
            if !stays {
                tracing::info!(node = %member.endpoint, "a node is forgotten");
                self.metrics.cluster().forgotten(&member.endpoint.authority());
                keeper.abort();
            }
            stays
        });
        if entries.len() < NODES_MAX {
            self.is_full.store(false, Ordering::Relaxed);
        }
        self.publish(&entries);
    }

    fn engines(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(AbortHandle::abort);
        let entries = self.entries.get_mut().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            entry.keeper.abort();
            entry.member.down();
        }
    }
}

/// Looks at all of it again and again.
async fn review(fleet: std::sync::Weak<Inner>) {
    let mut ticks = interval(REVIEW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0_u64.. {
        ticks.tick().await;
        let Some(fleet) = fleet.upgrade() else { return };
        fleet.forget();
        let members = fleet.roster.list();
        for member in members.iter() {
            let node = member.endpoint.authority();
            fleet.metrics.cluster().gpus(&node, &member.gpus());
            fleet.metrics.cluster().available(&node, !member.is_left_alone());
        }
        let engines: Vec<Known> = fleet.engines().values().cloned().collect();
        engines.iter().for_each(Known::review);
        if turn % LEARN_EVERY != 0 {
            continue;
        }
        // A model that was refused beside another may be the only one of its name by now.
        members.iter().for_each(|member| member.news.notify_one());
    }
}

/// `POST /cluster/v1/join`
async fn joined(State(fleet): State<Fleet>, request: Request) -> Response {
    let said = |status: StatusCode, why: &str| (status, format!("{why}\n")).into_response();
    let Some(door) = &fleet.0.door else {
        return said(StatusCode::FORBIDDEN, "without a token nobody names himself as a node");
    };
    if let Err(status) = door.enter(&request) {
        return said(status, "the cluster's token is missing or wrong");
    }
    let peer = request.extensions().get::<Peer>().copied();
    let names = request.extensions().get::<ClientNames>().cloned();
    let body = Limited::new(request.into_body(), JOIN_BYTES_MAX).collect().await;
    let Ok(body) = body else { return said(StatusCode::PAYLOAD_TOO_LARGE, "that is too long") };
    let join: Join = match serde_json::from_slice(&body.to_bytes()) {
        Ok(join) => join,
        Err(error) => return said(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let host = join.host.or(peer.map(|Peer(address)| address.to_string()));
    let Some(host) = host else { return said(StatusCode::BAD_REQUEST, "where does it answer?") };
    if !door.admits(names.as_ref(), &host) {
        let why = "without a token a node names a host that its certificate is made out to";
        return said(StatusCode::FORBIDDEN, why);
    }
    let shown = if host.contains(':') { format!("[{host}]") } else { host };
    let scheme = if join.tls { "https" } else { "http" };
    match format!("{scheme}://{shown}:{}", join.port).parse::<Endpoint>() {
        Err(why) => said(StatusCode::BAD_REQUEST, &why),
        Ok(endpoint) if fleet.0.add(&endpoint, Origin::Joined) => {
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(_) => said(StatusCode::TOO_MANY_REQUESTS, "too many nodes are known"),
    }
}
