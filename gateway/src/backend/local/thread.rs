//! The thread that owns a scheduler, its engine and the device. It is the only place where the
//! scheduler's pure world meets a clock and channels; it holds no lock while a step runs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use scheduler::types::{Command, Engine, Event, Micros, Refusal, RequestId, Usage};
use scheduler::{PageChange, Progress, Scheduler, Stats};
use tokio::sync::mpsc::error::TrySendError;

use super::adapter::Adapts;
use super::holds::Holds;
use super::observed::Observed;
use super::{Message, Metered, Open, Shared, subject};

pub(super) struct Driver<E: Engine> {
    scheduler: Scheduler<Observed<E>>,
    commands: Receiver<Message>,
    shared: Arc<Shared>,
    open: HashMap<RequestId, Open>,
    /// Requests with a grammar.
    held: HashSet<RequestId>,
    inbox: VecDeque<Command>,
    outbox: Vec<Event>,
    reported: Stats,
    /// Somebody watches the pages, and the scheduler knows.
    watching: bool,
    page_changes: Vec<PageChange>,
    /// Time worked since a request last ended.
    busy: Duration,
}

impl<E: Engine + Adapts + Holds> Driver<E> {
    pub(super) fn new(
        engine: E,
        config: scheduler::Config,
        commands: Receiver<Message>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            scheduler: Scheduler::new(Observed::new(engine, &shared.metrics), config),
            commands,
            shared,
            open: HashMap::new(),
            held: HashSet::new(),
            inbox: VecDeque::new(),
            outbox: Vec::new(),
            reported: Stats::default(),
            watching: false,
            page_changes: Vec::new(),
            busy: Duration::ZERO,
        }
    }

    /// Runs to the end of its life; then every open request is told.
    pub(super) fn run_to_end(mut self) {
        let shared = Arc::clone(&self.shared);
        shared.life.run(|| self.run());
        let why = shared.life.why_stopped();
        while let Ok(message) = self.commands.try_recv() {
            // The engine is not to be called any more: adapters on their way are let go.
            if let Message::Submit(..) = message {
                self.take(message);
            }
        }
        for (id, mut open) in self.open.drain() {
            let refusal = Refusal::Engine(why.clone());
            if let Some(meter) = &mut open.meter {
                meter.ended(Usage::default(), true);
            }
            let _ = open.events.try_send(Event::Refused(id, refusal, Usage::default()));
            self.shared.readers().remove(&id);
            self.shared.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn run(&mut self) -> Result<(), String> {
        loop {
            self.shared.life.turns();
            // The flag is read before the channel: a reader's request went down before its cancel.
            let cancels = self.shared.attention.swap(false, Ordering::SeqCst);
            while let Ok(message) = self.commands.try_recv() {
                self.take(message);
            }
            if cancels {
                self.heed_cancels();
            }
            let start = Instant::now();
            let now = self.shared.micros(start);
            let progress = self.scheduler.tick(now, &mut self.inbox, &mut self.outbox);
            self.deliver(start);
            if self.shared.pages.is_on() {
                self.note_pages();
            }
            if let Some(why) = self.scheduler.engine().dead() {
                return Err(format!("the device is gone: {why}"));
            }
            if self.may_leave() {
                return Ok(());
            }
            if let Progress::Idle { wake_at } = progress
                && !self.sleep(wake_at)
            {
                return Ok(());
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit(request, open, grammar) => {
                if let Some(grammar) = grammar {
                    self.scheduler.engine_mut().set_grammar(request.grammar, grammar);
                    self.held.insert(request.id);
                }
                self.open.insert(request.id, open);
                self.inbox.push_back(Command::Submit(request));
            }
            Message::Nudge => {}
            Message::Adapter(change) => change.apply(self.scheduler.engine_mut()),
        }
    }

    /// Turns the flags that readers set into commands. Looks at every open request, but only
    /// when some reader asked for it.
    fn heed_cancels(&mut self) {
        for (id, open) in &self.open {
            if open.wishes.is_cancelled() {
                self.inbox.push_back(Command::Cancel(*id));
                continue;
            }
            let inbox = &mut self.inbox;
            open.wishes.take_choices(|choice| inbox.push_back(Command::CancelChoice(*id, choice)));
        }
    }

    /// Hands the step's events to their readers and reports what the step was.
    fn deliver(&mut self, start: Instant) {
        let (mut tokens, mut ends) = (0, 0);
        for event in self.outbox.drain(..) {
            let (id, last) = subject(&event);
            tokens += u64::from(matches!(event, Event::Token { .. }));
            let Some(open) = self.open.get_mut(&id) else {
                tracing::error!(id = id.0, "an event of a request that is not open");
                continue;
            };
            if let Some(allowance) = open.meter.as_mut().and_then(|meter| metered(meter, &event)) {
                self.inbox.push_back(Command::Extend(id, allowance));
            }
            if last {
                // Before the last word, so that who reads it finds the place free.
                self.shared.open.fetch_sub(1, Ordering::SeqCst);
                ends += 1;
            }
            // A closed channel is a reader that left: its cancel flag is set or being set.
            if let Err(TrySendError::Full(_)) = open.events.try_send(event) {
                // More events than a request can have is a bug of ours. It costs this request
                // its answer (its reader sees the channel close), not all others theirs.
                tracing::error!(id = id.0, "more events than the request can cause");
                open.wishes.cancel();
                self.shared.attention.store(true, Ordering::SeqCst);
            }
            if last {
                self.open.remove(&id);
                self.shared.readers().remove(&id);
                if self.held.remove(&id) {
                    self.scheduler.engine_mut().drop_grammar(id.0);
                }
            }
        }
        self.report(start.elapsed(), tokens, ends);
    }

    fn report(&mut self, took: Duration, tokens: u64, ends: u32) {
        let now = self.scheduler.stats();
        if now != self.reported {
            self.shared.metrics.stats(&self.reported, &now);
            *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = now;
            self.reported = now;
        }
        self.shared.metrics.generated(tokens);
        if now.running > 0 || ends > 0 {
            self.busy += took;
        }
        if ends > 0 {
            let each = u64::try_from(self.busy.as_micros()).unwrap_or(u64::MAX) / u64::from(ends);
            let before = self.shared.us_per_request.load(Ordering::Relaxed);
            // A running mean over about eight requests: steady, yet soon right after a change.
            let mean = if before == 0 { each } else { (before * 7 + each) / 8 };
            self.shared.us_per_request.store(mean, Ordering::Relaxed);
            self.busy = Duration::ZERO;
        }
    }

    /// Notes which pages came and went in the step.
    fn note_pages(&mut self) {
        if !self.watching {
            self.watching = true;
            self.scheduler.watch_pages();
        }
        self.page_changes.clear();
        if self.scheduler.drain_page_changes(&mut self.page_changes) {
            self.shared.pages.note(&self.page_changes);
        } else {
            self.shared.pages.replace(self.scheduler.held_pages());
        }
    }

    /// A drain is over when the last place is given back; a stop waits for nothing.
    fn may_leave(&self) -> bool {
        self.shared.life.stops()
            || (self.shared.life.drains() && self.shared.open.load(Ordering::SeqCst) == 0)
    }

    /// Sleeps until a message or `wake_at`. `false`: nobody holds a handle any more.
    fn sleep(&mut self, wake_at: Option<Micros>) -> bool {
        self.shared.life.waits();
        let message = match wake_at {
            None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => {
                let now = self.shared.micros(Instant::now());
                self.commands.recv_timeout(Duration::from_micros(at.saturating_sub(now)))
            }
        };
        self.shared.life.turns();
        match message {
            Ok(message) => self.take(message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        true
    }
}

/// Tells who pays what an event says; a new allowance where there is one.
fn metered(meter: &mut Metered, event: &Event) -> Option<u32> {
    match event {
        Event::Token { choice, .. } => return meter.token(*choice),
        Event::End(_, usage) => meter.ended(*usage, false),
        Event::Refused(_, why, usage) => {
            meter.ended(*usage, matches!(why, Refusal::Engine(_)));
        }
        Event::PromptLogprobs(..) | Event::ChoiceEnd { .. } => {}
    }
    None
}
