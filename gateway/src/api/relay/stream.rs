//! A provider's stream on its way to the caller, as it comes or translated.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Extensions, HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use govern::ledger::Outcome;
use govern::{Money, Receipt};
use tokio::time::timeout_at;
use wire::{ApiError, Broken, Dialect, ErrorKind, Remark, StreamOptions, Usage};

use super::super::bill;
use super::super::cache::Ended;
use super::super::error::Failure;
use super::super::kept::{self, Own};
use super::super::sse::Sse;
use super::super::surface::{Page, Surface};
use super::continued::Rescue;
use super::handed::Handed;
use super::pass::Pass;
use super::translation::Translation;
use super::{Answering, Source, tell};
use crate::upstream::Trouble;

/// Why a stream broke.
const CUT: &str = "its stream was cut";

/// Bytes gathered into one write.
const WRITE_BYTES: usize = 64 << 10;

/// Longest time that the beginning of a stream is held back which only announces an answer. Most
/// providers that fail behind it do so at once, and some models then think for minutes, of which
/// the caller should know.
const HELD: Duration = Duration::from_secs(1);

/// Bytes of it: a response repeats all of its request.
const HELD_BYTES: usize = 1 << 20;

/// What a relayed stream needs to know of the request.
pub(super) struct Plain<'a> {
    pub(super) include_usage: bool,
    pub(super) surface: &'a Surface,
    /// Choices that were asked for.
    pub(super) choices: u32,
    /// Nobody else can be asked instead.
    pub(super) alone: bool,
    /// Tokens of the prompt, as far as anybody knows before the provider says.
    pub(super) estimate: u64,
    /// Longest time without a sign of life, of a provider that sends what the caller does not see.
    pub(super) ping_every: Duration,
}

/// A stream on its way.
pub(super) struct Streaming {
    about: Answering,
    source: Source,
    way: Way,
    /// Written and not yet sent.
    out: Vec<u8>,
    first: Option<Duration>,
    /// When something was last written.
    wrote: Instant,
    /// Events so far, and how long the next one has been waited for.
    heard: (u64, Duration),
    done: bool,
    /// What was used has been said.
    booked: bool,
    /// See [`Plain`].
    choices: u32,
    alone: bool,
    estimate: u64,
    ping_every: Duration,
    /// Who may go on with it if it breaks.
    rescue: Option<Box<Rescue>>,
    /// Somebody else goes on from here.
    rest: Option<Box<Sse>>,
    /// Told when it has come to its natural end.
    ended: Ended,
}

/// As it comes, or translated.
enum Way {
    Pass(Box<Pass>),
    Translate(Box<Translation>),
}

/// Who makes a stream now.
enum Stage {
    Theirs(Box<Streaming>),
    Ours(Box<Sse>),
}

impl Stage {
    /// The next write; `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        if let Self::Theirs(streaming) = self {
            let bytes = streaming.next().await;
            // With it goes what is left of the provider's connection.
            match streaming.rest.take() {
                Some(rest) => *self = Self::Ours(rest),
                None => return bytes,
            }
            if bytes.is_some() {
                return bytes;
            }
        }
        match self {
            Self::Ours(rest) => rest.next().await,
            Self::Theirs(_) => None,
        }
    }
}

impl Streaming {
    /// Waits for the beginning of the answer: until then another target may still be asked.
    pub(super) async fn begin(
        about: Answering,
        source: Source,
        (page, own, rescue): (Option<Page>, Option<Own>, Option<Box<Rescue>>),
        (model, options, plain): (&str, StreamOptions, Plain<'_>),
    ) -> Result<Response, Trouble> {
        let mut extensions = Extensions::new();
        own.iter().for_each(|own| own.tell(&mut extensions));
        let way = match &page {
            None => {
                let how = (!plain.include_usage, rescue.is_some());
                Way::Pass(Box::new(Pass::new(plain.surface, plain.choices, how, own)))
            }
            Some(page) => {
                let first = Usage { prompt_tokens: plain.estimate, ..Usage::default() };
                let answer = (page, plain.choices);
                let mut way = Translation::new(about.dialect, answer, model, (options, first));
                way.handed = rescue.as_ref().map(|_| Handed::default());
                Way::Translate(Box::new(way))
            }
        };
        let Plain { choices, alone, estimate, ping_every, .. } = plain;
        let mut headers = HeaderMap::new();
        about.bill.iter().for_each(|bill| bill.headers(&mut headers));
        let ended = Ended::default();
        let (out, first, done, rest) = (Vec::new(), None, false, None);
        let told = ended.clone();
        let mut own = Box::new(Self {
            about,
            source,
            way,
            out,
            first,
            wrote: Instant::now(),
            heard: (0, Duration::ZERO),
            done,
            booked: false,
            ended: told,
            choices,
            alone,
            estimate,
            ping_every,
            rescue,
            rest,
        });
        own.wait().await?;
        let kind = plain.surface.stream_type();
        let body = stream::unfold(Stage::Theirs(own), |mut stage| async move {
            let bytes = stage.next().await?;
            Some((Ok::<_, Infallible>(bytes), stage))
        });
        let mut response = Response::new(Body::from_stream(body));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response.headers_mut().extend(headers);
        *response.extensions_mut() = extensions;
        response.extensions_mut().insert(ended);
        if let Some(keep) = page.and_then(|page| page.keep) {
            response.extensions_mut().insert(keep);
        }
        Ok(response)
    }

    /// Waits for something of the answer. What only announces it is held back for a short time.
    async fn wait(&mut self) -> Result<(), Trouble> {
        // Silence, and whatever is no event, is waited for until the time for a first byte is over.
        let mut limit = self.about.open.begun() + self.about.provider.first_byte;
        let mut first = None;
        while !self.begins() && self.failed().is_none() {
            let Ok(next) = timeout_at(limit.into(), self.source.read()).await else {
                if first.is_some() {
                    break;
                }
                let trouble = self.about.provider.late();
                tell(&mut self.about.open, &trouble);
                return Err(trouble);
            };
            match next {
                Ok(Some(bytes)) => {
                    if let Err(Broken(why)) = self.take(&bytes) {
                        return Err(self.about.broken(&why));
                    }
                }
                // An answer may be written at its end alone: a call is whole in some dialects.
                Ok(None) if self.came_whole() => break,
                Ok(None) => return Err(self.about.broken("its stream is empty")),
                Err(why) => return Err(self.about.broken(&why)),
            }
            if first.is_none() && self.is_announced() {
                let now = Instant::now();
                (first, limit) = (Some(now), limit.min(now + HELD));
            }
        }
        if let Some(error) = self.failed() {
            return Err(self.about.broken(&error.message));
        }
        let first = first.unwrap_or_else(Instant::now);
        self.first = Some(first.saturating_duration_since(self.about.open.begun()));
        self.about.open.answered(first);
        Ok(())
    }

    /// It may be handed out. Where nobody else can be asked nothing has to be held back.
    fn begins(&self) -> bool {
        let pass = match &self.way {
            Way::Pass(pass) => pass,
            // Thoughts that the caller does not see are an answer that has begun.
            Way::Translate(way) => return !self.out.is_empty() || way.thinks,
        };
        let alone = self.alone && !self.out.is_empty();
        alone || pass.relay.carries() || self.out.len() > HELD_BYTES
    }

    /// An event has come that is passed on. A comment is none: some providers send them long before
    /// anybody works on the answer.
    fn is_announced(&self) -> bool {
        matches!(self.way, Way::Pass(_)) && self.events() > 0
    }

    /// The next write; `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        while self.out.is_empty() && !self.done {
            if self.is_whole() {
                self.source.ends_soon();
            }
            let asked = Instant::now();
            match self.source.next().await {
                Ok(Some(bytes)) => {
                    self.took(&bytes);
                    if !self.done && self.is_stuck(asked.elapsed()) {
                        self.end(Some("it sends and says nothing".to_owned())).await;
                    } else if !self.done
                        && self.about.open.begun().elapsed() > self.about.provider.stream
                    {
                        self.time_is_up().await;
                    }
                    self.think().await;
                }
                Ok(None) => self.end(None).await,
                Err(why) => self.end(Some(why)).await,
            }
        }
        // What else is there goes along, as far as it is paid for.
        let paid = self.about.bill.as_ref().map_or(u64::MAX, |bill| bill.allowance().into());
        while !self.done && self.out.len() < WRITE_BYTES && self.longest() < paid {
            let Some(bytes) = self.source.ready() else { break };
            self.took(&bytes);
        }
        if !self.done {
            self.count().await;
        }
        if let Way::Pass(pass) = &mut self.way
            && let Some(own) = &mut pass.own
        {
            own.keep_of(&mut self.out, self.ended.is_set()).await;
        }
        self.wrote = Instant::now();
        (!self.out.is_empty()).then(|| std::mem::take(&mut self.out).into())
    }

    /// Of thoughts that the caller does not see, who pays hears as of all others; and the caller,
    /// that somebody is there.
    async fn think(&mut self) {
        if self.done
            || !self.out.is_empty()
            || !matches!(&self.way, Way::Translate(way) if way.thinks)
        {
            return;
        }
        self.count().await;
        if let Way::Translate(translation) = &mut self.way
            && self.out.is_empty()
            && !self.done
            && self.wrote.elapsed() > self.ping_every
        {
            translation.ping(&mut self.out);
        }
    }

    /// It sends, and was waited for as long as a first event may take, and none has come. A comment
    /// is none: who sends nothing else would never be silent.
    fn is_stuck(&mut self, waited: Duration) -> bool {
        let (before, events) = (self.heard, self.events());
        let all = if events == before.0 { before.1 + waited } else { Duration::ZERO };
        self.heard = (events, all);
        all > self.about.provider.first_byte
    }

    /// Events so far, comments apart.
    fn events(&self) -> u64 {
        match &self.way {
            Way::Pass(pass) => pass.relay.events(),
            Way::Translate(translation) => translation.events,
        }
    }

    fn took(&mut self, bytes: &[u8]) {
        if let Err(Broken(why)) = self.take(bytes) {
            self.fail(&why);
        } else if matches!(&self.way, Way::Pass(pass) if pass.relay.failed()) {
            // The caller has read it from the provider itself.
            self.about.open.failed(Instant::now());
        }
    }

    /// Takes bytes of the provider.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        match &mut self.way {
            Way::Pass(pass) => pass.push(bytes, &mut self.out),
            Way::Translate(translation) => translation.push(bytes, &mut self.out),
        }
    }

    fn failed(&self) -> Option<ApiError> {
        match &self.way {
            Way::Pass(pass) if pass.relay.failed() => {
                Some(ApiError::new(ErrorKind::Upstream, "provider_error", "it failed"))
            }
            Way::Pass(_) => None,
            Way::Translate(translation) => translation.failed.clone(),
        }
    }

    /// The provider says that it served this as a batch. What is translated is never asked for so.
    fn flex(&self) -> bool {
        matches!(&self.way, Way::Pass(pass) if pass.relay.flex())
    }

    /// The provider's stream is over, and what it said is a whole answer.
    fn came_whole(&mut self) -> bool {
        match &mut self.way {
            Way::Pass(_) => false,
            Way::Translate(translation) => {
                translation.has_begun() && translation.end(&mut self.out).is_ok()
            }
        }
    }

    /// All that matters has come, by the provider's word, though its body has no end yet.
    fn is_whole(&self) -> bool {
        match &self.way {
            Way::Pass(pass) => pass.relay.ended() && pass.relay.usage().is_some(),
            Way::Translate(translation) => translation.is_whole(),
        }
    }

    /// What has been handed out so far.
    fn pieces(&self) -> u64 {
        match &self.way {
            Way::Pass(pass) => pass.relay.pieces(),
            Way::Translate(translation) => translation.pieces,
        }
    }

    /// What each choice has had of it, by and large: money is set aside for each.
    fn longest(&self) -> u64 {
        self.pieces().div_ceil(self.choices.max(1).into())
    }

    /// What the provider says was used; of one that says nothing, what was handed out.
    fn told(&self) -> Usage {
        let said = match &self.way {
            Way::Pass(pass) => pass.relay.usage(),
            Way::Translate(way) => way.said_usage.then_some(way.usage),
        };
        let (prompt_tokens, completion_tokens) = (self.estimate, self.pieces());
        said.unwrap_or(Usage { prompt_tokens, completion_tokens, ..Usage::default() })
    }

    /// What has been used for what was handed out, where the provider's stream has no end: of what
    /// it said so far no number is final, and some begin with a prompt of 0 tokens.
    fn handed_out(&self) -> Usage {
        let told = self.told();
        let prompt_tokens =
            if told.prompt_tokens == 0 { self.estimate } else { told.prompt_tokens };
        let completion_tokens = told.completion_tokens.max(self.pieces());
        Usage { prompt_tokens, completion_tokens, ..told }
    }

    /// Tells who pays what is handed out, and ends the stream where that is used up. The last bytes
    /// wait until all of it is in the books.
    async fn count(&mut self) {
        if matches!(self.way, Way::Pass(_)) && self.is_whole() {
            self.about.open.ended(Instant::now());
            self.settle(true, self.told()).await;
            return;
        }
        let pieces = self.pieces();
        let Some(bill) = &self.about.bill else { return };
        bill.hands_out(pieces, 0);
        if bill.made(u32::try_from(self.longest()).unwrap_or(u32::MAX)) {
            return;
        }
        let notice = ApiError::new(ErrorKind::Quota, "budget_exceeded", bill::USED_UP);
        match &mut self.way {
            Way::Pass(pass) => pass.cut_short(&mut self.out, &notice),
            Way::Translate(translation) => translation.cut_short(&mut self.out),
        }
        self.settle(true, self.handed_out()).await;
        self.done = true;
    }

    /// It has been read for as long as a stream may take. Whether the provider made it so long or
    /// the caller read it so slowly nobody knows: what was handed out is paid for, and the provider
    /// is not ill.
    async fn time_is_up(&mut self) {
        let why = "The stream took longer than this server allows.";
        let error = ApiError::new(ErrorKind::Deadline, "deadline_exceeded", why);
        self.say_error(&error);
        self.about.open.ended(Instant::now());
        if let Some(receipt) = self.book(&self.handed_out(), Outcome::Cancelled) {
            Box::pin(bill::durable(receipt)).await;
        }
    }

    /// The provider's stream is over: by itself, or because of this.
    async fn end(&mut self, why: Option<String>) {
        let why = why.filter(|_| !self.is_whole());
        let complete = match (&mut self.way, why) {
            (Way::Pass(pass), None) => pass.relay.may_end() || pass.relay.failed(),
            (Way::Translate(translation), None) => translation.end(&mut self.out).is_ok(),
            (_, Some(why)) => {
                tracing::info!(provider = self.about.provider.name, why, "a stream broke");
                false
            }
        };
        if self.done {
            return;
        }
        // Boxed, as all that a stream waits for once and not for each event: while it runs it takes
        // as much room as the largest of these.
        if !complete
            && let Some(rescue) = self.rescue.take()
            && Box::pin(self.go_on(*rescue)).await
        {
            self.done = true;
            return;
        }
        let whole = complete && self.failed().is_none();
        if !complete {
            self.fail(CUT);
        } else if let Way::Pass(pass) = &mut self.way {
            pass.close(&mut self.out);
        }
        let held = std::mem::take(&mut self.out);
        if whole {
            self.about.open.ended(Instant::now());
            self.ended.set();
        }
        let used = if whole { self.told() } else { self.handed_out() };
        self.settle(whole, used).await;
        let mut tail = held;
        if whole && let Way::Translate(translation) = &mut self.way {
            translation.finish(&mut tail, &Remark::default());
            if !translation.page.keep(translation.writer.finished()).await {
                kept::missed(&mut tail);
            }
        }
        self.out = tail;
        self.done = true;
    }

    /// Has somebody else go on with it, where that is wanted and can be done.
    async fn go_on(&mut self, rescue: Rescue) -> bool {
        let told = match &self.way {
            Way::Pass(pass) => pass.told().map(|(text, spot)| (text.to_owned(), Some(spot))),
            Way::Translate(way) => {
                let text = way.handed.as_ref().and_then(Handed::text);
                text.map(|text| (text.to_owned(), None))
            }
        };
        let Some((text, spot)) = told else {
            tracing::info!(id = rescue.id(), "a broken stream cannot be continued by anybody else");
            return false;
        };
        let used = self.handed_out();
        if let Some(bill) = &self.about.bill {
            bill.served(self.flex());
            bill.broke_off(&used, self.first.unwrap_or_default());
        }
        let begun = (text, self.about.dialect != Dialect::Completions);
        let goes = match rescue.go_on(begun, used, self.about.bill.clone()).await {
            Ok(goes) => goes,
            Err(Failure { error, .. }) => {
                let (id, why) = (rescue.id(), error.message);
                tracing::info!(id, why, "a broken stream is not continued");
                return false;
            }
        };
        // Settled by the attempt that goes on.
        self.about.bill = None;
        drop(self.book(&used, Outcome::Failed));
        drop(self.about.broken(CUT));
        let nothing = Way::Pass(Box::new(Pass::new(rescue.surface(), 1, (false, false), None)));
        let (page, writer) = match (std::mem::replace(&mut self.way, nothing), spot) {
            (Way::Pass(pass), Some(spot)) => {
                let writer = spot.writer(goes.options(), (rescue.surface(), rescue.id()));
                // Under the name that it has.
                (Err(pass.own.and_then(|own| own.into_keep())), writer)
            }
            (Way::Pass(_), None) => unreachable!("what is passed on was listened to"),
            (Way::Translate(way), _) => {
                let Translation { page, writer, .. } = *way;
                (Ok(page), writer)
            }
        };
        self.rest = Some(rescue.stream(goes, page, writer));
        true
    }

    /// Tells the caller that the stream broke: it must not look like a whole answer.
    fn fail(&mut self, why: &str) {
        let trouble = self.about.broken(why);
        self.say_error(&trouble.failure.error);
    }

    fn say_error(&mut self, error: &ApiError) {
        match &mut self.way {
            Way::Pass(pass) => pass.error(&mut self.out, error),
            Way::Translate(translation) => translation.writer.error(&mut self.out, error),
        }
        self.done = true;
    }

    /// Settles, and waits until that is durable.
    async fn settle(&mut self, whole: bool, used: Usage) {
        let outcome = if whole { Outcome::Done } else { Outcome::Failed };
        if let Some(receipt) = self.book(&used, outcome) {
            Box::pin(bill::durable(receipt)).await;
        }
    }

    /// Says what was used, once: to whoever pays, and to whoever counts.
    fn book(&mut self, used: &Usage, outcome: Outcome) -> Option<Receipt> {
        if std::mem::replace(&mut self.booked, true) {
            return None;
        }
        let receipt = self.about.bill.take().map(|bill| {
            bill.served(self.flex());
            bill.finish_provider(used, outcome, self.first.unwrap_or_default())
        });
        let cost = receipt.as_ref().map_or(Money::ZERO, |receipt| receipt.cost);
        self.about.open.used(used, cost);
        receipt
    }
}

impl Drop for Streaming {
    /// A caller that left has had what was handed out, and pays for that.
    fn drop(&mut self) {
        // Nobody has read anything of it: whoever asked says what became of the attempt.
        if self.first.is_none() {
            return;
        }
        // What has ended and is not settled has failed.
        let failed = self.done || self.failed().is_some();
        let outcome = if failed { Outcome::Failed } else { Outcome::Cancelled };
        drop(self.book(&self.handed_out(), outcome));
    }
}
