//! What lies between a gateway and a node: passes bytes on, and does to them what networks and
//! dying machines do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// See the module.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// Counts cuts: connections of an older number end.
    cuts: watch::Sender<u64>,
    /// Nothing passes, nothing ends.
    stalls: AtomicBool,
    /// No new connections.
    refuses: AtomicBool,
    /// Bytes from the node until the next cut.
    left: AtomicU64,
    opened: AtomicU64,
}

impl Wire {
    pub(crate) async fn to(node: SocketAddr) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), node).await
    }

    /// One that begins at this address.
    pub(crate) async fn at(address: SocketAddr, node: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            cuts: watch::channel(0).0,
            stalls: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            left: AtomicU64::new(u64::MAX),
            opened: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else { return };
                if theirs.refuses.load(Ordering::SeqCst) {
                    continue;
                }
                theirs.opened.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(pass(near, node, Arc::clone(&theirs)));
            }
        });
        Self { address, state }
    }

    /// All connections end now.
    pub(crate) fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// All connections end when the node has sent so many bytes more.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.state.left.store(bytes, Ordering::SeqCst);
    }

    /// Dead: connections end and no new ones are made.
    pub(crate) fn kill(&self, dead: bool) {
        self.state.refuses.store(dead, Ordering::SeqCst);
        if dead {
            self.cut();
        }
    }

    /// Paused: connections stay and nothing passes.
    pub(crate) fn stall(&self, stalls: bool) {
        self.state.stalls.store(stalls, Ordering::SeqCst);
    }

    /// Connections so far.
    pub(crate) fn opened(&self) -> u64 {
        self.state.opened.load(Ordering::SeqCst)
    }
}

async fn pass(near: TcpStream, node: SocketAddr, state: Arc<State>) {
    let Ok(far) = TcpStream::connect(node).await else { return };
    let mut cuts = state.cuts.subscribe();
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::select! {
        () = copy(near_read, far_write, &state, false) => {}
        () = copy(far_read, near_write, &state, true) => {}
        _ = cuts.changed() => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    state: &State,
    counts: bool,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        while state.stalls.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut pass = read;
        if counts {
            let take = |left: u64| {
                Some(left.saturating_sub(as_u64(read)).max(u64::from(left == u64::MAX) * left))
            };
            let before = state.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
            let before = before.unwrap_or(u64::MAX);
            if before <= as_u64(read) {
                pass = usize::try_from(before).expect("small");
            }
        }
        if to.write_all(&buffer[..pass]).await.is_err() {
            return;
        }
        if pass < read {
            // It begins again with the next connection.
            state.left.store(u64::MAX, Ordering::SeqCst);
            state.cuts.send_modify(|cuts| *cuts += 1);
            return;
        }
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).expect("small")
}
