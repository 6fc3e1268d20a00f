//! Server-sent events of a stream. Per token only the text is escaped; the bytes are those that
//! `serde_json` makes of the same object.
//!
//! Rules learnt from others' bug reports: there is one `message_start`; blocks are numbered from
//! 0 without gaps, one is closed before the next begins, and none is opened for text that is not
//! there, so that a turn of calls alone has its first call at 0; a call begins with `input: {}`
//! and its arguments follow as they are made; a signature comes before its block ends, and thoughts
//! that have only a signature are a block all the same; the last event but one has all counts.

use super::{answer, seal, usage};
use crate::answer::{Finish, Head, Usage};
use crate::error::{ApiError, ErrorKind};
use crate::json::put;
use crate::piece::{self, Delta, Piece, Remark, SealRef};

const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// The block under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Text,
    Thinking,
    /// A call, by its number.
    Call(u32),
    /// A block that has no deltas.
    Whole,
}

/// Writes the events of one stream. The dialect has one choice: pieces of others are left out.
#[derive(Debug)]
pub struct Writer {
    head: Head,
    request_id: String,
    begun: bool,
    /// Nothing follows.
    ended: bool,
    open: Option<Open>,
    /// Blocks so far, with the one under way.
    blocks: u32,
    finish: Finish,
    stop: Option<String>,
}

impl Writer {
    /// A stream. `request_id` stands in its error, if it has one.
    #[must_use]
    pub fn new(head: &Head, request_id: &str) -> Self {
        Self {
            head: head.clone(),
            request_id: request_id.to_owned(),
            begun: false,
            ended: false,
            open: None,
            blocks: 0,
            finish: Finish::Stop,
            stop: None,
        }
    }

    /// The rest of a stream that somebody else has begun: `blocks` so far, of which the last is one
    /// of text that is under way if `open`.
    #[must_use]
    pub fn rest(blocks: u32, open: bool, request_id: &str) -> Self {
        // Its head is out already.
        let head = Head { id: String::new(), created: 0, model: String::new(), service_tier: None };
        let open = open.then_some(Open::Text);
        Self { begun: true, open, blocks, ..Self::new(&head, request_id) }
    }

    /// Opens a block: `content` is its object, and the braces are closed here.
    fn begin(&mut self, out: &mut Vec<u8>, open: Open, content: impl FnOnce(&mut Vec<u8>)) {
        self.close(out);
        out.extend_from_slice(b"event: content_block_start\n");
        out.extend_from_slice(b"data: {\"type\":\"content_block_start\",\"index\":");
        put(out, &self.blocks);
        out.extend_from_slice(b",\"content_block\":");
        content(out);
        out.extend_from_slice(b"}\n\n");
        self.blocks += 1;
        self.open = Some(open);
    }

    /// More of the block under way.
    fn more(&self, out: &mut Vec<u8>, field: &[u8], text: &str) {
        out.extend_from_slice(b"event: content_block_delta\n");
        out.extend_from_slice(b"data: {\"type\":\"content_block_delta\",\"index\":");
        put(out, &self.blocks.saturating_sub(1));
        out.extend_from_slice(b",\"delta\":{\"type\":");
        out.extend_from_slice(field);
        put(out, text);
        out.extend_from_slice(b"}}\n\n");
    }

    /// Closes the block under way, if there is one. Thoughts that nobody sealed are signed here.
    fn close(&mut self, out: &mut Vec<u8>) {
        if self.open == Some(Open::Thinking) {
            self.sign(out, None);
        } else if self.open.take().is_some() {
            self.stop(out);
        }
    }

    fn stop(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"event: content_block_stop\n");
        out.extend_from_slice(b"data: {\"type\":\"content_block_stop\",\"index\":");
        put(out, &self.blocks.saturating_sub(1));
        out.extend_from_slice(b"}\n\n");
    }

    /// Signs the block of thoughts under way and closes it.
    fn sign(&mut self, out: &mut Vec<u8>, seal: Option<SealRef<'_>>) {
        let signature = seal::signature(seal);
        self.more(out, b"\"signature_delta\",\"signature\":", &signature);
        self.stop(out);
        self.open = None;
    }

    fn text(&mut self, out: &mut Vec<u8>, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.open != Some(Open::Text) {
            let empty = b"{\"type\":\"text\",\"text\":\"\"}";
            self.begin(out, Open::Text, |out| out.extend_from_slice(empty));
        }
        self.more(out, b"\"text_delta\",\"text\":", text);
    }

    fn thinking(&mut self, out: &mut Vec<u8>) {
        if self.open != Some(Open::Thinking) {
            let empty = b"{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}";
            self.begin(out, Open::Thinking, |out| out.extend_from_slice(empty));
        }
    }

    fn seal(&mut self, out: &mut Vec<u8>, seal: SealRef<'_>) {
        if let SealRef::Redacted(data) = seal {
            self.begin(out, Open::Whole, |out| {
                out.extend_from_slice(b"{\"type\":\"redacted_thinking\",\"data\":");
                put(out, data);
                out.push(b'}');
            });
            self.close(out);
        } else {
            self.thinking(out);
            self.sign(out, Some(seal));
        }
    }

    fn call(&mut self, out: &mut Vec<u8>, index: u32, id: &str, name: &str) {
        self.begin(out, Open::Call(index), |out| {
            out.extend_from_slice(b"{\"type\":\"tool_use\",\"id\":");
            put(out, id);
            out.extend_from_slice(b",\"name\":");
            put(out, name);
            out.extend_from_slice(b",\"input\":{}}");
        });
    }

    /// A block that is closed cannot go on, and what a call lacks must not look like a whole one.
    fn arguments(&mut self, out: &mut Vec<u8>, index: u32, text: &str) {
        if self.open == Some(Open::Call(index)) {
            if !text.is_empty() {
                self.more(out, b"\"input_json_delta\",\"partial_json\":", text);
            }
            return;
        }
        let message = "The model wrote two calls at once, which this stream cannot carry.";
        let error = ApiError::new(ErrorKind::Internal, "calls_interleaved", message);
        piece::Writer::error(self, out, &error);
    }
}

impl piece::Writer for Writer {
    fn start(&mut self, out: &mut Vec<u8>, piece: &Piece<'_>) {
        if std::mem::replace(&mut self.begun, true) || self.ended {
            return;
        }
        out.extend_from_slice(
            b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":",
        );
        answer::open(out, &self.head);
        out.extend_from_slice(b"\"content\":[],\"stop_reason\":null,\"stop_sequence\":null");
        out.extend_from_slice(b",\"stop_details\":null,\"usage\":");
        usage::write(out, &piece.usage.unwrap_or_default());
        out.extend_from_slice(b"}}\n\n");
    }

    fn piece(&mut self, out: &mut Vec<u8>, piece: &Piece<'_>) {
        if piece.index != 0 || self.ended {
            return;
        }
        match piece.delta {
            Delta::None => {}
            // A refusal's words are what the caller reads.
            Delta::Content(text) | Delta::Refusal(text) => self.text(out, text),
            Delta::Reasoning("") => {}
            Delta::Reasoning(text) => {
                self.thinking(out);
                self.more(out, b"\"thinking_delta\",\"thinking\":", text);
            }
            Delta::Seal(seal) => self.seal(out, seal),
            Delta::CallStart { index, id, name } => self.call(out, index, id, name),
            Delta::Arguments { index, text } => self.arguments(out, index, text),
        }
        if let Some(finish) = piece.finish.filter(|_| !self.ended) {
            self.close(out);
            self.finish = finish;
            self.stop = piece.stop.map(str::to_owned);
        }
    }

    /// A remark stands in a comment, which every client skips.
    fn end(&mut self, out: &mut Vec<u8>, usage: &Usage, remark: &Remark<'_>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.close(out);
        out.extend_from_slice(
            b"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{",
        );
        usage::write_end(out, self.finish, self.stop.as_deref());
        out.extend_from_slice(b"},\"usage\":");
        usage::write(out, usage);
        out.extend_from_slice(b"}\n\n");
        remark.comment(out);
        out.extend_from_slice(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    }

    fn error(&mut self, out: &mut Vec<u8>, error: &ApiError) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        out.extend_from_slice(b"event: error\ndata: ");
        out.extend_from_slice(&answer::error(error, &self.request_id));
        out.extend_from_slice(b"\n\n");
    }

    fn ping(&mut self, out: &mut Vec<u8>) {
        if !self.ended {
            out.extend_from_slice(PING);
        }
    }
}
