//! A provider that answers at once and costs next to nothing: whole answers of some 500 bytes, and
//! streams with or without a pace. The model's name says which. Each event tells when it was
//! written, by a clock that the callers share.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of one write of a stream without a pace.
const WRITE: usize = 8 << 10;

/// Microseconds by the clock that both ends share.
pub(super) fn now_us() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    EPOCH.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// Answers whoever connects, until it is dropped with its runtime.
pub(super) async fn serve(listener: TcpListener) {
    while let Ok((socket, _)) = listener.accept().await {
        let _ = socket.set_nodelay(true);
        tokio::spawn(async move {
            // A caller that leaves is no news.
            let _ = connection(socket).await;
        });
    }
}

async fn connection(mut socket: TcpStream) -> anyhow::Result<()> {
    let mut held = Vec::new();
    loop {
        let Some((head, length)) = request(&mut socket, &mut held).await? else { return Ok(()) };
        match Plan::of(&held[head..head + length])? {
            None => socket.write_all(&whole()).await?,
            Some(plan) => stream(&mut socket, plan).await?,
        }
        held.drain(..head + length);
    }
}

/// Reads one request; where its body begins and how long it is.
async fn request(
    socket: &mut TcpStream,
    held: &mut Vec<u8>,
) -> anyhow::Result<Option<(usize, usize)>> {
    loop {
        if let Some(head) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = head + 4;
            let text = String::from_utf8_lossy(&held[..head]).to_ascii_lowercase();
            let length = text.split("content-length:").nth(1).and_then(|rest| {
                let end = rest.find('\r')?;
                rest[..end].trim().parse().ok()
            });
            let length: usize = length.context("a length")?;
            while held.len() < head + length {
                anyhow::ensure!(socket.read_buf(held).await? > 0, "left in the middle");
            }
            return Ok(Some((head, length)));
        }
        if socket.read_buf(held).await? == 0 {
            return Ok(None);
        }
    }
}

/// A stream: events, and the time between two.
struct Plan {
    events: usize,
    pace: Duration,
}

impl Plan {
    /// `stream-MS-COUNT` in the model's name; `None`: a whole answer.
    fn of(body: &[u8]) -> anyhow::Result<Option<Self>> {
        let text = std::str::from_utf8(body)?;
        let Some((_, rest)) = text.split_once("stream-") else { return Ok(None) };
        let end = rest.find('"').context("the end of the name")?;
        let (pace, events) = rest[..end].split_once('-').context("stream-MS-COUNT")?;
        let pace = Duration::from_millis(pace.parse()?);
        Ok(Some(Self { events: events.parse()?, pace }))
    }
}

fn whole() -> Vec<u8> {
    let words = "The quick brown fox jumps over the lazy dog. ".repeat(5);
    let body = format!(
        "{{\"id\":\"chatcmpl-0123456789\",\"object\":\"chat.completion\",\"created\":1700000000,\
         \"model\":\"whole\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\
         \"content\":\"{words}\"}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":20,\
         \"completion_tokens\":50,\"total_tokens\":70}}}}"
    );
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn chunk(out: &mut Vec<u8>, data: &str) {
    let event = format!("data: {data}\n\n");
    out.extend_from_slice(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
}

/// One event of a chat's stream.
fn event(delta: &str, finish: &str) -> String {
    format!(
        "{{\"id\":\"chatcmpl-0123456789\",\"object\":\"chat.completion.chunk\",\
         \"created\":1700000000,\"model\":\"stream\",\"choices\":[{{\"index\":0,\
         \"delta\":{{{delta}}},\"finish_reason\":{finish}}}]}}"
    )
}

async fn stream(socket: &mut TcpStream, plan: Plan) -> anyhow::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\
                \r\n\r\n";
    let mut out = head.as_bytes().to_vec();
    chunk(&mut out, &event("\"role\":\"assistant\",\"content\":\"\"", "null"));
    let begun = tokio::time::Instant::now();
    for number in 0..plan.events {
        if !plan.pace.is_zero() {
            socket.write_all(&std::mem::take(&mut out)).await?;
            let step = u32::try_from(number + 1)?;
            tokio::time::sleep_until(begun + plan.pace * step).await;
        } else if out.len() > WRITE {
            socket.write_all(&std::mem::take(&mut out)).await?;
        }
        chunk(&mut out, &event(&format!("\"content\":\" t{};\"", now_us()), "null"));
    }
    chunk(&mut out, &event("", "\"stop\""));
    let usage = plan.events;
    chunk(
        &mut out,
        &format!(
            "{{\"id\":\"chatcmpl-0123456789\",\"object\":\"chat.completion.chunk\",\
             \"created\":1700000000,\"model\":\"stream\",\"choices\":[],\"usage\":{{\
             \"prompt_tokens\":20,\"completion_tokens\":{usage},\"total_tokens\":{}}}}}",
            usage + 20
        ),
    );
    chunk(&mut out, "[DONE]");
    out.extend_from_slice(b"0\r\n\r\n");
    Ok(socket.write_all(&out).await?)
}
