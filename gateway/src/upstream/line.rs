//! Connections whose work is done by whoever waits for their answers: HTTP/1.1 without TLS, as
//! engines in the same house speak it.
//!
//! With a task of its own, a connection hands each piece of an answer through a channel and the
//! scheduler to the task that passes it on, which costs more than the piece itself. Here the one
//! task does both; what its connection and its answer tell each other while they are polled is
//! heard there and then, and is no reason to poll all else that the task does. Nobody works for an
//! idle connection: whether it still stands is looked at when it is taken, and those that lie idle
//! for too long are closed by a keeper.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::client::{BoxError, Guard, IDLE, IDLE_MAX, NoAnswer, Timed, causes};
use crate::local_wakes::LocalWakes;

/// How connections are made.
type Connector = Timed<HttpConnector<Guard>>;

/// A provider's connections.
pub(super) struct Lines {
    connector: Connector,
    home: Home,
}

/// One connection.
struct Line {
    sender: SendRequest<Full<Bytes>>,
    connection: Connection<TokioIo<TcpStream>, Full<Bytes>>,
    wakes: LocalWakes,
}

/// Where idle connections are.
#[derive(Clone, Default)]
struct Home(Arc<Mutex<Idle>>);

/// Connections to one place, and since when each is idle.
type Lying = Vec<(Instant, Box<Line>)>;

#[derive(Default)]
struct Idle {
    /// By whom they lead to, which for one provider is hardly ever more than one; those used last
    /// at the end.
    lines: Vec<(Authority, Lying)>,
    /// Somebody closes those that lie idle.
    kept: bool,
}

impl Lines {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, home: Home::default() }
    }

    /// Sends a request; ready when the head of the answer is there.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<AnswerBody>, NoAnswer> {
        let (uri, mut request) = of_origin(request).map_err(NoAnswer::Unreached)?;
        let to = uri.authority().cloned().unwrap_or_else(|| Authority::from_static("none"));
        loop {
            let (mut line, new) = match self.home.take(&to) {
                Some(line) => (line, false),
                None => (Box::pin(self.connect(uri.clone())).await?, true),
            };
            match line.ask(request).await {
                Ok(answer) => {
                    let place = (self.home.clone(), to);
                    return Ok(answer.map(|body| AnswerBody::of_line(body, line, place)));
                }
                Err(mut error) => match error.take_message() {
                    // It was closed before any of it was written.
                    Some(back) if !new => request = back,
                    _ => return Err(NoAnswer::Broke(causes(error.error()))),
                },
            }
        }
    }

    async fn connect(&self, to: Uri) -> Result<Box<Line>, NoAnswer> {
        let unreached = |why: BoxError| NoAnswer::Unreached(causes(&*why));
        let io = self.connector.clone().call(to).await.map_err(unreached)?;
        let (sender, connection) =
            http1::handshake(io).await.map_err(|why| unreached(Box::new(why)))?;
        Ok(Box::new(Line { sender, connection, wakes: LocalWakes::default() }))
    }
}

/// As a server of its own takes it: the path alone, and the host in a header.
fn of_origin(mut request: Request<Full<Bytes>>) -> Result<(Uri, Request<Full<Bytes>>), String> {
    let uri = request.uri().clone();
    // No name stands before the host: an address that holds one is refused at the start.
    let host = uri.authority().map(|authority| match authority.port_u16() {
        None | Some(80) => authority.host(),
        Some(_) => authority.as_str(),
    });
    let host = host.ok_or("there is no host in its address")?;
    let host = HeaderValue::from_str(host).map_err(|error| error.to_string())?;
    request.headers_mut().entry(HOST).or_insert(host);
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    Ok((uri, request))
}

impl Line {
    async fn ask(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        let Self { sender, connection, wakes } = self;
        let mut answer = pin!(sender.try_send_request(request));
        let mut open = true;
        poll_fn(|context| {
            wakes.poll(context, |context| {
                open = open && Pin::new(&mut *connection).poll(context).is_pending();
                answer.as_mut().poll(context)
            })
        })
        .await
    }

    /// Whether it can take a request. What it has been told meanwhile, it hears now.
    fn is_free(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut self.connection).poll(&mut context).is_pending() && self.sender.is_ready()
    }
}

impl Home {
    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one used last that still stands.
    fn take(&self, to: &Authority) -> Option<Box<Line>> {
        loop {
            let (since, mut line) = self.lock().of(to)?.pop()?;
            if since.elapsed() < IDLE && line.is_free() {
                return Some(line);
            }
        }
    }

    fn put(&self, to: Authority, line: Box<Line>) {
        let mut idle = self.lock();
        let line = (Instant::now(), line);
        match idle.of(&to) {
            None => idle.lines.push((to, vec![line])),
            Some(lines) => {
                if lines.len() >= IDLE_MAX {
                    lines.remove(0);
                }
                lines.push(line);
            }
        }
        if !std::mem::replace(&mut idle.kept, true) {
            let home = Arc::downgrade(&self.0);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(IDLE / 2).await;
                    let Some(home) = home.upgrade().map(Self) else { return };
                    if !home.lock().close(Instant::now()) {
                        return;
                    }
                }
            });
        }
    }
}

impl Idle {
    fn of(&mut self, to: &Authority) -> Option<&mut Lying> {
        self.lines.iter_mut().find(|(own, _)| own == to).map(|(_, lines)| lines)
    }

    /// Closes those that have lain idle for too long. `false`: none is left.
    fn close(&mut self, now: Instant) -> bool {
        self.lines.retain_mut(|(_, lines)| {
            lines.retain(|(since, _)| now.saturating_duration_since(*since) < IDLE);
            !lines.is_empty()
        });
        self.kept = !self.lines.is_empty();
        self.kept
    }
}

/// The body of a provider's answer.
pub struct AnswerBody {
    body: Incoming,
    /// The connection that it comes through, where no task of its own works for that.
    line: Option<Box<Line>>,
    place: Option<(Home, Authority)>,
}

impl AnswerBody {
    /// Of a connection that has a task.
    pub(super) fn of_task(body: Incoming) -> Self {
        Self { body, line: None, place: None }
    }

    fn of_line(body: Incoming, line: Box<Line>, place: (Home, Authority)) -> Self {
        Self { body, line: Some(line), place: Some(place) }
    }

    /// The answer is over: its connection may take another request.
    fn give_back(&mut self) {
        if let Some(mut line) = self.line.take()
            && let Some((home, to)) = self.place.take()
            && line.is_free()
        {
            home.put(to, line);
        }
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").field("body", &self.body).finish_non_exhaustive()
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let own = self.get_mut();
        let polled = match &mut own.line {
            None => Pin::new(&mut own.body).poll_frame(context),
            Some(line) => {
                let Line { connection, wakes, .. } = &mut **line;
                let mut open = true;
                let polled = wakes.poll(context, |context| {
                    open = open && Pin::new(&mut *connection).poll(context).is_pending();
                    Pin::new(&mut own.body).poll_frame(context)
                });
                if !open {
                    // What it still had for the body, the body has.
                    own.line = None;
                }
                polled
            }
        };
        if matches!(polled, Poll::Ready(None)) {
            own.give_back();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // In the middle of an answer the connection is closed, which ends it at the provider.
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}

#[cfg(test)]
mod tests;
