//! The whole way: a caller, this program without a model of its own, a provider.

use std::path::Path;

use clap::{Args as _, FromArgMatches as _};
use gateway::config::{Config, Flags};
use gateway::route::Routes;
use hearth_tests::http::{self, Answer};
use hearth_tests::server::Server;
use http_body_util::Full;
use hyper::Response;
use serde_json::{Value, json as value};

use super::far::{self, Asked, CHAT, Far, Folder, json};

/// Why a configuration is refused; empty: it is not.
pub(crate) fn refusal(file: &str) -> String {
    let command = Flags::augment_args(clap::Command::new("test").no_binary_name(true));
    let matches = command.get_matches_from(["--model", "none", "--config", file]);
    let flags = Flags::from_arg_matches(&matches).expect("flags");
    let env = [("HOME", "/home/nobody"), ("OTHER_KEY", "a-secret-key")];
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    match Config::load(&flags, env) {
        Err(error) => error.to_string(),
        Ok(loaded) => Routes::new(&loaded.config.routing, &[]).err().unwrap_or_default(),
    }
}

/// What a provider sends beside its answer, for one connection or for itself.
const OWN: [(&str, &str); 5] = [
    ("keep-alive", "timeout=5"),
    ("proxy-authenticate", "Basic"),
    ("set-cookie", "a=b"),
    ("x-far", "1"),
    ("server", "far"),
];

fn answer(asked: &Asked) -> far::Answer {
    let body: Value = serde_json::from_slice(&asked.body).expect("JSON");
    let builder =
        || OWN.iter().fold(Response::builder(), |b, (name, value)| b.header(*name, *value));
    let stream = || {
        let chunk = |choices: Value, usage: Value| {
            let chunk = value!({ "id": "1", "object": "chat.completion.chunk", "created": 1,
                "model": "m", "choices": choices, "usage": usage });
            format!("data: {chunk}\n\n")
        };
        let text = |text: &str| {
            let delta = value!({ "role": "assistant", "content": text });
            chunk(value!([{ "index": 0, "delta": delta, "finish_reason": null }]), Value::Null)
        };
        let end = value!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]);
        let usage = value!({ "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 });
        [text("Hel"), text("lo"), chunk(end, Value::Null), chunk(value!([]), usage)].concat()
            + "data: [DONE]\n\n"
    };
    let full = |answer: hyper::http::response::Builder, body: String| {
        answer.body(Full::from(body)).expect("an answer")
    };
    match body["model"].as_str().expect("a model") {
        "busy" => {
            let answer = builder().status(429).header("date", "Sat, 21 Nov 2026 12:00:00 GMT");
            full(answer.header("retry-after", "Sat, 21 Nov 2026 12:00:09 GMT"), "{}".to_owned())
        }
        "closed" => json(401, "{\"error\":{\"message\":\"wrong key a-secret\"}}"),
        _ if body["stream"] == true => {
            full(builder().header("content-type", "text/event-stream"), stream())
        }
        _ => full(builder().header("content-type", "application/json"), CHAT.to_owned()),
    }
}

fn ask(server: &Server, path: &str, model: &str, stream: bool) -> Answer {
    let body = value!({ "model": model, "stream": stream, "max_tokens": 9,
        "messages": [{ "role": "user", "content": "Hi" }] });
    let answer =
        http::open_as(&server.url, Some("a-caller-s-key"), "POST", path, &body.to_string());
    answer.and_then(http::Stream::finish).expect("an answer")
}

fn parsed(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_answers_in_place_of_a_model() {
    let far = Far::new(answer).await;
    // A stream that begins, and then falls silent.
    let stalls = far::raw(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
         4c\r\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"},\"x\":\"xxxxxxxxxx\"}]}\n\n\r\n",
    )
    .await;
    let folder = Folder::new();
    let config = folder.file(
        "hearth.toml",
        &format!(
            "[providers.mine]\nkind = \"compatible\"\nbase_url = \"{}\"\nkey = \"a-far-key\"\n\
             [providers.stalls]\nkind = \"compatible\"\nidle_timeout = \"300ms\"\n\
             base_url = \"http://127.0.0.1:{stalls}/v1\"\n",
            far.url()
        ),
    );
    let binary = Path::new(env!("CARGO_BIN_EXE_hearth"));
    let server = Server::start_binary(binary, &["--model", "none", "--config", &config]);

    let whole = ask(&server, "/v1/chat/completions", "mine/some/model", false);
    assert_eq!((whole.status, &whole.body[..]), (200, CHAT));
    let route = "mine/some/model; pool=mine/some/model; reason=priority; attempt=1";
    assert_eq!(whole.header("x-hearth-route"), Some(route));
    let streamed = ask(&server, "/v1/chat/completions", "mine/some/model", true);
    assert_eq!(streamed.status, 200);
    assert!(streamed.body.ends_with("data: [DONE]\n\n"), "{streamed:?}");
    assert!(streamed.body.contains("\"Hel\"") && streamed.body.contains("\"lo\""), "{streamed:?}");
    assert!(!streamed.body.contains("prompt_tokens"), "nobody asked for usage: {streamed:?}");
    let translated = ask(&server, "/v1/messages", "mine/some/model", false);
    assert_eq!(parsed(&translated)["content"][0]["text"], "Hello", "{translated:?}");
    for answer in [&whole, &streamed, &translated] {
        for (name, _) in OWN {
            assert_eq!(answer.header(name), None, "{answer:?}");
        }
    }
    let asked = far.asked();
    assert_eq!(asked.len(), 3);
    for asked in &asked {
        assert_eq!(asked.path, "/v1/chat/completions");
        assert_eq!(asked.header("authorization"), "Bearer a-far-key");
        let body: Value = serde_json::from_slice(&asked.body).expect("JSON");
        assert_eq!(body["model"], "some/model");
        let stream = body["stream"] == true;
        assert_eq!(body["stream_options"]["include_usage"] == true, stream, "{body}");
    }

    let busy = ask(&server, "/v1/chat/completions", "mine/busy", false);
    assert_eq!((busy.status, busy.header("retry-after")), (429, Some("9")), "{busy:?}");
    let closed = ask(&server, "/v1/chat/completions", "mine/closed", false);
    assert_eq!(closed.status, 502);
    assert!(!closed.body.contains("secret") && closed.body.contains("'mine'"), "{closed:?}");
    assert_eq!(ask(&server, "/v1/chat/completions", "nobody/x", false).status, 404);

    let cut = ask(&server, "/v1/chat/completions", "stalls/x", true);
    assert!(cut.body.contains("Hel") && cut.body.contains("\"error\""), "{cut:?}");
    assert!(!cut.body.contains("[DONE]"), "{cut:?}");
}
