//! An answer under way, in no dialect's words: pieces, in the order in which they are made. Our
//! engine's answers and those of every provider pass through here, whatever dialect they came in
//! and whatever dialect the caller reads.

use serde::Serialize;
use serde_json::Value;

use crate::answer::{Finish, TokenLogprob, Usage};
use crate::error::ApiError;
use crate::json::put;

/// What an event adds to a choice. Plain completions have a place for words alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delta<'a> {
    /// Nothing: only what stands beside it.
    #[default]
    None,
    /// Text.
    Content(&'a str),
    /// Thoughts, in words.
    Reasoning(&'a str),
    /// What the provider seals the thoughts before it with; the last of them.
    Seal(SealRef<'a>),
    /// Why the model will not answer, in words.
    Refusal(&'a str),
    /// A call begins. Its arguments follow.
    CallStart {
        /// Its number within the choice, from 0.
        index: u32,
        /// Its id.
        id: &'a str,
        /// Name of the function.
        name: &'a str,
    },
    /// More of a call's arguments.
    Arguments {
        /// The call's number.
        index: u32,
        /// The next of the JSON text.
        text: &'a str,
    },
}

/// A seal on thoughts; see [`crate::request::Seal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealRef<'a> {
    /// A signature of the words.
    Signature(&'a str),
    /// The thoughts themselves, unreadable. They have no words.
    Redacted(&'a str),
    /// The thoughts themselves, unreadable, as an item of its own.
    Encrypted {
        /// The item's id.
        id: &'a str,
        /// Its content.
        content: &'a str,
    },
}

/// What one event says about one choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Piece<'a> {
    /// The choice.
    pub index: u32,
    /// What is new.
    pub delta: Delta<'a>,
    /// One per new token, when asked for.
    pub logprobs: Option<&'a [TokenLogprob]>,
    /// The new tokens, when asked for.
    pub token_ids: Option<&'a [u32]>,
    /// The prompt's tokens, when asked for and in a choice's first event.
    pub prompt_token_ids: Option<&'a [u32]>,
    /// Set in a choice's last event.
    pub finish: Option<Finish>,
    /// The caller's text that ended the choice, beside [`Finish::Stop`], where it is known.
    pub stop: Option<&'a str>,
    /// Tokens so far, for callers that want them in every event.
    pub usage: Option<Usage>,
}

impl Piece<'_> {
    /// Nothing is new with it, and nothing ends.
    #[must_use]
    pub fn says_nothing(&self) -> bool {
        let beside = self.logprobs.is_some() || self.token_ids.is_some() || self.usage.is_some();
        self.delta == Delta::None && self.finish.is_none() && !beside
    }
}

/// What is said of a whole stream beside the dialect's own fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Remark<'a> {
    /// What it has cost, in dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<String>,
    /// Why it ends where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<&'a str>,
    /// The model that went on with it where whoever began it broke off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continued_by: Option<&'a str>,
}

impl Remark<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// In a comment, which every client of server-sent events skips.
    pub(crate) fn comment(&self, out: &mut Vec<u8>) {
        if !self.is_empty() {
            out.extend_from_slice(b": hearth ");
            put(out, self);
            out.extend_from_slice(b"\n\n");
        }
    }
}

/// Writes the events of one stream in a dialect.
///
/// The order of calls: [`Writer::start`] once for each choice, any pieces, each choice's last one
/// with its finish, then [`Writer::end`]; or at any point [`Writer::error`], after which nothing
/// follows. [`Writer::ping`] and [`Writer::remark`] may stand anywhere between two of them. What is
/// written is well nested in the dialect's sense after every call, so that a stream may be cut
/// anywhere.
pub trait Writer: Send {
    /// A choice begins. The piece has no delta; its usage is what is known of the prompt.
    fn start(&mut self, out: &mut Vec<u8>, piece: &Piece<'_>);

    /// Something new, or the end of a choice.
    fn piece(&mut self, out: &mut Vec<u8>, piece: &Piece<'_>);

    /// The stream came to its natural end.
    fn end(&mut self, out: &mut Vec<u8>, usage: &Usage, remark: &Remark<'_>);

    /// The stream broke: no client may take it for a whole answer.
    fn error(&mut self, out: &mut Vec<u8>, error: &ApiError);

    /// Keeps proxies and clients from giving up while nothing is there to say.
    fn ping(&mut self, out: &mut Vec<u8>);

    /// A remark before the end, in dialects that have room for one that clients skip. One that
    /// counts is said at the end again.
    fn remark(&mut self, out: &mut Vec<u8>, remark: &Remark<'_>) {
        remark.comment(out);
    }

    /// What is to be kept of an answer that has ended, in dialects that keep some.
    fn finished(&self) -> Option<Value> {
        None
    }
}

/// What a provider's stream says.
#[derive(Debug, Clone)]
pub enum Said<'a> {
    /// The answer begins.
    Begun {
        /// What the provider calls it.
        id: &'a str,
        /// The model that answers, in the provider's words.
        model: &'a str,
    },
    /// Something new, or the end of a choice.
    Piece(Piece<'a>),
    /// Tokens read and made, as far as is known; the last one said counts.
    Usage(Usage),
    /// It failed, in the provider's words.
    Failed(ApiError),
    /// Nothing follows.
    Done,
}

/// A provider's answer that is not what its dialect allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the provider's answer cannot be read: {0}")]
pub struct Broken(pub String);

/// Reads the events of one stream in a dialect.
pub trait Reader: Send {
    /// Takes one event: its name (empty where it has none) and its data. What it says goes to
    /// `said`, in order.
    ///
    /// # Errors
    /// It is none of the dialect's. What the dialect may add one day (unknown kinds of events,
    /// fields, blocks) is skipped, not refused.
    fn event(
        &mut self,
        name: &str,
        data: &str,
        said: &mut dyn FnMut(Said<'_>),
    ) -> Result<(), Broken>;

    /// The stream has ended. A dialect whose last event is missing says so: a stream that was cut
    /// must not look like a whole answer.
    ///
    /// # Errors
    /// It was cut.
    fn end(&mut self, said: &mut dyn FnMut(Said<'_>)) -> Result<(), Broken>;
}
