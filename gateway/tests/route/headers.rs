//! What a caller's head says stays here, and what a provider's head says stays there: keys,
//! cookies, and whatever belongs to one connection alone.

use axum::body::Body;
use axum::http::Request;

use crate::caller::{Inbound, gateway, provider, send};
use crate::speech::{chunk, events, whole};
use crate::upstream::{Step, Upstream};

/// Names that a caller may try to put into the request to a provider.
const SMUGGLED: [(&str, &str); 14] = [
    ("connection", "keep-alive, x-evil"),
    ("x-evil", "1"),
    ("transfer-encoding", "chunked"),
    ("te", "trailers"),
    ("upgrade", "h2c"),
    ("proxy-authorization", "Basic evil"),
    ("cookie", "evil=1"),
    ("authorization", "Bearer evil"),
    ("x-api-key", "evil"),
    ("x-goog-api-key", "evil"),
    ("x-forwarded-for", "6.6.6.6"),
    ("forwarded", "for=6.6.6.6"),
    ("expect", "100-continue"),
    ("x-hearth-route", "evil"),
];

#[tokio::test]
async fn a_callers_head_stays_here() {
    let ways = [
        ("compatible", Inbound::Chat),
        ("anthropic", Inbound::Messages),
        ("gemini", Inbound::Chat),
    ];
    for (kind, inbound) in ways {
        let upstream = Upstream::well("first").await;
        let more = "headers = { x-own = \"yes\" }\nlost_fields = \"drop\"\n";
        let router = gateway(&provider("p", kind, &upstream.url, more));
        let (path, body) = inbound.request("p/m", false, "hi");
        let mut request = Request::post(path).header("host", "localhost:6666");
        for (name, value) in SMUGGLED {
            request = request.header(name, value);
        }
        let request = request
            .header("anthropic-version", "2023-01-01")
            .header("anthropic-beta", "a-beta")
            .body(Body::from(body.to_string()));
        let got = send(&router, request.expect("a request")).await;
        assert_eq!(got.status, 200, "{}", got.text());
        let seen = upstream.seen().remove(0);
        let all = |wanted: &str| -> Vec<&str> {
            let named = seen.headers.iter().filter(|(name, _)| name == wanted);
            named.map(|(_, value)| value.as_str()).collect()
        };
        let evil = seen.headers.iter().find(|(name, value)| {
            let told = value.contains("evil") || value.contains("6.6.6.6");
            told || value.contains("localhost:6666") || name.contains("evil")
        });
        assert_eq!(evil, None, "{kind}");
        for gone in ["connection", "transfer-encoding", "te", "upgrade", "expect", "cookie"] {
            assert!(all(gone).is_empty(), "{kind} {gone}: {:?}", seen.headers);
        }
        // The provider's own key, its own host, the operator's own header; each once.
        let (name, value) = match kind {
            "compatible" => ("x-own", "yes"),
            "anthropic" => ("x-api-key", "key-of-a-test"),
            _ => ("x-goog-api-key", "key-of-a-test"),
        };
        assert_eq!(all(name), [value]);
        assert_eq!(all("x-own"), ["yes"]);
        assert_eq!(all("host"), [upstream.url.trim_start_matches("http://")]);
        assert_eq!(all("content-length").len(), 1);
        // What means something to the dialect goes along, where the dialect is the same.
        let same = kind == "anthropic";
        assert_eq!(all("anthropic-beta"), if same { vec!["a-beta"] } else { vec![] }, "{kind}");
        let version = if same { vec!["2023-01-01"] } else { vec![] };
        assert_eq!(all("anthropic-version"), version, "{kind}");
    }
}

#[tokio::test]
async fn a_providers_head_stays_there() {
    const OWN: &str = "server: evil\r\nset-cookie: evil=1\r\nconnection: x-evil\r\nx-evil: 1\r\n\
        x-request-id: evil\r\nvia: evil\r\nalt-svc: evil\r\nx-hearth-route: evil\r\n\
        access-control-allow-origin: evil\r\nstrict-transport-security: evil\r\n";
    let upstream = Upstream::start(|seen| {
        if !seen.streams() {
            return crate::speech::answer(
                200,
                OWN,
                whole(seen.tongue(), "x").to_string().as_bytes(),
            );
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\n{OWN}content-type: text/event-stream\r\n\
             transfer-encoding: chunked\r\ntrailer: x-late\r\n\r\n"
        );
        let all = events(seen.tongue(), "x").concat();
        vec![Step::Bytes(head.into()), chunk(all), Step::Bytes(b"0\r\nx-late: evil\r\n\r\n".into())]
    })
    .await;
    let router = gateway(&provider("p", "compatible", &upstream.url, "lost_fields = \"drop\"\n"));
    for inbound in Inbound::ALL {
        for stream in [false, true] {
            let got = crate::caller::ask(&router, inbound, "p/m", stream).await;
            assert_eq!(got.status, 200, "{}", got.text());
            assert!(inbound.ends(&got.text()) || !stream, "{}", got.text());
            let evil = got.headers.iter().find(|(name, value)| {
                name.as_str().contains("evil") || value.as_bytes() == b"evil"
            });
            assert_eq!(evil, None, "{inbound:?} {stream}");
            for gone in ["server", "set-cookie", "connection", "transfer-encoding", "via"] {
                assert!(!got.headers.contains_key(gone), "{gone}: {:?}", got.headers);
            }
        }
    }
}

/// A name of a model is a part of a path in some dialects: it opens no other path.
#[tokio::test]
async fn a_model_opens_no_other_path() {
    let upstream = Upstream::well("first").await;
    let router = gateway(&provider("p", "gemini", &upstream.url, "lost_fields = \"drop\"\n"));
    for (model, segment) in [
        ("p/../../admin", "..%2F..%2Fadmin"),
        ("p/m?key=x", "m%3Fkey%3Dx"),
        ("p/m#x", "m%23x"),
        ("p/m\r\nx-evil: 1", "m%0D%0Ax-evil%3A%201"),
        ("p/\u{f6}", "%C3%B6"),
    ] {
        let before = upstream.count();
        let got = crate::caller::ask(&router, Inbound::Chat, model, false).await;
        assert_eq!((got.status, upstream.count()), (200, before + 1), "{model}: {}", got.text());
        let path = upstream.seen().remove(before).path;
        assert_eq!(path, format!("/v1/models/{segment}:generateContent"));
    }
}

/// Two fields of one name would be read differently by two readers.
#[tokio::test]
async fn a_field_said_twice_goes_nowhere() {
    let upstream = Upstream::well("first").await;
    let router = gateway(&provider("p", "compatible", &upstream.url, ""));
    for body in [
        r#"{"model":"p/m","model":"p/other","messages":[]}"#,
        r#"{"model":"p/m","stream":true,"stream":false,"messages":[]}"#,
        r#"{"model":"p/m","max_tokens":1,"max_tokens":9,"messages":[]}"#,
    ] {
        let request = Request::post("/v1/chat/completions").body(Body::from(body));
        let got = send(&router, request.expect("a request")).await;
        assert_eq!((got.status, upstream.count()), (400, 0), "{}", got.text());
    }
}
