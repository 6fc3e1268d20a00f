//! `POST /v1/embeddings` by a model of this process.

use std::sync::Arc;

use axum::response::Response;
use wire::openai::{embeddings, parse_embeddings};
use wire::{ApiError, EmbeddingRequest, ErrorKind};

use super::body::Body;
use super::envelope::Caller;
use super::error::Failure;
use super::generate::Chosen;
use super::pooled::Pooled;
use super::{App, pool, prepare};
use crate::backend::embed::Input;
use crate::backend::{PoolModel, Task};

/// A request whose inputs are tokens.
struct Prepared {
    model: Arc<PoolModel>,
    request: EmbeddingRequest,
    inputs: Vec<Input>,
}

/// Answers with a model of this process: the one that is asked for, or the chosen one.
pub(super) async fn local(
    app: &Arc<App>,
    caller: &Caller,
    body: &Arc<Body>,
    chosen: Option<&Chosen<'_>>,
) -> Result<Response, Failure> {
    let (own, name) = (Arc::clone(body), chosen.map(|chosen| chosen.model.to_owned()));
    let work = move |app: &App| read(app, &own, name.as_deref());
    let Prepared { model, request, inputs } = prepare::run(app, body.len(), work).await?;
    let what = (&*model, Pooled::Embeddings, &*request.model);
    let (mut done, head) = pool::run(app, what, inputs, (caller, chosen)).await?;
    let numbers = done.vectors.iter().map(Vec::len).sum::<usize>();
    if let Some(size) = request.dimensions {
        done.vectors.iter_mut().for_each(|vector| shorten(vector, size));
    }
    // A number takes twelve bytes or so: writing many is work for a thread that may block.
    let write = move |_: &App| {
        Ok(embeddings::answer(&model.id, &done.vectors, request.encoding, done.tokens))
    };
    prepare::run(app, 4 * numbers, write).await.map(|body| head.of(body))
}

fn read(app: &App, body: &[u8], name: Option<&str>) -> Result<Prepared, Failure> {
    let mut request = parse_embeddings(body, &app.limits.request)?;
    let model = pool::model(app, name.unwrap_or(&request.model), Task::Embed)?;
    check_dimensions(&model, request.dimensions)?;
    let prefix = pool::prefix(&model, &request.instruction)?;
    let all = std::mem::take(&mut request.inputs);
    let mut inputs = Vec::with_capacity(all.len());
    for (index, one) in all.into_iter().enumerate() {
        let field = || format!("input[{index}]");
        inputs.push(pool::input(&model, one, prefix, request.truncate, &field)?);
    }
    Ok(Prepared { model, request, inputs })
}

/// A part of a vector means something where what was left out only made it more exact: that is
/// for the caller to know. Its length has to mean nothing, for it changes.
fn check_dimensions(model: &PoolModel, asked: Option<usize>) -> Result<(), Failure> {
    let Some(asked) = asked else { return Ok(()) };
    let why = if asked > model.size {
        format!("this model's vectors have {} numbers, {asked} were asked for", model.size)
    } else if !model.normalises && asked < model.size {
        "this model's vectors have a length that means something and cannot be cut".to_owned()
    } else {
        return Ok(());
    };
    let message = format!("Invalid value for 'dimensions': {why}.");
    let error = ApiError::new(ErrorKind::Invalid, "invalid_value", message);
    Err(error.with_param("dimensions").into())
}

/// The first numbers, stretched to length one.
fn shorten(vector: &mut Vec<f32>, size: usize) {
    if size >= vector.len() {
        return;
    }
    vector.truncate(size);
    let square: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let length = square.sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = narrow(f64::from(*x) / length));
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a share of one")]
fn narrow(number: f64) -> f32 {
    number as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_vector_has_length_one() {
        let check = |size: usize, expect: &[f32]| {
            let mut vector = vec![0.6, 0.0, -0.8];
            shorten(&mut vector, size);
            assert_eq!(vector, expect, "{size}");
        };
        check(3, &[0.6, 0.0, -0.8]);
        check(2, &[1.0, 0.0]);
        check(1, &[1.0]);
    }
}
