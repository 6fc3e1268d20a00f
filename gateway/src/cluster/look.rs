//! Which nodes a choice looks at: all of them where they are few, some of them where they are
//! many, so that a choice among a thousand takes as long as one among sixty-four.
//!
//! Some are those that follow the prompt's pages on a ring of numbers. Prompts that begin alike
//! look at the same nodes there, so each finds what the one before has left. Others are taken by
//! chance, so that what many prompts begin with does not wait at few nodes while the rest is idle
//! ([`choose`](super::choose::choose) says when one of those is taken).

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use super::choose::{self, Candidate, Verdict};
use super::member::Member;
use crate::digest::mixed;

/// Nodes that may answer that a choice looks at.
const NODES: usize = 64;
/// Pages of the prompt that lead to nodes, and how many nodes each leads to.
const PLACES: (usize, usize) = (12, 4);

/// Choices so far; gateways begin at different numbers.
static CHOICES: LazyLock<AtomicU64> =
    LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(0)));

/// A number for one choice.
pub(super) fn chance() -> u64 {
    mixed(CHOICES.fetch_add(1, Ordering::Relaxed))
}

/// See [`look`]; `avoid` is left out, by its numbers.
pub(super) fn among<'a>(
    nodes: &'a [Arc<Member>],
    prompt: (&[u64], u64),
    avoid: &[u64],
    see: impl Fn(&Member) -> Option<Candidate>,
) -> Vec<(&'a Arc<Member>, Candidate)> {
    let is_avoided = |node: &Member| avoid.contains(&node.number);
    let see = |node: &Arc<Member>| if is_avoided(node) { None } else { see(node) };
    look(nodes, |node| node.number, prompt, see)
}

/// The nodes to choose among, of those that have the model, in the order of their numbers. `see`
/// tells what is known of one, if it is there. Where too few may answer, it looks at more, at worst
/// at all: nobody is turned away for looking at the wrong ones.
pub(super) fn look<'a, T>(
    nodes: &'a [T],
    number: impl Fn(&T) -> u64,
    (chain, chance): (&[u64], u64),
    see: impl Fn(&T) -> Option<Candidate>,
) -> Vec<(&'a T, Candidate)> {
    if nodes.len() <= NODES {
        return nodes.iter().filter_map(|node| Some((node, see(node)?))).collect();
    }
    let mut seen = vec![false; nodes.len()];
    let mut found = Vec::with_capacity(NODES);
    let mut usable = 0;
    let pages = depths(chain.len()).take(PLACES.0).map(|depth| (chain[depth - 1], PLACES.1, false));
    for (place, most, by_chance) in pages.chain([(chance, NODES, true)]) {
        let until = NODES.min(usable + most);
        let first = nodes.partition_point(|node| number(node) < place);
        for at in (first..nodes.len()).chain(0..first) {
            if usable == until {
                break;
            }
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let Some(candidate) = see(&nodes[at]) else { continue };
            usable += usize::from(choose::verdict(&candidate) == Verdict::May);
            found.push((&nodes[at], Candidate { by_chance, ..candidate }));
        }
    }
    found
}

/// The pages of a prompt of so many that lead to nodes, the last ones first: 1, 2, 3, 4, 6, 8, 12,
/// 16 and so on. So what a prompt shares with another leads to some nodes: a beginning that all who
/// use an application have, and the turns of one conversation, as they grow.
fn depths(pages: usize) -> impl Iterator<Item = usize> {
    let powers = pages.checked_ilog2().into_iter().flat_map(|most| (1..=most).rev());
    let each = powers.flat_map(|bit| [3 << (bit - 1), 1 << bit]).chain([1]);
    each.filter(move |depth| *depth <= pages)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::HashSet;

    use super::*;
    use crate::cluster::choose::choose;

    const PAGE: u64 = 16;

    /// A node of a fleet that is made up.
    struct Node {
        number: u64,
        open: Cell<u64>,
        gone: Cell<bool>,
        full: Cell<bool>,
        pages: RefCell<HashSet<u64>>,
    }

    fn fleet(count: u64) -> Vec<Node> {
        let node = |number| Node {
            number: mixed(number + 1),
            open: Cell::default(),
            gone: Cell::default(),
            full: Cell::default(),
            pages: RefCell::default(),
        };
        let mut nodes: Vec<Node> = (0..count).map(node).collect();
        nodes.sort_by_key(|node| node.number);
        nodes
    }

    fn see(node: &Node, chain: &[u64]) -> Option<Candidate> {
        let pages = node.pages.borrow();
        let held = u64::try_from(chain.partition_point(|page| pages.contains(page))).expect("few");
        (!node.gone.get()).then(|| Candidate {
            number: node.number,
            open: node.open.get(),
            // Sixteen rows, and a line behind them.
            waiting: node.open.get().saturating_sub(16),
            open_max: if node.full.get() { 0 } else { 64 },
            held: held * PAGE,
            us_per_request: 100_000,
            us_per_kilotoken: 10_000,
            us_per_row: 50,
            ..Candidate::default()
        })
    }

    /// The pages of a prompt of parts: so many pages of each of them.
    fn chain(parts: &[(u64, u64)]) -> Vec<u64> {
        let mut hash = 7;
        let each = parts.iter().flat_map(|(seed, count)| (0..*count).map(move |n| seed * 1000 + n));
        each.map(|token| {
            hash = mixed(hash ^ mixed(token));
            hash
        })
        .collect()
    }

    /// What of a fleet a choice looks at.
    type Look = for<'a> fn(&'a [Node], (&[u64], u64)) -> Vec<(&'a Node, Candidate)>;

    fn some<'a>(nodes: &'a [Node], (chain, chance): (&[u64], u64)) -> Vec<(&'a Node, Candidate)> {
        look(nodes, |node| node.number, (chain, mixed(chance)), |node| see(node, chain))
    }

    fn all<'a>(nodes: &'a [Node], (chain, _): (&[u64], u64)) -> Vec<(&'a Node, Candidate)> {
        nodes.iter().filter_map(|node| Some((node, see(node, chain)?))).collect()
    }

    /// Chooses, and leaves the prompt's pages where it goes; also how many tokens are read there.
    fn send<'a>(
        nodes: &'a [Node],
        (chain, chance): (&[u64], u64),
        look: Look,
    ) -> Option<(&'a Node, u64)> {
        let looked = look(nodes, (chain, chance));
        let candidates: Vec<Candidate> = looked.iter().map(|(_, candidate)| *candidate).collect();
        let tokens = u64::try_from(chain.len()).expect("few") * PAGE;
        let found = choose(&candidates, tokens, chain.last().copied().unwrap_or(tokens))?;
        let node = looked[found.at].0;
        node.pages.borrow_mut().extend(chain);
        node.open.set(node.open.get() + 1);
        Some((node, tokens - found.held))
    }

    #[test]
    fn what_leads_to_nodes() {
        for (pages, expect) in [
            (0, vec![]),
            (1, vec![1]),
            (2, vec![2, 1]),
            (5, vec![4, 3, 2, 1]),
            (100, vec![96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1]),
        ] {
            assert_eq!(depths(pages).collect::<Vec<_>>(), expect);
        }
    }

    #[test]
    fn it_looks_at_few_of_many() {
        for (count, most) in [(1, 1), (64, 64), (65, 64), (100, 64), (1024, 64)] {
            let nodes = fleet(count);
            for pages in [0, 1, 8, 100, 2048] {
                let chain = chain(&[(pages, pages)]);
                let looked = Cell::new(0);
                let found = look(
                    &nodes,
                    |node| node.number,
                    (&chain, mixed(pages)),
                    |node| {
                        looked.set(looked.get() + 1);
                        see(node, &chain)
                    },
                );
                assert_eq!((looked.get(), found.len()), (most, most), "{count} nodes");
                let each: HashSet<u64> = found.iter().map(|(node, _)| node.number).collect();
                assert_eq!(each.len(), most, "none twice");
            }
        }
    }

    #[test]
    fn the_last_one_that_may_answer_is_found() {
        let nodes = fleet(1000);
        let chain = chain(&[(1, 40)]);
        for (at, node) in nodes.iter().enumerate() {
            node.gone.set(at % 2 == 0);
            node.full.set(at % 2 == 1);
        }
        assert!(send(&nodes, (&chain, 1), some).is_none());
        nodes[617].full.set(false);
        let (node, _) = send(&nodes, (&chain, 2), some).expect("one");
        assert_eq!(node.number, nodes[617].number);
    }

    /// 1,000 conversations of five turns behind one beginning of 1,000 tokens, all of a turn at
    /// once; a twentieth of the fleet is gone in each turn, another one each time.
    #[test]
    fn conversations_come_back_to_what_they_have_left() {
        let [some, all] = [some, all].map(|look: Look| {
            let nodes = fleet(500);
            let mut read = 0;
            for turn in 1..=5 {
                for seed in 0..1000 {
                    let chain = chain(&[(9, 62), (100 + seed, 20 * turn)]);
                    read += send(&nodes, (&chain, seed + turn * 1000), look).expect("one").1;
                }
                for (at, node) in (0..).zip(&nodes) {
                    node.open.set(0);
                    node.gone.set(mixed(at + 1000 * turn).is_multiple_of(20));
                }
            }
            read
        });
        assert!(some * 100 < all * 115, "{some} tokens are read, {all} where all are looked at");
    }

    /// All prompts begin alike and none has ended: the load is on all nodes, not on those alone
    /// that the beginning leads to.
    #[test]
    fn what_all_begin_with_does_not_wait_at_few() {
        let [some, all] = [some, all].map(|look: Look| {
            let nodes = fleet(500);
            for seed in 0..7000 {
                let chain = chain(&[(9, 62), (100 + seed, 10)]);
                send(&nodes, (&chain, seed), look).expect("one");
            }
            nodes.iter().map(|node| node.open.get().saturating_sub(16)).sum::<u64>()
        });
        assert!(some * 100 <= all * 110, "{some} wait, {all} where all are looked at");
    }
    /// The same of a fleet that holds what all begin with, where no place of a prompt lies in what
    /// is its own: the rest of the fleet is not idle while some have much to do.
    #[test]
    fn who_holds_as_much_gets_as_much() {
        let nodes = fleet(500);
        let shared = chain(&[(9, 130)]);
        nodes.iter().for_each(|node| node.pages.borrow_mut().extend(&shared));
        for seed in 0..400 {
            let chain = chain(&[(9, 130), (100 + seed, 20)]);
            send(&nodes, (&chain, seed), some).expect("one");
        }
        let most = nodes.iter().map(|node| node.open.get()).max();
        let busy = nodes.iter().filter(|node| node.open.get() > 0).count();
        assert!(busy > 330 && most <= Some(2), "{busy} of 500 have the 400, one {most:?}");
    }
}
