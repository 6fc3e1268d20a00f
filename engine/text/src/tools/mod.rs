//! How models write tool calls, as data: one file per format in `formats`.
//!
//! A format is read twice from the same data. `write` makes a grammar of it that holds a model to
//! well-formed calls of the tools on offer; `answer` (beside this module) reads the calls out of
//! the stream as they are made. So what is generated is what is read, piece by piece or whole.
//!
//! Markers may be special tokens of a model: [`crate::grammar::lark::literal`] finds out.

mod formats;
mod thoughts;
pub(crate) mod values;
mod write;

use crate::TextModel;

pub use thoughts::{Switch, Thoughts};
pub use write::{Content, Offer, Wanted, WriteError, plan};

/// A way of writing calls.
///
/// An answer with calls is: text if [`Format::at_start`] is not set, `open`, then calls with
/// `between` between them, then `close`. A call is `before`, the function's name, `middle`, the
/// arguments, `after`. In `before` and `middle`, `{index}` stands for the call's number from 0.
#[derive(Debug, PartialEq, Eq)]
pub struct Format {
    /// Its name for `--tool-format`.
    pub name: &'static str,
    /// The chat template of a model of this format holds all of these.
    pub signs: &'static [&'static str],
    /// Where one of these comes, calls have begun; each is a beginning of `open` with the first
    /// call behind it. `{name}` stands for the name of any tool on offer.
    pub openings: &'static [&'static str],
    /// Calls make up the whole answer: an opening counts only at its start.
    pub at_start: bool,
    /// Before the first call.
    pub open: &'static str,
    /// Between two calls; `None` where an answer has one call only.
    pub between: Option<&'static str>,
    /// Behind the last call.
    pub close: &'static str,
    /// Before a call's name.
    pub before: &'static str,
    /// Between name and arguments.
    pub middle: &'static str,
    /// How arguments are written.
    pub arguments: Arguments,
    /// Behind the arguments.
    pub after: &'static str,
    /// How the rest of the answer is laid out.
    pub layout: Layout,
    /// What the model's template wants of the ids of calls.
    pub ids: Ids,
}

/// How calls are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// `call_` and letters, as OpenAI's.
    Usual,
    /// Nine letters and digits.
    Nine,
    /// `functions.NAME:NUMBER`, counted through the conversation.
    Numbered,
}

/// How the arguments of a call are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arguments {
    /// A JSON object.
    Json,
    /// One element per argument: `key_open`, the key, `key_close`, the value, `value_close`. A
    /// string is written as it is, anything else as JSON.
    Tagged {
        /// Before a key.
        key_open: &'static str,
        /// Between key and value.
        key_close: &'static str,
        /// Behind a value; no value of text holds it.
        value_close: &'static str,
    },
    /// `key=value, key=value` with literals of Python.
    Python,
}

/// How an answer is laid out beside its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Text; thoughts stand between two markers at its start.
    Plain,
    /// gpt-oss: every message names its channel, `analysis` for thoughts, `final` for the answer
    /// and `commentary` for calls.
    Channels,
}

impl Format {
    /// All formats, those with the most particular signs first.
    pub const ALL: &'static [&'static Self] = formats::ALL;

    /// What a model is asked to write when its template knows no tools.
    #[must_use]
    pub fn generic() -> &'static Self {
        &formats::generic::FORMAT
    }

    /// The format of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().copied().find(|format| format.name == name)
    }

    /// The format that a model's chat template shows; `None` where it shows none.
    #[must_use]
    pub fn of(text: &TextModel) -> Option<&'static Self> {
        let sources = text.template_sources();
        let shows = |format: &&&Self| {
            let shown = |source: &str| format.signs.iter().all(|sign| source.contains(sign));
            !format.signs.is_empty() && sources.iter().any(|source| shown(source))
        };
        Self::ALL.iter().find(shows).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_for_operators_names_every_format() {
        let page = include_str!("../../../../docs/tools.md");
        for format in Format::ALL {
            let name = format!("`{}`", format.name);
            assert!(page.contains(&name), "docs/tools.md lacks {name}");
        }
    }

    #[test]
    fn names_are_unique_and_openings_begin_calls() {
        for (at, format) in Format::ALL.iter().enumerate() {
            assert_eq!(Format::named(format.name), Some(*format));
            assert!(Format::ALL[..at].iter().all(|other| other.name != format.name));
            for opening in format.openings {
                let name = opening.find("{name}").unwrap_or(opening.len());
                let first = format!("{}{}", format.open, format.before);
                let fixed = &opening[..name];
                assert!(first.starts_with(fixed), "{}: {opening}", format.name);
                let rest = opening[name..].trim_start_matches("{name}");
                assert!(format.middle.starts_with(rest), "{}: {opening}", format.name);
            }
            assert!(!format.openings.is_empty(), "{}", format.name);
        }
    }
}
