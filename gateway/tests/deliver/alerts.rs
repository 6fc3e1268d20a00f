//! Alerts by webhook: through every kind of failure, over restarts, once.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use gateway::deliver::settings::Settings;
use serde_json::Value;

use super::receiver::{Asked, Does, Receiver};
use super::world::{Folder, World, pace, until, webhook};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn settings(url: &str) -> Settings {
    Settings { webhooks: vec![webhook(url, Some(SECRET))], pace: pace(), ..Settings::default() }
}

/// The signature that the standard asks for.
#[track_caller]
fn check_signature(asked: &Asked) {
    let key = BASE64_STANDARD.decode(&SECRET["whsec_".len()..]).expect("base64");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    let (id, time) = (asked.header("webhook-id"), asked.header("webhook-timestamp"));
    let tag = ring::hmac::sign(&key, format!("{id}.{time}.{}", asked.body).as_bytes());
    let expect = format!("v1,{}", BASE64_STANDARD.encode(tag));
    assert_eq!(asked.header("webhook-signature"), expect, "{asked:?}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    let age = now.as_secs().abs_diff(time.parse().expect("seconds"));
    assert!(age < 30, "{age} s old");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_gets_through_and_is_one() {
    let folder = Folder::new();
    let world = World::new(&folder).await;
    world.budget("research", 100).await;
    let elsewhere = Receiver::new(&[]);
    let receiver = Receiver::new(&[
        Does::Answers(500),
        Does::Redirects(elsewhere.port),
        Does::Resets,
        Does::Answers(429),
        Does::Answers(404),
    ]);
    let deliver = world.deliver(settings(&receiver.url()));
    world.ask(60);
    receiver.wait("taken", |asked| asked.iter().any(|asked| asked.met == Does::Answers(200)));
    until("nothing waits", async || world.metric("hearth_alerts_waiting") == 0).await;
    let asked = receiver.asked();
    assert_eq!(asked.len(), 6, "{asked:#?}");
    assert!(elsewhere.asked().is_empty(), "a redirect was followed");
    let body: Value = serde_json::from_str(&asked[0].body).expect("JSON");
    assert_eq!(
        (&body["kind"], &body["budget"]["spent_usd"]),
        (&"budget_share".into(), &"0.00006".into())
    );
    for one in &asked {
        assert_eq!((one.line.as_str(), &one.body), ("POST /take HTTP/1.1", &asked[0].body));
        assert_eq!(one.header("webhook-id"), body["id"]);
        assert_eq!(one.header("content-type"), "application/json");
        check_signature(one);
    }
    assert_eq!(world.metric("hearth_alerts_delivered_total"), 1);
    assert_eq!(world.metric("hearth_delivery_failures_total"), 5);

    // What was told stays told, in this process and in the next one.
    world.ask(1);
    deliver.finish(std::time::Duration::from_secs(5)).await;
    world.governor.flush().await;
    drop(world);
    let world = World::new(&folder).await;
    let deliver = world.deliver(settings(&receiver.url()));
    world.ask(1);
    world.ask(50);
    receiver.wait("the limit itself", |asked| asked.len() == 7);
    let last: Value = serde_json::from_str(&receiver.asked()[6].body).expect("JSON");
    assert_eq!(last["kind"], "budget_soft_limit");
    deliver.finish(std::time::Duration::from_secs(5)).await;
    assert_eq!(receiver.asked().len(), 7);
}

/// A receiver that is away while the process ends gets the alert from the next one.
#[tokio::test(flavor = "multi_thread")]
async fn an_alert_survives_its_process() {
    let folder = Folder::new();
    let nobody = "http://127.0.0.1:9/take";
    {
        let world = World::new(&folder).await;
        world.budget("research", 100).await;
        let deliver = world.deliver(settings(nobody));
        world.ask(60);
        until("it is tried", async || world.metric("hearth_delivery_failures_total") > 1).await;
        assert_eq!(world.metric("hearth_alerts_waiting"), 1);
        drop(deliver);
        world.governor.flush().await;
    }
    // The same place, where somebody listens now: a listener on that port would need luck, so the
    // address in the database is moved instead.
    let receiver = Receiver::new(&[]);
    let world = World::new(&folder).await;
    let name = |url: &str| format!("webhook:{}", &gateway::sigv4::hash(url.as_bytes())[..8]);
    let moved = sqlx::query("UPDATE deliveries SET channel = $1 WHERE channel = $2")
        .bind(name(&receiver.url()))
        .bind(name(nobody))
        .execute(world.governor.store().write());
    assert_eq!(moved.await.expect("moved").rows_affected(), 1);
    let _deliver = world.deliver(settings(&receiver.url()));
    let asked = receiver.wait("taken", |asked| asked.len() == 1);
    check_signature(&asked[0]);
}

/// One that takes the request and says nothing holds up nobody else, and is given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_stalls_is_tried_again() {
    let folder = Folder::new();
    let world = World::new(&folder).await;
    world.budget("research", 100).await;
    let (stalls, takes) = (Receiver::new(&[Does::Stalls]), Receiver::new(&[]));
    let settings = Settings {
        webhooks: vec![webhook(&stalls.url(), None), webhook(&takes.url(), None)],
        pace: pace(),
        ..Settings::default()
    };
    let _deliver = world.deliver(settings);
    world.ask(60);
    let begun = std::time::Instant::now();
    let asked = takes.wait("taken by the other", |asked| asked.len() == 1);
    assert!(begun.elapsed().as_secs() < 5);
    assert_eq!(asked[0].header("webhook-signature"), "");
    let asked = stalls.wait("a second try", |asked| asked.len() == 2);
    assert!((9..13).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(asked[0].header("webhook-id"), asked[1].header("webhook-id"));
}
