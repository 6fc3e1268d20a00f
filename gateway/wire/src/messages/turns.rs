//! The turns of a request: its system prompt and its messages, block by block.

use serde_json::Value;

use super::aside::Aside;
use super::block::{self, BLOCKS_MAX, Block};
use super::calls::Calls;
use super::policy;
use crate::fields::{Fault, Fields, Parsed, short};
use crate::limits::Limits;
use crate::request::{Content, Message, Part, Role, Thought, ToolCall};

/// A line that Claude Code puts in front of its system prompt. It is meant for Anthropic's books,
/// not for the model, and differs in each request: kept, it would part every prompt from the
/// prefixes that were computed before.
const BILLING: &str = "x-anthropic-billing-header:";

/// What one message of a request says.
#[derive(Default)]
struct Said {
    /// With where each stands.
    results: Vec<(usize, Message)>,
    thoughts: Vec<Thought>,
    parts: Vec<Part>,
    /// With where each stands.
    calls: Vec<(usize, ToolCall)>,
    /// A block of it was put aside.
    put_aside: bool,
}

/// Messages under way.
#[derive(Default)]
struct Turns {
    messages: Vec<Message>,
    calls: Calls,
}

/// All messages, the system prompt first.
pub(super) fn parse(
    fields: Fields<'_>,
    limits: &Limits,
    aside: &mut Aside,
) -> Parsed<Vec<Message>> {
    let mut turns = Turns::default();
    turns.system(fields, aside)?;
    if fields.get("messages").is_none() {
        return Err(Fault::missing("messages"));
    }
    let items = fields.list("messages", limits.messages_max)?.unwrap_or_default();
    if items.is_empty() {
        let why = "expected at least one message";
        return Err(Fault::range("messages", why, "empty_array"));
    }
    for (at, item) in items.iter().enumerate() {
        let read = read(item, at, aside);
        let (role, said) = read.map_err(|fault| fault.at("messages", at))?;
        turns.take(at, role, said)?;
    }
    turns.calls.all_answered()?;
    for message in &mut turns.messages {
        if let Content::Parts(parts) = &mut message.content {
            message.content = block::content(std::mem::take(parts));
        }
    }
    match turns.messages.last() {
        Some(last) if last.role == Role::Assistant && last.content == Content::Absent => {
            let why = "the last turn is the assistant's and has no text to go on with";
            Err(Fault::value("", why).at("messages", items.len() - 1))
        }
        _ => Ok(turns.messages),
    }
}

/// One message. `at`: where it stands in the request.
fn read(value: &Value, at: usize, aside: &mut Aside) -> Parsed<(Role, Said)> {
    let message = Fields::of(value)?;
    let path = || format!("messages[{at}]");
    aside.fields(path, message, policy::MESSAGE)?;
    let role = role(message)?;
    Ok((role, said(message, role, aside, &path)?))
}

fn role(message: Fields<'_>) -> Parsed<Role> {
    match message.required_string("role")? {
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "system" => Ok(Role::System),
        other => {
            let why = format!("'{}' is not one of 'user', 'assistant', 'system'", short(other));
            Err(Fault::value("role", why))
        }
    }
}

/// A message's own words and blocks.
fn said(
    message: Fields<'_>,
    role: Role,
    aside: &mut Aside,
    path: &dyn Fn() -> String,
) -> Parsed<Said> {
    let mut said = Said::default();
    match message.get("content") {
        None => return Err(Fault::missing("content")),
        Some(Value::String(text)) => {
            said.parts.extend((!text.is_empty()).then(|| Part::Text(text.clone())));
        }
        Some(Value::Array(_)) => {
            let mut at = 0;
            message.each("content", BLOCKS_MAX, |value| {
                let here = at;
                at += 1;
                let path = || format!("{}.content[{here}]", path());
                let block = block::read(value, role, aside, &path)?;
                said.put_aside |= block.is_none() && aside.keeps();
                block.map_or(Ok(()), |block| said.take(here, block))
            })?;
        }
        Some(other) => return Err(Fault::kind("content", "a string or an array", other)),
    }
    // An assistant that says nothing at the end of a chat is none that has begun to answer.
    let silent = said.parts.is_empty() && said.results.is_empty();
    if silent && role != Role::Assistant && !said.put_aside {
        return Err(Fault::range("content", "it says nothing", "empty_array"));
    }
    Ok(said)
}

impl Said {
    fn take(&mut self, at: usize, block: Block) -> Parsed<()> {
        match block {
            Block::Part(part) => self.parts.push(part),
            Block::Thought(thought) => self.thoughts.push(thought),
            Block::Call(call) => self.calls.push((at, call)),
            Block::Result(_) if !self.parts.is_empty() => {
                let why = "results stand before the other blocks of their turn";
                return Err(Fault::value("type", why));
            }
            Block::Result(result) => self.results.push((at, result)),
        }
        Ok(())
    }
}

impl Turns {
    fn system(&mut self, fields: Fields<'_>, aside: &mut Aside) -> Parsed<()> {
        let mut parts = match fields.get("system") {
            None => return Ok(()),
            Some(Value::String(text)) => vec![Part::Text(text.clone())],
            Some(Value::Array(_)) => {
                let mut at = 0;
                let parts = fields.each("system", BLOCKS_MAX, |value| {
                    let here = at;
                    at += 1;
                    match Fields::of(value)?.required_string("type")? {
                        "text" => block::part(value, aside, &|| format!("system[{here}]")),
                        _ => Err(Fault::value("type", "the system prompt has 'text' blocks only")),
                    }
                })?;
                parts.into_iter().flatten().collect()
            }
            Some(other) => return Err(Fault::kind("system", "a string or an array", other)),
        };
        if let Some(Part::Text(first)) = parts.first_mut()
            && first.starts_with(BILLING)
        {
            *first = first.split_once('\n').map_or_else(String::new, |(_, rest)| rest.to_owned());
        }
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        self.say(Role::System, parts);
        Ok(())
    }

    /// One message. `at`: where it stands in the request, which faults are told with.
    fn take(&mut self, at: usize, role: Role, said: Said) -> Parsed<()> {
        for (block, result) in said.results {
            let id = result.tool_call_id.as_deref().unwrap_or_default();
            let answered = self.calls.answer(id);
            answered.map_err(|fault| fault.at("content", block).at("messages", at))?;
            self.messages.push(result);
        }
        if role == Role::Assistant {
            return self.assistant(at, said.thoughts, said.parts, said.calls);
        }
        if role == Role::User && !said.parts.is_empty() {
            self.calls.all_answered()?;
        }
        self.say(role, said.parts);
        Ok(())
    }

    fn assistant(
        &mut self,
        at: usize,
        thoughts: Vec<Thought>,
        parts: Vec<Part>,
        calls: Vec<(usize, ToolCall)>,
    ) -> Parsed<()> {
        if thoughts.is_empty() && parts.is_empty() && calls.is_empty() {
            return Ok(());
        }
        if self.messages.last().is_none_or(|last| last.role != Role::Assistant) {
            self.calls.begin(at)?;
            let content = Content::Absent;
            self.messages.push(Message { content, ..Message::text(Role::Assistant, "") });
        }
        for (block, call) in &calls {
            let new = self.calls.call(&call.id);
            new.map_err(|fault| fault.at("content", *block).at("messages", at))?;
        }
        self.say(Role::Assistant, parts);
        if let Some(turn) = self.messages.last_mut() {
            turn.thoughts.extend(thoughts);
            turn.tool_calls.extend(calls.into_iter().map(|(_, call)| call));
        }
        Ok(())
    }

    /// More of the turn under way, or a new one.
    fn say(&mut self, role: Role, parts: Vec<Part>) {
        if parts.is_empty() {
            return;
        }
        match self.messages.last_mut() {
            Some(last) if last.role == role => match &mut last.content {
                Content::Parts(said) => said.extend(parts),
                content => *content = Content::Parts(parts),
            },
            _ => {
                let content = Content::Parts(parts);
                self.messages.push(Message { content, ..Message::text(role, "") });
            }
        }
    }
}
