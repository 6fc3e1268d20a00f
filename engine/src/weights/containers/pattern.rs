//! Names of modules as quantization settings spell them: exact, or, after a mark, as a regular
//! expression that has to match from the name's start (as Python's `re.match` does).

use regex::{Regex, RegexBuilder};

use super::super::{LoadError, shown};
use crate::config::Fields;

/// Published patterns have a hundred bytes or so. The limits keep what a hostile file makes the
/// compiler of expressions allocate small.
const BYTES_MAX: usize = 2048;
const COMPILED_BYTES_MAX: usize = 1 << 16;

/// Compiles an expression of the file that `fields` comes from.
pub(super) fn compile(fields: &Fields, key: &str, text: &str) -> Result<Regex, LoadError> {
    let built = (text.len() <= BYTES_MAX).then(|| {
        RegexBuilder::new(&format!("^(?:{text})"))
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(COMPILED_BYTES_MAX)
            .nest_limit(64)
            .build()
    });
    match built {
        Some(Ok(regex)) => Ok(regex),
        _ => {
            let problem = format!("{} is not a regular expression that is read here", shown(text));
            Err(fields.wrong(key, &problem))
        }
    }
}

/// One entry of a list of modules.
pub(super) enum Pattern {
    Exact(String),
    Expression(Regex),
}

impl Pattern {
    /// Reads an entry as compressed-tensors spells them: `re:` starts an expression.
    pub(super) fn read(fields: &Fields, key: &str, text: &str) -> Result<Self, LoadError> {
        match text.strip_prefix("re:") {
            Some(expression) => Ok(Self::Expression(compile(fields, key, expression)?)),
            None => Ok(Self::Exact(text.to_owned())),
        }
    }

    pub(super) fn matches(&self, module: &str) -> bool {
        match self {
            Self::Exact(name) => name == module,
            Self::Expression(regex) => regex.is_match(module),
        }
    }
}
