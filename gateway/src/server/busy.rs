//! Whether a connection has an answer in the making. An answer counts from its request's head to
//! the last byte of its body, which for a stream is long after its own head was sent.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use hyper::Response;

use crate::held;

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
        async move { Ok(answer.await?.map(|body| held::hold(body, one))) }
    }
}

/// One open answer.
struct One(Busy);

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
