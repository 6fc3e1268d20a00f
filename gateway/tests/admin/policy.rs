//! Dry runs and recorded texts, through the routes and the commands.

use govern::ledger::{Outcome, Tokens};
use govern::secret::{Keyring, Master};
use govern::{Ask, Id};
use serde_json::{Value, json};

use crate::world::{Branch, NOW, World, id};

/// Two teams with a key each, and two requests of each: to a small and to a large model.
async fn shop(world: &World) -> (Branch, Branch, Vec<Id>) {
    let ours = world.organisation("ours").await;
    let own = world.branch(&ours, "own").await;
    let theirs = world.organisation("theirs").await;
    let other = world.branch(&theirs, "other").await;
    let models = json!([{ "model": "*", "input": 1_000_000, "output": 1_000_000 }]);
    world.make("POST /prices", json!({ "name": "sheet", "models": models })).await;
    let mut operations = Vec::new();
    for branch in [&own, &other] {
        let user = json!({ "email": "ada", "organisation": branch.organisation });
        let user = id(&world.make("POST /users", user).await);
        let key = json!({ "label": "ci", "project": branch.project, "user": user });
        let key = world.make("POST /keys", key).await;
        let principal = world.governor.authenticate(key["key"].as_str(), None).expect("known");
        for model in ["small", "large"] {
            let ask = Ask {
                model: model.to_owned(),
                surface: "chat",
                input_tokens: 1000,
                choices: 1,
                room: 10,
                ..Ask::default()
            };
            let operation = world.governor.admit(&principal, &ask).expect("let in");
            let tokens = Tokens { input: 1000, output: 5, ..Tokens::default() };
            operation.used(tokens, Outcome::Done, 1);
            operation.record(format!("to {model}").as_bytes(), b"an answer");
            operations.push(operation.id());
            drop(operation.finish());
        }
    }
    (own, other, operations)
}

async fn dry(world: &World, changes: Value, more: Value) -> crate::world::Answer {
    let mut body = json!({ "from": "2026-11-01", "changes": changes });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    world.root("POST /policy/dry-run", &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_tried_and_nothing_changes() {
    let world = World::new("dry").await;
    let (own, other, operations) = shop(&world).await;
    let found = dry(&world, json!([]), json!({})).await.expect(200);
    assert_eq!((&found["requests"], &found["refused"]), (&json!(4), &json!(0)));
    assert_eq!(found["recorded_nano_usd"], json!(4_020_000));
    assert_eq!(found["would_be_nano_usd"], found["recorded_nano_usd"]);

    let policy = json!([{ "kind": "policy", "id": own.team, "body": { "models": ["small"] } }]);
    let here = json!({ "organisation": own.organisation });
    let found = dry(&world, policy.clone(), here.clone()).await.expect(200);
    assert_eq!((&found["requests"], &found["refused"]), (&json!(2), &json!(1)));
    assert_eq!(found["by_rule"], json!([{ "name": "model_not_allowed", "requests": 1 }]));
    assert_eq!(found["by_team"][0]["name"], json!(own.team));
    assert_eq!(found["examples"][0]["operation"], json!(operations[1]));
    let not: Vec<&str> = found["not_judged"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|n| n["what"].as_str())
        .collect();
    assert!(not.contains(&"tools") && not.contains(&"rates"), "{not:?}");
    let team = world.root(&format!("GET /teams/{}", own.team), &Value::Null).await.expect(200);
    assert_eq!(team["policy"]["models"], Value::Null, "nothing was changed");

    let limits = json!([{ "period": "day", "usd": "0.0015" }]);
    let budget = json!({ "name": "b", "scope": format!("team:{}", own.team), "limits": limits });
    let found = dry(&world, json!([{ "kind": "budget", "body": budget }]), here.clone()).await;
    let found = found.expect(200);
    assert_eq!((&found["refused"], &found["cut"]), (&json!(1), &json!(0)), "{found}");
    let budgets = world.root("GET /budgets", &Value::Null).await.expect(200);
    assert_eq!(budgets["data"], json!([]));
    let models = json!({ "models": [{ "model": "*", "input": 2_000_000, "output": 0 }] });
    let price = json!([{ "kind": "price", "body": models }]);
    let found = dry(&world, price, json!({})).await.expect(200);
    assert_eq!(found["would_be_nano_usd"], json!(8_000_000));

    // A real budget, changed and deleted.
    let made = id(&world.make("POST /budgets", budget).await);
    let tight = json!({ "limits": [{ "period": "day", "usd": "0" }] });
    let change = json!([{ "kind": "budget", "id": made, "body": tight }]);
    assert_eq!(dry(&world, change, json!({})).await.expect(200)["refused"], json!(2));
    let gone = json!([{ "kind": "budget", "id": made }]);
    assert_eq!(dry(&world, gone, json!({})).await.expect(200)["refused"], json!(0));

    // Who looked is in the audit.
    let audit = world.root("GET /audit?kind=admin&limit=200", &Value::Null).await.expect(200);
    let looked = |record: &Value| {
        record["body"].as_str().is_some_and(|body| body.contains("policy.dry_run"))
    };
    let lines = audit["data"].as_array().expect("records").iter().filter(|one| looked(one)).count();
    assert_eq!(lines, 6);
    changes_are_judged(&world, &own, &other).await;
}

/// What cannot be changed is refused by name.
async fn changes_are_judged(world: &World, own: &Branch, other: &Branch) {
    // Of others' things nothing is known here.
    let here = json!({ "organisation": own.organisation });
    let policy = json!([{ "kind": "policy", "id": other.team, "body": {} }]);
    dry(world, policy, here).await.code(404, "not_found");
    for (changes, more, param) in [
        (
            json!([{ "kind": "policy", "id": own.team, "body": { "max_tokens": 0 } }]),
            json!({}),
            "changes[0].policy",
        ),
        (
            json!([{ "kind": "price", "body": { "models": [{ "model": "" }] } }]),
            json!({}),
            "changes[0].body",
        ),
        (json!([{ "kind": "rates", "body": {} }]), json!({}), "changes[0].kind"),
        (json!([]), json!({ "from": "yesterday" }), "from"),
        (json!([]), json!({ "from": NOW + 1 }), "from"),
    ] {
        let answer = dry(world, changes, more).await;
        let said = answer.expect(400);
        let named = said["error"]["param"].as_str().unwrap_or_default();
        assert!(named.starts_with(param), "{said}");
    }
}

fn keyring() -> std::sync::Arc<Keyring> {
    let text = Master::generate();
    let current = Master::parse(text.expose()).expect("a key");
    std::sync::Arc::new(Keyring { current, old: Vec::new() })
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_texts_are_read_by_those_who_may_and_erased() {
    let world = World::new("bodies").await;
    world.governor.record_with(keyring());
    let organisation = world.governor.directory().organisations().next().expect("one").id.clone();
    let everybody = json!({ "policy": { "record": "full" }, "retention_days": { "public": 1 } });
    let line = format!("PATCH /organisations/{organisation}");
    world.root(&line, &everybody).await.expect(200);
    let wrong = json!({ "retention_days": { "public": 0 } });
    world.root(&line, &wrong).await.refuses(400, "retention_days");
    // The policy is the first organisation's: others' texts are not recorded.
    let (own, ..) = shop(&world).await;
    let list = format!("GET /bodies?organisation={}", own.organisation);
    assert_eq!(world.root(&list, &Value::Null).await.expect(200)["data"], json!([]));

    let branch = world.branch(&organisation, "first").await;
    let user = json!({ "email": "eve", "organisation": organisation });
    let user = id(&world.make("POST /users", user).await);
    let key = json!({ "label": "eve", "project": branch.project, "user": user });
    let key = world.make("POST /keys", key).await;
    let principal = world.governor.authenticate(key["key"].as_str(), None).expect("known");
    let ask = Ask { model: "m".to_owned(), input_tokens: 1, choices: 1, ..Ask::default() };
    let operation = world.governor.admit(&principal, &ask).expect("let in");
    operation.used(Tokens { input: 1, ..Tokens::default() }, Outcome::Done, 1);
    operation.record(br#"{"input":"my words"}"#, b"an answer");
    drop(operation.finish());
    let list = world.root("GET /bodies", &Value::Null).await.expect(200);
    assert_eq!(list["data"][0]["operation"], json!(operation.id()));
    assert_eq!(list["data"][0]["user"], json!(user));
    assert!(!list.to_string().contains("my words"));
    let one = format!("/bodies/{}", operation.id());
    let said = world.root(&format!("GET {one}"), &Value::Null).await.expect(200);
    assert_eq!(said["attempts"][0]["request"], json!(r#"{"input":"my words"}"#));
    assert_eq!(said["attempts"][0]["answer"], json!("an answer"));

    // An administrator may not, an owner may, and it is written down.
    let at = format!("organisation:{organisation}");
    let admin = world.key(&branch.project, "admin", &at).await;
    world.ask(&admin, &format!("GET {one}"), &Value::Null).await.code(403, "permission_denied");
    world.ask(&admin, "GET /bodies", &Value::Null).await.code(403, "permission_denied");
    let other = format!("GET {one}?organisation={}", own.organisation);
    world.root(&other, &Value::Null).await.code(404, "not_found");
    let audit = world.root("GET /audit?kind=admin&limit=200", &Value::Null).await.expect(200);
    assert!(audit.to_string().contains("bodies.read"));
    assert!(!audit.to_string().contains("my words"));

    world.root("DELETE /bodies", &Value::Null).await.refuses(400, "user");
    let nobody = world.root("DELETE /bodies?user=user_0", &Value::Null).await.expect(200);
    assert_eq!(nobody["erased"], json!(0));
    let erased = world.root(&format!("DELETE /bodies?user={user}"), &Value::Null).await.expect(200);
    assert_eq!(erased["erased"], json!(1));
    world.root(&format!("GET {one}"), &Value::Null).await.code(404, "not_found");
    let audit = world.root("GET /audit?kind=admin&limit=200", &Value::Null).await.expect(200);
    assert!(audit.to_string().contains("bodies.erase"));
}
