//! `POST /v1/rerank` in the shape that Jina and the first version of Cohere's share, and
//! `POST /v1/score` in vLLM's. Sources: their API references.

use serde_json::{Value, json};

use super::embeddings::{truncate, usage};
use super::policy;
use crate::answer::Head;
use crate::error::ApiError;
use crate::fields::{Fault, Fields, Parsed, bound};
use crate::json::put;
use crate::limits::Limits;
use crate::lost::Lost;
use crate::pooling::{RerankRequest, ScoreRequest, Truncate};

/// Parses a request to rank documents.
///
/// # Errors
/// The first field that is missing, unknown, wrong or cannot be honoured, by its path.
pub fn parse_rerank(body: &[u8], limits: &Limits) -> Result<RerankRequest, ApiError> {
    let value = crate::json::parse(body)?;
    Ok(rerank(Fields::of(&value)?, limits)?)
}

/// Parses a request for the scores of pairs.
///
/// # Errors
/// As [`parse_rerank`].
pub fn parse_score(body: &[u8], limits: &Limits) -> Result<ScoreRequest, ApiError> {
    let value = crate::json::parse(body)?;
    Ok(score(Fields::of(&value)?, limits)?)
}

fn rerank(fields: Fields<'_>, limits: &Limits) -> Parsed<RerankRequest> {
    policy::apply(fields, &[policy::POOLING, policy::RERANK])?;
    let model = fields.required_string("model")?.to_owned();
    let query = fields.required_string("query")?.to_owned();
    Ok(RerankRequest {
        model,
        query,
        documents: documents(fields, limits)?,
        top_n: top_n(fields)?,
        return_documents: fields.boolean("return_documents", true)?,
        document_tokens: document_tokens(fields)?,
        truncate: truncate(fields)?,
    })
}

/// What is ranked: one document at least.
pub(crate) fn documents(fields: Fields<'_>, limits: &Limits) -> Parsed<Vec<String>> {
    if fields.get("documents").is_none() {
        return Err(Fault::missing("documents"));
    }
    let documents = fields.each("documents", limits.inputs_max, document)?;
    if documents.is_empty() {
        return Err(Fault::range("documents", "expected at least one document", "empty_array"));
    }
    Ok(documents)
}

/// Tokens that are read of each document.
pub(crate) fn document_tokens(fields: Fields<'_>) -> Parsed<Option<usize>> {
    let most = fields.natural("max_tokens_per_doc", 1..=u32::MAX)?;
    Ok(most.and_then(|n| usize::try_from(n).ok()))
}

/// Only so many of the best.
pub(crate) fn top_n(fields: Fields<'_>) -> Parsed<Option<usize>> {
    let most = fields.natural("top_n", 1..=u32::MAX)?;
    Ok(most.and_then(|n| usize::try_from(n).ok()))
}

/// The request for a provider that speaks this dialect. `extended`: it knows what engines have
/// added to it. The documents need not come back: whoever asked has them.
#[must_use]
pub fn render_rerank(request: &RerankRequest, extended: bool, lost: &mut Lost) -> Value {
    let mut out = json!({
        "model": request.model,
        "query": request.query,
        "documents": request.documents,
        "return_documents": false,
    });
    if let Some(most) = request.top_n {
        out["top_n"] = most.into();
    }
    let cut = match request.truncate {
        Truncate::Never => None,
        Truncate::ToModel => Some(-1),
        Truncate::To(tokens) => Some(i64::try_from(tokens).unwrap_or(i64::MAX)),
    };
    match (request.document_tokens, extended) {
        (Some(tokens), true) => out["max_tokens_per_doc"] = tokens.into(),
        (Some(_), false) => lost.field("max_tokens_per_doc"),
        (None, _) => {}
    }
    match (cut, extended) {
        (Some(tokens), true) => out["truncate_prompt_tokens"] = tokens.into(),
        // Who knows no word for it cuts or refuses as it is used to.
        (None | Some(-1), _) => {}
        (Some(_), false) => lost.field("truncate_prompt_tokens"),
    }
    out
}

/// A string, or an object of a text and nothing else: which field of others counts is a guess.
fn document(value: &Value) -> Parsed<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Object(_) => {
            let fields = Fields::of(value)?;
            fields.only(&["text"])?;
            Ok(fields.required_string("text")?.to_owned())
        }
        other => Err(Fault::kind("", "a string or an object with 'text'", other)),
    }
}

fn score(fields: Fields<'_>, limits: &Limits) -> Parsed<ScoreRequest> {
    policy::apply(fields, &[policy::POOLING, policy::SCORE])?;
    let model = fields.required_string("model")?.to_owned();
    let left = texts(fields, "text_1", limits.inputs_max)?;
    let right = texts(fields, "text_2", limits.inputs_max)?;
    let pairs: Vec<(String, String)> = match (&left[..], &right[..]) {
        ([one], many) => many.iter().map(|text| (one.clone(), text.clone())).collect(),
        (left, right) if left.len() == right.len() => {
            left.iter().cloned().zip(right.iter().cloned()).collect()
        }
        (left, right) => {
            let why = format!(
                "expected one text in 'text_1' or as many as in 'text_2' ({}), but got {}",
                right.len(),
                left.len()
            );
            return Err(Fault::value("text_1", why));
        }
    };
    Ok(ScoreRequest { model, pairs, truncate: truncate(fields)? })
}

/// A text or a list of them.
fn texts(fields: Fields<'_>, name: &str, max: usize) -> Parsed<Vec<String>> {
    match fields.get(name) {
        None => Err(Fault::missing(name)),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(items)) if items.is_empty() => {
            Err(Fault::range(name, "expected at least one text", "empty_array"))
        }
        Some(Value::Array(items)) => {
            bound(items.len(), max).map_err(|fault| fault.under(name))?;
            fields.each(name, max, |item| match item {
                Value::String(text) => Ok(text.clone()),
                other => Err(Fault::kind("", "a string", other)),
            })
        }
        Some(other) => Err(Fault::kind(name, "a string or an array", other)),
    }
}

/// One document of a ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked<'a> {
    /// Its number in the request.
    pub index: usize,
    /// How well it answers the query.
    pub score: f32,
    /// The document, where the answer repeats it.
    pub document: Option<&'a str>,
}

/// The answer of `/v1/rerank`: the best first.
#[must_use]
pub fn rerank_answer(id: &str, model: &str, ranking: &[Ranked<'_>], tokens: u64) -> Vec<u8> {
    let texts: usize = ranking.iter().filter_map(|one| one.document).map(str::len).sum();
    let mut out = Vec::with_capacity(256 + 64 * ranking.len() + texts);
    out.extend_from_slice(b"{\"id\":");
    put(&mut out, id);
    out.extend_from_slice(b",\"model\":");
    put(&mut out, model);
    out.extend_from_slice(b",\"results\":[");
    for (at, one) in ranking.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b",{\"index\":" } else { b"{\"index\":" });
        put(&mut out, &one.index);
        out.extend_from_slice(b",\"relevance_score\":");
        put(&mut out, &one.score);
        if let Some(document) = one.document {
            out.extend_from_slice(b",\"document\":{\"text\":");
            put(&mut out, document);
            out.push(b'}');
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"usage\":");
    usage(&mut out, tokens);
    out.push(b'}');
    out
}

/// The answer of `/v1/score`: one score per pair, in their order.
#[must_use]
pub fn score_answer(head: &Head, scores: &[f32], tokens: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + 64 * scores.len());
    head.open(&mut out, "list");
    out.extend_from_slice(b",\"data\":[");
    for (index, score) in scores.iter().enumerate() {
        out.extend_from_slice(if index > 0 { b",{\"index\":" } else { b"{\"index\":" });
        put(&mut out, &index);
        out.extend_from_slice(b",\"object\":\"score\",\"score\":");
        put(&mut out, score);
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"usage\":");
    usage(&mut out, tokens);
    out.push(b'}');
    out
}
