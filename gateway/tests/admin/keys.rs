//! Keys: shown once, changed, rotated, revoked.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::world::{NOW, World, id};

async fn works(world: &World, key: &str) -> bool {
    world.ask(key, "GET /v1/usage", &Value::Null).await.status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once() {
    let world = World::new("key").await;
    let ours = world.organisation("ours").await;
    let own = world.branch(&ours, "own").await;
    let made = world
        .make(
            "POST /keys",
            json!({
        "label": "ci", "project": own.project, "expires_at": NOW + 1000,
        "metadata": { "ticket": "42" }, "policy": { "max_tokens": 5 } }),
        )
        .await;
    let secret = made["key"].as_str().expect("a key").to_owned();
    assert!(secret.starts_with(made["prefix"].as_str().expect("a prefix")));
    assert!(works(&world, &secret).await);
    let line = format!("/keys/{}", id(&made));
    let shown = world.root(&format!("GET {line}"), &Value::Null).await;
    assert!(!shown.text.contains(&secret[16..]) && !shown.text.contains("hash"), "{}", shown.text);
    let shown = shown.expect(200);
    assert_eq!(shown["metadata"], json!({ "ticket": "42" }));
    assert_eq!(shown["organisation"], json!(ours));
    let changed = world.root(&format!("PATCH {line}"), &json!({ "expires_at": null })).await;
    assert_eq!(changed.expect(200)["expires_at"], Value::Null);
    world.clock.store(NOW + 2000, Ordering::SeqCst);
    assert!(works(&world, &secret).await);
    let change = json!({ "expires_at": NOW + 3000 });
    world.root(&format!("PATCH {line}"), &change).await.expect(200);
    world.clock.store(NOW + 3000, Ordering::SeqCst);
    assert!(!works(&world, &secret).await, "expired to the millisecond");
    let past = json!({ "expires_at": NOW });
    world.root(&format!("PATCH {line}"), &past).await.refuses(400, "expires_at");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_works_for_the_overlap_and_a_revoked_one_not_at_all() {
    let world = World::new("rotate").await;
    let ours = world.organisation("ours").await;
    let own = world.branch(&ours, "own").await;
    let made = world.make("POST /keys", json!({ "label": "ci", "project": own.project })).await;
    let old = made["key"].as_str().expect("a key");
    let line = |verb: &str| format!("POST /keys/{}/{verb}", id(&made));
    let overlap = json!({ "overlap_seconds": 60 });
    let new = world.root(&line("rotate"), &overlap).await.expect(201);
    assert_eq!((&new["replaces"], &new["label"]), (&made["id"], &json!("ci")));
    let secret = new["key"].as_str().expect("a key");
    assert_ne!(old, secret);
    assert!(works(&world, old).await && works(&world, secret).await);
    world.clock.store(NOW + 59_999, Ordering::SeqCst);
    assert!(works(&world, old).await);
    world.clock.store(NOW + 60_000, Ordering::SeqCst);
    assert!(!works(&world, old).await && works(&world, secret).await);
    world.root(&line("rotate"), &overlap).await.code(409, "key_revoked");
    world
        .root(&line("rotate"), &json!({ "overlap_seconds": -1 }))
        .await
        .refuses(400, "overlap_seconds");
    // At once, also for the key that does it.
    let revoke = format!("POST /keys/{}/revoke", id(&new));
    let revoked = world.root(&revoke, &Value::Null).await.expect(200);
    assert!(!works(&world, secret).await);
    world.clock.store(NOW + 90_000, Ordering::SeqCst);
    let again = world.root(&revoke, &Value::Null).await.expect(200);
    assert_eq!(again["revoked_at"], revoked["revoked_at"], "the first time stays");
    let line = format!("PATCH /keys/{}", id(&new));
    world.root(&line, &json!({ "label": "x" })).await.code(409, "key_revoked");
    let admin = world.key(&own.project, "admin", &format!("team:{}", own.team)).await;
    let list = format!("GET /keys?prefix={}", &admin[..15]);
    let itself = world.ask(&admin, &list, &Value::Null).await.expect(200)["data"][0].clone();
    world
        .ask(&admin, &format!("POST /keys/{}/revoke", id(&itself)), &Value::Null)
        .await
        .expect(200);
    world.ask(&admin, "GET /keys", &Value::Null).await.code(401, "key_revoked");
}
