//! The page pool: who holds which page, what is free, what only the cache keeps.
//!
//! A held page is a [`Page`] value that can be neither copied nor cloned, made here and consumed
//! here. Freeing twice does not compile, since the first `free` takes the value. Losing one is
//! found by [`Pages::check_idle`], because a page that nobody gives back is never available
//! again. Handles that give themselves back on drop would need a shared, counted pool and a
//! borrow check at run time for each page; a moved number costs nothing.
//!
//! Pages that nobody holds but whose contents are registered wait in a list ordered by when they
//! were given back, and are taken from its old end when free pages run out. A sequence gives its
//! pages back last page first, so that children go before the parents they cannot be found
//! without. The pool knows tokens and numbers, no sequences.

use crate::prefix::{PageTokens, PrefixIndex, Tip};
use crate::types::{PAGE_TOKENS, Token};
use crate::watch::PageChange;

const NONE: u32 = u32::MAX;

/// A hold on a page. Give it back with [`Pages::free`].
#[derive(Debug)]
#[must_use = "a page that is not given back is lost"]
pub(crate) struct Page(u32);

impl Page {
    /// Its number in the pool.
    pub(crate) fn number(&self) -> u32 {
        self.0
    }
}

#[derive(Debug, Clone)]
struct Slot {
    holds: u32,
    /// Neighbours in the list of cached pages.
    older: u32,
    newer: u32,
}

/// All pages of the device, by number.
#[derive(Debug)]
pub(crate) struct Pages {
    slots: Vec<Slot>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    cached: usize,
    prefixes: PrefixIndex,
    evictions: u64,
}

impl Pages {
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            slots: vec![Slot { holds: 0, older: NONE, newer: NONE }; pages],
            // Popped from the end: page 0 first, which makes traces easy to read.
            free: (0..pages as u32).rev().collect(),
            oldest: NONE,
            newest: NONE,
            cached: 0,
            prefixes: PrefixIndex::new(pages),
            evictions: 0,
        }
    }

    pub(crate) fn total(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn cached_count(&self) -> usize {
        self.cached
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Pages that [`Pages::take`] could give now.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.cached
    }

    /// A page with unknown contents: a free one, else the one unused for longest.
    pub(crate) fn take(&mut self) -> Option<Page> {
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.oldest != NONE => {
                let number = self.oldest;
                self.unlink(number);
                self.prefixes.remove(number);
                self.evictions += 1;
                number
            }
            None => return None,
        };
        let slot = &mut self.slots[number as usize];
        assert_eq!(slot.holds, 0, "page {number} was free while held");
        slot.holds = 1;
        Some(Page(number))
    }

    /// Gives a hold back.
    #[expect(clippy::needless_pass_by_value, reason = "a hold is given back once")]
    pub(crate) fn free(&mut self, page: Page) {
        let Page(number) = page;
        let slot = &mut self.slots[number as usize];
        assert!(slot.holds > 0, "page {number} given back by nobody");
        slot.holds -= 1;
        if slot.holds > 0 {
            return;
        }
        if self.prefixes.holds(number) {
            self.link(number);
        } else {
            self.free.push(number);
        }
    }

    /// Gives a whole block table back, last page first; the table keeps its memory.
    pub(crate) fn free_all(&mut self, table: &mut Vec<Page>) {
        while let Some(page) = table.pop() {
            self.free(page);
        }
    }

    /// Takes holds on the registered pages at the start of `tokens` and appends them to `table`.
    /// Returns where the chain ended.
    pub(crate) fn take_prefix(
        &mut self,
        salt: u64,
        tokens: &[Token],
        table: &mut Vec<Page>,
    ) -> Tip {
        let mut tip = Tip::root(salt);
        for page_tokens in tokens.as_chunks::<PAGE_TOKENS>().0 {
            let Some(next) = self.prefixes.child(&tip, page_tokens) else { break };
            table.push(self.share(next.page()));
            tip = next;
        }
        tip
    }

    /// Pages at the start of `tokens` that are registered: (all of them, those held by nobody).
    pub(crate) fn count_prefix(&self, salt: u64, tokens: &[Token]) -> (usize, usize) {
        let mut tip = Tip::root(salt);
        let (mut found, mut unheld) = (0, 0);
        for page_tokens in tokens.as_chunks::<PAGE_TOKENS>().0 {
            let Some(next) = self.prefixes.child(&tip, page_tokens) else { break };
            found += 1;
            unheld += usize::from(self.slots[next.page() as usize].holds == 0);
            tip = next;
        }
        (found, unheld)
    }

    /// Makes a full, computed page findable as the continuation of `tip`, and returns the tip
    /// behind it. When another page is registered for the same prefix, a copy in use replaces
    /// one that is not, so that memory is not spent twice; two in use both live until freed.
    /// `None` when the index has no room.
    pub(crate) fn register(&mut self, tip: &Tip, tokens: &PageTokens, page: &Page) -> Option<Tip> {
        let Some(found) = self.prefixes.child(tip, tokens) else {
            return self.prefixes.insert(tip, tokens, page.0);
        };
        let other = found.page();
        if other == page.0 || self.slots[other as usize].holds > 0 {
            return Some(found);
        }
        self.unlink(other);
        self.prefixes.replace(other, page.0);
        self.free.push(other);
        self.prefixes.child(tip, tokens)
    }

    /// Notes from now on which hashes come and go.
    pub(crate) fn watch(&mut self) {
        self.prefixes.watch.begin();
    }

    /// See [`crate::Scheduler::drain_page_changes`].
    pub(crate) fn drain_changes(&mut self, into: &mut Vec<PageChange>) -> bool {
        self.prefixes.watch.drain(into)
    }

    /// The hashes of all pages that can be found, smallest first.
    pub(crate) fn held_hashes(&self) -> Vec<u64> {
        self.prefixes.held()
    }

    /// Whether a chain may go on from `tip`.
    pub(crate) fn alive(&self, tip: &Tip) -> bool {
        self.prefixes.alive(tip)
    }

    /// The device lost its memory: nothing is registered any more. Holds stay.
    pub(crate) fn forget(&mut self) {
        self.prefixes.clear();
        while self.oldest != NONE {
            let number = self.oldest;
            self.unlink(number);
            self.free.push(number);
        }
    }

    /// Asserts that nobody holds a page.
    pub(crate) fn check_idle(&self) {
        assert_eq!(
            self.available(),
            self.total(),
            "pages leaked: {} free and {} cached of {}",
            self.free.len(),
            self.cached,
            self.total()
        );
    }

    fn share(&mut self, number: u32) -> Page {
        if self.slots[number as usize].holds == 0 {
            self.unlink(number);
        }
        self.slots[number as usize].holds += 1;
        Page(number)
    }

    fn link(&mut self, number: u32) {
        let older = self.newest;
        self.slots[number as usize] = Slot { holds: 0, older, newer: NONE };
        match older {
            NONE => self.oldest = number,
            older => self.slots[older as usize].newer = number,
        }
        self.newest = number;
        self.cached += 1;
    }

    fn unlink(&mut self, number: u32) {
        let Slot { older, newer, .. } = self.slots[number as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
        self.cached -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes and registers pages for `tokens`, as a sequence would that computes them.
    fn compute(pages: &mut Pages, tokens: &[Token]) -> Vec<Page> {
        let mut table = Vec::new();
        let mut tip = pages.take_prefix(0, tokens, &mut table);
        let whole = tokens.as_chunks::<PAGE_TOKENS>().0;
        for page_tokens in &whole[table.len()..] {
            let page = pages.take().expect("a page");
            tip = pages.register(&tip, page_tokens, &page).expect("room");
            table.push(page);
        }
        table
    }

    fn prompt(seed: u32, pages: usize) -> Vec<Token> {
        (0..(pages * PAGE_TOKENS) as u32).map(|i| i + seed * 1000).collect()
    }

    #[test]
    fn a_prefix_is_shared_and_counted() {
        let mut pages = Pages::new(8);
        let mut first = compute(&mut pages, &prompt(1, 3));
        let mut second = Vec::new();
        pages.take_prefix(0, &prompt(1, 2), &mut second);
        assert_eq!(second.len(), 2);
        assert_eq!(second[1].number(), first[1].number());
        pages.free_all(&mut first);
        assert_eq!((pages.free_count(), pages.cached_count()), (5, 1), "two are still held");
        pages.free_all(&mut second);
        pages.check_idle();
        assert_eq!(pages.count_prefix(0, &prompt(1, 3)), (3, 3));
        assert_eq!(pages.count_prefix(1, &prompt(1, 3)), (0, 0), "another salt shares nothing");
    }

    #[test]
    fn the_tail_is_evicted_first() {
        let mut pages = Pages::new(4);
        let mut table = compute(&mut pages, &prompt(1, 3));
        pages.free_all(&mut table);
        let held = [pages.take(), pages.take()].map(|p| p.expect("a page"));
        assert_eq!(pages.count_prefix(0, &prompt(1, 3)).0, 2, "one free, then the last page");
        let more = [pages.take(), pages.take()].map(|p| p.expect("a page"));
        assert_eq!(pages.evictions(), 3);
        assert!(pages.take().is_none(), "all are held");
        held.into_iter().chain(more).for_each(|page| pages.free(page));
        pages.check_idle();
    }

    #[test]
    fn the_least_recently_used_prefix_goes_first() {
        let mut pages = Pages::new(4);
        let mut old = compute(&mut pages, &prompt(1, 2));
        let mut new = compute(&mut pages, &prompt(2, 2));
        pages.free_all(&mut old);
        pages.free_all(&mut new);
        let mut again = Vec::new();
        pages.take_prefix(0, &prompt(1, 2), &mut again);
        pages.free_all(&mut again);
        let page = pages.take().expect("a page");
        assert_eq!(pages.count_prefix(0, &prompt(1, 2)).0, 2, "used a moment ago");
        assert_eq!(pages.count_prefix(0, &prompt(2, 2)).0, 1);
        pages.free(page);
    }

    #[test]
    fn a_copy_in_use_replaces_one_that_is_not() {
        let mut pages = Pages::new(4);
        let tokens = prompt(1, 1);
        let page_tokens: &PageTokens = tokens[..].try_into().expect("one page");
        let root = Tip::root(0);
        let mine = pages.take().expect("a page");
        let other = pages.take().expect("a page");
        let tip = pages.register(&root, page_tokens, &other).expect("room");
        assert_eq!(pages.register(&root, page_tokens, &mine), Some(tip), "both in use");
        pages.free(other);
        let tip = pages.register(&root, page_tokens, &mine).expect("room");
        assert_eq!((tip.page(), pages.cached_count()), (mine.number(), 0));
        pages.free(mine);
        assert_eq!((pages.free_count(), pages.cached_count()), (3, 1));
    }

    #[test]
    #[should_panic(expected = "pages leaked")]
    fn a_lost_page_is_found() {
        let mut pages = Pages::new(2);
        let _lost = pages.take();
        pages.check_idle();
    }
}
