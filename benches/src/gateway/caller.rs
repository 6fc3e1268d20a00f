//! Callers on plain sockets: they keep their connection, and look at no more of an answer than
//! where it ends.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::mock::now_us;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where requests go, and how.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// `127.0.0.1:PORT`
    pub(super) address: String,
    /// The key to show.
    pub(super) key: String,
    /// What stands before the model's name.
    pub(super) prefix: &'static str,
    /// The dialect's path.
    pub(super) path: &'static str,
}

impl Way {
    /// A request for a model.
    fn request(&self, model: &str, stream: bool) -> Vec<u8> {
        let Self { address, key, prefix, path } = self;
        let body = format!(
            "{{\"model\":\"{prefix}{model}\",\"stream\":{stream},\"max_tokens\":32768,\"messages\":\
             [{{\"role\":\"user\",\"content\":\"Say something about the quick brown fox, in a few \
             words, and then about the lazy dog.\"}}]}}"
        );
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let socket = TcpStream::connect(&self.address).await?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    /// So many whole answers, one after the other; with `due`, the first at a time and the others
    /// in steps. Microseconds of each.
    pub(super) async fn whole(
        &self,
        count: usize,
        due: Option<(Instant, Duration)>,
    ) -> anyhow::Result<Vec<u64>> {
        let request = self.request("whole", false);
        let mut socket = self.connect().await?;
        let mut times = Vec::with_capacity(count);
        let mut held = Vec::with_capacity(4096);
        for number in 0..count {
            if let Some((first, step)) = due {
                sleep_until(first + step * u32::try_from(number)?).await;
            }
            // Not from when it was due: the clock that wakes has steps of a millisecond, and no
            // caller has to wait for an answer before its next one is due.
            let begun = Instant::now();
            socket.write_all(&request).await?;
            timeout(PATIENCE, answer(&mut socket, &mut held)).await??;
            times.push(begun.elapsed().as_micros() as u64);
        }
        Ok(times)
    }

    /// One stream; events, and the delay of each in microseconds where `delays`.
    pub(super) async fn stream(&self, model: &str, delays: bool) -> anyhow::Result<Streamed> {
        let mut socket = self.connect().await?;
        socket.write_all(&self.request(model, true)).await?;
        let mut seen = Streamed::default();
        let mut buffer = vec![0; 64 << 10];
        let mut tail: Vec<u8> = Vec::new();
        loop {
            let count = timeout(PATIENCE, socket.read(&mut buffer)).await??;
            ensure!(count > 0, "the stream broke: {}", String::from_utf8_lossy(&tail));
            let now = now_us();
            tail.extend_from_slice(&buffer[..count]);
            if seen.begun.is_none() {
                let head = tail.windows(4).position(|four| four == b"\r\n\r\n");
                let Some(head) = head else { continue };
                ensure!(tail.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&tail));
                // The end of the head is also how an end without an event begins.
                tail.drain(..head + 2);
                seen.begun = Some(Instant::now());
            }
            if delays {
                seen.times(&tail, now);
            } else {
                seen.events += tail.iter().filter(|byte| **byte == b';').count();
            }
            if tail.ends_with(b"\r\n0\r\n\r\n") {
                seen.ended = Some(Instant::now());
                return Ok(seen);
            }
            // What may be the beginning of a time, or of the end, stays.
            let keep = tail.iter().rposition(|byte| *byte == b';').map_or(0, |at| at + 1);
            tail.drain(..keep);
            let long = tail.len().saturating_sub(4096);
            tail.drain(..long);
        }
    }
}

/// What was seen of a stream.
#[derive(Default)]
pub(super) struct Streamed {
    pub(super) events: usize,
    pub(super) delays: Vec<u64>,
    /// When its head came, and its last byte.
    begun: Option<Instant>,
    ended: Option<Instant>,
}

impl Streamed {
    /// Whether it was under way then.
    pub(super) fn ran(&self, at: Instant) -> bool {
        self.begun.is_some_and(|begun| begun <= at) && self.ended.is_some_and(|ended| ended > at)
    }

    /// Finds the times in what was read: ` tNUMBER;`.
    fn times(&mut self, bytes: &[u8], now: u64) {
        for part in bytes.split_inclusive(|byte| *byte == b';') {
            if part.last() != Some(&b';') {
                continue;
            }
            self.events += 1;
            let digits = part.iter().rev().skip(1).take_while(|byte| byte.is_ascii_digit());
            let (written, _) = digits
                .fold((0, 1), |(sum, unit), byte| (sum + u64::from(byte - b'0') * unit, unit * 10));
            self.delays.push(now.saturating_sub(written));
        }
    }
}

/// Reads one whole answer.
async fn answer(socket: &mut TcpStream, held: &mut Vec<u8>) -> anyhow::Result<()> {
    held.clear();
    loop {
        ensure!(socket.read_buf(held).await? > 0, "closed: {}", String::from_utf8_lossy(held));
        let Some(head) = held.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        ensure!(held.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(held));
        let text = std::str::from_utf8(&held[..head])?;
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
        });
        let length = length.context("a length")??;
        while held.len() < head + 4 + length {
            ensure!(socket.read_buf(held).await? > 0, "closed in the middle");
        }
        return Ok(());
    }
}
