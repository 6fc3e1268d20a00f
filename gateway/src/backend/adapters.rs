//! Low-rank adapters of a model: each is a model of its own name, `base:adapter`, served by the
//! base's engine. They come and go while the base serves.
//!
//! An adapter lives as long as somebody can use it: the list of models, and every open request.
//! The last one to let go gives its place on the device back, so an unloaded adapter finishes
//! what it has begun.

use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Model;
use super::local::{AdapterFiles, LocalEngine};

/// Why an adapter is not loaded or unloaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdapterError {
    /// A name that cannot be part of a model's.
    #[error("an adapter's name has 1 to 128 of the characters A-Z a-z 0-9 . _ -")]
    Name,
    /// It is loaded already.
    #[error("the adapter '{0}' is loaded already; unload it first")]
    Taken(String),
    /// There is none of this name.
    #[error("no adapter '{0}' is loaded")]
    Unknown(String),
    /// All places are taken.
    #[error("{0} adapters are loaded already, which is the limit; unload one first")]
    Full(u32),
    /// Its files cannot be used, or the device refuses.
    #[error("{0}")]
    Refused(String),
}

/// Loads since the process started: no two of them share cached pages.
static LOADS: AtomicU64 = AtomicU64::new(1);

/// The adapters of one base model.
pub struct Adapters {
    files: AdapterFiles,
    /// By number, from 1.
    taken: Arc<Mutex<Vec<bool>>>,
}

/// A loaded adapter. Dropping the last one frees its place.
pub struct LoadedAdapter {
    /// Its name, without the base's.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
    /// Its number on the device, from 1.
    number: u32,
    /// Unlike that of any other load.
    load: u64,
    engine: LocalEngine,
    taken: Arc<Mutex<Vec<bool>>>,
}

impl Adapters {
    /// Room for `most` adapters beside a base whose files are known to `files`.
    #[must_use]
    pub fn new(files: AdapterFiles, most: u32) -> Self {
        Self { files, taken: Arc::new(Mutex::new(vec![false; most as usize])) }
    }

    /// Reads an adapter and puts it beside its base; the result is the model to serve. Blocks
    /// while files are read and until the engine's thread has taken it in between two steps.
    ///
    /// # Errors
    /// See [`AdapterError`]; nothing has changed then.
    pub fn load(&self, base: &Model, name: &str, path: &Path) -> Result<Model, AdapterError> {
        check_name(name)?;
        let refused = |error: &dyn std::fmt::Display| AdapterError::Refused(error.to_string());
        let read = self.files.open(path).map_err(|error| refused(&error))?;
        let place = Place::take(&self.taken)?;
        let engine = base.engine.local().ok_or_else(|| {
            AdapterError::Refused("adapters of models on other nodes are not served".to_owned())
        })?;
        engine.set_adapter(place.number, read).map_err(|error| refused(&error))?;
        let load = LOADS.fetch_add(1, Ordering::Relaxed);
        let adapter = LoadedAdapter {
            name: name.to_owned(),
            path: path.to_owned(),
            number: place.keep(),
            load,
            engine: engine.clone(),
            taken: Arc::clone(&self.taken),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Model {
            id: format!("{}:{name}", base.id),
            created: now.map_or(0, |time| time.as_secs()),
            context: base.context,
            text: Arc::clone(&base.text),
            answering: Arc::clone(&base.answering),
            defaults: base.defaults.clone(),
            max_tokens_default: base.max_tokens_default,
            eos: base.eos.clone(),
            engine: base.engine.clone(),
            prefix: base.prefix,
            adapters: None,
            adapter: Some(Arc::new(adapter)),
        })
    }
}

impl LoadedAdapter {
    /// What requests carry to be computed with it.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Separates its cached pages from all others.
    #[must_use]
    pub fn load(&self) -> u64 {
        self.load
    }
}

impl Drop for LoadedAdapter {
    fn drop(&mut self) {
        // The place is free for others only when the engine has let it go.
        let (taken, at) = (Arc::clone(&self.taken), self.number as usize - 1);
        self.engine.drop_adapter(self.number, move || free(&taken, at));
    }
}

/// A place that is given back unless it is kept.
struct Place<'a> {
    taken: &'a Arc<Mutex<Vec<bool>>>,
    number: u32,
    kept: bool,
}

impl<'a> Place<'a> {
    fn take(taken: &'a Arc<Mutex<Vec<bool>>>) -> Result<Self, AdapterError> {
        let mut places = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let most = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let Some((number, place)) = (1..).zip(places.iter_mut()).find(|(_, taken)| !**taken) else {
            return Err(AdapterError::Full(most));
        };
        *place = true;
        Ok(Self { taken, number, kept: false })
    }

    fn keep(mut self) -> u32 {
        self.kept = true;
        self.number
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.kept {
            free(self.taken, self.number as usize - 1);
        }
    }
}

fn free(taken: &Mutex<Vec<bool>>, at: usize) {
    taken.lock().unwrap_or_else(PoisonError::into_inner)[at] = false;
}

/// A folder below the one that is set aside for adapters; `None`: it is not, or is none.
#[must_use]
pub fn below(top: &Path, path: &str) -> Option<PathBuf> {
    let plain = |part| matches!(part, Component::Normal(_));
    if path.is_empty() || path.len() > 1024 || !Path::new(path).components().all(plain) {
        return None;
    }
    let folder = top.join(path);
    // A link may point out of it.
    match (folder.canonicalize(), top.canonicalize()) {
        (Ok(folder), Ok(top)) if folder.starts_with(&top) => Some(folder),
        (Err(_), _) => Some(folder),
        _ => None,
    }
}

/// Names become part of a model's name and of a path below the adapters' folder.
fn check_name(name: &str) -> Result<(), AdapterError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let dots = name.bytes().all(|byte| byte == b'.');
    match (1..=128).contains(&name.len()) && name.bytes().all(plain) && !dots {
        true => Ok(()),
        false => Err(AdapterError::Name),
    }
}
