//! OpenAI's Responses: what is accepted and refused, what callers read, what providers say.

mod answers;
mod checker;
mod codex;
mod items;
mod passing;
mod properties;
mod reader;
mod render;
mod requests;
mod stream;
mod tools;

use serde_json::{Value, json};
use wire::responses::{self, Echo, Request};
use wire::{ApiError, Head, Limits};

/// Ids in the order in which they are made: `msg_1`, `fc_2`, ...
fn ids() -> impl FnMut(&str) -> String + Send {
    let mut made = 0;
    move |prefix| {
        made += 1;
        format!("{prefix}_{made}")
    }
}

/// A request with these fields, beside a model and an input.
fn body(extra: &Value) -> Vec<u8> {
    let mut body = json!({"model": "m", "input": "hi"});
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body.to_string().into_bytes()
}

fn parse(extra: &Value) -> Result<Request, ApiError> {
    responses::parse(&body(extra), &Limits::default(), &mut ids())
}

fn forward(extra: &Value) -> Result<Request, ApiError> {
    responses::parse_forward(&body(extra), &Limits::default(), &mut ids())
}

#[track_caller]
fn refused<T: std::fmt::Debug>(got: Result<T, ApiError>, param: &str, code: &str) {
    let error = got.expect_err(param);
    assert_eq!(error.param.as_deref(), Some(param), "{error}");
    assert_eq!(error.code.as_deref(), Some(code), "{error}");
}

fn head() -> Head {
    Head { id: "resp_0".into(), created: 7, model: "m".into(), service_tier: None }
}

/// The echo of a request with these fields.
fn echo(extra: &Value) -> Echo {
    parse(extra).expect("accepted").echo
}
