//! Items to messages. A message of this model is one turn: what the assistant thought, said and
//! called lies in one message there and in items of their own here. Calls and results are held to
//! the same order as in a chat: each call has one result, and before the next turn.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::beyond::Beyond;
use super::{Ids, content, policy, seal, tools};
use crate::error::{ApiError, ErrorKind};
use crate::fields::{Fault, Fields, Parsed, short};
use crate::limits::Limits;
use crate::request::{Content, Message, Part, Role, Thought, ToolCall};

/// The items of a request as they are kept and listed: a text is a user's message, a message has
/// parts, and each item has a kind and an id.
pub(super) fn normalise(
    fields: Fields<'_>,
    limits: &Limits,
    ids: &mut Ids<'_>,
) -> Parsed<Vec<Value>> {
    if let Some(Value::String(text)) = fields.get("input") {
        let item = json!({"role": "user", "content": text});
        return one(&item, ids).map(|item| vec![item]);
    }
    if let Some(other) = fields.get("input").filter(|value| !value.is_array()) {
        return Err(Fault::kind("input", "a string or an array of items", other));
    }
    fields.each("input", limits.messages_max, |item| one(item, ids))
}

pub(super) fn one(item: &Value, ids: &mut Ids<'_>) -> Parsed<Value> {
    let fields = Fields::of(item)?;
    let kind = kind(fields)?;
    let mut item = item.clone();
    item["type"] = json!(kind);
    if fields.string("id")?.is_none_or(str::is_empty) {
        item["id"] = json!(ids(prefix(kind)));
    }
    if kind == "message" {
        if let Some(Value::String(text)) = fields.get("content") {
            let said = fields.string("role")? == Some("assistant");
            let kind = if said { "output_text" } else { "input_text" };
            item["content"] = json!([{"type": kind, "text": text}]);
        }
        if fields.get("status").is_none() {
            item["status"] = json!("completed");
        }
    }
    Ok(item)
}

/// How ids of items begin that were made here.
pub(super) fn prefix(kind: &str) -> &'static str {
    match kind {
        "message" => "msg",
        "function_call" => "fc",
        "function_call_output" => "fco",
        "custom_tool_call" => "ctc",
        "custom_tool_call_output" => "ctco",
        "reasoning" => "rs",
        _ => "item",
    }
}

/// A message, or a reference to an item, needs not say that it is one.
fn kind(fields: Fields<'_>) -> Parsed<&str> {
    match fields.string("type")? {
        Some(kind) => Ok(kind),
        None if fields.get("role").is_some() => Ok("message"),
        None if fields.get("id").is_some() => Ok("item_reference"),
        None => Err(Fault::missing("type")),
    }
}

pub(super) fn is_reference(item: &Value) -> bool {
    let Ok(fields) = Fields::of(item) else { return false };
    match kind(fields) {
        Ok("item_reference") => true,
        // A picture that is gone on with is named, and not sent along.
        Ok("image_generation_call") => fields.get("result").is_none() && fields.get("id").is_some(),
        _ => false,
    }
}

/// Ids of items that are only referred to: [`resolve`] puts the items there.
#[must_use]
pub fn references(items: &[Value]) -> Vec<&str> {
    let id = |item| Value::get(item, "id").and_then(Value::as_str);
    items.iter().filter(|item| is_reference(item)).filter_map(id).collect()
}

/// Puts items where they are referred to.
///
/// # Errors
/// One is not known; the path says where.
pub fn resolve(
    items: &mut [Value],
    find: &mut dyn FnMut(&str) -> Option<Value>,
) -> Result<(), ApiError> {
    for (index, item) in items.iter_mut().enumerate().filter(|(_, item)| is_reference(item)) {
        let id = item.get("id").and_then(Value::as_str).unwrap_or_default();
        let Some(found) = find(id) else {
            let message = format!("No item with the id '{}' is kept.", short(id));
            let error = ApiError::new(ErrorKind::Invalid, "item_not_found", message);
            return Err(error.with_param(format!("input[{index}].id")));
        };
        *item = found;
    }
    Ok(())
}

/// Messages of earlier items and then of a request's own. `whole`: nothing else comes before or
/// between them, so each result must have its call and each call its result. `past`: what becomes
/// of what goes beyond in earlier items, where that is something else.
pub(super) fn messages(
    history: &[Value],
    input: &[Value],
    whole: bool,
    (mut past, beyond): (Option<&mut Beyond>, &mut Beyond),
) -> Parsed<Vec<Message>> {
    let mut turns = Turns { whole, ..Turns::default() };
    for (at, item) in history.iter().chain(input).enumerate() {
        let (list, index) = match at.checked_sub(history.len()) {
            Some(index) => ("input", index),
            None => ("history", at),
        };
        turns.at = (list, index);
        let path = format!("{list}[{index}]");
        let beyond = match &mut past {
            Some(past) if list == "history" => past,
            _ => &mut *beyond,
        };
        turns.item(item, &path, beyond).map_err(|wrong| wrong.at(list, index))?;
    }
    turns.all_answered().map_err(|wrong| wrong.at("input", input.len()))?;
    Ok(turns.messages)
}

/// What is wrong with a list of items.
enum Wrong {
    /// It is the item under way; paths begin below it.
    Here(Fault),
    /// It is one before it.
    Before(Fault),
}

impl Wrong {
    fn at(self, list: &str, index: usize) -> Fault {
        match self {
            Self::Here(fault) => fault.at(list, index),
            Self::Before(fault) => fault,
        }
    }
}

impl From<Fault> for Wrong {
    fn from(fault: Fault) -> Self {
        Self::Here(fault)
    }
}

type Taken<T = ()> = Result<T, Wrong>;

/// Messages under way.
#[derive(Default)]
struct Turns<'a> {
    messages: Vec<Message>,
    whole: bool,
    /// Where the item under way stands.
    at: (&'a str, usize),
    /// Calls of the last turn that has some: where they stand, and whether they have a result.
    calls: BTreeMap<String, ((&'a str, usize), bool)>,
}

impl Turns<'_> {
    fn item(&mut self, item: &Value, at: &str, beyond: &mut Beyond) -> Taken {
        let fields = Fields::of(item)?;
        match kind(fields)? {
            "message" => self.message(fields, at, beyond),
            "function_call" => {
                beyond.fields(fields, at, policy::CALL)?;
                let arguments = fields.required_string("arguments")?.to_owned();
                self.call(fields, arguments)
            }
            "custom_tool_call" => {
                beyond.fields(fields, at, policy::CUSTOM_CALL)?;
                let arguments = tools::custom_arguments(fields.required_string("input")?);
                self.call(fields, arguments)
            }
            "function_call_output" | "custom_tool_call_output" => {
                beyond.fields(fields, at, policy::CALL_OUTPUT)?;
                self.output(fields, at, beyond)
            }
            "reasoning" => {
                beyond.fields(fields, at, policy::THOUGHTS)?;
                self.thought(thought(fields)?)
            }
            "item_reference" if !self.whole => Ok(()),
            "item_reference" => Err(Fault::value("id", "no such item is kept").into()),
            kind => {
                let known = policy::FOREIGN_ITEMS.contains(&kind);
                let why = format!("'{}' items belong to tools of another server", short(kind));
                let not = format!("'{}' is not a known kind of item", short(kind));
                let fault =
                    if known { Fault::unsupported("type", why) } else { Fault::value("type", not) };
                Ok(beyond.value(at, item, fault)?)
            }
        }
    }

    fn message(&mut self, fields: Fields<'_>, at: &str, beyond: &mut Beyond) -> Taken {
        beyond.fields(fields, at, policy::MESSAGE)?;
        let role = match fields.required_string("role")? {
            "user" => Role::User,
            "system" => Role::System,
            "developer" => Role::Developer,
            "assistant" => Role::Assistant,
            other => {
                let all = "is not one of 'user', 'assistant', 'system', 'developer'";
                return Err(Fault::value("role", format!("'{}' {all}", short(other))).into());
            }
        };
        let said = content::parse(fields, "content", at, beyond)?;
        if role == Role::Assistant {
            return self.said(said);
        }
        if said == Content::Absent {
            let why = "expected at least one part";
            return Err(Fault::range("content", why, "empty_array").into());
        }
        if role == Role::User {
            self.all_answered()?;
        }
        self.messages.push(Message { content: said, ..Message::text(role, "") });
        Ok(())
    }

    /// The turn that the assistant is at, or a new one where that would put things in another
    /// order. Between calls and their results there is no other turn, so all belongs to theirs.
    fn turn(&mut self, fits: impl Fn(&Message) -> bool) -> Taken<&mut Message> {
        let open = |last: &Message| {
            last.role == Role::Assistant && (!last.tool_calls.is_empty() || fits(last))
        };
        if !self.messages.last().is_some_and(open) {
            self.all_answered()?;
            let silent = Message { content: Content::Absent, ..Message::text(Role::Assistant, "") };
            self.messages.push(silent);
        }
        let at = self.messages.len() - 1;
        Ok(&mut self.messages[at])
    }

    fn thought(&mut self, thought: Thought) -> Taken {
        if thought != Thought::default() {
            self.turn(|last| last.content == Content::Absent)?.thoughts.push(thought);
        }
        Ok(())
    }

    fn said(&mut self, said: Content) -> Taken {
        if said == Content::Absent {
            return Ok(());
        }
        let turn = self.turn(|last| last.content == Content::Absent)?;
        turn.content = match (std::mem::take(&mut turn.content), said) {
            (Content::Absent, said) => said,
            (before, said) => Content::Parts([parts(before), parts(said)].concat()),
        };
        Ok(())
    }

    fn call(&mut self, fields: Fields<'_>, arguments: String) -> Taken {
        let id = fields.required_string("call_id")?.to_owned();
        let name = fields.required_string("name")?;
        let name = tools::joined(fields.string("namespace")?, name);
        let turn = self.turn(|_| true)?;
        let first = turn.tool_calls.is_empty();
        turn.tool_calls.push(ToolCall { id: id.clone(), name, arguments });
        if first {
            self.calls.clear();
        }
        if self.calls.contains_key(&id) {
            let why = format!("two calls have the id '{}'", short(&id));
            return Err(Fault::value("call_id", why).into());
        }
        self.calls.insert(id, (self.at, false));
        Ok(())
    }

    fn output(&mut self, fields: Fields<'_>, at: &str, beyond: &mut Beyond) -> Taken {
        let id = fields.required_string("call_id")?;
        let why = match self.calls.get_mut(id) {
            Some((_, answered)) if !*answered => {
                *answered = true;
                None
            }
            Some(_) => Some(format!("the call '{}' has a result already", short(id))),
            None if self.whole => Some(format!("no call before it has the id '{}'", short(id))),
            None => None,
        };
        if let Some(why) = why {
            return Err(Fault::value("call_id", why).into());
        }
        let said = match content::parse(fields, "output", at, beyond)? {
            Content::Absent => Content::Text(String::new()),
            said => said,
        };
        let result = Message::text(Role::Tool, "");
        let tool_call_id = Some(id.to_owned());
        self.messages.push(Message { content: said, tool_call_id, ..result });
        Ok(())
    }

    /// No call is left without a result.
    fn all_answered(&self) -> Taken {
        let open = self.calls.iter().find(|(_, (_, answered))| self.whole && !answered);
        let Some((id, ((list, index), _))) = open else { return Ok(()) };
        let why = format!("the call '{}' has no result; an item with it must follow", short(id));
        // A call of an earlier response has no place in this request.
        Err(Wrong::Before(match *list {
            "input" => Fault::value("call_id", why).at(list, *index),
            _ => Fault::value("input", why),
        }))
    }
}

fn parts(content: Content) -> Vec<Part> {
    match content {
        Content::Absent => Vec::new(),
        Content::Text(text) => vec![Part::Text(text)],
        Content::Parts(parts) => parts,
    }
}

/// Thoughts in words or, where there are none, their summary.
fn thought(fields: Fields<'_>) -> Parsed<Thought> {
    let words = content::texts(fields, "content", "reasoning_text")?.concat();
    let summary = content::texts(fields, "summary", "summary_text")?.join("\n\n");
    let words = if words.is_empty() { summary } else { words };
    let Some(content) = fields.string("encrypted_content")?.filter(|text| !text.is_empty()) else {
        return Ok(Thought::of(words));
    };
    let id = fields.string("id")?.unwrap_or_default();
    let broken = || Fault::value("encrypted_content", "it was changed on its way");
    seal::open(id, content, words).ok_or_else(broken)
}
