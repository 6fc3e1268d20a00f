//! Reads an answer as it is made: what is content, what are thoughts, what are calls.
//!
//! There is one reader, for answers that are streamed and for whole ones; it takes a character or
//! a special token at a time, so its result cannot depend on how an answer is cut. It reads what
//! the grammars of [`crate::tools`] write, from the same data, and it is total: any stream leads
//! to parts, and nothing of it is lost but markers, white space beside calls and thoughts, and
//! special tokens.
//!
//! What does not follow a format (any more):
//!
//! * A call that has no arguments yet is content, from its start on.
//! * A call whose arguments have begun keeps those that came; the call ends there and what follows
//!   is content. Parts of a call never have other parts among them.
//! * What stands between and behind calls in place of the format's own text is content.
//! * An answer that ends in the middle of these is treated alike, except that the beginning of
//!   what would have closed a call or a list of calls is dropped.
//! * Behind all of that, and behind complete calls, calls may begin anew.
//!
//! Where a format writes a call as a JSON object, any white space may stand between the tokens of
//! JSON, and name and arguments may come in any order; `parameters` and `arguments` mean the same;
//! keys that no call of the format has make it content. Between calls any white space may stand.
//! All other text of a format is taken literally.
//!
//! Knows text and special tokens; no request and no dialect. Of the tools on offer it asks for the
//! kinds of arguments, and for names only where a name is what tells a call from text.

mod channels;
mod json;
mod object;
mod output;
mod pattern;
mod plain;
mod python;
mod shape;
mod stream;
mod tagged;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::TextModel;
use crate::grammar::watch::Markers;
use crate::tools::{Format, Layout, Thoughts};
use channels::{Channels, Signs};
use output::Output;
use plain::Plain;
use shape::Shape;
use stream::Unit;

/// A piece of what an answer says. None holds an empty string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text for the caller.
    Content(String),
    /// Thoughts.
    Reasoning(String),
    /// A call begins.
    CallStart {
        /// Its number in the answer, from 0.
        index: u32,
        /// The function, perhaps none of those on offer.
        name: String,
    },
    /// More of a call's arguments, which are JSON when they are complete.
    Arguments {
        /// The call.
        index: u32,
        /// More of the JSON.
        text: String,
    },
    /// A call is over.
    CallEnd {
        /// The call.
        index: u32,
    },
}

/// What is known of an answer before it comes. Shared by all choices of a request.
#[derive(Debug)]
pub struct Reading {
    /// Names and parameters of the tools on offer.
    tools: Vec<(String, Option<Value>)>,
    /// Special tokens that are shown, as they are spelled.
    shown: HashMap<u32, String>,
    layout: Laid,
}

#[derive(Debug)]
enum Laid {
    Plain(Box<Rules>),
    Channels { signs: Signs, open: bool },
}

/// What an answer of [`Layout::Plain`] is read by.
#[derive(Debug)]
struct Rules {
    shape: Option<Shape>,
    thoughts: Option<Marks>,
    open: bool,
}

/// What stands around thoughts.
#[derive(Debug)]
struct Marks {
    opening: Vec<u8>,
    closing: Markers,
}

impl Reading {
    /// For answers of this model.
    ///
    /// * `format`: how it writes calls; `None` if none are looked for. A format whose layout is
    ///   [`Layout::Channels`] is needed with or without tools.
    /// * `tools`: names and parameters of those on offer.
    /// * `open`: the prompt ended inside thoughts.
    /// * `show_special`: special tokens that are no markers stay in content and thoughts, as they
    ///   are spelled.
    #[must_use]
    pub fn new(
        text: &TextModel,
        format: Option<&'static Format>,
        tools: Vec<(String, Option<Value>)>,
        thoughts: Option<Thoughts>,
        open: bool,
        show_special: bool,
    ) -> Self {
        let ids = 0..if show_special { text.vocab_size() as u32 } else { 0 };
        let shown = ids.filter(|id| text.is_special(*id)).map(|id| (id, text.token_text(id)));
        let layout = match format {
            Some(format) if format.layout == Layout::Channels => {
                Laid::Channels { signs: Signs::new(text), open }
            }
            _ => Laid::Plain(Box::new(Rules {
                shape: format.map(|format| Shape::new(text, format)),
                thoughts: thoughts.filter(|marks| !marks.closing.is_empty()).map(|marks| Marks {
                    opening: marks.opening,
                    closing: Markers::new([marks.closing], false),
                }),
                open,
            })),
        };
        Self { tools, shown: shown.collect(), layout }
    }
}

/// Reads one answer. Time in proportion to its length; memory in proportion to what is held back
/// until it is decided: white space before a call, a marker's beginning, a call's head, and an
/// argument whose kind its end decides.
#[derive(Debug, Clone)]
pub struct Reader {
    reading: Arc<Reading>,
    state: State,
    calls: u32,
    /// A call was begun and is not over.
    inside: bool,
}

#[derive(Debug, Clone)]
enum State {
    Plain(Plain),
    Channels(Channels),
}

impl Reader {
    /// At the answer's start.
    #[must_use]
    pub fn new(reading: Arc<Reading>) -> Self {
        let state = match &reading.layout {
            Laid::Plain(rules) => State::Plain(Plain::new(rules)),
            Laid::Channels { signs, open } => State::Channels(Channels::new(signs, *open)),
        };
        Self { reading, state, calls: 0, inside: false }
    }

    /// Takes text as the detokenizer makes it, with special tokens left out.
    pub fn text(&mut self, piece: &str, out: &mut Vec<Part>) {
        if let Laid::Plain(rules) = &self.reading.layout
            && rules.shape.is_none()
            && rules.thoughts.is_none()
        {
            Output::new(&self.reading, &mut self.calls, &mut self.inside, out).content(piece);
            return;
        }
        for character in piece.chars() {
            self.unit(Unit::Text(character), out);
        }
    }

    /// Takes a special token that stands at this place of the text. A token that ends answers
    /// comes here too where it closes calls: without it, arguments of gpt-oss that have not begun
    /// count as cut off.
    pub fn special(&mut self, id: u32, out: &mut Vec<Part>) {
        self.unit(Unit::Special(id), out);
    }

    /// The answer is over: gives out what was held back.
    pub fn end(&mut self, out: &mut Vec<Part>) {
        let mut out = Output::new(&self.reading, &mut self.calls, &mut self.inside, out);
        match (&mut self.state, &self.reading.layout) {
            (State::Plain(plain), Laid::Plain(rules)) => plain.end(rules, &mut out),
            (State::Channels(channels), Laid::Channels { .. }) => channels.end(&mut out),
            _ => unreachable!("the state is made from the layout"),
        }
        out.end_call();
    }

    /// Whether the next token belongs to thoughts.
    #[must_use]
    pub fn is_thinking(&self) -> bool {
        match &self.state {
            State::Plain(plain) => plain.is_thinking(),
            State::Channels(channels) => channels.is_thinking(),
        }
    }

    /// Calls begun so far.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.calls
    }

    fn unit(&mut self, unit: Unit, out: &mut Vec<Part>) {
        let mut out = Output::new(&self.reading, &mut self.calls, &mut self.inside, out);
        match (&mut self.state, &self.reading.layout) {
            (State::Plain(plain), Laid::Plain(rules)) => plain.unit(unit, rules, &mut out),
            (State::Channels(channels), Laid::Channels { signs, .. }) => {
                channels.unit(unit, signs, &mut out);
            }
            _ => unreachable!("the state is made from the layout"),
        }
    }
}
