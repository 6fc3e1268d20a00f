//! Everything that happens to a request before the engine sees it: find the model, render,
//! tokenize, check against the model. Small requests do it on the spot, large ones on threads
//! that may block.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::http::HeaderValue;
use text::grammar::Grammar;
use text::{Detokenizer, StopStrings, TextModel};
use wire::{
    ApiError, ChatRequest, CompletionRequest, Content, Decoding, Effort, ErrorKind, Message,
    Prompt, Reasoning, Role, ToolChoice,
};

use super::body::Body;
use super::envelope::Caller;
use super::error::Failure;
use super::shape::{self, Held, Shape};
use super::surface::{Page, Parsed, Surface};
use super::voice::Manner;
use super::{App, body, cut, kept, plan, prompt, relay, unknown};
use crate::backend::Model;

/// A detokenizer looks back to know whether a text has begun and in which character it stands;
/// beyond this it would only cost time.
const LOOK_BACK: usize = 1024;

/// One prompt on its way to the engine.
pub(super) struct Job {
    pub(super) request: scheduler::types::Request,
    /// Stands at the end of the prompt; each choice takes a copy.
    pub(super) detokenizer: Detokenizer,
    /// What ends a text; each choice takes a copy of it too.
    pub(super) stops: StopStrings,
    /// The prompt as text, where the answer repeats it.
    pub(super) echo: Option<String>,
}

/// What of an answer is there already, made by somebody else.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    pub(super) text: String,
    /// Tokens, thoughts among them.
    pub(super) tokens: u64,
    /// In a chat, which the request may not be.
    pub(super) in_chat: bool,
}

/// Who answers, and what they begin with.
#[derive(Clone, Copy, Default)]
pub(super) struct Answers<'a> {
    /// The model, where that is not the one that is asked for.
    pub(super) name: Option<&'a str>,
    pub(super) begun: Option<&'a Begun>,
    /// Somebody else can be asked what is too long for this one.
    pub(super) replaceable: bool,
}

/// A request, ready to be submitted.
pub(super) struct Prepared {
    pub(super) page: Page,
    /// The name that the caller asked for.
    pub(super) asked: String,
    pub(super) model: Arc<Model>,
    pub(super) decoding: Decoding,
    pub(super) jobs: Vec<Job>,
    /// What its answers are held to.
    pub(super) held: Option<Held>,
    /// How they are read; `None`: they are text and nothing else.
    pub(super) manner: Option<Arc<Manner>>,
    /// Names of the tools that the model is offered.
    pub(super) tools: Vec<String>,
    /// Fields that the answer is made without.
    pub(super) dropped: Option<HeaderValue>,
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

/// Parses and tokenizes a request that generates.
pub(super) async fn generation(
    app: &Arc<App>,
    caller: &Caller,
    (surface, body): (&Surface, &Arc<Body>),
    answers: Answers<'_>,
) -> Result<Prepared, Failure> {
    let begun = answers.begun.map_or(0, |begun| begun.text.len());
    // A token has a byte at least.
    let past = usize::try_from(caller.past_estimate()).unwrap_or(usize::MAX);
    if (body.len() + begun).saturating_add(past) <= app.limits.inline_bytes_max {
        return prepared(app, caller, (surface, body), answers);
    }
    let (caller, surface, body) = (caller.clone(), surface.clone(), Arc::clone(body));
    let Answers { name, begun, replaceable } = answers;
    let (name, begun) = (name.map(str::to_owned), begun.cloned());
    run(app, usize::MAX, move |app| {
        let answers = Answers { name: name.as_deref(), begun: begun.as_ref(), replaceable };
        prepared(app, &caller, (&surface, &body), answers)
    })
    .await
}

fn prepared(
    app: &App,
    caller: &Caller,
    (surface, body): (&Surface, &Body),
    answers: Answers<'_>,
) -> Result<Prepared, Failure> {
    let begun = answers.begun;
    let mut prepared = match surface {
        Surface::Completion if !begun.is_some_and(|begun| begun.in_chat) => {
            completion(app, answers, body, caller)
        }
        surface => chat(app, (surface, answers), body, caller),
    }?;
    // What comes before the least number of tokens is not watched.
    if let Some(begun) = begun.filter(|_| prepared.decoding.min_tokens <= 1) {
        for Job { stops, .. } in &mut prepared.jobs {
            *stops = std::mem::take(stops).after(&begun.text);
        }
    }
    Ok(prepared)
}

/// Who asks.
pub(super) fn caller(request: &Request) -> Result<Caller, Failure> {
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
    if let Some(other) = app.models.pool(id) {
        return Err(wrong_task(&other.id, other.task.serves()));
    }
    Err(unknown::model(app, None, id))
}

/// As [`model`]; a caller that names none is told which it may ask.
pub(super) fn model_for(app: &App, caller: &Caller, id: &str) -> Result<Arc<Model>, Failure> {
    model(app, id).map_err(|failure| match failure.error.kind {
        ErrorKind::NotFound => unknown::model(app, Some(caller), id),
        _ => failure,
    })
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
    let error = ApiError::new(ErrorKind::Invalid, "wrong_endpoint", message);
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

/// A chat, by any of the routes.
fn chat(
    app: &App,
    (surface, answers): (&Surface, Answers<'_>),
    body: &[u8],
    caller: &Caller,
) -> Result<Prepared, Failure> {
    let (parsed, mut dropped) = parse(app, surface, body, caller)?;
    let Parsed { chat: mut request, mut page, responses } = parsed;
    let mut truncates = false;
    if let Some(mut own) = responses {
        kept::open(app, caller, &mut own, &mut page)?;
        dropped.append(&mut own.left_out);
        (request, truncates) = (own.chat, own.truncates && !answers.replaceable);
    }
    if let Some(begun) = answers.begun {
        go_on_from(&mut request, begun)?;
    }
    let model = model_for(app, caller, answers.name.unwrap_or(&request.model))?;
    prompt::refuse_images(&request.messages)?;
    let mut template = request.template.clone();
    // Anthropic's clients say in every request how much they would like to have thought.
    let soft = *surface == Surface::Messages;
    let shape = Shape::of(&request, &model, &mut template.kwargs, soft)?;
    let shown = if request.tool_choice == ToolChoice::None { &[] } else { &request.tools[..] };
    let tells = model.answering.tells_tools();
    let render = |messages: &[Message]| {
        let most = model.context;
        let rendered = prompt::with_tools(&model.text, messages, shown, tells, &template, most)?;
        match answers.begun {
            Some(begun) => prompt::ending(&model.text, rendered, &begun.text, &template),
            None => Ok(rendered),
        }
    };
    let rendered = if truncates {
        cut::fitting(&request.messages, plan::prompt_bounds(&model, &request.decoding), render)?
    } else {
        render(&request.messages)?
    };
    let thoughts = model.answering.thoughts.as_ref();
    let open = thoughts.is_some_and(|thoughts| thoughts.open_in(&rendered.text));
    let held = shape.held(&model.text, open)?;
    let manner = shape.manner(&model.text, open).map(Arc::new);
    let silent = manner.is_some() || request.decoding.skip_special_tokens;
    let prompt = (rendered.tokens, None);
    let jobs = vec![job(&model, &request.decoding, prompt, silent, caller)?];
    let tools = shown.iter().map(|tool| tool.name.clone()).collect();
    let (decoding, asked) = (request.decoding, request.model);
    let dropped = relay::dropped_header(dropped.iter().map(String::as_str));
    Ok(Prepared { page, asked, model, decoding, jobs, held, manner, tools, dropped })
}

/// Makes of a chat one that goes on with an answer which somebody else has begun.
fn go_on_from(request: &mut ChatRequest, begun: &Begun) -> Result<(), Failure> {
    let ChatRequest { decoding, template, messages, .. } = request;
    less(decoding, begun)?;
    match messages.last_mut() {
        _ if begun.text.is_empty() => {}
        // The caller itself has begun the answer.
        Some(last) if template.continue_final_message => {
            last.content = Content::Text(prompt::said(&last.content) + &begun.text);
        }
        _ => {
            messages.push(Message::text(Role::Assistant, &begun.text));
            (template.add_generation_prompt, template.continue_final_message) = (false, true);
        }
    }
    Ok(())
}

/// What is left to be made of an answer which somebody else has begun.
fn less(decoding: &mut Decoding, begun: &Begun) -> Result<(), Failure> {
    let scored = decoding.logprobs.is_some() || decoding.prompt_logprobs.is_some();
    if decoding.choices != 1 || scored || decoding.return_token_ids {
        return not_continued(
            "What it shows beside one choice's text cannot be had of its beginning.",
        );
    }
    if decoding.structured.is_some() {
        return not_continued("An answer that is held to a shape is held from its beginning.");
    }
    let tokens = u32::try_from(begun.tokens).unwrap_or(u32::MAX);
    decoding.min_tokens = decoding.min_tokens.saturating_sub(tokens);
    if let Some(most) = &mut decoding.max_tokens {
        *most = most.saturating_sub(tokens);
        if *most == 0 {
            return not_continued("As many tokens as were asked for are made.");
        }
    }
    Ok(())
}

fn not_continued<T>(why: &str) -> Result<T, Failure> {
    Err(Failure::new(ErrorKind::Invalid, "not_continued", why))
}

/// Fields that are kept for providers, and honoured here.
const HONOURED: [&str; 2] = ["text.verbosity", "truncation"];

/// Parses a request, and again as one that is passed on where it is its tools that are refused.
/// Those that a provider runs itself (a search of the web) are offered by agents in every request:
/// a model of this process goes without them. Also their fields.
pub(super) fn without_hosted<T>(
    mut parse: impl FnMut(bool) -> Result<T, ApiError>,
    chat: impl Fn(&mut T) -> &mut ChatRequest,
) -> Result<(T, Vec<String>), ApiError> {
    let error = match parse(false) {
        Ok(parsed) => return Ok((parsed, Vec::new())),
        Err(error) => error,
    };
    // Google's count has the whole request under a name of its own.
    let hosted =
        |field: &str| field.trim_start_matches("generateContentRequest.").starts_with("tools[");
    if error.param.as_deref().is_none_or(|field| !hosted(field)) {
        return Err(error);
    }
    let Ok(mut parsed) = parse(true) else { return Err(error) };
    let extra = std::mem::take(&mut chat(&mut parsed).extra);
    let names: Vec<String> = extra.into_iter().map(|(name, _)| name).collect();
    let (tools, others): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| hosted(name));
    if tools.is_empty() || !others.iter().all(|name| HONOURED.contains(&name.as_str())) {
        return Err(error);
    }
    Ok((parsed, tools))
}

/// Parses a chat, and names the tools that the model goes without.
fn parse(
    app: &App,
    surface: &Surface,
    body: &[u8],
    caller: &Caller,
) -> Result<(Parsed, Vec<String>), Failure> {
    let limits = &app.limits.request;
    let parse = |forward| surface.parse(body, limits, forward, &caller.request_id);
    if *surface == Surface::Completion {
        // Somebody has made a chat of it already.
        let parsed = parse(true)?;
        return match parsed.chat.extra.keys().next() {
            Some(name) => not_continued(&format!("Models here do not know the field '{name}'.")),
            None => Ok((parsed, Vec::new())),
        };
    }
    let (mut parsed, dropped) = without_hosted(parse, |parsed| &mut parsed.chat)?;
    if dropped.is_empty() {
        return Ok((parsed, dropped));
    }
    parsed.here();
    // Read for a provider, a request that says nothing of thoughts leaves it to that; here nobody
    // who has not asked for them waits for any.
    let Reasoning { effort, include, .. } = &mut parsed.chat.reasoning;
    if *surface == Surface::Messages && !*include {
        effort.get_or_insert(Effort::None);
    }
    Ok((parsed, dropped))
}

/// Plain prompts.
fn completion(
    app: &App,
    answers: Answers<'_>,
    body: &[u8],
    caller: &Caller,
) -> Result<Prepared, Failure> {
    let mut request = wire::openai::parse_completion(body, &app.limits.request)?;
    if let Some(begun) = answers.begun {
        less(&mut request.decoding, begun)?;
        match &mut request.prompts[..] {
            [Prompt::Text(text)] if !request.echo => text.push_str(&begun.text),
            _ => return not_continued("Only the answer to one text can be continued."),
        }
    }
    let model = model_for(app, caller, answers.name.unwrap_or(&request.model))?;
    let CompletionRequest { prompts, echo, add_special_tokens, decoding, model: asked } = request;
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
    let shape = decoding.structured.as_ref();
    let held = shape.map(|shape| shape::of_completion(&model.text, shape)).transpose()?;
    let (page, manner, tools, dropped) = (Page::completion(), None, Vec::new(), None);
    Ok(Prepared { page, asked, model, decoding, jobs, held, manner, tools, dropped })
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
    let stops = StopStrings::new(decoding.stop.clone()).include_stop(decoding.include_stop);
    Ok(Job { request, detokenizer, stops, echo })
}
