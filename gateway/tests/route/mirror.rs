//! Copies of requests: who gets them, who pays for them, and that nobody waits for them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::caller::{Inbound, ask, gateway, provider, request, send, until};
use crate::fake::Setup;
use crate::governed::House;
use crate::upstream::{Step, Upstream};

fn config(own: &Upstream, shadow: &Upstream, mirror: &str) -> String {
    format!(
        "{}{}[pools.p]\ntargets = [\"own/m\"]\nmirror = {{ to = \"shadow/next\", {mirror} }}\n",
        provider("own", "compatible", &own.url, "lost_fields = \"drop\"\n"),
        provider("shadow", "compatible", &shadow.url, "lost_fields = \"drop\"\n"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_has_a_copy_that_nobody_hears_of() {
    let (own, shadow) = (Upstream::well("own").await, Upstream::well("shadow").await);
    let router = gateway(&config(&own, &shadow, "share = 1.0"));
    let mut times = 0;
    for inbound in Inbound::ALL {
        for stream in [false, true] {
            let got = ask(&router, inbound, "p", stream).await;
            times += 1;
            assert!(got.text().contains("own") && !got.text().contains("shadow"), "{}", got.text());
            assert_eq!(got.route(), "own/m; pool=p; reason=priority; attempt=1");
            until("the copy is there", || shadow.count() == times).await;
            let copy = shadow.seen().pop().expect("a request");
            assert_eq!(copy.json()["model"], "next");
            assert_eq!(copy.streams(), stream, "{inbound:?}");
        }
    }
    assert_eq!(own.count(), times);
    assert_eq!(shadow.left(), 0, "copies are read to their end");
}

/// A target that says nothing keeps nobody waiting, and there are never many of its requests.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_copy() {
    let (own, shadow) =
        (Upstream::well("own").await, Upstream::start(|_| vec![Step::Silence]).await);
    let router = gateway(&config(&own, &shadow, "share = 1.0"));
    let begun = Instant::now();
    let all = (0..200).map(|_| ask(&router, Inbound::Chat, "p", false));
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(|got| got.status == 200));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    until("as many as there may be", || shadow.count() == 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_a_share() {
    let (own, shadow) = (Upstream::well("own").await, Upstream::well("shadow").await);
    let router = gateway(&config(&own, &shadow, "share = 0.25"));
    for _ in 0..400 {
        assert_eq!(ask(&router, Inbound::Chat, "p", false).await.status, 200);
    }
    // Six standard deviations on either side.
    let copies = shadow.count();
    assert!((48..=152).contains(&copies), "{copies} of 400");
    let none = gateway(&config(&own, &shadow, "share = 0"));
    for _ in 0..50 {
        assert_eq!(ask(&none, Inbound::Chat, "p", false).await.status, 200);
    }
    assert!(shadow.count() <= 152);
}

/// The copy's own key pays for it, and what is secret is not copied.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_paid_for_by_its_own_key() {
    let (own, shadow) = (Upstream::well("own").await, Upstream::well("shadow").await);
    let house = House::new().await;
    // The mirror's key has to be there before the pool that names it.
    let first = house.gateway("", Setup::default());
    let mirror = house.key(&first.router, "mirror", json!({})).await;
    let open = house.key(&first.router, "open", json!({})).await;
    let secret = house.key(&first.router, "secret", json!({ "label": "restricted" })).await;
    let more = "max_label = \"restricted\"\n";
    let config = config(&own, &shadow, &format!("share = 1.0, key = \"{mirror}\"")).replacen(
        "lost_fields",
        &format!("{more}lost_fields"),
        1,
    );
    let fake = house.gateway(&config, Setup::default());
    let (path, body) = Inbound::Chat.request("p", false, "hi");
    assert_eq!(send(&fake.router, request(&secret, &path, &body)).await.status, 200);
    assert_eq!(send(&fake.router, request(&open, &path, &body)).await.status, 200);
    let lines = house.settled(&fake.router, 3).await;
    let keys = house.admin(&fake.router, "GET /keys?limit=200", &Value::Null).await;
    let label = |line: &Value| {
        let all = keys["data"].as_array().expect("keys");
        let found = all.iter().find(|key| key["id"] == line["key"]).expect("the key");
        found["label"].as_str().expect("a label").to_owned()
    };
    let mut found: Vec<_> =
        lines.iter().map(|line| format!("{} {}", label(line), line["backend"])).collect();
    found.sort();
    assert_eq!(found, ["mirror \"shadow\"", "open \"own\"", "secret \"own\""]);
    assert_eq!(shadow.count(), 1);
    let copy = lines.iter().find(|line| line["backend"] == "shadow").expect("the copy");
    let id = copy["request_id"].as_str().expect("an id");
    let original = id.strip_suffix("-copy").expect("a copy says so");
    assert!(lines.iter().any(|line| line["request_id"] == original && line["backend"] == "own"));
}
