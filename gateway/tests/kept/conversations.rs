//! Conversations.

use serde_json::{Value, json};

use hearth_tests::services::postgres;

use crate::fake::{Fake, SPEECH, Setup};
use crate::house::{Caller, House, text};

async fn create(caller: &Caller, body: Value) -> String {
    text(&caller.ask("POST /v1/conversations", &body).await.expect(200)["id"])
}

/// What a conversation says, the first first.
async fn said(caller: &Caller, id: &str) -> Vec<String> {
    let path = format!("/v1/conversations/{id}/items?order=asc&limit=100");
    let page = caller.get(&path).await.expect(200);
    assert_eq!((&page["object"], &page["has_more"]), (&json!("list"), &json!(false)));
    page["data"].as_array().expect("items").iter().map(|i| text(&i["content"][0]["text"])).collect()
}

fn user(word: &str) -> Value {
    json!({ "type": "message", "role": "user", "content": word })
}

/// The life of one.
async fn life(caller: &Caller) {
    let body = json!({ "metadata": { "topic": "tests" }, "items": [user("one"), user("two")] });
    let made = caller.ask("POST /v1/conversations", &body).await.expect(200);
    let id = text(&made["id"]);
    assert!(
        id.starts_with("conv_") && made["created_at"].as_u64().expect("a time") > 1_700_000_000
    );
    assert_eq!(
        (&made["object"], &made["metadata"]),
        (&json!("conversation"), &json!({ "topic": "tests" }))
    );
    let path = format!("/v1/conversations/{id}");
    assert_eq!(caller.get(&path).await.expect(200), made);
    let other = json!({ "metadata": { "topic": "more tests" } });
    let changed = caller.ask(&format!("POST {path}"), &other).await.expect(200);
    assert_eq!(
        (&changed["metadata"], &changed["created_at"]),
        (&other["metadata"], &made["created_at"])
    );
    assert_eq!(caller.get(&path).await.expect(200), changed);
    // Items.
    let items = format!("{path}/items");
    let body = json!({ "items": [user("three")] });
    let added = caller.ask(&format!("POST {items}"), &body).await.expect(200);
    let item = added["data"][0].clone();
    assert_eq!((&added["object"], &added["first_id"]), (&json!("list"), &item["id"]));
    assert_eq!(item["content"], json!([{ "type": "input_text", "text": "three" }]));
    let one = format!("{items}/{}", text(&item["id"]));
    assert_eq!(caller.get(&one).await.expect(200), item);
    assert_eq!(said(caller, &id).await, ["one", "two", "three"]);
    let page = caller.get(&format!("{items}?limit=2")).await.expect(200);
    assert_eq!((&page["data"][0], &page["has_more"]), (&item, &json!(true)));
    let next = format!("{items}?limit=2&after={}", text(&page["last_id"]));
    let next = caller.get(&next).await.expect(200);
    assert_eq!(next["data"][0]["content"][0]["text"], "one");
    assert_eq!(next["has_more"], false);
    // The same one twice.
    let again = json!({ "items": [item] });
    assert_eq!(caller.ask(&format!("POST {items}"), &again).await.code(400), "item_exists");
    let gone = caller.ask(&format!("DELETE {one}"), &Value::Null).await.expect(200);
    assert_eq!(gone["id"], id.as_str());
    assert_eq!(caller.get(&one).await.code(404), "item_not_found");
    assert_eq!(said(caller, &id).await, ["one", "two"]);
    let deleted = caller.ask(&format!("DELETE {path}"), &Value::Null).await.expect(200);
    assert_eq!(deleted, json!({ "id": id, "object": "conversation.deleted", "deleted": true }));
    for path in [&path, &items] {
        assert_eq!(caller.get(path).await.code(404), "conversation_not_found");
    }
}

/// Requests that go on with one.
async fn goes_on(caller: &Caller) {
    let id = create(caller, json!({ "items": [user("one")] })).await;
    let mut tokens = 0;
    for (turn, stream) in [(1, false), (2, true), (3, false)] {
        let field = if stream { json!({ "id": id }) } else { json!(id) };
        let got =
            caller.respond("go on", &json!({ "conversation": field, "stream": stream })).await;
        assert_eq!(got.status, 200, "{}", got.text());
        let all = said(caller, &id).await;
        assert_eq!(all.len(), 1 + 2 * turn);
        assert_eq!(all[all.len() - 2..], ["go on", SPEECH]);
        if !stream {
            let response = got.json();
            assert_eq!(response["conversation"], json!({ "id": id }));
            let now = response["usage"]["input_tokens"].as_u64().expect("a count");
            assert!(now > tokens + 10, "it reads all that came before: {now} after {tokens}");
            tokens = now;
            // A response goes on from where the conversation stood then.
            let more = json!({ "previous_response_id": response["id"] });
            let next = caller.respond("go on", &more).await.expect(200);
            assert!(next["usage"]["input_tokens"].as_u64().expect("a count") > now);
            assert_eq!(said(caller, &id).await.len(), all.len(), "which does not grow by that");
        }
    }
    // An item of it is referred to, and not there twice.
    let page = caller.get(&format!("/v1/conversations/{id}/items?order=asc")).await.expect(200);
    let first = &page["data"][0]["id"];
    let input = json!([{ "type": "item_reference", "id": first }, user("go on")]);
    let body = json!({ "model": "org/fake", "input": input, "conversation": id });
    caller.ask("POST /v1/responses", &body).await.expect(200);
    assert_eq!(said(caller, &id).await.len(), 1 + 2 * 3 + 2);
    let input = json!([{ "type": "message", "role": "user", "content": "x", "id": first }]);
    let body = json!({ "model": "org/fake", "input": input, "conversation": id });
    assert_eq!(caller.ask("POST /v1/responses", &body).await.code(400), "item_exists");
}

async fn refused(caller: &Caller) {
    let id = create(caller, json!({})).await;
    let response = text(&caller.respond("hello", &json!({})).await.expect(200)["id"]);
    let check = async |more: Value, status: u16, field: &str| {
        let got = caller.respond("hello", &more).await.expect(status);
        assert_eq!(got["error"]["param"], field, "{more}");
    };
    let both = json!({ "conversation": id, "previous_response_id": response });
    check(both, 400, "conversation").await;
    check(json!({ "conversation": id, "store": false }), 400, "conversation").await;
    check(json!({ "conversation": "conv_unknown" }), 404, "conversation").await;
    check(json!({ "conversation": { "id": id, "x": 1 } }), 400, "conversation.x").await;
    check(json!({ "conversation": 7 }), 400, "conversation").await;
    // Bodies of their own routes.
    let check = async |line: &str, body: Value, field: &str| {
        let got = caller.ask(line, &body).await.expect(400);
        assert_eq!(got["error"]["param"], field, "{line} {body}");
    };
    let many: Vec<Value> = (0..21).map(|_| user("x")).collect();
    let all = "POST /v1/conversations";
    let items = format!("{all}/{id}/items");
    check(all, json!({ "items": many }), "items").await;
    check(all, json!({ "item": [] }), "item").await;
    check(all, json!({ "metadata": { "a": 1 } }), "metadata.a").await;
    check(all, json!({ "metadata": { "hearth_label": "red" } }), "metadata.hearth_label").await;
    check(&items, json!({}), "items").await;
    check(&items, json!({ "items": [{ "type": "web_search_call", "id": "x" }] }), "items[0].type")
        .await;
    check(&items, json!({ "items": [{ "type": "item_reference", "id": "x" }] }), "items[0].type")
        .await;
    check(&items, json!({ "items": [{ "role": "king", "content": "x" }] }), "items[0].role").await;
    let twice = json!({ "role": "user", "content": "x", "id": "msg_1" });
    check(&items, json!({ "items": [twice, twice] }), "items[1].id").await;
    assert!(said(caller, &id).await.is_empty(), "all or none");
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_live_in_memory_and_in_both_databases() {
    let fake = Fake::start(Setup::default());
    let caller = Caller::new(&fake, "");
    life(&caller).await;
    goes_on(&caller).await;
    refused(&caller).await;
    for url in [None, Some(postgres::shared().fresh())] {
        let house = House::new(url).await;
        let fake = house.gateway(Setup::default());
        let [ada, ..] = house.people(&fake).await;
        life(&ada).await;
        goes_on(&ada).await;
        refused(&ada).await;
    }
}

/// Every route, by everybody else.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_sees_adds_or_deletes() {
    let house = House::new(None).await;
    let governed = house.gateway(Setup::default());
    let [ada, bob, stranger] = house.people(&governed).await;
    let fake = Fake::start(Setup { keys: vec!["ada", "eve"], ..Setup::default() });
    let own = (Caller::new(&fake, "ada"), Caller::new(&fake, "ada"), Caller::new(&fake, "eve"));
    for (ada, bob, stranger) in [(ada, bob, stranger), own] {
        let id = create(&ada, json!({ "items": [user("one")] })).await;
        let path = format!("/v1/conversations/{id}");
        let page = ada.get(&format!("{path}/items")).await.expect(200);
        let item = text(&page["data"][0]["id"]);
        let added = json!({ "items": [user("two")] });
        for (line, body) in [
            (format!("GET {path}"), Value::Null),
            (format!("POST {path}"), json!({ "metadata": {} })),
            (format!("GET {path}/items"), Value::Null),
            (format!("POST {path}/items"), added.clone()),
            (format!("GET {path}/items/{item}"), Value::Null),
            (format!("DELETE {path}/items/{item}"), Value::Null),
            (format!("DELETE {path}"), Value::Null),
        ] {
            let got = stranger.ask(&line, &body).await;
            assert_eq!(got.code(404), "conversation_not_found", "{line}");
        }
        let got = stranger.respond("go on", &json!({ "conversation": id })).await;
        assert_eq!(got.code(404), "conversation_not_found");
        assert_eq!(said(&bob, &id).await, ["one"]);
        bob.ask(&format!("POST {path}/items"), &added).await.expect(200);
        assert_eq!(said(&ada, &id).await, ["one", "two"]);
    }
}

/// A conversation is as secret as what was said in it, or as its maker wants.
#[tokio::test(flavor = "multi_thread")]
async fn labels_rise_and_never_fall() {
    let house = House::new(None).await;
    let fake = house.gateway(Setup::default());
    let project = house.project(&fake, "one", json!({})).await;
    let secret = house.caller(&fake, &project, json!({ "label": "restricted" })).await;
    let usual = house.caller(&fake, &project, json!({})).await;
    let label = async |id: &str| {
        usual.respond("go on", &json!({ "conversation": id })).await.expect(200);
        text(&house.ledger(&fake).await[0]["label"])
    };
    let plain = create(&usual, json!({})).await;
    assert_eq!(label(&plain).await, "internal");
    secret.respond("go on", &json!({ "conversation": plain })).await.expect(200);
    assert_eq!(label(&plain).await, "restricted");
    assert_eq!(label(&create(&secret, json!({})).await).await, "restricted");
    let wanted = json!({ "metadata": { "hearth_label": "confidential" } });
    let wanted = create(&usual, wanted).await;
    assert_eq!(label(&wanted).await, "confidential");
    let lower = json!({ "metadata": { "hearth_label": "public" } });
    usual.ask(&format!("POST /v1/conversations/{wanted}"), &lower).await.expect(200);
    assert_eq!(label(&wanted).await, "confidential");
    assert_eq!(label(&create(&usual, lower).await).await, "internal", "no lower than the usual");
}

/// Many at once: each turn's items stand together.
#[tokio::test(flavor = "multi_thread")]
async fn turns_at_once_do_not_mix() {
    let house = House::new(None).await;
    let fake = house.gateway(Setup::default());
    let [ada, ..] = house.people(&fake).await;
    let id = create(&ada, json!({})).await;
    let ask = |turn: usize| {
        let (ada, id) = (ada.clone(), id.clone());
        async move {
            let more = json!({ "conversation": id, "stream": turn.is_multiple_of(2) });
            assert_eq!(ada.respond(&format!("turn {turn}"), &more).await.status, 200);
        }
    };
    futures_util::future::join_all((0..8).map(ask)).await;
    let all = said(&ada, &id).await;
    assert_eq!(all.len(), 16);
    for turn in all.chunks(2) {
        assert!(turn[0].starts_with("turn ") && turn[1] == SPEECH, "{turn:?}");
    }
}
