//! Memory that the ops work on: aligned buffers, activations and vectors, and the two wrappers
//! through which the pool's workers write to disjoint parts of one buffer.
//!
//! Why so: buffers are claimed once at set-up and 64-byte aligned, so that a vector never
//! straddles a cache line when rows are multiples of 16. It must not know any op.

use std::cell::UnsafeCell;

use super::matrix::Memory;
use crate::compute::Error;

/// Zeroed memory that is read as f32 or as elements of the cache.
pub(crate) struct Buffer {
    memory: Memory,
    bytes: usize,
}

impl Buffer {
    /// Claims `bytes` zero bytes.
    pub(crate) fn zeroed(bytes: usize, what: &'static str) -> Result<Self, Error> {
        Ok(Self { memory: Memory::zeroed(bytes, what)?, bytes })
    }

    /// First byte.
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.memory.as_ptr()
    }

    /// First byte, to write through.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.memory.as_mut_ptr()
    }

    /// All of it as f32.
    pub(crate) fn floats(&self) -> &[f32] {
        // SAFETY: the memory is initialised, aligned to 64 and lives as long as `self`; any bit
        // pattern is an f32.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), self.bytes / 4) }
    }

    /// All of it as f32, to write.
    pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `floats`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), self.bytes / 4) }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("bytes", &self.bytes).finish()
    }
}

/// Activations `[rows, width]`, row-major without gaps.
#[derive(Debug)]
pub struct Tensor {
    data: Buffer,
    rows: usize,
    width: usize,
}

impl Tensor {
    pub(crate) fn zeroed(rows: usize, width: usize) -> Result<Self, Error> {
        let bytes = rows.saturating_mul(width).saturating_mul(4);
        Ok(Self { data: Buffer::zeroed(bytes, "activations")?, rows, width })
    }

    /// Rows claimed.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The first `rows` rows.
    pub(crate) fn first(&self, rows: usize) -> &[f32] {
        assert!(rows <= self.rows, "{rows} rows of a tensor of {}", self.rows);
        &self.data.floats()[..rows * self.width]
    }

    /// The first `rows` rows, to write.
    pub(crate) fn first_mut(&mut self, rows: usize) -> &mut [f32] {
        assert!(rows <= self.rows, "{rows} rows of a tensor of {}", self.rows);
        &mut self.data.floats_mut()[..rows * self.width]
    }
}

/// f32 weights of one dimension.
#[derive(Debug)]
pub struct Vector(Buffer);

impl Vector {
    pub(crate) fn new(values: &[f32]) -> Result<Self, Error> {
        let mut data = Buffer::zeroed(values.len() * 4, "a weight vector")?;
        data.floats_mut().copy_from_slice(values);
        Ok(Self(data))
    }

    /// Its values.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        self.0.floats()
    }
}

/// A slice of which the pool's workers write disjoint parts.
pub(crate) struct Shared<'a, T> {
    at: *mut T,
    len: usize,
    borrow: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: parts are handed out by `part`, whose caller keeps them disjoint.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { at: slice.as_mut_ptr(), len: slice.len(), borrow: std::marker::PhantomData }
    }

    /// `len` elements from `at` on.
    ///
    /// # Safety
    /// No two parts that live at the same time overlap.
    #[expect(clippy::mut_from_ref, reason = "the caller promises that parts are disjoint")]
    pub(crate) unsafe fn part(&self, at: usize, len: usize) -> &mut [T] {
        assert!(at + len <= self.len, "part {at} + {len} of {}", self.len);
        // SAFETY: within the slice, which is borrowed mutably for 'a; disjoint by contract.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(at), len) }
    }
}

/// One scratch value for each of the pool's workers.
pub(crate) struct PerWorker<T>(Vec<UnsafeCell<T>>);

// SAFETY: a worker only touches its own value, see `of`.
unsafe impl<T: Send> Sync for PerWorker<T> {}

impl<T> PerWorker<T> {
    pub(crate) fn new(workers: usize, make: impl FnMut() -> T) -> Self {
        Self(std::iter::repeat_with(make).take(workers).map(UnsafeCell::new).collect())
    }

    /// All values, while no task runs.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(UnsafeCell::get_mut)
    }

    /// The value of a worker.
    ///
    /// # Safety
    /// `worker` is the number that the pool gave to the running task, and the task takes the
    /// value once: the pool runs one task at a time under each number.
    #[expect(clippy::mut_from_ref, reason = "the caller promises that it is alone")]
    pub(crate) unsafe fn of(&self, worker: usize) -> &mut T {
        // SAFETY: by contract nobody else holds this worker's value.
        unsafe { &mut *self.0[worker].get() }
    }
}
