//! What each token stands for, and how the pieces become text.
//!
//! tokenizer.json describes decoding as steps over the whole list of tokens. Streaming needs the
//! same result token by token, so the steps are sorted once, at load, into three kinds: what a
//! token means by itself (a table of bytes), what the first token of a text loses, and what
//! happens to the joined text. A decoder that does not fit is refused by name.
//! Rules: the `tokenizers` crate, `decoders/`; differences are only in bytes that are not UTF-8,
//! where every maximal invalid run becomes one U+FFFD (as in Unicode's recommendation).

use serde_json::Value;

use crate::TextError;
use crate::decode::steps::Steps;

mod steps;
mod stream;

pub(crate) use stream::DecodeState;

/// Pieces longer than this in sum are no vocabulary; real ones have 1 to 3 MB.
const PIECE_BYTES_MAX: usize = 256 << 20;

/// A vocabulary seen from the side of the text.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// The bytes of all tokens, one after the other, as they stand inside a text.
    bytes: Vec<u8>,
    /// Where each token ends in `bytes`.
    ends: Vec<u32>,
    /// The tokens as written, only if the first of a text decodes differently.
    written: Vec<Option<String>>,
    steps: Steps,
}

impl Decoder {
    /// `json` is the `decoder` of tokenizer.json, `tokens` the vocabulary by id (gaps allowed).
    /// `clean_up` joins punctuation to the word before it, as old WordPiece models ask for.
    pub(crate) fn new(
        json: &Value,
        tokens: Vec<Option<String>>,
        clean_up: bool,
    ) -> Result<Decoder, TextError> {
        let steps =
            Steps::parse(json, clean_up).map_err(|e| TextError::invalid("tokenizer.json", e))?;
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(tokens.len());
        for token in &tokens {
            if let Some(token) = token {
                steps.piece(token, false, &mut bytes);
            }
            if bytes.len() > PIECE_BYTES_MAX {
                let reason = "the decoder makes tokens longer than any text";
                return Err(TextError::invalid("tokenizer.json", reason));
            }
            ends.push(bytes.len() as u32);
        }
        let written = if steps.first_differs() { tokens } else { Vec::new() };
        Ok(Decoder { bytes, ends, written, steps })
    }

    /// The bytes that a token adds to a text; none for an id outside the vocabulary.
    pub(crate) fn piece(&self, id: u32) -> &[u8] {
        let Some(&end) = self.ends.get(id as usize) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id as usize - 1] };
        &self.bytes[start as usize..end as usize]
    }

    /// Whether there is such a token. An unknown id is not even the first of a text.
    fn knows(&self, id: u32) -> bool {
        match self.written.get(id as usize) {
            Some(token) => token.is_some(),
            None => (id as usize) < self.ends.len(),
        }
    }

    /// The bytes that a token adds as the first of a text.
    fn first_piece(&self, id: u32, into: &mut Vec<u8>) {
        match self.written.get(id as usize) {
            Some(Some(token)) => self.steps.piece(token, true, into),
            _ => into.extend_from_slice(self.piece(id)),
        }
    }

    /// Number of ids, gaps included.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }
}
