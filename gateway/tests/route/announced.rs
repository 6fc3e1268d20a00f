//! Streams that begin with nothing of the answer: comments, and events that only announce it. As
//! long as the caller has read nothing, somebody else may be asked; and who thinks for long is not
//! taken for silent.

use std::time::{Duration, Instant};

use gateway::api::Limits;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::caller::{Answer, Inbound, ask, gateway, open, provider, request, routes};
use crate::fake::{Fake, Setup};
use crate::speech::{chunk, end, events, failure_event, good, stream_head};
use crate::upstream::{Seen, Step, Upstream};

/// What OpenRouter sends before anybody works on the answer.
const COMMENT: &str = ": OPENROUTER PROCESSING\n\n";

/// Who is asked first, and who is asked then.
fn config(kind: &str, first: &Upstream, then: &Upstream, (own, pool): (&str, &str)) -> String {
    format!(
        "{}{}[pools.p]\ntargets = [\"first/m\", \"then/m\"]\n{pool}",
        provider("first", kind, &first.url, own),
        provider("then", kind, &then.url, ""),
    )
}

async fn asked(first: &Upstream, how: (&str, &str)) -> Answer {
    let then = Upstream::well("then").await;
    let router = gateway(&config("compatible", first, &then, how));
    ask(&router, Inbound::Chat, "p", true).await
}

/// Comments again and again, until the other side leaves.
fn comments(_: &Seen) -> Vec<Step> {
    let one = [chunk(COMMENT), Step::Pause(Duration::from_millis(50))];
    std::iter::once(stream_head()).chain(std::iter::repeat_n(one, 200).flatten()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_is_no_first_byte() {
    let first = Upstream::start(comments).await;
    let got = asked(&first, ("first_byte_timeout = \"400ms\"\n", "")).await;
    assert_eq!(got.route(), "then/m; pool=p; reason=priority; attempt=2", "{}", got.text());
    assert!(got.text().contains("then") && !got.text().contains("OPENROUTER"), "{}", got.text());
    // Nor does it end the time after which somebody else is asked beside.
    let got = asked(&first, ("", "hedge_after = \"150ms\"\n")).await;
    assert_eq!(got.route(), "then/m; pool=p; reason=priority; attempt=2", "{}", got.text());
    // What fails behind it is another's to answer.
    for then in [Step::Reset, end()] {
        first.turn(move |_| {
            let pause = Step::Pause(Duration::from_millis(60));
            vec![stream_head(), chunk(COMMENT), pause, then.clone()]
        });
        let got = asked(&first, ("", "")).await;
        assert_eq!(got.route(), "then/m; pool=p; reason=priority; attempt=2", "{}", got.text());
    }
}

/// Who only comments is as silent as who says nothing, if not as soon.
#[tokio::test(flavor = "multi_thread")]
async fn comments_without_end_are_no_answer() {
    let first = Upstream::start(|seen| {
        let mut steps = comments(seen);
        steps.insert(1, chunk(crate::speech::half(seen.tongue(), "first")));
        steps
    });
    let first = first.await;
    for (inbound, kind) in [
        (Inbound::Chat, "compatible"),
        (Inbound::Messages, "compatible"),
        (Inbound::Messages, "anthropic"),
    ] {
        let times = "first_byte_timeout = \"400ms\"\nidle_timeout = \"300ms\"\n\
                     lost_fields = \"drop\"\n";
        let router = gateway(&provider("p", kind, &first.url, times));
        let (begun, got) = (Instant::now(), ask(&router, inbound, "p/m", true).await);
        assert!(inbound.breaks(&got.text()), "{}", got.text());
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(400) && took < Duration::from_secs(5), "{took:?}");
    }
}

/// Comments go along with what they come before.
#[tokio::test(flavor = "multi_thread")]
async fn a_comment_goes_along() {
    let first = Upstream::start(|seen| {
        let mut steps = good(seen, "first");
        let pause = Step::Pause(Duration::from_millis(60));
        steps.splice(1..1, [chunk(COMMENT), pause.clone(), chunk(COMMENT), pause]);
        steps
    });
    let got = asked(&first.await, ("", "")).await;
    assert_eq!(got.route(), "first/m; pool=p; reason=priority; attempt=1");
    assert!(got.text().starts_with(&COMMENT.repeat(2)), "{}", got.text());
    assert!(got.text().contains(" first"), "{}", got.text());
}

/// Dialects whose streams announce the answer, and in how many events.
const ANNOUNCED: [(Inbound, &str, usize); 3] = [
    (Inbound::Chat, "compatible", 1),
    (Inbound::Messages, "anthropic", 2),
    (Inbound::Responses, "openai", 3),
];

/// The announcement, a moment, and then this.
fn announces(seen: &Seen, count: usize, pause_ms: u64) -> Vec<Step> {
    let announced = events(seen.tongue(), "first")[..count].concat();
    vec![stream_head(), chunk(announced), Step::Pause(Duration::from_millis(pause_ms))]
}

/// An overloaded provider often says so behind its first event.
#[tokio::test(flavor = "multi_thread")]
async fn who_fails_behind_an_announcement_is_replaced() {
    for (inbound, kind, count) in ANNOUNCED {
        for way in 0..3 {
            let first = Upstream::start(move |seen| {
                let mut steps = announces(seen, count, 100);
                steps.extend(match way {
                    0 => vec![chunk(failure_event(seen.tongue())), end()],
                    1 => vec![Step::Reset],
                    _ => vec![end()],
                });
                steps
            });
            let first = first.await;
            let then = Upstream::well("then").await;
            let router = gateway(&config(kind, &first, &then, ("", "")));
            let got = ask(&router, inbound, "p", true).await;
            let body = got.text();
            let expect = "then/m; pool=p; reason=priority; attempt=2";
            assert_eq!(got.route(), expect, "{inbound:?} {way}: {body}");
            assert!(inbound.ends(&body) && !inbound.breaks(&body), "{inbound:?} {way}: {body}");
            assert!(body.contains(" then") && !body.contains(" first"), "{inbound:?}: {body}");
        }
    }
}

/// A model that thinks is not silent: its stream begins for the caller, and nobody else is asked.
#[tokio::test(flavor = "multi_thread")]
async fn who_thinks_has_begun() {
    for (inbound, kind, count) in ANNOUNCED {
        let first = Upstream::start(move |seen| {
            let mut steps = announces(seen, count, 2500);
            steps.extend(events(seen.tongue(), "first")[count..].iter().map(chunk));
            steps.push(end());
            steps
        });
        let first = first.await;
        let then = Upstream::well("then").await;
        let how = ("first_byte_timeout = \"2s\"\n", "");
        let router = gateway(&config(kind, &first, &then, how));
        let (path, body) = inbound.request("p", true, "hi");
        let begun = Instant::now();
        let (head, mut body) = open(&router, request("", &path, &body)).await.into_parts();
        assert_eq!(head.headers["x-hearth-route"], "first/m; pool=p; reason=priority; attempt=1");
        let frame = body.frame().await.expect("a frame").expect("bytes");
        let frame = frame.into_data().expect("data");
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(2400), "{inbound:?} {took:?}");
        let announced = events(crate::speech::Tongue::of(&path), "first")[..count].concat();
        assert_eq!(frame, announced, "{inbound:?}");
        let rest = body.collect().await.expect("a whole body").to_bytes();
        let rest = String::from_utf8_lossy(&rest);
        assert!(inbound.ends(&rest) && rest.contains(" first"), "{inbound:?}: {rest}");
        assert_eq!(then.count(), 0);
    }
}

/// What only announces an answer is not gone on with: somebody else makes all of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_behind_an_announcement_is_no_broken_stream() {
    let first = Upstream::start(|seen| {
        let mut steps = announces(seen, 1, 60);
        steps.extend([chunk(failure_event(seen.tongue())), end()]);
        steps
    })
    .await;
    let then = Upstream::well("then").await;
    let pool = "broken_stream = \"continue\"\n";
    let config = config("compatible", &first, &then, ("", pool));
    let config = config.replace("\"then/m\"]", "\"then/m\", \"org/fake\"]");
    let routes = routes(&config, &["org/fake"]).expect("a configuration");
    let fake = Fake::start(Setup { routes, ..Default::default() });
    let got = ask(&fake.router, Inbound::Chat, "p", true).await;
    assert_eq!(got.route(), "then/m; pool=p; reason=priority; attempt=2", "{}", got.text());
}

/// A provider thinks for long, and its caller has not asked for thoughts: it hears that somebody is
/// there, and nothing of them.
#[tokio::test]
async fn thoughts_that_nobody_sees_are_a_sign_of_life() {
    let delta = |delta: Value| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": null });
        let made = json!({ "id": "c", "object": "chat.completion.chunk", "created": 1,
            "model": "m", "choices": [choice] });
        chunk(format!("data: {made}\n\n"))
    };
    let upstream = Upstream::start(move |seen| {
        let mut steps = vec![stream_head()];
        for _ in 0..12 {
            steps.push(delta(json!({ "reasoning_content": "hm" })));
            steps.push(Step::Pause(Duration::from_millis(40)));
        }
        steps.extend(good(seen, "afar").into_iter().skip(1));
        steps
    })
    .await;
    let config = provider("p", "compatible", &upstream.url, "lost_fields = \"drop\"\n");
    let routes = routes(&config, &["org/fake"]).expect("a configuration");
    let limits = Limits { ping_every: Duration::from_millis(100), ..Limits::default() };
    let fake = Fake::start(Setup { routes, limits, ..Setup::default() });
    let got = ask(&fake.router, Inbound::Messages, "p/m", true).await;
    let text = got.text();
    let pings = text.matches("event: ping").count();
    assert!((2..=5).contains(&pings), "{text}");
    assert!(
        text.contains("afar") && !text.contains("hm") && Inbound::Messages.ends(&text),
        "{text}"
    );
}
