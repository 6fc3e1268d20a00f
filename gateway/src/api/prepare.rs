//! Everything that happens to a request before the engine sees it: find the model, render,
//! tokenize, check against the model. Small requests do it on the spot, large ones on threads
//! that may block.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use text::grammar::Grammar;
use text::{Detokenizer, TextModel};
use wire::openai::stream::Kind;
use wire::{CompletionRequest, Decoding, ErrorKind, Prompt, ToolChoice};

use super::envelope::Caller;
use super::error::Failure;
use super::shape::{self, Held, Shape};
use super::voice::Manner;
use super::{App, body, plan, prompt};
use crate::backend::Model;

/// A detokenizer looks back to know whether a text has begun and in which character it stands;
/// beyond this it would only cost time.
const LOOK_BACK: usize = 1024;

/// One prompt on its way to the engine.
pub(super) struct Job {
    pub(super) request: scheduler::types::Request,
    /// Stands at the end of the prompt; each choice takes a copy.
    pub(super) detokenizer: Detokenizer,
    /// The prompt as text, where the answer repeats it.
    pub(super) echo: Option<String>,
}

/// A request, ready to be submitted.
pub(super) struct Prepared {
    pub(super) kind: Kind,
    pub(super) model: Arc<Model>,
    pub(super) decoding: Decoding,
    pub(super) jobs: Vec<Job>,
    /// What its answers are held to.
    pub(super) held: Option<Held>,
    /// How they are read; `None`: they are text and nothing else.
    pub(super) manner: Option<Arc<Manner>>,
    /// Names of the tools that the model is offered.
    pub(super) tools: Vec<String>,
}

/// Runs `work` here, or on a blocking thread where the body is large.
pub(super) async fn run<T: Send + 'static>(
    app: &Arc<App>,
    body_bytes: usize,
    work: impl FnOnce(&App) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    if body_bytes <= app.limits.inline_bytes_max {
        return work(app);
    }
    let broken = || Failure::new(ErrorKind::Internal, "internal_error", "The server failed.");
    let permit = Arc::clone(&app.heavy).acquire_owned().await.map_err(|_| broken())?;
    let app = Arc::clone(app);
    let task = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work(&app)
    });
    task.await.map_err(|error| {
        tracing::error!(%error, "preparing a request failed");
        broken()
    })?
}

/// The grammar that a request's answers are held to. A new one is compiled off the runtime's
/// threads: it takes milliseconds.
pub(super) async fn grammar(
    app: &Arc<App>,
    model: &Arc<Model>,
    held: Held,
) -> Result<Arc<Grammar>, Failure> {
    let Held { plan, field } = held;
    let grammars = model.answering.grammars().map_err(|e| shape::of_grammar(&field, &e))?;
    if let Some(grammar) = grammars.kept(&plan) {
        model.engine.metrics().grammar_kept();
        return Ok(grammar);
    }
    let model = Arc::clone(model);
    run(app, usize::MAX, move |_| {
        let start = Instant::now();
        let compiled = model.answering.grammars().and_then(|grammars| grammars.compile(&plan));
        model.engine.metrics().grammar_compiled(start.elapsed(), compiled.is_err());
        compiled.map_err(|error| shape::of_grammar(&field, &error))
    })
    .await
}

/// Who asks, and what `work` makes of the body.
pub(super) async fn read<T: Send + 'static>(
    app: &Arc<App>,
    request: Request,
    work: impl FnOnce(&App, &[u8], &Caller) -> Result<T, Failure> + Send + 'static,
) -> Result<(Caller, T), Failure> {
    let caller = caller(&request)?;
    let body = body::read(request, app).await?;
    let who = caller.clone();
    let made = run(app, body.len(), move |app| work(app, &body, &who)).await?;
    Ok((caller, made))
}

/// Who asks.
fn caller(request: &Request) -> Result<Caller, Failure> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| {
        Failure::new(ErrorKind::Internal, "internal_error", "The envelope is missing.")
    })
}

/// The model of this name.
pub(super) fn model(app: &App, id: &str) -> Result<Arc<Model>, Failure> {
    if let Some(model) = app.models.get(id) {
        return Ok(model);
    }
    // While models load, a name that is not there yet is no mistake of the caller.
    if let Err(why) = app.models.ready() {
        return Err(Failure::new(ErrorKind::Unavailable, "unavailable", format!("{why}.")));
    }
    let short: String = id.chars().take(128).collect();
    if let Some(other) = app.models.pool(id) {
        return Err(wrong_task(&other.id, other.task.serves()));
    }
    let (models, pools) = (app.models.list(), app.models.pools());
    let names = models.iter().map(|m| &m.id).chain(pools.iter().map(|m| &m.id));
    let names: Vec<String> = names.map(|name| format!("'{name}'")).collect();
    let message = format!(
        "The model '{short}' does not exist here. Available: {}.",
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    );
    let error = wire::ApiError::new(ErrorKind::NotFound, "model_not_found", message);
    Err(error.with_param("model").into())
}

/// The model of this name, or the first one.
pub(super) fn model_or_first(app: &App, id: Option<&str>) -> Result<Arc<Model>, Failure> {
    match (id, app.models.first()) {
        (Some(id), _) => model(app, id),
        (None, Some(first)) => Ok(first),
        (None, None) => model(app, ""),
    }
}

/// The model is there and does something else.
pub(super) fn wrong_task(id: &str, serves: &str) -> Failure {
    let message = format!("The model '{id}' does not answer here; it serves {serves}.");
    let error = wire::ApiError::new(ErrorKind::Invalid, "wrong_endpoint", message);
    error.with_param("model").into()
}

/// Tokenizer and context of the model of this name, or of the first one, whatever it does; and
/// whether its prompts say what tools there are.
pub(super) fn text(app: &App, id: Option<&str>) -> Result<(Arc<TextModel>, usize, bool), Failure> {
    let pool = match id {
        Some(id) => app.models.pool(id),
        None if app.models.first().is_none() => app.models.pools().into_iter().next(),
        None => None,
    };
    match pool {
        Some(pool) => Ok((Arc::clone(&pool.text), pool.context, false)),
        None => model_or_first(app, id)
            .map(|m| (Arc::clone(&m.text), m.context, m.answering.tells_tools())),
    }
}

/// A chat.
pub(super) fn chat(app: &App, body: &[u8], caller: &Caller) -> Result<Prepared, Failure> {
    let request = wire::openai::parse_chat(body, &app.limits.request)?;
    let model = model(app, &request.model)?;
    prompt::refuse_images(&request.messages)?;
    let mut template = request.template.clone();
    let shape = Shape::of(&request, &model, &mut template.kwargs)?;
    let shown = if request.tool_choice == ToolChoice::None { &[] } else { &request.tools[..] };
    let tells = model.answering.tells_tools();
    let (messages, most) = (&request.messages, model.context);
    let rendered = prompt::with_tools(&model.text, messages, shown, tells, &template, most)?;
    let thoughts = model.answering.thoughts.as_ref();
    let open = thoughts.is_some_and(|thoughts| thoughts.open_in(&rendered.text));
    let held = shape.held(&model.text, open)?;
    let manner = shape.manner(&model.text, open).map(Arc::new);
    let silent = manner.is_some() || request.decoding.skip_special_tokens;
    let prompt = (rendered.tokens, None);
    let jobs = vec![job(&model, &request.decoding, prompt, silent, caller)?];
    let tools = shown.iter().map(|tool| tool.name.clone()).collect();
    let decoding = request.decoding;
    Ok(Prepared { kind: Kind::Chat, model, decoding, jobs, held, manner, tools })
}

/// Plain prompts.
pub(super) fn completion(app: &App, body: &[u8], caller: &Caller) -> Result<Prepared, Failure> {
    let request = wire::openai::parse_completion(body, &app.limits.request)?;
    let model = model(app, &request.model)?;
    let CompletionRequest { prompts, echo, add_special_tokens, decoding, .. } = request;
    let mut jobs = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let said = match &prompt {
            Prompt::Text(text) if echo => Some(text.clone()),
            Prompt::Tokens(ids) if echo => {
                Some(model.text.decode(ids, decoding.skip_special_tokens))
            }
            _ => None,
        };
        let tokens = prompt::of_prompt(&model.text, prompt, add_special_tokens, model.context)?;
        let skip = decoding.skip_special_tokens;
        jobs.push(job(&model, &decoding, (tokens, said), skip, caller).map_err(
            |mut failure| {
                // A bound on the context names chat's field; here it is another one.
                failure.error.param = failure.error.param.map(|param| match param.as_str() {
                    "messages" => "prompt".to_owned(),
                    _ => param,
                });
                failure
            },
        )?);
    }
    let asked = decoding.structured.as_ref();
    let held = asked.map(|asked| shape::of_completion(&model.text, asked)).transpose()?;
    let (kind, manner, tools) = (Kind::Completion, None, Vec::new());
    Ok(Prepared { kind, model, decoding, jobs, held, manner, tools })
}

fn job(
    model: &Arc<Model>,
    decoding: &Decoding,
    (tokens, echo): (Vec<u32>, Option<String>),
    skip_special: bool,
    caller: &Caller,
) -> Result<Job, Failure> {
    // An echo with log-probabilities scores the prompt too.
    let scored = decoding.logprobs.filter(|_| echo.is_some());
    let prompt_logprobs = decoding.prompt_logprobs.max(scored);
    let tail = &tokens[tokens.len().saturating_sub(LOOK_BACK)..];
    let detokenizer = model.text.detokenizer(tail, skip_special);
    let request = plan::request(model, decoding, tokens, prompt_logprobs, caller)?;
    Ok(Job { request, detokenizer, echo })
}
