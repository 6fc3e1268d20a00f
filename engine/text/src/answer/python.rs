//! Arguments in the syntax of Python, `key=value, key=value`: they become a JSON object. A value
//! is held back until it is complete.

use std::iter::Peekable;
use std::str::Chars;

use super::json::{escape, string};
use super::object::Step;
use super::output::Output;
use super::stream::{Held, Unit};

/// Lists in lists at most.
const DEPTH_MAX: u32 = 64;

/// Where the arguments stand.
#[derive(Debug, Clone)]
pub(super) struct Python {
    /// Arguments so far.
    count: usize,
    key: String,
    at: At,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Key,
    Value {
        /// In a string with this quote.
        quote: Option<char>,
        escaped: bool,
        /// Brackets that are open.
        depth: u64,
        /// Where it begins in what is held.
        from: usize,
    },
}

impl Python {
    pub(super) fn new() -> Self {
        Self { count: 0, key: String::new(), at: At::Key }
    }

    /// Takes a unit and adds it to `held`; clears `held` of what is given out. Arguments are over
    /// before the bracket that closes them.
    pub(super) fn step(&mut self, unit: Unit, held: &mut Held, out: &mut Output<'_>) -> Step {
        held.push(unit);
        let Some(character) = unit.character() else { return Step::No };
        match &mut self.at {
            At::Key => match character {
                '=' if !self.key.is_empty() => {
                    let from = held.bytes().len();
                    self.at = At::Value { quote: None, escaped: false, depth: 0, from };
                }
                ')' if self.key.is_empty() && self.count > 0 => return over(held, out),
                _ if character.is_alphanumeric() || character == '_' => self.key.push(character),
                _ if character.is_ascii_whitespace() && self.key.is_empty() => {}
                _ => return Step::No,
            },
            At::Value { quote: Some(end), escaped, .. } => match character {
                _ if *escaped => *escaped = false,
                '\\' => *escaped = true,
                _ if character == *end => {
                    if let At::Value { quote, .. } = &mut self.at {
                        *quote = None;
                    }
                }
                _ => {}
            },
            At::Value { quote, depth, from, .. } => match character {
                '"' | '\'' => *quote = Some(character),
                '(' | '[' | '{' => *depth += 1,
                ')' | ']' | '}' if *depth > 0 => *depth -= 1,
                ',' | ')' if *depth == 0 => {
                    let from = *from;
                    return self.value(unit, from, held, out);
                }
                ']' | '}' => return Step::No,
                _ => {}
            },
        }
        Step::More
    }

    /// A value is complete; the unit stands behind it.
    fn value(&mut self, unit: Unit, from: usize, held: &mut Held, out: &mut Output<'_>) -> Step {
        let text = held.text(from);
        let mut json = String::new();
        let value = &text[..text.len() - 1];
        if Literals::new(value).all(&mut json).is_none() {
            return Step::No;
        }
        self.give(&json, out);
        held.clear();
        self.at = At::Key;
        if unit == Unit::Text(')') { over(held, out) } else { Step::More }
    }

    fn give(&mut self, json: &str, out: &mut Output<'_>) {
        let lead = if self.count == 0 { "{" } else { ", " };
        out.arguments(&format!("{lead}{}: {json}", string(&self.key)));
        self.count += 1;
        self.key.clear();
    }

    /// The answer ends here: gives out what came of a value.
    pub(super) fn cut(&mut self, held: &mut Held, out: &mut Output<'_>) {
        if let At::Value { from, .. } = self.at {
            let mut json = String::new();
            let _ = Literals::new(&held.text(from)).all(&mut json);
            self.give(&json, out);
        }
        held.clear();
    }
}

/// All arguments are complete.
fn over(held: &mut Held, out: &mut Output<'_>) -> Step {
    out.arguments("}");
    out.end_call();
    held.clear();
    Step::Before
}

/// Turns Python's literals into JSON: strings, numbers, `True`, `False`, `None`, lists, tuples and
/// dicts with strings as keys. JSON's own constants are taken as well.
struct Literals<'a> {
    rest: Peekable<Chars<'a>>,
}

impl<'a> Literals<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text.chars().peekable() }
    }

    /// One literal and nothing else; `None`: it is not, and `out` has what could be read of it.
    fn all(&mut self, out: &mut String) -> Option<()> {
        self.value(out, DEPTH_MAX)?;
        self.space();
        self.rest.peek().is_none().then_some(())
    }

    fn space(&mut self) {
        while self.rest.next_if(char::is_ascii_whitespace).is_some() {}
    }

    fn value(&mut self, out: &mut String, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        self.space();
        match *self.rest.peek()? {
            '"' | '\'' => self.string(out),
            '[' => self.list(out, depth, ']'),
            '(' => self.list(out, depth, ')'),
            '{' => self.dict(out, depth),
            _ => self.word(out),
        }
    }

    /// A list or a tuple. One value in parentheses is that value.
    fn list(&mut self, out: &mut String, depth: u32, close: char) -> Option<()> {
        self.rest.next();
        let from = out.len();
        out.push('[');
        let mut count = 0;
        let mut comma = true;
        loop {
            self.space();
            if self.rest.next_if_eq(&close).is_some() {
                break;
            }
            if !std::mem::take(&mut comma) {
                return None;
            }
            out.push_str(if count > 0 { ", " } else { "" });
            self.value(out, depth)?;
            count += 1;
            self.space();
            comma = self.rest.next_if_eq(&',').is_some();
        }
        if close == ')' && count == 1 && !comma {
            out.remove(from);
        } else {
            out.push(']');
        }
        (count > 0 || comma).then_some(())
    }

    fn dict(&mut self, out: &mut String, depth: u32) -> Option<()> {
        self.rest.next();
        out.push('{');
        let mut count = 0;
        let mut comma = true;
        loop {
            self.space();
            if self.rest.next_if_eq(&'}').is_some() {
                break;
            }
            if !std::mem::take(&mut comma) {
                return None;
            }
            out.push_str(if count > 0 { ", " } else { "" });
            self.string(out)?;
            self.space();
            self.rest.next_if_eq(&':')?;
            out.push_str(": ");
            self.value(out, depth)?;
            count += 1;
            self.space();
            comma = self.rest.next_if_eq(&',').is_some();
        }
        out.push('}');
        Some(())
    }

    fn word(&mut self, out: &mut String) -> Option<()> {
        let of_word = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let mut word = String::new();
        while let Some(character) = self.rest.next_if(of_word) {
            word.push(character);
        }
        let json = match word.as_str() {
            "True" | "true" => "true",
            "False" | "false" => "false",
            "None" | "null" => "null",
            number => {
                serde_json::from_str::<serde_json::Number>(number).ok()?;
                number
            }
        };
        out.push_str(json);
        Some(())
    }

    fn string(&mut self, out: &mut String) -> Option<()> {
        let quote = self.rest.next_if(|c| matches!(c, '"' | '\''))?;
        out.push('"');
        loop {
            match self.rest.next()? {
                c if c == quote => break,
                '\\' => self.escaped(out)?,
                c => escape(c, out),
            }
        }
        out.push('"');
        Some(())
    }

    /// Behind a backslash.
    fn escaped(&mut self, out: &mut String) -> Option<()> {
        let code = match self.rest.next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            c @ ('\\' | '\'' | '"' | '/') => c,
            'x' => char::from_u32(self.code(2)?)?,
            'u' => self.wide()?,
            'U' => char::from_u32(self.code(8)?)?,
            '\n' => return Some(()),
            // As Python has it: no escape, so both stand for themselves.
            c => {
                escape('\\', out);
                c
            }
        };
        escape(code, out);
        Some(())
    }

    /// Four digits, or a pair of surrogates.
    fn wide(&mut self) -> Option<char> {
        let high = self.code(4)?;
        if !(0xD800..0xDC00).contains(&high) {
            return char::from_u32(high);
        }
        self.rest.next_if_eq(&'\\')?;
        self.rest.next_if_eq(&'u')?;
        let low = self.code(4)?.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
        char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + low)
    }

    fn code(&mut self, digits: u32) -> Option<u32> {
        (0..digits).try_fold(0u32, |code, _| {
            let digit = self.rest.next()?.to_digit(16)?;
            code.checked_mul(16)?.checked_add(digit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<&str>) {
        let mut json = String::new();
        let whole = Literals::new(text).all(&mut json);
        assert_eq!(whole.map(|()| json.as_str()), expect, "{text}");
    }

    #[test]
    fn literals_become_json() {
        check("True", Some("true"));
        check("None ", Some("null"));
        check("-1.5e5", Some("-1.5e5"));
        check("'a\"b'", Some(r#""a\"b""#));
        check(r#""a\'b\x41\u00e9\ud83d\ude00\n""#, Some(r#""a'bAé😀\n""#));
        check(r"'\d\\'", Some(r#""\\d\\""#));
        check("[1, 'a', [], (1, 2), (1,), (1), ()]", Some(r#"[1, "a", [], [1, 2], [1], 1, []]"#));
        check("{'a': {'b': None}, \"c\": [True]}", Some(r#"{"a": {"b": null}, "c": [true]}"#));
        check("{}", Some("{}"));
        check("[1,]", Some("[1]"));
    }

    #[test]
    fn what_is_no_literal_is_refused() {
        for text in [
            "",
            "a",
            "1 2",
            "[1",
            "[1 2]",
            "{1: 2}",
            "{'a'}",
            "'a",
            r"'\x4'",
            r"'\ud800'",
            "0x10",
            "f'a'",
            "[,]",
            "1.",
            "--1",
            "nan",
        ] {
            check(text, None);
        }
        check(&"[".repeat(100_000), None);
    }

    #[test]
    fn what_is_cut_off_is_read_as_far_as_it_goes() {
        let mut json = String::new();
        assert!(Literals::new("['a', {'b': 'c").all(&mut json).is_none());
        assert_eq!(json, r#"["a", {"b": "c"#);
    }
}
