//! What a provider may not make of this server, and what an operator's lines may not make of a
//! request.

use bytes::Bytes;
use gateway::upstream::{About, Call};
use http_body_util::Full;
use hyper::Response;
use hyper::header::{HeaderName, HeaderValue};
use wire::{Dialect, ErrorKind};

use super::far::{self, CHAT, Far, call, chat, compatible, json, provider};

#[tokio::test]
async fn nobody_follows_a_redirect() {
    let other = Far::new(|_| json(200, CHAT)).await;
    let to = other.url();
    let server = Far::new(move |_| {
        let answer = Response::builder().status(307).header("location", &to);
        answer.body(Full::default()).expect("an answer")
    })
    .await;
    let provider = compatible(&server.url(), "key = \"a-secret-key\"");
    let trouble = provider.ask(chat()).await.expect_err("a redirect");
    assert_eq!((trouble.about, trouble.failure.error.kind), (About::Ill, ErrorKind::Upstream));
    assert_eq!((server.asked().len(), other.connections()), (1, 0));
}

#[tokio::test]
async fn an_answer_is_what_it_says() {
    for (stream, kind, encoding, taken) in [
        (false, "application/json", "", true),
        (false, "Application/JSON; charset=utf-8", "identity", true),
        (false, "application/problem+json", "", true),
        (false, "application/json", "gzip", false),
        (false, "text/html", "", false),
        (false, "application/jsonl", "", false),
        (false, "text/event-stream", "", false),
        (false, "", "", false),
        (true, "text/event-stream; charset=utf-8", "", true),
        (true, "text/event-stream", "br", false),
        (true, "text/event-streams", "", false),
        (true, "application/vnd.amazon.eventstream", "", false),
        (true, "application/json", "", false),
    ] {
        let server = Far::new(move |_| {
            let answer = [("content-type", kind), ("content-encoding", encoding)]
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .fold(Response::builder(), |answer, (name, value)| answer.header(name, value));
            answer.body(Full::from(CHAT)).expect("an answer")
        })
        .await;
        let provider = compatible(&server.url(), "");
        let answer = provider.ask(Call { stream, ..chat() }).await;
        assert_eq!(answer.is_ok(), taken, "{stream} {kind} {encoding}");
        if let Err(trouble) = answer {
            let error = trouble.failure.error;
            assert_eq!((trouble.about, error.kind), (About::Ill, ErrorKind::Upstream));
            assert!(!error.message.contains("html"), "{error:?}");
        }
    }
}

/// A provider's words for an error are read up to a bound, and passed on up to a smaller one.
#[tokio::test]
async fn long_errors_are_cut() {
    for (length, least, most) in [(60_000, 2_000, 3_000), (10_000_000, 1, 100)] {
        let server = Far::new(move |_| {
            json(400, format!("{{\"error\":{{\"message\":\"{}\"}}}}", "x".repeat(length)))
        })
        .await;
        let trouble = compatible(&server.url(), "").ask(chat()).await.expect_err("an error");
        let length = trouble.failure.error.message.len();
        assert!((least..most).contains(&length), "{length}");
        assert_eq!(trouble.about, About::Request);
    }
    // One that never ends is read no further either.
    let endless = "HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n10000\r\n".to_owned();
    let endless = endless + &"x".repeat(0x10000) + "\r\n1\r\nx\r\n";
    let url = format!("http://127.0.0.1:{}/v1", far::raw(endless).await);
    let trouble = compatible(&url, "idle_timeout = \"20s\"").ask(chat()).await;
    assert_eq!(trouble.expect_err("an error").about, About::Ill);
}

#[tokio::test]
async fn a_smuggled_answer_is_none() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
         content-length: 3\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent length: 2\r\n\r\n{}",
        "HTTP/1.1 2OO OK\r\ncontent-type: application/json\r\n\r\n{}",
        "{}",
    ] {
        let url = format!("http://127.0.0.1:{}/v1", far::raw(head).await);
        let provider = compatible(&url, "first_byte_timeout = \"5s\"");
        let trouble = provider.ask(chat()).await.expect_err(head);
        assert_eq!(trouble.about, About::Ill, "{head}");
    }
}

#[tokio::test]
async fn headers_are_the_operator_s_and_the_caller_s() {
    let server = Far::new(|_| json(200, CHAT)).await;
    let lines = format!(
        "kind = \"anthropic\"\nbase_url = \"{}\"\nkey = \" a-secret-key\\n\"\n\
         headers = {{ X-Team = \"a b\", anthropic-beta = \"ours\" }}\n\
         body = {{ metadata = {{ user_id = \"us\" }} }}",
        server.url()
    );
    let provider = provider(&lines).expect("a provider");
    let header = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let headers = [
        header("anthropic-beta", "one"),
        header("anthropic-beta", "two"),
        header("anthropic-version", "2024-01-01"),
    ];
    let call = Call { headers: &headers, ..call(Dialect::Messages, "m") };
    provider.ask(call).await.expect("an answer");
    let asked = server.asked().remove(0);
    assert_eq!(asked.path, "/v1/messages");
    let betas: Vec<_> = asked.headers.get_all("anthropic-beta").iter().collect();
    assert_eq!(betas, ["one", "two", "ours"]);
    for (name, value) in [
        ("anthropic-version", "2024-01-01"),
        ("x-api-key", "a-secret-key"),
        ("x-team", "a b"),
        ("content-type", "application/json"),
        ("accept", "application/json"),
    ] {
        assert_eq!(asked.header(name), value);
        assert_eq!(asked.headers.get_all(name).iter().count(), 1, "{name}");
    }
    assert!(asked.header("user-agent").starts_with("hearth/"));
    assert_eq!(asked.body, Bytes::from("{\"messages\":[],\"metadata\":{\"user_id\":\"us\"}}"));
}

/// No line of a configuration makes a second header, a second request, or nothing at all. What is
/// secret stands in no error.
#[test]
fn lines_that_cannot_be_meant() {
    let url = "base_url = \"http://127.0.0.1:9/v1\"";
    for (lines, part) in [
        ("headers = { a = \"x\\r\\nb: secret\" }", "headers.a holds what a header cannot"),
        ("headers = { a = \"secret\\u0000\" }", "headers.a holds"),
        ("headers = { \"a: b\\r\\nc\" = \"secret\" }", "is no name of one"),
        ("headers = { \"\" = \"secret\" }", "is no name of one"),
        ("headers = { Host = \"secret\" }", "headers.Host: this server sets it itself"),
        ("headers = { Transfer-Encoding = \"chunked\" }", "this server sets it itself"),
        ("headers = { connection = \"x\" }", "this server sets it itself"),
        ("key = \"a\"\nheaders = { Authorization = \"secret\" }", "key is sent in it already"),
        ("key = \"secret\\r\\nx: y\"", "key holds what a header cannot"),
        ("key = \" \"", "key is empty"),
        ("secret_key = \"secret\"", "kind compatible has no use for it"),
        ("session_token = \"secret\"", "kind compatible has no use for it"),
        ("region = \"eu\"", "has no place for it"),
        ("proxy = \"https://me:secret@127.0.0.1:1\"", "proxy is not of the form"),
        ("ca = \"/no/such/file\"", "ca: /no/such/file"),
        ("keys = \"secret\"", "unknown field `keys`"),
    ] {
        let error = provider(&format!("kind = \"compatible\"\n{url}\n{lines}")).err();
        let error = error.unwrap_or_else(|| panic!("taken: {lines}"));
        assert!(error.contains(part), "{lines}: {error}");
        assert!(!error.contains("secret\"") || error.contains("unknown field"), "{error}");
    }
    for base in
        ["", "ftp://h/v1", "h/v1", "http:///v1", "https://me:secret@h/v1", "https://h/v1?a=secret"]
    {
        let error = provider(&format!("kind = \"compatible\"\nbase_url = \"{base}\"")).err();
        let error = error.unwrap_or_else(|| panic!("taken: {base}"));
        assert!(error.contains("base_url") && !error.contains("secret"), "{error}");
    }
}
