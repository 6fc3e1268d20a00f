//! Messages as Converse's: turns of user and assistant, one after the other.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::gemini::{bare_id, is_googles};
use crate::lost::Lost;
use crate::request::{Content, Message, Part, Role, Seal, Thought, ToolCall};

/// Letters and the length of an id of a call.
const ID_BYTES_MAX: usize = 64;

/// Images that can be carried, and how they are called.
const FORMATS: [(&str, &str); 5] = [
    ("image/png", "png"),
    ("image/jpeg", "jpeg"),
    ("image/jpg", "jpeg"),
    ("image/gif", "gif"),
    ("image/webp", "webp"),
];

/// The blocks of all instructions. Those in the middle of a chat join the ones in front of it:
/// few models know any other place for them.
pub(super) fn system(messages: &[Message]) -> Vec<Value> {
    let texts = messages.iter().filter(|m| is_instruction(m)).flat_map(|m| texts(&m.content));
    texts.filter(|text| !text.trim().is_empty()).map(|text| json!({"text": text})).collect()
}

fn is_instruction(message: &Message) -> bool {
    matches!(message.role, Role::System | Role::Developer)
}

fn texts<'m>(content: &'m Content) -> Vec<&'m str> {
    match content {
        Content::Absent => Vec::new(),
        Content::Text(text) => vec![text],
        Content::Parts(parts) => {
            let text = |part: &'m Part| match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Image(_) => None,
            };
            parts.iter().filter_map(text).collect()
        }
    }
}

/// The turns. Neighbours of one side are one turn; results of calls and what the user says behind
/// them are the user's.
pub(super) fn render(messages: &[Message], lost: &mut Lost) -> Vec<Value> {
    let mut ids = Ids::default();
    let mut out: Vec<(&str, Vec<Value>)> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        if message.role != Role::Function {
            lost.some(&format!("messages[{at}].name"), message.name.as_ref());
        }
        let (role, blocks) = match message.role {
            Role::System | Role::Developer => {
                image_in_instruction(message, at, lost);
                continue;
            }
            Role::User => ("user", content(&message.content, at, lost)),
            Role::Assistant => ("assistant", assistant(message, at, &mut ids, lost)),
            Role::Tool | Role::Function => ("user", vec![result(message, at, &mut ids, lost)]),
        };
        match out.last_mut() {
            // Of a turn that says nothing, its neighbours are neighbours.
            _ if blocks.is_empty() => {}
            Some((last, turn)) if *last == role => turn.extend(blocks),
            _ => out.push((role, blocks)),
        }
    }
    out.into_iter().map(|(role, blocks)| json!({"role": role, "content": blocks})).collect()
}

fn image_in_instruction(message: &Message, at: usize, lost: &mut Lost) {
    if let Content::Parts(parts) = &message.content
        && parts.iter().any(|part| matches!(part, Part::Image(_)))
    {
        lost.field(format!("messages[{at}].content"));
    }
}

/// Texts and images. A text of blanks alone is refused there, and says nothing.
fn content(content: &Content, at: usize, lost: &mut Lost) -> Vec<Value> {
    let text = |text: &str| (!text.trim().is_empty()).then(|| json!({"text": text}));
    match content {
        Content::Absent => Vec::new(),
        Content::Text(said) => text(said).into_iter().collect(),
        Content::Parts(parts) => {
            let part = |(number, part): (usize, &Part)| match part {
                Part::Text(said) => text(said),
                Part::Image(image) => {
                    let block = self::image(&image.url);
                    if block.is_none() {
                        lost.field(format!("messages[{at}].content[{number}].image_url"));
                    }
                    block
                }
            };
            parts.iter().enumerate().filter_map(part).collect()
        }
    }
}

/// An image with its data, or in Amazon's own store. Nothing is fetched from anywhere else.
fn image(url: &str) -> Option<Value> {
    if url.starts_with("s3://") {
        let (_, end) = url.rsplit_once('.')?;
        let mime = format!("image/{}", end.to_ascii_lowercase());
        let (_, format) = FORMATS.iter().find(|(known, _)| *known == mime)?;
        let source = json!({"s3Location": {"uri": url}});
        return Some(json!({"image": {"format": format, "source": source}}));
    }
    let (kind, data) = url.strip_prefix("data:")?.split_once(',')?;
    let mime = kind.strip_suffix(";base64")?;
    let (_, format) = FORMATS.iter().find(|(known, _)| *known == mime)?;
    Some(json!({"image": {"format": format, "source": {"bytes": data}}}))
}

/// Thoughts first, as their models want them, then what was said, then calls.
fn assistant(message: &Message, at: usize, ids: &mut Ids, lost: &mut Lost) -> Vec<Value> {
    let mut out = Vec::new();
    for Thought { text, seal } in &message.thoughts {
        let block = match seal {
            Some(Seal::Signature(signature)) if !is_googles(signature) => {
                json!({"reasoningText": {"text": text, "signature": signature}})
            }
            Some(Seal::Redacted(data)) => json!({"redactedContent": data}),
            // Words without a signature, or with another provider's, are refused there.
            Some(Seal::Signature(_) | Seal::Encrypted { .. }) | None => {
                lost.field(format!("messages[{at}].reasoning_content"));
                continue;
            }
        };
        out.push(json!({"reasoningContent": block}));
    }
    out.extend(content(&message.content, at, lost));
    for (number, call) in message.tool_calls.iter().enumerate() {
        let input = input(call).unwrap_or_else(|| {
            lost.field(format!("messages[{at}].tool_calls[{number}].function.arguments"));
            Map::new()
        });
        let call = json!({"toolUseId": ids.of(&call.id), "name": call.name, "input": input});
        out.push(json!({"toolUse": call}));
    }
    out
}

fn input(call: &ToolCall) -> Option<Map<String, Value>> {
    match call.arguments.trim() {
        "" => Some(Map::new()),
        text => serde_json::from_str(text).ok(),
    }
}

fn result(message: &Message, at: usize, ids: &mut Ids, lost: &mut Lost) -> Value {
    // The older kind of result has a name in place of an id.
    let id = message.tool_call_id.as_ref().or(message.name.as_ref());
    let id = ids.of(id.map_or("", String::as_str));
    let blocks = content(&message.content, at, lost);
    json!({"toolResult": {"toolUseId": id, "content": blocks}})
}

/// Ids as Bedrock takes them. One that does not fit becomes one by its place.
#[derive(Default)]
struct Ids(BTreeMap<String, String>);

impl Ids {
    fn of(&mut self, id: &str) -> String {
        let bare = bare_id(id);
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
        if !bare.is_empty() && bare.len() <= ID_BYTES_MAX && bare.bytes().all(letter) {
            return bare.to_owned();
        }
        let next = format!("call_{}", self.0.len());
        self.0.entry(bare.to_owned()).or_insert(next).clone()
    }
}
