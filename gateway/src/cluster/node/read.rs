//! Texts read for a gateway: its request comes as one line, the vectors go back, a line for each.
//! A gateway that goes away has cancelled.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};

use super::generate::{first_line, not_taken};
use super::{Node, said};
use crate::backend::PoolModel;
use crate::backend::embed::{Input, Vectors};
use crate::cluster::lines::Lines;
use crate::cluster::protocol::{self, ASK_BYTES_MAX, Read, ReadTold};

/// Bytes of vectors that are written at once.
const WRITE_BYTES: usize = 128 << 10;

/// `POST /cluster/v1/read`
pub(super) async fn read(State(node): State<Arc<Node>>, request: Request) -> Response {
    let arrived = Instant::now();
    let mut lines = Lines::new(request.into_body(), ASK_BYTES_MAX);
    let line = match first_line(&mut lines).await {
        Ok(line) => line,
        Err(refused) => return refused,
    };
    match begin(&node, &line, arrived).await {
        Ok(answer) | Err(answer) => answer,
    }
}

async fn begin(node: &Node, line: &[u8], arrived: Instant) -> Result<Response, Response> {
    let bad = |why: &str| said(StatusCode::BAD_REQUEST, why);
    let ask: Read = serde_json::from_slice(line).map_err(|error| bad(&error.to_string()))?;
    let found = node.reader(&ask.model);
    let offered = found.ok_or_else(|| said(StatusCode::NOT_FOUND, "no such model here"))?;
    if offered.card.fingerprint != ask.fingerprint {
        return Err(said(StatusCode::CONFLICT, "the model is another one here"));
    }
    let model = &offered.model;
    let inputs = ask.inputs.into_iter().map(|input| checked(model, input));
    let inputs: Vec<Input> = inputs.collect::<Result<_, _>>().map_err(bad)?;
    let engine = model.engine.local();
    let engine = engine.ok_or_else(|| said(StatusCode::NOT_FOUND, "it is not read here"))?;
    let deadline = ask.deadline_ms.and_then(|ms| arrived.checked_add(Duration::from_millis(ms)));
    let pooling =
        engine.submit_until(inputs, arrived, deadline).map_err(|error| not_taken(&error))?;
    // The head goes out now: it says that the node has the request. The body is dropped where the
    // gateway goes away meanwhile, which cancels it.
    let told = stream::once(pooling.result()).flat_map(|result| match result {
        Ok(done) => vectors(done).left_stream(),
        Err(refusal) => {
            let mut line = Vec::new();
            protocol::line(&ReadTold::Refused((&refusal).into()), &mut line);
            stream::once(ready(Ok(Bytes::from(line)))).right_stream()
        }
    });
    Ok(Body::from_stream(told).into_response())
}

/// An input that this model can read.
fn checked(
    model: &PoolModel,
    (ids, types, skip): (Vec<u32>, Vec<u32>, usize),
) -> Result<Input, &'static str> {
    let known = u32::try_from(model.text.vocab_size()).unwrap_or(u32::MAX);
    if ids.is_empty() || ids.len() > model.context {
        return Err("an input has no token, or more than the model reads");
    }
    if ids.iter().any(|id| *id >= known) {
        return Err("a token is none of the vocabulary");
    }
    let typed = types.is_empty() || types.len() == ids.len();
    if !typed || skip > ids.len() {
        return Err("an input's types, or what is left out of it, do not fit its tokens");
    }
    Ok(Input { ids, types, skip })
}

/// The vectors, written as fast as they are read.
fn vectors(done: Vectors) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let Vectors { vectors, queue_us, compute_us, .. } = done;
    stream::unfold(Some(vectors.into_iter()), move |vectors| async move {
        let mut vectors = vectors?;
        let mut out = Vec::new();
        while out.len() < WRITE_BYTES {
            let Some(vector) = vectors.next() else {
                protocol::line(&ReadTold::Done(queue_us, compute_us), &mut out);
                return Some((Ok(Bytes::from(out)), None));
            };
            let numbers = vector.into_iter().map(Into::into).collect();
            protocol::line(&ReadTold::Vector(numbers), &mut out);
        }
        Some((Ok(Bytes::from(out)), Some(vectors)))
    })
}
