//! `hearth.toml`: sections of keys, each checked against the option table, each error with its
//! line.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::draft::Draft;
use super::options::{OPTIONS, Opt};
use super::{ConfigError, routing, values};

/// A configuration file is a page of text; more is a mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Lays the file's values over what there is.
pub(super) fn apply(path: &Path, draft: &mut Draft<'_>) -> Result<(), ConfigError> {
    let error = |problem: String| ConfigError { at: path.display().to_string(), problem };
    let size = path.metadata().map_err(|e| error(format!("cannot be read: {e}")))?.len();
    if size > FILE_BYTES_MAX {
        return Err(error(format!("{size} bytes are too many for a configuration file")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| error(format!("cannot be read: {e}")))?;
    let file = File { name: path.display().to_string(), text: &text };
    let table = DeTable::parse(&text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start);
        file.error(at, e.message().to_owned())
    })?;
    let read = routing::read(&text, draft.env());
    let (routing, warnings) = read.map_err(|(at, problem)| file.error(at, problem))?;
    draft.config.routing = routing;
    draft.warnings.extend(warnings);
    file.section("", table.get_ref(), draft)
}

struct File<'a> {
    name: String,
    text: &'a str,
}

impl File<'_> {
    fn error(&self, byte: usize, problem: String) -> ConfigError {
        let before = &self.text.as_bytes()[..byte.min(self.text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        ConfigError { at: format!("{}:{line}", self.name), problem }
    }

    fn section(
        &self,
        prefix: &str,
        table: &DeTable<'_>,
        draft: &mut Draft<'_>,
    ) -> Result<(), ConfigError> {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            if ["providers", "pools"].contains(&&*name) {
                continue;
            }
            let at = key.span().start;
            if let Some(option) = OPTIONS.iter().find(|option| option.key == name) {
                self.option(option, value, draft)?;
                continue;
            }
            let section = format!("{name}.");
            let known = OPTIONS.iter().any(|option| option.key.starts_with(&section));
            match value.get_ref() {
                DeValue::Table(inner) if known => self.section(&section, inner, draft)?,
                _ if known => {
                    return Err(self.error(at, format!("{name} is a section: write [{name}]")));
                }
                _ => return Err(self.error(at, unknown(&name))),
            }
        }
        Ok(())
    }

    fn option(
        &self,
        option: &Opt,
        value: &Spanned<DeValue<'_>>,
        draft: &mut Draft<'_>,
    ) -> Result<(), ConfigError> {
        let at = value.span().start;
        let wrong = |problem: String| self.error(at, format!("{}: {problem}", option.key));
        let texts = match value.get_ref() {
            DeValue::Array(items) if option.list => {
                items.iter().map(|item| scalar(item.get_ref())).collect::<Option<Vec<_>>>()
            }
            other => scalar(other).map(|text| vec![text]),
        };
        let Some(texts) = texts else {
            let wanted = if option.list { "a list of texts" } else { "one text or number" };
            return Err(wrong(format!("takes {wanted}")));
        };
        draft.set(option, &texts).map_err(wrong)
    }
}

fn unknown(name: &str) -> String {
    let keys = || OPTIONS.iter().map(|option| option.key);
    // A key in the wrong section is as common as a slip of the pen.
    let last = name.rsplit('.').next().unwrap_or(name);
    let moved = keys().find(|key| key.rsplit('.').next() == Some(last));
    let hint = match values::nearest(name, keys()).or(moved) {
        Some(key) => format!("did you mean {key}?"),
        None => "`hearth serve --help` and docs/config.md list all options".to_owned(),
    };
    format!("unknown key {name}; {hint}")
}

/// The text of a string, a number or a truth value.
fn scalar<'a>(value: &'a DeValue<'_>) -> Option<&'a str> {
    match value {
        DeValue::String(text) => Some(text),
        DeValue::Integer(number) => Some(number.as_str()),
        DeValue::Float(number) => Some(number.as_str()),
        DeValue::Boolean(true) => Some("true"),
        DeValue::Boolean(false) => Some("false"),
        _ => None,
    }
}
