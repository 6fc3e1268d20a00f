//! The real binary from outside: start, memory, prefix cache, hang-ups, overload, drain, a port
//! that is taken, kill -9. What a user would notice, not how it is done.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use hearth_tests::http::{open, raw, request};
use hearth_tests::server::{Server, hearth};
use serde_json::{Value, json};

fn chat(content: &str, more: &Value) -> String {
    let mut body = json!({
        "model": "demo",
        "messages": [{ "role": "user", "content": content }],
        "temperature": 0,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body.to_string()
}

/// A request that runs until someone stops it or the context is full.
fn endless(seed: u32) -> String {
    let more = json!({ "stream": true, "ignore_eos": true, "max_tokens": 1500, "seed": seed });
    chat("Tell me a story.", &more)
}

fn metric(server: &Server, name: &str) -> f64 {
    let text = request(&server.url, "GET", "/metrics", "").expect("metrics").body;
    text.lines()
        .filter(|l| l.starts_with(name) && !l.starts_with('#'))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        std::thread::yield_now();
    }
}

fn json_of(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"))
}

#[test]
fn starts_small_and_answers() {
    let server = Server::start(&[]);
    let answer =
        request(&server.url, "POST", "/v1/chat/completions", &chat("Sing something", &json!({})))
            .expect("answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let text = json_of(&answer.body)["choices"][0]["message"]["content"].clone();
    assert_eq!(text, "La la la! I am a little model, and I sing a little song.");
    let resident = metric(&server, "process_resident_memory_bytes");
    // 83e6 in a release build; the code of this one, unoptimised, is more than twice as large.
    assert!(resident > 1e6 && resident <= 140e6, "{resident} bytes resident");
    for path in ["/health", "/ready", "/v1/models", "/"] {
        assert_eq!(request(&server.url, "GET", path, "").expect("answer").status, 200, "{path}");
    }
    let banner = server.banner.join("\n");
    assert!(banner.contains("loopback") || banner.contains("this machine"), "{banner}");
}

/// Threads of a process by the names that they gave themselves.
fn threads(server: &Server, name: &str) -> usize {
    let all = std::fs::read_dir(format!("/proc/{}/task", server.id())).expect("its threads");
    let names = all.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|own| own.trim() == name).count()
}

#[test]
fn the_server_has_as_many_threads_as_it_is_told() {
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    for (args, expect) in [(&["--server-threads", "5"][..], 5), (&[], (usable / 2).clamp(2, 16))] {
        let server = Server::start(args);
        // Others of that name are for what blocks: they come when something does, and go again; and
        // a thread that begins has its parent's name for a moment.
        wait_until("its threads", || (expect..=expect + 4).contains(&threads(&server, "gateway")));
    }
}

#[test]
fn a_second_identical_prompt_comes_from_the_prefix_cache() {
    let server = Server::start(&[]);
    let words = "The code of the red door is 4711. ".repeat(90);
    let body = chat(&format!("{words}What is the code?"), &json!({ "max_tokens": 4 }));
    let ask = || {
        let answer = request(&server.url, "POST", "/v1/chat/completions", &body).expect("answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        json_of(&answer.body)
    };
    let (first, second) = (ask(), ask());
    let cached = |a: &Value| a["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    let prompt = first["usage"]["prompt_tokens"].as_u64().expect("prompt tokens");
    assert!(prompt > 1000, "{prompt} tokens");
    assert_eq!(cached(&first), Some(0));
    assert!(cached(&second) >= Some(prompt - 16 - prompt % 16), "{second}");
    assert_eq!(first["choices"], second["choices"], "the cache does not change the answer");
}

#[test]
fn a_client_that_hangs_up_frees_its_place() {
    let server = Server::start(&[]);
    let mut streams: Vec<_> = (0..8)
        .map(|i| open(&server.url, "POST", "/v1/chat/completions", &endless(i)).expect("stream"))
        .collect();
    for stream in &mut streams {
        assert_eq!(stream.status, 200);
        stream.event().expect("first event").expect("a stream that has begun");
    }
    drop(streams);
    wait_until("no request runs", || {
        metric(&server, "hearth_num_requests_running") == 0.0
            && metric(&server, "hearth_num_requests_waiting") == 0.0
    });
    let free = metric(&server, "hearth_kv_cache_pages{model=\"demo\",state=\"free\"}");
    let cached = metric(&server, "hearth_kv_cache_pages{model=\"demo\",state=\"cached\"}");
    let total = metric(&server, "hearth_kv_cache_pages{model=\"demo\",state=\"total\"}");
    assert!(total > 0.0 && (free + cached - total).abs() < 0.5, "{free} + {cached} of {total}");
}

#[test]
fn too_many_requests_are_told_when_to_come_back() {
    let server = Server::start(&["--rows-max", "1", "--queue-max", "1"]);
    let mut streams = Vec::new();
    let mut refused = None;
    for i in 0..8 {
        let stream =
            open(&server.url, "POST", "/v1/chat/completions", &endless(i)).expect("answer");
        if stream.status == 429 {
            refused = Some(stream.finish().expect("body"));
            break;
        }
        streams.push(stream);
    }
    let refused = refused.expect("a 429 within 8 requests");
    let after: u64 = refused.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=60).contains(&after), "{after}");
    assert!(json_of(&refused.body)["error"]["message"].is_string(), "{}", refused.body);
    drop(streams);
    wait_until("a place is free again", || {
        let body = chat("Hi", &json!({ "max_tokens": 1 }));
        request(&server.url, "POST", "/v1/chat/completions", &body).expect("answer").status == 200
    });
}

#[test]
fn sigterm_lets_streams_end_and_then_the_process_ends() {
    let mut server = Server::start(&["--drain", "60s"]);
    let body = chat(
        "Tell me a story.",
        &json!({ "stream": true, "ignore_eos": true,
        "max_tokens": 200 }),
    );
    let mut streams: Vec<_> = (0..10)
        .map(|_| open(&server.url, "POST", "/v1/chat/completions", &body).expect("stream"))
        .collect();
    for stream in &mut streams {
        stream.event().expect("first event").expect("a stream that has begun");
    }
    signal(server.id(), "TERM");
    let ends: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            let mut last = String::new();
            while let Some(event) = stream.event().expect("the stream is not cut") {
                last = event;
            }
            last
        })
        .collect();
    assert_eq!(ends, vec!["[DONE]"; 10], "every stream came to its own end");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start(&["--drain", "10m"]);
    let mut stream =
        open(&server.url, "POST", "/v1/chat/completions", &endless(1)).expect("stream");
    stream.event().expect("first event");
    signal(server.id(), "TERM");
    wait_until("the server drains", || {
        raw(&server.url, b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .map_or(true, |s| s.status == 503)
    });
    signal(server.id(), "TERM");
    assert_ne!(server.wait(), Some(0), "an interrupted drain is not a clean end");
}

fn signal(id: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), id.to_string()]).status();
    assert!(status.expect("kill runs").success());
}

#[test]
fn a_taken_port_and_bad_flags_say_what_to_do() {
    let server = Server::start(&[]);
    let address = server.url.trim_start_matches("http://").to_owned();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["serve", "--listen", &address], 78, "in use"),
        (&["serve", "--listen", "0.0.0.0:0"], 64, "key"),
        (&["serve", "--modle", "demo"], 64, "--model"),
        (&["serve", "--threads", "none"], 64, "threads"),
        (&["serve", "--listen", "127.0.0.1:0", "--model", "/nonexistent"], 64, "/nonexistent"),
        (&["frobnicate"], 64, "frobnicate"),
    ];
    for (args, code, says) in cases {
        let out = Command::new(hearth())
            .args(*args)
            .env_remove("HEARTH_API_KEY")
            .output()
            .expect("hearth runs");
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(*code), "{args:?}: {text}");
        assert!(text.contains(says), "{args:?} must say {says:?}: {text}");
        assert!(!text.contains("panicked"), "{args:?}: {text}");
    }
}

#[test]
fn hostile_bytes_do_not_disturb_others() {
    let server = Server::start(&[]);
    let mut bystander =
        open(&server.url, "POST", "/v1/chat/completions", &endless(7)).expect("stream");
    bystander.event().expect("first event");
    let large = format!("{{\"model\":\"demo\",\"messages\":\"{}\"}}", "x".repeat(20 << 20));
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: ";
    let cases: Vec<(Vec<u8>, Option<u16>)> = vec![
        (format!("{head}{}\r\n\r\n{large}", large.len()).into_bytes(), Some(413)),
        (format!("{head}3\r\n\r\n{{{{{{").into_bytes(), Some(400)),
        ([format!("{head}4\r\n\r\n").as_bytes(), &[0xff, 0xfe, 0x80, 0x81]].concat(), Some(400)),
        (b"GET / HTTP/9.9\r\n\r\n".to_vec(), None),
        (b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), None),
    ];
    for (bytes, status) in cases {
        // The server may close while a large body is still being sent; then no answer is read.
        if let (Ok(stream), Some(status)) = (raw(&server.url, &bytes), status) {
            assert_eq!(stream.status, status);
        }
    }
    for _ in 0..20 {
        assert!(bystander.event().expect("still streaming").is_some());
    }
}

/// What one connection answers to these bytes, until it is closed or silent: the statuses, and
/// whether it is closed.
fn answers(server: &Server, bytes: &[u8]) -> (Vec<String>, bool) {
    let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).expect("open");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a clock");
    socket.write_all(bytes).expect("written");
    let mut all = Vec::new();
    let closed = match socket.read_to_end(&mut all) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    let text = String::from_utf8_lossy(&all);
    let heads = text.split("HTTP/1.1 ").skip(1).map(|head| head[..3].to_owned());
    (heads.collect(), closed)
}

/// Where two readers could tell a request's end differently, nothing behind it is read as another.
#[test]
fn nobody_smuggles_a_request() {
    const NEXT: &str = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
    const EMPTY: &str = "0\r\n\r\n";
    let server = Server::start(&[]);
    let post = |fields: &str, body: &str| {
        let head = "POST /tokenize HTTP/1.1\r\nhost: localhost\r\n\
                    content-type: application/json\r\n";
        answers(&server, format!("{head}{fields}\r\n{body}{NEXT}").as_bytes())
    };
    let sound = (vec!["400".to_owned(), "404".to_owned()], false);
    assert_eq!(post("content-length: 2\r\n", "{}"), sound, "two requests in their order");
    assert_eq!(post("transfer-encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), sound);
    let refused = (vec!["400".to_owned()], true);
    for (fields, body) in [
        ("content-length: 5\r\ntransfer-encoding: chunked\r\n", EMPTY),
        ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", EMPTY),
        ("content-length: 5\r\ncontent-length: 0\r\n", ""),
        ("content-length: 2, 2\r\n", "{}"),
        ("content-length: +2\r\n", "{}"),
        ("content-length : 2\r\n", "{}"),
        ("transfer-encoding: identity\r\n", ""),
        ("transfer-encoding: xchunked\r\n", EMPTY),
        ("transfer-encoding: chunked, identity\r\n", EMPTY),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", EMPTY),
        ("transfer-encoding: \u{b}chunked\r\n", EMPTY),
        ("transfer-encoding : chunked\r\n", EMPTY),
        ("transfer-encoding:\r\n chunked\r\n", EMPTY),
        ("x: a\r\n transfer-encoding: chunked\r\n", EMPTY),
        ("x: a\rcontent-length: 2\r\n", "{}"),
        ("x: a\0b\r\ncontent-length: 2\r\n", "{}"),
        ("transfer-encoding: chunked\r\n", "FFFFFFFFFFFFFFFFF\r\n"),
        ("transfer-encoding: chunked\r\n", "-1\r\n"),
        ("transfer-encoding: chunked\r\n", "0x2\r\n{}\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked\r\n", "2\n{}\n0\n\n"),
        ("transfer-encoding: chunked\r\n", "2;a\n{}\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked\r\n", "2\r\n{}XX0\r\n\r\n"),
    ] {
        assert_eq!(post(fields, body), refused, "{fields:?} {body:?}");
    }
}
