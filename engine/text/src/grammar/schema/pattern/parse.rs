//! Reads ECMA 262 patterns into a small tree.

use std::iter::Peekable;
use std::str::Chars;

use super::super::at_most;

/// Groups within groups.
const NESTING_MAX: usize = 32;
/// Counts of one repetition.
const COUNT_MAX: u32 = 5000;
/// Atoms of the whole pattern with its repetitions written out.
const ATOMS_MAX: u64 = 20_000;

/// White space and line ends of ECMA 262, as members of a class.
const SPACE: &str = concat!(
    r"\t\n\x0B\x0C\r \x{A0}\x{1680}\x{2000}-\x{200A}",
    r"\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}",
);

/// General categories, the properties that both sides name alike.
const CATEGORIES: [&str; 37] = [
    "L", "Lu", "Ll", "Lt", "LC", "Lm", "Lo", "M", "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P",
    "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S", "Sm", "Sc", "Sk", "So", "Z", "Zs", "Zl", "Zp",
    "C", "Cc", "Cf", "Co", "Cn",
];

/// A pattern.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    /// One character, in the compiler's syntax.
    One(String),
    Seq(Vec<Tree>),
    Alt(Vec<Tree>),
    Repeat(Box<Tree>, u32, Option<u32>),
    Start,
    End,
    /// What must match from here on.
    Ahead(Box<Tree>),
}

/// Reads a pattern.
pub(super) fn parse(pattern: &str) -> Result<Tree, String> {
    let mut parser = Parser { rest: pattern.chars().peekable(), nesting: 0 };
    let tree = parser.alternatives()?;
    if parser.rest.peek().is_some() {
        return Err("has a ')' without its '('".to_owned());
    }
    match tree.atoms() {
        Some(0..=ATOMS_MAX) => Ok(tree),
        _ => Err(format!("has repetitions whose size {}", at_most(ATOMS_MAX))),
    }
}

impl Tree {
    fn atoms(&self) -> Option<u64> {
        match self {
            Self::One(_) | Self::Start | Self::End => Some(1),
            Self::Seq(parts) | Self::Alt(parts) => {
                parts.iter().try_fold(1_u64, |sum, part| sum.checked_add(part.atoms()?))
            }
            Self::Repeat(part, min, max) => {
                part.atoms()?.checked_mul(u64::from(max.unwrap_or(*min).max(1)))
            }
            Self::Ahead(part) => part.atoms(),
        }
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    nesting: usize,
}

impl Parser<'_> {
    fn takes(&mut self, wanted: char) -> bool {
        self.rest.next_if_eq(&wanted).is_some()
    }

    fn alternatives(&mut self) -> Result<Tree, String> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(format!("has groups whose nesting {}", at_most(NESTING_MAX)));
        }
        let mut all = vec![self.sequence()?];
        while self.takes('|') {
            all.push(self.sequence()?);
        }
        self.nesting -= 1;
        Ok(if all.len() == 1 { all.remove(0) } else { Tree::Alt(all) })
    }

    fn sequence(&mut self) -> Result<Tree, String> {
        let mut all = Vec::new();
        while let Some(&next) = self.rest.peek() {
            if next == '|' || next == ')' {
                break;
            }
            let atom = self.atom()?;
            all.push(self.repeated(atom)?);
        }
        Ok(Tree::Seq(all))
    }

    fn atom(&mut self) -> Result<Tree, String> {
        match self.rest.next() {
            Some('^') => Ok(Tree::Start),
            Some('$') => Ok(Tree::End),
            Some('.') => Ok(Tree::One(r"[^\n\r\x{2028}\x{2029}\x00]".to_owned())),
            Some('[') => self.class(),
            Some('(') => self.group(),
            Some('\\') => self.escape(),
            Some(c @ ('*' | '+' | '?')) => Err(format!("has a '{c}' with nothing to repeat")),
            Some(c) => Ok(Tree::One(literal(c))),
            None => Ok(Tree::Seq(Vec::new())),
        }
    }

    fn group(&mut self) -> Result<Tree, String> {
        let mut ahead = false;
        if self.takes('?') {
            match self.rest.next() {
                Some(':') => {}
                Some('=') => ahead = true,
                Some('<') if !matches!(self.rest.peek(), Some('=' | '!')) => {
                    let name = self.rest.by_ref().take_while(|c| *c != '>');
                    if !name.into_iter().all(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                        return Err("has a group whose name is not one".to_owned());
                    }
                }
                Some('!') => return Err("has '(?!', which cannot be enforced".to_owned()),
                Some('<') => return Err("has a look-behind, which cannot be enforced".to_owned()),
                _ => return Err("has a '(?' that ECMA 262 does not know".to_owned()),
            }
        }
        let inner = self.alternatives()?;
        if !self.takes(')') {
            return Err("has a '(' without its ')'".to_owned());
        }
        Ok(if ahead { Tree::Ahead(Box::new(inner)) } else { inner })
    }

    fn repeated(&mut self, atom: Tree) -> Result<Tree, String> {
        let (min, max) = match self.rest.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => match self.counts()? {
                Some(counts) => counts,
                None => return Ok(atom),
            },
            _ => return Ok(atom),
        };
        if !matches!(self.rest.peek(), Some('{')) {
            self.rest.next();
        } else {
            self.rest.by_ref().take_while(|c| *c != '}').for_each(drop);
        }
        if matches!(atom, Tree::Start | Tree::End | Tree::Ahead(_)) {
            return Err("repeats what has no length".to_owned());
        }
        // A lazy repetition matches the same strings.
        self.takes('?');
        if matches!(self.rest.peek(), Some('*' | '+' | '?')) {
            return Err("repeats a repetition".to_owned());
        }
        Ok(Tree::Repeat(Box::new(atom), min, max))
    }

    /// Reads `{2,3}` without taking it. None: a brace that stands for itself.
    fn counts(&self) -> Result<Option<(u32, Option<u32>)>, String> {
        let inner: String = self.rest.clone().skip(1).take_while(|c| *c != '}').take(32).collect();
        let (min, max) = inner.split_once(',').unwrap_or((&inner, &inner));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let closed = self.rest.clone().nth(inner.chars().count() + 1) == Some('}');
        if !closed || min.is_empty() || !digits(min) || !digits(max) {
            return Ok(None);
        }
        let count = |text: &str| match text.parse::<u32>() {
            Ok(count) if count <= COUNT_MAX => Ok(count),
            _ => Err(format!("has a repetition whose count {}", at_most(COUNT_MAX))),
        };
        let min = count(min)?;
        let max = if max.is_empty() { None } else { Some(count(max)?) };
        if max.is_some_and(|max| max < min) {
            return Err("has a repetition whose counts are out of order".to_owned());
        }
        Ok(Some((min, max)))
    }

    /// Behind a backslash, outside a class.
    fn escape(&mut self) -> Result<Tree, String> {
        match self.rest.peek() {
            Some('b' | 'B') => Err("has a word boundary, which cannot be enforced".to_owned()),
            Some('1'..='9' | 'k') => {
                Err("has a back reference, which cannot be enforced".to_owned())
            }
            _ => Ok(Tree::One(match self.member()? {
                Member::One(c) => literal(c),
                Member::Many(set) => without_zero(&set),
            })),
        }
    }

    /// What an escape stands for, in a class or outside.
    fn member(&mut self) -> Result<Member, String> {
        let set = |text: &str| Ok(Member::Many(text.to_owned()));
        let c = self.rest.next().ok_or("ends in a backslash")?;
        let one = match c {
            'd' => return set("0-9"),
            'D' => return set("[^0-9]"),
            'w' => return set("0-9A-Za-z_"),
            'W' => return set("[^0-9A-Za-z_]"),
            's' => return set(SPACE),
            'S' => return set(&format!("[^{SPACE}]")),
            'p' | 'P' => return self.property(c),
            't' => '\t',
            'n' => '\n',
            'v' => '\x0B',
            'f' => '\x0C',
            'r' => '\r',
            '0' if !matches!(self.rest.peek(), Some('0'..='9')) => '\0',
            'c' => match self.rest.next() {
                Some(letter @ ('a'..='z' | 'A'..='Z')) => char::from(letter as u8 % 32),
                _ => return Err("has a '\\c' without its letter".to_owned()),
            },
            'x' => self.hex(2).and_then(char::from_u32).ok_or("has a bad '\\x'")?,
            'u' => self.unicode()?,
            _ if c.is_alphanumeric() => {
                return Err(format!("has '\\{c}', which ECMA 262 does not know"));
            }
            _ => c,
        };
        Ok(Member::One(one))
    }

    fn property(&mut self, letter: char) -> Result<Member, String> {
        let inner: String = if self.takes('{') {
            self.rest.by_ref().take_while(|c| *c != '}').take(64).collect()
        } else {
            String::new()
        };
        let name = ["General_Category=", "gc="].iter().find_map(|it| inner.strip_prefix(it));
        let name = name.unwrap_or(&inner);
        if CATEGORIES.contains(&name) {
            return Ok(Member::Many(format!("\\{letter}{{{name}}}")));
        }
        let shown: String = inner.chars().take(40).collect();
        Err(format!("has '\\{letter}{{{shown}}}', which is not known here"))
    }

    fn hex(&mut self, digits: usize) -> Option<u32> {
        let text: String = self.rest.by_ref().take(digits).collect();
        let whole = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        whole.then(|| u32::from_str_radix(&text, 16).ok())?
    }

    /// Behind `\u`: four digits, two such as one surrogate pair, or any number in braces.
    fn unicode(&mut self) -> Result<char, String> {
        let wrong = || "has a bad '\\u'".to_owned();
        if self.takes('{') {
            let text: String = self.rest.by_ref().take_while(|c| *c != '}').take(9).collect();
            let code = u32::from_str_radix(&text, 16).map_err(|_| wrong())?;
            return char::from_u32(code).ok_or_else(wrong);
        }
        let first = self.hex(4).ok_or_else(wrong)?;
        if !(0xD800..0xDC00).contains(&first) {
            return char::from_u32(first).ok_or_else(wrong);
        }
        let pair = self.takes('\\') && self.takes('u');
        let second = if pair { self.hex(4) } else { None };
        let second = second.filter(|code| (0xDC00..0xE000).contains(code)).ok_or_else(wrong)?;
        char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)).ok_or_else(wrong)
    }

    /// Behind `[`.
    fn class(&mut self) -> Result<Tree, String> {
        let mut set = String::from(if self.takes('^') { "^" } else { "" });
        let negated = !set.is_empty();
        let mut empty = true;
        loop {
            if self.takes(']') {
                break;
            }
            empty = false;
            let Member::One(low) = self.class_member(&mut set)? else { continue };
            if self.rest.peek() != Some(&'-') || self.rest.clone().nth(1) == Some(']') {
                set.push_str(&member(low));
                continue;
            }
            self.rest.next();
            let mut many = String::new();
            match self.class_member(&mut many)? {
                Member::One(high) if low <= high => {
                    set.push_str(&format!("{}-{}", member(low), member(high)));
                }
                Member::One(_) => return Err("has a range that is out of order".to_owned()),
                // `[a-\d]`: the minus stands for itself.
                Member::Many(_) => set.push_str(&format!("{}{}{many}", member(low), member('-'))),
            }
        }
        Ok(match (empty, negated) {
            // `[]` matches nothing, `[^]` anything.
            (true, false) => Tree::Alt(Vec::new()),
            (true, true) => Tree::One("(?s:.)".to_owned()),
            _ => Tree::One(without_zero(&set)),
        })
    }

    /// A member of a class. Sets of characters are written to `set` at once.
    fn class_member(&mut self, set: &mut String) -> Result<Member, String> {
        let c = self.rest.next().ok_or("has a '[' without its ']'")?;
        if c != '\\' {
            return Ok(Member::One(c));
        }
        if self.takes('b') {
            return Ok(Member::One('\x08'));
        }
        let member = self.member()?;
        if let Member::Many(many) = &member {
            set.push_str(many);
        }
        Ok(member)
    }
}

enum Member {
    One(char),
    /// Members of a class, in the compiler's syntax.
    Many(String),
}

/// The compiler's JSON strings let an escaped quote into any class that holds all control
/// characters. NUL can be written in no answer, so it is taken out of every class.
fn without_zero(set: &str) -> String {
    format!("[[{set}]--\\x00]")
}

fn member(c: char) -> String {
    format!("\\x{{{:X}}}", c as u32)
}

fn literal(c: char) -> String {
    if c.is_ascii_alphanumeric() { c.to_string() } else { member(c) }
}
