//! A report for a spreadsheet: RFC 4180.

use jiff::Timestamp;

use super::{Query, ReportError, Row, decimal};
use crate::budget::window::zone;

/// Writes a report's rows, with a line of headings before them. The beginning of a stretch is
/// written as the clocks of the report's zone show it.
///
/// # Errors
/// The query's time zone is none.
pub fn write(query: &Query, rows: &[Row]) -> Result<String, ReportError> {
    let zone = zone(&query.time_zone).map_err(ReportError::Zone)?;
    let mut headings: Vec<&str> = query.bucket.iter().map(|_| "start").collect();
    headings.extend(query.group_by.iter().map(|by| by.name()));
    headings.extend(["requests", "input_tokens", "cache_read_tokens", "output_tokens"]);
    headings.extend(["cost_usd", "cost_nano_usd"]);
    let mut out = headings.join(",") + "\r\n";
    for row in rows {
        let start = row.start.and_then(|start| Timestamp::from_millisecond(start).ok());
        let mut cells: Vec<String> = start
            .map(|start| start.display_with_offset(zone.to_offset(start)).to_string())
            .into_iter()
            .collect();
        cells.extend(row.about.iter().map(|text| cell(text)));
        let counts = [row.requests, row.input_tokens, row.cache_read_tokens, row.output_tokens];
        cells.extend(counts.map(|count| count.to_string()));
        cells.extend([decimal(row.cost), row.cost.0.to_string()]);
        out.push_str(&cells.join(","));
        out.push_str("\r\n");
    }
    Ok(out)
}

/// A text. Spreadsheets run what begins like a formula, and names are chosen by users.
fn cell(text: &str) -> String {
    let runs = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let safe = if runs { format!("'{text}") } else { text.to_owned() };
    if safe.contains(['"', ',', '\r', '\n']) {
        return format!("\"{}\"", safe.replace('"', "\"\""));
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Money;
    use crate::report::{Bucket, Dimension};

    #[test]
    fn cells_are_quoted_and_do_not_run() {
        let check = |text: &str, expect: &str| assert_eq!(cell(text), expect, "{text:?}");
        check("", "");
        check("plain-1 ü", "plain-1 ü");
        check("a,b", "\"a,b\"");
        check("say \"so\"\r\nnow", "\"say \"\"so\"\"\r\nnow\"");
        check("=1+1", "'=1+1");
        check("+1", "'+1");
        check("-1", "'-1");
        check("@a", "'@a");
        check("\tx", "'\tx");
        check("=HYPERLINK(\"x\",1)", "\"'=HYPERLINK(\"\"x\"\",1)\"");
    }

    #[test]
    fn rows_have_units_and_local_times() {
        let query = Query {
            group_by: vec![Dimension::Model, Dimension::User],
            bucket: Some(Bucket::Day),
            time_zone: "Europe/Berlin".to_owned(),
            ..Query::default()
        };
        let row = Row {
            about: vec!["demo".to_owned(), "user_1".to_owned()],
            // 2026-11-01 in Berlin.
            start: Some(1_793_487_600_000),
            requests: 2,
            input_tokens: 30,
            cache_read_tokens: 4,
            output_tokens: 5,
            cost: Money(12_000_000_001),
        };
        let found = write(&query, &[row]).expect("a zone");
        assert_eq!(
            found,
            "start,model,user,requests,input_tokens,cache_read_tokens,output_tokens,cost_usd,\
             cost_nano_usd\r\n2026-11-01T00:00:00+01:00,demo,user_1,2,30,4,5,12.000000001,\
             12000000001\r\n"
        );
    }
}
