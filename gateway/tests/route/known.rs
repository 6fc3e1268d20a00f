//! What is known of a provider's model counts where its operator says nothing, and only there. Its
//! list price counts nowhere before somebody has set it.

use std::time::Instant;

use axum::body::Body;
use axum::http::Request;
use gateway::route::{Asked, Needs, Verdict};
use gateway::upstream::{Kind, models};
use serde_json::{Value, json};
use wire::Dialect;

use crate::caller::{Inbound, gateway, provider, request, routes, send};
use crate::fake::Setup;
use crate::governed::House;
use crate::strategies::Here;
use crate::upstream::Upstream;

const OSS: &str = "groq/openai/gpt-oss-120b";

/// It reads 131,072 tokens and no pictures, as the table says; the other one is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_to_be_too_short_or_blind_is_passed_over() {
    let (known, other) = (Upstream::well("known").await, Upstream::well("other").await);
    let router = gateway(&format!(
        "{}{}[pools.p]\ntargets = [\"{OSS}\", \"other/m\"]\n",
        provider("groq", "groq", &known.url, ""),
        provider("other", "compatible", &other.url, ""),
    ));
    let image =
        json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } });
    let body = |model: &str, content: Value| {
        let turns = json!([{ "role": "user", "content": content }]);
        json!({ "model": model, "messages": turns })
    };
    for (content, expect, verdict) in [
        (json!("hi"), OSS, "may answer"),
        (json!([image.clone()]), "other/m", "knows no images"),
        (
            json!("word ".repeat(200_000)),
            "other/m",
            "reads 131072 tokens, perhaps too few; asked late",
        ),
    ] {
        let body = body("p", content);
        let got = send(&router, request("", "/v1/chat/completions", &body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
        assert_eq!(got.route(), format!("{expect}; pool=p; reason=priority; attempt=1"));
        let told = send(&router, request("", "/v1/route/explain", &body)).await;
        let told: Value = serde_json::from_slice(&told.bytes).expect("JSON");
        assert_eq!(told["candidates"][0]["verdict"], verdict, "{told}");
    }
    assert_eq!((known.count(), other.count()), (1, 2));
    // By its own name it is asked all the same, and says itself what it cannot.
    let got = send(&router, request("", "/v1/chat/completions", &body(OSS, json!([image])))).await;
    assert_eq!((got.status, known.count()), (200, 2), "{}", got.text());
    assert_eq!(got.route(), format!("{OSS}; pool={OSS}; reason=priority; attempt=1"));
}

#[test]
fn what_the_operator_says_counts() {
    let found = |kind: &str, target: &str, local: &[&str]| {
        let far = provider("far", kind, "http://127.0.0.1:1", "");
        let config = format!("{far}[pools.p]\ntargets = [{target}]\n");
        let routes = routes(&config, local).expect("a configuration");
        ["p", "far/codestral-2508"].map(|name| {
            let pool = routes.find(name).expect("a pool");
            let target = pool.everybody().next().expect("a target");
            (target.context, target.without.clone())
        })
    };
    let table = |more: &str| format!("{{ target = \"far/codestral-2508\", {more} }}");
    let plain = "\"far/codestral-2508\"".to_owned();
    for (kind, target, context, without) in [
        ("mistral", plain.clone(), Some(128_000), vec![Needs::Images]),
        ("mistral", table("context = 9"), Some(9), vec![Needs::Images]),
        ("mistral", table("without = []"), Some(128_000), vec![]),
        ("mistral", table("without = [\"tools\"]"), Some(128_000), vec![Needs::Tools]),
        ("mistral", table("weight = 2"), Some(128_000), vec![Needs::Images]),
        // Of a prompt, where that is bounded apart.
        ("openai", "\"far/gpt-5-2025-08-07\"".to_owned(), Some(272_000), vec![]),
        // Nothing is known of others' names, and of other kinds' models.
        ("mistral", "\"far/codestral\"".to_owned(), None, vec![]),
        ("openai", plain.clone(), None, vec![]),
        ("compatible", plain.clone(), None, vec![]),
    ] {
        let [pool, direct] = found(kind, &target, &[]);
        assert_eq!(pool, (context, without), "{kind} {target}");
        assert_eq!(direct, (None, vec![]), "asked by its own name");
    }
    // A model of this server knows itself, whatever it is called.
    let [pool, _] = found("mistral", &plain, &["far/codestral-2508"]);
    assert_eq!(pool, (None, vec![Needs::Images]));
}

#[tokio::test]
async fn what_makes_embeddings_answers_no_chats() {
    let config = format!(
        "{}{}[pools.p]\ntargets = [\"far/text-embedding-3-small\", \"other/m\"]\n\
         [pools.numbers]\ntargets = [\"far/text-embedding-3-small\"]\n",
        provider("far", "openai", "http://127.0.0.1:1", ""),
        provider("other", "compatible", "http://127.0.0.1:1", ""),
    );
    let routes = routes(&config, &[]).expect("a configuration");
    let pool = routes.find("p").expect("the pool");
    for (dialect, expect) in [
        (Dialect::Chat, vec!["other/m"]),
        (Dialect::Messages, vec!["other/m"]),
        (Dialect::Embeddings, vec!["far/text-embedding-3-small", "other/m"]),
    ] {
        let asked = Asked { dialect: Some(dialect), ..Asked::default() };
        let plan = pool.plan(&asked, &Here::default(), Instant::now());
        let order: Vec<&str> = plan.order.iter().map(|target| &*target.name).collect();
        assert_eq!(order, expect);
        let silent = plan.findings[0].verdict == Verdict::Silent(dialect);
        assert_eq!(silent, expect.len() == 1);
    }
    // The lists of those who chat do not have it.
    let list = Request::get("/v1/models").header("anthropic-version", "2023-06-01");
    let got = send(&gateway(&config), list.body(Body::empty()).expect("a request")).await;
    assert!(got.text().contains("\"p\"") && !got.text().contains("numbers"), "{}", got.text());
}

#[test]
fn the_table_speaks_as_targets_do() {
    for (source, model) in models::all() {
        let is = |word: &String| Needs::ALL.iter().any(|needs| needs.name() == word);
        assert!(model.without.iter().all(is), "{:?} of {}", model.names, source.url);
    }
}

/// A sheet of list prices is taken as it is written, and nobody pays by it before.
#[tokio::test(flavor = "multi_thread")]
async fn list_prices_count_once_they_are_set() {
    let upstream = Upstream::well("far").await;
    let house = House::new().await;
    let config = provider("work", "openai", &upstream.url, "");
    let fake = house.gateway(&config, Setup::default());
    let key = house.key(&fake.router, "team", json!({})).await;
    let openai = Kind::named("openai").expect("a kind");
    let sheet = models::sheet(&[("work", openai)]);
    let sheet: Value = serde_json::from_str(&sheet).expect("JSON");
    // Eleven tokens of prompt and three of answer, in nano-dollars.
    for (times, cost) in [(1, 0), (2, 11 * 150 + 3 * 600)] {
        let (path, body) = Inbound::Chat.request("work/gpt-4o-mini", false, "hi");
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
        let lines = house.settled(&fake.router, times).await;
        assert_eq!(lines[0]["cost"], cost, "{}", lines[0]);
        if times == 1 {
            house.admin(&fake.router, "POST /prices", &sheet).await;
        }
    }
}
