//! What a backup holds: every table of the schema with its columns. A test compares the list with
//! the catalogues of both databases, so that no table can be forgotten.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::store::columns::{AUDIT, BODIES, BODY_KEYS, DAYS, KEPT, LEDGER, QUARTERS};

/// A table.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns, in the order of the schema.
    pub columns: &'static [&'static str],
    /// Those that hold texts; all others hold numbers.
    pub texts: &'static [&'static str],
    /// Rows that a schema without any use has: a counter that stands at zero.
    pub(super) begins_with: u64,
}

/// What stands in a row's column. The schema has texts and 64-bit numbers, and no NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Text(String),
    Number(i64),
}

/// Texts among the columns of sums.
const SUMS_TEXTS: &[&str] =
    &["organisation", "team", "project", "user_id", "key_id", "model", "label"];

/// All of them, in the order in which they are written.
pub static TABLES: &[Table] = &[
    Table {
        name: "documents",
        columns: &["kind", "id", "parent", "name", "revision", "deleted", "body"],
        texts: &["kind", "id", "parent", "name", "body"],
        begins_with: 0,
    },
    Table { name: "counters", columns: &["name", "value"], texts: &["name"], begins_with: 1 },
    Table {
        name: "ledger",
        columns: LEDGER,
        texts: &[
            "operation",
            "gateway",
            "organisation",
            "team",
            "project",
            "user_id",
            "key_id",
            "model",
            "backend",
            "surface",
            "label",
            "price",
            "outcome",
            "request_id",
            "source",
            "service_tier",
            "arm",
        ],
        begins_with: 0,
    },
    Table { name: "quarters", columns: QUARTERS, texts: SUMS_TEXTS, begins_with: 0 },
    Table { name: "days", columns: DAYS, texts: SUMS_TEXTS, begins_with: 0 },
    Table {
        name: "audit",
        columns: AUDIT,
        texts: &["chain", "kind", "organisation", "body", "previous", "hash"],
        begins_with: 0,
    },
    Table {
        name: "idempotency",
        columns: &["organisation", "name", "request", "status", "answer", "at"],
        texts: &["organisation", "name", "request", "answer"],
        begins_with: 0,
    },
    Table {
        name: "sessions",
        columns: &["hash", "user_id", "way", "created_at", "seen_at"],
        texts: &["hash", "user_id", "way"],
        begins_with: 0,
    },
    Table {
        name: "links",
        columns: &["hash", "user_id", "expires_at"],
        texts: &["hash", "user_id"],
        begins_with: 0,
    },
    Table { name: "steps", columns: &["user_id", "step"], texts: &["user_id"], begins_with: 0 },
    Table {
        name: "alerts",
        columns: &["id", "at", "forget_at", "body"],
        texts: &["id", "body"],
        begins_with: 0,
    },
    Table {
        name: "deliveries",
        columns: &["alert", "channel", "attempts", "due_at"],
        texts: &["alert", "channel"],
        begins_with: 0,
    },
    Table {
        name: "exported",
        columns: &["sink", "chain", "number", "hash"],
        texts: &["sink", "chain", "hash"],
        begins_with: 0,
    },
    Table {
        name: "bodies",
        columns: BODIES,
        texts: &["operation", "organisation", "user_id", "key_id", "label", "content"],
        begins_with: 0,
    },
    Table {
        name: "kept",
        columns: KEPT,
        texts: &[
            "row_id",
            "kind",
            "id",
            "organisation",
            "project",
            "user_id",
            "parent",
            "label",
            "content",
        ],
        begins_with: 0,
    },
];

/// What is in no backup, and moves from one database to another all the same: the keys of recorded
/// texts. One that is erased must be gone from every copy.
pub static NOT_BACKED_UP: &[Table] = &[Table {
    name: "body_keys",
    columns: BODY_KEYS,
    texts: &["operation", "organisation", "user_id", "sealed"],
    begins_with: 0,
}];

/// The state of gateways that run: it says nothing about a copy, and what is filled begins without.
pub const RUNNING: [&str; 3] = ["gateways", "shapes", "slices"];

impl Table {
    pub(super) fn is_text(&self, column: &str) -> bool {
        self.texts.contains(&column)
    }

    /// The cells of a row that was selected by [`Table::columns`].
    pub(super) fn cells(&self, row: &AnyRow) -> Result<Vec<Cell>, sqlx::Error> {
        let cell = |(at, column): (usize, &&str)| {
            Ok(match self.is_text(column) {
                true => Cell::Text(row.try_get(at)?),
                false => Cell::Number(row.try_get(at)?),
            })
        };
        self.columns.iter().enumerate().map(cell).collect()
    }
}

impl Cell {
    /// About what it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let text = if let Self::Text(text) = self { text.capacity() } else { 0 };
        size_of::<Self>() + text
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => out.serialize_str(text),
            Self::Number(number) => out.serialize_i64(*number),
        }
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Cell;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or a whole number")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Cell, E> {
                Ok(Cell::Text(text.to_owned()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Cell, E> {
                Ok(Cell::Number(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Cell, E> {
                i64::try_from(number).map(Cell::Number).map_err(E::custom)
            }
        }
        input.deserialize_any(Either)
    }
}
