//! Cubins kept on disk between starts, under the user's cache folder.
//!
//! Why digests in the names: a changed source, another compiler or another architecture is another
//! file, and nothing needs to be compared. A file that was cut short or changed fails its own
//! digest and is made anew. The folder is the user's alone: what lies in it runs on the GPU.

use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use crate::compile::recipe::{digest, digest_of_bytes};
use crate::compile::{CompileError, Compiled, compile, compiler_for};
use crate::sources;

/// Files kept: a few versions of this program with every architecture. The oldest go.
const FILES_MAX: usize = 512;

/// Bytes of a digest in hexadecimal.
const DIGEST: usize = 64;

/// A folder of cubins.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// Where a cubin came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// From this program's file.
    Embedded,
    /// From the cache.
    Cached,
    /// Compiled now, and kept; or why it could not be kept.
    Compiled(Result<(), String>),
}

impl Cache {
    /// In a folder, which is made when something is kept.
    #[must_use]
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The user's: `hearth/kernels` under `$XDG_CACHE_HOME` or `~/.cache`; `None` without a home.
    #[must_use]
    pub fn of_user() -> Option<Self> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        // The directory standard: a relative path is to be ignored.
        let absolute = |name| variable(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let root = absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
        Some(Self::at(root.join("hearth/kernels")))
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of [`sources::FILES`] for an architecture: kept from before, or compiled and kept.
    ///
    /// # Errors
    /// It is not there and does not compile.
    pub fn compiled(&self, file: &str, arch: &str) -> Result<(Compiled, Origin), CompileError> {
        let text = sources::file(file).ok_or_else(|| CompileError::NoFile(file.into()))?;
        let path = self.path(file, text, arch, compiler_for(arch)?);
        if let Some(kept) = read(&path) {
            return Ok((kept, Origin::Cached));
        }
        let made = compile(file, arch)?;
        let kept = self.keep(&path, &made).map_err(|e| format!("{}: {e}", path.display()));
        Ok((made, Origin::Compiled(kept)))
    }

    /// A file compiled earlier by any compiler, with that compiler's version: for machines whose
    /// compiler is gone. Of several, the last by name.
    #[must_use]
    pub fn any(&self, file: &str, arch: &str) -> Option<(Compiled, String)> {
        let text = sources::file(file)?;
        let begin = stem(file, text, arch);
        let mut versions: Vec<String> = std::fs::read_dir(&self.folder)
            .ok()?
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|n| Some(n.strip_prefix(&begin)?.strip_suffix(".cubin")?.to_owned()))
            .collect();
        versions.sort();
        versions
            .into_iter()
            .rev()
            .find_map(|version| Some((read(&self.path(file, text, arch, &version))?, version)))
    }

    fn path(&self, file: &str, text: &str, arch: &str, nvrtc: &str) -> PathBuf {
        self.folder.join(format!("{}{nvrtc}.cubin", stem(file, text, arch)))
    }

    fn keep(&self, path: &Path, made: &Compiled) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        // Fails where the folder is somebody else's.
        std::fs::set_permissions(&self.folder, Permissions::from_mode(0o700))?;
        self.make_room();
        // Another process may keep the same: each writes its own file, the last name wins.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let new = self.folder.join(format!(".new-{}-{number}", std::process::id()));
        let mut open = OpenOptions::new();
        let written = (|| {
            open.write(true).create_new(true).mode(0o600).open(&new)?.write_all(&pack(made))?;
            std::fs::rename(&new, path)
        })();
        if written.is_err() {
            // The error is told; the rest of the file is not worth another.
            let _ = std::fs::remove_file(&new);
        }
        written
    }

    /// Removes the oldest files when there are too many.
    fn make_room(&self) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let changed = |entry: &std::fs::DirEntry| {
            entry.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        let mut files: Vec<_> = entries.map(|entry| (changed(&entry), entry.path())).collect();
        files.sort();
        let surplus = (files.len() + 1).saturating_sub(FILES_MAX);
        for (_, path) in &files[..surplus] {
            // Another process may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What a file's name begins with: all but the compiler's version.
fn stem(file: &str, text: &str, arch: &str) -> String {
    format!("{}-{arch}-", digest(file, text, sources::HEADERS))
}

/// The cubin, the log, the cubin's length as 8 bytes, and the digest of all that.
fn pack(made: &Compiled) -> Vec<u8> {
    let mut bytes = made.cubin.clone();
    bytes.extend_from_slice(made.log.as_bytes());
    bytes.extend_from_slice(&(made.cubin.len() as u64).to_le_bytes());
    let digest = digest_of_bytes(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

fn unpack(bytes: &[u8]) -> Option<Compiled> {
    let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
    if digest_of_bytes(body).as_bytes() != digest {
        return None;
    }
    let (both, length) = body.split_last_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (cubin, log) = both.split_at_checked(length)?;
    Some(Compiled::of(cubin.to_vec(), String::from_utf8(log.to_vec()).ok()?))
}

/// What was kept; `None` when it is not there or not whole.
fn read(path: &Path) -> Option<Compiled> {
    unpack(&std::fs::read(path).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("hearth-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    fn made() -> Compiled {
        let log = "ptxas info    : Compiling entry function 'a' for 'sm_80'\n\
                   ptxas info    : Used 8 registers, 0 bytes smem\n";
        Compiled::of(vec![7; 1000], log.into())
    }

    #[test]
    fn what_is_kept_comes_back_whole() {
        let cache = Cache::at(folder("cache"));
        let path = cache.folder.join("a-12.8.cubin");
        assert_eq!(read(&path), None);
        cache.keep(&path, &made()).unwrap();
        assert_eq!(read(&path), Some(made()));
        assert_eq!(made().resources[0].registers, 8);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&cache.folder), mode(&path)), (0o700, 0o600));
        assert_eq!(cache.folder.read_dir().unwrap().count(), 1, "nothing else is left");
        std::fs::remove_dir_all(&cache.folder).unwrap();
    }

    #[test]
    fn a_file_that_is_not_whole_is_none() {
        let whole = pack(&made());
        assert_eq!(unpack(&whole), Some(made()));
        for cut in 0..whole.len() {
            assert_eq!(unpack(&whole[..cut]), None, "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_eq!(unpack(&changed), None, "changed at {at}");
        }
    }

    #[test]
    fn the_oldest_go() {
        let cache = Cache::at(folder("room"));
        std::fs::create_dir_all(&cache.folder).unwrap();
        for i in 0..FILES_MAX {
            let path = cache.folder.join(format!("{i}"));
            let file = std::fs::File::create(path).unwrap();
            let age = std::time::Duration::from_secs(10_000 - i as u64);
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        cache.keep(&cache.folder.join("new"), &made()).unwrap();
        assert!(!cache.folder.join("0").exists());
        assert!(cache.folder.join("1").exists() && cache.folder.join("new").exists());
        std::fs::remove_dir_all(&cache.folder).unwrap();
    }

    #[test]
    fn the_folder_follows_the_variables() {
        let of = |xdg: Option<&str>, home: Option<&str>| {
            let variable = |name: &str| match name {
                "XDG_CACHE_HOME" => xdg.map(OsString::from),
                "HOME" => home.map(OsString::from),
                _ => None,
            };
            Cache::from_variables(variable).map(|cache| cache.folder)
        };
        assert_eq!(of(Some("/x"), Some("/h")), Some("/x/hearth/kernels".into()));
        assert_eq!(of(Some("relative"), Some("/h")), Some("/h/.cache/hearth/kernels".into()));
        assert_eq!(of(None, None), None);
    }
}
