//! A node's state as an endless stream of lines: the whole at first, then what has changed, and a
//! beat where nothing has.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::time::{MissedTickBehavior, interval};

use super::{Node, Offered};
use crate::backend::local::{EngineState, LocalEngine, PageNews, PageWatch};
use crate::cluster::protocol::{self, Changed, Delta, Load, Served, Snapshot, State};
use crate::metrics::GpuReading;

/// Longest time until a change is told.
const LOOK: Duration = Duration::from_millis(100);
/// Longest silence.
const BEAT: Duration = Duration::from_millis(500);

/// `GET /cluster/v1/state`
pub(super) async fn state(Shared(node): Shared<Arc<Node>>) -> Response {
    let teller = Teller::new(node);
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

/// What one reader was told.
struct Teller {
    node: Arc<Node>,
    version: u64,
    told: Instant,
    draining: bool,
    gpus: Arc<[GpuReading]>,
    models: HashMap<String, Followed>,
}

/// A model as its reader knows it.
struct Followed {
    load: Load,
    pages: Option<PageWatch>,
}

impl Teller {
    fn new(node: Arc<Node>) -> Self {
        let (gpus, models) = (Arc::default(), HashMap::new());
        Self { node, version: 0, told: Instant::now(), draining: false, gpus, models }
    }

    /// What is to be told now.
    fn look(&mut self) -> Option<State> {
        let offered = self.node.list();
        let draining = offered.iter().any(|one| one.model.engine.state() != EngineState::Ready);
        if self.version == 0 || offered.len() != self.models.len() {
            return Some(self.whole(&offered, draining));
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
        let now = Instant::now();
        let gpus = self.node.gpus();
        let gpus = (gpus != self.gpus).then(|| {
            self.gpus = gpus;
            self.gpus.to_vec()
        });
        if models.is_empty() && gpus.is_none() && draining == self.draining {
            if now.duration_since(self.told) < BEAT {
                return None;
            }
            self.told = now;
            return Some(State::Beat(self.version));
        }
        (self.told, self.draining) = (now, draining);
        self.version += 1;
        Some(State::Delta(Delta { version: self.version, draining, models, gpus }))
    }

    fn whole(&mut self, offered: &[Arc<Offered>], draining: bool) -> State {
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
        State::Snapshot(Snapshot { version: self.version, draining, models, gpus })
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

/// A measured time as a whole number; what makes no sense is not known.
fn whole(us: f64) -> u64 {
    Duration::try_from_secs_f64(us / 1e6)
        .map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}
