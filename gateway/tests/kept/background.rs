//! Responses in the background.

use std::time::Duration;

use gateway::config::routing::Routing;
use gateway::route::Routes;
use hearth_tests::services::postgres;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::fake::{Fake, SPEECH, Setup};
use crate::house::{Caller, House, text};

fn asked() -> Value {
    json!({ "background": true })
}

/// One that is being made; its path.
async fn begun(caller: &Caller) -> (String, String) {
    let made = caller.respond("hello", &asked()).await.expect(200);
    assert_eq!((&made["status"], &made["background"]), (&json!("in_progress"), &json!(true)));
    assert_eq!((&made["output"], &made["usage"]), (&json!([]), &Value::Null));
    let id = text(&made["id"]);
    (format!("/v1/responses/{id}"), id)
}

/// Waits until a response has this status.
async fn has(caller: &Caller, path: &str, status: &str) -> Value {
    for _ in 0..2_000 {
        let found = caller.get(path).await.expect(200);
        if found["status"] == status {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never {status}: {}", caller.get(path).await.text());
}

async fn cancel(caller: &Caller, path: &str) -> Value {
    caller.ask(&format!("POST {path}/cancel"), &Value::Null).await.expect(200)
}

/// Made while nobody waits, and gone on with.
async fn life(fake: &Fake, caller: &Caller) {
    fake.gate.close();
    let (path, id) = begun(caller).await;
    assert_eq!(caller.get(&path).await.expect(200)["status"], "in_progress");
    let more = json!({ "previous_response_id": id });
    assert_eq!(caller.respond("and then?", &more).await.code(400), "response_not_completed");
    fake.gate.open();
    let whole = has(caller, &path, "completed").await;
    assert_eq!(whole["output"][0]["content"][0]["text"], SPEECH);
    assert!(whole["usage"]["output_tokens"].as_u64().expect("a count") > 3);
    assert_eq!(cancel(caller, &path).await, whole, "what is over stays as it is");
    caller.respond("and then?", &more).await.expect(200);
    let items = caller.get(&format!("{path}/input_items")).await.expect(200);
    assert_eq!(items["data"][0]["content"][0]["text"], "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_made_while_nobody_waits() {
    let fake = Fake::start(Setup::default());
    life(&fake, &Caller::new(&fake, "")).await;
    for url in [None, Some(postgres::shared().fresh())] {
        let house = House::new(url).await;
        let fake = house.gateway(Setup::default());
        let [ada, ..] = house.people(&fake).await;
        life(&fake, &ada).await;
        let lines = house.ledger(&fake).await;
        assert_eq!(lines.len(), 2, "booked like any other");
        assert!(lines.iter().all(|line| line["outcome"] == "done"), "{lines:?}");
    }
}

/// A provider that speaks Responses is told to keep nothing, and in full what goes on with what is
/// kept here.
#[tokio::test(flavor = "multi_thread")]
async fn providers_that_speak_responses_too() {
    let far = Fake::start(Setup::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = far.router.clone();
    let served = tokio::spawn(async move { axum::serve(listener, router).await });
    let config = format!("[providers.p]\nkind = \"vllm\"\nbase_url = \"http://{address}/v1\"\n");
    let routing: Routing = toml::from_str(&config).expect("a configuration");
    let routes = Routes::new(&routing, &[]).expect("routes");
    let house = House::new(None).await;
    let fake = house.gateway(Setup { routes, ..Setup::default() });
    let [ada, ..] = house.people(&fake).await;
    let there = |more: Value| {
        let mut body = json!({ "model": "p/org/fake" });
        body.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
        body
    };
    // All of a provider's answer may come at once.
    let made = ada.respond("hello", &there(asked())).await.expect(200);
    assert!(["in_progress", "completed"].contains(&&*text(&made["status"])), "{made}");
    let id = text(&made["id"]);
    let whole = has(&ada, &format!("/v1/responses/{id}"), "completed").await;
    assert_eq!(whole["output"][0]["content"][0]["text"], SPEECH);
    assert_eq!(whole["background"], true);
    // What was made there goes on there or here.
    let tokens = |response: &Value| response["usage"]["input_tokens"].as_u64().expect("a count");
    let more = json!({ "previous_response_id": id });
    for (model, body) in [("there", there(more.clone())), ("here", more)] {
        let next = ada.respond("and then?", &body).await.expect(200);
        assert!(tokens(&next) > tokens(&whole) + 10, "{model}: {next} {whole}");
        let kept = ada.get(&format!("/v1/responses/{}", text(&next["id"]))).await.expect(200);
        assert_eq!(kept["previous_response_id"], id, "{model}");
    }
    // What is simply passed on is kept here as well, and goes on, in the background too.
    let passed = text(&ada.respond("hello", &there(json!({}))).await.expect(200)["id"]);
    assert_eq!(ada.get(&format!("/v1/responses/{passed}")).await.expect(200)["store"], true);
    let there_alone = Caller::new(&far, "").get(&format!("/v1/responses/{passed}")).await;
    assert_eq!(there_alone.code(404), "response_not_found");
    let more = there(json!({ "previous_response_id": passed }));
    let next = ada.respond("and then?", &more).await.expect(200);
    assert_eq!(next["previous_response_id"], passed);
    let mut more = more;
    more["background"] = json!(true);
    let made = ada.respond("and then?", &more).await.expect(200);
    assert_eq!(
        (&made["previous_response_id"], &made["background"]),
        (&json!(passed), &json!(true))
    );
    served.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_may_leave_and_come_back() {
    let house = House::new(None).await;
    let fake = house.gateway(Setup { pace: Duration::from_millis(2), ..Setup::default() });
    let [ada, _, stranger] = house.people(&fake).await;
    let mut more = asked();
    more["stream"] = json!(true);
    more["model"] = json!("org/fake");
    more["input"] = json!("hello");
    let request = ada.request("POST /v1/responses", &more);
    let mut body = ada.open(request).await.into_body();
    let mut begun = String::new();
    while !begun.contains("response.output_text.delta") {
        let frame = body.frame().await.expect("more").expect("a frame");
        begun += &String::from_utf8_lossy(frame.data_ref().expect("data"));
    }
    drop(body);
    let id = begun.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let path = format!("/v1/responses/{}", id.expect("an id"));
    // From the first event on it is what the first caller would have seen; from another, its rest.
    let all = ada.get(&format!("{path}?stream=true")).await;
    assert_eq!((all.status, all.header("content-type")), (200, "text/event-stream; charset=utf-8"));
    let all = all.text();
    assert!(all.starts_with(&begun) && all.contains("event: response.completed\n"), "{all}");
    let after = ada.get(&format!("{path}?stream=true&starting_after=3")).await.text();
    let at = all.find("event: response.content_part.added").expect("an event");
    assert!(after.contains("\"sequence_number\":4,") && !after.contains("\"sequence_number\":3,"));
    assert!(all.ends_with(&after) && after.len() <= all.len() - at, "{after}");
    let beyond = ada.get(&format!("{path}?stream=true&starting_after=9999")).await;
    assert_eq!((beyond.status, beyond.text()), (200, String::new()));
    let wrong = ada.get(&format!("{path}?stream=true&starting_after=x")).await.expect(400);
    assert_eq!(wrong["error"]["param"], "starting_after");
    assert_eq!(stranger.get(&format!("{path}?stream=true")).await.code(404), "response_not_found");
    has(&ada, &path, "completed").await;
    // One that was made while its caller waited has no events.
    let plain = text(&ada.respond("hello", &json!({})).await.expect(200)["id"]);
    let plain = ada.get(&format!("/v1/responses/{plain}?stream=true")).await;
    assert_eq!(plain.code(400), "not_a_stream");
}

/// Somebody follows it to its end.
async fn following(caller: &Caller, path: &str) -> JoinHandle<String> {
    let request = caller.request(&format!("GET {path}?stream=true"), &Value::Null);
    let body = caller.open(request).await.into_body();
    tokio::spawn(async move {
        let all = body.collect().await.expect("no break").to_bytes();
        String::from_utf8(all.to_vec()).expect("UTF-8")
    })
}

/// The last event that he read, and the number of the one before it.
async fn ends(follower: JoinHandle<String>) -> (Value, Option<u64>) {
    let text = follower.await.expect("a stream");
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let [.., before, last] = &events[..] else { panic!("{text}") };
    let read = |data: &str| -> Value { serde_json::from_str(data).expect("JSON") };
    (read(last), read(before)["sequence_number"].as_u64())
}

#[tokio::test(flavor = "multi_thread")]
async fn they_can_be_stopped() {
    let endless = || Setup { endless: true, pace: Duration::from_millis(2), ..Setup::default() };
    let house = House::new(None).await;
    let governed = house.gateway(endless());
    let [ada, _, stranger] = house.people(&governed).await;
    let fake = Fake::start(Setup { keys: vec!["ada", "eve"], ..endless() });
    let own = (Caller::new(&fake, "ada"), Caller::new(&fake, "eve"));
    for (fake, (ada, stranger)) in [(&governed, (ada, stranger)), (&fake, own)] {
        let (path, _) = begun(&ada).await;
        let theirs = stranger.ask(&format!("POST {path}/cancel"), &Value::Null).await;
        assert_eq!(theirs.code(404), "response_not_found");
        assert_eq!(ada.get(&path).await.expect(200)["status"], "in_progress");
        let follower = following(&ada, &path).await;
        assert_eq!(cancel(&ada, &path).await["status"], "cancelled");
        let (last, before) = ends(follower).await;
        assert_eq!(
            (&last["type"], &last["response"]["status"]),
            (&json!("response.cancelled"), &json!("cancelled"))
        );
        assert_eq!(last["sequence_number"].as_u64(), before.map(|number| number + 1));
        fake.idle().await;
        assert_eq!(cancel(&ada, &path).await["status"], "cancelled");
        // One that is deleted is made no further.
        let (path, _) = begun(&ada).await;
        let follower = following(&ada, &path).await;
        ada.ask(&format!("DELETE {path}"), &Value::Null).await.expect(200);
        let (last, _) = ends(follower).await;
        assert_eq!(last["type"], "response.cancelled");
        fake.idle().await;
        assert_eq!(ada.get(&path).await.code(404), "response_not_found");
    }
    let lines = house.ledger(&governed).await;
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line["outcome"] == "cancelled"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_gateway_sees_and_stops_them() {
    let one = House::new(Some(postgres::shared().fresh())).await;
    let other = one.beside().await;
    let slow = || Setup { endless: true, pace: Duration::from_millis(5), ..Setup::default() };
    let (here, there) = (one.gateway(slow()), other.gateway(Setup::default()));
    let [ada, ..] = one.people(&here).await;
    let elsewhere = ada.at(&there).await;
    let (path, _) = begun(&ada).await;
    assert_eq!(elsewhere.get(&path).await.expect(200)["status"], "in_progress");
    assert_eq!(elsewhere.get(&format!("{path}?stream=true")).await.code(400), "not_a_stream");
    cancel(&elsewhere, &path).await;
    has(&elsewhere, &path, "cancelled").await;
    here.idle().await;
}

/// Whoever makes one and says nothing any more has failed, for all to see.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_leaves_has_failed() {
    let house = House::new(None).await;
    let fake = house.gateway(Setup::default());
    let [ada, ..] = house.people(&fake).await;
    fake.gate.close();
    // All that makes it ends with this, and says no last word.
    let killed = tokio::runtime::Runtime::new().expect("a runtime");
    let caller = ada.clone();
    let (path, id) = killed.spawn(async move { begun(&caller).await }).await.expect("begun");
    killed.shutdown_background();
    fake.gate.open();
    fake.idle().await;
    assert_eq!(ada.get(&path).await.expect(200)["status"], "in_progress", "for a while");
    house.run("UPDATE kept SET lost_at = 1 WHERE lost_at > 0").await;
    let lost = ada.get(&path).await.expect(200);
    assert_eq!(
        (&lost["status"], &lost["error"]["code"]),
        (&json!("failed"), &json!("server_error"))
    );
    assert_eq!(cancel(&ada, &path).await["status"], "failed");
    let more = json!({ "previous_response_id": id });
    assert_eq!(ada.respond("and then?", &more).await.code(400), "response_not_completed");
    // One whose engine fails says so too.
    let fake = house.gateway(Setup { fail_at: Some(3), ..Setup::default() });
    let ada = Caller::new(&fake, &ada.key);
    fake.gate.close();
    let (path, _) = begun(&ada).await;
    fake.gate.open();
    let failed = has(&ada, &path, "failed").await;
    assert_eq!(failed["error"]["code"], "server_error");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_at_once() {
    let fake = Fake::start(Setup::default());
    let caller = Caller::new(&fake, "");
    let check = async |more: Value, status: u16, field: &str| {
        let mut body = asked();
        more.as_object().expect("fields").iter().for_each(|(k, v)| body[k] = v.clone());
        let got = caller.respond("hello", &body).await.expect(status);
        assert_eq!(got["error"]["param"], field, "{body}");
    };
    check(json!({ "store": false }), 400, "background").await;
    check(json!({ "stream": "yes" }), 400, "stream").await;
    check(json!({ "model": "none" }), 404, "model").await;
    check(json!({ "temperature": 9 }), 400, "temperature").await;
    check(json!({ "background": "yes" }), 400, "background").await;
    check(json!({ "previous_response_id": "resp_x" }), 400, "previous_response_id").await;
    fake.idle().await;
}
