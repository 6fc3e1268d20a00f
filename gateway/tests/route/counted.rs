//! What `/metrics` shows of providers and pools.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use crate::caller::{Inbound, ask, gateway, provider, request, send, until};
use crate::fake::Setup;
use crate::governed::House;
use crate::leaving::{asked, listen, read_until};
use crate::speech::{answer, chunk, end, good, half, stream_head};
use crate::upstream::{Step, Upstream};

/// The lines of families whose name begins so, without what explains them.
async fn shown(router: &Router, begins: &str) -> Vec<String> {
    let asked = Request::get("/metrics").body(Body::empty()).expect("a request");
    let text = send(router, asked).await.text();
    let lines = text.lines().filter(|line| line.starts_with(begins));
    lines.map(str::to_owned).collect()
}

/// What one series of a provider's model shows; 0 where there is none.
async fn of(router: &Router, name: &str, labels: &str) -> f64 {
    let begins = format!("hearth_{name}{{{labels}}} ");
    let lines = shown(router, &begins).await;
    lines.first().map_or(0.0, |line| line[begins.len()..].parse().expect("a number"))
}

/// A provider whose models end in every way.
async fn of_all_kinds() -> Upstream {
    Upstream::start(|seen| match &*seen.json()["model"].to_string() {
        "\"refused\"" => answer(400, "", b"{}"),
        "\"denied\"" => answer(401, "", b"{}"),
        "\"busy\"" => answer(429, "retry-after: 0\r\n", b"{}"),
        "\"failed\"" => answer(500, "", b"{}"),
        "\"errs\"" => {
            let error = match seen.path.ends_with("/messages") {
                true => {
                    "event: error\ndata: {\"type\":\"error\",\"error\":{\"message\":\"x\"}}\n\n"
                }
                false => "data: {\"error\":{\"message\":\"x\"}}\n\n",
            };
            let begun = chunk(half(seen.tongue(), "x"));
            let pause = Step::Pause(Duration::from_millis(50));
            vec![stream_head(), begun, pause, chunk(error), end()]
        }
        "\"late\"" => vec![stream_head(), end()],
        "\"broken\"" => vec![stream_head(), chunk(half(seen.tongue(), "x")), end()],
        _ => good(seen, "word"),
    })
    .await
}

#[tokio::test]
async fn each_request_to_a_provider_is_counted_once() {
    let upstream = of_all_kinds().await;
    let more = "lost_fields = \"drop\"\n";
    let named =
        [("compatible", "compatible"), ("anthropic", "anthropic"), ("translated", "anthropic")];
    let config = named.map(|(name, kind)| provider(name, kind, &upstream.url, more)).concat();
    let router = gateway(&config);
    let inbounds = [Inbound::Chat, Inbound::Messages, Inbound::Responses];
    for ((kind, _), inbound) in named.into_iter().zip(inbounds) {
        for (model, stream) in [
            ("well", false),
            ("well", true),
            ("refused", false),
            ("denied", false),
            ("busy", true),
            ("failed", true),
            ("late", true),
            ("broken", true),
            ("errs", true),
        ] {
            ask(&router, inbound, &format!("{kind}/{model}"), stream).await;
        }
        // One that is refused here was never sent.
        let wrong = json!({ "model": format!("{kind}/no"), "input": [7] });
        assert_eq!(send(&router, request("", "/v1/responses", &wrong)).await.status, 400);
        let not_sent = shown(&router, "hearth_provider_requests_total{model=\"no\"").await;
        assert!(not_sent.iter().all(|line| line.ends_with(" 0")), "{not_sent:?}");

        let count = async |model: &str, outcome: &str| {
            let all = shown(&router, "hearth_provider_requests_total").await;
            let of = format!("model=\"{model}\",outcome=\"{outcome}\",provider=\"{kind}\"}} ");
            let own = all.iter().filter_map(|line| line.split_once(&of));
            own.map(|(_, number)| number.parse::<u64>().expect("a number")).sum::<u64>()
        };
        for (model, outcome) in [
            ("well", "answered"),
            ("refused", "refused"),
            ("denied", "failed"),
            ("busy", "busy"),
            ("failed", "failed"),
            ("late", "failed"),
            ("broken", "broken"),
            ("errs", "broken"),
        ] {
            let times = if model == "well" { 2 } else { 1 };
            for other in ["answered", "refused", "busy", "failed", "broken", "cancelled"] {
                let times = if other == outcome { times } else { 0 };
                assert_eq!(count(model, other).await, times, "{kind} {model} {other}");
            }
            let running = format!("model=\"{model}\",provider=\"{kind}\"");
            assert_eq!(of(&router, "provider_requests_running", &running).await, 0.0, "{model}");
        }
        let well = format!("model=\"well\",provider=\"{kind}\"");
        let well = async |name: &str| of(&router, name, &well).await;
        assert_eq!(well("provider_request_duration_seconds_count").await, 2.0);
        assert_eq!(well("provider_time_to_first_event_seconds_count").await, 1.0);
        let tokens = async |model: &str, token: &str| {
            let labels = format!("kind=\"{token}\",model=\"{model}\",provider=\"{kind}\"");
            of(&router, "provider_tokens_total", &labels).await
        };
        assert_eq!((tokens("well", "input").await, tokens("well", "output").await), (22.0, 6.0));
        assert!(tokens("broken", "output").await >= 2.0, "what was handed out");
        assert_eq!(tokens("late", "input").await, 0.0, "nobody has read anything");
    }
}

#[tokio::test]
async fn who_is_left_alone_is_shown_so() {
    let upstream = Upstream::start(|_| answer(500, "", b"{}")).await;
    let router = gateway(&provider("p", "compatible", &upstream.url, ""));
    let labels = "model=\"m\",provider=\"p\"";
    for _ in 0..3 {
        let standing = of(&router, "provider_available", labels).await;
        assert_eq!(ask(&router, Inbound::Chat, "p/m", false).await.status, 502);
        assert!(standing == 1.0 || upstream.count() == 1, "not yet");
    }
    assert_eq!(of(&router, "provider_available", labels).await, 0.0);
    assert_eq!(ask(&router, Inbound::Chat, "p/m", false).await.status, 503);
    let sent = "model=\"m\",outcome=\"failed\",provider=\"p\"";
    assert_eq!(of(&router, "provider_requests_total", sent).await, 3.0, "the last was not sent");
}

/// Where a provider takes any name, callers do not fill the memory with series.
#[tokio::test]
async fn names_of_strangers_making_share_series() {
    let upstream = Upstream::well("word").await;
    let router = gateway(&provider("p", "compatible", &upstream.url, ""));
    for number in 0..300 {
        let got = ask(&router, Inbound::Chat, &format!("p/m{number}"), false).await;
        assert_eq!(got.status, 200, "{}", got.text());
        // What is only asked about has none; what is long has none of its own.
        let long = format!("p/{}{number}", "x".repeat(128));
        let (_, body) = Inbound::Chat.request(&long, false, "hi");
        let told = send(&router, request("", "/v1/route/explain", &body)).await;
        assert_eq!(told.status, 200, "{}", told.text());
        if number == 0 {
            assert_eq!(ask(&router, Inbound::Chat, &long, false).await.status, 200);
        }
    }
    let series = shown(&router, "hearth_provider_requests_running").await;
    assert_eq!(series.len(), 257);
    let others = "model=\"other\",outcome=\"answered\",provider=\"p\"";
    assert_eq!(of(&router, "provider_requests_total", others).await, 45.0);
}

#[tokio::test]
async fn pools_show_who_answered_and_why() {
    let ill = Upstream::start(|_| answer(500, "", b"{}")).await;
    let well = Upstream::well("word").await;
    let slow = Upstream::start(|seen| {
        let mut steps = vec![Step::Pause(Duration::from_millis(500))];
        steps.extend(good(seen, "late"));
        steps
    })
    .await;
    let gone = Upstream::start(|_| answer(404, "", b"{}")).await;
    let own = [("ill", &ill), ("well", &well), ("slow", &slow), ("gone", &gone)]
        .map(|(name, upstream)| provider(name, "compatible", &upstream.url, ""));
    let config = format!(
        "{}[pools.p]\ntargets = [\"ill/m\", {{ target = \"well/m\", arm = \"b\" }}]\n\
         [pools.none]\ntargets = [\"ill/n\"]\n[pools.old]\ntargets = [\"gone/m\"]\n\
         [pools.quick]\ntargets = [\"slow/m\", \"well/q\"]\nhedge_after = \"20ms\"\n",
        own.concat()
    );
    let router = gateway(&config);
    for _ in 0..2 {
        assert_eq!(ask(&router, Inbound::Chat, "p", false).await.status, 200);
    }
    assert_eq!(ask(&router, Inbound::Chat, "none", false).await.status, 502);
    assert_eq!(ask(&router, Inbound::Chat, "old", false).await.status, 404);
    assert_eq!(ask(&router, Inbound::Chat, "quick", false).await.status, 200);
    // A request at fault is no fault of the pool.
    let wrong = json!({ "model": "none", "messages": 7 });
    assert_eq!(send(&router, request("", "/v1/messages", &wrong)).await.status, 400);
    for (name, labels, number) in [
        ("pool_answers_total", "arm=\"b\",pool=\"p\",reason=\"priority\",target=\"well/m\"", 2.0),
        (
            "pool_answers_total",
            "arm=\"\",pool=\"quick\",reason=\"priority\",target=\"well/q\"",
            1.0,
        ),
        ("pool_retries_total", "kind=\"again\",pool=\"p\"", 2.0),
        ("pool_retries_total", "kind=\"hedge\",pool=\"quick\"", 1.0),
        ("pool_unanswered_total", "pool=\"none\"", 1.0),
        ("pool_unanswered_total", "pool=\"old\"", 1.0),
        ("pool_unanswered_total", "pool=\"p\"", 0.0),
        ("pool_overflows", "pool=\"p\"", 0.0),
        ("provider_requests_total", "model=\"m\",outcome=\"cancelled\",provider=\"slow\"", 1.0),
    ] {
        assert_eq!(of(&router, name, labels).await, number, "{name} {labels}");
    }
}

/// The pool has no more tries when everything fails, and says so.
#[tokio::test]
async fn tries_that_were_denied_are_counted() {
    let ill = Upstream::start(|_| answer(429, "retry-after: 0\r\n", b"{}")).await;
    let config = format!(
        "{}[pools.p]\ntargets = [\"ill/a\", \"ill/b\"]\n",
        provider("ill", "compatible", &ill.url, "")
    );
    let router = gateway(&config);
    for _ in 0..40 {
        assert_eq!(ask(&router, Inbound::Chat, "p", false).await.status, 429);
    }
    let retries = async |kind: &str| {
        of(&router, "pool_retries_total", &format!("kind=\"{kind}\",pool=\"p\"")).await
    };
    let (again, denied) = (retries("again").await, retries("denied").await);
    assert_eq!(again + denied, 40.0);
    assert!(denied > 5.0 && again >= 20.0, "{again} {denied}");
}

/// What it has cost, and how the books are kept; who leaves has had what was handed out.
#[tokio::test(flavor = "multi_thread")]
async fn money_and_books_are_shown() {
    let upstream = Upstream::start(|seen| match seen.json()["model"] == "left" {
        true => vec![stream_head(), chunk(half(seen.tongue(), "first")), Step::Silence],
        false => good(seen, "word"),
    })
    .await;
    let house = House::new().await;
    let fake = house.gateway(&provider("p", "compatible", &upstream.url, ""), Setup::default());
    house.prices(&fake.router, 0, 1_000_000_000).await;
    let key = house.key(&fake.router, "team", json!({ "max_tokens": 50 })).await;
    for (key, most, status) in [("hearth_no_key_at_all", 50, 401), (&*key, 51, 403)] {
        let (path, mut body) = Inbound::Chat.request("p/m", false, "hi");
        body["max_tokens"] = most.into();
        assert_eq!(send(&fake.router, request(key, &path, &body)).await.status, status);
    }
    for stream in [false, true] {
        let (path, body) = Inbound::Chat.request("p/m", stream, "hi");
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
    let address = listen(fake.router.clone()).await;
    let (path, body) = Inbound::Chat.request("p/left", true, "hi");
    let mut client = asked(address, &key, &path, &body).await;
    read_until(&mut client, "from").await;
    drop(client);
    until("the provider is left", || upstream.left() == 1).await;
    let lines = house.settled(&fake.router, 3).await;
    let cost = |model: &str| -> i64 {
        let own = lines.iter().filter(|line| line["model"] == model);
        own.map(|line| line["cost"].as_i64().expect("nano-dollars")).sum()
    };
    // As somebody who may see them.
    let metrics = fake.metrics.render();
    let shown = |begins: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(begins));
        line.unwrap_or_else(|| panic!("{begins} in {metrics}")).trim().parse().expect("a number")
    };
    for (model, outcome) in [("m", "answered"), ("left", "cancelled")] {
        let labels = format!("model=\"{model}\",outcome=\"{outcome}\",provider=\"p\"");
        let times = if model == "m" { 2.0 } else { 1.0 };
        assert_eq!(shown(&format!("hearth_provider_requests_total{{{labels}}}")), times, "{model}");
        let labels = format!("model=\"{model}\",provider=\"p\"");
        let usd = shown(&format!("hearth_provider_cost_usd_total{{{labels}}}"));
        let nano = cost(&format!("p/{model}"));
        assert!(nano > 0 && (usd * 1e9 - nano as f64).abs() < 1.0, "{model} {usd} {nano}");
    }
    assert_eq!(shown("hearth_requests_denied_total{rule=\"invalid_api_key\"}"), 1.0);
    assert_eq!(shown("hearth_requests_denied_total{rule=\"max_tokens_above_policy\"}"), 1.0);
    assert!(shown("hearth_journal_flush_seconds_count") >= 1.0);
    assert!(shown("hearth_ledger_commit_seconds_count") >= 1.0);
    assert_eq!(shown("hearth_ledger_commit_failures_total"), 0.0);
    for gauge in ["hearth_ledger_waiting", "hearth_operations_open"] {
        assert!(shown(gauge) >= 0.0, "{gauge}");
    }
}
