//! Providers that are asked for chats in one dialect of those that they speak.

use serde_json::json;

use crate::caller::{Inbound, ask, gateway, provider, routes};
use crate::upstream::{Step, Upstream};

#[tokio::test]
async fn all_callers_are_answered_in_the_dialect_that_is_chosen() {
    let well = Upstream::well("afar").await;
    for (kind, dialect, path) in [
        ("openai", "responses", "/v1/responses"),
        ("openai", "chat", "/v1/chat/completions"),
        ("vllm", "messages", "/v1/messages"),
        ("hearth", "responses", "/v1/responses"),
    ] {
        let more = format!("dialect = \"{dialect}\"\ncompletions = false\n");
        let router = gateway(&provider("p", kind, &well.url, &more));
        for (inbound, stream) in Inbound::ALL.into_iter().flat_map(|i| [(i, false), (i, true)]) {
            let got = ask(&router, inbound, "p/m", stream).await;
            let (about, text) = (format!("{kind} {dialect} {inbound:?} {stream}"), got.text());
            assert_eq!(got.status, 200, "{about} {text}");
            assert_eq!(well.seen().pop().expect("a request").path, path, "{about}");
            if stream {
                assert!(inbound.ends(&text) && !inbound.breaks(&text), "{about} {text}");
                let parts = ["Hello", " from", " afar"];
                assert!(parts.iter().all(|part| text.contains(part)), "{about} {text}");
            } else {
                assert!(text.contains("Hello from afar"), "{about} {text}");
            }
        }
    }
}

/// What was made of a request arrives in the words of Responses, and what breaks is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_asked_for_and_its_break_is_told() {
    let ill = Upstream::start(|seen| {
        let half = crate::speech::half(seen.tongue(), "first");
        let pause = Step::Pause(std::time::Duration::from_millis(60));
        vec![crate::speech::stream_head(), crate::speech::chunk(half), pause, Step::Reset]
    })
    .await;
    let more = "dialect = \"responses\"\nlost_fields = \"drop\"\n";
    for inbound in Inbound::ALL {
        // Of one that breaks often nobody asks anything.
        let router = gateway(&provider("p", "openai", &ill.url, more));
        let got = ask(&router, inbound, "p/m", true).await;
        assert_eq!(got.status, 200, "{}", got.text());
        assert!(inbound.breaks(&got.text()), "{inbound:?} {}", got.text());
        assert!(!inbound.ends(&got.text()), "{inbound:?} {}", got.text());
        let sent = ill.seen().pop().expect("a request").json();
        if inbound == Inbound::Responses {
            continue;
        }
        assert_eq!((&sent["store"], &sent["stream"]), (&json!(false), &json!(true)), "{sent}");
        let said = sent["input"].to_string();
        assert!(said.contains("hi") && sent.get("messages").is_none(), "{sent}");
    }
}

#[test]
fn only_what_a_kind_speaks_can_be_chosen() {
    for (kind, dialect, known) in [
        ("anthropic", "responses", "messages"),
        ("openai", "completions", "chat, responses"),
        ("openai", "embeddings", "chat, responses"),
        ("openai", "x", "chat, responses"),
    ] {
        let more = format!("dialect = \"{dialect}\"\n");
        let refused = routes(&provider("p", kind, "http://127.0.0.1:9", &more), &[]).err();
        let wanted = format!("dialect: chats of a {kind} are in {known}");
        assert!(refused.as_ref().is_some_and(|why| why.contains(&wanted)), "{refused:?}");
    }
}
