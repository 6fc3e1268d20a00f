//! A kept stream as others get it: without what it has cost whoever asked first. That stands in a
//! comment of its own, or at the very end of the item that has the usage. Why a stream ends where
//! it does, and who went on with it, is for all to know.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Begins a comment of ours.
const COMMENT: &[u8] = b": hearth ";
/// Begins our field of an item.
const FIELD: &[u8] = b",\"hearth\":";
/// A remark is no longer than this.
const BYTES_MAX: usize = 1 << 10;

/// What a stream says of itself.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Remark<'a> {
    #[serde(skip_serializing)]
    #[serde(rename = "cost_usd", borrow, default)]
    _cost: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    notice: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    continued_by: Option<String>,
}

impl Remark<'_> {
    /// What is left of it; `None`: nothing.
    fn rest(text: &[u8]) -> Option<Option<Vec<u8>>> {
        let remark: Remark = serde_json::from_slice(text).ok()?;
        let says = remark.notice.is_some() || remark.continued_by.is_some();
        Some(says.then(|| serde_json::to_vec(&remark).unwrap_or_default()))
    }
}

/// The lines of a stream without what it has cost.
pub(super) fn without_cost(bytes: Bytes) -> Bytes {
    let lines = || bytes.split_inclusive(|byte| *byte == b'\n');
    if !lines().any(|line| line.starts_with(COMMENT) || field(line).is_some()) {
        return bytes;
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut dropped = false;
    for line in lines() {
        // The empty line behind a comment goes along.
        if std::mem::take(&mut dropped) && line == b"\n" {
            continue;
        }
        if let Some(text) = line.strip_prefix(COMMENT) {
            match Remark::rest(text).flatten() {
                None => dropped = true,
                Some(rest) => out.extend([COMMENT, &rest, b"\n"].concat()),
            }
        } else if let Some((before, rest, behind)) = field(line) {
            out.extend_from_slice(before);
            if let Some(rest) = rest {
                out.extend([FIELD, &rest].concat());
            }
            out.extend_from_slice(behind);
        } else {
            out.extend_from_slice(line);
        }
    }
    out.into()
}

/// An item with our field at its end: what stands before it, what is left of it, what follows.
type Item<'a> = (&'a [u8], Option<Vec<u8>>, &'a [u8]);

fn field(line: &[u8]) -> Option<Item<'_>> {
    let from = line.len().saturating_sub(BYTES_MAX);
    let at = line[from..].windows(FIELD.len()).rposition(|part| part == FIELD)? + from;
    let text = &line[at + FIELD.len()..];
    // Of what a model says, even of a call's own JSON, more would follow than the item's end.
    let end = text.iter().rposition(|byte| *byte == b'}')?;
    let rest = Remark::rest(&text[..end])?;
    Some((&line[..at], rest, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &'static str, expect: &str) {
        let found = without_cost(Bytes::from_static(text.as_bytes()));
        assert_eq!(found, expect.as_bytes(), "{text}");
    }

    #[test]
    fn what_it_cost_another_is_not_told_in_a_comment() {
        check("data: 1\n\n: ping\n\n", "data: 1\n\n: ping\n\n");
        check("data: 1\n\n: hearth {\"cost_usd\":\"1\"}\n\ndata: 2\n\n", "data: 1\n\ndata: 2\n\n");
        let cut = "data: 1\n\n: hearth {\"cost_usd\":\"1\",\"notice\":\"cut\"}\n\ndata: 2\n\n";
        check(cut, "data: 1\n\n: hearth {\"notice\":\"cut\"}\n\ndata: 2\n\n");
        check("data: \": hearth \"\n\n", "data: \": hearth \"\n\n");
    }

    #[test]
    fn nor_beside_the_usage() {
        check(
            "data: {\"usage\":{},\"hearth\":{\"cost_usd\":\"1\"}}\n\n",
            "data: {\"usage\":{}}\n\n",
        );
        check(
            "data: {\"usage\":{},\"hearth\":{\"cost_usd\":\"1\",\"notice\":\"cut\"}}\r\n\r\n",
            "data: {\"usage\":{},\"hearth\":{\"notice\":\"cut\"}}\r\n\r\n",
        );
        check(
            "[{\"a\":1},\r\n{\"b\":2,\"hearth\":{\"cost_usd\":\"1\"}}]",
            "[{\"a\":1},\r\n{\"b\":2}]",
        );
        // As it comes to somebody who follows an array.
        check(",\r\n{\"b\":2,\"hearth\":{\"cost_usd\":\"1\"}}]", ",\r\n{\"b\":2}]");
        for said in [
            // A call of a model that has such a word itself.
            "data: {\"args\":{\"a\":1,\"hearth\":{\"cost_usd\":\"1\"}}}\n\n",
            "data: {\"a\":1,\"hearth\":{\"warm\":true}}\n\n",
            "data: {\"text\":\",\\\"hearth\\\":{}\"}\n\n",
        ] {
            check(said, said);
        }
    }
}
