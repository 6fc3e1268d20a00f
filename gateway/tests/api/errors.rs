//! One table of what goes wrong before a model is asked, with the status, the code and the field
//! that a program decides on.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::client::{Answer, get, post, send};
use super::fake::{Fake, Setup};

#[track_caller]
fn check(answer: &Answer, status: u16, code: &str, param: Option<&str>) {
    let body = answer.json();
    let error = &body["error"];
    assert_eq!(answer.status, status, "{body}");
    assert_eq!(error["code"], code, "{body}");
    assert_eq!(error["param"].as_str(), param, "{body}");
    assert!(error["message"].as_str().is_some_and(|m| m.len() > 10), "{body}");
    assert!(error["type"].is_string(), "{body}");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(answer.headers.contains_key("x-request-id"));
    assert!(answer.headers.contains_key("openai-processing-ms"));
}

fn chat(extra: &Value) -> String {
    let mut body = json!({"model": "org/fake", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body.to_string()
}

#[tokio::test]
async fn what_a_caller_may_get_wrong() {
    let fake = Fake::start(Setup { context: 256, ..Setup::default() });
    let long = "word ".repeat(2_000);
    let table: Vec<(Vec<u8>, u16, &str, Option<&str>)> = vec![
        (b"".to_vec(), 400, "invalid_json", None),
        (b"{\"model\"".to_vec(), 400, "invalid_json", None),
        (b"{\"model\": \"\xff\"}".to_vec(), 400, "invalid_utf8", None),
        (b"[]".to_vec(), 400, "invalid_type", None),
        (b"{}".to_vec(), 400, "missing_required_parameter", Some("model")),
        (chat(&json!({"model": "gpt-5"})).into(), 404, "model_not_found", Some("model")),
        (chat(&json!({"messages": 3})).into(), 400, "invalid_type", Some("messages")),
        (
            chat(&json!({"max_tokens": 0})).into(),
            400,
            "integer_below_min_value",
            Some("max_tokens"),
        ),
        (chat(&json!({"n": 1000})).into(), 400, "integer_above_max_value", Some("n")),
        (chat(&json!({"wibble": 1})).into(), 400, "unknown_parameter", Some("wibble")),
        (
            chat(&json!({"stop_token_ids": [99_999]})).into(),
            400,
            "invalid_value",
            Some("stop_token_ids"),
        ),
        (
            chat(&json!({"logit_bias": {"99999": 1}})).into(),
            400,
            "invalid_value",
            Some("logit_bias"),
        ),
        (
            chat(&json!({"min_tokens": 4000})).into(),
            400,
            "context_length_exceeded",
            Some("min_tokens"),
        ),
        (
            chat(&json!({"messages": [{"role": "user", "content": long}]})).into(),
            400,
            "context_length_exceeded",
            Some("messages"),
        ),
    ];
    for (body, status, code, param) in table {
        check(&post(&fake.router, "/v1/chat/completions", body).await, status, code, param);
    }
    let plain = |prompt: Value| json!({"model": "org/fake", "prompt": prompt}).to_string();
    let table = [
        (plain(json!([1, 99_999])), "invalid_value", Some("prompt")),
        (plain(json!(vec![1; 256])), "context_length_exceeded", Some("prompt")),
        (plain(json!(1.5)), "invalid_type", Some("prompt")),
    ];
    for (body, code, param) in table {
        check(&post(&fake.router, "/v1/completions", body).await, 400, code, param);
    }
    check(
        &post(&fake.router, "/detokenize", "{\"tokens\":[999999]}").await,
        400,
        "invalid_value",
        Some("tokens"),
    );
    // Nothing of all this reached the engine.
    assert_eq!(fake.models.first().expect("the fake").engine.open(), 0);
}

/// Parsed, and refused where no model can look at them: the place of the first one is named.
#[tokio::test]
async fn images_are_refused_by_their_place() {
    let fake = Fake::start(Setup::default());
    let body = chat(&json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]}]}));
    let answer = post(&fake.router, "/v1/chat/completions", body).await;
    check(&answer, 400, "images_not_supported", Some("messages[0].content[1]"));
}

#[tokio::test]
async fn the_longest_prompt_that_fits_is_served() {
    let fake = Fake::start(Setup { context: 256, ..Setup::default() });
    let body = json!({"model": "org/fake", "prompt": vec![1; 255], "max_tokens": 99});
    let answer = post(&fake.router, "/v1/completions", body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["usage"]["completion_tokens"], 1);
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn routes_and_methods() {
    let fake = Fake::start(Setup::default());
    check(&get(&fake.router, "/v2/nothing").await, 404, "unknown_url", None);
    check(&get(&fake.router, "/v1/models/no/such").await, 404, "model_not_found", Some("model"));
    check(&get(&fake.router, "/v1/models/%ff").await, 404, "model_not_found", Some("model"));
    let wrong = get(&fake.router, "/v1/chat/completions").await;
    check(&wrong, 405, "method_not_allowed", None);
    assert_eq!(wrong.headers["allow"], "POST");
    check(&post(&fake.router, "/v1/models", "").await, 405, "method_not_allowed", None);
}

#[tokio::test]
async fn bodies_are_bounded() {
    let mut setup = Setup::default();
    setup.limits.body_bytes_max = 1 << 20;
    let fake = Fake::start(setup);
    let path = "/v1/chat/completions";
    let big = vec![b' '; 20 << 20];
    check(&post(&fake.router, path, big.clone()).await, 413, "request_too_large", None);
    // The same without an announced length.
    let pieces = big.chunks(64 << 10).map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
    let pieces: Vec<_> = pieces.collect();
    let stream = Body::from_stream(futures_util::stream::iter(pieces));
    check(&post(&fake.router, path, stream).await, 413, "request_too_large", None);
    let zipped = Request::post(path).header("content-encoding", "gzip").body(Body::empty());
    let answer = send(&fake.router, zipped.expect("a request")).await;
    check(&answer, 400, "unsupported_content_encoding", None);
}

#[tokio::test]
async fn keys_and_ids() {
    let fake = Fake::start(Setup { keys: vec!["open-sesame"], ..Setup::default() });
    check(&get(&fake.router, "/v1/models").await, 401, "invalid_api_key", None);
    assert_eq!(get(&fake.router, "/health").await.status, 200);
    assert_eq!(get(&fake.router, "/ready").await.status, 200);
    let ask = |name: &str, value: &str, id: &str| {
        let request = Request::get("/v1/models").header(name, value).header("x-request-id", id);
        request.body(Body::empty()).expect("a request")
    };
    let answer = send(&fake.router, ask("authorization", "Bearer open-sesame", "my-id/7")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["x-request-id"], "my-id/7");
    let answer = send(&fake.router, ask("x-api-key", "open-sesame", "no blanks")).await;
    assert_eq!(answer.status, 200);
    let made = answer.headers["x-request-id"].to_str().expect("text");
    assert!(made.starts_with("req_") && made.len() == 28, "{made}");
    check(
        &send(&fake.router, ask("x-api-key", "open-sesam", "a")).await,
        401,
        "invalid_api_key",
        None,
    );
}

#[tokio::test]
async fn not_ready_is_no_mistake_of_the_caller() {
    let fake = Fake::start(Setup { loaded: false, ..Setup::default() });
    check(&get(&fake.router, "/ready").await, 503, "unavailable", None);
    let body = chat(&json!({"model": "later"}));
    let answer = post(&fake.router, "/v1/chat/completions", body).await;
    check(&answer, 503, "unavailable", None);
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test]
async fn what_calls_itself_something_else_is_not_read() {
    let fake = Fake::start(Setup::default());
    let table = [
        (None, 200),
        (Some("application/json"), 200),
        (Some("Application/JSON; charset=utf-8"), 200),
        (Some("application/vnd.api+json"), 200),
        // What a web page can have a browser send to any address, and what curl -d says.
        (Some("text/plain;charset=UTF-8"), 400),
        (Some("application/x-www-form-urlencoded"), 400),
        (Some("multipart/form-data; boundary=x"), 400),
    ];
    for (kind, status) in table {
        let mut request = Request::post("/v1/chat/completions");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let body = Body::from(chat(&json!({"max_tokens": 1})));
        let answer = send(&fake.router, request.body(body).expect("a request")).await;
        assert_eq!(answer.status, status, "{kind:?} {}", answer.body);
        if status == 400 {
            check(&answer, 400, "unsupported_content_type", None);
        }
    }
}

/// Making tokens of megabytes that cannot fit held up everyone else with a long prompt.
#[tokio::test]
async fn hopeless_prompts_are_refused_unread() {
    let fake = Fake::start(Setup { context: 256, ..Setup::default() });
    let long = "\u{e9}x".repeat(512 << 10);
    let plain = json!({"model": "org/fake", "prompt": long}).to_string();
    let chat = chat(&json!({"messages": [{"role": "user", "content": long}]}));
    let code = "context_length_exceeded";
    for (path, body, field) in [
        ("/v1/completions", &plain, "prompt"),
        ("/v1/chat/completions", &chat, "messages"),
        ("/tokenize", &plain, "prompt"),
    ] {
        let answer = post(&fake.router, path, body.clone()).await;
        check(&answer, 400, code, Some(field));
        assert!(answer.body.contains("far more"), "{}", answer.body);
    }
    // What fits as a whole is taken, however long its text is beside the tokens.
    let counted = json!({"model": "org/fake", "prompt": "x".repeat(100_000)}).to_string();
    assert_eq!(post(&fake.router, "/tokenize", counted).await.json()["count"], 100_000);
}
