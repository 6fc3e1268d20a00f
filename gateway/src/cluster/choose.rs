//! Which node answers: a pure function of the prompt's length, of what is known of each node, and
//! of a number of the prompt. The one that is thought to give its first token soonest: what waits
//! there, and what it would have to read of the prompt that it does not hold.

use std::cmp::Reverse;
use std::fmt;

use crate::digest::mixed;

/// Without a measure yet: a token of a prompt takes so long that pages held count at all.
const US_PER_KILOTOKEN: u64 = 50_000;
/// Without a measure yet: a request.
const US_PER_REQUEST: u64 = 500_000;

/// A token's time at a model that reads and does not write, as choices are made with. A thousand
/// tokens take as many microseconds as one takes nanoseconds; what is measured (0: not yet) is
/// taken for a power of two, so that equal nodes are equal. A node that has not measured is taken
/// for the best of those that have: it is asked, and so it measures.
#[must_use]
pub(super) fn us_per_kilotoken(ns_per_token: u64, best: Option<u64>) -> u64 {
    let known = Some(ns_per_token).filter(|ns| *ns > 0).or(best);
    known.map_or(US_PER_KILOTOKEN, |ns| ns.min(1 << 40).next_power_of_two())
}

/// What is known of a node, for one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Its number, for choices that stay.
    pub number: u64,
    /// Sequences that wait there, those among them that it has not told of yet.
    pub waiting: u64,
    /// Requests there.
    pub open: u64,
    /// Requests that it takes at once.
    pub open_max: u64,
    /// Tokens of the prompt that it holds.
    pub held: u64,
    /// Device time of a request; 0: not known.
    pub us_per_request: u64,
    /// Device time of a thousand tokens of a prompt; 0: not known.
    pub us_per_kilotoken: u64,
    /// What each running sequence adds to a step.
    pub us_per_row: u64,
    /// It takes no more.
    pub draining: bool,
    /// It has failed at requests, and is left alone for a while.
    pub broken: bool,
    /// Nothing of the prompt leads to it: it was looked at by chance.
    pub by_chance: bool,
}

/// What came of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// Its place among the candidates.
    pub at: usize,
    /// Whether it may answer.
    pub verdict: Verdict,
    /// Time in its line.
    pub wait_us: u64,
    /// Tokens of the prompt that it holds.
    pub held: u64,
    /// Time to its first token.
    pub first_us: u64,
    /// Requests there.
    pub open: u64,
}

/// Whether a node may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    May,
    /// It has failed: it may where no other may.
    Broken,
    /// It finishes what it has.
    Drains,
    /// It has as much as it takes.
    Full,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::May => "may answer",
            Self::Broken => "has failed",
            Self::Drains => "drains",
            Self::Full => "is full",
        })
    }
}

/// The best of them, if one may answer. `prompt` counts tokens; `number` is the prompt's, so that
/// equal prompts find the same node where all else is equal. Those that have failed are asked only
/// where no other may answer: nobody is turned away for it.
#[must_use]
pub fn choose(candidates: &[Candidate], prompt: u64, number: u64) -> Option<Finding> {
    let best = |verdict| best_of(candidates, verdict, (prompt, number));
    best(Verdict::May).or_else(|| best(Verdict::Broken))
}

/// The best of those of one verdict. One that was looked at by chance would not be found again:
/// unless it holds as much as any other, it has to save half of the time.
fn best_of(
    candidates: &[Candidate],
    verdict: Verdict,
    (prompt, number): (u64, u64),
) -> Option<Finding> {
    let best = |by_chance: bool, is_good: &dyn Fn(&Finding) -> bool| {
        let each = candidates.iter().enumerate();
        let each = each.filter(|(_, candidate)| candidate.by_chance == by_chance);
        each.map(|(at, candidate)| (find(at, candidate, prompt), candidate))
            .filter(|(finding, _)| finding.verdict == verdict && is_good(finding))
            .min_by_key(|(finding, candidate)| {
                (finding.first_us, finding.open, Reverse(mixed(number ^ candidate.number)))
            })
            .map(|(finding, _)| finding)
    };
    let Some(own) = best(false, &|_| true) else { return best(true, &|_| true) };
    let is_better = |other: &Finding| {
        let is_less = (other.first_us, other.open) < (own.first_us, own.open);
        other.first_us < own.first_us / 2 || is_less && other.held >= own.held
    };
    Some(best(true, &is_better).unwrap_or(own))
}

/// What is found of one.
#[must_use]
pub(super) fn find(at: usize, candidate: &Candidate, prompt: u64) -> Finding {
    let known = |measured: u64, guess: u64| if measured == 0 { guess } else { measured };
    let wait_us = candidate.waiting.saturating_mul(known(candidate.us_per_request, US_PER_REQUEST));
    let read = prompt.saturating_sub(candidate.held);
    let each = known(candidate.us_per_kilotoken, US_PER_KILOTOKEN);
    let read_us = read.saturating_mul(each) / 1000;
    // What runs there makes its steps longer, the one that this request needs at least.
    let beside_us = candidate.open.saturating_mul(candidate.us_per_row);
    let verdict = verdict(candidate);
    let first_us = wait_us.saturating_add(read_us).saturating_add(beside_us);
    Finding { at, verdict, wait_us, held: candidate.held, first_us, open: candidate.open }
}

/// Whether one may answer.
pub(super) fn verdict(candidate: &Candidate) -> Verdict {
    if candidate.draining {
        Verdict::Drains
    } else if candidate.open >= candidate.open_max {
        Verdict::Full
    } else if candidate.broken {
        Verdict::Broken
    } else {
        Verdict::May
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64) -> Candidate {
        Candidate {
            number,
            open_max: 100,
            us_per_request: 100_000,
            us_per_kilotoken: 10_000,
            us_per_row: 50,
            ..Candidate::default()
        }
    }

    fn chosen(candidates: &[Candidate], prompt: u64) -> Option<usize> {
        choose(candidates, prompt, 42).map(|finding| finding.at)
    }

    #[test]
    fn pages_count_until_the_line_is_longer_than_what_they_save() {
        let idle = node(1);
        let holder = Candidate { held: 16_000, ..node(2) };
        assert_eq!(chosen(&[idle, holder], 16_100), Some(1));
        // 16,000 tokens are 160 ms to read; each one that waits takes 100 ms.
        let busy = Candidate { waiting: 1, open: 10, ..holder };
        assert_eq!(chosen(&[idle, busy], 16_100), Some(1));
        let busier = Candidate { waiting: 2, open: 10, ..holder };
        assert_eq!(chosen(&[idle, busier], 16_100), Some(0));
        assert_eq!(chosen(&[idle, busy], 100), Some(0), "a short prompt is read soon");
    }

    #[test]
    fn who_is_looked_at_by_chance_saves_half_or_holds_as_much() {
        let own = Candidate { open: 10, held: 16, ..node(1) };
        let by_chance = |open| Candidate { open, by_chance: true, ..node(2) };
        // 1,000 tokens are 10 ms to read, each row beside them 50 us.
        assert_eq!(chosen(&[by_chance(0), own], 1000), Some(1));
        let waits = Candidate { waiting: 1, ..own };
        assert_eq!(chosen(&[by_chance(0), waits], 1000), Some(0));
        assert_eq!(chosen(&[by_chance(0), by_chance(3)], 1000), Some(0));
        let equal = Candidate { held: 16, ..by_chance(10) };
        assert_eq!(chosen(&[equal, own], 1000), Some(1));
        let better = Candidate { open: 9, ..equal };
        assert_eq!(chosen(&[better, own], 1000), Some(0));
        assert_eq!(chosen(&[by_chance(0), better, own], 1000), Some(1), "the first reads more");
        let full = Candidate { open: 100, ..own };
        assert_eq!(chosen(&[full, by_chance(9)], 1000), Some(1));
    }

    #[test]
    fn those_that_drain_or_are_full_get_nothing() {
        let drains = Candidate { draining: true, held: 1000, ..node(1) };
        let full = Candidate { open: 100, held: 1000, ..node(2) };
        assert_eq!(chosen(&[drains, full, node(3)], 1000), Some(2));
        assert_eq!(chosen(&[drains, full], 1000), None);
        assert_eq!(chosen(&[], 1000), None);
    }

    #[test]
    fn those_that_have_failed_are_asked_where_no_other_may_answer() {
        let broken = |number| Candidate { broken: true, held: 1000, ..node(number) };
        let slow = Candidate { waiting: 9, open: 99, ..node(3) };
        assert_eq!(chosen(&[broken(1), slow], 1000), Some(1));
        let by_chance = Candidate { by_chance: true, ..slow };
        assert_eq!(chosen(&[broken(1), by_chance], 1000), Some(1));
        let (full, drains) =
            (Candidate { open: 100, ..slow }, Candidate { draining: true, ..slow });
        assert_eq!(chosen(&[full, broken(1), drains], 1000), Some(1));
        assert_eq!(chosen(&[Candidate { held: 0, ..broken(1) }, broken(2)], 1000), Some(1));
        let no_room = Candidate { open: 100, ..broken(1) };
        assert_eq!(chosen(&[no_room, Candidate { draining: true, ..broken(2) }], 1000), None);
    }

    #[test]
    fn load_spreads_what_is_equal_and_equal_prompts_stay() {
        let mut nodes = [node(1), node(2), node(3)];
        for _ in 0..30 {
            let at = chosen(&nodes, 100).expect("one");
            nodes[at].open += 1;
        }
        assert!(nodes.iter().all(|node| node.open == 10), "{nodes:?}");
        let same = |number| choose(&[node(1), node(2), node(3)], 100, number).map(|f| f.at);
        assert_eq!(same(5), same(5));
        let places: std::collections::HashSet<_> = (0..50).map(same).collect();
        assert_eq!(places.len(), 3);
    }

    #[test]
    fn numbers_from_outside_do_not_overflow() {
        let wild = Candidate {
            waiting: u64::MAX,
            open_max: u64::MAX,
            held: u64::MAX,
            us_per_request: u64::MAX,
            us_per_kilotoken: u64::MAX,
            us_per_row: u64::MAX,
            ..node(1)
        };
        assert_eq!(chosen(&[wild, node(2)], u64::MAX), Some(1));
    }
}
