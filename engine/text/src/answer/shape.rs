//! A format, made ready to read a model's answers by.

use super::pattern::{Element, Pattern, exact, loose};
use crate::TextModel;
use crate::grammar::lark;
use crate::grammar::watch::Markers;
use crate::tools::{Arguments, Format};

/// Stands for a call's number in the texts of formats.
const INDEX: &str = "{index}";

/// See the module.
#[derive(Debug)]
pub(super) struct Shape {
    /// The shortest opening: each of the format's begins with it.
    pub(super) opening: Markers,
    /// It counts only as the first that is no white space.
    pub(super) at_start: bool,
    /// It counts only with the name of a tool on offer.
    pub(super) named: bool,
    /// What the opening may be the beginning of.
    pub(super) first: Vec<Choice>,
    /// What may stand behind a call.
    pub(super) next: Vec<Choice>,
    /// What stands between two calls.
    pub(super) between: Pattern,
    /// What stands behind arguments.
    pub(super) after: Pattern,
    pub(super) body: Body,
}

/// One way to go on.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) pattern: Pattern,
    pub(super) then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// A JSON object with name and arguments begins with the last character.
    Object,
    /// Arguments begin behind it.
    Behind,
    /// Arguments begin with the last character.
    With,
    /// It is a call without arguments.
    Empty,
    /// The calls are over.
    Close,
}

/// How a call's arguments are read.
#[derive(Debug)]
pub(super) enum Body {
    /// The call is a JSON object.
    Object(Keys),
    Json,
    Tagged(Tags),
    Python,
}

/// Keys of a call that is a JSON object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Keys {
    name: String,
    arguments: String,
    /// All that the format writes.
    all: Vec<String>,
}

/// What a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Name,
    Arguments,
    Other,
}

/// Texts around arguments in elements.
#[derive(Debug)]
pub(super) struct Tags {
    pub(super) key_open: Pattern,
    pub(super) key_close: Markers,
    pub(super) value_close: Markers,
}

/// The texts of a format around names and arguments.
struct Ways {
    opening: Vec<u8>,
    first: Vec<Choice>,
    next: Vec<Choice>,
    between: Pattern,
    after: Pattern,
}

impl Shape {
    pub(super) fn new(text: &TextModel, format: &Format) -> Self {
        let marker = |spelled: &str| lark::literal(text, spelled);
        let fixed = format.openings.iter().filter_map(|opening| opening.split("{name}").next());
        let opening = fixed.min_by_key(|opening| opening.len()).unwrap_or_default();
        let keys = Keys::of(format);
        let ways = match wrapping(format).filter(|_| keys.is_some()) {
            Some((prefix, suffix)) => objects(text, format, opening, prefix, suffix),
            None => texts(text, format, opening),
        };
        let body = match format.arguments {
            Arguments::Json => keys.map_or(Body::Json, Body::Object),
            Arguments::Python => Body::Python,
            Arguments::Tagged { key_open, key_close, value_close } => Body::Tagged(Tags {
                key_open: exact(&marker(key_open)),
                key_close: Markers::new([marker(key_close)], false),
                value_close: Markers::new([marker(value_close)], false),
            }),
        };
        Self {
            opening: Markers::new([ways.opening], false),
            at_start: format.at_start,
            named: format.openings.iter().any(|opening| opening.contains("{name}")),
            first: ways.first,
            next: ways.next,
            between: ways.between,
            after: ways.after,
            body,
        }
    }
}

/// Of a format whose calls are JSON objects: they are found by their brace, and what stands
/// between brace and name is read as JSON.
fn objects(text: &TextModel, format: &Format, opening: &str, prefix: &str, suffix: &str) -> Ways {
    let marker = |spelled: &str| lark::literal(text, spelled);
    let object = |pattern| Choice { pattern, then: Then::Object };
    let whole = format!("{}{prefix}{{", format.open);
    let end = if opening.starts_with('{') { 1 } else { opening.len().min(whole.len() - 1) };
    let (opening, rest) = whole.split_at(end);
    let mut first = exact(&marker(opening));
    // Behind a brace that opens an answer the rest may stand apart, too.
    first.extend((opening == "{" && !rest.is_empty()).then_some(Element::Space));
    first.extend(loose(&marker(rest)));
    let more = format.between.map(|b| object(loose(&marker(&format!("{b}{prefix}{{")))));
    let mut between = loose(&marker(format.between.unwrap_or_default()));
    between.push(Element::Space);
    Ways {
        opening: marker(opening),
        first: vec![object(first)],
        next: more.into_iter().chain(close(loose(&marker(format.close)))).collect(),
        between,
        after: loose(&marker(suffix)),
    }
}

/// Of any other format: its texts are taken literally, but any white space may stand between
/// calls.
fn texts(text: &TextModel, format: &Format, opening: &str) -> Ways {
    let marker = |spelled: &str| lark::literal(text, spelled);
    let mut between = vec![Element::Space];
    between.extend(exact(&marker(format.between.unwrap_or_default().trim())));
    between.push(Element::Space);
    let more = format.between.map(|_| heads(text, format, between.clone()));
    Ways {
        opening: marker(opening),
        first: heads(text, format, exact(&marker(format.open))),
        next: more.into_iter().flatten().chain(close(exact(&marker(format.close)))).collect(),
        between,
        after: exact(&marker(format.after)),
    }
}

/// A call's beginning behind `lead`, to where its arguments begin or turn out to be none.
fn heads(text: &TextModel, format: &Format, lead: Pattern) -> Vec<Choice> {
    let mut head = lead;
    for (at, between) in format.before.split(INDEX).enumerate() {
        head.extend((at > 0).then_some(Element::Index));
        head.extend(exact(&lark::literal(text, between)));
    }
    head.push(Element::Name);
    for (at, between) in format.middle.split(INDEX).enumerate() {
        head.extend((at > 0).then_some(Element::Index));
        head.extend(exact(&lark::literal(text, between)));
    }
    let (begin, then) = match format.arguments {
        Arguments::Json => {
            head.push(Element::Space);
            (vec![Element::First(|c| matches!(c, '{' | '[' | '"'))], Then::With)
        }
        Arguments::Python => (vec![Element::First(|c| c.is_alphabetic() || c == '_')], Then::With),
        Arguments::Tagged { key_open, .. } => (exact(&lark::literal(text, key_open)), Then::Behind),
    };
    let after = exact(&lark::literal(text, format.after));
    let join = |more: Pattern| head.iter().cloned().chain(more).collect();
    let mut choices = vec![Choice { pattern: join(begin), then }];
    if !after.is_empty() {
        choices.push(Choice { pattern: join(after), then: Then::Empty });
    }
    choices
}

fn close(mut pattern: Pattern) -> Option<Choice> {
    if pattern.is_empty() {
        return None;
    }
    pattern.insert(0, Element::Space);
    Some(Choice { pattern, then: Then::Close })
}

/// What stands before and behind the JSON object of a call.
fn wrapping(format: &Format) -> Option<(&'static str, &'static str)> {
    let prefix = format.before.split_once('{')?.0;
    Some((prefix, format.after.split_once('}')?.1))
}

impl Keys {
    /// Of a format whose calls are JSON objects.
    fn of(format: &Format) -> Option<Self> {
        wrapping(format).filter(|_| format.arguments == Arguments::Json)?;
        // Both texts cut at the quotes of one object; the name stands between them.
        let object = format!("{}{}", format.before, format.middle);
        let pieces: Vec<&str> = object.split('"').collect();
        let is_key =
            |at: &usize| pieces.get(at + 1).is_some_and(|p| p.trim_start().starts_with(':'));
        let ends = (1..pieces.len()).step_by(2).filter(is_key);
        let all: Vec<String> = ends.map(|at| pieces[at].to_owned()).collect();
        let [.., name, arguments] = &all[..] else { return None };
        Some(Self { name: name.clone(), arguments: arguments.clone(), all })
    }

    /// What this key stands for; `None`: no call has it.
    pub(super) fn get(&self, key: &str) -> Option<Key> {
        if key == self.name {
            Some(Key::Name)
        } else if key == self.arguments || SAME.contains(&key) && self.takes_either() {
            Some(Key::Arguments)
        } else {
            self.all.iter().any(|known| known == key).then_some(Key::Other)
        }
    }

    /// Whether a key may begin like this.
    pub(super) fn may_begin(&self, key: &str) -> bool {
        let mut all = self.all.iter().map(String::as_str);
        all.any(|known| known.starts_with(key))
            || self.takes_either() && SAME.iter().any(|known| known.starts_with(key))
    }

    fn takes_either(&self) -> bool {
        SAME.contains(&self.arguments.as_str())
    }
}

/// Models mix these up.
const SAME: [&str; 2] = ["arguments", "parameters"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_what_formats_write() {
        let keys = |name: &str| Format::named(name).and_then(Keys::of);
        for (name, key) in [
            ("hermes", "name"),
            ("llama-json", "name"),
            ("generic", "name"),
            ("mistral", "name"),
            ("granite", "name"),
            ("phi4-mini", "name"),
            ("command-r", "tool_name"),
            ("command-r7b", "tool_name"),
        ] {
            let keys = keys(name).expect(name);
            assert_eq!(keys.get(key), Some(Key::Name), "{name}");
            assert_eq!(keys.get("parameters"), Some(Key::Arguments), "{name}");
            assert_eq!(keys.get("arguments"), Some(Key::Arguments), "{name}");
            let numbered = (name == "command-r7b").then_some(Key::Other);
            assert_eq!(keys.get("tool_call_id"), numbered, "{name}");
            assert_eq!(keys.get("age"), None, "{name}");
            assert!(keys.may_begin("par") && !keys.may_begin("ag"), "{name}");
        }
        for name in ["kimi-k2", "deepseek-v3", "deepseek-v31", "mistral-v11", "glm", "harmony"] {
            assert_eq!(keys(name), None, "{name}");
        }
    }
}
