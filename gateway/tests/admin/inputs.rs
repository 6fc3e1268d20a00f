//! What is refused, by the name of its field; and texts that come back as they were.

use serde_json::{Value, json};

use crate::world::{NOW, World, id};

const NASTY: [&str; 7] = [
    "'; DROP TABLE documents; --",
    "\" OR 1=1 --",
    "Robert'); DELETE FROM audit WHERE ('1'='1",
    "$1 ?1 :name %s %00 \\0",
    "<script>alert(1)</script>",
    "Ünïcödé 😀 \u{202e}",
    "{\"$ne\": null}",
];

#[tokio::test(flavor = "multi_thread")]
async fn statements_in_texts_are_texts() {
    let world = World::new("sql").await;
    let ours = world.organisation("ours").await;
    let own = world.branch(&ours, "own").await;
    for text in NASTY {
        let same = async |line: &str, body: Value, fields: &[&str]| {
            let made = world.make(line, body).await;
            let kind = line.split('/').next_back().expect("a kind");
            let found = world.root(&format!("GET /{kind}/{}", id(&made)), &Value::Null).await;
            let found = found.expect(200);
            for field in fields {
                assert_eq!(found[*field], text, "{line} {field}");
            }
            let records = world.root("GET /audit?limit=1", &Value::Null).await.expect(200);
            let body = records["data"][0]["body"].as_str().expect("a text").to_owned();
            let body: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(body["after"][fields[0]], text);
        };
        same("POST /organisations", json!({ "name": text }), &["name"]).await;
        same("POST /teams", json!({ "name": text, "organisation": ours }), &["name"]).await;
        same("POST /projects", json!({ "name": text, "team": own.team }), &["name"]).await;
        let user =
            json!({ "email": text, "name": text, "external_id": text, "organisation": ours });
        same("POST /users", user, &["email", "name", "external_id"]).await;
        let role = json!({ "name": text, "organisation": ours, "permissions": [] });
        same("POST /roles", role, &["name"]).await;
        let key = json!({ "label": text, "project": own.project, "metadata": { text: text } });
        same("POST /keys", key, &["label"]).await;
        let budget = json!({
            "name": text, "scope": format!("team:{}", own.team),
            "limits": [{ "period": "day", "nano_usd": 1 }] });
        same("POST /budgets", budget, &["name"]).await;
        same("POST /prices", json!({ "name": text, "models": [] }), &["name"]).await;
        // Where they are looked for, too.
        let coded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for kind in ["teams", "keys", "budgets", "users"] {
            let found = world.root(&format!("GET /{kind}?name={coded}"), &Value::Null).await;
            assert_eq!(found.expect(200)["data"].as_array().expect("things").len(), 1, "{kind}");
        }
        for line in ["usage?team", "ledger?model", "audit?kind"] {
            let found = world.root(&format!("GET /{line}={coded}"), &Value::Null).await;
            assert!([200, 404].contains(&found.status), "{line}: {}", found.text);
        }
        let found = world.root(&format!("GET /teams/{coded}"), &Value::Null).await;
        found.code(404, "not_found");
    }
    let verified = world.root("GET /audit/verify", &Value::Null).await.expect(200);
    assert!(verified.get("summary").is_some(), "{verified}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_the_tree_is_named() {
    let world = World::new("wrong-tree").await;
    let ours = world.organisation("ours").await;
    let own = world.branch(&ours, "own").await;
    let (at, long) = (json!(ours), "x".repeat(129));
    for (line, body, param) in [
        ("POST /teams", json!({ "name": "", "organisation": at }), "name"),
        ("POST /teams", json!({ "name": "  ", "organisation": at }), "name"),
        ("POST /teams", json!({ "name": long, "organisation": at }), "name"),
        ("POST /teams", json!({ "name": "a\nb", "organisation": at }), "name"),
        ("POST /teams", json!({ "name": "a\u{0}b", "organisation": at }), "name"),
        ("POST /teams", json!({ "name": 5, "organisation": at }), "name"),
        ("POST /teams", json!({ "name": "a", "organisation": at, "colour": "red" }), "colour"),
        ("POST /teams", json!({ "name": "a", "policy": { "modells": [] } }), "policy.modells"),
        (
            "POST /teams",
            json!({ "name": "a", "policy": { "networks": ["10.0.0.1/8"] } }),
            "policy.networks[0]",
        ),
        ("POST /projects", json!({ "name": "a" }), "team"),
        ("POST /organisations", json!({ "name": "a", "time_zone": "Mars/Base" }), "time_zone"),
        (
            "POST /prices",
            json!({ "name": "p", "models": [{ "model": "", "input": 1, "output": 1 }] }),
            "models[0]",
        ),
        (
            "POST /prices",
            json!({ "name": "p", "models": [{ "model": "m", "input": -1, "output": 1 }] }),
            "models[0]",
        ),
        (
            "POST /prices",
            json!({ "name": "p", "models": [], "effective_from": NOW - 1 }),
            "effective_from",
        ),
        (
            "POST /budgets",
            json!({ "name": "b", "scope": format!("team:{}", own.team), "limits": [] }),
            "limits",
        ),
        (
            "POST /roles",
            json!({ "name": "r", "organisation": at, "permissions": ["all"] }),
            "permissions[0]",
        ),
        ("POST /policy/explain", json!({ "key": "k", "model": "m", "tokens": 5 }), "tokens"),
        (
            "POST /prices",
            json!({ "name": "p", "models": [{ "model": "m", "input": 1, "output": 1, "tax": 1 }] }),
            "models[0].tax",
        ),
    ] {
        world.root(line, &body).await.refuses(400, param);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_a_key_is_named() {
    let world = World::new("wrong").await;
    let ours = world.organisation("ours").await;
    let own = world.branch(&ours, "own").await;
    let at = json!(ours);
    let pairs: serde_json::Map<String, Value> =
        (0..17).map(|at| (format!("k{at}"), json!("v"))).collect();
    let key = |more: Value| {
        let mut body = json!({ "label": "k", "project": own.project });
        more.as_object().expect("fields").iter().for_each(|(name, value)| {
            body[name] = value.clone();
        });
        body
    };
    for (line, body, param) in [
        ("POST /keys", key(json!({ "metadata": pairs })), "metadata"),
        ("POST /keys", key(json!({ "metadata": { "": "v" } })), "metadata"),
        ("POST /keys", key(json!({ "metadata": { "k": "v".repeat(513) } })), "metadata"),
        ("POST /keys", key(json!({ "expires_at": NOW })), "expires_at"),
        ("POST /keys", key(json!({ "expires_at": i64::MAX })), "expires_at"),
        ("POST /keys", key(json!({ "organisation": at })), "organisation"),
        ("POST /keys", key(json!({ "user": "user_1" })), "user"),
        (
            "POST /keys",
            key(json!({ "grants": [{ "role": "owner", "scope": "teams:x" }] })),
            "grants[0].scope",
        ),
        (
            "POST /keys",
            key(json!({ "grants": [{ "role": "king", "scope": "everything" }] })),
            "grants",
        ),
        ("POST /keys", key(json!({ "hash": "00" })), "hash"),
    ] {
        let answer = world.root(line, &body).await;
        let status = if param == "grants" { 403 } else { 400 };
        answer.refuses(status, param);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_document_is_refused() {
    let world = World::new("bodies").await;
    for wrong in ["", "[]", "{", "{} {}", "null", "{\"name\":\"a\",\"name\":\"b\"}"] {
        let request = axum::http::Request::post("/admin/v1/teams")
            .header("authorization", format!("Bearer {}", world.root))
            .body(axum::body::Body::from(wrong))
            .expect("a request");
        let answer = world.send(request).await;
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text);
    }
    let form = axum::http::Request::post("/admin/v1/teams")
        .header("authorization", format!("Bearer {}", world.root))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(axum::body::Body::from("{\"name\":\"a\"}"))
        .expect("a request");
    world.send(form).await.code(400, "unsupported_content_type");
    let large = json!({ "name": "x".repeat(3 << 20) });
    assert_eq!(world.root("POST /teams", &large).await.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_are_exact_or_refused_by_name() {
    let world = World::new("amounts").await;
    let ours = world.organisation("ours").await;
    let scope = format!("organisation:{ours}");
    let budget = |limit: Value| {
        let name = world.name("b");
        json!({ "name": name, "scope": scope, "limits": [{ "period": "day", "usd": "1" }, limit] })
    };
    for (limit, nano) in [
        (json!({ "period": "month", "usd": "5.00" }), 5_000_000_000_i64),
        (json!({ "period": "month", "usd": "0.000000001" }), 1),
        (json!({ "period": "total", "nano_usd": i64::MAX }), i64::MAX),
        (json!({ "period": "total", "nano_usd": 0 }), 0),
    ] {
        let made = world.make("POST /budgets", budget(limit)).await;
        assert_eq!(made["limits"][1]["nano_usd"], json!(nano));
    }
    for (limit, param) in [
        (json!({ "period": "day", "nano_usd": -1 }), "limits[1].nano_usd"),
        (json!({ "period": "day", "nano_usd": 1.5 }), "limits[1].nano_usd"),
        (json!({ "period": "day", "nano_usd": u64::MAX }), "limits[1].nano_usd"),
        (json!({ "period": "day", "nano_usd": "1" }), "limits[1].nano_usd"),
        (json!({ "period": "day", "usd": 5 }), "limits[1].usd"),
        (json!({ "period": "day", "usd": "-5" }), "limits[1].usd"),
        (json!({ "period": "day", "usd": "9223372036.854775808" }), "limits[1].usd"),
        (json!({ "period": "day", "usd": "1", "nano_usd": 1 }), "limits[1].usd"),
        (json!({ "period": "day" }), "limits[1].usd"),
        (json!({ "period": "year", "usd": "1" }), "limits[1].period"),
        (json!({ "period": "day", "usd": "1", "alert_percent": [0] }), "limits[1].alert_percent"),
    ] {
        world.root("POST /budgets", &budget(limit)).await.refuses(400, param);
    }
}
