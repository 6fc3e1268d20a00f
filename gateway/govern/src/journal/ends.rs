//! What has ended, whole entries one behind the other, in blocks: on the disk before anybody hears
//! of it. A block is used again when the database has all that lies in it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::Histogram;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{Free, Record, SYNC, layout};
use crate::figures;
use crate::ledger::Entry;

/// Bytes of a block: a page, which holds the ends of about seven requests.
const BLOCK: usize = 4096;

/// So many blocks are added at a time: each time the file grows, the file system has more to write
/// beside it.
const GROW: u32 = 64;

/// Where operations of several callers end closer together than this, the disk is asked for several
/// of them at a time: one waits until so many are about to have ended, but not for long.
const CLOSE: Duration = Duration::from_micros(400);
const CROWD: u32 = 24;
const GATHER_MAX: Duration = Duration::from_micros(1200);
/// How often one looks whether they are there: each look costs a waking.
const GLANCE: Duration = Duration::from_micros(200);
/// Ends that waited together by themselves, on average, from which on there are several callers.
const SEVERAL: f32 = 1.25;
/// A disk that takes no longer is asked by whoever waits for it: to have a thread woken for it, and
/// to be woken by that, may take as long.
const QUICK: Duration = Duration::from_micros(300);

/// An entry that is complete, and who waits for the disk to have it.
pub(super) struct Ended {
    pub(super) record: Record,
    pub(super) done: oneshot::Sender<()>,
}

/// Which blocks of the file are in use.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Of each block: entries that the database lacks, and one while it is being filled.
    holds: Vec<u32>,
    /// Given back longest ago first.
    spare: VecDeque<u32>,
}

impl Blocks {
    /// A block to be filled.
    fn take(&mut self) -> u32 {
        match self.spare.pop_front() {
            Some(at) => {
                self.hold(at);
                at
            }
            None => self.add(),
        }
    }

    /// Another block, to be filled.
    pub(super) fn add(&mut self) -> u32 {
        self.holds.push(1);
        u32::try_from(self.holds.len() - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn hold(&mut self, at: u32) {
        self.holds[at as usize] += 1;
    }

    pub(super) fn let_go(&mut self, at: u32) {
        let holds = &mut self.holds[at as usize];
        *holds -= 1;
        if *holds == 0 {
            self.spare.push_back(at);
        }
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct Ends {
    file: File,
    /// Blocks that it has room for.
    room: u32,
    /// What is to be written, in this order. The last one is being filled; the disk may have it.
    blocks: Vec<Block>,
    pace: Pace,
    /// How long each flush took.
    flushes: Histogram,
}

/// Of the last ends, on average.
#[derive(Debug)]
struct Pace {
    /// From one to the next.
    every: Duration,
    /// How many waited together.
    together: f32,
    /// How long the disk took.
    took: Duration,
    before: Instant,
}

#[derive(Debug)]
struct Block {
    at: u32,
    used: usize,
    bytes: Vec<u8>,
}

impl Pace {
    fn learn(&mut self, began: Instant, ends: usize) {
        let ends = u32::try_from(ends).unwrap_or(u32::MAX).max(1);
        self.every = (3 * self.every + (began - self.before) / ends) / 4;
        self.together = (3.0 * self.together + ends as f32) / 4.0;
        self.took = (3 * self.took + began.elapsed()) / 4;
        self.before = began;
    }
}

impl Ends {
    /// The file beside that of the slots.
    pub(super) fn open(slots: &Path) -> io::Result<Self> {
        let mut path = slots.as_os_str().to_owned();
        path.push(".ends");
        let file = super::open_file(Path::new(&path))?;
        let room = file.metadata()?.len().div_ceil(BLOCK as u64);
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let pace =
            Pace { every: SYNC, together: 1.0, took: Duration::ZERO, before: Instant::now() };
        Ok(Self { file, room, blocks: Vec::new(), pace, flushes: figures::flushes() })
    }

    /// What lies in each block.
    pub(super) fn read(&self) -> io::Result<Vec<Vec<(u64, Entry)>>> {
        let size = self.file.metadata()?.len();
        let mut bytes = vec![0; BLOCK];
        let blocks = (0..self.room).map(|at| {
            super::read_padded(&self.file, size, &mut bytes, place(at))?;
            Ok(layout::records(&bytes).collect())
        });
        blocks.collect()
    }

    /// How long the disk takes.
    pub(super) fn flushes(&self) -> Histogram {
        self.flushes.clone()
    }

    /// Whether whoever waits may ask the disk: it is quick, and they come one by one.
    pub(super) fn is_calm(&self) -> bool {
        self.pace.every > CLOSE && self.pace.took < QUICK
    }

    /// Brings entries to the disk. What fails is tried again with the next ones.
    pub(super) fn keep<'r>(
        &mut self,
        free: &Mutex<Free>,
        records: impl ExactSizeIterator<Item = &'r Record>,
    ) -> io::Result<()> {
        let (began, ends) = (Instant::now(), records.len());
        self.put(free, records);
        let written = self.write();
        self.flushes.observe(began.elapsed().as_secs_f64());
        self.pace.learn(began, ends);
        written
    }

    /// Gives each entry its place.
    fn put<'r>(&mut self, free: &Mutex<Free>, records: impl Iterator<Item = &'r Record>) {
        let mut free = free.lock().unwrap_or_else(PoisonError::into_inner);
        let Free { open, blocks, .. } = &mut *free;
        for Record { slot, bytes } in records {
            let open = &mut open[slot.at as usize];
            // The database has it already; or the disk did not take it the last time.
            if open.sequence != slot.sequence || open.block.is_some() {
                continue;
            }
            let last = self.blocks.last().filter(|last| last.used + bytes.len() <= BLOCK);
            if last.is_none() {
                if let Some(full) = self.blocks.last() {
                    blocks.let_go(full.at);
                }
                self.blocks.push(Block { at: blocks.take(), used: 0, bytes: vec![0; BLOCK] });
            }
            if let Some(last) = self.blocks.last_mut() {
                last.bytes[last.used..last.used + bytes.len()].copy_from_slice(bytes);
                last.used += bytes.len();
                blocks.hold(last.at);
                open.block = Some(last.at);
            }
        }
    }

    /// Brings all that has a place to the disk. What fails is written again the next time: the disk
    /// may have lost what it was given.
    fn write(&mut self) -> io::Result<()> {
        if let Some(most) = self.blocks.iter().map(|block| block.at).max()
            && most >= self.room
        {
            let room = most + GROW;
            let zeros = vec![0; BLOCK * (room - self.room) as usize];
            self.file.write_all_at(&zeros, place(self.room))?;
            self.room = room;
        }
        for block in &self.blocks {
            self.file.write_all_at(&block.bytes, place(block.at))?;
        }
        self.file.sync_data()?;
        self.blocks.drain(..self.blocks.len().saturating_sub(1));
        Ok(())
    }

    /// Nothing is left that the database lacks.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.sync_data()
    }
}

fn place(at: u32) -> u64 {
    u64::from(at) * BLOCK as u64
}

/// Brings what has ended to the disk and tells who waits, until nobody is there to end anything.
/// `runtime`: of those who wait.
pub(super) fn keep_all(
    ends: &Mutex<Ends>,
    free: &Mutex<Free>,
    queue: &Receiver<Ended>,
    runtime: Option<&Handle>,
) {
    let ends = || ends.lock().unwrap_or_else(PoisonError::into_inner);
    let mut waiting: Vec<Ended> = Vec::new();
    loop {
        match queue.recv_timeout(SYNC) {
            Ok(first) => {
                waiting.push(first);
                let Pace { every, together, .. } = ends().pace;
                if every < CLOSE && together > SEVERAL {
                    gather(queue, &mut waiting, (every * CROWD).min(GATHER_MAX));
                }
            }
            Err(RecvTimeoutError::Timeout) if waiting.is_empty() => continue,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let kept = {
            let mut ends = ends();
            waiting.extend(queue.try_iter());
            ends.keep(free, waiting.iter().map(|ended| &ended.record))
        };
        match kept {
            Ok(()) => tell(std::mem::take(&mut waiting), runtime),
            Err(error) => tracing::error!(%error, "the journal cannot be brought to the disk"),
        }
    }
}

/// Waits until a crowd is there, or nobody else comes, or for so long.
pub(super) fn gather<T>(queue: &Receiver<T>, waiting: &mut Vec<T>, mut left: Duration) {
    let mut had = 0;
    while !left.is_zero() && (had..CROWD as usize).contains(&waiting.len()) {
        had = waiting.len() + 1;
        let glance = left.min(GLANCE);
        std::thread::sleep(glance);
        left -= glance;
        waiting.extend(queue.try_iter());
    }
}

/// Tells all who wait: several of them from within their runtime, which wakes a thread of it once
/// and not for each of them.
fn tell(waiting: Vec<Ended>, runtime: Option<&Handle>) {
    // Whoever waited may have left.
    let several = waiting.len() > 1;
    let all = move || {
        for ended in waiting {
            let _ = ended.done.send(());
        }
    };
    match runtime.filter(|_| several) {
        Some(runtime) => drop(runtime.spawn(async move { all() })),
        None => all(),
    }
}
