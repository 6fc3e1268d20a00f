//! The prefix index: which page holds the keys and values of which token prefix.
//!
//! A page is found by a hash chained from its parent page and keyed by the salt, but the hash is
//! only the address. A hit counts when the sixteen tokens, the salt and the *identity* of the
//! parent are equal: every registration gets a serial number that is never used again, and a
//! child names its parent's serial. By induction one serial stands for exactly one salt and token
//! prefix, so neither a collision nor a recycled page can ever share wrong contents.
//!
//! The table is open addressing over page numbers, sized once: nothing here allocates later, and
//! nothing is iterated in hash order. It knows tokens and page numbers, no sequences.

use crate::types::{PAGE_TOKENS, Token};
use crate::watch::Watch;

/// No page: an empty place in the table.
const NONE: u32 = u32::MAX;

/// Places tried before a registration is given up. At half load a longer run does not happen by
/// chance; a caller who builds collisions on purpose loses his caching, not our time.
const PROBES_MAX: usize = 128;

/// The tokens of one page.
pub(crate) type PageTokens = [Token; PAGE_TOKENS];

/// The hash of the empty prefix under a salt.
fn root_hash(salt: u64) -> u64 {
    fold(salt ^ 0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93)
}

/// The hash of a prefix that is one page longer.
fn page_hash(parent: u64, tokens: &PageTokens) -> u64 {
    let mut hash = parent;
    for four in tokens.as_chunks::<4>().0 {
        let low = u64::from(four[0]) | u64::from(four[1]) << 32;
        let high = u64::from(four[2]) | u64::from(four[3]) << 32;
        hash = fold(hash ^ low ^ 0xa076_1d64_78bd_642f, high ^ 0xe703_7ed1_a0b4_28db)
            ^ hash.rotate_left(29);
    }
    fold(hash ^ 0x8ebc_6af0_9c88_c6e3, 0x5895_58cc_b5a3_8d1b)
}

/// Both halves of a 128-bit product: every input bit reaches every output bit.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

/// The hashes of all whole pages of a prompt, first page first: what a router compares with the
/// pages that a node holds. Sixteen tokens cost a few nanoseconds.
pub fn prefix_hashes(prompt: &[Token], salt: u64) -> impl Iterator<Item = u64> + '_ {
    let pages = prompt.as_chunks::<PAGE_TOKENS>().0.iter();
    pages.scan(root_hash(salt), |hash, tokens| {
        *hash = page_hash(*hash, tokens);
        Some(*hash)
    })
}

/// A registered prefix: where a chain continues from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tip {
    page: u32,
    serial: u64,
    hash: u64,
    salt: u64,
}

impl Tip {
    /// The empty prefix.
    pub(crate) fn root(salt: u64) -> Self {
        Self { page: NONE, serial: 0, hash: root_hash(salt), salt }
    }

    /// The page that holds the prefix's last tokens.
    pub(crate) fn page(&self) -> u32 {
        self.page
    }
}

#[derive(Debug, Clone)]
struct Entry {
    hash: u64,
    /// 0: not registered.
    serial: u64,
    /// The parent's serial, 0 for the root of `salt`.
    parent: u64,
    salt: u64,
    tokens: PageTokens,
}

const EMPTY: Entry = Entry { hash: 0, serial: 0, parent: 0, salt: 0, tokens: [0; PAGE_TOKENS] };

/// Prefix to page.
#[derive(Debug)]
pub(crate) struct PrefixIndex {
    /// Per page of the pool.
    entries: Vec<Entry>,
    /// Page numbers, a power of two of them and at most half full.
    table: Vec<u32>,
    serials: u64,
    /// A function so that a test can make everything collide.
    hash: fn(u64, &PageTokens) -> u64,
    /// Told of every hash that comes and goes.
    pub(crate) watch: Watch,
}

impl PrefixIndex {
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            entries: vec![EMPTY; pages],
            table: vec![NONE; (pages * 2).next_power_of_two()],
            serials: 0,
            hash: page_hash,
            watch: Watch::default(),
        }
    }

    /// Whether `page` is registered.
    pub(crate) fn holds(&self, page: u32) -> bool {
        self.entries[page as usize].serial != 0
    }

    /// Whether `tip` still stands for its prefix.
    pub(crate) fn alive(&self, tip: &Tip) -> bool {
        tip.serial == 0 || self.entries[tip.page as usize].serial == tip.serial
    }

    /// The prefix that continues `tip` by `tokens`.
    pub(crate) fn child(&self, tip: &Tip, tokens: &PageTokens) -> Option<Tip> {
        let hash = (self.hash)(tip.hash, tokens);
        for step in 0..PROBES_MAX {
            let page = self.table[self.place(hash, step)];
            if page == NONE {
                return None;
            }
            let entry = &self.entries[page as usize];
            if entry.hash == hash
                && entry.parent == tip.serial
                && entry.salt == tip.salt
                && entry.tokens == *tokens
            {
                return Some(Tip { page, serial: entry.serial, hash, salt: tip.salt });
            }
        }
        None
    }

    /// Registers `page` as the continuation of `tip`, which has none yet. `None` when the
    /// neighbourhood is full: the page stays private.
    pub(crate) fn insert(&mut self, tip: &Tip, tokens: &PageTokens, page: u32) -> Option<Tip> {
        debug_assert!(self.child(tip, tokens).is_none(), "registered twice");
        if self.holds(page) {
            // Its old parent was evicted, so nothing can find it there any more.
            self.remove(page);
        }
        let hash = (self.hash)(tip.hash, tokens);
        let new = self.watch.is_on() && !self.has(hash);
        let free = (0..PROBES_MAX).find(|&step| self.table[self.place(hash, step)] == NONE)?;
        let place = self.place(hash, free);
        self.table[place] = page;
        self.serials += 1;
        let serial = self.serials;
        self.entries[page as usize] =
            Entry { hash, serial, parent: tip.serial, salt: tip.salt, tokens: *tokens };
        if new {
            self.watch.note(hash, true);
        }
        Some(Tip { page, serial, hash, salt: tip.salt })
    }

    /// Gives the registration of `old` to `new`, which holds the same contents.
    pub(crate) fn replace(&mut self, old: u32, new: u32) {
        if self.holds(new) {
            self.remove(new);
        }
        let place = self.find(old);
        self.table[place] = new;
        self.entries[new as usize] = self.entries[old as usize].clone();
        self.entries[old as usize].serial = 0;
    }

    /// Forgets `page`. Its children, if any, can no longer be found.
    pub(crate) fn remove(&mut self, page: u32) {
        let mask = self.table.len() - 1;
        let mut hole = self.find(page);
        let mut place = hole;
        loop {
            place = (place + 1) & mask;
            let next = self.table[place];
            if next == NONE {
                break;
            }
            // Move an entry back into the hole unless the hole lies before its home.
            let home = self.entries[next as usize].hash as usize & mask;
            let distance = |from: usize, to: usize| to.wrapping_sub(from) & mask;
            if distance(home, place) >= distance(hole, place) {
                self.table[hole] = next;
                hole = place;
            }
        }
        self.table[hole] = NONE;
        let entry = &mut self.entries[page as usize];
        entry.serial = 0;
        let hash = entry.hash;
        if self.watch.is_on() && !self.has(hash) {
            self.watch.note(hash, false);
        }
    }

    /// Whether some page is registered under a hash. Several may be: a page whose parent was
    /// evicted stays until it is evicted itself, though nobody finds it any more.
    fn has(&self, hash: u64) -> bool {
        let places = (0..PROBES_MAX).map(|step| self.table[self.place(hash, step)]);
        let mut pages = places.take_while(|page| *page != NONE);
        pages.any(|page| self.entries[page as usize].hash == hash)
    }

    /// The hashes of all registered pages, smallest first, each once.
    pub(crate) fn held(&self) -> Vec<u64> {
        let held = self.entries.iter().filter(|entry| entry.serial != 0);
        let mut hashes: Vec<u64> = held.map(|entry| entry.hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.table.fill(NONE);
        for entry in &mut self.entries {
            entry.serial = 0;
        }
        self.watch.lose();
    }

    fn place(&self, hash: u64, step: usize) -> usize {
        (hash as usize + step) & (self.table.len() - 1)
    }

    fn find(&self, page: u32) -> usize {
        let hash = self.entries[page as usize].hash;
        let step = (0..PROBES_MAX).find(|&step| self.table[self.place(hash, step)] == page);
        self.place(hash, step.expect("a registered page is in the table"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::PageChange;

    fn tokens(seed: u32) -> PageTokens {
        std::array::from_fn(|i| seed * 100 + i as u32)
    }

    #[test]
    fn hashes_chain_and_depend_on_the_salt() {
        let prompt: Vec<Token> = (0..50).collect();
        let a: Vec<u64> = prefix_hashes(&prompt, 1).collect();
        assert_eq!(a.len(), 3, "whole pages only");
        assert_eq!(a[..2], prefix_hashes(&prompt[..40], 1).collect::<Vec<_>>());
        assert_ne!(a[0], prefix_hashes(&prompt, 2).next().expect("a page"));
        let mut changed = prompt.clone();
        changed[0] = 7;
        let b: Vec<u64> = prefix_hashes(&changed, 1).collect();
        assert!(a.iter().zip(&b).all(|(a, b)| a != b), "a change reaches every later page");
        let mut index = PrefixIndex::new(4);
        let page: &PageTokens = prompt[..16].try_into().expect("16 tokens");
        let tip = index.insert(&Tip::root(1), page, 0).expect("room");
        assert_eq!(tip.hash, a[0], "the published hash is the index's own");
    }

    #[test]
    fn collisions_never_match() {
        let mut index = PrefixIndex::new(64);
        index.hash = |_, _| 42;
        let (one, two) = (Tip::root(1), Tip::root(2));
        let a = index.insert(&one, &tokens(1), 0).expect("room");
        assert_eq!(index.child(&one, &tokens(2)), None, "other tokens");
        assert_eq!(index.child(&two, &tokens(1)), None, "other salt");
        assert_eq!(index.child(&a, &tokens(1)), None, "other parent");
        let b = index.insert(&one, &tokens(2), 1).expect("room");
        let c = index.insert(&a, &tokens(3), 2).expect("room");
        assert_eq!(index.child(&b, &tokens(3)), None, "the same tokens behind another parent");
        assert_eq!(index.child(&a, &tokens(3)), Some(c));
    }

    #[test]
    fn a_recycled_parent_has_no_children() {
        let mut index = PrefixIndex::new(8);
        let root = Tip::root(0);
        let a = index.insert(&root, &tokens(1), 0).expect("room");
        index.insert(&a, &tokens(2), 1).expect("room");
        index.remove(0);
        assert!(!index.alive(&a));
        let again = index.insert(&root, &tokens(1), 0).expect("room");
        assert_eq!(index.child(&again, &tokens(2)), None, "its page number means nothing");
    }

    #[test]
    fn a_hash_is_held_while_any_page_is() {
        let mut index = PrefixIndex::new(8);
        index.watch.begin();
        index.watch.drain(&mut Vec::new());
        let root = Tip::root(0);
        let a = index.insert(&root, &tokens(1), 0).expect("room");
        let b = index.insert(&a, &tokens(2), 1).expect("room");
        index.remove(0);
        let again = index.insert(&root, &tokens(1), 0).expect("room");
        // The child of the old parent is found by nobody, but lies there under the same hash.
        index.insert(&again, &tokens(2), 2).expect("room");
        index.remove(1);
        let held = |hash, held| PageChange { hash, held };
        let mut told = Vec::new();
        assert!(index.watch.drain(&mut told));
        let expected =
            [held(a.hash, true), held(b.hash, true), held(a.hash, false), held(a.hash, true)];
        assert_eq!(told, expected);
        let mut both = vec![a.hash, b.hash];
        both.sort_unstable();
        assert_eq!(index.held(), both);
        index.replace(2, 3);
        index.remove(3);
        told.clear();
        assert!(index.watch.drain(&mut told));
        assert_eq!((told, index.held()), (vec![held(b.hash, false)], vec![a.hash]));
    }

    #[test]
    fn removal_keeps_every_other_entry_findable() {
        for weak in [false, true] {
            let mut index = PrefixIndex::new(64);
            if weak {
                index.hash = |_, tokens| u64::from(tokens[0] / 100 % 5) * 3 + 125;
            }
            let root = Tip::root(0);
            let mut alive = Vec::new();
            for n in 0..64u32 {
                index.insert(&root, &tokens(n), n).expect("room");
                alive.push(n);
            }
            let mut state = 1u32;
            while !alive.is_empty() {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                index.remove(alive.swap_remove(state as usize % alive.len()));
                for n in 0..64 {
                    let found = index.child(&root, &tokens(n)).map(|tip| tip.page());
                    assert_eq!(found, alive.contains(&n).then_some(n));
                }
            }
        }
    }
}
