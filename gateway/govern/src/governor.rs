//! The door: who asks, may they, and who pays. Decisions are made from memory; the writer keeps
//! them.

mod clock;
mod edit;
mod first;
mod refused;
mod settings;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;

pub use clock::Clock;
pub use first::FirstKey;
pub use settings::{OpenError, Settings};

use crate::audit::Chain;
use crate::budget::books::{Alert, Need, Question};
use crate::budget::{Books, Hold, Payer, Refusal};
use crate::directory::Directory;
use crate::entity::Budget;
use crate::identity::Principal;
use crate::identity::key::authenticate;
use crate::journal::{Journal, Slot};
use crate::ledger::operation::{NEAR, Operation, State};
use crate::ledger::writer::{Job, Note, SETTLES_MAX, Writer};
use crate::ledger::{Entry, Tokens};
use crate::limit::{self, Admitted, Limits, RateRule};
use crate::policy::check::{self, Allowed};
use crate::price::ModelPrice;
use crate::store::documents::Edit;
use crate::store::{Store, StoreError};
use crate::{Ask, Denied, Id, Millis, Money, Rule, Scope};

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
    jobs: Sender<Job>,
    store: Store,
    gateway: String,
    /// How many tokens a choice of a model usually has, in sixteenths.
    usual: Mutex<HashMap<String, u64>>,
    alerts: Mutex<Vec<Alert>>,
    /// One administrator at a time: an edit is judged by what the one before it left.
    editing: Arc<tokio::sync::Mutex<()>>,
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
        if !settles && self.jobs.capacity() <= SETTLES_MAX {
            tracing::error!("the database is too far behind: a job was dropped");
            return false;
        }
        let sent = self.jobs.try_send(job).is_ok();
        if !sent {
            tracing::error!("the writer is gone: what ends now is settled at the next start");
        }
        sent
    }

    fn ask(&self, question: Question) -> bool {
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

    pub(crate) fn alert(&self, alerts: Vec<Alert>) {
        for alert in &alerts {
            tracing::warn!(
                budget = %alert.budget.name, percent = alert.percent, spent = %alert.spent,
                "a budget reached a share"
            );
        }
        if !alerts.is_empty() {
            self.alerts.lock().unwrap_or_else(PoisonError::into_inner).extend(alerts);
        }
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
        let alone = store.alone().await?;
        let (journal, left) = Journal::open(&settings.journal)?;
        let journal = Arc::new(journal);
        let books = Arc::new(Books::default());
        let last = store.last_record(&settings.gateway).await?;
        let chain = last.map_or_else(|| Chain::begin(&settings.gateway), |r| Chain::resume(&r));
        let writer = Writer {
            store: store.clone(),
            journal: Arc::clone(&journal),
            books: Arc::clone(&books),
            chain,
            _alone: alone,
        };
        let jobs = writer.start();
        let mut directory = Directory::default();
        let (changes, _) = store.documents_since(0).await?;
        for change in &changes {
            directory.apply(change).map_err(|error| StoreError::Content(error.to_string()))?;
        }
        let governor = Self {
            shared: Arc::new(Shared {
                clock: settings.clock.clone(),
                books,
                journal,
                directory: RwLock::new(directory),
                limits: Limits::default(),
                jobs,
                store,
                gateway: settings.gateway.clone(),
                usual: Mutex::default(),
                alerts: Mutex::default(),
                editing: Arc::default(),
            }),
        };
        governor.recover(left).await?;
        let latest = governor.shared.store.latest().await?;
        governor.shared.books.seen(latest);
        governor.load_budgets().await?;
        let first = first::first_key(&governor).await?;
        Ok((governor, first))
    }

    /// Settles what was open when the process before this one died, with what it had handed out.
    async fn recover(&self, left: Vec<(Slot, Entry)>) -> Result<(), StoreError> {
        let count = left.len();
        let written = self.shared.store.written(left.iter().map(|(_, entry)| entry)).await?;
        for (slot, mut entry) in left {
            if written.contains(&entry.operation) {
                // It died between the commit and the slot's release.
                self.shared.journal.free(slot);
                continue;
            }
            if entry.settled_at == 0 {
                if entry.tokens.output == 0 {
                    // Nothing was handed out, so nothing is charged for.
                    entry.tokens = Tokens::default();
                }
                let sheet = Id::of(&entry.price);
                let directory = self.shared.directory();
                let sheet = sheet.as_ref().and_then(|id| directory.prices(id));
                let price = sheet.and_then(|sheet| sheet.price(&entry.model));
                entry.cost = price.map_or(Money::ZERO, |price| price.cost(&entry.tokens));
                entry.settled_at = self.shared.clock.now();
            }
            let entry = Box::new(entry);
            self.shared.push(Job::Settle { entry, slot: Some(slot), done: None });
        }
        if count > 0 {
            tracing::warn!(count, "operations of an earlier process were settled");
            self.flush().await;
        }
        Ok(())
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

    /// Alerts since the last call.
    #[must_use]
    pub fn take_alerts(&self) -> Vec<Alert> {
        std::mem::take(&mut *self.shared.alerts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Operations that are open, or not in the database yet.
    #[must_use]
    pub fn open_operations(&self) -> u32 {
        self.shared.journal.taken()
    }

    /// Waits until everything decided so far is in the database.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.shared.jobs.send(Job::Flush(done)).await.is_err() {
            return;
        }
        let _ = flushed.await;
    }

    /// Waits until the database has what answers that have ended have used: what is read from it
    /// then holds everything that the reader has seen. Not for long where the database is away.
    pub async fn caught_up(&self) {
        let _ = tokio::time::timeout(CATCH_UP, self.flush()).await;
    }

    /// Who shows this key.
    ///
    /// # Errors
    /// The key is not good, or not from there, or not now.
    pub fn authenticate(
        &self,
        shown: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<Principal, Denied> {
        authenticate(&self.shared.directory(), shown, source, self.shared.clock.now())
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
        let (edits, note, out) = judge(&self.shared.directory(), self.shared.clock.now())?;
        if edits.is_empty() {
            return Ok(out);
        }
        // On its own feet: a caller who leaves must not leave memory behind the database.
        let governor = self.clone();
        let made = tokio::spawn(async move {
            let _turn = turn;
            governor.make(edits, note).await
        });
        made.await.map_err(|_| edit::gone())??;
        Ok(out)
    }

    /// Adds a line to the audit.
    pub fn note(&self, note: Note) {
        self.shared.push(Job::Note(note));
    }

    /// Lets a request in: policy, rates, and money for its prompt and the first of its tokens.
    ///
    /// # Errors
    /// The first rule that says no.
    pub fn admit(&self, principal: &Principal, ask: &Ask) -> Result<Arc<Operation>, Denied> {
        self.judge(principal, ask).inspect_err(|denied| self.refused(principal, ask, denied))
    }

    fn judge(&self, principal: &Principal, ask: &Ask) -> Result<Arc<Operation>, Denied> {
        let now = self.shared.clock.now();
        let allowed = check::request(&principal.layers(), ask)?;
        let Some(project) = &principal.project else {
            let message = "This key belongs to no project, so there is nobody to book on.";
            return Err(Denied::new(Rule::NoProject, message));
        };
        let payer = Arc::new(Payer { scopes: principal.scopes(), model: ask.model.clone() });
        let (sheet, price) = {
            let directory = self.shared.directory();
            let sheet = directory.prices_at(now);
            let price = sheet.and_then(|sheet| sheet.price(&ask.model)).cloned();
            let sheet = sheet.map(|sheet| sheet.id.to_string()).unwrap_or_default();
            (sheet, price)
        };
        if price.is_none() && self.shared.books.left(&payer, now).is_some() {
            let message = format!("A budget pays for this, and {} has no price.", ask.model);
            return Err(Denied::new(Rule::Price, message));
        }
        let step = self.shared.step(&ask.model).max(ask.burst.saturating_mul(2));
        let first = step.min(allowed.max_output);
        let tokens = Tokens { input: ask.input_tokens, ..Tokens::default() };
        let output = u64::from(ask.choices) * u64::from(first);
        let expected = ask.input_tokens.saturating_add(output);
        let mut rates = self.rates(principal, ask, expected)?;
        let price = price.filter(|price| !price.is_free());
        let most = [first.min(1), first, allowed.max_output];
        let hold = self.pay(&payer, price.as_ref(), ask, most, now).inspect_err(|_| {
            if let Some(rates) = &mut rates {
                rates.settle(0, self.shared.clock.micros());
            }
        })?;
        let allowance = match &price {
            Some(price) if !hold.is_unbounded() => price
                .output_within(&price.dearest(ask.input_tokens), ask.choices, hold.amount())
                .min(allowed.max_output),
            _ => allowed.max_output,
        };
        let entry = Entry {
            operation: Id::new("op", now),
            attempt: 1,
            gateway: self.shared.gateway.clone(),
            admitted_at: now,
            organisation: principal.organisation.id.to_string(),
            team: project.team.to_string(),
            project: project.id.to_string(),
            user: principal.user.as_ref().map(|user| user.id.to_string()).unwrap_or_default(),
            key: principal.key.as_ref().map(|key| key.id.to_string()).unwrap_or_default(),
            model: ask.model.clone(),
            backend: "local".to_owned(),
            surface: ask.surface.to_owned(),
            label: allowed.label,
            price: sheet,
            tokens,
            outcome: crate::ledger::Outcome::Cancelled,
            request_id: ask.request_id.clone(),
            source: ask.source.clone(),
            ..Entry::default()
        };
        self.begin(entry, hold, rates, Paid { payer, price, allowed, allowance, step, ask })
    }

    fn begin(
        &self,
        entry: Entry,
        mut hold: Hold,
        rates: Option<Admitted>,
        paid: Paid<'_>,
    ) -> Result<Arc<Operation>, Denied> {
        let shared = &self.shared;
        let slot = match shared.journal.begin(&entry) {
            Ok(slot) => slot,
            Err(error) => {
                shared.books.settle(&mut hold, Money::ZERO, || {});
                if let Some(mut rates) = rates {
                    rates.settle(0, shared.clock.micros());
                }
                tracing::error!(%error, "a request was refused: its ledger cannot be kept");
                let message = "The ledger cannot take the request at the moment; try again.";
                return Err(Denied::new(Rule::Unavailable, message).after(1));
            }
        };
        let Paid { payer, price, allowed, allowance, step, ask } = paid;
        let state =
            State { entry, hold, allowance, slot: Some(slot), rates, ran: false, settled: false };
        Ok(Arc::new(Operation {
            shared: Arc::clone(shared),
            price,
            payer,
            choices: ask.choices,
            max_output: allowed.max_output,
            step,
            near: NEAR.max(ask.burst),
            stopped: std::sync::atomic::AtomicBool::new(false),
            state: Mutex::new(state),
        }))
    }

    fn rates(
        &self,
        principal: &Principal,
        ask: &Ask,
        tokens: u64,
    ) -> Result<Option<Admitted>, Denied> {
        let layers = principal.layers();
        // Everything has no layer of its own; the others stand in the same order.
        let scopes: Vec<String> = principal.scopes().iter().skip(1).map(Scope::to_string).collect();
        let rules: Vec<RateRule<'_>> = scopes
            .iter()
            .zip(&layers)
            .flat_map(|(scope, layer)| {
                limit::rules(scope, &layer.name, &layer.policy.rates, &ask.model)
            })
            .collect();
        if rules.is_empty() {
            return Ok(None);
        }
        self.shared.limits.admit(&rules, tokens, self.shared.clock.micros()).map(Some)
    }

    /// Holds money for the prompt and some tokens of each choice: the least, the first, and all.
    fn pay(
        &self,
        payer: &Arc<Payer>,
        price: Option<&ModelPrice>,
        ask: &Ask,
        per_choice: [u32; 3],
        now: Millis,
    ) -> Result<Hold, Denied> {
        let Some(price) = price else { return Ok(Hold::default()) };
        let [least, first, all] = per_choice.map(|tokens| {
            let output = u64::from(ask.choices) * u64::from(tokens);
            price.cost(&Tokens { output, ..price.dearest(ask.input_tokens) })
        });
        let need = Need { least, first, all };
        let hold = self.shared.books.hold(payer, now, need, |what| self.shared.ask(what));
        hold.map_err(|refusal| match refusal {
            Refusal::Unknown => {
                let message = "What was spent of a budget is being summed up; try again.";
                Denied::new(Rule::Unavailable, message).after(1)
            }
            Refusal::Exceeded { budget, limit, allowed, spent, held, resets_at } => {
                broke(&budget, limit, (allowed, spent, held), least, resets_at, now)
            }
        })
    }
}

/// What was decided about a request.
struct Paid<'a> {
    payer: Arc<Payer>,
    price: Option<ModelPrice>,
    allowed: Allowed,
    allowance: u32,
    step: u32,
    ask: &'a Ask,
}

fn broke(
    budget: &Budget,
    limit: usize,
    (allowed, spent, held): (Money, Money, Money),
    least: Money,
    resets_at: Option<Millis>,
    now: Millis,
) -> Denied {
    let period = budget.limits.get(limit).map_or("", |limit| limit.period.name());
    let message = format!(
        "The budget '{}' allows {allowed} {period}: {spent} is spent and {held} is held by \
         requests that run; this one needs {least} at least.",
        budget.name
    );
    let denied = Denied::new(Rule::Budget, message);
    match resets_at {
        Some(at) => denied.after(u64::try_from((at - now).max(0)).unwrap_or(0).div_ceil(1000)),
        None => denied,
    }
}
