//! AWS's event stream: frames of bytes with headers and a payload, each with two checksums, from
//! bytes that come in any pieces. What a stranger sends is bounded: a frame that says it is longer
//! than the limit ends the stream before it is read.
//! Source: "Amazon event stream encoding" of the AWS SDKs' and Smithy's specifications.
//!
//! ```text
//! total length u32 | headers' length u32 | CRC-32 of these 8 bytes
//! headers: (name's length u8, name, type u8, value)*
//! payload
//! CRC-32 of all before it
//! ```

use serde_json::json;

use crate::piece::Broken;
use crate::provider;

/// Lengths and their checksum.
const PRELUDE: usize = 12;

/// A checksum.
const CRC: usize = 4;

/// Bytes of headers, as AWS bounds them.
const HEADERS_MAX: usize = 128 << 10;

/// Finds frames in a stream of bytes.
#[derive(Debug)]
pub struct Frames {
    /// The frame under way.
    bytes: Vec<u8>,
    limit: usize,
}

impl Frames {
    /// With frames of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit }
    }

    /// Takes bytes. Each frame that ends in them goes to `each`: the name of its event or
    /// exception, and its payload. An error that has no payload is told as the event `error`, with
    /// its `code` and `message` in JSON.
    ///
    /// # Errors
    /// A frame is too long, damaged or not UTF-8, or `each` fails.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        each: &mut dyn FnMut(&str, &str) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        while !bytes.is_empty() {
            let want = match self.bytes.len() {
                0..PRELUDE => PRELUDE,
                _ => self.total()?,
            };
            let (now, rest) = bytes.split_at(bytes.len().min(want - self.bytes.len()));
            self.bytes.extend_from_slice(now);
            bytes = rest;
            if self.bytes.len() >= PRELUDE && self.bytes.len() == self.total()? {
                let frame = std::mem::take(&mut self.bytes);
                read(&frame, each)?;
                // The room stays.
                self.bytes = frame;
                self.bytes.clear();
            }
        }
        Ok(())
    }

    /// The length of the frame under way, whose prelude is here.
    fn total(&self) -> Result<usize, Broken> {
        let (total, headers) = (number(&self.bytes[0..4]), number(&self.bytes[4..8]));
        if crc32fast::hash(&self.bytes[..8]) != word(&self.bytes[8..PRELUDE]) {
            return Err(Broken("the checksum of a frame's beginning is wrong".into()));
        }
        if total > self.limit {
            return Err(Broken(format!("a frame of more than {} bytes", self.limit)));
        }
        if headers > HEADERS_MAX || total < PRELUDE + headers + CRC {
            return Err(Broken("a frame whose lengths cannot be".into()));
        }
        Ok(total)
    }
}

/// Four bytes, the highest first.
fn word(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn number(bytes: &[u8]) -> usize {
    usize::try_from(word(bytes)).unwrap_or(usize::MAX)
}

/// Reads a whole frame.
fn read(
    frame: &[u8],
    each: &mut dyn FnMut(&str, &str) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let (body, crc) = frame.split_at(frame.len() - CRC);
    if crc32fast::hash(body) != word(crc) {
        return Err(Broken("the checksum of a frame is wrong".into()));
    }
    let (headers, payload) = body[PRELUDE..].split_at(number(&frame[4..8]));
    let headers = Headers::of(headers)?;
    let payload = provider::utf8(payload)?;
    match headers.message {
        Some("error") => {
            let said = json!({"code": headers.code, "message": headers.words});
            each("error", &said.to_string())
        }
        Some("exception") => each(headers.exception.unwrap_or("error"), payload),
        _ => each(headers.event.unwrap_or_default(), payload),
    }
}

/// The headers that say what a frame is.
#[derive(Default)]
struct Headers<'a> {
    message: Option<&'a str>,
    event: Option<&'a str>,
    exception: Option<&'a str>,
    code: Option<&'a str>,
    words: Option<&'a str>,
}

impl<'a> Headers<'a> {
    fn of(mut bytes: &'a [u8]) -> Result<Self, Broken> {
        let cut = || Broken("a frame's headers are cut".into());
        let mut out = Self::default();
        while let Some((length, rest)) = bytes.split_first() {
            let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(cut)?;
            let (kind, rest) = rest.split_first().ok_or_else(cut)?;
            let (length, rest) = match kind {
                0 | 1 => (0, rest),
                2 => (1, rest),
                3 => (2, rest),
                4 => (4, rest),
                5 | 8 => (8, rest),
                // Bytes and texts say how long they are.
                6 | 7 => {
                    let (length, rest) = rest.split_at_checked(2).ok_or_else(cut)?;
                    (number(length), rest)
                }
                9 => (16, rest),
                kind => return Err(Broken(format!("a frame's header has the type {kind}"))),
            };
            let (value, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
            bytes = rest;
            let field = match name {
                b":message-type" => &mut out.message,
                b":event-type" => &mut out.event,
                b":exception-type" => &mut out.exception,
                b":error-code" => &mut out.code,
                b":error-message" => &mut out.words,
                _ => continue,
            };
            if *kind == 7 {
                *field = Some(provider::utf8(value)?);
            }
        }
        Ok(out)
    }
}
