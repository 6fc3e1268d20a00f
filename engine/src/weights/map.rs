//! The bytes of a weight file: mapped, or part of this binary.
//!
//! Mapping keeps opening instant and lets the OS drop pages after they were copied to a device.
//! This is the engine's only `unsafe`; the module does not know what the bytes mean.

#![allow(unsafe_code, reason = "mapping a file is unsafe and happens here only")]

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use memmap2::{Advice, Mmap, UncheckedAdvice};

use super::LoadError;

/// Ranges that may still be read by whoever asked for them last: the parts of a fused matrix.
const KEPT: usize = 4;
/// Beyond those, how much read data stays mapped: pages are worth keeping for small neighbours.
const KEPT_BYTES: usize = 16 << 20;

/// Bytes that stay in place for as long as this value lives.
pub(crate) enum FileBytes {
    /// A file mapped read-only, and what was read of it lately.
    Mapped(Mmap, Mutex<Recent>),
    /// Bytes embedded into the binary.
    Embedded(&'static [u8]),
}

/// Ranges in the order in which they were read.
#[derive(Default)]
pub(crate) struct Recent {
    ranges: VecDeque<Range<usize>>,
    bytes: usize,
}

impl FileBytes {
    /// Maps a file.
    pub(crate) fn map(path: &Path) -> Result<Self, LoadError> {
        let file = open_regular(path)?;
        // SAFETY: the mapping is private and read-only, and this process never writes to model
        // files. What remains is another process that truncates or rewrites the file while it is
        // mapped; SECURITY.md tells operators to keep model folders read-only for that reason.
        let map = unsafe { Mmap::map(&file) };
        map.map(|map| Self::Mapped(map, Mutex::default()))
            .map_err(|e| LoadError::new(path, format!("cannot be mapped: {e}")))
    }

    /// Says that `part` of the bytes is about to be read once: it is fetched ahead, and what was
    /// read before it leaves this process's memory (not the system's cache of files), so that a
    /// model is not there twice while it is loaded.
    pub(crate) fn reading(&self, part: &[u8]) {
        let Self::Mapped(map, recent) = self else { return };
        let start = (part.as_ptr() as usize).wrapping_sub(map.as_ptr() as usize);
        let range = start..start.saturating_add(part.len());
        if part.is_empty() || range.end > map.len() {
            return;
        }
        // Advice only: whether it is taken makes no difference but speed and space.
        let _ = map.advise_range(Advice::WillNeed, range.start, range.len());
        let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.bytes += range.len();
        recent.ranges.push_back(range);
        while recent.ranges.len() > KEPT && recent.bytes > KEPT_BYTES {
            let Some(old) = recent.ranges.pop_front() else { return };
            recent.bytes -= old.len();
            // SAFETY: the mapping is a private, read-only one of a file: pages that are read again
            // come from the file with the same bytes.
            let _ = unsafe {
                map.unchecked_advise_range(UncheckedAdvice::DontNeed, old.start, old.len())
            };
        }
    }

    /// All bytes.
    pub(crate) fn get(&self) -> &[u8] {
        match self {
            Self::Mapped(map, _) => map,
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
