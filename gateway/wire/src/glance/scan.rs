//! A walk over JSON that somebody else has found valid: past most of its values without reading
//! them, and once over each byte. Bodies are megabytes, and what is wanted of them are a few words
//! at known places; a parser would unescape all texts on the way.
//!
//! What is no JSON makes no sense of it, and harms nothing: the walk goes forward and ends.

use std::borrow::Cow;

use memchr::memchr;

/// A place in a text.
pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    /// Before the text's value.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The first byte of the value at hand, which says what it is; 0 at the end.
    pub(super) fn peek(&mut self) -> u8 {
        while let Some(byte) = self.text.as_bytes().get(self.at) {
            if !b" \t\n\r".contains(byte) {
                return *byte;
            }
            self.at += 1;
        }
        0
    }

    /// Goes past the value at hand: the value as it was written.
    pub(super) fn value(&mut self) -> &'a str {
        let first = self.peek();
        let start = self.at;
        match first {
            b'"' => self.string(),
            b'{' | b'[' => self.nested(),
            _ => {
                let rest = &self.text.as_bytes()[start..];
                let ends = |byte: &u8| b",]} \t\n\r".contains(byte);
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Goes past the value at hand: a text between its quotes, its escapes as they are.
    pub(super) fn inside(&mut self) -> &'a str {
        let value = self.value().strip_prefix('"');
        value.and_then(|value| value.strip_suffix('"')).unwrap_or_default()
    }

    /// Goes past the value at hand: what it says, if it is a text.
    pub(super) fn words(&mut self) -> Option<Cow<'a, str>> {
        let is_text = self.peek() == b'"';
        let value = self.value();
        is_text.then(|| plain(value))
    }

    /// Goes through an object. `each` has to go past the value of the field that it is told.
    pub(super) fn fields(&mut self, mut each: impl FnMut(&mut Self, Cow<'a, str>)) {
        if self.peek() != b'{' {
            self.value();
            return;
        }
        self.step();
        while self.peek() == b'"' {
            let name = plain(self.value());
            if self.peek() == b':' {
                self.step();
            }
            each(self, name);
            if self.peek() != b',' {
                break;
            }
            self.step();
        }
        self.peek();
        self.step();
    }

    /// Goes through a list; what is none is its only item. `each` has to go past the item.
    pub(super) fn items(&mut self, mut each: impl FnMut(&mut Self)) {
        if self.peek() != b'[' {
            each(self);
            return;
        }
        self.step();
        while !matches!(self.peek(), b']' | 0) {
            each(self);
            if self.peek() != b',' {
                break;
            }
            self.step();
        }
        self.step();
    }

    fn step(&mut self) {
        self.at = self.text.len().min(self.at + 1);
    }

    /// Past a text. What stands before a quote says whether it is one of the text's own; each of
    /// these backslashes belongs to one quote, so that none is looked at twice.
    fn string(&mut self) {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut from = start;
        while let Some(found) = memchr(b'"', &bytes[from..]) {
            let quote = from + found;
            from = quote + 1;
            let escapes = bytes[start..quote].iter().rev().take_while(|byte| **byte == b'\\');
            if escapes.count() % 2 == 0 {
                self.at = from;
                return;
            }
        }
        self.at = bytes.len();
    }

    /// Past an object or a list, however deep: a caller says how deep it is.
    fn nested(&mut self) {
        let bytes = self.text.as_bytes();
        let mut open = 0_usize;
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'"' => {
                    self.string();
                    continue;
                }
                b'{' | b'[' => open += 1,
                b'}' | b']' => open -= 1,
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return;
            }
        }
    }
}

/// A text without its quotes and escapes.
fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\\') {
        // Half of a surrogate pair is nothing that anybody would look for.
        return Cow::Owned(serde_json::from_str(text).unwrap_or_default());
    }
    Cow::Borrowed(text.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All names of objects and all texts, in their order.
    fn told(scan: &mut Scan<'_>, out: &mut Vec<String>) {
        match scan.peek() {
            b'{' => scan.fields(|scan, name| {
                out.push(format!("{name}:"));
                told(scan, out);
            }),
            b'[' => scan.items(|scan| told(scan, out)),
            b'"' => out.extend(scan.words().map(Cow::into_owned)),
            _ => out.push(scan.value().to_owned()),
        }
    }

    #[test]
    fn each_value_is_met_once() {
        let check = |text: &str, expect: &[&str]| {
            let mut out = Vec::new();
            let mut scan = Scan::new(text);
            told(&mut scan, &mut out);
            assert_eq!(out, expect, "{text}");
            assert_eq!(scan.peek(), 0, "{text}");
        };
        check(
            r#" { "a" : [ 1 , "b" , { } , [ ] ] , "c" : null } "#,
            &["a:", "1", "b", "c:", "null"],
        );
        check(r#"["\"a\"","\\","\\\"","é"]"#, &["\"a\"", "\\", "\\\"", "é"]);
        check(r#"{"n\u0061me":-1.5e3,"":true}"#, &["name:", "-1.5e3", ":", "true"]);
    }

    #[test]
    fn values_are_passed_as_they_are() {
        let body = r#"{"a":{"b":["}]\"",{"c":[]}]},"d":"\\","e":7 ,"f":[ ] }"#;
        let mut values = Vec::new();
        Scan::new(body).fields(|scan, _| values.push(scan.value()));
        assert_eq!(values, [r#"{"b":["}]\"",{"c":[]}]}"#, r#""\\""#, "7", "[ ]"]);
    }

    #[test]
    fn what_is_no_json_ends() {
        for text in [
            "", "{", "[", "\"", "{\"a", "{\"a\"", "{\"a\":", "[,,", "[}", "{]", "[é", "\"\\", "}",
            ":",
        ] {
            told(&mut Scan::new(text), &mut Vec::new());
            Scan::new(text).value();
        }
    }

    /// Seconds, if what was passed were looked at again.
    #[test]
    fn long_texts_and_deep_lists_take_one_pass() {
        let many = 1 << 20;
        for text in [
            format!("\"{}\"", "\\\"".repeat(many)),
            format!("\"{}\"", "\\\\".repeat(many)),
            format!("{}{}", "[".repeat(many), "]".repeat(many)),
            "[".repeat(many),
        ] {
            assert_eq!(Scan::new(&text).value().len(), text.len());
        }
    }
}
