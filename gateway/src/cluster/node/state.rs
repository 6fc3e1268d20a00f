//! A node's state as an endless stream of lines: the whole at first, then what has changed, and a
//! beat where nothing has.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::time::{MissedTickBehavior, interval};

use super::{Node, Offered, Reader, said};
use crate::backend::embed::LocalEmbedder;
use crate::backend::local::{LocalEngine, PageNews, PageWatch};
use crate::cluster::protocol::{
    self, Changed, Delta, Load, ReadLoad, Served, ServedReader, Snapshot, State, VERSION_HEADER,
};
use crate::metrics::GpuReading;

/// Longest time until a change is told.
const LOOK: Duration = Duration::from_millis(100);
/// Longest silence.
const BEAT: Duration = Duration::from_millis(500);

/// The first version of what is spoken that knows models that read and do not write.
const READERS_SINCE: u32 = 2;

/// `GET /cluster/v1/state`
pub(super) async fn state(Shared(node): Shared<Arc<Node>>, headers: HeaderMap) -> Response {
    let said_version = headers.get(VERSION_HEADER).and_then(|value| value.to_str().ok());
    let version: u32 = said_version.and_then(|text| text.parse().ok()).unwrap_or(1);
    let readers = version >= READERS_SINCE;
    if !readers && let Some(why) = older(&node, version) {
        node.older_gateway(&why);
        if node.list().is_empty() {
            return said(StatusCode::UPGRADE_REQUIRED, &why);
        }
    }
    let teller = Teller::new(node, readers);
    let lines = stream::unfold((teller, None), |(mut teller, ticks)| async move {
        let mut ticks = match ticks {
            Some(ticks) => ticks,
            None => {
                let mut ticks = interval(LOOK);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                ticks
            }
        };
        let line = loop {
            ticks.tick().await;
            if let Some(state) = teller.look() {
                let mut line = Vec::new();
                protocol::line(&state, &mut line);
                break Bytes::from(line);
            }
        };
        Some((Ok::<_, Infallible>(line), (teller, Some(ticks))))
    });
    Body::from_stream(lines).into_response()
}

/// What a gateway of an older version does not get of this node, in words; `None`: it gets all.
fn older(node: &Node, version: u32) -> Option<String> {
    let readers = node.readers();
    let names: Vec<&str> = readers.iter().map(|reader| reader.model.id.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "a gateway speaks version {version} of the cluster's protocol and is not told of {}: \
             models that make vectors or scores need version {READERS_SINCE}; update the gateway",
            names.join(", ")
        )
    })
}

/// What one reader was told.
struct Teller {
    node: Arc<Node>,
    /// It knows models that read and do not write.
    tells_readers: bool,
    version: u64,
    /// Of what is offered, as it was told last.
    changes: u64,
    told: Instant,
    draining: bool,
    gpus: Arc<[GpuReading]>,
    models: HashMap<String, Followed>,
    readers: HashMap<String, ReadLoad>,
}

/// A model as its reader knows it.
struct Followed {
    load: Load,
    pages: Option<PageWatch>,
}

impl Teller {
    fn new(node: Arc<Node>, tells_readers: bool) -> Self {
        let (gpus, models, readers) = (Arc::default(), HashMap::new(), HashMap::new());
        let (version, changes, told, draining) = (0, 0, Instant::now(), false);
        Self { node, tells_readers, version, changes, told, draining, gpus, models, readers }
    }

    fn offered_readers(&self) -> Vec<Arc<Reader>> {
        if self.tells_readers { self.node.readers() } else { Vec::new() }
    }

    /// What is to be told now.
    fn look(&mut self) -> Option<State> {
        // Before the lists: what comes between them is told once more.
        let changes = self.node.changes.load(Ordering::SeqCst);
        let (offered, readers) = (self.node.list(), self.offered_readers());
        let draining = self.node.drains();
        if self.version == 0 || changes != self.changes {
            self.changes = changes;
            return Some(self.whole(&offered, &readers, draining));
        }
        let mut models = Vec::new();
        for one in &offered {
            let load = load(one);
            let Some(known) = self.models.get_mut(&one.model.id) else { continue };
            let news = known.pages.as_mut().and_then(PageWatch::news);
            if news.is_none() && known.load == load {
                continue;
            }
            known.load = load;
            let mut changed = Changed {
                name: one.model.id.clone(),
                load,
                added: Vec::new(),
                removed: Vec::new(),
                all: None,
            };
            match news {
                None => {}
                Some(PageNews::Snapshot { held, .. }) => changed.all = Some(held),
                Some(PageNews::Changes { added, removed, .. }) => {
                    (changed.added, changed.removed) = (added, removed);
                }
            }
            models.push(changed);
        }
        let mut read = Vec::new();
        for reader in &readers {
            let load = read_load(reader);
            if self.readers.insert(reader.model.id.clone(), load) != Some(load) {
                read.push((reader.model.id.clone(), load));
            }
        }
        let now = Instant::now();
        let gpus = self.node.gpus();
        let gpus = (gpus != self.gpus).then(|| {
            self.gpus = gpus;
            self.gpus.to_vec()
        });
        let loads = !models.is_empty() || !read.is_empty();
        if !loads && gpus.is_none() && draining == self.draining {
            if now.duration_since(self.told) < BEAT {
                return None;
            }
            self.told = now;
            return Some(State::Beat(self.version));
        }
        (self.told, self.draining) = (now, draining);
        self.version += 1;
        let version = self.version;
        Some(State::Delta(Delta { version, draining, models, readers: read, gpus }))
    }

    fn whole(
        &mut self,
        offered: &[Arc<Offered>],
        readers: &[Arc<Reader>],
        draining: bool,
    ) -> State {
        let served = |reader: &Arc<Reader>| ServedReader {
            name: reader.model.id.clone(),
            fingerprint: reader.card.fingerprint.clone(),
            load: read_load(reader),
        };
        let readers: Vec<ServedReader> = readers.iter().map(served).collect();
        self.readers = readers.iter().map(|told| (told.name.clone(), told.load)).collect();
        self.models.clear();
        let mut models = Vec::new();
        for one in offered {
            let mut pages = one.model.engine.local().map(LocalEngine::watch_pages);
            let held = match pages.as_mut().and_then(PageWatch::news) {
                Some(PageNews::Snapshot { held, .. }) => held,
                _ => Vec::new(),
            };
            let load = load(one);
            self.models.insert(one.model.id.clone(), Followed { load, pages });
            models.push(Served {
                name: one.model.id.clone(),
                fingerprint: one.card.fingerprint.clone(),
                load,
                pages: held,
                adapters: one.adapters.iter().map(|(_, told)| told.clone()).collect(),
            });
        }
        (self.told, self.draining, self.gpus) = (Instant::now(), draining, self.node.gpus());
        self.version += 1;
        let gpus = self.gpus.to_vec();
        State::Snapshot(Snapshot { version: self.version, draining, models, readers, gpus })
    }
}

/// What a model has to do now.
fn load(offered: &Offered) -> Load {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let engine = &offered.model.engine;
    let stats = engine.stats();
    let (rows, open_max) = engine.local().map_or((0, 0), LocalEngine::room);
    Load {
        open: number(engine.open()),
        open_max: number(open_max),
        rows: number(rows),
        running: number(stats.running),
        waiting: number(stats.waiting),
        pages_total: number(stats.pages_total),
        pages_free: number(stats.pages_free),
        us_per_request: engine.local().map_or(0, LocalEngine::us_per_request),
        us_per_kilotoken: whole(stats.cost.prefill_token_us * 1000.0),
        us_per_row: whole(stats.cost.row_us),
    }
}

/// What a model that reads and does not write has to do now.
fn read_load(reader: &Reader) -> ReadLoad {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let busy = reader.model.engine.local().map(LocalEmbedder::busy).unwrap_or_default();
    ReadLoad {
        open: number(busy.open),
        open_max: number(busy.open_max),
        running: number(busy.running),
        tokens: u64::try_from(busy.tokens).unwrap_or(u64::MAX),
        ns_per_token: busy.ns_per_token,
    }
}

/// A measured time as a whole number; what makes no sense is not known.
fn whole(us: f64) -> u64 {
    Duration::try_from_secs_f64(us / 1e6)
        .map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}
