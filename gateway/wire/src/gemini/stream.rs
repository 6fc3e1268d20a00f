//! A stream of answers, each with what is new: as server-sent events, or as one JSON array that
//! grows (what a caller gets who does not say `alt=sse`).
//!
//! Rules of Google's own clients: a chunk has candidates with at least one part, or the client
//! drops the whole turn from its history, so that the usage comes in the chunk that ends the
//! candidates. A comment between events is taken for JSON, and an empty line for an end, so that
//! there is neither. Calls come whole, in the last chunk, because pieces of several calls may come
//! in turns.

use super::answer::{self, Ending, Parts};
use super::seal;
use crate::answer::{Call, Finish, Head, TokenLogprob, Usage};
use crate::error::ApiError;
use crate::json::{list, put};
use crate::piece::{self, Delta, Piece, Remark};

/// How chunks are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `data:` lines, for `alt=sse`.
    Events,
    /// Items of a JSON array.
    Array,
}

/// Writes one stream.
#[derive(Debug)]
pub struct Writer {
    framing: Framing,
    head: Head,
    choices: Vec<State>,
    /// A chunk was written.
    begun: bool,
}

/// What of a choice is not written yet.
#[derive(Debug, Default)]
struct State {
    calls: Vec<(u32, Call)>,
    refusal: String,
    /// The last part is of thoughts, which a signature may follow.
    thinks: bool,
    /// Of pieces without a text.
    logprobs: Vec<TokenLogprob>,
    finish: Option<Finish>,
}

/// Makes an array of events that somebody else has written.
#[derive(Debug, Default)]
pub struct Array {
    begun: bool,
}

impl Array {
    /// Takes whole events, each with one line of data; what has none is left out.
    pub fn push(&mut self, events: &[u8], out: &mut Vec<u8>) {
        let lines = events.split(|byte| matches!(byte, b'\n' | b'\r'));
        let data = lines.filter_map(|line| line.strip_prefix(b"data:"));
        for item in data.map(<[u8]>::trim_ascii).filter(|item| !item.is_empty()) {
            out.extend_from_slice(before(std::mem::replace(&mut self.begun, true)));
            out.extend_from_slice(item);
        }
    }

    /// Nothing more comes.
    pub fn close(self, out: &mut Vec<u8>) {
        if !self.begun {
            out.extend_from_slice(before(false));
        }
        out.push(b']');
    }
}

/// What stands before an item of an array that has begun, or has not.
fn before(begun: bool) -> &'static [u8] {
    if begun { b",\r\n" } else { b"[" }
}

impl Writer {
    /// A stream with this many choices.
    #[must_use]
    pub fn new(framing: Framing, head: &Head, choices: usize) -> Self {
        let choices = std::iter::repeat_with(State::default).take(choices).collect();
        Self { framing, head: head.clone(), choices, begun: false }
    }

    /// The rest of a stream with one choice, of which somebody else has written chunks.
    #[must_use]
    pub fn rest(framing: Framing, head: &Head) -> Self {
        Self { begun: true, ..Self::new(framing, head, 1) }
    }

    fn open(&mut self, out: &mut Vec<u8>) {
        let begun = std::mem::replace(&mut self.begun, true);
        out.extend_from_slice(match self.framing {
            Framing::Events => b"data: ",
            Framing::Array => before(begun),
        });
    }

    fn close(&self, out: &mut Vec<u8>) {
        if self.framing == Framing::Events {
            out.extend_from_slice(b"\r\n\r\n");
        }
    }

    /// A chunk with one part of one candidate.
    fn part(&mut self, out: &mut Vec<u8>, piece: &Piece<'_>, say: impl FnOnce(&mut Parts<'_>)) {
        self.open(out);
        out.extend_from_slice(b"{\"candidates\":[");
        let mut parts = Parts::open(out);
        say(&mut parts);
        parts.close();
        out.extend_from_slice(b",\"index\":");
        put(out, &piece.index);
        let own = piece.logprobs.unwrap_or_default();
        match self.state(piece.index) {
            Some(state) if !state.logprobs.is_empty() => {
                let mut all = std::mem::take(&mut state.logprobs);
                all.extend_from_slice(own);
                answer::logprobs(out, &all);
            }
            _ => answer::logprobs(out, own),
        }
        out.extend_from_slice(b"}]");
        answer::tail(out, &self.head, piece.usage.as_ref());
        out.push(b'}');
        self.close(out);
    }

    /// Whether thoughts stand right before this piece; takes note of what it is.
    fn thinks(&mut self, piece: &Piece<'_>) -> bool {
        let Some(state) = self.state(piece.index) else { return false };
        let before = state.thinks;
        state.thinks = match piece.delta {
            Delta::Reasoning(text) => before || !text.is_empty(),
            Delta::None | Delta::Content("") => before,
            _ => false,
        };
        before
    }

    fn state(&mut self, index: u32) -> Option<&mut State> {
        self.choices.get_mut(usize::try_from(index).ok()?)
    }
}

impl piece::Writer for Writer {
    /// There is no chunk without a part.
    fn start(&mut self, _out: &mut Vec<u8>, _piece: &Piece<'_>) {}

    fn piece(&mut self, out: &mut Vec<u8>, piece: &Piece<'_>) {
        // A provider may answer more than it was asked for.
        if self.state(piece.index).is_none() {
            return;
        }
        let thinks = self.thinks(piece);
        match piece.delta {
            Delta::Content(text) if !text.is_empty() => {
                self.part(out, piece, |parts| parts.text(text, false, None));
            }
            Delta::Reasoning(text) if !text.is_empty() => {
                self.part(out, piece, |parts| parts.text(text, true, None));
            }
            Delta::Seal(seal) => {
                let signature = seal::write(seal);
                // As in a whole answer: without words before it, it is no thought.
                self.part(out, piece, |parts| parts.text("", thinks, Some(&signature)));
            }
            delta => {
                let Some(state) = self.state(piece.index) else { return };
                state.logprobs.extend_from_slice(piece.logprobs.unwrap_or_default());
                state.keep(delta);
            }
        }
        if let (Some(finish), Some(state)) = (piece.finish, self.state(piece.index)) {
            state.finish = Some(finish);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>, usage: &Usage, remark: &Remark<'_>) {
        self.open(out);
        out.extend_from_slice(b"{\"candidates\":");
        let ended = std::mem::take(&mut self.choices).into_iter();
        let ended: Vec<_> = (0_u32..).zip(ended).filter(|(_, s)| s.finish.is_some()).collect();
        list(out, &ended, |out, (index, state)| {
            let calls: Vec<Call> = state.calls.iter().map(|(_, call)| call.clone()).collect();
            let finish = state.finish.unwrap_or(Finish::Stop);
            let ending = Ending::of(finish, Some(&state.refusal), &calls);
            let mut parts = Parts::open(out);
            parts.calls(&ending, &calls);
            parts.close();
            ending.write(out, *index);
            answer::logprobs(out, &state.logprobs);
            out.push(b'}');
        });
        answer::tail(out, &self.head, Some(usage));
        if !remark.is_empty() {
            out.extend_from_slice(b",\"hearth\":");
            put(out, remark);
        }
        out.push(b'}');
        self.close(out);
        if self.framing == Framing::Array {
            out.push(b']');
        }
    }

    /// There is no comment: the end says it.
    fn remark(&mut self, _out: &mut Vec<u8>, _remark: &Remark<'_>) {}

    /// The last item is an error, which no client takes for the end of an answer.
    fn error(&mut self, out: &mut Vec<u8>, error: &ApiError) {
        self.open(out);
        out.extend_from_slice(&answer::error(error));
        self.close(out);
        if self.framing == Framing::Array {
            out.push(b']');
        }
    }

    /// A text that says nothing: the older of Google's clients takes no line but data. Between the
    /// items of an array an empty line will do.
    fn ping(&mut self, out: &mut Vec<u8>) {
        if self.framing == Framing::Array {
            out.extend_from_slice(b"\r\n");
            return;
        }
        self.open(out);
        out.extend_from_slice(b"{\"candidates\":[");
        Parts::open(out).close();
        out.extend_from_slice(b",\"index\":0}]");
        answer::tail(out, &self.head, None);
        out.push(b'}');
        self.close(out);
    }
}

impl State {
    fn keep(&mut self, delta: Delta<'_>) {
        match delta {
            Delta::Refusal(text) => self.refusal.push_str(text),
            Delta::CallStart { index, id, name } => {
                let call = Call { id: id.into(), name: name.into(), arguments: String::new() };
                self.calls.push((index, call));
            }
            Delta::Arguments { index, text } => {
                let call = self.calls.iter_mut().rfind(|(own, _)| *own == index);
                call.into_iter().for_each(|(_, call)| call.arguments.push_str(text));
            }
            _ => {}
        }
    }
}
