//! Connections whose work is done by whoever waits for their answers: HTTP/1.1 without TLS, as
//! engines in the same house speak it.
//!
//! With a task of its own, a connection hands each piece of an answer through a channel and the
//! scheduler to the task that passes it on, which costs more than the piece itself. Here the one
//! task does both: it writes the request, and reads the answer when it is asked for more of it.
//! What is read lies in one buffer of the thread until it is handed out, so that a connection whose
//! answer pauses holds no memory but its socket. Nobody works for an idle connection: whether it
//! still stands is looked at when it is taken, and those that lie idle for too long are closed by a
//! keeper.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::http::uri::Authority;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tower_service::Service;

use super::client::{BoxError, Guard, IDLE, IDLE_MAX, NoAnswer, Timed, causes};
use super::http1::{self, Head, Wrong};

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

thread_local! {
    /// Where a thread reads to.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// How connections are made.
type Connector = Timed<HttpConnector<Guard>>;

/// A provider's connections.
pub(super) struct Lines {
    connector: Connector,
    home: Home,
}

/// One connection.
struct Line {
    socket: TcpStream,
}

/// Why a request was not answered.
enum Unanswered {
    /// The connection was closed before any of it was written.
    Unsent,
    Broke(String),
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
        request: Request<Bytes>,
    ) -> Result<Response<AnswerBody>, NoAnswer> {
        let uri = request.uri();
        let to = uri
            .authority()
            .ok_or_else(|| NoAnswer::Unreached("there is no host in its address".to_owned()))?;
        // No name stands before the host: an address that holds one is refused at the start.
        let host = match to.port_u16() {
            None | Some(80) => to.host(),
            Some(_) => to.as_str(),
        };
        let head = http1::request(&request, host);
        loop {
            let (mut line, is_new) = match self.home.take(to) {
                Some(line) => (line, false),
                None => (Box::pin(self.connect(uri.clone())).await?, true),
            };
            match line.ask(&head, request.body()).await {
                Ok((Head { response, body, keeps }, first)) => {
                    let place = keeps.then(|| (self.home.clone(), to.clone()));
                    let rest = Rest { first: first.into(), body, line: Some(line), place };
                    return Ok(response.map(|()| AnswerBody(Inner::Line(rest))));
                }
                Err(Unanswered::Unsent) if !is_new => {}
                Err(Unanswered::Unsent) => return Err(NoAnswer::Broke(CLOSED.to_owned())),
                Err(Unanswered::Broke(why)) => return Err(NoAnswer::Broke(why)),
            }
        }
    }

    async fn connect(&self, to: Uri) -> Result<Box<Line>, NoAnswer> {
        let unreached = |why: BoxError| NoAnswer::Unreached(causes(&*why));
        let io = self.connector.clone().call(to).await.map_err(unreached)?;
        Ok(Box::new(Line { socket: io.into_inner() }))
    }
}

/// What is said of a connection that says nothing itself.
const CLOSED: &str = "it was closed";

/// How far a request has come.
#[derive(Default)]
struct Asking {
    written: usize,
    /// Why no more of it can be written.
    refused: Option<io::Error>,
    /// The beginning of a head that is not whole.
    held: Vec<u8>,
}

impl Line {
    /// Writes a request and reads the head of its answer, and what of the body comes with it.
    async fn ask(&mut self, head: &[u8], body: &[u8]) -> Result<(Head, Vec<u8>), Unanswered> {
        let mut asking = Asking::default();
        let answer = poll_fn(|context| self.poll_ask(context, (head, body), &mut asking)).await;
        answer.map_err(|why| match asking {
            Asking { written: 0, .. } => Unanswered::Unsent,
            Asking { refused: Some(error), .. } => Unanswered::Broke(error.to_string()),
            _ => Unanswered::Broke(why),
        })
    }

    /// An answer may come before all of the request is written, which then stays unwritten.
    fn poll_ask(
        &mut self,
        context: &mut Context<'_>,
        message: (&[u8], &[u8]),
        asking: &mut Asking,
    ) -> Poll<Result<(Head, Vec<u8>), String>> {
        let Asking { written, refused, held } = asking;
        let length = message.0.len() + message.1.len();
        while *written < length && refused.is_none() {
            match self.poll_write(context, message, *written) {
                Poll::Ready(Ok(0)) => *refused = Some(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => *written += count,
                // The answer may say why.
                Poll::Ready(Err(error)) => *refused = Some(error),
                Poll::Pending => break,
            }
        }
        loop {
            let read = ready!(self.poll_read(context, |bytes| answered(held, bytes)));
            let found = read.map_err(|error| error.to_string()).flatten();
            if let Some((mut head, first)) = found? {
                head.keeps &= *written == length;
                return Poll::Ready(Ok((head, first)));
            }
        }
    }

    /// Writes what is left of a message of which so much is written.
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        (head, body): (&[u8], &[u8]),
        written: usize,
    ) -> Poll<io::Result<usize>> {
        let (head, rest) = (&head[written.min(head.len())..], written.saturating_sub(head.len()));
        let slices = [IoSlice::new(head), IoSlice::new(&body[rest..])];
        Pin::new(&mut self.socket).poll_write_vectored(context, &slices)
    }

    /// Reads what is there, and makes something of it; of nothing, where the connection has ended.
    fn poll_read<T>(
        &mut self,
        context: &mut Context<'_>,
        make: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        READ.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer))?;
            Poll::Ready(Ok(make(buffer.filled())))
        })
    }

    /// Whether it can take a request: it has neither ended nor said what nobody asked for.
    fn is_free(&self) -> bool {
        let read = self.socket.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// The head of an answer, and what of the body stands behind it; `None` while it is not whole.
fn answered(held: &mut Vec<u8>, bytes: &[u8]) -> Result<Option<(Head, Vec<u8>)>, String> {
    if bytes.is_empty() {
        return Err(CLOSED.to_owned());
    }
    // Nearly always it comes in one piece.
    let is_first = held.is_empty();
    if !is_first {
        held.extend_from_slice(bytes);
    }
    let all = if is_first { bytes } else { &held[..] };
    let Some((mut head, from)) = http1::head(all).map_err(|wrong| wrong.to_string())? else {
        if is_first {
            held.extend_from_slice(bytes);
        }
        return Ok(None);
    };
    let mut first = Vec::with_capacity(all.len() - from);
    let taken = head.body.take(&all[from..], &mut first).map_err(|wrong| wrong.to_string())?;
    head.keeps &= taken == all.len() - from;
    Ok(Some((head, first)))
}

impl Home {
    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one used last that still stands.
    fn take(&self, to: &Authority) -> Option<Box<Line>> {
        loop {
            let (since, line) = self.lock().of(to)?.pop()?;
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
        // An answer may be dropped when the runtime is gone.
        if !idle.kept
            && let Ok(runtime) = Handle::try_current()
        {
            idle.kept = true;
            let home = Arc::downgrade(&self.0);
            runtime.spawn(async move {
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
#[derive(Debug)]
pub struct AnswerBody(Inner);

#[derive(Debug)]
enum Inner {
    /// Of a connection that has a task.
    Task(Incoming),
    Line(Rest),
}

/// Why a body breaks off.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// Its connection did.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came makes no sense.
    #[error("{0}")]
    Wrong(#[from] Wrong),
    /// The library says so.
    #[error("{}", causes(.0))]
    Library(#[from] hyper::Error),
}

/// What is still to come through a connection without a task.
struct Rest {
    /// What came along with the head.
    first: Bytes,
    body: http1::Body,
    line: Option<Box<Line>>,
    /// Where the connection goes; `None`: it ends with this.
    place: Option<(Home, Authority)>,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("body", &self.body).finish_non_exhaustive()
    }
}

impl Rest {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.first))));
        }
        loop {
            if self.body == http1::Body::Done {
                self.give_back();
            }
            let Self { body, line: Some(line), .. } = self else { return Poll::Ready(None) };
            match ready!(line.poll_read(context, |bytes| more(body, bytes))) {
                Ok(Ok((content, is_all))) => {
                    if !is_all {
                        self.place = None;
                    }
                    if !content.is_empty() {
                        return Poll::Ready(Some(Ok(content.into())));
                    }
                }
                Ok(Err(wrong)) => return Poll::Ready(Some(Err(self.broken(wrong.into())))),
                Err(error) => return Poll::Ready(Some(Err(self.broken(error.into())))),
            }
        }
    }

    fn broken(&mut self, why: Broken) -> Broken {
        (self.line, self.place) = (None, None);
        why
    }

    /// The answer is over: its connection may take another request.
    fn give_back(&mut self) {
        if let Some(line) = self.line.take()
            && let Some((home, to)) = self.place.take()
            && line.is_free()
        {
            home.put(to, line);
        }
    }
}

/// More of a body, and whether all that came was of it.
fn more(body: &mut http1::Body, bytes: &[u8]) -> Result<(Vec<u8>, bool), Wrong> {
    if bytes.is_empty() {
        body.end()?;
        return Ok((Vec::new(), false));
    }
    let mut content = Vec::with_capacity(bytes.len());
    let taken = body.take(bytes, &mut content)?;
    Ok((content, taken == bytes.len()))
}

impl AnswerBody {
    /// Of a connection that has a task.
    pub(super) fn of_task(body: Incoming) -> Self {
        Self(Inner::Task(body))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.get_mut().0 {
            Inner::Task(body) => {
                Pin::new(body).poll_frame(context).map(|next| Some(next?.map_err(Broken::from)))
            }
            Inner::Line(rest) => rest.poll(context).map(|next| Some(next?.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Task(body) => body.is_end_stream(),
            Inner::Line(rest) => rest.first.is_empty() && rest.body == http1::Body::Done,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Task(body) => body.size_hint(),
            Inner::Line(rest) => {
                let first = u64::try_from(rest.first.len()).unwrap_or(u64::MAX);
                match rest.body {
                    http1::Body::Done => SizeHint::with_exact(first),
                    http1::Body::Length(left) => SizeHint::with_exact(first.saturating_add(left)),
                    _ => SizeHint::default(),
                }
            }
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        // In the middle of an answer the connection is closed, which ends it at the provider.
        if self.body == http1::Body::Done {
            self.give_back();
        }
    }
}

#[cfg(test)]
mod tests;
