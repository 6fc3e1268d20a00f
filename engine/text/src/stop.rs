//! Cuts generated text at the first stop string, however the text arrives in pieces.
//!
//! Text that may turn out to be the beginning of a stop string is held back until it is decided,
//! and not a byte longer. The match that is *completed* first wins, because generation stops at
//! that byte; of several completed by the same byte, the longest. So the result depends on the
//! text alone and never on how tokens divided it. Each byte advances one Knuth-Morris-Pratt state
//! per stop string, which makes the work linear. Knows text only: no tokens, no request.

/// What one piece of text led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped<'a> {
    /// Text that may be shown now.
    pub emit: &'a str,
    /// Which stop string ended the text, by its place in the list given to
    /// [`StopStrings::new`]. Once set, it is set for every later piece too.
    pub hit: Option<usize>,
}

/// Watches a stream of text for any of several strings.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    patterns: Vec<Pattern>,
    include_stop: bool,
    held: String,
    out: String,
    emitted_bytes: usize,
    /// Bytes at the beginning of `held` that were shown before.
    shown: usize,
    hit: Option<usize>,
}

#[derive(Debug, Clone)]
struct Pattern {
    index: usize,
    bytes: Vec<u8>,
    /// See [`borders`].
    border: Vec<usize>,
    matched: usize,
}

impl StopStrings {
    /// Watches for these strings. Empty ones are ignored: they would match before the first word.
    pub fn new(stops: Vec<String>) -> StopStrings {
        let patterns = stops
            .into_iter()
            .enumerate()
            .filter(|(_, stop)| !stop.is_empty())
            .map(|(index, stop)| Pattern::new(index, stop.into_bytes()))
            .collect();
        StopStrings { patterns, ..StopStrings::default() }
    }

    /// Whether the stop string that was met is part of the emitted text (default: no).
    #[must_use]
    pub fn include_stop(mut self, include: bool) -> StopStrings {
        self.include_stop = include;
        self
    }

    /// What comes follows text that is shown already: a stop string that began in it ends what
    /// comes, too.
    #[must_use]
    pub fn after(mut self, shown: &str) -> StopStrings {
        for pattern in &mut self.patterns {
            for &byte in shown.as_bytes() {
                if pattern.advance(byte) {
                    pattern.matched = pattern.border[pattern.matched];
                }
            }
        }
        self.shown = self.open();
        self.held = shown[shown.len() - self.shown..].to_owned();
        self
    }

    /// Takes the next piece of text. After a hit, further text is ignored.
    pub fn push(&mut self, text: &str) -> Stopped<'_> {
        self.out.clear();
        if self.hit.is_none() {
            self.advance(text);
        }
        self.emitted_bytes += self.out.len();
        Stopped { emit: &self.out, hit: self.hit }
    }

    /// The text is over: releases what was held back. Empty after a hit.
    pub fn flush(&mut self) -> &str {
        self.out.clear();
        self.release(self.held.len());
        self.emitted_bytes += self.out.len();
        &self.out
    }

    /// How many bytes of the pushed text (from its very beginning) have been emitted. A token is
    /// wholly visible when the text up to its end is not longer than this.
    pub fn emitted_bytes(&self) -> usize {
        self.emitted_bytes
    }

    /// How many bytes wait for a decision.
    pub fn held_bytes(&self) -> usize {
        self.held.len() - self.shown
    }

    /// Which stop string was met, if any.
    pub fn hit(&self) -> Option<usize> {
        self.hit
    }

    /// The stop string that was met, if any.
    pub fn met(&self) -> Option<&str> {
        let met = self.patterns.iter().find(|pattern| Some(pattern.index) == self.hit)?;
        std::str::from_utf8(&met.bytes).ok()
    }

    fn advance(&mut self, text: &str) {
        self.held.push_str(text);
        let old = self.held.len() - text.len();
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            let mut met: Option<(usize, usize)> = None;
            for pattern in &mut self.patterns {
                let length = pattern.bytes.len();
                if pattern.advance(byte) && met.is_none_or(|(longest, _)| length > longest) {
                    met = Some((length, pattern.index));
                }
            }
            if let Some((length, index)) = met {
                let end = old + at + 1;
                self.hit = Some(index);
                self.release(if self.include_stop { end } else { end - length });
                (self.held, self.shown) = (String::new(), 0);
                return;
            }
        }
        self.release(self.held.len() - self.open());
    }

    /// Bytes of the longest beginning of a stop string that the text ends with. It starts with that
    /// string's first byte, so a cut there never falls inside a character.
    fn open(&self) -> usize {
        self.patterns.iter().map(|pattern| pattern.matched).max().unwrap_or(0)
    }

    fn release(&mut self, bytes: usize) {
        let shown = self.shown.min(bytes);
        self.out.push_str(&self.held[shown..bytes]);
        self.held.drain(..bytes);
        self.shown -= shown;
    }
}

/// At `n`: length of the longest proper prefix of the first `n` bytes that also ends them.
pub(crate) fn borders(bytes: &[u8]) -> Vec<usize> {
    let mut border = vec![0; bytes.len() + 1];
    let mut length = 0;
    for end in 1..bytes.len() {
        while length > 0 && bytes[end] != bytes[length] {
            length = border[length];
        }
        if bytes[end] == bytes[length] {
            length += 1;
        }
        border[end + 1] = length;
    }
    border
}

impl Pattern {
    fn new(index: usize, bytes: Vec<u8>) -> Pattern {
        let border = borders(&bytes);
        Pattern { index, bytes, border, matched: 0 }
    }

    /// True when this byte completes the string.
    fn advance(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.border[self.matched];
        }
        if self.bytes[self.matched] == byte {
            self.matched += 1;
        }
        // A completed string ends the watch, so `matched` never stays at the full length.
        self.matched == self.bytes.len()
    }
}
