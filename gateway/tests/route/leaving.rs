//! Callers that leave, and callers that read slowly: neither costs more than it reads.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use gateway::server::{self, Options};
use prometheus::IntGauge;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::caller::{Inbound, gateway, provider, until};
use crate::speech::{answer, chunk, events, half, stream_head};
use crate::upstream::{Step, Upstream};

/// The gateway behind a socket.
pub(crate) async fn listen(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let open = IntGauge::new("open", "connections").expect("a gauge");
    let never = std::future::pending();
    tokio::spawn(server::serve(listener, router, Options::default(), open, never));
    address
}

pub(crate) async fn asked(address: SocketAddr, key: &str, path: &str, body: &Value) -> TcpStream {
    let mut client = TcpStream::connect(address).await.expect("connected");
    let (body, length) = (body.to_string(), body.to_string().len());
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    client.write_all(format!("{head}{body}").as_bytes()).await.expect("sent");
    client
}

pub(crate) async fn read_until(client: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        assert!(client.read_buf(&mut seen).await.expect("open") > 0, "closed before {text}");
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// A provider's stream ends when its reader leaves, whatever the dialect, wherever it stands.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_ends_the_providers_stream() {
    let upstream = Upstream::start(|_| vec![Step::Silence]).await;
    let config = provider("p", "compatible", &upstream.url, "lost_fields = \"drop\"\n");
    let address = listen(gateway(&config)).await;
    let mut times = 0;
    for inbound in Inbound::ALL {
        for (streams, begun) in [(false, false), (true, false), (true, true)] {
            if begun {
                upstream.turn(|seen| {
                    vec![stream_head(), chunk(half(seen.tongue(), "first")), Step::Silence]
                });
            } else {
                upstream.turn(|_| vec![Step::Silence]);
            }
            let (path, body) = inbound.request("p/m", streams, "hi");
            let before = upstream.count();
            let mut client = asked(address, "", &path, &body).await;
            until("it arrives", || upstream.count() > before).await;
            if begun {
                read_until(&mut client, "from").await;
            }
            drop(client);
            let left = Instant::now();
            times += 1;
            until("the provider is left", || upstream.left() == times).await;
            let took = left.elapsed();
            assert!(took < Duration::from_secs(1), "{inbound:?} {streams} {begun} {took:?}");
        }
    }
}

/// A caller that leaves says nothing of the provider's health.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_makes_nobody_ill() {
    let upstream = Upstream::start(|_| vec![Step::Silence]).await;
    let router = gateway(&provider("p", "compatible", &upstream.url, ""));
    let address = listen(router.clone()).await;
    for times in 1..=5 {
        let (path, body) = Inbound::Chat.request("p/m", true, "hi");
        let client = asked(address, "", &path, &body).await;
        until("it arrives", || upstream.count() == times).await;
        drop(client);
        until("the provider is left", || upstream.left() == times).await;
    }
    upstream.turn(|seen| crate::speech::good(seen, "well"));
    let got = crate::caller::ask(&router, Inbound::Chat, "p/m", true).await;
    assert_eq!(got.status, 200, "{}", got.text());
}

/// A provider is held back by a caller that does not read: what it has got rid of lies in the
/// buffers of sockets, not in this process.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_the_provider_back() {
    for inbound in [Inbound::Chat, Inbound::Messages] {
        let upstream = Upstream::start(|seen| {
            let event = &events(seen.tongue(), "first")[1];
            let many = event.repeat((64 << 10) / event.len());
            let Step::Bytes(bytes) = chunk(many) else { unreachable!("a chunk is bytes") };
            vec![stream_head(), Step::Endless(bytes)]
        })
        .await;
        let config = provider("p", "compatible", &upstream.url, "lost_fields = \"drop\"\n");
        let address = listen(gateway(&config)).await;
        let (path, body) = inbound.request("p/m", true, "hi");
        let mut client = asked(address, "", &path, &body).await;
        read_until(&mut client, "Hello").await;
        // It stands still when nothing more goes out for half a second.
        let mut before = 0;
        let mut still = 0;
        while still < 10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = upstream.written();
            still = if now == before { still + 1 } else { 0 };
            before = now;
            assert!(now < 32 << 20, "{inbound:?}: {now} bytes went to a caller that reads nothing");
        }
        // Whoever reads on gets more.
        let mut sink = vec![0; 1 << 20];
        for _ in 0..64 {
            assert!(client.read(&mut sink).await.expect("open") > 0);
        }
        until("it goes on", || upstream.written() > before).await;
        drop(client);
        until("the provider is left", || upstream.left() == 1).await;
    }
}

/// The connection to a provider is used again, also behind a refusal.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_costs_no_connection() {
    let upstream = Upstream::start(|_| answer(400, "", b"{\"error\":{\"message\":\"no\"}}")).await;
    let router = gateway(&provider("p", "compatible", &upstream.url, ""));
    for _ in 0..5 {
        assert_eq!(crate::caller::ask(&router, Inbound::Chat, "p/m", false).await.status, 400);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((upstream.count(), upstream.connections()), (5, 1));
}
