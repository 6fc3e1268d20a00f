//! What was used and what it cost, as people ask for it: sums by dimension and stretch of the
//! calendar, lines of the ledger, records of the audit. It only reads, and knows nobody: whoever
//! asks has been found to be allowed to.
//!
//! Sums are made from those over whole days and quarters of an hour. Every time zone of today
//! begins its days and hours with a quarter; where a zone of the past did not, a quarter counts
//! where it begins.

pub mod buckets;
pub mod csv;
mod cursor;
pub mod lines;
mod pieces;
pub mod usage;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use sqlx::any::AnyArguments;
use sqlx::query::Query as Statement;
use sqlx::{Any, AssertSqlSafe};

use crate::store::StoreError;
use crate::{Id, Money};

pub use buckets::Bucket;
pub use cursor::Cursor;
pub use lines::{EntryQuery, RecordQuery, chains, entries, records, stream_chain};
pub use usage::{Query, Row, usage};

/// Rows of a report, and stretches that it may have.
pub const ROWS_MAX: usize = 10_000;

/// Conditions of one report.
pub const FILTERS_MAX: usize = 100;

/// Lines of one page.
pub const LIMIT_MAX: u32 = 1000;

/// What usage can be told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// The top of a tree.
    Organisation,
    /// People who share a purse.
    Team,
    /// What keys belong to.
    Project,
    /// Whose key it was.
    User,
    /// The key that was shown.
    Key,
    /// The model that answered.
    Model,
    /// How secret it was.
    Label,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Organisation,
        Self::Team,
        Self::Project,
        Self::User,
        Self::Key,
        Self::Model,
        Self::Label,
    ];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Organisation => "organisation",
            Self::Team => "team",
            Self::Project => "project",
            Self::User => "user",
            Self::Key => "key",
            Self::Model => "model",
            Self::Label => "label",
        }
    }

    /// Its column in the ledger and in its sums.
    #[must_use]
    pub const fn column(self) -> &'static str {
        match self {
            Self::User => "user_id",
            Self::Key => "key_id",
            other => other.name(),
        }
    }
}

/// A dimension that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a dimension; write organisation, team, project, user, key, model or label")]
pub struct NotDimension(String);

impl FromStr for Dimension {
    type Err = NotDimension;

    fn from_str(text: &str) -> Result<Self, NotDimension> {
        let known = Self::ALL.into_iter().find(|dimension| dimension.name() == text);
        known.ok_or_else(|| NotDimension(text.chars().take(32).collect()))
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Sums within a quarter are not kept.
    #[error("`{0}` must fall on a quarter of an hour")]
    Quarter(&'static str),
    /// A range that ends before it begins, or that no calendar holds.
    #[error("the range must begin in 1970 or later, and end after that and before the year 9999")]
    Range,
    /// No such time zone.
    #[error("{0}")]
    Zone(String),
    /// One column would stand there twice.
    #[error("`{0}` is asked for twice")]
    Twice(Dimension),
    /// More conditions than anybody writes by hand.
    #[error("there may be at most {FILTERS_MAX} filters")]
    Filters,
    /// More than anybody reads.
    #[error(
        "the report would have more than {ROWS_MAX} rows: ask for a shorter time, longer \
         stretches, fewer dimensions or a filter"
    )]
    Rows,
    /// Pages are small.
    #[error("`limit` must lie between 1 and {LIMIT_MAX}")]
    Limit,
    /// Not one that was handed out here.
    #[error("`after` is not a cursor of an answer")]
    Cursor,
    /// The database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ReportError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A statement with what is bound to it. Texts of callers are always bound.
#[derive(Debug, Default)]
pub(crate) struct Sql {
    text: String,
    bound: Vec<Value>,
}

#[derive(Debug)]
enum Value {
    Text(String),
    Number(i64),
}

impl Sql {
    pub(crate) fn of(text: String) -> Self {
        Self { text, bound: Vec::new() }
    }

    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    pub(crate) fn number(&mut self, number: i64) -> &mut Self {
        self.bind(Value::Number(number))
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bind(Value::Text(text.to_owned()))
    }

    fn bind(&mut self, value: Value) -> &mut Self {
        self.bound.push(value);
        self.text.push_str(&format!("${}", self.bound.len()));
        self
    }

    /// ` AND organisation = ... AND team IN (...)`: several filters of one dimension ask for any
    /// of them, those of different ones for all.
    pub(crate) fn filters(
        &mut self,
        organisation: Option<&Id>,
        filters: &[(Dimension, String)],
    ) -> Result<&mut Self, ReportError> {
        if filters.len() > FILTERS_MAX {
            return Err(ReportError::Filters);
        }
        if let Some(organisation) = organisation {
            self.push(" AND organisation = ").text(organisation.as_str());
        }
        for dimension in Dimension::ALL {
            let mut open = " IN (";
            for (_, value) in filters.iter().filter(|(of, _)| *of == dimension) {
                if open != ", " {
                    self.push(" AND ").push(dimension.column());
                }
                self.push(open).text(value);
                open = ", ";
            }
            if open == ", " {
                self.push(")");
            }
        }
        Ok(self)
    }

    /// Statements with callers' ranges in them are not worth keeping prepared.
    pub(crate) fn statement(&self) -> Statement<'_, Any, AnyArguments> {
        let statement = sqlx::query(AssertSqlSafe(self.text.as_str())).persistent(false);
        self.bound.iter().fold(statement, |statement, value| match value {
            Value::Text(text) => statement.bind(text),
            Value::Number(number) => statement.bind(*number),
        })
    }
}

/// `12.50`: dollars without a sign before them, exact to the nano-dollar.
fn decimal(money: Money) -> String {
    money.to_string().replace('$', "")
}
