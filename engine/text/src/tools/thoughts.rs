//! How models mark their thoughts, and how they are told to think more or less.

use super::{Format, Layout};
use crate::TextModel;
use crate::grammar::lark::{self, Literal};

/// Markers around thoughts that models in use have. A vocabulary or a template that has both means
/// a model that thinks.
const MARKERS: [(&str, &str); 5] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
];

/// Variables of templates that turn thoughts on and off.
const FLAGS: [&str; 3] = ["enable_thinking", "thinking", "reasoning"];

/// The variable of templates that takes `low`, `medium` or `high`.
const EFFORT: &str = "reasoning_effort";

/// How a model thinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thoughts {
    /// Opens them, unless the prompt does. For channels: empty.
    pub opening: Literal,
    /// Closes them. For channels: empty.
    pub closing: Literal,
    /// Both as they are spelled.
    pub spelled: (&'static str, &'static str),
    /// What the template takes to change it.
    pub switch: Option<Switch>,
}

/// A variable of the chat template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// True or false.
    Flag(&'static str),
    /// `low`, `medium` or `high`.
    Effort(&'static str),
}

impl Thoughts {
    /// Of a model whose answers are laid out as `format` says; `None`: it does not think.
    #[must_use]
    pub fn of(text: &TextModel, format: Option<&Format>) -> Option<Self> {
        let sources = text.template_sources();
        let says = |word: &str| sources.iter().any(|source| source.contains(word));
        let switch = if says(EFFORT) {
            Some(Switch::Effort(EFFORT))
        } else {
            FLAGS.into_iter().find(|flag| names(&sources, flag)).map(Switch::Flag)
        };
        if format.is_some_and(|format| format.layout == Layout::Channels) {
            let (opening, closing) = (Literal::new(), Literal::new());
            return Some(Self { opening, closing, spelled: ("", ""), switch });
        }
        let has = |(open, close): &&(&str, &str)| {
            let tokens = text.token_id(open).is_some() && text.token_id(close).is_some();
            tokens || says(open) && says(close)
        };
        let spelled = *MARKERS.iter().find(has)?;
        let opening = lark::literal(text, spelled.0);
        let closing = lark::literal(text, spelled.1);
        Some(Self { opening, closing, spelled, switch })
    }

    /// Whether a rendered prompt ends inside thoughts that it opened.
    #[must_use]
    pub fn open_in(&self, prompt: &str) -> bool {
        let (opening, closing) = self.spelled;
        let last = |marker: &str| if marker.is_empty() { None } else { prompt.rfind(marker) };
        match (last(opening), last(closing)) {
            (Some(open), Some(close)) => open > close && is_tail(&prompt[open + opening.len()..]),
            (Some(open), None) => is_tail(&prompt[open + opening.len()..]),
            (None, _) => false,
        }
    }
}

/// Nothing but white space follows: an opening further up is a word in somebody's message.
fn is_tail(rest: &str) -> bool {
    rest.trim().is_empty()
}

/// Whether a template uses a variable of this name, not only a word like it.
fn names(sources: &[&str], name: &str) -> bool {
    let inside = |source: &str| {
        source.match_indices(name).any(|(at, _)| {
            let edge = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let before = source[..at].chars().next_back();
            let after = source[at + name.len()..].chars().next();
            let quoted = matches!(before, Some('\'' | '"' | '.' | '<' | '/'));
            let code = source[..at].rfind("{%").max(source[..at].rfind("{{"));
            let ended = source[..at].rfind("%}").max(source[..at].rfind("}}"));
            edge(before) && edge(after) && !quoted && code.is_some() && code > ended
        })
    };
    sources.iter().any(|source| inside(source))
}
