//! Reading JSON configuration files field by field.
//!
//! Every getter names file and field when a value is not what the field means, and bounds
//! numbers, so that the families below only deal with sane ones. It remembers which fields were
//! asked for: what nobody asked for has no effect, and the caller can say so. It does not know
//! which fields there are.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::weights::{LoadError, shown};

/// Published config.json files have a few kilobytes.
pub(crate) const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Values and keys in one file. Keeps what a hostile file makes the JSON reader allocate in
/// proportion to what real files hold (label tables of a thousand entries are the largest).
const VALUES_MAX: usize = 16_384;

/// A JSON object of a file, with the way to it for messages.
pub(crate) struct Fields {
    file: PathBuf,
    prefix: String,
    map: Map<String, Value>,
    asked: RefCell<BTreeSet<String>>,
}

impl Fields {
    /// Parses a whole file.
    pub(crate) fn parse(file: &Path, bytes: &[u8]) -> Result<Self, LoadError> {
        let values = bytes.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
        if bytes.len() as u64 > CONFIG_BYTES_MAX || values > VALUES_MAX {
            return Err(LoadError::new(file, "is far larger than any model's configuration"));
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Self::new(file.to_path_buf(), String::new(), map)),
            Ok(_) => Err(LoadError::new(file, "is not a JSON object")),
            Err(e) => Err(LoadError::new(file, format!("is not valid JSON: {e}"))),
        }
    }

    fn new(file: PathBuf, prefix: String, map: Map<String, Value>) -> Self {
        Self { file, prefix, map, asked: RefCell::default() }
    }

    /// The file, for errors about several fields.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Names of the fields that are set.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.map.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str())
    }

    /// Fields that are set and that nobody has asked for.
    pub(crate) fn unasked(&self) -> Vec<(&str, &Value)> {
        let asked = self.asked.borrow();
        let set = self.map.iter().filter(|(key, value)| !value.is_null() && !asked.contains(*key));
        set.map(|(key, value)| (key.as_str(), value)).collect()
    }

    /// Whether the file spells the field, be it `null`.
    pub(crate) fn spells(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The value, unless absent or `null`.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        let value = self.map.get(key)?;
        self.asked.borrow_mut().insert(key.to_owned());
        Some(value).filter(|value| !value.is_null())
    }

    /// An error about one field.
    pub(crate) fn wrong(&self, key: &str, problem: &str) -> LoadError {
        LoadError::new(&self.file, format!("{}{key}: {problem}", self.prefix))
    }

    fn not(&self, key: &str, wanted: &str, found: &Value) -> LoadError {
        let found = match found {
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
            plain => shown(&plain.to_string()),
        };
        self.wrong(key, &format!("wanted {wanted}, found {found}"))
    }

    /// A whole number from 1 to `most`.
    pub(crate) fn count(&self, key: &str, most: usize) -> Result<Option<usize>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        match number {
            Some(number) if (1..=most).contains(&number) => Ok(Some(number)),
            _ => Err(self.not(key, &format!("a whole number from 1 to {most}"), value)),
        }
    }

    /// As [`Fields::count`], and it has to be there.
    pub(crate) fn need(&self, key: &str, most: usize) -> Result<usize, LoadError> {
        self.count(key, most)?.ok_or_else(|| self.wrong(key, "is missing"))
    }

    /// A whole number from 0 to 2^32 - 1.
    pub(crate) fn whole(&self, key: &str) -> Result<Option<u32>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.map_or_else(|| Err(self.not(key, "a whole number from 0", value)), |n| Ok(Some(n)))
    }

    /// A number between `least` and `most`, both included.
    pub(crate) fn number(
        &self,
        key: &str,
        least: f64,
        most: f64,
    ) -> Result<Option<f64>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(self.not(key, &format!("a number from {least} to {most:e}"), value)),
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map_or_else(|| Err(self.not(key, "true or false", value)), |b| Ok(Some(b)))
    }

    /// A string.
    pub(crate) fn word(&self, key: &str) -> Result<Option<&str>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map_or_else(|| Err(self.not(key, "a string", value)), |s| Ok(Some(s)))
    }

    /// A list of strings.
    pub(crate) fn words(&self, key: &str) -> Result<Option<Vec<&str>>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let words = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        words.map_or_else(|| Err(self.not(key, "a list of strings", value)), |w| Ok(Some(w)))
    }

    /// A list of numbers between `least` and `most`.
    pub(crate) fn numbers(
        &self,
        key: &str,
        least: f64,
        most: f64,
    ) -> Result<Option<Vec<f64>>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = |value: &Value| value.as_f64().filter(|n| (least..=most).contains(n));
        let numbers = value.as_array().and_then(|list| list.iter().map(number).collect());
        let wanted = || self.not(key, &format!("numbers from {least:e} to {most:e}"), value);
        numbers.map_or_else(|| Err(wanted()), |numbers| Ok(Some(numbers)))
    }

    /// A token id or a list of them; empty when absent.
    pub(crate) fn ids(&self, key: &str) -> Result<Vec<u32>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match value {
            Value::Array(list) => list.iter().map(id).collect::<Option<Vec<u32>>>(),
            one => id(one).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.not(key, "a token id or a list of them", value))
    }

    /// An object inside this one.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Self>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                let prefix = format!("{}{key}.", self.prefix);
                Ok(Some(Self::new(self.file.clone(), prefix, map.clone())))
            }
            Some(other) => Err(self.not(key, "an object", other)),
        }
    }
}

/// A value that says "nothing of the kind", as configurations spell it.
pub(crate) fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}
