//! A gateway and nodes with models that read and do not write, as real processes: nodes are killed
//! by a seed while texts are read, no caller notices, and each text is paid for once. In a binary
//! of its own, so that nothing else of the cluster runs beside it. Replay a seed with
//! `SEED=123 cargo test -p hearth-tests --test cluster_read -- --nocapture`.

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use hearth_tests::fixtures::reference;
use hearth_tests::http::{Stream, open_as};
use hearth_tests::server::{Server, hearth};
use hearth_tests::simulation::random::Random;
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-the-cluster";
const NODES: usize = 3;

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// A question for a model that reads, of this kind, and its route.
fn reading(kind: usize) -> (&'static str, String) {
    let text = |number: usize| format!("Text {number} of {kind} is about a bird. ").repeat(8);
    if kind.is_multiple_of(2) {
        let all: Vec<String> = (0..48 + kind).map(text).collect();
        let body = json!({ "model": "embed", "input": all, "truncate_prompt_tokens": -1 });
        return ("/v1/embeddings", body.to_string());
    }
    let all: Vec<String> = (0..24 + kind).map(text).collect();
    let body = json!({
        "model": "rerank", "query": "Which is about a bird?", "documents": all,
        "truncate_prompt_tokens": -1,
    });
    ("/v1/rerank", body.to_string())
}

/// Its answer without the id, and the tokens that it says were read.
fn read(url: &str, key: Option<&str>, kind: usize) -> Result<(Value, i64), String> {
    let (path, body) = reading(kind);
    let answer = open_as(url, key, "POST", path, &body).and_then(Stream::finish);
    let answer = answer.map_err(|error| format!("the connection failed: {error}"))?;
    if answer.status != 200 {
        return Err(format!("{}: {}", answer.status, answer.body));
    }
    let mut value: Value = serde_json::from_str(&answer.body).map_err(|e| e.to_string())?;
    let tokens = value["usage"]["total_tokens"].as_i64().ok_or("no usage")?;
    if let Some(cost) = key.and(answer.header("x-hearth-cost")) {
        let cost: f64 = cost.parse().map_err(|_| "no cost")?;
        if (cost * 1e6 - tokens as f64).abs() > 1e-3 {
            return Err(format!("{cost} dollars for {tokens} tokens"));
        }
    }
    value.as_object_mut().ok_or("no object")?.remove("id");
    Ok((value, tokens))
}

/// A node of the two models that read.
fn reading_node(port: u16) -> Server {
    let models = ["qwen3_embed_last=embed", "bert_rerank=rerank"].map(|model| {
        let (folder, name) = model.split_once('=').expect("a name");
        format!("{}={name}", reference(folder).display())
    });
    let listen = format!("127.0.0.1:{port}");
    let args = ["node", "--listen", &listen, "--cluster-token", TOKEN, "--threads", "1"];
    Server::start_command(
        hearth(),
        &[&args[..], &["--model", &models[0], "--model", &models[1]]].concat(),
    )
}

/// A gateway that somebody governs, with prices, before nodes: tokens that are read cost a
/// micro-dollar each.
struct Front {
    folder: std::path::PathBuf,
    server: Server,
    key: String,
}

impl Front {
    fn new(nodes: &[String]) -> Self {
        let folder = std::env::temp_dir().join(format!("hearth-readers-{}", std::process::id()));
        let data = folder.to_str().expect("a plain path");
        let mut args = vec!["--model", "none", "--cluster-token", TOKEN, "--data", data];
        nodes.iter().for_each(|url| args.extend(["--cluster-node", url]));
        let server = Server::start(&args);
        let first = server.banner.iter().find(|line| line.starts_with("first key"));
        let key = first.and_then(|line| line.split_whitespace().last()).expect("a first key");
        let front = Self { folder, key: key.to_owned(), server };
        let models = json!([{ "model": "*", "input": 1_000_000, "output": 0 }]);
        let prices = json!({ "name": "first", "models": models });
        front.admin("POST", "/admin/v1/prices", &prices.to_string());
        front
    }

    fn admin(&self, method: &str, path: &str, body: &str) -> Value {
        let stream = open_as(&self.server.url, Some(&self.key), method, path, body).expect("sent");
        let answer = stream.finish().expect("an answer");
        assert!(answer.status < 300, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).expect("JSON")
    }

    fn figure(&self, name: &str) -> f64 {
        let stream = open_as(&self.server.url, Some(&self.key), "GET", "/metrics", "");
        let text = stream.expect("sent").finish().expect("figures").body;
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Asks so many times, each kind in turn: the tokens that were read, and what was wrong.
fn read_many(front: &Front, expected: &[(Value, i64)], from: usize, count: usize) -> (i64, String) {
    let (mut tokens, mut wrong) = (0, String::new());
    for number in from..from + count {
        let kind = number % expected.len();
        match read(&front.server.url, Some(&front.key), kind) {
            Ok(heard) if heard == expected[kind] => tokens += heard.1,
            Ok((_, tokens)) => wrong += &format!("kind {kind}: another answer of {tokens}\n"),
            Err(error) => wrong += &format!("kind {kind}: {error}\n"),
        }
    }
    (tokens, wrong)
}

#[test]
fn nodes_that_read_die_and_each_text_is_paid_for_once() {
    const KINDS: usize = 6;
    const CALLERS: usize = 4;
    const EACH: usize = 48;
    hearth();
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let models = [("qwen3_embed_last", "embed"), ("bert_rerank", "rerank")];
    let models = models.map(|(from, name)| format!("{}={name}", reference(from).display()));
    let alone = Server::start(&["--threads", "1", "--model", &models[0], "--model", &models[1]]);
    let begun = Instant::now();
    let expected: Vec<_> =
        (0..KINDS).map(|kind| read(&alone.url, None, kind).expect("an answer")).collect();
    // Nodes are killed less often than requests end: one that is lost five times in a row is over.
    let pause_ms = begun.elapsed().as_millis() as u64 / KINDS as u64 * 8;
    drop(alone);

    let mut nodes: Vec<(u16, Server)> =
        (0..NODES).map(|_| free_port()).map(|port| (port, reading_node(port))).collect();
    let urls: Vec<String> = nodes.iter().map(|(_, node)| node.url.clone()).collect();
    let front = Front::new(&urls);
    until("the models are offered", || {
        front.admin("GET", "/v1/models", "")["data"].as_array().map_or(0, Vec::len) == 2
    });
    let open = AtomicUsize::new(CALLERS);
    let mut random = Random::new(seed);
    let begun = Instant::now();
    let (killed, heard) = scope(|scope| {
        let (open, front, expected) = (&open, &front, &expected);
        let callers = (0..CALLERS).map(|caller| {
            scope.spawn(move || {
                let heard = read_many(front, expected, caller, EACH);
                open.fetch_sub(1, Ordering::SeqCst);
                heard
            })
        });
        let callers: Vec<_> = callers.collect();
        let mut killed = 0;
        while open.load(Ordering::SeqCst) > 0 {
            sleep(Duration::from_millis(random.between(pause_ms, pause_ms * 2)));
            let at = random.index(NODES);
            nodes[at].1.signal("KILL");
            sleep(Duration::from_millis(random.between(0, 300)));
            nodes[at].1 = reading_node(nodes[at].0);
            killed += 1;
        }
        let heard: Vec<_> =
            callers.into_iter().map(|task| task.join().expect("no panic")).collect();
        (killed, heard)
    });
    let again = front.figure("hearth_cluster_resumes_total");
    println!("seed {seed}: {killed} killed, {again} asked again, {:?}", begun.elapsed());
    let wrong: String = heard.iter().map(|(_, wrong)| wrong.as_str()).collect();
    assert!(wrong.is_empty(), "seed {seed}: {wrong:.4000}");
    assert!(killed >= 3 && again >= 3.0, "{killed} killed, {again} asked again");
    let tokens: i64 = heard.iter().map(|(tokens, _)| tokens).sum();
    let page = front.admin("GET", "/admin/v1/ledger?limit=200", "");
    let lines = page["data"].as_array().expect("lines");
    let sum: i64 = lines.iter().map(|line| line["cost"].as_i64().expect("nano")).sum();
    assert_eq!((lines.len(), sum), (CALLERS * EACH, tokens * 1_000));
}
