//! SQLite by its own library, for what is written most: entries, their sums and records, one row at
//! a time. The driver for any database has a thread of its own: each statement is a way there and
//! back, and each text a copy that is freed on another thread.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{CachedStatement, Connection, OpenFlags, Transaction, TransactionBehavior};

use super::batch::Batch;
use super::rows::{self, Sums, Values};
use super::{Kind, PRAGMAS};
use crate::ledger::Entry;

/// A connection; none once it is closed.
#[derive(Debug)]
pub(super) struct Lite(Mutex<Option<Connection>>);

impl Lite {
    /// Opens a file that is there.
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.execute_batch(PRAGMAS)?;
        Ok(Self(Mutex::new(Some(connection))))
    }

    /// Adds a batch's entries, their sums and its records. `false`: not all of them are new, or
    /// nobody writes here any more; nothing was written.
    pub(super) fn commit(&self, batch: &Batch) -> rusqlite::Result<bool> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(connection) = connection.as_mut() else { return Ok(false) };
        let turn = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let entries: Vec<&Entry> = batch.entries.iter().map(AsRef::as_ref).collect();
        if !add(&turn, &rows::entries_sql(Kind::Sqlite, 1), &entries, |values, entry| {
            rows::fill_entry(values, entry);
        })? {
            return Ok(false);
        }
        for sums in Sums::of(&entries) {
            add(&turn, &sums.sql(Kind::Sqlite, 1), sums.rows(), |values, row| {
                rows::fill_sum(values, row);
            })?;
        }
        if !add(&turn, &rows::records_sql(Kind::Sqlite, 1), &batch.records, |values, record| {
            rows::fill_record(values, record);
        })? {
            return Ok(false);
        }
        turn.commit()?;
        Ok(true)
    }

    pub(super) fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Adds rows. `false`: one was there already.
fn add<T>(
    turn: &Transaction<'_>,
    sql: &str,
    rows: &[T],
    fill: impl Fn(&mut Row<'_, '_>, &T),
) -> rusqlite::Result<bool> {
    let mut statement = turn.prepare_cached(sql)?;
    for row in rows {
        let mut values = Row { statement: &mut statement, place: 0, bound: Ok(()) };
        fill(&mut values, row);
        values.bound?;
        if statement.raw_execute()? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The places of one row.
struct Row<'s, 'c> {
    statement: &'s mut CachedStatement<'c>,
    place: usize,
    bound: rusqlite::Result<()>,
}

impl Row<'_, '_> {
    fn bind(&mut self, value: impl rusqlite::ToSql) {
        self.place += 1;
        if self.bound.is_ok() {
            self.bound = self.statement.raw_bind_parameter(self.place, value);
        }
    }
}

impl Values for Row<'_, '_> {
    fn text(&mut self, text: &str) {
        self.bind(text);
    }

    fn number(&mut self, number: i64) {
        self.bind(number);
    }
}
