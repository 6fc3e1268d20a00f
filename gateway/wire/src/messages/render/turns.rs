//! Messages as turns: the system prompt apart, turns of one role joined, results of tools in the
//! user's turn and first in it, thoughts first in the assistant's.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::lost::Lost;
use crate::messages::{TOOL_ERROR, answer};
use crate::request::{Content, Detail, Image, Message, Part, Role, Seal, Thought, ToolCall};

/// Turns under way.
#[derive(Default)]
struct Turns {
    done: Vec<Value>,
    /// Blocks of the user's turn under way.
    user: Vec<Value>,
    /// What the application says within it. It stands behind the turn: the dialect allows it
    /// nowhere else, and there it is nearest to the answer.
    system: Vec<Value>,
    /// Blocks of the assistant's turn under way.
    assistant: Vec<Value>,
}

/// The system prompt, if there is one, and the messages.
pub(super) fn render(messages: &[Message], lost: &mut Lost) -> (Option<Value>, Vec<Value>) {
    let application = |message: &&Message| matches!(message.role, Role::System | Role::Developer);
    let front = messages.iter().take_while(application).count();
    let mut system = Vec::new();
    for message in &messages[..front] {
        said(&mut system, message, lost);
    }
    let mut turns = Turns::default();
    for (at, message) in messages.iter().enumerate().skip(front) {
        turns.take(at, message, lost);
    }
    turns.end_assistant();
    turns.end_user(messages.len(), lost);
    (content(system), turns.done)
}

impl Turns {
    fn take(&mut self, at: usize, message: &Message, lost: &mut Lost) {
        if message.role != Role::Tool {
            lost.some("messages.name", message.name.as_ref());
        }
        if message.role == Role::Assistant {
            self.end_user(at, lost);
            thoughts(&mut self.assistant, &message.thoughts, lost);
            said(&mut self.assistant, message, lost);
            self.assistant.extend(message.tool_calls.iter().map(call));
            return;
        }
        self.end_assistant();
        match message.role {
            Role::Tool => self.user.push(result(message, lost)),
            Role::System | Role::Developer => said(&mut self.system, message, lost),
            role => {
                if role == Role::Function {
                    lost.field(format!("messages[{at}].role"));
                }
                said(&mut self.user, message, lost);
            }
        }
    }

    fn end_assistant(&mut self) {
        if let Some(content) = content(std::mem::take(&mut self.assistant)) {
            self.done.push(json!({"role": "assistant", "content": content}));
        }
    }

    /// `at`: the message behind it.
    fn end_user(&mut self, at: usize, lost: &mut Lost) {
        let (mut user, mut system) =
            (std::mem::take(&mut self.user), std::mem::take(&mut self.system));
        if user.is_empty() && !system.is_empty() {
            // With no turn in front of it, it can only be one.
            lost.field(format!("messages[{}].role", at - 1));
            user.append(&mut system);
        }
        for (role, blocks) in [("user", user), ("system", system)] {
            if let Some(content) = content(blocks) {
                self.done.push(json!({"role": role, "content": content}));
            }
        }
    }
}

/// Blocks as content: a text alone is a text; `None`: nothing is said.
fn content(mut blocks: Vec<Value>) -> Option<Value> {
    match &mut blocks[..] {
        [] => None,
        [one] if one["type"] == "text" => Some(one["text"].take()),
        _ => Some(blocks.into()),
    }
}

fn text(text: &str) -> Option<Value> {
    // An empty text is refused.
    (!text.is_empty()).then(|| json!({"type": "text", "text": text}))
}

/// A message's text and images, as blocks.
fn said(out: &mut Vec<Value>, message: &Message, lost: &mut Lost) {
    match &message.content {
        Content::Absent => {}
        Content::Text(said) => out.extend(text(said)),
        Content::Parts(parts) => {
            for part in parts {
                match part {
                    Part::Text(said) => out.extend(text(said)),
                    Part::Image(_) if !matches!(message.role, Role::User | Role::Tool) => {
                        lost.field("messages.content.image_url");
                    }
                    Part::Image(shown) => out.push(image(shown, lost)),
                }
            }
        }
    }
}

fn image(image: &Image, lost: &mut Lost) -> Value {
    if image.detail != Detail::Auto {
        lost.field("messages.content.image_url.detail");
    }
    let inline = image.url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    let source = match inline {
        Some((media, data)) => json!({"type": "base64", "media_type": media, "data": data}),
        None => json!({"type": "url", "url": image.url}),
    };
    json!({"type": "image", "source": source})
}

/// Thoughts that no provider sealed, or another's, cannot come back as thoughts: Anthropic refuses
/// them. Its own signatures are base64; one with a point in it has another provider's mark.
fn thoughts(out: &mut Vec<Value>, thoughts: &[Thought], lost: &mut Lost) {
    for Thought { text, seal } in thoughts {
        match seal {
            Some(Seal::Signature(signature)) if !signature.contains('.') => {
                out.push(json!({"type": "thinking", "thinking": text, "signature": signature}));
            }
            Some(Seal::Redacted(data)) => {
                out.push(json!({"type": "redacted_thinking", "data": data}));
            }
            _ => lost.field("messages.reasoning_content"),
        }
    }
}

fn call(call: &ToolCall) -> Value {
    // As in an answer, but deep ones, which cannot be parsed, are kept as text too.
    let input: Option<Value> = serde_json::from_str(&answer::input(&call.arguments)).ok();
    let input = input.unwrap_or_else(|| json!({"arguments": call.arguments}));
    json!({"type": "tool_use", "id": id(&call.id), "name": call.name, "input": input})
}

fn result(message: &Message, lost: &mut Lost) -> Value {
    let mut blocks = Vec::new();
    said(&mut blocks, message, lost);
    let first = blocks.first().and_then(|block| block["text"].as_str());
    let failed = first.and_then(|first| first.strip_prefix(TOOL_ERROR).map(str::to_owned));
    if let Some(rest) = &failed {
        blocks.splice(..1, text(rest));
    }
    let called = message.tool_call_id.as_deref().unwrap_or_default();
    let mut out = json!({"type": "tool_result", "tool_use_id": id(called)});
    if let Some(content) = content(blocks) {
        out["content"] = content;
    }
    if failed.is_some() {
        out["is_error"] = true.into();
    }
    out
}

/// A call's id in the letters that Anthropic takes: others are written as their hexadecimal
/// value, the same in the call and in its result.
fn id(id: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !id.is_empty() && id.bytes().all(plain) {
        return id.into();
    }
    let mut out = String::from("call_");
    for byte in id.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("-{byte:02x}"));
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::id;

    #[test]
    fn ids_have_known_letters() {
        assert_eq!(id("call_1-a"), "call_1-a");
        assert_eq!(id("a.b"), "call_a-2eb");
        assert_eq!(id(""), "call_");
    }
}
