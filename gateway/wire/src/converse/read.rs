//! What Bedrock answers to Converse and ConverseStream. Blocks and events of kinds that are not
//! known here are skipped. The answer's id is in a header, which is not seen here.

use serde_json::Value;
use serde_json::value::RawValue;

use super::events::{
    BlockDelta, BlockStart, BlockStop, MessageStop, Metadata, New, Reasoning, ReasoningText,
    ToolUseDelta, Whole,
};
use crate::answer::{Answer, Call, Choice, Finish};
use crate::error::{ApiError, ErrorKind};
use crate::piece::{self, Broken, Delta, Piece, Said, SealRef};
use crate::provider;
use crate::request::{Seal, Thought};

/// Calls that one answer may have: a bound on what a stranger makes us remember.
const MANY: u32 = 1024;

/// Bytes of one signature, which may come in pieces.
const SIGNATURE_BYTES_MAX: usize = 1 << 20;

/// Why an answer ended.
///
/// # Errors
/// Its model wrote what is no answer.
fn finish(reason: &str, calls: bool) -> Result<Finish, Broken> {
    match reason {
        "tool_use" => Ok(Finish::ToolCalls),
        "end_turn" | "stop_sequence" if calls => Ok(Finish::ToolCalls),
        "end_turn" | "stop_sequence" => Ok(Finish::Stop),
        "max_tokens" | "model_context_window_exceeded" => Ok(Finish::Length),
        "malformed_model_output" | "malformed_tool_use" => {
            Err(Broken(format!("its model failed ({reason})")))
        }
        // guardrail_intervened, content_filtered: for whatever reason, it would not go on.
        _ => Ok(Finish::Refused),
    }
}

/// Reads the events of one stream, as [`super::Frames`] finds them.
#[derive(Debug, Default)]
pub struct Reader {
    begun: bool,
    /// Calls: the number of the block, and whether arguments have come.
    calls: Vec<(u32, bool)>,
    /// The signature under way, and the block that it is of.
    signature: Option<(u32, String)>,
    finished: bool,
    done: bool,
}

impl Reader {
    /// Of a new stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn start(&mut self, start: BlockStart, said: &mut dyn FnMut(Said<'_>)) -> Result<(), Broken> {
        let Some(call) = start.start.tool_use.filter(|call| call.kind.is_none()) else {
            return Ok(());
        };
        self.whole(said);
        let index = u32::try_from(self.calls.len()).unwrap_or(MANY);
        if index >= MANY {
            return Err(Broken("too many calls".into()));
        }
        self.calls.push((start.content_block_index, false));
        let delta = Delta::CallStart { index, id: &call.tool_use_id, name: &call.name };
        said(Said::Piece(Piece { delta, ..Piece::default() }));
        Ok(())
    }

    /// Calls come one after the other. One without arguments has an empty object of them, before
    /// the next begins.
    fn whole(&mut self, said: &mut dyn FnMut(Said<'_>)) {
        let Some((index, _, some @ false)) = self.last() else { return };
        *some = true;
        let delta = Delta::Arguments { index, text: "{}" };
        said(Said::Piece(Piece { delta, ..Piece::default() }));
    }

    /// The last call: its number, its block's, and whether arguments have come.
    fn last(&mut self) -> Option<(u32, u32, &mut bool)> {
        let index = u32::try_from(self.calls.len()).ok()?.checked_sub(1)?;
        self.calls.last_mut().map(|(block, some)| (index, *block, some))
    }

    fn delta(&mut self, delta: BlockDelta, said: &mut dyn FnMut(Said<'_>)) -> Result<(), Broken> {
        let block = delta.content_block_index;
        let mut say = |delta: Delta<'_>| {
            said(Said::Piece(Piece { delta, ..Piece::default() }));
        };
        let New { text, tool_use, reasoning_content } = delta.delta;
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            say(Delta::Content(&text));
        }
        if let Some(ToolUseDelta { input }) = tool_use.filter(|call| !call.input.is_empty()) {
            if let Some((index, _, some)) = self.last().filter(|(_, own, _)| *own == block) {
                *some = true;
                say(Delta::Arguments { index, text: &input });
            } else if self.calls.iter().any(|(own, _)| *own == block) {
                return Err(Broken("more of a call that is over".into()));
            }
        }
        let Some(thought) = reasoning_content else { return Ok(()) };
        if let Some(text) = thought.text.filter(|text| !text.is_empty()) {
            say(Delta::Reasoning(&text));
        }
        if let Some(redacted) = thought.redacted_content {
            say(Delta::Seal(SealRef::Redacted(&redacted)));
        }
        if let Some(more) = thought.signature.filter(|more| !more.is_empty()) {
            let (own, signature) = self.signature.get_or_insert((block, String::new()));
            if *own != block || signature.len() + more.len() > SIGNATURE_BYTES_MAX {
                return Err(Broken("a signature that does not end".into()));
            }
            signature.push_str(&more);
        }
        Ok(())
    }

    fn stop(&mut self, block: u32, said: &mut dyn FnMut(Said<'_>)) {
        if let Some((_, signature)) = self.signature.take_if(|(own, _)| *own == block) {
            let delta = Delta::Seal(SealRef::Signature(&signature));
            said(Said::Piece(Piece { delta, ..Piece::default() }));
        }
        if self.last().is_some_and(|(_, own, _)| own == block) {
            self.whole(said);
        }
    }
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
        if !std::mem::replace(&mut self.begun, true) {
            said(Said::Begun { id: "", model: "" });
        }
        match name {
            // Nothing of an answer stands behind its reason to end.
            "contentBlockStart" | "contentBlockDelta" | "contentBlockStop" if self.finished => {}
            "contentBlockStart" => self.start(provider::json(data)?, said)?,
            "contentBlockDelta" => self.delta(provider::json(data)?, said)?,
            "contentBlockStop" => {
                let stop: BlockStop = provider::json(data)?;
                self.stop(stop.content_block_index, said);
            }
            "messageStop" if !self.finished => {
                let stop: MessageStop = provider::json(data)?;
                let finish = Some(finish(&stop.stop_reason, !self.calls.is_empty())?);
                self.finished = true;
                said(Said::Piece(Piece { finish, ..Piece::default() }));
            }
            "metadata" => {
                let metadata: Metadata = provider::json(data)?;
                if let Some(usage) = metadata.usage {
                    said(Said::Usage(usage.usage()));
                }
                if self.finished {
                    self.done = true;
                    said(Said::Done);
                }
            }
            name if name == "error" || name.ends_with("Exception") => {
                self.done = true;
                let error: Value = serde_json::from_str(data).unwrap_or_default();
                let code = error.get("code").and_then(Value::as_str).unwrap_or(name);
                said(Said::Failed(of_error(500, code, &error)));
            }
            _ => {}
        }
        Ok(())
    }

    /// Whole is what has its reason to end, even where the count of its tokens was cut off.
    fn end(&mut self, said: &mut dyn FnMut(Said<'_>)) -> Result<(), Broken> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(());
        }
        if self.finished {
            said(Said::Done);
            return Ok(());
        }
        Err(Broken("the stream ended in the middle of an answer".into()))
    }
}

/// Reads a whole answer.
///
/// # Errors
/// It is none, or its model failed.
pub fn read_answer(body: &[u8]) -> Result<Answer, Broken> {
    let whole: Whole<'_> = provider::json(provider::utf8(body)?)?;
    let mut choice = Choice::text(0, "", Finish::Stop);
    for block in whole.output.message.content {
        if let Some(text) = block.text {
            choice.text.push_str(&text);
        }
        if let Some(Reasoning { reasoning_text, redacted_content }) = block.reasoning_content {
            let words = reasoning_text.map(|ReasoningText { text, signature }| {
                let signature = signature.filter(|signature| !signature.is_empty());
                Thought { text, seal: signature.map(Seal::Signature) }
            });
            let redacted = redacted_content
                .map(|data| Thought { text: String::new(), seal: Some(Seal::Redacted(data)) });
            choice.thoughts.extend(words.into_iter().chain(redacted));
        }
        if let Some(call) = block.tool_use.filter(|call| call.kind.is_none()) {
            let arguments = call.input.map_or("{}", RawValue::get).to_owned();
            choice.tool_calls.push(Call { id: call.tool_use_id, name: call.name, arguments });
        }
    }
    choice.finish = finish(&whole.stop_reason, !choice.tool_calls.is_empty())?;
    let usage = whole.usage.map(|tokens| tokens.usage());
    Ok(Answer { id: String::new(), model: String::new(), choices: vec![choice], usage })
}

/// A provider's error. `name` is the header `x-amzn-errortype`, which may have more behind a colon.
#[must_use]
pub fn read_error(status: u16, name: Option<&str>, body: &[u8]) -> ApiError {
    let error: Value = serde_json::from_slice(body).unwrap_or_default();
    let own = ["__type", "code"].iter().find_map(|field| error.get(field)?.as_str());
    of_error(status, name.or(own).unwrap_or_default(), &error)
}

fn of_error(status: u16, name: &str, error: &Value) -> ApiError {
    let name = name.split(':').next().unwrap_or_default();
    let name = name.rsplit('#').next().unwrap_or_default();
    let mut out = provider::error_of(status, Some(error));
    if let Some(message) = error.get("Message").and_then(Value::as_str) {
        out.message = provider::words(message, 2 << 10);
    }
    // In a stream names begin with a small letter.
    out.kind = match name.to_ascii_lowercase().as_str() {
        "validationexception" => ErrorKind::Invalid,
        "accessdeniedexception" => ErrorKind::Forbidden,
        "unrecognizedclientexception"
        | "invalidsignatureexception"
        | "expiredtokenexception"
        | "incompletesignatureexception"
        | "missingauthenticationtokenexception" => ErrorKind::Unauthorized,
        "resourcenotfoundexception" => ErrorKind::NotFound,
        "throttlingexception" => ErrorKind::Overloaded,
        "servicequotaexceededexception" => ErrorKind::Overloaded,
        "modelnotreadyexception" | "serviceunavailableexception" => ErrorKind::Unavailable,
        "modeltimeoutexception" => ErrorKind::Deadline,
        "modelerrorexception" | "modelstreamerrorexception" | "internalserverexception" => {
            ErrorKind::Internal
        }
        _ => out.kind,
    };
    let code = provider::words(name, 128);
    out.code = if code.is_empty() { None } else { Some(code.into()) };
    out
}
