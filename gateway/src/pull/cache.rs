//! The cache's layout on disk: `models--org--name/{blobs,refs,snapshots}`, as `huggingface_hub`
//! documents it ("Understand caching" in its manual).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::{PullError, RemoteFile};
use crate::config::values::show_size;

/// Left free on the disk: a full one breaks more than a download.
const SPACE_LEFT: u64 = 256 << 20;

/// One repository's directory.
pub(super) struct Repo {
    root: PathBuf,
    locks: PathBuf,
}

/// Fills in the path of a failed file operation.
pub(super) fn disk(path: &Path) -> impl Fn(std::io::Error) -> PullError + '_ {
    move |error| {
        let advice = match error.kind() {
            std::io::ErrorKind::StorageFull => "; free some space and try again",
            std::io::ErrorKind::PermissionDenied => {
                "; choose another cache directory with HF_HUB_CACHE"
            }
            _ => "",
        };
        PullError::Disk { path: path.to_owned(), problem: format!("{error}{advice}") }
    }
}

impl Repo {
    pub(super) fn new(cache: &Path, repo: &str) -> Self {
        let folder = format!("models--{}", repo.replace('/', "--"));
        Self { root: cache.join(&folder), locks: cache.join(".locks").join(folder) }
    }

    pub(super) fn prepare(&self, commit: &str) -> Result<(), PullError> {
        for path in [
            self.root.join("blobs"),
            self.root.join("refs"),
            self.snapshot(commit),
            self.locks.clone(),
        ] {
            fs::create_dir_all(&path).map_err(disk(&path))?;
        }
        Ok(())
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// The snapshot that a branch, a tag or a commit names, if it is here.
    pub(super) fn snapshot_of(&self, revision: &str) -> Option<PathBuf> {
        let named = fs::read_to_string(self.root.join("refs").join(revision)).ok();
        let commit = named.as_deref().map_or(revision, str::trim);
        Some(self.snapshot(commit)).filter(|path| path.is_dir())
    }

    pub(super) fn blob(&self, file: &RemoteFile) -> PathBuf {
        self.root.join("blobs").join(&file.blob)
    }

    pub(super) fn incomplete(&self, file: &RemoteFile) -> PathBuf {
        self.root.join("blobs").join(format!("{}.incomplete", file.blob))
    }

    /// Waits until no other process, Python's included, downloads the same blob.
    pub(super) fn lock(&self, file: &RemoteFile) -> Result<File, PullError> {
        let path = self.locks.join(format!("{}.lock", file.blob));
        let lock = File::create(&path).map_err(disk(&path))?;
        lock.lock().map_err(disk(&path))?;
        Ok(lock)
    }

    pub(super) fn has(&self, file: &RemoteFile) -> bool {
        self.blob(file).metadata().is_ok_and(|meta| meta.len() == file.size)
    }

    /// Bytes of a blob that an earlier run left.
    pub(super) fn partial(&self, file: &RemoteFile) -> u64 {
        self.incomplete(file).metadata().map_or(0, |meta| meta.len().min(file.size))
    }

    /// Shows a blob under its file name in a snapshot.
    pub(super) fn link(&self, commit: &str, file: &RemoteFile) -> Result<(), PullError> {
        let path = self.snapshot(commit).join(&file.name);
        if path.exists() {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(disk(folder))?;
        // One step up for each folder below the snapshot, then out of `snapshots/<commit>`.
        let mut target = PathBuf::from("../..");
        (0..file.name.matches('/').count()).for_each(|_| target.push(".."));
        target.push("blobs");
        target.push(&file.blob);
        // A link to a blob that is gone counts as missing above.
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink(target, &path).map_err(disk(&path))
    }

    pub(super) fn set_reference(&self, revision: &str, commit: &str) -> Result<(), PullError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        let fresh = self.root.join("refs").join(format!(".{revision}.{}", std::process::id()));
        fs::write(&fresh, commit).map_err(disk(&fresh))?;
        fs::rename(&fresh, &path).map_err(disk(&path))
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: serde_json::Map<String, serde_json::Value>,
}

/// Whether a snapshot holds whole weights: a GGUF file, or all shards that the index names, or
/// the one file when there is no index.
pub(super) fn can_be_served(snapshot: &Path) -> bool {
    let names: Vec<String> = fs::read_dir(snapshot)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    if names.iter().any(|name| name.ends_with(".gguf")) {
        return true;
    }
    let has = |name: &str| names.iter().any(|other| other == name);
    if !has("config.json") {
        return false;
    }
    match fs::read(snapshot.join("model.safetensors.index.json")) {
        Ok(bytes) => serde_json::from_slice::<Index>(&bytes)
            .is_ok_and(|index| index.weight_map.values().filter_map(|v| v.as_str()).all(has)),
        Err(_) => names.iter().any(|name| name.ends_with(".safetensors")),
    }
}

/// Refuses a download that will not fit.
pub(super) fn check_space(cache: &Path, bytes: u64) -> Result<(), PullError> {
    let Some(free) = free_bytes(cache) else { return Ok(()) };
    if bytes.saturating_add(SPACE_LEFT) <= free {
        return Ok(());
    }
    let problem = format!(
        "{} are to be fetched, {} are free (256 MiB of them stay free); make room, or choose \
         another disk with HF_HUB_CACHE",
        show_size(bytes),
        show_size(free)
    );
    Err(PullError::Disk { path: cache.to_owned(), problem })
}

/// Free space as `df` reports it: the standard library has no such call, and the system call
/// would need unsafe code. Where there is no `df` the check is left to the write itself.
#[must_use]
pub fn free_bytes(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|path| path.exists())?;
    let output = Command::new("df").arg("-Pk").arg(there).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let kib: u64 = text.lines().nth(1)?.split_ascii_whitespace().nth(3)?.parse().ok()?;
    Some(kib * 1024)
}
