//! Texts of requests and answers, where a policy asks for them: sealed, kept for as long as the
//! organisation says, and erased for good.
//!
//! Each text is sealed with a key of its own, and that key with the master key. Erasing deletes
//! both; backups hold the texts and not their keys, so what was erased here can be read from no
//! copy any more.
//!
//! A task of its own writes them: an answer never waits for it. Room for a text is taken before
//! the request begins, so a request that has to be recorded and cannot be is refused, and memory is
//! bounded however slow the database is.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc::{OwnedPermit, Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use crate::governor::Clock;
use crate::policy::Label;
use crate::secret::{Keyring, Master, Secret, SecretError};
use crate::store::bodies::Row;
use crate::store::{Store, StoreError};
use crate::{Denied, Id, Millis, Rule};

/// Most bytes of a request, and of an answer, that are kept; longer ones are cut.
pub const BYTES_MAX: usize = 256 << 10;

/// Bytes of all texts that wait, and of those that may still come.
const ROOM: usize = 256 << 20;

/// Room is counted in such pieces.
const PIECE: usize = 1 << 10;

/// Texts that wait; more are refused before they begin.
const QUEUE_MAX: usize = 1024;

/// Texts written together.
const ROUND_MAX: usize = 32;

/// How often what is over is deleted.
const SWEEP: Duration = Duration::from_secs(600);
const SWEEP_MS: u64 = 600_000;

/// Pause between two tries while the database is gone.
const PAUSE: Duration = Duration::from_secs(1);

/// Days that texts are kept where the organisation says nothing of their label.
pub const RETENTION_DAYS: u32 = 30;

/// Most days that texts may be kept.
pub const RETENTION_DAYS_MAX: u32 = 3650;

const DAY_MS: Millis = 86_400_000;

/// Whose text it is, and until when it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The operation, and which attempt at it.
    pub operation: Id,
    /// From 1.
    pub attempt: i64,
    /// Whose it is.
    pub organisation: String,
    /// Whose it is; empty for nobody's.
    pub user: String,
    /// The key that was shown.
    pub key: String,
    /// How secret it is.
    pub label: Label,
    /// When the request was let in; milliseconds since 1970.
    pub at: Millis,
    /// From when on it is deleted; milliseconds since 1970.
    pub expires: Millis,
    /// Bytes of request and answer, before anything was cut; of the answer as far as it was told.
    pub bytes: u64,
}

/// What was said.
#[derive(Debug)]
pub struct Body {
    /// Whose.
    pub about: About,
    /// The request, at most [`BYTES_MAX`] of it.
    pub request: Secret<Vec<u8>>,
    /// The answer, likewise.
    pub answer: Secret<Vec<u8>>,
}

/// What is to be erased.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erase {
    /// Whose.
    pub organisation: Id,
    /// Only this person's.
    pub user: Option<Id>,
    /// Only of requests that were let in before.
    pub before: Option<Millis>,
}

/// Why a text cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its key was erased.
    #[error("its key was erased, so nobody can read it any more")]
    Erased,
    /// It cannot be opened.
    #[error(transparent)]
    Sealed(#[from] SecretError),
    /// There is no master key.
    #[error("there is no master key")]
    NoKey,
}

#[derive(Debug)]
enum Job {
    Keep(Box<(Body, Option<OwnedSemaphorePermit>)>),
    Erase(Erase, oneshot::Sender<Result<u64, StoreError>>),
    Flush(oneshot::Sender<()>),
}

/// What records.
#[derive(Debug)]
pub(crate) struct Bodies {
    started: OnceLock<(Arc<Keyring>, Sender<Job>)>,
    room: Arc<Semaphore>,
}

/// Room for one text.
#[derive(Debug)]
pub(crate) struct Place {
    jobs: OwnedPermit<Job>,
    room: OwnedSemaphorePermit,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { started: OnceLock::new(), room: Arc::new(Semaphore::new(ROOM / PIECE)) }
    }
}

impl Bodies {
    /// Starts the task. A second call changes nothing.
    pub(crate) fn start(&self, store: &Store, clock: &Clock, keyring: Arc<Keyring>) {
        self.started.get_or_init(|| {
            let (jobs, queue) = channel(QUEUE_MAX);
            let (store, clock, key) = (store.clone(), clock.clone(), Arc::clone(&keyring));
            let scribe = Scribe { store, clock, keyring: key, swept: Millis::MIN };
            tokio::spawn(scribe.run(queue));
            (keyring, jobs)
        });
    }

    /// The keys that texts are sealed with.
    pub(crate) fn keyring(&self) -> Option<&Arc<Keyring>> {
        self.started.get().map(|(keyring, _)| keyring)
    }

    /// Room for a text that has to be recorded.
    pub(crate) fn reserve(&self) -> Result<Place, Denied> {
        let whole = u32::try_from(2 * BYTES_MAX / PIECE).unwrap_or(u32::MAX);
        let place = self.started.get().and_then(|(_, jobs)| {
            let room = Arc::clone(&self.room).try_acquire_many_owned(whole).ok()?;
            Some(Place { jobs: jobs.clone().try_reserve_owned().ok()?, room })
        });
        place.ok_or_else(|| {
            let message = "A policy asks that this request be recorded, which cannot be done at \
                           the moment; try again.";
            Denied::new(Rule::Unavailable, message).after(5)
        })
    }

    /// Erases texts and their keys, those too that wait to be written; how many that were.
    pub(crate) async fn erase(&self, erase: Erase) -> Result<u64, BodyError> {
        let (_, jobs) = self.started.get().ok_or(BodyError::NoKey)?;
        let (done, erased) = oneshot::channel();
        let gone = || StoreError::Database(sqlx::Error::WorkerCrashed);
        jobs.send(Job::Erase(erase, done)).await.map_err(|_| gone())?;
        Ok(erased.await.map_err(|_| gone())??)
    }

    /// Waits until everything recorded so far is in the database.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if let Some((_, jobs)) = self.started.get()
            && jobs.send(Job::Flush(done)).await.is_ok()
        {
            let _ = flushed.await;
        }
    }
}

impl Place {
    /// Takes a text; what it does not need of its room is free at once.
    pub(crate) fn keep(self, mut about: About, request: &[u8], answer: &[u8]) {
        let Self { jobs, mut room } = self;
        let cut = |text: &[u8]| Secret::new(text[..text.len().min(BYTES_MAX)].to_vec());
        about.bytes = (request.len() + answer.len()) as u64;
        let body = Body { about, request: cut(request), answer: cut(answer) };
        let needed = body.request.expose().len() + body.answer.expose().len();
        drop(room.split(room.num_permits().saturating_sub(needed.div_ceil(PIECE))));
        jobs.send(Job::Keep(Box::new((body, Some(room)))));
    }
}

/// When a text is over that is recorded now.
pub(crate) fn expires(now: Millis, days: u32) -> Millis {
    now.saturating_add(Millis::from(days) * DAY_MS)
}

struct Scribe {
    store: Store,
    clock: Clock,
    keyring: Arc<Keyring>,
    /// When what was over was deleted last.
    swept: Millis,
}

impl Scribe {
    async fn run(mut self, mut queue: Receiver<Job>) {
        let mut jobs = Vec::with_capacity(ROUND_MAX);
        loop {
            match timeout(SWEEP, queue.recv_many(&mut jobs, ROUND_MAX)).await {
                Ok(0) => return,
                Ok(_) => self.round(&mut jobs).await,
                Err(_) => self.sweep().await,
            }
        }
    }

    async fn round(&mut self, jobs: &mut Vec<Job>) {
        let mut bodies = Vec::new();
        for job in jobs.drain(..) {
            match job {
                Job::Keep(body) => bodies.push(*body),
                Job::Erase(erase, done) => {
                    self.write(&mut bodies).await;
                    let _ = done.send(self.store.erase_bodies(&erase).await);
                }
                Job::Flush(done) => {
                    self.write(&mut bodies).await;
                    // Whoever looks then finds nothing that is over.
                    self.sweep().await;
                    let _ = done.send(());
                }
            }
        }
        self.write(&mut bodies).await;
        self.sweep().await;
    }

    /// Writes them, however long it takes: who comes meanwhile finds the room taken.
    async fn write(&self, bodies: &mut Vec<(Body, Option<OwnedSemaphorePermit>)>) {
        if bodies.is_empty() {
            return;
        }
        let rows: Vec<Row> = bodies.iter().map(|(body, _)| seal(&self.keyring, body)).collect();
        while let Err(error) = self.store.keep_bodies(&rows).await {
            tracing::error!(%error, texts = rows.len(), "recorded texts wait");
            sleep(PAUSE).await;
        }
        bodies.clear();
    }

    /// Deletes what is over, from time to time.
    async fn sweep(&mut self) {
        let now = self.clock.now();
        if now.saturating_sub(self.swept).unsigned_abs() < SWEEP_MS {
            return;
        }
        match self.store.sweep_bodies(now).await {
            Ok(()) => self.swept = now,
            Err(error) => tracing::warn!(%error, "texts that are over were not deleted"),
        }
    }
}

/// Where the key of a text belongs, for the keyring.
pub(crate) fn key_place(operation: &str, attempt: i64) -> String {
    format!("body-key/{operation}/{attempt}")
}

fn place(about: &About) -> String {
    format!("body/{}/{}", about.operation, about.attempt)
}

fn seal(keyring: &Keyring, body: &Body) -> Row {
    let text = Master::generate();
    let key = Master::parse(text.expose()).expect("a fresh key is one");
    let (request, answer) = (body.request.expose(), body.answer.expose());
    // Room for all of it: growing would leave copies behind.
    let mut both = Vec::with_capacity(4 + request.len() + answer.len());
    let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
    both.extend_from_slice(&length.to_be_bytes());
    both.extend_from_slice(request);
    both.extend_from_slice(answer);
    let both = Secret::new(both);
    Row {
        about: body.about.clone(),
        content: key.seal(both.expose(), &place(&body.about)),
        sealed: keyring.seal(
            text.expose().as_bytes(),
            &key_place(body.about.operation.as_str(), body.about.attempt),
        ),
    }
}

/// What was said in an operation's attempts, in order; none where nothing is kept.
///
/// # Errors
/// The database fails, a key was erased or is not at hand, or a text was altered.
pub(crate) async fn read(
    store: &Store,
    keyring: Option<&Arc<Keyring>>,
    (organisation, operation): (&Id, &Id),
) -> Result<Vec<Body>, BodyError> {
    let rows = store.body(organisation, operation).await?;
    let open = |row| open(keyring.ok_or(BodyError::NoKey)?, row);
    rows.into_iter().map(open).collect()
}

fn open(keyring: &Keyring, row: Row) -> Result<Body, BodyError> {
    let Row { about, content, sealed } = row;
    if sealed.is_empty() {
        return Err(BodyError::Erased);
    }
    let text = keyring.open(&sealed, &key_place(about.operation.as_str(), about.attempt))?;
    let text = text.into_text().ok_or(SecretError::Altered)?;
    let both = Master::parse(text.expose())?.open(&content, &place(&about))?;
    let (length, both) = both.expose().split_first_chunk().ok_or(SecretError::Altered)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let (request, answer) = both.split_at_checked(length).ok_or(SecretError::Altered)?;
    let [request, answer] = [request, answer].map(|part| Secret::new(part.to_vec()));
    Ok(Body { about, request, answer })
}
