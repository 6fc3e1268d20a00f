//! Bytes for weights and activations: aligned, zeroed, and on huge pages where the system allows.
//!
//! Why so: streaming a matrix through 4 KiB pages costs a page-table walk every 64 cache lines.
//! Memory that the system lacks is an error at set-up, never an abort.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;

use crate::Error;

/// Huge pages are 2 MiB on x86-64 and on aarch64 with 4 KiB pages.
const HUGE: usize = 2 << 20;
/// A cache line.
const LINE: usize = 64;

/// Zeroed bytes, aligned to a cache line at least.
pub(crate) struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its bytes and hands them out under the usual borrow rules.
unsafe impl Send for Memory {}
// SAFETY: shared access is read only.
unsafe impl Sync for Memory {}

impl Memory {
    /// Claims `len` zeroed bytes for `what`.
    pub(crate) fn zeroed(len: usize, what: &'static str) -> Result<Self, Error> {
        let missing = Error::OutOfMemory { what, wanted: len };
        let align = if len >= HUGE { HUGE } else { LINE };
        let layout = Layout::from_size_align(len.max(LINE), align).map_err(|_| missing.clone())?;
        // SAFETY: the layout's size is not 0.
        let start = NonNull::new(unsafe { alloc(layout) }).ok_or(missing)?;
        #[cfg(target_os = "linux")]
        if align == HUGE {
            // Advice only: whether it is taken makes no difference but speed.
            // SAFETY: the range is this allocation, aligned to pages.
            unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
        // Zeroed only now: the first touch decides the size of the page.
        // SAFETY: the range is this allocation.
        unsafe { start.write_bytes(0, layout.size()) };
        Ok(Self { start, layout })
    }

    /// Bytes claimed.
    pub(crate) fn len(&self) -> usize {
        self.layout.size()
    }

    /// The first byte, for reading.
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// The first byte, for writing.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` owns `len` bytes, zeroed at birth.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout and not freed before.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}
