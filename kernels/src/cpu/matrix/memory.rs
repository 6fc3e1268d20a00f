//! Bytes for weights and activations: aligned, zeroed, and on huge pages where the system allows.
//!
//! Why so: streaming a matrix through 4 KiB pages costs a page-table walk every 64 cache lines.
//! Memory that the system lacks is an error at set-up, never an abort.

use std::alloc::{Layout, alloc_zeroed, dealloc};
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
    /// What claiming `len` bytes takes.
    pub(crate) fn size_of(len: usize) -> usize {
        len.max(LINE)
    }

    /// Claims `len` zeroed bytes for `what`.
    pub(crate) fn zeroed(len: usize, what: &'static str) -> Result<Self, Error> {
        let missing = Error::OutOfMemory { what, wanted: len };
        let align = if len >= HUGE { HUGE } else { LINE };
        let layout =
            Layout::from_size_align(Self::size_of(len), align).map_err(|_| missing.clone())?;
        let start = if align == HUGE { huge::claim(layout) } else { heap(layout) };
        let start = start.ok_or(missing)?;
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
        if self.layout.align() == HUGE {
            huge::release(self.start, self.layout);
        } else {
            // SAFETY: allocated with this layout and not freed before.
            unsafe { dealloc(self.start.as_ptr(), self.layout) }
        }
    }
}

fn heap(layout: Layout) -> Option<NonNull<u8>> {
    // SAFETY: the layout's size is not 0.
    NonNull::new(unsafe { alloc_zeroed(layout) })
}

/// Pages of the system's own: they come zeroed, so that filling them is the first write by this
/// process and not the second.
#[cfg(target_os = "linux")]
mod huge {
    use super::{HUGE, Layout, NonNull};

    pub(super) fn claim(layout: Layout) -> Option<NonNull<u8>> {
        let room = layout.size().checked_add(HUGE)?;
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, anywhere.
        let mapped = unsafe { libc::mmap(std::ptr::null_mut(), room, access, kind, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        let before = mapped.align_offset(HUGE);
        let start = mapped.wrapping_byte_add(before);
        let end = (before + layout.size()).next_multiple_of(PAGE);
        // SAFETY: parts of the mapping above on both sides of what is kept; both begin at a page.
        unsafe {
            if before > 0 {
                libc::munmap(mapped, before);
            }
            if end < room {
                libc::munmap(mapped.wrapping_byte_add(end), room - end);
            }
        }
        // Advice only: whether it is taken makes no difference but speed.
        // SAFETY: the range is this mapping.
        unsafe { libc::madvise(start, layout.size(), libc::MADV_HUGEPAGE) };
        // Claimed now, so that memory which the system lacks is missed here and not in a step.
        let error = populate(Address(start), layout.size());
        if error == Some(libc::ENOMEM) {
            // SAFETY: this mapping, of which nobody knows yet.
            unsafe { libc::munmap(start, layout.size()) };
            return None;
        }
        let start = NonNull::new(start.cast::<u8>())?;
        if error.is_some() {
            // Kernels before 5.14 claim a page when it is written.
            // SAFETY: the range is this mapping.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        Some(start)
    }

    /// Where a mapping begins, for the threads that claim parts of it.
    #[derive(Clone, Copy)]
    struct Address(*mut libc::c_void);

    // SAFETY: only an address; nothing is read or written through it.
    unsafe impl Send for Address {}

    impl Address {
        /// Claims `len` bytes from `at` on; the error's number, if there is one.
        fn claim(self, at: usize, len: usize) -> Option<i32> {
            let start = self.0.wrapping_byte_add(at);
            // SAFETY: a part of a mapping that nobody uses yet; its contents stay as they are.
            match unsafe { libc::madvise(start, len, libc::MADV_POPULATE_WRITE) } {
                0 => None,
                _ => std::io::Error::last_os_error().raw_os_error(),
            }
        }
    }

    /// Claims the pages of a mapping; the system zeroes them, which for a gigabyte is worth more
    /// than one thread.
    fn populate(start: Address, len: usize) -> Option<i32> {
        const LEAST: usize = 8 * HUGE;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let each = len.div_ceil(threads).next_multiple_of(HUGE).max(LEAST);
        if each >= len {
            return start.claim(0, len);
        }
        std::thread::scope(|scope| {
            let parts = (0..len).step_by(each);
            let claims: Vec<_> =
                parts.map(|at| scope.spawn(move || start.claim(at, each.min(len - at)))).collect();
            claims.into_iter().find_map(|claim| claim.join().unwrap_or(Some(libc::EFAULT)))
        })
    }

    pub(super) fn release(start: NonNull<u8>, layout: Layout) {
        // SAFETY: mapped by `claim` with this layout and not released before.
        unsafe { libc::munmap(start.as_ptr().cast(), layout.size()) };
    }

    /// The largest of the ordinary page sizes: a multiple of all of them.
    const PAGE: usize = 64 << 10;
}

#[cfg(not(target_os = "linux"))]
mod huge {
    use super::{Layout, NonNull, dealloc, heap};

    pub(super) fn claim(layout: Layout) -> Option<NonNull<u8>> {
        heap(layout)
    }

    pub(super) fn release(start: NonNull<u8>, layout: Layout) {
        // SAFETY: allocated by `claim` with this layout and not freed before.
        unsafe { dealloc(start.as_ptr(), layout) }
    }
}
