//! Whether a connection has an answer in the making. An answer counts from its request's head to
//! the last byte of its body, which for a stream is long after its own head was sent.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::Response;
use hyper::body::{Frame, SizeHint};

type Answered = Result<Response<Body>, Infallible>;

/// Counts a connection's open answers. Clones count together.
#[derive(Clone, Default)]
pub(super) struct Busy(Arc<AtomicUsize>);

impl Busy {
    /// Whether there is one.
    pub(super) fn answers(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Counts an answer until its body is dropped.
    pub(super) fn hold<F>(&self, answer: F) -> impl Future<Output = Answered> + use<F>
    where
        F: Future<Output = Answered>,
    {
        self.0.fetch_add(1, Ordering::Relaxed);
        let one = One(self.clone());
        async move { Ok(answer.await?.map(|body| Body::new(Held { body, _one: one }))) }
    }
}

/// One open answer.
struct One(Busy);

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Held {
    body: Body,
    _one: One,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
