//! Keys that may not send requests to some providers, or to any: wherever a pool would go.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::caller::{Inbound, provider, request, send};
use crate::fake::{Fake, Setup};
use crate::governed::House;
use crate::speech::{chunk, stream_head};
use crate::upstream::{Step, Upstream};

async fn said(fake: &Fake, key: &str, model: &str) -> (u16, String) {
    let (path, body) = Inbound::Chat.request(model, false, "hi");
    let got = send(&fake.router, request(key, &path, &body)).await;
    let body: Value = serde_json::from_slice(&got.bytes).expect("JSON");
    (got.status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// Overflow, fallback, company, copies, and the provider's own name: none of them is asked.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_pool_would_do() {
    let [near, far] = [Upstream::well("near").await, Upstream::well("far").await];
    let pools = "\
        [pools.fallback]\ntargets = [\"org/fake\"]\nfallback = [\"far/m\", \"near/m\"]\n\
        [pools.overflow]\ntargets = [\"org/fake\"]\n\
        overflow = { to = [\"far/m\", \"near/m\"], when = { queue = 1 } }\n\
        [pools.company]\ntargets = [\"org/fake\", \"far/m\"]\nhedge_after = \"1ms\"\n\
        [pools.copied]\ntargets = [\"org/fake\"]\nmirror = { to = \"far/m\", share = 1.0 }\n";
    let config = format!(
        "{}{}{pools}",
        provider("near", "compatible", &near.url, ""),
        provider("far", "compatible", &far.url, ""),
    );
    let house = House::new().await;
    // Copies are in a name of their own.
    let first = house.gateway("", Setup::default());
    let own = house.key(&first.router, "copies", json!({})).await;
    let config = config.replace("share = 1.0", &format!("share = 1.0, key = \"{own}\""));
    let fake = house.gateway(&config, Setup { pace: Duration::from_millis(5), ..Setup::default() });
    let free = house.key(&fake.router, "free", json!({})).await;
    let some = house.key(&fake.router, "some", json!({ "providers": ["ne*"] })).await;
    let none = house.key(&fake.router, "none", json!({ "providers": [] })).await;
    let refused = (403, "provider_not_allowed".to_owned());
    for (key, provider, expect) in [
        (&free, "far", (200, String::new())),
        (&some, "near", (200, String::new())),
        (&some, "far", refused.clone()),
        (&none, "near", refused.clone()),
    ] {
        let found = said(&fake, key, &format!("{provider}/m")).await;
        assert_eq!(found, expect, "{provider}");
    }
    let before = (near.count(), far.count());
    for pool in ["fallback", "overflow", "company", "copied"] {
        for _ in 0..3 {
            assert_eq!(said(&fake, &none, pool).await.0, 200, "{pool}");
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((near.count(), far.count()), before, "nobody was asked");
    // Why, in words.
    let (path, body) = Inbound::Chat.request("far/m", false, "hi");
    let got = send(&fake.router, request(&some, &path, &body)).await;
    let why = "is a provider that the key's policies do not allow";
    assert!(got.text().contains(why), "{}", got.text());
    // Others go there.
    assert_eq!(said(&fake, &free, "copied").await.0, 200);
    crate::caller::until("a copy is made", || far.count() > before.1).await;
}

/// With the local model gone, a key without providers gets nothing, and one with some gets theirs.
#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_else_is_left() {
    let [near, far] = [Upstream::well("near").await, Upstream::well("far").await];
    let config = format!(
        "{}{}[pools.p]\ntargets = [\"org/fake\"]\nfallback = [\"far/m\", \"near/m\"]\n",
        provider("near", "compatible", &near.url, ""),
        provider("far", "compatible", &far.url, ""),
    );
    let house = House::new().await;
    let fake = house.gateway(&config, Setup { fail_at: Some(0), ..Setup::default() });
    let some = house.key(&fake.router, "some", json!({ "providers": ["near"] })).await;
    let none = house.key(&fake.router, "none", json!({ "providers": [] })).await;
    for _ in 0..5 {
        let (status, _) = said(&fake, &none, "p").await;
        assert!([500, 503].contains(&status), "{status}");
        assert_eq!(said(&fake, &some, "p").await.0, 200);
    }
    assert_eq!((near.count(), far.count()), (5, 0));
}

/// A stream of good events that never ends has one.
#[tokio::test]
async fn a_stream_without_an_end_has_one() {
    let event = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\
                 \"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
    let ill = Upstream::start(move |_| {
        let Step::Bytes(bytes) = chunk(event.repeat(8)) else { panic!("bytes") };
        vec![stream_head(), Step::Endless(bytes)]
    })
    .await;
    let config = provider("p", "compatible", &ill.url, "stream_timeout = \"400ms\"\n");
    let router = crate::caller::gateway(&config);
    let begun = Instant::now();
    for inbound in [Inbound::Chat, Inbound::Messages] {
        let got = crate::caller::ask(&router, inbound, "p/m", true).await;
        assert!(inbound.breaks(&got.text()), "{inbound:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    crate::caller::until("it is left", || ill.left() == 2).await;
}
