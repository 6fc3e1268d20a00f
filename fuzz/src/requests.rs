//! Bodies of requests: parsed or refused in words, and what was parsed can be sent on in every
//! provider's dialect.

use serde_json::Value;
use wire::glance::Most;
use wire::openai::{chat_to_json, completion_to_json, render_rerank};
use wire::responses::{Seals, conversations};
use wire::{
    ApiError, ChatRequest, Glance, Limits, Lost, cohere, gemini, messages, openai, responses,
};

use crate::rest::rest;
use crate::rolls;
use crate::side::To;

/// A refusal says why, and not at length.
fn refused(error: &ApiError) {
    assert!(!error.message.is_empty() && error.message.len() < 2000, "{}", error.message);
    let shown: Value = serde_json::from_slice(&openai::answer::error(error)).expect("JSON");
    assert!(shown["error"]["type"].is_string());
}

/// A parser's result; what was refused is looked at here.
fn accepted<T>(result: Result<T, ApiError>) -> Option<T> {
    result.inspect_err(refused).ok()
}

/// What was read and written is read as the same.
fn again<T: PartialEq + std::fmt::Debug>(
    request: &T,
    written: &Value,
    parse: impl Fn(&[u8], &Limits) -> Result<T, ApiError>,
) {
    let written = written.to_string();
    let back = parse(written.as_bytes(), &Limits::default()).map_err(|error| error.message);
    assert_eq!(back.as_ref(), Ok(request), "{written}");
}

fn sent_on(request: &ChatRequest) {
    for to in To::ALL {
        let body = to.render(request, &mut Lost::default());
        assert!(body.is_object(), "{}", to.name());
    }
}

/// OpenAI's chat, and the words that other engines add to it.
pub fn chat(body: &[u8]) {
    let limits = Limits::default();
    if let Some(request) = accepted(openai::parse_chat(body, &limits)) {
        again(&request, &chat_to_json(&request), openai::parse_chat);
        sent_on(&request);
    }
    if let Some(request) = accepted(openai::parse_chat_forward(body, &limits)) {
        sent_on(&request);
    }
}

/// Plain completions, and the routes around tokens and adapters.
pub fn completions(body: &[u8]) {
    let limits = Limits::default();
    if let Some(request) = accepted(openai::parse_completion(body, &limits)) {
        again(&request, &completion_to_json(&request), openai::parse_completion);
    }
    if let Some((request, _)) = accepted(openai::parse_completion_forward(body, &limits)) {
        sent_on(&request);
    }
    accepted(openai::parse_tokenize(body, &limits));
    accepted(openai::parse_detokenize(body));
    accepted(openai::parse_load_adapter(body));
    accepted(openai::parse_unload_adapter(body));
}

/// Embeddings and scores of pairs.
pub fn embeddings(body: &[u8]) {
    let limits = Limits::default();
    accepted(openai::parse_embeddings(body, &limits));
    accepted(openai::parse_score(body, &limits));
}

/// Rankings in both dialects.
pub fn rerank(body: &[u8]) {
    let limits = Limits::default();
    if let Some(mut request) = accepted(openai::parse_rerank(body, &limits)) {
        let written = render_rerank(&request, true, &mut Lost::default());
        // Providers are not asked for what we have.
        request.return_documents = false;
        again(&request, &written, openai::parse_rerank);
    }
    if let Some(request) = accepted(cohere::parse(body, &limits)) {
        again(&request, &cohere::render(&request, &mut Lost::default()), cohere::parse);
    }
}

/// Anthropic's Messages.
pub fn messages(body: &[u8]) {
    let limits = Limits::default();
    let count = |body: &[u8], limits: &Limits| messages::parse_count(body, limits, true);
    for parse in [messages::parse, count, messages::parse_forward] {
        if let Some(request) = accepted(parse(body, &limits)) {
            sent_on(&request);
        }
    }
}

/// OpenAI's Responses, and conversations.
pub fn responses(body: &[u8]) {
    let limits = Limits::default();
    let mut made = 0;
    let mut ids = |prefix: &str| {
        made += 1;
        format!("{prefix}_{made}")
    };
    accepted(responses::parse_count(body, &limits, &mut ids, true));
    accepted(responses::parse(body, &limits, &mut ids));
    if let Some(mut request) = accepted(responses::parse_forward(body, &limits, &mut ids)) {
        sent_on(&request.chat);
        let history = request.input.clone();
        if accepted(request.join(&history)).is_some() {
            sent_on(&request.chat);
        }
    }
    let outline = responses::Outline::of(body);
    if let Some(mut request) = accepted(responses::Passing::parse(body, &limits, &mut ids)) {
        let before = request.input.clone();
        request.seal(responses::Before { history: &before, others: &before });
        for seals in [Seals::Own { thinks: true }, Seals::All, Seals::Words] {
            let whom = responses::Whom { provider: "p", model: "m", seals, most: Some(1) };
            let sent = request.clone().body(&before, whom);
            let sent: Value = serde_json::from_slice(&sent).expect("JSON");
            assert!(sent["store"] == false && sent.get("previous_response_id").is_none());
            assert!(
                outline.as_ref().is_none_or(|said| !said.stands_alone() || !request.keeping.store)
            );
        }
    }
    accepted(conversations::parse_create(body, &limits, &mut ids));
    accepted(conversations::parse_update(body));
    accepted(conversations::parse_items(body, &limits, &mut ids));
}

/// Google's generateContent.
pub fn gemini(body: &[u8]) {
    let limits = Limits::default();
    for request in [
        gemini::parse("m", true, body, &limits),
        gemini::parse_forward("m", false, body, &limits),
        gemini::parse_count("m", body, &limits, true),
    ] {
        if let Some(request) = accepted(request) {
            sent_on(&request);
        }
    }
}

/// Bodies of which only a part is read: the rest stays as it is.
pub fn glance(body: &[u8]) {
    let mut roll = rolls(body);
    let named = roll(2) == 0;
    let look = |body: &[u8]| match named {
        true => Glance::named(body, "m", false),
        false => Glance::of(body),
    };
    let Some(glance) = accepted(look(body)) else { return };
    assert!(glance.prompt_at(body) <= body.len());
    let usage = roll(2) == 0;
    let most = Some(Most { field: "max_tokens", tokens: 3 }).filter(|_| roll(2) == 0);
    let sent = glance.rewrite(body, "n\"", usage, most);
    let shown = String::from_utf8_lossy(&sent);
    assert_eq!(rest(&sent), rest(body), "{shown}");
    let after = look(&sent).unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert_eq!(after.model, if named { "m" } else { "n\"" });
    assert!(!usage || !after.stream || after.include_usage || named, "{shown}");
    assert!(most.is_none() || after.max_tokens == Some(3), "{shown}");
    assert_eq!(after.rewrite(&sent, "n\"", usage, most), sent, "{shown}");
}
