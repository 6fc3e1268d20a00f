//! The files that describe a tokenizer, as they lie in a model's directory.
//!
//! Reads them with a limit on their size and turns the small ones into plain values. Every error
//! names the file. What the values mean to the tokenizer is decided in `model`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::{Map, Value};

use crate::TextError;
use crate::description::added_token;

/// The largest published tokenizer.json has about 35 MB.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The files of a tokenizer, already read. One of `tokenizer_json`, `tokenizer_model`,
/// `vocab_json` with `merges_txt`, and `vocab_txt` is needed; the first of them wins.
#[derive(Debug, Clone, Copy, Default)]
pub struct TextFiles<'a> {
    /// `tokenizer.json`; empty where there is none.
    pub tokenizer_json: &'a [u8],
    /// `tokenizer.model`: a SentencePiece model.
    pub tokenizer_model: Option<&'a [u8]>,
    /// `vocab.json`: the tokens of a byte-level BPE model, with their ids.
    pub vocab_json: Option<&'a [u8]>,
    /// `merges.txt`: its pairs, best first.
    pub merges_txt: Option<&'a [u8]>,
    /// `vocab.txt`: the words of a WordPiece model, one per line.
    pub vocab_txt: Option<&'a [u8]>,
    /// `added_tokens.json`: further tokens, of folders whose `tokenizer_config` has no list.
    pub added_tokens: Option<&'a [u8]>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<&'a [u8]>,
    /// `chat_template.jinja`; wins over a template in `tokenizer_config`.
    pub chat_template: Option<&'a str>,
}

/// What `tokenizer_config.json` and `special_tokens_map.json` say, without the vocabulary.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// `bos_token` and the like: the variables of that name in a template.
    pub(crate) special: Map<String, Value>,
    /// Templates by name, the usual one is called `default`; with the file each came from.
    pub(crate) templates: Vec<Template>,
    pub(crate) clean_up_spaces: bool,
    pub(crate) options: Options,
}

/// The switches of `tokenizer_config.json`; none if the file does not say.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Without the `Fast` at its end.
    pub(crate) class: Option<String>,
    pub(crate) add_bos: Option<bool>,
    pub(crate) add_eos: Option<bool>,
    pub(crate) add_prefix_space: Option<bool>,
    pub(crate) legacy: Option<bool>,
    pub(crate) lower_case: Option<bool>,
    pub(crate) strip_accents: Option<bool>,
    pub(crate) chinese_chars: Option<bool>,
    /// Tokens beside the vocabulary by id, in the form of tokenizer.json's `added_tokens`.
    pub(crate) added: BTreeMap<usize, Value>,
}

impl Options {
    fn parse(json: &Map<String, Value>) -> Result<Options, String> {
        let flag = |key: &str| match json.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(format!("{key} is {other}, not true or false")),
        };
        let class = json.get("tokenizer_class").and_then(Value::as_str);
        let mut options = Options {
            class: class.map(|name| name.strip_suffix("Fast").unwrap_or(name).to_owned()),
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?,
            add_prefix_space: flag("add_prefix_space")?,
            legacy: flag("legacy")?,
            lower_case: flag("do_lower_case")?,
            strip_accents: flag("strip_accents")?,
            chinese_chars: flag("tokenize_chinese_chars")?,
            added: BTreeMap::new(),
        };
        let list = json.get("added_tokens_decoder").and_then(Value::as_object);
        for (id, token) in list.into_iter().flatten() {
            let parsed = id.parse().ok().zip(token["content"].as_str());
            let Some((id, content)) = parsed else {
                return Err(format!("added_tokens_decoder has the entry {id}: {token}"));
            };
            let mut entry = added_token(id, content, token["special"] == true);
            for key in ["single_word", "lstrip", "rstrip", "normalized"] {
                entry[key] = (token[key] == true).into();
            }
            options.added.insert(id, entry);
        }
        Ok(options)
    }
}

/// One template's source.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) file: String,
}

impl Config {
    pub(crate) fn parse(files: &TextFiles<'_>) -> Result<Config, TextError> {
        let mut config = Config::default();
        let file = "tokenizer_config.json";
        if let Some(bytes) = files.tokenizer_config {
            let json = object(file, bytes)?;
            config.add_special_tokens(&json);
            config.options =
                Options::parse(&json).map_err(|reason| TextError::invalid(file, reason))?;
            config.clean_up_spaces =
                json.get("clean_up_tokenization_spaces") == Some(&Value::Bool(true));
            if let Some(templates) = json.get("chat_template") {
                config.add_templates(file, templates)?;
            }
        }
        if let Some(bytes) = files.special_tokens_map {
            let json = object("special_tokens_map.json", bytes)?;
            config.add_special_tokens(&json);
        }
        if let Some(bytes) = files.added_tokens.filter(|_| config.options.added.is_empty()) {
            config.add_tokens(&object("added_tokens.json", bytes)?)?;
        }
        if let Some(source) = files.chat_template {
            config.set_template("default", source, "chat_template.jinja");
        }
        Ok(config)
    }

    /// A later template of the same name wins.
    pub(crate) fn set_template(&mut self, name: &str, source: &str, file: &str) {
        self.templates.retain(|template| template.name != name);
        let (name, source, file) = (name.to_owned(), source.to_owned(), file.to_owned());
        self.templates.push(Template { name, source, file });
    }

    /// Either one template, or a list of `{name, template}`.
    pub(crate) fn add_templates(&mut self, file: &str, json: &Value) -> Result<(), TextError> {
        let invalid = || {
            TextError::invalid(file, "chat_template is neither a string nor a list of templates")
        };
        match json {
            Value::Null => {}
            Value::String(source) => self.set_template("default", source, file),
            Value::Array(list) => {
                for entry in list {
                    let name = entry["name"].as_str().ok_or_else(invalid)?;
                    let source = entry["template"].as_str().ok_or_else(invalid)?;
                    self.set_template(name, source, file);
                }
            }
            _ => return Err(invalid()),
        }
        Ok(())
    }

    /// The older form of `added_tokens_decoder`: ids by token.
    fn add_tokens(&mut self, json: &Map<String, Value>) -> Result<(), TextError> {
        for (content, id) in json {
            let Some(id) = id.as_u64().and_then(|id| usize::try_from(id).ok()) else {
                let reason = format!("the id of {content:?} is {id}");
                return Err(TextError::invalid("added_tokens.json", reason));
            };
            let special = self.special.values().any(|token| token == content);
            self.options.added.insert(id, added_token(id, content, special));
        }
        Ok(())
    }

    /// Takes `xyz_token` entries, written as strings or as `{"content": ...}`. The first file to
    /// name one wins, as in transformers: the map only fills gaps of the config.
    fn add_special_tokens(&mut self, json: &Map<String, Value>) {
        for (key, value) in json {
            let text = value.as_str().or_else(|| value["content"].as_str());
            if let (true, Some(text)) = (key.ends_with("_token"), text) {
                self.special.entry(key.clone()).or_insert_with(|| text.into());
            }
        }
    }
}

/// A directory's files, read into memory.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    tokenizer_json: Vec<u8>,
    tokenizer_model: Option<Vec<u8>>,
    vocab_json: Option<Vec<u8>>,
    merges_txt: Option<Vec<u8>>,
    vocab_txt: Option<Vec<u8>>,
    added_tokens: Option<Vec<u8>>,
    tokenizer_config: Option<Vec<u8>>,
    special_tokens_map: Option<Vec<u8>>,
    /// Template files, in rising order of precedence: `chat_template.json`,
    /// `additional_chat_templates/*.jinja`, `chat_template.jinja`.
    pub(crate) templates: Vec<Template>,
}

impl Directory {
    pub(crate) fn read(dir: &Path) -> Result<Directory, TextError> {
        let mut read_in = Directory::default();
        read_in.read_vocabulary(dir)?;
        let path = dir.join("chat_template.json");
        if let Some(bytes) = read(&path)? {
            let json = object(&name(&path), &bytes)?;
            let mut config = Config::default();
            let value = json.get("chat_template").unwrap_or(&Value::Null);
            config.add_templates(&name(&path), value)?;
            read_in.templates.append(&mut config.templates);
        }
        add_named(&dir.join("additional_chat_templates"), &mut read_in.templates)?;
        add_template("default", &dir.join("chat_template.jinja"), &mut read_in.templates)?;
        read_in.added_tokens = read(&dir.join("added_tokens.json"))?;
        read_in.tokenizer_config = read(&dir.join("tokenizer_config.json"))?;
        read_in.special_tokens_map = read(&dir.join("special_tokens_map.json"))?;
        Ok(read_in)
    }

    /// The first form of a vocabulary that is there; the others are not read.
    fn read_vocabulary(&mut self, dir: &Path) -> Result<(), TextError> {
        let json = dir.join("tokenizer.json");
        if let Some(bytes) = read(&json)? {
            self.tokenizer_json = bytes;
            return Ok(());
        }
        self.tokenizer_model = read(&dir.join("tokenizer.model"))?;
        if self.tokenizer_model.is_some() {
            return Ok(());
        }
        self.merges_txt = read(&dir.join("merges.txt"))?;
        if self.merges_txt.is_some() {
            self.vocab_json = read(&dir.join("vocab.json"))?;
        }
        if self.vocab_json.is_none() {
            self.vocab_txt = read(&dir.join("vocab.txt"))?;
        }
        if self.vocab_json.is_none() && self.vocab_txt.is_none() {
            let reason = "not found, and no tokenizer.model, vocab.json with merges.txt, \
                          or vocab.txt instead";
            return Err(TextError::invalid(&name(&json), reason));
        }
        Ok(())
    }

    pub(crate) fn files(&self) -> TextFiles<'_> {
        TextFiles {
            tokenizer_json: &self.tokenizer_json,
            tokenizer_model: self.tokenizer_model.as_deref(),
            vocab_json: self.vocab_json.as_deref(),
            merges_txt: self.merges_txt.as_deref(),
            vocab_txt: self.vocab_txt.as_deref(),
            added_tokens: self.added_tokens.as_deref(),
            tokenizer_config: self.tokenizer_config.as_deref(),
            special_tokens_map: self.special_tokens_map.as_deref(),
            chat_template: None,
        }
    }
}

fn add_template(name: &str, path: &Path, into: &mut Vec<Template>) -> Result<(), TextError> {
    let Some(bytes) = read(path)? else { return Ok(()) };
    let file = self::name(path);
    let source = String::from_utf8(bytes).map_err(|e| TextError::invalid(&file, e))?;
    into.push(Template { name: name.to_owned(), source, file });
    Ok(())
}

fn add_named(dir: &Path, into: &mut Vec<Template>) -> Result<(), TextError> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.extension().is_some_and(|extension| extension == "jinja")
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
        {
            add_template(stem, &path, into)?;
        }
    }
    Ok(())
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

/// The content, or nothing if there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, TextError> {
    let failed = |source| TextError::Read { file: name(path), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let reason = format!("larger than {} MiB", FILE_BYTES_MAX >> 20);
        return Err(TextError::invalid(&name(path), reason));
    }
    Ok(Some(bytes))
}

fn object(file: &str, bytes: &[u8]) -> Result<Map<String, Value>, TextError> {
    serde_json::from_slice(bytes).map_err(|e| TextError::invalid(file, e))
}
