//! What providers make in the dialect of Responses: they are told to keep nothing, and it is kept
//! here, as what is made here is.

use std::time::Duration;

use gateway::route::Routes;
use hearth_tests::services::postgres;
use serde_json::{Value, json};

use crate::fake::{Fake, SPEECH, Setup};
use crate::far::{Far, SAID};
use crate::house::{Answer, Caller, House, text};

/// The model that thinks, at the first of them.
const THINKS: &str = "far/gpt-6-sol";

/// Routes to two of them, and to these pools.
fn routed(far: &Far, other: &Far, pools: &str) -> Routes {
    let provider = |name: &str, kind: &str, far: &Far| {
        format!("[providers.{name}]\nkind = \"{kind}\"\nkey = \"k\"\nbase_url = \"{}\"\n", far.url)
    };
    let config = provider("far", "openai", far) + &provider("other", "azure", other) + pools;
    Routes::new(&toml::from_str(&config).expect("a configuration"), &[]).expect("routes")
}

/// Two of them.
async fn both() -> (Far, Far) {
    (Far::start("far").await, Far::start("other").await)
}

/// Two of them, and people who ask them through a gateway with books, which lie in this database.
struct Town {
    far: Far,
    other: Far,
    house: House,
    fake: Fake,
    people: [Caller; 3],
}

impl Town {
    async fn new(url: Option<String>, pools: &str) -> Self {
        let ((far, other), house) = (both().await, House::new(url).await);
        let fake = house.gateway(Setup { routes: routed(&far, &other, pools), ..Setup::default() });
        let people = house.people(&fake).await;
        Self { far, other, house, fake, people }
    }
}

/// Two of them, and somebody who asks them through a gateway without books.
async fn alone(pools: &str) -> (Far, Far, Fake, Caller) {
    let (far, other) = both().await;
    let fake = Fake::start(Setup { routes: routed(&far, &other, pools), ..Setup::default() });
    let caller = Caller::new(&fake, "");
    (far, other, fake, caller)
}

/// A response, whole or from the last event of a stream.
fn response(got: &Answer) -> Value {
    assert_eq!(got.status, 200, "{}", got.text());
    let body = got.text();
    let last = body.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
    let mut read: Value = serde_json::from_str(last.unwrap_or(&body)).expect("JSON");
    if last.is_some() { read["response"].take() } else { read }
}

async fn respond(caller: &Caller, more: &Value) -> Value {
    let mut body = json!({ "model": THINKS, "input": "hello" });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    response(&caller.ask("POST /v1/responses", &body).await)
}

fn kinds(items: &Value) -> Vec<&str> {
    let items = items.as_array().expect("items").iter();
    items.map(|item| item["type"].as_str().unwrap_or("message")).collect()
}

/// What one makes is kept here under a name of our own, gone on with, listed and deleted.
async fn life(far: &Far, caller: &Caller, stream: bool) {
    let more = json!({ "stream": stream, "of_tomorrow": { "deep": [1, 2] },
        "tools": [{ "type": "web_search" }] });
    let made = respond(caller, &more).await;
    let sent = far.last();
    assert_eq!((&sent["model"], &sent["store"]), (&json!("gpt-6-sol"), &json!(false)));
    assert_eq!(sent["include"], json!(["reasoning.encrypted_content"]));
    assert_eq!((&sent["of_tomorrow"], &sent["input"]), (&more["of_tomorrow"], &json!("hello")));
    assert_eq!((&made["store"], &made["of_tomorrow"]), (&json!(true), &json!([1])));
    assert_eq!(kinds(&made["output"]), ["reasoning", "message", "web_search_call"]);
    assert!(made["output"][0].get("encrypted_content").is_none(), "nobody asked for it");
    let id = text(&made["id"]);
    assert!(id.starts_with("resp_") && id.len() == 29, "a name of our own: {id}");
    let path = format!("/v1/responses/{id}");
    assert_eq!(caller.get(&path).await.expect(200), made);
    let sealed = caller.get(&format!("{path}?include[]=reasoning.encrypted_content")).await;
    assert!(sealed.expect(200)["output"][0]["encrypted_content"].is_string());

    // It goes on with its own thoughts, in full.
    let next = json!({ "stream": stream, "previous_response_id": id, "input": "and then?" });
    let next = respond(caller, &next).await;
    assert_eq!(next["previous_response_id"], id);
    let sent = far.last();
    let input = &sent["input"];
    assert_eq!(kinds(input), ["message", "reasoning", "message", "web_search_call", "message"]);
    assert_eq!(input[0]["content"][0]["text"], "hello");
    let seal = text(&input[1]["encrypted_content"]);
    assert!(seal.starts_with("far+") && seal.ends_with("=="), "as it was made: {seal}");
    assert_eq!((&input[1]["id"], &input[2]), (&made["output"][0]["id"], &made["output"][1]));
    assert_eq!(input[4]["content"][0]["text"], "and then?");
    let listed = caller.get(&format!("/v1/responses/{}/input_items", text(&next["id"]))).await;
    assert_eq!(kinds(&listed.expect(200)["data"]).len(), 5);

    // Clients hand back what they were shown, or its names alone.
    let user = json!({ "role": "user", "content": "and then?" });
    let mut shown = made["output"].as_array().expect("items").clone();
    shown.push(user.clone());
    let reference = |item: &Value| json!({ "type": "item_reference", "id": item["id"] });
    let mut named: Vec<Value> = shown[..3].iter().map(reference).collect();
    named.push(user);
    for input in [shown, named] {
        respond(caller, &json!({ "stream": stream, "input": input })).await;
        let sent = far.last();
        assert_eq!(kinds(&sent["input"]), ["reasoning", "message", "web_search_call", "message"]);
        assert_eq!(sent["input"][0]["encrypted_content"], seal);
        assert_eq!(sent["input"][1], made["output"][1]);
    }

    let gone = caller.ask(&format!("DELETE {path}"), &Value::Null).await.expect(200);
    assert_eq!(gone["deleted"], true);
    assert_eq!(caller.get(&path).await.code(404), "response_not_found");
    let input = json!([{ "type": "item_reference", "id": made["output"][1]["id"] }]);
    let late = json!({ "model": THINKS, "input": input });
    assert_eq!(caller.ask("POST /v1/responses", &late).await.code(400), "item_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_kept_here() {
    let (far, _, _fake, caller) = alone("").await;
    for stream in [false, true] {
        life(&far, &caller, stream).await;
    }
    for url in [None, Some(postgres::shared().fresh())] {
        let Town { far, people: [ada, ..], .. } = &Town::new(url, "").await;
        for stream in [false, true] {
            life(far, ada, stream).await;
        }
    }
}

/// Nobody else of the same provider's callers goes on with it, by any of its names.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_know_none_of_it() {
    let Town { far, people: [ada, bob, stranger], .. } = &Town::new(None, "").await;
    let made = respond(ada, &json!({})).await;
    let path = format!("/v1/responses/{}", text(&made["id"]));
    let previous = json!({ "model": THINKS, "input": "x", "previous_response_id": made["id"] });
    let item = json!([{ "type": "item_reference", "id": made["output"][1]["id"] }]);
    let refers = json!({ "model": THINKS, "input": item });
    let asks = [(previous, "previous_response_not_found"), (refers, "item_not_found")];
    let before = far.last_text();
    for (body, code) in &asks {
        assert_eq!(stranger.ask("POST /v1/responses", body).await.code(400), *code);
    }
    assert_eq!(stranger.get(&path).await.code(404), "response_not_found");
    assert_eq!(far.last_text(), before, "nobody was asked");
    for (body, _) in &asks {
        response(&bob.ask("POST /v1/responses", body).await);
    }
    // A provider's own names mean nothing, to anybody.
    let theirs = text(&made["output"][1]["id"]).replace("msg_", "resp_");
    let body = json!({ "model": THINKS, "input": "x", "previous_response_id": theirs });
    let refused = ada.ask("POST /v1/responses", &body).await;
    assert_eq!(refused.code(400), "previous_response_not_found");
}

/// Thoughts that another has sealed are left out, and one that does not think is not asked for any.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_on_gets_its_own_thoughts_alone() {
    let Town { far, other, people: [ada, ..], .. } = &Town::new(None, "").await;
    let first = respond(ada, &json!({})).await;
    let there = json!({ "model": "other/gpt-6-sol", "previous_response_id": first["id"] });
    let second = respond(ada, &there).await;
    let sent = other.last();
    assert_eq!(kinds(&sent["input"]), ["message", "message", "web_search_call", "message"]);
    let back = json!({ "previous_response_id": second["id"] });
    respond(ada, &back).await;
    let sent = far.last();
    let own: Vec<_> = sent["input"].as_array().expect("items").iter().collect();
    let thoughts: Vec<_> = own.iter().filter(|item| item["type"] == "reasoning").collect();
    assert_eq!(thoughts.len(), 1, "its own: {sent}");
    // Our own models go on with all of it, but for what belongs to tools of others.
    let made = respond(ada, &json!({ "model": "far/gpt-4o", "tools": [] })).await;
    assert!(far.last().get("include").is_none(), "it refuses to be asked");
    let body = json!({ "previous_response_id": made["id"], "stream": true });
    let thinks = respond(ada, &json!({ "model": "far/gpt-4o", "reasoning": {} })).await;
    assert_eq!(kinds(&thinks["output"]), ["message", "web_search_call"]);
    let next = respond(ada, &body).await;
    assert_eq!(next["previous_response_id"], made["id"]);
    assert_eq!(kinds(&far.last()["input"]), ["message", "message", "web_search_call", "message"]);
}

/// Where callers keep their own thoughts, whoever of a pool has sealed them answers.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_sealed_them_is_found() {
    let pool = "[pools.p]\ntargets = [\"other/gpt-6-sol\", \"far/gpt-6-sol\"]\n";
    let (far, other, _fake, caller) = alone(pool).await;
    let alone = json!({ "store": false, "include": ["reasoning.encrypted_content"] });
    let made = respond(&caller, &alone).await;
    let mut input = made["output"].as_array().expect("items").clone();
    input.push(json!({ "role": "user", "content": "and then?" }));
    for _ in 0..5 {
        let mut body = alone.clone();
        (body["model"], body["input"]) = (json!("p"), json!(input));
        assert_eq!(respond(&caller, &body).await["output"][1]["content"][0]["text"], SAID);
        assert_eq!(kinds(&far.last()["input"])[0], "reasoning");
        // Whoever does not know them is not ill.
        assert_eq!(kinds(&other.last()["input"])[0], "reasoning");
        let plain = respond(&caller, &json!({ "model": "p" })).await;
        assert!(text(&plain["output"][1]["id"]).starts_with("msg_other"));
    }
}

/// A conversation holds what providers say, and goes on with it.
#[tokio::test(flavor = "multi_thread")]
async fn conversations_hold_them() {
    for url in [None, Some(postgres::shared().fresh())] {
        let Town { far, house, fake, people: [ada, bob, _], .. } = &Town::new(url, "").await;
        let made = ada.ask("POST /v1/conversations", &json!({})).await.expect(200);
        let id = text(&made["id"]);
        let in_it = |stream: bool| json!({ "conversation": id, "stream": stream });
        let first = respond(ada, &in_it(false)).await;
        assert_eq!(first["conversation"], json!({ "id": id }));
        respond(bob, &in_it(true)).await;
        let sent = far.last();
        assert_eq!(
            kinds(&sent["input"]),
            ["message", "reasoning", "message", "web_search_call", "message"]
        );
        assert!(text(&sent["input"][1]["encrypted_content"]).starts_with("far+"));
        let items = ada.get(&format!("/v1/conversations/{id}/items?order=asc")).await.expect(200);
        assert_eq!(kinds(&items["data"]).len(), 8, "{items}");
        assert_eq!(items["data"][2]["content"][0]["text"], SAID);
        assert!(items["data"][1].get("encrypted_content").is_none());
        let lines = house.ledger(fake).await;
        assert!(lines.iter().all(|line| line["outcome"] == "done"), "{lines:?}");
        assert_eq!(lines[0]["tokens"]["input"], 9, "{}", lines[0]);
    }
}

/// In the background too, with all that the provider alone understands.
#[tokio::test(flavor = "multi_thread")]
async fn in_the_background() {
    let Town { far, people: [ada, ..], .. } = &Town::new(None, "").await;
    let more = json!({ "background": true, "tools": [{ "type": "web_search" }] });
    let made = respond(ada, &more).await;
    // It may be there at once.
    assert_eq!(made["background"], true);
    assert_eq!(far.last()["tools"], more["tools"]);
    let path = format!("/v1/responses/{}", text(&made["id"]));
    let mut whole = Value::Null;
    for _ in 0..1_000 {
        whole = ada.get(&path).await.expect(200);
        if whole["status"] != "in_progress" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((&whole["status"], &whole["background"]), (&json!("completed"), &json!(true)));
    assert_eq!(whole["output"][1]["content"][0]["text"], SAID);
    let input = json!([{ "type": "item_reference", "id": whole["output"][1]["id"] }]);
    respond(ada, &json!({ "input": input })).await;
    assert_eq!(far.last()["input"][0], whole["output"][1]);
}

/// Where nothing is kept, every byte is as it was; where something is, only what shows it is not.
#[tokio::test(flavor = "multi_thread")]
async fn all_else_is_passed_on_as_it_is() {
    let Town { far, people: [ada, ..], .. } = &Town::new(None, "").await;
    let body = json!({ "store": false, "model": THINKS, "input": "hello", "stream": true });
    let bare = ada.ask("POST /v1/responses", &body).await.text();
    let asked = body.to_string().replace("far/", "");
    assert_eq!(far.last_text(), asked);
    let mut body = body;
    body["store"] = json!(true);
    body["include"] = json!(["reasoning.encrypted_content"]);
    let kept = ada.ask("POST /v1/responses", &body).await.text();
    let plain = |text: &str| -> Vec<String> {
        let of_message = |event: &&str| event.contains("delta") || event.contains("\"message\"");
        let events = text.split("\n\n").filter(of_message);
        let bare = events.filter(|event| !event.contains("\"store\""));
        bare.map(|event| {
            event
                .split("msg_far")
                .map(|part| part.split_at_checked(47).map_or(part, |(_, rest)| rest))
                .collect()
        })
        .collect()
    };
    assert_eq!(plain(&bare).len(), 5);
    assert_eq!(plain(&bare)[1..4], plain(&kept)[1..4]);
    assert_eq!(kept.matches("\"store\":true").count(), 3);
    assert_eq!(kept.matches("encrypted_content").count(), 3, "they were asked for: {kept}");
    assert_eq!(bare.matches("\n\n").count(), kept.matches("\n\n").count());
}

/// One that breaks off, or that cannot be kept, is not taken for one that is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_is_said() {
    let Town { house, people: [ada, ..], .. } = &Town::new(None, "").await;
    let cut = json!({ "model": THINKS, "input": "x", "stream": true, "metadata": { "cut": "1" } });
    let got = ada.ask("POST /v1/responses", &cut).await.text();
    let at = got.find("\"id\":\"resp_").expect("an id") + 6;
    let id = got[at..].split('"').next().expect("its end").to_owned();
    assert!(got.contains("event: error"), "{got}");
    assert_eq!(ada.get(&format!("/v1/responses/{id}")).await.code(404), "response_not_found");
    house.governor.flush().await;
    let sql = "ALTER TABLE kept RENAME TO gone";
    sqlx::query(sql).execute(house.governor.store().write()).await.expect("renamed");
    let body = json!({ "model": THINKS, "input": "x" });
    let got = ada.ask("POST /v1/responses", &body).await;
    assert_eq!(got.header("x-hearth-notice"), "This response could not be kept.");
    let mut body = body;
    body["stream"] = json!(true);
    let got = ada.ask("POST /v1/responses", &body).await.text();
    let (before, after) = got.split_once("event: response.completed").expect("a whole answer");
    assert!(after.contains("\n: hearth {\"notice\":\"This response could not be kept.\"}\n\n"));
    assert!(!before.contains("could not be kept"));
}

/// A copy that nobody reads leaves nothing behind, here or there.
#[tokio::test(flavor = "multi_thread")]
async fn copies_are_not_kept() {
    let pool = "[pools.p]\ntargets = [\"far/gpt-6-sol\"]\n\
                mirror = { to = \"other/gpt-6-sol\", share = 1.0 }\n";
    let (far, other, _fake, caller) = alone(pool).await;
    for stream in [false, true] {
        let made = respond(&caller, &json!({ "model": "p", "stream": stream })).await;
        let (sent, copy) = (far.last(), other.last_of(1 + usize::from(stream)).await);
        assert_eq!(sent["include"], json!(["reasoning.encrypted_content"]));
        assert_eq!((&copy["store"], copy.get("include")), (&json!(false), None), "as it came");
        let item = text(&made["output"][1]["id"]).replace("far", "other");
        let input = json!([{ "type": "item_reference", "id": item }]);
        let body = json!({ "model": THINKS, "input": input });
        assert_eq!(caller.ask("POST /v1/responses", &body).await.code(400), "item_not_found");
    }
}

/// Whatever a request says so that it is not looked at here, nothing of a provider's is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_providers_own_names_never_reach_it() {
    let (far, _, _fake, caller) = alone("").await;
    respond(&caller, &json!({})).await;
    let before = far.last_text();
    let head = format!("{{\"model\":\"{THINKS}\",\"store\":false,");
    for (body, code) in [
        ("\"input\":[{\"type\":\"item_reference\",\"id\":\"msg_x\"}]}", "item_not_found"),
        ("\"input\":[{\"type\":\"item\\u005freference\",\"id\":\"msg_x\"}]}", "item_not_found"),
        ("\"input\":[{\"id\":\"msg_x\"}]}", "item_not_found"),
        ("\"input\":[{\"type\":null,\"id\":\"msg_x\"}]}", "item_not_found"),
        ("\"input\":\"a\",\"previous_response_id\":\"resp_x\"}", "previous_response_not_found"),
        (
            "\"input\":\"a\",\"previous_response_id\":null,\"previous_response_id\":\"resp_x\"}",
            "invalid_value",
        ),
        ("\"input\":\"a\",\"background\":true}", "invalid_value"),
    ] {
        let mut request = caller.request("POST /v1/responses", &Value::Null);
        *request.body_mut() = format!("{head}{body}").into();
        assert_eq!(caller.send(request).await.code(400), code, "{body}");
    }
    assert_eq!(far.last_text(), before, "nobody was asked");
    // Thoughts that nobody knows say nothing.
    let input = json!([{ "type": "reasoning", "id": "rs_x", "summary": [] },
        { "role": "user", "content": "hi" }]);
    respond(&caller, &json!({ "store": false, "input": input })).await;
    assert_eq!(kinds(&far.last()["input"]), ["message"]);
}

/// Names that a provider gives twice, or not at all, are no reason to lose an answer.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_not_unique() {
    let same = json!({ "same": "1" });
    for url in [None, Some(postgres::shared().fresh())] {
        let Town { people: [ada, ..], .. } = &Town::new(url, "").await;
        let made = ada.ask("POST /v1/conversations", &json!({})).await.expect(200);
        let id = text(&made["id"]);
        for stream in [false, true, false] {
            let body = json!({ "model": THINKS, "input": "hello", "conversation": id,
                "stream": stream, "metadata": same });
            let got = ada.ask("POST /v1/responses", &body).await;
            assert_eq!(got.header("x-hearth-notice"), "");
            let text = got.text();
            assert!(!text.contains("could not be kept"), "{text}");
        }
        let items = ada.get(&format!("/v1/conversations/{id}/items?limit=100")).await.expect(200);
        assert_eq!(kinds(&items["data"]).len(), 15, "{items}");
        // The newest of those that have a name; and one that goes takes no other's along.
        let [one, two] = [
            respond(ada, &json!({ "metadata": same })).await,
            respond(ada, &json!({ "metadata": same })).await,
        ];
        assert_eq!(one["output"][1]["id"], two["output"][1]["id"]);
        let input = json!([{ "type": "item_reference", "id": one["output"][1]["id"] }]);
        for response in [&two, &one] {
            respond(ada, &json!({ "input": input })).await;
            let path = format!("DELETE /v1/responses/{}", text(&response["id"]));
            ada.ask(&path, &Value::Null).await.expect(200);
        }
    }
}

/// What is referred to stands once where it is read and where it is kept.
#[tokio::test(flavor = "multi_thread")]
async fn references_within_a_conversation() {
    let Town { far, people: [ada, ..], .. } = &Town::new(None, "").await;
    let made = ada.ask("POST /v1/conversations", &json!({})).await.expect(200);
    let id = text(&made["id"]);
    let first = respond(ada, &json!({ "conversation": id })).await;
    let apart = respond(ada, &json!({})).await;
    let item =
        |response: &Value| json!({ "type": "item_reference", "id": response["output"][1]["id"] });
    let input = json!([item(&first), item(&apart), { "role": "user", "content": "and?" }]);
    respond(ada, &json!({ "conversation": id, "input": input })).await;
    let sent = far.last();
    let named = |at: usize| sent["input"][at]["id"].clone();
    assert_eq!(sent["input"].as_array().map(Vec::len), Some(6), "{sent}");
    assert_eq!((named(2), named(4)), (item(&first)["id"].clone(), item(&apart)["id"].clone()));
    // What came from elsewhere belongs to it from now on.
    respond(ada, &json!({ "conversation": id })).await;
    let sent = far.last().to_string();
    assert_eq!(sent.matches(item(&apart)["id"].as_str().expect("an id")).count(), 1);
    // A picture is gone on with by its name alone.
    let picture = json!([{ "type": "image_generation_call", "id": "ig_x" }]);
    for input in [json!([item(&first), item(&first)]), json!(vec![item(&first); 1_025])] {
        let body = json!({ "model": THINKS, "input": input });
        assert_eq!(ada.ask("POST /v1/responses", &body).await.code(400), "invalid_value");
    }
    let body = json!({ "model": THINKS, "input": picture, "store": false });
    assert_eq!(ada.ask("POST /v1/responses", &body).await.code(400), "item_not_found");
}

/// Of two that answer at once one is kept, and that one is shown.
#[tokio::test(flavor = "multi_thread")]
async fn company_leaves_nothing_behind() {
    let pool = "[pools.p]\ntargets = [\"far/gpt-6-sol\", \"other/gpt-6-sol\"]\n\
                hedge_after = \"5ms\"\n";
    let Town { people: [ada, ..], .. } = &Town::new(None, pool).await;
    let made = ada.ask("POST /v1/conversations", &json!({})).await.expect(200);
    let id = text(&made["id"]);
    let mut shown = Vec::new();
    for _ in 0..20 {
        let more = json!({ "model": "p", "conversation": id, "metadata": { "slow": "1" } });
        let made = respond(ada, &more).await;
        ada.get(&format!("/v1/responses/{}", text(&made["id"]))).await.expect(200);
        shown.push(made["output"][1]["id"].clone());
    }
    let path = format!("/v1/conversations/{id}/items?limit=100&order=asc");
    let items = ada.get(&path).await.expect(200);
    let said = items["data"].as_array().expect("items").iter();
    let said: Vec<_> = said.filter(|i| i["role"] == "assistant").map(|i| i["id"].clone()).collect();
    assert_eq!(said, shown);
}

/// One in the background whose stream breaks, and that a model here goes on with, is kept once.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_continued_in_the_background_is_kept_once() {
    let far = Far::start("far").await;
    let pool = "[pools.p]\ntargets = [\"far/gpt-4o\", \"org/fake\"]\n\
                broken_stream = \"continue\"\n";
    let provider =
        format!("[providers.far]\nkind = \"openai\"\nkey = \"k\"\nbase_url = \"{}\"\n", far.url);
    let routing = toml::from_str(&(provider + pool)).expect("a configuration");
    let routes = Routes::new(&routing, &["org/fake".to_owned()]).expect("routes");
    let house = House::new(None).await;
    let fake = house.gateway(Setup { routes, ..Setup::default() });
    let [ada, ..] = house.people(&fake).await;
    for background in [false, true] {
        let more = json!({ "model": "p", "background": background, "stream": true,
            "metadata": { "cut": "1" }, "temperature": 0, "max_output_tokens": 20 });
        let made = respond(&ada, &more).await;
        let path = format!("/v1/responses/{}", text(&made["id"]));
        let kept = ada.get(&path).await.expect(200);
        assert!(kept["output"][0]["content"].is_array(), "{kept} {made}");
        let said = text(&kept["output"][0]["content"][0]["text"]);
        assert!(said.starts_with("Hello from") && said.len() > SAID.len(), "{kept}");
        let more = json!({ "model": "far/gpt-4o", "previous_response_id": made["id"] });
        respond(&ada, &more).await;
        assert_eq!(kinds(&far.last()["input"]), ["message"; 3], "{background}");
    }
}

/// A model here goes on with what a provider said, and a provider with what a model here said.
#[tokio::test(flavor = "multi_thread")]
async fn from_one_to_the_other() {
    let Town { far, people: [ada, ..], .. } = &Town::new(None, "").await;
    let here = ada.respond("hello", &json!({})).await.expect(200);
    let there = respond(ada, &json!({ "previous_response_id": here["id"] })).await;
    let sent = far.last();
    assert_eq!(kinds(&sent["input"]), ["message", "message", "message"]);
    assert_eq!(sent["input"][1]["content"][0]["text"], SPEECH);
    // Its search belongs to a tool that is not here: the model goes on without it, and says so.
    for stream in [false, true] {
        let more = json!({ "previous_response_id": there["id"], "stream": stream });
        let got = ada.respond("and then?", &more).await;
        assert_eq!(got.header("x-hearth-dropped"), "history.web_search_call", "{}", got.text());
        let next = response(&got);
        assert!(next["usage"]["input_tokens"].as_u64() > here["usage"]["input_tokens"].as_u64());
        let items = ada.get(&format!("/v1/responses/{}/input_items", text(&next["id"]))).await;
        assert_eq!(kinds(&items.expect(200)["data"])[1], "web_search_call", "it is kept");
    }
}
