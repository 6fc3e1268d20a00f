//! Server-sent events as a client reads them, from bytes that come in any pieces. What a stranger
//! sends is bounded: an event that grows beyond the limit ends the stream.
//! Source: the "Server-sent events" chapter of the HTML standard.

use std::str;

use memchr::{memchr, memchr2};

use crate::piece::Broken;

/// Finds events in a stream of bytes.
#[derive(Debug)]
pub struct Events {
    /// Bytes of the line under way.
    line: Vec<u8>,
    /// The event under way.
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The last line ended with a carriage return: a line feed right behind belongs to it.
    after_return: bool,
    /// No byte has come yet: a byte order mark may.
    fresh: bool,
    limit: usize,
}

impl Events {
    /// With events of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            line: Vec::new(),
            name: Vec::new(),
            data: Vec::new(),
            has_data: false,
            after_return: false,
            fresh: true,
            limit,
        }
    }

    /// Takes bytes. Each event that ends in them goes to `each`: its name, empty where it has
    /// none, and its data.
    ///
    /// # Errors
    /// An event is too long or not UTF-8, or `each` fails.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        each: &mut dyn FnMut(&str, &str) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        if std::mem::take(&mut self.after_return) && bytes.first() == Some(&b'\n') {
            bytes = &bytes[1..];
        }
        while let Some(at) = memchr2(b'\n', b'\r', bytes) {
            let (line, rest) = bytes.split_at(at);
            let ends_with_return = rest[0] == b'\r';
            bytes = &rest[1..];
            match bytes.first() {
                Some(b'\n') if ends_with_return => bytes = &bytes[1..],
                None => self.after_return = ends_with_return,
                Some(_) => {}
            }
            if self.line.is_empty() {
                self.line(line, each)?;
            } else {
                self.bound(line.len())?;
                self.line.extend_from_slice(line);
                let whole = std::mem::take(&mut self.line);
                self.line(&whole, each)?;
                // The room stays.
                self.line = whole;
                self.line.clear();
            }
        }
        self.bound(bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn bound(&self, more: usize) -> Result<(), Broken> {
        if self.line.len() + self.data.len() + self.name.len() + more <= self.limit {
            return Ok(());
        }
        Err(Broken(format!("an event of more than {} bytes", self.limit)))
    }

    fn line(
        &mut self,
        line: &[u8],
        each: &mut dyn FnMut(&str, &str) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let first = std::mem::take(&mut self.fresh);
        let line = line.strip_prefix(b"\xEF\xBB\xBF").filter(|_| first).unwrap_or(line);
        if line.is_empty() {
            return self.dispatch(each);
        }
        let (field, value) = match memchr(b':', line) {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => {
                self.name.clear();
                self.bound(value.len())?;
                self.name.extend_from_slice(value);
            }
            b"data" => {
                self.bound(value.len() + 1)?;
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            // Comments, ids and times to wait: nothing that an answer is made of.
            _ => {}
        }
        Ok(())
    }

    fn dispatch(
        &mut self,
        each: &mut dyn FnMut(&str, &str) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let result = if self.has_data {
            let text = |bytes| {
                str::from_utf8(bytes).map_err(|_| Broken("an event that is not UTF-8".into()))
            };
            text(&self.name).and_then(|name| each(name, text(&self.data)?))
        } else {
            Ok(())
        };
        self.name.clear();
        self.data.clear();
        self.has_data = false;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Vec<(String, String)>, Broken> {
        let mut events = Events::new(64);
        let mut out = Vec::new();
        for piece in pieces {
            events.push(piece, &mut |name, data| {
                out.push((name.to_owned(), data.to_owned()));
                Ok(())
            })?;
        }
        Ok(out)
    }

    #[test]
    fn lines_end_in_three_ways_and_in_any_pieces() {
        let whole = b"\xEF\xBB\xBF: hello\r\nevent: a\rdata: 1\ndata:2\r\n\r\nid: 7\n\ndata\n\n";
        let expect = vec![("a".to_owned(), "1\n2".to_owned()), (String::new(), String::new())];
        assert_eq!(read(&[whole]).unwrap(), expect);
        for at in 0..=whole.len() {
            let (one, two) = whole.split_at(at);
            assert_eq!(read(&[one, two]).unwrap(), expect, "cut at {at}");
        }
        let single: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(read(&single).unwrap(), expect);
    }

    #[test]
    fn bounded() {
        let long = vec![b'x'; 65];
        assert!(read(&[&long]).is_err());
        assert!(read(&[b"data: ", &long[..40], b"\ndata: ", &long[..40], b"\n\n"]).is_err());
        assert!(read(&[b"data: \xFF\n\n"]).is_err());
        assert!(read(&[b": \xFF\n\ndata: ok\n\n"]).is_ok());
    }
}
