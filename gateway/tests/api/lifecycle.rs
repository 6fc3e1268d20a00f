//! What happens over time: clients that leave, servers that are full, stop or break.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use futures_util::{StreamExt, stream};
use gateway::server::{self, Options};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::{get, open, post};
use super::fake::{Fake, Setup};

const PATH: &str = "/v1/chat/completions";

pub(crate) struct Socket {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

pub(crate) async fn listen(fake: &Fake, options: Options) -> Socket {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let open = fake.metrics.connections().clone();
    let router = fake.router.clone();
    let server = tokio::spawn(async move {
        let stop = async { drop(stopped.await) };
        server::serve(listener, router, options, open, stop).await
    });
    Socket { address, stop, server }
}

pub(crate) fn request(extra: &Value) -> String {
    let mut body = json!({"model": "org/fake", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body.to_string()
}

pub(crate) fn http(body: &str) -> String {
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads until the text is there.
pub(crate) async fn until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.expect("the connection is open");
        seen.extend_from_slice(&buffer[..read]);
        let all = String::from_utf8_lossy(&seen);
        if all.contains(text) {
            return all.into_owned();
        }
        assert!(read > 0, "closed before {text:?}: {all}");
    }
}

pub(crate) fn endless() -> Setup {
    Setup { endless: true, pace: Duration::from_millis(2), ..Setup::default() }
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_engine() {
    for stream in [true, false] {
        let fake = Fake::start(endless());
        let socket = listen(&fake, Options::default()).await;
        let mut client = TcpStream::connect(socket.address).await.expect("connected");
        let body = request(&json!({"stream": stream, "max_tokens": 4000}));
        client.write_all(http(&body).as_bytes()).await.expect("sent");
        while fake.steps.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        if stream {
            until(&mut client, "Hello").await;
        }
        drop(client);
        let left = Instant::now();
        fake.idle().await;
        assert!(left.elapsed() < Duration::from_secs(4), "the whole answer was made");
        // The engine hears of it with its next launch, which needs another request.
        post(&fake.router, PATH, request(&json!({"max_tokens": 1}))).await;
        assert!(fake.ends.load(Ordering::SeqCst) >= 1);
    }
}

#[tokio::test]
async fn a_stop_string_frees_the_engine() {
    let fake = Fake::start(endless());
    let body = request(&json!({"max_tokens": 4000, "stop": "two"}));
    let answer = post(&fake.router, PATH, body).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello w\u{f6}rld, one ");
    assert!(answer["usage"]["completion_tokens"].as_u64().expect("a count") < 12, "{answer}");
}

/// Guards against a bound on the work per write that drops the event it stops at.
#[tokio::test]
async fn a_late_reader_loses_nothing() {
    for tokens in [1000, 1022, 1023, 1024, 1025, 2048, 4000] {
        let fake = Fake::start(Setup { endless: true, ..Setup::default() });
        let body = request(&json!({"stream": true, "max_tokens": tokens, "n": 2,
            "stream_options": {"include_usage": true}}));
        let answer = open(&fake.router, PATH, body).await;
        // All events lie ready before the first of them is read.
        fake.idle().await;
        let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
        let body = String::from_utf8(body.to_vec()).expect("UTF-8");
        let (mut claimed, mut dots) = (0, [0; 2]);
        for data in body.lines().filter_map(|line| line.strip_prefix("data: {")) {
            let chunk: Value = serde_json::from_str(&format!("{{{data}")).expect("JSON");
            claimed += chunk["usage"]["completion_tokens"].as_u64().unwrap_or(0);
            for choice in chunk["choices"].as_array().expect("choices") {
                let at = usize::try_from(choice["index"].as_u64().expect("index")).expect("small");
                let text = choice["delta"]["content"].as_str().unwrap_or_default();
                dots[at] += text.matches('.').count();
            }
        }
        // The speech is ten tokens, of which the last is the first dot.
        assert_eq!((claimed, dots), (2 * tokens, [usize::try_from(tokens).expect("small") - 9; 2]));
        assert!(body.ends_with("data: [DONE]\n\n"));
    }
}

#[tokio::test]
async fn a_full_server_says_when_to_come_back() {
    let fake = Fake::start(Setup { rows: 1, waiting: 1, ..endless() });
    fake.gate.close();
    let mut asked = Vec::new();
    for _ in 0..2 {
        let router = fake.router.clone();
        asked.push(tokio::spawn(async move {
            post(&router, PATH, request(&json!({"max_tokens": 5}))).await
        }));
    }
    let model = fake.models.first().expect("the fake");
    while model.engine.open() < 2 {
        tokio::task::yield_now().await;
    }
    let refused = post(&fake.router, PATH, request(&json!({}))).await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    let seconds = refused.headers["retry-after"].to_str().expect("text");
    assert!(seconds.parse::<u64>().expect("a number") >= 1);
    fake.gate.open();
    for answer in asked {
        assert_eq!(answer.await.expect("answered").status, 200);
    }
}

#[tokio::test]
async fn requests_at_once_are_bounded() {
    let mut setup = endless();
    setup.limits.requests_max = 1;
    let fake = Fake::start(setup);
    fake.gate.close();
    let router = fake.router.clone();
    let first = tokio::spawn(async move {
        post(&router, PATH, request(&json!({"max_tokens": 2}))).await.status
    });
    let model = fake.models.first().expect("the fake");
    while model.engine.open() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&fake.router, "/v1/models").await.status, 429);
    assert_eq!(get(&fake.router, "/health").await.status, 200);
    fake.gate.open();
    assert_eq!(first.await.expect("answered"), 200);
    assert_eq!(get(&fake.router, "/v1/models").await.status, 200);
}

#[tokio::test]
async fn a_silent_stream_pings_and_a_broken_one_has_no_done() {
    let mut setup = Setup { fail_at: Some(4), ..endless() };
    setup.limits.ping_every = Duration::from_millis(20);
    let fake = Fake::start(setup);
    fake.gate.close();
    let gate = Arc::clone(&fake.gate);
    let opener = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        gate.open();
    });
    let body = request(&json!({"stream": true, "max_tokens": 100}));
    let answer = post(&fake.router, PATH, body).await;
    opener.await.expect("opened");
    assert_eq!(answer.status, 200);
    let first = answer.body.find("\"role\":\"assistant\"").expect("a role");
    let ping = answer.body.find(": ping\n\n").expect("a ping");
    assert!(first < ping, "{}", answer.body);
    assert!(answer.body.contains("Hello"), "{}", answer.body);
    let last = answer.body.trim_end().rsplit("\n\n").next().expect("an event");
    assert!(last.starts_with("data: {\"error\":{\"message\":"), "{last}");
    assert!(!answer.body.contains("[DONE]"));
    // Whoever asks now is told that the model is gone.
    let after = post(&fake.router, PATH, request(&json!({}))).await;
    assert_eq!(after.status, 503, "{}", after.body);
    assert_eq!(get(&fake.router, "/ready").await.status, 503);
}

#[tokio::test]
async fn half_a_request_is_closed() {
    let mut setup = Setup::default();
    setup.limits.body_idle = Duration::from_millis(100);
    let fake = Fake::start(setup);
    let quick = Duration::from_millis(150);
    let options = Options { first_head: quick, later_head: quick, ..Options::default() };
    let socket = listen(&fake, options).await;
    for half in ["", "P", "PRI * HT", "POST / HTTP/1.1\r\nhost: localhost\r\n"] {
        let mut client = TcpStream::connect(socket.address).await.expect("connected");
        client.write_all(half.as_bytes()).await.expect("sent");
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut rest));
        let _ = read.await.expect("the server closes");
    }
    // Half a body is answered, since its head was whole.
    let mut client = TcpStream::connect(socket.address).await.expect("connected");
    let head = http(&request(&json!({}))).replace("\"hi\"", "");
    client.write_all(&head.as_bytes()[..head.len() - 10]).await.expect("sent");
    let answer = until(&mut client, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // The last connection has just been answered and may still be closing.
    for _ in 0..400 {
        if fake.metrics.connections().get() <= 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} connections are held", fake.metrics.connections().get());
}

#[tokio::test]
async fn a_connection_outlives_its_stream() {
    let fake = Fake::start(Setup::default());
    let socket = listen(&fake, Options::default()).await;
    let mut client = TcpStream::connect(socket.address).await.expect("connected");
    let body = request(&json!({"stream": true}));
    for _ in 0..3 {
        client.write_all(http(&body).as_bytes()).await.expect("sent");
        let answer = until(&mut client, "[DONE]\n\n\r\n0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn both_http_versions_are_spoken() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fake = Fake::start(Setup::default());
    let socket = listen(&fake, Options::default()).await;
    let url = format!("http://{}{PATH}", socket.address);
    for builder in [
        reqwest::Client::builder().http1_only(),
        reqwest::Client::builder().http2_prior_knowledge(),
    ] {
        let client = builder.no_proxy().build().expect("a client");
        let body = request(&json!({"stream": true}));
        let answer = client.post(&url).body(body).send().await.expect("answered");
        assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
        let text = answer.text().await.expect("a whole body");
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    }
}

#[tokio::test]
async fn a_stop_lets_streams_end_and_then_cuts_them() {
    for (max_tokens, ends_well) in [(200, true), (4000, false)] {
        let fake = Fake::start(endless());
        let drain = Duration::from_secs(if ends_well { 30 } else { 1 });
        let socket = listen(&fake, Options { drain, ..Options::default() }).await;
        let mut client = TcpStream::connect(socket.address).await.expect("connected");
        let body = request(&json!({"stream": true, "max_tokens": max_tokens}));
        client.write_all(http(&body).as_bytes()).await.expect("sent");
        until(&mut client, "Hello").await;
        socket.stop.send(()).expect("the server listens");
        let mut rest = String::new();
        let read = client.read_to_string(&mut rest).await;
        assert_eq!(rest.contains("[DONE]"), ends_well, "{read:?}");
        socket.server.await.expect("no panic").expect("no error");
        assert!(TcpStream::connect(socket.address).await.is_err(), "nobody listens any more");
        fake.idle().await;
    }
}

#[tokio::test]
async fn a_draining_engine_refuses_and_finishes() {
    let fake = Fake::start(endless());
    let router = fake.router.clone();
    let open =
        tokio::spawn(async move { post(&router, PATH, request(&json!({"max_tokens": 50}))).await });
    let model = fake.models.first().expect("the fake");
    while model.engine.open() == 0 {
        tokio::task::yield_now().await;
    }
    let drained = {
        let model = Arc::clone(&model);
        tokio::spawn(async move { model.engine.drain(Duration::from_secs(20)).await })
    };
    while get(&fake.router, "/ready").await.status == 200 {
        tokio::task::yield_now().await;
    }
    let refused = post(&fake.router, PATH, request(&json!({}))).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(open.await.expect("answered").status, 200);
    assert!(drained.await.expect("drained"));
}

/// What an answer does when it is given up, such as book what it has cost, is done when the server
/// says that it has stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_stopped_has_dropped_its_answers() {
    struct Books(Arc<AtomicBool>);
    impl Drop for Books {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(200));
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let booked = Arc::new(AtomicBool::new(false));
    let own = Arc::clone(&booked);
    let router = Router::new().fallback(move || {
        let books = Books(Arc::clone(&own));
        let first = stream::iter([Ok::<_, Infallible>("begun")]);
        let endless = stream::unfold(books, |books| async move {
            std::future::pending::<()>().await;
            Some((Ok("never"), books))
        });
        std::future::ready(Body::from_stream(first.chain(endless)))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let options = Options { drain: Duration::from_millis(20), ..Options::default() };
    let gauge = prometheus::IntGauge::new("open", "open").expect("a gauge");
    let (stop, stopped) = oneshot::channel::<()>();
    let server = server::serve(listener, router, options, gauge, async { drop(stopped.await) });
    let client = async {
        let mut client = TcpStream::connect(address).await.expect("connected");
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        until(&mut client, "begun").await;
        stop.send(()).expect("it runs");
        client
    };
    // Not a task of its own, which would wait for the thread that drops the answer.
    let (served, _client) = tokio::join!(server, client);
    served.expect("a good end");
    assert!(booked.load(Ordering::SeqCst));
}
