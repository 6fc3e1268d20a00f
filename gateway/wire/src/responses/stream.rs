//! A response as server-sent events, each with a name, its number in the stream, and the place in
//! the output that it speaks of.
//!
//! Rules learnt from others' bug reports: an item is added before anything is said of it and done
//! once, under the same id; a part of a message likewise; a turn that only calls tools has no
//! message; what the last event repeats is what was streamed; a broken stream ends in
//! `response.failed`, and an item that was under way is never called done, for agents run the
//! calls of items that are. There is no `[DONE]`.

use serde_json::Value;

use super::Ids;
use super::echo::Echo;
use super::events::Events;
use super::output::{Body, Item, Part, State, write_logprobs};
use super::response::{Response, Status};
use super::tools;
use crate::answer::{Finish, Head, Usage};
use crate::error::{ApiError, ErrorKind};
use crate::piece::{self, Delta, Piece, Remark, SealRef};
use crate::request::Seal;

/// Keeps proxies and clients from giving up while no token is there yet.
const PING: &[u8] = b": ping\n\n";

/// Writes the events of one stream, and keeps the response that they make.
pub struct Writer {
    response: Response,
    ids: Box<Ids<'static>>,
    now: Box<dyn Fn() -> u64 + Send>,
    events: Events,
    begun: bool,
    ended: bool,
    finish: Option<Finish>,
    /// What of the last item is under way.
    open: Open,
    /// Log-probabilities that came before the text they belong to, as they are written.
    logprobs: Vec<u8>,
}

/// What of the last item is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    Nothing,
    /// An item between its parts.
    Item,
    Thoughts,
    Text,
    /// A text that is done, though its part is not.
    Said,
    Refusal,
    /// A call, by its number.
    Call(u32),
}

impl Writer {
    /// Of a response that begins. `ids` makes ids of items, `now` tells the time in seconds since
    /// 1970.
    #[must_use]
    pub fn new(
        head: Head,
        echo: Echo,
        ids: Box<Ids<'static>>,
        now: Box<dyn Fn() -> u64 + Send>,
    ) -> Self {
        Self {
            response: Response::bare(head, echo, Status::InProgress),
            ids,
            now,
            events: Events::default(),
            begun: false,
            ended: false,
            finish: None,
            open: Open::Nothing,
            logprobs: Vec::new(),
        }
    }

    /// Of a response that somebody else has begun, and where it stands: the number of the next
    /// event, and what of the last item is under way.
    pub(super) fn rest(
        response: Response,
        (number, open): (u64, Open),
        ids: Box<Ids<'static>>,
        now: Box<dyn Fn() -> u64 + Send>,
    ) -> Self {
        let mut events = Events::after(number);
        if let Some(item) = response.items.last() {
            events.at_item(response.items.len() - 1, item);
            if let (Open::Text | Open::Said, Body::Message(parts)) = (open, &item.body) {
                events.at_part(parts.len().saturating_sub(1));
            }
        }
        let (begun, ended, finish, logprobs) = (true, false, None, Vec::new());
        Self { response, ids, now, events, begun, ended, finish, open, logprobs }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            self.events.response(out, "response.created", &self.response);
            self.events.response(out, "response.in_progress", &self.response);
        }
    }

    fn last(&mut self) -> Option<&mut Item> {
        self.response.items.last_mut()
    }

    fn item_event(&mut self, out: &mut Vec<u8>, name: &str) {
        let index = self.response.items.len().saturating_sub(1);
        if let Some(item) = self.response.items.last() {
            self.events.item(out, name, index, item, &self.response.echo);
        }
    }

    fn open_item(&mut self, out: &mut Vec<u8>, body: Body, open: Open) {
        self.close_item(out, State::Whole);
        let id = (self.ids)(body.prefix(&self.response.echo));
        let item = Item { id, state: State::Begun, body };
        self.events.at_item(self.response.items.len(), &item);
        self.response.items.push(item);
        self.open = open;
        self.item_event(out, "response.output_item.added");
    }

    fn open_part(&mut self, out: &mut Vec<u8>, part: Part, open: Open) {
        let Some(item) = self.response.items.last_mut() else { return };
        let index = match &item.body {
            Body::Message(parts) => parts.len(),
            _ => 0,
        };
        self.events.at_part(index);
        self.events.part(out, "response.content_part.added", &part);
        if let Body::Message(parts) = &mut item.body {
            parts.push(part);
        }
        self.open = open;
    }

    /// The part of a message that this delta belongs to: the one under way, or a new one, in the
    /// message under way or in a new one.
    fn message_part(&mut self, out: &mut Vec<u8>, part: Part, open: Open) {
        if self.open == open {
            return;
        }
        let last = self.response.items.last().map(|item| &item.body);
        if matches!(self.open, Open::Text | Open::Said | Open::Refusal) {
            self.close_part(out);
        } else if self.open != Open::Item || !matches!(last, Some(Body::Message(_))) {
            self.open_item(out, Body::Message(Vec::new()), Open::Item);
        }
        self.open_part(out, part, open);
    }

    /// Says what is left to say of the part under way; its item stays open.
    fn close_part(&mut self, out: &mut Vec<u8>) {
        let Some(item) = self.response.items.last() else { return };
        let part = match (self.open, &item.body) {
            (Open::Thoughts, Body::Thoughts { text, .. }) if self.response.echo.summary => {
                self.events.text(out, "response.reasoning_summary_text.done", "text", text);
                let part = Part::Summary(text.clone());
                self.events.part(out, "response.reasoning_summary_part.done", &part);
                self.open = Open::Item;
                return;
            }
            (Open::Thoughts, Body::Thoughts { text, .. }) => {
                self.events.text(out, "response.reasoning_text.done", "text", text);
                Part::Thought(text.clone())
            }
            (Open::Text | Open::Said | Open::Refusal, Body::Message(parts)) => {
                let Some(part) = parts.last() else { return };
                match part {
                    Part::Text { .. } if self.open == Open::Said => {}
                    Part::Text { text, logprobs } => {
                        let name = "response.output_text.done";
                        self.events.scored(out, name, "text", text, logprobs);
                    }
                    Part::Refusal(text) | Part::Thought(text) | Part::Summary(text) => {
                        self.events.text(out, "response.refusal.done", "refusal", text);
                    }
                }
                part.clone()
            }
            (Open::Call(_), Body::Call { name, arguments, .. }) => {
                if self.response.echo.is_custom(name) {
                    // Its text is only known when its arguments are whole.
                    let input = tools::custom_input(arguments);
                    let name = "response.custom_tool_call_input";
                    if !input.is_empty() {
                        self.events.text(out, &format!("{name}.delta"), "delta", &input);
                    }
                    self.events.text(out, &format!("{name}.done"), "input", &input);
                } else {
                    let name = "response.function_call_arguments.done";
                    self.events.text(out, name, "arguments", arguments);
                }
                return;
            }
            _ => return,
        };
        self.events.part(out, "response.content_part.done", &part);
        self.open = Open::Item;
    }

    fn close_item(&mut self, out: &mut Vec<u8>, state: State) {
        if self.open != Open::Nothing {
            self.close_part(out);
            self.open = Open::Nothing;
            if let Some(item) = self.last() {
                item.state = state;
            }
            self.item_event(out, "response.output_item.done");
        }
    }

    fn text(&mut self, out: &mut Vec<u8>, new: &str) {
        self.message_part(out, Part::text(""), Open::Text);
        let scores = std::mem::take(&mut self.logprobs);
        self.events.scored(out, "response.output_text.delta", "delta", new, &scores);
        if let Some(Body::Message(parts)) = self.last().map(|item| &mut item.body)
            && let Some(Part::Text { text, logprobs }) = parts.last_mut()
        {
            text.push_str(new);
            if !logprobs.is_empty() && !scores.is_empty() {
                logprobs.push(b',');
            }
            logprobs.extend_from_slice(&scores);
        }
    }

    fn refusal(&mut self, out: &mut Vec<u8>, new: &str) {
        self.message_part(out, Part::Refusal(String::new()), Open::Refusal);
        self.events.text(out, "response.refusal.delta", "delta", new);
        if let Some(Body::Message(parts)) = self.last().map(|item| &mut item.body)
            && let Some(Part::Refusal(text)) = parts.last_mut()
        {
            text.push_str(new);
        }
    }

    fn thoughts(&mut self, out: &mut Vec<u8>, new: &str) {
        if self.open != Open::Thoughts {
            let body = Body::Thoughts { text: String::new(), seal: None };
            self.open_item(out, body, Open::Item);
            if self.response.echo.summary {
                let part = Part::Summary(String::new());
                self.events.at_summary();
                self.events.part(out, "response.reasoning_summary_part.added", &part);
                self.open = Open::Thoughts;
            } else {
                self.open_part(out, Part::Thought(String::new()), Open::Thoughts);
            }
        }
        let name = if self.response.echo.summary {
            "response.reasoning_summary_text.delta"
        } else {
            "response.reasoning_text.delta"
        };
        self.events.text(out, name, "delta", new);
        if let Some(Body::Thoughts { text, .. }) = self.last().map(|item| &mut item.body) {
            text.push_str(new);
        }
    }

    /// The end of an item of thoughts, or one without words.
    fn seal(&mut self, out: &mut Vec<u8>, given: SealRef<'_>) {
        if self.open != Open::Thoughts {
            self.open_item(out, Body::Thoughts { text: String::new(), seal: None }, Open::Item);
        }
        if let Some(Body::Thoughts { seal, .. }) = self.last().map(|item| &mut item.body) {
            *seal = Some(owned(given));
        }
        self.close_item(out, State::Whole);
    }

    /// More of the call under way. Calls come one after another: what comes for one that is done
    /// cannot be said any more, and what a call lacks must not look like a whole one.
    fn arguments(&mut self, out: &mut Vec<u8>, index: u32, new: &str) {
        if self.open != Open::Call(index) {
            let message = "The model wrote two calls at once, which this stream cannot carry.";
            let error = ApiError::new(ErrorKind::Internal, "calls_interleaved", message);
            return piece::Writer::error(self, out, &error);
        }
        let Some(Body::Call { name, arguments, .. }) =
            self.response.items.last_mut().map(|item| &mut item.body)
        else {
            return;
        };
        arguments.push_str(new);
        if !self.response.echo.is_custom(name) {
            self.events.text(out, "response.function_call_arguments.delta", "delta", new);
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>, finish: Finish) {
        self.finish = Some(finish);
        let silent = |item: &Item| matches!(item.body, Body::Thoughts { .. });
        if finish == Finish::Stop && self.response.items.iter().all(silent) {
            // An answer that is done and says nothing is still an answer.
            self.message_part(out, Part::text(""), Open::Text);
        }
        let whole = matches!(finish, Finish::Stop | Finish::ToolCalls);
        self.close_item(out, if whole { State::Whole } else { State::Cut });
    }
}

fn owned(seal: SealRef<'_>) -> Seal {
    match seal {
        SealRef::Signature(text) => Seal::Signature(text.to_owned()),
        SealRef::Redacted(text) => Seal::Redacted(text.to_owned()),
        SealRef::Encrypted { id, content } => {
            Seal::Encrypted { id: id.to_owned(), content: content.to_owned() }
        }
    }
}

impl piece::Writer for Writer {
    fn finished(&self) -> Option<Value> {
        self.ended.then(|| self.response.to_stored())
    }

    /// The response without output.
    fn start(&mut self, out: &mut Vec<u8>, _piece: &Piece<'_>) {
        self.begin(out);
    }

    fn piece(&mut self, out: &mut Vec<u8>, piece: &Piece<'_>) {
        // A response has one choice, however many a provider makes.
        if piece.index != 0 || self.ended || self.finish.is_some() {
            return;
        }
        self.begin(out);
        if let Some(entries) = piece.logprobs {
            write_logprobs(&mut self.logprobs, entries);
        }
        match piece.delta {
            Delta::None | Delta::Content("")
                if self.open == Open::Text && !self.logprobs.is_empty() =>
            {
                self.text(out, "");
            }
            Delta::None
            | Delta::Content("")
            | Delta::Reasoning("")
            | Delta::Refusal("")
            | Delta::Arguments { text: "", .. } => {}
            Delta::Content(text) => self.text(out, text),
            Delta::Reasoning(text) => self.thoughts(out, text),
            Delta::Refusal(text) => self.refusal(out, text),
            Delta::Seal(seal) => self.seal(out, seal),
            Delta::CallStart { index, id, name } => {
                let (id, name) = (id.to_owned(), name.to_owned());
                let body = Body::Call { id, name, arguments: String::new() };
                self.open_item(out, body, Open::Call(index));
            }
            Delta::Arguments { index, text } => self.arguments(out, index, text),
        }
        // Only texts of messages have log-probabilities here.
        if !matches!(piece.delta, Delta::None | Delta::Content(_)) {
            self.logprobs.clear();
        }
        if let Some(finish) = piece.finish {
            self.finish(out, finish);
        }
    }

    /// A remark stands in a comment, which every client skips.
    fn end(&mut self, out: &mut Vec<u8>, usage: &Usage, remark: &Remark<'_>) {
        if self.ended {
            return;
        }
        self.begin(out);
        self.close_item(out, State::Whole);
        self.ended = true;
        remark.comment(out);
        self.response.finish(self.finish.unwrap_or(Finish::Stop), usage, (self.now)());
        let name = self.response.status.event();
        self.events.response(out, name, &self.response);
    }

    fn error(&mut self, out: &mut Vec<u8>, error: &ApiError) {
        if self.ended {
            return;
        }
        self.begin(out);
        self.ended = true;
        if self.open != Open::Nothing
            && let Some(item) = self.last()
        {
            item.state = State::Cut;
        }
        self.response.status = Status::Failed(error.clone());
        self.events.response(out, "response.failed", &self.response);
    }

    fn ping(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PING);
    }
}
