//! A model whose tokens are made by nodes: to the rest of the gateway an engine like the one in
//! this process. It holds no weights; it knows which nodes have them, and sends each request to
//! the one that is thought to answer soonest.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use scheduler::types::{PAGE_TOKENS, Request, RequestId};
use scheduler::{Stats, prefix_hashes};
use tokio::sync::{mpsc, watch};

use super::carry::{Carried, Carrier, Control};
use super::choose::{self, Finding};
use super::member::Member;
use super::protocol::{self, Load};
use crate::backend::local::EngineState;
use crate::backend::meter::Metered;
use crate::backend::reading::Reading;
use crate::backend::{Along, SubmitError, events_max};
use crate::metrics::{ModelMetrics, RequestTimer};

/// Requests of one gateway at once, over all nodes of a model; nodes have bounds of their own.
const OPEN_MAX: usize = 65_536;
/// After this time without a node that has it a model is not listed any more.
const GRACE: Duration = Duration::from_secs(30);
/// Longest `Retry-After`.
const RETRY_AFTER_MAX_S: u64 = 60;

/// Ids within this gateway: a request's name in logs.
static NEXT_ID: AtomicU64 = AtomicU64::new(1 << 62);

/// All nodes that are known. Whoever reads takes the list as it is and holds no lock.
#[derive(Clone, Default)]
pub(super) struct Roster(Arc<RwLock<Arc<[Arc<Member>]>>>);

impl Roster {
    pub(super) fn list(&self) -> Arc<[Arc<Member>]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set(&self, members: Vec<Arc<Member>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = members.into();
    }
}

/// Handle to a model of the cluster. Clones are cheap and mean the same.
#[derive(Clone)]
pub struct ClusterEngine {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) model: String,
    /// What it takes the model for: nodes that tell another get nothing.
    pub(super) fingerprint: String,
    /// It is an adapter: its base's engine makes its tokens, and its figures are its base's.
    adapter: bool,
    /// Longest sequence in tokens.
    pub(super) context: usize,
    pub(super) roster: Roster,
    pub(super) metrics: Arc<ModelMetrics>,
    request_timeout: Option<Duration>,
    draining: AtomicBool,
    /// Everything is to end now.
    pub(super) stop: watch::Sender<bool>,
    /// Requests taken in and not yet ended.
    open: AtomicUsize,
    /// When a node last had it.
    seen: Mutex<Instant>,
    reported: Mutex<Stats>,
}

/// The node that was chosen, and why.
pub(super) struct Chosen {
    pub(super) member: Arc<Member>,
    pub(super) finding: Finding,
}

impl ClusterEngine {
    pub(super) fn new(
        (model, fingerprint, adapter): (String, String, bool),
        context: usize,
        roster: Roster,
        metrics: Arc<ModelMetrics>,
        request_timeout: Option<Duration>,
    ) -> Self {
        let shared = Shared {
            model,
            fingerprint,
            adapter,
            context,
            roster,
            metrics,
            request_timeout,
            draining: AtomicBool::new(false),
            stop: watch::channel(false).0,
            open: AtomicUsize::new(0),
            seen: Mutex::new(Instant::now()),
            reported: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sends a request to a node; its id is overwritten. Must be called within a runtime.
    ///
    /// # Errors
    /// No node is there, or none has room.
    pub(crate) fn submit_with(
        &self,
        mut request: Request,
        along: Along,
    ) -> Result<Carried, SubmitError> {
        let Along { grammar, meter, arrived } = along;
        let shared = &self.shared;
        self.admit()?;
        request.id = RequestId(NEXT_ID.fetch_add(1, Ordering::Relaxed));
        let paid = meter.as_ref().map_or(u32::MAX, |meter| meter.allowance());
        request.allowance = request.max_tokens.min(paid);
        let prompt_tokens = u32::try_from(request.prompt.len()).unwrap_or(u32::MAX);
        let adapter = shared.adapter.then_some(shared.fingerprint.as_str());
        let salt = protocol::salt(request.salt, adapter);
        let chain: Vec<u64> = prefix_hashes(&request.prompt, salt).collect();
        let first = match shared.choose(&chain, request.prompt.len(), &[]) {
            Ok(first) => first,
            Err(nobody) => {
                shared.open.fetch_sub(1, Ordering::SeqCst);
                return Err(match nobody {
                    Nobody::Full => self.overloaded(),
                    Nobody::Gone => self.unavailable(),
                });
            }
        };
        let (events, reader) = mpsc::channel(events_max(&request, shared.context));
        let control = Arc::new(Control::new(request.choices));
        let timer = RequestTimer::start(Arc::clone(&shared.metrics), prompt_tokens, arrived);
        let (id, route) = (request.id, shared.route(&first));
        let carrier = Carrier::new(Arc::clone(shared), request, (events, Arc::clone(&control)))
            .held(grammar.map(|grammar| grammar.plan().clone()))
            .paid(meter.map(|meter| Metered::new(meter, &[])))
            .until(shared.request_timeout.map(|limit| arrived + limit))
            .knowing(chain);
        tokio::spawn(carrier.run(first));
        Ok(Carried::new(id, Reading::new(reader, timer), control, route))
    }

    fn admit(&self) -> Result<(), SubmitError> {
        if self.shared.draining.load(Ordering::SeqCst) {
            return Err(self.unavailable());
        }
        let taken = self.shared.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| {
            (open < OPEN_MAX).then_some(open + 1)
        });
        taken.map(drop).map_err(|_| self.overloaded())
    }

    fn overloaded(&self) -> SubmitError {
        self.shared.metrics.refused("overloaded");
        SubmitError::Overloaded { retry_after_s: self.retry_after_s() }
    }

    fn unavailable(&self) -> SubmitError {
        self.shared.metrics.refused("unavailable");
        SubmitError::Unavailable(match self.state() {
            EngineState::Stopped(why) => why,
            EngineState::Ready | EngineState::Draining => "the server is shutting down".to_owned(),
        })
    }

    /// Whether it takes requests: some node does.
    #[must_use]
    pub fn state(&self) -> EngineState {
        if self.shared.draining.load(Ordering::SeqCst) {
            return EngineState::Draining;
        }
        if self.shared.loads().is_empty() {
            let model = &self.shared.model;
            return EngineState::Stopped(format!("no node that serves {model} is there"));
        }
        EngineState::Ready
    }

    /// It is worth a place in the list of models: a node has it, or had it a moment ago.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        let seen = *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        !self.shared.loads().is_empty() || seen.elapsed() < GRACE
    }

    /// Seconds after which the shortest line, as it is now, will have been served.
    #[must_use]
    pub fn retry_after_s(&self) -> u64 {
        self.wait().as_secs().clamp(1, RETRY_AFTER_MAX_S)
    }

    /// How long a new request would wait at the node where it would wait least.
    #[must_use]
    pub fn wait(&self) -> Duration {
        let waits = self
            .shared
            .loads()
            .into_iter()
            .map(|load| u64::from(load.waiting).saturating_mul(load.us_per_request));
        Duration::from_micros(waits.min().unwrap_or_default())
    }

    /// Sequences that wait at the node where the fewest do.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let waiting = self.shared.loads().into_iter().map(|load| load.waiting).min();
        usize::try_from(waiting.unwrap_or_default()).unwrap_or(usize::MAX)
    }

    /// Of all nodes together, as far as they tell.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut all = Stats::default();
        let number = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        for load in self.shared.loads() {
            all.requests += number(load.open);
            all.running += number(load.running);
            all.waiting += number(load.waiting);
            all.pages_total += number(load.pages_total);
            all.pages_free += number(load.pages_free);
        }
        all
    }

    /// Requests of this gateway, taken in and not yet ended.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// The model's metrics, of this gateway.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ModelMetrics> {
        &self.shared.metrics
    }

    /// Refuses new requests, lets the open ones end within `limit`, and ends what is left. `true`:
    /// every request came to its own end.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.shared.draining.store(true, Ordering::SeqCst);
        let empty = async {
            while self.open() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let drained = tokio::time::timeout(limit, empty).await.is_ok();
        self.shared.stop.send_replace(true);
        drained
    }

    /// Once a second: what nodes tell goes into the figures.
    pub(super) fn review(&self) {
        if !self.shared.loads().is_empty() {
            *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        if self.shared.adapter {
            return;
        }
        let now = self.stats();
        let mut reported = self.shared.reported.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.metrics.stats(&reported, &now);
        *reported = now;
    }
}

/// Why no node was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nobody {
    /// Some are there, and have no room.
    Full,
    /// None is there.
    Gone,
}

impl Shared {
    /// The loads of all nodes that take requests.
    fn loads(&self) -> Vec<Load> {
        let members = self.roster.list();
        let loads = members.iter().filter_map(|m| m.load(&self.model, &self.fingerprint));
        loads.filter(|(_, draining)| !draining).map(|(load, _)| load).collect()
    }

    /// How many nodes there are, in whatever state.
    pub(super) fn members(&self) -> usize {
        self.roster.list().len()
    }

    /// A request has ended.
    pub(super) fn ended(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// The best node for a prompt of these pages, `avoid` left out.
    pub(super) fn choose(
        &self,
        chain: &[u64],
        prompt: usize,
        avoid: &[u64],
    ) -> Result<Chosen, Nobody> {
        let members = self.roster.list();
        let name = (self.model.as_str(), self.fingerprint.as_str());
        let page = u64::try_from(PAGE_TOKENS).unwrap_or(1);
        // The last token is computed in any case.
        let usable = &chain[..chain.len().min(prompt.saturating_sub(1) / PAGE_TOKENS)];
        let mut there = Vec::with_capacity(members.len());
        let mut candidates = Vec::with_capacity(members.len());
        for member in members.iter().filter(|member| !avoid.contains(&member.number)) {
            if let Some(candidate) = member.candidate(name, usable, page) {
                there.push(member);
                candidates.push(candidate);
            }
        }
        let length = u64::try_from(prompt).unwrap_or(u64::MAX);
        let number = usable.last().copied().unwrap_or(length);
        let best = choose::choose(&candidates, length, number);
        if tracing::enabled!(tracing::Level::DEBUG) {
            for (at, candidate) in candidates.iter().enumerate() {
                let finding = choose::find(at, candidate, length);
                tracing::debug!(
                    model = self.model,
                    node = %there[at].endpoint,
                    verdict = %finding.verdict,
                    open = finding.open,
                    held = finding.held,
                    wait_us = finding.wait_us,
                    first_token_us = finding.first_us,
                    "a node"
                );
            }
        }
        match best {
            Some(finding) => Ok(Chosen { member: Arc::clone(there[finding.at]), finding }),
            None if candidates.iter().any(|candidate| !candidate.draining) => Err(Nobody::Full),
            None => Err(Nobody::Gone),
        }
    }

    /// The choice, for an answer's head.
    fn route(&self, chosen: &Chosen) -> String {
        let Chosen { member, finding } = chosen;
        format!(
            "{}; node={}; predicted_us={}; wait_us={}; held={}; open={}",
            self.model,
            member.endpoint.authority(),
            finding.first_us,
            finding.wait_us,
            finding.held,
            finding.open
        )
    }
}
