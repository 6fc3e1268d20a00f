//! Grammars in EBNF as llama.cpp and xgrammar write them (`root ::= ...`), rewritten in Lark.
//!
//! Names, literals, classes of characters, groups, alternatives, `*`, `+`, `?`, `{m,n}` and
//! comments. Each class is a lexeme of one character, so repetitions stay with the parser and no
//! greedy lexeme eats what belongs to the next one. Format: llama.cpp, grammars/README.md.

use std::collections::HashMap;
use std::fmt::Write as _;

/// Alternatives and groups inside each other; the reader calls itself for each.
const DEPTH_MAX: usize = 64;

/// Repetitions asked for by number.
const REPEAT_MAX: u32 = 4096;

/// Whether a grammar is written in EBNF rather than in Lark.
#[must_use]
pub fn is_ebnf(source: &str) -> bool {
    source.lines().any(|line| {
        let rule = line.trim_start().split_once("::=");
        rule.is_some_and(|(name, _)| !name.trim().is_empty() && name.trim().chars().all(is_name))
    })
}

/// The same grammar in Lark.
///
/// # Errors
/// What is wrong, with its line.
pub fn to_lark(source: &str) -> Result<String, String> {
    let mut reader = Reader { rest: source, source, names: HashMap::new(), defined: Vec::new() };
    let mut out = String::new();
    reader.blanks(true);
    while !reader.rest.is_empty() {
        let name = reader.name().ok_or_else(|| reader.wrong("a rule's name"))?;
        reader.blanks(true);
        if !reader.take("::=") {
            return Err(reader.wrong("'::='"));
        }
        let known = reader.rule(&name);
        if reader.defined.contains(&known) {
            return Err(format!("rule '{name}' is there twice"));
        }
        reader.blanks(true);
        let body = reader.alternatives(0)?;
        reader.blanks(true);
        let _ = writeln!(out, "{known}: {body}");
        reader.defined.push(known);
    }
    if !reader.names.contains_key("root") || !reader.defined.iter().any(|name| name == "start") {
        return Err("there is no rule 'root'".to_owned());
    }
    let missing = reader.names.iter().filter(|(_, known)| !reader.defined.contains(known));
    match missing.map(|(name, _)| name).min() {
        Some(name) => Err(format!("rule '{name}' is not defined")),
        None => Ok(out),
    }
}

struct Reader<'a> {
    rest: &'a str,
    source: &'a str,
    /// Names as they are written and as they are called in Lark.
    names: HashMap<String, String>,
    defined: Vec<String>,
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl Reader<'_> {
    fn wrong(&self, wanted: &str) -> String {
        let read = &self.source[..self.source.len() - self.rest.len()];
        let line = read.matches('\n').count() + 1;
        let found: String = self.rest.chars().take_while(|c| *c != '\n').take(20).collect();
        format!("line {line}: expected {wanted}, found '{found}'")
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.rest.strip_prefix(text);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    /// Skips blanks and comments; line ends only where a rule may go on.
    fn blanks(&mut self, lines: bool) {
        loop {
            let before = self.rest.len();
            self.rest = self.rest.trim_start_matches([' ', '\t', '\r']);
            if self.rest.starts_with('#') {
                self.rest = &self.rest[self.rest.find('\n').unwrap_or(self.rest.len())..];
            }
            if lines {
                self.rest = self.rest.trim_start_matches('\n');
            }
            if self.rest.len() == before {
                return;
            }
        }
    }

    fn name(&mut self) -> Option<String> {
        let end = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!name.is_empty()).then(|| name.to_owned())
    }

    fn rule(&mut self, name: &str) -> String {
        let number = self.names.len();
        let known = self.names.entry(name.to_owned());
        let fresh = || if name == "root" { "start".to_owned() } else { format!("r{number}") };
        known.or_insert_with(fresh).clone()
    }

    fn alternatives(&mut self, depth: usize) -> Result<String, String> {
        if depth > DEPTH_MAX {
            return Err(format!("groups lie more than {DEPTH_MAX} deep"));
        }
        let mut all = vec![self.sequence(depth)?];
        loop {
            // A rule's next alternative may stand on the next line.
            let before = self.rest;
            self.blanks(true);
            if !self.take("|") {
                self.rest = before;
                break;
            }
            self.blanks(true);
            all.push(self.sequence(depth)?);
        }
        Ok(all.join(" | "))
    }

    fn sequence(&mut self, depth: usize) -> Result<String, String> {
        let mut items = Vec::new();
        loop {
            // Inside a group lines may end anywhere; outside, an item on the next line belongs to
            // this rule unless it is the next rule's name.
            let before = self.rest;
            self.blanks(true);
            if depth == 0 && self.at_rule() {
                self.rest = before;
                break;
            }
            let Some(item) = self.item(depth)? else {
                self.rest = before;
                break;
            };
            items.push(self.repeated(item)?);
        }
        Ok(if items.is_empty() { "\"\"".to_owned() } else { items.join(" ") })
    }

    /// Whether a rule begins here.
    fn at_rule(&self) -> bool {
        let after = self.rest.trim_start_matches(is_name);
        after.len() < self.rest.len() && after.trim_start().starts_with("::=")
    }

    fn item(&mut self, depth: usize) -> Result<Option<String>, String> {
        match self.rest.chars().next() {
            Some('"') => self.literal().map(Some),
            Some('[') => self.class().map(Some),
            Some('.') => {
                self.rest = &self.rest[1..];
                Ok(Some("/(?s:.)/".to_owned()))
            }
            Some('(') => {
                self.rest = &self.rest[1..];
                self.blanks(true);
                let inside = self.alternatives(depth + 1)?;
                self.blanks(true);
                if self.take(")") {
                    Ok(Some(format!("({inside})")))
                } else {
                    Err(self.wrong("')'"))
                }
            }
            Some(c) if is_name(c) => {
                let name = self.name().unwrap_or_default();
                Ok(Some(self.rule(&name)))
            }
            _ => Ok(None),
        }
    }

    fn repeated(&mut self, mut item: String) -> Result<String, String> {
        loop {
            match self.rest.chars().next() {
                Some(mark @ ('*' | '+' | '?')) => {
                    self.rest = &self.rest[1..];
                    item = format!("({item}){mark}");
                }
                Some('{') => {
                    let end = self.rest.find('}').ok_or_else(|| self.wrong("'}'"))?;
                    let bounds = self.bounds(&self.rest[1..end])?;
                    self.rest = &self.rest[end + 1..];
                    item = match bounds {
                        (least, Some(most)) => format!("({item}){{{least},{most}}}"),
                        (least, None) => format!("({item}){{{least},}}"),
                    };
                }
                _ => return Ok(item),
            }
        }
    }

    fn bounds(&self, text: &str) -> Result<(u32, Option<u32>), String> {
        let number = |text: &str| {
            let number = text.trim().parse().ok().filter(|number| *number <= REPEAT_MAX);
            number.ok_or_else(|| self.wrong(&format!("a number up to {REPEAT_MAX}")))
        };
        match text.split_once(',') {
            None => number(text).map(|n| (n, Some(n))),
            Some((least, most)) if most.trim().is_empty() => number(least).map(|n| (n, None)),
            Some((least, most)) => {
                let (least, most) = (number(least)?, number(most)?);
                let order = least <= most;
                order.then_some((least, Some(most))).ok_or_else(|| self.wrong("a smaller number"))
            }
        }
    }

    fn literal(&mut self) -> Result<String, String> {
        self.rest = &self.rest[1..];
        let mut text = String::new();
        loop {
            match self.character()? {
                ('"', false) => break,
                (c, _) => text.push(c),
            }
        }
        Ok(super::lark::string(&text))
    }

    /// `[^a-z0-9]` as a regular expression of one character.
    fn class(&mut self) -> Result<String, String> {
        self.rest = &self.rest[1..];
        let not = if self.take("^") { "^" } else { "" };
        let mut inside = String::new();
        loop {
            match self.character()? {
                (']', false) => break,
                ('-', false) if !inside.is_empty() && !self.rest.starts_with(']') => {
                    inside.push('-');
                }
                (c, _) => {
                    let _ = write!(inside, "\\u{{{:x}}}", u32::from(c));
                }
            }
        }
        if inside.is_empty() {
            return Err(self.wrong("a character in '[]'"));
        }
        Ok(format!("/[{not}{inside}]/"))
    }

    /// The next character, and whether it was escaped.
    fn character(&mut self) -> Result<(char, bool), String> {
        let mut chars = self.rest.chars();
        let first = chars.next().ok_or_else(|| self.wrong("the end of a literal"))?;
        if first != '\\' {
            self.rest = chars.as_str();
            return Ok((first, false));
        }
        let letter = chars.next().ok_or_else(|| self.wrong("an escape"))?;
        let digits = match letter {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let escaped = match letter {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'x' | 'u' | 'U' => {
                let code =
                    chars.as_str().get(..digits).and_then(|d| u32::from_str_radix(d, 16).ok());
                let code = code.and_then(char::from_u32);
                code.ok_or_else(|| self.wrong("a character's code"))?
            }
            other => other,
        };
        self.rest = chars.as_str().get(digits..).unwrap_or_default();
        Ok((escaped, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expect: Result<&str, &str>) {
        let got = to_lark(source);
        match expect {
            Ok(lark) => assert_eq!(got.as_deref().map(str::trim_end), Ok(lark), "{source}"),
            Err(why) => assert!(got.as_ref().is_err_and(|e| e.contains(why)), "{source}: {got:?}"),
        }
    }

    #[test]
    fn rules_become_lark() {
        check("root ::= \"a\"", Ok("start: \"a\""));
        check("root ::= \"a\" |\n  \"b\" # c\n", Ok("start: \"a\" | \"b\""));
        check(
            "root ::= Num (\", \" Num)*\nNum ::= [0-9]+",
            Ok("start: r1 ((\", \" r1))*\nr1: (/[\\u{30}-\\u{39}]/)+"),
        );
        check("root ::= [^\\]\\n-]{2,3}", Ok("start: (/[^\\u{5d}\\u{a}\\u{2d}]/){2,3}"));
        check("root ::= \"\\x41\\u00e9\\\"\" .?", Ok("start: \"Aé\\\"\" (/(?s:.)/)?"));
    }

    #[test]
    fn wrong_rules_are_named() {
        check("a ::= \"b\"", Err("no rule 'root'"));
        check("root ::= b", Err("rule 'b' is not defined"));
        check("root ::= \"a\"\nroot ::= \"b\"", Err("twice"));
        check("root ::= (\"a\"", Err("line 1: expected ')'"));
        check("root ::= \"a", Err("the end of a literal"));
        check("root ::= \"a\"{9999999}", Err("a number up to"));
        check(&format!("root ::= {}", "(".repeat(100_000)), Err("deep"));
        check("root = \"a\"", Err("expected '::='"));
        check("root ::= []", Err("a character"));
    }

    #[test]
    fn the_kinds_are_told_apart() {
        assert!(is_ebnf("# numbers\nroot ::= [0-9]"));
        assert!(!is_ebnf("start: \"::=\" \"x ::= y\""));
    }
}
