//! Messages as contents.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::seal::{self, SKIP};
use crate::lost::Lost;
use crate::request::{Content, Message, Part, Role, Seal, Thought, ToolCall};

/// Kinds of images by the end of a URL, which is all that is known of one.
const KINDS: [(&str, &str); 7] = [
    (".png", "image/png"),
    (".jpg", "image/jpeg"),
    (".jpeg", "image/jpeg"),
    (".webp", "image/webp"),
    (".gif", "image/gif"),
    (".heic", "image/heic"),
    (".heif", "image/heif"),
];

/// The parts of all instructions.
pub(super) fn system(messages: &[Message], lost: &mut Lost) -> Vec<Value> {
    let all = messages.iter().enumerate();
    let mut out = Vec::new();
    for (at, message) in all.filter(|(_, message)| is_instruction(message)) {
        out.extend(content(&message.content, at, lost));
    }
    out
}

fn is_instruction(message: &Message) -> bool {
    matches!(message.role, Role::System | Role::Developer)
}

/// The contents. `signs`: a call that its model did not sign needs a word in place of it.
pub(super) fn render(messages: &[Message], signs: bool, lost: &mut Lost) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    // Names of the calls of the nearest turn of the model.
    let mut calls: BTreeMap<&str, &str> = BTreeMap::new();
    // The results that stand at the end of `out`.
    let mut results: Vec<Value> = Vec::new();
    for (at, message) in messages.iter().enumerate().filter(|(_, m)| !is_instruction(m)) {
        if message.role != Role::Function {
            lost.some(&format!("messages[{at}].name"), message.name.as_ref());
        }
        if matches!(message.role, Role::Tool | Role::Function) {
            let id = message.tool_call_id.as_deref();
            let name = id.and_then(|id| calls.get(id).copied()).or(message.name.as_deref());
            results.push(result(message, id, name.unwrap_or_default(), at, lost));
            continue;
        }
        close(&mut out, &mut results);
        let (role, parts) = if message.role == Role::Assistant {
            calls = message.tool_calls.iter().map(|call| (&*call.id, &*call.name)).collect();
            ("model", model(message, at, signs, lost))
        } else {
            ("user", content(&message.content, at, lost))
        };
        if !parts.is_empty() {
            out.push(json!({"role": role, "parts": parts}));
        }
    }
    close(&mut out, &mut results);
    out
}

/// All results of one turn are one content.
fn close(out: &mut Vec<Value>, results: &mut Vec<Value>) {
    if !results.is_empty() {
        out.push(json!({"role": "user", "parts": std::mem::take(results)}));
    }
}

fn content(content: &Content, at: usize, lost: &mut Lost) -> Vec<Value> {
    let part = |(number, part): (usize, &Part)| match part {
        Part::Text(text) => Some(json!({"text": text})),
        Part::Image(image) => {
            let value = self::image(&image.url);
            if value.is_none() {
                lost.field(format!("messages[{at}].content[{number}].image_url"));
            }
            value
        }
    };
    match content {
        Content::Absent => Vec::new(),
        Content::Text(text) => vec![json!({"text": text})],
        Content::Parts(parts) => parts.iter().enumerate().filter_map(part).collect(),
    }
}

/// An image with its data or its address.
fn image(url: &str) -> Option<Value> {
    if let Some(data) = url.strip_prefix("data:") {
        let (kind, data) = data.split_once(',')?;
        let mime = kind.strip_suffix(";base64")?;
        return Some(json!({"inlineData": {"mimeType": mime, "data": data}}));
    }
    let path = url.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    let kind = KINDS.iter().find(|(end, _)| path.ends_with(end));
    let mut file = Map::new();
    file.extend(kind.map(|(_, mime)| ("mimeType".to_owned(), (*mime).into())));
    file.insert("fileUri".into(), url.into());
    Some(json!({"fileData": file}))
}

/// Thoughts, what was said, and calls, in this order.
fn model(message: &Message, at: usize, signs: bool, lost: &mut Lost) -> Vec<Value> {
    let mut out = Vec::new();
    // Google signs the end of a text in a part of its own.
    let mut last = Vec::new();
    for Thought { text, seal } in &message.thoughts {
        let signature = match seal {
            Some(Seal::Signature(signature)) => seal::googles(signature),
            _ => None,
        };
        match (text.is_empty(), signature) {
            (false, Some(signature)) => {
                out.push(json!({"text": text, "thought": true, "thoughtSignature": signature}));
            }
            // The words of others are words; their seals mean nothing here.
            (false, None) => out.push(json!({"text": text, "thought": true})),
            (true, Some(signature)) => {
                last.push(json!({"text": "", "thoughtSignature": signature}));
            }
            (true, None) if seal.is_some() => {
                lost.field(format!("messages[{at}].reasoning_content"));
            }
            (true, None) => {}
        }
    }
    // Clients write an empty text where a turn only calls.
    let silent = matches!(&message.content, Content::Text(text) if text.is_empty());
    if !silent || message.tool_calls.is_empty() {
        out.extend(content(&message.content, at, lost));
    }
    out.extend(last);
    for (number, call) in message.tool_calls.iter().enumerate() {
        out.push(self::call(call, number == 0 && signs, &mut || {
            lost.field(format!("messages[{at}].tool_calls[{number}].function.arguments"));
        }));
    }
    out
}

/// A call with its signature. Of parallel ones Google signs the first.
fn call(call: &ToolCall, signs: bool, wrong: &mut dyn FnMut()) -> Value {
    let (id, signature) = seal::split(&call.id);
    let text = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
    let args = serde_json::from_str::<Map<String, Value>>(text).unwrap_or_else(|_| {
        wrong();
        Map::new()
    });
    let mut out = Map::new();
    let call = json!({"id": id, "name": call.name, "args": args});
    out.insert("functionCall".into(), call);
    let signature = signature.or_else(|| signs.then(|| SKIP.to_owned()));
    out.extend(signature.map(|signature| ("thoughtSignature".to_owned(), signature.into())));
    Value::Object(out)
}

/// A result: its texts as one output, images beside it.
fn result(message: &Message, id: Option<&str>, name: &str, at: usize, lost: &mut Lost) -> Value {
    let mut out = Map::new();
    out.extend(id.map(|id| ("id".to_owned(), seal::bare_id(id).into())));
    out.insert("name".into(), name.into());
    let mut text = String::new();
    let mut images = Vec::new();
    for part in content(&message.content, at, lost) {
        match part.get("text").and_then(Value::as_str) {
            Some(more) => text.push_str(more),
            None => images.push(part),
        }
    }
    out.insert("response".into(), json!({"output": text}));
    if !images.is_empty() {
        out.insert("parts".into(), images.into());
    }
    json!({"functionResponse": out})
}
