//! What is open, on disk: one slot per operation in one file. It is what a process that was killed
//! left behind, and from what the next one settles. An answer's last byte waits for its end here;
//! the database has it a moment later.
//!
//! A slot holds the operation's entry; its tail, which lies beside those of its neighbours, holds
//! the tokens that were handed out so far, and how it ended. Both are plain writes: they reach the
//! kernel at once, so nothing is lost with the process, however it ends. A thread brings them to
//! the disk: once a second, so that a power failure costs no more than a second of what streams
//! that did not end had handed out; and at once for whatever has ended, all that wait in one go,
//! before its last byte leaves. Slots are taken in turn, so that what is written together lies
//! together: the disk is asked for one stretch and not for many.
//!
//! No slot is cleared when it is given back. One number says up to which sequence the database has
//! all entries; of what lies behind it, which may have overtaken a stream that is still open,
//! whoever opens the file asks the ledger.

mod layout;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::ledger::{Entry, Tokens};
use layout::{BLOCK, HEAD, TOGETHER};

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
    /// Given back longest ago first.
    slots: VecDeque<u32>,
    /// The sequence of what each slot of the file holds; 0: nothing.
    open: Vec<u64>,
    /// Of the operation that began last: tells what lies in a slot from what lay there before.
    last: u64,
}

impl Free {
    /// All sequences up to this one are done with.
    fn done(&self) -> u64 {
        let open = self.open.iter().filter(|sequence| **sequence > 0).min();
        open.map_or(self.last, |first| first - 1)
    }

    fn give_back(&mut self, slot: Slot) {
        self.open[slot.at as usize] = 0;
        self.slots.push_back(slot.at);
    }
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
    /// left open, what has ended, and perhaps what the ledger has. Their slots are kept until
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
        let read = |bytes: &mut [u8], at: u64| {
            let there = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX);
            let there = there.min(bytes.len());
            bytes[there..].fill(0);
            file.read_exact_at(&mut bytes[..there], at)?;
            match layout::is_older(bytes) {
                true => Err(JournalError::Older(path.display().to_string())),
                false => Ok(()),
            }
        };
        let mut head = vec![0; HEAD];
        read(&mut head, 0)?;
        let done = layout::read_done(&head).unwrap_or(0);
        let mut free = Free { last: done, ..Free::default() };
        let mut left = Vec::new();
        let mut block = vec![0; BLOCK];
        for first in (0..layout::slots_in(size)).step_by(TOGETHER) {
            read(&mut block, layout::tail_place(first))?;
            // A tail outlives a damaged slot, and must not be taken for that of what comes there.
            free.last = free.last.max(layout::newest_tail(&block));
            for (at, entry) in (first..).zip(layout::entries(&block)) {
                let entry = entry.filter(|(sequence, _)| *sequence > done);
                free.open.push(entry.as_ref().map_or(0, |(sequence, _)| *sequence));
                match entry {
                    Some((sequence, entry)) => left.push((Slot { at, sequence }, entry)),
                    None => free.slots.push_back(at),
                }
                free.last = free.last.max(free.open[at as usize]);
            }
        }
        let shared = Arc::new(Shared { file, dirty: AtomicBool::new(false) });
        let (waiting, queue) = channel();
        let theirs = Arc::clone(&shared);
        let runtime = Handle::try_current().ok();
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let thread = thread.spawn(move || theirs.sync_for(&queue, runtime.as_ref()))?;
        let journal =
            Self { shared, free: Mutex::new(free), waiting: Some(waiting), thread: Some(thread) };
        Ok((journal, left))
    }

    /// Takes a slot for an operation that begins.
    ///
    /// # Errors
    /// All slots are taken, or the file cannot be written.
    pub fn begin(&self, entry: &Entry) -> Result<Slot, JournalError> {
        let slot = {
            let mut free = self.slots();
            let at = match free.slots.pop_front() {
                Some(at) => at,
                None if free.open.len() < SLOTS_MAX as usize => {
                    free.open.push(0);
                    u32::try_from(free.open.len() - 1).unwrap_or(SLOTS_MAX)
                }
                None => return Err(JournalError::Full),
            };
            free.last += 1;
            let slot = Slot { at, sequence: free.last };
            free.open[at as usize] = slot.sequence;
            slot
        };
        let written = layout::slot(slot.sequence, entry)
            .and_then(|bytes| Ok(self.shared.write(&bytes, layout::place(slot.at))?));
        if written.is_err() {
            // Half an entry is none.
            self.slots().give_back(slot);
        }
        written.map(|()| slot)
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

    /// The database has them.
    pub fn free(&self, slots: impl IntoIterator<Item = Slot>) {
        let done = {
            let mut free = self.slots();
            slots.into_iter().for_each(|slot| free.give_back(slot));
            free.done()
        };
        // An entry that stays open here is asked about at the next start: no error can lose money.
        if let Err(error) = self.shared.write(&layout::done(done), 0) {
            tracing::error!(%error, "the journal cannot be written");
        }
    }

    /// Slots that are taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        let free = self.slots();
        u32::try_from(free.open.len() - free.slots.len()).unwrap_or(SLOTS_MAX)
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
        journal.free([c]);
        assert_eq!(journal.taken(), 2);
        drop(journal);
        let (journal, left) = Journal::open(&path).expect("opens");
        let recovered = |name| Entry { outcome: Outcome::Recovered, ..entry(name) };
        let open = Entry { tokens, ..recovered("a") };
        // The first one is still open: whether the ledger has the third is not known here.
        assert_eq!(left, [(a, open), (b, done), (c, recovered("c"))]);
        assert_eq!(journal.taken(), 3);
        // What takes the place of another has nothing of its tail.
        journal.free([a, b]);
        for _ in 3..TOGETHER {
            journal.begin(&entry("x")).expect("a slot");
        }
        let mut again = ["d", "e"].map(|name| journal.begin(&entry(name)).expect("a slot"));
        again.sort_by_key(|slot| slot.at);
        assert_eq!((again[0].at, again[1].at), (a.at, b.at));
        drop(journal);
        let (journal, left) = Journal::open(&path).expect("opens");
        assert_eq!(left.len(), TOGETHER);
        assert_eq!(left[..2], [(again[0], recovered("d")), (again[1], recovered("e"))]);
        // All up to the last of those that are done with.
        let first = left.iter().map(|(slot, _)| *slot).filter(|slot| *slot != again[1]);
        journal.free(first);
        assert_eq!(journal.taken(), 1);
        drop(journal);
        let (journal, left) = Journal::open(&path).expect("opens");
        assert_eq!(left, [(again[1], recovered("e"))]);
        journal.free([again[1]]);
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
        for slot in [a, b] {
            journal.progress(slot, Tokens { output: 9, ..Tokens::default() }).expect("written");
        }
        drop(journal);
        let file = OpenOptions::new().write(true).open(&path).expect("opens");
        file.write_all_at(b"x", layout::tail_place(a.at) + 20).expect("written");
        file.write_all_at(b"x", layout::place(b.at) + 20).expect("written");
        let (journal, left) = Journal::open(&path).expect("opens");
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].0, left[0].1.tokens.output), (a, 0));
        let again = journal.begin(&entry("c")).expect("a slot");
        assert_eq!((again.at, again.sequence > b.sequence), (b.at, true));
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
