//! The only one who writes the database. Whatever has to be durable goes through one queue, in the
//! order in which it was decided; what waits together is committed together, so a commit's price
//! is shared by all that wait for it.
//!
//! Entries of the ledger are never given up: while the database is gone they wait, here and in the
//! journal. Edits by administrators are not kept waiting: they fail.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use super::Entry;
use crate::Millis;
use crate::audit::{Chain, Record};
use crate::budget::Books;
use crate::budget::books::{Draw, Keep, Question, SliceKey};
use crate::figures::Figures;
use crate::journal::{Journal, SLOTS_MAX, Slot};
use crate::store::batch::Batch;
use crate::store::bodies::Rewrap;
use crate::store::documents::Edit;
use crate::store::slices::{Answer, Lost, Member, Wish};
use crate::store::{Store, StoreError};

/// Jobs looked at in one round; more wait for the next commit.
const ROUND_MAX: usize = 8000;

/// Room for the end of every operation that can be open.
pub(crate) const SETTLES_MAX: usize = SLOTS_MAX as usize;

/// Jobs that wait. Ends of operations always find room: nothing else may take the last of it.
const QUEUE_MAX: usize = 2 * SETTLES_MAX;

/// How long what nobody waits for may wait for company, and how much of it. While a commit has the
/// disk, answers wait for the journal longer: there should not be many in a second.
const LINGER: Duration = Duration::from_millis(200);
const COMPANY: usize = 1024;

/// Longest pause between two tries while the database is gone.
const PAUSE_MAX: Duration = Duration::from_secs(2);
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// Longest wait for the last word.
const LEAVE: Duration = Duration::from_secs(2);

/// Something to be made durable.
#[derive(Debug)]
pub(crate) enum Job {
    /// An operation's end, also as JSON, and what it has spent of slices.
    Settle {
        entry: Arc<Entry>,
        json: String,
        draws: Vec<Draw>,
        slot: Option<Slot>,
        done: Option<oneshot::Sender<()>>,
    },
    /// A line of the audit.
    Note(Note),
    /// An administrator's change, with its line of the audit. Nothing is left of it where whoever
    /// waited has given it up.
    Edit {
        edits: Arc<Mutex<Option<Vec<Edit>>>>,
        note: Note,
        /// See [`Batch::rewrap`].
        rewrap: Option<Rewrap>,
        /// See [`Batch::revision`].
        revision: Option<i64>,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    /// This gateway lives, and keeps these slices. `false`: it was taken for lost.
    Renew {
        revision: i64,
        keeps: Vec<(SliceKey, Keep)>,
        done: oneshot::Sender<Result<bool, StoreError>>,
    },
    /// Another gateway is lost.
    Lost { lost: Lost, note: Note },
    /// Sums that an account lacks, and money.
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
    pub(crate) figures: Figures,
    /// The word that no other process writes: held until everything is written.
    pub(crate) _alone: Option<File>,
    /// Who this gateway is among those that share the database.
    pub(crate) peer: Option<Peer>,
}

/// This gateway among those that share the database.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Who it is.
    pub(crate) member: Member,
    /// Every change of the documents up to this one holds here.
    pub(crate) revision: Arc<AtomicI64>,
    /// Something was granted, or there may be more.
    pub(crate) told: Arc<Notify>,
    /// There is something to be looked at in the database.
    pub(crate) look: Arc<Notify>,
    /// Others wait for this one's word.
    pub(crate) renew: Arc<AtomicBool>,
}

/// Where jobs go in.
#[derive(Debug)]
pub(crate) struct Jobs {
    queue: Sender<Job>,
    urgent: Arc<Notify>,
}

impl Jobs {
    /// Room that is left.
    pub(crate) fn room(&self) -> usize {
        self.queue.capacity()
    }

    /// Jobs that wait.
    pub(crate) fn waiting(&self) -> usize {
        QUEUE_MAX - self.room()
    }

    /// `false`: there is no room, or nobody to take it.
    pub(crate) fn push(&self, job: Job) -> bool {
        let urgent = job.is_waited_for();
        let pushed = self.queue.try_send(job).is_ok();
        if pushed && (urgent || self.waiting() >= COMPANY) {
            self.urgent.notify_one();
        }
        pushed
    }

    /// Waits for room. `false`: there is nobody to take it.
    pub(crate) async fn send(&self, job: Job) -> bool {
        let urgent = job.is_waited_for();
        let sent = self.queue.send(job).await.is_ok();
        if sent && urgent {
            self.urgent.notify_one();
        }
        sent
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        // There will be no more company.
        self.urgent.notify_one();
    }
}

/// While nobody waits for any of the jobs, more of them may come: a commit costs a hundred times
/// what an entry in it does. They do not wake the writer, which would cost each request.
async fn linger(queue: &mut Receiver<Job>, urgent: &Notify, jobs: &mut Vec<Job>) {
    let waited_for = |jobs: &[Job]| jobs.iter().any(Job::is_waited_for);
    if !waited_for(jobs) && jobs.len() < COMPANY && !queue.is_closed() {
        let _ = timeout(LINGER, urgent.notified()).await;
    }
    while jobs.len() < ROUND_MAX
        && let Ok(job) = queue.try_recv()
    {
        jobs.push(job);
    }
}

impl Job {
    fn is_waited_for(&self) -> bool {
        match self {
            Self::Settle { done, .. } => done.is_some(),
            Self::Note(_) | Self::Lost { .. } => false,
            Self::Edit { .. } | Self::Load { .. } | Self::Renew { .. } | Self::Flush(_) => true,
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
    pub(crate) fn start(self) -> Jobs {
        let (sender, queue) = channel(QUEUE_MAX);
        let jobs = Jobs { queue: sender, urgent: Arc::default() };
        tokio::spawn(self.run(queue, Arc::clone(&jobs.urgent)));
        jobs
    }

    async fn run(mut self, mut queue: Receiver<Job>, urgent: Arc<Notify>) {
        let mut jobs = Vec::new();
        while queue.recv_many(&mut jobs, ROUND_MAX).await > 0 {
            linger(&mut queue, &urgent, &mut jobs).await;
            let mut round = Round::default();
            for job in jobs.drain(..) {
                match job {
                    Job::Settle { entry, json, draws, slot, done } => {
                        let operation = || entry.operation.clone();
                        let draws = draws.into_iter().map(|draw| (operation(), draw));
                        round.batch.draws.extend(draws);
                        round.batch.records.push(self.record_of(&entry, json));
                        round.batch.entries.push(entry);
                        round.slots.extend(slot);
                        round.done.extend(done);
                    }
                    Job::Note(note) => round.batch.records.push(self.record(note)),
                    Job::Edit { edits, note, rewrap, revision, done } => {
                        self.commit(std::mem::take(&mut round)).await;
                        let edits = edits.lock().unwrap_or_else(PoisonError::into_inner).take();
                        if let Some(edits) = edits {
                            let batch = Batch { edits, rewrap, revision, ..Batch::default() };
                            let _ = done.send(self.write(batch, note).await);
                        }
                    }
                    Job::Renew { revision, keeps, done } => {
                        self.commit(std::mem::take(&mut round)).await;
                        let _ = done.send(self.renew(revision, &keeps).await);
                    }
                    Job::Lost { lost, note } => {
                        self.commit(std::mem::take(&mut round)).await;
                        let batch = Batch { lost: Some(lost), ..Batch::default() };
                        match self.write(batch, note).await {
                            // Another gateway was first, or it is back.
                            Ok(()) | Err(StoreError::Moved) => {}
                            Err(error) => tracing::error!(%error, "a lost gateway is not settled"),
                        }
                    }
                    Job::Load { question, done } => {
                        self.commit(std::mem::take(&mut round)).await;
                        let loaded = self.load(&question).await;
                        if let Err(error) = &loaded {
                            tracing::warn!(%error, "what may be spent is not known");
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
        self.leave().await;
    }

    fn record_of(&mut self, entry: &Entry, body: String) -> Record {
        self.chain.next(entry.settled_at, "request", &entry.organisation, body)
    }

    fn record(&mut self, note: Note) -> Record {
        let Note { at, kind, organisation, body } = note;
        self.chain.next(at, &kind, &organisation, body)
    }

    /// Commits, however long it takes.
    async fn commit(&mut self, round: Round) {
        let Round { mut batch, slots, done } = round;
        batch.member = self.peer.as_ref().map(|peer| peer.member.clone());
        let mut pause = PAUSE_MIN;
        let batch = Arc::new(batch);
        if !(batch.entries.is_empty() && batch.records.is_empty()) {
            let Figures { commits, failures, .. } = &self.figures;
            let mut began = Instant::now();
            while let Err(error) = self.store.commit(&batch).await {
                tracing::error!(%error, entries = batch.entries.len(), "the ledger waits");
                failures.inc();
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                began = Instant::now();
            }
            commits.observe(began.elapsed().as_secs_f64());
        }
        if !slots.is_empty() {
            self.journal.free(slots);
        }
        for done in done {
            // Whoever waited may have left.
            let _ = done.send(());
        }
    }

    /// Writes a batch with its line of the audit, or nothing.
    async fn write(&mut self, mut batch: Batch, note: Note) -> Result<(), StoreError> {
        let mut chain = self.chain.clone();
        let Note { at, kind, organisation, body } = note;
        let record = chain.next(at, &kind, &organisation, body);
        let hash = record.hash.clone();
        batch.records.push(record);
        batch.member = self.peer.as_ref().map(|peer| peer.member.clone());
        match self.store.commit(&Arc::new(batch)).await {
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
        // Before the account is looked at: it is as new as this says, or newer.
        let revision = self.peer.as_ref().map(|peer| peer.revision.load(Ordering::Acquire));
        let Some((budget, windows)) = self.books.asked(question) else { return Ok(()) };
        if let (Some(peer), Some(revision)) = (&self.peer, revision)
            && !question.more.is_empty()
        {
            let wish = Wish {
                budget: &budget,
                now: question.at,
                revision,
                windows: &windows,
                more: &question.more,
            };
            return self.lease(peer, question, &wish).await;
        }
        for (limit, window) in windows {
            let sum = self.store.spent(&budget.scope, budget.model.as_deref(), window).await?;
            self.books.load(question, (limit, window.start), sum, None);
        }
        if let Some(peer) = &self.peer {
            peer.told.notify_waiters();
        }
        Ok(())
    }

    async fn lease(
        &self,
        peer: &Peer,
        question: &Question,
        wish: &Wish<'_>,
    ) -> Result<(), StoreError> {
        match self.store.grant(&peer.member, wish).await? {
            Answer::Granted(sums) => {
                for ((limit, window), (sum, granted)) in wish.windows.iter().zip(sums) {
                    self.books.load(question, (*limit, window.start), sum, granted);
                }
                peer.told.notify_waiters();
            }
            Answer::NotYet => self.books.unanswered(question),
            Answer::Stale | Answer::Lost => {
                self.books.unanswered(question);
                peer.look.notify_one();
            }
        }
        Ok(())
    }

    async fn renew(&self, revision: i64, keeps: &[(SliceKey, Keep)]) -> Result<bool, StoreError> {
        let Some(peer) = &self.peer else { return Ok(true) };
        self.store.renew(&peer.member, revision, keeps).await
    }

    /// Everything is written, and nothing held: what this gateway has leased is free for others.
    async fn leave(&self) {
        let Some(peer) = &self.peer else { return };
        let left = timeout(LEAVE, self.store.leave(&peer.member)).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::warn!("the database does not know that this gateway ends: its leases run out");
        }
    }
}
