//! A tokenizer from the header of a GGUF file.
//!
//! The header holds a vocabulary but no description of the steps around it; those follow from its
//! kind and from the name of its splitting rule (see `description` and `pretokenizer`). Keys: the
//! GGUF specification, section "Tokenizer". Parsing the file is not done here.

use serde_json::{Map, Value, json};

use crate::description::{self, Pair, Pieces, Prefix, Spaces};
use crate::{TextError, pretokenizer};

/// The tokenizer keys of a GGUF header.
#[derive(Debug, Clone, Default, serde::Deserialize, serde::Serialize)]
#[serde(default)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE), `llama` (SentencePiece BPE), `t5`
    /// (SentencePiece Unigram) or `bert` (WordPiece).
    pub model: String,
    /// `tokenizer.ggml.pre`: name of the splitting rule; absent means `default`.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`, by id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`, by id; needed by `llama` and `t5`.
    pub scores: Option<Vec<f32>>,
    /// `tokenizer.ggml.token_type`, by id: 1 normal, 2 unknown, 3 control, 4 user-defined,
    /// 5 unused, 6 byte.
    pub types: Option<Vec<i32>>,
    /// `tokenizer.ggml.merges`, best first, two tokens with a space between; needed by `gpt2`.
    pub merges: Option<Vec<String>>,
    /// `tokenizer.ggml.bos_token_id`; for `bert` the token that opens a text.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unk: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.seperator_token_id` (spelled so): what `bert` puts behind a text.
    pub sep: Option<u32>,
    /// `tokenizer.ggml.cls_token_id`: opens a text of `bert` where there is no `bos`.
    pub cls: Option<u32>,
    /// `tokenizer.ggml.mask_token_id`.
    pub mask: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_sep_token`: whether two texts are kept apart as encoders do.
    pub add_sep: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`; absent means true for `llama` and `t5`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.ggml.remove_extra_whitespaces`; absent means true for `t5`, else false.
    pub remove_extra_whitespaces: Option<bool>,
    /// `tokenizer.ggml.precompiled_charsmap`: SentencePiece's replacements of characters.
    pub precompiled_charsmap: Option<Vec<u8>>,
    /// `tokenizer.ggml.normalizer.lowercase`; absent means true for `bert`.
    pub lowercase: Option<bool>,
    /// `tokenizer.ggml.normalizer.strip_accents`; absent means the same as `lowercase`.
    pub strip_accents: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

/// Name under which errors are reported: there is no file name here.
const SOURCE: &str = "GGUF tokenizer";

/// Where the original BERT vocabulary has its special tokens, for files that do not say.
const BERT_UNK: u32 = 100;
const BERT_CLS: u32 = 101;
const BERT_SEP: u32 = 102;

impl GgufVocab {
    /// The same tokenizer as the text of a tokenizer.json.
    pub(crate) fn tokenizer_json(&self) -> Result<Vec<u8>, TextError> {
        self.check_lengths()?;
        let mut json = match self.model.as_str() {
            "gpt2" => self.byte_level()?,
            "llama" | "t5" => self.sentence_piece()?,
            "bert" => self.word_piece()?,
            other => {
                return Err(TextError::UnknownKind {
                    found: other.to_owned(),
                    supported: "gpt2, llama, t5, bert".to_owned(),
                });
            }
        };
        json["version"] = "1.0".into();
        let named = [self.bos, self.eos, self.pad, self.sep, self.cls, self.mask];
        // Kinds without types have only names to tell special tokens by.
        let special = if self.types.is_none() { named.as_slice() } else { &[] };
        json["added_tokens"] = self.pieces().added(special).into();
        Ok(json.to_string().into_bytes())
    }

    /// The variables `bos_token` and so on, in the form of special_tokens_map.json.
    pub(crate) fn special_tokens(&self) -> Map<String, Value> {
        let named = self.named().into_iter();
        named
            .filter_map(|(name, id)| {
                let token = self.tokens.get(id? as usize)?;
                Some((format!("{name}_token"), Value::from(token.as_str())))
            })
            .collect()
    }

    fn named(&self) -> [(&'static str, Option<u32>); 7] {
        [
            ("bos", self.bos),
            ("eos", self.eos),
            ("unk", self.unk),
            ("pad", self.pad),
            ("sep", self.sep),
            ("cls", self.cls),
            ("mask", self.mask),
        ]
    }

    fn pieces(&self) -> Pieces {
        Pieces {
            tokens: self.tokens.clone(),
            scores: self.scores.clone().unwrap_or_default(),
            types: self.types.clone().unwrap_or_default(),
        }
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
        for (name, id) in self.named() {
            if let Some(id) = id.filter(|&id| id as usize >= count) {
                let reason = format!("{name} token {id} is outside the {count} tokens");
                return Err(TextError::invalid(SOURCE, reason));
            }
        }
        Ok(())
    }

    fn token(&self, id: Option<u32>) -> Option<(&str, u32)> {
        let id = id?;
        self.tokens.get(id as usize).map(|token| (token.as_str(), id))
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
        let encoder = self.add_sep.unwrap_or(pre.add_sep);
        let pair = if encoder { Pair::Roberta } else { Pair::Both };
        Ok(json!({
            "normalizer": pre.normalizer,
            "pre_tokenizer": pre.pre_tokenizer,
            "post_processor": self.frame(pre.add_bos, false, pair),
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "model": {
                "type": "BPE",
                "ignore_merges": pre.ignore_merges,
                "vocab": self.pieces().vocab(),
                "merges": merges,
            },
        }))
    }

    fn sentence_piece(&self) -> Result<Value, TextError> {
        let invalid = |reason: String| TextError::invalid(SOURCE, reason);
        let Some(scores) = &self.scores else {
            return Err(invalid(format!("kind {} needs tokenizer.ggml.scores", self.model)));
        };
        if let Some(id) = scores.iter().position(|score| !score.is_finite()) {
            return Err(invalid(format!("token {id} has the score {}", scores[id])));
        }
        let likeliest = self.model == "t5";
        let prefix = self.add_space_prefix.unwrap_or(true);
        let spaces = Spaces {
            prefix: if prefix { Prefix::Always } else { Prefix::Never },
            charsmap: self.precompiled_charsmap.as_deref().unwrap_or(&[]),
            remove_extra: self.remove_extra_whitespaces.unwrap_or(likeliest),
            escape: true,
        };
        let pieces = self.pieces();
        let mut json = if likeliest {
            let bytes = self.types.as_ref().is_some_and(|types| types.contains(&6));
            description::unigram(&pieces, &spaces, self.unk, bytes).map_err(invalid)?
        } else {
            description::sentence_piece_bpe(&pieces, &spaces, self.unk, true).map_err(invalid)?
        };
        let pair = match (likeliest, self.add_bos.unwrap_or(false)) {
            (false, _) => Pair::Both,
            (true, true) => Pair::Roberta,
            (true, false) => Pair::T5,
        };
        json["post_processor"] = self.frame(!likeliest, likeliest, pair);
        Ok(json)
    }

    /// The file spells a token that begins a word with SentencePiece's mark, and one that goes on
    /// with a word bare. Names in brackets stay as they are.
    fn word_piece(&self) -> Result<Value, TextError> {
        let found = |id: u32| Some(id).filter(|&id| (id as usize) < self.tokens.len());
        let unk = self.token(self.unk.or(found(BERT_UNK)));
        let cls = self.token(self.bos.or(self.cls).or(found(BERT_CLS)));
        let sep = self.token(self.sep.or(found(BERT_SEP)));
        let (Some((unk, _)), Some(_), Some(_)) = (unk, cls, sep) else {
            let reason = "kind bert needs an unknown token, one that opens and one that separates";
            return Err(TextError::invalid(SOURCE, reason));
        };
        let vocab = self.words().into_iter().enumerate();
        let lowercase = self.lowercase.unwrap_or(true);
        let vocab = vocab.map(|(id, token)| (token, id.into())).collect::<Map<_, _>>();
        let mut json = description::word_piece(&vocab, unk, lowercase, self.strip_accents, true);
        let cls = cls.filter(|_| self.add_bos.unwrap_or(true));
        let sep = sep.filter(|_| self.add_sep.unwrap_or(true));
        json["post_processor"] = description::frame(cls, sep, Pair::Bert);
        Ok(json)
    }

    /// The tokens as tokenizer.json spells them, by id.
    pub(crate) fn words(&self) -> Vec<String> {
        if self.model != "bert" {
            return self.tokens.clone();
        }
        let word = |token: &String| match token.strip_prefix(description::MARK) {
            Some(word) if !word.is_empty() => word.to_owned(),
            None if token.starts_with('[') && token.ends_with(']') => token.clone(),
            _ => format!("##{token}"),
        };
        self.tokens.iter().map(word).collect()
    }

    /// Adds BOS and EOS, as the file asks for.
    fn frame(&self, add_bos: bool, add_eos: bool, pair: Pair) -> Value {
        let bos = self.bos.filter(|_| self.add_bos.unwrap_or(add_bos));
        let eos = self.eos.filter(|_| self.add_eos.unwrap_or(add_eos));
        description::frame(self.token(bos), self.token(eos), pair)
    }
}
