//! The audit trail: records that are only ever added, each with the hash of the one before it, so
//! that whoever alters, drops, inserts or reorders one has to rewrite all that follow; and whoever
//! rewrites them all is found by an anchor, a hash that an auditor wrote down elsewhere.
//!
//! A record's hash is SHA-256 over these texts in UTF-8, each behind its length in bytes as a
//! 64-bit big-endian number: `hearth-audit-1`, `chain`, `number`, `at`, `kind`, `organisation`,
//! `body`, `previous`. Numbers are decimal, hashes lower-case hexadecimal. The first record of a
//! chain has number 1, and 64 zeros as its `previous`. In Python, for a line of the JSON export:
//!
//! ```python
//! def hash_of(record):
//!     digest = hashlib.sha256()
//!     fields = ["chain", "number", "at", "kind", "organisation", "body", "previous"]
//!     for text in ["hearth-audit-1"] + [str(record[field]) for field in fields]:
//!         data = text.encode()
//!         digest.update(len(data).to_bytes(8, "big") + data)
//!     return digest.hexdigest()
//! ```
//!
//! Who writes records down is not known here.

pub mod export;
pub mod verify;

use jiff::{Timestamp, tz::TimeZone};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Millis;
use crate::id::{hex_of, text_of};

pub use verify::{Broken, Fault, Summary, Verifier, verify};

/// Names the encoding: another one would be another text.
const VERSION: &str = "hearth-audit-1";

/// What stands for the hash before the first record.
pub(crate) const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One line of the audit trail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Whose chain it is in: the gateway's name.
    pub chain: String,
    /// Its place in the chain, from 1.
    pub number: i64,
    /// When it happened, by the gateway's clock; milliseconds since 1970.
    pub at: Millis,
    /// What it is about: `request`, `admin`, ...
    pub kind: String,
    /// Whose it is; empty: the deployment's.
    pub organisation: String,
    /// JSON in one line. A text, not an object: its bytes are what was hashed.
    pub body: String,
    /// Hash of the record before it, hexadecimal.
    pub previous: String,
    /// Its own hash, hexadecimal.
    pub hash: String,
}

impl Record {
    /// The hash that belongs to its other fields, hexadecimal.
    #[must_use]
    pub fn hash_of_fields(&self) -> String {
        let (number, at) = (self.number.to_string(), self.at.to_string());
        let Self { chain, kind, organisation, body, previous, .. } = self;
        let mut context = Context::new(&SHA256);
        for text in [VERSION, chain, &number, &at, kind, organisation, body, previous] {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
        text_of(&hex_of(&context.finish()))
    }
}

/// The end of one gateway's chain, where its next record goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    name: String,
    number: i64,
    last: String,
}

impl Chain {
    /// Whose it is.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A chain without records.
    #[must_use]
    pub fn begin(name: &str) -> Self {
        Self { name: name.to_owned(), number: 0, last: NOTHING.to_owned() }
    }

    /// A chain that goes on behind its last record.
    #[must_use]
    pub fn resume(last: &Record) -> Self {
        Self { name: last.chain.clone(), number: last.number, last: last.hash.clone() }
    }

    /// The next record. `body` is JSON in one line.
    pub fn next(&mut self, at: Millis, kind: &str, organisation: &str, body: String) -> Record {
        let mut record = Record {
            chain: self.name.clone(),
            number: self.number + 1,
            at,
            kind: kind.to_owned(),
            organisation: organisation.to_owned(),
            body,
            previous: self.last.clone(),
            hash: String::new(),
        };
        record.hash = record.hash_of_fields();
        self.number = record.number;
        self.last.clone_from(&record.hash);
        record
    }
}

/// A record's place and hash, as an auditor writes them down elsewhere: from then on nothing up to
/// this record can change unseen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// The gateway.
    pub chain: String,
    /// The record's number.
    pub number: i64,
    /// Its hash, hexadecimal.
    pub hash: String,
    /// The day that it ends, in UTC: `2026-11-21`. Says only where it came from.
    pub day: String,
}

impl Anchor {
    /// What to write down when this is the last record of its day.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        Self {
            chain: record.chain.clone(),
            number: record.number,
            hash: record.hash.clone(),
            day: day(record.at),
        }
    }
}

/// The day of a time in UTC, `2026-11-21`; empty for one that no calendar has.
#[must_use]
pub fn day(at: Millis) -> String {
    let time = Timestamp::from_millisecond(at).ok();
    time.map(|time| time.to_zoned(TimeZone::UTC).date().to_string()).unwrap_or_default()
}
