//! Responses that are kept.

use serde_json::{Value, json};

use hearth_tests::services::postgres;

use crate::fake::{Fake, SPEECH, Setup};
use crate::house::{Caller, House, text};

fn input_tokens(response: &Value) -> u64 {
    response["usage"]["input_tokens"].as_u64().expect("a count")
}

/// A response that goes on with another reads all that came before.
async fn goes_on(caller: &Caller, first: &str, stream: bool) -> String {
    let before = caller.get(&format!("/v1/responses/{first}")).await.expect(200);
    let alone = input_tokens(&caller.respond("and then?", &json!({})).await.expect(200));
    let more = json!({ "previous_response_id": first, "stream": stream });
    let got = caller.respond("and then?", &more).await;
    assert_eq!(got.status, 200, "{}", got.text());
    let id = if stream {
        let text = got.text();
        let at = text.find("\"id\":\"resp_").expect("an id") + 6;
        text[at..].split('"').next().expect("its end").to_owned()
    } else {
        text(&got.json()["id"])
    };
    // It is there as soon as the last byte is.
    let kept = caller.get(&format!("/v1/responses/{id}")).await.expect(200);
    assert_eq!(kept["previous_response_id"], first);
    assert_eq!(kept["output"][0]["content"][0]["text"], SPEECH);
    assert!(input_tokens(&kept) > alone + input_tokens(&before) - 8, "{kept}");
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_outlive_the_process() {
    let house = House::new(None).await;
    let fake = house.gateway(Setup::default());
    let [ada, bob, _] = house.people(&fake).await;
    let first = text(&ada.respond("hello", &json!({})).await.expect(200)["id"]);
    let second = goes_on(&bob, &first, true).await;
    let key = ada.key.clone();
    drop((fake, ada, bob));
    let house = house.again().await;
    let fake = house.gateway(Setup::default());
    let ada = Caller::new(&fake, &key);
    for stream in [false, true] {
        goes_on(&ada, &second, stream).await;
    }
    let items = ada.get(&format!("/v1/responses/{second}/input_items?order=asc")).await.expect(200);
    let said: Vec<&Value> =
        items["data"].as_array().expect("items").iter().map(|i| &i["content"][0]["text"]).collect();
    assert_eq!(said, ["hello", SPEECH, "and then?"]);
}

/// Clients refer to what earlier responses said by its id alone, without any other word of them:
/// so does the `ai` package, from the second turn on.
#[tokio::test(flavor = "multi_thread")]
async fn items_of_earlier_responses_are_found_by_their_ids() {
    let house = House::new(None).await;
    let fake = house.gateway(Setup::default());
    let [ada, bob, stranger] = house.people(&fake).await;
    let user = |text: &str| json!({ "role": "user", "content": text });
    for stream in [false, true] {
        let mut turns = vec![user("hello")];
        let mut tokens = 0;
        for caller in [&ada, &bob, &ada] {
            let more = json!({ "input": turns, "stream": stream });
            let got = caller.respond("", &more).await;
            assert_eq!(got.status, 200, "{}", got.text());
            let got = got.text();
            let last = got.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
            let last: Value = serde_json::from_str(last.unwrap_or(&got)).expect("JSON");
            let response = if stream { &last["response"] } else { &last };
            assert!(input_tokens(response) > tokens, "{response}");
            tokens = input_tokens(response);
            let item = text(&response["output"][0]["id"]);
            let own = text(&response["id"]);
            assert!(item.starts_with(&own.replace("resp_", "msg_")), "{item} {own}");
            let count = json!({ "model": "org/fake", "input": turns });
            let count = caller.ask("POST /v1/responses/input_tokens", &count).await.expect(200);
            assert_eq!(count["input_tokens"], tokens, "counted with what they stand for");
            let again = json!({ "model": "org/fake", "previous_response_id": own, "input": "x" });
            let again = caller.ask("POST /v1/responses/input_tokens", &again).await.expect(200);
            assert!(again["input_tokens"].as_u64() > Some(tokens), "{again}");
            turns.extend([json!({ "type": "item_reference", "id": item }), user("and then?")]);
        }
        let more = json!({ "input": turns });
        let got = stranger.respond("", &more).await;
        assert_eq!(got.status, 400, "{}", got.text());
        assert!(got.text().contains("item_not_found"), "{}", got.text());
        assert_eq!(got.json()["error"]["param"], "input[1].id");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_go_on_at_another_gateway() {
    let one = House::new(Some(postgres::shared().fresh())).await;
    let other = one.beside().await;
    let (here, there) = (one.gateway(Setup::default()), other.gateway(Setup::default()));
    let [ada, ..] = one.people(&here).await;
    let first = text(&ada.respond("hello", &json!({})).await.expect(200)["id"]);
    let elsewhere = ada.at(&there).await;
    let mut last = first;
    for stream in [false, true] {
        last = goes_on(&elsewhere, &last, stream).await;
        last = goes_on(&ada, &last, stream).await;
    }
    elsewhere.ask(&format!("DELETE /v1/responses/{last}"), &Value::Null).await.expect(200);
    assert_eq!(ada.get(&format!("/v1/responses/{last}")).await.code(404), "response_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_kept_before_its_last_byte() {
    let house = House::new(None).await;
    let fake = house.gateway(Setup::default());
    let [ada, ..] = house.people(&fake).await;
    let mut last = text(&ada.respond("hello", &json!({})).await.expect(200)["id"]);
    for _ in 0..20 {
        last = goes_on(&ada, &last, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_kept_is_not() {
    let house = House::new(None).await;
    let fake = house.gateway(Setup::default());
    let [ada, ..] = house.people(&fake).await;
    for stream in [false, true] {
        let got = ada.respond("hello", &json!({ "store": false, "stream": stream })).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
    let count = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM kept");
    let count = count.fetch_one(house.governor.store().read()).await.expect("a count");
    assert_eq!(count, 0);
}

/// Every route, by everybody else.
async fn strangers(fake: &Fake, (ada, bob, stranger): (&Caller, &Caller, &Caller)) {
    let id = text(&ada.respond("hello", &json!({})).await.expect(200)["id"]);
    let path = format!("/v1/responses/{id}");
    let nobody = Caller::new(fake, "sk-hearth-nobody");
    let routes = [
        ("GET", String::new()),
        ("GET", "/input_items".to_owned()),
        ("POST", "/cancel".to_owned()),
        ("DELETE", String::new()),
    ];
    for (method, end) in &routes {
        let line = format!("{method} {path}{end}");
        assert_eq!(stranger.ask(&line, &Value::Null).await.code(404), "response_not_found");
        assert_eq!(nobody.ask(&line, &Value::Null).await.status, 401, "{line}");
    }
    let more = json!({ "previous_response_id": id });
    for stream in [false, true] {
        let mut more = more.clone();
        more["stream"] = stream.into();
        let got = stranger.respond("and then?", &more).await;
        assert_eq!(got.code(400), "previous_response_not_found");
        let error = got.json();
        assert_eq!(error["error"]["param"], "previous_response_id");
        let unknown = json!({ "previous_response_id": "resp_unknown", "stream": stream });
        let unknown = stranger.respond("and then?", &unknown).await.text();
        assert_eq!(unknown.replace("resp_unknown", &id), got.text(), "nothing tells them apart");
    }
    // Whoever shares the project does all of it.
    bob.get(&path).await.expect(200);
    bob.get(&format!("{path}/input_items")).await.expect(200);
    bob.respond("and then?", &more).await.expect(200);
    assert_eq!(
        bob.ask(&format!("POST {path}/cancel"), &Value::Null).await.code(400),
        "not_in_background"
    );
    let deleted = bob.ask(&format!("DELETE {path}"), &Value::Null).await.expect(200);
    assert_eq!(deleted, json!({ "id": id, "object": "response", "deleted": true }));
    assert_eq!(ada.get(&path).await.code(404), "response_not_found");
    assert_eq!(ada.ask(&format!("DELETE {path}"), &Value::Null).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_sees_joins_or_deletes() {
    let house = House::new(None).await;
    let fake = house.gateway(Setup::default());
    let [ada, bob, stranger] = house.people(&fake).await;
    strangers(&fake, (&ada, &bob, &stranger)).await;
    // Where nobody governs, each key has its own.
    let fake = Fake::start(Setup { keys: vec!["ada", "eve"], ..Setup::default() });
    let (ada, eve) = (Caller::new(&fake, "ada"), Caller::new(&fake, "eve"));
    strangers(&fake, (&ada, &ada, &eve)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn items_come_in_pages() {
    let house = House::new(None).await;
    let fake = house.gateway(Setup::default());
    let [ada, ..] = house.people(&fake).await;
    let words = ["a", "b", "c", "d", "e"];
    let input: Vec<Value> =
        words.iter().map(|word| json!({ "role": "user", "content": word })).collect();
    let body = json!({ "model": "org/fake", "input": input });
    let id = text(&ada.ask("POST /v1/responses", &body).await.expect(200)["id"]);
    let path = format!("/v1/responses/{id}/input_items");
    for (order, expect) in [("asc", "abcde"), ("desc", "edcba")] {
        let (mut found, mut after) = (String::new(), String::new());
        loop {
            let page = format!("{path}?limit=2&order={order}{after}");
            let page = ada.get(&page).await.expect(200);
            for item in page["data"].as_array().expect("items") {
                found += &text(&item["content"][0]["text"]);
            }
            after = format!("&after={}", text(&page["last_id"]));
            if page["has_more"] == false {
                break;
            }
        }
        assert_eq!(found, expect);
    }
    for (query, field) in
        [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("order=up", "order")]
    {
        let got = ada.get(&format!("{path}?{query}")).await.expect(400);
        assert_eq!(got["error"]["param"], field, "{query}");
    }
    assert_eq!(ada.get(&format!("{path}?after=msg_none")).await.code(404), "item_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_altered_are_said_to_be() {
    let house = House::new(None).await;
    let fake = house.gateway(Setup::default());
    let [ada, ..] = house.people(&fake).await;
    let id = text(&ada.respond("hello", &json!({})).await.expect(200)["id"]);
    house.run("UPDATE kept SET content = 'v1.000000000000.AAAA'").await;
    let path = format!("/v1/responses/{id}");
    assert_eq!(ada.get(&path).await.code(500), "damaged");
    assert_eq!(ada.get(&format!("{path}/input_items")).await.code(500), "damaged");
    let more = json!({ "previous_response_id": id });
    assert_eq!(ada.respond("and then?", &more).await.code(500), "damaged");
    ada.respond("hello", &json!({})).await.expect(200);
    ada.ask(&format!("DELETE {path}"), &Value::Null).await.expect(200);
}

/// What goes on with something secret is as secret, whoever asks.
#[tokio::test(flavor = "multi_thread")]
async fn labels_go_along() {
    let house = House::new(None).await;
    let fake = house.gateway(Setup::default());
    let project = house.project(&fake, "one", json!({})).await;
    let secret = house.caller(&fake, &project, json!({ "label": "restricted" })).await;
    let usual = house.caller(&fake, &project, json!({})).await;
    let public = house.caller(&fake, &project, json!({ "label": "public" })).await;
    let first = text(&secret.respond("hello", &json!({})).await.expect(200)["id"]);
    let mut ids = vec![("restricted", first)];
    for (label, caller) in [("internal", &usual), ("public", &public)] {
        ids.push((label, text(&caller.respond("hello", &json!({})).await.expect(200)["id"])));
    }
    for (label, id) in &ids {
        for (own, caller) in [("internal", &usual), ("public", &public), ("restricted", &secret)] {
            let more = json!({ "previous_response_id": id });
            let next = text(&caller.respond("and then?", &more).await.expect(200)["id"]);
            let all = ["public", "internal", "confidential", "restricted"];
            let rank = |name: &str| all.iter().position(|label| *label == name).expect("a label");
            let expect = all[rank(label).max(rank(own))];
            assert_eq!(house.ledger(&fake).await[0]["label"], expect, "{own} goes on with {label}");
            // And so is what goes on with that.
            let more = json!({ "previous_response_id": next });
            usual.respond("and then?", &more).await.expect(200);
            let expect = all[rank(expect).max(rank("internal"))];
            assert_eq!(house.ledger(&fake).await[0]["label"], expect, "{own}, {label}, internal");
        }
    }
}

/// An answer that could not be kept says so, and is whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_is_said() {
    let house = House::new(None).await;
    let fake = house.gateway(Setup::default());
    let [ada, ..] = house.people(&fake).await;
    house.governor.flush().await;
    let sql = "ALTER TABLE kept RENAME TO gone";
    sqlx::query(sql).execute(house.governor.store().write()).await.expect("renamed");
    let got = ada.respond("hello", &json!({})).await;
    let id = text(&got.expect(200)["id"]);
    assert_eq!(got.header("x-hearth-notice"), "This response could not be kept.");
    let stream = ada.respond("hello", &json!({ "stream": true })).await.text();
    let (before, after) = stream.split_once("event: response.completed").expect("a whole answer");
    assert!(after.contains("\n: hearth {\"notice\":\"This response could not be kept.\"}\n\n"));
    assert!(!before.contains("could not be kept"));
    assert_eq!(ada.get(&format!("/v1/responses/{id}")).await.code(503), "unavailable");
}

/// A conversation that has grown too long is refused, or cut where its caller asks for that: what
/// is kept of it is whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_is_cut_for_who_asks_for_it() {
    let house = House::new(None).await;
    let fake = house.gateway(Setup { context: 512, ..Setup::default() });
    let [ada, ..] = house.people(&fake).await;
    let long = "many words ".repeat(10);
    let said = |last: &str, more: Value| {
        let mut body = json!({ "max_output_tokens": 32, "instructions": "Be kind." });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
        body["previous_response_id"] = if last.is_empty() { Value::Null } else { json!(last) };
        body
    };
    let (mut last, mut turns) = (String::new(), 0);
    let too_long = loop {
        let got = ada.respond(&long, &said(&last, json!({}))).await;
        if got.status != 200 {
            break got;
        }
        (last, turns) = (text(&got.json()["id"]), turns + 1);
    };
    assert_eq!(too_long.code(400), "context_length_exceeded");
    assert!(turns > 2, "{turns}");
    for stream in [false, true] {
        // A tool that a provider would run is left out, and the wish is honoured all the same.
        let tools = if stream { json!([{ "type": "web_search" }]) } else { json!([]) };
        let more = json!({ "truncation": "auto", "stream": stream, "tools": tools,
            "text": { "verbosity": "low" } });
        let got = ada.respond(&long, &said(&last, more)).await;
        assert_eq!(got.status, 200, "{}", got.text());
        let got = got.text();
        let end = got.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
        let response: Value = serde_json::from_str(end.unwrap_or(&got)).expect("JSON");
        let response = if stream { &response["response"] } else { &response };
        assert_eq!(response["truncation"], "auto");
        let read = input_tokens(response);
        assert!((240..=480).contains(&read), "as much as fits, with room behind it: {read}");
        assert_eq!(response["text"]["verbosity"], "low");
        last = text(&response["id"]);
        turns += 1;
    }
    let items = ada.get(&format!("/v1/responses/{last}/input_items?limit=100")).await.expect(200);
    assert_eq!(items["data"].as_array().expect("items").len(), 2 * turns - 1, "{items}");
    let count = json!({ "model": "org/fake", "previous_response_id": last, "input": "x",
        "truncation": "auto" });
    let count = ada.ask("POST /v1/responses/input_tokens", &count).await.expect(200);
    assert!(count["input_tokens"].as_u64() > Some(512), "all of it is counted: {count}");
    // What was said last stays, so it has to fit.
    let far = "far too long ".repeat(100);
    let got = ada.respond(&far, &said(&last, json!({ "truncation": "auto" }))).await;
    assert_eq!(got.code(400), "context_length_exceeded");
    let got = ada.respond("hi", &said("", json!({ "truncation": "some" }))).await;
    assert_eq!(got.json()["error"]["param"], "truncation", "{}", got.text());
}
