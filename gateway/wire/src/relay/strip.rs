//! Usage that a caller did not ask for, cut out of an event that says something else besides. Every
//! provider is asked for it, and not all of them tell it in an event of its own.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Writes an event without the usage in it.
pub(super) fn without_usage(event: &[u8], out: &mut Vec<u8>) {
    let (from, to) = usage_at(event).unwrap_or_default();
    out.extend_from_slice(&event[..from]);
    out.extend_from_slice(&event[to..]);
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// Where the field stands, with a comma that belongs to it.
fn usage_at(event: &[u8]) -> Option<(usize, usize)> {
    let chunk: Chunk<'_> = serde_json::from_slice(super::data(event).trim_ascii()).ok()?;
    let value = chunk.usage?.get();
    // A raw value is a part of the text that it was read from.
    let start = value.as_ptr().addr() - event.as_ptr().addr();
    let end = start + value.len();
    let name = event[..start].trim_ascii_end().strip_suffix(b":")?.trim_ascii_end();
    let before = name.strip_suffix(b"\"usage\"")?.trim_ascii_end();
    if let Some(before) = before.strip_suffix(b",") {
        return Some((before.len(), end));
    }
    let after = event[end..].trim_ascii_start();
    let after = after.strip_prefix(b",").unwrap_or(after);
    Some((before.len(), event.len() - after.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(event: &str, expect: &str) {
        let mut out = Vec::new();
        without_usage(event.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expect);
    }

    #[test]
    fn the_field_goes_wherever_it_stands() {
        check("data: {\"a\":1,\"usage\":{\"b\":{}}}\n\n", "data: {\"a\":1}\n\n");
        check(
            "data: {\"a\":1 , \"usage\" : {\"b\":2} ,\"c\":3}\n\n",
            "data: {\"a\":1  ,\"c\":3}\n\n",
        );
        check("data: {\"usage\":{},\"c\":3}\r\n\r\n", "data: {\"c\":3}\r\n\r\n");
        check("data:{ \"usage\":{} }\n\n", "data:{}\n\n");
    }

    #[test]
    fn nothing_else_goes() {
        for event in [
            "data: {\"choices\":[{\"delta\":{\"content\":\",\\\"usage\\\":{}\"}}]}\n\n",
            "data: {\"inner\":{\"usage\":{\"a\":1}}}\n\n",
            "data: {\"usage\":{\"a\":1}\n\n",
            "data: [DONE]\n\n",
            ": ping\n\n",
        ] {
            check(event, event);
        }
    }
}
