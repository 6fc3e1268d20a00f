//! The smallest HTTP client that tests need: one request on one connection, answers whole or as
//! they arrive. Hand-made on purpose: tests send half requests and hang up in the middle.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// No answer takes longer in a healthy test run.
const PATIENCE: Duration = Duration::from_secs(120);

/// An answer, its body read to the end.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header lines, lower case.
    pub headers: Vec<String>,
    /// The body, dechunked.
    pub body: String,
}

impl Answer {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self.headers.iter().find(|h| h.split(':').next() == Some(name))?;
        Some(line.split_once(':')?.1.trim())
    }
}

/// An answer whose body has not been read yet.
pub struct Stream {
    reader: BufReader<TcpStream>,
    /// Status code.
    pub status: u16,
    headers: Vec<String>,
}

fn connect(url: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request and reads the head of the answer.
///
/// # Errors
/// The connection fails.
pub fn open(url: &str, method: &str, path: &str, body: &str) -> io::Result<Stream> {
    open_as(url, None, method, path, body)
}

/// As [`open`], with a key.
///
/// # Errors
/// The connection fails.
pub fn open_as(
    url: &str,
    key: Option<&str>,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<Stream> {
    let mut stream = connect(url)?;
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{key}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Stream::read_head(stream)
}

/// Sends exactly these bytes and reads the head of the answer, if one comes.
///
/// # Errors
/// The connection fails or is closed without an answer.
pub fn raw(url: &str, bytes: &[u8]) -> io::Result<Stream> {
    let mut stream = connect(url)?;
    stream.write_all(bytes)?;
    Stream::read_head(stream)
}

/// A whole exchange.
///
/// # Errors
/// The connection fails.
pub fn request(url: &str, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    open(url, method, path, body)?.finish()
}

impl Stream {
    fn read_head(stream: TcpStream) -> io::Result<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status in {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            headers.push(line.trim().to_ascii_lowercase());
        }
        Ok(Self { reader, status, headers })
    }

    /// The next `data:` line of an event stream; `None` at its end.
    ///
    /// # Errors
    /// The connection fails.
    pub fn event(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Ok(Some(data.trim_end().to_owned()));
            }
        }
    }

    /// Reads the body to its end.
    ///
    /// # Errors
    /// The connection fails.
    pub fn finish(mut self) -> io::Result<Answer> {
        let mut body = Vec::new();
        if self.headers.iter().any(|h| h.starts_with("transfer-encoding: chunked")) {
            loop {
                let mut size = String::new();
                self.reader.read_line(&mut size)?;
                let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
                let mut piece = vec![0; size + 2];
                self.reader.read_exact(&mut piece)?;
                if size == 0 {
                    break;
                }
                body.extend_from_slice(&piece[..size]);
            }
        } else {
            self.reader.read_to_end(&mut body)?;
        }
        let body = String::from_utf8(body).map_err(io::Error::other)?;
        Ok(Answer { status: self.status, headers: self.headers, body })
    }
}

/// Checks that an answer is as long as its head says, where that says anything.
///
/// # Panics
/// It is not.
#[track_caller]
pub fn is_as_long_as_it_says(said: Option<&[u8]>, length: usize) {
    let said = said.map(String::from_utf8_lossy);
    assert!(said.as_ref().is_none_or(|s| **s == *length.to_string()), "{said:?} of {length} bytes");
}
