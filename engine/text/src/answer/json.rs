//! JSON as it comes: where a value ends, and text as it stands in a string.

use std::fmt::Write;

/// Finds a value's end without keeping any of it. Brackets are counted, not matched: what is
/// inside is the caller's to check.
#[derive(Debug, Clone)]
pub(super) struct Scan {
    depth: u64,
    string: bool,
    escaped: bool,
}

/// Where a character stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the value, which goes on.
    Inside,
    /// It is the value's last.
    Last,
    /// Behind the value.
    Behind,
}

impl Scan {
    /// Of a value that begins with this character, which is to be pushed too; `None`: none does.
    pub(super) fn begin(first: char) -> Option<Self> {
        let may = matches!(first, '{' | '[' | '"' | '-') || first.is_ascii_alphanumeric();
        may.then(Self::value)
    }

    /// Of a value that comes now.
    pub(super) fn value() -> Self {
        Self { depth: 0, string: false, escaped: false }
    }

    pub(super) fn push(&mut self, character: char) -> Place {
        if self.string {
            match character {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => {
                    self.string = false;
                    return if self.depth == 0 { Place::Last } else { Place::Inside };
                }
                _ => {}
            }
            return Place::Inside;
        }
        match character {
            '"' => self.string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' if self.depth > 0 => {
                self.depth -= 1;
                if self.depth == 0 {
                    return Place::Last;
                }
            }
            _ if self.depth > 0 => {}
            ',' | '}' | ']' | ':' => return Place::Behind,
            _ if character.is_ascii_whitespace() => return Place::Behind,
            _ => {}
        }
        Place::Inside
    }
}

/// A character as it stands in a JSON string.
pub(super) fn escape(character: char, out: &mut String) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\0'..='\x1f' => {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(character));
        }
        _ => out.push(character),
    }
}

/// A text as a JSON string.
pub(super) fn string(text: &str) -> String {
    let mut out = String::from("\"");
    text.chars().for_each(|character| escape(character, &mut out));
    out.push('"');
    out
}

/// Whether a text is JSON of another kind than a string.
pub(super) fn is_no_string(text: &str) -> bool {
    !text.starts_with('"') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many characters the value has that `text` begins with.
    fn check(text: &str, expect: Option<usize>) {
        let mut scan = Scan::begin(text.chars().next().expect("a character")).expect("a value");
        let end = text.chars().enumerate().find_map(|(at, character)| match scan.push(character) {
            Place::Inside => None,
            Place::Last => Some(at + 1),
            Place::Behind => Some(at),
        });
        assert_eq!(end, expect, "{text}");
    }

    #[test]
    fn values_end_where_they_end() {
        check("{}}", Some(2));
        check(r#"{"a": {"b": "}\"}\\"}, "c": [1]} "#, Some(32));
        check(r#""a\"b" "#, Some(6));
        check(r#""a\\" "#, Some(5));
        check("12, ", Some(2));
        check("null}", Some(4));
        check("[[1], [", None);
        check("\"a\\\"", None);
        check("-1", None);
    }

    #[test]
    fn text_becomes_a_string() {
        for text in ["", "a\"\\\n\r\t\u{0}\u{1f}\u{7f}é😀/", "\u{8}\u{c}"] {
            let back: String = serde_json::from_str(&string(text)).expect("a string");
            assert_eq!(back, text);
        }
    }

    #[test]
    fn kinds_are_told_apart() {
        for (text, expect) in [
            ("5", true),
            ("null", true),
            ("[1, {\"a\": \"b\"}]", true),
            ("\"a\"", false),
            ("a", false),
            ("", false),
            ("5 6", false),
            ("True", false),
        ] {
            assert_eq!(is_no_string(text), expect, "{text}");
        }
    }
}
