//! How a model is named: by what it is, where it lies, or which hub has it.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a model's files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// The one inside the binary.
    Demo,
    /// A directory or a GGUF file.
    Path(PathBuf),
    /// A repository of a hub.
    Hub {
        /// `org/name`.
        repo: String,
        /// Branch, tag or commit.
        revision: String,
    },
}

/// A model to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelChoice {
    /// The name that it is served under.
    pub id: String,
    /// Its files.
    pub source: ModelSource,
}

/// `SOURCE` or `SOURCE=NAME`.
pub(crate) fn model(text: &str) -> Result<ModelChoice, String> {
    // A path may hold `=`; one that exists as it stands is meant as it stands.
    let (source, name) = match text.rsplit_once('=') {
        Some((source, name)) if !Path::new(text).exists() => (source, Some(name)),
        _ => (text, None),
    };
    if name == Some("") {
        return Err(format!("`{text}` has no name behind `=`"));
    }
    let source = model_source(source)?;
    let id = name.map_or_else(|| source.default_id(), str::to_owned);
    Ok(ModelChoice { id, source })
}

fn model_source(text: &str) -> Result<ModelSource, String> {
    let path = Path::new(text);
    if text == "demo" {
        return Ok(ModelSource::Demo);
    }
    if path.exists() {
        return Ok(ModelSource::Path(path.to_owned()));
    }
    let looks_like_path = text.starts_with(['/', '.', '~']) || text.ends_with(".gguf");
    if looks_like_path {
        return Err(format!("there is no file or directory `{text}`"));
    }
    let (repo, revision) = text.split_once('@').unwrap_or((text, "main"));
    if is_repo(repo) && is_name(revision) {
        return Ok(ModelSource::Hub { repo: repo.to_owned(), revision: revision.to_owned() });
    }
    Err(format!(
        "`{text}` is neither `demo`, nor a path that exists, nor org/name of a hub; \
         `hearth pull org/name` fetches a model"
    ))
}

/// An adapter to load at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterChoice {
    /// The base's name; `None`: the first model.
    pub base: Option<String>,
    /// Its own name.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
}

/// `[BASE:]NAME=DIR`.
pub(crate) fn adapter(text: &str) -> Result<AdapterChoice, String> {
    let wrong = || format!("'{text}' is not [BASE:]NAME=DIR");
    let (name, path) = text.trim().split_once('=').ok_or_else(wrong)?;
    let (base, name) = match name.rsplit_once(':') {
        Some((base, name)) => (Some(base.to_owned()), name),
        None => (None, name),
    };
    if name.is_empty() || path.is_empty() || base.as_deref() == Some("") {
        return Err(wrong());
    }
    Ok(AdapterChoice { base, name: name.to_owned(), path: PathBuf::from(path) })
}

/// Whether a text names a repository: `org/name`. It becomes a part of paths, so nothing that
/// could climb out of a directory passes.
pub(crate) fn is_repo(text: &str) -> bool {
    text.split_once('/').is_some_and(|(org, name)| is_name(org) && is_name(name))
}

pub(crate) fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty()
        && text.len() <= 96
        && text.bytes().all(plain)
        && !text.starts_with('.')
        && !text.contains("..")
}

impl ModelSource {
    /// The name that a model is served under when the operator gives none.
    #[must_use]
    pub fn default_id(&self) -> String {
        match self {
            Self::Demo => "demo".to_owned(),
            Self::Hub { repo, .. } => repo.clone(),
            Self::Path(path) => {
                let full = path.canonicalize().unwrap_or_else(|_| path.clone());
                let name = if full.is_dir() { full.file_name() } else { full.file_stem() };
                name.map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned())
            }
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Demo => f.write_str("demo"),
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Hub { repo, revision } if revision == "main" => f.write_str(repo),
            Self::Hub { repo, revision } => write!(f, "{repo}@{revision}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_named_after_their_source_unless_told() {
        for (text, id, source) in [
            ("demo", "demo", "demo"),
            ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
            ("Qwen/Qwen3-0.6B@v1=small", "small", "Qwen/Qwen3-0.6B@v1"),
            ("/tmp=t", "t", "/tmp"),
        ] {
            let choice = model(text).unwrap();
            assert_eq!((choice.id.as_str(), choice.source.to_string().as_str()), (id, source));
        }
        for wrong in ["", "a/b/c", "../x", "/nowhere/at/all", "org/..", "demo=", "org/na me"] {
            assert!(model(wrong).is_err(), "{wrong}");
        }
    }
}
