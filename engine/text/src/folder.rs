//! A tokenizer from a folder that has no tokenizer.json.
//!
//! Three older forms: `tokenizer.model` (SentencePiece), `vocab.json` with `merges.txt` (byte-level
//! BPE) and `vocab.txt` (WordPiece). None says everything: the class named in
//! `tokenizer_config.json` decides the rest, and a class that is not known is refused by name.
//! Rules: transformers 5, the `tokenization_*.py` of the class.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use crate::TextError;
use crate::description::{self, Pair, Prefix, Spaces};
use crate::files::{Config, TextFiles};
use crate::pretokenizer;
use crate::sentencepiece::{Kind, SentencePiece};

/// A tokenizer.json, and the tokens by id as it spells them.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) json: Vec<u8>,
    pub(crate) listed: Vec<String>,
}

/// Writes the tokenizer.json that a folder lacks; nothing if no older form is given either.
pub(crate) fn describe(
    files: &TextFiles<'_>,
    config: &mut Config,
) -> Result<Option<Made>, TextError> {
    let (file, made) = if let Some(bytes) = files.tokenizer_model {
        let file = "tokenizer.model";
        (file, sentence_piece(SentencePiece::parse(file, bytes)?, config))
    } else if let (Some(vocab), Some(merges)) = (files.vocab_json, files.merges_txt) {
        ("vocab.json", byte_level(vocab, merges, config))
    } else if let Some(words) = files.vocab_txt {
        ("vocab.txt", word_piece(words, config))
    } else {
        return Ok(None);
    };
    made.map(Some).map_err(|reason| TextError::invalid(file, reason))
}

/// Joins the tokens that the configuration adds: those behind the vocabulary must follow it
/// without a gap, and one inside it gives its place the name by which the model knows it.
fn with_added(tokens: &mut Vec<String>, added: &BTreeMap<usize, Value>) -> Result<(), String> {
    let mut known: HashSet<String> = tokens.iter().cloned().collect();
    for (&id, entry) in added {
        let content = entry["content"].as_str().unwrap_or_default();
        if content.is_empty() {
            return Err(format!("the added token {id} has no text"));
        }
        let next = tokens.len();
        match tokens.get_mut(id) {
            Some(token) if token == content || known.contains(content) => {}
            Some(token) => {
                known.remove(token);
                content.clone_into(token);
            }
            None if id == next && !known.contains(content) => tokens.push(content.into()),
            None => {
                return Err(format!(
                    "the added token {content:?} has the id {id}, where {next} comes next"
                ));
            }
        }
        known.insert(content.to_owned());
    }
    Ok(())
}

/// Entries of the configuration win over what the vocabulary says of the same id.
fn finish(mut json: Value, own: Vec<Value>, config: &Config, listed: Vec<String>) -> Made {
    let mut added: BTreeMap<usize, Value> =
        own.into_iter().map(|entry| (entry["id"].as_u64().unwrap_or(0) as usize, entry)).collect();
    added.extend(config.options.added.clone());
    json["added_tokens"] = added.into_values().collect();
    json["version"] = "1.0".into();
    Made { json: json.to_string().into_bytes(), listed }
}

fn id_of(tokens: &[String], token: &str) -> Option<u32> {
    tokens.iter().position(|known| known == token).map(|id| id as u32)
}

impl Config {
    fn named(&self, key: &str) -> Option<&str> {
        self.special.get(key).and_then(Value::as_str)
    }

    /// A special token that must exist, by the configuration's name for it or the usual one.
    fn needed(
        &mut self,
        key: &str,
        usual: &str,
        tokens: &[String],
    ) -> Result<(String, u32), String> {
        let token = self.special.entry(key).or_insert_with(|| usual.into());
        let token = token.as_str().unwrap_or(usual).to_owned();
        match id_of(tokens, &token) {
            Some(id) => Ok((token, id)),
            None => Err(format!("{key} {token:?} is not in the vocabulary")),
        }
    }
}

fn pair(token: &(String, u32)) -> (&str, u32) {
    (&token.0, token.1)
}

fn sentence_piece(model: SentencePiece, config: &mut Config) -> Result<Made, String> {
    let class = config.options.class.clone().unwrap_or_default();
    let llama = model.kind == Kind::Bpe || class.starts_with("Llama");
    let plain = ["", "T5Tokenizer", "PreTrainedTokenizer", "TokenizersBackend"];
    let shifted = class == "XLMRobertaTokenizer";
    if !llama && !shifted && !plain.contains(&class.as_str()) {
        return Err(format!(
            "tokenizer_class {class} is not supported over a unigram model; \
             supported: LlamaTokenizer, T5Tokenizer, XLMRobertaTokenizer"
        ));
    }
    let mut model = model;
    if shifted {
        shift(&mut model)?;
    }
    name_special(&model, config);
    let count = model.pieces.tokens.len();
    with_added(&mut model.pieces.tokens, &config.options.added)?;
    let listed = model.pieces.tokens.clone();
    model.pieces.tokens.truncate(count);
    let options = &config.options;
    let spaces = Spaces {
        prefix: match (options.add_prefix_space.unwrap_or(model.add_dummy_prefix), model.kind) {
            (false, _) => Prefix::Never,
            _ if shifted || class == "T5Tokenizer" => Prefix::Words,
            (true, Kind::Bpe) if options.legacy != Some(true) => Prefix::First,
            (true, _) => Prefix::Always,
        },
        charsmap: &model.charsmap,
        remove_extra: model.remove_extra_whitespaces,
        escape: model.escape_whitespaces,
    };
    let describe = match model.kind {
        Kind::Bpe => description::sentence_piece_bpe,
        Kind::Unigram => description::unigram,
    };
    let mut json = describe(&model.pieces, &spaces, model.unk, model.byte_fallback)?;
    let token = |key: &str| {
        let token = config.named(key)?;
        Some((token, id_of(&listed, token)?))
    };
    let bos = token("bos_token").filter(|_| options.add_bos.unwrap_or(llama || shifted));
    let eos = token("eos_token").filter(|_| options.add_eos.unwrap_or(!llama));
    let pair = match (llama, bos) {
        (true, _) => Pair::Both,
        (false, Some(_)) => Pair::Roberta,
        (false, None) => Pair::T5,
    };
    json["post_processor"] = description::frame(bos, eos, pair);
    let own = model.pieces.added(&[]);
    Ok(finish(json, own, config, listed))
}

/// XLM-R counts its special tokens in fairseq's order, puts the pieces behind them and a mask at
/// the end; the file has another order.
fn shift(model: &mut SentencePiece) -> Result<(), String> {
    let pieces = &mut model.pieces;
    if pieces.tokens.len() < 3 {
        return Err("XLMRobertaTokenizer needs three special pieces".into());
    }
    let special = ["<s>", "<pad>", "</s>", "<unk>"];
    pieces.tokens.splice(0..3, special.map(str::to_owned));
    pieces.scores.splice(0..3, [0.0; 4]);
    let (control, unknown) = (description::CONTROL, description::UNKNOWN);
    pieces.types.splice(0..3, [control, control, control, unknown]);
    pieces.tokens.push("<mask>".into());
    pieces.scores.push(0.0);
    pieces.types.push(control);
    (model.bos, model.pad, model.eos, model.unk) = (Some(0), Some(1), Some(2), Some(3));
    Ok(())
}

/// The file's own special tokens, for templates and for what the configuration leaves out.
fn name_special(model: &SentencePiece, config: &mut Config) {
    let named = [
        ("bos_token", model.bos, description::CONTROL),
        ("eos_token", model.eos, description::CONTROL),
        ("pad_token", model.pad, description::CONTROL),
        ("unk_token", model.unk, description::UNKNOWN),
    ];
    for (key, id, kind) in named {
        let id = id.map(|id| id as usize).filter(|&id| model.pieces.type_of(id) == kind);
        if let Some(id) = id {
            let token = model.pieces.tokens[id].as_str();
            config.special.entry(key).or_insert_with(|| token.into());
        }
    }
}

fn byte_level(vocab: &[u8], merges: &[u8], config: &mut Config) -> Result<Made, String> {
    let class = config.options.class.clone().unwrap_or_default();
    let prefix = config.options.add_prefix_space.unwrap_or(false);
    let rule = match class.as_str() {
        "GPT2Tokenizer" | "RobertaTokenizer" => "gpt2",
        "Qwen2Tokenizer" => "qwen2",
        "" => return Err("tokenizer_config.json names no tokenizer_class".into()),
        other => {
            return Err(format!(
                "tokenizer_class {other} is not supported over vocab.json; \
                 supported: GPT2Tokenizer, Qwen2Tokenizer, RobertaTokenizer"
            ));
        }
    };
    let mut rule = pretokenizer::by_name(rule).ok_or("the splitting rule is missing")?;
    set_prefix(&mut rule.pre_tokenizer, prefix);
    let map: Map<String, Value> = serde_json::from_slice(vocab).map_err(|e| e.to_string())?;
    let mut tokens = dense(&map)?;
    with_added(&mut tokens, &config.options.added)?;
    if class == "RobertaTokenizer" {
        config.special.entry("bos_token").or_insert_with(|| "<s>".into());
        config.special.entry("eos_token").or_insert_with(|| "</s>".into());
    }
    let frame = byte_level_frame(&class, config, &tokens)?;
    let json = json!({
        "normalizer": rule.normalizer,
        "pre_tokenizer": rule.pre_tokenizer,
        "post_processor": frame,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
        "model": {"type": "BPE", "vocab": map, "merges": pairs(merges, &map)?},
    });
    Ok(finish(json, Vec::new(), config, tokens))
}

fn byte_level_frame(class: &str, config: &mut Config, tokens: &[String]) -> Result<Value, String> {
    if class == "RobertaTokenizer" {
        let open = config.needed("cls_token", "<s>", tokens)?;
        let close = config.needed("sep_token", "</s>", tokens)?;
        return Ok(description::frame(Some(pair(&open)), Some(pair(&close)), Pair::Roberta));
    }
    let token = |key: &str, wish: Option<bool>| {
        let token = config.named(key).filter(|_| wish == Some(true))?;
        Some((token, id_of(tokens, token)?))
    };
    let bos = token("bos_token", config.options.add_bos);
    let eos = token("eos_token", config.options.add_eos);
    Ok(description::frame(bos, eos, Pair::Both))
}

/// A space before the text, where the last step of the rule can put one.
fn set_prefix(rule: &mut Value, prefix: bool) {
    let step = match rule["pretokenizers"].as_array_mut() {
        Some(steps) => steps.last_mut(),
        None => Some(rule),
    };
    if let Some(step) = step {
        step["add_prefix_space"] = prefix.into();
    }
}

/// Tokens by id: each id from 0 on, once.
fn dense(map: &Map<String, Value>) -> Result<Vec<String>, String> {
    let mut tokens: Vec<Option<&String>> = vec![None; map.len()];
    for (token, id) in map {
        let slot = id.as_u64().and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
        match slot {
            Some(slot @ None) => *slot = Some(token),
            Some(Some(other)) => return Err(format!("{token:?} and {other:?} have the id {id}")),
            None => {
                let count = map.len();
                return Err(format!("{token:?} has the id {id} in a vocabulary of {count}"));
            }
        }
    }
    Ok(tokens.into_iter().flatten().cloned().collect())
}

/// Pairs of tokens, whose union is a token too.
fn pairs<'a>(merges: &'a [u8], vocab: &Map<String, Value>) -> Result<Vec<[&'a str; 2]>, String> {
    let text = std::str::from_utf8(merges).map_err(|e| format!("merges.txt: {e}"))?;
    let mut pairs = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.is_empty() || (at == 0 && line.starts_with("#version")) {
            continue;
        }
        let wrong = |reason: String| format!("merges.txt: line {} {reason}", at + 1);
        let Some((left, right)) = line.split_once(' ') else {
            return Err(wrong("is no pair".into()));
        };
        let union = format!("{left}{right}");
        for token in [left, right, &union] {
            if !vocab.contains_key(token) {
                return Err(wrong(format!("needs {token:?}, which is not in the vocabulary")));
            }
        }
        pairs.push([left, right]);
    }
    Ok(pairs)
}

fn word_piece(words: &[u8], config: &mut Config) -> Result<Made, String> {
    let options = &config.options;
    let class = options.class.clone().unwrap_or_default();
    let known = ["", "BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"];
    if !known.contains(&class.as_str()) {
        return Err(format!(
            "tokenizer_class {class} is not supported over vocab.txt; \
             supported: BertTokenizer, DistilBertTokenizer, ElectraTokenizer"
        ));
    }
    let (lower, accents) = (options.lower_case.unwrap_or(true), options.strip_accents);
    let chinese = options.chinese_chars.unwrap_or(true);
    let text = std::str::from_utf8(words).map_err(|e| e.to_string())?;
    let mut tokens: Vec<String> = text.lines().map(str::to_owned).collect();
    let count = tokens.len();
    with_added(&mut tokens, &options.added)?;
    let vocab = tokens[..count].iter().enumerate();
    let vocab = vocab.map(|(id, token)| (token.clone(), id.into())).collect::<Map<_, _>>();
    let (unk, _) = config.needed("unk_token", "[UNK]", &tokens)?;
    let open = config.needed("cls_token", "[CLS]", &tokens)?;
    let close = config.needed("sep_token", "[SEP]", &tokens)?;
    for (key, usual) in [("pad_token", "[PAD]"), ("mask_token", "[MASK]")] {
        config.special.entry(key).or_insert_with(|| usual.into());
    }
    let mut json = description::word_piece(&vocab, &unk, lower, accents, chinese);
    json["post_processor"] = description::frame(Some(pair(&open)), Some(pair(&close)), Pair::Bert);
    Ok(finish(json, Vec::new(), config, tokens))
}
