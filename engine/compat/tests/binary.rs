//! The binary with a real, tiny model, over real sockets. The model is the folder that
//! HEARTH_COMPAT_TEST_MODEL names (any text model with a chat template); without it the test says
//! so and does nothing, because this workspace carries no model of its own.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const VARIABLE: &str = "HEARTH_COMPAT_TEST_MODEL";
const KEY: &str = "a key";

struct Running {
    child: Child,
    address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the binary and waits until it is ready.
fn start(model: &str, more: &[&str]) -> Running {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hearth-compat"))
        .args([model, "--name", "tiny", "--listen", "127.0.0.1:0"])
        .args(more)
        .env("COMPAT_KEY", KEY)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut said = String::new();
    let address = lines
        .find_map(|line| {
            let line = line.expect("text");
            let found = line.split_once("http://").map(|(_, rest)| rest.to_owned());
            said += &line;
            found
        })
        .unwrap_or_else(|| panic!("no address: {said}"));
    let address = address.split(';').next().expect("a part").to_owned();
    // Whatever else it says is passed on, so that the pipe never fills.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| println!("{line}")));
    let running = Running { child, address };
    let begun = Instant::now();
    while get(&running, "/ready").0 != 200 {
        assert!(begun.elapsed() < Duration::from_secs(120), "not ready after two minutes");
        sleep(Duration::from_millis(50));
    }
    running
}

fn connect(running: &Running, head: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(&running.address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout");
    let head = format!("{head}\r\nhost: localhost\r\nconnection: close\r\n");
    stream.write_all(head.as_bytes()).expect("written");
    stream.write_all(b"\r\n").and_then(|()| stream.write_all(body)).expect("written");
    stream
}

/// Status and everything after the head (chunk sizes of a stream included).
fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    (head[9..12].parse().expect("a status"), body.to_owned())
}

fn get(running: &Running, path: &str) -> (u16, String) {
    let head = format!("GET {path} HTTP/1.1\r\nauthorization: Bearer {KEY}");
    answer(connect(running, &head, b""))
}

fn head(length: usize) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer {KEY}\r\n\
         content-type: application/json\r\ncontent-length: {length}"
    )
}

fn post(running: &Running, change: &Value) -> TcpStream {
    let mut body = json!({
        "model": "tiny", "temperature": 0, "max_tokens": 12,
        "messages": [{"role": "user", "content": "Where do boats come in?"}],
    });
    for (name, value) in change.as_object().expect("an object") {
        body[name] = value.clone();
    }
    let body = body.to_string().into_bytes();
    connect(running, &head(body.len()), &body)
}

fn chat(running: &Running, change: &Value) -> (u16, Value) {
    let (status, body) = answer(post(running, change));
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

/// The events of a stream, without `[DONE]`, which must be there.
fn events(running: &Running, change: &Value) -> Vec<Value> {
    let (status, body) = answer(post(running, change));
    assert_eq!(status, 200, "{body}");
    let data: Vec<_> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let (done, events) = data.split_last().expect("events");
    assert_eq!(*done, "[DONE]", "{body}");
    events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
}

#[test]
fn a_tiny_model_answers() {
    let Some(model) = env::var_os(VARIABLE).and_then(|path| path.into_string().ok()) else {
        println!("skipped: {VARIABLE} names no model folder");
        return;
    };
    let mut running = start(&model, &["--api-key-env", "COMPAT_KEY", "--max-concurrent", "1"]);
    answers_whole_and_streamed_are_one(&running);
    what_cannot_be_done_is_refused(&running);
    places_are_given_back(&running);

    let pid = running.child.id().to_string();
    let signalled = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
    assert!(signalled.success());
    assert!(running.child.wait().expect("it ends").success(), "SIGTERM ends it cleanly");
}

fn answers_whole_and_streamed_are_one(running: &Running) {
    assert_eq!(get(running, "/health").0, 200);
    let (status, models) = get(running, "/v1/models");
    assert!(status == 200 && models.contains(r#""id":"tiny""#), "{models}");

    let (status, whole) = chat(running, &json!({}));
    println!("{whole}");
    assert_eq!(status, 200, "{whole}");
    let text = whole["choices"][0]["message"]["content"].as_str().expect("text").to_owned();
    assert!(!text.is_empty());
    let drawn = whole["usage"]["completion_tokens"].as_u64().expect("a number");
    let finish = if drawn == 12 { "length" } else { "stop" };
    assert!((1..=12).contains(&drawn) && whole["choices"][0]["finish_reason"] == finish, "{whole}");

    let stream = json!({"stream": true, "stream_options": {"include_usage": true}});
    let events = events(running, &stream);
    let pieces = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str());
    assert_eq!(pieces.collect::<String>(), text, "streamed as whole");
    let last = events.last().expect("a last event");
    assert_eq!(last["usage"], whole["usage"], "{last}");

    // A stop string in the middle ends the text right before it.
    let (middle, _) = text.char_indices().nth(text.chars().count() / 2).expect("a middle");
    let stop = &text[middle..].chars().take(2).collect::<String>();
    let (_, cut) = chat(running, &json!({"stop": stop}));
    let expect = &text[..text.find(stop).expect("it is there")];
    assert_eq!(cut["choices"][0]["message"]["content"], expect, "{cut}");
    assert_eq!(cut["choices"][0]["finish_reason"], "stop", "{cut}");

    // Without a limit an answer ends at the end token or with the context, never with a fault.
    let (status, long) = chat(running, &json!({"max_tokens": null}));
    assert_eq!(status, 200, "{long}");
    println!("unlimited: {} {}", long["choices"][0]["finish_reason"], long["usage"]);
}

fn what_cannot_be_done_is_refused(running: &Running) {
    let image = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAkQBADs=";
    let part = json!({"type": "image_url", "image_url": {"url": image}});
    let with_image = json!({"messages": [{"role": "user", "content": [part]}]});
    for (change, status, param) in [
        (json!({"seed": 1}), 400, "seed"),
        (json!({"n": 2}), 400, "n"),
        (json!({"model": "other"}), 404, "model"),
        (json!({"max_tokens": 4_000_000_000_u32}), 400, "max_tokens"),
        (with_image, 400, "messages"),
    ] {
        let (got, body) = chat(running, &change);
        assert_eq!((got, body["error"]["param"].as_str()), (status, Some(param)), "{body}");
    }
    let long = json!({"messages": [{"role": "user", "content": "boats ".repeat(2000)}]});
    assert_eq!(chat(running, &long).0, 400, "a prompt beyond the context");
    assert_eq!(answer(connect(running, &head(1 << 40), b"")).0, 413);
    assert_eq!(get(running, "/v1/nothing").0, 404);
    assert_eq!(get(running, "/v1/chat/completions").0, 405);
    assert_eq!(answer(connect(running, "GET /v1/models HTTP/1.1", b"")).0, 401);
}

/// One place: a request that is being sent holds it, a client that hangs up gives it back.
fn places_are_given_back(running: &Running) {
    let begun = Instant::now();
    // Either of two requests may come first; whoever comes second is told 429.
    let slow = loop {
        let slow = connect(running, &head(100), b"{");
        sleep(Duration::from_millis(50));
        if chat(running, &json!({"max_tokens": 1})).0 == 429 {
            break slow;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "a second request is let in");
    };
    drop(slow);
    free_again(running);
    let mut half = post(running, &json!({"stream": true, "max_tokens": 200}));
    half.read_exact(&mut [0; 64]).expect("the stream begins");
    drop(half);
    free_again(running);
}

fn free_again(running: &Running) {
    let begun = Instant::now();
    while chat(running, &json!({"max_tokens": 1})).0 != 200 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the place is not given back");
        sleep(Duration::from_millis(10));
    }
}
