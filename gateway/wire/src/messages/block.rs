//! One block of a turn.

use serde_json::Value;

use super::aside::Aside;
use super::{TOOL_ERROR, policy, seal};
use crate::fields::{Fault, Fields, Parsed, short};
use crate::request::{Content, Detail, Image, Message, Part, Role, Seal, Thought, ToolCall};

/// Blocks of one message, and of one result. Anthropic's limit for messages is 100,000.
pub(super) const BLOCKS_MAX: usize = 4096;

/// Images that Anthropic's API takes.
const IMAGES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// A block, read.
pub(super) enum Block {
    /// Something said or shown.
    Part(Part),
    /// Thoughts of an earlier turn.
    Thought(Thought),
    /// A call.
    Call(ToolCall),
    /// A call's result, as a message.
    Result(Message),
}

/// Reads a block of a message. `None`: it says nothing, or was put aside.
pub(super) fn read(
    value: &Value,
    role: Role,
    aside: &mut Aside,
    path: &dyn Fn() -> String,
) -> Parsed<Option<Block>> {
    let fields = Fields::of(value)?;
    let kind = fields.required_string("type")?;
    match (role, kind) {
        (Role::User, "tool_result") => result(fields, aside, path).map(Block::Result).map(Some),
        (Role::Assistant, "tool_use") => {
            aside.fields(path, fields, policy::TOOL_USE)?;
            call(fields).map(Block::Call).map(Some)
        }
        (Role::Assistant, "thinking" | "redacted_thinking") => {
            aside.fields(path, fields, policy::THINKING)?;
            Ok(thought(fields, kind)?.map(Block::Thought))
        }
        (Role::User, "image" | "document") | (_, "text") => {
            Ok(part(value, aside, path)?.map(Block::Part))
        }
        (_, "tool_result" | "tool_use" | "thinking" | "redacted_thinking" | "image") => {
            let why = format!("a message of '{}' has no '{kind}' blocks", role.name());
            Err(Fault::value("type", why))
        }
        _ => aside.whole(path, value, unreadable(kind)).map(|()| None),
    }
}

fn unreadable(kind: &str) -> Fault {
    Fault::unsupported("type", format!("'{}' blocks cannot be read here", short(kind)))
}

/// A text, an image or a document. An empty text says nothing: providers refuse it.
pub(super) fn part(
    value: &Value,
    aside: &mut Aside,
    path: &dyn Fn() -> String,
) -> Parsed<Option<Part>> {
    let fields = Fields::of(value)?;
    match fields.required_string("type")? {
        "text" => {
            aside.fields(path, fields, policy::TEXT)?;
            let text = fields.required_string("text")?;
            Ok((!text.is_empty()).then(|| Part::Text(text.to_owned())))
        }
        "image" => match image(fields, aside, path) {
            Ok(image) => Ok(Some(Part::Image(image))),
            Err(fault) if fault.is_unsupported() => aside.whole(path, value, fault).map(|()| None),
            Err(fault) => Err(fault),
        },
        "document" => {
            aside.fields(path, fields, policy::DOCUMENT)?;
            match document(fields) {
                Ok(text) => Ok((!text.is_empty()).then_some(Part::Text(text))),
                Err(fault) if fault.is_unsupported() => {
                    aside.whole(path, value, fault).map(|()| None)
                }
                Err(fault) => Err(fault),
            }
        }
        kind => aside.whole(path, value, unreadable(kind)).map(|()| None),
    }
}

/// Whether the model can look at it is not known here.
fn image(fields: Fields<'_>, aside: &mut Aside, path: &dyn Fn() -> String) -> Parsed<Image> {
    aside.fields(path, fields, policy::IMAGE)?;
    let source = fields.object("source")?.ok_or_else(|| Fault::missing("source"))?;
    let read = || {
        let url = match source.required_string("type")? {
            "base64" => {
                let media = source.required_string("media_type")?;
                if !IMAGES.contains(&media) {
                    let why = format!("expected one of '{}'", IMAGES.join("', '"));
                    return Err(Fault::value("media_type", why));
                }
                format!("data:{media};base64,{}", source.required_string("data")?)
            }
            "url" => source.required_string("url")?.to_owned(),
            kind => {
                let why = format!("images from '{}' cannot be read here", short(kind));
                return Err(Fault::unsupported("type", why));
            }
        };
        Ok(Image { url, detail: Detail::Auto })
    };
    let image = read().map_err(|fault: Fault| fault.under("source"))?;
    aside
        .fields(|| format!("{}.source", path()), source, policy::SOURCE)
        .map_err(|fault| fault.under("source"))?;
    Ok(image)
}

/// What a document of plain text says, under its title and what is said about it.
fn document(fields: Fields<'_>) -> Parsed<String> {
    let source = fields.object("source")?.ok_or_else(|| Fault::missing("source"))?;
    let read = || match source.required_string("type")? {
        "text" => {
            source.only(&["type", "media_type", "data"])?;
            source.required_string("data")
        }
        kind => {
            let why = format!("documents from '{}' cannot be read here", short(kind));
            Err(Fault::unsupported("type", why))
        }
    };
    let data = read().map_err(|fault: Fault| fault.under("source"))?;
    let heads = [fields.string("title")?, fields.string("context")?, Some(data)];
    let said: Vec<&str> = heads.into_iter().flatten().filter(|text| !text.is_empty()).collect();
    Ok(said.join("\n"))
}

fn thought(fields: Fields<'_>, kind: &str) -> Parsed<Option<Thought>> {
    if kind == "redacted_thinking" {
        let data = fields.required_string("data")?.to_owned();
        return Ok(Some(Thought { text: String::new(), seal: Some(Seal::Redacted(data)) }));
    }
    let text = fields.required_string("thinking")?.to_owned();
    let seal = seal::of(fields.string("signature")?.unwrap_or_default());
    Ok((!text.is_empty() || seal.is_some()).then_some(Thought { text, seal }))
}

fn call(fields: Fields<'_>) -> Parsed<ToolCall> {
    fields.object("input")?;
    let input = fields.get("input").ok_or_else(|| Fault::missing("input"))?;
    Ok(ToolCall {
        id: not_empty(fields, "id")?,
        name: not_empty(fields, "name")?,
        arguments: input.to_string(),
    })
}

fn not_empty(fields: Fields<'_>, name: &str) -> Parsed<String> {
    match fields.required_string(name)? {
        "" => Err(Fault::value(name, "it must not be empty")),
        text => Ok(text.to_owned()),
    }
}

fn result(fields: Fields<'_>, aside: &mut Aside, path: &dyn Fn() -> String) -> Parsed<Message> {
    aside.fields(path, fields, policy::TOOL_RESULT)?;
    let mut message = Message::text(Role::Tool, "");
    message.tool_call_id = Some(not_empty(fields, "tool_use_id")?);
    let mut parts = match fields.get("content") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![Part::Text(text.clone())],
        Some(Value::Array(_)) => {
            let mut at = 0;
            let parts = fields.each("content", BLOCKS_MAX, |item| {
                let here = at;
                at += 1;
                part(item, aside, &|| format!("{}.content[{here}]", path()))
            })?;
            parts.into_iter().flatten().collect()
        }
        Some(other) => return Err(Fault::kind("content", "a string or an array", other)),
    };
    if fields.boolean("is_error", false)? {
        match parts.first_mut() {
            Some(Part::Text(text)) => text.insert_str(0, TOOL_ERROR),
            _ => parts.insert(0, Part::Text(TOOL_ERROR.to_owned())),
        }
    }
    message.content = match content(parts) {
        // The result is that it is there.
        Content::Absent => Content::Text(String::new()),
        content => content,
    };
    Ok(message)
}

/// Parts as content: a text alone is a text.
pub(super) fn content(mut parts: Vec<Part>) -> Content {
    match (parts.pop(), parts.is_empty()) {
        (None, _) => Content::Absent,
        (Some(Part::Text(text)), true) => Content::Text(text),
        (Some(last), _) => {
            parts.push(last);
            Content::Parts(parts)
        }
    }
}
