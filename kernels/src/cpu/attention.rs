//! Paged attention: which blocks of work there are, and how the parts of a long context join.
//!
//! Prefill and decode are one path. A task is (segment, kv head, block of positions); its queries
//! are the block's positions times the heads that share the kv head, so each page is read from
//! memory once for all of them. A context is cut into spans of [`SPAN_PAGES`] pages at absolute
//! positions; each span is an online softmax of its own (see `attention_span`), and spans join in
//! order. When there are fewer tasks than threads (a long decode), spans become tasks too.
//!
//! Invariant: what a position gets depends on its query, its window and the pages alone, bit by
//! bit: not on the segment it came in, the batch, the block, the number of threads, or on whether
//! spans ran one after the other or at once.

use super::attention_span::{Query, Span, run_span};
use super::cache::{Cache, Element, PAGE_TOKENS, with_element};
use super::isa::Isa;
use super::lanes::{Kernel, LANES, Lanes, dispatch};
use super::math::exp_one;
use super::pool::Pool;
use super::tensor::{Buffer, PerWorker, Shared};
use crate::compute::{Attention, Segment};

/// Queries of a block at most: 64 sums of 128 dimensions stay in half of a 64 KiB cache.
pub(crate) const BLOCK_QUERIES: usize = 64;
/// Greatest head size.
pub(crate) const HEAD_DIM_MAX: usize = 512;
/// Pages of a span: 1024 positions, where joining costs less than a hundredth of the scores.
pub(crate) const SPAN_PAGES: usize = 64;

/// Positions of a segment that are worked on together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    segment: u32,
    /// Offset of its first position in the segment, and how many.
    from: u32,
    len: u32,
}

/// Scratch of one worker: the online softmax of a block's queries.
pub(crate) struct Scratch {
    /// `[BLOCK_QUERIES, head_dim rounded up to 16]`.
    sums: Buffer,
    queries: Vec<Query>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let bytes = BLOCK_QUERIES * HEAD_DIM_MAX.next_multiple_of(LANES) * size_of::<f32>();
        let sums = Buffer::zeroed(bytes, "attention").expect("memory for a thread's scratch");
        Self { sums, queries: Vec::with_capacity(BLOCK_QUERIES) }
    }
}

/// What the spans of a query joined to so far: its output row holds the sums.
#[derive(Debug, Clone, Copy, Default)]
struct Joined {
    any: bool,
    best: f32,
    mass: f32,
}

/// Lists and partial results, kept between calls.
#[derive(Default)]
pub(crate) struct Plan {
    blocks: Vec<Block>,
    /// Split decode: per (task, span, query) the sums, then best and mass.
    partial: Vec<f32>,
}

/// Everything that a call works on.
pub(crate) struct Call<'a> {
    pub(crate) isa: Isa,
    pub(crate) how: &'a Attention,
    pub(crate) segments: &'a [Segment],
    /// `[rows, width]`; queries are the first heads of a row.
    pub(crate) qkv: &'a [f32],
    pub(crate) width: usize,
    pub(crate) cache: &'a Cache,
    pub(crate) layer: usize,
}

impl Call<'_> {
    fn group(&self) -> usize {
        self.how.heads / self.how.kv_heads
    }

    /// Row of `qkv` and of the output where a block starts.
    fn row(&self, block: &Block) -> usize {
        (self.segments[block.segment as usize].row + block.from) as usize
    }

    /// Pages that some query of the block sees.
    fn pages(&self, block: &Block) -> std::ops::Range<usize> {
        let first = self.segments[block.segment as usize].first + block.from;
        let end = first + block.len;
        let from = self.how.window.map_or(0, |w| (first + 1).saturating_sub(w));
        from as usize / PAGE_TOKENS..(end as usize).div_ceil(PAGE_TOKENS)
    }

    /// One span of one block: results in the worker's scratch.
    fn span(&self, block: &Block, kv_head: usize, span: usize, scratch: &mut Scratch) {
        let pages = self.pages(block);
        let pages = pages.start.max(span * SPAN_PAGES)..pages.end.min((span + 1) * SPAN_PAGES);
        let segment = &self.segments[block.segment as usize];
        let (head_dim, group) = (self.how.head_dim, self.group());
        let Scratch { sums, queries } = scratch;
        queries.clear();
        for i in 0..block.len {
            let position = segment.first + block.from + i;
            let row = (self.row(block) + i as usize) * self.width;
            for head in kv_head * group..(kv_head + 1) * group {
                let q = &self.qkv[row + head * head_dim..][..head_dim];
                queries.push(Query::new(q, position, self.how.window));
            }
        }
        let sums =
            &mut sums.floats_mut().as_chunks_mut().0[..queries.len() * head_dim.div_ceil(LANES)];
        with_element!(self.cache.shape().element, T => {
            self.span_of::<T>(segment.slot, kv_head, pages, queries, sums);
        });
    }

    fn span_of<T: Element>(
        &self,
        slot: u32,
        kv_head: usize,
        pages: std::ops::Range<usize>,
        queries: &mut [Query],
        sums: &mut [[f32; LANES]],
    ) {
        let (cache, layer, how) = (self.cache, self.layer, self.how);
        let table = cache.table(slot);
        let page = move |index: usize| cache.read::<T>(layer, table[index], kv_head);
        run_span(self.isa, Span { how, pages, page, queries, sums });
    }
}

/// `joined = joined + part`, where both are sums relative to their own best score.
struct Join<'a> {
    total: &'a mut [f32],
    joined: &'a mut Joined,
    part: &'a [f32],
    best: f32,
    mass: f32,
}

impl Kernel for Join<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Self { total, joined, part, best, mass } = self;
        if !joined.any {
            *joined = Joined { any: true, best, mass };
            total.copy_from_slice(part);
            return;
        }
        let greater = if best > joined.best { best } else { joined.best };
        let old = exp_one(s, joined.best - greater);
        let new = exp_one(s, best - greater);
        joined.mass = joined.mass * old + mass * new;
        joined.best = greater;
        for (t, p) in total.iter_mut().zip(part) {
            *t = *t * old + *p * new;
        }
    }
}

/// Attention of all segments into `out` `[rows, heads * head_dim]`.
pub(crate) fn attention(
    pool: &Pool,
    call: &Call<'_>,
    scratch: &PerWorker<Scratch>,
    plan: &mut Plan,
    out: &mut [f32],
) {
    let how = call.how;
    assert!(how.kv_heads > 0 && how.heads.is_multiple_of(how.kv_heads), "{how:?}");
    assert!((1..=HEAD_DIM_MAX).contains(&how.head_dim), "{how:?}");
    assert!(call.group() <= BLOCK_QUERIES, "at most {BLOCK_QUERIES} heads share a kv head");
    assert!(how.window != Some(0), "a window of at least 1");
    let positions = (BLOCK_QUERIES / call.group()) as u32;
    plan.blocks.clear();
    for (index, segment) in call.segments.iter().enumerate() {
        for from in (0..segment.len).step_by(positions as usize) {
            let len = positions.min(segment.len - from);
            plan.blocks.push(Block { segment: index as u32, from, len });
        }
    }
    // Later positions see more: the longest tasks first keep the threads even at the end.
    plan.blocks.reverse();
    let out = Shared::new(out);
    if plan.blocks.len() * how.kv_heads < pool.threads() {
        split(pool, call, scratch, plan, &out);
        return;
    }
    let blocks = &plan.blocks;
    pool.run(blocks.len() * how.kv_heads, &|task, worker| {
        let (block, kv_head) = (&blocks[task / how.kv_heads], task % how.kv_heads);
        // SAFETY: the worker's own scratch, taken once.
        let scratch = unsafe { scratch.of(worker) };
        let mut joined = [Joined::default(); BLOCK_QUERIES];
        let pages = call.pages(block);
        for span in pages.start / SPAN_PAGES..pages.end.div_ceil(SPAN_PAGES) {
            call.span(block, kv_head, span, scratch);
            let padded = how.head_dim.next_multiple_of(LANES);
            let sums = scratch.sums.floats();
            for (i, query) in scratch.queries.iter().enumerate() {
                if !query.seen {
                    continue;
                }
                // SAFETY: each (row, head) of the output belongs to one task.
                let total = unsafe { output(call, &out, block, kv_head, i) };
                let part = &sums[i * padded..][..how.head_dim];
                let (best, mass) = (query.best, query.mass_sum());
                dispatch(call.isa, Join { total, joined: &mut joined[i], part, best, mass });
            }
        }
        for (i, joined) in joined[..scratch.queries.len()].iter().enumerate() {
            // SAFETY: as above.
            let total = unsafe { output(call, &out, block, kv_head, i) };
            total.iter_mut().for_each(|x| *x /= joined.mass);
        }
    });
}

/// Output of query `index` of a block.
///
/// # Safety
/// Nobody else holds this (row, head) of the output.
#[expect(clippy::mut_from_ref, reason = "the caller promises that parts are disjoint")]
unsafe fn output<'a>(
    call: &Call<'_>,
    out: &'a Shared<'_, f32>,
    block: &Block,
    kv_head: usize,
    index: usize,
) -> &'a mut [f32] {
    let (head_dim, group) = (call.how.head_dim, call.group());
    let row = call.row(block) + index / group;
    let head = kv_head * group + index % group;
    // SAFETY: passed on to the caller.
    unsafe { out.part((row * call.how.heads + head) * head_dim, head_dim) }
}

/// Few tasks: spans at once, each into its own partial result, then joined in order.
fn split(
    pool: &Pool,
    call: &Call<'_>,
    scratch: &PerWorker<Scratch>,
    plan: &mut Plan,
    out: &Shared<'_, f32>,
) {
    let (kv_heads, head_dim) = (call.how.kv_heads, call.how.head_dim);
    let Plan { blocks, partial } = plan;
    let most = |end: usize, block: &Block| end.max(call.pages(block).end.div_ceil(SPAN_PAGES));
    let spans = blocks.iter().fold(0, most);
    // Sums, best, mass and whether anything was seen.
    let record = head_dim + 3;
    let queries_max = blocks.iter().map(|b| b.len as usize).max().unwrap_or(0) * call.group();
    let wanted = blocks.len() * kv_heads * spans * queries_max * record;
    if partial.len() < wanted {
        // Grows with the longest context met, to a bound set by the threads.
        partial.resize(wanted, 0.0);
    }
    let shared = Shared::new(partial);
    pool.run(blocks.len() * kv_heads * spans, &|task, worker| {
        let (span, pair) = (task % spans, task / spans);
        let (block, kv_head) = (&blocks[pair / kv_heads], pair % kv_heads);
        // SAFETY: the worker's own scratch, taken once.
        let scratch = unsafe { scratch.of(worker) };
        call.span(block, kv_head, span, scratch);
        let sums = scratch.sums.floats();
        for (i, query) in scratch.queries.iter().enumerate() {
            // SAFETY: each (task, query) has a record of its own.
            let part = unsafe { shared.part((task * queries_max + i) * record, record) };
            let padded = head_dim.next_multiple_of(LANES);
            part[..head_dim].copy_from_slice(&sums[i * padded..][..head_dim]);
            let seen = f32::from(u8::from(query.seen));
            part[head_dim..].copy_from_slice(&[query.best, query.mass_sum(), seen]);
        }
    });
    let (partial, group) = (&*partial, call.group());
    pool.run(blocks.len() * kv_heads, &|pair, _| {
        let (block, kv_head) = (&blocks[pair / kv_heads], pair % kv_heads);
        for i in 0..block.len as usize * group {
            let mut joined = Joined::default();
            // SAFETY: each (row, head) of the output belongs to one pair.
            let total = unsafe { output(call, out, block, kv_head, i) };
            for span in 0..spans {
                let at = ((pair * spans + span) * queries_max + i) * record;
                let (part, state) = partial[at..][..record].split_at(head_dim);
                if state[2] != 0.0 {
                    let (best, mass) = (state[0], state[1]);
                    let total = &mut *total;
                    dispatch(call.isa, Join { total, joined: &mut joined, part, best, mass });
                }
            }
            total.iter_mut().for_each(|x| *x /= joined.mass);
        }
    });
}
