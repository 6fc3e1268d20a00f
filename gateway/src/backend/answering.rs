//! How a model's answers are held and read: the format of its tool calls, the marks of its
//! thoughts, and the grammars compiled for it. Found once, when the model is loaded; its adapters
//! share it.

use text::TextModel;
use text::grammar::{GrammarError, Grammars};
use text::tools::{Format, Thoughts};

/// See the module.
pub struct Answering {
    /// How calls are written; `None`: the template knows no tools.
    pub format: Option<&'static Format>,
    /// How it thinks; `None`: it does not.
    pub thoughts: Option<Thoughts>,
    grammars: Result<Grammars, GrammarError>,
}

impl Answering {
    /// For a model whose sequences end with `ends`. `format` is the operator's word; without it
    /// the chat template tells. Takes some 100 ms for a large vocabulary.
    #[must_use]
    pub fn new(text: &TextModel, ends: &[u32], format: Option<&'static Format>) -> Self {
        let format = format.or_else(|| Format::of(text));
        let grammars = Grammars::new(text, ends);
        Self { format, thoughts: Thoughts::of(text, format), grammars }
    }

    /// Its template knows no tools: prompts say what they are.
    #[must_use]
    pub fn tells_tools(&self) -> bool {
        self.format.is_none()
    }

    /// Compiles grammars for it.
    ///
    /// # Errors
    /// Why its answers cannot be held to any.
    pub fn grammars(&self) -> Result<&Grammars, GrammarError> {
        self.grammars.as_ref().map_err(Clone::clone)
    }
}
