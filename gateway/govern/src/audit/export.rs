//! Records for other systems: JSON lines, and syslog (RFC 5424). Both carry every field, so that
//! what was exported can be verified on its own.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use jiff::Timestamp;

use super::Record;
use crate::Millis;

/// Writes a record as one line: an object with the fields of [`Record`].
///
/// # Errors
/// The writer fails.
pub fn write_json_line(out: &mut impl Write, record: &Record) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    out.write_all(b"\n")
}

/// Facility 13 (audit), severity 6 (informational).
const PRIORITY: u8 = 13 * 8 + 6;

/// The number behind `@` says whose field names these are. Hearth has none; this is the one that
/// RFC 5612 sets aside for examples, which no vendor's names can be taken for.
const ELEMENT: &str = "audit@32473";

/// A record as a syslog message: the fields as structured data, the body as its text.
#[must_use]
pub fn syslog(record: &Record) -> String {
    let Record { chain, number, at, kind, organisation, body, previous, hash } = record;
    let mut out = format!(
        "<{PRIORITY}>1 {} {} hearth - {} [{ELEMENT}",
        time(*at),
        header(chain, 255),
        header(kind, 32)
    );
    let fields = [
        ("chain", chain.as_str()),
        ("number", &number.to_string()),
        ("at", &at.to_string()),
        ("kind", kind),
        ("organisation", organisation),
        ("previous", previous),
        ("hash", hash),
    ];
    for (name, value) in fields {
        out.push_str(&format!(" {name}=\""));
        for letter in value.chars() {
            if matches!(letter, '"' | '\\' | ']') {
                out.push('\\');
            }
            out.push(letter);
        }
        out.push('"');
    }
    out.push_str("] ");
    out.push_str(body);
    out
}

/// `2026-11-21T15:46:01.042Z`; `-` for a time that has no such form.
fn time(at: Millis) -> String {
    match Timestamp::from_millisecond(at) {
        Ok(time) if at >= 0 => format!("{time:.3}"),
        _ => "-".to_owned(),
    }
}

/// A word of the message's head: visible ASCII of bounded length, `-` for none.
fn header(text: &str, length_max: usize) -> String {
    let visible = |letter: char| if letter.is_ascii_graphic() { letter } else { '_' };
    let word: String = text.chars().take(length_max).map(visible).collect();
    if word.is_empty() { "-".to_owned() } else { word }
}

/// How messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each (RFC 5426). What is longer than a datagram is an error; what gets lost on
    /// the way is not seen.
    Udp,
    /// One connection, each message behind its length in bytes (RFC 6587, octet counting). What a
    /// receiver had not read when it died is not seen.
    Tcp,
}

/// Sends records to a syslog server; blocks, within a timeout.
#[derive(Debug)]
pub struct Sender {
    transport: Transport,
    address: String,
    timeout: Duration,
    socket: Option<Socket>,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Sender {
    /// A sender to `HOST:PORT`. It connects when it first sends. `timeout` bounds each connect and
    /// each write, and is not zero.
    #[must_use]
    pub fn new(transport: Transport, address: &str, timeout: Duration) -> Self {
        Self { transport, address: address.to_owned(), timeout, socket: None }
    }

    /// Sends a record. After an error it may or may not have arrived: sent again, it may be there
    /// twice, with one number.
    ///
    /// # Errors
    /// The server cannot be reached, or does not take it in time. The next call connects anew.
    pub fn send(&mut self, record: &Record) -> io::Result<()> {
        let message = syslog(record);
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.connect()?,
        };
        match &mut socket {
            Socket::Udp(socket) => {
                socket.send(message.as_bytes())?;
            }
            Socket::Tcp(stream) => {
                stream.write_all(format!("{} {message}", message.len()).as_bytes())?;
            }
        }
        // Only now: after half a message the connection is of no use.
        self.socket = Some(socket);
        Ok(())
    }

    fn connect(&self) -> io::Result<Socket> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.address.to_socket_addrs()? {
            match self.connect_to(address) {
                Ok(socket) => return Ok(socket),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn connect_to(&self, address: SocketAddr) -> io::Result<Socket> {
        match self.transport {
            Transport::Udp => {
                let socket = if address.is_ipv4() {
                    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?
                } else {
                    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?
                };
                socket.connect(address)?;
                socket.set_write_timeout(Some(self.timeout))?;
                Ok(Socket::Udp(socket))
            }
            Transport::Tcp => {
                let stream = TcpStream::connect_timeout(&address, self.timeout)?;
                stream.set_write_timeout(Some(self.timeout))?;
                Ok(Socket::Tcp(stream))
            }
        }
    }
}
