//! The door: who asks, may they, and who pays. Decisions are made from memory; the writer keeps
//! them.

mod clock;
mod door;
mod edit;
mod first;
mod keep;
mod notices;
mod pay;
mod peers;
mod rates;
mod record;
mod refused;
mod rewrap;
mod settings;
mod weigh;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::oneshot;

pub use clock::Clock;
pub use first::FirstKey;
use notices::Notices;
pub(crate) use peers::Peers;
pub use rewrap::{RewrapError, Rewrapped};
pub use settings::{Fsync, OpenError, Settings, Sharing};
use weigh::Weighed;
pub(crate) use weigh::unpriced;

use crate::audit::Chain;
use crate::bodies::{Bodies, Place};
use crate::budget::books::Question;
use crate::budget::{Books, Hold, Payer};
use crate::directory::Directory;
use crate::entity::Budget;
use crate::figures::Figures;
use crate::identity::Principal;
use crate::journal::{Journal, Slot};
use crate::ledger::operation::{Attempt, NEAR, Operation, State};
use crate::ledger::writer::{Job, Jobs, Note, SETTLES_MAX, Writer};
use crate::ledger::{Entry, ServiceTier, Tokens};
use crate::limit::shared::Shared as SharedRates;
use crate::limit::{Admitted, Limits};
use crate::policy::Label;
use crate::policy::check::{self, Allowed};
use crate::price::ModelPrice;
use crate::store::documents::Edit;
use crate::store::{Store, StoreError};
use crate::{Ask, Denied, Id, Millis, Money, Rule};

/// Tokens per choice that are held at first where a model has answered nothing yet.
const EXPECTED: u64 = 256;

/// Bounds of what is held at a time, in tokens per choice. The least keeps a stream from asking
/// too often, the most keeps it from starving its neighbours.
const STEP: std::ops::RangeInclusive<u64> = 64..=1024;

/// Longest wait of a report for what was decided before it.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Models whose usual length is remembered.
const MODELS_MAX: usize = 4096;

/// The door. Cheap to copy.
#[derive(Clone)]
pub struct Governor {
    shared: Arc<Shared>,
}

/// What operations share.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) books: Arc<Books>,
    pub(crate) journal: Arc<Journal>,
    directory: RwLock<Directory>,
    limits: Limits,
    jobs: Jobs,
    figures: Figures,
    store: Store,
    gateway: Arc<str>,
    pub(crate) fsync: Fsync,
    bodies: Bodies,
    /// Keys of what was deleted are about to be taken out of the database's files.
    letting_go: AtomicBool,
    /// How many tokens a choice of a model usually has, in sixteenths.
    usual: Mutex<HashMap<String, u64>>,
    notices: Notices,
    /// One administrator at a time: an edit is judged by what the one before it left.
    editing: Arc<tokio::sync::Mutex<()>>,
    /// Where other gateways may use the database too.
    pub(crate) peers: Option<Peers>,
}

/// Why an edit was not made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The database says no, or nothing.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The edit makes no sense.
    #[error("{0}")]
    Wrong(String),
}

impl Shared {
    /// Queues a job. Ends of operations always find room, since there are only so many slots;
    /// others are dropped while the last room is theirs, and whoever waits for them is told.
    /// `false`: it was dropped.
    pub(crate) fn push(&self, job: Job) -> bool {
        let settles = matches!(job, Job::Settle { .. });
        if !settles && self.jobs.room() <= SETTLES_MAX {
            tracing::error!("the database is too far behind: a job was dropped");
            return false;
        }
        let sent = self.jobs.push(job);
        if !sent {
            tracing::error!("the writer is gone: what ends now is settled at the next start");
        }
        sent
    }

    pub(crate) fn ask(&self, question: Question) -> bool {
        self.push(Job::Load { question, done: None })
    }

    fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A model has answered with so many tokens.
    pub(crate) fn learn(&self, model: &str, output: u64) {
        let mut usual = self.usual.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mean) = usual.get_mut(model) {
            // A running mean over about sixteen answers.
            *mean = (*mean * 15 + output * 16) / 16;
        } else if usual.len() < MODELS_MAX {
            usual.insert(model.to_owned(), output * 16);
        }
    }

    fn step(&self, model: &str) -> u32 {
        let usual = self.usual.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = usual.get(model).map_or(EXPECTED, |mean| mean / 16);
        u32::try_from(expected.clamp(*STEP.start(), *STEP.end())).unwrap_or(u32::MAX)
    }
}

impl Governor {
    /// Opens the store, settles what an earlier process left open, and loads all budgets. The
    /// first time it makes an organisation and one key, which is shown this once.
    ///
    /// # Errors
    /// Store or journal cannot be opened.
    pub async fn open(settings: &Settings) -> Result<(Self, Option<FirstKey>), OpenError> {
        let store = Store::open(&settings.url).await?;
        let alone = store.alone()?;
        let (journal, left) = Journal::open(&settings.journal)?;
        let left = unbooked(&store, &journal, left).await?;
        let journal = Arc::new(journal);
        let books = Arc::new(Books::default());
        let peers = Peers::come_in(&store, settings, left.len()).await?;
        if peers.is_some() {
            books.share();
        }
        let limits = match &settings.sharing.rates {
            Some(rates) => {
                Limits::among(SharedRates::start(rates).await.map_err(OpenError::Rates)?)
            }
            None => Limits::default(),
        };
        let last = store.last_record(&settings.gateway).await?;
        let figures = Figures::new(journal.flushes());
        let chain = last.map_or_else(|| Chain::begin(&settings.gateway), |r| Chain::resume(&r));
        let writer = Writer {
            store: store.clone(),
            journal: Arc::clone(&journal),
            books: Arc::clone(&books),
            chain,
            figures: figures.clone(),
            _alone: alone,
            peer: peers.as_ref().map(|peers| peers.peer.clone()),
        };
        let jobs = writer.start();
        let mut directory = Directory::default();
        let (changes, revision) = store.documents_since(0).await?;
        for change in &changes {
            directory.apply(change).map_err(|error| StoreError::Content(error.to_string()))?;
        }
        let governor = Self {
            shared: Arc::new(Shared {
                clock: settings.clock.clone(),
                books,
                journal,
                directory: RwLock::new(directory),
                limits,
                jobs,
                figures,
                store,
                gateway: settings.gateway.as_str().into(),
                fsync: settings.fsync,
                bodies: Bodies::default(),
                letting_go: AtomicBool::new(false),
                usual: Mutex::default(),
                notices: Notices::default(),
                editing: Arc::default(),
                peers,
            }),
        };
        governor.recover(left).await;
        let latest = governor.shared.store.latest().await?;
        governor.shared.books.seen(latest);
        governor.load_budgets().await?;
        governor.join(revision).await?;
        let first = first::first_key(&governor).await?;
        Ok((governor, first))
    }

    /// Settles what was open when the process before this one died, with what it had handed out.
    async fn recover(&self, left: Vec<(Slot, Entry)>) {
        let count = left.len();
        for (slot, mut entry) in left {
            if entry.settled_at == 0 {
                if entry.tokens.output == 0 {
                    // Nothing was handed out, so nothing is charged for.
                    entry.tokens = Tokens::default();
                }
                let sheet = Id::of(&entry.price);
                let directory = self.shared.directory();
                let sheet = sheet.as_ref().and_then(|id| directory.prices(id));
                let price = sheet.and_then(|sheet| sheet.price(&entry.model));
                let billed = |price: &ModelPrice| {
                    price.of(entry.service_tier).billed(&entry.tokens, entry.device_us)
                };
                entry.cost = price.map_or(Money::ZERO, billed);
                entry.settled_at = self.shared.clock.now();
            }
            let json = entry.json();
            let (entry, draws) = (Arc::new(entry), Vec::new());
            self.shared.push(Job::Settle { entry, json, draws, slot: Some(slot), done: None });
        }
        if count > 0 {
            tracing::warn!(count, "operations of an earlier process were settled");
            self.flush().await;
        }
    }

    async fn load_budgets(&self) -> Result<(), OpenError> {
        let budgets: Vec<Arc<Budget>> = self.shared.directory().budgets().cloned().collect();
        for budget in &budgets {
            self.open_budget(budget).await?;
        }
        Ok(())
    }

    /// Opens a budget's account, and waits until its sums are there. Where they cannot be had, the
    /// account is open all the same and grants nothing: whoever needs it asks again.
    async fn open_budget(&self, budget: &Arc<Budget>) -> Result<(), StoreError> {
        let (done, loaded) = oneshot::channel();
        let zoned = self.in_zone(budget);
        let now = self.shared.clock.now();
        let ask = |question| self.shared.push(Job::Load { question, done: Some(done) });
        let fresh = self.shared.books.open(&zoned, now, ask).map_err(StoreError::Content)?;
        if fresh && let Ok(answer) = loaded.await {
            answer?;
        }
        Ok(())
    }

    /// A budget's days begin where its organisation's do, unless it says otherwise.
    fn in_zone(&self, budget: &Arc<Budget>) -> Arc<Budget> {
        if budget.time_zone.is_some() {
            return Arc::clone(budget);
        }
        let directory = self.shared.directory();
        let organisation = directory.organisation(&budget.organisation);
        let zone = organisation.map_or("UTC", |found| &found.time_zone).to_owned();
        Arc::new(Budget { time_zone: Some(zone), ..Budget::clone(budget) })
    }

    /// The time by the governor's clock.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.shared.clock.now()
    }

    /// Everything that administrators made. Not to be held across an await.
    pub fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.shared.directory()
    }

    /// The database, for reports.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// What was spent and is held.
    #[must_use]
    pub fn books(&self) -> &Books {
        &self.shared.books
    }

    /// Name of this gateway in the ledger and the audit.
    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.shared.gateway
    }

    /// Operations that are open, or not in the database yet.
    #[must_use]
    pub fn open_operations(&self) -> u32 {
        self.shared.journal.taken()
    }

    /// How the books are kept.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// Sets the figures that change by themselves, for whoever reads them now.
    pub fn show(&self) {
        let Shared { figures, jobs, .. } = &*self.shared;
        figures.waiting.set(i64::try_from(jobs.waiting()).unwrap_or(i64::MAX));
        figures.open.set(self.open_operations().into());
    }

    /// Waits until everything decided so far is in the database.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if !self.shared.jobs.send(Job::Flush(done)).await {
            return;
        }
        let _ = flushed.await;
    }

    /// Waits until the database has what answers that have ended have used: what is read from it
    /// then holds everything that the reader has seen. Not for long where the database is away.
    pub async fn caught_up(&self) {
        let _ = tokio::time::timeout(CATCH_UP, self.flush()).await;
    }

    /// Makes changes, all or none, with their line in the audit; they hold from when this returns.
    /// `judge` sees what there is and decides what is to be changed.
    ///
    /// # Errors
    /// What `judge` says; a name is taken; the database is gone.
    pub async fn edit<T, E: From<EditError>>(
        &self,
        judge: impl FnOnce(&Directory, Millis) -> Result<(Vec<Edit>, Note, T), E>,
    ) -> Result<T, E> {
        let turn = Arc::clone(&self.shared.editing).lock_owned().await;
        // Among gateways too, and by what the last one of any of them left.
        let theirs = self.turn().await.map_err(EditError::Store)?;
        let (edits, note, out) = judge(&self.shared.directory(), self.shared.clock.now())?;
        if edits.is_empty() {
            return Ok(out);
        }
        // On its own feet: a caller who leaves must not leave memory behind the database.
        let governor = self.clone();
        let made = tokio::spawn(async move {
            let _turn = (turn, theirs);
            governor.make(edits, None, note).await
        });
        made.await.map_err(|_| edit::gone())??;
        Ok(out)
    }

    /// Adds a line to the audit.
    pub fn note(&self, note: Note) {
        self.shared.push(Job::Note(note));
    }

    /// Lets a request in: policy, rates, and money for its prompt and the first of its tokens.
    /// Waits a moment for what other gateways have a say in.
    ///
    /// # Errors
    /// The first rule that says no.
    pub async fn let_in(&self, principal: &Principal, ask: &Ask) -> Result<Arc<Operation>, Denied> {
        let judged = async {
            let weighed = self.weigh(principal, ask)?;
            let rates = self.rates_among(principal, ask, weighed.expected).await?;
            self.stock(&weighed, ask).await;
            let attempt = Attempt::first(rates, weighed.now);
            self.conclude(principal, ask, weighed, attempt)
        };
        judged.await.inspect_err(|denied| self.refused(principal, ask, denied))
    }

    /// The same at once, by what this gateway knows.
    ///
    /// # Errors
    /// The first rule that says no.
    pub fn admit(&self, principal: &Principal, ask: &Ask) -> Result<Arc<Operation>, Denied> {
        self.judge(principal, ask, None).inspect_err(|denied| self.refused(principal, ask, denied))
    }

    /// How secret a request is, and whether policy lets it be served at all: asked before it is
    /// decided who serves it. Nothing is counted or held.
    ///
    /// # Errors
    /// The first rule that says no.
    pub fn label(&self, principal: &Principal, ask: &Ask) -> Result<Label, Denied> {
        Ok(self.judged(principal, ask)?.label)
    }

    /// As [`Governor::label`], with all that policy says of it.
    ///
    /// # Errors
    /// The first rule that says no.
    pub fn judged(&self, principal: &Principal, ask: &Ask) -> Result<Allowed, Denied> {
        let allowed = check::request(&principal.layers(), ask);
        allowed.inspect_err(|denied| self.refused(principal, ask, denied))
    }

    /// Another attempt at an operation whose last one has come to nothing: the same operation in
    /// the ledger, one request by the rates, paid for by what answers now.
    ///
    /// # Errors
    /// The first rule that says no.
    pub fn again(
        &self,
        principal: &Principal,
        ask: &Ask,
        before: &Operation,
    ) -> Result<Arc<Operation>, Denied> {
        let attempt = before.hand_over();
        self.judge(principal, ask, Some(attempt))
            .inspect_err(|denied| self.refused(principal, ask, denied))
    }

    /// As [`Governor::let_in`], for an attempt beside another one of the same operation, whose
    /// money stays held: whoever is asked twice at once pays for both until one has answered.
    ///
    /// # Errors
    /// The first rule that says no.
    pub fn beside(
        &self,
        principal: &Principal,
        ask: &Ask,
        other: &Operation,
    ) -> Result<Arc<Operation>, Denied> {
        self.judge(principal, ask, Some(other.next_attempt()))
            .inspect_err(|denied| self.refused(principal, ask, denied))
    }

    fn judge(
        &self,
        principal: &Principal,
        ask: &Ask,
        attempt: Option<Attempt>,
    ) -> Result<Arc<Operation>, Denied> {
        let weighed = match self.weigh(principal, ask) {
            Ok(weighed) => weighed,
            Err(denied) => {
                self.withdraw(attempt.and_then(|attempt| attempt.rates));
                return Err(denied);
            }
        };
        let attempt = match attempt {
            Some(attempt) if attempt.rates.is_some() => attempt,
            other => {
                let rates = self.rates(principal, ask, weighed.expected)?;
                let first = || Attempt::first(None, weighed.now);
                Attempt { rates, ..other.unwrap_or_else(first) }
            }
        };
        self.conclude(principal, ask, weighed, attempt)
    }

    /// A request is not let in after all: the next try at it counts by itself.
    fn withdraw(&self, rates: Option<Admitted>) {
        rates.into_iter().for_each(|rates| rates.withdraw(self.shared.clock.micros()));
    }

    /// Takes the money and begins.
    fn conclude(
        &self,
        principal: &Principal,
        ask: &Ask,
        weighed: Weighed,
        attempt: Attempt,
    ) -> Result<Arc<Operation>, Denied> {
        let Weighed { now, allowed, payer, sheet, price, open, step, first, place, .. } = weighed;
        let Attempt { operation, number, rates, answered } = attempt;
        let project = principal.project.as_ref();
        let text = |id: Option<&Id>| id.map(Id::text).unwrap_or_default();
        let price = price.filter(|price| !price.is_free());
        let most = [first.min(1), first, allowed.max_output];
        let hold = match self.pay(&payer, price.as_ref(), ask, most, now) {
            Ok(hold) => hold,
            Err(denied) => {
                self.withdraw(rates);
                return Err(denied);
            }
        };
        let allowance = match &price {
            Some(price) if !hold.is_unbounded() => price
                .output_within(&price.dearest(ask.input_tokens), ask.choices, hold.amount())
                .min(allowed.max_output),
            _ => allowed.max_output,
        };
        let entry = Entry {
            operation,
            attempt: number,
            gateway: Arc::clone(&self.shared.gateway),
            admitted_at: now,
            organisation: principal.organisation.id.text(),
            team: text(project.map(|project| &project.team)),
            project: text(project.map(|project| &project.id)),
            user: text(principal.user.as_ref().map(|user| &user.id)),
            key: text(principal.key.as_ref().map(|key| &key.id)),
            model: ask.answering().into(),
            backend: if ask.is_local() { "local".into() } else { ask.backend.as_str().into() },
            surface: ask.surface.into(),
            label: allowed.label,
            price: sheet,
            tokens: Tokens { input: ask.input_tokens, ..Tokens::default() },
            outcome: crate::ledger::Outcome::Cancelled,
            request_id: Arc::clone(&ask.request_id),
            source: Arc::clone(&ask.source),
            // Of others it is known when they say so.
            service_tier: if ask.is_local() { ask.service_tier } else { ServiceTier::Default },
            arm: Arc::clone(&ask.arm),
            ..Entry::default()
        };
        let paid = Paid { payer, price, open, allowed, allowance, step, ask, place };
        self.begin(entry, hold, (rates, answered), paid)
    }

    fn begin(
        &self,
        entry: Entry,
        mut hold: Hold,
        (rates, answered): (Option<Admitted>, Arc<AtomicBool>),
        paid: Paid<'_>,
    ) -> Result<Arc<Operation>, Denied> {
        let shared = &self.shared;
        let slot = match shared.journal.begin(&entry) {
            Ok(slot) => slot,
            Err(error) => {
                shared.books.settle(&mut hold, Money::ZERO, |_| {});
                if let Some(mut rates) = rates {
                    rates.settle(0, shared.clock.micros());
                }
                tracing::error!(%error, "a request was refused: its ledger cannot be kept");
                let message = "The ledger cannot take the request at the moment; try again.";
                return Err(Denied::new(Rule::Unavailable, message).after(1));
            }
        };
        let Paid { payer, price, open, allowed, allowance, step, ask, place } = paid;
        let (entry, slot, ran, settled) = (Arc::new(entry), Some(slot), false, false);
        let state = State { entry, hold, allowance, slot, rates, ran, settled, place };
        Ok(Arc::new(Operation {
            shared: Arc::clone(shared),
            price,
            open,
            told: ask.service_tier == ServiceTier::Flex && !ask.is_local(),
            payer,
            choices: ask.choices,
            max_output: allowed.max_output,
            step,
            near: NEAR.max(ask.burst),
            stopped: AtomicBool::new(false),
            answered,
            state: Mutex::new(state),
        }))
    }
}

/// What an earlier process left and the ledger does not have; the slots of all else are free.
async fn unbooked(
    store: &Store,
    journal: &Journal,
    mut left: Vec<(Slot, Entry)>,
) -> Result<Vec<(Slot, Entry)>, StoreError> {
    let written = store.written(left.iter().map(|(_, entry)| entry)).await?;
    let is_booked = |(_, entry): &mut (Slot, Entry)| {
        written.contains(&(entry.operation.clone(), entry.attempt))
    };
    journal.free(left.extract_if(.., is_booked).map(|(slot, _)| slot));
    Ok(left)
}

/// What was decided about a request.
struct Paid<'a> {
    payer: Arc<Payer>,
    price: Option<ModelPrice>,
    open: Option<ModelPrice>,
    allowed: Allowed,
    allowance: u32,
    step: u32,
    ask: &'a Ask,
    place: Option<Place>,
}
