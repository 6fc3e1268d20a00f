//! A house with a governor, and what its books say of requests that a provider answered.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::header::AUTHORIZATION;
use gateway::api::Door;
use govern::governor::Clock;
use govern::{Governor, Settings};
use serde_json::{Value, json};

use crate::caller::{Inbound, provider, request, routes, send, until};
use crate::fake::{Fake, Setup};
use crate::leaving::{asked, listen, read_until};
use crate::speech::{chunk, end, events, half, stream_head};
use crate::upstream::{Step, Upstream};

/// A governor on a file of its own.
pub(crate) struct House {
    pub(crate) governor: Governor,
    root: String,
    pub(crate) folder: PathBuf,
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::at(Clock::System).await
    }

    /// As its clock says.
    pub(crate) async fn at(clock: Clock) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hearth-route-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let settings = Settings {
            url: folder.join("hearth.db").display().to_string(),
            journal: folder.join("journal"),
            gateway: "gateway-1".to_owned(),
            clock,
            fsync: govern::Fsync::default(),
            sharing: govern::Sharing::default(),
        };
        let (governor, first) = Governor::open(&settings).await.expect("a governor");
        let root = first.expect("a first start").0.shown;
        Self { governor, root, folder }
    }

    /// A gateway of this house, with a fake model.
    pub(crate) fn gateway(&self, config: &str, setup: Setup) -> Fake {
        let routes = routes(config, &["org/fake", "e"]).expect("a configuration");
        let door = Some(Door::Governed(self.governor.clone(), None));
        Fake::start(Setup { door, routes, ..setup })
    }

    /// What an administrator asks, which has to work.
    pub(crate) async fn admin(&self, router: &Router, line: &str, body: &Value) -> Value {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let body = if body.is_null() { Body::empty() } else { body.to_string().into() };
        let request = Request::builder()
            .method(method)
            .uri(format!("/admin/v1{path}"))
            .header(AUTHORIZATION, format!("Bearer {}", self.root))
            .header("content-type", "application/json");
        let got = send(router, request.body(body).expect("a request")).await;
        assert!(got.status < 300, "{line}: {} {}", got.status, got.text());
        serde_json::from_slice(&got.bytes).expect("JSON")
    }

    /// What a million tokens of every model cost in micro-dollars, read and written.
    pub(crate) async fn prices(&self, router: &Router, input: u64, output: u64) {
        let models = json!([{ "model": "*", "input": input, "output": output }]);
        let prices = json!({ "name": "first", "models": models });
        self.admin(router, "POST /prices", &prices).await;
    }

    /// A key in a project of this policy.
    pub(crate) async fn key(&self, router: &Router, name: &str, policy: Value) -> String {
        let team = self.admin(router, "POST /teams", &json!({ "name": name })).await;
        let project = json!({ "team": team["id"], "name": name, "policy": policy });
        let project = self.admin(router, "POST /projects", &project).await;
        let key = json!({ "label": name, "project": project["id"] });
        let key = self.admin(router, "POST /keys", &key).await;
        key["key"].as_str().expect("the key itself").to_owned()
    }

    /// All lines of the ledger, by pages.
    pub(crate) async fn lines(&self, router: &Router) -> Vec<Value> {
        let (mut lines, mut after) = (Vec::new(), String::new());
        loop {
            let page = format!("GET /ledger?limit=200{after}");
            let page = self.admin(router, &page, &Value::Null).await;
            lines.extend(page["data"].as_array().expect("lines").iter().cloned());
            if page["has_more"] != true {
                return lines;
            }
            after = format!("&after={}", page["last_id"].as_str().expect("an id"));
        }
    }

    /// The lines of the ledger, the newest first.
    async fn ledger(&self, router: &Router) -> Vec<Value> {
        let page = self.admin(router, "GET /ledger?limit=200", &Value::Null).await;
        page["data"].as_array().expect("lines").clone()
    }

    /// Waits for so many lines.
    pub(crate) async fn settled(&self, router: &Router, count: usize) -> Vec<Value> {
        for _ in 0..1_000 {
            let lines = self.ledger(router).await;
            if lines.len() >= count {
                return lines;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("never {count} lines: {:?}", self.ledger(router).await);
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A caller that leaves pays for what it has had, and the books say that it left; also where the
/// provider's first word of the prompt is that it has 0 tokens, as LiteLLM's is in messages.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_pays_for_what_was_read() {
    let upstream = Upstream::start(|seen| {
        let begun = String::from_utf8(half(seen.tongue(), "first")).expect("text");
        let begun = begun.replace("\"input_tokens\":11", "\"input_tokens\":0");
        vec![stream_head(), chunk(begun), Step::Silence]
    })
    .await;
    let house = House::new().await;
    let config = ["compatible", "anthropic"]
        .map(|kind| provider(kind, kind, &upstream.url, "lost_fields = \"drop\"\n"));
    let fake = house.gateway(&config.concat(), Setup::default());
    let key = house.key(&fake.router, "team", json!({})).await;
    let address = listen(fake.router.clone()).await;
    let ways = ["compatible", "anthropic"]
        .into_iter()
        .flat_map(|kind| [Inbound::Chat, Inbound::Messages].map(|inbound| (kind, inbound)));
    for (times, (kind, inbound)) in (1..).zip(ways) {
        let (path, body) = inbound.request(&format!("{kind}/m"), true, "hi");
        let mut client = asked(address, &key, &path, &body).await;
        read_until(&mut client, "from").await;
        drop(client);
        until("the provider is left", || upstream.left() == times).await;
        let lines = house.settled(&fake.router, times).await;
        let line = &lines[0];
        assert_eq!(line["outcome"], "cancelled", "{line}");
        assert_eq!((&line["model"], &line["backend"]), (&json!(format!("{kind}/m")), &json!(kind)));
        let output = line["tokens"]["output"].as_u64().expect("a count");
        assert!((2..=3).contains(&output), "{inbound:?} {line}");
        assert!(line["tokens"]["input"].as_u64().expect("a count") > 0, "{line}");
    }
}

/// What is cut where the money ends is paid for as far as it went. A message says at its beginning
/// what was used so far, which is not that.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_budget_cuts_is_paid_for() {
    let upstream = Upstream::start(|seen| {
        let mut begun = events(seen.tongue(), "first");
        let at = begun.iter().position(|event| event.contains(" from")).expect("a second token");
        let Step::Bytes(token) = chunk(begun.swap_remove(at)) else { panic!("a chunk is bytes") };
        begun.truncate(2);
        vec![stream_head(), chunk(begun.concat()), Step::Endless(token)]
    })
    .await;
    let house = House::new().await;
    let fake = house.gateway(&provider("p", "anthropic", &upstream.url, ""), Setup::default());
    house.prices(&fake.router, 0, 10_000_000).await;
    for (times, inbound) in (1..).zip([Inbound::Chat, Inbound::Messages]) {
        let name = format!("{inbound:?}");
        let key = house.key(&fake.router, &name, json!({})).await;
        let teams = house.admin(&fake.router, "GET /teams", &Value::Null).await;
        let teams = teams["data"].as_array().expect("teams");
        let team = teams.iter().find(|team| team["name"] == name).expect("its team");
        let scope = format!("team:{}", team["id"].as_str().expect("an id"));
        let budget = json!({ "name": name, "scope": scope,
            "limits": [{ "period": "total", "nano_usd": 50 * 10_000 }] });
        house.admin(&fake.router, "POST /budgets", &budget).await;
        let (path, mut body) = inbound.request("p/m", true, "hi");
        body["max_tokens"] = 100_000.into();
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert!(inbound.ends(&got.text()), "{}", got.text());
        let read = got.text().matches(" from").count();
        let line = &house.settled(&fake.router, times).await[0];
        assert_eq!(line["outcome"], "budget_stop", "{line}");
        assert!(read >= 49, "{read} tokens");
        assert_eq!(line["tokens"]["output"], read, "{line}");
    }
}

/// What comes at once is paid for at once, however much more it is than was asked for at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_no_end_of_the_money() {
    const TOKENS: usize = 3_000;
    let upstream = Upstream::start(|seen| {
        let mut all = events(seen.tongue(), "first");
        let at = all.iter().position(|event| event.contains(" from")).expect("a second token");
        all[at] = all[at].repeat(TOKENS);
        vec![stream_head(), chunk(all.concat()), end()]
    })
    .await;
    let house = House::new().await;
    let fake = house.gateway(&provider("p", "compatible", &upstream.url, ""), Setup::default());
    house.prices(&fake.router, 0, 10_000_000).await;
    let key = house.key(&fake.router, "burst", json!({})).await;
    let budget = json!({ "name": "all", "scope": "everything",
        "limits": [{ "period": "total", "usd": "1000" }] });
    house.admin(&fake.router, "POST /budgets", &budget).await;
    let (path, mut body) = Inbound::Chat.request("p/m", true, "hi");
    body["max_tokens"] = 100_000.into();
    let got = send(&fake.router, request(&key, &path, &body)).await;
    assert_eq!(got.text().matches(" from").count(), TOKENS);
    let line = &house.settled(&fake.router, 1).await[0];
    assert_eq!(line["outcome"], "done", "{line}");
}

/// One operation with a line for each attempt; who answers pays, and only for that.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_share_an_operation() {
    let ill = Upstream::start(|_| vec![Step::Reset]).await;
    let well = Upstream::well("second").await;
    let house = House::new().await;
    let config = format!(
        "{}{}[pools.p]\ntargets = [\"ill/m\", \"well/m\"]\n",
        provider("ill", "compatible", &ill.url, ""),
        provider("well", "compatible", &well.url, ""),
    );
    let fake = house.gateway(&config, Setup::default());
    let key = house.key(&fake.router, "team", json!({})).await;
    for stream in [false, true] {
        let (path, body) = Inbound::Chat.request("p", stream, "hi");
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
    let lines = house.settled(&fake.router, 4).await;
    // Nobody answers: it is booked as that.
    let (path, body) = Inbound::Chat.request("ill/n", false, "hi");
    assert_eq!(send(&fake.router, request(&key, &path, &body)).await.status, 502);
    let alone = &house.settled(&fake.router, 5).await[0];
    assert_eq!((&alone["outcome"], &alone["tokens"]["input"]), (&json!("failed"), &json!(0)));
    let mut found: Vec<String> = lines
        .iter()
        .map(|line| {
            format!(
                "{} {} {} {}",
                line["backend"], line["attempt"], line["outcome"], line["tokens"]["output"]
            )
        })
        .collect();
    found.sort();
    let (failed, done) = ("\"ill\" 1 \"failed\" 0", "\"well\" 2 \"done\" 3");
    assert_eq!(found, [failed, failed, done, done]);
    let operations: std::collections::BTreeSet<_> =
        lines.iter().map(|line| line["operation"].to_string()).collect();
    assert_eq!(operations.len(), 2);
}

/// Of a stream that never begins nobody has read anything: it costs nothing, whoever answers then.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_never_begins_costs_nothing() {
    let ill = Upstream::start(|_| vec![stream_head(), end()]).await;
    let well = Upstream::well("second").await;
    let house = House::new().await;
    let more = "lost_fields = \"drop\"\n";
    let config = format!(
        "{}{}[pools.p]\ntargets = [\"ill/m\", \"well/m\"]\n",
        provider("ill", "compatible", &ill.url, more),
        provider("well", "compatible", &well.url, more),
    );
    let fake = house.gateway(&config, Setup::default());
    house.prices(&fake.router, 1_000_000, 1_000_000).await;
    let key = house.key(&fake.router, "team", json!({})).await;
    for (times, inbound) in (1..).zip([Inbound::Chat, Inbound::Messages]) {
        let (path, body) = inbound.request("p", true, "hi");
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert!(inbound.ends(&got.text()), "{}", got.text());
        let lines = house.settled(&fake.router, 2 * times).await;
        let of = |backend: &str| {
            let line = lines[..2].iter().find(|line| line["backend"] == backend).expect("a line");
            (line["outcome"].clone(), line["tokens"]["input"].clone(), line["cost"].clone())
        };
        assert_eq!(of("ill"), (json!("failed"), json!(0), json!(0)), "{lines:?}");
        assert_eq!(of("well"), (json!("done"), json!(11), json!(14_000)), "{lines:?}");
    }
}

/// A stream that the provider breaks is no cancel of the caller's.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_is_booked_as_failed() {
    let upstream =
        Upstream::start(|seen| vec![stream_head(), chunk(half(seen.tongue(), "x")), end()]).await;
    let house = House::new().await;
    let config = provider("p", "compatible", &upstream.url, "lost_fields = \"drop\"\n");
    let fake = house.gateway(&config, Setup::default());
    let key = house.key(&fake.router, "team", json!({})).await;
    for (times, inbound) in (1..).zip([Inbound::Chat, Inbound::Messages]) {
        let (path, body) = inbound.request("p/m", true, "hi");
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert!(inbound.breaks(&got.text()), "{}", got.text());
        let lines = house.settled(&fake.router, times).await;
        assert_eq!(lines[0]["outcome"], "failed", "{}", lines[0]);
        let output = lines[0]["tokens"]["output"].as_u64().expect("a count");
        assert!((2..=3).contains(&output), "{}", lines[0]);
    }
}

/// What policy allows of new tokens is what a provider is asked for, in its own words.
#[tokio::test(flavor = "multi_thread")]
async fn a_bound_on_tokens_reaches_the_provider() {
    let upstream = Upstream::well("first").await;
    let house = House::new().await;
    let more = "lost_fields = \"drop\"\n";
    let config: String = ["compatible", "openai", "anthropic", "gemini"]
        .map(|kind| provider(kind, kind, &upstream.url, more))
        .concat();
    let fake = house.gateway(&config, Setup::default());
    let key = house.key(&fake.router, "team", json!({ "max_tokens": 50 })).await;
    for (kind, inbound, path) in [
        ("compatible", Inbound::Chat, "/max_tokens"),
        ("compatible", Inbound::Responses, "/max_tokens"),
        ("openai", Inbound::Chat, "/max_completion_tokens"),
        ("openai", Inbound::Responses, "/max_output_tokens"),
        ("anthropic", Inbound::Chat, "/max_tokens"),
        ("anthropic", Inbound::Responses, "/max_tokens"),
        ("gemini", Inbound::Chat, "/generationConfig/maxOutputTokens"),
        ("gemini", Inbound::Gemini, "/generationConfig/maxOutputTokens"),
    ] {
        for stream in [false, true] {
            let (route, body) = inbound.request(&format!("{kind}/m"), stream, "hi");
            let got = send(&fake.router, request(&key, &route, &body)).await;
            assert_eq!(got.status, 200, "{kind} {inbound:?}: {}", got.text());
            let sent = upstream.seen().pop().expect("a request").json();
            assert_eq!(sent.pointer(path), Some(&json!(50)), "{kind} {inbound:?}: {sent}");
        }
    }
    // A `null` is no bound, and does not stand beside ours; nor do two fields hide one.
    for (kind, field) in [("compatible", "max_tokens"), ("openai", "max_completion_tokens")] {
        let (route, mut body) = Inbound::Chat.request(&format!("{kind}/m"), false, "hi");
        body[field] = Value::Null;
        let got = send(&fake.router, request(&key, &route, &body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
        let sent = upstream.seen().pop().expect("a request");
        assert_eq!(sent.json()[field], 50);
        assert_eq!(String::from_utf8_lossy(&sent.body).matches(field).count(), 1);
    }
    let (route, mut body) = Inbound::Chat.request("compatible/m", false, "hi");
    (body["max_completion_tokens"], body["max_tokens"]) = (1.into(), 5_000.into());
    let got = send(&fake.router, request(&key, &route, &body)).await;
    assert_eq!(got.status, 403, "{}", got.text());
    let (route, mut body) = Inbound::Gemini.request("gemini/m", false, "hi");
    body["generationConfig"] = json!({ "maxOutputTokens": 5_000 });
    let got = send(&fake.router, request(&key, &route, &body)).await;
    assert_eq!(got.status, 403, "{}", got.text());
    // Who asks for less gets less; who asks for more is refused before anybody is asked.
    let before = upstream.count();
    for (asks, status) in [(7, 200), (51, 403)] {
        let (route, mut body) = Inbound::Chat.request("compatible/m", false, "hi");
        body["max_tokens"] = asks.into();
        let got = send(&fake.router, request(&key, &route, &body)).await;
        assert_eq!(got.status, status, "{}", got.text());
    }
    assert_eq!(upstream.count(), before + 1);
    assert_eq!(upstream.seen()[before].json()["max_tokens"], 7);
}

/// A policy names the tools that may be offered, whoever answers and however they are written.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_sees_the_tools_of_every_dialect() {
    let upstream = Upstream::well("word").await;
    let house = House::new().await;
    let kinds = ["compatible", "anthropic", "gemini", "openai"];
    let config = kinds.map(|kind| provider(kind, kind, &upstream.url, "lost_fields = \"drop\"\n"));
    let fake = house.gateway(&config.concat(), Setup::default());
    let key = house.key(&fake.router, "team", json!({ "tools": ["get_*"] })).await;
    let schema = json!({ "type": "object", "properties": {} });
    let named = |name: &str| json!({ "name": name, "description": "x", "parameters": schema });
    for (inbound, kind, field, tools) in [
        (Inbound::Chat, "compatible", "functions", json!([named("rm")])),
        (
            Inbound::Messages,
            "anthropic",
            "tools",
            json!([{ "name": "rm", "input_schema": schema }]),
        ),
        (Inbound::Gemini, "gemini", "tools", json!([{ "functionDeclarations": [named("rm")] }])),
        (Inbound::Gemini, "gemini", "tools", json!([{ "googleSearch": {} }])),
        (Inbound::Responses, "openai", "tools", json!([{ "type": "web_search" }])),
    ] {
        let (path, mut body) = inbound.request(&format!("{kind}/m"), false, "hi");
        body[field] = tools;
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert_eq!(got.status, 403, "{inbound:?} {body}: {}", got.text());
        let text = body.to_string();
        if text.contains("\"rm\"") {
            let text = text.replace("\"rm\"", "\"get_time\"");
            let body = serde_json::from_str(&text).expect("JSON");
            let got = send(&fake.router, request(&key, &path, &body)).await;
            assert_eq!(got.status, 200, "{inbound:?} {body}: {}", got.text());
        }
    }
    assert_eq!(upstream.count(), 3);
}
