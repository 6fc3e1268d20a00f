//! Where requests go: to the node that holds their beginning, and spread where none does; and what
//! the choice costs.

use std::collections::HashMap;
use std::time::Duration;

use axum::Router;
use serde_json::{Value, json};

use crate::client::post;
use crate::fake::Setup;
use crate::kit::{Gateway, Site, ask, chat};

async fn node(router: &Router, text: &str) -> String {
    let body = chat(&json!({"messages": [{"role": "user", "content": text}], "max_tokens": 2}));
    let answer = ask(router, &body).await;
    let route = answer.headers["x-hearth-route"].to_str().expect("text").to_owned();
    let node = route.split("; ").find_map(|part| part.strip_prefix("node="));
    node.expect("a node").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_where_its_beginning_is_held() {
    let setup = || Setup { pace: Duration::from_millis(1), ..Setup::default() };
    let sites =
        [Site::start(setup()).await, Site::start(setup()).await, Site::start(setup()).await];
    let gateway = Gateway::of(&[&sites[0], &sites[1], &sites[2]]).await;
    let mut homes = HashMap::new();
    let begin = |talk: usize| format!("{talk} speaks: ").repeat(60);
    for talk in 0..12 {
        homes.insert(talk, node(&gateway.router, &begin(talk)).await);
    }
    let used: std::collections::HashSet<_> = homes.values().collect();
    assert!(used.len() > 1, "new conversations are spread: {homes:?}");
    // State is told within 100 ms.
    tokio::time::sleep(Duration::from_millis(400)).await;
    for turn in 0..3 {
        for talk in 0..12 {
            let text = format!("{}{}", begin(talk), "and more ".repeat(turn));
            assert_eq!(
                &node(&gateway.router, &text).await,
                &homes[&talk],
                "talk {talk}, turn {turn}"
            );
        }
    }
    let body = chat(&json!({"messages": [{"role": "user", "content": begin(3)}], "max_tokens": 2}));
    let answer = ask(&gateway.router, &body).await;
    let cached = &answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"];
    assert!(cached.as_u64().expect("a number") > 300, "{cached}");
}

/// The same before anybody is asked: all nodes with their numbers, and the one that it would be.
#[tokio::test(flavor = "multi_thread")]
async fn the_choice_is_told_before_it_is_made() {
    let sites = [Site::start(Setup::default()).await, Site::start(Setup::default()).await];
    let gateway = Gateway::of(&[&sites[0], &sites[1]]).await;
    let text = "it speaks: ".repeat(60);
    let body = json!({"messages": [{"role": "user", "content": text}], "max_tokens": 2});
    let told = async || {
        let answer = post(&gateway.router, "/v1/route/explain", chat(&body).to_string()).await;
        let told = answer.json();
        let nodes = told["nodes"].as_array().unwrap_or_else(|| panic!("{told}")).clone();
        assert_eq!((nodes.len(), &told["prompt_unread"]), (2, &Value::Null), "{told}");
        nodes
    };
    assert!(told().await.iter().all(|one| one["held_tokens"] == 0));
    let home = node(&gateway.router, &text).await;
    // State is told within 100 ms.
    tokio::time::sleep(Duration::from_millis(400)).await;
    for one in told().await {
        let is_home = one["node"] == home;
        assert_eq!(one["chosen"], is_home, "{one}");
        let number = |name: &str| one[name].as_u64().unwrap_or_else(|| panic!("{name}: {one}"));
        assert_eq!(number("held_tokens") > 300, is_home, "{one}");
        assert!(number("first_token_us") > 0 && number("pages_free") > 0, "{one}");
        assert_eq!((number("queue"), &one["verdict"]), (0, &json!("may answer")), "{one}");
    }
    let open: usize = sites.iter().map(|site| site.model().engine.open()).sum();
    assert_eq!(open, 0, "nobody was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_spread_before_any_node_tells_of_them() {
    let setup = || Setup { endless: true, pace: Duration::from_millis(5), ..Setup::default() };
    let sites = [Site::start(setup()).await, Site::start(setup()).await];
    let gateway = Gateway::of(&[&sites[0], &sites[1]]).await;
    let body = chat(&json!({"max_tokens": 40}));
    let all: Vec<_> = (0..16)
        .map(|_| {
            let (router, body) = (gateway.router.clone(), body.clone());
            tokio::spawn(async move { ask(&router, &body).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(60)).await;
    let open: Vec<usize> = sites.iter().map(|site| site.model().engine.open()).collect();
    assert!(open.iter().all(|open| (5..=11).contains(open)), "{open:?}");
    for answer in all {
        answer.await.expect("no panic");
    }
}
