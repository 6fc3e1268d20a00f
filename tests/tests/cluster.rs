//! A front and three nodes as real processes: nodes are killed and paused by a seed while streams
//! run, and no caller notices. Replay a seed with
//! `SEED=123 cargo test -p hearth-tests --test cluster -- --nocapture`.

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use hearth_tests::fixtures::reference;
use hearth_tests::http::{open, open_as, request};
use hearth_tests::server::{Server, hearth};
use hearth_tests::simulation::random::Random;
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-the-cluster";
const NODES: usize = 3;
/// Streams, and how many different ones: each is asked several times.
const STREAMS: usize = 200;
const KINDS: usize = 48;
/// One stream of each kind, on a machine with nothing else to do.
const UNDISTURBED: Duration = Duration::from_millis(1_500);
/// A node that is silent for two seconds is out.
const NOTICED: Duration = Duration::from_millis(2_600);

/// What a caller has when a stream has ended.
#[derive(Debug, Clone, Default, PartialEq)]
struct Heard {
    /// Content, calls and reason of each choice.
    choices: [(String, String, String); 2],
    /// Tokens with their log-probabilities, as they were written.
    scores: Vec<String>,
    /// Of the prompt, of the answer.
    tokens: (u64, u64),
}

/// The body of a stream: everything that a continued answer could get wrong.
fn body(kind: usize) -> String {
    let topics = ["the sea", "a house", "the old man", "a child and a bird"];
    let topic = topics[kind / 6 % topics.len()];
    let mut body = json!({
        "model": "demo", "stream": true, "seed": kind, "max_tokens": 300 + kind * 7 % 150,
        "stream_options": { "include_usage": true },
        "messages": [
            { "role": "system", "content": "You are a little model. ".repeat(1 + kind % 3) },
            { "role": "user", "content": format!("Tell me about {topic}.") },
        ],
    });
    let more = match kind % 6 {
        0 => json!({ "temperature": 0, "ignore_eos": true }),
        1 => json!({
            "temperature": 1, "ignore_eos": true, "presence_penalty": 0.4,
            "frequency_penalty": 0.3, "top_p": 0.95,
        }),
        2 => json!({ "temperature": 0.9, "n": 2, "min_tokens": 150, "stop": ["bird", "red"] }),
        3 => json!({ "temperature": 0.8, "response_format": {
            "type": "json_schema",
            "json_schema": { "name": "words", "strict": true, "schema": {
                "type": "object", "additionalProperties": false, "required": ["words", "count"],
                "properties": {
                    "words": {
                        "type": "array", "minItems": 12, "maxItems": 14,
                        "items": { "type": "string", "maxLength": 9 },
                    },
                    "count": { "type": "integer", "minimum": 0, "maximum": 99 },
                },
            } },
        } }),
        4 => json!({ "temperature": 0.7, "tool_choice": "required", "tools": [{
            "type": "function",
            "function": { "name": "tell", "strict": true, "parameters": {
                "type": "object", "additionalProperties": false, "required": ["parts"],
                "properties": { "parts": {
                    "type": "array", "minItems": 10, "maxItems": 12,
                    "items": { "type": "string", "maxLength": 12 },
                } },
            } },
        }] }),
        _ => json!({ "temperature": 1, "logprobs": true, "top_logprobs": 2, "ignore_eos": true }),
    };
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body.to_string()
}

/// Reads a stream to its end.
fn hear(url: &str, body: &str) -> Result<Heard, String> {
    let fail = |error: std::io::Error| format!("the connection failed: {error}");
    let mut stream = open(url, "POST", "/v1/chat/completions", body).map_err(fail)?;
    if stream.status != 200 {
        let status = stream.status;
        return Err(format!("{status}: {}", stream.finish().map_err(fail)?.body));
    }
    let mut heard = Heard::default();
    while let Some(event) = stream.event().map_err(fail)? {
        if event == "[DONE]" {
            return Ok(heard);
        }
        let event: Value = serde_json::from_str(&event).map_err(|e| format!("{e}: {event}"))?;
        if event.get("error").is_some() {
            return Err(event.to_string());
        }
        for choice in event["choices"].as_array().into_iter().flatten() {
            let at = choice["index"].as_u64().unwrap_or_default() as usize;
            let (content, calls, reason) = &mut heard.choices[at];
            let delta = &choice["delta"];
            content.push_str(delta["content"].as_str().unwrap_or_default());
            calls.push_str(delta["tool_calls"][0]["function"]["arguments"].as_str().unwrap_or(""));
            reason.push_str(choice["finish_reason"].as_str().unwrap_or_default());
            let scores = choice["logprobs"]["content"].as_array().into_iter().flatten();
            heard.scores.extend(scores.map(Value::to_string));
        }
        if let Some(usage) = event["usage"].as_object() {
            let count = |name: &str| usage[name].as_u64().unwrap_or_default();
            heard.tokens = (count("prompt_tokens"), count("completion_tokens"));
        }
    }
    Err("it ended without its last word".to_owned())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn node(port: u16) -> Server {
    let listen = format!("127.0.0.1:{port}");
    let args = ["node", "--model", "demo", "--listen", &listen, "--cluster-token", TOKEN];
    Server::start_command(hearth(), &args)
}

/// The sum of a figure at a node, where the cluster's token is asked for.
fn figure(url: &str, name: &str) -> f64 {
    let stream = open_as(url, Some(TOKEN), "GET", "/metrics", "").expect("sent");
    let text = stream.finish().expect("figures").body;
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// What was done to nodes.
#[derive(Debug, Default)]
struct Done {
    killed: usize,
    /// Long enough to be taken for dead.
    paused: usize,
    blinked: usize,
}

/// Disturbs one node at a time, now and then two, until nobody listens any more: the seed says
/// which and for how long. Between two disturbances a machine that is so many times slower has so
/// much longer for its answers: a stream that gets nowhere at six nodes in a row gives up.
fn disturb(
    random: &mut Random,
    nodes: &mut [(u16, Server)],
    open: &AtomicUsize,
    slower: f64,
) -> Done {
    let mut done = Done::default();
    for round in 0.. {
        if open.load(Ordering::SeqCst) == 0 {
            break;
        }
        let at = random.index(nodes.len());
        match round % 5 {
            kill @ (0 | 2 | 4) => {
                let gone: Vec<usize> = (0..1 + kill / 4).map(|i| (at + i) % nodes.len()).collect();
                gone.iter().for_each(|&at| nodes[at].1.signal("KILL"));
                sleep(Duration::from_millis(random.between(0, 400)));
                for at in gone {
                    nodes[at].1 = node(nodes[at].0);
                    done.killed += 1;
                }
            }
            1 => {
                nodes[at].1.signal("STOP");
                sleep(NOTICED);
                nodes[at].1.signal("CONT");
                done.paused += 1;
            }
            _ => {
                nodes[at].1.signal("STOP");
                sleep(Duration::from_millis(random.between(50, 600)));
                nodes[at].1.signal("CONT");
                done.blinked += 1;
            }
        }
        sleep(Duration::from_millis(random.between(50, 500)).mul_f64(slower));
    }
    done
}

/// What every kind of stream is when nothing happens.
fn undisturbed(url: &str) -> Vec<Heard> {
    scope(|scope| {
        let asked: Vec<_> =
            (0..KINDS).map(|kind| scope.spawn(move || hear(url, &body(kind)))).collect();
        let heard = asked.into_iter().map(|task| task.join().expect("no panic"));
        heard.map(|heard| heard.expect("an answer")).collect()
    })
}

#[test]
fn nodes_die_and_nobody_notices() {
    hearth();
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let begun = Instant::now();
    let alone = Server::start(&["--model", "demo"]);
    let expected = undisturbed(&alone.url);
    drop(alone);
    let whole = begun.elapsed();
    let slower = whole.div_duration_f64(UNDISTURBED).max(1.0);

    let ports: Vec<u16> = (0..NODES).map(|_| free_port()).collect();
    let mut nodes: Vec<(u16, Server)> = ports.iter().map(|&port| (port, node(port))).collect();
    let urls = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect::<Vec<_>>();
    let mut args = vec!["--model", "none", "--cluster-token", TOKEN];
    urls.iter().for_each(|url| args.extend(["--cluster-node", url]));
    let front = Server::start(&args);
    until("the model is offered", || {
        let models = request(&front.url, "GET", "/v1/models", "").expect("an answer");
        models.body.contains("\"demo\"")
    });

    let open = AtomicUsize::new(STREAMS);
    let wrong = Mutex::new(Vec::new());
    let mut random = Random::new(seed);
    let done = scope(|scope| {
        for number in 0..STREAMS {
            let (open, wrong, expected, url) = (&open, &wrong, &expected, &front.url);
            // They come over a few seconds, so that there are always some in every state.
            let late = Duration::from_millis(random.below(14_000));
            scope.spawn(move || {
                sleep(late);
                let kind = number % KINDS;
                let what = match hear(url, &body(kind)) {
                    Ok(heard) if heard == expected[kind] => None,
                    Ok(heard) => Some(format!("kind {kind}: {heard:?}, not {:?}", expected[kind])),
                    Err(error) => Some(format!("kind {kind}: {error}")),
                };
                wrong.lock().unwrap_or_else(PoisonError::into_inner).extend(what);
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
        disturb(&mut random, &mut nodes, &open, slower)
    });
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    let resumed = figure(&front.url, "hearth_cluster_resumes_total");
    println!("seed {seed}: {done:?}, {resumed} resumed, {whole:?} + {:?}", begun.elapsed() - whole);
    assert!(
        wrong.is_empty(),
        "seed {seed}: {} of {STREAMS} streams: {:.4000}",
        wrong.len(),
        wrong.join("\n")
    );
    // On average each of those deaths met a stream. How many there are is a matter of the machine.
    let met = done.killed >= 3 && done.paused >= 1 && resumed >= done.killed as f64;
    assert!(met, "{done:?}, {resumed} resumed");
    // Whatever moved on left nothing behind where it was.
    for url in &urls {
        until("a node has nothing to do", || figure(url, "hearth_num_requests_running") < 1.0);
        let (total, used) = (
            "hearth_kv_cache_pages{model=\"demo\",state=\"total\"}",
            "hearth_kv_cache_usage_ratio",
        );
        assert!(figure(url, total) > 0.0 && figure(url, used) < 1e-9, "pages of nobody");
    }
}

#[test]
fn a_nodes_adapter_is_offered_by_its_name_and_its_gpus_are_shown() {
    let base = format!("{}=base", reference("llama_gqa").display());
    let adapter = format!("first={}", reference("llama_gqa_lora").display());
    let listen = ["node", "--listen", "127.0.0.1:0", "--cluster-token", TOKEN];
    let serves = ["--model", &base, "--dtype", "float32", "--adapter", &adapter];
    let node = Server::start_command(hearth(), &[&listen[..], &serves].concat());
    let front = ["--model", "none", "--cluster-token", TOKEN, "--cluster-node", &node.url];
    let front = Server::start(&front);
    until("the adapter is offered", || {
        let models = request(&front.url, "GET", "/v1/models", "").expect("an answer");
        models.body.contains("\"base:first\"")
    });
    let file = reference("llama_gqa_lora").join("reference.json");
    let stored: Value =
        serde_json::from_slice(&std::fs::read(file).expect("a file")).expect("JSON");
    let known = &stored["prompts"][2];
    let body = json!({
        "model": "base:first", "prompt": known["input_ids"], "max_tokens": 32, "temperature": 0,
        "ignore_eos": true, "return_token_ids": true,
    });
    let answer = request(&front.url, "POST", "/v1/completions", &body.to_string()).expect("sent");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
    let ids = answer["choices"][0]["token_ids"].as_array().expect("ids");
    let sure = known["first_close_step"].as_u64().expect("a step") as usize;
    assert_eq!(ids[..sure], known["greedy_ids"].as_array().expect("ids")[..sure]);
    // All memory of the GPUs that the node reports of itself; nothing where there is none.
    let own = figure(&node.url, "hearth_gpu_memory_total_bytes");
    until("the gateway shows the node's GPUs", || {
        (figure(&front.url, "hearth_node_gpu_memory_total_bytes") - own).abs() < 0.5
    });
}
