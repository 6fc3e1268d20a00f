//! A backup's text: written, and read again without believing any of it.

use std::io::{BufRead, Read, Write};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::tables::Cell;
use super::{BackupError, Rows, Sink, TABLES, Table};
use crate::{Millis, store};

/// Form of the text. Another one would have another number.
const FORMAT: u64 = 1;

/// Longest line, its end included. Rows are far shorter: what may be sent is bounded.
const LINE_MAX: usize = 64 << 20;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    hearth_backup: u64,
    /// The last migration of the database that it was made from.
    schema: i64,
    made_at: Millis,
    rows: Rows,
}

/// What a later form has in common with this one.
#[derive(Deserialize)]
struct Form {
    hearth_backup: u64,
}

/// A line that is no row.
#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Mark {
    Table { table: String, columns: Vec<String> },
    End { sha256: String },
}

/// Writes a backup.
pub(super) struct Lines<W> {
    out: W,
    sum: Context,
    line: Vec<u8>,
}

impl<W: Write> Lines<W> {
    pub(super) fn begin(
        out: W,
        schema: i64,
        made_at: Millis,
        rows: &Rows,
    ) -> Result<Self, BackupError> {
        let mut lines = Self { out, sum: Context::new(&SHA256), line: Vec::new() };
        let header = Header { hearth_backup: FORMAT, schema, made_at, rows: rows.clone() };
        lines.write(&header)?;
        Ok(lines)
    }

    pub(super) fn finish(mut self) -> Result<(), BackupError> {
        let sha256 = hex::encode(self.sum.clone().finish());
        self.write(&Mark::End { sha256 })?;
        self.out.flush().map_err(BackupError::Write)
    }

    fn write(&mut self, value: &impl Serialize) -> Result<(), BackupError> {
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, value);
        written.map_err(|error| BackupError::Write(error.into()))?;
        self.line.push(b'\n');
        if self.line.len() > LINE_MAX {
            let why = format!("a row has more than {LINE_MAX} bytes");
            return Err(BackupError::Write(std::io::Error::other(why)));
        }
        self.sum.update(&self.line);
        self.out.write_all(&self.line).map_err(BackupError::Write)
    }
}

impl<W: Write> Sink for Lines<W> {
    async fn table(
        &mut self,
        table: &'static Table,
        columns: Vec<&'static str>,
    ) -> Result<(), BackupError> {
        let columns = columns.into_iter().map(str::to_owned).collect();
        self.write(&Mark::Table { table: table.name.to_owned(), columns })
    }

    async fn row(&mut self, row: Vec<Cell>) -> Result<(), BackupError> {
        self.write(&row)
    }
}

/// Reads a backup.
pub(super) struct Reader<R> {
    input: R,
    /// Of the lines before the one at hand.
    sum: Context,
    line: Vec<u8>,
    number: u64,
    /// What the first line promises.
    pub(super) rows: Rows,
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line.
    pub(super) fn open(input: R) -> Result<Self, BackupError> {
        let sum = Context::new(&SHA256);
        let mut reader = Self { input, sum, line: Vec::new(), number: 0, rows: Rows::new() };
        let header = reader.next().and_then(|()| reader.header());
        reader.rows = match header {
            Err(BackupError::Damaged { .. }) => return Err(BackupError::NotABackup),
            other => other?.rows,
        };
        Ok(reader)
    }

    fn header(&self) -> Result<Header, BackupError> {
        let Form { hearth_backup } = self.parse()?;
        if hearth_backup != FORMAT {
            return Err(BackupError::Newer(format!("format {hearth_backup}")));
        }
        let header: Header = self.parse()?;
        if header.schema > store::schema() {
            return Err(BackupError::Newer(format!("schema {}", header.schema)));
        }
        Ok(header)
    }

    /// Passes all rows on. When it returns well, every byte is what it was when it was written.
    pub(super) async fn pour(&mut self, sink: &mut impl Sink) -> Result<(), BackupError> {
        let mut table: Option<(&'static Table, Vec<&'static str>)> = None;
        let mut counts = Rows::new();
        loop {
            self.next()?;
            if self.line.starts_with(b"[") {
                let Some((table, columns)) = &table else {
                    return Err(self.damaged("a row of no table"));
                };
                let row: Vec<Cell> = self.parse()?;
                let fits = |(column, cell): (&&str, &Cell)| {
                    table.is_text(column) == matches!(cell, Cell::Text(_))
                };
                if row.len() != columns.len() || !columns.iter().zip(&row).all(fits) {
                    return Err(self.damaged("a row that does not fit its table"));
                }
                *counts.entry(table.name.to_owned()).or_default() += 1;
                sink.row(row).await?;
                continue;
            }
            match self.parse()? {
                Mark::Table { table: name, columns } => {
                    let (known, columns) = self.known(&name, &columns)?;
                    if counts.insert(name, 0).is_some() {
                        return Err(self.damaged("a table that was there before"));
                    }
                    sink.table(known, columns.clone()).await?;
                    table = Some((known, columns));
                }
                Mark::End { sha256 } => return self.end(&sha256, &counts),
            }
        }
    }

    /// A table of ours and some of its columns: a later schema may have more.
    fn known(
        &self,
        name: &str,
        columns: &[String],
    ) -> Result<(&'static Table, Vec<&'static str>), BackupError> {
        let table = TABLES.iter().find(|table| table.name == name);
        let table = table.ok_or_else(|| self.damaged("a table that is not known"))?;
        let known = |name: &String| table.columns.iter().copied().find(|known| known == name);
        let found: Option<Vec<_>> = columns.iter().map(known).collect();
        let found = found.filter(|found| !found.is_empty());
        Ok((table, found.ok_or_else(|| self.damaged("a column that is not known"))?))
    }

    fn end(&mut self, sha256: &str, counts: &Rows) -> Result<(), BackupError> {
        if hex::encode(self.sum.clone().finish()) != sha256 {
            return Err(self.damaged("what stands before it was altered"));
        }
        if *counts != self.rows {
            return Err(self.damaged("the first line promises other rows"));
        }
        let more = self.input.fill_buf().map_err(BackupError::Read)?;
        if more.is_empty() { Ok(()) } else { Err(self.damaged("something stands behind it")) }
    }

    /// Reads a line. The one before it goes into the sum.
    fn next(&mut self) -> Result<(), BackupError> {
        self.sum.update(&self.line);
        self.line.clear();
        self.number += 1;
        let mut bounded = Read::take(&mut self.input, LINE_MAX as u64);
        bounded.read_until(b'\n', &mut self.line).map_err(BackupError::Read)?;
        if self.line.ends_with(b"\n") { Ok(()) } else { Err(self.damaged("the end is missing")) }
    }

    fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, BackupError> {
        serde_json::from_slice(&self.line).map_err(|error| self.damaged(&error.to_string()))
    }

    fn damaged(&self, why: &str) -> BackupError {
        BackupError::Damaged { line: self.number, why: why.to_owned() }
    }
}
