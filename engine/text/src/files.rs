//! The files that describe a tokenizer, as they lie in a model's directory.
//!
//! Reads them with a limit on their size and turns the small ones into plain values. Every error
//! names the file. What the values mean to the tokenizer is decided in `model`.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::{Map, Value};

use crate::TextError;

/// The largest published tokenizer.json has about 35 MB.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The files of a tokenizer, already read.
#[derive(Debug, Clone, Copy, Default)]
pub struct TextFiles<'a> {
    /// `tokenizer.json`.
    pub tokenizer_json: &'a [u8],
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
    pub(crate) tokenizer_json: Vec<u8>,
    pub(crate) tokenizer_config: Option<Vec<u8>>,
    pub(crate) special_tokens_map: Option<Vec<u8>>,
    /// Template files, in rising order of precedence: `chat_template.json`,
    /// `additional_chat_templates/*.jinja`, `chat_template.jinja`.
    pub(crate) templates: Vec<Template>,
}

impl Directory {
    pub(crate) fn read(dir: &Path) -> Result<Directory, TextError> {
        let Some(tokenizer_json) = read(&dir.join("tokenizer.json"))? else {
            let reason = if dir.join("tokenizer.model").exists() {
                "not found; tokenizer.model alone is not enough, convert it to tokenizer.json"
            } else {
                "not found"
            };
            return Err(TextError::invalid(&name(&dir.join("tokenizer.json")), reason));
        };
        let mut templates = Vec::new();
        let path = dir.join("chat_template.json");
        if let Some(bytes) = read(&path)? {
            let json = object(&name(&path), &bytes)?;
            let mut config = Config::default();
            let value = json.get("chat_template").unwrap_or(&Value::Null);
            config.add_templates(&name(&path), value)?;
            templates.append(&mut config.templates);
        }
        add_named(&dir.join("additional_chat_templates"), &mut templates)?;
        add_template("default", &dir.join("chat_template.jinja"), &mut templates)?;
        Ok(Directory {
            tokenizer_json,
            tokenizer_config: read(&dir.join("tokenizer_config.json"))?,
            special_tokens_map: read(&dir.join("special_tokens_map.json"))?,
            templates,
        })
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
