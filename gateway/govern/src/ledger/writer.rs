//! The only one who writes the database. Whatever has to be durable goes through one queue, in the
//! order in which it was decided; what waits together is committed together, so a commit's price
//! is shared by all that wait for it.
//!
//! Entries of the ledger are never given up: while the database is gone they wait, here and in the
//! journal. Edits by administrators are not kept waiting: they fail.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use super::Entry;
use crate::Millis;
use crate::audit::{Chain, Record};
use crate::budget::Books;
use crate::budget::books::Question;
use crate::journal::{Journal, SLOTS_MAX, Slot};
use crate::store::batch::Batch;
use crate::store::documents::Edit;
use crate::store::{Store, StoreError};

/// Jobs looked at in one round; more wait for the next commit.
const ROUND_MAX: usize = 2000;

/// Room for the end of every operation that can be open.
pub(crate) const SETTLES_MAX: usize = SLOTS_MAX as usize;

/// Jobs that wait. Ends of operations always find room: nothing else may take the last of it.
const QUEUE_MAX: usize = 2 * SETTLES_MAX;

/// How long what nobody waits for may wait for company.
const LINGER: Duration = Duration::from_millis(50);

/// Longest pause between two tries while the database is gone.
const PAUSE_MAX: Duration = Duration::from_secs(2);
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// Something to be made durable.
#[derive(Debug)]
pub(crate) enum Job {
    /// An operation's end.
    Settle { entry: Box<Entry>, slot: Option<Slot>, done: Option<oneshot::Sender<()>> },
    /// A line of the audit.
    Note(Note),
    /// An administrator's change, with its line of the audit. Nothing is left of it where whoever
    /// waited has given it up.
    Edit {
        edits: Arc<Mutex<Option<Vec<Edit>>>>,
        note: Note,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Sums that an account lacks.
    Load { question: Question, done: Option<oneshot::Sender<Result<(), StoreError>>> },
    /// Everything before it is durable.
    Flush(oneshot::Sender<()>),
}

/// A line of the audit that has no place in the chain yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    /// When; milliseconds since 1970.
    pub at: Millis,
    /// What it is about: `request`, `refusal`, `admin`, ...
    pub kind: String,
    /// Whose it is; empty: the deployment's.
    pub organisation: String,
    /// JSON in one line.
    pub body: String,
}

/// What the writer works with.
pub(crate) struct Writer {
    pub(crate) store: Store,
    pub(crate) journal: Arc<Journal>,
    pub(crate) books: Arc<Books>,
    pub(crate) chain: Chain,
    /// The word that no other process writes: held until everything is written.
    pub(crate) _alone: Option<File>,
}

/// While nobody waits for any of the jobs, more of them may come: a commit costs a hundred times
/// what an entry in it does.
async fn linger(queue: &mut Receiver<Job>, jobs: &mut Vec<Job>) {
    let (end, mut seen) = (Instant::now() + LINGER, 0);
    while jobs.len() < ROUND_MAX && !jobs[seen..].iter().any(Job::is_waited_for) {
        seen = jobs.len();
        let Ok(Some(job)) = timeout_at(end, queue.recv()).await else { return };
        jobs.push(job);
        while jobs.len() < ROUND_MAX
            && let Ok(job) = queue.try_recv()
        {
            jobs.push(job);
        }
    }
}

impl Job {
    fn is_waited_for(&self) -> bool {
        match self {
            Self::Settle { done, .. } => done.is_some(),
            Self::Note(_) => false,
            Self::Edit { .. } | Self::Load { .. } | Self::Flush(_) => true,
        }
    }
}

/// What waits for one commit.
#[derive(Default)]
struct Round {
    batch: Batch,
    slots: Vec<Slot>,
    done: Vec<oneshot::Sender<()>>,
}

impl Writer {
    /// Starts it. It ends when all senders are gone and everything is written.
    pub(crate) fn start(self) -> Sender<Job> {
        let (jobs, queue) = channel(QUEUE_MAX);
        tokio::spawn(self.run(queue));
        jobs
    }

    async fn run(mut self, mut queue: Receiver<Job>) {
        let mut jobs = Vec::with_capacity(ROUND_MAX);
        while queue.recv_many(&mut jobs, ROUND_MAX).await > 0 {
            linger(&mut queue, &mut jobs).await;
            let mut round = Round::default();
            for job in jobs.drain(..) {
                match job {
                    Job::Settle { entry, slot, done } => {
                        round.batch.records.push(self.record_of(&entry));
                        round.batch.entries.push(*entry);
                        round.slots.extend(slot);
                        round.done.extend(done);
                    }
                    Job::Note(note) => round.batch.records.push(self.record(note)),
                    Job::Edit { edits, note, done } => {
                        self.commit(std::mem::take(&mut round)).await;
                        let edits = edits.lock().unwrap_or_else(PoisonError::into_inner).take();
                        if let Some(edits) = edits {
                            let _ = done.send(self.edit(edits, note).await);
                        }
                    }
                    Job::Load { question, done } => {
                        self.commit(std::mem::take(&mut round)).await;
                        let loaded = self.load(&question).await;
                        if loaded.is_err() {
                            self.books.unanswered(&question);
                        }
                        if let Some(done) = done {
                            let _ = done.send(loaded);
                        }
                    }
                    Job::Flush(done) => round.done.push(done),
                }
            }
            self.commit(round).await;
        }
    }

    fn record_of(&mut self, entry: &Entry) -> Record {
        let body = serde_json::to_string(entry).unwrap_or_default();
        let (at, organisation) = (entry.settled_at, entry.organisation.clone());
        self.record(Note { at, kind: "request".to_owned(), organisation, body })
    }

    fn record(&mut self, note: Note) -> Record {
        let Note { at, kind, organisation, body } = note;
        self.chain.next(at, &kind, &organisation, body)
    }

    /// Commits, however long it takes.
    async fn commit(&mut self, round: Round) {
        let Round { batch, slots, done } = round;
        let mut pause = PAUSE_MIN;
        if !(batch.entries.is_empty() && batch.records.is_empty()) {
            while let Err(error) = self.store.commit(&batch).await {
                tracing::error!(%error, entries = batch.entries.len(), "the ledger waits");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        slots.into_iter().for_each(|slot| self.journal.free(slot));
        for done in done {
            // Whoever waited may have left.
            let _ = done.send(());
        }
    }

    async fn edit(&mut self, edits: Vec<Edit>, note: Note) -> Result<(), StoreError> {
        let mut chain = self.chain.clone();
        let Note { at, kind, organisation, body } = note;
        let record = chain.next(at, &kind, &organisation, body);
        let hash = record.hash.clone();
        let batch = Batch { edits, records: vec![record], ..Batch::default() };
        match self.store.commit(&batch).await {
            Ok(()) => self.chain = chain,
            // The answer to a commit may be lost, and the commit not: the chain's end knows.
            Err(StoreError::Unsure(error)) => {
                if self.head().await.as_deref() != Some(&hash) {
                    return Err(error.into());
                }
                self.chain = chain;
            }
            // Nothing was written.
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The hash that the chain ends with in the database.
    async fn head(&self) -> Option<String> {
        let mut pause = PAUSE_MIN;
        loop {
            match self.store.last_record(self.chain.name()).await {
                Ok(last) => return last.map(|record| record.hash),
                Err(error) => tracing::error!(%error, "the end of the audit cannot be read"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Everything settled before the question is committed by now, nothing after it is: what the
    /// database says is what the account lacks.
    async fn load(&self, question: &Question) -> Result<(), StoreError> {
        let Some((budget, windows)) = self.books.asked(question) else { return Ok(()) };
        for (limit, window) in windows {
            let sum = self.store.spent(&budget.scope, budget.model.as_deref(), window).await?;
            self.books.load(question, limit, window.start, sum);
        }
        Ok(())
    }
}
