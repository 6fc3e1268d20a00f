//! A stream's body. It is polled by the connection, so a client that reads slowly slows only
//! itself, and one that leaves drops it, which cancels its generations.
//!
//! All tokens that are ready go out in one write. The clock is looked at only when it has run
//! out, not per token.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use text::answer::Part;
use tokio::time::{Instant, Sleep, sleep};
use wire::{Delta, Head, Piece, Remark, StreamOptions, Usage, Writer};

use super::bill;
use super::cache::Ended;
use super::choice::Choice;
use super::error::Failure;
use super::kept;
use super::run::Run;
use super::surface::{Page, Surface};

/// A stream that is made here, or the rest of one that a provider has begun.
pub(super) struct Sse {
    runs: Vec<Run>,
    writer: Box<dyn Writer>,
    page: Page,
    /// Plain completions say their end with the last text.
    plain: bool,
    /// What was used, and who goes on, where a provider has begun it.
    before: Usage,
    by: Option<String>,
    /// What is known of the prompt stands in the first event.
    begins_with_usage: bool,
    continuous_usage: bool,
    ping_every: Duration,
    ping: Pin<Box<Sleep>>,
    /// Something was written since the ping's clock was set.
    active: bool,
    begun: bool,
    done: bool,
    /// Told when it has come to its natural end.
    ended: Ended,
    /// What is to be kept of the answer, now that it is whole.
    finished: Option<serde_json::Value>,
}

/// The answer of a request that is streamed.
pub(super) fn answer(
    page: &Page,
    head: &Head,
    options: StreamOptions,
    runs: Vec<Run>,
    ping_every: Duration,
) -> Response {
    let choices = runs.iter().map(|run| run.choices.len()).sum();
    let sse = Sse::new(page, page.writer(head, options, choices), runs, (options, ping_every));
    let ended = sse.ended.clone();
    let body = stream::unfold(sse, |mut sse| async move {
        let bytes = sse.next().await?;
        Some((Ok::<_, Infallible>(bytes), sse))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.extensions_mut().insert(ended);
    page.keep.iter().for_each(|keep| drop(response.extensions_mut().insert(Arc::clone(keep))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.surface.stream_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx gathers answers unless told otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl Sse {
    fn new(
        page: &Page,
        writer: Box<dyn Writer>,
        runs: Vec<Run>,
        (options, ping_every): (StreamOptions, Duration),
    ) -> Self {
        Self {
            runs,
            writer,
            page: page.clone(),
            plain: page.surface == Surface::Completion,
            before: Usage::default(),
            by: None,
            begins_with_usage: page.begins_with_usage(),
            continuous_usage: options.continuous_usage,
            ping_every,
            ping: Box::pin(sleep(ping_every)),
            active: false,
            begun: false,
            done: false,
            ended: Ended::default(),
            finished: None,
        }
    }

    /// The rest of a stream, behind what a provider has written of it and used for that. `by` is
    /// the model that goes on.
    pub(super) fn rest(
        page: &Page,
        writer: Box<dyn Writer>,
        run: Run,
        (before, by): (Usage, String),
        how: (StreamOptions, Duration),
    ) -> Self {
        Self { before, by: Some(by), ..Self::new(page, writer, vec![run], how) }
    }

    /// The next write; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = Vec::with_capacity(512);
        if !self.begun {
            self.begun = true;
            self.begin(&mut out);
            self.finish(&mut out);
        }
        while out.is_empty() {
            match poll_fn(|cx| self.poll(cx)).await {
                Wake::Ping => self.writer.ping(&mut out),
                Wake::Run(Ok(at)) => {
                    self.write(at, &mut out);
                    self.finish(&mut out);
                }
                Wake::Run(Err(failure)) => {
                    self.writer.error(&mut out, &failure.error);
                    self.done = true;
                    if failure.is_of_engine() {
                        self.runs.iter().for_each(Run::failed);
                    }
                    // Frees the engine now, not when the client has read the error.
                    self.runs.clear();
                }
            }
        }
        if let Some(finished) = self.finished.take()
            && !self.page.keep(Some(finished)).await
        {
            kept::missed(&mut out);
        }
        self.active = true;
        Some(out.into())
    }

    /// A chat's choices begin with their role, at once; an echo is there at once too. What goes on
    /// says so.
    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.by.is_some() {
            let remark = Remark { continued_by: self.by.as_deref(), ..Remark::default() };
            self.writer.remark(out, &remark);
            self.write(0, out);
            return;
        }
        for run in &self.runs {
            for choice in &run.choices {
                let piece = Piece {
                    index: choice.index,
                    prompt_token_ids: prompt_ids(run),
                    usage: (self.continuous_usage || self.begins_with_usage).then(|| run.usage()),
                    ..Piece::default()
                };
                self.writer.start(out, &piece);
            }
        }
        for at in 0..self.runs.len() {
            self.write(at, out);
        }
    }

    /// The run that has something new. Dropping a run's wait loses nothing, so each poll may
    /// begin it anew.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        for (at, run) in self.runs.iter_mut().enumerate().filter(|(_, run)| !run.ended) {
            if let Poll::Ready(result) = pin!(run.step()).poll(cx) {
                return Poll::Ready(Wake::Run(result.map(|()| at)));
            }
        }
        while self.ping.as_mut().poll(cx).is_ready() {
            self.ping.as_mut().reset(Instant::now() + self.ping_every);
            if !std::mem::take(&mut self.active) {
                return Poll::Ready(Wake::Ping);
            }
        }
        Poll::Pending
    }

    /// Writes what a run's choices have to show.
    fn write(&mut self, at: usize, out: &mut Vec<u8>) {
        let usage = self.continuous_usage.then(|| self.usage());
        let Some(run) = self.runs.get_mut(at) else { return };
        if !run.may_show() {
            return;
        }
        let prompt = run.prompt.as_deref();
        for choice in run.choices.iter_mut().filter(|c| c.has_news()) {
            write_choice(&mut *self.writer, self.plain, out, choice, prompt, usage);
        }
    }

    fn usage(&self) -> Usage {
        let mut sum = self.before;
        self.runs.iter().for_each(|run| sum.add(run.usage()));
        sum
    }

    /// The end, once all runs have come to theirs.
    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.runs.iter().all(|run| run.ended) {
            let remark = Remark {
                cost_usd: bill::cost(self.runs.iter()).map(govern::Money::decimals),
                notice: self.runs.iter().find_map(|run| run.notice),
                continued_by: self.by.as_deref(),
            };
            let usage = self.usage();
            self.writer.end(out, &usage, &remark);
            self.finished = self.writer.finished();
            if remark.notice.is_none() && self.by.is_none() {
                self.ended.set();
            }
            self.done = true;
        }
    }
}

fn prompt_ids(run: &Run) -> Option<&[u32]> {
    let asked = run.choices.first().is_some_and(|choice| choice.token_ids.is_some());
    run.prompt.as_deref().filter(|_| asked)
}

enum Wake {
    Run(Result<usize, Failure>),
    Ping,
}

/// One choice's news. Chat says its end in an event of its own, plain completions with the last
/// text.
fn write_choice(
    writer: &mut dyn Writer,
    plain: bool,
    out: &mut Vec<u8>,
    choice: &mut Choice,
    prompt: Option<&[u32]>,
    usage: Option<Usage>,
) {
    let first_of_completion = plain && !choice.begun;
    if choice.voice.is_some() {
        return write_voice(writer, out, choice, usage);
    }
    let mut piece = Piece {
        index: choice.index,
        delta: if !plain && choice.text.is_empty() && choice.finish.is_some() {
            Delta::None
        } else {
            Delta::Content(&choice.text)
        },
        logprobs: choice.logprobs.as_deref(),
        token_ids: choice.token_ids.as_deref(),
        prompt_token_ids: prompt.filter(|_| first_of_completion && choice.token_ids.is_some()),
        finish: choice.finish,
        stop: choice.stop(),
        usage,
    };
    if !plain && piece.finish.is_some() && !choice.text.is_empty() {
        piece.finish = None;
        writer.piece(out, &piece);
        let nothing: Option<&[u32]> = choice.token_ids.as_ref().map(|_| &[][..]);
        piece = Piece {
            delta: Delta::None,
            logprobs: None,
            token_ids: nothing,
            finish: choice.finish,
            ..piece
        };
    }
    writer.piece(out, &piece);
    choice.taken();
}

/// A voice's news: an event for each part, then one for the end. What belongs to the tokens stands
/// in the first.
fn write_voice(
    writer: &mut dyn Writer,
    out: &mut Vec<u8>,
    choice: &mut Choice,
    usage: Option<Usage>,
) {
    let Some(voice) = &mut choice.voice else { return };
    let parts = voice.take();
    let mut piece = Piece {
        index: choice.index,
        logprobs: choice.logprobs.as_deref(),
        token_ids: choice.token_ids.as_deref(),
        usage,
        ..Piece::default()
    };
    let nothing: Option<&[u32]> = choice.token_ids.as_ref().map(|_| &[][..]);
    for part in &parts {
        let id;
        let delta = match part {
            Part::Content(text) => Delta::Content(text),
            Part::Reasoning(text) => Delta::Reasoning(text),
            Part::CallStart { index, name } => {
                id = voice.id(*index, name);
                Delta::CallStart { index: *index, id: &id, name }
            }
            Part::Arguments { index, text } => Delta::Arguments { index: *index, text },
            Part::CallEnd { .. } => continue,
        };
        writer.piece(out, &Piece { delta, ..piece });
        (piece.logprobs, piece.token_ids) = (None, nothing);
    }
    if choice.finish.is_some() {
        (piece.finish, piece.stop) = (choice.finish, choice.stop());
        writer.piece(out, &piece);
    }
    choice.taken();
}
