//! The bytes of a weight file: mapped, or part of this binary.
//!
//! Mapping keeps opening instant and lets the OS drop pages after they were copied to a device.
//! This is the engine's only `unsafe`; the module does not know what the bytes mean.

#![allow(unsafe_code, reason = "mapping a file is unsafe and happens here only")]

use std::fs::File;
use std::io::Read;
use std::path::Path;

use memmap2::Mmap;

use super::LoadError;

/// Bytes that stay in place for as long as this value lives.
pub(crate) enum FileBytes {
    /// A file mapped read-only.
    Mapped(Mmap),
    /// Bytes embedded into the binary.
    Embedded(&'static [u8]),
}

impl FileBytes {
    /// Maps a file.
    pub(crate) fn map(path: &Path) -> Result<Self, LoadError> {
        let file = open_regular(path)?;
        // SAFETY: the mapping is private and read-only, and this process never writes to model
        // files. What remains is another process that truncates or rewrites the file while it is
        // mapped; SECURITY.md tells operators to keep model folders read-only for that reason.
        let map = unsafe { Mmap::map(&file) };
        map.map(Self::Mapped).map_err(|e| LoadError::new(path, format!("cannot be mapped: {e}")))
    }

    /// All bytes.
    pub(crate) fn get(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Embedded(bytes) => bytes,
        }
    }
}

/// Reads a small file whole.
pub(crate) fn read_small(path: &Path, bytes_max: u64) -> Result<Vec<u8>, LoadError> {
    let file = open_regular(path)?;
    let len = file.metadata().map_or(0, |meta| meta.len());
    let too_big = || {
        LoadError::new(path, format!("has more than {bytes_max} bytes, which no such file needs"))
    };
    if len > bytes_max {
        return Err(too_big());
    }
    // One more than there should be, so that reading to the end need not grow it.
    let mut bytes = Vec::with_capacity(len as usize + 1);
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| LoadError::new(path, format!("cannot be read: {e}")))?;
    if bytes.len() as u64 > bytes_max { Err(too_big()) } else { Ok(bytes) }
}

/// Opens a regular, non-empty file: a pipe or a device would block or never end.
fn open_regular(path: &Path) -> Result<File, LoadError> {
    let meta = std::fs::metadata(path)
        .map_err(|e| LoadError::new(path, format!("cannot be opened: {e}")))?;
    if !meta.is_file() {
        return Err(LoadError::new(path, "is not a regular file"));
    }
    if meta.len() == 0 {
        return Err(LoadError::new(path, "is empty; was the download cut off?"));
    }
    File::open(path).map_err(|e| LoadError::new(path, format!("cannot be opened: {e}")))
}
