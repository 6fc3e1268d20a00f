//! A provider that does as it is told. It works on the socket itself: half a head, a reset and
//! half an event lie below what a server library would send.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::speech::Tongue;

/// What is done with a connection.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These, one after the other with a pause behind each.
    Slowly(Vec<u8>, Duration),
    /// These again and again, until the other side leaves.
    Endless(Vec<u8>),
    /// Nothing for a while.
    Pause(Duration),
    /// Nothing, until the other side leaves.
    Silence,
    /// The connection is broken off.
    Reset,
    /// The connection is closed.
    Close,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    /// Names in small letters.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a request is JSON")
    }

    pub(crate) fn tongue(&self) -> Tongue {
        Tongue::of(&self.path)
    }

    /// The answer is to be a stream.
    pub(crate) fn streams(&self) -> bool {
        self.path.contains(":streamGenerateContent")
            || self.path.ends_with("/converse-stream")
            || self.json()["stream"] == true
    }
}

type Script = Arc<dyn Fn(&Seen) -> Vec<Step> + Send + Sync>;

/// The provider.
pub(crate) struct Upstream {
    /// Where it answers, without a path.
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    /// Times that the other side left in the middle.
    left: AtomicUsize,
    /// Bytes that went out.
    written: AtomicU64,
    connections: AtomicUsize,
}

impl Upstream {
    /// One that answers well, with this word in it.
    pub(crate) async fn well(word: &'static str) -> Self {
        Self::start(move |seen| crate::speech::good(seen, word)).await
    }

    pub(crate) async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(script)),
            seen: Mutex::default(),
            left: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
        });
        let own = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                own.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(connection(socket, Arc::clone(&own)));
            }
        });
        Self { url, shared }
    }

    /// From now on it does this.
    pub(crate) fn turn(&self, script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) {
        *self.shared.script.lock().expect("no panic") = Arc::new(script);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no panic").clone()
    }

    /// Requests so far.
    pub(crate) fn count(&self) -> usize {
        self.shared.seen.lock().expect("no panic").len()
    }

    /// Times that the other side left in the middle.
    pub(crate) fn left(&self) -> usize {
        self.shared.left.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Bytes that went out.
    pub(crate) fn written(&self) -> u64 {
        self.shared.written.load(Ordering::SeqCst)
    }
}

/// Serves requests until the connection ends.
async fn connection(mut socket: TcpStream, shared: Arc<Shared>) {
    let mut held = Vec::new();
    while let Some(seen) = request(&mut socket, &mut held).await {
        shared.seen.lock().expect("no panic").push(seen.clone());
        let script = Arc::clone(&shared.script.lock().expect("no panic"));
        for step in script(&seen) {
            match play(&mut socket, step, &shared).await {
                Some(true) => {}
                Some(false) => return,
                None => {
                    shared.left.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
        }
    }
}

/// Does one thing. `Some(false)`: the connection is over; `None`: the other side has left.
async fn play(socket: &mut TcpStream, step: Step, shared: &Shared) -> Option<bool> {
    match step {
        Step::Bytes(bytes) => write(socket, &bytes, shared).await?,
        Step::Slowly(bytes, pause) => {
            for byte in bytes {
                write(socket, &[byte], shared).await?;
                sleep(pause).await;
            }
        }
        Step::Endless(bytes) => loop {
            write(socket, &bytes, shared).await?;
        },
        Step::Pause(time) => sleep(time).await,
        Step::Silence => {
            let _ = socket.read(&mut [0; 16]).await;
            return None;
        }
        Step::Reset => {
            let _ = socket.set_zero_linger();
            return Some(false);
        }
        Step::Close => {
            let _ = socket.shutdown().await;
            return Some(false);
        }
    }
    Some(true)
}

/// Writes, and sees it when the other side leaves meanwhile.
async fn write(socket: &mut TcpStream, bytes: &[u8], shared: &Shared) -> Option<()> {
    let (mut from, mut to) = socket.split();
    let mut byte = [0; 1];
    let all = async {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = to.write(rest).await.ok()?;
            shared.written.fetch_add(u64::try_from(count).expect("small"), Ordering::SeqCst);
            rest = &rest[count..];
        }
        Some(())
    };
    tokio::select! {
        biased;
        done = all => done,
        _ = from.read(&mut byte) => None,
    }
}

/// Reads the next request.
async fn request(socket: &mut TcpStream, held: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(at) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(held).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(held[..end].to_vec()).expect("a head is text");
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(0, |(_, value)| value.parse().expect("a length"));
    while held.len() < end + length {
        if socket.read_buf(held).await.ok()? == 0 {
            return None;
        }
    }
    let body = held[end..end + length].to_vec();
    held.drain(..end + length);
    Some(Seen { path, headers, body })
}
