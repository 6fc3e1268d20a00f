//! Adapters that come and go at nodes while they serve: through a gateway, at all of them or at
//! one, or at the node itself.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::header::AUTHORIZATION;
use gateway::cluster::AdapterFolder;
use gateway::wiring;
use hearth_tests::fixtures::reference;
use serde_json::{Value, json};

use crate::adapters::{ADAPTED, Site, Tuned, ask, ids, prompt, route, site, site_with};
use crate::client::{Answer, post, send};
use crate::kit::{Gateway, TOKEN, until};

/// A folder of adapters: `own`, and `empty`, which is none. Gone with its owner.
struct Shelf(PathBuf);

impl Shelf {
    fn new() -> Self {
        Self::with(&reference("llama_gqa_lora"))
    }

    /// Where `own` is a copy of this.
    fn with(source: &std::path::Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hearth-shelf-{}-{number}", std::process::id());
        let top = std::env::temp_dir().join(name);
        for folder in ["own", "empty"] {
            std::fs::create_dir_all(top.join(folder)).expect("a folder");
        }
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(source.join(file), top.join("own").join(file)).expect("a copy");
        }
        Self(top)
    }

    async fn site(&self) -> Site {
        let folder = AdapterFolder { top: self.0.clone(), digest: wiring::adapter_digest };
        site_with(None, Some(folder)).await
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn gateway(sites: &[&Site]) -> Gateway {
    let nodes: Vec<_> = sites.iter().map(|site| site.wire.address).collect();
    let gateway = Gateway::start(&nodes);
    gateway.nodes(sites.len()).await;
    gateway.model("base").await;
    gateway
}

async fn change(router: &Router, what: &str, body: &Value) -> Answer {
    post(router, &format!("/v1/{what}_lora_adapter"), body.to_string()).await
}

/// The same at a node itself.
async fn at_node(site: &Site, token: &str, what: &str, body: &str) -> Answer {
    let request = Request::post(format!("/v1/{what}_lora_adapter"))
        .header(AUTHORIZATION, format!("Bearer {token}"));
    send(&site.node, request.body(Body::from(body.to_owned())).expect("a request")).await
}

fn address(site: &Site) -> String {
    site.wire.address.to_string()
}

async fn asked(router: &Router) -> Answer {
    ask(router, ADAPTED, &json!({"prompt": prompt(2)})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn loaded_at_all_nodes_routed_to_at_once_and_gone_with_the_last() {
    let shelf = Shelf::new();
    let (one, two) = (shelf.site().await, shelf.site().await);
    let gateway = gateway(&[&one, &two]).await;
    let beside = self::gateway(&[&one, &two]).await;
    let alone = site(Some(&reference("llama_gqa_lora"))).await;
    let wanted = ids(&asked(&alone.router).await);
    let load = json!({"lora_name": "first", "lora_path": "own"});
    let nodes = json!([address(&one), address(&two)]);
    let loaded = change(&gateway.router, "load", &load).await;
    assert_eq!(loaded.status, 200, "{}", loaded.body);
    let expect = json!({"id": ADAPTED, "object": "model", "loaded": true, "nodes": nodes});
    assert_eq!(loaded.json(), expect);
    for _ in 0..6 {
        assert_eq!(ids(&asked(&gateway.router).await), wanted);
    }
    until("other gateways hear of it", || beside.models.get(ADAPTED).is_some()).await;
    assert_eq!(ids(&asked(&beside.router).await), wanted);
    let again = change(&gateway.router, "load", &load).await;
    assert_eq!(again.status, 400, "{}", again.body);
    for node in [&one, &two] {
        assert!(again.body.contains(&format!("{}: the adapter", address(node))), "{}", again.body);
    }
    // At one of them no more.
    let unload = json!({"lora_name": "first", "node": format!("http://{}", address(&one))});
    let unloaded = change(&gateway.router, "unload", &unload).await;
    assert_eq!(unloaded.status, 200, "{}", unloaded.body);
    let expect = json!({"id": ADAPTED, "object": "model", "loaded": false,
        "nodes": [address(&one)]});
    assert_eq!(unloaded.json(), expect);
    for _ in 0..6 {
        let answer = asked(&gateway.router).await;
        assert_eq!((ids(&answer), route(&answer, "node")), (wanted.clone(), address(&two)));
    }
    // At none: nobody has lost it, so nobody waits for it to come back.
    let unload = json!({"lora_name": "first"});
    let unloaded = change(&gateway.router, "unload", &unload).await;
    assert_eq!(unloaded.json()["nodes"], json!([address(&two)]), "{}", unloaded.body);
    let body = json!({"model": ADAPTED, "prompt": "x"}).to_string();
    let gone = post(&gateway.router, "/v1/completions", body).await;
    assert_eq!((gone.status, &gone.json()["error"]["code"]), (404, &json!("model_not_found")));
    until("other gateways hear of that too", || beside.models.get(ADAPTED).is_none()).await;
    let unloaded = change(&gateway.router, "unload", &unload).await;
    assert_eq!(unloaded.status, 404, "{}", unloaded.body);
    // And again, at the place that has become free.
    assert_eq!(change(&gateway.router, "load", &load).await.status, 200);
    assert_eq!(ids(&asked(&gateway.router).await), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_said_node_by_node() {
    let shelf = Shelf::new();
    let (one, two) = (shelf.site().await, site(None).await);
    let gateway = gateway(&[&one, &two]).await;
    let router = &gateway.router;
    let (here, there) = (address(&one), address(&two));
    let refused = async |what: &str, body: Value, status: u16, parts: &[&str]| {
        let answer = change(router, what, &body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        for part in parts {
            assert!(answer.body.contains(part), "{body}: `{part}` is missing in {}", answer.body);
        }
    };
    let none = format!("{there}: this node loads no adapters");
    let named = |path: &str, node: &str| json!({"lora_name": "x", "lora_path": path, "node": node});
    let outside = format!("{here}: lora_path must name a folder below");
    refused("load", named("../own", &here), 400, &[&outside, "adapter_refused"]).await;
    refused("load", named("empty", &here), 400, &[&here, "adapter_config.json"]).await;
    refused("load", named("own", "10.9.9.9:1"), 400, &["\"node\"", &here, &there]).await;
    refused("load", json!({"lora_name": "a/b", "node": here}), 400, &["characters"]).await;
    refused("unload", json!({"lora_name": "x"}), 404, &["no adapter 'x' is loaded"]).await;
    refused("load", json!({"lora_name": "x", "rank": 1}), 400, &["unknown_parameter"]).await;
    refused("load", json!({"lora_name": "x", "model": "no"}), 404, &["model_not_found"]).await;
    // One that has it and one that does not take it: both are said, and the first serves it.
    let own = json!({"lora_name": "first", "lora_path": "own"});
    let done = format!("It was loaded at {here}");
    refused("load", own, 400, &[&none, &done]).await;
    assert_eq!(route(&asked(router).await, "node"), here);
    let onto = json!({"lora_name": "y", "model": ADAPTED});
    refused("load", onto, 400, &["adapters_not_supported"]).await;
    // A model of this process has no nodes.
    let alone = json!({"lora_name": "x", "node": here}).to_string();
    let answer = post(&one.router, "/v1/load_lora_adapter", alone).await;
    assert!(answer.status == 400 && answer.body.contains("'node'"), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_files_under_the_same_name_are_said() {
    let tuned = Tuned::new();
    let (shelf, other) = (Shelf::new(), Shelf::with(&tuned.0));
    let (one, two) = (shelf.site().await, other.site().await);
    let gateway = gateway(&[&one, &two]).await;
    let load = json!({"lora_name": "first", "lora_path": "own"});
    let loaded = change(&gateway.router, "load", &load).await;
    assert_eq!(loaded.status, 400, "{}", loaded.body);
    assert!(loaded.body.contains("its files are not those of"), "{}", loaded.body);
    // Whichever was there first gets all of it.
    let first = route(&asked(&gateway.router).await, "node");
    assert!(loaded.body.contains(&format!("not those of {first}")), "{first}: {}", loaded.body);
    assert!(loaded.body.contains(&format!("It was loaded at {first}")), "{}", loaded.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_them_from_whoever_shows_the_token() {
    let shelf = Shelf::new();
    let one = shelf.site().await;
    let gateway = gateway(&[&one]).await;
    let load = json!({"lora_name": "first", "lora_path": "own"}).to_string();
    assert_eq!(at_node(&one, "the-token-of-another-one", "load", &load).await.status, 401);
    for (body, status) in [
        ("", 400),
        ("{}", 400),
        ("{\"lora_name\":\"x\",\"more\":1}", 400),
        ("{\"lora_name\":\"x\",\"lora_path\":\"/etc\"}", 400),
        ("{\"lora_name\":\"x\",\"model\":\"no\"}", 404),
    ] {
        let answer = at_node(&one, TOKEN, "load", body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
    }
    let answer = at_node(&one, TOKEN, "load", &load).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!((&answer.json()["id"], &answer.json()["loaded"]), (&json!(ADAPTED), &json!(true)));
    gateway.model(ADAPTED).await;
    asked(&gateway.router).await;
    let unload = json!({"lora_name": "first"}).to_string();
    assert_eq!(at_node(&one, TOKEN, "unload", &unload).await.status, 200);
    until("it is gone from the gateway", || gateway.models.get(ADAPTED).is_none()).await;
    assert_eq!(at_node(&one, TOKEN, "unload", &unload).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_when_it_is_unloaded_ends_as_it_began() {
    let shelf = Shelf::new();
    let one = shelf.site().await;
    let gateway = gateway(&[&one]).await;
    let more = json!({"prompt": prompt(2), "max_tokens": 100, "n": 8, "temperature": 1, "seed": 3});
    let load = json!({"lora_name": "first", "lora_path": "own"});
    let (mut wanted, mut under_way) = (None, 0);
    for round in 0..6 {
        let loaded = change(&gateway.router, "load", &load).await;
        assert_eq!(loaded.status, 200, "round {round}: {}", loaded.body);
        let wanted = match &wanted {
            Some(wanted) => wanted,
            None => wanted.insert(ids(&ask(&gateway.router, ADAPTED, &more).await)),
        };
        let (router, body) = (gateway.router.clone(), more.clone());
        let running = tokio::spawn(async move { ids(&ask(&router, ADAPTED, &body).await) });
        until("it runs", || one.base.engine.open() > 0 || running.is_finished()).await;
        under_way += usize::from(one.base.engine.open() > 0);
        let unload = change(&gateway.router, "unload", &json!({"lora_name": "first"})).await;
        assert_eq!(unload.status, 200, "round {round}: {}", unload.body);
        assert_eq!(&running.await.expect("no panic"), wanted, "round {round}");
        until("the node is idle", || one.base.engine.open() == 0).await;
    }
    assert!(under_way > 0, "none was under way");
}
