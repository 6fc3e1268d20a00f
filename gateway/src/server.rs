//! The listener and its connections: how many there may be, how long a client may dawdle, and
//! how they end; whether they speak TLS, and from where their requests come. Knows HTTP's framing
//! and nothing of what is served.
//!
//! When all places are taken, a new connection takes that of the one that has been silent for the
//! longest time: whoever holds connections open without asking anything locks nobody out.

mod busy;
mod forwarded;
mod stall;
mod version;

use std::future::{Future, poll_fn, ready};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use govern::policy::Network;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::server::TlsStream;
use tower_service::Service;

use busy::Busy;
use stall::Stalling;
use version::{Builders, Speaking};

use crate::local_wakes::LocalWakes;
use crate::tls::{self, ClientNames, Tls};

/// Bounds of a connection.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections at once. A further one takes the place of a silent one; while none is silent,
    /// it waits in the system's queue.
    pub connections_max: usize,
    /// A new connection must have sent its first request's head within this time.
    pub first_head: Duration,
    /// The same for the requests after it. It is also how long an idle connection is kept: longer
    /// than what proxies keep theirs for, so that they and not we close it.
    pub later_head: Duration,
    /// Longest time in which a client takes no byte of its answer: what is ready for it takes
    /// memory. As long as nginx gives it.
    pub write_stall: Duration,
    /// Bytes of a request's head.
    pub head_bytes_max: usize,
    /// Requests at once in one HTTP/2 connection.
    pub streams_max: u32,
    /// How long open answers may go on after the stop.
    pub drain: Duration,
    /// What connections begin with; `None`: they are plain.
    pub tls: Option<Arc<Tls>>,
    /// Peers that are believed where they say that a request comes from.
    pub trusted_proxies: Arc<[Network]>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections_max: 8192,
            first_head: Duration::from_secs(10),
            later_head: Duration::from_secs(65),
            write_stall: Duration::from_secs(60),
            head_bytes_max: 64 << 10,
            streams_max: 256,
            drain: Duration::from_secs(30),
            tls: None,
            trusted_proxies: Arc::from([]),
        }
    }
}

/// Serves until `stop` is ready, then stops accepting, lets open answers end for
/// [`Options::drain`], and drops what is left. `open` counts connections.
///
/// # Errors
/// The listener is broken for good.
pub async fn serve<R: Routes>(
    listener: TcpListener,
    router: R,
    options: Options,
    open: IntGauge,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(options.connections_max));
    let (phase, phases) = watch::channel(Phase::Serve);
    let builders = Arc::new(Builders::new(&options));
    let leave = Arc::new(Notify::new());
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places, &leave) => accepted,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_passing(&error) => continue,
            Err(error) => {
                // Out of descriptors, as a rule: others will close theirs.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let connection = Connection {
            builders: Arc::clone(&builders),
            router: router.clone(),
            peer,
            trusted: Arc::clone(&options.trusted_proxies),
            first_head: options.first_head,
            leave: Arc::clone(&leave),
            phases: phases.clone(),
            _open: Counted::new(&open),
            _place: place,
        };
        let stream = Stalling::new(stream, options.write_stall);
        match &options.tls {
            None => tokio::spawn(connection.serve(stream, None)),
            Some(tls) => tokio::spawn(connection.serve_tls(stream, Arc::clone(tls))),
        };
    }
    drop(listener);
    phase.send_replace(Phase::Drain);
    let all = u32::try_from(options.connections_max).unwrap_or(u32::MAX);
    if timeout(options.drain, places.acquire_many(all)).await.is_err() {
        phase.send_replace(Phase::Stop);
        let _ = timeout(Duration::from_secs(1), places.acquire_many(all)).await;
    }
    Ok(())
}

/// The address that a request comes from, in its extensions: the connection's other end, or whom a
/// trusted proxy there names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serve,
    /// No further request on a connection.
    Drain,
    /// Connections are dropped.
    Stop,
}

/// How long a connection may take to say what it wants before it may be asked to leave for another.
const GRACE: Duration = Duration::from_secs(1);

/// What is known of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    /// Its first request may be on its way.
    New,
    /// Nothing has come from it in time.
    Silent,
    /// It has asked, at least once.
    Asked,
}

/// First a connection, then its place, which a silent one is asked to leave if there is no other.
/// Dropping this loses no more than the one connection that waits for a place.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    leave: &Notify,
) -> io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let (stream, address) = listener.accept().await?;
    let place = match Arc::clone(places).try_acquire_owned() {
        Ok(place) => place,
        Err(_) => {
            leave.notify_one();
            let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
            // If one left unasked, none of the others needs to any more.
            pin!(leave.notified()).enable();
            place
        }
    };
    // Tokens are small writes that must not wait for each other.
    stream.set_nodelay(true)?;
    Ok((stream, address.ip(), place))
}

/// Errors of one connection, gone with it.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, InvalidInput};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | InvalidInput)
}

struct Connection<R> {
    builders: Arc<Builders>,
    router: R,
    peer: IpAddr,
    trusted: Arc<[Network]>,
    first_head: Duration,
    /// Wakes the connection that has been silent for the longest time.
    leave: Arc<Notify>,
    phases: watch::Receiver<Phase>,
    _open: Counted,
    _place: OwnedSemaphorePermit,
}

impl<R: Routes> Connection<R> {
    async fn serve_tls(mut self, stream: Stalling, tls: Arc<Tls>) {
        let Some(stream) = self.shake_hands(&tls, stream).await else { return };
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let names = shown.map(tls::names);
        self.serve(stream, names).await;
    }

    /// TLS begins, unless the client dawdles, the server stops or somebody else needs the place.
    async fn shake_hands(&mut self, tls: &Tls, stream: Stalling) -> Option<TlsStream<Stalling>> {
        let shaken = timeout(self.first_head, tls.acceptor().accept(stream));
        let asked_to_leave = async {
            sleep(GRACE).await;
            self.leave.notified().await;
        };
        tokio::select! {
            biased;
            shaken = shaken => {
                let why = match shaken {
                    Ok(Ok(stream)) => return Some(stream),
                    Ok(Err(error)) => error.to_string(),
                    Err(late) => late.to_string(),
                };
                tracing::debug!(peer = %self.peer, why, "a connection did not come to TLS");
            }
            _ = self.phases.wait_for(|now| *now != Phase::Serve) => {}
            () = asked_to_leave => {}
        }
        None
    }

    // Not an `async fn`, which would keep room for its arguments beside what becomes of them.
    fn serve<S>(
        self,
        stream: S,
        names: Option<ClientNames>,
    ) -> impl Future<Output = ()> + Send + use<R, S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { builders, router, peer, trusted, first_head, leave, mut phases, .. } = self;
        let (open, place) = (self._open, self._place);
        let asked = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&asked);
        let busy = Busy::default();
        let answers = busy.clone();
        let service = service_fn(move |request| {
            seen.store(true, Ordering::Relaxed);
            answers.hold(answer(&router, request, (peer, &trusted), names.as_ref()))
        });
        let mut connection = Speaking::new(builders, stream, service);
        async move {
            let wakes = LocalWakes::default();
            // hyper's own clock does not run before it is known which HTTP is spoken.
            let grace = GRACE.min(first_head);
            let mut first = pin!(sleep(grace));
            let mut age = Age::New;
            let mut phase = Phase::Serve;
            let mut in_line = pin!(None);
            loop {
                tokio::select! {
                    // The connection first: only then is it known whether it is silent.
                    biased;
                    ended = poll_fn(|cx| wakes.poll(cx, |cx| connection.poll(cx))) => {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "a connection broke off");
                        }
                        break;
                    }
                    () = &mut first, if age != Age::Asked => {
                        age = match (age, asked.load(Ordering::Relaxed)) {
                            (_, true) => Age::Asked,
                            (Age::New, false) => {
                                first.as_mut().reset(Instant::now() + (first_head - grace));
                                Age::Silent
                            }
                            (_, false) => break,
                        };
                    }
                    changed = phases.wait_for(|now| *now != phase) => {
                        phase = changed.map_or(Phase::Stop, |now| *now);
                        if phase == Phase::Stop {
                            break;
                        }
                        connection.end();
                    }
                    () = must_leave(&leave, in_line.as_mut(), &busy), if age != Age::New => break,
                }
            }
            // First what it answers, which books what it has cost: whoever waits for the places
            // takes all of that for done.
            drop(connection);
            drop((open, place));
        }
    }
}

/// Has a request answered, with what is known of where it comes from.
fn answer<R: Routes>(
    router: &R,
    mut request: Request<Incoming>,
    (peer, trusted): (IpAddr, &[Network]),
    names: Option<&ClientNames>,
) -> Answer {
    let source = match forwarded::source(peer, request.headers(), trusted) {
        Ok(source) => source,
        Err(unclear) => return Box::pin(ready(bad_request(&unclear.to_string()))),
    };
    request.extensions_mut().insert(Peer(source));
    if let Some(names) = names {
        request.extensions_mut().insert(names.clone());
    }
    router.clone().answer(request.map(Body::new))
}

/// Ready when a silent connection is to make room. One that answers stands in no line for that,
/// and when it falls silent it stands at the end.
async fn must_leave<'n>(
    leave: &'n Notify,
    mut in_line: Pin<&mut Option<Notified<'n>>>,
    busy: &Busy,
) {
    poll_fn(|cx| {
        if busy.answers() {
            in_line.set(None);
            return Poll::Pending;
        }
        if in_line.is_none() {
            in_line.set(Some(leave.notified()));
        }
        in_line.as_mut().as_pin_mut().map_or(Poll::Pending, |wait| wait.poll(cx))
    })
    .await;
}

/// A proxy is set up wrong: for its operator to read.
fn bad_request(why: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{why}\n")));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

/// An answer in the making. Boxed: a connection keeps the room for one while the body goes out.
pub type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// What answers requests: a router, or what stands in front of one.
pub trait Routes: Clone + Send + 'static {
    /// Answers a request.
    fn answer(self, request: Request<Body>) -> Answer;
}

impl Routes for Router {
    fn answer(mut self, request: Request<Body>) -> Answer {
        // It is always ready and never fails.
        Box::pin(async move { self.call(request).await.unwrap_or_else(|never| match never {}) })
    }
}

/// Counts a connection for as long as it lives.
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
