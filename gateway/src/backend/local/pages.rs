//! Which pages of prompts the engine holds, told to those who route requests to it.
//!
//! The engine's thread notes what each step changed; a [`PageWatch`] reads what is new since it
//! last looked, and the whole set when that is more than was kept. Nothing is noted before
//! somebody watches. It knows hashes, no pages and no readers.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use scheduler::{PAGE_CHANGES_MAX, PageChange};

use super::{LocalEngine, Shared};

/// What changed among the pages that an engine holds. Hashes are `scheduler::prefix_hashes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageNews {
    /// These are held, and no others, whatever was known before.
    Snapshot {
        /// Counts changes; it never goes back.
        version: u64,
        /// Each once, in no order.
        held: Vec<u64>,
    },
    /// What came and went since the version told last. A hash that went and came again between
    /// the two may be in `added` though it was there before.
    Changes {
        /// The version told last.
        from: u64,
        /// The version now.
        version: u64,
        /// Held now.
        added: Vec<u64>,
        /// Not held now.
        removed: Vec<u64>,
    },
}

/// Follows the pages of one engine.
pub struct PageWatch {
    shared: Arc<Shared>,
    version: Option<u64>,
}

impl PageWatch {
    /// What is new since the last call, everything at the first; `None` where nothing is. It does
    /// not wait.
    #[must_use]
    pub fn news(&mut self) -> Option<PageNews> {
        let news = self.shared.pages.since(self.version)?;
        let (PageNews::Snapshot { version, .. } | PageNews::Changes { version, .. }) = &news;
        self.version = Some(*version);
        Some(news)
    }
}

impl LocalEngine {
    /// From now on the thread notes which pages it holds.
    #[must_use]
    pub fn watch_pages(&self) -> PageWatch {
        if !self.shared.pages.on.swap(true, Ordering::SeqCst) {
            self.nudge();
        }
        PageWatch { shared: Arc::clone(&self.shared), version: None }
    }
}

/// What the thread has noted. The lock is held for no longer than a copy.
#[derive(Debug, Default)]
pub(super) struct PageBook {
    on: AtomicBool,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    version: u64,
    held: HashSet<u64>,
    /// Changes behind version `from`, each with its version, oldest first.
    changes: VecDeque<(u64, PageChange)>,
    from: u64,
}

impl PageBook {
    /// Whether somebody watches.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::SeqCst)
    }

    /// Notes what a step changed.
    pub(super) fn note(&self, changes: &[PageChange]) {
        if changes.is_empty() {
            return;
        }
        let mut noted = self.lock();
        noted.version += 1;
        for change in changes {
            if change.held {
                noted.held.insert(change.hash);
            } else {
                noted.held.remove(&change.hash);
            }
            let version = noted.version;
            noted.changes.push_back((version, *change));
        }
        // Whole versions only: a reader at `from` has seen all that is not kept.
        while noted.changes.len() > PAGE_CHANGES_MAX
            && let Some((version, _)) = noted.changes.pop_front()
        {
            noted.from = version;
        }
        let from = noted.from;
        while noted.changes.front().is_some_and(|(version, _)| *version == from) {
            noted.changes.pop_front();
        }
    }

    /// Notes that these pages are held and no others.
    pub(super) fn replace(&self, held: Vec<u64>) {
        let held: HashSet<u64> = held.into_iter().collect();
        let mut noted = self.lock();
        noted.version += 1;
        noted.from = noted.version;
        noted.changes.clear();
        noted.held = held;
    }

    fn since(&self, known: Option<u64>) -> Option<PageNews> {
        let noted = self.lock();
        let version = noted.version;
        match known {
            Some(known) if known == version => None,
            Some(from) if from >= noted.from => {
                let first = noted.changes.partition_point(|(version, _)| *version <= from);
                let last: BTreeMap<u64, bool> =
                    noted.changes.range(first..).map(|(_, c)| (c.hash, c.held)).collect();
                let (mut added, mut removed) = (Vec::new(), Vec::new());
                for (hash, held) in last {
                    if held { added.push(hash) } else { removed.push(hash) }
                }
                Some(PageNews::Changes { from, version, added, removed })
            }
            _ => Some(PageNews::Snapshot { version, held: noted.held.iter().copied().collect() }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader knows who applies all news in order.
    #[derive(Default)]
    struct Reader {
        version: Option<u64>,
        held: HashSet<u64>,
        snapshots: usize,
    }

    impl Reader {
        fn read(&mut self, book: &PageBook) {
            match book.since(self.version) {
                None => {}
                Some(PageNews::Snapshot { version, held }) => {
                    self.held = held.into_iter().collect();
                    self.version = Some(version);
                    self.snapshots += 1;
                }
                Some(PageNews::Changes { from, version, added, removed }) => {
                    assert_eq!(Some(from), self.version, "no gap");
                    self.held.retain(|hash| !removed.contains(hash));
                    self.held.extend(added);
                    self.version = Some(version);
                }
            }
        }
    }

    fn change(hash: u64, held: bool) -> PageChange {
        PageChange { hash, held }
    }

    #[test]
    fn readers_that_come_and_look_at_any_time_know_the_set() {
        let book = PageBook::default();
        let (mut quick, mut slow) = (Reader::default(), Reader::default());
        let mut state = 7_u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for round in 0..3_000 {
            if draw(300) == 0 {
                book.replace((0..draw(50)).collect());
            } else {
                let step: Vec<_> = (0..draw(6)).map(|_| change(draw(40), draw(2) == 0)).collect();
                book.note(&step);
            }
            quick.read(&book);
            assert_eq!(quick.held, book.lock().held, "round {round}");
            if draw(20) == 0 {
                slow.read(&book);
                assert_eq!(slow.held, book.lock().held, "round {round}");
            }
        }
        assert!(slow.snapshots > 1 && quick.snapshots > slow.snapshots / 2);
    }

    #[test]
    fn who_is_too_slow_reads_everything_again() {
        let book = PageBook::default();
        book.replace(vec![1]);
        let (mut early, mut late) = (Reader::default(), Reader::default());
        early.read(&book);
        let half = PAGE_CHANGES_MAX as u64 / 2;
        for step in 1..=4 {
            let changes: Vec<_> = (0..half).map(|hash| change(step * half + hash, true)).collect();
            book.note(&changes);
            if step == 2 {
                late.read(&book);
                early.read(&book);
                assert_eq!(early.snapshots, 1, "both steps are kept");
            }
        }
        late.read(&book);
        assert_eq!(late.snapshots, 1);
        book.note(&[change(2, true)]);
        early.read(&book);
        assert_eq!(early.snapshots, 2, "one is not kept whole");
        assert_eq!(early.held, late.held.iter().copied().chain([2]).collect());
        assert!(book.lock().changes.len() <= PAGE_CHANGES_MAX);
    }
}
