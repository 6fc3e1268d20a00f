//! Who may in, which models are the same, and how nodes are found.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use axum::http::header::AUTHORIZATION;
use gateway::cluster::protocol::{GENERATE, JOIN, MODEL, STATE};
use gateway::cluster::{Dialer, join, protocol};
use serde_json::json;

use crate::client::{get, post, send};
use crate::fake::Setup;
use crate::kit::{Gateway, Site, TOKEN, ask, chat, endpoint, listen, until};

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_nothing_is_told_and_nothing_is_made() {
    let site = Site::start(Setup::default()).await;
    let model = format!("{MODEL}org/fake");
    for shown in
        [None, Some("the-token-of-this-cluste"), Some("the-token-of-another-one"), Some("")]
    {
        for (method, path) in
            [("GET", STATE), ("GET", &model), ("POST", GENERATE), ("GET", "/metrics")]
        {
            let mut request = Request::builder().method(method).uri(path);
            if let Some(token) = shown {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let answer = send(&site.router, request.body(Body::empty()).expect("a request")).await;
            assert_eq!(answer.status, 401, "{path} {shown:?}: {}", answer.body);
        }
    }
    assert_eq!(get(&site.router, "/health").await.status, 200);
    assert_eq!(get(&site.router, "/ready").await.status, 200);
    // Callers' routes are not there, whoever asks.
    let request =
        Request::post("/v1/chat/completions").header(AUTHORIZATION, format!("Bearer {TOKEN}"));
    let request = request.body(chat(&json!({})).to_string().into()).expect("a request");
    assert_eq!(send(&site.router, request).await.status, 404);
    let gateway = Gateway::showing("the-token-of-another-one", &[site.wire.address]);
    until("it has tried", || site.wire.opened() > 2).await;
    assert_eq!((gateway.up(), gateway.models.list().len()), (0, 0));
    assert_eq!(get(&gateway.router, "/ready").await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_of_the_same_name_gets_nothing_until_it_is_the_only_one() {
    let one = Site::with_weights(Setup::default(), "weights").await;
    let gateway = Gateway::of(&[&one]).await;
    let other = Site::with_weights(Setup { speech: "two", ..Setup::default() }, "tuned").await;
    let dialer = Dialer::new(Some(TOKEN), None, None).expect("a dialer");
    let address = listen(gateway.router.clone()).await;
    let named = protocol::Join { host: None, port: other.wire.address.port(), tls: false };
    let naming = tokio::spawn(join(dialer, endpoint(address), named));
    gateway.nodes(2).await;
    let refused = format!(
        "hearth_cluster_model_refused{{model=\"org/fake\",node=\"{}\"}}",
        other.wire.address
    );
    until("it is refused", || gateway.figure(&refused) > 0.5).await;
    for _ in 0..8 {
        let answer = ask(&gateway.router, &chat(&json!({}))).await.json();
        assert!(
            answer["choices"][0]["message"]["content"].as_str().expect("text").starts_with("Hello")
        );
    }
    // A cluster that is renewed node by node ends with the new model.
    one.wire.kill(true);
    until("the other one is taken in", || gateway.figure(&refused) < 0.5).await;
    let answer = ask(&gateway.router, &chat(&json!({}))).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "two");
    naming.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_names_itself_is_in_as_long_as_it_does() {
    let site = Site::start(Setup::default()).await;
    let gateway = Gateway::start(&[]);
    let address = listen(gateway.router.clone()).await;
    let named = protocol::Join { host: None, port: site.wire.address.port(), tls: false };
    for (token, expect) in [(None, 401), (Some("the-token-of-another-one"), 401)] {
        let mut request = Request::post(JOIN);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = serde_json::to_string(&named).expect("JSON");
        let answer = send(&gateway.router, request.body(body.into()).expect("a request")).await;
        assert_eq!(answer.status, expect, "{}", answer.body);
    }
    for wrong in [
        "",
        "{}",
        "{\"host\":\"a b\",\"port\":1,\"tls\":false}",
        "{\"host\":null,\"port\":0,\"tls\":false}",
        "{\"host\":\"127.0.0.1\",\"port\":1,\"tls\":false,\"more\":1}",
    ] {
        let request = Request::post(JOIN).header(AUTHORIZATION, format!("Bearer {TOKEN}"));
        let answer = send(&gateway.router, request.body(wrong.into()).expect("a request")).await;
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.body);
    }
    let dialer = Dialer::new(Some(TOKEN), None, None).expect("a dialer");
    let naming = tokio::spawn(join(dialer, endpoint(address), named));
    gateway.model("org/fake").await;
    ask(&gateway.router, &chat(&json!({}))).await;
    // It is silent, and still speaks: it stays. When it speaks no more, it is forgotten.
    naming.abort();
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    ask(&gateway.router, &chat(&json!({}))).await;
    site.wire.kill(true);
    let begun = Instant::now();
    let series = "hearth_cluster_node_up";
    until("it is forgotten", || !gateway.metrics.render().contains(series)).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_stands_for_all_of_its_addresses() {
    use gateway::cluster::{Fleet, Kubernetes, Sources};
    let site = Site::start(Setup::default()).await;
    let name = format!("http://localhost:{}", site.wire.address.port());
    let (models, metrics) = (gateway::models::Models::new(), gateway::metrics::Metrics::new());
    let sources = Sources {
        nodes: Vec::new(),
        names: vec![name.parse().expect("an endpoint")].into(),
        kubernetes: Kubernetes::default(),
        dialer: Dialer::new(Some(TOKEN), None, None).expect("a dialer"),
        door: None,
        request_timeout: None,
    };
    let fleet = Fleet::start(sources, &models, &metrics);
    until("it is found", || models.get("org/fake").is_some()).await;
    // Without a token to compare with nobody names himself.
    assert_eq!(post(&fleet.router(), JOIN, "{}").await.status, 403);
}
