//! Clients that take room from others: silent connections, unread answers, bodies without end.

use std::time::Duration;

use gateway::server::Options;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::fake::{Fake, Setup};
use super::lifecycle::{endless, http, listen, request, until};

const PATIENCE: Duration = Duration::from_secs(20);

async fn get(client: &mut TcpStream, path: &str) -> String {
    let ask = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    client.write_all(ask.as_bytes()).await.expect("sent");
    timeout(PATIENCE, until(client, "\r\n\r\n")).await.expect("answered at once")
}

#[tokio::test]
async fn silent_connections_make_room_and_busy_ones_stay() {
    let fake = Fake::start(endless());
    let options = Options { connections_max: 3, ..Options::default() };
    let socket = listen(&fake, options).await;
    let connect = || async { TcpStream::connect(socket.address).await.expect("connected") };
    // One streams, one has asked before and is silent, one never asked.
    let mut streams = connect().await;
    let body = request(&json!({"stream": true, "max_tokens": 4000}));
    streams.write_all(http(&body).as_bytes()).await.expect("sent");
    until(&mut streams, "Hello").await;
    let mut asked = connect().await;
    get(&mut asked, "/health").await;
    let mut silent = connect().await;
    for _ in 0..10 {
        // Far more than there are places, and none leaves by itself.
        let mut next = connect().await;
        assert!(get(&mut next, "/health").await.starts_with("HTTP/1.1 200"));
        std::mem::forget(next.into_std());
    }
    for gone in [&mut asked, &mut silent] {
        let read = timeout(PATIENCE, gone.read_to_end(&mut Vec::new())).await;
        let _ = read.expect("closed, with or without a word");
    }
    until(&mut streams, "two").await;
    assert!(fake.metrics.connections().get() <= 3);
}

/// Who has just come in is about to ask, and is not sent away for the next.
#[tokio::test]
async fn whoever_has_just_come_in_is_answered() {
    let fake = Fake::start(endless());
    let options = Options { connections_max: 2, ..Options::default() };
    let socket = listen(&fake, options).await;
    let all = (0..40).map(|_| async {
        let mut client = TcpStream::connect(socket.address).await.expect("connected");
        // The way of a request, while others stand in line.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let answered = get(&mut client, "/health").await;
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered:?}");
    });
    timeout(PATIENCE, futures_util::future::join_all(all)).await.expect("all are answered");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_dropped() {
    let fake = Fake::start(Setup { endless: true, ..Setup::default() });
    let options = Options { write_stall: Duration::from_millis(200), ..Options::default() };
    let socket = listen(&fake, options).await;
    let narrow = TcpSocket::new_v4().expect("a socket");
    narrow.set_recv_buffer_size(2048).expect("a small buffer");
    let mut client = narrow.connect(socket.address).await.expect("connected");
    let wishes = json!({"stream": true, "n": 64, "logprobs": true, "max_tokens": 4000});
    client.write_all(http(&request(&wishes)).as_bytes()).await.expect("sent");
    let held = || fake.metrics.connections().get() > 0;
    let gone = async {
        while !held() {
            tokio::task::yield_now().await;
        }
        while held() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the server gives up");
}

#[tokio::test]
async fn large_bodies_share_one_room() {
    const BODY: usize = 1 << 20;
    let mut setup = Setup::default();
    (setup.limits.body_bytes_max, setup.limits.bodies_bytes_max) = (BODY, 2 * BODY);
    let fake = Fake::start(setup);
    let socket = listen(&fake, Options::default()).await;
    let connect = || async { TcpStream::connect(socket.address).await.expect("connected") };
    // Two of the largest fit. They never end, so a third finds no room.
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {BODY}\r\n\r\n"
    );
    let part = vec![b' '; BODY - 1];
    let hold = || async {
        let mut client = connect().await;
        client.write_all(head.as_bytes()).await.expect("sent");
        client.write_all(&part).await.expect("sent");
        client
    };
    let ask = http(&request(&json!({"max_tokens": 1})));
    let answer = || async {
        let mut client = connect().await;
        client.write_all(ask.as_bytes()).await.expect("sent");
        until(&mut client, "}}").await
    };
    // A small one that comes before the large ones are read takes the last room that these need:
    // then one of them is refused, and both have to come again.
    let full = async {
        let mut pause = Duration::from_millis(20);
        loop {
            let holders = (hold().await, hold().await);
            tokio::time::sleep(pause).await;
            let answer = answer().await;
            if answer.starts_with("HTTP/1.1 429") {
                return (holders, answer);
            }
            pause *= 2;
        }
    };
    let (holders, refused) = timeout(PATIENCE, full).await.expect("no room");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    drop(holders);
    // Their end may still be on its way.
    let room = async { while !answer().await.starts_with("HTTP/1.1 200") {} };
    timeout(PATIENCE, room).await.expect("room again");
}
