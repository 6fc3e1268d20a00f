//! Who pays for attempts that lose, hang or come late: each attempt is settled once, and only what
//! somebody has read costs anything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gateway::api::Limits;
use govern::secret::{Keyring, Master};
use serde_json::{Value, json};

use crate::caller::{Inbound, provider, request, send};
use crate::continued::cut;
use crate::fake::Setup;
use crate::governed::House;
use crate::speech::{Tongue, answer, end, events, good};
use crate::upstream::{Step, Upstream};

/// A provider that thinks for so long before it answers.
async fn after(pause: Duration) -> Upstream {
    Upstream::start(move |seen| {
        let mut steps = vec![Step::Pause(pause)];
        steps.extend(good(seen, "cloud"));
        steps
    })
    .await
}

fn pool(cloud: &Upstream, more: &str) -> String {
    let cloud = provider("cloud", "compatible", &cloud.url, "");
    format!("{cloud}[pools.p]\ntargets = [\"org/fake\", \"cloud/m\"]\n{more}")
}

/// Each attempt: its number, who made it, how it ended, tokens written, whether it cost anything.
fn attempts(lines: &[Value]) -> Vec<(i64, String, String, u64, bool)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut all: Vec<_> = lines
        .iter()
        .map(|line| {
            let written = line["tokens"]["output"].as_u64().expect("a count");
            let number = line["attempt"].as_i64().expect("a number");
            (number, text(&line["backend"]), text(&line["outcome"]), written, line["cost"] != 0)
        })
        .collect();
    all.sort();
    all
}

fn operations(lines: &[Value]) -> usize {
    lines.iter().map(|line| line["operation"].to_string()).collect::<BTreeSet<_>>().len()
}

/// The first one is still being read when company is asked, and pays behind it: it must not end
/// what the company was paid.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_may_pay_last() {
    let cloud = after(Duration::from_millis(1500)).await;
    let house = House::new().await;
    let limits = Limits { inline_bytes_max: 1, ..Limits::default() };
    let fake = house.gateway(
        &pool(&cloud, "hedge_after = \"1ms\"\n"),
        Setup { limits, context: 1 << 20, ..Setup::default() },
    );
    house.prices(&fake.router, 1_000_000, 1_000_000).await;
    let key = house.key(&fake.router, "team", json!({})).await;
    fake.gate.close();
    let (path, body) = Inbound::Chat.request("p", false, &"many words ".repeat(20_000));
    let got = send(&fake.router, request(&key, &path, &body)).await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert!(got.route().starts_with("cloud/m"), "{}", got.route());
    fake.gate.open();
    fake.idle().await;
    let lines = house.settled(&fake.router, 2).await;
    let mut found = attempts(&lines);
    found.sort_by_key(|(_, backend, ..)| backend.clone());
    let [cloud, local] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&*cloud.1, &*cloud.2, cloud.3, cloud.4), ("cloud", "done", 3, true), "{lines:?}");
    assert_eq!((&*local.1, &*local.2, local.3, local.4), ("local", "cancelled", 0, false));
    assert_eq!(BTreeSet::from([cloud.0, local.0]), BTreeSet::from([1, 2]), "{lines:?}");
    assert_eq!(operations(&lines), 1, "{lines:?}");
}

/// What a model here had made of an answer that nobody reads costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_one_that_lost_had_written_already() {
    let cloud = after(Duration::from_millis(300)).await;
    let house = House::new().await;
    let (endless, pace) = (true, Duration::from_millis(5));
    let setup = Setup { endless, pace, ..Setup::default() };
    let fake = house.gateway(&pool(&cloud, "hedge_after = \"50ms\"\n"), setup);
    house.prices(&fake.router, 1_000_000, 1_000_000).await;
    let key = house.key(&fake.router, "team", json!({})).await;
    let (path, body) = Inbound::Chat.request("p", false, "hi");
    let got = send(&fake.router, request(&key, &path, &body)).await;
    assert!(got.route().starts_with("cloud/m"), "{} {}", got.route(), got.text());
    fake.idle().await;
    assert!(fake.steps.load(std::sync::atomic::Ordering::SeqCst) > 5, "it had written");
    let lines = house.settled(&fake.router, 2).await;
    let (local, cloud) = ("local".to_owned(), "cloud".to_owned());
    let expect =
        [(1, local, "cancelled".to_owned(), 0, false), (2, cloud, "done".to_owned(), 3, true)];
    assert_eq!(attempts(&lines), expect, "{lines:?}");
    assert_eq!(operations(&lines), 1);
}

/// Each prompt of a plain completion is paid for by itself, and all of them are lost together.
#[tokio::test(flavor = "multi_thread")]
async fn all_prompts_of_the_one_that_lost_cost_nothing() {
    let cloud = after(Duration::from_millis(300)).await;
    let house = House::new().await;
    let (endless, pace) = (true, Duration::from_millis(5));
    let setup = Setup { endless, pace, ..Setup::default() };
    let config = pool(&cloud, "hedge_after = \"50ms\"\n").replace("compatible", "vllm");
    let fake = house.gateway(&config, setup);
    house.prices(&fake.router, 1_000_000, 1_000_000).await;
    let key = house.key(&fake.router, "team", json!({})).await;
    let body = json!({ "model": "p", "prompt": ["one", "two"], "max_tokens": 3000 });
    let got = send(&fake.router, request(&key, "/v1/completions", &body)).await;
    assert!(got.route().starts_with("cloud/m"), "{} {}", got.route(), got.text());
    fake.idle().await;
    let lines = house.settled(&fake.router, 3).await;
    let lost: Vec<_> = attempts(&lines).into_iter().filter(|(_, by, ..)| by == "local").collect();
    assert_eq!(lost.len(), 2, "{lines:?}");
    assert!(
        lost.iter().all(|(_, _, how, written, cost)| how == "cancelled" && *written == 0 && !cost)
    );
}

/// A device that hangs is no fault of the caller's, whose money is free at once.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_pays_for_a_device_that_hangs() {
    let cloud = Upstream::well("cloud").await;
    let house = House::new().await;
    let setup = Setup {
        endless: true,
        pace: Duration::from_millis(5),
        hangs: Some(Duration::from_secs(1)),
        ..Setup::default()
    };
    let fake = house.gateway(&pool(&cloud, ""), setup);
    house.prices(&fake.router, 1_000_000, 1_000_000).await;
    let key = house.key(&fake.router, "team", json!({})).await;
    for (count, (model, stream)) in (1..).zip([("org/fake", false), ("org/fake", true)]) {
        let (path, body) = Inbound::Chat.request(model, stream, "hi");
        let steps = fake.steps.load(std::sync::atomic::Ordering::SeqCst);
        let (router, asked) = (fake.router.clone(), request(&key, &path, &body));
        let answer = tokio::spawn(async move { send(&router, asked).await });
        crate::caller::until("it writes", || {
            fake.steps.load(std::sync::atomic::Ordering::SeqCst) > steps + 5
        })
        .await;
        fake.gate.close();
        let got = answer.await.expect("an answer");
        assert!(got.text().contains("hangs"), "{}", got.text());
        let lines = house.settled(&fake.router, count).await;
        assert_eq!((&lines[0]["outcome"], &lines[0]["cost"]), (&json!("failed"), &json!(0)));
        let budgets = fake.models.first().expect("the fake").engine.open();
        assert_eq!(budgets, 1, "the device still has it");
        fake.gate.open();
        fake.idle().await;
        assert_eq!(house.settled(&fake.router, count).await.len(), count, "once");
        let engine = fake.models.first().expect("the fake").engine.clone();
        crate::caller::until("it is well", || {
            engine.state() == gateway::backend::local::EngineState::Ready
        })
        .await;
    }
}

/// Two that come to their end at once: one of them is paid for, whoever has the caller.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_whole_answers_one_is_paid_for() {
    let cloud = after(Duration::from_millis(120)).await;
    let house = House::new().await;
    let setup = Setup { pace: Duration::from_millis(1), ..Setup::default() };
    let fake = house.gateway(&pool(&cloud, "hedge_after = \"1ms\"\nattempts = 2\n"), setup);
    house.prices(&fake.router, 1_000_000, 1_000_000).await;
    let key = house.key(&fake.router, "team", json!({})).await;
    let (path, body) = Inbound::Chat.request("p", false, "hi");
    // The hedges' share of requests is bounded: some of these have no company.
    for count in 1..=15_u64 {
        cloud.turn(move |seen| {
            let mut steps = vec![Step::Pause(Duration::from_millis(count))];
            steps.extend(good(seen, "cloud"));
            steps
        });
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
    fake.idle().await;
    let lines = house.settled(&fake.router, 15).await;
    let mut paid: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for line in &lines {
        *paid.entry(line["operation"].to_string()).or_default() += usize::from(line["cost"] != 0);
    }
    assert_eq!(paid.len(), 15, "{lines:?}");
    assert!(paid.values().all(|count| *count == 1), "{lines:?}");
}

/// Which arm of an experiment each attempt belonged to stands in its line, wherever it was made.
#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_tells_arms_apart() {
    let ill = Upstream::start(|_| answer(500, "", b"{}")).await;
    let config = format!(
        "{}[pools.p]\ntargets = [{{ target = \"ill/m\", arm = \"a\" }}, \
         {{ target = \"org/fake\", arm = \"b\" }}]\n",
        provider("ill", "vllm", &ill.url, "")
    );
    let house = House::new().await;
    let fake = house.gateway(&config, Setup::default());
    house.prices(&fake.router, 1_000_000, 1_000_000).await;
    let key = house.key(&fake.router, "team", json!({})).await;
    let mut lines = Vec::new();
    for (count, expect, (path, mut body), prompts) in [
        (2, vec!["a", "b"], Inbound::Chat.request("p", false, "hi"), None),
        (5, vec!["a", "b", "b"], Inbound::Completions.request("p", false, ""), Some(["hi", "ho"])),
        (6, vec![""], Inbound::Chat.request("org/fake", false, "hi"), None),
    ] {
        prompts.iter().for_each(|prompts| body["prompt"] = json!(prompts));
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
        let all = house.settled(&fake.router, count).await;
        let new = all.iter().filter(|line| !lines.contains(*line));
        let mut arms: Vec<_> = new.map(|line| line["arm"].as_str().expect("text")).collect();
        arms.sort_unstable();
        assert_eq!(arms, expect, "{path}");
        lines = all;
    }
}

/// What a request goes on with is part of what a provider reads: also where the stream breaks off
/// before the provider says how much that was.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_is_paid_for_too() {
    let ill = Upstream::start(|_| cut(&events(Tongue::Chat, "first")[..3], end())).await;
    let house = House::new().await;
    let config = provider("p", "compatible", &ill.url, "lost_fields = \"drop\"\n");
    let master = Master::parse(Master::generate().expose()).expect("a key");
    house.governor.record_with(Arc::new(Keyring { current: master, old: Vec::new() }));
    let fake = house.gateway(&config, Setup::default());
    house.prices(&fake.router, 1_000_000, 1_000_000).await;
    let key = house.key(&fake.router, "team", json!({})).await;
    let words = "many words ".repeat(100);
    let (path, mut body) = Inbound::Responses.request("org/fake", false, &words);
    (body["max_output_tokens"], body["store"]) = (json!(8), json!(true));
    let first = send(&fake.router, request(&key, &path, &body)).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let first: Value = serde_json::from_slice(&first.bytes).expect("JSON");
    let (path, mut body) = Inbound::Responses.request("p/m", true, "and then?");
    body["previous_response_id"] = first["id"].clone();
    let got = send(&fake.router, request(&key, &path, &body)).await;
    assert!(got.text().contains("response.failed"), "{}", got.text());
    let lines = house.settled(&fake.router, 2).await;
    let line = lines.iter().find(|line| line["backend"] == "p").expect("its line");
    let read = line["tokens"]["input"].as_u64().expect("a count");
    assert!((300..2000).contains(&read), "{line}");
}
