//! Server-sent events of a stream. What all events of a stream share is rendered once; per token
//! only the text is escaped. The bytes are those that `serde_json` makes of the same object.
//!
//! Rules learnt from others' bug reports: the role comes first and once; `usage` is there only
//! when asked for, then `null` in all chunks but the last, whose `choices` is `[]`; a stream
//! that broke ends with an `error` event and without `[DONE]`; a call's id and name come once,
//! then only its index with more of its arguments.

use super::answer::{self, call_head, chat_logprobs, finish_name, finish_of_text};
use super::answer::{legacy_logprobs, token_ids};
use crate::answer::{Head, Usage};
use crate::error::ApiError;
use crate::json::put;
use crate::piece::{self, Delta, Piece, Remark};
use crate::request::StreamOptions;

/// Keeps proxies and clients from giving up while no token is there yet.
const PING: &[u8] = b": ping\n\n";

const DONE: &[u8] = b"data: [DONE]\n\n";

/// Which of the two routes is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `chat.completion.chunk`
    Chat,
    /// `text_completion`
    Completion,
}

/// Writes the events of one stream.
#[derive(Debug)]
pub struct Writer {
    kind: Kind,
    /// `data: {"id":..,"object":..,"created":..,"model":..,"choices":[`
    prefix: Vec<u8>,
    options: StreamOptions,
    /// Per choice: characters of text so far, for the legacy `text_offset`.
    offsets: Vec<usize>,
    /// Of a plain completion: what each choice begins with.
    repeated: Option<Box<str>>,
}

impl Writer {
    /// A stream with this many choices.
    #[must_use]
    pub fn new(kind: Kind, head: &Head, options: StreamOptions, choices: usize) -> Self {
        let mut prefix = b"data: ".to_vec();
        let object = match kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Completion => "text_completion",
        };
        head.open(&mut prefix, object);
        prefix.extend_from_slice(b",\"choices\":[");
        Self { kind, prefix, options, offsets: vec![0; choices], repeated: None }
    }

    /// Repeats the prompt of a plain completion in front of each choice.
    #[must_use]
    pub fn repeating(self, prompt: Option<&str>) -> Self {
        Self { repeated: prompt.map(Into::into), ..self }
    }

    fn chat_head(&self, out: &mut Vec<u8>, piece: &Piece<'_>) {
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(b"{\"index\":");
        put(out, &piece.index);
        out.extend_from_slice(b",\"delta\":");
    }

    fn chat_tail(&self, out: &mut Vec<u8>, piece: &Piece<'_>) {
        out.extend_from_slice(b",\"logprobs\":");
        chat_logprobs(out, piece.logprobs);
        out.extend_from_slice(b",\"finish_reason\":");
        put(out, &piece.finish.map(finish_name));
        token_ids(out, "token_ids", piece.token_ids);
        out.extend_from_slice(b"}]");
        self.usage_so_far(out, piece);
        token_ids(out, "prompt_token_ids", piece.prompt_token_ids);
        out.extend_from_slice(b"}\n\n");
    }

    fn completion(&mut self, out: &mut Vec<u8>, text: &str, piece: &Piece<'_>) {
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(b"{\"index\":");
        put(out, &piece.index);
        out.extend_from_slice(b",\"text\":");
        put(out, text);
        out.extend_from_slice(b",\"logprobs\":");
        let at = usize::try_from(piece.index).unwrap_or(usize::MAX);
        let offset = self.offsets.get_mut(at);
        legacy_logprobs(out, piece.logprobs, offset.unwrap_or(&mut 0));
        out.extend_from_slice(b",\"finish_reason\":");
        put(out, &piece.finish.map(finish_of_text));
        token_ids(out, "token_ids", piece.token_ids);
        token_ids(out, "prompt_token_ids", piece.prompt_token_ids);
        out.extend_from_slice(b"}]");
        self.usage_so_far(out, piece);
        out.extend_from_slice(b"}\n\n");
    }

    fn usage_so_far(&self, out: &mut Vec<u8>, piece: &Piece<'_>) {
        if let Some(usage) = piece.usage.as_ref().filter(|_| self.options.continuous_usage) {
            out.extend_from_slice(b",\"usage\":");
            answer::write_usage(out, usage);
        } else if self.options.include_usage {
            out.extend_from_slice(b",\"usage\":null");
        }
    }
}

impl piece::Writer for Writer {
    /// The role and no text yet. Plain completions have no such event, but for a prompt that is
    /// repeated.
    fn start(&mut self, out: &mut Vec<u8>, piece: &Piece<'_>) {
        if self.kind == Kind::Chat {
            self.chat_head(out, piece);
            out.extend_from_slice(b"{\"role\":\"assistant\",\"content\":\"\"}");
            self.chat_tail(out, piece);
        } else if let Some(prompt) = self.repeated.take() {
            self.completion(out, &prompt, piece);
            self.repeated = Some(prompt);
        }
    }

    fn piece(&mut self, out: &mut Vec<u8>, piece: &Piece<'_>) {
        // A provider may answer more than it was asked for.
        if usize::try_from(piece.index).is_ok_and(|at| at >= self.offsets.len()) {
            return;
        }
        match (self.kind, piece.delta) {
            // A refusal's words are what the caller reads.
            (Kind::Completion, Delta::Content(text) | Delta::Refusal(text)) => {
                self.completion(out, text, piece);
            }
            (Kind::Completion, Delta::None) => self.completion(out, "", piece),
            // There is a place for text alone; the end is said in any case.
            (Kind::Completion, _) if piece.finish.is_some() => self.completion(out, "", piece),
            // OpenAI's chat has no word for a seal.
            (Kind::Completion, _) | (Kind::Chat, Delta::Seal(_)) => {}
            (Kind::Chat, delta) => {
                // Written in place: the text is copied once, from the token to the socket.
                self.chat_head(out, piece);
                chat_delta(out, delta);
                self.chat_tail(out, piece);
            }
        }
    }

    /// A remark stands beside the usage where that is asked for, else in a comment, which every
    /// client skips.
    fn end(&mut self, out: &mut Vec<u8>, usage: &Usage, remark: &Remark<'_>) {
        if self.options.include_usage {
            out.extend_from_slice(&self.prefix);
            out.extend_from_slice(b"],\"usage\":");
            answer::write_usage(out, usage);
            if !remark.is_empty() {
                out.extend_from_slice(b",\"hearth\":");
                put(out, remark);
            }
            out.extend_from_slice(b"}\n\n");
        } else {
            remark.comment(out);
        }
        out.extend_from_slice(DONE);
    }

    /// Nothing follows, no `[DONE]` either.
    fn error(&mut self, out: &mut Vec<u8>, error: &ApiError) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&answer::error(error));
        out.extend_from_slice(b"\n\n");
    }

    fn ping(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PING);
    }
}

fn chat_delta(out: &mut Vec<u8>, delta: Delta<'_>) {
    let text = |out: &mut Vec<u8>, open: &[u8], text: &str, close: &[u8]| {
        out.extend_from_slice(open);
        put(out, text);
        out.extend_from_slice(close);
    };
    let call = |out: &mut Vec<u8>, index: u32| {
        out.extend_from_slice(b"{\"tool_calls\":[{\"index\":");
        put(out, &index);
        out.push(b',');
    };
    match delta {
        Delta::None | Delta::Seal(_) => out.extend_from_slice(b"{}"),
        Delta::Refusal(new) => text(out, b"{\"refusal\":", new, b"}"),
        Delta::Content(new) => text(out, b"{\"content\":", new, b"}"),
        Delta::Reasoning(new) => text(out, b"{\"reasoning_content\":", new, b"}"),
        Delta::CallStart { index, id, name } => {
            call(out, index);
            call_head(out, id, name);
            out.extend_from_slice(b"\"\"}}]}");
        }
        Delta::Arguments { index, text: new } => {
            call(out, index);
            text(out, b"\"function\":{\"arguments\":", new, b"}}]}");
        }
    }
}
