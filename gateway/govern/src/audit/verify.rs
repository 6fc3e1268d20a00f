//! Checks chains from their first records on, one record at a time: memory does not grow with
//! their length.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use utoipa::ToSchema;

use super::{Anchor, NOTHING, Record, day};
use crate::Millis;

/// What was found whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Summary {
    /// Records of all chains.
    pub records: u64,
    /// The earliest; milliseconds since 1970.
    pub first: Option<Millis>,
    /// The latest; milliseconds since 1970.
    pub last: Option<Millis>,
    /// The last record of each chain: what an auditor writes down now, and the count that one
    /// compares with what is expected.
    pub heads: Vec<Anchor>,
}

/// The first trouble that was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("audit chain {chain:?}, record {number}: {why}")]
pub struct Broken {
    /// The gateway.
    pub chain: String,
    /// The record that is wrong or missing.
    pub number: i64,
    /// What is wrong.
    pub why: Fault,
}

/// What can be wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Dropped, inserted, or in another order.
    #[error("it should stand here, and number {found} does")]
    Number {
        /// The number that stands there.
        found: i64,
    },
    /// The record before it is another one now, or this one was put here.
    #[error("it does not follow the record before it")]
    Previous,
    /// A field was altered.
    #[error("its fields do not belong to its hash")]
    Hash,
    /// The chain was written anew.
    #[error("it is not the one that was written down on {day}")]
    Anchor {
        /// When it was written down.
        day: String,
    },
    /// The chain's end was dropped, or all of it.
    #[error("it is missing, and was there on {day}")]
    Missing {
        /// When it was written down.
        day: String,
    },
    /// One chain's records do not stand together, so one is out of order.
    #[error("its chain had ended before it")]
    Apart,
}

/// Takes the records of any number of chains: chain after chain, each in the order of its numbers.
#[derive(Debug)]
pub struct Verifier {
    /// Those still ahead, by chain and number.
    anchors: BTreeMap<String, BTreeMap<i64, Vec<Anchor>>>,
    ended: BTreeSet<String>,
    current: Option<Head>,
    summary: Summary,
}

/// The last record of the chain that is being read.
#[derive(Debug)]
struct Head {
    chain: String,
    number: i64,
    hash: String,
    at: Millis,
}

impl Verifier {
    /// Expects these anchors to be met. Without them a chain that was cut at its end, or written
    /// anew from its start, looks whole.
    #[must_use]
    pub fn new(anchors: &[Anchor]) -> Self {
        let mut sorted: BTreeMap<_, BTreeMap<_, Vec<_>>> = BTreeMap::new();
        for anchor in anchors {
            let chain = sorted.entry(anchor.chain.clone()).or_default();
            chain.entry(anchor.number).or_default().push(anchor.clone());
        }
        Self { anchors: sorted, ended: BTreeSet::new(), current: None, summary: Summary::default() }
    }

    /// The next record.
    ///
    /// # Errors
    /// It is not the one that belongs here. What comes after it says nothing any more.
    pub fn push(&mut self, record: &Record) -> Result<(), Broken> {
        if self.current.as_ref().is_some_and(|head| head.chain != record.chain) {
            self.end_chain()?;
        }
        let broken = |number, why| Err(Broken { chain: record.chain.clone(), number, why });
        if self.ended.contains(&record.chain) {
            return broken(record.number, Fault::Apart);
        }
        let (number, previous) = match &self.current {
            Some(head) => (head.number + 1, head.hash.as_str()),
            None => (1, NOTHING),
        };
        if record.number != number {
            return broken(number, Fault::Number { found: record.number });
        }
        if record.previous != previous {
            return broken(number, Fault::Previous);
        }
        if record.hash != record.hash_of_fields() {
            return broken(number, Fault::Hash);
        }
        let ahead = self.anchors.get_mut(&record.chain);
        for anchor in ahead.and_then(|chain| chain.remove(&number)).unwrap_or_default() {
            // Written down by hand, perhaps.
            if !anchor.hash.eq_ignore_ascii_case(&record.hash) {
                return broken(number, Fault::Anchor { day: anchor.day });
            }
        }
        let Summary { records, first, last, .. } = &mut self.summary;
        *records += 1;
        *first = Some(first.map_or(record.at, |first| first.min(record.at)));
        *last = Some(last.map_or(record.at, |last| last.max(record.at)));
        self.current = Some(Head {
            chain: record.chain.clone(),
            number,
            hash: record.hash.clone(),
            at: record.at,
        });
        Ok(())
    }

    /// Nothing comes any more.
    ///
    /// # Errors
    /// There are anchors of records that did not come.
    pub fn finish(mut self) -> Result<Summary, Broken> {
        self.end_chain()?;
        let chains = std::mem::take(&mut self.anchors);
        chains.into_values().try_for_each(all_met)?;
        Ok(self.summary)
    }

    fn end_chain(&mut self) -> Result<(), Broken> {
        let Some(head) = self.current.take() else { return Ok(()) };
        all_met(self.anchors.remove(&head.chain).unwrap_or_default())?;
        let Head { chain, number, hash, at } = head;
        self.ended.insert(chain.clone());
        self.summary.heads.push(Anchor { chain, number, hash, day: day(at) });
        Ok(())
    }
}

fn all_met(ahead: BTreeMap<i64, Vec<Anchor>>) -> Result<(), Broken> {
    match ahead.into_values().flatten().next() {
        None => Ok(()),
        Some(Anchor { chain, number, day, .. }) => {
            Err(Broken { chain, number, why: Fault::Missing { day } })
        }
    }
}

/// Checks the records of any number of chains: chain after chain, each in the order of its numbers.
///
/// # Errors
/// The first record that is wrong or missing.
pub fn verify(
    records: impl Iterator<Item = Record>,
    anchors: &[Anchor],
) -> Result<Summary, Broken> {
    let mut verifier = Verifier::new(anchors);
    for record in records {
        verifier.push(&record)?;
    }
    verifier.finish()
}
