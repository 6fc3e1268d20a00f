//! Arguments in elements, one for each: they become a JSON object.

use super::json::{is_no_string, string};
use super::object::Step;
use super::output::Output;
use super::pattern::{Fit, Pattern, fit};
use super::shape::Tags;
use super::stream::{Held, Unit};
use crate::grammar::watch::Watch;
use crate::tools::values::{ValueKind, kind_of};

/// Longest key, with what closes it.
const KEY_BYTES_MAX: usize = 1024;

/// Where the arguments stand.
#[derive(Debug, Clone)]
pub(super) struct Tagged {
    /// The function.
    name: String,
    /// Arguments so far.
    count: usize,
    at: At,
}

#[derive(Debug, Clone)]
enum At {
    /// What opens a key was read; what closes it is looked for.
    Key(Watch),
    Value(Element),
    /// Before what opens a key, or ends the call.
    Between,
}

/// A value that is being read.
#[derive(Debug, Clone)]
struct Element {
    kind: ValueKind,
    close: Watch,
    /// White space that is given out if more comes; only of JSON.
    space: String,
    /// Some of it was given out.
    begun: bool,
}

impl Tagged {
    /// What opens the first key was read.
    pub(super) fn new(name: String, tags: &Tags) -> Self {
        Self { name, count: 0, at: At::Key(tags.key_close.watch()) }
    }

    /// Takes a unit and adds it to `held`; clears `held` of what is given out or needed no more.
    /// `after` stands behind all arguments and is read here.
    pub(super) fn step(
        &mut self,
        unit: Unit,
        tags: &Tags,
        after: &Pattern,
        held: &mut Held,
        out: &mut Output<'_>,
    ) -> Step {
        match &mut self.at {
            At::Key(close) => {
                let watched = held.watch(unit, close, &tags.key_close);
                if watched.is_lost(unit, held) || held.bytes().len() > KEY_BYTES_MAX {
                    return Step::No;
                }
                if watched.met.is_some() {
                    if !held.is_text(watched.certain) {
                        return Step::No;
                    }
                    let key = held.take_front(watched.certain).text(0);
                    held.clear();
                    self.value(&key, tags, out);
                }
                Step::More
            }
            At::Value(value) => match value.step(unit, tags, held, out) {
                Step::Done => {
                    self.at = At::Between;
                    Step::More
                }
                step => step,
            },
            At::Between => {
                held.push(unit);
                match (fit(&tags.key_open, held.bytes()), fit(after, held.bytes())) {
                    (Fit::Whole(_), _) => {
                        held.clear();
                        self.at = At::Key(tags.key_close.watch());
                        Step::More
                    }
                    (_, Fit::Whole(_)) => {
                        held.clear();
                        out.arguments("}");
                        out.end_call();
                        Step::Done
                    }
                    (Fit::No, Fit::No) => Step::No,
                    _ => Step::More,
                }
            }
        }
    }

    /// A key is complete.
    fn value(&mut self, key: &str, tags: &Tags, out: &mut Output<'_>) {
        let kind = kind_of(out.parameters(&self.name), key);
        let lead = if self.count == 0 { "{" } else { ", " };
        let quote = if kind == ValueKind::Text { "\"" } else { "" };
        out.arguments(&format!("{lead}{}: {quote}", string(key)));
        self.count += 1;
        let close = tags.value_close.watch();
        self.at = At::Value(Element { kind, close, space: String::new(), begun: false });
    }

    /// The answer ends here: gives out what came of a value, but for what may have closed it.
    pub(super) fn cut(&mut self, held: &mut Held, out: &mut Output<'_>) {
        // Text and JSON were given out as they came.
        if let At::Value(Element { kind: ValueKind::Either, close, .. }) = &self.at {
            let front = held.take_front(held.bytes().len().saturating_sub(close.held()));
            if !front.bytes().is_empty() {
                // A string, as far as it goes; without its end nobody takes it for complete.
                out.arguments("\"");
                out.escaped(&front);
            }
        }
        held.clear();
    }
}

impl Element {
    fn step(&mut self, unit: Unit, tags: &Tags, held: &mut Held, out: &mut Output<'_>) -> Step {
        let watched = held.watch(unit, &mut self.close, &tags.value_close);
        let whole = watched.met.is_some();
        if self.kind == ValueKind::Either && !whole {
            return if watched.is_lost(unit, held) { Step::No } else { Step::More };
        }
        if !held.is_text(watched.certain) {
            return Step::No;
        }
        let front = held.take_front(watched.certain);
        match self.kind {
            ValueKind::Text => out.escaped(&front),
            ValueKind::Json => self.json(&front, out),
            ValueKind::Either => either(&front.text(0), out),
        }
        if !whole {
            return Step::More;
        }
        held.clear();
        match self.kind {
            ValueKind::Text => out.arguments("\""),
            ValueKind::Json if !self.begun => out.arguments("null"),
            _ => {}
        }
        Step::Done
    }

    /// JSON as it is, but for white space around it.
    fn json(&mut self, front: &Held, out: &mut Output<'_>) {
        for character in front.units().filter_map(Unit::character) {
            if !character.is_ascii_whitespace() {
                out.arguments(&std::mem::take(&mut self.space));
                out.arguments(character.encode_utf8(&mut [0; 4]));
                self.begun = true;
            } else if self.begun {
                self.space.push(character);
            }
        }
    }
}

/// A value whose kind its text decides.
fn either(text: &str, out: &mut Output<'_>) {
    let trimmed = text.trim_ascii();
    if is_no_string(trimmed) {
        out.arguments(trimmed);
    } else {
        out.arguments(&string(text));
    }
}
