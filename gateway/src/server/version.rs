//! Which HTTP a connection speaks: HTTP/2 begins with a sentence that no request of HTTP/1 begins
//! with. What was read to see that is read again by whoever serves it, all at once, so that a
//! request that came in one piece is parsed in one.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Options;

/// How HTTP/2 begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that are read at first: nearly every request without its images.
const FIRST_BYTES: usize = 4 << 10;

/// How both are spoken.
pub(super) struct Builders {
    one: http1::Builder,
    two: http2::Builder<TokioExecutor>,
}

impl Builders {
    pub(super) fn new(options: &Options) -> Self {
        let mut one = http1::Builder::new();
        one.timer(TokioTimer::new())
            .header_read_timeout(options.later_head)
            .max_buf_size(options.head_bytes_max.max(8 << 10));
        let mut two = http2::Builder::new(TokioExecutor::new());
        two.timer(TokioTimer::new())
            .keep_alive_interval(Some(Duration::from_secs(20)))
            .keep_alive_timeout(Duration::from_secs(20))
            .max_concurrent_streams(options.streams_max)
            .max_header_list_size(u32::try_from(options.head_bytes_max).unwrap_or(u32::MAX));
        Self { one, two }
    }
}

/// What answers the requests of a connection.
pub(super) trait Answers:
    Service<Asked, Response = Given, Error = Infallible, Future: Later>
{
}

impl<V: Service<Asked, Response = Given, Error = Infallible, Future: Later>> Answers for V {}

type Asked = Request<Incoming>;
type Given = Response<Body>;

/// What may go to another thread, and may live for ever.
pub(super) trait Later: Send + 'static {}

impl<T: Send + 'static> Later for T {}

/// A connection that is served, which holds next to nothing before it has said something.
pub(super) enum Speaking<S, V: Answers> {
    New(New<S, V>),
    One(Pin<Box<http1::Connection<Io<S>, V>>>),
    Two(Pin<Box<http2::Connection<Io<S>, V, TokioExecutor>>>),
    /// It was asked to end before it had said anything.
    Ended,
}

/// One that has not said enough.
pub(super) struct New<S, V> {
    builders: Arc<Builders>,
    stream: S,
    service: V,
    /// What it has said.
    first: Vec<u8>,
}

impl<S, V> Speaking<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    V: Answers,
{
    pub(super) fn new(builders: Arc<Builders>, stream: S, service: V) -> Self {
        Self::New(New { builders, stream, service, first: Vec::new() })
    }

    /// Ready when it has ended.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        if let Self::New(new) = self {
            let is_two = ready!(new.poll_first(context))?;
            if let Self::New(new) = std::mem::replace(self, Self::Ended) {
                *self = new.known(is_two);
            }
        }
        match self {
            Self::One(one) => one.as_mut().poll(context).map_err(Broke::Http),
            Self::Two(two) => two.as_mut().poll(context).map_err(Broke::Http),
            Self::New(_) | Self::Ended => Poll::Ready(Ok(())),
        }
    }

    /// Has it end behind the answers that are open.
    pub(super) fn end(&mut self) {
        match self {
            Self::New(_) => *self = Self::Ended,
            Self::One(one) => one.as_mut().graceful_shutdown(),
            Self::Two(two) => two.as_mut().graceful_shutdown(),
            Self::Ended => {}
        }
    }
}

impl<S, V> New<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    V: Answers,
{
    fn known(self, is_two: bool) -> Speaking<S, V> {
        let Self { builders, stream, service, first } = self;
        let stream = TokioIo::new(Begun { first, stream });
        if is_two {
            Speaking::Two(Box::pin(builders.two.serve_connection(stream, service)))
        } else {
            Speaking::One(Box::pin(builders.one.serve_connection(stream, service)))
        }
    }

    /// Reads until it is known whether HTTP/2 is spoken.
    fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            let mut bytes = [const { MaybeUninit::uninit() }; FIRST_BYTES];
            let mut buffer = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            self.first.extend_from_slice(buffer.filled());
            let length = self.first.len().min(PREFACE.len());
            let may_be = self.first[..length] == PREFACE[..length];
            if length == PREFACE.len() || !may_be || buffer.filled().is_empty() {
                return Poll::Ready(Ok(may_be && length == PREFACE.len()));
            }
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broke {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Http(hyper::Error),
}

type Io<S> = TokioIo<Begun<S>>;

/// A stream of which the first bytes were read before.
pub(super) struct Begun<S> {
    first: Vec<u8>,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..count]);
        self.first.drain(..count);
        if self.first.is_empty() {
            self.first = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
