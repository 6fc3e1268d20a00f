//! What is taken and what is refused, each with the field that the refusal names.

use serde_json::json;

use super::*;

/// A one-pixel GIF.
const PIXEL: &str = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAkQBADs=";

/// A request with these fields changed.
fn with(change: Value) -> Vec<u8> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in change.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body.to_string().into_bytes()
}

fn user(content: Value) -> Value {
    json!({"messages": [{"role": "user", "content": content}]})
}

/// The field that is named, and a part of what is said.
fn refused(change: Value, param: Option<&str>, part: &str) {
    let failure = parse(&with(change.clone()), "m").expect_err(&change.to_string());
    let body = failure.body();
    let error = &body["error"];
    assert_eq!(error["param"].as_str(), param, "{change}: {error}");
    assert!(error["message"].as_str().unwrap_or_default().contains(part), "{change}: {error}");
}

fn taken(change: Value) -> Ask {
    parse(&with(change.clone()), "m").unwrap_or_else(|failure| panic!("{change}: {failure:?}"))
}

#[test]
fn defaults_are_openais() {
    let ask = taken(json!({}));
    let turn = Message { role: Role::User, text: "hi".to_owned(), images: 0 };
    let expect = Ask {
        messages: vec![turn],
        images: Vec::new(),
        tokens_max: None,
        temperature: 1.0,
        top_p: 1.0,
        top_k: None,
        min_p: 0.0,
        stop: Vec::new(),
        stream: false,
        stream_usage: false,
    };
    assert_eq!(ask, expect);
    assert_eq!(taken(json!({"seed": null, "n": 1, "temperature": null})), expect);
}

#[test]
fn fields_are_honoured() {
    let ask = taken(json!({
        "max_completion_tokens": 7, "temperature": 0, "top_p": 0.5, "top_k": 3, "min_p": 0.25,
        "stop": ["a", "b"], "stream": true, "stream_options": {"include_usage": true},
    }));
    assert_eq!((ask.tokens_max, ask.top_k), (Some(7), Some(3)));
    assert_eq!((ask.temperature, ask.top_p, ask.min_p), (0.0, 0.5, 0.25));
    assert_eq!(
        (ask.stop, ask.stream, ask.stream_usage),
        (vec!["a".into(), "b".into()], true, true)
    );
    assert_eq!(taken(json!({"max_tokens": 5, "stop": "x"})).stop, ["x"]);
}

#[test]
fn images_are_counted_by_message() {
    let ask = taken(user(json!([
        {"type": "text", "text": "what "},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "auto"}},
        {"type": "text", "text": "is it?"},
    ])));
    assert_eq!((ask.messages[0].text.as_str(), ask.messages[0].images), ("what is it?", 1));
    let images = parts::decode(&ask.images).expect("an image");
    assert_eq!((images[0].width(), images[0].height()), (1, 1));
}

#[test]
fn what_is_not_honoured_is_refused_by_name() {
    for (change, param, part) in [
        (json!({"seed": 1}), "seed", "one generator"),
        (json!({"tools": []}), "tools", "no tool calls"),
        (json!({"user": "me"}), "user", "not honoured"),
        (json!({"max_token": 1}), "max_token", "not honoured"),
        (json!({"model": "other"}), "model", "'m' is"),
        (json!({"model": 1}), "model", "expected a string"),
        (json!({"n": 2}), "n", "expected 1"),
        (json!({"temperature": 2.5}), "temperature", "0 to 2"),
        (json!({"top_p": 0}), "top_p", "more than 0"),
        (json!({"top_k": 0}), "top_k", "from 1"),
        (json!({"min_p": 1}), "min_p", "less than 1"),
        (json!({"max_tokens": 0}), "max_tokens", "from 1"),
        (json!({"max_tokens": 1.5}), "max_tokens", "from 1"),
        (json!({"max_tokens": 1, "max_completion_tokens": 2}), "max_tokens", "something else"),
        (json!({"stop": ["a", ""]}), "stop", "none of them empty"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop", "up to four"),
        (json!({"stream": "yes"}), "stream", "true or false"),
        (json!({"stream_options": {}}), "stream_options", "'stream': true"),
        (json!({"stream": true, "stream_options": {"x": 1}}), "stream_options.x", "not honoured"),
        (json!({"messages": []}), "messages", "a list of messages"),
        (json!({"messages": ["hi"]}), "messages[0]", "an object"),
    ] {
        refused(change, Some(param), part);
    }
    assert!(parse(b"{", "m").is_err() && parse(b"[]", "m").is_err());
}

#[test]
fn messages_are_refused_by_their_path() {
    let image = |url: &str| json!([{"type": "image_url", "image_url": {"url": url}}]);
    let url = "messages[0].content[0].image_url.url";
    for (change, param, part) in [
        (user(json!([])), "messages[0].content", "list of parts"),
        (user(json!([{"type": "input_audio"}])), "messages[0].content[0].type", "'image_url' here"),
        (user(json!([{"type": "text", "text": 1}])), "messages[0].content[0].text", "a string"),
        (user(image("https://example.com/a.png")), url, "not fetched"),
        (user(image("data:text/plain;base64,AAAA")), url, "PNG, JPEG"),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].role", "expected"),
        (
            json!({"messages": [{"role": "user", "content": "x", "name": "me"}]}),
            "messages[0].name",
            "not honoured",
        ),
        (
            json!({"messages": [{"role": "system", "content": image(PIXEL)}]}),
            "messages[0].content[0]",
            "only a user's",
        ),
    ] {
        refused(change, Some(param), part);
    }
    let many: Vec<_> = (0..=parts::IMAGES_MAX).map(|_| image(PIXEL)[0].clone()).collect();
    refused(user(json!(many)), Some("messages[0].content[8]"), "too many");
}
