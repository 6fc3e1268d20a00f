//! Records for other systems: JSON lines, and syslog (RFC 5424). Both carry every field, so that
//! what was exported can be verified on its own. How they travel is not known here.

use std::io::{self, Write};

use jiff::Timestamp;

use super::Record;
use crate::Millis;

/// Writes a record as one line: an object with the fields of [`Record`].
///
/// # Errors
/// The writer fails.
pub fn write_json_line(out: &mut impl Write, record: &Record) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    out.write_all(b"\n")
}

/// Facility 13 (audit), severity 6 (informational).
const PRIORITY: u8 = 13 * 8 + 6;

/// The number behind `@` says whose field names these are. Hearth has none; this is the one that
/// RFC 5612 sets aside for examples, which no vendor's names can be taken for.
const ELEMENT: &str = "audit@32473";

/// A record as a syslog message: the fields as structured data, the body as its text.
#[must_use]
pub fn syslog(record: &Record) -> String {
    syslog_within(record, usize::MAX)
}

/// The same in so many bytes at most. Where the body has to be cut for that, the field `cut` says
/// how many bytes of it are missing; all other fields are whole, however long they are.
#[must_use]
pub fn syslog_within(record: &Record, bytes_max: usize) -> String {
    let Record { chain, number, at, kind, organisation, body, previous, hash } = record;
    let mut out = format!(
        "<{PRIORITY}>1 {} {} hearth - {} [{ELEMENT}",
        time(*at),
        header(chain, 255),
        header(kind, 32)
    );
    let fields = [
        ("chain", chain.as_str()),
        ("number", &number.to_string()),
        ("at", &at.to_string()),
        ("kind", kind),
        ("organisation", organisation),
        ("previous", previous),
        ("hash", hash),
    ];
    for (name, value) in fields {
        out.push_str(&format!(" {name}=\""));
        for letter in value.chars() {
            if matches!(letter, '"' | '\\' | ']') {
                out.push('\\');
            }
            out.push(letter);
        }
        out.push('"');
    }
    let room = bytes_max.saturating_sub(out.len() + CUT.len());
    if out.len() + 2 + body.len() <= bytes_max {
        out.push_str("] ");
        out.push_str(body);
    } else {
        let end = body.floor_char_boundary(room);
        out.push_str(&format!(" cut=\"{}\"] ", body.len() - end));
        out.push_str(&body[..end]);
    }
    out
}

/// As long as what says that a body was cut.
const CUT: &str = " cut=\"18446744073709551615\"] ";

/// `2026-11-21T15:46:01.042Z`; `-` for a time that has no such form.
fn time(at: Millis) -> String {
    match Timestamp::from_millisecond(at) {
        Ok(time) if at >= 0 => format!("{time:.3}"),
        _ => "-".to_owned(),
    }
}

/// A word of the message's head: visible ASCII of bounded length, `-` for none.
fn header(text: &str, length_max: usize) -> String {
    let visible = |letter: char| if letter.is_ascii_graphic() { letter } else { '_' };
    let word: String = text.chars().take(length_max).map(visible).collect();
    if word.is_empty() { "-".to_owned() } else { word }
}
