//! Real tokens: the demo model on two nodes, cut at places drawn by seed, against the same model
//! undisturbed. Draws, penalties, several choices, grammars and calls go on as if nothing had
//! happened.

use std::sync::Arc;

use axum::Router;
use clap::{Args as _, FromArgMatches as _};
use gateway::api::{App, Keys, Limits, router};
use gateway::config::{Config, Flags};
use gateway::metrics::Metrics;
use gateway::models::Models;
use gateway::wiring::{self, Target};
use serde_json::{Value, json};

use crate::client::post;
use crate::kit::{Gateway, ask, said, serve};
use crate::wire::Wire;

/// The model, and all of its API.
async fn demo() -> (Arc<Models>, Arc<Metrics>, Router) {
    let command = Flags::augment_args(clap::Command::new("test").no_binary_name(true));
    let wanted = ["--context", "512", "--rows-max", "4", "--threads", "1"];
    let flags = Flags::from_arg_matches(&command.get_matches_from(wanted)).expect("flags");
    let config = Config::load(&flags, std::iter::empty()).expect("a configuration").config;
    let (models, metrics) = (Models::new(), Metrics::new());
    let planned = wiring::plan(&config, &Target::Cpu(None), &config.models[0]).await;
    let model = planned.expect("a plan").start(&config, &metrics).expect("it starts");
    models.add(model);
    models.set_loaded();
    let keys = Keys::default();
    let app = App::new(Arc::clone(&models), Arc::clone(&metrics), keys, Limits::default(), None);
    (models, metrics, router(app))
}

fn bodies() -> Vec<Value> {
    let tool = json!({"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"]}}});
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"],
        "additionalProperties": false});
    let more = [
        json!({"temperature": 0}),
        json!({"temperature": 1, "seed": 5, "n": 2}),
        json!({"temperature": 1, "seed": 6, "frequency_penalty": 0.8, "repetition_penalty": 1.2}),
        json!({"temperature": 1, "seed": 7, "logprobs": true, "top_logprobs": 2}),
        json!({"temperature": 1, "seed": 8, "response_format": {"type": "json_schema",
            "json_schema": {"name": "person", "schema": schema}}}),
        json!({"temperature": 1, "seed": 9, "tools": [tool], "tool_choice": "required"}),
    ];
    more.into_iter()
        .map(|more| {
            let mut body = json!({"model": "demo", "max_tokens": 60,
                "messages": [{"role": "user", "content": "Tell me about a person."}]});
            for (name, value) in more.as_object().expect("an object") {
                body[name] = value.clone();
            }
            body
        })
        .collect()
}

/// Ids of calls are drawn anew for each answer.
fn told(answer: &crate::client::Answer) -> Value {
    let mut told = said(answer);
    for choice in told["choices"].as_array_mut().expect("choices") {
        for call in choice["message"]["tool_calls"].as_array_mut().into_iter().flatten() {
            call["id"] = Value::Null;
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_drawn_goes_on_as_if_nothing_had_happened() {
    let (one, two) = (demo().await, demo().await);
    let mut wires = Vec::new();
    for (models, metrics, _) in [&one, &two] {
        let model = models.first().expect("the demo");
        let (_, address) = serve(models, metrics, &model, "demo").await;
        wires.push(Wire::to(address).await);
    }
    let gateway = Gateway::start(&[wires[0].address, wires[1].address]);
    gateway.nodes(2).await;
    gateway.model("demo").await;
    let mut place = 17_u64;
    for body in bodies() {
        let wanted = told(&ask(&one.2, &body).await);
        for round in 0..8 {
            for wire in &wires {
                place = (place * 31 + 7) % 1009;
                wire.cut_after(40 + place);
            }
            let answer = post(&gateway.router, "/v1/chat/completions", body.to_string()).await;
            gateway.nodes(2).await;
            assert_eq!(told(&answer), wanted, "round {round} of {body}");
        }
    }
    let resumed = gateway.figure("hearth_cluster_resumes_total{model=\"demo\"}");
    assert!(resumed >= 20.0, "{resumed} resumes");
}
