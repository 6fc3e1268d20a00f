//! Messages of a chat.

use serde_json::Value;

use super::tools;
use crate::fields::{Fault, Fields, Parsed, short};
use crate::limits::Limits;
use crate::request::{Content, Detail, Image, Message, Part, Role, Thought};

/// Fields that a client copies back from an answer or that only steer a provider's own cache.
const KNOWN: &[&str] = &[
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "refusal",
    "reasoning_content",
    "reasoning",
    "audio",
    "function_call",
    "annotations",
    "cache_control",
    "prompt_cache_breakpoint",
];

/// All messages of a chat.
pub(crate) fn parse_all(fields: Fields<'_>, limits: &Limits) -> Parsed<Vec<Message>> {
    if fields.get("messages").is_none() {
        return Err(Fault::missing("messages"));
    }
    let messages = fields.each("messages", limits.messages_max, |m| parse(Fields::of(m)?))?;
    if messages.is_empty() {
        let why = "expected at least one message";
        return Err(Fault::range("messages", why, "empty_array"));
    }
    Ok(messages)
}

fn parse(fields: Fields<'_>) -> Parsed<Message> {
    fields.only(KNOWN)?;
    let role = role(fields)?;
    for (name, why) in
        [("audio", "this server reads text only"), ("function_call", "use 'tool_calls'")]
    {
        if fields.get(name).is_some() {
            return Err(Fault::unsupported(name, why));
        }
    }
    let message = Message {
        role,
        content: content(fields)?,
        name: fields.string("name")?.map(str::to_owned),
        tool_calls: fields.each("tool_calls", 1024, |call| tools::call(Fields::of(call)?))?,
        tool_call_id: fields.string("tool_call_id")?.map(str::to_owned),
        thoughts: reasoning(fields)?
            .filter(|words| !words.is_empty())
            .map(Thought::of)
            .into_iter()
            .collect(),
    };
    check(&message)?;
    Ok(message)
}

fn role(fields: Fields<'_>) -> Parsed<Role> {
    let name = fields.required_string("role")?;
    Role::ALL.into_iter().find(|role| role.name() == name).ok_or_else(|| {
        let all = Role::ALL.map(Role::name).join("', '");
        Fault::value("role", format!("'{}' is not one of '{all}'", short(name)))
    })
}

/// What each role must and must not carry.
fn check(message: &Message) -> Parsed<()> {
    let role = message.role;
    if role != Role::Assistant {
        if !message.tool_calls.is_empty() {
            return Err(Fault::value("tool_calls", "only an assistant's message has them"));
        }
        if !message.thoughts.is_empty() {
            return Err(Fault::value("reasoning_content", "only an assistant's message has it"));
        }
    }
    if message.tool_call_id.is_some() != (role == Role::Tool) {
        return Err(if role == Role::Tool {
            Fault::missing("tool_call_id")
        } else {
            Fault::value("tool_call_id", "only a tool's message has it")
        });
    }
    if role == Role::Function && message.name.is_none() {
        return Err(Fault::missing("name"));
    }
    let may_be_silent =
        role == Role::Assistant && (!message.tool_calls.is_empty() || !message.thoughts.is_empty());
    if message.content == Content::Absent && !may_be_silent {
        return Err(Fault::missing("content"));
    }
    Ok(())
}

/// A refusal is what the assistant said in place of content.
fn content(fields: Fields<'_>) -> Parsed<Content> {
    let refusal = fields.string("refusal")?;
    match (fields.get("content"), refusal) {
        (None, None) => Ok(Content::Absent),
        (None, Some(text)) => Ok(Content::Text(text.to_owned())),
        (Some(_), Some(_)) => {
            Err(Fault::value("refusal", "a message has either 'content' or 'refusal'"))
        }
        (Some(Value::String(text)), None) => Ok(Content::Text(text.clone())),
        (Some(Value::Array(parts)), None) if parts.is_empty() => {
            let why = "expected at least one part";
            Err(Fault::range("content", why, "empty_array"))
        }
        (Some(Value::Array(_)), None) => {
            fields.each("content", 4096, |p| part(Fields::of(p)?)).map(Content::Parts)
        }
        (Some(other), None) => Err(Fault::kind("content", "a string or an array of parts", other)),
    }
}

fn part(fields: Fields<'_>) -> Parsed<Part> {
    let kind = fields.required_string("type")?;
    match kind {
        "text" | "refusal" => {
            fields.only(&["type", kind, "cache_control", "prompt_cache_breakpoint"])?;
            fields.required_string(kind).map(|text| Part::Text(text.to_owned()))
        }
        "image_url" => image(fields).map(Part::Image),
        "input_audio" | "file" | "video_url" | "audio_url" | "image" => {
            Err(Fault::unsupported("type", format!("'{kind}' parts cannot be read by this model")))
        }
        other => {
            let why = format!("'{}' is not a known kind of part", short(other));
            Err(Fault::value("type", why))
        }
    }
}

/// Whether the model can look at it is not known here.
fn image(fields: Fields<'_>) -> Parsed<Image> {
    fields.only(&["type", "image_url", "cache_control", "prompt_cache_breakpoint"])?;
    let image = fields.object("image_url")?.ok_or_else(|| Fault::missing("image_url"))?;
    let read = || {
        image.only(&["url", "detail"])?;
        let url = image.required_string("url")?.to_owned();
        let detail = image.string("detail")?.map_or(Ok(Detail::Auto), |name| {
            let known = Detail::ALL.into_iter().find(|detail| detail.name() == name);
            known.ok_or_else(|| Fault::value("detail", "expected 'auto', 'low' or 'high'"))
        })?;
        Ok(Image { url, detail })
    };
    read().map_err(|fault: Fault| fault.under("image_url"))
}

fn reasoning(fields: Fields<'_>) -> Parsed<Option<String>> {
    let names = ["reasoning_content", "reasoning"];
    let [content, short] = [fields.string(names[0])?, fields.string(names[1])?];
    if content.is_some() && short.is_some() && content != short {
        return Err(Fault::value("reasoning", "it differs from 'reasoning_content'"));
    }
    Ok(content.or(short).map(str::to_owned))
}
