//! Adapters at nodes, with real engines: requests go where an adapter is, are computed with it,
//! share pages with nobody else's, and go on at another node that has it too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use clap::{Args as _, FromArgMatches as _};
use gateway::api::{App, Keys, Limits, router};
use gateway::backend::Model;
use gateway::cluster::AdapterFolder;
use gateway::config::{Config, Flags};
use gateway::metrics::Metrics;
use gateway::models::Models;
use gateway::wiring::{self, Target};
use hearth_tests::fixtures::reference;
use serde_json::{Value, json};

use crate::client::{Answer, get, post};
use crate::kit::{Gateway, serve_with, until};
use crate::wire::Wire;

pub(crate) const ADAPTED: &str = "base:first";

/// A node with the base, and with the adapter `first` where there is a folder of it.
pub(crate) struct Site {
    metrics: Arc<Metrics>,
    /// All of its models' API, for answers that no cluster had a hand in.
    pub(crate) router: Router,
    /// What gateways speak to.
    pub(crate) node: Router,
    pub(crate) base: Arc<Model>,
    pub(crate) wire: Wire,
}

pub(crate) async fn site(adapter: Option<&Path>) -> Site {
    site_with(adapter, None).await
}

/// The same, where adapters may be loaded from a folder later.
pub(crate) async fn site_with(adapter: Option<&Path>, later: Option<AdapterFolder>) -> Site {
    let base = format!("{}=base", reference("llama_gqa").display());
    let wanted = ["--model", &base, "--dtype", "float32", "--rows-max", "4", "--threads", "1"];
    let command = Flags::augment_args(clap::Command::new("test").no_binary_name(true));
    let flags = Flags::from_arg_matches(&command.get_matches_from(wanted)).expect("flags");
    let config = Config::load(&flags, std::iter::empty()).expect("a configuration").config;
    let (models, metrics) = (Models::new(), Metrics::new());
    let planned = wiring::plan(&config, &Target::Cpu(None), &config.models[0]).await;
    let planned = planned.expect("a plan");
    let weights = planned.weights_digest().expect("a digest");
    let model = models.add(planned.start(&config, &metrics).expect("it starts"));
    let mut beside = Vec::new();
    if let Some(folder) = adapter {
        let places = model.adapters.as_ref().expect("it takes adapters");
        assert!(models.add_new(places.load(&model, "first", folder).expect("an adapter")));
        let files = wiring::adapter_digest(folder).expect("a digest");
        beside.push((models.get(ADAPTED).expect("the adapter"), files));
    }
    models.set_loaded();
    let (node, address) = serve_with(&models, &metrics, (&model, &weights), &beside, later).await;
    let (all, count) = (Arc::clone(&models), Arc::clone(&metrics));
    let app = App::new(all, count, Keys::default(), Limits::default(), None);
    let (node, wire) = (node.router(), Wire::to(address).await);
    Site { metrics, router: router(app), node, base: model, wire }
}

async fn gateway(sites: &[&Site]) -> Gateway {
    let nodes: Vec<_> = sites.iter().map(|site| site.wire.address).collect();
    let gateway = Gateway::start(&nodes);
    gateway.nodes(sites.len()).await;
    gateway.model(ADAPTED).await;
    gateway
}

/// The fixture's prompts by number.
pub(crate) fn prompt(number: usize) -> Value {
    let file = std::fs::read(reference("llama_gqa_lora").join("reference.json")).expect("a file");
    let stored: Value = serde_json::from_slice(&file).expect("JSON");
    stored["prompts"][number]["input_ids"].clone()
}

pub(crate) async fn ask(router: &Router, model: &str, more: &Value) -> Answer {
    let mut body = json!({"model": model, "max_tokens": 40, "temperature": 0, "ignore_eos": true,
        "return_token_ids": true});
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    let answer = post(router, "/v1/completions", body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

/// A part of what the answer's head says of its way.
pub(crate) fn route(answer: &Answer, part: &str) -> String {
    let route = answer.headers["x-hearth-route"].to_str().expect("text");
    let found = route.split("; ").find_map(|found| found.strip_prefix(part)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {part} in {route}")).to_owned()
}

pub(crate) fn ids(answer: &Answer) -> Vec<Value> {
    let body = answer.json();
    let choices = body["choices"].as_array().expect("choices").iter();
    choices.map(|choice| choice["token_ids"].clone()).collect()
}

fn cached(answer: &Answer) -> u64 {
    let body = answer.json();
    body["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_where_the_adapter_is_and_share_no_pages_with_its_base() {
    let folder = reference("llama_gqa_lora");
    let (with, without) = (site(Some(&folder)).await, site(None).await);
    // Of no cluster: what it is asked leaves no pages at a node.
    let alone = site(Some(&folder)).await;
    let gateway = gateway(&[&with, &without]).await;
    let list = get(&gateway.router, "/v1/models").await.json();
    let names: Vec<_> = list["data"].as_array().expect("models").iter().map(|m| &m["id"]).collect();
    assert_eq!(names, ["base", ADAPTED]);
    let long = json!({"prompt": prompt(3)});
    let (plain, adapted) =
        (ask(&alone.router, "base", &long).await, ask(&alone.router, ADAPTED, &long).await);
    assert_ne!(ids(&plain), ids(&adapted), "the adapter changes the answer");

    // Read, held, and found again by the gateway's own hashes: nine whole pages of 150 tokens.
    let here = with.wire.address.to_string();
    for held in [0, 144] {
        let answer = ask(&gateway.router, ADAPTED, &long).await;
        assert_eq!((ids(&answer), route(&answer, "node")), (ids(&adapted), here.clone()));
        assert_eq!((route(&answer, "held"), cached(&answer)), (held.to_string(), held));
        // State is told within 100 ms.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    // Those pages are no use for the base, at the same node as little as at the other.
    without.wire.kill(true);
    gateway.nodes(1).await;
    let answer = ask(&gateway.router, "base", &long).await;
    assert_eq!((ids(&answer), route(&answer, "node")), (ids(&plain), here));
    assert_eq!((route(&answer, "held"), cached(&answer)), ("0".to_owned(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_on_at_another_node_that_has_the_adapter() {
    let folder = reference("llama_gqa_lora");
    let (one, two) = (site(Some(&folder)).await, site(Some(&folder)).await);
    let without = site(None).await;
    let gateway = gateway(&[&one, &two, &without]).await;
    let mut place = 17_u64;
    for more in [json!({}), json!({"temperature": 1, "seed": 5, "n": 2})] {
        let mut more = more;
        (more["prompt"], more["max_tokens"]) = (prompt(2), json!(100));
        let wanted = ids(&ask(&one.router, ADAPTED, &more).await);
        for round in 0..8 {
            for wire in [&one.wire, &two.wire] {
                place = (place * 31 + 7) % 1009;
                wire.cut_after(40 + place);
            }
            let answer = ask(&gateway.router, ADAPTED, &more).await;
            assert_eq!(ids(&answer), wanted, "round {round} of {more}");
            gateway.nodes(3).await;
        }
    }
    // Figures of an adapter are its base's, here as in one process.
    let resumed = gateway.figure("hearth_cluster_resumes_total{model=\"base\"}");
    assert!(resumed >= 8.0, "{resumed} resumes");
    let figures = without.metrics.render();
    let none = "hearth_generation_tokens_total{model=\"base\"} 0";
    assert!(figures.contains(none), "a node without the adapter has made tokens: {figures}");
}

/// A copy of the adapter that scales otherwise; gone with its owner.
pub(crate) struct Tuned(pub(crate) PathBuf);

impl Tuned {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hearth-tuned-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let source = reference("llama_gqa_lora");
        let weights = "adapter_model.safetensors";
        std::fs::copy(source.join(weights), folder.join(weights)).expect("a copy");
        let config = "adapter_config.json";
        let text = std::fs::read_to_string(source.join(config)).expect("a file");
        let other = text.replace("\"lora_alpha\": 16", "\"lora_alpha\": 32");
        assert_ne!(other, text);
        std::fs::write(folder.join(config), other).expect("a file");
        Self(folder)
    }
}

impl Drop for Tuned {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_adapter_of_the_same_name_gets_nothing() {
    let (folder, tuned) = (reference("llama_gqa_lora"), Tuned::new());
    let one = site(Some(&folder)).await;
    let gateway = gateway(&[&one]).await;
    let other = site(Some(&tuned.0)).await;
    let body = json!({"prompt": prompt(2)});
    let wanted = ids(&ask(&one.router, ADAPTED, &body).await);
    assert_ne!(ids(&ask(&other.router, ADAPTED, &body).await), wanted);
    gateway.join(other.wire.address).await;
    gateway.nodes(2).await;
    let refused = |model: &str| {
        let node = other.wire.address;
        let labels = format!("{{model=\"{model}\",node=\"{node}\"}}");
        gateway.figure(&format!("hearth_cluster_model_refused{labels}"))
    };
    until("it is refused", || refused(ADAPTED) > 0.5).await;
    assert!(refused("base") < 0.5, "the base is the same");
    for _ in 0..6 {
        let answer = ask(&gateway.router, ADAPTED, &body).await;
        assert_eq!(
            (ids(&answer), route(&answer, "node")),
            (wanted.clone(), one.wire.address.to_string())
        );
    }
    // With the first one gone, the other is what its name means.
    one.wire.kill(true);
    until("it is taken in", || refused(ADAPTED) < 0.5).await;
    let answer = ask(&gateway.router, ADAPTED, &body).await;
    assert_ne!(ids(&answer), wanted);
}
