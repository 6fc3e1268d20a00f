//! HTTP/1.1 (RFC 9112) as a client speaks it that has one request under way at a time. Pure: bytes
//! go in and come out, in any pieces.
//!
//! Strict where a message could be taken for another one: two lengths, a length that is no number,
//! an encoding that nobody asked for, a chunk without its end. Nothing here is larger than what a
//! server may say before it is taken for none.

use std::mem::MaybeUninit;

use bytes::Bytes;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use hyper::{Method, Request, Response, StatusCode};

/// Bytes of an answer's head.
pub(super) const HEAD_BYTES_MAX: usize = 64 << 10;

/// Headers of an answer.
const HEADERS_MAX: usize = 100;

/// Bytes of a chunk's extensions, and of all trailers.
const ASIDE_BYTES_MAX: u16 = 16 << 10;

/// Why what a server says is no HTTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// The head makes no sense.
    #[error("its head makes no sense: {0}")]
    Head(String),
    /// The head does not end.
    #[error("its head is longer than {HEAD_BYTES_MAX} bytes")]
    LongHead,
    /// Nobody knows where the body ends.
    #[error("it does not say where its body ends: {0}")]
    Length(&'static str),
    /// What stands between chunks is none of it.
    #[error("a chunk makes no sense")]
    Chunk,
    /// It ended too early.
    #[error("it ended in the middle of its body")]
    Cut,
}

/// The head of a request to a host.
pub(super) fn request(request: &Request<Bytes>, host: &str) -> Vec<u8> {
    let (method, headers) = (request.method().as_str(), request.headers());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut out = Vec::with_capacity(512);
    for part in [method, " ", path, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    if !headers.contains_key(HOST) {
        line(&mut out, HOST.as_str(), host.as_bytes());
    }
    for (name, value) in headers {
        line(&mut out, name.as_str(), value.as_bytes());
    }
    if !request.body().is_empty() || *request.method() != Method::GET {
        line(&mut out, CONTENT_LENGTH.as_str(), request.body().len().to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) body: Body,
    /// The connection may take another request behind it.
    pub(super) keeps: bool,
}

/// Reads the head of an answer: `None` while it is not whole; else also where its body begins.
/// Heads that only say that there will be one are skipped.
pub(super) fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Wrong> {
    let mut from = 0;
    loop {
        let rest = &bytes[from..];
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let read = config.parse_response_with_uninit_headers(&mut parsed, rest, &mut headers);
        let length = match read.map_err(|error| Wrong::Head(error.to_string()))? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial if bytes.len() > HEAD_BYTES_MAX => {
                return Err(Wrong::LongHead);
            }
            httparse::Status::Partial => return Ok(None),
        };
        from += length;
        match parsed.code {
            Some(101) => return Err(Wrong::Head("it changes its protocol".to_owned())),
            Some(100..=199) => {}
            _ => return whole(&parsed).map(|head| Some((head, from))),
        }
    }
}

fn whole(parsed: &httparse::Response<'_, '_>) -> Result<Head, Wrong> {
    let none = |what: &str| Wrong::Head(what.to_owned());
    let response = Response::builder().status(parsed.code.unwrap_or_default()).body(());
    let mut response = response.map_err(|_| none("there is no such status"))?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for header in &*parsed.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_bytes(header.value);
        let (Ok(name), Ok(value)) = (name, value) else { return Err(none("a header is none")) };
        headers.append(name, value);
    }
    let is_new = parsed.version == Some(1);
    let (body, is_sound) = framing(response.status(), &headers, is_new)?;
    let keeps = is_sound && stays(&headers, is_new);
    *response.headers_mut() = headers;
    Ok(Head { response, body, keeps })
}

/// Whether the connection stays open behind an answer: what newer servers do unless they say so,
/// and older ones only if they say so.
fn stays(headers: &HeaderMap, is_new: bool) -> bool {
    let said = headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let (mut closes, mut lives) = (false, is_new);
    for word in said.flat_map(|value| value.split(',')).map(str::trim) {
        closes |= word.eq_ignore_ascii_case("close");
        lives |= word.eq_ignore_ascii_case("keep-alive");
    }
    lives && !closes
}

/// How a body ends, and whether the connection can be trusted behind it.
fn framing(status: StatusCode, headers: &HeaderMap, is_new: bool) -> Result<(Body, bool), Wrong> {
    if matches!(status.as_u16(), 204 | 304) {
        return Ok((Body::Done, true));
    }
    let mut encodings = headers.get_all(TRANSFER_ENCODING).into_iter();
    if let Some(encoding) = encodings.next() {
        let is_chunked = encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !is_chunked || encodings.next().is_some() || !is_new {
            return Err(Wrong::Length("it is encoded for the way in another way than in chunks"));
        }
        // Chunks say where it ends, whatever else does; but who says both is not trusted.
        return Ok((Body::Chunked(Chunk::START), !headers.contains_key(CONTENT_LENGTH)));
    }
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let text = value.to_str().ok();
        let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let own = digits.and_then(|text| text.parse::<u64>().ok());
        let own = own.ok_or(Wrong::Length("its length is no number"))?;
        if length.is_some_and(|length| length != own) {
            return Err(Wrong::Length("it has two lengths"));
        }
        length = Some(own);
    }
    Ok(match length {
        Some(0) => (Body::Done, true),
        Some(left) => (Body::Length(left), true),
        None => (Body::Close, false),
    })
}

/// What is still to come of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    Chunked(Chunk),
    /// All until the connection ends.
    Close,
    /// Nothing.
    Done,
}

/// Where among chunks it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// In its size, of which so many digits were read.
    Size(u64, u8),
    /// In spaces behind the size, and in an extension, where so many bytes may still come.
    Space(u64, u16),
    Extension(u64, u16),
    /// Before the end of the line of a size.
    SizeEnd(u64),
    Data(u64),
    /// Behind the data, before both bytes of the line's end, and before the second one.
    DataEnd,
    DataEnded,
    /// In a line of the trailers, and how much of them may come.
    Trailer(Aside, u16),
    /// Before the end of such a line, in which nothing stands or something.
    TrailerEnd(bool, u16),
}

/// Where in a line of the trailers, which nobody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aside {
    Nothing,
    Name,
    Value,
}

impl Chunk {
    const START: Self = Self::Size(0, 0);
}

impl Body {
    /// Takes what came, and puts what is content behind `out`. Returns how much of it is the
    /// body's: what stands behind that is somebody else's.
    pub(super) fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Wrong> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self {
                Self::Done => break,
                Self::Close => {
                    out.extend_from_slice(rest);
                    at = bytes.len();
                }
                Self::Length(left) => {
                    at += some(left, rest, out);
                    if *left == 0 {
                        *self = Self::Done;
                    }
                }
                Self::Chunked(Chunk::Data(left)) => {
                    at += some(left, rest, out);
                    if *left == 0 {
                        *self = Self::Chunked(Chunk::DataEnd);
                    }
                }
                Self::Chunked(chunk) => {
                    at += 1;
                    *self = match chunk.next(rest[0])? {
                        Some(next) => Self::Chunked(next),
                        None => Self::Done,
                    };
                }
            }
        }
        Ok(at)
    }

    /// The connection has ended.
    pub(super) fn end(&mut self) -> Result<(), Wrong> {
        match self {
            Self::Close | Self::Done => {
                *self = Self::Done;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(Wrong::Cut),
        }
    }
}

/// Takes what is there of so many bytes.
fn some(left: &mut u64, rest: &[u8], out: &mut Vec<u8>) -> usize {
    let count = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
    out.extend_from_slice(&rest[..count]);
    *left -= u64::try_from(count).unwrap_or(u64::MAX);
    count
}

impl Chunk {
    /// Behind a byte that is no data; `None`: that was the last of the body.
    fn next(self, byte: u8) -> Result<Option<Self>, Wrong> {
        Ok(Some(match (self, byte) {
            (Self::Size(size, digits @ 0..=15), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).ok_or(Wrong::Chunk)?;
                Self::Size((size << 4) | u64::from(digit), digits + 1)
            }
            (Self::Size(size, 1..), b'\r') => Self::SizeEnd(size),
            (Self::Size(size, 1..) | Self::Space(size, _), b';') => {
                Self::Extension(size, ASIDE_BYTES_MAX)
            }
            (Self::Size(size, 1..), b' ' | b'\t') => Self::Space(size, ASIDE_BYTES_MAX),
            (Self::Space(size, left @ 1..), b' ' | b'\t') => Self::Space(size, left - 1),
            (Self::Space(size, _), b'\r') => Self::SizeEnd(size),
            (Self::Extension(size, _), b'\r') => Self::SizeEnd(size),
            (Self::Extension(size, left @ 1..), 0x20..=0x7e | 0x80.. | b'\t') => {
                Self::Extension(size, left - 1)
            }
            (Self::SizeEnd(0), b'\n') => Self::Trailer(Aside::Nothing, ASIDE_BYTES_MAX),
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::DataEnd, b'\r') => Self::DataEnded,
            (Self::DataEnded, b'\n') => Self::START,
            (Self::Trailer(Aside::Nothing, left), b'\r') => Self::TrailerEnd(true, left),
            (Self::Trailer(Aside::Value, left), b'\r') => Self::TrailerEnd(false, left),
            (Self::Trailer(Aside::Name, left @ 1..), b':') => Self::Trailer(Aside::Value, left - 1),
            (Self::Trailer(Aside::Value, left @ 1..), 0x20..=0x7e | 0x80.. | b'\t') => {
                Self::Trailer(Aside::Value, left - 1)
            }
            (Self::Trailer(_, left @ 1..), byte) if is_token(byte) => {
                Self::Trailer(Aside::Name, left - 1)
            }
            (Self::TrailerEnd(true, _), b'\n') => return Ok(None),
            (Self::TrailerEnd(false, left), b'\n') => Self::Trailer(Aside::Nothing, left),
            _ => return Err(Wrong::Chunk),
        }))
    }
}

/// Whether a name may hold it.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
