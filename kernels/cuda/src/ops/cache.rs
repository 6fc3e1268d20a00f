//! The paged KV cache on the device: `ops/cache.cuh` says how it lies, `ops/cache.cu` fills the
//! block tables.
//!
//! The tables are kept on the host too: a step's grants are sent as the entries that they leave,
//! so that their order does not matter on the device. It must not know attention.

use bytemuck::{Pod, Zeroable};
use kernels::{CacheElement, CacheShape, CacheValues, Error, Grant};

use super::{blocks, kernel};
use crate::gpu::{Address, Gpu, Kernel};
use crate::record::Record;
use crate::step::Payload;

/// Positions in a page.
pub(crate) const PAGE_TOKENS: usize = 16;
/// Greatest head size; keys of latent attention have 576.
pub(crate) const HEAD_DIM_MAX: usize = 640;
const THREADS: u32 = 256;

/// Keys and values of all layers, with the slots' block tables.
pub struct Cache {
    shape: CacheShape,
    pool: Address,
    tables: Address,
    entries: Vec<u32>,
    grant: Kernel,
}

/// One layer as kernels take it: `struct Cache` of cache.cuh.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct CacheArg {
    keys: Address,
    tables: Address,
    page_bytes: u64,
    value_bytes: u64,
    pages_per_slot: u32,
    head_dim: u32,
    element: u32,
    pad: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GrantArgs {
    tables: Address,
    list: Address,
    count: u32,
    pad: u32,
}

/// Bytes of a payload that a list of so many grants takes.
pub(crate) fn grant_bytes(grants: usize) -> usize {
    // A pair of numbers each, aligned to 16 bytes.
    8 * grants + 16
}

/// Device memory that a cache claims, in bytes.
#[must_use]
pub fn cache_bytes(shape: &CacheShape) -> usize {
    pool_bytes(shape).saturating_add(table_bytes(shape))
}

fn pool_bytes(shape: &CacheShape) -> usize {
    shape.page_bytes().saturating_mul(shape.pages)
}

fn table_bytes(shape: &CacheShape) -> usize {
    4 * shape.slots * shape.pages_per_slot
}

impl Cache {
    pub(crate) fn new<G: Gpu>(gpu: &mut G, shape: CacheShape) -> Result<Self, Error> {
        let unsupported = |what| Err(Error::Unsupported(what));
        if shape.page_tokens != PAGE_TOKENS {
            return unsupported(format!("pages of {} tokens (16 are)", shape.page_tokens));
        }
        if !(1..=HEAD_DIM_MAX).contains(&shape.head_dim) {
            return unsupported(format!("keys of {}, at most {HEAD_DIM_MAX}", shape.head_dim));
        }
        if !(1..=shape.head_dim).contains(&shape.value_dim()) {
            let (value, key) = (shape.value_dim(), shape.head_dim);
            return unsupported(format!("values of {value} in keys of {key}"));
        }
        let grant = kernel::<GrantArgs, G>(gpu, "cache.cu", "cache_grant")?;
        let pool = gpu.claim("the KV cache", pool_bytes(&shape))?;
        let tables = gpu.claim("block tables", table_bytes(&shape)).inspect_err(|_| {
            gpu.release(pool);
        })?;
        // Entries without a page are never read; page 0 is one that exists.
        gpu.fill(tables, table_bytes(&shape), 0);
        let entries = vec![0; shape.slots * shape.pages_per_slot];
        Ok(Self { shape, pool, tables, entries, grant })
    }

    /// Its size.
    #[must_use]
    pub fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// One layer as kernels take it.
    pub(crate) fn arg(&self, layer: usize) -> CacheArg {
        let shape = &self.shape;
        assert!(layer < shape.layers, "layer {layer} of {}", shape.layers);
        let half = shape.kv_heads * PAGE_TOKENS * shape.head_dim * shape.element.bytes();
        let layer_bytes = shape.page_bytes() / shape.layers;
        CacheArg {
            keys: self.pool + (layer * layer_bytes) as u64,
            tables: self.tables,
            page_bytes: shape.page_bytes() as u64,
            value_bytes: if shape.values == CacheValues::Own { half as u64 } else { 0 },
            pages_per_slot: shape.pages_per_slot as u32,
            head_dim: shape.head_dim as u32,
            element: match shape.element {
                CacheElement::F32 => 0,
                CacheElement::Bf16 => 1,
                CacheElement::F16 => 2,
                CacheElement::F8E4M3 => 3,
            },
            pad: 0,
        }
    }

    /// Writes block table entries.
    pub(crate) fn grant(&mut self, record: &mut Record, payload: &mut Payload, grants: &[Grant]) {
        let place = |grant: &Grant| {
            let (slot, index) = (grant.slot as usize, grant.index as usize);
            let fits = slot < self.shape.slots && index < self.shape.pages_per_slot;
            assert!(fits && (grant.page as usize) < self.shape.pages, "{grant:?}");
            slot * self.shape.pages_per_slot + index
        };
        for grant in grants {
            self.entries[place(grant)] = grant.page;
        }
        let (list, entries) = payload.claim(grants.len(), [0_u32; 2]);
        for (entry, grant) in entries.iter_mut().zip(grants) {
            let at = place(grant);
            *entry = [at as u32, self.entries[at]];
        }
        let count = grants.len();
        let args = GrantArgs { tables: self.tables, list, count: count as u32, pad: 0 };
        record.launch(self.grant, blocks(count.div_ceil(THREADS as usize), THREADS), &args);
    }

    /// Where keys and values lie, and how many bytes, for tests.
    pub(crate) fn pool(&self) -> (Address, usize) {
        (self.pool, pool_bytes(&self.shape))
    }
}
