//! What a gateway keeps of a model that nodes serve, whatever is made there: who has it, what is
//! open, and whether it is offered still.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use scheduler::Stats;
use scheduler::types::Refusal;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};

use super::choose::Finding;
use super::dial::Unanswered;
use super::member::Member;
use super::trial::Trial;
use super::tries::Failed;
use crate::backend::local::EngineState;
use crate::backend::{Serving, SubmitError};
use crate::metrics::ModelMetrics;

/// Requests of one gateway at once, over all nodes of a model; nodes have bounds of their own.
const OPEN_MAX: usize = 65_536;
/// After this time without a node that has it a model is not listed any more.
const GRACE: Duration = Duration::from_secs(30);
/// Longest `Retry-After`.
const RETRY_AFTER_MAX_S: u64 = 60;
/// Longest wait for a node when none is there. Of what has not begun it is that long after the last
/// one went: whoever comes later than that is told at once.
pub(super) const NODE_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for an answer's head: it comes as soon as the node has the request, which has to be
/// there within as long a time, and not when its turn comes.
const HEAD: Duration = Duration::from_secs(10);
/// Between two looks for one.
const LOOK: Duration = Duration::from_millis(50);
/// Nodes tell what they do ten times as rarely.
const FRESH: Duration = Duration::from_millis(10);
/// Nodes end what is late by themselves; one that does not is not waited for.
const LATE: Duration = Duration::from_secs(1);

type Members = Arc<[Arc<Member>]>;

/// All nodes that are known. Whoever reads takes the list as it is and holds no lock.
#[derive(Clone, Default)]
pub(super) struct Roster(Arc<Known>);

#[derive(Default)]
struct Known {
    members: RwLock<Members>,
    /// Rises when other nodes are known, or when one may serve what it did not serve before.
    turn: AtomicU64,
}

impl Roster {
    pub(super) fn list(&self) -> Members {
        Arc::clone(&self.0.members.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set(&self, members: Vec<Arc<Member>>) {
        *self.0.members.write().unwrap_or_else(PoisonError::into_inner) = members.into();
        self.changed();
    }

    /// A node may serve what it did not serve before.
    pub(super) fn changed(&self) {
        self.0.turn.fetch_add(1, Ordering::SeqCst);
    }
}

/// A figure of all nodes that is asked for with each request: made anew where it is older than
/// [`FRESH`], so that asking costs the same however many nodes there are.
#[derive(Default)]
pub(super) struct Figure<T>(Mutex<Option<(Instant, T)>>);

impl<T: Copy> Figure<T> {
    pub(super) fn get(&self, make: impl FnOnce() -> T) -> T {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((at, made)) if at.elapsed() < FRESH => made,
            _ => {
                let made = make();
                *last = Some((Instant::now(), made));
                made
            }
        }
    }
}

/// The node that was chosen, and why.
pub(super) struct Chosen {
    pub(super) member: Arc<Member>,
    pub(super) finding: Finding,
    /// What comes of it.
    pub(super) trial: Trial,
}

impl Chosen {
    pub(super) fn new(member: &Arc<Member>, model: &Arc<str>, finding: Finding) -> Self {
        Self { member: Arc::clone(member), finding, trial: Trial::new(member, model) }
    }
}

/// Of what nodes tell, each with whether it is well: what those that are well tell. Where none is,
/// what all tell, since they are asked then.
pub(super) fn of_the_well<T>(told: Vec<(T, bool)>) -> impl Iterator<Item = T> {
    let any = told.iter().any(|(_, well)| *well);
    told.into_iter().filter(move |(_, well)| *well || !any).map(|(one, _)| one)
}

/// Why no node was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nobody {
    /// Some are there, and have no room.
    Full,
    /// None is there.
    Gone,
}

/// See the module.
pub(super) struct Service {
    pub(super) model: Arc<str>,
    /// What it takes the model for: nodes that tell another get nothing.
    pub(super) fingerprint: String,
    pub(super) roster: Roster,
    /// The nodes that have it, as of a turn of the roster.
    nodes: Mutex<(u64, Members)>,
    pub(super) metrics: Arc<ModelMetrics>,
    request_timeout: Option<Duration>,
    draining: AtomicBool,
    /// Everything is to end now.
    pub(super) stop: watch::Sender<bool>,
    /// Requests taken in and not yet ended.
    open: AtomicUsize,
    /// When a node was last seen that takes requests for it.
    seen: Mutex<Instant>,
    reported: Mutex<Stats>,
}

impl Service {
    pub(super) fn new(
        (model, fingerprint): (String, String),
        roster: Roster,
        metrics: Arc<ModelMetrics>,
        request_timeout: Option<Duration>,
    ) -> Self {
        Self {
            model: model.into(),
            fingerprint,
            roster,
            // No roster is at this turn.
            nodes: Mutex::new((u64::MAX, Members::default())),
            metrics,
            request_timeout,
            draining: AtomicBool::new(false),
            stop: watch::channel(false).0,
            open: AtomicUsize::new(0),
            seen: Mutex::new(Instant::now()),
            reported: Mutex::default(),
        }
    }

    /// Its name, and what it is.
    pub(super) fn name(&self) -> (&str, &str) {
        (&self.model, &self.fingerprint)
    }

    /// Takes a request in; `wait` is how long it would wait.
    pub(super) fn admit(&self, wait: impl FnOnce() -> Duration) -> Result<(), SubmitError> {
        if self.draining.load(Ordering::SeqCst) {
            return Err(self.unavailable());
        }
        let taken = self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| {
            (open < OPEN_MAX).then_some(open + 1)
        });
        taken.map(drop).map_err(|_| self.overloaded(wait()))
    }

    /// A request has ended.
    pub(super) fn ended(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// The request that was taken in last is not served.
    pub(super) fn turned_away(&self, nobody: Nobody, wait: Duration) -> SubmitError {
        self.ended();
        match nobody {
            Nobody::Full => self.overloaded(wait),
            Nobody::Gone => self.unavailable(),
        }
    }

    fn overloaded(&self, wait: Duration) -> SubmitError {
        self.metrics.refused("overloaded");
        SubmitError::Overloaded { retry_after_s: retry_after_s(wait) }
    }

    fn unavailable(&self) -> SubmitError {
        self.metrics.refused("unavailable");
        SubmitError::Unavailable(match self.state() {
            EngineState::Stopped(why) => why,
            EngineState::Ready | EngineState::Draining => "the server is shutting down".to_owned(),
        })
    }

    /// When a request that arrived then ends at the latest.
    pub(super) fn deadline(&self, arrived: Instant) -> Option<Instant> {
        self.request_timeout.map(|limit| arrived + limit)
    }

    /// The nodes that have it, in the order of their numbers; one that is lost may be among them.
    pub(super) fn nodes(&self) -> Members {
        let mut known = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the list is read: what changes behind that is seen the next time.
        let turn = self.roster.0.turn.load(Ordering::SeqCst);
        if known.0 != turn {
            let all = self.roster.list();
            let having = all.iter().filter(|node| node.serves(&self.model, &self.fingerprint));
            let mut having: Vec<_> = having.cloned().collect();
            having.sort_by_key(|node| node.number);
            *known = (turn, having.into());
        }
        Arc::clone(&known.1)
    }

    /// A node takes requests for it.
    fn is_there(&self) -> bool {
        let is_there = self.nodes().iter().any(|member| member.takes(self.name()));
        if is_there {
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        is_there
    }

    /// Whether it takes requests: some node does.
    pub(super) fn state(&self) -> EngineState {
        if self.draining.load(Ordering::SeqCst) {
            return EngineState::Draining;
        }
        if self.is_there() {
            return EngineState::Ready;
        }
        EngineState::Stopped(format!("no node that serves {} is there", self.model))
    }

    /// It is worth a place in the list of models: a node has it, or had it a moment ago.
    pub(super) fn is_offered(&self) -> bool {
        self.is_there() || self.seen().elapsed() < GRACE
    }

    fn seen(&self) -> Instant {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when a node takes requests for it, or when none has for too long.
    async fn back(&self) {
        let is_gone = || !self.draining.load(Ordering::SeqCst) && !self.is_there();
        while is_gone() && self.seen().elapsed() < NODE_WAIT {
            sleep(LOOK).await;
        }
    }

    /// Requests of this gateway, taken in and not yet ended.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// How many nodes there are, in whatever state.
    pub(super) fn members(&self) -> usize {
        self.roster.list().len()
    }

    /// Refuses new requests, lets the open ones end within `limit`, and ends what is left. `true`:
    /// every request came to its own end.
    pub(super) async fn drain(&self, limit: Duration) -> bool {
        self.draining.store(true, Ordering::SeqCst);
        let empty = async {
            while self.open() > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let drained = timeout(limit, empty).await.is_ok();
        self.stop.send_replace(true);
        drained
    }

    /// Once a second: whether a node has it is noted.
    pub(super) fn look(&self) {
        self.is_there();
    }

    /// What nodes tell goes into the figures.
    pub(super) fn report(&self, now: Stats) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        self.metrics.stats(&reported, &now);
        *reported = now;
    }

    /// Another node, as soon as `choose`, which is told whom to avoid, finds one. `begun`:
    /// something of the answer is made already.
    pub(super) async fn another(
        &self,
        avoid: &mut Vec<u64>,
        (deadline, begun): (Option<Instant>, bool),
        choose: impl Fn(&[u64]) -> Result<Chosen, Nobody>,
    ) -> Result<Chosen, Refusal> {
        let until = Instant::now() + NODE_WAIT;
        let mut full = false;
        loop {
            if *self.stop.borrow() {
                return Err(shutting_down());
            }
            match choose(avoid) {
                Ok(chosen) => return Ok(chosen),
                Err(Nobody::Full) => full = true,
                Err(Nobody::Gone) => {}
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Err(Refusal::Deadline);
            }
            if now >= until {
                let model = &self.model;
                return Err(match full && !begun {
                    true => Refusal::Overloaded,
                    false => Refusal::Engine(format!("no node that serves {model} is there")),
                });
            }
            // All were tried: by the next look one may be well again.
            avoid.clear();
            sleep(LOOK).await;
        }
    }

    /// The choice, for an answer's head.
    pub(super) fn route(&self, chosen: &Chosen) -> String {
        let Chosen { member, finding, .. } = chosen;
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

/// Handle to a model that nodes serve.
pub(super) trait OnNodes: Sync {
    fn service(&self) -> &Service;

    /// How long a new request would wait at the node where it would wait least.
    fn shortest_wait(&self) -> Duration;
}

impl<T: OnNodes> Serving for T {
    fn is_offered(&self) -> bool {
        self.service().is_offered()
    }

    fn state(&self) -> EngineState {
        self.service().state()
    }

    async fn back(&self) {
        self.service().back().await;
    }

    fn wait(&self) -> Duration {
        self.shortest_wait()
    }

    fn retry_after_s(&self) -> u64 {
        retry_after_s(self.wait())
    }

    fn open(&self) -> usize {
        self.service().open()
    }

    async fn drain(&self, limit: Duration) -> bool {
        self.service().drain(limit).await
    }
}

/// Whole seconds for `Retry-After`.
fn retry_after_s(wait: Duration) -> u64 {
    wait.as_secs().clamp(1, RETRY_AFTER_MAX_S)
}

pub(super) fn shutting_down() -> Refusal {
    Refusal::Engine("the server is shutting down".to_owned())
}

/// The head of a node's answer, which does not take long.
pub(super) async fn head<T>(
    answer: impl Future<Output = Result<T, Unanswered>>,
) -> Result<T, Failed> {
    match timeout(HEAD, answer).await {
        Ok(Ok(head)) => Ok(head),
        Ok(Err(Unanswered::Unsent(why))) => Err(Failed::NotTaken(why)),
        Ok(Err(Unanswered::Cut(why))) => Err(Failed::Broken(why)),
        // It has the request, which may be what keeps it.
        Err(_) => {
            Err(Failed::Broken(format!("it has not begun to answer within {} s", HEAD.as_secs())))
        }
    }
}

/// Ready a moment after this time; never, where there is none.
pub(super) async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until((time + LATE).into()).await,
        None => std::future::pending().await,
    }
}
