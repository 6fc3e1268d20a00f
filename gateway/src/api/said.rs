//! What is said in a request, for policies that ask for it: the body as it came and the answer as
//! it left, whatever handler made it. Where no policy asks nothing is copied.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use govern::bodies::BYTES_MAX;
use govern::policy::Recording;
use govern::{Operation, Principal};
use hyper::body::{Frame, SizeHint};

/// What one request has said so far, and its answer as it leaves. Operations may come while it
/// does. What has no answer when it goes is recorded without one: the client left before there
/// was any.
#[derive(Default)]
pub(super) struct Said(Arc<Mutex<Telling>>);

/// Operations that have to be recorded, and what was said.
#[derive(Default)]
struct Telling {
    request: Vec<u8>,
    answer: Vec<u8>,
    operations: Vec<Arc<Operation>>,
}

impl Said {
    /// Keeps a request's body, where a policy above its caller may ask for it.
    pub(super) fn asked(&self, body: &[u8], principal: &Principal) {
        let layers = principal.layers();
        if layers.iter().any(|layer| layer.policy.record != Recording::None) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).request = kept(body).to_vec();
        }
    }

    /// An operation was let in for it.
    pub(super) fn by(&self, operation: &Arc<Operation>) {
        if operation.records() {
            let mut telling = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            telling.operations.push(Arc::clone(operation));
        }
    }

    /// The answer's body, whose bytes are recorded as they leave where they have to be.
    pub(super) fn answered(&self, body: Body) -> Body {
        let telling = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if telling.operations.is_empty() {
            return body;
        }
        Body::new(Heard { body, telling: Arc::clone(&self.0) })
    }
}

/// One byte more than is kept says that there was more.
fn kept(text: &[u8]) -> &[u8] {
    &text[..text.len().min(BYTES_MAX + 1)]
}

impl Drop for Telling {
    fn drop(&mut self) {
        for operation in &self.operations {
            operation.record(&self.request, &self.answer);
        }
    }
}

/// A body that is listened to.
struct Heard {
    body: Body,
    telling: Arc<Mutex<Telling>>,
}

impl HttpBody for Heard {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, telling } = &mut *self;
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            let mut telling = telling.lock().unwrap_or_else(PoisonError::into_inner);
            let room = (BYTES_MAX + 1).saturating_sub(telling.answer.len());
            telling.answer.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
