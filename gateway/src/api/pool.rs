//! What embeddings, rankings and scores share: find the model, make tokens, wait for vectors.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use govern::Ask;
use text::{TextError, TextModel};
use wire::{ApiError, ErrorKind, Instruction, Prompt, Truncate};

use super::App;
use super::bill;
use super::cache::Made;
use super::envelope::Caller;
use super::error::{Failure, of_refusal};
use super::generate::Chosen;
use super::pooled::Pooled;
use super::prepare::{self, wrong_task};
use super::prompt::{check_ids, check_length, encode};
use super::{forward, generate};
use crate::backend::embed::{Input, Vectors};
use crate::backend::{PoolModel, Task};

/// A text that will be cut is cut here first where it has more bytes per token than any text that
/// a model reads: the tokenizer would take a hundred times its size in memory.
const BYTES_PER_TOKEN_MAX: usize = 64;

/// The model of this name, which must do this.
pub(super) fn model(app: &App, id: &str, task: Task) -> Result<Arc<PoolModel>, Failure> {
    match app.models.pool(id) {
        Some(model) if model.task == task => Ok(model),
        Some(other) => Err(wrong_task(id, other.task.serves())),
        // Also says that it is not there, or not yet.
        None => prepare::model(app, id).and_then(|other| {
            Err(wrong_task(&other.id, "/v1/chat/completions and /v1/completions"))
        }),
    }
}

/// Waits for what the model makes of the inputs; `asked` is the name that the caller knows it by.
/// A client that leaves drops this future, which cancels the request.
pub(super) async fn run(
    app: &App,
    (model, surface, asked): (&PoolModel, Pooled, &str),
    inputs: Vec<Input>,
    (caller, chosen): (&Caller, Option<&Chosen<'_>>),
) -> Result<(Vectors, Head), Failure> {
    let tokens = inputs.iter().map(|input| input.ids.len()).sum::<usize>();
    let ask = || Ask {
        model: asked.to_owned(),
        answers: Some(&model.id).filter(|id| *id != asked).cloned(),
        surface: surface.name(),
        input_tokens: u64::try_from(tokens).unwrap_or(u64::MAX),
        choices: 1,
        ..Ask::default()
    };
    let bill = Chosen::before(chosen).pay(app, caller, ask).await?;
    chosen.into_iter().for_each(|chosen| chosen.is_paid([&bill]));
    if chosen.is_none_or(|chosen| !chosen.replaceable) {
        model.engine.back().await;
    }
    let pooling = model.engine.submit(inputs, caller.arrived)?;
    let (done, route) = pooling.result().await.map_err(|refusal| {
        let PoolModel { id, engine, .. } = model;
        of_refusal(refusal, id, &engine.state(), engine.retry_after_s())
    })?;
    let mut headers = HeaderMap::new();
    let route = route.and_then(|text| HeaderValue::from_str(&text).ok());
    headers.extend(route.map(|route| (forward::ROUTE, route)));
    if let Some(bill) = bill {
        bill.headers(&mut headers);
        let receipt = bill.finish_input(done.tokens, done.compute_us);
        bill.settled(&mut headers, &receipt);
        bill::durable(receipt).await;
    }
    let made = Made { model: model.id.clone(), prompt: Some(done.tokens) };
    Ok((done, Head { headers, made }))
}

/// What goes along with an answer.
pub(super) struct Head {
    headers: HeaderMap,
    made: Made,
}

impl Head {
    /// An answer of this body.
    pub(super) fn of(self, body: Vec<u8>) -> Response {
        let mut response = generate::with(self.headers, generate::json(body));
        response.extensions_mut().insert(self.made);
        response
    }
}

/// What stands in front of each text.
pub(super) fn prefix<'m>(model: &'m PoolModel, how: &Instruction) -> Result<&'m str, Failure> {
    let prompts = &model.reads.prompts;
    let find = |name: &str| prompts.iter().find(|(known, _)| known == name).map(|(_, text)| text);
    let found = match how {
        Instruction::Default => model.reads.default_prompt.as_deref().and_then(find),
        Instruction::Query => find("query"),
        Instruction::Document => ["document", "passage", "corpus"].into_iter().find_map(find),
        Instruction::Named(name) => match find(name) {
            Some(text) => Some(text),
            None => return Err(no_prompt(name, prompts)),
        },
    };
    Ok(found.map_or("", String::as_str))
}

fn no_prompt(name: &str, prompts: &[(String, String)]) -> Failure {
    let short: String = name.chars().take(64).collect();
    let known: Vec<String> = prompts.iter().map(|(name, _)| format!("'{name}'")).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let message = format!(
        "Invalid value for 'prompt_name': this model has no prompt '{short}'. Its prompts: {known}."
    );
    invalid("prompt_name", "invalid_value", message)
}

/// One text or its tokens. `field` says where it stands in the request.
pub(super) fn input(
    model: &PoolModel,
    prompt: Prompt,
    prefix: &str,
    truncate: Truncate,
    field: &dyn Fn() -> String,
) -> Result<Input, Failure> {
    let limit = limit(model, truncate);
    match prompt {
        Prompt::Tokens(mut ids) => {
            check_ids(&model.text, &ids, "input").map_err(|failure| failure.under(field()))?;
            if truncate != Truncate::Never {
                ids.truncate(limit);
            }
            check_context(model, ids.len(), field)?;
            Ok(Input { ids, ..Input::default() })
        }
        Prompt::Text(text) => {
            let whole = format!("{prefix}{text}");
            let whole = lower(model, &whole);
            let (ids, types) = match truncate {
                Truncate::Never => {
                    check_length(&model.text, &whole, limit, "input")
                        .map_err(|failure| failure.under(field()))?;
                    model.text.encode_typed(&whole)
                }
                _ => model.text.encode_truncated(head(&whole, limit), limit),
            }
            .map_err(|error| unreadable(&error, field))?;
            check_context(model, ids.len(), field)?;
            let skip = if model.reads.include_prompt { 0 } else { length(model, prefix)? };
            Ok(Input { ids, types, skip })
        }
    }
}

/// What of a pair may be left out.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Tokens of the second text; `None`: all.
    pub(super) second: Option<usize>,
    /// Of both together.
    pub(super) pair: Truncate,
}

impl Cut {
    /// The second text may have more tokens than this.
    fn leaves_more_than(self, tokens: usize) -> bool {
        self.second.is_none_or(|most| most > tokens)
    }
}

/// Two texts as one input.
pub(super) fn pair(
    model: &PoolModel,
    a: &str,
    b: &str,
    cut: Cut,
    field: &dyn Fn() -> String,
) -> Result<Input, Failure> {
    let limit = limit(model, cut.pair);
    let text = &model.text;
    let b = head(b, cut.second.unwrap_or(usize::MAX));
    if let Some([before, between, behind]) = &model.reads.pair {
        return written(model, [before, a, between, b, behind], cut, field);
    }
    let encoded = match cut.pair {
        Truncate::Never => {
            for part in [a, b].into_iter().take(1 + usize::from(cut.leaves_more_than(limit))) {
                check_length(text, part, limit, "input").map_err(|f| f.under(field()))?;
            }
            text.encode_pair_truncated(&lower(model, a), &lower(model, b), cut.second, None)
        }
        _ => {
            let [a, b] = [a, b].map(|part| lower(model, head(part, limit)));
            text.encode_pair_truncated(&a, &b, cut.second, Some(limit))
        }
    };
    let (ids, types) = encoded.map_err(|error| unreadable(&error, field))?;
    check_context(model, ids.len(), field)?;
    Ok(Input { ids, types, skip: 0 })
}

/// A pair that becomes one text. The document is what is cut: the words around it and the query
/// are what makes it a question.
fn written(
    model: &PoolModel,
    [before, a, between, b, behind]: [&str; 5],
    cut: Cut,
    field: &dyn Fn() -> String,
) -> Result<Input, Failure> {
    let limit = limit(model, cut.pair);
    let whole = cut.pair == Truncate::Never;
    let opening = format!("{before}{a}{between}");
    check_length(&model.text, &opening, limit, "input").map_err(|f| f.under(field()))?;
    let document = if whole { b } else { head(b, limit) };
    if whole && cut.leaves_more_than(limit) {
        check_length(&model.text, document, limit, "input").map_err(|f| f.under(field()))?;
    }
    let mut ids = encode(&model.text, &format!("{opening}{document}"), false)?;
    let begun = encode(&model.text, &opening, false)?.len();
    let end = encode(&model.text, behind, false)?;
    let around = begun + end.len();
    if !whole && around >= limit {
        let field = field();
        let message = format!(
            "Invalid value for '{field}': the query and the words around it take {around} tokens, \
             of {limit}; nothing is left of the document."
        );
        return Err(invalid(&field, "context_length_exceeded", message));
    }
    let room = if whole { usize::MAX } else { limit - around };
    ids.truncate(begun.saturating_add(room.min(cut.second.unwrap_or(usize::MAX))));
    ids.extend(end);
    check_context(model, ids.len(), field)?;
    Ok(Input { ids, ..Input::default() })
}

/// Tokens that an input may have.
fn limit(model: &PoolModel, truncate: Truncate) -> usize {
    match truncate {
        Truncate::To(tokens) => tokens.min(model.context),
        Truncate::Never | Truncate::ToModel => model.context,
    }
}

fn lower<'t>(model: &PoolModel, text: &'t str) -> std::borrow::Cow<'t, str> {
    if model.reads.lower_case { text.to_lowercase().into() } else { text.into() }
}

fn head(text: &str, tokens: usize) -> &str {
    let most = tokens.saturating_mul(BYTES_PER_TOKEN_MAX);
    &text[..text.floor_char_boundary(most.min(text.len()))]
}

/// Tokens in front of a text that are the prompt's: those of the prompt alone, without what
/// closes a text.
fn length(model: &PoolModel, prefix: &str) -> Result<usize, Failure> {
    if prefix.is_empty() {
        return Ok(0);
    }
    let text: &TextModel = &model.text;
    let encoded = text.encode_typed(&lower(model, prefix));
    let (ids, _) = encoded.map_err(|error| unreadable(&error, &|| "prompt_name".to_owned()))?;
    let closed = ids.last().is_some_and(|&id| text.is_special(id));
    Ok(ids.len() - usize::from(closed))
}

fn check_context(
    model: &PoolModel,
    tokens: usize,
    field: &dyn Fn() -> String,
) -> Result<(), Failure> {
    if tokens == 0 {
        let field = field();
        let message = format!("Invalid value for '{field}': the text has no token.");
        return Err(invalid(&field, "invalid_value", message));
    }
    if tokens <= model.context {
        return Ok(());
    }
    let (field, limit) = (field(), model.context);
    let message = format!(
        "This model reads {limit} tokens at most, but '{field}' has {tokens}. Shorten it, or send \
         'truncate_prompt_tokens': -1 to leave its end out."
    );
    Err(invalid(&field, "context_length_exceeded", message))
}

fn unreadable(error: &TextError, field: &dyn Fn() -> String) -> Failure {
    let field = field();
    let message = format!("Invalid value for '{field}': {error}.");
    invalid(&field, "invalid_value", message)
}

fn invalid(field: &str, code: &'static str, message: String) -> Failure {
    ApiError::new(ErrorKind::Invalid, code, message).with_param(field).into()
}

impl Failure {
    /// The same about another field.
    fn under(mut self, field: String) -> Self {
        self.error.param = Some(field);
        self
    }
}
