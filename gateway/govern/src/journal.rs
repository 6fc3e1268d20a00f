//! What is open, on disk: one slot per operation in one file. It is what a process that was killed
//! left behind, and from what the next one settles. An answer's last byte waits for its end here;
//! the database has it a moment later.
//!
//! A slot holds the operation's entry as JSON; its tail, which lies beside those of its
//! neighbours, holds the tokens that were handed out so far, and how it ended. Both are plain
//! writes: they reach the kernel at once, so nothing is lost with the process, however it ends. A
//! thread brings them to the disk: once a second, so that a power failure costs no more than a
//! second of what streams that did not end had handed out; and at once for whatever has ended, all
//! that wait in one go, before its last byte leaves. Slots are taken in turn, so that what is
//! written together lies together: the disk is asked for one stretch and not for many.
//!
//! Nothing is written when a slot is given back. Entries that the database has lie here until
//! their slot is taken again, or the file is closed: whoever opens it asks the ledger.

mod layout;

use std::collections::{HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::ledger::{Entry, Tokens};
use layout::{BLOCK, TOGETHER};

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
    /// Of the operation that begins next: tells what lies in a slot from what lay there before.
    sequence: AtomicU64,
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
    /// Given back longest ago first.
    slots: VecDeque<u32>,
    /// Slots that the file has room for.
    end: u32,
}

/// A place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    at: u32,
    sequence: u64,
}

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
    /// What was left in it cannot be read any more.
    #[error(
        "the journal {0} was left with open operations by an earlier version, which alone can \
         settle them: start that version once more, and stop it"
    )]
    Older(String),
}

impl Journal {
    /// Opens the file, which no other process may have open, and returns what lies in it: what was
    /// left open, what has ended, and what the ledger has long since. Their slots are kept until
    /// [`Journal::free`].
    ///
    /// # Errors
    /// The file cannot be opened or read, or another process has it.
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
        let size = file.metadata()?.len();
        let end = layout::slots_in(size);
        let mut left = Vec::new();
        let mut bytes = vec![0; BLOCK];
        for block in 0..layout::blocks(end) {
            let at = u64::from(block) * BLOCK as u64;
            let there = usize::try_from(size - at).unwrap_or(BLOCK).min(BLOCK);
            file.read_exact_at(&mut bytes[..there], at)?;
            bytes[there..].fill(0);
            if layout::is_older(&bytes) {
                return Err(JournalError::Older(path.display().to_string()));
            }
            left.extend(layout::entries(&bytes, block * TOGETHER));
        }
        let taken: HashSet<u32> = left.iter().map(|(slot, _)| slot.at).collect();
        let slots = (0..end).filter(|at| !taken.contains(at)).collect();
        let last = left.iter().map(|(slot, _)| slot.sequence).max().unwrap_or(0);
        let shared = Arc::new(Shared { file, dirty: AtomicBool::new(false) });
        let (waiting, queue) = channel();
        let theirs = Arc::clone(&shared);
        let runtime = Handle::try_current().ok();
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let thread = thread.spawn(move || theirs.sync_for(&queue, runtime.as_ref()))?;
        let journal = Self {
            shared,
            free: Mutex::new(Free { slots, end }),
            sequence: AtomicU64::new(last.wrapping_add(1)),
            waiting: Some(waiting),
            thread: Some(thread),
        };
        Ok((journal, left))
    }

    /// Takes a slot for an operation that begins.
    ///
    /// # Errors
    /// All slots are taken, or the file cannot be written.
    pub fn begin(&self, entry: &Entry) -> Result<Slot, JournalError> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let bytes = layout::slot(sequence, &entry.json())?;
        let at = {
            let mut free = self.slots();
            match free.slots.pop_front() {
                Some(at) => at,
                None if free.end < SLOTS_MAX => {
                    free.end += 1;
                    free.end - 1
                }
                None => return Err(JournalError::Full),
            }
        };
        let slot = Slot { at, sequence };
        if let Err(error) = self.shared.write(&bytes, layout::place(at)) {
            // Half an entry is none.
            self.free(slot);
            return Err(error.into());
        }
        Ok(slot)
    }

    /// Notes what was handed out, before it is.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn progress(&self, slot: Slot, tokens: Tokens) -> io::Result<()> {
        self.shared.write(&layout::note(slot.sequence, tokens), layout::tail_place(slot.at))
    }

    /// Notes the end: the entry is complete, and the database does not have it yet.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn settled(&self, slot: Slot, entry: &Entry) -> io::Result<()> {
        self.shared.write(&layout::end(slot.sequence, entry), layout::tail_place(slot.at))
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
        self.slots().slots.push_back(slot.at);
    }

    /// Slots that are taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        let free = self.slots();
        free.end - u32::try_from(free.slots.len()).unwrap_or(free.end)
    }

    fn slots(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        drop(self.waiting.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // What the database has needs nobody to ask about it.
        if self.taken() == 0
            && let Err(error) = self.shared.file.set_len(0)
        {
            tracing::warn!(%error, "the journal cannot be emptied");
        }
        self.shared.dirty.store(true, Ordering::Release);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Outcome, ServiceTier};
    use crate::{Id, Money};

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
        journal.progress(a, tokens).expect("written");
        let done = Entry {
            tokens: Tokens { input: 8, cache_write: 1, ..tokens },
            outcome: Outcome::BudgetStop,
            cost: Money(-3),
            settled_at: 11,
            duration_ms: 12,
            first_token_ms: 13,
            device_us: 14,
            service_tier: ServiceTier::Flex,
            ..entry("b")
        };
        journal.settled(b, &done).expect("written");
        journal.free(c);
        assert_eq!(journal.taken(), 2);
        drop(journal);
        let (journal, left) = Journal::open(&path).expect("opens");
        let recovered = |name| Entry { outcome: Outcome::Recovered, ..entry(name) };
        let open = Entry { tokens, ..recovered("a") };
        // Whether the ledger has the third one is not known here.
        assert_eq!(left, [(a, open), (b, done), (c, recovered("c"))]);
        assert_eq!(journal.taken(), 3);
        // One that takes the place of another is none of the other's tail.
        journal.free(b);
        for _ in 3..TOGETHER {
            journal.begin(&entry("x")).expect("a slot");
        }
        let again = journal.begin(&entry("d")).expect("a slot");
        assert_eq!((again.at, again.sequence > c.sequence), (b.at, true));
        drop(journal);
        let (journal, left) = Journal::open(&path).expect("opens");
        assert_eq!(left.len(), TOGETHER as usize);
        assert_eq!(left[1], (again, recovered("d")));
        left.iter().for_each(|(slot, _)| journal.free(*slot));
        assert_eq!(journal.taken(), 0);
        drop(journal);
        assert_eq!(std::fs::metadata(&path).expect("the file").len(), 0);
        assert!(Journal::open(&path).expect("opens").1.is_empty());
        std::fs::remove_file(path).expect("removed");
    }

    #[test]
    fn damaged_slots_are_free_and_torn_tails_count_nothing() {
        let path = folder("damaged");
        let (journal, _) = Journal::open(&path).expect("opens");
        let [a, b] = ["a", "b"].map(|name| journal.begin(&entry(name)).expect("a slot"));
        journal.progress(a, Tokens { output: 9, ..Tokens::default() }).expect("written");
        drop(journal);
        let file = OpenOptions::new().write(true).open(&path).expect("opens");
        file.write_all_at(b"x", layout::tail_place(a.at) + 20).expect("written");
        file.write_all_at(b"x", layout::place(b.at) + 20).expect("written");
        let (_journal, left) = Journal::open(&path).expect("opens");
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].0, left[0].1.tokens.output), (a, 0));
        std::fs::remove_file(path).expect("removed");
    }
    #[test]
    fn what_an_earlier_version_left_open_is_not_lost() {
        let path = folder("older");
        let json = entry("a").json();
        let mut bytes = [0; 2048 * 3];
        let slot = &mut bytes[2048..];
        slot[4..8].copy_from_slice(&u32::try_from(json.len()).expect("short").to_le_bytes());
        slot[8..8 + json.len()].copy_from_slice(json.as_bytes());
        let sum = crc32fast::hash(&slot[4..8 + json.len()]);
        slot[..4].copy_from_slice(&sum.to_le_bytes());
        std::fs::write(&path, bytes).expect("written");
        assert!(matches!(Journal::open(&path), Err(JournalError::Older(_))));
        // As that version leaves it when the ledger has it.
        bytes[2048..2056].fill(0);
        std::fs::write(&path, bytes).expect("written");
        assert!(Journal::open(&path).expect("opens").1.is_empty());
        std::fs::remove_file(path).expect("removed");
    }
}
