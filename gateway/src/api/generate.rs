//! Requests that have text generated, by whichever of the routes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::try_join_all;
use govern::Ask;
use govern::ledger::ServiceTier;
use tokio::time::timeout;
use wire::{Choice, Finish, Head, StreamOptions, Thought, Usage};

use super::bill::{self, Bill};
use super::body::Body;
use super::cache::Made;
use super::envelope::Caller;
use super::error::Failure;
use super::forward::Inbound;
use super::prepare::{self, Answers, Begun, Job, Prepared};
use super::run::Run;
use super::surface::{Page, Surface};
use super::turn::{Before, Bills};
use super::voice::Voice;
use super::{App, background, body, cache, forward, kept, pooled, relay, sse};
use crate::backend::{Hedge, Model};
use crate::metrics::Retry;
use crate::route::Pool;

/// Tokens that a grammar forces at once at most: a kilobyte of text, two letters a token.
const BURST: u32 = 512;

/// Answers a request, here or through somebody else.
pub(super) async fn generate(
    app: Arc<App>,
    request: Request,
    surface: Surface,
) -> Result<Response, Failure> {
    let mut caller = prepare::caller(&request)?;
    let (head, body) = body::read_with_head(request, &app).await?;
    let body = Arc::new(body);
    // What not every request needs is boxed, here and below: each future is as large as the
    // largest that it may wait for, and is moved whole.
    if surface == Surface::Responses {
        Box::pin(kept::note(&app, &mut caller, &body)).await;
    }
    let question = Question { surface, headers: head.headers, body };
    if caller.background {
        return Box::pin(background::serve(&app, caller, question)).await;
    }
    match &app.cache {
        Some(cache) => Box::pin(cache::serve(&app, cache, caller, question)).await,
        None => answer(Arc::clone(&app), caller, question).await,
    }
}

/// What was asked.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) surface: Surface,
    pub(super) headers: HeaderMap,
    pub(super) body: Arc<Body>,
}

/// Has a request answered, here or by somebody else.
pub(super) async fn answer(
    app: Arc<App>,
    caller: Caller,
    question: Question,
) -> Result<Response, Failure> {
    let Question { surface, headers, body } = question;
    if app.routes.is_empty() {
        return Box::pin(local(&app, &caller, (&surface, &body), None)).await;
    }
    let inbound = Inbound::new(surface, &headers, Arc::clone(&body))?;
    match app.pool(&inbound.glance.model) {
        Some(pool) => forward::serve(&app, &caller, &inbound, &pool).await,
        None => Box::pin(local(&app, &caller, (&inbound.surface, &body), None)).await,
    }
}

/// The model that a pool has chosen.
pub(super) struct Chosen<'a> {
    /// Its name here.
    pub(super) model: &'a str,
    /// Somebody else can answer if it fails: nothing is said before its first token is there, or a
    /// ping is due.
    pub(super) replaceable: bool,
    /// Somebody else is waited for: it is the quicker one by its first token alone.
    pub(super) beside: bool,
    /// What was paid for before: see [`Before::Turn`].
    pub(super) before: (&'a Bills, Option<Bill>),
    /// Its own bills, once it has some.
    pub(super) paid: &'a Mutex<Vec<Bill>>,
    /// Where nobody else is asked beside it, but another of its nodes may be: after how long, and
    /// whose tries that takes.
    pub(super) hedge: Option<(Duration, &'a Arc<Pool>)>,
}

impl Chosen<'_> {
    /// What was paid for before a request that names its model itself, or this one.
    pub(super) fn before<'a>(chosen: Option<&Chosen<'a>>) -> Before<'a> {
        chosen.map_or(Before::Nothing, |chosen| {
            Before::Turn(chosen.before.0, chosen.before.1.clone())
        })
    }

    fn hedge(&self) -> Option<Hedge> {
        let (after, pool) = self.hedge?;
        let pool = Arc::clone(pool);
        Some(Hedge { after, may: Box::new(move || pool.retry(Retry::Hedge)) })
    }

    /// It is paid for: the first of its prompts by what was paid for before, and all others.
    pub(super) fn is_paid<'b>(&self, bills: impl IntoIterator<Item = &'b Option<Bill>>) {
        let all: Vec<Bill> = bills.into_iter().flatten().cloned().collect();
        all.iter().skip(1).for_each(|bill| self.before.0.note(Some(bill)));
        *self.paid.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

/// Answers a request with a model of this process: the one that it names, or the chosen one.
pub(super) async fn local(
    app: &Arc<App>,
    caller: &Caller,
    (surface, body): (&Surface, &Arc<Body>),
    chosen: Option<Chosen<'_>>,
) -> Result<Response, Failure> {
    let name = chosen.as_ref().map(|chosen| chosen.model);
    let replaceable = chosen.as_ref().is_some_and(|chosen| chosen.replaceable);
    if let Surface::Pooled(pooled) = surface {
        return pooled::local(app, caller, (*pooled, body), chosen.as_ref()).await;
    }
    let answers = Answers { name, begun: None, replaceable };
    let prepared = prepare::generation(app, caller, (surface, body), answers).await?;
    let Prepared { page, asked, model, decoding, mut jobs, held, manner, tools, dropped } =
        prepared;
    let grammar = match held {
        Some(held) => Some(prepare::grammar(app, &model, held).await?),
        None => None,
    };
    let burst = if grammar.is_some() { BURST } else { 0 };
    let about = (&page, &*asked, &*model, burst);
    let before = Chosen::before(chosen.as_ref());
    let bills = admit(app, caller, about, &decoding, (&mut jobs, tools), before).await?;
    chosen.iter().for_each(|chosen| chosen.is_paid(&bills));
    let service_tier = decoding.flex.then_some(ServiceTier::Flex.name());
    let head = Head { service_tier, ..page.head(&model.id) };
    let prompts = jobs.iter().map(|job| job.request.prompt.len()).max().unwrap_or(0);
    let made = Made { model: model.id.clone(), prompt: u64::try_from(prompts).ok() };
    let decoding = Arc::new(decoding);
    let mut headers = HeaderMap::new();
    headers.extend(dropped.map(|fields| (relay::DROPPED, fields)));
    bills.iter().flatten().for_each(|bill| bill.headers(&mut headers));
    let bill = bills.iter().flatten().next().cloned();
    // Attempts of a turn are settled by it.
    let alone = if chosen.is_none() { bills.clone() } else { Vec::new() };
    if !replaceable {
        model.engine.back().await;
    }
    let mut runs = Vec::with_capacity(jobs.len());
    let firsts = (0..).step_by(choices(&decoding));
    for ((job, bill), first) in jobs.into_iter().zip(bills).zip(firsts) {
        // If one is not taken in, the ones before it are dropped and so cancelled.
        let held = (grammar.clone(), manner.as_ref());
        let paid = (bill, caller.arrived, chosen.as_ref().and_then(Chosen::hedge));
        runs.push(Run::start(&model, &decoding, job, held, first, paid)?);
    }
    let route = runs.first().and_then(Run::route).and_then(|text| HeaderValue::from_str(text).ok());
    headers.extend(route.map(|route| (forward::ROUTE, route)));
    match (runs.first_mut(), &chosen) {
        (Some(run), Some(chosen)) if chosen.beside => run.step().await?,
        (Some(run), _) if replaceable => first(app, run).await?,
        _ => {}
    }
    let response = match decoding.stream {
        Some(options) => sse::answer(&page, &head, options, runs, app.limits.ping_every),
        None => whole(&page, &head, runs).await.inspect_err(|failure| {
            if failure.is_of_engine() {
                alone.iter().flatten().for_each(Bill::failed);
            }
        })?,
    };
    let mut response = with(headers, response);
    if let Some(bill) = bill.filter(|_| decoding.stream.is_none()) {
        bill.remaining(response.headers_mut());
    }
    response.extensions_mut().insert(made);
    Ok(response)
}

/// An answer that somebody else has begun, and that a model of this process makes the rest of.
pub(super) struct Rest {
    pub(super) run: Run,
    /// How an answer of its own would be written.
    pub(super) page: Page,
    pub(super) options: StreamOptions,
}

/// Has a model of this process make the rest of an answer; ready when its first token is there, or
/// a ping is due. `bill` is of the attempt that began it.
pub(super) async fn rest(
    app: &Arc<App>,
    caller: &Caller,
    what: (&Surface, &Arc<Body>),
    (model, begun): (&str, &Begun),
    bill: Option<Bill>,
) -> Result<Rest, Failure> {
    let answers = Answers { name: Some(model), begun: Some(begun), replaceable: false };
    let prepared = prepare::generation(app, caller, what, answers).await?;
    let Prepared { page, asked, model, decoding, mut jobs, held, manner, tools, .. } = prepared;
    let grammar = match held {
        Some(held) => Some(prepare::grammar(app, &model, held).await?),
        None => None,
    };
    let burst = if grammar.is_some() { BURST } else { 0 };
    let about = (&page, &*asked, &*model, burst);
    let before = bill.map_or(Before::Nothing, Before::Attempt);
    let mut bills = admit(app, caller, about, &decoding, (&mut jobs, tools), before).await?;
    let job = jobs.pop().expect("a chat is one prompt");
    let paid = (bills.pop().flatten(), Instant::now(), None);
    let options = decoding.stream.unwrap_or_default();
    model.engine.back().await;
    let mut run =
        Run::start(&model, &Arc::new(decoding), job, (grammar, manner.as_ref()), 0, paid)?;
    first(app, &mut run).await?;
    Ok(Rest { run, page, options })
}

/// Waits for the first of an answer, but not for longer than a reader may be left without a sign of
/// life.
async fn first(app: &App, run: &mut Run) -> Result<(), Failure> {
    timeout(app.limits.ping_every, run.step()).await.unwrap_or(Ok(()))
}

/// What an answer says of the node of the cluster that makes it, as its head says the route.
pub(super) fn node_of(response: &Response) -> String {
    let route = response.headers().get(forward::ROUTE).and_then(|value| value.to_str().ok());
    let node = route.and_then(|route| route.split_once("; "));
    node.map(|(_, node)| format!("; {node}")).unwrap_or_default()
}

/// The same answer with more headers.
pub(super) fn with(headers: HeaderMap, mut response: Response) -> Response {
    response.headers_mut().extend(headers);
    response
}

/// Has all prompts judged and paid for before the first one begins. What policy allows of new
/// tokens is what the engine is asked for. The first one may be another
/// attempt behind `before`.
async fn admit(
    app: &App,
    caller: &Caller,
    (page, asked, model, burst): (&Page, &str, &Model, u32),
    decoding: &wire::Decoding,
    (jobs, tools): (&mut [Job], Vec<String>),
    mut before: Before<'_>,
) -> Result<Vec<Option<Bill>>, Failure> {
    let mut bills = Vec::with_capacity(jobs.len());
    for job in jobs {
        let before = std::mem::replace(&mut before, Before::Nothing);
        let ask = || Ask {
            model: asked.to_owned(),
            answers: Some(&model.id).filter(|id| *id != asked).cloned(),
            surface: page.surface.name(),
            input_tokens: u64::try_from(job.request.prompt.len()).unwrap_or(u64::MAX),
            choices: decoding.choices,
            max_output: decoding.max_tokens.map(|most| most.max(1)),
            room: job.request.max_tokens,
            burst,
            tools: tools.clone(),
            service_tier: service_tier(decoding.flex),
            ..Ask::default()
        };
        let bill = before.pay(app, caller, ask).await?;
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

/// How a request asks to be served, in the ledger's word.
pub(super) fn service_tier(flex: bool) -> ServiceTier {
    if flex { ServiceTier::Flex } else { ServiceTier::Default }
}

/// The head of an answer that is made now.
pub(super) fn now(id: String, model: &str) -> Head {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    Head { id, created, model: model.to_owned(), service_tier: None }
}

/// Waits for all of it. A client that leaves drops this future with its runs.
async fn whole(page: &Page, head: &Head, runs: Vec<Run>) -> Result<Response, Failure> {
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
            let stop = choice.stop().map(str::to_owned);
            let text = if choice.voice.is_some() { said.content } else { choice.text };
            let thoughts = Some(said.thoughts).filter(|words| !words.is_empty());
            choices.push(Choice {
                thoughts: thoughts.map(Thought::of).into_iter().collect(),
                tool_calls: said.calls,
                logprobs: choice.logprobs,
                token_ids: choice.token_ids,
                prompt_token_ids: run.prompt.clone().filter(|_| wanted),
                prompt_logprobs: prompt_logprobs.clone(),
                stop,
                ..Choice::text(choice.index, text, choice.finish.unwrap_or(Finish::Length))
            });
        }
    }
    let (bytes, made) = page.whole(head, &choices, &usage);
    let kept = page.keep(made).await;
    let notice = notice.or_else(|| (!kept).then(|| kept::MISSED.to_owned()));
    let mut response = json(bytes);
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
