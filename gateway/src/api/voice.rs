//! A chat's choice as its reader tells it: content, thoughts and calls.
//!
//! Text and special tokens go to the reader token by token, so that each token is counted where it
//! belongs, and in the same steps whether the answer is streamed or not.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::de::IgnoredAny;
use text::answer::{Part, Reader, Reading};
use text::tools::Ids;
use wire::Call;

use super::ids;

/// What holds for all choices of a chat.
pub(super) struct Manner {
    pub(super) reading: Arc<Reading>,
    /// Thoughts are shown.
    pub(super) show_thoughts: bool,
    /// How calls are named.
    pub(super) ids: Ids,
    /// Calls made in earlier turns.
    pub(super) calls_before: usize,
}

/// One choice's reader.
pub(super) struct Voice {
    manner: Arc<Manner>,
    reader: Reader,
    /// What was read and not yet taken.
    parts: Vec<Part>,
    /// Where the reader writes to.
    fresh: Vec<Part>,
    /// Text that may be shown and was not read: part of a token.
    unread: String,
    /// Bytes read.
    read: usize,
    /// Tokens not read: where the text of each ends, and which special token it is.
    tokens: VecDeque<(usize, Option<u32>)>,
    /// Arguments of the last call.
    last: String,
    /// Tokens of thoughts.
    pub(super) thoughts: u64,
}

/// What a whole answer says.
#[derive(Default)]
pub(super) struct Said {
    pub(super) content: String,
    pub(super) thoughts: String,
    pub(super) calls: Vec<Call>,
}

impl Voice {
    pub(super) fn new(manner: &Arc<Manner>) -> Self {
        Self {
            manner: Arc::clone(manner),
            reader: Reader::new(Arc::clone(&manner.reading)),
            parts: Vec::new(),
            fresh: Vec::new(),
            unread: String::new(),
            read: 0,
            tokens: VecDeque::new(),
            last: String::new(),
            thoughts: 0,
        }
    }

    /// A token was made; its text ends at `end`, in bytes from the answer's start.
    pub(super) fn token(&mut self, end: usize, special: Option<u32>) {
        self.tokens.push_back((end, special));
    }

    /// More text may be shown: `shown` bytes in all.
    pub(super) fn show(&mut self, text: &str, shown: usize) {
        self.unread.push_str(text);
        while let Some(&(end, special)) = self.tokens.front()
            && end <= shown
        {
            self.tokens.pop_front();
            let inside = self.reader.is_thinking();
            let bytes = end.saturating_sub(self.read).min(self.unread.len());
            self.read = end.max(self.read);
            if bytes > 0 {
                self.reader.text(&self.unread[..bytes], &mut self.fresh);
                self.unread.drain(..bytes);
            }
            if let Some(id) = special {
                self.reader.special(id, &mut self.fresh);
            }
            // What opens and what closes them is no thought.
            self.thoughts += u64::from(inside && self.reader.is_thinking());
        }
        self.note();
    }

    /// Nothing follows.
    pub(super) fn end(&mut self) {
        if !self.unread.is_empty() {
            self.thoughts += u64::from(self.reader.is_thinking());
            self.reader.text(&self.unread, &mut self.fresh);
            self.unread.clear();
        }
        self.tokens.clear();
        self.reader.end(&mut self.fresh);
        self.note();
    }

    /// The answer ends with a call that is whole. A stop string may have cut it.
    pub(super) fn calls(&self) -> bool {
        self.reader.calls() > 0 && serde_json::from_str::<IgnoredAny>(&self.last).is_ok()
    }

    /// Takes over what was just read, and keeps the arguments of the last call.
    fn note(&mut self) {
        for part in self.fresh.drain(..) {
            match &part {
                Part::CallStart { .. } => self.last.clear(),
                Part::Arguments { text, .. } => self.last.push_str(text),
                Part::Content(_) | Part::Reasoning(_) | Part::CallEnd { .. } => {}
            }
            self.parts.push(part);
        }
    }

    /// Whether there is something to show.
    pub(super) fn has_news(&self) -> bool {
        self.parts.iter().any(|part| self.shows(part))
    }

    /// What was read since the last time.
    pub(super) fn take(&mut self) -> Vec<Part> {
        let mut parts = std::mem::take(&mut self.parts);
        parts.retain(|part| self.shows(part));
        parts
    }

    fn shows(&self, part: &Part) -> bool {
        match part {
            Part::Reasoning(_) => self.manner.show_thoughts,
            Part::Content(_) | Part::CallStart { .. } | Part::Arguments { .. } => true,
            Part::CallEnd { .. } => false,
        }
    }

    /// A call's id.
    pub(super) fn id(&self, index: u32, name: &str) -> String {
        match self.manner.ids {
            Ids::Usual => ids::named("call_"),
            Ids::Nine => ids::named("").chars().take(9).collect(),
            Ids::Numbered => {
                let before = self.manner.calls_before;
                let number = usize::try_from(index).map_or(before, |index| before + index);
                format!("functions.{name}:{number}")
            }
        }
    }

    /// All of it at once.
    pub(super) fn said(&mut self) -> Said {
        let mut said = Said::default();
        for part in self.take() {
            match part {
                Part::Content(text) => said.content.push_str(&text),
                Part::Reasoning(text) => said.thoughts.push_str(&text),
                Part::CallStart { index, name } => {
                    let id = self.id(index, &name);
                    said.calls.push(Call { id, name, arguments: String::new() });
                }
                Part::Arguments { index, text } => {
                    let at = usize::try_from(index).ok();
                    if let Some(call) = at.and_then(|at| said.calls.get_mut(at)) {
                        call.arguments.push_str(&text);
                    }
                }
                Part::CallEnd { .. } => {}
            }
        }
        said
    }
}
