//! Writes tokenizer.json for vocabularies that come without one.
//!
//! GGUF headers, SentencePiece models and plain word lists hold pieces and a few switches; the
//! steps around them follow from the kind. All are written here as the text of a tokenizer.json,
//! so that there is one way from a description to a tokenizer, with one set of checks. Reading
//! the files is not done here.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// A piece that stands for itself. Types: the GGUF key `tokenizer.ggml.token_type`, which took
/// them from SentencePiece.
pub(crate) const NORMAL: i32 = 1;
pub(crate) const UNKNOWN: i32 = 2;
pub(crate) const CONTROL: i32 = 3;
pub(crate) const USER_DEFINED: i32 = 4;
pub(crate) const UNUSED: i32 = 5;

/// SentencePiece stands a space as this character.
pub(crate) const MARK: &str = "\u{2581}";

/// Merges are derived from every way to cut a token, so its length must be bounded; SentencePiece
/// itself stops at 16 characters unless told otherwise.
const PIECE_BYTES_MAX: usize = 512;

/// A vocabulary by id. Scores and types are empty or as many as the tokens.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub(crate) tokens: Vec<String>,
    pub(crate) scores: Vec<f32>,
    pub(crate) types: Vec<i32>,
}

impl Pieces {
    pub(crate) fn type_of(&self, id: usize) -> i32 {
        self.types.get(id).copied().unwrap_or(NORMAL)
    }

    pub(crate) fn vocab(&self) -> Map<String, Value> {
        self.tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect()
    }

    pub(crate) fn unknown(&self, named: Option<u32>) -> Option<usize> {
        let by_type = || (0..self.tokens.len()).find(|&id| self.type_of(id) == UNKNOWN);
        named.map(|id| id as usize).or_else(by_type)
    }

    /// Tokens that are found in a text before anything else happens to it: controls, unknown and
    /// what the authors defined. `special` are controls by another right.
    pub(crate) fn added(&self, special: &[Option<u32>]) -> Vec<Value> {
        let tokens = self.tokens.iter().enumerate().filter_map(|(id, token)| {
            let kind = self.type_of(id);
            let special = matches!(kind, CONTROL | UNKNOWN) || special.contains(&Some(id as u32));
            (special || kind == USER_DEFINED).then(|| added_token(id, token, special))
        });
        tokens.collect()
    }

    /// SentencePiece always joins the neighbours whose union is the best scored token. The same
    /// order as a list: every cut of every normal token, best token first. Tokens of equal score
    /// (trained vocabularies have none) follow the longer left part, as converters write them.
    fn merges(&self) -> Result<Vec<[&str; 2]>, String> {
        let normal: HashMap<&str, usize> = (0..self.tokens.len())
            .filter(|&id| self.type_of(id) == NORMAL)
            .map(|id| (self.tokens[id].as_str(), id))
            .collect();
        let mut merges = Vec::new();
        for (&token, &id) in &normal {
            if token.len() > PIECE_BYTES_MAX {
                return Err(format!("token {id} is longer than {PIECE_BYTES_MAX} bytes"));
            }
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(&l), Some(&r)) = (normal.get(left), normal.get(right)) {
                    merges.push((self.scores[id], [left, right], [l, r]));
                }
            }
        }
        merges.sort_by(|a, b| {
            let length = |[left, right]: [&str; 2]| (left.chars().count(), right.chars().count());
            b.0.total_cmp(&a.0).then_with(|| length(b.1).cmp(&length(a.1))).then(a.2.cmp(&b.2))
        });
        Ok(merges.into_iter().map(|(_, pair, _)| pair).collect())
    }

    /// Pieces with their scores. One that is out of use keeps its id under a name that is not
    /// in any text (two of Unicode's noncharacters), and a score that leaves the lowest alone:
    /// the price of an unknown character is derived from it.
    fn scored(&self) -> Vec<Value> {
        let normal = (0..self.tokens.len()).filter(|&id| self.type_of(id) == NORMAL);
        let lowest = normal.map(|id| self.scores[id]).fold(0.0, f32::min);
        let piece = |(id, token): (usize, &String)| match self.type_of(id) {
            UNUSED => json!([format!("\u{10ffff}\u{ffff}{id}"), lowest]),
            _ => json!([token, self.scores[id]]),
        };
        self.tokens.iter().enumerate().map(piece).collect()
    }
}

/// One entry of `added_tokens`.
pub(crate) fn added_token(id: usize, content: &str, special: bool) -> Value {
    json!({
        "id": id,
        "content": content,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": special,
    })
}

/// Where SentencePiece's mark for a space is put before a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefix {
    Never,
    /// Before the text only, if it does not begin with a space.
    First,
    /// Before each stretch of text between added tokens.
    Always,
    /// Before each word; white space of any kind only parts words. So do the classes of encoders.
    Words,
}

/// What happens to the characters of a text before SentencePiece cuts it.
#[derive(Debug)]
pub(crate) struct Spaces<'a> {
    pub(crate) prefix: Prefix,
    pub(crate) charsmap: &'a [u8],
    pub(crate) remove_extra: bool,
    pub(crate) escape: bool,
}

/// SentencePiece, joined pair by pair.
pub(crate) fn sentence_piece_bpe(
    pieces: &Pieces,
    spaces: &Spaces<'_>,
    unk: Option<u32>,
    byte_fallback: bool,
) -> Result<Value, String> {
    let model = json!({
        "type": "BPE",
        "unk_token": pieces.unknown(unk).map(|id| pieces.tokens[id].as_str()),
        "fuse_unk": true,
        "byte_fallback": byte_fallback,
        "vocab": pieces.vocab(),
        "merges": pieces.merges()?,
    });
    Ok(spaces.around(&model))
}

/// SentencePiece, likeliest pieces.
pub(crate) fn unigram(
    pieces: &Pieces,
    spaces: &Spaces<'_>,
    unk: Option<u32>,
    byte_fallback: bool,
) -> Result<Value, String> {
    let Some(unk) = pieces.unknown(unk) else {
        return Err("a unigram vocabulary needs an unknown token".into());
    };
    let model = json!({
        "type": "Unigram",
        "unk_id": unk,
        "byte_fallback": byte_fallback,
        "vocab": pieces.scored(),
    });
    Ok(spaces.around(&model))
}

impl Spaces<'_> {
    fn around(&self, model: &Value) -> Value {
        let mark = if self.escape { MARK } else { " " };
        let mut steps = Vec::new();
        if !self.charsmap.is_empty() {
            steps.push(
                json!({"type": "Precompiled", "precompiled_charsmap": base64(self.charsmap)}),
            );
        }
        let words = self.prefix == Prefix::Words;
        if self.remove_extra && !words {
            steps.push(replace(&json!({"Regex": "^ +| +$"}), ""));
            steps.push(replace(&json!({"Regex": " {2,}"}), " "));
        }
        // Only escaped spaces can be told from a prefix that is there already.
        let first = self.prefix == Prefix::First && self.escape;
        let pre_tokenizer = if words {
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always"},
            ]})
        } else if first {
            json!({
                "type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": false,
            })
        } else {
            if self.prefix != Prefix::Never {
                steps.push(json!({"type": "Prepend", "prepend": mark}));
            }
            if self.escape {
                steps.push(replace(&json!({"String": " "}), MARK));
            }
            Value::Null
        };
        let mut decoders = vec![
            replace(&json!({"String": MARK}), " "),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        let start = match self.prefix {
            _ if !self.escape => 0,
            _ if self.remove_extra => 1 << 20,
            Prefix::Never => 0,
            _ => 1,
        };
        if start > 0 {
            decoders.push(json!({"type": "Strip", "content": " ", "start": start, "stop": 0}));
        }
        json!({
            "normalizer": {"type": "Sequence", "normalizers": steps},
            "pre_tokenizer": pre_tokenizer,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": model,
        })
    }
}

fn replace(pattern: &Value, content: &str) -> Value {
    json!({"type": "Replace", "pattern": pattern, "content": content})
}

/// BERT's words and their continuations, which begin with `##`.
pub(crate) fn word_piece(
    vocab: &Map<String, Value>,
    unk: &str,
    lowercase: bool,
    strip_accents: Option<bool>,
    chinese: bool,
) -> Value {
    json!({
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": chinese,
            "strip_accents": strip_accents,
            "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": unk,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    })
}

/// Where the tokens around a text go when there are two texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pair {
    /// `<s> a </s> <s> b </s>`, as transformers does for models without a rule of their own.
    Both,
    /// `[CLS] a [SEP] b [SEP]`: the second text has the type 1.
    Bert,
    /// `<s> a </s> </s> b </s>`, all of type 0.
    Roberta,
    /// `a </s> b </s>`, all of type 0.
    T5,
}

/// The tokens put before and behind a text, by name and id.
pub(crate) fn frame(before: Option<(&str, u32)>, after: Option<(&str, u32)>, pair: Pair) -> Value {
    let special = |token: Option<(&str, u32)>, kind: u32| {
        token.map(|(token, _)| json!({"SpecialToken": {"id": token, "type_id": kind}}))
    };
    let text = |name: &str, kind: u32| Some(json!({"Sequence": {"id": name, "type_id": kind}}));
    let single = [special(before, 0), text("A", 0), special(after, 0)];
    let second = match pair {
        Pair::Both => [special(before, 1), text("B", 1), special(after, 1)],
        Pair::Bert => [None, text("B", 1), special(after, 1)],
        Pair::Roberta => [special(after, 0), text("B", 0), special(after, 0)],
        Pair::T5 => [None, text("B", 0), special(after, 0)],
    };
    let tokens = before.into_iter().chain(after).map(|(token, id)| {
        (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}))
    });
    let single: Vec<Value> = single.into_iter().flatten().collect();
    let both: Vec<&Value> = single.iter().chain(second.iter().flatten()).collect();
    json!({
        "type": "TemplateProcessing",
        "single": single,
        "pair": both,
        "special_tokens": tokens.collect::<Map<String, Value>>(),
    })
}

/// Standard base64, in which tokenizer.json carries bytes.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            out.push(if at > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_pads() {
        let check = |bytes: &[u8], expect: &str| assert_eq!(base64(bytes), expect);
        check(b"", "");
        check(b"a", "YQ==");
        check(b"ab", "YWI=");
        check(b"abc\xff", "YWJj/w==");
    }
}
