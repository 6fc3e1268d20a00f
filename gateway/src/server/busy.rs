//! Whether a connection has an answer in the making. An answer counts from its request's head to
//! the last byte of its body, which for a stream is long after its own head was sent.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use hyper::Response;

use super::Answer;
use crate::held;

/// Counts a connection's open answers. Clones count together.
#[derive(Clone, Default)]
pub(super) struct Busy(Arc<AtomicUsize>);

impl Busy {
    /// Whether there is one.
    pub(super) fn answers(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Counts an answer until its body is dropped.
    pub(super) fn hold(&self, answer: Answer) -> Counting {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counting { answer, one: Some(One(self.clone())) }
    }
}

/// An answer that is counted.
pub(super) struct Counting {
    answer: Answer,
    one: Option<One>,
}

impl Future for Counting {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { answer, one } = &mut *self;
        answer
            .as_mut()
            .poll(context)
            .map(|answer| Ok(answer.map(|body| held::hold(body, one.take()))))
    }
}

/// One open answer.
struct One(Busy);

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
