//! A provider of Amazon's, behind callers of all dialects: what it is sent, what is read out of its
//! frames, what becomes of frames that say that it failed, are cut or are damaged, and what all of
//! that is booked as.

use std::time::Duration;

use serde_json::json;

use crate::amazon::{error, event, exception, prelude};
use crate::caller::{Inbound, ask, gateway, provider, request, routes, send, until};
use crate::continued;
use crate::fake::{Fake, Setup};
use crate::governed::House;
use crate::leaving::{asked, listen, read_until};
use crate::speech::{answer, chunk, end, half, opening};
use crate::upstream::{Seen, Step, Upstream};

const DROPS: &str = "lost_fields = \"drop\"\n";

/// With this its key is the first half of a pair that signs each request.
const PAIR: &str = "lost_fields = \"drop\"\nregion = \"eu-west-1\"\nsecret_key = \"the-secret\"\n";

fn header<'s>(seen: &'s Seen, name: &str) -> &'s str {
    seen.headers.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_is_answered_and_it_is_booked() {
    let upstream = Upstream::well("afar").await;
    let house = House::new().await;
    let config = provider("key", "bedrock", &upstream.url, DROPS)
        + &provider("pair", "bedrock", &upstream.url, PAIR);
    let fake = house.gateway(&config, Setup::default());
    house.prices(&fake.router, 1_000_000, 3_000_000).await;
    let key = house.key(&fake.router, "team", json!({})).await;
    let mut times = 0;
    for (name, shows) in
        [("key", "Bearer key-of-a-test"), ("pair", "AWS4-HMAC-SHA256 Credential=key-of-a-test/")]
    {
        for (inbound, streams) in Inbound::ALL.into_iter().flat_map(|i| [(i, false), (i, true)]) {
            times += 1;
            let (path, body) = inbound.request(&format!("{name}/m"), streams, "hi");
            let got = send(&fake.router, request(&key, &path, &body)).await;
            let text = got.text();
            let about = format!("{name} {inbound:?} {streams}: {} {text}", got.status);
            assert_eq!(got.status, 200, "{about}");
            if streams {
                let parts = ["Hello", " from", " afar"];
                assert!(parts.iter().all(|part| text.contains(part)), "{about}");
                assert!(inbound.ends(&text) && !inbound.breaks(&text), "{about}");
            } else {
                assert!(text.contains("Hello from afar"), "{about}");
            }
            let seen = upstream.seen().pop().expect("a request");
            let path = if streams { "/v1/model/m/converse-stream" } else { "/v1/model/m/converse" };
            assert_eq!(seen.path, path, "{about}");
            assert!(header(&seen, "authorization").starts_with(shows), "{about}");
            let turns = json!([{ "role": "user", "content": [{ "text": "hi" }] }]);
            assert_eq!(seen.json()["messages"], turns, "{about}");
            let line = house.settled(&fake.router, times).await.remove(0);
            let said = (&line["outcome"], &line["backend"], &line["cost"]);
            let cost = 11 * 1_000 + 3 * 3_000;
            assert_eq!(said, (&json!("done"), &json!(name), &json!(cost)), "{about} {line}");
            let used = (&line["tokens"]["input"], &line["tokens"]["output"]);
            assert_eq!(used, (&json!(11), &json!(3)), "{about} {line}");
        }
    }
}

/// A stream that botocore reads as well: thoughts, text and two calls.
const STREAM: &[u8] = include_bytes!("../../wire/tests/converse/stream.bin");

/// Frames arrive in whatever pieces the network makes of them.
#[tokio::test(flavor = "multi_thread")]
async fn frames_come_in_any_pieces() {
    for size in [1, 7, 12, 100, STREAM.len()] {
        let upstream = Upstream::start(move |seen| {
            let pieces = STREAM.chunks(size).map(chunk);
            [opening(seen)].into_iter().chain(pieces).chain([end()]).collect()
        })
        .await;
        let router = gateway(&provider("p", "bedrock", &upstream.url, DROPS));
        for inbound in Inbound::ALL {
            let got = ask(&router, inbound, "p/m", true).await;
            let text = got.text();
            assert!(inbound.ends(&text) && !inbound.breaks(&text), "{size} {inbound:?}: {text}");
            // A text has no place for calls.
            let parts = if inbound == Inbound::Completions { 1 } else { 3 };
            for part in &["Gr\u{fc}\u{df}e", "\"name\":\"f\"", "\"name\":\"g\""][..parts] {
                assert!(text.contains(part), "{size} {inbound:?}: {part} in {text}");
            }
        }
    }
}

/// What nobody may read.
const LOST: &[u8] = br#"{"contentBlockIndex":0,"delta":{"text":"lost words"}}"#;

/// A frame with one bit of it turned.
fn damaged(at: impl Fn(&[u8]) -> usize) -> Vec<u8> {
    let mut frame = event("contentBlockDelta", LOST);
    let at = at(&frame);
    frame[at] ^= 1;
    frame
}

/// What comes behind the second token, and that nothing may be believed of.
fn breaks() -> Vec<(&'static str, Vec<u8>)> {
    let whole = event("contentBlockDelta", LOST);
    let in_words = |frame: &[u8]| frame.windows(5).position(|w| w == b"words").expect("words");
    vec![
        ("throttled", exception("throttlingException", "too much")),
        ("the model failed", exception("modelStreamErrorException", "it fell over")),
        ("not known yet", exception("tomorrowsException", "who knows")),
        ("an error in the headers", error("InternalFailure", "it fell over")),
        ("cut in its head", whole[..10].to_vec()),
        ("cut before its checksum", whole[..whole.len() - 4].to_vec()),
        ("a damaged word", damaged(in_words)),
        ("a damaged length", damaged(|_| 3)),
        ("far too long", prelude(9 << 20, 0)),
    ]
}

/// Half an answer, and then these bytes.
fn behind_half(seen: &Seen, bytes: &[u8]) -> Vec<Step> {
    // Together with the half they would come before anything was handed out.
    let pause = Step::Pause(Duration::from_millis(60));
    vec![opening(seen), chunk(half(seen.tongue(), "first")), pause, chunk(bytes), end()]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_in_the_middle_is_told_and_booked() {
    let upstream = Upstream::well("afar").await;
    let house = House::new().await;
    let fake = house.gateway(&provider("p", "bedrock", &upstream.url, DROPS), Setup::default());
    let key = house.key(&fake.router, "team", json!({})).await;
    let mut times = 0;
    for (what, bytes) in breaks() {
        upstream.turn(move |seen| behind_half(seen, &bytes));
        for inbound in Inbound::ALL {
            times += 1;
            // Each time another one, or it would be left alone after three failures.
            let (path, body) = inbound.request(&format!("p/m{times}"), true, "hi");
            let got = send(&fake.router, request(&key, &path, &body)).await;
            let text = got.text();
            let about = format!("{what} {inbound:?}: {} {text}", got.status);
            assert_eq!(got.status, 200, "{about}");
            assert!(text.contains("Hello") && text.contains(" from"), "{about}");
            assert!(inbound.breaks(&text) && !inbound.ends(&text), "{about}");
            assert!(!text.contains("lost"), "{about}");
            let line = house.settled(&fake.router, times).await.remove(0);
            assert_eq!(line["outcome"], "failed", "{about} {line}");
            let output = line["tokens"]["output"].as_u64().expect("a count");
            assert!((2..=3).contains(&output), "{about} {line}");
            assert!(line["tokens"]["input"].as_u64().expect("a count") > 0, "{about} {line}");
        }
    }
}

/// What is complete is so, even where the count of its tokens is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_its_count_is_whole() {
    let upstream = Upstream::start(|seen| {
        let mut all = crate::speech::pieces(seen.tongue(), "first");
        let last = all.pop().expect("the count");
        let pause = Step::Pause(Duration::from_millis(60));
        let cut = chunk(&last[..last.len() / 2]);
        vec![opening(seen), chunk(all.concat()), pause, cut, end()]
    })
    .await;
    let house = House::new().await;
    let fake = house.gateway(&provider("p", "bedrock", &upstream.url, DROPS), Setup::default());
    let key = house.key(&fake.router, "team", json!({})).await;
    for (times, inbound) in (1..).zip(Inbound::ALL) {
        let (path, body) = inbound.request("p/m", true, "hi");
        let text = send(&fake.router, request(&key, &path, &body)).await.text();
        assert!(inbound.ends(&text) && !inbound.breaks(&text), "{inbound:?} {text}");
        let line = house.settled(&fake.router, times).await.remove(0);
        let output = line["tokens"]["output"].as_u64().expect("a count");
        assert_eq!(line["outcome"], "done", "{inbound:?} {line}");
        assert!((3..=4).contains(&output), "{inbound:?} {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_ends_its_stream_and_pays_for_what_was_read() {
    let upstream = Upstream::start(|seen| {
        vec![opening(seen), chunk(half(seen.tongue(), "first")), Step::Silence]
    })
    .await;
    let house = House::new().await;
    let fake = house.gateway(&provider("p", "bedrock", &upstream.url, DROPS), Setup::default());
    let key = house.key(&fake.router, "team", json!({})).await;
    let address = listen(fake.router.clone()).await;
    for (times, inbound) in (1..).zip(Inbound::ALL) {
        let (path, body) = inbound.request("p/m", true, "hi");
        let mut client = asked(address, &key, &path, &body).await;
        read_until(&mut client, "from").await;
        drop(client);
        until("the provider is left", || upstream.left() == times).await;
        let line = house.settled(&fake.router, times).await.remove(0);
        assert_eq!(line["outcome"], "cancelled", "{inbound:?} {line}");
        let output = line["tokens"]["output"].as_u64().expect("a count");
        assert!((2..=3).contains(&output), "{inbound:?} {line}");
        assert!(line["tokens"]["input"].as_u64().expect("a count") > 0, "{inbound:?} {line}");
    }
}

/// A model of this server goes on with its stream as with any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_is_gone_on_with() {
    let ill = Upstream::start(|seen| {
        let pause = Step::Pause(Duration::from_millis(60));
        vec![opening(seen), chunk(half(seen.tongue(), "first")), pause, Step::Reset]
    })
    .await;
    // A prompt goes to who completes first, which the model is.
    for inbound in Inbound::ALL.into_iter().filter(|inbound| *inbound != Inbound::Completions) {
        let config = continued::config("bedrock", &ill, "\"org/fake\"");
        let routes = routes(&config, &["org/fake"]).expect("a configuration");
        let fake = Fake::start(Setup { routes, ..Setup::default() });
        let got = ask(&fake.router, inbound, "p", true).await;
        let text = got.text();
        assert!(got.route().starts_with("ill/m; pool=p"), "{inbound:?} {}", got.route());
        assert!(inbound.ends(&text) && !inbound.breaks(&text), "{inbound:?} {text}");
        assert!(text.contains("\"continued_by\":\"org/fake\""), "{inbound:?} {text}");
        assert!(text.contains(" from") && text.contains(" three"), "{inbound:?} {text}");
    }
}

/// Amazon names an error in a header. Whoever is at fault himself is told so; else the next one is
/// asked.
#[tokio::test(flavor = "multi_thread")]
async fn errors_are_known_by_their_names() {
    for (sent, name, alone, with_another) in [
        (429, "ThrottlingException", 429, 200),
        (400, "ServiceQuotaExceededException:http://internal.example/", 429, 200),
        (400, "ValidationException", 400, 400),
        (403, "AccessDeniedException", 502, 200),
        (408, "ModelTimeoutException", 502, 200),
        (500, "InternalServerException", 502, 200),
    ] {
        let more = format!("x-amzn-errortype: {name}\r\n");
        let ill = Upstream::start(move |_| answer(sent, &more, b"{\"message\":\"no\"}")).await;
        let well = Upstream::well("second").await;
        let config = format!(
            "{}{}[pools.p]\ntargets = [\"ill/n\", \"well/n\"]\n",
            provider("ill", "bedrock", &ill.url, ""),
            provider("well", "bedrock", &well.url, ""),
        );
        let router = gateway(&config);
        for streams in [false, true] {
            let got = ask(&router, Inbound::Chat, &format!("ill/{streams}"), streams).await;
            assert_eq!(got.status, alone, "{name}: {}", got.text());
            let got = ask(&router, Inbound::Chat, "p", streams).await;
            assert_eq!(got.status, with_another, "{name}: {}", got.text());
        }
        let second = if with_another == 200 { 2 } else { 0 };
        assert_eq!(well.count(), second, "{name}");
    }
}
