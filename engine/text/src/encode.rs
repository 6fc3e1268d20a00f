//! Texts to tokens: with what the model's files put around them, in pairs, and cut to a length.
//!
//! Generators need plain ids. Encoders and rerankers need a pair of texts with the tokens that
//! keep them apart and the type of each token, and a limit that spares those tokens.

use tokenizers::utils::truncation::truncate_encodings;
use tokenizers::{
    Encoding, PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy,
};

use crate::model::contained;
use crate::{TextError, TextModel};

impl TextModel {
    /// Text to tokens. Special tokens written in the text are recognised in either case;
    /// `add_special_tokens` adds those that the model's files put around a text (often BOS), which
    /// a rendered chat template has already written.
    ///
    /// # Errors
    /// The tokenizer's files make it fail on this text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        contained(|| self.tokenizer.encode_fast(text, add_special_tokens))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(TextError::Encode)
    }

    /// Ids with special tokens, and the type of each token: 0 for all of a single text unless the
    /// model's files say otherwise.
    ///
    /// # Errors
    /// As [`TextModel::encode`].
    pub fn encode_typed(&self, text: &str) -> Result<(Vec<u32>, Vec<u32>), TextError> {
        self.cut(text, None, (None, None))
    }

    /// Two texts as one sequence, e.g. `[CLS] a [SEP] b [SEP]`, and the type of each token: which
    /// text it belongs to, for models that were trained with it.
    ///
    /// # Errors
    /// As [`TextModel::encode`].
    pub fn encode_pair(&self, a: &str, b: &str) -> Result<(Vec<u32>, Vec<u32>), TextError> {
        self.cut(a, Some(b), (None, None))
    }

    /// As [`TextModel::encode_typed`], with at most `max_tokens` tokens: the text loses its end,
    /// the special tokens stay.
    ///
    /// # Errors
    /// As [`TextModel::encode`]; the special tokens alone are more than `max_tokens`.
    pub fn encode_truncated(
        &self,
        text: &str,
        max_tokens: usize,
    ) -> Result<(Vec<u32>, Vec<u32>), TextError> {
        self.cut(text, None, (None, Some(max_tokens)))
    }

    /// As [`TextModel::encode_pair`], with at most `b_tokens` tokens of `b`, and with at most
    /// `max_tokens` tokens in all. The longer text is cut first; once both are equally long they
    /// lose their ends together.
    ///
    /// # Errors
    /// As [`TextModel::encode_truncated`].
    pub fn encode_pair_truncated(
        &self,
        a: &str,
        b: &str,
        b_tokens: Option<usize>,
        max_tokens: Option<usize>,
    ) -> Result<(Vec<u32>, Vec<u32>), TextError> {
        self.cut(a, Some(b), (b_tokens, max_tokens))
    }

    fn cut(
        &self,
        a: &str,
        b: Option<&str>,
        (b_tokens, max_tokens): (Option<usize>, Option<usize>),
    ) -> Result<(Vec<u32>, Vec<u32>), TextError> {
        let room = max_tokens.map(|tokens| self.room(tokens, b.is_some())).transpose()?;
        contained(|| {
            let first = self.tokenizer.encode_fast(a, false)?;
            let second = b.map(|b| self.tokenizer.encode_fast(b, false)).transpose()?;
            let second = second.map(|mut second| {
                second.truncate(b_tokens.unwrap_or(usize::MAX), 0, TruncationDirection::Right);
                // What was cut off would be put together with the first text, piece by piece.
                drop(second.take_overflowing());
                second.set_type_ids(vec![1; second.len()]);
                second
            });
            let limit = TruncationParams {
                max_length: room.unwrap_or(usize::MAX),
                strategy: TruncationStrategy::LongestFirst,
                ..TruncationParams::default()
            };
            let (first, second) = truncate_encodings(first, second, &limit)?;
            self.tokenizer.post_process(first, second, true)
        })
        .map(|encoding| parts(&encoding))
        .map_err(TextError::Encode)
    }

    /// Number of special tokens that the model's files put around one text, or around two.
    pub fn special_tokens_added(&self, pair: bool) -> usize {
        self.tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(pair))
    }

    fn room(&self, max_tokens: usize, pair: bool) -> Result<usize, TextError> {
        let special = self.special_tokens_added(pair);
        max_tokens.checked_sub(special).ok_or_else(|| {
            let reason = format!("{special} special tokens do not fit into {max_tokens}");
            TextError::Encode(reason)
        })
    }
}

fn parts(encoding: &Encoding) -> (Vec<u32>, Vec<u32>) {
    (encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec())
}
