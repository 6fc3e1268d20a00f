//! The paged KV cache: one pool of pages and a block table per slot.
//!
//! Layout: `[layer][page][kv_head]` of a key block `[head_dim][16]` and a value block
//! `[16][head_dim]`. Keys are stored transposed, so that one vector holds one dimension of a
//! page's 16 keys and a query scores 16 keys at once without a sum across lanes; values lie as
//! they come, so that one vector holds 16 dimensions of one value. Where values are part of the
//! keys, the value block is missing. It must not know attention.

use half::{bf16, f16};

use super::lanes::{LANES, Lanes};
use super::tensor::Buffer;
use crate::compute::{CacheElement, CacheShape, CacheValues, Error, Grant};

/// Positions in a page: the lanes of a vector.
pub(crate) const PAGE_TOKENS: usize = LANES;

/// Entry of a block table that no page was granted for.
const NO_PAGE: u32 = u32::MAX;

/// An element type of the cache.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// Reads 16.
    fn load<S: Lanes>(s: S, x: &[Self; LANES]) -> S::V;
    /// To f32.
    fn wide(self) -> f32;
    /// Rounds to nearest, ties to even.
    fn narrow(x: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn load<S: Lanes>(s: S, x: &[Self; LANES]) -> S::V {
        s.load(x)
    }
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn load<S: Lanes>(s: S, x: &[Self; LANES]) -> S::V {
        s.load_bf16(x)
    }
    #[inline(always)]
    fn wide(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        Self::from_f32(x)
    }
}

impl Element for f16 {
    #[inline(always)]
    fn load<S: Lanes>(s: S, x: &[Self; LANES]) -> S::V {
        s.load_f16(x)
    }
    #[inline(always)]
    fn wide(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        Self::from_f32(x)
    }
}

/// Keys and values of all layers, with the slots' block tables.
#[derive(Debug)]
pub struct Cache {
    shape: CacheShape,
    data: Buffer,
    tables: Vec<u32>,
}

impl Cache {
    pub(crate) fn new(shape: CacheShape) -> Result<Self, Error> {
        if shape.page_tokens != PAGE_TOKENS {
            let what = format!("pages of {} tokens (16 are)", shape.page_tokens);
            return Err(Error::Unsupported(what));
        }
        if shape.element == CacheElement::F8E4M3 {
            return Err(Error::Unsupported("a KV cache of 8-bit floats on CPU".to_owned()));
        }
        if shape.value_dim() > shape.head_dim {
            let what = format!("values of {} in keys of {}", shape.value_dim(), shape.head_dim);
            return Err(Error::Unsupported(what));
        }
        let bytes = shape.page_bytes().saturating_mul(shape.pages);
        let data = Buffer::zeroed(bytes, "the KV cache")?;
        Ok(Self { shape, data, tables: vec![NO_PAGE; shape.slots * shape.pages_per_slot] })
    }

    /// Its size.
    #[must_use]
    pub fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// Writes block table entries.
    pub(crate) fn grant(&mut self, grants: &[Grant]) {
        for grant in grants {
            let (slot, index) = (grant.slot as usize, grant.index as usize);
            assert!(slot < self.shape.slots && index < self.shape.pages_per_slot, "{grant:?}");
            assert!((grant.page as usize) < self.shape.pages, "{grant:?}");
            self.tables[slot * self.shape.pages_per_slot + index] = grant.page;
        }
    }

    /// A slot's block table.
    pub(crate) fn table(&self, slot: u32) -> &[u32] {
        let per_slot = self.shape.pages_per_slot;
        &self.tables[slot as usize * per_slot..][..per_slot]
    }

    /// First element of the block of (layer, page, head), the elements of its keys and those of
    /// its values.
    fn block(&self, layer: usize, page: u32, head: usize) -> (usize, usize, usize) {
        let shape = &self.shape;
        assert_ne!(page, NO_PAGE, "a position without a page");
        assert!(layer < shape.layers && head < shape.kv_heads, "layer {layer}, head {head}");
        let keys = shape.head_dim * PAGE_TOKENS;
        let values = if shape.values == CacheValues::Own { keys } else { 0 };
        let block = (layer * shape.pages + page as usize) * shape.kv_heads + head;
        (block * (keys + values), keys, values)
    }

    /// Keys `[head_dim][16]` and values `[16 * head_dim]` of one head on one page; no values where
    /// they are part of the keys.
    pub(crate) fn read<T: Element>(
        &self,
        layer: usize,
        page: u32,
        head: usize,
    ) -> (&[[T; LANES]], &[T]) {
        debug_assert_eq!(size_of::<T>(), self.shape.element.bytes());
        let (at, keys, values) = self.block(layer, page, head);
        // SAFETY: `block` checked the indices, so the block lies in the buffer; it is aligned,
        // zeroed at the start and then holds elements of T only.
        let both = unsafe {
            std::slice::from_raw_parts(self.data.as_ptr().cast::<T>().add(at), keys + values)
        };
        let (keys, values) = both.split_at(keys);
        (keys.as_chunks().0, values)
    }

    /// A view through which the pool's workers write disjoint positions.
    pub(crate) fn writer(&mut self) -> Writer<'_> {
        Writer { at: self.data.as_mut_ptr(), cache: self }
    }
}

/// Writes keys and values of single positions, from many workers.
pub(crate) struct Writer<'a> {
    cache: &'a Cache,
    at: *mut u8,
}

// SAFETY: `put` is the only access, and its caller keeps positions disjoint.
unsafe impl Sync for Writer<'_> {}

impl Writer<'_> {
    /// Stores the key and value `[head_dim]` of one head at a slot's position; the value is empty
    /// where it is part of the key.
    ///
    /// # Safety
    /// No two calls that run at the same time name the same slot, position and head, and nobody
    /// reads the cache meanwhile.
    pub(crate) unsafe fn put<T: Element>(
        &self,
        layer: usize,
        (slot, position): (u32, u32),
        head: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let head_dim = self.cache.shape.head_dim;
        assert!(key.len() == head_dim, "head size");
        let (index, token) = (position as usize / PAGE_TOKENS, position as usize % PAGE_TOKENS);
        let (at, keys_len, values_len) =
            self.cache.block(layer, self.cache.table(slot)[index], head);
        assert_eq!(value.len() * PAGE_TOKENS, values_len, "value size");
        // SAFETY: `block` checked the indices; the position's elements are ours by contract.
        unsafe {
            let keys = self.at.cast::<T>().add(at + token);
            for (i, &x) in key.iter().enumerate() {
                keys.add(i * PAGE_TOKENS).write(T::narrow(x));
            }
            let values = self.at.cast::<T>().add(at + keys_len + token * value.len());
            for (i, &x) in value.iter().enumerate() {
                values.add(i).write(T::narrow(x));
            }
        }
    }
}

/// Calls a function with the cache's element type as its type argument.
macro_rules! with_element {
    ($element:expr, $T:ident => $body:expr) => {
        match $element {
            $crate::compute::CacheElement::F32 => {
                type $T = f32;
                $body
            }
            $crate::compute::CacheElement::Bf16 => {
                type $T = half::bf16;
                $body
            }
            $crate::compute::CacheElement::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::compute::CacheElement::F8E4M3 => unreachable!("refused by Cache::new"),
        }
    };
}
pub(crate) use with_element;

/// The value that the cache keeps of `x`, for references that read the same rounded cache.
#[must_use]
pub fn rounded(element: CacheElement, x: f32) -> f32 {
    with_element!(element, T => <T as Element>::narrow(x).wide())
}
