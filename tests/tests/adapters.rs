//! Low-rank adapters through the real binary: loaded at start and while serving, many names on one
//! engine, unloaded under a running request, and what a caller may get wrong. Also at nodes,
//! through a gateway, while one of them is killed.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hearth_tests::fixtures::reference;
use hearth_tests::http::{open, request};
use hearth_tests::server::{Server, hearth};
use serde_json::{Value, json};

/// A folder of adapters, as an operator would keep it.
struct Adapters(PathBuf);

impl Adapters {
    fn new(name: &str) -> Self {
        let top = std::env::temp_dir().join(format!("hearth-{name}-{}", std::process::id()));
        let own = top.join("own");
        std::fs::create_dir_all(&own).expect("a folder");
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(reference("llama_gqa_lora").join(file), own.join(file)).expect("a copy");
        }
        std::fs::create_dir_all(top.join("empty")).expect("a folder");
        Self(top)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }
}

impl Drop for Adapters {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(adapters: &Adapters, more: &[&str]) -> Server {
    let base = format!("{}=base", reference("llama_gqa").display());
    let args = ["--model", &base, "--dtype", "float32", "--adapters-folder", adapters.path()];
    Server::start(&[&args, more].concat())
}

/// The fixture's prompt p2 and what it draws after it, and how far that is beyond doubt.
fn prompt(name: &str) -> (Value, Vec<u64>, usize) {
    let file = std::fs::read(reference(name).join("reference.json")).expect("a reference");
    let stored: Value = serde_json::from_slice(&file).expect("a reference");
    let p2 = &stored["prompts"][2];
    let greedy = p2["greedy_ids"].as_array().expect("ids").iter().map(|id| id.as_u64().unwrap());
    let sure = p2["first_close_step"].as_u64().expect("a step") as usize;
    (p2["input_ids"].clone(), greedy.collect(), sure)
}

fn complete(server: &Server, model: &str, prompt: &Value) -> Vec<u64> {
    let body = json!({
        "model": model, "prompt": prompt, "max_tokens": 32, "temperature": 0, "ignore_eos": true,
        "return_token_ids": true,
    });
    let answer = request(&server.url, "POST", "/v1/completions", &body.to_string()).expect("sent");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer: Value = serde_json::from_str(&answer.body).expect("json");
    let ids = answer["choices"][0]["token_ids"].as_array().expect("ids");
    ids.iter().map(|id| id.as_u64().expect("an id")).collect()
}

fn post(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let answer = request(&server.url, "POST", path, &body.to_string()).expect("sent");
    (answer.status, serde_json::from_str(&answer.body).expect("json"))
}

fn names(server: &Server) -> Vec<String> {
    let answer = request(&server.url, "GET", "/v1/models", "").expect("sent");
    let answer: Value = serde_json::from_str(&answer.body).expect("json");
    let all = answer["data"].as_array().expect("models").iter();
    all.map(|model| model["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn adapters_come_and_go_while_their_base_serves() {
    let adapters = Adapters::new("adapters");
    let named = format!("first={}", adapters.0.join("own").display());
    let server = start(&adapters, &["--adapter", &named, "--adapters-max", "2"]);
    let (plain, adapted) = (prompt("llama_gqa"), prompt("llama_gqa_lora"));
    let check = |model: &str, (ids, greedy, sure): &(Value, Vec<u64>, usize)| {
        assert_eq!(complete(&server, model, ids)[..*sure], greedy[..*sure], "{model}");
    };
    assert_eq!(names(&server), ["base", "base:first"]);
    // The same prompt by turns: cached pages of one must not reach the other.
    for _ in 0..2 {
        check("base", &plain);
        check("base:first", &adapted);
    }
    let load = json!({"lora_name": "second", "lora_path": "own"});
    let (status, answer) = post(&server, "/v1/load_lora_adapter", &load);
    assert_eq!((status, &answer["id"]), (200, &json!("base:second")), "{answer}");
    assert_eq!(names(&server), ["base", "base:first", "base:second"]);
    check("base:second", &adapted);

    let full = json!({"lora_name": "third", "lora_path": "own"});
    let (status, answer) = post(&server, "/v1/load_lora_adapter", &full);
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("too_many_adapters")), "{answer}");

    // Unloaded under a request that runs: that one ends as it began.
    let body = json!({
        "model": "base:second", "prompt": adapted.0, "max_tokens": 32, "temperature": 0,
        "ignore_eos": true, "stream": true,
    });
    let stream = open(&server.url, "POST", "/v1/completions", &body.to_string()).expect("sent");
    assert_eq!(stream.status, 200);
    let unload = json!({"lora_name": "second"});
    let (status, _) = post(&server, "/v1/unload_lora_adapter", &unload);
    assert_eq!(status, 200);
    let rest = stream.finish().expect("the stream ends").body;
    assert!(rest.contains("\"finish_reason\":\"length\""), "{rest}");
    let (status, answer) = post(&server, "/v1/completions", &body);
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("model_not_found")), "{answer}");
    assert_eq!(names(&server), ["base", "base:first"]);
    // Its place is free again, and its number computes with the next adapter.
    let mut status = 0;
    for _ in 0..200 {
        status = post(&server, "/v1/load_lora_adapter", &full).0;
        if status == 200 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(status, 200, "the place of the unloaded adapter");
    check("base:third", &adapted);
    check("base", &plain);
}

#[test]
fn what_a_caller_may_get_wrong() {
    let adapters = Adapters::new("adapters-wrong");
    let server = start(&adapters, &[]);
    let cases = [
        (json!({"lora_name": "a", "lora_path": "../own"}), 400, "invalid_value"),
        (json!({"lora_name": "a", "lora_path": "/etc"}), 400, "invalid_value"),
        (json!({"lora_name": "a/b", "lora_path": "own"}), 400, "invalid_value"),
        (json!({"lora_name": "a", "lora_path": "missing"}), 400, "adapter_refused"),
        (json!({"lora_name": "a", "lora_path": "empty"}), 400, "adapter_refused"),
        (json!({"lora_path": "own"}), 400, "missing_required_parameter"),
        (json!({"lora_name": "a", "lora_path": "own", "rank": 3}), 400, "unknown_parameter"),
        (json!({"lora_name": "a", "lora_path": "own", "model": "no"}), 404, "model_not_found"),
    ];
    for (body, status, code) in cases {
        let (found, answer) = post(&server, "/v1/load_lora_adapter", &body);
        assert_eq!((found, &answer["error"]["code"]), (status, &json!(code)), "{body}: {answer}");
    }
    let (found, answer) = post(&server, "/v1/unload_lora_adapter", &json!({"lora_name": "own"}));
    assert_eq!((found, &answer["error"]["code"]), (404, &json!("model_not_found")), "{answer}");
    drop(server);
    let closed = Server::start(&[]);
    let (found, answer) = post(&closed, "/v1/load_lora_adapter", &json!({"lora_name": "own"}));
    let code = &answer["error"]["code"];
    assert_eq!((found, code), (400, &json!("adapters_not_supported")), "{answer}");
}

const TOKEN: &str = "a-token-of-the-cluster";

/// A node with the base that loads adapters from the folder; `0`: at any port.
fn node(adapters: &Adapters, port: u16) -> Server {
    let base = format!("{}=base", reference("llama_gqa").display());
    let listen = format!("127.0.0.1:{port}");
    let own = ["node", "--listen", &listen, "--cluster-token", TOKEN, "--dtype", "float32"];
    let more = ["--model", &base, "--adapters-folder", adapters.path()];
    Server::start_command(hearth(), &[&own[..], &more].concat())
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn up(front: &Server) -> usize {
    let figures = request(&front.url, "GET", "/metrics", "").expect("sent").body;
    let up = |line: &&str| line.starts_with("hearth_cluster_node_up{") && line.ends_with(" 1");
    figures.lines().filter(up).count()
}

#[test]
fn nodes_load_them_while_they_serve_and_one_that_comes_back_is_given_them_again() {
    let adapters = Adapters::new("adapters-nodes");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("one").port();
    let (mut one, mut two) = (node(&adapters, port), node(&adapters, 0));
    let at = |node: &Server| node.url.trim_start_matches("http://").to_owned();
    let (first, second) = (at(&one), at(&two));
    let token = ["--model", "none", "--cluster-token", TOKEN];
    let nodes = ["--cluster-node", &one.url, "--cluster-node", &two.url];
    let front = Server::start(&[&token[..], &nodes].concat());
    until("both nodes are in", || up(&front) == 2 && names(&front) == ["base"]);
    let (ids, greedy, sure) = prompt("llama_gqa_lora");
    let check = || assert_eq!(complete(&front, "base:own", &ids)[..sure], greedy[..sure]);
    let (status, answer) = post(&front, "/v1/load_lora_adapter", &json!({"lora_name": "own"}));
    assert_eq!((status, &answer["nodes"]), (200, &json!([first, second])), "{answer}");
    check();
    // Killed and started again, a node has none; the other one serves it.
    one.signal("KILL");
    one.wait();
    until("its end is seen", || up(&front) == 1);
    one = node(&adapters, port);
    until("it is back", || up(&front) == 2);
    for _ in 0..4 {
        check();
    }
    let again = json!({"lora_name": "own", "node": first});
    let (status, answer) = post(&front, "/v1/load_lora_adapter", &again);
    assert_eq!((status, &answer["nodes"]), (200, &json!([first])), "{answer}");
    two.signal("KILL");
    two.wait();
    for _ in 0..4 {
        check();
    }
    until("the other is out", || up(&front) == 1);
    let (status, answer) = post(&front, "/v1/unload_lora_adapter", &json!({"lora_name": "own"}));
    assert_eq!((status, &answer["nodes"]), (200, &json!([first])), "{answer}");
    let body = json!({"model": "base:own", "prompt": ids});
    let (status, answer) = post(&front, "/v1/completions", &body);
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("model_not_found")), "{answer}");
    assert_eq!(names(&front), ["base"]);
    drop(one);
}
