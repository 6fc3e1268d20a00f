//! Connections against servers that do one thing each.

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, channel};

use super::*;
use crate::upstream::client::direct;

/// A server that takes connections and answers each request of one with the next of `answers`,
/// whole or in pieces; the connection is closed behind the last. What it tells: `new` for each
/// connection, the first line of each request, `gone` when the other side has closed.
async fn server(answers: &'static [&'static [&'static str]]) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (tell, told) = channel(256);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let _ = tell.send("new".to_owned()).await;
                for answer in answers {
                    let Some(line) = request(&mut socket).await else { break };
                    let _ = tell.send(line).await;
                    for piece in *answer {
                        let _ = socket.write_all(piece.as_bytes()).await;
                        tokio::task::yield_now().await;
                    }
                }
                if answers.last().is_some_and(|last| last.last() == Some(&STAY)) {
                    while request(&mut socket).await.is_some() {}
                }
                let _ = tell.send("gone".to_owned()).await;
            });
        }
    });
    (format!("http://{address}"), told)
}

/// Written as the last piece: the server waits until the other side closes.
const STAY: &str = "";

/// The first line of a request whose body is `{}`.
async fn request(socket: &mut TcpStream) -> Option<String> {
    let mut held = Vec::new();
    while !held.ends_with(b"\r\n\r\n{}") {
        if socket.read_buf(&mut held).await.ok()? == 0 {
            return None;
        }
    }
    Some(String::from_utf8_lossy(&held).lines().next()?.to_owned())
}

async fn send(lines: &Lines, url: &str) -> Result<Response<AnswerBody>, NoAnswer> {
    let request = Request::post(format!("{url}/v1/x?y=z"));
    lines.send(request.body(Bytes::from("{}")).expect("a request")).await
}

async fn text(lines: &Lines, url: &str) -> Result<String, String> {
    let answer = send(lines, url).await.map_err(|why| why.to_string())?;
    let body = answer.into_body().collect().await.map_err(|why| why.to_string())?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

const ONE: &[&str] = &["HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none"];
const PIECES: &[&str] = &[
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\ntw\r\n",
    "1\r\no\r\n",
    "0\r\n\r\n",
];

#[tokio::test]
async fn one_connection_serves_one_after_the_other() {
    let (url, mut told) = server(&[ONE, PIECES, &[STAY]]).await;
    let lines = direct(true);
    assert_eq!(text(&lines, &url).await.as_deref(), Ok("one"));
    assert_eq!(text(&lines, &url).await.as_deref(), Ok("two"));
    assert_eq!(told.recv().await.as_deref(), Some("new"));
    for _ in 0..2 {
        assert_eq!(told.recv().await.as_deref(), Some("POST /v1/x?y=z HTTP/1.1"));
    }
    assert!(told.try_recv().is_err(), "no other connection");
    drop(lines);
    assert_eq!(told.recv().await.as_deref(), Some("gone"), "idle ones end with their client");
}

#[tokio::test]
async fn one_that_was_closed_while_it_lay_idle_is_not_used() {
    let (url, mut told) = server(&[ONE]).await;
    let lines = direct(true);
    for _ in 0..20 {
        assert_eq!(text(&lines, &url).await.as_deref(), Ok("one"));
        while told.recv().await.as_deref() != Some("gone") {}
    }
}

#[tokio::test]
async fn an_answer_says_that_its_connection_ends_with_it() {
    const LAST: &[&str] = &["HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall", " of it"];
    const OLD: &[&str] = &["HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nold"];
    for (answers, expect) in [(&[LAST], "all of it"), (&[OLD], "old")] {
        let (url, mut told) = server(answers).await;
        let lines = direct(true);
        for _ in 0..2 {
            assert_eq!(text(&lines, &url).await.as_deref(), Ok(expect));
            assert_eq!(told.recv().await.as_deref(), Some("new"));
            while told.recv().await.as_deref() != Some("gone") {}
        }
        assert!(lines.home.lock().lines.iter().all(|(_, idle)| idle.is_empty()));
    }
}

#[tokio::test]
async fn who_leaves_in_the_middle_ends_the_connection() {
    const ENDLESS: &[&str] =
        &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\ntw\r\n", STAY];
    let (url, mut told) = server(&[ENDLESS]).await;
    let lines = direct(true);
    let mut answer = send(&lines, &url).await.expect("a head").into_body();
    let frame = answer.frame().await.expect("a frame").expect("a good one");
    assert_eq!(frame.into_data().ok().as_deref(), Some(&b"tw"[..]));
    drop(answer);
    while told.recv().await.as_deref() != Some("gone") {}
    assert!(lines.home.lock().lines.iter().all(|(_, idle)| idle.is_empty()));
}

#[tokio::test]
async fn what_breaks_is_told() {
    const CUT: &[&str] = &["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome"];
    const CUT_CHUNK: &[&str] = &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nsome"];
    for answers in [&[CUT], &[CUT_CHUNK]] {
        let (url, _told) = server(answers).await;
        assert!(text(&direct(true), &url).await.is_err());
    }
    let (url, _told) = server(&[&["nonsense\r\n\r\n"]]).await;
    assert!(matches!(send(&direct(true), &url).await, Err(NoAnswer::Broke(_))));
    let (url, _told) = server(&[]).await;
    assert!(matches!(send(&direct(true), &url).await, Err(NoAnswer::Broke(_))));
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", nobody.local_addr().expect("an address"));
    drop(nobody);
    assert!(matches!(send(&direct(true), &url).await, Err(NoAnswer::Unreached(_))));
    let named = url.replace("127.0.0.1", "localhost");
    let Err(NoAnswer::Unreached(why)) = send(&direct(false), &named).await else {
        panic!("an internal name is refused");
    };
    assert!(why.contains("internal network"), "{why}");
}

#[tokio::test]
async fn idle_ones_are_closed() {
    let (url, mut told) = server(&[ONE, &[STAY]]).await;
    let lines = direct(true);
    assert_eq!(text(&lines, &url).await.as_deref(), Ok("one"));
    let begun = Instant::now();
    assert!(lines.home.lock().close(begun) && lines.home.lock().kept);
    assert!(!lines.home.lock().close(begun + 2 * IDLE) && !lines.home.lock().kept);
    while told.recv().await.as_deref() != Some("gone") {}
}
