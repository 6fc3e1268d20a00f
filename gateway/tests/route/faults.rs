//! Every fault of a provider, in every dialect, whole and streamed, with and without somebody else
//! to ask. Before the first byte another target answers; after it the caller is told that the
//! stream broke, and never reads a clean end.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::caller::{Answer, Inbound, ask, gateway, provider, request, send};
use crate::speech::{
    Tongue, answer, chunk, end, event_of, events, failure, failure_event, half, head, opening,
    pieces, stream_head, whole,
};
use crate::upstream::{Seen, Step, Upstream};

/// Longest waits of the gateways here.
const TIMES: &str = "first_byte_timeout = \"1200ms\"\nidle_timeout = \"900ms\"\n\
                     lost_fields = \"drop\"\n";

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expect {
    /// Another target answers; where there is none, the caller reads this status.
    Early(u16),
    /// The caller has read the beginning, and is told that it broke.
    Late,
    /// What the provider says is passed on as it is.
    Passed,
}
use Expect::{Early, Late, Passed};

/// A fault: what the provider does, and what becomes of a whole answer, of a stream that is
/// translated, and of one that is passed on.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) steps: fn(&Seen) -> Vec<Step>,
    expect: [Expect; 3],
}

/// An event that would say this, if all of it came.
const HALF: &[u8] = br#"{"contentBlockIndex":0,"delta":{"text":"half of an event"}}"#;

const ALWAYS: fn(u16) -> [Expect; 3] = |status| [Early(status); 3];

fn fault(name: &'static str, expect: [Expect; 3], steps: fn(&Seen) -> Vec<Step>) -> Fault {
    Fault { name, steps, expect }
}

pub(crate) fn faults() -> Vec<Fault> {
    let mut all = faults_of_connections();
    all.extend(faults_of_answers());
    all
}

/// Answers that do not come, or not to their end.
fn faults_of_connections() -> Vec<Fault> {
    vec![
        fault("429", ALWAYS(429), |_| answer(429, "retry-after: 7\r\n", b"{}")),
        fault("500", ALWAYS(502), |_| answer(500, "", b"{}")),
        fault("503", ALWAYS(503), |_| answer(503, "", b"<html>")),
        fault("reset before the head", ALWAYS(502), |_| vec![Step::Reset]),
        fault("closed before the head", ALWAYS(502), |_| vec![Step::Close]),
        fault("reset in half a head", ALWAYS(502), |_| {
            vec![Step::Bytes(b"HTTP/1.1 200 OK\r\ncontent-ty".into()), Step::Reset]
        }),
        fault("reset half way", [Early(502), Late, Late], |seen| halves(seen, Step::Reset)),
        fault("closed half way", [Early(502), Late, Late], |seen| halves(seen, Step::Close)),
        fault("a clean end half way", [Early(502), Late, Late], |seen| {
            if seen.streams() {
                return vec![opening(seen), chunk(half(seen.tongue(), "first")), end()];
            }
            let body = whole(seen.tongue(), "first").to_string();
            answer(200, "", &body.as_bytes()[..body.len() / 2])
        }),
        fault("silence before the head", ALWAYS(504), |_| vec![Step::Silence]),
        fault("silence half way", [Early(502), Late, Late], |seen| halves(seen, Step::Silence)),
        fault("silence behind the head", [Early(502), Early(504), Early(504)], |seen| {
            if seen.streams() {
                return vec![opening(seen), Step::Silence];
            }
            vec![Step::Bytes(head(200, "", 100)), Step::Silence]
        }),
        fault("half an event", [Early(502), Late, Late], |seen| {
            if seen.streams() {
                // Without its last four bytes.
                let lost = event_of(seen.tongue(), HALF);
                let lost = chunk(&lost[..lost.len() - 4]);
                return vec![opening(seen), chunk(half(seen.tongue(), "first")), lost, end()];
            }
            answer(200, "", b"{\"half\":\"of an")
        }),
    ]
}

/// Answers that come and are none.
fn faults_of_answers() -> Vec<Fault> {
    vec![
        fault("wrong JSON", [Early(502), Early(502), Late], |seen| {
            if seen.streams() {
                return vec![opening(seen), chunk(event_of(seen.tongue(), b"{oops")), end()];
            }
            answer(200, "", b"{oops}")
        }),
        fault("an empty body", ALWAYS(502), |seen| {
            if seen.streams() { vec![opening(seen), end()] } else { answer(200, "", b"") }
        }),
        fault("somebody's page", ALWAYS(502), |_| {
            let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n\
                        <html>";
            vec![Step::Bytes(page.into())]
        }),
        fault("a redirect", ALWAYS(502), |_| {
            answer(307, "location: http://127.0.0.1:1/v1/chat/completions\r\n", b"{}")
        }),
        fault("an error first", ALWAYS(502), |seen| {
            if seen.streams() {
                return vec![opening(seen), chunk(failure_event(seen.tongue())), end()];
            }
            answer(200, "", failure(seen.tongue()).to_string().as_bytes())
        }),
        fault("an error behind a token", [Early(502), Late, Late], |seen| {
            if seen.streams() {
                // Together with the tokens it would come before anything was handed out.
                let (tongue, pause) = (seen.tongue(), Step::Pause(Duration::from_millis(100)));
                let (tokens, failure) = (half(tongue, "first"), failure_event(tongue));
                return vec![opening(seen), chunk(tokens), pause, chunk(failure), end()];
            }
            answer(200, "", failure(seen.tongue()).to_string().as_bytes())
        }),
        fault("not UTF-8", [Early(502), Early(502), Late], |seen| {
            if seen.streams() {
                let event = event_of(seen.tongue(), b"{\"x\":\"\xff\xfe\"}");
                return vec![opening(seen), chunk(event), end()];
            }
            let body = whole(seen.tongue(), "first").to_string();
            let mut body = body.into_bytes();
            let at = body.windows(5).position(|five| five == b"Hello").expect("the text");
            body[at] = 0xff;
            answer(200, "", &body)
        }),
        fault("a head that crawls", ALWAYS(504), |_| {
            vec![Step::Slowly(head(200, "", 2), Duration::from_millis(40))]
        }),
        fault("a first event that crawls", [Passed, Early(504), Early(504)], |seen| {
            if seen.streams() {
                let event = pieces(seen.tongue(), "first").swap_remove(0);
                let bytes = event.into_iter().map(|byte| chunk([byte]));
                let crawl = bytes.flat_map(|b| [b, Step::Pause(Duration::from_millis(60))]);
                return std::iter::once(opening(seen)).chain(crawl).collect();
            }
            // A whole answer may take its time as long as it comes.
            let body = whole(seen.tongue(), "first").to_string().into_bytes();
            let (one, two) = body.split_at(body.len() - 3);
            vec![
                Step::Bytes(head(200, "", body.len())),
                Step::Bytes(one.to_vec()),
                Step::Slowly(two.to_vec(), Duration::from_millis(500)),
            ]
        }),
    ]
}

/// Half an answer, and then this.
fn halves(seen: &Seen, then: Step) -> Vec<Step> {
    // What a reset overtakes is lost, so it waits until the half has been read.
    let pause = Step::Pause(Duration::from_millis(100));
    if seen.streams() {
        return vec![opening(seen), chunk(half(seen.tongue(), "first")), pause, then];
    }
    let body = whole(seen.tongue(), "first").to_string().into_bytes();
    let sent = [&head(200, "", body.len())[..], &body[..body.len() / 2]].concat();
    vec![Step::Bytes(sent), pause, then]
}

/// Callers' dialects and providers' kinds: every dialect is translated and passed on.
const WAYS: [(Inbound, &str, Tongue); 26] = [
    (Inbound::Chat, "compatible", Tongue::Chat),
    (Inbound::Messages, "compatible", Tongue::Chat),
    (Inbound::Responses, "compatible", Tongue::Chat),
    (Inbound::Gemini, "compatible", Tongue::Chat),
    (Inbound::Chat, "anthropic", Tongue::Messages),
    (Inbound::Messages, "anthropic", Tongue::Messages),
    (Inbound::Responses, "anthropic", Tongue::Messages),
    (Inbound::Gemini, "anthropic", Tongue::Messages),
    (Inbound::Chat, "gemini", Tongue::Gemini),
    (Inbound::Messages, "gemini", Tongue::Gemini),
    (Inbound::Responses, "gemini", Tongue::Gemini),
    (Inbound::Gemini, "gemini", Tongue::Gemini),
    (Inbound::Chat, "openai", Tongue::Responses),
    (Inbound::Messages, "openai", Tongue::Responses),
    (Inbound::Responses, "openai", Tongue::Responses),
    (Inbound::Gemini, "openai", Tongue::Responses),
    (Inbound::Completions, "openai", Tongue::Responses),
    (Inbound::Chat, "bedrock", Tongue::Converse),
    (Inbound::Messages, "bedrock", Tongue::Converse),
    (Inbound::Responses, "bedrock", Tongue::Converse),
    (Inbound::Gemini, "bedrock", Tongue::Converse),
    (Inbound::Completions, "vllm", Tongue::Completions),
    (Inbound::Completions, "compatible", Tongue::Chat),
    (Inbound::Completions, "anthropic", Tongue::Messages),
    (Inbound::Completions, "gemini", Tongue::Gemini),
    (Inbound::Completions, "bedrock", Tongue::Converse),
];

fn passes(inbound: Inbound, tongue: Tongue) -> bool {
    format!("{inbound:?}") == format!("{tongue:?}")
}

/// One case; what is wrong with it.
async fn case(
    fault: &Fault,
    (inbound, kind, tongue): (Inbound, &str, Tongue),
    streams: bool,
    two: bool,
) -> Result<(), String> {
    let (ill, well) = (Upstream::start(fault.steps).await, Upstream::well("second").await);
    let targets = if two { "\"ill/m\", \"well/m\"" } else { "\"ill/m\"" };
    let more = match tongue {
        Tongue::Responses => format!("{TIMES}dialect = \"responses\"\n"),
        _ => TIMES.to_owned(),
    };
    let config = format!(
        "{}{}[pools.p]\ntargets = [{targets}]\n",
        provider("ill", kind, &ill.url, &more),
        provider("well", kind, &well.url, &more),
    );
    let router = gateway(&config);
    let (path, mut body) = inbound.request("p", streams, "hi");
    if two {
        // Of what is passed on something may be kept here.
        body.as_object_mut().expect("fields").remove("store");
    }
    let got = send(&router, request("", &path, &body)).await;
    let expect = match (streams, passes(inbound, tongue)) {
        (false, _) => fault.expect[0],
        (true, false) => fault.expect[1],
        (true, true) => fault.expect[2],
    };
    let check = |holds: bool, what: &str| {
        if holds { Ok(()) } else { Err(format!("{what}: {} {}", got.status, got.text())) }
    };
    check(ill.count() == 1, "one try at it")?;
    check(!got.text().contains("of an event"), "half an event is never passed on")?;
    match expect {
        Early(_) if two => {
            check(got.status == 200 && well.count() == 1, "the second one answers")?;
            check(got.text().contains("second") && !got.text().contains("first"), "alone")?;
            check(!streams || inbound.ends(&got.text()), "to its end")?;
            let route = "well/m; pool=p; reason=priority; attempt=2";
            check(got.route() == route, "the head says so")
        }
        Early(status) => refused(inbound, &got, status),
        Late => {
            check(well.count() == 0, "nobody else is asked behind the first byte")?;
            check(got.status == 200, "the head was sent")?;
            check(inbound.breaks(&got.text()), "the caller is told")?;
            check(!inbound.ends(&got.text()), "no clean end")
        }
        Passed => {
            check(got.status == 200 && well.count() == 0, "it answers")?;
            check(got.text().contains("first"), "with its words")
        }
    }
}

/// A refusal in the caller's dialect.
fn refused(inbound: Inbound, got: &Answer, status: u16) -> Result<(), String> {
    let body = got.text();
    let after = got.header("retry-after");
    let shape = match inbound {
        Inbound::Chat | Inbound::Completions | Inbound::Responses => "{\"error\":{\"message\":\"",
        Inbound::Messages => "{\"type\":\"error\",\"error\":{\"type\":\"",
        Inbound::Gemini => "{\"error\":{\"code\":",
    };
    let wait = match status {
        429 => "7",
        503 => "1",
        _ => "",
    };
    if got.status == status && after == wait && body.starts_with(shape) {
        return Ok(());
    }
    Err(format!("wanted {status} after {wait:?}, got {} after {after:?}: {body}", got.status))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_in_every_dialect() {
    let faults = faults();
    let mut cases = Vec::new();
    for fault in &faults {
        for way in WAYS {
            for (streams, two) in [(false, false), (false, true), (true, false), (true, true)] {
                cases.push((fault, way, streams, two));
            }
        }
    }
    let count = cases.len();
    let wrong: Vec<String> = stream::iter(cases)
        .map(|(fault, way, streams, two)| async move {
            let result = case(fault, way, streams, two).await;
            result.err().map(|why| {
                let (inbound, kind, _) = way;
                format!("{} | {inbound:?} -> {kind} stream={streams} two={two} | {why}", fault.name)
            })
        })
        .buffer_unordered(32)
        .filter_map(|wrong| async { wrong })
        .collect()
        .await;
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

/// A call is written as a whole in some dialects, so that nothing of it goes out before its end:
/// that is no empty stream.
#[tokio::test]
async fn an_answer_that_is_one_call() {
    let upstream = Upstream::start(|_| {
        let event = |choice: &str| chunk(format!("data: {{\"choices\":[{choice}]}}\n\n"));
        let call = r#"{"index":0,"id":"c1","function":{"name":"f","arguments":"{\"a\":1}"}}"#;
        let call = format!(r#"{{"index":0,"delta":{{"tool_calls":[{call}]}}}}"#);
        let last = r#"{"index":0,"delta":{},"finish_reason":"tool_calls"}"#;
        vec![stream_head(), event(&call), event(last), chunk("data: [DONE]\n\n"), end()]
    })
    .await;
    let config = provider("p", "compatible", &upstream.url, "lost_fields = \"drop\"\n");
    let router = gateway(&config);
    for inbound in Inbound::ALL {
        let got = ask(&router, inbound, "p/m", true).await;
        assert_eq!(got.status, 200, "{inbound:?}: {}", got.text());
        assert!(inbound.ends(&got.text()), "{inbound:?}: {}", got.text());
        let calls = inbound != Inbound::Completions;
        assert_eq!(got.text().contains("\"f\""), calls, "{inbound:?}: {}", got.text());
    }
}

/// Whoever sends without end is not listened to without end.
#[tokio::test(flavor = "multi_thread")]
async fn what_never_ends_is_bounded() {
    for (streams, most) in [(true, 8_u64 << 20), (false, 64 << 20)] {
        for inbound in [Inbound::Chat, Inbound::Messages] {
            let ill = Upstream::start(move |seen| {
                let head = match seen.streams() {
                    true => stream_head(),
                    false => Step::Bytes(
                        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                          transfer-encoding: chunked\r\n\r\n"
                            .into(),
                    ),
                };
                let line = "x".repeat(64 << 10);
                vec![head, chunk("data: {\""), Step::Endless(format!("10000\r\n{line}\r\n").into())]
            })
            .await;
            let config = provider("ill", "compatible", &ill.url, "lost_fields = \"drop\"\n");
            let got = ask(&gateway(&config), inbound, "ill/m", streams).await;
            assert_eq!(got.status, 502, "{}", got.text());
            crate::caller::until("it is left", || ill.left() == 1).await;
            // What lies in the sockets' buffers beside it.
            let written = ill.written();
            assert!(written < most + (16 << 20), "{inbound:?} {streams} {written}");
        }
    }
}

/// A 429 is passed on, costs one try and is no illness: the target is asked again when its time
/// is over.
#[tokio::test(flavor = "multi_thread")]
async fn busy_is_believed() {
    let ill = Upstream::start(|_| answer(429, "retry-after: 1\r\n", b"{}")).await;
    let config = provider("ill", "compatible", &ill.url, "");
    let router = gateway(&config);
    let got = ask(&router, Inbound::Chat, "ill/m", false).await;
    assert_eq!((got.status, got.header("retry-after"), ill.count()), (429, "1", 1));
    let meanwhile = ask(&router, Inbound::Chat, "ill/m", false).await;
    assert_eq!((meanwhile.status, meanwhile.header("retry-after"), ill.count()), (503, "1", 1));
    ill.turn(|seen| crate::speech::good(seen, "again"));
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let after = ask(&router, Inbound::Chat, "ill/m", false).await;
    assert_eq!((after.status, ill.count()), (200, 2), "{}", after.text());
}

/// When everything fails, trying again only makes it worse: of 100 requests a fifth may, and
/// twenty more.
#[tokio::test(flavor = "multi_thread")]
async fn tries_again_are_bounded() {
    // A refused key says nothing of a target's health, so that somebody is asked each time.
    let ill = Upstream::start(|_| answer(401, "", b"{}")).await;
    let other = Upstream::start(|_| answer(401, "", b"{}")).await;
    let config = format!(
        "{}{}[pools.p]\ntargets = [\"a/m\", \"b/m\"]\n",
        provider("a", "compatible", &ill.url, ""),
        provider("b", "compatible", &other.url, ""),
    );
    let router = gateway(&config);
    for _ in 0..100 {
        let got = ask(&router, Inbound::Chat, "p", false).await;
        assert_eq!(got.status, 502, "{}", got.text());
    }
    let tries = ill.count() + other.count();
    assert!((138..=140).contains(&tries), "{tries}");
}

/// Who does not take this server's key is asked last: a pool whose first target's key was revoked
/// serves all the same, for as long as it lasts.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_does_not_take_the_pool_along() {
    for status in [401, 403, 404] {
        let revoked = Upstream::start(move |_| answer(status, "", b"{}")).await;
        let well = Upstream::well("well").await;
        let config = format!(
            "{}{}[pools.p]\ntargets = [\"a/m\", \"b/m\"]\n",
            provider("a", "compatible", &revoked.url, ""),
            provider("b", "compatible", &well.url, ""),
        );
        let router = gateway(&config);
        for _ in 0..100 {
            let got = ask(&router, Inbound::Chat, "p", false).await;
            assert_eq!(got.status, 200, "{}", got.text());
        }
        assert!(revoked.count() <= 6, "{}", revoked.count());
        // By itself it says why, each time.
        let alone = ask(&router, Inbound::Chat, "a/m", false).await;
        let expect = if status == 404 { 404 } else { 502 };
        assert_eq!(alone.status, expect, "{}", alone.text());
    }
}

/// A pool's own bound on the tries at one request.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_bounded() {
    let ill = Upstream::start(|_| answer(500, "", b"{}")).await;
    let names = ["a", "b", "c", "d"];
    let mut config: String =
        names.iter().map(|name| provider(name, "compatible", &ill.url, "")).collect();
    config += "[pools.three]\ntargets = [\"a/m\", \"b/m\", \"c/m\", \"d/m\"]\n\
               [pools.two]\ntargets = [\"a/n\", \"b/n\", \"c/n\"]\nattempts = 2\n";
    let router = gateway(&config);
    for (pool, tries) in [("three", 3), ("two", 2)] {
        let before = ill.count();
        assert_eq!(ask(&router, Inbound::Chat, pool, false).await.status, 502);
        assert_eq!(ill.count() - before, tries, "{pool}");
    }
}

/// A request that is at fault goes to nobody else, and keeps its status.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_at_fault_is_not_tried_again() {
    let body = br#"{"error":{"message":"no such temperature","code":"bad","param":"temperature"}}"#;
    let first = Upstream::start(|_| answer(400, "", body)).await;
    let second = Upstream::well("second").await;
    let config = format!(
        "{}{}[pools.p]\ntargets = [\"a/m\", \"b/m\"]\n",
        provider("a", "compatible", &first.url, ""),
        provider("b", "compatible", &second.url, ""),
    );
    let router = gateway(&config);
    for _ in 0..5 {
        let got = ask(&router, Inbound::Chat, "p", false).await;
        assert_eq!(got.status, 400, "{}", got.text());
        assert!(got.text().contains("no such temperature"), "{}", got.text());
    }
    assert_eq!((first.count(), second.count()), (5, 0), "and it is not ill");
}

/// Whoever cannot be asked this is passed over; what is told is what became of those who could.
#[tokio::test]
async fn who_cannot_be_asked_is_passed_over() {
    let [plain, able] = [Upstream::well("plain").await, Upstream::well("able").await];
    let ill = Upstream::start(|_| vec![Step::Reset]).await;
    let config = format!(
        "{}{}{}[pools.p]\ntargets = [\"plain/m\", \"able/m\"]\n\
         [pools.q]\ntargets = [\"ill/m\", \"plain/m\"]\n",
        provider("plain", "jina", &plain.url, ""),
        provider("able", "vllm", &able.url, ""),
        provider("ill", "vllm", &ill.url, ""),
    );
    let router = gateway(&config);
    for stream in [false, true] {
        let got = ask(&router, Inbound::Completions, "p", stream).await;
        assert_eq!(got.status, 200, "{}", got.text());
        assert!(got.route().starts_with("able/m; "), "{}", got.route());
        assert!(got.text().contains("able"), "{}", got.text());
        let alone = ask(&router, Inbound::Completions, "plain/m", stream).await;
        assert_eq!((alone.status, plain.count()), (400, 0), "{}", alone.text());
        assert!(alone.text().contains("wrong_endpoint"), "{}", alone.text());
        let got = ask(&router, Inbound::Completions, "q", stream).await;
        assert_eq!(got.status, 502, "{}", got.text());
    }
}

/// Who is passed over is no try again: there are few of those, and nothing has failed.
#[tokio::test]
async fn whoever_cannot_be_asked_costs_no_try() {
    let [strict, able] = [Upstream::well("strict").await, Upstream::well("able").await];
    let names = ["a", "b", "c"];
    let strict_ones = names.map(|name| provider(name, "anthropic", &strict.url, ""));
    let config = format!(
        "{}{}[pools.p]\ntargets = [\"a/m\", \"b/m\", \"c/m\", \"able/m\"]\n",
        strict_ones.concat(),
        provider("able", "compatible", &able.url, ""),
    );
    let router = gateway(&config);
    let (path, mut body) = Inbound::Chat.request("p", false, "hi");
    body["logit_bias"] = serde_json::json!({ "1": 1 });
    for _ in 0..40 {
        let got = send(&router, request("", &path, &body)).await;
        assert_eq!((got.status, strict.count()), (200, 0), "{}", got.text());
        assert!(got.route().starts_with("able/m; "), "{}", got.route());
    }
    let (path, mut body) = Inbound::Chat.request("p", false, "hi");
    body["messages"] = serde_json::json!(7);
    for _ in 0..40 {
        let got = send(&router, request("", &path, &body)).await;
        assert_eq!((got.status, able.count()), (400, 40), "at fault itself: {}", got.text());
    }
    // What only the caller's own dialect has words for.
    let (path, mut body) = Inbound::Chat.request("p", false, "hi");
    body["tools"] = serde_json::json!([{ "type": "custom", "custom": { "name": "run" } }]);
    let got = send(&router, request("", &path, &body)).await;
    assert_eq!((got.status, able.count(), strict.count()), (200, 41, 0), "{}", got.text());
}

/// A provider that has said all, and then breaks off or never closes, has answered.
#[tokio::test]
async fn what_has_been_said_is_no_break() {
    for tail in [Step::Reset, Step::Silence] {
        let last = tail.clone();
        let upstream = Upstream::start(move |seen| {
            let all = events(seen.tongue(), "word").concat();
            let pause = Step::Pause(Duration::from_millis(50));
            vec![stream_head(), chunk(all), pause, last.clone()]
        })
        .await;
        let config = ["compatible", "anthropic", "openai"]
            .map(|kind| provider(kind, kind, &upstream.url, "lost_fields = \"drop\"\n"));
        let router = gateway(&config.concat());
        for (kind, inbound) in [
            ("compatible", Inbound::Chat),
            ("compatible", Inbound::Messages),
            ("anthropic", Inbound::Messages),
            ("anthropic", Inbound::Chat),
            ("openai", Inbound::Responses),
        ] {
            let began = std::time::Instant::now();
            let got = ask(&router, inbound, &format!("{kind}/m"), true).await;
            let text = got.text();
            assert!(inbound.ends(&text) && !inbound.breaks(&text), "{tail:?} {kind} {text}");
            assert!(began.elapsed() < Duration::from_secs(10), "{tail:?} {kind} {inbound:?}");
        }
        let asked = axum::http::Request::get("/metrics").body(axum::body::Body::empty());
        let shown = send(&router, asked.expect("a request")).await.text();
        for kind in ["compatible", "anthropic", "openai"] {
            let times = if kind == "openai" { 1 } else { 2 };
            let line = format!("model=\"m\",outcome=\"answered\",provider=\"{kind}\"}} {times}\n");
            assert!(shown.contains(&line), "{tail:?} {line} in {shown}");
        }
    }
}
