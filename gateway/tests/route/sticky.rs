//! Who and what a request says it is of, in each dialect's own words: users stay with their arm,
//! conversations with their target, and rules see the notes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::caller::{Answer, Inbound, gateway, provider, request, send};
use crate::upstream::Upstream;

async fn ask(router: &axum::Router, inbound: Inbound, more: &Value) -> Answer {
    let (path, mut body) = inbound.request("p", false, "hi");
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    let got = send(router, request("", &path, &body)).await;
    assert_eq!(got.status, 200, "{}", got.text());
    got
}

fn target(got: &Answer) -> String {
    got.route().split(';').next().expect("a target").to_owned()
}

/// Two targets, and more of the pool.
async fn pool(more: &str) -> axum::Router {
    let well = Upstream::well("well").await;
    gateway(&format!(
        "{}{}[pools.p]\ntargets = [\"a/m\", \"b/m\"]\n{more}",
        provider("a", "compatible", &well.url, "lost_fields = \"drop\"\n"),
        provider("b", "compatible", &well.url, "lost_fields = \"drop\"\n"),
    ))
}

#[tokio::test]
async fn a_user_stays_whatever_it_speaks() {
    let router = pool("strategy = \"weighted\"\n").await;
    let mut seen = BTreeSet::new();
    for user in (0..24).map(|at| format!("user {at}")) {
        let mut own = BTreeSet::new();
        for (inbound, more) in [
            (Inbound::Chat, json!({ "user": user })),
            (Inbound::Chat, json!({ "safety_identifier": user })),
            (Inbound::Responses, json!({ "user": user })),
            (Inbound::Completions, json!({ "user": user })),
            (Inbound::Messages, json!({ "metadata": { "user_id": user } })),
        ] {
            own.insert(target(&ask(&router, inbound, &more).await));
        }
        assert_eq!(own.len(), 1, "{user} {own:?}");
        seen.extend(own);
    }
    // A fair coin falls on one side so often once in eight million times.
    assert_eq!(seen.len(), 2, "{seen:?}");
}

#[tokio::test]
async fn a_conversation_stays_by_its_header_or_its_key() {
    let router = pool("affinity = true\nstrategy = \"least-loaded\"\n").await;
    let mut seen = BTreeSet::new();
    for session in (0..24).map(|at| format!("session {at}")) {
        let mut own = BTreeSet::new();
        for _ in 0..3 {
            for inbound in [Inbound::Chat, Inbound::Responses, Inbound::Completions] {
                let got = ask(&router, inbound, &json!({ "prompt_cache_key": session })).await;
                assert!(got.route().contains("reason=affinity"), "{}", got.route());
                own.insert(target(&got));
            }
            for name in ["x-session-id", "x-claude-code-session-id", "session_id"] {
                let (path, body) = Inbound::Messages.request("p", false, "hi");
                let mut request = request("", &path, &body);
                request.headers_mut().insert(name, session.parse().expect("a header"));
                own.insert(target(&send(&router, request).await));
            }
        }
        assert_eq!(own.len(), 1, "{session} {own:?}");
        seen.extend(own);
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    let got = ask(&router, Inbound::Chat, &json!({})).await;
    assert!(got.route().contains("reason=least-loaded"), "{}", got.route());
}

#[tokio::test]
async fn rules_see_the_notes_of_every_dialect() {
    let rule = "rules = [{ metadata = { tier = \"gold\" }, to = [\"b/m\"] }]\n";
    let router = pool(rule).await;
    for inbound in Inbound::ALL {
        let name = if inbound == Inbound::Gemini { "labels" } else { "metadata" };
        for (tier, expect) in [("gold", "b/m"), ("lead", "a/m")] {
            // Anthropic's dialect has one note, and its callers send others all the same.
            let got = ask(&router, inbound, &json!({ name: { "tier": tier } })).await;
            assert_eq!(target(&got), expect, "{inbound:?} {tier}");
        }
    }
}

/// Mistral refuses fields of OpenAI's that it does not know, whoever has written the request.
#[tokio::test]
async fn mistral_is_asked_in_its_own_words() {
    let well = Upstream::well("well").await;
    let router = gateway(&provider("p", "mistral", &well.url, "lost_fields = \"drop\"\n"));
    let more = json!({ "seed": 7, "user": "u", "max_completion_tokens": 9, "safe_prompt": true,
        "stream_options": { "include_usage": true } });
    for stream in [true, false] {
        for inbound in [Inbound::Chat, Inbound::Completions, Inbound::Messages] {
            let (path, mut body) = inbound.request("p/m", stream, "hi");
            match inbound {
                Inbound::Chat => {
                    for (name, value) in more.as_object().expect("fields") {
                        body[name] = value.clone();
                    }
                    if !stream {
                        body.as_object_mut().expect("fields").remove("stream_options");
                    }
                }
                Inbound::Completions => (body["seed"], body["max_tokens"]) = (7.into(), 9.into()),
                _ => (body["metadata"], body["max_tokens"]) = (json!({ "user_id": "u" }), 9.into()),
            }
            let got = send(&router, request("", &path, &body)).await;
            assert_eq!(got.status, 200, "{inbound:?} {}", got.text());
            let sent = well.seen().pop().expect("a request").json();
            let names = sent.as_object().expect("fields").keys();
            let known = ["model", "messages", "stream", "max_tokens", "random_seed", "safe_prompt"];
            let strange: Vec<_> = names.filter(|name| !known.contains(&name.as_str())).collect();
            assert!(strange.is_empty(), "{inbound:?} {strange:?}");
            assert_eq!(sent["max_tokens"], 9, "{inbound:?} {sent}");
            if inbound != Inbound::Messages {
                assert_eq!(sent["random_seed"], 7, "{inbound:?} {sent}");
            }
            // What was used is told to who asked for it.
            let told = got.text().contains("prompt_tokens");
            let asks = !stream || inbound == Inbound::Chat;
            assert_eq!(told, asks && inbound != Inbound::Messages, "{inbound:?} {}", got.text());
        }
    }
}
