//! Token ids in, text out, one at a time.
//!
//! A token is bytes, not text: a character may be spread over several tokens. The detokenizer
//! emits a character when its last byte has arrived and never earlier, and U+FFFD only for bytes
//! that nothing can complete any more. It shares its rules with [`TextModel::decode`], which is
//! one detokenizer run from start to end, so that streamed and whole text cannot differ.

use std::sync::Arc;

use crate::TextModel;
use crate::decode::DecodeState;

/// Turns the tokens of one sequence into text. Each push costs time in proportion to the token,
/// not to what came before.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    model: Arc<TextModel>,
    skip_special: bool,
    state: DecodeState,
    out: String,
}

impl Detokenizer {
    /// Starts behind `prompt`: what a token stands for depends on whether it is the first of a
    /// text, and the prompt may end in the middle of a character. Text of the prompt itself is not
    /// emitted.
    pub(crate) fn new(model: Arc<TextModel>, prompt: &[u32], skip_special: bool) -> Detokenizer {
        let mut state = DecodeState::new(model.decoder());
        let mut out = String::new();
        for &id in prompt {
            if !(skip_special && model.is_special(id)) {
                state.push(model.decoder(), id, &mut out);
                out.clear();
            }
        }
        Detokenizer { model, skip_special, state, out }
    }

    /// Takes one token; returns the text that became certain by it, often the token's own text,
    /// sometimes nothing.
    pub fn push(&mut self, id: u32) -> &str {
        self.out.clear();
        if !(self.skip_special && self.model.is_special(id)) {
            self.state.push(self.model.decoder(), id, &mut self.out);
        }
        &self.out
    }

    /// No more tokens will come: returns what was held back, an unfinished character as U+FFFD.
    pub fn flush(&mut self) -> &str {
        self.out.clear();
        self.state.flush(&mut self.out);
        &self.out
    }
}
