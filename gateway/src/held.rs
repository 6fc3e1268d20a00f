//! A response body that holds a value until its last byte is sent or the client has left.
//!
//! An answer is not over when its head is: what counts answers, or frees their places, goes along
//! with the body and acts when it is dropped.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// `body`, which keeps `with` alive as long as itself.
pub(crate) fn hold(body: Body, with: impl Send + Unpin + 'static) -> Body {
    Body::new(Held { body, _with: with })
}

struct Held<T> {
    body: Body,
    _with: T,
}

impl<T: Unpin> HttpBody for Held<T> {
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
