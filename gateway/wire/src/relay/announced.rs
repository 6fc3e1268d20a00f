//! Events that only announce an answer: of whom it is and what it will consist of, and nothing that
//! a caller could read. While nothing else has come, somebody else can still be asked instead.

use serde_json::{Map, Value};

use crate::dialect::Dialect;

/// Whether an event's data carries something of the answer, its end or a failure. What is not known
/// here does; a comment, which has no data, does not.
pub(super) fn carries(dialect: Dialect, data: &[u8]) -> bool {
    let data = data.trim_ascii();
    if data.is_empty() {
        return false;
    }
    let Ok(Value::Object(event)) = serde_json::from_slice(data) else { return true };
    if !is_nothing(event.get("error")) {
        return true;
    }
    match dialect {
        Dialect::Chat | Dialect::Completions => !list(&event, "choices").all(is_empty_choice),
        Dialect::Messages => match kind(&event) {
            "message_start" | "ping" => false,
            "content_block_start" => !event.get("content_block").is_some_and(is_empty_block),
            _ => true,
        },
        Dialect::Responses => !matches!(
            kind(&event),
            "response.created"
                | "response.queued"
                | "response.in_progress"
                | "response.output_item.added"
                | "response.content_part.added"
                | "response.reasoning_summary_part.added"
        ),
        Dialect::Gemini => {
            !is_nothing(event.get("promptFeedback"))
                || !list(&event, "candidates").all(is_empty_candidate)
        }
        _ => true,
    }
}

fn kind(event: &Map<String, Value>) -> &str {
    event.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// Nothing stands here that could be read.
fn is_nothing(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(_) => false,
    }
}

/// All fields but these say nothing.
fn is_nothing_but(value: Option<&Value>, known: &[&str]) -> bool {
    let Some(Value::Object(fields)) = value else { return is_nothing(value) };
    fields.iter().all(|(name, value)| known.contains(&&**name) || is_nothing(Some(value)))
}

fn is_empty_choice(choice: &Value) -> bool {
    let of = |name| choice.get(name);
    is_nothing(of("finish_reason"))
        && is_nothing(of("text"))
        && is_nothing_but(of("delta"), &["role"])
}

/// A block of text or thoughts that is still empty.
fn is_empty_block(block: &Value) -> bool {
    let words = matches!(block.get("type").and_then(Value::as_str), Some("text" | "thinking"));
    words && is_nothing_but(Some(block), &["type"])
}

fn is_empty_candidate(candidate: &Value) -> bool {
    let parts = candidate.pointer("/content/parts").and_then(Value::as_array);
    let mut parts = parts.into_iter().flatten();
    is_nothing(candidate.get("finishReason"))
        && parts.all(|part| is_nothing_but(Some(part), &["thought"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(dialect: Dialect, expect: bool, events: &[&str]) {
        for event in events {
            assert_eq!(carries(dialect, event.as_bytes()), expect, "{dialect:?} {event}");
        }
    }

    #[test]
    fn chunks_that_announce_carry_nothing() {
        let all = [Dialect::Chat, Dialect::Messages, Dialect::Responses, Dialect::Gemini];
        for dialect in all {
            check(dialect, false, &["", " \n"]);
            check(dialect, true, &["{oops", "[DONE]", "[]", r#"{"error":{"message":"x"}}"#]);
        }
        check(
            Dialect::Chat,
            false,
            &[
                r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
                r#"{"choices":[{"delta":{"role":"assistant","content":null,"tool_calls":[]}}]}"#,
                r#"{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#,
                r#"{"choices":[{"index":0,"delta":{}},{"index":1,"delta":{}}],"usage":null}"#,
            ],
        );
        check(
            Dialect::Chat,
            true,
            &[
                r#"{"choices":[{"delta":{"content":"a"}}]}"#,
                r#"{"choices":[{"delta":{"role":"assistant","reasoning":"a"}}]}"#,
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#,
                r#"{"choices":[{"delta":{"of_tomorrow":1}}]}"#,
                r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
                r#"{"choices":[{"delta":{}},{"delta":{"content":"a"}}]}"#,
            ],
        );
        check(Dialect::Completions, false, &[r#"{"choices":[{"text":"","finish_reason":null}]}"#]);
        check(Dialect::Completions, true, &[r#"{"choices":[{"text":"a"}]}"#]);
    }

    #[test]
    fn named_events_that_announce_carry_nothing() {
        check(
            Dialect::Messages,
            false,
            &[
                r#"{"type":"message_start","message":{"id":"m","usage":{"input_tokens":5}}}"#,
                r#"{"type":"ping"}"#,
                r#"{"type":"content_block_start","content_block":{"type":"text","text":""}}"#,
                r#"{"type":"content_block_start",
                    "content_block":{"type":"thinking","thinking":"","signature":""}}"#,
            ],
        );
        check(
            Dialect::Messages,
            true,
            &[
                r#"{"type":"content_block_start","content_block":{"type":"text","text":"a"}}"#,
                r#"{"type":"content_block_start",
                    "content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
                r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
                r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
                r#"{"type":"of_tomorrow"}"#,
            ],
        );
        check(
            Dialect::Responses,
            false,
            &[
                r#"{"type":"response.created","response":{"error":null}}"#,
                r#"{"type":"response.in_progress","response":{}}"#,
                r#"{"type":"response.output_item.added","item":{"type":"message"}}"#,
            ],
        );
        check(
            Dialect::Responses,
            true,
            &[
                r#"{"type":"response.output_text.delta","delta":"a"}"#,
                r#"{"type":"response.failed","response":{}}"#,
                r#"{"type":"response.web_search_call.in_progress"}"#,
            ],
        );
        check(
            Dialect::Gemini,
            false,
            &[
                r#"{"usageMetadata":{"promptTokenCount":5},"responseId":"x"}"#,
                r#"{"candidates":[{"content":{"role":"model","parts":[{"text":""}]}}]}"#,
            ],
        );
        check(
            Dialect::Gemini,
            true,
            &[
                r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}"#,
                r#"{"candidates":[{"content":{"parts":[{"text":"","thoughtSignature":"s"}]}}]}"#,
                r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]}}]}"#,
                r#"{"candidates":[{"finishReason":"STOP"}]}"#,
                r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#,
            ],
        );
    }
}
