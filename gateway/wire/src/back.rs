//! The way back of an answer that is translated: what of its thoughts the caller sees, and what it
//! calls the tools that a provider knows by other names.
//!
//! The thoughts are those that our own models' answers would show to the same request. A name that
//! the provider's dialect refuses is replaced on the way there: by one that is made of it alone, so
//! that each turn of a chat has the same one and a provider's cache of the prompt stays of use.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::answer::Choice;
use crate::claude::Claude;
use crate::dialect::Dialect;
use crate::piece::{Delta, Piece};
use crate::request::{ChatRequest, Reasoning, Role, Thought, ToolChoice};

/// Bytes of a name that is made: as many as all dialects take.
const MADE_BYTES: usize = 64;

/// How a provider's answer is told to a caller of another dialect. The default tells all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Back {
    shown: Shown,
    /// What the caller calls its tools, by what the provider calls them; only where they differ.
    names: BTreeMap<String, String>,
}

/// What is shown of thoughts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Shown {
    #[default]
    All,
    /// What seals them, and no words.
    Seals,
    Nothing,
}

impl Back {
    /// Of a request that is about to be written in `target`. Names of tools that it refuses are
    /// replaced in the request, wherever they stand.
    #[must_use]
    pub fn of(request: &mut ChatRequest, target: Dialect) -> Self {
        let shown = match request.reasoning {
            Reasoning { include: true, .. } => Shown::All,
            Reasoning { seals: true, .. } if !seals_words(request, target) => Shown::Seals,
            Reasoning { .. } => Shown::Nothing,
        };
        Self { shown, names: rename(request, target) }
    }

    /// A piece as the caller gets it; one of thoughts that it does not see has no delta, and
    /// nothing of the tokens that they are made of.
    #[must_use]
    pub fn piece<'a>(&'a self, piece: &Piece<'a>) -> Piece<'a> {
        let hidden = match piece.delta {
            Delta::Reasoning(_) => self.shown != Shown::All,
            Delta::Seal(_) => self.shown == Shown::Nothing,
            _ => false,
        };
        if hidden {
            return Piece { delta: Delta::None, logprobs: None, token_ids: None, ..*piece };
        }
        let delta = match piece.delta {
            Delta::CallStart { index, id, name } => {
                Delta::CallStart { index, id, name: self.names.get(name).map_or(name, |own| own) }
            }
            delta => delta,
        };
        Piece { delta, ..*piece }
    }

    /// The choices of a whole answer, likewise.
    pub fn choices(&self, choices: &mut [Choice]) {
        for choice in choices {
            if self.shown != Shown::All && Thought::words(&choice.thoughts).is_some() {
                without_thoughts(choice);
            }
            match self.shown {
                Shown::All => {}
                Shown::Seals => {
                    choice.thoughts.retain(|thought| thought.seal.is_some());
                    choice.thoughts.iter_mut().for_each(|thought| thought.text.clear());
                }
                Shown::Nothing => choice.thoughts.clear(),
            }
            for call in &mut choice.tool_calls {
                if let Some(own) = self.names.get(&call.name) {
                    call.name.clone_from(own);
                }
            }
        }
    }
}

/// Whether the provider seals words that it cannot be asked to leave out. It refuses a seal that
/// comes back without them, so that one is of no use to a caller that does not see them.
fn seals_words(request: &ChatRequest, target: Dialect) -> bool {
    let own = &request.model;
    target == Dialect::Converse && own.contains("claude") && !Claude::of(own).hides()
}

/// Leaves out the tokens that thoughts are made of: engines tell those of the whole answer. Where
/// it cannot be seen which are the text's, none are told.
fn without_thoughts(choice: &mut Choice) {
    let (logprobs, ids) = (choice.logprobs.take(), choice.token_ids.take());
    let Some(mut logprobs) = logprobs.filter(|_| choice.tool_calls.is_empty()) else { return };
    let mut rest = choice.text.as_bytes();
    let mut from = logprobs.len();
    while !rest.is_empty() {
        let before = from.checked_sub(1).map(|at| &logprobs[at]);
        let said = before.map(|token| if token.hidden { &[][..] } else { &token.bytes[..] });
        let Some(left) = said.and_then(|said| rest.strip_suffix(said)) else { return };
        (rest, from) = (left, from - 1);
    }
    choice.token_ids =
        ids.filter(|ids| ids.len() == logprobs.len()).map(|mut ids| ids.split_off(from));
    choice.logprobs = Some(logprobs.split_off(from));
}

/// Whether a dialect takes a name for a tool.
/// Sources: OpenAI's API reference (`name` of a function), Anthropic's errors about
/// `tools.0.custom.name`, Google's `FunctionDeclaration`, Bedrock's `ToolSpecification`. Google
/// takes 128 by its newest documents alone.
fn takes(target: Dialect, name: &str) -> bool {
    let (most, more) = match target {
        Dialect::Messages => (128, ""),
        Dialect::Gemini => (64, "."),
        _ => (64, ""),
    };
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || more.contains(c);
    let begins = |c: char| target != Dialect::Gemini || c.is_ascii_alphabetic() || c == '_';
    name.len() <= most && name.starts_with(begins) && name.chars().all(letter)
}

/// Replaces what `target` refuses. Gives the caller's names by those in their place.
fn rename(request: &mut ChatRequest, target: Dialect) -> BTreeMap<String, String> {
    let mut wrong = BTreeSet::new();
    let mut taken = BTreeSet::new();
    each_name(request, &mut |name| {
        let set = if takes(target, name) { &mut taken } else { &mut wrong };
        set.insert(name.clone());
    });
    let mut made = BTreeMap::new();
    for name in wrong {
        let free = (0..).map(|salt| make(&name, salt)).find(|new| !taken.contains(new));
        let new = free.unwrap_or_default();
        taken.insert(new.clone());
        made.insert(name, new);
    }
    if !made.is_empty() {
        each_name(request, &mut |name| {
            if let Some(new) = made.get(name) {
                name.clone_from(new);
            }
        });
        for tool in &mut request.tools {
            if let Some(name) = tool.value.pointer_mut("/function/name") {
                *name = Value::from(&*tool.name);
            }
        }
    }
    made.into_iter().map(|(own, new)| (new, own)).collect()
}

/// Every place of a request where a tool is named.
fn each_name(request: &mut ChatRequest, each: &mut dyn FnMut(&mut String)) {
    request.tools.iter_mut().for_each(|tool| each(&mut tool.name));
    match &mut request.tool_choice {
        ToolChoice::Auto | ToolChoice::None | ToolChoice::Required => {}
        ToolChoice::Named(name) => each(name),
        ToolChoice::Allowed { names, .. } => names.iter_mut().for_each(&mut *each),
    }
    for message in &mut request.messages {
        message.tool_calls.iter_mut().for_each(|call| each(&mut call.name));
        // Of anybody else it is the speaker's name.
        if matches!(message.role, Role::Tool | Role::Function) {
            message.name.iter_mut().for_each(&mut *each);
        }
    }
}

/// A name that every dialect takes: the end of this one, which says most, and a digest of all of
/// it. `salt`: where that is another tool's name.
fn make(name: &str, salt: u32) -> String {
    let mut hash = Sha256::new();
    hash.update(name);
    if salt > 0 {
        hash.update(salt.to_le_bytes());
    }
    let digest: String = hash.finalize().iter().take(4).map(|b| format!("{b:02x}")).collect();
    let letter = |b: u8| if b.is_ascii_alphanumeric() || b == b'-' { char::from(b) } else { '_' };
    // A letter in front, and `_` before the digest.
    let room = MADE_BYTES - digest.len() - 2;
    let end = &name.as_bytes()[name.len().saturating_sub(room)..];
    let end: String = end.iter().map(|b| letter(*b)).collect();
    let front = if end.starts_with(|c: char| c.is_ascii_alphabetic()) { "" } else { "t" };
    format!("{front}{end}_{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_takes_what_is_made() {
        let long = "x".repeat(300);
        for name in ["", "a.b", "1", "-", "_", "mcp__server__do:it", "\u{e9}\u{e9}", &long] {
            let made = make(name, 0);
            for target in [
                Dialect::Chat,
                Dialect::Responses,
                Dialect::Messages,
                Dialect::Gemini,
                Dialect::Converse,
            ] {
                assert!(takes(target, &made), "{target} {name} {made}");
            }
            assert_ne!(made, make(name, 1));
            assert_eq!(made, make(name, 0));
        }
        assert_ne!(make(&long, 0), make(&long[1..], 0));
        assert_eq!(make("files.read", 0).split_at(11), ("files_read_", "601e4eb6"));
    }

    #[test]
    fn dialects_differ_in_what_they_take() {
        let takers = |name: &str| {
            let all = [Dialect::Chat, Dialect::Messages, Dialect::Gemini, Dialect::Converse];
            all.map(|target| takes(target, name))
        };
        assert_eq!(takers("read-file_1"), [true; 4]);
        assert_eq!(takers("files.read"), [false, false, true, false]);
        assert_eq!(takers("files:read"), [false; 4]);
        assert_eq!(takers("1st"), [true, true, false, true]);
        assert_eq!(takers(&"x".repeat(64)), [true; 4]);
        assert_eq!(takers(&"x".repeat(65)), [false, true, false, false]);
        assert_eq!(takers(&"x".repeat(129)), [false; 4]);
        assert_eq!(takers(""), [false; 4]);
    }
}
