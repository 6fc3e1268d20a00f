//! A POST that is sent twice is done once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::world::{NOW, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_gets_the_first_answer() {
    let world = World::new("once").await;
    let ours = world.organisation("ours").await;
    let team = json!({ "name": "red", "organisation": ours });
    let post = async |body: &Value, name: &str| {
        world.ask_with(&world.root, "POST /teams", body, Some(name)).await
    };
    let first = post(&team, "a").await;
    first.expect(201);
    let again = post(&team, "a").await;
    assert_eq!((again.status, &again.text), (201, &first.text));
    post(&team, "b").await.code(409, "name_taken");
    let other = json!({ "name": "blue", "organisation": ours });
    post(&other, "a").await.code(422, "idempotency_key_reused");
    // What was refused may be sent again, put right.
    post(&other, "b").await.expect(201);
    post(&json!({}), &"x".repeat(256)).await.refuses(400, "name");
    let green = json!({ "name": "green", "organisation": ours });
    post(&green, &"x".repeat(256)).await.refuses(400, "idempotency-key");
    // A name is its caller's own.
    let own = world.branch(&ours, "own").await;
    let admin = world.key(&own.project, "admin", &format!("organisation:{ours}")).await;
    let theirs = world.ask_with(&admin, "POST /teams", &team, Some("a")).await;
    theirs.code(409, "name_taken");
    // And it is forgotten after a day.
    world.clock.store(NOW + 24 * 3_600_000, Ordering::SeqCst);
    post(&green, "a").await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_not_shown_again() {
    let world = World::new("secret").await;
    let ours = world.organisation("ours").await;
    let own = world.branch(&ours, "own").await;
    let body = json!({ "label": "ci", "project": own.project });
    let post = || world.ask_with(&world.root, "POST /keys", &body, Some("k"));
    let made = post().await.expect(201);
    let secret = made["key"].as_str().expect("a key")[16..].to_owned();
    let again = post().await;
    again.code(409, "already_made");
    assert!(!again.text.contains(&secret));
    let listed = world.root(&format!("GET /keys?project={}", own.project), &Value::Null).await;
    assert_eq!(listed.expect(200)["data"].as_array().expect("keys").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_is_done() {
    let world = Arc::new(World::new("crowd").await);
    let ours = world.organisation("ours").await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (world, body) =
                (Arc::clone(&world), json!({ "name": "one", "organisation": ours }));
            tokio::spawn(async move {
                world.ask_with(&world.root, "POST /teams", &body, Some("crowd")).await
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        let answer = task.await.expect("a task");
        match answer.status {
            201 => made += 1,
            _ => answer.code(409, "idempotency_key_in_use"),
        }
    }
    assert!(made >= 1);
    let listed = world.root(&format!("GET /teams?organisation={ours}"), &Value::Null).await;
    assert_eq!(listed.expect(200)["data"].as_array().expect("teams").len(), 1);
}
