//! A stream as Google's own clients read it, which is not quite as the standard has it: by lines,
//! of which those that begin with `data: ` are an event's and any other is taken for JSON. A chunk
//! without a part makes the client forget the turn.

use serde_json::Value;
use wire::gemini::Framing;

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With its candidates' reasons.
    Whole,
    /// With an error.
    Error,
    /// In the middle.
    Cut,
}

/// Checks a stream, or what of it has come, and says how it ends.
pub(super) fn check(framing: Framing, bytes: &[u8]) -> Result<(Vec<Value>, End), String> {
    let utf8 = |bytes| std::str::from_utf8(bytes).map_err(|error| error.to_string());
    let chunks = match framing {
        Framing::Events => {
            // What stands behind the last line end has not come as a whole.
            let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            events(utf8(&bytes[..end])?)?
        }
        Framing::Array => items(utf8(bytes)?)?,
    };
    let mut end = End::Cut;
    for chunk in &chunks {
        if end != End::Cut {
            return Err("something follows the end".into());
        }
        if chunk.as_object().and_then(|chunk| chunk.keys().next()).is_some_and(|k| k == "error") {
            let code = chunk["error"]["code"].as_u64().unwrap_or(0);
            if !(400..600).contains(&code) || !chunk["error"]["status"].is_string() {
                return Err(format!("an error that is none: {chunk}"));
            }
            end = End::Error;
            continue;
        }
        let candidates = chunk["candidates"].as_array().ok_or("no candidates")?;
        if candidates.is_empty() {
            return Err(format!("no candidate: {chunk}"));
        }
        for candidate in candidates {
            candidate_is_sound(candidate)?;
        }
        if candidates.iter().any(|candidate| candidate.get("finishReason").is_some()) {
            if !chunk["usageMetadata"]["totalTokenCount"].is_u64() {
                return Err(format!("the end has no usage: {chunk}"));
            }
            end = End::Whole;
        }
    }
    Ok((chunks, end))
}

fn candidate_is_sound(candidate: &Value) -> Result<(), String> {
    let content = &candidate["content"];
    let parts = content["parts"].as_array().ok_or("no parts")?;
    if content["role"] != "model" || !candidate["index"].is_u64() || parts.is_empty() {
        return Err(format!("a candidate that is none: {candidate}"));
    }
    for part in parts {
        let kinds = ["text", "functionCall"];
        if kinds.iter().filter(|kind| part.get(**kind).is_some()).count() != 1 {
            return Err(format!("a part that is none: {part}"));
        }
        let call = &part["functionCall"];
        let sound = call["args"].is_object() && call["name"].is_string();
        if !call.is_null() && !sound {
            return Err(format!("a call that is none: {part}"));
        }
    }
    Ok(())
}

fn events(text: &str) -> Result<Vec<Value>, String> {
    let mut out = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let data = line.strip_prefix("data: ").unwrap_or(line);
        out.push(serde_json::from_str(data).map_err(|error| format!("{error}: {data}"))?);
    }
    Ok(out)
}

/// An array may be cut behind any item: with a bracket it is one.
fn items(text: &str) -> Result<Vec<Value>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let closed = if text.ends_with(']') { text.to_owned() } else { format!("{text}]") };
    serde_json::from_str(&closed).map_err(|error| format!("{error}: {text}"))
}
