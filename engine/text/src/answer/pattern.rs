//! What a format writes around names and arguments, as something to match a stream with.
//!
//! A match always starts where the stream is known to be, and the streams are short (a call's
//! head), so each unit more is matched from the start again.

use crate::grammar::watch::SPECIAL;

/// Longest name of a function. OpenAI allows 64.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// Digits of a call's number at most.
const INDEX_DIGITS_MAX: usize = 9;

/// One after the other.
pub(super) type Pattern = Vec<Element>;

#[derive(Debug, Clone)]
pub(super) enum Element {
    /// These bytes.
    Bytes(Vec<u8>),
    /// White space, or none.
    Space,
    /// A number.
    Index,
    /// A function's name.
    Name,
    /// The first character of arguments, by what it may be. It comes last.
    First(fn(char) -> bool),
}

/// How much of a pattern a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit<'a> {
    No,
    /// A beginning.
    Partly,
    /// All, with the name in it; empty where the pattern has none.
    Whole(&'a [u8]),
}

/// Matches a stream with a pattern.
pub(super) fn fit<'a>(pattern: &[Element], stream: &'a [u8]) -> Fit<'a> {
    let Some((first, rest)) = pattern.split_first() else {
        return if stream.is_empty() { Fit::Whole(&[]) } else { Fit::No };
    };
    match first {
        Element::Bytes(bytes) => match stream.strip_prefix(&bytes[..]) {
            Some(stream) => fit(rest, stream),
            None if bytes.starts_with(stream) => Fit::Partly,
            None => Fit::No,
        },
        Element::Space => fit(rest, stream.trim_ascii_start()),
        Element::Index => match stream.iter().take_while(|b| b.is_ascii_digit()).count() {
            digits if digits > INDEX_DIGITS_MAX => Fit::No,
            digits if digits == stream.len() => Fit::Partly,
            0 => Fit::No,
            digits => fit(rest, &stream[digits..]),
        },
        Element::Name => fit_name(rest, stream),
        Element::First(may) => match std::str::from_utf8(stream) {
            Ok("") => Fit::Partly,
            Ok(text) if text.chars().all(may) => Fit::Whole(&[]),
            _ => Fit::No,
        },
    }
}

/// The shortest name that what comes behind it fits to.
fn fit_name<'a>(rest: &[Element], stream: &'a [u8]) -> Fit<'a> {
    let most = stream.iter().take(NAME_BYTES_MAX).take_while(|b| is_of_name(**b)).count();
    let mut best = if most == stream.len() { Fit::Partly } else { Fit::No };
    for end in 1..=most {
        match fit(rest, &stream[end..]) {
            Fit::Whole(_) => return Fit::Whole(&stream[..end]),
            Fit::Partly => best = Fit::Partly,
            Fit::No => {}
        }
    }
    best
}

/// Names are words; what formats write around them is not of these.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.:/$@".contains(&byte) || (0x80..SPECIAL).contains(&byte)
}

/// Just these bytes.
pub(super) fn exact(stream: &[u8]) -> Pattern {
    let some = (!stream.is_empty()).then(|| Element::Bytes(stream.to_vec()));
    some.into_iter().collect()
}

/// These bytes with any white space where JSON, or they themselves, have some. None is asked for
/// at either end.
pub(super) fn loose(stream: &[u8]) -> Pattern {
    let mut out: Pattern = Vec::new();
    let mut bytes = Vec::new();
    let mut space = false;
    let mut rest = stream;
    while let Some(&byte) = rest.first() {
        let length = if byte == SPECIAL { rest.len().min(5) } else { 1 };
        let (unit, after) = rest.split_at(length);
        rest = after;
        let joint = b"{}[],:;".contains(&byte);
        space |= joint || byte.is_ascii_whitespace();
        if byte.is_ascii_whitespace() {
            continue;
        }
        if std::mem::take(&mut space) {
            out.extend(exact(&std::mem::take(&mut bytes)));
            out.push(Element::Space);
        }
        bytes.extend_from_slice(unit);
        space = joint;
    }
    out.extend(exact(&bytes));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each longer beginning of `stream` is, shortest first, as `-`, `.` and the name.
    fn check(pattern: &[Element], stream: &str, expect: &str) {
        let fits = (1..=stream.len()).map(|end| match fit(pattern, &stream.as_bytes()[..end]) {
            Fit::No => "-".to_owned(),
            Fit::Partly => ".".to_owned(),
            Fit::Whole(name) => format!("({})", String::from_utf8_lossy(name)),
        });
        assert_eq!(fits.collect::<String>(), expect, "{stream}");
    }

    #[test]
    fn names_may_hold_what_ends_them() {
        let mut pattern = exact(b"<");
        pattern.extend([Element::Name, Element::Bytes(b":".to_vec()), Element::Index]);
        pattern.push(Element::Bytes(b">".to_vec()));
        check(&pattern, "<ab:12>x", "......(ab)-");
        check(&pattern, "<a:b:1>", "......(a:b)");
        check(&pattern, "<:1>", "..--".replace("--", ".-").as_str());
        check(&pattern, "<a:>", "...-");
        check(&pattern, "<a b", "..--");
    }

    #[test]
    fn white_space_is_free_in_json() {
        let pattern = loose(b"]\n```");
        check(&pattern, "]```", "...()");
        check(&pattern, " ] \n```", "......()");
        check(&pattern, "]``x", "...-");
        let pattern = loose(b"{\"a b\": [");
        check(&pattern, "{ \"a b\" :[", ".........()");
    }

    #[test]
    fn special_tokens_are_whole() {
        let pattern = loose(&[b']', SPECIAL, b'{', b' ', 0, 0, b'x']);
        assert_eq!(fit(&pattern, &[b']', b' ', SPECIAL, b'{', b' ', 0, 0]), Fit::Partly);
        assert_eq!(fit(&pattern, &[b']', SPECIAL, b'{', b' ', 0, 0, b'x']), Fit::Whole(&[]));
        assert_eq!(fit(&pattern, &[b']', SPECIAL, b'{', 0]), Fit::No);
    }
}
