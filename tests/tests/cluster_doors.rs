//! How real nodes come and go by themselves: they name themselves to a gateway, they know each
//! other by certificates, and one that is told to end finishes what it has.

#[allow(dead_code, reason = "shared with the tests of TLS, which use all of it")]
#[path = "../../gateway/tests/tls/authority.rs"]
mod authority;

use std::mem::swap;
use std::path::PathBuf;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use authority::{Authority, Pair, put};
use hearth_tests::http::{open, request};
use hearth_tests::server::{Server, hearth};
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-the-cluster";
/// Streams on two nodes at once.
const STREAMS: usize = 6;

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// The sum of a figure of a gateway that asks for no key.
fn figure(url: &str, name: &str) -> f64 {
    let text = request(url, "GET", "/metrics", "").expect("figures").body;
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn offers(front: &Server) -> bool {
    let models = request(&front.url, "GET", "/v1/models", "").expect("an answer");
    models.body.contains("\"demo\"")
}

fn body(kind: usize, stream: bool, max_tokens: u32) -> String {
    let words = format!("Tell me story number {kind} about the sea.");
    json!({
        "model": "demo", "stream": stream, "max_tokens": max_tokens, "temperature": 0,
        "ignore_eos": true, "messages": [{ "role": "user", "content": words }],
    })
    .to_string()
}

/// Which node a whole answer is of.
fn answered_by(front: &Server, kind: usize) -> String {
    let answer = request(&front.url, "POST", "/v1/chat/completions", &body(kind, false, 2));
    let answer = answer.expect("sent");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let route = answer.header("x-hearth-route").expect("a route").to_owned();
    let node = route.split("; ").find_map(|part| part.strip_prefix("node="));
    node.expect("a node").to_owned()
}

/// Reads a stream to its end; `begun` is called when some of it is there.
fn hear(url: &str, kind: usize, begun: impl Fn()) -> String {
    let path = "/v1/chat/completions";
    let mut stream = open(url, "POST", path, &body(kind, true, 1_000)).expect("sent");
    assert_eq!(stream.status, 200);
    let (mut said, mut events) = (String::new(), 0);
    while let Some(event) = stream.event().expect("no break") {
        if event == "[DONE]" {
            return said;
        }
        let event: Value = serde_json::from_str(&event).expect("JSON");
        assert!(event.get("error").is_none(), "{event}");
        said.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        events += 1;
        if events == 10 {
            begun();
        }
    }
    panic!("it ended without its last word: {said}");
}

fn joining(front: &Server) -> Server {
    let args = ["node", "--model", "demo", "--listen", "127.0.0.1:0", "--cluster-token", TOKEN];
    Server::start_command(hearth(), &[&args[..], &["--join", &front.url]].concat())
}

#[test]
fn nodes_name_themselves_and_one_that_is_told_to_end_finishes_what_it_has() {
    let front = Server::start(&["--model", "none", "--cluster-token", TOKEN]);
    let mut leaves = joining(&front);
    let mut stays = joining(&front);
    let host = |server: &Server| server.url.trim_start_matches("http://").to_owned();
    until("both are in", || figure(&front.url, "hearth_cluster_node_up") > 1.5);
    until("the model is offered", || offers(&front));
    let expected: Vec<String> = (0..STREAMS).map(|kind| hear(&front.url, kind, || {})).collect();

    let (begun, running) = std::sync::mpsc::sync_channel(STREAMS);
    scope(|scope| {
        let streams: Vec<_> = (0..STREAMS)
            .map(|kind| {
                let (url, begun) = (&front.url, begun.clone());
                scope.spawn(move || hear(url, kind, || begun.send(()).expect("it waits")))
            })
            .collect();
        for _ in 0..STREAMS {
            running.recv_timeout(Duration::from_secs(20)).expect("all run");
        }
        if running_at(&leaves) < 0.5 {
            swap(&mut leaves, &mut stays);
        }
        assert!(running_at(&leaves) > 0.5, "some run there");
        leaves.signal("TERM");
        // It says so within a moment; from then on the other gets what comes. What was sent there
        // within that moment would count as moved below.
        sleep(Duration::from_secs(1));
        assert!((0..3).all(|n| answered_by(&front, 90 + n) == host(&stays)), "elsewhere");
        for (stream, expected) in streams.into_iter().zip(&expected) {
            assert_eq!(&stream.join().expect("no panic"), expected);
        }
    });
    assert_eq!(leaves.wait(), Some(0));
    assert!(figure(&front.url, "hearth_cluster_resumes_total") < 0.5, "none had to move");
    // It names itself no more, and is forgotten.
    until("it is forgotten", || {
        let text = request(&front.url, "GET", "/metrics", "").expect("figures").body;
        !text.contains(&format!("node=\"{}\"", host(&leaves)))
    });
    assert_eq!(answered_by(&front, 7), host(&stays));
}

/// Sequences that run at a node.
fn running_at(node: &Server) -> f64 {
    let name = "hearth_num_requests_running";
    let stream = hearth_tests::http::open_as(&node.url, Some(TOKEN), "GET", "/metrics", "");
    let text = stream.expect("sent").finish().expect("figures").body;
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A folder with certificates, removed in the end.
struct Folder(PathBuf);

impl Folder {
    /// The files of a certificate and its key.
    fn pair(&self, name: &str, pair: &Pair) -> [String; 2] {
        let certificate = put(&self.0, &format!("{name}.pem"), &pair.certificate);
        [certificate, put(&self.0, &format!("{name}.key"), &pair.key)]
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A gateway and a node without a token, each with its certificate; all believe one authority.
#[test]
fn certificates_are_asked_for_on_both_sides() {
    let name = format!("hearth-cluster-doors-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    std::fs::create_dir_all(&folder.0).expect("a folder");
    let (house, other) = (Authority::new("house"), Authority::new("other"));
    let ca = put(&folder.0, "ca.pem", &house.pem());
    let own = folder.pair("own", &house.issue(1, &["ip:127.0.0.1"]));
    let guest = folder.pair("guest", &house.issue(2, &["uri:urn:gateway"]));
    // One of an authority that nobody knows, and one that is made out to another host.
    let strange = folder.pair("strange", &other.issue(3, &["ip:127.0.0.1"]));
    let elsewhere = folder.pair("elsewhere", &house.issue(4, &["ip:127.0.0.2"]));

    let node = |[certificate, key]: &[String; 2]| {
        let args =
            ["node", "--model", "demo", "--listen", "127.0.0.1:0", "--tls-client", "required"];
        let tls = ["--tls-client-ca", &ca, "--tls-cert", certificate, "--tls-key", key];
        Server::start_command(hearth(), &[&args[..], &tls].concat())
    };
    let front = |nodes: &[&Server], [certificate, key]: &[String; 2]| {
        let mut args = vec!["--model", "none", "--cluster-ca", &ca];
        args.extend(["--cluster-cert", certificate, "--cluster-key", key]);
        nodes.iter().for_each(|node| args.extend(["--cluster-node", &node.url]));
        Server::start(&args)
    };
    let nodes = [node(&own), node(&strange), node(&elsewhere)];
    assert!(nodes.iter().all(|node| node.url.starts_with("https://")));
    let known = front(&nodes.each_ref(), &guest);
    let unknown = front(&[&nodes[0]], &strange);
    until("the model is offered", || offers(&known));
    let host = nodes[0].url.trim_start_matches("https://");
    for kind in 0..6 {
        assert_eq!(answered_by(&known, kind), host);
    }
    // A second is time for several attempts at each.
    sleep(Duration::from_secs(1));
    assert!((figure(&known.url, "hearth_cluster_node_up") - 1.0).abs() < 0.5, "one is believed");
    assert!(!offers(&unknown) && figure(&unknown.url, "hearth_cluster_node_up") < 0.5);
}
