//! From where a request comes when a proxy stands between.

use serde_json::json;

use super::house::{House, status};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_of_keys_see_the_client_behind_the_proxy() {
    let trusting = House::start(&["--trusted-proxies", "127.0.0.0/8"], |_, _| {});
    let wary = House::start(&["--trusted-proxies", "192.0.2.0/24"], |_, _| {});
    for (house, expect) in [(&trusting, 200), (&wary, 403)] {
        let client = house.client(None).build().expect("a client");
        let body = json!({ "label": "x", "policy": { "networks": ["198.51.100.0/24"] } });
        let (made, key) = house.make(&client, "/keys", &body).await;
        assert_eq!(made, 201, "{key}");
        let bearer = format!("Bearer {}", key["key"].as_str().expect("a key"));
        let url = format!("{}/v1/models", house.url);
        let from = |name: &'static str, value: &'static str| {
            let headers = [("authorization", bearer.clone()), (name, value.to_owned())];
            let (client, url) = (client.clone(), url.clone());
            async move {
                let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
                status(&client, &url, &headers).await
            }
        };
        assert_eq!(from("x-forwarded-for", "198.51.100.7").await, expect);
        assert_eq!(from("forwarded", "for=198.51.100.7;proto=https").await, expect);
        // What the client wrote before the proxy did counts nowhere.
        assert_eq!(from("x-forwarded-for", "198.51.100.7, 203.0.113.9").await, 403);
        assert_eq!(from("x-real-ip", "198.51.100.7").await, 403);
    }
    let client = trusting.client(None).build().expect("a client");
    let url = format!("{}/health", trusting.url);
    assert_eq!(status(&client, &url, &[("x-forwarded-for", "unknown")]).await, 400);
    // The audit names the client and not the proxy.
    let ask = client
        .post(format!("{}/admin/v1/teams", trusting.url))
        .bearer_auth(&trusting.key)
        .header("x-forwarded-for", "203.0.113.77")
        .json(&json!({ "name": "seen" }));
    assert_eq!(ask.send().await.expect("an answer").status(), 201);
    let lines = client
        .get(format!("{}/admin/v1/audit", trusting.url))
        .bearer_auth(&trusting.key)
        .send()
        .await
        .expect("an answer");
    let lines = lines.text().await.expect("a text");
    assert!(lines.contains("203.0.113.77"), "{lines}");
}
