//! What a body is: by which of the routes it would have come. A request says so by its path, and
//! whoever only asks about one has its body alone, so its fields are looked at.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use wire::gemini::Framing;
use wire::messages::policy::REQUEST;
use wire::openai::policy::{CHAT, COMMON, EMBEDDINGS, POOLING, Rule};
use wire::{ApiError, Dialect, ErrorKind};

use super::super::error::Failure;
use super::super::pooled::Pooled;
use super::super::surface::Surface;

/// Those that can be named.
pub(super) const SURFACES: [Dialect; 9] = [
    Dialect::Chat,
    Dialect::Completions,
    Dialect::Responses,
    Dialect::Messages,
    Dialect::Gemini,
    Dialect::Embeddings,
    Dialect::Rerank,
    Dialect::Cohere,
    Dialect::Score,
];

type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// What Google's clients have in the path.
#[derive(Deserialize)]
struct InPath {
    model: Option<String>,
    stream: Option<bool>,
}

/// The route of a body; `said` by whoever asks, else as its fields tell.
///
/// # Errors
/// It is Google's and names no model.
pub(super) fn surface(body: &[u8], said: Option<Dialect>) -> Result<Surface, Failure> {
    // What is no object is refused by whoever reads it.
    let fields: Fields<'_> = serde_json::from_slice(body).unwrap_or_default();
    Ok(match said.unwrap_or_else(|| told(&fields)) {
        Dialect::Completions => Surface::Completion,
        Dialect::Responses => Surface::Responses,
        Dialect::Messages => Surface::Messages,
        Dialect::Embeddings => Surface::Pooled(Pooled::Embeddings),
        Dialect::Rerank => Surface::Pooled(Pooled::Rerank),
        Dialect::Cohere => Surface::Pooled(Pooled::Cohere),
        Dialect::Score => Surface::Pooled(Pooled::Score),
        Dialect::Gemini => gemini(body)?,
        Dialect::Chat | Dialect::Converse => Surface::Chat,
    })
}

fn gemini(body: &[u8]) -> Result<Surface, Failure> {
    let named = serde_json::from_slice::<InPath>(body).ok();
    let Some(InPath { model: Some(model), stream }) = named else {
        let message = "Missing required parameter: 'model', which Google's requests have in their \
                       path and this one in its body.";
        let error = ApiError::new(ErrorKind::Invalid, "missing_required_parameter", message);
        return Err(error.with_param("model").into());
    };
    let model = model.strip_prefix("models/").unwrap_or(&model).to_owned();
    let stream = stream.unwrap_or_default();
    Ok(Surface::Gemini { model, stream, framing: Framing::Events })
}

/// What the fields tell. Where two dialects share them all, it is the one that has no others.
fn told(fields: &Fields<'_>) -> Dialect {
    let has = |name: &str| fields.contains_key(name);
    let knows = |tables: &[&[(&str, Rule)]], name: &str| {
        tables.iter().flat_map(|table| table.iter()).any(|(known, _)| *known == name)
    };
    if has("contents") {
        return Dialect::Gemini;
    }
    if has("text_1") && has("text_2") {
        return Dialect::Score;
    }
    if has("messages") {
        let anthropic = |name: &String| knows(&[REQUEST], name) && !knows(&[COMMON, CHAT], name);
        let is = fields.keys().any(anthropic);
        return if is { Dialect::Messages } else { Dialect::Chat };
    }
    if has("query") && has("documents") {
        return Dialect::Rerank;
    }
    // Responses have a field of that name too, which is an object.
    if fields.get("prompt").is_some_and(|prompt| !prompt.get().starts_with('{')) {
        return Dialect::Completions;
    }
    if let Some(input) = fields.get("input") {
        let list = input.get().strip_prefix('[').map(str::trim_start);
        let items = list.is_some_and(|list| list.starts_with('{'));
        let plain = fields.keys().all(|name| knows(&[POOLING, EMBEDDINGS], name));
        return if plain && !items { Dialect::Embeddings } else { Dialect::Responses };
    }
    let own = ["previous_response_id", "conversation", "prompt"];
    if own.into_iter().any(has) { Dialect::Responses } else { Dialect::Chat }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_by_its_fields() {
        for (body, expect) in [
            (r#"{"messages":[]}"#, "chat"),
            (r#"{"messages":[],"max_tokens":5,"tools":[],"metadata":{}}"#, "chat"),
            // vLLM's chat has documents as well.
            (r#"{"messages":[],"query":"q","documents":[]}"#, "chat"),
            (r#"{"messages":[],"system":"s"}"#, "messages"),
            (r#"{"messages":[],"stop_sequences":["x"]}"#, "messages"),
            (r#"{"contents":[]}"#, "gemini"),
            (r#"{"prompt":"p","max_tokens":5}"#, "completions"),
            (r#"{"input":"i"}"#, "embeddings"),
            (r#"{"input":["i", "j"],"dimensions":5,"user":"u"}"#, "embeddings"),
            (r#"{"input":[1, 2]}"#, "embeddings"),
            (r#"{"input":[ {"role":"user","content":"i"}]}"#, "responses"),
            (r#"{"input":"i","instructions":"s"}"#, "responses"),
            (r#"{"input":"i","stream":true}"#, "responses"),
            (r#"{"previous_response_id":"resp_1"}"#, "responses"),
            (r#"{"prompt":{"id":"pmpt_1"}}"#, "responses"),
            (r#"{"input":"i","prompt":{"id":"pmpt_1"}}"#, "responses"),
            (r#"{"query":"q","documents":["d"]}"#, "rerank"),
            (r#"{"text_1":"a","text_2":["b"]}"#, "score"),
            ("{}", "chat"),
            ("[1]", "chat"),
        ] {
            let body = body.replacen('{', r#"{"model":"m","#, 1).replace(",}", "}");
            let surface = surface(body.as_bytes(), None).expect("a surface");
            assert_eq!(surface.dialect().name(), expect, "{body}");
        }
        for dialect in SURFACES {
            let said = surface(br#"{"model":"models/m","input":"i"}"#, Some(dialect));
            assert_eq!(said.expect("a surface").dialect(), dialect);
        }
        assert!(surface(br#"{"contents":[]}"#, None).is_err(), "it names no model");
        let silent = surface(br#"{"contents":[],"model":"m","stream":null}"#, None);
        assert!(matches!(silent, Ok(Surface::Gemini { stream: false, .. })));
    }
}
