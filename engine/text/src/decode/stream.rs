//! The moving part of decoding: bytes to characters to text, holding back as little as possible.

use super::Decoder;

/// Where one text stands.
#[derive(Debug, Clone)]
pub(crate) struct DecodeState {
    first: bool,
    /// Bytes of a character whose end has not arrived: at most three.
    pending: Vec<u8>,
    strip: Option<(char, usize)>,
    replacers: Vec<Replacer>,
    scratch: Vec<u8>,
    text: String,
}

impl DecodeState {
    pub(crate) fn new(decoder: &Decoder) -> DecodeState {
        let replacers = decoder.steps.replacements.iter();
        DecodeState {
            first: true,
            pending: Vec::new(),
            strip: decoder.steps.strip_start,
            replacers: replacers.map(|(from, to)| Replacer::new(from, to)).collect(),
            scratch: Vec::new(),
            text: String::new(),
        }
    }

    /// Appends to `out` the text that is certain after this token.
    pub(crate) fn push(&mut self, decoder: &Decoder, id: u32, out: &mut String) {
        if !decoder.knows(id) {
            return;
        }
        self.text.clear();
        if std::mem::take(&mut self.first) {
            self.scratch.clear();
            decoder.first_piece(id, &mut self.scratch);
            assemble(&mut self.pending, &self.scratch, &mut self.text);
        } else {
            assemble(&mut self.pending, decoder.piece(id), &mut self.text);
        }
        self.finish(out);
    }

    /// Appends what was held back. The text is over.
    pub(crate) fn flush(&mut self, out: &mut String) {
        self.text.clear();
        if !self.pending.is_empty() {
            self.pending.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        self.finish(out);
        // What one replacer lets go still passes through those behind it.
        for at in 0..self.replacers.len() {
            let mut text = std::mem::take(&mut self.replacers[at].held);
            for later in &mut self.replacers[at + 1..] {
                text = later.push(&text);
            }
            out.push_str(&text);
        }
    }

    /// Takes `self.text` through the steps for joined text.
    fn finish(&mut self, out: &mut String) {
        let mut start = 0;
        while let Some((content, left)) = self.strip {
            let Some(c) = self.text[start..].chars().next() else { break };
            if left == 0 || c != content {
                self.strip = None;
            } else {
                start += c.len_utf8();
                self.strip = Some((content, left - 1));
            }
        }
        if self.replacers.is_empty() {
            out.push_str(&self.text[start..]);
            return;
        }
        let mut text = self.text[start..].to_owned();
        for replacer in &mut self.replacers {
            text = replacer.push(&text);
        }
        out.push_str(&text);
    }
}

/// Moves complete characters to `text`, keeps the beginning of one in `pending`, and writes U+FFFD
/// for each run of bytes that no byte to come can make valid.
fn assemble(pending: &mut Vec<u8>, bytes: &[u8], text: &mut String) {
    if pending.is_empty()
        && let Ok(valid) = std::str::from_utf8(bytes)
    {
        return text.push_str(valid);
    }
    pending.extend_from_slice(bytes);
    let mut start = 0;
    loop {
        match std::str::from_utf8(&pending[start..]) {
            Ok(valid) => {
                text.push_str(valid);
                return pending.clear();
            }
            Err(error) => {
                let valid = start + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&pending[start..valid]));
                start = valid;
                let Some(bad) = error.error_len() else { break };
                text.push(char::REPLACEMENT_CHARACTER);
                start += bad;
            }
        }
    }
    pending.drain(..start);
}

/// `str::replace` for a text that arrives in pieces.
#[derive(Debug, Clone)]
struct Replacer {
    from: String,
    to: String,
    /// The end of the text so far, if it may be the beginning of `from`.
    held: String,
}

impl Replacer {
    fn new(from: &str, to: &str) -> Replacer {
        Replacer { from: from.to_owned(), to: to.to_owned(), held: String::new() }
    }

    fn push(&mut self, text: &str) -> String {
        self.held.push_str(text);
        let mut out = String::with_capacity(self.held.len());
        let mut start = 0;
        while let Some(at) = self.held[start..].find(&self.from) {
            out.push_str(&self.held[start..start + at]);
            out.push_str(&self.to);
            start += at + self.from.len();
        }
        let rest = &self.held[start..];
        let open = open_suffix(rest, &self.from);
        out.push_str(&rest[..rest.len() - open]);
        start = self.held.len() - open;
        self.held.drain(..start);
        out
    }
}

/// Length of the longest end of `text` that is a proper beginning of `pattern`.
fn open_suffix(text: &str, pattern: &str) -> usize {
    (1..pattern.len())
        .rev()
        .find(|&n| pattern.is_char_boundary(n) && text.ends_with(&pattern[..n]))
        .unwrap_or(0)
}
