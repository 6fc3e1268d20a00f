//! `service_tier: "flex"`: who may wait pays what a batch costs, where it was served so.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::caller::{Inbound, provider, request, send, until};
use crate::fake::Setup;
use crate::governed::House;
use crate::speech::{answer, chunk, end, events, stream_head, whole};
use crate::upstream::{Step, Upstream};

/// Nano-dollars of eleven tokens of prompt and three of answer, and what a batch of them costs.
const USUAL: i64 = 11 * 1_000 + 3 * 10_000;
const BATCH: i64 = 11 * 400 + 3 * 5_000;

fn prices() -> Value {
    let price = json!({
        "model": "*", "input": 1_000_000, "output": 10_000_000,
        "batch": { "input": 400_000, "output": 5_000_000 },
    });
    json!({ "name": "sheet", "models": [price] })
}

/// A provider that says this of how it serves.
async fn says(tier: Option<&'static str>) -> Upstream {
    let with = move |text: &str| match tier {
        None => text.to_owned(),
        Some(tier) => {
            text.replace("\"object\":", &format!("\"service_tier\":\"{tier}\",\"object\":"))
        }
    };
    Upstream::start(move |seen| {
        if !seen.streams() {
            let body = with(&whole(seen.tongue(), "a").to_string());
            return answer(200, "", body.as_bytes());
        }
        let events = events(seen.tongue(), "a");
        let events = events.iter().map(|event| chunk(with(event)));
        [stream_head()].into_iter().chain(events).chain([end()]).collect::<Vec<Step>>()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_paid_for_a_batch_where_it_says_so() {
    let house = House::new().await;
    for (number, (asks, tier, served)) in (0..).zip([
        (Some("flex"), Some("flex"), "flex"),
        (Some("flex"), Some("default"), "default"),
        (Some("flex"), None, "default"),
        (Some("default"), Some("flex"), "default"),
        (None, Some("flex"), "default"),
    ]) {
        let upstream = says(tier).await;
        let fake = house.gateway(&provider("p", "openai", &upstream.url, ""), Setup::default());
        if number == 0 {
            house.admin(&fake.router, "POST /prices", &prices()).await;
        }
        let key = house.key(&fake.router, &format!("team-{number}"), json!({})).await;
        for (times, (inbound, stream)) in (1..).zip([
            (Inbound::Chat, false),
            (Inbound::Chat, true),
            (Inbound::Responses, false),
            (Inbound::Responses, true),
        ]) {
            let (path, mut body) = inbound.request("p/m", stream, "hi");
            asks.iter().for_each(|asks| body["service_tier"] = json!(asks));
            let got = send(&fake.router, request(&key, &path, &body)).await;
            assert_eq!(got.status, 200, "{}", got.text());
            let sent = upstream.seen().pop().expect("a request").json();
            assert_eq!(sent.get("service_tier"), body.get("service_tier"));
            let lines = house.settled(&fake.router, number * 4 + times).await;
            let cost = if served == "flex" { BATCH } else { USUAL };
            let about = format!("{asks:?} {tier:?} {inbound:?} {stream}: {}", lines[0]);
            assert_eq!(lines[0]["service_tier"], served, "{about}");
            assert_eq!(lines[0]["cost"], cost, "{about}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_that_nobody_can_keep_is_refused_by_name() {
    let upstream = says(None).await;
    let house = House::new().await;
    let config = format!(
        "{}{}{}",
        provider("openai", "openai", &upstream.url, ""),
        provider("strict", "anthropic", &upstream.url, ""),
        provider("lax", "anthropic", &upstream.url, "lost_fields = \"drop\"\n"),
    );
    let fake = house.gateway(&config, Setup::default());
    let key = house.key(&fake.router, "team", json!({})).await;
    let ask = async |model: &str, tier: &str| {
        let (path, mut body) = Inbound::Chat.request(model, false, "hi");
        body["service_tier"] = json!(tier);
        send(&fake.router, request(&key, &path, &body)).await
    };
    for (model, tier) in [
        ("openai/m", "priority"),
        ("openai/m", "scale"),
        ("org/fake", "priority"),
        ("strict/m", "flex"),
    ] {
        let got = ask(model, tier).await;
        assert_eq!(got.status, 400, "{model} {tier}: {}", got.text());
        assert!(got.text().contains("service_tier"), "{}", got.text());
    }
    assert_eq!(upstream.count(), 0);
    let got = ask("lax/m", "flex").await;
    assert_eq!((got.status, got.header("x-hearth-dropped")), (200, "service_tier"));
    let line = house.settled(&fake.router, 1).await.remove(0);
    assert_eq!(line["service_tier"], "default", "{line}");
}

/// A model of this process serves it as it was asked for: behind all others, for the batch's price.
#[tokio::test(flavor = "multi_thread")]
async fn here_it_comes_last() {
    let house = House::new().await;
    // Slow enough that their ends are apart.
    let setup = Setup { rows: 1, pace: Duration::from_millis(15), ..Setup::default() };
    let fake = house.gateway("", setup);
    house.admin(&fake.router, "POST /prices", &prices()).await;
    let key = house.key(&fake.router, "team", json!({})).await;
    let ended = Arc::new(Mutex::new(Vec::new()));
    fake.gate.close();
    let mut tasks = Vec::new();
    let asks = [("first", "default"), ("flex", "flex"), ("second", "auto"), ("third", "default")];
    for (open, (name, tier)) in (1..).zip(asks) {
        let (path, mut body) = Inbound::Chat.request("org/fake", false, "hi");
        body["service_tier"] = json!(tier);
        let (router, request) = (fake.router.clone(), request(&key, &path, &body));
        let ended = Arc::clone(&ended);
        tasks.push(tokio::spawn(async move {
            let got = send(&router, request).await;
            ended.lock().expect("no panic").push(name);
            serde_json::from_slice::<Value>(&got.bytes).expect("JSON")
        }));
        let engine = || fake.models.first().expect("the fake");
        until("it waits", || engine().engine.open() == open).await;
    }
    fake.gate.open();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.expect("no panic"));
    }
    assert_eq!(*ended.lock().expect("no panic"), ["first", "second", "third", "flex"]);
    assert_eq!(answers[1]["service_tier"], "flex", "{}", answers[1]);
    assert_eq!(answers[0].get("service_tier"), None);
    let lines = house.settled(&fake.router, 4).await;
    let flex: Vec<&Value> = lines.iter().filter(|line| line["service_tier"] == "flex").collect();
    let count = |name: &str| flex[0]["tokens"][name].as_i64().expect("a count");
    assert_eq!(flex.len(), 1);
    assert_eq!(flex[0]["cost"], count("input") * 400 + count("output") * 5_000, "{}", flex[0]);
    // Its stream says so too, and so does a response.
    let (path, mut body) = Inbound::Chat.request("org/fake", true, "hi");
    body["service_tier"] = json!("flex");
    let text = send(&fake.router, request(&key, &path, &body)).await.text();
    assert!(text.contains("\"service_tier\":\"flex\"") && Inbound::Chat.ends(&text), "{text}");
    let (path, mut body) = Inbound::Responses.request("org/fake", false, "hi");
    body["service_tier"] = json!("flex");
    let got = send(&fake.router, request(&key, &path, &body)).await;
    assert!(got.text().contains("\"service_tier\":\"flex\""), "{}", got.text());
}
