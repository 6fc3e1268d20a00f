//! Certificates of clients: who must show one, and whose key it stands for.

use reqwest::Client;
use serde_json::{Value, json};

use super::authority::{Authority, Pair, put};
use super::house::{House, status};

const TLS: [&str; 6] =
    ["--tls-cert", "{}/cert.pem", "--tls-key", "{}/key.pem", "--tls-client-ca", "{}/ca.pem"];

fn house(more: &[&str]) -> House {
    let options: Vec<&str> = TLS.iter().chain(more).copied().collect();
    House::start(&options, |folder, authority| {
        put(&folder.0, "revoked.pem", &authority.revoke(&[66], 2100));
    })
}

fn showing(house: &House, pair: Option<&Pair>) -> Client {
    house.client(pair).build().expect("a client")
}

/// Makes a key in the first project.
async fn key(house: &House, root: &Client, more: Value) -> Value {
    let url = format!("{}/admin/v1/projects", house.url);
    let projects: Value = async {
        let answer = root.get(url).bearer_auth(&house.key).send().await.expect("an answer");
        answer.json().await.expect("JSON")
    }
    .await;
    let mut body = json!({ "label": "service", "project": projects["data"][0]["id"] });
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    let (status, made) = house.make(root, "/keys", &body).await;
    assert_eq!(status, 201, "{made}");
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_must_show_one() {
    let house = house(&["--tls-client", "required", "--tls-client-crl", "{}/revoked.pem"]);
    let health = format!("{}/health", house.url);
    let good = house.authority.issue(5, &["uri:spiffe://example.org/ci"]);
    let revoked = house.authority.issue(66, &["uri:spiffe://example.org/ci"]);
    let foreign = Authority::new("house").issue(5, &["uri:spiffe://example.org/ci"]);
    assert_eq!(status(&showing(&house, Some(&good)), &health, &[]).await, 200);
    assert_eq!(status(&showing(&house, None), &health, &[]).await, 0);
    assert_eq!(status(&showing(&house, Some(&revoked)), &health, &[]).await, 0);
    assert_eq!(status(&showing(&house, Some(&foreign)), &health, &[]).await, 0);
    // The next list counts for connections to come.
    put(&house.folder.0, "revoked.pem", &house.authority.revoke(&[66, 5], 2100));
    house.hang_up();
    house.says("new TLS files are in use", 1).await;
    assert_eq!(status(&showing(&house, Some(&good)), &health, &[]).await, 0);
    // One that is out of date says nothing of anybody.
    put(&house.folder.0, "revoked.pem", &house.authority.revoke(&[], 2025));
    house.hang_up();
    house.says("new TLS files are in use", 2).await;
    let other = house.authority.issue(9, &["uri:spiffe://example.org/ci"]);
    assert_eq!(status(&showing(&house, Some(&other)), &health, &[]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_stands_for_its_key() {
    let house = house(&["--tls-client", "optional"]);
    let models = format!("{}/v1/models", house.url);
    let root = showing(&house, None);
    assert_eq!(status(&root, &models, &[]).await, 401, "nothing is shown");
    let pair =
        house.authority.issue(5, &["uri:spiffe://example.org/ns/ci/sa/bot", "dns:Bot.example.org"]);
    let bot = showing(&house, Some(&pair));
    assert_eq!(status(&bot, &models, &[]).await, 401, "no key is for it");
    let made = key(&house, &root, json!({ "certificate": "uri:spiffe://example.org/ns/*/sa/bot" }));
    let made = made.await;
    assert_eq!(made["key"], Value::Null, "nobody is shown its secret");
    assert_eq!(status(&bot, &models, &[]).await, 200);
    // Browsers show certificates by themselves, for whatever page; and what is shown counts.
    assert_eq!(status(&bot, &models, &[("origin", "https://evil.example")]).await, 401);
    assert_eq!(status(&bot, &models, &[("authorization", "Bearer hk-wrong")]).await, 401);
    let bearer = format!("Bearer {}", house.key);
    assert_eq!(status(&bot, &models, &[("authorization", &bearer)]).await, 200);
    // A proxy's header is no certificate.
    let forged = [("x-forwarded-client-cert", "URI=spiffe://example.org/ns/ci/sa/bot")];
    assert_eq!(status(&root, &models, &forged).await, 401);
    // One that names it exactly counts first; two patterns are one too many.
    let exact = key(
        &house,
        &root,
        json!({ "certificate": "dns:bot.example.org", "policy": {
        "networks": ["192.0.2.0/24"] } }),
    );
    let exact = exact.await;
    assert_eq!(status(&bot, &models, &[]).await, 403, "the exact key's networks");
    let revoke = format!("/keys/{}/revoke", exact["id"].as_str().expect("an id"));
    assert_eq!(house.make(&root, &revoke, &json!({})).await.0, 200);
    assert_eq!(status(&bot, &models, &[]).await, 200);
    let second = key(&house, &root, json!({ "certificate": "dns:*.example.org" })).await;
    assert_eq!(status(&bot, &models, &[]).await, 401, "several keys");
    let revoke = format!("/keys/{}/revoke", second["id"].as_str().expect("an id"));
    assert_eq!(house.make(&root, &revoke, &json!({})).await.0, 200);
    // Revoked, it is out at the next request of the same connection.
    assert_eq!(status(&bot, &models, &[]).await, 200);
    let id = made["id"].as_str().expect("an id");
    let rotate = house.make(&root, &format!("/keys/{id}/rotate"), &json!({})).await;
    assert_eq!(rotate.0, 409, "there is no secret to change: {}", rotate.1);
    assert_eq!(house.make(&root, &format!("/keys/{id}/revoke"), &json!({})).await.0, 200);
    assert_eq!(status(&bot, &models, &[]).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_named_by_those_alone_who_run_the_deployment() {
    let house = house(&["--tls-client", "optional"]);
    let root = showing(&house, None);
    for wrong in ["", "uri:", "uri:*", "cn:bot", "dns:Bot.example.org", "uri:a b"] {
        let body = json!({ "label": "x", "certificate": wrong });
        let (status, said) = house.make(&root, "/keys", &body).await;
        assert_eq!((status, &said["error"]["param"]), (400, &json!("certificate")), "{wrong}");
    }
    key(&house, &root, json!({ "certificate": "dns:a.example.org" })).await;
    let twice = json!({ "label": "x", "certificate": "dns:a.example.org" });
    assert_eq!(house.make(&root, "/keys", &twice).await.0, 409);
    // An organisation's own owner may not.
    let (_, other) = house.make(&root, "/organisations", &json!({ "name": "other" })).await;
    let scope = format!("organisation:{}", other["id"].as_str().expect("an id"));
    let body = json!({ "label": "boss", "organisation": other["id"],
        "grants": [{ "role": "owner", "scope": scope }] });
    let (status, boss) = house.make(&root, "/keys", &body).await;
    assert_eq!(status, 201, "{boss}");
    let answer = root
        .post(format!("{}/admin/v1/keys", house.url))
        .bearer_auth(boss["key"].as_str().expect("a key"))
        .json(&json!({ "label": "x", "certificate": "dns:*.example.org" }))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 403);
}
