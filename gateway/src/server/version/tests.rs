//! Both versions are told apart however their first bytes come.

use std::future::{poll_fn, ready};

use hyper::client::conn as client;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;

/// Serves one end; the other end, and how it ended.
fn serving() -> (DuplexStream, JoinHandle<Result<(), Broke>>) {
    let (near, far) = duplex(64 << 10);
    let builders = Arc::new(Builders::new(&Options::default()));
    let service = service_fn(|request: Request<Incoming>| {
        let said = format!("{:?} {}", request.version(), request.uri().path());
        ready(Ok::<_, Infallible>(Response::new(Body::from(said))))
    });
    let mut connection = Speaking::new(builders, far, service);
    let serves = tokio::spawn(async move { poll_fn(|cx| connection.poll(cx)).await });
    (near, serves)
}

/// Sends bytes in pieces of a size and reads until the other end closes.
async fn said(bytes: &[u8], piece: usize) -> String {
    let (mut near, serves) = serving();
    for piece in bytes.chunks(piece) {
        near.write_all(piece).await.expect("written");
        tokio::task::yield_now().await;
    }
    near.shutdown().await.expect("shut");
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.expect("read");
    let _ = serves.await.expect("no panic");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_of_http_1_are_answered_in_any_pieces() {
    for path in ["/p", "/PRI", &"/long".repeat(2000)] {
        for method in ["GET", "PRI", "PRINT", "POST"] {
            let request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n\r\n");
            for piece in [1, 3, 24, 4096, usize::MAX] {
                let answer = said(request.as_bytes(), piece).await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{piece}: {answer}");
                assert!(answer.ends_with(&format!("HTTP/1.1 {path}")), "{piece}: {answer}");
            }
        }
    }
}

/// Of two that come together the second is neither lost nor repeated.
#[tokio::test]
async fn requests_that_come_together_are_answered_in_turn() {
    let long = "x".repeat(3000);
    let both = format!(
        "GET /one HTTP/1.1\r\nhost: x\r\nlong: {long}\r\n\r\n\
         GET /two HTTP/1.1\r\nlong: {long}\r\nconnection: close\r\n\r\n"
    );
    for piece in [1, 24, 3050, 4096, usize::MAX] {
        let answers = said(both.as_bytes(), piece).await;
        let at = |path: &str| {
            assert_eq!(answers.matches(path).count(), 1, "{piece}: {answers}");
            answers.find(path)
        };
        assert!(at("HTTP/1.1 /one") < at("HTTP/1.1 /two"), "{piece}: {answers}");
    }
}

#[tokio::test]
async fn what_ends_or_breaks_before_it_is_known_is_over() {
    assert_eq!(said(b"", 1).await, "");
    let answer = said(&PREFACE[..20], 1).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    let (near, serves) = serving();
    drop(near);
    assert!(serves.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn http_2_is_spoken_in_any_pieces() {
    for piece in [1, 5, 24, 1000] {
        let (mut near, serves) = serving();
        let (mut own, theirs) = duplex(64 << 10);
        // Between the client and the server: passes on in pieces.
        tokio::spawn(async move {
            let mut bytes = vec![0; piece];
            let mut answer = vec![0; 4096];
            loop {
                tokio::select! {
                    read = own.read(&mut bytes) => match read {
                        Ok(count @ 1..) => near.write_all(&bytes[..count]).await.expect("written"),
                        _ => return,
                    },
                    read = near.read(&mut answer) => match read {
                        Ok(count @ 1..) => own.write_all(&answer[..count]).await.expect("written"),
                        _ => return,
                    },
                }
            }
        });
        let io = TokioIo::new(theirs);
        let (mut sender, connection) =
            client::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request = Request::get("http://far/p").body(Body::empty()).expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        let body = axum::body::to_bytes(Body::new(answer.into_body()), 100).await.expect("a body");
        assert_eq!(body, "HTTP/2.0 /p", "{piece}");
        drop(sender);
        serves.await.expect("no panic").expect("a good end");
    }
}

/// One that has said nothing ends at once, one that has begun when it is answered.
#[tokio::test]
async fn who_is_asked_to_end_ends() {
    let (mut near, far) = duplex(1 << 10);
    let builders = Arc::new(Builders::new(&Options::default()));
    let service = |wait: u64| {
        service_fn(move |_: Request<Incoming>| async move {
            sleep(Duration::from_millis(wait)).await;
            Ok::<_, Infallible>(Response::new(Body::from("late")))
        })
    };
    let mut silent = Speaking::new(Arc::clone(&builders), far, service(0));
    assert!(poll_fn(|cx| Poll::Ready(silent.poll(cx).is_pending())).await);
    silent.end();
    poll_fn(|cx| silent.poll(cx)).await.expect("a good end");
    drop(silent);
    assert_eq!(near.read(&mut [0]).await.expect("read"), 0);

    let (mut near, far) = duplex(1 << 10);
    let mut busy = Speaking::new(builders, far, service(20));
    near.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("written");
    assert!(poll_fn(|cx| Poll::Ready(busy.poll(cx).is_pending())).await);
    busy.end();
    poll_fn(|cx| busy.poll(cx)).await.expect("a good end");
    let mut answer = String::new();
    drop(busy);
    near.read_to_string(&mut answer).await.expect("read");
    assert!(answer.ends_with("late") && answer.contains("connection: close"), "{answer}");
}
