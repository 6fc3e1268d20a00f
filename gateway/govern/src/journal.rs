//! What is open, on disk: one slot per operation in one file, and what has ended in another. It is
//! what a process that was killed left behind, and from what the next one settles. An answer's last
//! byte waits for its end here; the database has it a moment later.
//!
//! A slot holds the operation's entry; its tail, which lies beside those of its neighbours, holds
//! the tokens that were handed out so far, and how it ended. Both are plain writes: they reach the
//! kernel at once, so nothing is lost with the process, however it ends. Once a second a thread
//! brings them to the disk, so that a power failure costs no more than a second of what streams
//! that did not end had handed out.
//!
//! What has ended is on the disk before its last byte leaves, in the other file ([`ends`]): whole
//! entries one behind the other, so that one page and one wait serve several of them.
//!
//! No slot is cleared when it is given back. One number says up to which sequence the database has
//! all entries; of what lies behind it, which may have overtaken a stream that is still open,
//! whoever opens the file asks the ledger.

mod ends;
mod layout;

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus::Histogram;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::ledger::{Entry, Tokens};
use ends::{Blocks, Ended, Ends};
use layout::{BLOCK, HEAD, TAIL_USED, TOGETHER};

/// Operations that are open or not in the database yet. A database that is gone for long fills
/// them; then nothing more is let in.
pub const SLOTS_MAX: u32 = 1 << 16;

/// How often the slots are brought to the disk, and what could not be brought there is tried again.
const SYNC: Duration = Duration::from_secs(1);

/// The files.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    /// What has ended and waits for the disk. Dropping both ends the threads.
    ended: Option<Sender<Ended>>,
    open: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Of the slots.
    file: File,
    dirty: AtomicBool,
    free: Mutex<Free>,
    ends: Mutex<Ends>,
    /// Whoever waits may ask the disk: others serve the rest meanwhile.
    several: bool,
}

#[derive(Debug, Default)]
struct Free {
    /// Given back longest ago first.
    slots: VecDeque<u32>,
    /// What each slot of the file holds.
    open: Vec<Open>,
    /// Of the operation that began last: tells what lies in a slot from what lay there before.
    last: u64,
    blocks: Blocks,
}

/// What lies in a slot.
#[derive(Debug, Default, Clone, Copy)]
struct Open {
    /// 0: nothing.
    sequence: u64,
    /// Where its end lies.
    block: Option<u32>,
}

impl Free {
    /// All sequences up to this one are done with.
    fn done(&self) -> u64 {
        let open = self.open.iter().map(|open| open.sequence).filter(|sequence| *sequence > 0);
        open.min().map_or(self.last, |first| first - 1)
    }

    /// A slot that holds nothing.
    fn take(&mut self) -> u32 {
        self.slots.pop_front().unwrap_or_else(|| {
            self.open.push(Open::default());
            u32::try_from(self.open.len() - 1).unwrap_or(u32::MAX)
        })
    }

    fn give_back(&mut self, slot: Slot) {
        let open = std::mem::take(&mut self.open[slot.at as usize]);
        if let Some(block) = open.block {
            self.blocks.let_go(block);
        }
        self.slots.push_back(slot.at);
    }

    fn taken(&self) -> u32 {
        u32::try_from(self.open.len() - self.slots.len()).unwrap_or(SLOTS_MAX)
    }
}

/// A place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    at: u32,
    sequence: u64,
}

/// An entry that is complete, for [`Journal::keep`].
#[derive(Debug)]
pub struct Record {
    slot: Slot,
    bytes: Vec<u8>,
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
    /// Opens the files, which no other process may have open, and returns what lies in them: what
    /// was left open, what has ended, and perhaps what the ledger has. Their slots are kept until
    /// [`Journal::free`].
    ///
    /// # Errors
    /// A file cannot be opened or read, or another process has it.
    pub fn open(path: &Path) -> Result<(Self, Vec<(Slot, Entry)>), JournalError> {
        let file = open_file(path)?;
        if file.try_lock().is_err() {
            return Err(JournalError::Taken(path.display().to_string()));
        }
        let mut left = Vec::new();
        let (mut free, done) = read_slots(&file, path, &mut left)?;
        let ends = Ends::open(path)?;
        read_ends(&ends, &mut free, done, &mut left)?;
        let runtime = Handle::try_current().ok();
        let shared = Arc::new(Shared {
            file,
            dirty: AtomicBool::default(),
            free: free.into(),
            ends: ends.into(),
            several: runtime.as_ref().is_some_and(|runtime| runtime.metrics().num_workers() > 1),
        });
        let (theirs, (ended, queue)) = (Arc::clone(&shared), channel());
        let ends = spawn("journal-ends", move || {
            ends::keep_all(&theirs.ends, &theirs.free, &queue, runtime.as_ref());
        })?;
        let (theirs, (open, closed)) = (Arc::clone(&shared), channel());
        let slots = spawn("journal-slots", move || theirs.sync_until(&closed))?;
        let threads = vec![ends, slots];
        Ok((Self { shared, ended: Some(ended), open: Some(open), threads }, left))
    }

    /// Takes a slot for an operation that begins.
    ///
    /// # Errors
    /// All slots are taken, or the file cannot be written.
    pub fn begin(&self, entry: &Entry) -> Result<Slot, JournalError> {
        let slot = {
            let mut free = self.shared.slots();
            if free.slots.is_empty() && free.open.len() >= SLOTS_MAX as usize {
                return Err(JournalError::Full);
            }
            free.last += 1;
            let slot = Slot { at: free.take(), sequence: free.last };
            free.open[slot.at as usize].sequence = slot.sequence;
            slot
        };
        let written = layout::slot(slot.sequence, entry)
            .and_then(|bytes| Ok(self.shared.write(&bytes, layout::place(slot.at))?));
        if written.is_err() {
            // Half an entry is none.
            self.shared.slots().give_back(slot);
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
    pub fn settled(&self, slot: Slot, entry: &Entry) -> Result<Record, JournalError> {
        let bytes = layout::record(slot.sequence, entry)?;
        let tail = &bytes[bytes.len() - TAIL_USED..];
        self.shared.write(tail, layout::tail_place(slot.at))?;
        Ok(Record { slot, bytes })
    }

    /// Waits until an entry that is complete is on the disk, for this long at most.
    pub async fn keep(&self, record: Record, patience: Duration) {
        if self.shared.keep_here(&record) {
            return;
        }
        let (done, kept) = oneshot::channel();
        if let Some(ended) = &self.ended {
            // The thread lives as long as this does.
            let _ = ended.send(Ended { record, done });
        }
        let _ = timeout(patience, kept).await;
    }

    /// The database has them.
    pub fn free(&self, slots: impl IntoIterator<Item = Slot>) {
        let done = {
            let mut free = self.shared.slots();
            slots.into_iter().for_each(|slot| free.give_back(slot));
            free.done()
        };
        // An entry that stays open here is asked about at the next start: no error can lose money.
        if let Err(error) = self.shared.write(&layout::done(done), 0) {
            tracing::error!(%error, "the journal cannot be written");
        }
    }

    /// How long the disk takes.
    pub(crate) fn flushes(&self) -> Histogram {
        self.shared.ends.lock().unwrap_or_else(PoisonError::into_inner).flushes()
    }

    /// Slots that are taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.shared.slots().taken()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        drop((self.ended.take(), self.open.take()));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        // What the database has needs nobody to ask about it.
        let Shared { file, ends, dirty, .. } = &*self.shared;
        let ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
        if self.taken() == 0
            && let Err(error) = file.set_len(0).and_then(|()| ends.clear())
        {
            tracing::warn!(%error, "the journal cannot be emptied");
        }
        dirty.store(true, Ordering::Release);
        self.shared.sync();
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)?;
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// Brings an entry to the disk, if that goes quickly. One at a time: a disk that hangs holds up
    /// no more than one thread of those that serve.
    fn keep_here(&self, record: &Record) -> bool {
        self.several
            && self.ends.try_lock().is_ok_and(|mut ends| {
                ends.is_calm() && ends.keep(&self.free, [record].into_iter()).is_ok()
            })
    }

    /// Brings the slots to the disk once a second, for as long as the sender lives.
    fn sync_until(&self, closed: &Receiver<()>) {
        while closed.recv_timeout(SYNC) == Err(RecvTimeoutError::Timeout) {
            self.sync();
        }
    }

    fn sync(&self) {
        if self.dirty.swap(false, Ordering::AcqRel)
            && let Err(error) = self.file.sync_data()
        {
            tracing::error!(%error, "the journal cannot be brought to the disk");
            self.dirty.store(true, Ordering::Release);
        }
    }
}

/// A file that nobody else may read.
fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Reads what lies at a place of a file of so many bytes; zeros where that is behind its end.
fn read_padded(file: &File, size: u64, bytes: &mut [u8], at: u64) -> io::Result<()> {
    let there = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX);
    let there = there.min(bytes.len());
    bytes[there..].fill(0);
    file.read_exact_at(&mut bytes[..there], at)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// What lies in the slots, and up to which sequence the database has all.
fn read_slots(
    file: &File,
    path: &Path,
    left: &mut Vec<(Slot, Entry)>,
) -> Result<(Free, u64), JournalError> {
    let size = file.metadata()?.len();
    let read = |bytes: &mut [u8], at: u64| {
        read_padded(file, size, bytes, at)?;
        match layout::is_older(bytes) {
            true => Err(JournalError::Older(path.display().to_string())),
            false => Ok(()),
        }
    };
    let mut head = vec![0; HEAD];
    read(&mut head, 0)?;
    let done = layout::read_done(&head).unwrap_or(0);
    let mut free = Free { last: done, ..Free::default() };
    let mut block = vec![0; BLOCK];
    for first in (0..layout::slots_in(size)).step_by(TOGETHER) {
        read(&mut block, layout::tail_place(first))?;
        // A tail outlives a damaged slot, and must not be taken for that of what comes there.
        free.last = free.last.max(layout::newest_tail(&block));
        for (at, entry) in (first..).zip(layout::entries(&block)) {
            let entry = entry.filter(|(sequence, _)| *sequence > done);
            let sequence = entry.as_ref().map_or(0, |(sequence, _)| *sequence);
            free.open.push(Open { sequence, block: None });
            match entry {
                Some((sequence, entry)) => left.push((Slot { at, sequence }, entry)),
                None => free.slots.push_back(at),
            }
            free.last = free.last.max(sequence);
        }
    }
    Ok((free, done))
}

/// What has ended: a power failure may have left its slots behind.
fn read_ends(
    ends: &Ends,
    free: &mut Free,
    done: u64,
    left: &mut Vec<(Slot, Entry)>,
) -> Result<(), JournalError> {
    let places = left.iter().enumerate().map(|(place, (slot, _))| (slot.sequence, place));
    let mut places: HashMap<u64, usize> = places.collect();
    for entries in ends.read()? {
        let block = free.blocks.add();
        for (sequence, entry) in entries.into_iter().filter(|(sequence, _)| *sequence > done) {
            free.last = free.last.max(sequence);
            let place = *places.entry(sequence).or_insert_with(|| {
                let slot = Slot { at: free.take(), sequence };
                left.push((slot, Entry::default()));
                left.len() - 1
            });
            let (slot, known) = &mut left[place];
            *known = entry;
            let before = free.open[slot.at as usize].block.replace(block);
            free.open[slot.at as usize].sequence = sequence;
            free.blocks.hold(block);
            if let Some(before) = before {
                free.blocks.let_go(before);
            }
        }
        free.blocks.let_go(block);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
