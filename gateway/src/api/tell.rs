//! Tools for models whose chat template knows none: what they are and how a call is written is
//! said in the system message, and earlier calls and results become plain turns.

use serde_json::{Value, json};
use wire::{Message, Role, Tool};

use super::prompt::said;

const HOW: &str = "You can call functions. To call some, answer with nothing but one JSON object: \
                   {\"tool_calls\": [{\"name\": NAME, \"arguments\": {ARGUMENTS}}]}. You will be \
                   told their results. Otherwise answer as usual. The functions, with their \
                   arguments as JSON Schema:\n";

/// The same chat without tools.
pub(super) fn messages(messages: &[Message], tools: &[Tool]) -> Vec<Message> {
    let functions = tools.iter().filter_map(|tool| tool.value.get("function"));
    let functions: Vec<String> = functions.map(Value::to_string).collect();
    let told = format!("{HOW}{}", functions.join("\n"));
    let is_system = |m: &Message| matches!(m.role, Role::System | Role::Developer);
    let mut out = Vec::with_capacity(messages.len() + 1);
    let mut rest = messages;
    match messages.split_first() {
        Some((first, others)) if is_system(first) => {
            out.push(Message::text(first.role, format!("{}\n\n{told}", said(&first.content))));
            rest = others;
        }
        _ => out.push(Message::text(Role::System, told)),
    }
    out.extend(rest.iter().map(|message| plain(message, messages)));
    out
}

fn plain(message: &Message, all: &[Message]) -> Message {
    if message.role == Role::Tool {
        let id = message.tool_call_id.as_deref().unwrap_or_default();
        let calls = all.iter().flat_map(|m| &m.tool_calls);
        let name = calls.filter(|call| call.id == id).map(|call| &*call.name).next_back();
        let name = name.or(message.name.as_deref()).unwrap_or("the function");
        return Message::text(Role::User, format!("Result of {name}: {}", said(&message.content)));
    }
    if message.tool_calls.is_empty() {
        return message.clone();
    }
    let calls: Vec<Value> = message
        .tool_calls
        .iter()
        .map(|call| {
            let arguments: Value = serde_json::from_str(&call.arguments)
                .unwrap_or_else(|_| Value::from(call.arguments.as_str()));
            json!({"name": call.name, "arguments": arguments})
        })
        .collect();
    Message::text(Role::Assistant, json!({"tool_calls": calls}).to_string())
}
