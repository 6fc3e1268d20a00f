//! `POST /v1/embeddings`, both ways.
//! Source: OpenAI's API reference; extras as vLLM and sentence-transformers name them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::completion::prompts;
use super::policy;
use crate::error::ApiError;
use crate::fields::{Fault, Fields, Parsed};
use crate::json::{self, put};
use crate::limits::Limits;
use crate::pooling::{EmbeddingRequest, Encoding, Instruction, Truncate};
use crate::request::Prompt;

/// Parses a request for embeddings.
///
/// # Errors
/// The first field that is missing, unknown, wrong or cannot be honoured, by its path.
pub fn parse(body: &[u8], limits: &Limits) -> Result<EmbeddingRequest, ApiError> {
    let value = json::parse(body)?;
    Ok(read(Fields::of(&value)?, limits)?)
}

fn read(fields: Fields<'_>, limits: &Limits) -> Parsed<EmbeddingRequest> {
    policy::apply(fields, &[policy::POOLING, policy::EMBEDDINGS])?;
    let model = fields.required_string("model")?.to_owned();
    let inputs = prompts(fields, "input", limits.inputs_max)?;
    for (index, input) in inputs.iter().enumerate() {
        if *input == Prompt::Text(String::new()) {
            let why = "expected a text that is not empty";
            let alone = matches!(fields.get("input"), Some(Value::String(_)));
            let fault = Fault::value("", why);
            return Err(if alone { fault.under("input") } else { fault.at("input", index) });
        }
    }
    let encoding = match fields.string("encoding_format")? {
        None | Some("float") => Encoding::Float,
        Some("base64") => Encoding::Base64,
        Some(_) => {
            return Err(Fault::value("encoding_format", "expected 'float' or 'base64'"));
        }
    };
    let dimensions = fields.natural("dimensions", 1..=u32::MAX)?;
    Ok(EmbeddingRequest {
        model,
        inputs,
        encoding,
        dimensions: dimensions.and_then(|n| usize::try_from(n).ok()),
        truncate: truncate(fields)?,
        instruction: instruction(fields)?,
    })
}

/// vLLM's field: a number of tokens, or -1 for what the model reads.
pub(super) fn truncate(fields: Fields<'_>) -> Parsed<Truncate> {
    Ok(match fields.integer("truncate_prompt_tokens", -1..=i64::from(u32::MAX))? {
        None => Truncate::Never,
        Some(-1) => Truncate::ToModel,
        Some(0) => {
            let why = "expected at least 1, or -1 for what the model reads";
            return Err(Fault::range("truncate_prompt_tokens", why, "integer_below_min_value"));
        }
        Some(tokens) => Truncate::To(usize::try_from(tokens).unwrap_or(usize::MAX)),
    })
}

/// A prompt by its name, or by what the texts are.
fn instruction(fields: Fields<'_>) -> Parsed<Instruction> {
    let kind = match fields.string("input_type")? {
        None => None,
        Some("query" | "search_query") => Some(Instruction::Query),
        Some("document" | "passage" | "search_document") => Some(Instruction::Document),
        Some(_) => return Err(Fault::value("input_type", "expected 'query' or 'document'")),
    };
    match (fields.string("prompt_name")?, kind) {
        (Some(_), Some(_)) => {
            Err(Fault::value("input_type", "send either 'input_type' or 'prompt_name'"))
        }
        (Some(name), None) => Ok(Instruction::Named(name.to_owned())),
        (None, kind) => Ok(kind.unwrap_or_default()),
    }
}

/// The answer: one vector per input, in their order.
#[must_use]
pub fn answer(model: &str, vectors: &[Vec<f32>], encoding: Encoding, tokens: u64) -> Vec<u8> {
    let numbers: usize = vectors.iter().map(Vec::len).sum();
    let mut out = Vec::with_capacity(128 + 64 * vectors.len() + 12 * numbers);
    out.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
    for (index, vector) in vectors.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"object\":\"embedding\",\"index\":");
        put(&mut out, &index);
        out.extend_from_slice(b",\"embedding\":");
        match encoding {
            Encoding::Float => put(&mut out, vector),
            Encoding::Base64 => put(&mut out, &packed(vector)),
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"model\":");
    put(&mut out, model);
    out.extend_from_slice(b",\"usage\":");
    usage(&mut out, tokens);
    out.push(b'}');
    out
}

fn packed(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

/// Nothing is made, so all tokens are the prompt's.
pub(super) fn usage(out: &mut Vec<u8>, tokens: u64) {
    out.extend_from_slice(b"{\"prompt_tokens\":");
    put(out, &tokens);
    out.extend_from_slice(b",\"total_tokens\":");
    put(out, &tokens);
    out.push(b'}');
}
