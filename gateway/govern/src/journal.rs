//! What is open, on disk: one slot per operation in one file. It is what a process that was killed
//! left behind, and from what the next one settles. An answer's last byte waits for its entry here;
//! the database has it a moment later.
//!
//! A slot holds the operation's entry as JSON, and behind it the tokens that were handed out so
//! far. Both are plain writes: they reach the kernel at once, so nothing is lost with the process,
//! however it ends. A thread brings them to the disk: once a second, so that a power failure costs
//! no more than a second of what streams that did not end had handed out; and at once for whatever
//! has ended, all that wait in one go, before its last byte leaves.
//!
//! ```text
//! slot    2048 bytes
//!   0     u32 CRC-32 of bytes 4..8+length, u32 length, entry as JSON
//!   2000  u32 CRC-32 of bytes 2004..2040, u32 state, u64 operation, u64 output, u64 thoughts,
//!         u64 cached
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::ledger::{Entry, Outcome, Tokens};

const SLOT: usize = 2048;
const TAIL: usize = 2000;
const TAIL_BYTES: usize = 40;

/// Operations that are open or not in the database yet. A database that is gone for long fills
/// them; then nothing more is let in.
pub const SLOTS_MAX: u32 = 1 << 16;

/// How often the file is brought to the disk.
const SYNC: Duration = Duration::from_secs(1);

/// Where operations of several callers end closer together than this, the disk is asked for several
/// of them at a time: one waits until so many are about to have ended, but not for long.
const CLOSE: Duration = Duration::from_micros(400);
const CROWD: u32 = 12;
const GATHER_MAX: Duration = Duration::from_micros(800);
/// How often one looks whether they are there: each look costs a waking.
const GLANCE: Duration = Duration::from_micros(200);
/// Ends that waited together by themselves, on average, from which on there are several callers.
const SEVERAL: f32 = 1.25;

/// The file.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    free: Mutex<Free>,
    /// Who waits for the disk. Dropping it ends the thread.
    waiting: Option<Sender<oneshot::Sender<()>>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    dirty: AtomicBool,
}

#[derive(Debug, Default)]
struct Free {
    slots: Vec<u32>,
    /// Slots that the file has room for.
    end: u32,
}

/// A place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot(u32);

/// Why a slot cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Too much is open, or waits for the database.
    #[error("{SLOTS_MAX} operations are open or wait for the database")]
    Full,
    /// The entry does not fit.
    #[error("an operation's names are too long for the journal")]
    TooLong,
    /// The file cannot be written.
    #[error("the journal: {0}")]
    Io(#[from] io::Error),
    /// Another process has it.
    #[error("another process uses the journal {0}")]
    Taken(String),
}

impl Journal {
    /// Opens the file, which no other process may have open, and returns what was left in it, as
    /// entries that are to be settled. Their slots are kept until [`Journal::free`].
    ///
    /// # Errors
    /// The file cannot be opened, or another process has it.
    pub fn open(path: &Path) -> Result<(Self, Vec<(Slot, Entry)>), JournalError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        if file.try_lock().is_err() {
            return Err(JournalError::Taken(path.display().to_string()));
        }
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let end = u32::try_from(size / SLOT).unwrap_or(SLOTS_MAX).min(SLOTS_MAX);
        let mut free = Free { slots: Vec::new(), end };
        let mut left = Vec::new();
        let mut bytes = vec![0; SLOT];
        for at in (0..end).rev() {
            file.read_exact_at(&mut bytes, offset(Slot(at)))?;
            match read(&bytes) {
                Some(entry) => left.push((Slot(at), entry)),
                None => free.slots.push(at),
            }
        }
        let shared = Arc::new(Shared { file, dirty: AtomicBool::new(false) });
        let (waiting, queue) = channel();
        let theirs = Arc::clone(&shared);
        let runtime = Handle::try_current().ok();
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let thread = thread.spawn(move || theirs.sync_for(&queue, runtime.as_ref()))?;
        let free = Mutex::new(free);
        Ok((Self { shared, free, waiting: Some(waiting), thread: Some(thread) }, left))
    }

    /// Takes a slot for an operation that begins.
    ///
    /// # Errors
    /// All slots are taken, or the file cannot be written.
    pub fn begin(&self, entry: &Entry) -> Result<Slot, JournalError> {
        let slot = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            match free.slots.pop() {
                Some(slot) => Slot(slot),
                None if free.end < SLOTS_MAX => {
                    free.end += 1;
                    Slot(free.end - 1)
                }
                None => return Err(JournalError::Full),
            }
        };
        let written = self.write(slot, entry, &entry.json(), false);
        if written.is_err() {
            // Half an entry may be there, and is nobody's.
            self.free(slot);
        }
        written.map(|()| slot)
    }

    /// Notes what was handed out, before it is.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn progress(&self, slot: Slot, operation: &str, tokens: Tokens) -> io::Result<()> {
        let tail = tail(operation, false, tokens);
        self.shared.write(&tail, offset(slot) + TAIL as u64)
    }

    /// Notes the end: the entry, and as `json`, is complete, and the database does not have it yet.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn settled(&self, slot: Slot, entry: &Entry, json: &str) -> Result<(), JournalError> {
        self.write(slot, entry, json, true)
    }

    /// Tells when all that was written so far is on the disk.
    pub fn tell(&self, done: oneshot::Sender<()>) {
        if let Some(waiting) = &self.waiting {
            // The thread lives as long as this does.
            let _ = waiting.send(done);
        }
    }

    /// The database has it.
    pub fn free(&self, slot: Slot) {
        // A slot that still holds an entry is settled again after a restart, which the ledger
        // notices: no error can lose money here.
        if let Err(error) = self.shared.write(&[0; 8], offset(slot)) {
            tracing::error!(%error, "the journal cannot be written");
        }
        self.give_back(slot);
    }

    /// Slots that are taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.end - u32::try_from(free.slots.len()).unwrap_or(free.end)
    }

    fn give_back(&self, slot: Slot) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).slots.push(slot.0);
    }

    fn write(
        &self,
        slot: Slot,
        entry: &Entry,
        json: &str,
        settled: bool,
    ) -> Result<(), JournalError> {
        if json.len() > TAIL - 8 {
            return Err(JournalError::TooLong);
        }
        let mut bytes = [0; SLOT];
        let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8..8 + json.len()].copy_from_slice(json.as_bytes());
        let sum = crc(&bytes[4..8 + json.len()]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        let tail = tail(entry.operation.as_str(), settled, entry.tokens);
        bytes[TAIL..TAIL + TAIL_BYTES].copy_from_slice(&tail);
        Ok(self.shared.write(&bytes, offset(slot))?)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        drop(self.waiting.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.shared.sync();
    }
}

impl Shared {
    /// Brings the file to the disk for whoever waits, and once a second. `runtime`: of those who
    /// wait.
    fn sync_for(&self, queue: &Receiver<oneshot::Sender<()>>, runtime: Option<&Handle>) {
        let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
        // Of the last ends: from one to the next, and how many waited together.
        let (mut every, mut together, mut before) = (SYNC, 1.0, Instant::now());
        loop {
            match queue.recv_timeout(SYNC) {
                Ok(first) => {
                    waiting.push(first);
                    if every < CLOSE && together > SEVERAL {
                        gather(queue, &mut waiting, (every * CROWD).min(GATHER_MAX));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            waiting.extend(queue.try_iter());
            let now = Instant::now();
            let ends = u32::try_from(waiting.len()).unwrap_or(u32::MAX).max(1);
            every = (3 * every + (now - before) / ends) / 4;
            together = (3.0 * together + ends as f32) / 4.0;
            before = now;
            if self.sync() {
                tell(std::mem::take(&mut waiting), runtime);
            }
        }
    }

    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)?;
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// `true`: all that was written before is on the disk.
    fn sync(&self) -> bool {
        if self.dirty.swap(false, Ordering::AcqRel)
            && let Err(error) = self.file.sync_data()
        {
            tracing::error!(%error, "the journal cannot be brought to the disk");
            self.dirty.store(true, Ordering::Release);
            return false;
        }
        true
    }
}

/// Waits until a crowd is there, or for so long.
fn gather(
    queue: &Receiver<oneshot::Sender<()>>,
    waiting: &mut Vec<oneshot::Sender<()>>,
    mut left: Duration,
) {
    while !left.is_zero() && waiting.len() < CROWD as usize {
        let glance = left.min(GLANCE);
        std::thread::sleep(glance);
        left -= glance;
        waiting.extend(queue.try_iter());
    }
}

/// Tells all who wait: several of them from within their runtime, which wakes a thread of it once
/// and not for each of them.
fn tell(waiting: Vec<oneshot::Sender<()>>, runtime: Option<&Handle>) {
    // Whoever waited may have left.
    let several = waiting.len() > 1;
    let all = move || {
        for done in waiting {
            let _ = done.send(());
        }
    };
    match runtime.filter(|_| several) {
        Some(runtime) => drop(runtime.spawn(async move { all() })),
        None => all(),
    }
}

fn offset(slot: Slot) -> u64 {
    u64::from(slot.0) * SLOT as u64
}

fn tail(operation: &str, settled: bool, tokens: Tokens) -> [u8; TAIL_BYTES] {
    let mut bytes = [0; TAIL_BYTES];
    bytes[4..8].copy_from_slice(&u32::from(settled).to_le_bytes());
    let numbers = [u64::from(crc(operation.as_bytes())), tokens.output, tokens.reasoning];
    for (at, number) in numbers.into_iter().chain([tokens.cache_read]).enumerate() {
        bytes[8 + at * 8..16 + at * 8].copy_from_slice(&number.to_le_bytes());
    }
    let sum = crc(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The entry of a slot that is taken, with what had been handed out.
fn read(bytes: &[u8]) -> Option<Entry> {
    let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let wide = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let length = usize::try_from(number(4)?).ok()?;
    if length == 0 || length > TAIL - 8 || number(0)? != crc(&bytes[4..8 + length]) {
        return None;
    }
    let mut entry: Entry = serde_json::from_slice(&bytes[8..8 + length]).ok()?;
    let whole = number(TAIL)? == crc(&bytes[TAIL + 4..TAIL + TAIL_BYTES])
        && wide(TAIL + 8)? == u64::from(crc(entry.operation.as_str().as_bytes()));
    let settled = whole && number(TAIL + 4)? == 1;
    if !settled {
        entry.outcome = Outcome::Recovered;
        if whole {
            entry.tokens.output = wide(TAIL + 16)?;
            entry.tokens.reasoning = wide(TAIL + 24)?;
            entry.tokens.cache_read = wide(TAIL + 32)?;
        }
    }
    Some(entry)
}

/// CRC-32 as in zip files.
fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Id;

    fn entry(name: &str) -> Entry {
        Entry {
            operation: Id::of(name).expect("an id"),
            attempt: 1,
            tokens: Tokens { input: 7, ..Tokens::default() },
            ..Entry::default()
        }
    }

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("hearth-journal-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        folder.join(name)
    }

    #[test]
    fn what_is_open_comes_back_with_what_was_handed_out() {
        let path = folder("open");
        let (journal, left) = Journal::open(&path).expect("opens");
        assert!(left.is_empty());
        assert!(matches!(Journal::open(&path), Err(JournalError::Taken(_))), "one process");
        let [a, b, c] = ["a", "b", "c"].map(|name| journal.begin(&entry(name)).expect("a slot"));
        let tokens = Tokens { input: 7, output: 5, reasoning: 2, cache_read: 3, cache_write: 0 };
        journal.progress(a, "a", tokens).expect("written");
        let done = Entry { tokens, outcome: Outcome::Cancelled, ..entry("b") };
        let json = serde_json::to_string(&done).expect("JSON");
        journal.settled(b, &done, &json).expect("written");
        journal.free(c);
        assert_eq!(journal.taken(), 2);
        drop(journal);
        let (journal, mut left) = Journal::open(&path).expect("opens");
        left.sort_by_key(|(slot, _)| slot.0);
        let recovered = Entry { tokens, outcome: Outcome::Recovered, ..entry("a") };
        assert_eq!(left, [(a, recovered), (b, done)]);
        left.iter().for_each(|(slot, _)| journal.free(*slot));
        assert_eq!(journal.taken(), 0);
        drop(journal);
        assert!(Journal::open(&path).expect("opens").1.is_empty());
        std::fs::remove_file(path).expect("removed");
    }

    #[test]
    fn damaged_slots_are_free_and_torn_tails_count_nothing() {
        let path = folder("damaged");
        let (journal, _) = Journal::open(&path).expect("opens");
        let [a, b] = ["a", "b"].map(|name| journal.begin(&entry(name)).expect("a slot"));
        journal.progress(a, "a", Tokens { output: 9, ..Tokens::default() }).expect("written");
        drop(journal);
        let file = OpenOptions::new().write(true).open(&path).expect("opens");
        file.write_all_at(b"x", offset(a) + TAIL as u64 + 20).expect("written");
        file.write_all_at(b"x", offset(b) + 12).expect("written");
        let (_journal, left) = Journal::open(&path).expect("opens");
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].0, left[0].1.tokens.output), (a, 0));
        std::fs::remove_file(path).expect("removed");
    }
}
