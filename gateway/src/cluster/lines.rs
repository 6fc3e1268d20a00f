//! Lines of a body that has no end of its own, each within a bound.

use axum::body::HttpBody;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

/// Why there is no line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// The other side broke off.
    #[error("the stream broke off: {0}")]
    Cut(String),
    /// It says more at once than it may.
    #[error("a line is longer than {0} bytes")]
    TooLong(usize),
}

/// See the module.
pub(super) struct Lines<B> {
    body: B,
    buffer: BytesMut,
    /// Bytes in which no end was found.
    searched: usize,
    pub(super) most: usize,
}

impl<B> Lines<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// Lines of at most `most` bytes.
    pub(super) fn new(body: B, most: usize) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0, most }
    }

    /// The next line without its end; `None`: there is none. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            let rest = &self.buffer[self.searched..];
            if let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(self.searched + at + 1);
                self.searched = 0;
                line.truncate(line.len() - 1);
                return Ok(Some(line.freeze()));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.most {
                return Err(Broken::TooLong(self.most));
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Broken::Cut("within a line".to_owned())),
                Some(Err(error)) => return Err(Broken::Cut(error.to_string())),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;

    use super::*;

    fn body(parts: &'static [&'static str]) -> Body {
        let parts =
            parts.iter().map(|part| Ok::<_, std::io::Error>(Bytes::from_static(part.as_bytes())));
        Body::from_stream(stream::iter(parts))
    }

    #[tokio::test]
    async fn lines_come_whole_however_they_are_cut() {
        let mut lines = Lines::new(body(&["a", "b\nc", "\n\nlast\n"]), 8);
        for expect in ["ab", "c", "", "last"] {
            assert_eq!(lines.next().await.expect("a line").expect("a line"), expect);
        }
        assert_eq!(lines.next().await, Ok(None));
    }

    #[tokio::test]
    async fn what_has_no_end_is_broken() {
        let mut lines = Lines::new(body(&["whole\n", "half"]), 8);
        assert!(lines.next().await.is_ok());
        assert!(matches!(lines.next().await, Err(Broken::Cut(_))));
        let mut lines = Lines::new(body(&["12345", "6789"]), 8);
        assert_eq!(lines.next().await, Err(Broken::TooLong(8)));
    }
}
