//! Secrets that a configuration names instead of holding: `env:NAME`, `file:PATH`,
//! `vault:PATH#KEY`.
//!
//! Where the values come from is handed in: the environment by its reader, HashiCorp Vault by
//! whoever speaks HTTP.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use super::Secret;

/// Longest secret from any source.
const BYTES_MAX: u64 = 64 << 10;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// `env:NAME`: a variable of the environment.
    Env(String),
    /// `file:PATH`: all of a file, without the line break at its end.
    File(PathBuf),
    /// `vault:PATH#KEY`: one value of a secret in HashiCorp Vault.
    Vault {
        /// The secret's path, its mount first: `secret/hearth`.
        path: String,
        /// The value's name.
        key: String,
    },
}

/// Why a reference gives no secret. Holds names, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It is not written as one. What was written is not shown: it may be the secret itself.
    #[error("a secret's reference is env:NAME, file:PATH or vault:PATH#KEY")]
    Malformed,
    /// The variable is not set.
    #[error("env:{0} is not set")]
    NotSet(String),
    /// There is nothing in it.
    #[error("{0} is empty")]
    Empty(Reference),
    /// It is no text in UTF-8.
    #[error("{0} is not text in UTF-8")]
    NotText(Reference),
    /// It is longer than a secret may be.
    #[error("{0} is longer than 64 KiB")]
    TooLong(Reference),
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Unreadable(Reference, String),
    /// No Vault is configured.
    #[error("{0}: no Vault is configured")]
    NoVault(Reference),
    /// Vault did not give it.
    #[error("{0}: {1}")]
    Vault(Reference, String),
}

/// A future answer of Vault: the value, or why there is none (without any secret in it).
pub type VaultAnswer<'a> =
    Pin<Box<dyn Future<Output = Result<Secret<String>, String>> + Send + 'a>>;

/// A HashiCorp Vault with a key-value store of version 2.
pub trait Vault: Send + Sync {
    /// Reads the value `key` of the secret at `path`.
    fn read<'a>(&'a self, path: &'a str, key: &'a str) -> VaultAnswer<'a>;
}

/// Where values come from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// A variable of the environment.
    pub env: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// Vault, where there is one.
    pub vault: Option<&'a dyn Vault>,
}

/// A secret that was found.
#[derive(Debug)]
pub struct Resolved {
    /// The secret.
    pub value: Secret<String>,
    /// What an operator should mend, in a sentence.
    pub warning: Option<String>,
}

impl Reference {
    /// Reads a reference. `None`: the text is none of them, so it is the value itself.
    ///
    /// # Errors
    /// It begins like one and goes on otherwise.
    pub fn parse(text: &str) -> Result<Option<Self>, ReferenceError> {
        let Some((scheme, rest)) = text.split_once(':') else { return Ok(None) };
        let found = match scheme {
            "env" => is_variable(rest).then(|| Self::Env(rest.to_owned())),
            "file" => is_path(rest).then(|| Self::File(PathBuf::from(rest))),
            "vault" => rest.rsplit_once('#').and_then(|(path, key)| {
                let written = is_path(path) && is_path(key);
                written.then(|| Self::Vault { path: path.to_owned(), key: key.to_owned() })
            }),
            _ => return Ok(None),
        };
        found.map(Some).ok_or(ReferenceError::Malformed)
    }

    /// Fetches the secret. A file is read at once, on this thread.
    ///
    /// # Errors
    /// It is not there, empty, too long or no text; or Vault cannot be asked.
    pub async fn resolve(&self, sources: Sources<'_>) -> Result<Resolved, ReferenceError> {
        let (value, warning) = match self {
            Self::Env(name) => {
                let value = (sources.env)(name);
                (Secret(value.ok_or_else(|| ReferenceError::NotSet(name.clone()))?), None)
            }
            Self::File(path) => self.read_file(path)?,
            Self::Vault { path, key } => {
                let vault = sources.vault.ok_or_else(|| ReferenceError::NoVault(self.clone()))?;
                let value = vault.read(path, key).await;
                (value.map_err(|why| ReferenceError::Vault(self.clone(), why))?, None)
            }
        };
        if value.expose().is_empty() {
            return Err(ReferenceError::Empty(self.clone()));
        }
        if value.expose().len() as u64 > BYTES_MAX {
            return Err(ReferenceError::TooLong(self.clone()));
        }
        Ok(Resolved { value, warning })
    }

    fn read_file(&self, path: &Path) -> Result<(Secret<String>, Option<String>), ReferenceError> {
        let (mut bytes, mode) = read_bounded(path)
            .map_err(|why| ReferenceError::Unreadable(self.clone(), why.to_string()))?;
        if bytes.expose().len() as u64 > BYTES_MAX {
            return Err(ReferenceError::TooLong(self.clone()));
        }
        while bytes.0.last().is_some_and(|byte| b"\r\n".contains(byte)) {
            bytes.0.pop();
        }
        let value = bytes.into_text().ok_or_else(|| ReferenceError::NotText(self.clone()))?;
        let open = mode & 0o007 != 0;
        let warning = open.then(|| format!("{self} is open to every user of this machine"));
        Ok((value, warning))
    }
}

/// At most one byte more than a secret may have, and the file's permissions.
fn read_bounded(path: &Path) -> io::Result<(Secret<Vec<u8>>, u32)> {
    // Looked at first: to open a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let room = BYTES_MAX + 1;
    // All at once: growing would leave copies behind.
    let mut bytes = Secret(Vec::with_capacity(usize::try_from(room).unwrap_or_default() + 1));
    file.take(room).read_to_end(&mut bytes.0)?;
    Ok((bytes, mode))
}

fn is_variable(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !name.is_empty() && name.bytes().all(plain) && !name.as_bytes()[0].is_ascii_digit()
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_control)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Vault { path, key } => write!(f, "vault:{path}#{key}"),
        }
    }
}
