//! Who would answer, and why: told without anybody being asked.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing::Level;

use crate::caller::{Inbound, ask, gateway, open, provider, request, routes, send, until};
use crate::fake::{Fake, Setup};
use crate::governed::House;
use crate::pooling::add_reader;
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

/// A body is read as what it is; where it could be two things, as is said.
#[tokio::test]
async fn a_body_is_read_as_what_it_is() {
    let well = Upstream::well("x").await;
    let config = format!(
        "{}{}{}[pools.p]\ntargets = [\"chats/m\", \"jina/m\", \"cohere/m\"]\n",
        provider("chats", "anthropic", &well.url, ""),
        provider("jina", "jina", &well.url, ""),
        provider("cohere", "cohere", &well.url, ""),
    );
    let router = gateway(&config);
    let ranking = json!({ "query": "q", "documents": ["d"] });
    let turns = json!([{ "role": "user", "content": "hi" }]);
    for (query, body, surface, order) in [
        ("", json!({ "messages": turns }), "chat", ["chats/m", "cohere/m"].as_slice()),
        ("", json!({ "messages": turns, "system": "s" }), "messages", &["chats/m", "cohere/m"]),
        ("", json!({ "input": "hi", "store": false }), "responses", &["chats/m", "cohere/m"]),
        ("", json!({ "contents": [] }), "gemini", &["chats/m", "cohere/m"]),
        ("", json!({ "prompt": "hi" }), "completions", &["chats/m", "cohere/m"]),
        ("", json!({ "input": ["hi"] }), "embeddings", &["jina/m", "cohere/m"]),
        ("?surface=responses", json!({ "input": "hi" }), "responses", &["chats/m", "cohere/m"]),
        ("", ranking.clone(), "rerank", &["jina/m", "cohere/m"]),
        ("?surface=cohere&label=public", ranking, "cohere", &["jina/m", "cohere/m"]),
    ] {
        let mut body = body;
        body["model"] = "p".into();
        let told = explained(&router, "", query, &body).await;
        assert_eq!((&told["surface"], &told["order"]), (&json!(surface), &json!(order)), "{body}");
    }
    let score = json!({ "model": "p", "text_1": "a", "text_2": "b" });
    let told = explained(&router, "", "", &score).await;
    assert_eq!(told["candidates"][1]["verdict"], "does not serve score", "{told}");
    for query in ["?surface=converse", "?surface=x"] {
        let got = send(&router, request("", &format!("{PATH}{query}"), &score)).await;
        assert_eq!(got.status, 400, "{}", got.text());
        assert!(got.text().contains("responses, messages, gemini"), "{}", got.text());
    }
    let nameless = json!({ "contents": [] });
    let got = send(&router, request("", PATH, &nameless)).await;
    assert_eq!((got.status, got.text().contains("'model'")), (400, true), "{}", got.text());
    assert_eq!(well.count(), 0, "nobody was asked");
}

/// A model here that makes numbers is told of like one that makes text, to whoever asks for those.
#[tokio::test]
async fn a_model_that_makes_numbers_is_told_of() {
    let well = Upstream::well("x").await;
    let routes = routes(&provider("p", "compatible", &well.url, ""), &[]).expect("one");
    let fake = Fake::start(Setup { routes, ..Setup::default() });
    add_reader(&fake, "e");
    let told = explained(&fake.router, "", "", &json!({ "model": "e", "input": "hi" })).await;
    assert_eq!((&told["model"], &told["surface"]), (&json!("e"), &json!("embeddings")));
    let got = send(&fake.router, request("", PATH, &chat("e"))).await;
    assert_eq!((got.status, got.text().contains("/v1/embeddings")), (400, true), "{}", got.text());
    let ranking = json!({ "model": "f", "query": "q", "documents": ["d"] });
    let got = send(&fake.router, request("", PATH, &ranking)).await;
    assert_eq!((got.status, got.text().contains("Available: ")), (404, true), "{}", got.text());
}

/// What stands against the bounds of an overflow now, and the numbers of each candidate.
#[tokio::test(flavor = "multi_thread")]
async fn pressure_is_told_with_its_numbers() {
    let cloud = Upstream::well("cloud").await;
    let config = format!(
        "{}[pools.p]\ntargets = [{{ target = \"org/fake\", weight = 3 }}]\n\
         overflow = {{ to = [\"cloud/m\"], when = {{ queue = 2, wait_ms = 900000 }} }}\n",
        provider("cloud", "compatible", &cloud.url, "")
    );
    let fake = Fake::start(Setup {
        endless: true,
        pace: std::time::Duration::from_millis(3),
        rows: 1,
        routes: routes(&config, &["org/fake"]).expect("a configuration"),
        ..Setup::default()
    });
    let told = explained(&fake.router, "", "", &chat("p")).await;
    let idle = json!({ "on": false, "when": { "queue": 2, "wait_ms": 900_000 },
        "now": [{ "target": "org/fake", "pressure": "low", "queue": 0, "wait_ms": 0,
            "ttft_ms": 0 }] });
    assert_eq!(told["overflow"], idle);
    let own = &told["candidates"][0];
    assert_eq!((&own["weight"], &own["queue"], &own["wait_ms"]), (&json!(3), &json!(0), &json!(0)));
    let far = &told["candidates"][1];
    assert_eq!(
        (&far["weight"], &far["queue"], &far["wait_ms"]),
        (&json!(1), &json!(null), &json!(null))
    );

    let model = fake.models.first().expect("the fake");
    let mut held = Vec::new();
    for waiting in 0..3_usize {
        let (path, mut body) = Inbound::Chat.request("org/fake", true, "hi");
        body["max_tokens"] = 4_000.into();
        let (router, request) = (fake.router.clone(), request("", &path, &body));
        held.push(tokio::spawn(async move { open(&router, request).await }));
        until("the queue is so long", || model.engine.stats().waiting == waiting).await;
    }
    let told = explained(&fake.router, "", "", &chat("p")).await;
    let (overflow, own) = (&told["overflow"], &told["candidates"][0]);
    assert_eq!((&overflow["on"], &told["reason"]), (&json!(true), &json!("overflow")), "{told}");
    let now = &overflow["now"][0];
    assert_eq!((&now["pressure"], &now["queue"]), (&json!("high"), &json!(2)), "{told}");
    assert_eq!((&own["queue"], &own["open"]), (&json!(2), &json!(3)), "{told}");
    assert_eq!(told["candidates"][0]["wait_ms"], now["wait_ms"], "{told}");
    held.into_iter().for_each(|caller| caller.abort());
    until("nobody waits", || model.engine.stats().waiting == 0).await;
    // Who only asks changes nothing: a request would have kept it on for two seconds.
    let told = explained(&fake.router, "", "", &chat("p")).await;
    assert_eq!(told["overflow"]["on"], false, "{told}");
}

/// A request is explained as it would be answered, with what it goes on with.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_found_is_not_explained() {
    let fake = Fake::start(Setup::default());
    let told = explained(&fake.router, "", "?label=confidential", &chat("org/fake")).await;
    assert_eq!((&told["label"], &told["order"]), (&json!("confidential"), &json!(["org/fake"])));
    assert!(told["input_tokens"].as_u64() > Some(0), "{told}");
    let late = json!({ "model": "org/fake", "input": [{ "role": "user", "content": "x" }],
        "previous_response_id": "resp_x" });
    let got = send(&fake.router, request("", PATH, &late)).await;
    assert_eq!(got.status, 400, "{}", got.text());
    assert!(got.text().contains("previous_response_not_found"), "{}", got.text());
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
        // Whoever only wants to know has been refused nothing.
        let got = send(router, request(key, PATH, &chat("assistant"))).await;
        let may = models == json!(["*"]);
        assert_eq!(got.status, if may { 200 } else { 403 }, "{models}: {}", got.text());
        let got = send(router, request(key, "/v1/chat/completions", &chat("assistant"))).await;
        assert_eq!(got.status, if may { 200 } else { 403 }, "{models}: {}", got.text());
    }
    house.governor.flush().await;
    let audit = house.admin(router, "GET /audit?kind=refusal&limit=200", &Value::Null).await;
    assert_eq!(audit["data"].as_array().map(Vec::len), Some(2), "{audit}");
}

/// Without keys it is as open as the rest of a server that only this machine reaches.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_models_explains_too() {
    let upstream = Upstream::well("x").await;
    let router = gateway(&format!(
        "{}[pools.cheap]\nstrategy = \"cost\"\ntargets = [\"p/m\", \"p/n\"]\n",
        provider("p", "compatible", &upstream.url, "")
    ));
    let told = explained(&router, "", "", &chat("p/m")).await;
    assert_eq!(told["candidates"][0]["target"], "p/m");
    let told = explained(&router, "", "", &chat("cheap")).await;
    assert_eq!((&told["order"], &told["reason"]), (&json!(["p/m", "p/n"]), &json!("unpriced")));
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
