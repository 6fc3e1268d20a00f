//! A provider's stream. Unknown events, deltas and kinds of blocks are skipped: the dialect says
//! that it will grow.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::read::{self, Block, End, Text};
use super::{seal, usage};
use crate::piece::{self, Broken, Delta, Piece, Said, SealRef};
use crate::provider::json;
use crate::request::Seal;

/// Blocks that may be open at once. The dialect has one; a stranger may forget to close them.
const OPEN_MAX: usize = 64;

/// A block under way.
#[derive(Debug)]
enum Kind {
    Text,
    Thinking,
    Call {
        number: u32,
        /// What stood in `input` at its start. Some servers send all arguments there.
        input: Option<String>,
    },
    /// None of ours.
    Other,
}

/// Reads the events of one stream.
#[derive(Debug, Default)]
pub struct Reader {
    begun: bool,
    finished: bool,
    done: bool,
    open: Vec<(u32, Kind)>,
    calls: u32,
    usage: usage::Said,
}

#[derive(Deserialize)]
struct Kinded<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Text<'a>,
}

#[derive(Deserialize)]
struct MessageStart<'a> {
    #[serde(borrow)]
    message: Message<'a>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    model: Text<'a>,
    usage: Option<usage::Said>,
}

#[derive(Deserialize)]
struct BlockStart<'a> {
    index: u32,
    #[serde(borrow)]
    content_block: Block<'a>,
}

#[derive(Deserialize)]
struct BlockDelta<'a> {
    index: u32,
    #[serde(borrow)]
    delta: BlockMore<'a>,
}

#[derive(Deserialize)]
struct BlockMore<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Text<'a>,
    #[serde(borrow, default)]
    text: Text<'a>,
    #[serde(borrow, default)]
    thinking: Text<'a>,
    #[serde(borrow, default)]
    signature: Text<'a>,
    #[serde(borrow, default)]
    partial_json: Text<'a>,
}

#[derive(Deserialize)]
struct BlockStop {
    index: u32,
}

#[derive(Deserialize)]
struct MessageDelta<'a> {
    #[serde(borrow, default)]
    delta: End<'a>,
    usage: Option<usage::Said>,
}

impl piece::Reader for Reader {
    fn event(
        &mut self,
        name: &str,
        data: &str,
        said: &mut dyn FnMut(Said<'_>),
    ) -> Result<(), Broken> {
        if self.done {
            return Ok(());
        }
        let kinded;
        let kind = if name.is_empty() {
            kinded = json::<Kinded<'_>>(data)?;
            &*kinded.kind.0
        } else {
            name
        };
        match kind {
            // Nothing of an answer stands behind its reason to end.
            "content_block_delta" | "content_block_start" | "content_block_stop"
                if self.finished =>
            {
                Ok(())
            }
            "content_block_delta" => self.more(&json(data)?, said),
            "content_block_start" => self.start(&json(data)?, said),
            "content_block_stop" => {
                let stop: BlockStop = json(data)?;
                self.stop(stop.index, said);
                Ok(())
            }
            "message_start" => {
                self.begin(&json(data)?, said);
                Ok(())
            }
            "message_delta" => {
                let delta: MessageDelta<'_> = json(data)?;
                self.correct(delta.usage, said);
                if !delta.delta.stop_reason.0.is_empty() {
                    self.finish(&delta.delta, said);
                }
                Ok(())
            }
            "message_stop" => {
                self.finish(&End::default(), said);
                self.done = true;
                said(Said::Done);
                Ok(())
            }
            "error" => {
                self.done = true;
                said(Said::Failed(read::read_error(500, data.as_bytes())));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn end(&mut self, _: &mut dyn FnMut(Said<'_>)) -> Result<(), Broken> {
        if self.done {
            return Ok(());
        }
        Err(Broken("it ended before 'message_stop'".into()))
    }
}

fn piece(delta: Delta<'_>) -> Said<'_> {
    Said::Piece(Piece { delta, ..Piece::default() })
}

/// A text that is not empty.
fn words<'a>(
    text: &'a Text<'_>,
    delta: impl FnOnce(&'a str) -> Delta<'a>,
    said: &mut dyn FnMut(Said<'_>),
) {
    if !text.0.is_empty() {
        said(piece(delta(&text.0)));
    }
}

fn sealed(signature: &str, said: &mut dyn FnMut(Said<'_>)) {
    match seal::of(signature) {
        None => {}
        // Borrowed again, as it was sent.
        Some(Seal::Signature(_)) => said(piece(Delta::Seal(SealRef::Signature(signature)))),
        Some(seal) => said(piece(Delta::Seal(seal::as_ref(&seal)))),
    }
}

impl Reader {
    /// Only the first one counts.
    fn begin(&mut self, start: &MessageStart<'_>, said: &mut dyn FnMut(Said<'_>)) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let Message { id, model, usage } = &start.message;
        said(Said::Begun { id: &id.0, model: &model.0 });
        self.correct(*usage, said);
    }

    fn correct(&mut self, usage: Option<usage::Said>, said: &mut dyn FnMut(Said<'_>)) {
        if let Some(usage) = usage {
            self.usage.correct(usage);
            said(Said::Usage(self.usage.usage()));
        }
    }

    fn start(
        &mut self,
        start: &BlockStart<'_>,
        said: &mut dyn FnMut(Said<'_>),
    ) -> Result<(), Broken> {
        if self.open.len() >= OPEN_MAX || self.open.iter().any(|(index, _)| *index == start.index) {
            return Err(Broken(format!("block {} begins within others", start.index)));
        }
        // Blocks come one after the other: a call whose end was lost has what it began with, and
        // has it before the next block's first word.
        let lost = |(_, kind): &(u32, Kind)| matches!(kind, Kind::Call { input: Some(_), .. });
        while let Some((index, _)) = self.open.iter().find(|open| lost(open)) {
            self.stop(*index, said);
        }
        let block = &start.content_block;
        let kind = match &*block.kind.0 {
            "text" => {
                words(&block.text, Delta::Content, said);
                Kind::Text
            }
            "thinking" => {
                words(&block.thinking, Delta::Reasoning, said);
                sealed(&block.signature.0, said);
                Kind::Thinking
            }
            "redacted_thinking" => {
                words(&block.data, |data| Delta::Seal(SealRef::Redacted(data)), said);
                Kind::Other
            }
            "tool_use" => {
                let (number, input) = (self.calls, block.input.map(RawValue::get));
                self.calls += 1;
                let (id, name) = (&*block.id.0, &*block.name.0);
                said(piece(Delta::CallStart { index: number, id, name }));
                Kind::Call { number, input: Some(input.unwrap_or("{}").to_owned()) }
            }
            _ => Kind::Other,
        };
        self.open.push((start.index, kind));
        Ok(())
    }

    fn more(
        &mut self,
        delta: &BlockDelta<'_>,
        said: &mut dyn FnMut(Said<'_>),
    ) -> Result<(), Broken> {
        let BlockDelta { index, delta } = delta;
        let Some((_, kind)) = self.open.iter_mut().find(|(open, _)| open == index) else {
            return Err(Broken(format!("more of block {index}, which has not begun")));
        };
        match (kind, &*delta.kind.0) {
            (Kind::Text, "text_delta") => words(&delta.text, Delta::Content, said),
            (Kind::Thinking, "thinking_delta") => words(&delta.thinking, Delta::Reasoning, said),
            (Kind::Thinking, "signature_delta") => sealed(&delta.signature.0, said),
            (Kind::Call { number, input }, "input_json_delta") => {
                if !delta.partial_json.0.is_empty() {
                    *input = None;
                }
                let index = *number;
                words(&delta.partial_json, |text| Delta::Arguments { index, text }, said);
            }
            _ => {}
        }
        Ok(())
    }

    /// A call whose arguments did not come in pieces has those that stood at its start.
    fn stop(&mut self, index: u32, said: &mut dyn FnMut(Said<'_>)) {
        let Some(at) = self.open.iter().position(|(open, _)| *open == index) else { return };
        if let (_, Kind::Call { number, input: Some(text) }) = self.open.swap_remove(at) {
            said(piece(Delta::Arguments { index: number, text: &text }));
        }
    }

    /// The message's end, once. `message_stop` without one is an end like any other.
    fn finish(&mut self, end: &End<'_>, said: &mut dyn FnMut(Said<'_>)) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        while let Some((index, _)) = self.open.first() {
            self.stop(*index, said);
        }
        said(Said::Piece(Piece {
            delta: end.refusal().map_or(Delta::None, Delta::Refusal),
            finish: Some(end.finish(self.calls > 0)),
            stop: end.stop(),
            ..Piece::default()
        }));
    }
}
