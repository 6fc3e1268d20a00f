//! Attention over the slots' pages: which kernel takes a call, and how it is launched.
//!
//! Pieces of work are planned once a step for all layers of the same geometry (`plan`) and
//! computed by one of three kernels: `ops/attention_tile.cu` for prefill and
//! `ops/attention_split.cu` for decode on tensor cores, `ops/attention_plain.cu` in f32 for what
//! these do not take. Ranges of a context that was cut are joined by `ops/attention_join.cu`.

mod plan;

use std::f32::consts::LOG2_E;

use bytemuck::{Pod, Zeroable};
use kernels::{Attention, CacheElement, CacheValues, Error, Segment};

use super::cache::{Cache, CacheArg, HEAD_DIM_MAX};
use super::{Rows, kernel};
use crate::arch::Arch;
use crate::device::CudaConfig;
use crate::gpu::{Address, Gpu, Kernel, Shape};
use crate::record::Record;
use crate::step::Payload;
use crate::tensor::{Kind, Scratch, Tensor, TensorArg, Vector};
use plan::{Cutter, Key, List, Plan};

/// Head sizes that the tensor-core kernels are made for.
const DIMS: [usize; 6] = [64, 80, 96, 128, 192, 256];
/// Rows of packed queries that a block of the split kernel has.
const SPLIT_ROWS: usize = 16;
/// Threads of a block of the tensor-core kernels.
const TENSOR_THREADS: u32 = 128;
/// Heads that a block of the tile kernel takes at most: half of its rows, or all.
const TILE_HEADS: usize = 64;
/// Heads that a block of the plain kernel takes at most, by its variants.
const PLAIN_HEADS: [usize; 3] = [1, 4, 16];
const PLAIN_THREADS: u32 = 256;
const JOIN_THREADS: u32 = 128;
/// Elements of a piece's partial results that are planned for: 16 heads of the largest values.
/// Where a row has more, contexts are cut into fewer ranges.
const PART_ELEMENTS: usize = 16 * HEAD_DIM_MAX;

/// The kernels, and what a step's calls share.
pub(crate) struct Attend {
    split: Variants,
    tile: Variants,
    plain: [Kernel; 3],
    join: Kernel,
    scratch: Scratch,
    blocks_wanted: usize,
    cutter: Cutter,
    /// Plans of the step that is being recorded.
    plans: Vec<(Key, Plan)>,
}

/// Kernels by type of operands, whether the cache is of 8-bit floats, and head size.
type Variants = [[[Kernel; DIMS.len()]; 2]; 2];

macro_rules! variants {
    ($gpu:expr, $file:literal, $prefix:literal) => {{
        let mut load = |name| kernel::<AttentionArgs, G>($gpu, $file, name);
        macro_rules! of {
            ($kind:literal) => {
                [
                    load(concat!($prefix, $kind, "_64"))?,
                    load(concat!($prefix, $kind, "_80"))?,
                    load(concat!($prefix, $kind, "_96"))?,
                    load(concat!($prefix, $kind, "_128"))?,
                    load(concat!($prefix, $kind, "_192"))?,
                    load(concat!($prefix, $kind, "_256"))?,
                ]
            };
        }
        [[of!("_bf16"), of!("_bf16_f8")], [of!("_f16"), of!("_f16_f8")]]
    }};
}

/// One call.
pub(crate) struct Call<'a> {
    pub(crate) rows: &'a Rows,
    pub(crate) segments: &'a [Segment],
    pub(crate) q: &'a Tensor,
    pub(crate) how: &'a Attention<'a, Vector>,
    pub(crate) cache: &'a Cache,
    pub(crate) layer: usize,
    pub(crate) out: &'a Tensor,
}

/// Rows of packed queries that a block of the tile kernel has, and its shared memory in bytes:
/// twin of `Tile` in attention_tile.cu.
fn tile(dim: usize, narrow: bool) -> (usize, usize) {
    let rows = if dim <= 128 { 128 } else { 64 };
    let positions = if dim == 64 { 64 } else { 32 };
    let stride = 2 * (dim + 8);
    let operands = 2 * positions * stride;
    // Two buffers; tiles of 8-bit floats are widened into a third.
    let buffers = if narrow { operands + 2 * (2 * positions * dim) } else { 2 * operands };
    (rows, buffers + rows * stride)
}

/// `struct AttentionArgs` of attention.cuh.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AttentionArgs {
    q: TensorArg,
    out: TensorArg,
    cache: CacheArg,
    items: Address,
    count: Address,
    sinks: Address,
    parts: Address,
    states: Address,
    scale: f32,
    cap: f32,
    heads: u32,
    kv_heads: u32,
    value_dim: u32,
    causal: u32,
    window: u32,
    chunk: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct JoinArgs {
    all: AttentionArgs,
    joins: Address,
    count: Address,
}

/// Bytes of scratch under `config` on a device that so many blocks fill.
pub(crate) fn scratch_bytes(config: &CudaConfig, blocks_wanted: usize) -> usize {
    // Cut contexts have at most twice as many ranges as blocks are wanted; a sixteenth is room
    // for their states.
    let floats = 2 * blocks_wanted * config.attended_max.min(PART_ELEMENTS);
    (4 * (floats + floats / 16)).next_multiple_of(256)
}

impl Call<'_> {
    /// Query heads of a key/value head.
    fn group(&self) -> usize {
        self.how.heads / self.how.kv_heads
    }

    fn value_dim(&self) -> usize {
        self.cache.shape().value_dim()
    }

    fn check(&self) {
        let (how, shape) = (self.how, self.cache.shape());
        assert!(how.kv_heads > 0 && how.heads.is_multiple_of(how.kv_heads), "{how:?}");
        let same = shape.kv_heads == how.kv_heads && shape.head_dim == how.head_dim;
        assert!(same, "{how:?}, {shape:?}");
        assert!(how.window != Some(0) && how.scale > 0.0, "{how:?}");
        assert!(how.sinks.is_none_or(|s| s.len == how.heads), "a sink for each head");
        assert!(how.heads * how.head_dim <= self.q.width, "queries of {}", self.q.width);
        assert!(self.rows.rows <= self.q.rows, "{} rows of queries", self.q.rows);
    }

    /// Which variant of the tensor-core kernels takes it: operands, 8-bit cache, head size.
    fn variant(&self) -> Option<[usize; 3]> {
        let shape = self.cache.shape();
        let operands = match self.q.kind {
            Kind::F32 => return None,
            Kind::Bf16 => 0,
            Kind::F16 => 1,
        };
        let narrow = match (shape.element, self.q.kind) {
            (CacheElement::Bf16, Kind::Bf16) | (CacheElement::F16, Kind::F16) => 0,
            (CacheElement::F8E4M3, _) => 1,
            _ => return None,
        };
        let dim = DIMS.iter().position(|dim| *dim == shape.head_dim)?;
        let fits = shape.values == CacheValues::Own && self.q.width.is_multiple_of(8);
        fits.then_some([operands, narrow, dim])
    }

    /// The kernels' argument; `states` and then `parts` lie in the scratch.
    fn args(&self, scratch: &Scratch, chunk: usize) -> (AttentionArgs, usize) {
        let how = self.how;
        let (heads, value_dim) = (how.heads, self.value_dim());
        // A state is two numbers; sums are written four at a time.
        let parts_max = (scratch.bytes - 16) / (heads * (8 + 4 * value_dim));
        let states = scratch.address;
        let parts = (states + (parts_max * heads * 8) as u64).next_multiple_of(16);
        let args = AttentionArgs {
            q: self.q.arg(),
            out: self.out.of(self.rows.rows, heads * value_dim).arg(),
            cache: self.cache.arg(self.layer),
            items: 0,
            count: 0,
            sinks: how.sinks.map_or(0, |sinks| sinks.address),
            parts,
            states,
            scale: how.soft_cap.map_or(how.scale * LOG2_E, |cap| how.scale / cap),
            cap: how.soft_cap.map_or(0.0, |cap| cap * LOG2_E),
            heads: heads as u32,
            kv_heads: how.kv_heads as u32,
            value_dim: value_dim as u32,
            causal: u32::from(how.causal),
            window: how.window.unwrap_or(u32::MAX),
            chunk: chunk as u32,
        };
        (args, parts_max)
    }
}

impl Attend {
    pub(crate) fn new<G: Gpu>(gpu: &mut G, arch: Arch, config: &CudaConfig) -> Result<Self, Error> {
        let mut plain = |name| kernel::<AttentionArgs, G>(gpu, "attention_plain.cu", name);
        let plain = [
            plain("attention_plain_1")?,
            plain("attention_plain_4")?,
            plain("attention_plain_16")?,
        ];
        let join = kernel::<JoinArgs, G>(gpu, "attention_join.cu", "attention_join")?;
        let bytes = scratch_bytes(config, arch.blocks_wanted);
        Ok(Self {
            split: variants!(gpu, "attention_split.cu", "attention_split"),
            tile: variants!(gpu, "attention_tile.cu", "attention_tile"),
            plain,
            join,
            scratch: Scratch::claim(gpu, "partial results of attention", bytes)?,
            blocks_wanted: arch.blocks_wanted,
            cutter: Cutter::default(),
            plans: Vec::new(),
        })
    }

    /// A step begins: its work is not planned yet.
    pub(crate) fn begin(&mut self) {
        self.plans.clear();
    }

    /// `out` `[rows, heads * value_dim]` from queries and the slots' pages.
    pub(crate) fn attention(
        &mut self,
        record: &mut Record,
        payload: &mut Payload,
        call: &Call<'_>,
    ) {
        call.check();
        match call.variant() {
            Some(variant) => self.tensor(record, payload, call, variant),
            None => self.plain(record, payload, call),
        }
    }

    /// The plan of a geometry, made when it is first asked for in a step.
    fn plan(&mut self, key: Key, segments: &[Segment], payload: &mut Payload) -> Plan {
        if let Some((_, plan)) = self.plans.iter().find(|(known, _)| *known == key) {
            return *plan;
        }
        let plan = self.cutter.cut(&key, segments, payload);
        self.plans.push((key, plan));
        plan
    }

    /// On tensor cores.
    fn tensor(
        &mut self,
        record: &mut Record,
        payload: &mut Payload,
        call: &Call<'_>,
        [operands, narrow, dim]: [usize; 3],
    ) {
        let (heads, group) = (call.how.kv_heads, call.group());
        let (rows, shared_bytes) = tile(DIMS[dim], narrow == 1);
        let (few, many) = (group.min(SPLIT_ROWS), group.min(TILE_HEADS));
        let (args, parts_max) = call.args(&self.scratch, few);
        let blocks = heads * group.div_ceil(few);
        let key = Key {
            few: SPLIT_ROWS / few,
            tile: rows / many,
            wanted: self.blocks_wanted.div_ceil(blocks),
            parts_max,
            causal: call.how.causal,
            window: call.how.window,
        };
        let plan = self.plan(key, call.segments, payload);
        if let Some(tiles) = plan.tiles {
            let grid = [tiles.room as u32, (heads * group.div_ceil(many)) as u32, 1];
            let chunk = many as u32;
            let args = AttentionArgs { items: tiles.at, count: tiles.count, chunk, ..args };
            let shared_bytes = shared_bytes as u32;
            let shape = Shape { grid, threads: TENSOR_THREADS, shared_bytes };
            record.launch(self.tile[operands][narrow][dim], shape, &args);
        }
        if let Some((ranges, joins)) = plan.few {
            let grid = [ranges.room as u32, blocks as u32, 1];
            let args = AttentionArgs { items: ranges.at, count: ranges.count, ..args };
            let shape = Shape { grid, threads: TENSOR_THREADS, shared_bytes: 0 };
            record.launch(self.split[operands][narrow][dim], shape, &args);
            self.join(record, call, args, joins);
        }
    }

    /// In f32.
    fn plain(&mut self, record: &mut Record, payload: &mut Payload, call: &Call<'_>) {
        let variant = PLAIN_HEADS.iter().position(|heads| *heads >= call.group()).unwrap_or(2);
        let chunk = PLAIN_HEADS[variant];
        let (args, parts_max) = call.args(&self.scratch, chunk);
        let blocks = call.how.kv_heads * call.group().div_ceil(chunk);
        let key = Key {
            few: 1,
            tile: 0,
            wanted: self.blocks_wanted.div_ceil(blocks),
            parts_max,
            causal: call.how.causal,
            window: call.how.window,
        };
        let Some((ranges, joins)) = self.plan(key, call.segments, payload).few else { return };
        let stride = call.how.head_dim.next_multiple_of(4);
        let lanes = call.value_dim().div_ceil(4);
        let groups = (PLAIN_THREADS as usize / lanes).min(32);
        // Queries; after the last position, the sums of half of the groups of threads.
        let floats = chunk * stride.max(groups / 2 * lanes * 4);
        let shape = Shape {
            grid: [ranges.room as u32, blocks as u32, 1],
            threads: PLAIN_THREADS,
            shared_bytes: (4 * floats) as u32,
        };
        let args = AttentionArgs { items: ranges.at, count: ranges.count, ..args };
        record.launch(self.plain[variant], shape, &args);
        self.join(record, call, args, joins);
    }

    /// Joins the ranges of contexts that were cut.
    fn join(&self, record: &mut Record, call: &Call<'_>, all: AttentionArgs, joins: List) {
        let grid = [joins.room as u32, call.how.heads as u32, 1];
        let args = JoinArgs { all, joins: joins.at, count: joins.count };
        record.launch(self.join, Shape { grid, threads: JOIN_THREADS, shared_bytes: 0 }, &args);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least that a block of any card can have is 99 KiB; it has no static shared memory.
    #[test]
    fn tiles_fit_every_card() {
        for dim in DIMS {
            for narrow in [false, true] {
                let (rows, bytes) = tile(dim, narrow);
                assert!(bytes <= 99 << 10 && rows >= TILE_HEADS, "{dim}, {narrow}: {bytes}");
            }
        }
    }
}
