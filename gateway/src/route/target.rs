//! One that may answer, and what is known of how well it does.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use govern::Money;
use govern::policy::Label;
use wire::{Dialect, Usage};

use crate::breaker::{Breaker, Condition, FAILURES, PAUSE, PAUSE_MAX};
use crate::metrics::{Outcome, ProviderMetrics, RouteMetrics};
use crate::upstream::Provider;

/// A measured time counts for half after this long.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// What a target is.
pub enum Seat {
    /// A model of this process.
    Local(String),
    /// A provider and its name of the model.
    Provider(Arc<Provider>, String),
}

/// One that may answer.
pub struct Target {
    /// `MODEL` or `PROVIDER/MODEL`.
    pub name: String,
    /// What it is.
    pub seat: Seat,
    /// Its share, against the others' of its pool.
    pub weight: u32,
    /// Its longest sequence in tokens, where known.
    pub context: Option<u64>,
    /// What it cannot do.
    pub without: Vec<Needs>,
    /// It makes embeddings and answers no chats, as far as is known.
    pub embeds: bool,
    /// The most secret label that it may see.
    pub max_label: Label,
    /// A number of its name, for choices by chance.
    pub(super) number: u64,
    /// Its arm of an experiment.
    pub arm: Option<Arc<str>>,
    /// How well it does. Shared by all targets of the same name.
    pub health: Arc<Health>,
}

/// What a request needs beside text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Tools are offered.
    Tools,
    /// Images are shown.
    Images,
    /// The answer is held to a shape.
    Structured,
}

impl Needs {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tools, Self::Images, Self::Structured];

    /// As a configuration spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Images => "images",
            Self::Structured => "structured",
        }
    }
}

impl Target {
    /// It can be asked in a dialect.
    pub(super) fn serves(&self, dialect: Dialect) -> bool {
        match &self.seat {
            // Which of them, depends on the model; it says so itself.
            Seat::Local(_) => true,
            Seat::Provider(provider, _) => {
                provider.kind.serves(dialect) && (!self.embeds || dialect == Dialect::Embeddings)
            }
        }
    }

    /// It goes on with plain prompts. Others make chats of them.
    pub(super) fn completes(&self) -> bool {
        match &self.seat {
            Seat::Local(_) => true,
            Seat::Provider(provider, model) => provider.speaks(Dialect::Completions, model),
        }
    }

    /// It is a model of this process.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.seat, Seat::Local(_))
    }
}

/// How a target does: requests at once, failures in a row, how long its answers take.
#[derive(Debug, Default)]
pub struct Health {
    open: AtomicU32,
    state: Mutex<State>,
    /// Where a provider's requests are counted.
    metrics: OnceLock<ProviderMetrics>,
    /// Whose they are to be, from the first request on.
    counts: OnceLock<Counts>,
}

/// A provider's model that may be asked.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) metrics: RouteMetrics,
    pub(super) provider: String,
    pub(super) model: String,
}

#[derive(Debug, Default)]
struct State {
    breaker: Breaker,
    /// It has enough to do, by its own word: said when, and until when.
    busy: Option<(Instant, Instant)>,
    /// How often in a row it did not take this server's word.
    refusals: u32,
    /// It does not, and is asked last: said when, and until when.
    unwelcome: Option<(Instant, Instant)>,
    /// One request looks whether it does again.
    trying: bool,
    /// Time to the first event of a stream.
    first: Smoothed,
    /// Time of a whole answer.
    whole: Smoothed,
}

impl State {
    /// The one request that looked says nothing.
    fn tells_nothing(&mut self) {
        self.breaker.unknown();
        self.trying = false;
    }
}

/// A time that is measured again and again.
#[derive(Debug, Default)]
struct Smoothed {
    us: f64,
    seen: Option<Instant>,
}

impl Smoothed {
    /// A worse time counts at once, a better one by and by: a target that has slowed down must be
    /// known before everybody waits for it.
    fn learn(&mut self, now: Instant, took: Duration) {
        let new = took.as_secs_f64() * 1e6;
        let age = self.seen.map_or(f64::INFINITY, |seen| (now - seen).as_secs_f64());
        let keep = (-age / HALF_LIFE.as_secs_f64() * std::f64::consts::LN_2).exp();
        self.us = if new > self.us { new } else { self.us * keep + new * (1.0 - keep) };
        self.seen = Some(now);
    }

    /// Zero while unknown.
    fn time(&self) -> Duration {
        Duration::try_from_secs_f64(self.us / 1e6).unwrap_or_default()
    }
}

/// Whether a target may be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Yes.
    Well,
    /// Once, to see whether it is well again.
    Probe,
    /// It has failed, and is left alone for so long.
    Broken(Duration),
    /// It has asked to be left alone for so long.
    Busy(Duration),
    /// It does not take this server's word, as of not longer ago than this: a key that was revoked,
    /// a model that it does not have. Asked after all others.
    Unwelcome(Duration),
}

impl Health {
    /// Its requests are counted there, from now on.
    pub(super) fn count(&self, counts: impl FnOnce() -> Counts) {
        self.counts.get_or_init(counts);
    }

    /// Its series. A name that somebody has made up has none before a request leaves for it.
    pub(super) fn series(&self) -> Option<&ProviderMetrics> {
        let Counts { metrics, provider, model } = self.counts.get()?;
        Some(self.metrics.get_or_init(|| metrics.provider(provider, model)))
    }

    /// Shows whether it may be asked.
    pub(super) fn show(&self, now: Instant) {
        if let Some(metrics) = self.metrics.get() {
            metrics.available(matches!(self.standing(now), Standing::Well | Standing::Probe));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may be asked.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        let state = self.state();
        let left = |until: Option<Instant>| {
            let left = until.and_then(|until| until.checked_duration_since(now));
            left.filter(|left| !left.is_zero())
        };
        if let Some(left) = left(state.busy.map(|(_, until)| until)) {
            return Standing::Busy(left);
        }
        match state.breaker.condition(now) {
            Condition::Well => {}
            Condition::Probe => return Standing::Probe,
            Condition::Broken(left) => return Standing::Broken(left),
        }
        match (state.unwelcome, left(state.unwelcome.map(|(_, until)| until))) {
            (None, _) => Standing::Well,
            (Some(_), Some(left)) => Standing::Unwelcome(left),
            (Some(_), None) if state.trying => Standing::Unwelcome(PAUSE),
            (Some(_), None) => Standing::Probe,
        }
    }

    /// Requests that it answers now.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Time to the first event of a stream, as measured; zero while unknown.
    #[must_use]
    pub fn first_byte(&self) -> Duration {
        self.state().first.time()
    }

    /// How long a caller waits for anything of an answer: of a stream, or of a whole one. Where
    /// only the other is known, that.
    #[must_use]
    pub fn wait(&self, stream: bool) -> Duration {
        let state = self.state();
        let (first, whole) = (state.first.time(), state.whole.time());
        let (own, other) = if stream { (first, whole) } else { (whole, first) };
        if own.is_zero() { other } else { own }
    }

    /// A request is sent to it. It counts as open until the last byte of the answer, not until
    /// its head.
    #[must_use]
    pub fn begin(self: &Arc<Self>, now: Instant) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        if self.standing(now) == Standing::Probe {
            let mut state = self.state();
            // Somebody else may have begun since.
            let well = state.breaker.condition(now) == Condition::Well;
            state.breaker.begin(now);
            state.trying |= well && state.unwelcome.is_some();
        }
        let (health, stage) = (Arc::clone(self), Stage::Waits);
        Open { health, begun: now, stage, sent: false, sole: false }
    }

    /// It asks to be left alone. Who says no time does not shorten one that was said.
    fn busy(&self, now: Instant, seconds: Option<u64>) {
        let mut state = self.state();
        state.tells_nothing();
        let until = now + Duration::from_secs(seconds.unwrap_or(1));
        let until = state.busy.map_or(until, |(_, before)| before.max(until));
        state.busy = Some((now, until));
    }

    /// It does not take this server's word for what it was sent then. One request may be at fault,
    /// several in a row hardly; and of those that were under way together each says the same.
    fn unwelcome(&self, sent: Instant, now: Instant) {
        let mut state = self.state();
        state.tells_nothing();
        state.refusals = state.refusals.saturating_add(1);
        let before = state.unwelcome;
        if state.refusals < FAILURES || before.is_some_and(|(said, _)| said > sent) {
            return;
        }
        let pause = before.map_or(Duration::ZERO, |(said, until)| (until - said) * 2);
        state.unwelcome = Some((now, now + pause.clamp(PAUSE, PAUSE_MAX)));
    }

    fn failed(&self, sent: Instant, now: Instant) {
        let mut state = self.state();
        state.trying = false;
        state.breaker.failed(sent, now);
    }

    /// It answers what it was sent then. What it asked for since holds.
    fn answered(&self, sent: Instant) {
        let mut state = self.state();
        state.breaker.answered(sent);
        (state.unwelcome, state.refusals, state.trying) = (None, 0, false);
        state.busy = state.busy.filter(|(said, _)| *said > sent);
    }

    fn ended(&self, sent: Instant) {
        self.state().breaker.ended(sent);
    }
}

/// A request on its way; dropped when its answer has ended.
#[derive(Debug)]
pub struct Open {
    health: Arc<Health>,
    begun: Instant,
    stage: Stage,
    /// It has left this process, and is counted.
    sent: bool,
    /// Nobody else could be asked.
    sole: bool,
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing has come back yet.
    Waits,
    /// Its answer has begun.
    Answers,
    /// All is known of it.
    Over,
}

impl Open {
    /// Since the request was sent.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Nobody else could be asked: it makes no difference whether its target is asked last, and the
    /// callers of one name decide nothing for others.
    #[must_use]
    pub fn sole(mut self, sole: bool) -> Self {
        self.sole = sole;
        self
    }

    /// It leaves this process.
    pub fn sent(&mut self) {
        if let Some(metrics) = self.health.series()
            && !std::mem::replace(&mut self.sent, true)
        {
            metrics.sent();
        }
    }

    /// The first event of a stream is there.
    pub fn answered(&mut self, now: Instant) {
        if self.stage == Stage::Waits {
            let took = now.saturating_duration_since(self.begun);
            self.metrics().into_iter().for_each(|metrics| metrics.first_event(took));
            self.health.state().first.learn(now, took);
        }
        self.answers();
    }

    /// The answer came to its end. Not before that is it well: who breaks off every answer in the
    /// middle begins well each time.
    pub fn ended(&mut self, now: Instant) {
        if self.stage == Stage::Waits {
            let took = now.saturating_duration_since(self.begun);
            self.health.state().whole.learn(now, took);
        }
        self.answers();
        self.health.ended(self.begun);
        self.over(Outcome::Answered, now);
    }

    /// It was answered, and well: the request is at fault.
    pub fn refused(&mut self, now: Instant) {
        self.answers();
        self.health.ended(self.begun);
        self.over(Outcome::Refused, now);
    }

    /// It failed, before the first byte or after it.
    pub fn failed(&mut self, now: Instant) {
        if self.stage == Stage::Over {
            return;
        }
        self.health.failed(self.begun, now);
        let begun = self.stage == Stage::Answers;
        self.over(if begun { Outcome::Broken } else { Outcome::Failed }, now);
    }

    /// It does not take this server's word, which says nothing of how well it is.
    pub fn unwelcome(&mut self, now: Instant) {
        if self.sole {
            self.health.state().tells_nothing();
        } else {
            self.health.unwelcome(self.begun, now);
        }
        self.over(Outcome::Failed, now);
    }

    /// It has enough to do.
    pub fn busy(&mut self, now: Instant, seconds: Option<u64>) {
        self.health.busy(now, seconds);
        self.over(Outcome::Busy, now);
    }

    /// What its answer has used and cost. Said once.
    pub fn used(&self, usage: &Usage, cost: Money) {
        if let Some(metrics) = self.metrics() {
            metrics.used(usage, cost);
        }
    }

    /// Where it is counted, from when it was sent.
    fn metrics(&self) -> Option<&ProviderMetrics> {
        self.health.metrics.get().filter(|_| self.sent)
    }

    fn answers(&mut self) {
        if self.stage == Stage::Waits {
            self.stage = Stage::Answers;
            self.health.answered(self.begun);
        }
    }

    fn over(&mut self, outcome: Outcome, now: Instant) {
        let before = std::mem::replace(&mut self.stage, Stage::Over);
        if before != Stage::Over
            && let Some(metrics) = self.metrics()
        {
            metrics.over(outcome, now.saturating_duration_since(self.begun));
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.health.open.fetch_sub(1, Ordering::Relaxed);
        if self.stage == Stage::Waits {
            // Given up by the caller, or at fault itself: that says nothing.
            self.health.state().tells_nothing();
        }
        self.over(Outcome::Cancelled, self.begun);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_alone_after_failures_and_tried_once() {
        let health = Arc::new(Health::default());
        let mut now = Instant::now();
        for _ in 0..FAILURES {
            assert_eq!(health.standing(now), Standing::Well);
            let mut open = health.begin(now);
            open.answered(now);
            open.failed(now);
        }
        assert_eq!(health.standing(now), Standing::Broken(PAUSE));
        now += PAUSE;
        assert_eq!(health.standing(now), Standing::Probe);
        let mut probe = health.begin(now);
        assert_eq!(health.standing(now), Standing::Broken(PAUSE), "one probe at a time");
        probe.failed(now);
        drop(probe);
        assert_eq!(health.standing(now), Standing::Broken(PAUSE * 2));
        now += PAUSE * 2;
        drop(health.begin(now));
        assert_eq!(health.standing(now), Standing::Probe, "a caller that left says nothing");
        health.begin(now).answered(now + Duration::from_millis(5));
        assert_eq!((health.standing(now), health.open()), (Standing::Well, 0));
        health.begin(now).failed(now);
        assert_eq!(health.standing(now), Standing::Broken(PAUSE * 4), "no answer has ended yet");
        now += PAUSE * 4;
        health.begin(now).ended(now);
        for _ in 1..FAILURES {
            health.begin(now).failed(now);
            assert_eq!(health.standing(now), Standing::Well);
        }
    }

    #[test]
    fn busy_is_no_failure() {
        let health = Arc::new(Health::default());
        let now = Instant::now();
        for _ in 0..10 {
            health.begin(now).busy(now, Some(7));
        }
        assert_eq!(health.standing(now), Standing::Busy(Duration::from_secs(7)));
        assert_eq!(health.standing(now + Duration::from_secs(7)), Standing::Well);
    }

    #[test]
    fn a_pause_that_was_asked_for_holds() {
        let health = Arc::new(Health::default());
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let [mut before, mut whole] = [health.begin(now), health.begin(now)];
        health.begin(now).busy(now + second, Some(60));
        health.begin(now).busy(now + second, None);
        before.answered(now + second * 2);
        before.ended(now + second * 2);
        whole.ended(now + second * 2);
        let left = |at: u32| health.standing(now + second * at);
        assert_eq!(left(2), Standing::Busy(second * 59), "it was asked before it said so");
        health.begin(now + second * 3).ended(now + second * 4);
        assert_eq!(left(4), Standing::Well);
    }

    /// One that tries it again and is told of an empty account has not tried it for ever.
    #[test]
    fn whoever_tries_it_alone_lets_it_go() {
        let (health, mut now) = (Arc::new(Health::default()), Instant::now());
        for _ in 0..FAILURES {
            health.begin(now).failed(now);
        }
        now += PAUSE;
        assert_eq!(health.standing(now), Standing::Probe);
        health.begin(now).sole(true).unwelcome(now);
        assert_eq!(health.standing(now), Standing::Probe);
        // And one that fails while it is unwelcome is no longer tried.
        health.begin(now).ended(now);
        for _ in 0..FAILURES {
            health.begin(now).unwelcome(now);
        }
        now += PAUSE;
        assert_eq!(health.standing(now), Standing::Probe);
        health.begin(now).failed(now);
        assert_eq!(health.standing(now), Standing::Probe);
    }

    #[test]
    fn unwelcome_is_asked_last_and_tried_now_and_then() {
        let health = Arc::new(Health::default());
        let mut now = Instant::now();
        health.begin(now).sole(true).unwelcome(now);
        let all = [0; 7].map(|_| health.begin(now));
        assert_eq!(health.standing(now), Standing::Well, "nobody has said so yet");
        let later = now + Duration::from_millis(1);
        for (times, mut open) in (1..).zip(all) {
            open.unwelcome(later);
            let last = health.standing(later) == Standing::Unwelcome(PAUSE);
            assert_eq!(last, times >= FAILURES, "{times}: all of one moment say it once");
        }
        now = later + PAUSE;
        assert_eq!(health.standing(now), Standing::Probe);
        let mut probe = health.begin(now);
        assert_eq!(health.standing(now), Standing::Unwelcome(PAUSE), "one at a time");
        probe.unwelcome(now);
        drop(probe);
        assert_eq!(health.standing(now), Standing::Unwelcome(PAUSE * 2));
        health.begin(now).ended(now);
        assert_eq!(health.standing(now), Standing::Well);
    }

    #[test]
    fn whole_answers_say_nothing_of_the_first_byte() {
        let health = Arc::new(Health::default());
        let (now, ms) = (Instant::now(), Duration::from_millis);
        health.begin(now).ended(now + ms(9_000));
        assert_eq!((health.first_byte(), health.wait(true)), (Duration::ZERO, ms(9_000)));
        let mut stream = health.begin(now);
        stream.answered(now + ms(20));
        stream.ended(now + ms(7_000));
        health.begin(now).refused(now + ms(1));
        assert_eq!((health.first_byte(), health.wait(true)), (ms(20), ms(20)));
        assert_eq!(health.wait(false), ms(9_000));
    }

    #[test]
    fn slower_counts_at_once() {
        let health = Arc::new(Health::default());
        let now = Instant::now();
        let ms = Duration::from_millis;
        health.begin(now).answered(now + ms(10));
        health.begin(now).answered(now + ms(90));
        assert_eq!(health.first_byte(), ms(90));
        let later = now + ms(90) + HALF_LIFE;
        health.begin(later - ms(10)).answered(later);
        let half = health.first_byte();
        assert!(half > ms(49) && half < ms(51), "{half:?}");
    }
}
