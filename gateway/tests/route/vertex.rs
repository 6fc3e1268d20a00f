//! Google's other door: the key is a service account, which is changed for a token before anybody
//! is asked.

use hearth_tests::rsa::key;
use serde_json::{Value, json};

use crate::caller::{Inbound, ask, gateway, provider, request, send};
use crate::fake::Setup;
use crate::governed::House;
use crate::speech::{answer, good};
use crate::upstream::{Seen, Step, Upstream};

/// `[providers.far]` with an account whose tokens are had at the same address.
fn far(upstream: &Upstream) -> String {
    let section = provider("far", "vertex", &upstream.url, "lost_fields = \"drop\"\n");
    with_account(&section, upstream)
}

/// A section whose key is such an account.
pub(crate) fn with_account(section: &str, upstream: &Upstream) -> String {
    let account = json!({
        "type": "service_account",
        "client_email": "me@my-project.iam.gserviceaccount.com",
        "private_key": key(),
        "token_uri": format!("{}/token", upstream.url),
    });
    let account = toml::Value::String(account.to_string()).to_string();
    section.replace("\"key-of-a-test\"", &account)
}

/// Gives one token, and answers whoever shows it.
pub(crate) fn google(seen: &Seen) -> Vec<Step> {
    if seen.path == "/token" {
        let token =
            json!({ "access_token": "token-1", "expires_in": 3_599, "token_type": "Bearer" });
        return answer(200, "", token.to_string().as_bytes());
    }
    let shown = ("authorization".to_owned(), "Bearer token-1".to_owned());
    if seen.headers.contains(&shown) { good(seen, "afar") } else { answer(401, "", b"{}") }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_is_answered_for_one_token() {
    let upstream = Upstream::start(google).await;
    let house = House::new().await;
    let fake = house.gateway(&far(&upstream), Setup::default());
    let key = house.key(&fake.router, "team", json!({})).await;
    let mut times = 0;
    for (inbound, streams) in Inbound::ALL.into_iter().flat_map(|i| [(i, false), (i, true)]) {
        times += 1;
        let (path, body) = inbound.request("far/m", streams, "hi");
        let got = send(&fake.router, request(&key, &path, &body)).await;
        let text = got.text();
        let about = format!("{inbound:?} {streams}: {} {text}", got.status);
        assert!(got.status == 200 && text.contains("Hello"), "{about}");
        assert!(!streams || inbound.ends(&text) && !inbound.breaks(&text), "{about}");
        let seen = upstream.seen().pop().expect("a request");
        let how = if streams { "streamGenerateContent?alt=sse" } else { "generateContent" };
        assert_eq!(seen.path, format!("/v1/models/m:{how}"), "{about}");
        let line = house.settled(&fake.router, times).await.remove(0);
        let used = (&line["tokens"]["input"], &line["tokens"]["output"]);
        assert_eq!((&line["outcome"], used), (&json!("done"), (&json!(11), &json!(3))), "{line}");
    }
    let tokens = upstream.seen().iter().filter(|seen| seen.path == "/token").count();
    assert_eq!(tokens, 1);
}

/// Without a token nobody is asked there, the next one answers, and no caller reads why.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_the_next_one_answers() {
    let refuses = Upstream::start(|_| answer(400, "", b"{\"error\":\"invalid_grant\"}")).await;
    let well = Upstream::well("second").await;
    let config = format!(
        "{}{}[pools.p]\ntargets = [\"far/m\", \"well/m\"]\n",
        far(&refuses),
        provider("well", "gemini", &well.url, "lost_fields = \"drop\"\n"),
    );
    let router = gateway(&config);
    for inbound in Inbound::ALL {
        let got = ask(&router, inbound, "p", true).await;
        assert!(got.text().contains("second"), "{inbound:?}: {}", got.text());
        let alone = ask(&router, inbound, "far/m", false).await;
        assert_eq!(alone.status, 502, "{inbound:?}: {}", alone.text());
        let told: Value = serde_json::from_slice(&alone.bytes).expect("JSON");
        let told = told["error"]["message"].as_str().expect("a message");
        assert_eq!(told, "The provider 'far' cannot be asked.", "{inbound:?}");
    }
    assert!(refuses.seen().iter().all(|seen| seen.path == "/token"));
    assert_eq!(well.count(), Inbound::ALL.len());
}
