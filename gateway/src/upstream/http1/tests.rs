//! Answers in any pieces; and beside a library that others have tried for years: whatever is taken
//! for an answer here is the same one there.

use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use hearth_tests::dice::Dice;

use super::*;

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    content: Vec<u8>,
}

fn answer(status: StatusCode, headers: &HeaderMap, content: Vec<u8>) -> Answer {
    let own = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), value.as_bytes().to_vec())
    };
    let mut headers: Vec<_> = headers.iter().map(own).collect();
    headers.sort();
    Answer { status: status.as_u16(), headers, content }
}

/// Reads an answer from pieces, behind which the connection ends. Also whether another request may
/// follow.
fn read(pieces: &[&[u8]]) -> Result<(Answer, bool), Wrong> {
    let (mut held, mut begun, mut content) = (Vec::new(), None, Vec::new());
    let mut extra = false;
    for piece in pieces {
        let mut rest = *piece;
        if begun.is_none() {
            held.extend_from_slice(piece);
            let Some((found, from)) = head(&held)? else { continue };
            rest = &piece[piece.len() - (held.len() - from)..];
            begun = Some(found);
        }
        let Head { body, .. } = begun.as_mut().expect("a head");
        extra |= body.take(rest, &mut content)? < rest.len();
    }
    let Some(Head { response, mut body, keeps }) = begun else { return Err(Wrong::Cut) };
    body.end()?;
    let answer = answer(response.status(), response.headers(), content);
    Ok((answer, keeps && !extra))
}

/// The same, as the library reads it.
async fn library(bytes: &[u8]) -> Option<Answer> {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let bytes = bytes.to_vec();
    let server = tokio::spawn(async move {
        let mut held = Vec::new();
        while !held.ends_with(b"\r\n\r\n") {
            far.read_buf(&mut held).await.expect("a request");
        }
        far.write_all(&bytes).await.expect("room");
        far.shutdown().await.expect("an end");
        far
    });
    let (mut sender, connection) = handshake(TokioIo::new(near)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = Request::post("/").body(Empty::<Bytes>::new()).expect("a request");
    let (head, body) = sender.send_request(request).await.ok()?.into_parts();
    let content = body.collect().await.ok()?.to_bytes().to_vec();
    connection.abort();
    server.abort();
    Some(answer(head.status, &head.headers, content))
}

const ANSWERS: &[&str] = &[
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: application/json\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: 1\r\nx-a: 2\r\n\r\n",
    "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1A;name=value\r\n\
     abcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3 \r\none\r\n0\r\nX-Digest: 1\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
     HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nyes",
    "HTTP/1.1 200 OK\r\nserver: x\r\n\r\nall of it until the end",
    "HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nold",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\ntwo",
];

#[test]
fn pieces_do_not_matter() {
    for (text, keeps) in
        ANSWERS.iter().zip([true, true, true, true, true, false, false, false, true, true])
    {
        let bytes = text.as_bytes();
        let whole = read(&[bytes]).expect(text);
        assert_eq!(whole.1, keeps, "{text}");
        for cut in 1..bytes.len() {
            let (one, two) = bytes.split_at(cut);
            assert_eq!(read(&[one, two]).as_ref(), Ok(&whole), "{text} cut at {cut}");
        }
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&each).as_ref(), Ok(&whole), "{text}");
        // What follows is nobody's.
        let more = [bytes, b"HTTP/1.1 200 OK\r\n\r\n"].concat();
        let (answer, keeps) = read(&[&more]).expect(text);
        assert!(!keeps && (answer == whole.0 || text.contains("until")), "{text}");
    }
}

#[test]
fn what_could_be_taken_for_something_else_is_refused() {
    for (text, expect) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "two lengths"),
        ("HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na", "no number"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\na", "no number"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\na", "no number"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "in chunks"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nx", "in chunks"),
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "in chunks"),
        ("HTTP/1.1 101 Switching\r\n\r\n", "protocol"),
        ("HTTP/2 200 OK\r\n\r\n", "no sense"),
        ("nonsense\r\n\r\n", "no sense"),
        ("HTTP/1.1 200 OK\r\na b: c\r\n\r\n", "no sense"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", "the middle"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n", "the middle"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "the middle"),
    ] {
        let wrong = read(&[text.as_bytes()]).expect_err(text).to_string();
        assert!(wrong.contains(expect), "{text}: {wrong}");
    }
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let long = "x".repeat(usize::from(ASIDE_BYTES_MAX) + 1);
    for chunks in [
        "\r\n",
        ";\r\n",
        "x\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "10000000000000000\r\n",
        "0\r\n\n",
        "0\r\nA: b\n\r\n",
        "0\r\nA\r\n\r\n",
        "0\r\n: b\r\n\r\n",
        "0\r\nA b: c\r\n\r\n",
        &format!("5;{long}\r\n"),
        &format!("0\r\nA: {long}"),
    ] {
        let text = format!("{head}{chunks}");
        assert_eq!(read(&[text.as_bytes()]), Err(Wrong::Chunk), "{chunks:?}");
    }
    let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
    assert_eq!(read(&[long.as_bytes()]), Err(Wrong::LongHead));
    // Both lengths: chunks count, and nothing is asked behind them.
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n\
                2\r\nok\r\n0\r\n\r\n";
    let (answer, keeps) = read(&[both.as_bytes()]).expect("chunks");
    assert_eq!((&*answer.content, keeps), (&b"ok"[..], false));
}

#[tokio::test]
async fn what_is_an_answer_here_is_the_same_to_the_library() {
    for text in ANSWERS {
        let own = read(&[text.as_bytes()]).expect(text).0;
        assert_eq!(library(text.as_bytes()).await.as_ref(), Some(&own), "{text}");
    }
    let mut dice = Dice(11);
    let mut same = 0;
    for at in 0..20_000 {
        let bytes = dice.damage(ANSWERS[at % ANSWERS.len()].as_bytes());
        let Ok((own, _)) = read(&[&bytes]) else { continue };
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(library(&bytes).await, Some(own), "{shown:?}");
        same += 1;
    }
    assert!(same > 2_000, "{same}");
}

#[test]
fn requests_are_written() {
    let request = Request::post("http://host:81/v1/x?y=z").header("a", "b");
    let request = request.body(Bytes::from("{}")).expect("a request");
    let written = super::request(&request, "host:81");
    let expect = "POST /v1/x?y=z HTTP/1.1\r\nhost: host:81\r\na: b\r\ncontent-length: 2\r\n\r\n";
    assert_eq!(String::from_utf8(written).as_deref(), Ok(expect));
    let request = Request::get("http://host").header("host", "own").body(Bytes::new());
    let written = super::request(&request.expect("a request"), "host");
    let expect = "GET / HTTP/1.1\r\nhost: own\r\n\r\n";
    assert_eq!(String::from_utf8(written).as_deref(), Ok(expect));
}
