//! Records to a syslog server. Syslog knows no answer: over UDP nobody learns of a loss; over TCP
//! and TLS a connection that ended tells of one, so after each batch this waits a moment to see
//! whether it is still there, and sends the batch again if it is not.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use govern::audit::Record;
use govern::audit::export::{syslog, syslog_within};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::Failed;
use super::target::Transport;

/// Longest wait to connect, and for a batch to be taken.
const TIME_MAX: Duration = Duration::from_secs(10);

/// How long a connection has to last after a batch for it to count.
const SETTLE: Duration = Duration::from_millis(100);

/// What a datagram holds at most over IPv4, with room for its headers.
const DATAGRAM_MAX: usize = 65_000;

/// Datagrams at once: a receiver's buffer holds some hundreds of our size.
const BURST: usize = 50;
const BURST_PAUSE: Duration = Duration::from_millis(5);

/// A syslog server.
pub(super) struct Syslog {
    transport: Transport,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    socket: Option<Socket>,
}

enum Socket {
    Udp(UdpSocket),
    Stream(Box<dyn Stream>),
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

impl Syslog {
    /// It connects when it first sends.
    pub(super) fn new(transport: Transport, host: String, port: u16) -> Result<Self, String> {
        let tls = match transport {
            Transport::Tls => Some(connector().map_err(|error| error.to_string())?),
            Transport::Udp | Transport::Tcp => None,
        };
        Ok(Self { transport, host, port, tls, socket: None })
    }

    pub(super) async fn send(&mut self, records: &[Record]) -> Result<(), Failed> {
        let sent = timeout(TIME_MAX, self.try_send(records)).await;
        let why = match sent {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it takes too long".to_owned(),
        };
        // After half a message a connection is of no use.
        self.socket = None;
        Err(Failed::new(why))
    }

    async fn try_send(&mut self, records: &[Record]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.connect().await?,
        };
        match self.socket.insert(socket) {
            Socket::Udp(socket) => datagrams(socket, records).await,
            Socket::Stream(stream) => {
                let mut text = String::new();
                for record in records {
                    let message = syslog(record);
                    text.push_str(&format!("{} {message}", message.len()));
                }
                still_there(stream, Duration::ZERO).await?;
                stream.write_all(text.as_bytes()).await?;
                stream.flush().await?;
                still_there(stream, SETTLE).await
            }
        }
    }

    async fn connect(&self) -> io::Result<Socket> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host((self.host.as_str(), self.port)).await? {
            match self.connect_to(address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<Socket> {
        if self.transport == Transport::Udp {
            let socket = if address.is_ipv4() {
                UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?
            } else {
                UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await?
            };
            socket.connect(address).await?;
            return Ok(Socket::Udp(socket));
        }
        let stream = TcpStream::connect(address).await?;
        let Some(tls) = &self.tls else { return Ok(Socket::Stream(Box::new(stream))) };
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        Ok(Socket::Stream(Box::new(tls.connect(name, stream).await?)))
    }
}

async fn datagrams(socket: &UdpSocket, records: &[Record]) -> io::Result<()> {
    for burst in records.chunks(BURST) {
        for record in burst {
            socket.send(syslog_within(record, DATAGRAM_MAX).as_bytes()).await?;
        }
        sleep(BURST_PAUSE).await;
    }
    Ok(())
}

/// An error if the other side ends the connection within some time. What it says is dropped:
/// syslog servers say nothing.
async fn still_there(stream: &mut Box<dyn Stream>, time: Duration) -> io::Result<()> {
    let end = tokio::time::Instant::now() + time;
    let mut said = [0; 1024];
    loop {
        match tokio::time::timeout_at(end, stream.read(&mut said)).await {
            Ok(Ok(0)) => {
                let why = "the server has closed the connection";
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, why));
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        }
    }
}

/// Believes whom the system believes, as HTTPS does.
fn connector() -> Result<TlsConnector, rustls::Error> {
    let config = ClientConfig::builder().with_platform_verifier()?.with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
