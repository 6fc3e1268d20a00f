//! Answers for people: aligned tables, money in dollars, times by the calendar.

use govern::{Millis, Money};
use jiff::Timestamp;
use serde_json::Value;

use super::client::Client;
use crate::cli::exit::{self, Outcome};

/// Longest text of a cell that is shown whole.
const CELL_MAX: usize = 60;

/// A table: headings, and whether a column holds numbers.
pub(in crate::cli) struct Table {
    heads: Vec<(&'static str, bool)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Headings; those that begin with `#` stand over numbers.
    pub(in crate::cli) fn new(heads: &[&'static str]) -> Self {
        let head = |head: &&'static str| match head.strip_prefix('#') {
            Some(head) => (head, true),
            None => (*head, false),
        };
        Self { heads: heads.iter().map(head).collect(), rows: Vec::new() }
    }

    pub(in crate::cli) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.heads.len(), "a row has a cell for each heading");
        self.rows.push(cells.into_iter().map(plain).collect());
    }

    pub(in crate::cli) fn print(&self, nothing: &str) -> Outcome {
        if self.rows.is_empty() {
            return exit::print(&format!("{nothing}\n"));
        }
        exit::print(&self.text())
    }

    fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.heads[column].0.chars().count()]).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for ((cell, width), (_, number)) in cells.zip(&widths).zip(&self.heads) {
                let gap = " ".repeat(width - cell.chars().count());
                let cell = if *number { format!("{gap}{cell}") } else { format!("{cell}{gap}") };
                line.push_str(&cell);
                line.push_str("  ");
            }
            line.trim_end().to_owned() + "\n"
        };
        let mut out = line(&mut self.heads.iter().map(|(head, _)| *head));
        for row in &self.rows {
            out.push_str(&line(&mut row.iter().map(String::as_str)));
        }
        out
    }
}

/// A terminal must not be told what to do by a name.
fn plain(text: String) -> String {
    let safe = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    if text.chars().count() > CELL_MAX {
        return text.chars().take(CELL_MAX - 1).map(safe).chain(['…']).collect();
    }
    if text.contains(char::is_control) { text.chars().map(safe).collect() } else { text }
}

/// Prints the answer itself where that was asked for; `false`: it was not.
pub(super) fn json(client: &Client, answer: &Value) -> Result<bool, exit::Failure> {
    if client.json {
        let text = serde_json::to_string_pretty(answer).unwrap_or_default();
        exit::print(&format!("{text}\n"))?;
    }
    Ok(client.json)
}

/// What a list holds.
pub(super) fn things(answer: &Value) -> impl Iterator<Item = &Value> {
    answer["data"].as_array().into_iter().flatten()
}

/// A text of an answer; empty where there is none.
pub(in crate::cli) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Nano-dollars as dollars.
pub(in crate::cli) fn money(value: &Value) -> String {
    value.as_i64().map(|nano| Money(nano).to_string()).unwrap_or_default()
}

/// A time; empty where there is none.
pub(super) fn time(value: &Value) -> String {
    let at = |at: Millis| Timestamp::from_millisecond(at).ok();
    let shown = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M").to_string();
    value.as_i64().and_then(at).map(shown).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_tame() {
        let mut table = Table::new(&["NAME", "#COST ($)"]);
        table.row(vec!["ä".to_owned(), "$1.00".to_owned()]);
        table.row(vec!["red\u{1b}[31m".to_owned(), "$10.00".to_owned()]);
        assert_eq!(
            table.text(),
            "NAME      COST ($)\nä            $1.00\nred\u{fffd}[31m    $10.00\n"
        );
    }
}
