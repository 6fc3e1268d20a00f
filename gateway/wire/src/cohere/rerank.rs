//! Ranking: requests in and out, answers in and out.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::fields::{Fields, Parsed};
use crate::json;
use crate::limits::Limits;
use crate::lost::Lost;
use crate::openai::policy::{self, Rule};
use crate::openai::rerank::{Ranked, document_tokens, documents, top_n};
use crate::piece::Broken;
use crate::pooling::{RerankRequest, Truncate};
use crate::provider;

/// Tokens of a document that are read where the request does not say.
pub const DOCUMENT_TOKENS: usize = 4096;

/// Documents that are one unit of search.
const DOCUMENTS_PER_UNIT: usize = 100;

/// What becomes of every field of a request.
static FIELDS: &[(&str, Rule)] = &[
    ("model", Rule::Honoured),
    ("query", Rule::Honoured),
    ("documents", Rule::Honoured),
    ("top_n", Rule::Honoured),
    ("max_tokens_per_doc", Rule::Honoured),
    ("priority", Rule::Only(&["0"], "all requests of this route have one class")),
    ("relevant_spans", Rule::Refused("documents are scored as a whole")),
    ("return_documents", Rule::Only(&["false"], "answers of this version hold no documents")),
    ("rank_fields", Rule::Refused("send documents as texts")),
    ("max_chunks_per_doc", Rule::Refused("use 'max_tokens_per_doc'")),
];

/// Parses a request. Documents that are too long lose their ends, as everywhere in this dialect.
///
/// # Errors
/// The first field that is missing, unknown, wrong or cannot be honoured, by its path.
pub fn parse(body: &[u8], limits: &Limits) -> Result<RerankRequest, ApiError> {
    let value = json::parse(body)?;
    Ok(read(Fields::of(&value)?, limits)?)
}

fn read(fields: Fields<'_>, limits: &Limits) -> Parsed<RerankRequest> {
    policy::apply(fields, &[FIELDS])?;
    Ok(RerankRequest {
        model: fields.required_string("model")?.to_owned(),
        query: fields.required_string("query")?.to_owned(),
        documents: documents(fields, limits)?,
        top_n: top_n(fields)?,
        return_documents: false,
        document_tokens: document_tokens(fields)?,
        truncate: Truncate::ToModel,
    })
}

/// The request as Cohere reads it. It cuts what is too long by itself, and repeats no documents:
/// whoever asked has them.
#[must_use]
pub fn render(request: &RerankRequest, lost: &mut Lost) -> Value {
    let mut out = Map::new();
    out.insert("model".to_owned(), request.model.clone().into());
    out.insert("query".to_owned(), request.query.clone().into());
    out.insert("documents".to_owned(), request.documents.clone().into());
    if let Some(most) = request.top_n {
        out.insert("top_n".to_owned(), most.into());
    }
    if let Some(tokens) = request.document_tokens {
        out.insert("max_tokens_per_doc".to_owned(), tokens.into());
    }
    if let Truncate::To(_) = request.truncate {
        lost.field("truncate_prompt_tokens");
    }
    Value::Object(out)
}

#[derive(Serialize)]
struct Out<'a> {
    id: &'a str,
    results: Vec<OutResult>,
    meta: Meta,
}

#[derive(Serialize)]
struct OutResult {
    index: usize,
    relevance_score: f32,
}

#[derive(Serialize)]
struct Meta {
    api_version: Version,
    billed_units: Units,
    tokens: Tokens,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

#[derive(Serialize)]
struct Units {
    search_units: usize,
}

#[derive(Serialize)]
struct Tokens {
    input_tokens: u64,
    output_tokens: u64,
}

/// The answer: the best first. A unit of search is a query with a hundred documents at most.
#[must_use]
pub fn answer(id: &str, ranking: &[Ranked<'_>], documents: usize, tokens: u64) -> Vec<u8> {
    let results = ranking
        .iter()
        .map(|one| OutResult { index: one.index, relevance_score: one.score })
        .collect();
    let meta = Meta {
        api_version: Version { version: "2" },
        billed_units: Units { search_units: documents.div_ceil(DOCUMENTS_PER_UNIT) },
        tokens: Tokens { input_tokens: tokens, output_tokens: 0 },
    };
    let written = serde_json::to_vec(&Out { id, results, meta });
    written.expect("strings and numbers can be written")
}

/// Reads a provider's answer, in this dialect or in Jina's: the number of each document and its
/// score, as they come.
///
/// # Errors
/// It is no answer to a request with so many documents.
pub fn read_answer(body: &[u8], documents: usize) -> Result<Vec<(usize, f32)>, Broken> {
    #[derive(Deserialize)]
    struct Answer {
        results: Vec<Result>,
    }
    #[derive(Deserialize)]
    struct Result {
        index: usize,
        relevance_score: f32,
    }
    let answer: Answer = provider::json(provider::utf8(body)?)?;
    let mut seen = vec![false; documents];
    for Result { index, .. } in &answer.results {
        let place = seen.get_mut(*index);
        if place.is_none_or(|place| std::mem::replace(place, true)) {
            return Err(Broken(format!("it ranks document {index} of {documents}")));
        }
    }
    Ok(answer.results.into_iter().map(|one| (one.index, one.relevance_score)).collect())
}
