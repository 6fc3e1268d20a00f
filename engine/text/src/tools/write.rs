//! From the tools on offer to a grammar: what an answer may be, in the model's own way of writing.
//!
//! Everything is written from the data of [`Format`], so what a model is held to is what the
//! reader reads. Calls are held to the format's text exactly. Arguments of a strict tool are held
//! to its schema, or the tool is refused; a call that must come is held to its schema where that
//! can be done; any other call has any arguments of the right syntax.
//!
//! Knows formats, schemas and Lark. No request, no dialect.

mod calls;
mod channels;
mod members;
mod python;
mod source;
mod tagged;
mod text;

use serde_json::Value;

use super::{Format, Layout, Thoughts};
use crate::TextModel;
use crate::grammar::schema::SchemaError;
use crate::grammar::{Answer, Plan, Thinking, lark};
use calls::Calls;
use channels::Channels;
use source::Source;

/// Arguments that may come in any order and each once; with more of them, any may come again.
/// The grammar engine counts in 64 bits.
const ONCE_MAX: usize = 64;

/// A tool on offer.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// Its function's name.
    pub name: &'a str,
    /// The JSON Schema of its arguments; `None`: it takes none.
    pub parameters: Option<&'a Value>,
    /// Arguments must follow the schema.
    pub strict: bool,
}

/// What an answer may be.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Tools that may be called; none: the answer has no calls.
    pub tools: &'a [Offer<'a>],
    /// A call must come.
    pub forced: bool,
    /// Several calls may come.
    pub parallel: bool,
    /// What an answer without calls is held to.
    pub content: Option<Content>,
    /// Most tokens of thoughts.
    pub budget: Option<u32>,
}

/// What content is held to.
#[derive(Debug, Clone)]
pub enum Content {
    /// A Lark expression, e.g. of [`lark::json`].
    Expression(String),
    /// A grammar in Lark, with its `start`.
    Grammar(String),
    /// Free text in which tags hold JSON of a schema.
    Tags {
        /// Begin, schema, end.
        tags: Vec<(String, Value, String)>,
        /// Where one of these comes, a tag has begun; each tag begins with one.
        triggers: Vec<String>,
    },
}

/// Why there is no such plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A strict tool's parameters cannot be held to.
    #[error("{error}")]
    Schema {
        /// Its place among the tools.
        tool: usize,
        /// What of them.
        error: SchemaError,
    },
    /// A tag's schema cannot be held to.
    #[error("{error}")]
    TagSchema {
        /// Its place among the tags.
        tag: usize,
        /// What of it.
        error: SchemaError,
    },
    /// What is wanted contradicts itself.
    #[error("{0}")]
    Invalid(String),
}

/// The plan for an answer of a model.
///
/// * `format`: how it writes calls; needed without tools as well, for its layout.
/// * `thoughts`: how it thinks; `None`: it does not.
/// * `open`: the prompt ends inside thoughts.
///
/// # Errors
/// See [`WriteError`]. Grammars are compiled, and measured, later.
pub fn plan(
    text: &TextModel,
    format: &Format,
    thoughts: Option<&Thoughts>,
    open: bool,
    wanted: &Wanted<'_>,
) -> Result<Plan, WriteError> {
    if wanted.forced && wanted.tools.is_empty() {
        return Err(WriteError::Invalid("a call is asked for, but there is no tool".to_owned()));
    }
    let tags = match &wanted.content {
        Some(Content::Tags { tags, triggers }) => Some(tagged_text(text, tags, triggers)?),
        _ => None,
    };
    if tags.is_some() && !wanted.tools.is_empty() && !wanted.forced {
        let why = "structural tags and tools cannot be had in one answer";
        return Err(WriteError::Invalid(why.to_owned()));
    }
    let tags = tags.filter(|_| !wanted.forced);
    let calls = Calls { text, format, wanted };
    let (thinking, answer) = match (format.layout, tags) {
        (Layout::Channels, Some(tags)) => (None, tags),
        (Layout::Channels, None) => (None, of_channels(&calls)?),
        (Layout::Plain, tags) => {
            let thinking = thoughts.map(|thoughts| Thinking {
                opening: thoughts.opening.clone(),
                closing: thoughts.closing.clone(),
                open,
                budget: wanted.budget,
            });
            (thinking, tags.map_or_else(|| of_text(&calls), Ok)?)
        }
    };
    Ok(Plan { thinking, answer })
}

fn of_text(calls: &Calls<'_>) -> Result<Answer, WriteError> {
    let Calls { text, format, wanted } = calls;
    let mut source = Source::default();
    let content = match &wanted.content {
        _ if wanted.forced => None,
        Some(Content::Expression(expression)) => Some(source.rule(expression.clone())),
        Some(Content::Grammar(grammar)) if wanted.tools.is_empty() => {
            return Ok(Answer::Held(grammar.clone()));
        }
        Some(Content::Grammar(grammar)) => Some(source.rule(nested(grammar))),
        Some(Content::Tags { .. }) | None => None,
    };
    if wanted.tools.is_empty() {
        return Ok(content.map_or(Answer::Free, |content| Answer::Held(source.finish(&content))));
    }
    let section = calls.section(&mut source)?;
    if let Some(content) = content {
        return Ok(Answer::Held(source.finish(&format!("{content} | {section}"))));
    }
    let lark = source.finish(&section);
    if wanted.forced {
        return Ok(Answer::Held(lark));
    }
    Ok(Answer::Opened {
        openings: openings(text, format, wanted.tools),
        at_start: format.at_start,
        lark,
        again: false,
    })
}

/// The openings, for each tool where they name one.
fn openings(text: &TextModel, format: &Format, tools: &[Offer<'_>]) -> Vec<Vec<u8>> {
    let mut openings = Vec::new();
    for opening in format.openings {
        match opening.split_once("{name}") {
            None => openings.push(lark::literal(text, opening)),
            Some((before, after)) => openings.extend(tools.iter().map(|tool| {
                let (before, after) = (lark::literal(text, before), lark::literal(text, after));
                [&before[..], tool.name.as_bytes(), &after[..]].concat()
            })),
        }
    }
    openings
}

fn of_channels(calls: &Calls<'_>) -> Result<Answer, WriteError> {
    let wanted = calls.wanted;
    let mut source = Source::default();
    let channels = Channels::new(calls.text, &mut source);
    if wanted.forced || wanted.content.is_some() || wanted.budget.is_some() {
        let whole = channels.whole(&mut source, calls)?;
        return Ok(Answer::Held(source.finish(&whole)));
    }
    if wanted.tools.is_empty() {
        return Ok(Answer::Free);
    }
    let opened = channels.opened(&mut source, calls)?;
    Ok(Answer::Opened {
        openings: Channels::openings(calls.text),
        at_start: false,
        lark: source.finish(&opened),
        again: false,
    })
}

/// Free text with tags.
fn tagged_text(
    text: &TextModel,
    tags: &[(String, Value, String)],
    triggers: &[String],
) -> Result<Answer, WriteError> {
    let mut source = Source::default();
    let mut written = Vec::new();
    if tags.is_empty() {
        return Err(WriteError::Invalid("there is no tag".to_owned()));
    }
    if triggers.iter().any(String::is_empty) {
        return Err(WriteError::Invalid("a trigger is empty".to_owned()));
    }
    for (tag, (begin, schema, end)) in tags.iter().enumerate() {
        if !triggers.iter().any(|trigger| begin.starts_with(trigger)) {
            let begin: String = begin.chars().take(100).collect();
            return Err(WriteError::Invalid(format!("no trigger begins the tag '{begin}'")));
        }
        let json = lark::json(schema).map_err(|error| WriteError::TagSchema { tag, error })?;
        let marker = |spelled| lark::expression(&lark::literal(text, spelled));
        written.push(source.rule(format!("{} {json} {}", marker(begin), marker(end))));
    }
    let start = source.either(&written);
    Ok(Answer::Opened {
        openings: triggers.iter().map(|trigger| lark::literal(text, trigger)).collect(),
        at_start: false,
        lark: source.finish(&start),
        again: true,
    })
}

/// A grammar inside another.
fn nested(grammar: &str) -> String {
    format!("%lark {{\n{grammar}\n}}")
}

/// Items in any order, each of `once` once at most, `further` as often as may be; with `separator`
/// (an expression) between two of them. May be empty.
fn unordered(
    source: &mut Source,
    once: &[String],
    further: Option<&str>,
    separator: &str,
) -> String {
    let all: Vec<String> = once.iter().cloned().chain(further.map(str::to_owned)).collect();
    if all.is_empty() {
        return source.rule("\"\"".to_owned());
    }
    if once.is_empty() || once.len() > ONCE_MAX {
        let item = source.either(&all);
        return source.rule(format!("[{item} ({separator} {item})*]"));
    }
    // A bit for each of `once`, set when it was there.
    let more = source.recursive("::_", |more| {
        let once = once.iter().enumerate().map(|(bit, item)| {
            format!(" | {separator} {item} {more}::set_bit({bit}) %if bit_clear({bit})")
        });
        let further = further.map(|item| format!(" | {separator} {item} {more}::_"));
        once.chain(further).fold("\"\"".to_owned(), |rule, option| rule + &option)
    });
    if separator.is_empty() {
        return source.rule(format!("{more}::0x0"));
    }
    let firsts = once.iter().enumerate();
    let firsts = firsts.map(|(bit, item)| format!(" | {item} {more}::{:#x}", 1_u64 << bit));
    let further = further.map(|item| format!(" | {item} {more}::0x0"));
    let first = firsts.chain(further).fold("\"\"".to_owned(), |rule, option| rule + &option);
    source.rule(first)
}

/// An argument that has no spelling in the model's format.
fn unwritable(key: &str) -> SchemaError {
    SchemaError {
        path: format!("properties.{key}"),
        keyword: None,
        reason: "cannot be written in this model's way of calling tools".to_owned(),
    }
}
