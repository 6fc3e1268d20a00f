//! Calls of a format, from the first one's beginning to the last one's end.

use serde_json::{Value, json};

use super::source::Source;
use super::tagged::Tags;
use super::{Offer, Wanted, WriteError, python};
use crate::TextModel;
use crate::grammar::lark;
use crate::grammar::schema::{self, SchemaError};
use crate::tools::{Arguments, Format};

/// A call's number. Real ones have one digit.
const INDEX: &str = "/[0-9]{1,4}/";

/// See the module.
pub(super) struct Calls<'a> {
    pub(super) text: &'a TextModel,
    pub(super) format: &'a Format,
    pub(super) wanted: &'a Wanted<'a>,
}

impl Calls<'_> {
    /// All calls of an answer.
    ///
    /// # Errors
    /// [`WriteError::Schema`].
    pub(super) fn section(&self, source: &mut Source) -> Result<String, WriteError> {
        let format = self.format;
        let (before, after) = (self.pieces(format.before), self.pieces(format.after));
        let middle = self.pieces(format.middle);
        let mut calls = Vec::new();
        for (at, offer) in self.wanted.tools.iter().enumerate() {
            let arguments = self.arguments(source, at, offer)?;
            let head = join(&[before.as_slice(), &[Piece::text(offer.name)], &middle].concat());
            let call = format!("{} {arguments} {}", self.cut(&head), self.cut(&join(&after)));
            calls.push(source.rule(call));
        }
        let call = source.either(&calls);
        let calls = match format.between.filter(|_| self.wanted.parallel) {
            Some(between) => {
                let next = format!("{} {call}", expression(&join(&self.pieces(between))));
                let next = source.rule(next);
                format!("{call} {next}*")
            }
            None => call,
        };
        let open = self.cut(&join(&self.pieces(format.open)));
        let close = expression(&join(&self.pieces(format.close)));
        Ok(source.rule(format!("{open} {calls} {close}")))
    }

    /// Arguments of the tool at `at`.
    ///
    /// # Errors
    /// [`WriteError::Schema`].
    pub(super) fn arguments(
        &self,
        source: &mut Source,
        at: usize,
        offer: &Offer<'_>,
    ) -> Result<String, WriteError> {
        // A function without parameters takes none: there is nothing to be wrong about.
        if offer.strict || self.wanted.forced || offer.parameters.is_none() {
            match self.held(source, offer.parameters) {
                Ok(arguments) => return Ok(arguments),
                Err(error) if offer.strict => return Err(WriteError::Schema { tool: at, error }),
                // A call that must come is held to its schema as far as that can be done.
                Err(_) => {}
            }
        }
        Ok(match self.format.arguments {
            Arguments::Json => source.rule(lark::json_object()),
            Arguments::Tagged { key_open, key_close, value_close } => {
                let tags = Tags::new(self.text, key_open, key_close, value_close);
                tags.free(source, offer.parameters)
            }
            Arguments::Python => python::free(source, offer.parameters),
        })
    }

    fn held(&self, source: &mut Source, parameters: Option<&Value>) -> Result<String, SchemaError> {
        let prepared = schema::prepare(&object(parameters)?)?;
        match self.format.arguments {
            Arguments::Json => Ok(source.rule(lark::json_prepared(prepared))),
            Arguments::Tagged { key_open, key_close, value_close } => {
                let tags = Tags::new(self.text, key_open, key_close, value_close);
                tags.held(source, parameters, &prepared)
            }
            Arguments::Python => python::held(source, &prepared),
        }
    }

    fn pieces(&self, spelled: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (at, part) in spelled.split("{index}").enumerate() {
            if at > 0 {
                pieces.push(Piece::Index);
            }
            pieces.push(Piece::Stream(lark::literal(self.text, part)));
        }
        pieces
    }

    /// Where calls may stand in place of an answer in JSON, the bracket that both begin with is a
    /// token of its own: the grammar engine takes the longest token and does not come back to
    /// shorter ones.
    fn cut(&self, pieces: &[Piece]) -> String {
        match pieces {
            [Piece::Stream(stream), rest @ ..] if self.format.at_start => {
                let bracket = usize::from(matches!(stream.first(), Some(b'{' | b'[')));
                let (bracket, more) = stream.split_at(bracket);
                let more = Piece::Stream(more.to_vec());
                let rest = expression(&[&[more], rest].concat());
                format!("{} {rest}", lark::expression(bracket))
            }
            _ => expression(pieces),
        }
    }
}

/// A part of a format's text.
#[derive(Clone)]
enum Piece {
    Stream(Vec<u8>),
    Index,
}

impl Piece {
    fn text(text: &str) -> Self {
        Self::Stream(text.as_bytes().to_vec())
    }
}

/// Puts neighbours together: one long token costs less than several short ones.
fn join(pieces: &[Piece]) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (Some(Piece::Stream(last)), Piece::Stream(more)) => last.extend(more),
            _ => joined.push(piece.clone()),
        }
    }
    joined
}

fn expression(pieces: &[Piece]) -> String {
    let parts = pieces.iter().map(|piece| match piece {
        Piece::Stream(stream) => lark::expression(stream),
        Piece::Index => INDEX.to_owned(),
    });
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Parameters as the schema of an object; without any, of the empty one.
fn object(parameters: Option<&Value>) -> Result<Value, SchemaError> {
    let Some(parameters) = parameters else {
        return Ok(json!({"type": "object", "properties": {}, "additionalProperties": false}));
    };
    let Value::Object(map) = parameters else { return Ok(parameters.clone()) };
    let is_object = |kind: &Value| kind == "object";
    let may = map.get("type").is_none_or(|kind| {
        is_object(kind) || kind.as_array().is_some_and(|kinds| kinds.iter().any(is_object))
    });
    if !may {
        return Err(SchemaError {
            path: String::new(),
            keyword: Some("type".to_owned()),
            reason: "must be 'object': arguments are named".to_owned(),
        });
    }
    let mut map = map.clone();
    map.insert("type".to_owned(), json!("object"));
    Ok(Value::Object(map))
}
