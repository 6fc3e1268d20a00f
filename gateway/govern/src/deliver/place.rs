//! How far a place outside has got with a chain of the audit. Whoever exports sees every record
//! once and in order, so it verifies on the way what it hands on.

use crate::audit::{Fault, NOTHING, Record};

/// Behind a record of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The gateway.
    pub chain: String,
    /// Number of the last record that was taken; 0: none was.
    pub number: i64,
    /// That record's hash.
    pub hash: String,
}

impl Place {
    /// Before the first record.
    #[must_use]
    pub fn begin(chain: &str) -> Self {
        Self { chain: chain.to_owned(), number: 0, hash: NOTHING.to_owned() }
    }

    /// Moves behind a record, and says what is wrong with it, if anything is. A record that is
    /// wrong is moved behind all the same: it is for others to see.
    pub fn pass(&mut self, record: &Record) -> Option<Fault> {
        let fault = if record.number != self.number + 1 {
            Some(Fault::Number { found: record.number })
        } else if record.previous != self.hash {
            Some(Fault::Previous)
        } else if record.hash != record.hash_of_fields() {
            Some(Fault::Hash)
        } else {
            None
        };
        self.number = record.number;
        self.hash.clone_from(&record.hash);
        fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Chain;

    #[test]
    fn what_was_tampered_with_is_seen_once() {
        let mut chain = Chain::begin("a");
        let whole: Vec<Record> =
            (0..4).map(|n| chain.next(n, "request", "", format!("{{\"n\":{n}}}"))).collect();
        let check = |records: &[Record], expect: &[Option<Fault>]| {
            let mut place = Place::begin("a");
            let found: Vec<_> = records.iter().map(|record| place.pass(record)).collect();
            assert_eq!(found, expect);
        };
        check(&whole, &[None, None, None, None]);
        let mut altered = whole.clone();
        altered[1].body.push(' ');
        check(&altered, &[None, Some(Fault::Hash), None, None]);
        // With a hash of its own, the one after it does not fit.
        altered[1].hash = altered[1].hash_of_fields();
        check(&altered, &[None, None, Some(Fault::Previous), None]);
        let mut dropped = whole;
        dropped.remove(1);
        check(&dropped, &[None, Some(Fault::Number { found: 3 }), None]);
    }
}
