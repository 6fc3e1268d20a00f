//! A tokenizer from the header of a GGUF file.
//!
//! The header holds a vocabulary but no description of the steps around it; those follow from its
//! kind and from the name of its splitting rule. Both are written here as a tokenizer.json in
//! memory, so that there is one way from a description to a tokenizer, with one set of checks.
//! Keys: the GGUF specification, section "Tokenizer". Parsing the file is not done here.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::{TextError, pretokenizer};

/// The tokenizer keys of a GGUF header.
#[derive(Debug, Clone, Default, serde::Deserialize, serde::Serialize)]
#[serde(default)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
    pub model: String,
    /// `tokenizer.ggml.pre`: name of the splitting rule; absent means `default`.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`, by id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`, by id; needed by `llama`.
    pub scores: Option<Vec<f32>>,
    /// `tokenizer.ggml.token_type`, by id: 1 normal, 2 unknown, 3 control, 4 user-defined,
    /// 5 unused, 6 byte.
    pub types: Option<Vec<i32>>,
    /// `tokenizer.ggml.merges`, best first, two tokens with a space between; needed by `gpt2`.
    pub merges: Option<Vec<String>>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unk: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`; absent means true for `llama`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// SentencePiece stands a space as this character.
const MARK: &str = "\u{2581}";

/// Merges are derived from every way to cut a token, so its length must be bounded; SentencePiece
/// itself stops at 16 characters unless told otherwise.
const PIECE_BYTES_MAX: usize = 512;

/// Name under which errors are reported: there is no file name here.
const SOURCE: &str = "GGUF tokenizer";

impl GgufVocab {
    /// The same tokenizer as the text of a tokenizer.json.
    pub(crate) fn tokenizer_json(&self) -> Result<Vec<u8>, TextError> {
        self.check_lengths()?;
        let mut json = match self.model.as_str() {
            "gpt2" => self.byte_level()?,
            "llama" => self.sentence_piece()?,
            other => {
                return Err(TextError::UnknownKind {
                    found: other.to_owned(),
                    supported: "gpt2, llama".to_owned(),
                });
            }
        };
        json["version"] = "1.0".into();
        json["added_tokens"] = self.added_tokens();
        Ok(json.to_string().into_bytes())
    }

    /// The variables `bos_token` and so on, in the form of special_tokens_map.json.
    pub(crate) fn special_tokens(&self) -> Map<String, Value> {
        let named = [("bos", self.bos), ("eos", self.eos), ("unk", self.unk), ("pad", self.pad)];
        named
            .into_iter()
            .filter_map(|(name, id)| {
                let token = self.tokens.get(id? as usize)?;
                Some((format!("{name}_token"), Value::from(token.as_str())))
            })
            .collect()
    }

    fn check_lengths(&self) -> Result<(), TextError> {
        let count = self.tokens.len();
        if count == 0 {
            return Err(TextError::invalid(SOURCE, "no tokens"));
        }
        let lists = [
            ("scores", self.scores.as_ref().map(Vec::len)),
            ("token types", self.types.as_ref().map(Vec::len)),
        ];
        for (name, length) in lists {
            if length.is_some_and(|length| length != count) {
                let length = length.unwrap_or(0);
                return Err(TextError::invalid(SOURCE, format!("{length} {name}, {count} tokens")));
            }
        }
        let ids =
            [("bos", self.bos), ("eos", self.eos), ("unknown", self.unk), ("padding", self.pad)];
        for (name, id) in ids {
            if let Some(id) = id.filter(|&id| id as usize >= count) {
                let reason = format!("{name} token {id} is outside the {count} tokens");
                return Err(TextError::invalid(SOURCE, reason));
            }
        }
        Ok(())
    }

    fn type_of(&self, id: usize) -> i32 {
        self.types.as_ref().map_or(NORMAL, |types| types[id])
    }

    fn vocab(&self) -> Map<String, Value> {
        self.tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect()
    }

    fn token(&self, id: Option<u32>) -> Option<&str> {
        id.and_then(|id| self.tokens.get(id as usize)).map(String::as_str)
    }

    fn byte_level(&self) -> Result<Value, TextError> {
        let name = self.pre.as_deref().unwrap_or("default");
        let pre = pretokenizer::by_name(name).ok_or_else(|| TextError::UnknownPre {
            found: name.to_owned(),
            supported: pretokenizer::names(),
        })?;
        let Some(merges) = &self.merges else {
            return Err(TextError::invalid(SOURCE, "kind gpt2 needs tokenizer.ggml.merges"));
        };
        Ok(json!({
            "normalizer": pre.normalizer,
            "pre_tokenizer": pre.pre_tokenizer,
            "post_processor": self.post_processor(pre.add_bos),
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "model": {
                "type": "BPE",
                "ignore_merges": pre.ignore_merges,
                "vocab": self.vocab(),
                "merges": merges,
            },
        }))
    }

    fn sentence_piece(&self) -> Result<Value, TextError> {
        let prefix = self.add_space_prefix.unwrap_or(true);
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": MARK});
        let normalizer = if prefix {
            let steps = [json!({"type": "Prepend", "prepend": MARK}), spaces];
            json!({"type": "Sequence", "normalizers": steps})
        } else {
            spaces
        };
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": MARK}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if prefix {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        Ok(json!({
            "normalizer": normalizer,
            "pre_tokenizer": null,
            "post_processor": self.post_processor(true),
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "BPE",
                "unk_token": self.unknown(),
                "fuse_unk": true,
                "byte_fallback": true,
                "vocab": self.vocab(),
                "merges": self.merges_from_scores()?,
            },
        }))
    }

    fn unknown(&self) -> Option<&str> {
        let by_type = || (0..self.tokens.len()).find(|&id| self.type_of(id) == UNKNOWN);
        self.token(self.unk).or_else(|| by_type().map(|id| self.tokens[id].as_str()))
    }

    /// SentencePiece always joins the neighbours whose union is the best scored token. The same
    /// order as a list: every cut of every normal token, best token first. Tokens of equal score
    /// (trained vocabularies have none) follow the longer left part, as converters write them.
    fn merges_from_scores(&self) -> Result<Vec<[&str; 2]>, TextError> {
        let Some(scores) = &self.scores else {
            return Err(TextError::invalid(SOURCE, "kind llama needs tokenizer.ggml.scores"));
        };
        let normal: HashMap<&str, usize> = (0..self.tokens.len())
            .filter(|&id| self.type_of(id) == NORMAL)
            .map(|id| (self.tokens[id].as_str(), id))
            .collect();
        let mut merges = Vec::new();
        for (&token, &id) in &normal {
            if token.len() > PIECE_BYTES_MAX {
                let reason = format!("token {id} is longer than {PIECE_BYTES_MAX} bytes");
                return Err(TextError::invalid(SOURCE, reason));
            }
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(&l), Some(&r)) = (normal.get(left), normal.get(right)) {
                    merges.push((scores[id], [left, right], [l, r]));
                }
            }
        }
        merges.sort_by(|a, b| {
            let length = |[left, right]: [&str; 2]| (left.chars().count(), right.chars().count());
            b.0.total_cmp(&a.0).then_with(|| length(b.1).cmp(&length(a.1))).then(a.2.cmp(&b.2))
        });
        Ok(merges.into_iter().map(|(_, pair, _)| pair).collect())
    }

    fn added_tokens(&self) -> Value {
        let named = [self.bos, self.eos, self.pad];
        let tokens = self.tokens.iter().enumerate().filter_map(|(id, token)| {
            let kind = self.type_of(id);
            let special = matches!(kind, CONTROL | UNKNOWN)
                || (self.types.is_none() && named.contains(&Some(id as u32)));
            (special || kind == USER_DEFINED).then(|| {
                json!({
                    "id": id,
                    "content": token,
                    "single_word": false,
                    "lstrip": false,
                    "rstrip": false,
                    "normalized": false,
                    "special": special,
                })
            })
        });
        tokens.collect()
    }

    /// Adds BOS and EOS, as the file asks for.
    fn post_processor(&self, add_bos_by_default: bool) -> Value {
        let bos = self.bos.filter(|_| self.add_bos.unwrap_or(add_bos_by_default));
        let eos = self.eos.filter(|_| self.add_eos.unwrap_or(false));
        let mut single = Vec::new();
        let mut special = Map::new();
        let mut add = |id: Option<u32>, single: &mut Vec<Value>| {
            if let (Some(id), Some(token)) = (id, self.token(id)) {
                single.push(json!({"SpecialToken": {"id": token, "type_id": 0}}));
                let entry = json!({"id": token, "ids": [id], "tokens": [token]});
                special.insert(token.to_owned(), entry);
            }
        };
        add(bos, &mut single);
        single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
        add(eos, &mut single);
        let second = json!({"Sequence": {"id": "B", "type_id": 1}});
        let pair: Vec<&Value> = single.iter().chain([&second]).collect();
        json!({
            "type": "TemplateProcessing",
            "single": single,
            "pair": pair,
            "special_tokens": special,
        })
    }
}
