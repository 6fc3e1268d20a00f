//! Contents as messages. Google's turns hold what other dialects keep apart: results of functions
//! beside a user's text, thoughts beside calls. Its client keeps a streamed turn as one content
//! for each chunk, so that neighbours of the model are one turn.
//!
//! Results of functions stand in front of what else a content says, because other dialects want
//! them right behind their calls.

use serde_json::Value;

use super::calls::Calls;
use super::part::{self, Says};
use super::seal::{self, Signed};
use crate::fields::{Fault, Fields, Parsed, bound, short};
use crate::limits::Limits;
use crate::request::{Content, Detail, Message, Part, Role, Seal, Thought, ToolCall};

/// Parts of one content.
const PARTS_MAX: usize = 4096;

/// Contents of one request. One for each chunk of each streamed answer makes many; what counts is
/// the number of messages that they become.
const CONTENTS_MAX: usize = 1 << 17;

/// The system's instruction as the first message.
pub(super) fn system(fields: Fields<'_>) -> Parsed<Option<Message>> {
    let Some(content) = fields.object("systemInstruction")? else { return Ok(None) };
    let read = || {
        content.only(&["role", "parts"])?;
        content.string("role")?;
        content.each("parts", PARTS_MAX, |value| match part::parse(value, Detail::Auto)? {
            (Says::Text(text), None) => Ok(Part::Text(text)),
            _ => Err(Fault::unsupported("", "an instruction has texts alone")),
        })
    };
    let parts = read().map_err(|fault: Fault| fault.under("systemInstruction"))?;
    Ok(said(parts).map(|content| Message { content, ..Message::text(Role::System, "") }))
}

/// One text is a text; of more, the parts stay apart.
fn said(parts: Vec<Part>) -> Option<Content> {
    match <[Part; 1]>::try_from(parts) {
        Ok([Part::Text(text)]) => Some(Content::Text(text)),
        Ok([image]) => Some(Content::Parts(vec![image])),
        Err(parts) if parts.is_empty() => None,
        Err(parts) => Some(Content::Parts(parts)),
    }
}

/// All turns.
pub(super) fn parse(fields: Fields<'_>, limits: &Limits, detail: Detail) -> Parsed<Vec<Message>> {
    if fields.get("contents").is_none() {
        return Err(Fault::missing("contents"));
    }
    let mut turns =
        Turns { messages: Vec::new(), detail, at: 0, calls: Calls::of(fields), model: None };
    let contents = fields.list("contents", CONTENTS_MAX)?.unwrap_or_default();
    for (at, value) in contents.iter().enumerate() {
        turns.at = at;
        let (role, parts) = turns.read(value).map_err(|fault: Fault| fault.at("contents", at))?;
        match role {
            "model" => turns.model(parts)?,
            role => turns.user(parts, role == "function")?,
        }
    }
    turns.close();
    turns.calls.all_answered()?;
    bound(turns.messages.len(), limits.messages_max).map_err(|fault| fault.under("contents"))?;
    if turns.messages.is_empty() {
        let why = "expected at least one content with a part";
        return Err(Fault::range("contents", why, "empty_array"));
    }
    Ok(turns.messages)
}

struct Turns {
    messages: Vec<Message>,
    detail: Detail,
    /// The content that is being read.
    at: usize,
    calls: Calls,
    /// The model's turn under way, and whether its last thought may still grow.
    model: Option<(Message, bool)>,
}

type Parts = Vec<(Says, Option<Signed>)>;

impl Turns {
    /// A content's role and its parts.
    fn read<'a>(&self, value: &'a Value) -> Parsed<(&'a str, Parts)> {
        let content = Fields::of(value)?;
        content.only(&["role", "parts"])?;
        let role = content.string("role")?.unwrap_or("user");
        if !["model", "user", "function"].contains(&role) {
            return Err(Fault::value(
                "role",
                format!("'{}' is not 'user' or 'model'", short(role)),
            ));
        }
        let parts = content.each("parts", PARTS_MAX, |value| part::parse(value, self.detail))?;
        if parts.is_empty() && role != "model" {
            return Err(Fault::missing("parts"));
        }
        Ok((role, parts))
    }

    /// A fault in a part of the content that is being read.
    fn fault(&self, part: usize, fault: Fault) -> Fault {
        fault.at("parts", part).at("contents", self.at)
    }

    fn model(&mut self, parts: Parts) -> Parsed<()> {
        if self.model.is_none() && !parts.is_empty() {
            self.calls.begin()?;
            let silent = Message { content: Content::Absent, ..Message::text(Role::Assistant, "") };
            self.model = Some((silent, false));
        }
        for (at, (says, signed)) in parts.into_iter().enumerate() {
            self.model_part(at, says, signed).map_err(|fault| self.fault(at, fault))?;
        }
        Ok(())
    }

    fn model_part(&mut self, at: usize, says: Says, signed: Option<Signed>) -> Parsed<()> {
        let Some((message, open)) = &mut self.model else { return Ok(()) };
        let is_thought = matches!(says, Says::Thought(_));
        let mut call_signature = None;
        let seal = match signed {
            Some(Signed::Google(signature)) if matches!(says, Says::Call { .. }) => {
                call_signature = Some(signature);
                None
            }
            Some(Signed::Google(signature)) => Some(Seal::Signature(seal::mark(&signature))),
            Some(Signed::Wrapped(seal)) => Some(seal),
            None => None,
        };
        match says {
            Says::Thought(text) => match message.thoughts.last_mut().filter(|_| *open) {
                Some(last) => last.text.push_str(&text),
                None if text.is_empty() => {}
                None => {
                    message.thoughts.push(Thought::of(text));
                    *open = true;
                }
            },
            Says::Text(text) if text.is_empty() => {}
            Says::Text(text) => {
                *open = false;
                match &mut message.content {
                    Content::Text(said) => said.push_str(&text),
                    content => *content = Content::Text(text),
                }
            }
            Says::Call { id, name, arguments } => {
                let signature = call_signature.as_deref();
                let id = self.calls.call(id, &name, signature, (self.at, at))?;
                message.tool_calls.push(ToolCall { id, name, arguments });
            }
            Says::Image(_) => {
                return Err(Fault::unsupported(
                    "inlineData",
                    "a turn of the model has texts alone",
                ));
            }
            Says::Result { .. } => {
                return Err(Fault::value("functionResponse", "the role must be 'user'"));
            }
        }
        if let Some(seal) = seal {
            // Redacted thoughts have no words; any other seal closes the words in front of it.
            let own = !*open || !is_thought || matches!(seal, Seal::Redacted(_));
            match message.thoughts.last_mut().filter(|_| !own) {
                Some(last) => last.seal = Some(seal),
                None => message.thoughts.push(Thought { text: String::new(), seal: Some(seal) }),
            }
            *open = false;
        }
        Ok(())
    }

    fn user(&mut self, parts: Parts, results_alone: bool) -> Parsed<()> {
        self.close();
        let mut rest = Vec::new();
        for (at, (says, _)) in parts.into_iter().enumerate() {
            let read = match says {
                Says::Result { id, name, content } => {
                    self.calls.answer(id.as_deref(), &name).map(|id| {
                        let result = Message::text(Role::Tool, "");
                        let tool_call_id = Some(id);
                        self.messages.push(Message { content, tool_call_id, ..result });
                    })
                }
                _ if results_alone => Err(Fault::missing("functionResponse")),
                Says::Text(text) => {
                    rest.push(Part::Text(text));
                    Ok(())
                }
                Says::Image(image) => {
                    rest.push(Part::Image(image));
                    Ok(())
                }
                Says::Thought(_) => Err(Fault::value("thought", "the role must be 'model'")),
                Says::Call { .. } => Err(Fault::value("functionCall", "the role must be 'model'")),
            };
            read.map_err(|fault| self.fault(at, fault))?;
        }
        if let Some(content) = said(rest) {
            // Whose results come only after this text has none.
            self.calls.all_answered()?;
            self.messages.push(Message { content, ..Message::text(Role::User, "") });
        }
        Ok(())
    }

    /// The model's turn is over. One that said nothing was none.
    fn close(&mut self) {
        let Some((message, _)) = self.model.take() else { return };
        let silent = message.content == Content::Absent && message.tool_calls.is_empty();
        if !silent || !message.thoughts.is_empty() {
            self.messages.push(message);
        }
    }
}
