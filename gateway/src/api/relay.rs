//! A provider's answer on its way to the caller: as it was written where both speak one dialect,
//! translated where they do not; counted, paid for and ended like one of our own.
//!
//! A stream is polled by the caller's connection: whoever reads slowly slows only its own, and
//! whoever leaves drops it, which ends the provider's at once. All that is ready goes out in one
//! write.

mod continued;
mod handed;
mod outgoing;
mod pass;
mod pooling;
mod stream;
mod translation;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderName;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use govern::Money;
use govern::ledger::Outcome;
use http_body_util::BodyExt;
use tokio::time::{Sleep, sleep_until, timeout_at};
use wire::{Broken, Dialect, Usage, converse, gemini, messages, openai, relay, responses};

use super::App;
use super::bill::{self, Bill};
use super::envelope::Caller;
use super::error::Failure;
use super::forward::Inbound;
use super::generate::json;
use super::kept::{self, Own};
use super::surface::{Page, Surface};
use crate::route::Open;
use crate::upstream::{About, AnswerBody, Call, Provider, Trouble};
pub(super) use continued::Rescue;
pub(super) use outgoing::dropped_header;
use outgoing::{Outgoing, outgoing};
use stream::{Plain, Streaming};

/// Fields that the answer was made without.
pub(super) const DROPPED: HeaderName = HeaderName::from_static("x-hearth-dropped");

/// Bytes of a provider's whole answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Bytes of one event of a provider.
const EVENT_BYTES_MAX: usize = 8 << 20;

/// Longest wait for the end of a body that has said all.
const TAIL: Duration = Duration::from_secs(1);

/// Who is asked.
pub(super) struct Asked<'a> {
    pub(super) provider: &'a Arc<Provider>,
    pub(super) model: &'a str,
    pub(super) bill: Option<Bill>,
    /// Who may go on with its stream if that breaks.
    pub(super) rescue: Option<Box<Rescue>>,
    /// Nobody else can be asked instead.
    pub(super) alone: bool,
}

/// Asks a provider.
pub(super) async fn ask(
    app: &Arc<App>,
    caller: &Caller,
    inbound: &Inbound,
    mut asked: Asked<'_>,
    open: Open,
) -> Result<Response, Trouble> {
    if let Surface::Pooled(pooled) = inbound.surface {
        return Box::pin(pooling::ask(app, (pooled, inbound), asked, open)).await;
    }
    let who = (asked.provider, asked.model);
    let outgoing = outgoing(app, caller, inbound, who, asked.bill.as_ref()).await?;
    let Outgoing { dialect, body, page, stream, dropped, options, own } = outgoing;
    let headers = if page.is_none() { &inbound.headers[..] } else { &[] };
    let call = Call { dialect, model: asked.model, stream, body, headers };
    let (rescue, alone) = (asked.rescue.take(), asked.alone);
    let (about, source) = begin(asked, open, call).await?;
    let mut response = if stream {
        let name = &inbound.glance.model;
        let plain = Plain {
            include_usage: inbound.glance.include_usage,
            surface: &inbound.surface,
            choices: choices(inbound),
            alone,
            estimate: inbound.input_estimate(caller),
            ping_every: app.limits.ping_every,
        };
        Streaming::begin(about, source, (page, own, rescue), (name, options, plain)).await?
    } else {
        whole(about, source, (page, own, choices(inbound)), &inbound.glance.model).await?
    };
    if let Some(dropped) = dropped {
        response.headers_mut().insert(DROPPED, dropped);
    }
    Ok(response)
}

/// Choices of the answer. What dialects with one answer say of more is refused or dropped.
fn choices(inbound: &Inbound) -> u32 {
    match inbound.surface {
        Surface::Messages | Surface::Responses => 1,
        _ => inbound.glance.choices,
    }
}

/// A request that cannot be put to this provider.
fn unfit(failure: Failure) -> Trouble {
    Trouble { failure, about: About::Unfit }
}

/// A request that cannot be put to anybody.
fn of_request(failure: Failure) -> Trouble {
    Trouble { failure, about: About::Request }
}

/// Sends a call; ready when the head of a good answer is there.
async fn begin(
    asked: Asked<'_>,
    mut open: Open,
    call: Call<'_>,
) -> Result<(Answering, Source), Trouble> {
    let Asked { provider, bill, .. } = asked;
    let dialect = call.dialect;
    open.sent();
    match provider.ask(call).await {
        Ok(answer) => {
            let source = Source { body: answer.into_body(), idle: provider.idle, waits: None };
            Ok((Answering { provider: Arc::clone(provider), bill, open, dialect }, source))
        }
        Err(trouble) => {
            tell(&mut open, &trouble);
            Err(trouble)
        }
    }
}

/// What a failed attempt says of the target.
fn tell(open: &mut Open, trouble: &Trouble) {
    let now = Instant::now();
    match trouble.about {
        About::Ill => open.failed(now),
        About::Busy(seconds) => open.busy(now, seconds),
        // It was asked, and said that it cannot be.
        About::Request | About::Unfit => open.refused(now),
        About::Ours => open.unwelcome(now),
    }
}

/// An answer under way, and whom it is counted for.
struct Answering {
    provider: Arc<Provider>,
    bill: Option<Bill>,
    open: Open,
    dialect: Dialect,
}

impl Answering {
    fn broken(&mut self, why: &str) -> Trouble {
        let trouble = self.provider.broken(why);
        tell(&mut self.open, &trouble);
        trouble
    }
}

/// A provider's body, no part of which may keep us waiting for ever.
struct Source {
    body: AnswerBody,
    idle: Duration,
    /// When its silence is looked at: one clock for all of an answer.
    waits: Option<Pin<Box<Sleep>>>,
}

impl Source {
    /// Nothing that matters is still to come.
    fn ends_soon(&mut self) {
        if self.idle > TAIL {
            (self.idle, self.waits) = (TAIL, None);
        }
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        let Self { body, idle, waits } = self;
        let end = Instant::now() + *idle;
        let clock = waits.get_or_insert_with(|| Box::pin(sleep_until(end.into())));
        loop {
            tokio::select! {
                biased;
                next = read(body) => return next,
                () = clock.as_mut() => {
                    if Instant::now() >= end {
                        return Err("it has fallen silent".to_owned());
                    }
                    clock.as_mut().reset(end.into());
                }
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, String> {
        read(&mut self.body).await
    }

    /// Bytes that are there already.
    fn ready(&mut self) -> Option<Bytes> {
        match self.body.frame().now_or_never()?? {
            Ok(frame) => frame.into_data().ok(),
            // Told by the next call, which finds the same.
            Err(_) => None,
        }
    }
}

async fn read(body: &mut AnswerBody) -> Result<Option<Bytes>, String> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(format!("it broke off: {error}")),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// All of an answer that is no stream. However steadily it comes, it has to come to an end.
async fn gather(about: &mut Answering, mut source: Source) -> Result<Bytes, Trouble> {
    let end = about.open.begun() + about.provider.total;
    // Most come in one piece.
    let mut only = Bytes::new();
    let mut all = Vec::new();
    loop {
        let Ok(next) = timeout_at(end.into(), source.next()).await else {
            let trouble = about.provider.endless();
            tell(&mut about.open, &trouble);
            return Err(trouble);
        };
        match next {
            Ok(None) if all.is_empty() => return Ok(only),
            Ok(None) => return Ok(all.into()),
            Ok(Some(bytes)) if all.is_empty() && only.is_empty() => only = bytes,
            Ok(Some(bytes)) if only.len() + all.len() + bytes.len() <= ANSWER_BYTES_MAX => {
                all.extend_from_slice(&std::mem::take(&mut only));
                all.extend_from_slice(&bytes);
            }
            Ok(Some(_)) => return Err(about.broken("its answer is too long")),
            Err(why) => return Err(about.broken(&why)),
        }
    }
}

/// A whole answer.
async fn whole(
    mut about: Answering,
    source: Source,
    (page, mut own, choices): (Option<Page>, Option<Own>, u32),
    model: &str,
) -> Result<Response, Trouble> {
    let all = gather(&mut about, source).await?;
    let mut made = None;
    // What is translated is never asked for as a batch.
    let mut flex = false;
    let (body, usage): (Bytes, Option<Usage>) = match &page {
        None => {
            let read = relay::whole(about.dialect, &all).map_err(|why| about.broken(why))?;
            flex = read.flex;
            let shown = own.as_mut().map(|own| own.answer(&all)).transpose();
            let shown = shown.map_err(|Broken(why)| about.broken(&why))?;
            (shown.map_or(all, Into::into), read.usage)
        }
        Some(page) => {
            let answer = match about.dialect {
                Dialect::Messages => messages::read_answer(&all),
                Dialect::Gemini => gemini::read_answer(&all),
                Dialect::Converse => converse::read_answer(&all),
                Dialect::Responses => responses::read_answer(&all),
                _ => openai::read_answer(&all),
            };
            let mut answer = answer.map_err(|Broken(why)| about.broken(&why))?;
            // What was not asked for is not handed out.
            answer.choices.truncate(usize::try_from(choices).unwrap_or(usize::MAX));
            page.back.choices(&mut answer.choices);
            let head = page.head(model);
            let usage = answer.usage.unwrap_or_default();
            let (bytes, stored) = page.whole(&head, &answer.choices, &usage);
            made = stored;
            (bytes, answer.usage)
        }
    };
    about.bill.iter().for_each(|bill| bill.served(flex));
    let mut response = settled(about, usage, body).await;
    let is_kept = match (page, own) {
        (Some(page), _) => page.keep(made).await,
        (None, Some(mut own)) => own.keep().await,
        (None, None) => true,
    };
    if !is_kept {
        bill::notice_header(response.headers_mut(), kept::MISSED);
    }
    Ok(response)
}

/// Settles a whole answer.
async fn settled(mut about: Answering, usage: Option<Usage>, body: Bytes) -> Response {
    about.open.ended(Instant::now());
    let mut response = json(body);
    let Some(bill) = &about.bill else {
        about.open.used(&usage.unwrap_or_default(), Money::ZERO);
        return response;
    };
    let usage = usage.unwrap_or_else(|| bill.estimate());
    let took = about.open.begun().elapsed();
    bill.rates(response.headers_mut());
    let receipt = bill.finish_provider(&usage, Outcome::Done, took);
    about.open.used(&usage, receipt.cost);
    bill.settled(response.headers_mut(), &receipt);
    bill::durable(receipt).await;
    response
}
