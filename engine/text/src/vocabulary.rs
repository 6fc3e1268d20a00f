//! A folder's tokenizer as the keys of a GGUF header: the other direction of `gguf`.
//!
//! A header has no room for the steps around a vocabulary, only for the kind and for the name of a
//! splitting rule. So a tokenizer can be written if its steps are those of a known kind and rule,
//! and is refused otherwise. What is written is the caller's to check: it has both models.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::ModelWrapper;

use crate::description::{CONTROL, MARK, NORMAL, UNKNOWN, UNUSED, USER_DEFINED};
use crate::files::{Config, Directory};
use crate::{GgufVocab, TextError, TextModel, folder, pretokenizer};

/// `tokenizer.ggml.token_type` of a token that stands for one byte.
const BYTE: i32 = 6;
const SOURCE: &str = "tokenizer.json";

impl GgufVocab {
    /// The tokenizer of a folder in the layout of Hugging Face, padded to `rows` tokens: readers
    /// of GGUF files take the number of tokens for the rows of the embedding. `add_bos` and
    /// `add_eos` are left to the caller. Also returns what a header cannot say.
    ///
    /// # Errors
    /// As [`crate::TextModel::from_dir`]; a kind or a splitting rule that has no name.
    pub fn from_dir(dir: &Path, rows: usize) -> Result<(Self, Vec<String>), TextError> {
        let read = Directory::read(dir)?;
        let files = read.files();
        let mut config = Config::parse(&files)?;
        for template in &read.templates {
            config.set_template(&template.name, &template.source, &template.file);
        }
        let made = match files.tokenizer_json {
            [] => folder::describe(&files, &mut config)?.map(|made| made.json),
            _ => None,
        };
        let bytes = made.as_deref().unwrap_or(files.tokenizer_json);
        let json = serde_json::from_slice(bytes).map_err(|e| TextError::invalid(SOURCE, e))?;
        convert(&json, &config, rows).map_err(|reason| TextError::invalid(SOURCE, reason))
    }
}

impl TextModel {
    /// What kind of vocabulary the tokenizer has, for people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.tokenizer.get_model() {
            ModelWrapper::BPE(bpe) if bpe.byte_fallback => "SentencePiece BPE",
            ModelWrapper::BPE(_) => "byte-level BPE",
            ModelWrapper::Unigram(_) => "SentencePiece Unigram",
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::WordLevel(_) => "words",
        }
    }
}

fn convert(json: &Value, config: &Config, rows: usize) -> Result<(GgufVocab, Vec<String>), String> {
    let kind = json["model"]["type"].as_str().unwrap_or("BPE");
    if kind != "BPE" {
        return Err(format!("a {kind} vocabulary cannot be written to a GGUF file; BPE can"));
    }
    let mut notes = Vec::new();
    let (mut tokens, mut types) = tokens(json, rows, &mut notes)?;
    let merges = merges(&json["model"]["merges"])?;
    let steps = flat(&json["pre_tokenizer"], "pretokenizers");
    let bytes = steps.iter().any(|step| step["type"] == "ByteLevel");
    let mut vocab = GgufVocab::default();
    if bytes {
        vocab.model = "gpt2".to_owned();
        vocab.pre = Some(rule(json, &steps)?.to_owned());
        vocab.merges = Some(merges.iter().map(|[left, right]| format!("{left} {right}")).collect());
    } else {
        let prefix = sentence_piece(json, &steps)?;
        vocab.model = "llama".to_owned();
        vocab.pre = Some("default".to_owned());
        vocab.add_space_prefix = Some(prefix);
        mark_pieces(json, &tokens, &mut types);
        vocab.scores = Some(scores(&tokens, &merges));
    }
    for id in tokens.len()..rows {
        tokens.push(format!("[PAD{id}]"));
        types.push(UNUSED);
        vocab.scores.iter_mut().for_each(|scores| scores.push(-1e6));
    }
    let id = |key: &str| {
        let token = config.special.get(key)?.as_str()?;
        tokens.iter().position(|known| known == token).map(|id| id as u32)
    };
    (vocab.bos, vocab.eos) = (id("bos_token"), id("eos_token"));
    (vocab.unk, vocab.pad) = (id("unk_token"), id("pad_token"));
    vocab.chat_template = template(config, &mut notes);
    (vocab.tokens, vocab.types) = (tokens, Some(types));
    Ok((vocab, notes))
}

fn template(config: &Config, notes: &mut Vec<String>) -> Option<String> {
    for template in config.templates.iter().filter(|template| template.name != "default") {
        notes.push(format!("the chat template {} is not written", template.name));
    }
    let usual = config.templates.iter().find(|template| template.name == "default");
    usual.map(|template| template.source.clone())
}

/// Tokens and their types by id; a gap becomes an unused token.
fn tokens(
    json: &Value,
    rows: usize,
    notes: &mut Vec<String>,
) -> Result<(Vec<String>, Vec<i32>), String> {
    let mut all: BTreeMap<usize, (&str, i32)> = BTreeMap::new();
    let id = |value: &Value| value.as_u64().and_then(|id| usize::try_from(id).ok());
    let vocab = json["model"]["vocab"].as_object().ok_or("the model has no vocabulary")?;
    for (token, value) in vocab {
        let id = id(value).ok_or_else(|| format!("{token:?} has the id {value}"))?;
        all.insert(id, (token, NORMAL));
    }
    let mut loose = 0;
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let content = token["content"].as_str().zip(id(&token["id"]));
        let (content, id) = content.ok_or_else(|| format!("added token {token}"))?;
        loose += usize::from(["lstrip", "rstrip", "single_word"].iter().any(|k| token[k] == true));
        let kind = if token["special"] == true { CONTROL } else { USER_DEFINED };
        all.insert(id, (content, kind));
    }
    if loose > 0 {
        notes.push(format!(
            "{loose} added tokens take white space beside them in; GGUF files cannot say so"
        ));
    }
    let count = all.last_key_value().map_or(0, |(id, _)| id + 1);
    if count > rows {
        return Err(format!("the token {} has no row among the embedding's {rows}", count - 1));
    }
    let token = |id: usize| match all.get(&id) {
        Some((token, kind)) => ((*token).to_owned(), *kind),
        None => (format!("[PAD{id}]"), UNUSED),
    };
    Ok((0..count).map(token).unzip())
}

/// Pairs of tokens: written as one string with a space, or as a list of two.
fn merges(json: &Value) -> Result<Vec<[&str; 2]>, String> {
    let merges = json.as_array().ok_or("the model has no merges")?.iter().map(|value| {
        let listed = value.as_array().and_then(|list| match list.as_slice() {
            [left, right] => Some([left.as_str()?, right.as_str()?]),
            _ => None,
        });
        let split = || value.as_str().and_then(|text| text.split_once(' ')).map(|(l, r)| [l, r]);
        listed.or_else(split).ok_or_else(|| format!("the merge {value} is no pair"))
    });
    merges.collect()
}

/// The steps of a sequence, or the one step.
fn flat(json: &Value, list: &str) -> Vec<Value> {
    match json {
        Value::Null => Vec::new(),
        step if step["type"] == "Sequence" => {
            step[list].as_array().into_iter().flatten().flat_map(|step| flat(step, list)).collect()
        }
        step => vec![plain(step)],
    }
}

/// A step without what makes no difference to the pieces.
fn plain(step: &Value) -> Value {
    let mut step = step.clone();
    if let (true, Some(fields)) = (step["type"] == "ByteLevel", step.as_object_mut()) {
        fields.remove("trim_offsets");
        fields.entry("use_regex").or_insert(true.into());
        fields.entry("add_prefix_space").or_insert(true.into());
    }
    step
}

/// The name of the splitting rule that has these steps.
fn rule(json: &Value, steps: &[Value]) -> Result<&'static str, String> {
    let whole = json["model"]["ignore_merges"] == true;
    let normalizer = flat(&json["normalizer"], "normalizers");
    let same = |name: &&'static str| {
        pretokenizer::by_name(name).is_some_and(|rule| {
            rule.ignore_merges == whole
                && flat(&rule.normalizer, "normalizers") == normalizer
                && flat(&rule.pre_tokenizer, "pretokenizers") == steps
        })
    };
    // `default` is what a file without a name has, and not every reader takes it for the same.
    let mut names = pretokenizer::all_names().filter(|&name| name != "default");
    names.find(same).ok_or_else(|| {
        let shown = Value::from(steps.to_vec()).to_string();
        let shown: String = shown.chars().take(300).collect();
        format!("the splitting rule has no name in GGUF files: {shown}")
    })
}

/// Whether a SentencePiece tokenizer puts a space before a text; an error if it is something else.
fn sentence_piece(json: &Value, steps: &[Value]) -> Result<bool, String> {
    let refused = |what: &Value| format!("the step {what} has no place in a GGUF file");
    if json["model"]["byte_fallback"] != true {
        return Err("a BPE vocabulary that has neither bytes as letters nor byte tokens".into());
    }
    let (mut prefix, mut marks) = (false, false);
    for step in flat(&json["normalizer"], "normalizers") {
        match step["type"].as_str() {
            Some("Prepend") if step["prepend"] == MARK => prefix = true,
            Some("Replace") if step["pattern"]["String"] == " " && step["content"] == MARK => {
                marks = true;
            }
            _ => return Err(refused(&step)),
        }
    }
    for step in steps {
        let split = step["pattern"]["String"] == " " && step["behavior"] == "MergedWithPrevious";
        match step["type"].as_str() {
            Some("Metaspace") if step["split"] == false => {
                (prefix, marks) = (step["prepend_scheme"] != "never", true);
            }
            // Gemma's: the normalizer has left no spaces to split at.
            Some("Split") if split && marks => {}
            _ => return Err(refused(step)),
        }
    }
    if marks { Ok(prefix) } else { Err("a BPE vocabulary whose spaces are not marked".into()) }
}

/// Types of the pieces that SentencePiece treats by itself.
fn mark_pieces(json: &Value, tokens: &[String], types: &mut [i32]) {
    let unknown = json["model"]["unk_token"].as_str();
    for (token, kind) in tokens.iter().zip(types) {
        let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        if Some(token.as_str()) == unknown {
            *kind = UNKNOWN;
        } else if byte.is_some_and(|byte| byte.len() == 2 && u8::from_str_radix(byte, 16).is_ok()) {
            *kind = BYTE;
        }
    }
}

/// Readers join the pair whose union scores best: a union's score falls with the place of its
/// first merge. Others come last, in their order.
fn scores(tokens: &[String], merges: &[[&str; 2]]) -> Vec<f32> {
    let mut ranks: Map<String, Value> = Map::new();
    for [left, right] in merges {
        let next = ranks.len();
        ranks.entry(format!("{left}{right}")).or_insert_with(|| next.into());
    }
    let count = ranks.len();
    let rank = |(id, token): (usize, &String)| {
        ranks.get(token).and_then(Value::as_u64).map_or(count + id, |rank| rank as usize)
    };
    tokens.iter().enumerate().map(|entry| -(rank(entry) as f32)).collect()
}
