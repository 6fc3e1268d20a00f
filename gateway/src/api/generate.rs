//! `POST /v1/chat/completions` and `POST /v1/completions`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::try_join_all;
use govern::Ask;
use wire::openai::answer::{self, Head};
use wire::openai::stream::Kind;
use wire::{Choice, Finish, Usage};

use super::bill::{self, Bill};
use super::envelope::Caller;
use super::error::Failure;
use super::prepare::{self, Job, Prepared};
use super::run::Run;
use super::voice::Voice;
use super::{App, ids, sse};
use crate::backend::Model;

/// `POST /v1/chat/completions`
pub(super) async fn chat(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    generate(app, request, prepare::chat).await
}

/// `POST /v1/completions`
pub(super) async fn completion(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    generate(app, request, prepare::completion).await
}

/// Tokens that a grammar forces at once at most: a kilobyte of text, two letters a token.
const BURST: u32 = 512;

type Prepare = fn(&App, &[u8], &Caller) -> Result<Prepared, Failure>;

async fn generate(app: Arc<App>, request: Request, prepare: Prepare) -> Result<Response, Failure> {
    let (caller, prepared) = prepare::read(&app, request, prepare).await?;
    let Prepared { kind, model, decoding, mut jobs, held, manner, tools } = prepared;
    let grammar = match held {
        Some(held) => Some(prepare::grammar(&app, &model, held).await?),
        None => None,
    };
    let burst = if grammar.is_some() { BURST } else { 0 };
    let bills = admit(&app, &caller, (kind, &model, burst), &decoding, (&mut jobs, tools))?;
    let head = head(kind, &model.id);
    let decoding = Arc::new(decoding);
    let mut headers = HeaderMap::new();
    bills.iter().flatten().for_each(|bill| bill.headers(&mut headers));
    let mut runs = Vec::with_capacity(jobs.len());
    let firsts = (0..).step_by(choices(&decoding));
    for ((job, bill), first) in jobs.into_iter().zip(bills).zip(firsts) {
        // If one is not taken in, the ones before it are dropped and so cancelled.
        let held = (grammar.clone(), manner.as_ref());
        runs.push(Run::start(&model, &decoding, job, held, first, (bill, caller.arrived))?);
    }
    let response = match decoding.stream {
        Some(options) => sse::answer(kind, &head, options, runs, app.limits.ping_every),
        None => whole(kind, &head, runs).await?,
    };
    Ok(with(headers, response))
}

/// The same answer with more headers.
pub(super) fn with(headers: HeaderMap, mut response: Response) -> Response {
    response.headers_mut().extend(headers);
    response
}

/// Has all prompts judged and paid for before the first one begins. What policy allows of new
/// tokens is what the engine is asked for.
fn admit(
    app: &App,
    caller: &Caller,
    (kind, model, burst): (Kind, &Model, u32),
    decoding: &wire::Decoding,
    (jobs, tools): (&mut [Job], Vec<String>),
) -> Result<Vec<Option<Bill>>, Failure> {
    let surface = match kind {
        Kind::Chat => "chat",
        Kind::Completion => "completion",
    };
    let mut bills = Vec::with_capacity(jobs.len());
    for job in jobs {
        let bill = bill::admit(app, caller, || Ask {
            model: model.id.clone(),
            surface,
            input_tokens: u64::try_from(job.request.prompt.len()).unwrap_or(u64::MAX),
            choices: decoding.choices,
            max_output: decoding.max_tokens.map(|most| most.max(1)),
            room: job.request.max_tokens,
            burst,
            tools: tools.clone(),
            ..Ask::default()
        })?;
        if let Some(bill) = &bill {
            job.request.max_tokens = job.request.max_tokens.min(bill.max_output());
        }
        bills.push(bill);
    }
    Ok(bills)
}

fn choices(decoding: &wire::Decoding) -> usize {
    usize::try_from(decoding.choices).unwrap_or(usize::MAX)
}

fn head(kind: Kind, model: &str) -> Head {
    let id = ids::named(match kind {
        Kind::Chat => "chatcmpl-",
        Kind::Completion => "cmpl-",
    });
    now(id, model)
}

/// The head of an answer that is made now.
pub(super) fn now(id: String, model: &str) -> Head {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    Head { id, created, model: model.to_owned() }
}

/// Waits for all of it. A client that leaves drops this future with its runs.
async fn whole(kind: Kind, head: &Head, runs: Vec<Run>) -> Result<Response, Failure> {
    let ended = runs.into_iter().map(|mut run| async move {
        while !run.ended {
            run.step().await?;
        }
        Ok::<_, Failure>(run)
    });
    let runs = try_join_all(ended).await?;
    let cost = bill::cost(runs.iter());
    let notice = runs.iter().find_map(|run| run.notice).map(str::to_owned);
    let mut usage = Usage::default();
    let mut choices = Vec::new();
    for run in runs {
        usage.add(run.usage());
        let prompt_logprobs = run.prompt_logprobs();
        for mut choice in run.choices {
            let wanted = choice.token_ids.is_some();
            let said = choice.voice.as_mut().map(Voice::said).unwrap_or_default();
            choices.push(Choice {
                index: choice.index,
                text: if choice.voice.is_some() { said.content } else { choice.text },
                reasoning: Some(said.thoughts).filter(|thoughts| !thoughts.is_empty()),
                tool_calls: said.calls,
                finish: choice.finish.unwrap_or(Finish::Length),
                logprobs: choice.logprobs,
                token_ids: choice.token_ids,
                prompt_token_ids: run.prompt.clone().filter(|_| wanted),
                prompt_logprobs: prompt_logprobs.clone(),
            });
        }
    }
    let mut response = json(match kind {
        Kind::Chat => answer::chat(head, &choices, &usage),
        Kind::Completion => answer::completion(head, &choices, &usage),
    });
    if let Some(cost) = cost {
        bill::cost_header(response.headers_mut(), cost);
    }
    if let Some(notice) = notice {
        bill::notice_header(response.headers_mut(), &notice);
    }
    Ok(response)
}

/// Bytes that are JSON.
pub(super) fn json(body: impl Into<Bytes>) -> Response {
    let mut response = body.into().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
