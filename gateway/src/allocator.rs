//! mimalloc, asked without an alignment where it has that alignment anyway.
//!
//! The crate's own allocator names an alignment in every call. For any size but a power of two
//! mimalloc then takes a larger block, marks its page, and looks on each free where the block
//! begins: a fourth of what allocations cost.

use std::alloc::{GlobalAlloc, Layout};

use mimalloc::MiMalloc;

/// See the module.
pub struct Allocator;

/// mimalloc's blocks of at least so many bytes are aligned to as many; smaller ones to 8.
const ALIGNED: usize = 16;

/// Whether any block of this size is aligned as it has to be.
const fn is_natural(align: usize, size: usize) -> bool {
    align <= 8 || (align <= ALIGNED && size >= ALIGNED)
}

// SAFETY: all blocks are mimalloc's, which frees and resizes them however they were asked for. A
// block that is asked for without an alignment has the one of its layout, by `is_natural`.
#[expect(unsafe_code, reason = "an allocator is")]
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_natural(layout.align(), layout.size()) {
            // SAFETY: any size may be asked for.
            return unsafe { libmimalloc_sys::mi_malloc(layout.size()) }.cast();
        }
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_natural(layout.align(), layout.size()) {
            // SAFETY: as above.
            return unsafe { libmimalloc_sys::mi_zalloc(layout.size()) }.cast();
        }
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_natural(layout.align(), size) {
            // SAFETY: the block is mimalloc's, and the new size may be any.
            return unsafe { libmimalloc_sys::mi_realloc(block.cast(), size) }.cast();
        }
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.realloc(block, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of all sizes and alignments, new, zeroed and resized.
    #[test]
    #[expect(unsafe_code, reason = "blocks are asked for and freed by hand")]
    fn blocks_are_aligned() {
        for align in [1, 2, 4, 8, 16, 32, 64, 4096] {
            for size in (1..300).chain([1000, 1024, 5000, 8192, 100_000, 3 << 20]) {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: the size is not zero, and each block is freed once, as it was last made.
                unsafe {
                    let one = Allocator.alloc(layout);
                    let two = Allocator.alloc_zeroed(layout);
                    assert!(!one.is_null() && one.addr().is_multiple_of(align), "{layout:?}");
                    assert!(!two.is_null() && two.addr().is_multiple_of(align), "{layout:?}");
                    assert!(std::slice::from_raw_parts(two, size).iter().all(|byte| *byte == 0));
                    one.write_bytes(7, size);
                    let more = Layout::from_size_align(size * 2 + 1, align).expect("a layout");
                    let one = Allocator.realloc(one, layout, more.size());
                    assert!(!one.is_null() && one.addr().is_multiple_of(align), "{more:?}");
                    assert!(std::slice::from_raw_parts(one, size).iter().all(|byte| *byte == 7));
                    Allocator.dealloc(one, more);
                    Allocator.dealloc(two, layout);
                }
            }
        }
    }
}
