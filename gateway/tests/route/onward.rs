//! Who cannot answer, must not, or costs too much is not the end of a request: the next one is
//! asked, and counted once.

use std::time::Duration;

use serde_json::{Value, json};

use crate::caller::{Inbound, ask, gateway, provider, request, routes, send};
use crate::fake::{Fake, Setup};
use crate::governed::House;
use crate::speech::{answer, good};
use crate::upstream::{Step, Upstream};

/// `cloud/m`, then the model of this process.
fn cloud_first(cloud: &Upstream) -> String {
    let far = provider("cloud", "compatible", &cloud.url, "lost_fields = \"drop\"\n");
    format!("{far}[pools.p]\ntargets = [\"cloud/m\", \"org/fake\"]\n")
}

/// The model of this process, then `cloud/m`.
fn local_first(cloud: &Upstream) -> String {
    cloud_first(cloud).replace("\"cloud/m\", \"org/fake\"", "\"org/fake\", \"cloud/m\"")
}

/// Money that does not reach for the first target may reach for the next, which costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_too_dear_is_passed_over() {
    let cloud = Upstream::well("cloud").await;
    let house = House::new().await;
    let fake = house.gateway(&cloud_first(&cloud), Setup::default());
    let budget = json!({ "name": "all", "scope": "everything",
        "limits": [{ "period": "total", "usd": "0.000001" }] });
    house.admin(&fake.router, "POST /budgets", &budget).await;
    let key = house.key(&fake.router, "team", json!({})).await;
    let free = json!({ "model": "org/fake", "input": 0, "output": 0 });
    let dear = json!({ "model": "cloud/m", "input": 9_000_000, "output": 9_000_000 });
    // The cloud's model has no price, and then one that nobody can pay.
    for (name, models) in [("one", json!([free])), ("two", json!([free, dear]))] {
        let prices = json!({ "name": name, "models": models });
        house.admin(&fake.router, "POST /prices", &prices).await;
        for stream in [false, true] {
            let (path, body) = Inbound::Chat.request("p", stream, "hi");
            let got = send(&fake.router, request(&key, &path, &body)).await;
            assert_eq!(got.status, 200, "{}", got.text());
            assert_eq!(got.route(), "org/fake; pool=p; reason=priority; attempt=2");
        }
        let (path, body) = Inbound::Chat.request("cloud/m", false, "hi");
        let alone = send(&fake.router, request(&key, &path, &body)).await;
        assert!([402, 403, 429].contains(&alone.status), "{}", alone.text());
    }
    assert_eq!(cloud.count(), 0);
}

/// A conversation whose caller has it cut is cut where nobody is left who could read all of it.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_all_of_it_goes_before_who_cuts() {
    let cloud = Upstream::well("cloud").await;
    let ill = Upstream::start(|_| answer(500, "", b"{}")).await;
    let strict = Upstream::start(|_| answer(400, "", b"{\"error\":{\"message\":\"no\"}}")).await;
    let config = format!(
        "{}{}{}{}[pools.p]\ntargets = [\"org/fake\", \"cloud/m\"]\n\
         [pools.q]\ntargets = [\"org/fake\"]\n\
         [pools.wordless]\ntargets = [\"org/fake\", \"far/m\"]\n\
         [pools.ill]\ntargets = [\"org/fake\", \"ill/m\"]\n\
         [pools.strict]\ntargets = [\"org/fake\", \"strict/m\"]\n",
        provider("cloud", "openai", &cloud.url, ""),
        provider("far", "anthropic", &cloud.url, ""),
        provider("ill", "openai", &ill.url, ""),
        provider("strict", "openai", &strict.url, ""),
    );
    let routes = routes(&config, &["org/fake"]).expect("a configuration");
    let fake = Fake::start(Setup { routes, context: 128, ..Setup::default() });
    let turn = |at: usize| match at % 2 {
        0 => json!({ "role": "user", "content": "many words here" }),
        _ => json!({ "role": "assistant", "content": "and there" }),
    };
    let turns: Vec<Value> = (0..13).map(turn).collect();
    for (model, cut, status, whom) in [
        ("p", true, 200, "cloud/m; pool=p; reason=priority; attempt=2"),
        ("q", true, 200, "org/fake; pool=q; reason=priority; attempt=1"),
        ("q", false, 400, ""),
        // Who has no words for it, or is ill, does not read it either.
        ("wordless", true, 200, "org/fake; pool=wordless; reason=priority; attempt=3"),
        ("ill", true, 200, "org/fake; pool=ill; reason=priority; attempt=3"),
        ("wordless", false, 200, "far/m; pool=wordless; reason=priority; attempt=2"),
        // Who finds fault with it ends it.
        ("strict", true, 400, ""),
    ] {
        for stream in [false, true] {
            let (path, mut body) = Inbound::Responses.request(model, stream, "");
            (body["input"], body["max_output_tokens"]) = (json!(turns), json!(8));
            body["truncation"] = json!(if cut { "auto" } else { "disabled" });
            let got = send(&fake.router, request("", &path, &body)).await;
            assert_eq!((got.status, got.route()), (status, whom), "{}", got.text());
        }
    }
    let sent = cloud.seen().remove(0).json();
    assert_eq!(sent["input"].as_array().map(Vec::len), Some(13), "it is told all of it");
    assert_eq!(sent["truncation"], "auto");
}

/// What the first target was paid for is the same operation here, and one request of the rate.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_counts_once_against_its_rate() {
    let cloud = Upstream::start(|_| answer(500, "", b"{}")).await;
    let house = House::new().await;
    let fake = house.gateway(&cloud_first(&cloud), Setup::default());
    let policy = json!({ "rates": [{ "requests_per_minute": 2 }] });
    let key = house.key(&fake.router, "team", policy).await;
    for stream in [false, true] {
        let (path, body) = Inbound::Chat.request("p", stream, "hi");
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
        assert_eq!(got.route(), "org/fake; pool=p; reason=priority; attempt=2");
    }
    let lines = house.settled(&fake.router, 4).await;
    let of = |line: &Value| line["operation"].clone();
    assert_eq!((of(&lines[0]), of(&lines[2])), (of(&lines[1]), of(&lines[3])), "{lines:?}");
    assert_ne!(of(&lines[0]), of(&lines[2]));
}

/// What a model of this process cannot read, or has no words for, another one may.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_here_goes_on() {
    let cloud = Upstream::well("cloud").await;
    let routes = routes(&local_first(&cloud), &["org/fake"]).expect("a configuration");
    let fake = Fake::start(Setup { routes, context: 64, ..Setup::default() });
    let here = ask(&fake.router, Inbound::Chat, "p", false).await;
    assert_eq!(here.route(), "org/fake; pool=p; reason=priority; attempt=1");
    // By its bytes it might fit, by its tokens it does not.
    let (path, mut body) = Inbound::Chat.request("p", false, &"x".repeat(80));
    let got = send(&fake.router, request("", &path, &body)).await;
    assert_eq!((got.status, got.route()), (200, "cloud/m; pool=p; reason=priority; attempt=2"));
    // Alone it says so itself.
    body["model"] = "org/fake".into();
    let alone = send(&fake.router, request("", &path, &body)).await;
    assert_eq!(alone.status, 400);
    assert!(alone.text().contains("context_length_exceeded"), "{}", alone.text());
}

/// Company that finds the request at fault, or may not be asked beside the first, does not end what
/// the first one is doing. Nobody else is asked what somebody has found at fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_beside_is_waited_out() {
    let pause = Step::Pause(Duration::from_millis(500));
    let slow = Upstream::start(move |seen| {
        let mut steps = vec![pause.clone()];
        steps.extend(good(seen, "slow"));
        steps
    })
    .await;
    let strict = Upstream::start(|_| answer(400, "", b"{\"error\":{\"message\":\"no\"}}")).await;
    let third = Upstream::well("third").await;
    let names = [("slow", &slow), ("strict", &strict), ("third", &third)];
    let providers = names.map(|(name, far)| provider(name, "compatible", &far.url, ""));
    let config = format!(
        "{}[pools.p]\ntargets = [\"slow/m\", \"strict/m\", \"third/m\"]\nhedge_after = \"50ms\"\n",
        providers.concat()
    );
    let router = gateway(&config);
    for stream in [false, true] {
        let got = ask(&router, Inbound::Chat, "p", stream).await;
        assert_eq!(got.status, 200, "{}", got.text());
        assert_eq!(got.route(), "slow/m; pool=p; reason=priority; attempt=2");
    }
    slow.turn(|_| vec![Step::Pause(Duration::from_millis(500)), Step::Reset]);
    let got = ask(&router, Inbound::Chat, "p", false).await;
    assert_eq!((got.status, strict.count(), third.count()), (400, 3, 0), "{}", got.text());
}

/// A key that may ask one thing at a time has its model here asked beside nobody, and loses nothing
/// by it.
#[tokio::test(flavor = "multi_thread")]
async fn company_here_is_within_the_bounds_of_a_key() {
    let slow = Upstream::start(|seen| {
        let mut steps = vec![Step::Pause(Duration::from_millis(500))];
        steps.extend(good(seen, "slow"));
        steps
    })
    .await;
    let house = House::new().await;
    let config = cloud_first(&slow) + "hedge_after = \"50ms\"\n";
    let fake = house.gateway(&config, Setup::default());
    let key = house.key(&fake.router, "team", json!({ "rates": [{ "concurrent": 1 }] })).await;
    for stream in [false, true] {
        let (path, body) = Inbound::Chat.request("p", stream, "hi");
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
        assert_eq!(got.route(), "cloud/m; pool=p; reason=priority; attempt=1");
    }
}

/// Who was not asked for want of a place beside the first is asked when that one has failed.
#[tokio::test(flavor = "multi_thread")]
async fn company_that_had_to_wait_is_asked_later() {
    let slow = Upstream::start(|_| vec![Step::Pause(Duration::from_millis(400)), Step::Reset]);
    let (slow, well) = (slow.await, Upstream::well("well").await);
    let house = House::new().await;
    let config = format!(
        "{}{}[pools.p]\ntargets = [\"slow/m\", \"well/m\"]\nhedge_after = \"50ms\"\n\
         [pools.q]\ntargets = [\"slow/m\", \"org/fake\"]\nhedge_after = \"50ms\"\n",
        provider("slow", "compatible", &slow.url, ""),
        provider("well", "compatible", &well.url, ""),
    );
    let fake = house.gateway(&config, Setup::default());
    let key = house.key(&fake.router, "team", json!({ "rates": [{ "concurrent": 1 }] })).await;
    for (pool, expect) in [
        ("p", "well/m; pool=p; reason=priority; attempt=2"),
        ("q", "org/fake; pool=q; reason=priority; attempt=2"),
    ] {
        let (path, body) = Inbound::Chat.request(pool, false, "hi");
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert_eq!((got.status, got.route()), (200, expect), "{}", got.text());
    }
}

/// Whoever was asked in vain on the way, a request is one request of its rate and one operation.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_way_counts_once() {
    let ill = Upstream::start(|_| answer(500, "", b"{}")).await;
    let cloud = Upstream::well("cloud").await;
    let house = House::new().await;
    let far = [("ill", &ill), ("dear", &cloud), ("cloud", &cloud)];
    let far = far.map(|(name, far)| provider(name, "compatible", &far.url, ""));
    let config = format!(
        "{}[pools.p]\ntargets = [\"ill/m\", \"dear/m\", \"org/fake\", \"cloud/m\"]\n\
         [pools.q]\ntargets = [\"dear/m\", \"cloud/m\"]\n",
        far.concat()
    );
    // The model here is too short for it, and one in the cloud too dear.
    let fake = house.gateway(&config, Setup { context: 24, ..Setup::default() });
    let budget = json!({ "name": "all", "scope": "everything",
        "limits": [{ "period": "total", "usd": "0.000001" }] });
    house.admin(&fake.router, "POST /budgets", &budget).await;
    let models = json!([{ "model": "dear/m", "input": 9_000_000, "output": 9_000_000 },
        { "model": "*", "input": 0, "output": 0 }]);
    house.admin(&fake.router, "POST /prices", &json!({ "name": "x", "models": models })).await;
    let policy = json!({ "rates": [{ "requests_per_minute": 2 }] });
    let text = "x".repeat(40);
    for (pool, attempt) in [("p", 4), ("q", 2)] {
        let key = house.key(&fake.router, pool, policy.clone()).await;
        for status in [200, 200, 429] {
            let (path, body) = Inbound::Chat.request(pool, false, &text);
            let got = send(&fake.router, request(&key, &path, &body)).await;
            assert_eq!(got.status, status, "{pool}: {}", got.text());
            if status == 200 {
                let expect = format!("cloud/m; pool={pool}; reason=priority; attempt={attempt}");
                assert_eq!(got.route(), expect);
            }
        }
    }
    let lines = house.settled(&fake.router, 6).await;
    let of = |line: &Value| line["operation"].to_string();
    let operations: std::collections::BTreeSet<_> = lines.iter().map(of).collect();
    assert_eq!(operations.len(), 4, "{lines:?}");
}
