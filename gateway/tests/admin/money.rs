//! Budgets, prices, usage and the explanation of a request.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::world::{NOW, World, id, shown};

/// A team with a price sheet of a micro-dollar a token, and a key.
async fn shop(world: &World) -> (crate::world::Branch, Value) {
    let ours = world.organisation("ours").await;
    let own = world.branch(&ours, "own").await;
    let models = json!([{ "model": "*", "input": 1_000_000, "output": 1_000_000 }]);
    world.make("POST /prices", json!({ "name": "sheet", "models": models })).await;
    let key = world.make("POST /keys", json!({ "label": "ci", "project": own.project })).await;
    (own, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_shows_how_it_stands_and_is_raised() {
    let world = World::new("budget").await;
    let (own, key) = shop(&world).await;
    let made = world
        .make(
            "POST /budgets",
            json!({
        "name": "five", "scope": format!("team:{}", own.team), "time_zone": "Europe/Berlin",
        "limits": [{ "period": "day", "usd": "5", "alert_percent": [80] },
                   { "period": "total", "usd": "100", "soft": true }] }),
        )
        .await;
    world.spend(shown(&key), 1_000);
    let line = format!("/budgets/{}", id(&made));
    let shown = world.root(&format!("GET {line}"), &Value::Null).await.expect(200);
    let day = &shown["standing"][0];
    assert_eq!(day["spent_nano_usd"], json!(1_000_000));
    assert_eq!(day["left_nano_usd"], json!(5_000_000_000_i64 - 1_000_000));
    // 2026-11-01 in Berlin, where winter has begun.
    assert_eq!(
        day["window"],
        json!({ "start": 1_793_487_600_000_i64, "end": 1_793_574_000_000_i64 })
    );
    assert_eq!(shown["standing"][1]["window"], json!({ "start": null, "end": null }));
    let raise = |usd: &str| {
        json!({
        "limit": 0, "usd": usd, "until": NOW + 60_000, "reason": "a demo" })
    };
    let raised = world.root(&format!("POST {line}/raise"), &raise("2.50")).await.expect(200);
    assert_eq!(raised["standing"][0]["allowed_nano_usd"], json!(7_500_000_000_i64));
    assert_eq!(raised["limits"][0]["raises"][0]["reason"], "a demo");
    // A limit that keeps its place keeps its raises.
    let change = json!({ "limits": [{ "period": "day", "usd": "6" }], "time_zone": null });
    let changed = world.root(&format!("PATCH {line}"), &change).await.expect(200);
    assert_eq!(changed["standing"][0]["allowed_nano_usd"], json!(8_500_000_000_i64));
    world.clock.store(NOW + 60_000, Ordering::SeqCst);
    let shown = world.root(&format!("GET {line}"), &Value::Null).await.expect(200);
    assert_eq!(shown["standing"][0]["allowed_nano_usd"], json!(6_000_000_000_i64));
    assert_eq!(shown["standing"][0]["spent_nano_usd"], json!(1_000_000), "spending is kept");
    let later = |more: Value| {
        let mut body = json!({ "limit": 0, "usd": "1", "until": NOW + 90_000, "reason": "r" });
        more.as_object().expect("fields").iter().for_each(|(name, value)| {
            body[name] = value.clone();
        });
        body
    };
    for (more, param) in [
        (json!({ "limit": 1 }), "limit"),
        (json!({ "until": NOW }), "until"),
        (json!({ "reason": "" }), "reason"),
        (json!({ "usd": "-1" }), "usd"),
    ] {
        world.root(&format!("POST {line}/raise"), &later(more)).await.refuses(400, param);
    }
    // The raise that is over makes room for one of sixteen.
    for _ in 0..16 {
        world.root(&format!("POST {line}/raise"), &later(json!({}))).await.expect(200);
    }
    world.root(&format!("POST {line}/raise"), &later(json!({}))).await.code(409, "too_many_raises");
    world.root(&format!("DELETE {line}"), &Value::Null).await.expect(200);
    world.root(&format!("GET {line}"), &Value::Null).await.code(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_summed_for_those_who_may_see_it() {
    let world = World::new("usage").await;
    let (own, key) = shop(&world).await;
    let other = world.branch(&own.organisation, "other").await;
    let their = world.make("POST /keys", json!({ "label": "x", "project": other.project })).await;
    world.spend(shown(&key), 1_000);
    world.spend(shown(&key), 500);
    world.spend(shown(&their), 7);
    world.governor.flush().await;
    let range = "from=2026-11-01&to=2026-11-02";
    let line = format!("GET /usage?group_by=team,model&{range}&organisation={}", own.organisation);
    let report = world.root(&line, &Value::Null).await.expect(200);
    let rows = report["data"].as_array().expect("rows");
    assert_eq!(rows.len(), 2, "{report}");
    assert_eq!(rows[0]["about"], json!({ "team": own.team, "model": "small" }));
    assert!(rows[0]["names"]["team"].as_str().is_some_and(|name| name.starts_with("own-")));
    assert_eq!((&rows[0]["requests"], &rows[0]["input_tokens"]), (&json!(2), &json!(1500)));
    assert_eq!(
        (&rows[0]["cost_nano_usd"], &rows[0]["cost_usd"]),
        (&json!(1_500_000), &json!("0.0015"))
    );
    let csv = world.ask(&world.root, &format!("{line}&bucket=day&format=csv"), &Value::Null).await;
    assert!(csv.text.starts_with("start,team,model,requests,"), "{}", csv.text);
    assert_eq!(csv.text.lines().count(), 3);
    // A team's bookkeeper sees the team.
    let billing = world.key(&own.project, "billing", &format!("team:{}", own.team)).await;
    let mine = format!("GET /usage?{range}&team={}", own.team);
    let mine = world.ask(&billing, &mine, &Value::Null).await;
    assert_eq!(mine.expect(200)["data"][0]["input_tokens"], json!(1500));
    let theirs = format!("GET /usage?{range}&team={}", other.team);
    world.ask(&billing, &theirs, &Value::Null).await.code(404, "not_found");
    world.ask(&billing, "GET /usage", &Value::Null).await.code(403, "permission_denied");
    // Filters hold together: naming one's own place opens no other.
    let both = format!("GET /usage?{range}&team={}&project={}", own.team, other.project);
    assert_eq!(world.ask(&billing, &both, &Value::Null).await.expect(200)["data"], json!([]));
    let ledger = format!("GET /ledger?{range}&limit=1&team={}", own.team);
    let page = world.ask(&billing, &ledger, &Value::Null).await.expect(200);
    assert_eq!((&page["has_more"], &page["data"][0]["key"]), (&json!(true), &key["id"]));
    let after = page["last_id"].as_str().expect("a cursor");
    let rest =
        world.ask(&billing, &format!("{ledger}&after={after}"), &Value::Null).await.expect(200);
    assert_eq!(
        (&rest["has_more"], rest["data"].as_array().map(Vec::len)),
        (&json!(false), Some(1))
    );
    // And everybody sees their own.
    let secret = key["key"].as_str().expect("a key");
    let own_usage = world.ask(secret, &format!("GET /v1/usage?{range}"), &Value::Null).await;
    assert_eq!(own_usage.expect(200)["data"][0]["input_tokens"], json!(1500));
    for (line, param) in [
        ("GET /usage?group_by=colour", "group_by"),
        ("GET /usage?bucket=year", "bucket"),
        ("GET /usage?format=xml", "format"),
        ("GET /usage?from=2026-11-02&to=2026-11-01", "from"),
        ("GET /usage?from=5", "from"),
        ("GET /v1/usage?of=team", "of"),
    ] {
        world.root(line, &Value::Null).await.refuses(400, param);
    }
}

/// A sheet may say what a batch costs; a dry run prices what was served so by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_a_price_of_its_own() {
    let world = World::new("batch").await;
    let ours = world.organisation("ours").await;
    let own = world.branch(&ours, "own").await;
    let key = world.make("POST /keys", json!({ "label": "ci", "project": own.project })).await;
    let sheet = |batch: Value| {
        let model =
            json!({ "model": "*", "input": 1_000_000, "output": 1_000_000, "batch": batch });
        json!({ "name": world.name("sheet"), "models": [model] })
    };
    let made = world.make("POST /prices", sheet(json!({ "input": 5000, "output": 7000 }))).await;
    let line = format!("GET /prices/{}", id(&made));
    let shown = world.root(&line, &Value::Null).await.expect(200);
    assert_eq!(shown["models"][0]["batch"]["output"], json!(7000), "{shown}");
    for wrong in [json!(5), json!({ "input": 1 }), json!({ "input": 1, "output": 1, "x": 1 })] {
        assert_eq!(world.root("POST /prices", &sheet(wrong)).await.status, 400);
    }
    let dear = sheet(json!({ "input": 2_000_000_000_000_000_u64, "output": 1 }));
    world.root("POST /prices", &dear).await.refuses(400, "models[0]");
    let principal = world.governor.authenticate(Some(crate::world::shown(&key)), None);
    let principal = principal.expect("known");
    for tier in govern::ledger::ServiceTier::ALL {
        let ask = govern::Ask {
            model: "small".to_owned(),
            surface: "chat",
            input_tokens: 1000,
            choices: 1,
            service_tier: tier,
            ..govern::Ask::default()
        };
        let operation = world.governor.admit(&principal, &ask).expect("let in");
        let tokens = govern::ledger::Tokens { input: 1000, ..Default::default() };
        operation.used(tokens, govern::ledger::Outcome::Done, 0);
        drop(operation.finish());
    }
    world.governor.flush().await;
    let range = "from=2026-11-01&to=2026-11-02";
    let page = world.root(&format!("GET /ledger?{range}"), &Value::Null).await.expect(200);
    let mut lines: Vec<(&Value, &Value)> = page["data"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| (&line["service_tier"], &line["cost"]))
        .collect();
    lines.sort_by_key(|(tier, _)| tier.to_string());
    assert_eq!(lines, [(&json!("default"), &json!(1_000_000)), (&json!("flex"), &json!(5_000))]);
    // The same requests, had a batch cost twice as much.
    let change = json!({ "kind": "price", "body": { "models": [{
        "model": "*", "input": 1_000_000, "output": 0, "batch": { "input": 10_000, "output": 0 },
    }] } });
    let ask = json!({ "changes": [change], "from": "2026-11-01", "organisation": ours });
    let found = world.root("POST /policy/dry-run", &ask).await.expect(200);
    assert_eq!(found["requests"], json!(2), "{found}");
    assert_eq!(found["would_be_nano_usd"], json!(1_010_000), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_explained() {
    let world = World::new("explain").await;
    let (own, key) = shop(&world).await;
    let policy = json!({ "models": ["small-*"], "networks": ["10.0.0.0/8"] });
    let line = format!("PATCH /teams/{}", own.team);
    world.root(&line, &json!({ "policy": policy })).await.expect(200);
    for scope in [format!("team:{}", own.team), format!("organisation:{}", own.organisation)] {
        world
            .make(
                "POST /budgets",
                json!({
            "name": world.name("b"), "scope": scope,
            "limits": [{ "period": "day", "usd": "0.001" }] }),
            )
            .await;
    }
    let ask = |model: &str, source: &str, tokens: u64| {
        json!({
        "key": key["prefix"], "model": model, "source": source, "input_tokens": tokens,
        "max_tokens": 0 })
    };
    let line = "POST /policy/explain";
    let explained = world.root(line, &ask("small-1", "10.1.2.3", 1000)).await.expect(200);
    assert_eq!(
        (&explained["served"], &explained["cost_nano_usd"]),
        (&json!(true), &json!(1_000_000))
    );
    assert_eq!(explained["budgets"].as_array().map(Vec::len), Some(2));
    let broke = world.root(line, &ask("small-1", "10.1.2.3", 1001)).await.expect(200);
    assert_eq!(broke["served"], json!(false));
    let denied = world.root(line, &ask("large", "11.1.2.3", 1)).await.expect(200);
    let wrong: Vec<&Value> = denied["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .filter(|finding| finding["passed"] == json!(false))
        .map(|finding| &finding["rule"])
        .collect();
    assert_eq!(wrong, ["networks", "models"]);
    // A developer of the team is not told of the organisation's budget by name.
    let other = world.branch(&own.organisation, "other").await;
    let developer = world.key(&other.project, "developer", &format!("team:{}", own.team)).await;
    let seen = world.ask(&developer, line, &ask("small-1", "10.1.2.3", 1)).await.expect(200);
    assert_eq!(seen["budgets"].as_array().map(Vec::len), Some(1));
    assert_eq!(seen["other_budgets"], json!(1));
    let unknown = json!({ "key": "hk-none", "model": "m" });
    world.ask(&developer, line, &unknown).await.code(404, "not_found");
    world.root(&format!("POST /keys/{}/revoke", id(&key)), &json!({})).await.expect(200);
    let revoked = world.root(line, &ask("small-1", "10.1.2.3", 1)).await.expect(200);
    assert_eq!((&revoked["served"], &revoked["key"]["state"]), (&json!(false), &json!("revoked")));
}
