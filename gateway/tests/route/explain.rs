//! Who would answer, and why: told without anybody being asked.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing::Level;

use crate::caller::{Inbound, ask, gateway, provider, request, routes, send};
use crate::fake::{Fake, Setup};
use crate::governed::House;
use crate::upstream::{Step, Upstream};

const PATH: &str = "/v1/route/explain";

async fn explained(router: &axum::Router, key: &str, query: &str, body: &Value) -> Value {
    let got = send(router, request(key, &format!("{PATH}{query}"), body)).await;
    assert_eq!(got.status, 200, "{}", got.text());
    serde_json::from_slice(&got.bytes).expect("JSON")
}

fn chat(model: &str) -> Value {
    Inbound::Chat.request(model, false, "hi").1
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_is_what_is_done() {
    let ill = Upstream::start(|_| vec![Step::Reset]).await;
    let well = Upstream::well("well").await;
    let config = format!(
        "{}{}[pools.p]\ntargets = [\"ill/m\", {{ target = \"well/m\", without = [\"tools\"] }}]\n\
         fallback = [\"org/fake\"]\n",
        provider("ill", "compatible", &ill.url, ""),
        provider("well", "compatible", &well.url, "max_label = \"internal\"\n"),
    );
    let routes = routes(&config, &["org/fake"]).expect("a configuration");
    let fake = Fake::start(Setup { routes, ..Setup::default() });
    let told = explained(&fake.router, "", "", &chat("p")).await;
    assert_eq!(told["order"], json!(["ill/m", "well/m", "org/fake"]), "{told}");
    assert_eq!((&told["pool"], &told["reason"]), (&json!("p"), &json!("priority")));
    assert_eq!((ill.count(), well.count()), (0, 0), "nobody was asked");
    let candidate = |told: &Value, name: &str| {
        let all = told["candidates"].as_array().expect("candidates");
        all.iter().find(|one| one["target"] == name).expect("the candidate").clone()
    };
    assert_eq!(candidate(&told, "org/fake")["group"], "fallback");
    // A label, a need, a failure: each is told of the one that it keeps from answering.
    let told = explained(&fake.router, "", "?label=confidential", &chat("p")).await;
    assert_eq!(told["order"], json!(["org/fake"]), "{told}");
    assert_eq!(candidate(&told, "well/m")["verdict"], "may see internal at most");
    assert_eq!((&told["label"], &told["reason"]), (&json!("confidential"), &json!("fallback")));
    let mut tools = chat("p");
    tools["tools"] = json!([{ "type": "function", "function": { "name": "f" } }]);
    let told = explained(&fake.router, "", "", &tools).await;
    assert_eq!(candidate(&told, "well/m")["verdict"], "knows no tools");
    for _ in 0..3 {
        assert_eq!(ask(&fake.router, Inbound::Chat, "p", false).await.status, 200);
    }
    let told = explained(&fake.router, "", "", &chat("p")).await;
    assert_eq!(told["order"], json!(["well/m", "org/fake"]), "{told}");
    let failed = candidate(&told, "ill/m");
    assert_eq!(failed["may"], false);
    assert!(failed["verdict"].as_str().expect("text").starts_with("has failed"), "{failed}");
    // And that is what is done.
    let got = ask(&fake.router, Inbound::Chat, "p", false).await;
    assert!(got.route().starts_with("well/m;"), "{}", got.route());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_no_pool_is_told_too() {
    let upstream = Upstream::well("x").await;
    let config = provider("p", "compatible", &upstream.url, "");
    let routes = routes(&config, &["org/fake"]).expect("a configuration");
    let fake = Fake::start(Setup { routes, ..Setup::default() });
    let told = explained(&fake.router, "", "", &chat("org/fake")).await;
    assert_eq!((&told["model"], &told["order"]), (&json!("org/fake"), &json!(["org/fake"])));
    let told = explained(&fake.router, "", "", &chat("p/any")).await;
    assert_eq!(told["order"], json!(["p/any"]));
    let got = send(&fake.router, request("", PATH, &chat("org/fak"))).await;
    assert_eq!(got.status, 404, "{}", got.text());
    assert!(got.text().contains("Available: 'org/fake'"), "{}", got.text());
    for (query, body, status) in [
        ("?label=secret", chat("p/any"), 400),
        ("?lable=public", chat("p/any"), 400),
        ("", json!([1]), 400),
        ("", json!({}), 400),
    ] {
        let got = send(&fake.router, request("", &format!("{PATH}{query}"), &body)).await;
        assert_eq!(got.status, status, "{query} {body}: {}", got.text());
    }
}

/// The figures of others are for those who may see figures.
#[tokio::test(flavor = "multi_thread")]
async fn it_asks_for_a_permission() {
    let house = House::new().await;
    let fake = house.gateway("", Setup::default());
    let key = house.key(&fake.router, "team", json!({})).await;
    let got = send(&fake.router, request(&key, PATH, &chat("org/fake"))).await;
    assert_eq!(got.status, 403, "{}", got.text());
    assert!(got.text().contains("metrics.read"), "{}", got.text());
}

/// Who mistypes a name is told the names near it that they may ask, and no others.
#[tokio::test(flavor = "multi_thread")]
async fn near_names_are_those_that_the_caller_may_ask() {
    let house = House::new().await;
    let fake = house.gateway("[pools.assistant]\ntargets = [\"org/fake\"]\n", Setup::default());
    let router = &fake.router;
    let team = house.admin(router, "POST /teams", &json!({ "name": "t" })).await;
    let project = json!({ "team": team["id"], "name": "p" });
    let project = house.admin(router, "POST /projects", &project).await;
    for (models, near) in [
        (json!(["*"]), "Available: 'assistant', 'org/fake'."),
        (json!(["org/*", "other"]), "Available: 'org/fake'."),
        (json!(["other"]), "Available: none."),
    ] {
        let grants = json!([{ "role": "monitor", "scope": "everything" }]);
        let policy = json!({ "models": models });
        let (label, project) = (models.to_string(), &project["id"]);
        let key = json!({ "label": label, "project": project, "policy": policy, "grants": grants });
        let key = house.admin(router, "POST /keys", &key).await;
        let key = key["key"].as_str().expect("the key itself");
        let got = send(router, request(key, PATH, &chat("assistent"))).await;
        assert_eq!(got.status, 404, "{}", got.text());
        assert!(got.text().contains(near), "{models}: {}", got.text());
    }
}

/// Without keys it is as open as the rest of a server that only this machine reaches.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_models_explains_too() {
    let upstream = Upstream::well("x").await;
    let router = gateway(&provider("p", "compatible", &upstream.url, ""));
    let told = explained(&router, "", "", &chat("p/m")).await;
    assert_eq!(told["candidates"][0]["target"], "p/m");
}

/// Models of this process read text: whoever shows an image is answered by somebody who can look.
#[tokio::test(flavor = "multi_thread")]
async fn images_go_to_who_can_look() {
    let well = Upstream::well("well").await;
    let config = format!(
        "{}[pools.p]\ntargets = [\"org/fake\", \"well/m\"]\n[pools.here]\ntargets = [\"org/fake\"]\n",
        provider("well", "compatible", &well.url, "")
    );
    let routes = routes(&config, &["org/fake"]).expect("a configuration");
    let fake = Fake::start(Setup { routes, ..Setup::default() });
    let image =
        json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } });
    let shows = |model: &str| {
        let turns = json!([{ "role": "user", "content": [image.clone()] }]);
        request("", "/v1/chat/completions", &json!({ "model": model, "messages": turns }))
    };
    let got = send(&fake.router, shows("p")).await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert!(got.route().starts_with("well/m; "), "{}", got.route());
    let got = send(&fake.router, shows("here")).await;
    assert_eq!(got.status, 400);
    assert!(got.text().contains("knows no images"), "{}", got.text());
}

/// A pool that answers chats is in the list of every dialect, with what its targets read.
#[tokio::test]
async fn pools_are_models_in_every_dialect() {
    let far = Upstream::well("well").await;
    let config = format!(
        "{}{}[pools.p]\ntargets = [{{ target = \"far/m\", context = 9000 }}, \"org/fake\"]\n\
         [pools.unknown]\ntargets = [\"far/m\"]\n[pools.numbers]\ntargets = [\"jina/e\"]\n",
        provider("far", "compatible", &far.url, ""),
        provider("jina", "jina", &far.url, ""),
    );
    let routes = routes(&config, &["org/fake"]).expect("a configuration");
    let fake = Fake::start(Setup { routes, ..Setup::default() });
    let get = async |path: &str, anthropic: bool| {
        let get = axum::http::Request::get(path);
        let get = if anthropic { get.header("anthropic-version", "2023-06-01") } else { get };
        let got = send(&fake.router, get.body(axum::body::Body::empty()).expect("one")).await;
        assert_eq!(got.status, 200, "{path}: {}", got.text());
        serde_json::from_slice::<Value>(&got.bytes).expect("JSON")
    };
    let names = |list: &Value, of: &str, name: &str| -> Vec<String> {
        let all = list[of].as_array().expect("models").iter();
        all.map(|card| card[name].as_str().expect("a name").to_owned()).collect()
    };
    let messages = get("/v1/models", true).await;
    assert_eq!(names(&messages, "data", "id"), ["org/fake", "p", "unknown"]);
    assert_eq!(messages["data"][1]["max_input_tokens"], 9000);
    let one = get("/v1/models/unknown", true).await;
    assert_eq!((&one["type"], &one["max_input_tokens"]), (&json!("model"), &Value::Null));
    let google = get("/v1beta/models", false).await;
    assert_eq!(names(&google, "models", "name"), ["models/org/fake", "models/p", "models/unknown"]);
    assert_eq!(google["models"][1]["inputTokenLimit"], 9000);
    let one = get("/v1beta/models/unknown", false).await;
    assert_eq!((&one["name"], one.get("inputTokenLimit")), (&json!("models/unknown"), None));
    let openai = get("/v1/models", false).await;
    assert_eq!(names(&openai, "data", "id"), ["org/fake", "numbers", "p", "unknown"]);
}

/// Where a log's lines go.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// With `log.level = "debug"` each decision stands in the log with the numbers of all candidates,
/// under the request's id. Everything runs on this thread, whose log it is.
#[tokio::test]
async fn the_log_has_the_numbers_of_all_candidates() {
    let lines = Lines::default();
    let log = tracing_subscriber::fmt().json().flatten_event(true).with_max_level(Level::DEBUG);
    let writer = lines.clone();
    let _guard = tracing::subscriber::set_default(log.with_writer(move || writer.clone()).finish());
    // Of a single log it is taken for granted that all threads write to it, and whoever else tests
    // has none.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let well = Upstream::well("well").await;
    let config = format!(
        "{}[pools.p]\ntargets = [{{ target = \"well/m\", without = [\"tools\"] }}, \"org/fake\"]\n",
        provider("well", "compatible", &well.url, ""),
    );
    let routes = routes(&config, &["org/fake"]).expect("a configuration");
    let fake = Fake::start(Setup { routes, ..Setup::default() });
    assert_eq!(ask(&fake.router, Inbound::Chat, "p", true).await.status, 200);
    let mut tools = chat("p");
    tools["tools"] = json!([{ "type": "function", "function": { "name": "f" } }]);
    let got = send(&fake.router, request("", "/v1/chat/completions", &tools)).await;
    let id = got.header("x-request-id").to_owned();
    let text = String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("text");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let own: Vec<Value> = all.filter(|line| line["id"] == id && line["pool"] == "p").collect();
    let told: Vec<_> = own
        .iter()
        .filter(|line| line["message"] == "a candidate")
        .map(|line| (line["pool_target"].as_str(), line["verdict"].as_str(), line["open"].as_u64()))
        .collect();
    let expect = [("well/m", "knows no tools"), ("org/fake", "may answer")];
    assert_eq!(told, expect.map(|(target, verdict)| (Some(target), Some(verdict), Some(0))));
    assert!(own[0]["first_byte_ms"].as_f64() > Some(0.0), "it was measured: {}", own[0]);
    let routed = own.last().expect("a line");
    assert_eq!((&routed["message"], &routed["reason"]), (&json!("routed"), &json!("priority")));
    assert_eq!(routed["order"], "[\"org/fake\"]", "{routed}");
}
