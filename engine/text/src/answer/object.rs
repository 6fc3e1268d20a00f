//! A call that is a JSON object with a name and arguments, in any order.

use super::json::{Place, Scan};
use super::output::Output;
use super::pattern::NAME_BYTES_MAX;
use super::shape::{Key, Keys};
use super::stream::{Held, Unit};

/// Each byte of a name as an escape.
const WORD_BYTES_MAX: usize = 6 * NAME_BYTES_MAX;

/// Where the object stands. Its brace has been read.
#[derive(Debug, Clone)]
pub(super) struct Object {
    at: At,
    /// A key, or a name as it is written.
    word: String,
    /// The name, until the call begins with it.
    name: Option<String>,
    has_name: bool,
    has_arguments: bool,
    /// Arguments that came before the name.
    early: String,
}

#[derive(Debug, Clone)]
enum At {
    /// Before a key, or the end.
    Member,
    Key,
    Colon(Key),
    Value(Key),
    Name {
        escaped: bool,
    },
    Skipped(Scan),
    Arguments(Scan),
    /// Before a comma, or the end.
    Comma,
}

/// What a unit did to what is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It goes on.
    More,
    /// This was its last.
    Done,
    /// It was over before.
    Before,
    /// It does not fit.
    No,
}

impl Object {
    pub(super) fn new() -> Self {
        Self {
            at: At::Member,
            word: String::new(),
            name: None,
            has_name: false,
            has_arguments: false,
            early: String::new(),
        }
    }

    /// Takes a unit and adds it to `held`; clears `held` of what is given out or needed no more.
    pub(super) fn step(
        &mut self,
        unit: Unit,
        keys: &Keys,
        held: &mut Held,
        out: &mut Output<'_>,
    ) -> Step {
        held.push(unit);
        self.take(unit, keys, held, out)
    }

    /// Takes a unit, which `held` ends with.
    fn take(&mut self, unit: Unit, keys: &Keys, held: &mut Held, out: &mut Output<'_>) -> Step {
        let Some(character) = unit.character() else { return Step::No };
        let white = unit.is_white();
        match &mut self.at {
            At::Skipped(scan) | At::Arguments(scan) => {
                let place = scan.push(character);
                return self.value(place, unit, keys, held, out);
            }
            At::Name { escaped } => {
                let ends = character == '"' && !*escaped;
                *escaped = character == '\\' && !*escaped;
                return if ends { self.named(held, out) } else { self.spell(character) };
            }
            At::Key if character == '"' => {
                let key = keys.get(&std::mem::take(&mut self.word)).filter(|key| self.may(*key));
                let Some(key) = key else { return Step::No };
                self.at = At::Colon(key);
            }
            At::Key => {
                self.word.push(character);
                return if keys.may_begin(&self.word) { Step::More } else { Step::No };
            }
            _ if white => {}
            At::Member if character == '"' => self.at = At::Key,
            At::Member | At::Comma if character == '}' => return self.over(held, out),
            At::Comma if character == ',' => self.at = At::Member,
            At::Colon(key) if character == ':' => self.at = At::Value(*key),
            At::Value(Key::Name) if character == '"' => self.at = At::Name { escaped: false },
            At::Value(key) if *key != Key::Name => {
                let key = *key;
                return self.begin(key, unit, keys, held, out);
            }
            _ => return Step::No,
        }
        Step::More
    }

    /// Whether a key may stand here: no key comes twice.
    fn may(&self, key: Key) -> bool {
        match key {
            Key::Name => !self.has_name,
            Key::Arguments => !self.has_arguments,
            Key::Other => true,
        }
    }

    fn spell(&mut self, character: char) -> Step {
        self.word.push(character);
        if self.word.len() > WORD_BYTES_MAX { Step::No } else { Step::More }
    }

    /// The name is complete; so is the call, if its arguments came before.
    fn named(&mut self, held: &mut Held, out: &mut Output<'_>) -> Step {
        let word = std::mem::take(&mut self.word);
        let Ok(name) = serde_json::from_str::<String>(&format!("\"{word}\"")) else {
            return Step::No;
        };
        if name.is_empty() {
            return Step::No;
        }
        (self.at, self.has_name) = (At::Comma, true);
        if self.has_arguments {
            out.call(&name);
            out.arguments(&std::mem::take(&mut self.early));
            out.end_call();
            held.clear();
        } else {
            self.name = Some(name);
        }
        Step::More
    }

    /// A value begins that is no name.
    fn begin(
        &mut self,
        key: Key,
        unit: Unit,
        keys: &Keys,
        held: &mut Held,
        out: &mut Output<'_>,
    ) -> Step {
        let Some(first) = unit.character() else { return Step::No };
        let Some(mut scan) = Scan::begin(first) else { return Step::No };
        let place = scan.push(first);
        if key == Key::Arguments {
            self.has_arguments = true;
            self.at = At::Arguments(scan);
            if let Some(name) = self.name.take() {
                out.call(&name);
            }
        } else {
            self.at = At::Skipped(scan);
        }
        self.value(place, unit, keys, held, out)
    }

    /// A character in a value, or behind it.
    fn value(
        &mut self,
        place: Place,
        unit: Unit,
        keys: &Keys,
        held: &mut Held,
        out: &mut Output<'_>,
    ) -> Step {
        match self.at {
            At::Arguments(_) if self.has_name => {
                held.clear();
                if place == Place::Behind {
                    held.push(unit);
                } else {
                    out.shown(unit, Output::arguments);
                }
                if place != Place::Inside {
                    out.end_call();
                }
            }
            At::Arguments(_) if place != Place::Behind => self.early.extend(unit.character()),
            _ => {}
        }
        if place != Place::Inside {
            self.at = At::Comma;
        }
        if place == Place::Behind { self.take(unit, keys, held, out) } else { Step::More }
    }

    /// The object is over.
    fn over(&mut self, held: &mut Held, out: &mut Output<'_>) -> Step {
        if let Some(name) = self.name.take() {
            out.empty_call(&name);
        } else if !self.is_begun() {
            return Step::No;
        }
        held.clear();
        Step::Done
    }

    /// Whether the call has been given out.
    pub(super) fn is_begun(&self) -> bool {
        self.has_name && self.name.is_none()
    }
}
