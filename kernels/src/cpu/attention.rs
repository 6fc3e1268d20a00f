//! Paged attention: which blocks of work there are, and how the parts of a long context join.
//!
//! Prefill and decode are one path. A task is (segment, block of positions, some heads that share
//! a kv head); its queries are the block's positions times those heads, so each page is read from
//! memory once for all of them. A context is cut into spans of [`SPAN_PAGES`] pages at absolute
//! positions; each span is an online softmax of its own (see `attention_span`), and spans join in
//! order. When there are fewer tasks than threads (a long decode), spans become tasks too.
//!
//! Invariant: what a position gets depends on its query, what it may see and the pages alone, bit
//! by bit: not on the segment it came in, the batch, the block, the number of threads, or on
//! whether spans ran one after the other or at once.

use std::ops::Range;

use super::attention_span::{Query, Span, VALUE_STRIDE, run_span};
use super::cache::{Cache, Element, PAGE_TOKENS, with_element};
use super::isa::Isa;
use super::lanes::{Kernel, LANES, Lanes, dispatch};
use super::math::exp_one;
use super::pool::Pool;
use super::tensor::{Buffer, PerWorker, Shared, Vector};
use crate::compute::{Attention, Segment};

/// Queries of a task at most: 64 sums of 128 dimensions stay in half of a 64 KiB cache.
pub(crate) const BLOCK_QUERIES: usize = 64;
/// Greatest head size; keys of latent attention have 576.
pub(crate) const HEAD_DIM_MAX: usize = 640;
/// Pages of a span: 1024 positions, where joining costs less than a hundredth of the scores.
pub(crate) const SPAN_PAGES: usize = 64;
/// Heads that are kept together even if threads have nothing to do: what a tile holds.
const HEADS_TOGETHER: usize = 8;
/// Spans that each thread can compute before they are joined.
const SPANS_PER_THREAD: usize = 4;
/// What follows the sums of a query's span: best, mass and whether anything was seen.
const STATE: usize = 3;

/// Positions of a segment that are worked on together.
#[derive(Debug, Clone, Copy)]
struct Block {
    segment: u32,
    /// Offset of its first position in the segment, and how many.
    from: u32,
    len: u32,
}

/// A block's positions times some heads of one kv head.
#[derive(Debug, Clone, Copy)]
struct Task {
    block: Block,
    kv_head: usize,
    /// First query head, and how many.
    head: usize,
    heads: usize,
}

impl Task {
    fn queries(&self) -> usize {
        self.block.len as usize * self.heads
    }
}

/// Scratch of one worker: the online softmax of a task's queries.
pub(crate) struct Scratch {
    /// `[BLOCK_QUERIES, value_dim rounded up to 16]`.
    sums: Buffer,
    /// `[16, VALUE_STRIDE]`: a page's values where the cache has them in its keys.
    values: Buffer,
    queries: Vec<Query>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let claim = |floats: usize| {
            let bytes = floats * size_of::<f32>();
            Buffer::zeroed(bytes, "attention").expect("memory for a thread's scratch")
        };
        Self {
            sums: claim(BLOCK_QUERIES * HEAD_DIM_MAX.next_multiple_of(LANES)),
            values: claim(PAGE_TOKENS * VALUE_STRIDE),
            queries: Vec::with_capacity(BLOCK_QUERIES),
        }
    }
}

/// What the spans of a query joined to so far: its output row holds the sums.
#[derive(Debug, Clone, Copy, Default)]
struct Joined {
    any: bool,
    best: f32,
    mass: f32,
}

/// Lists and partial results, claimed once.
pub(crate) struct Plan {
    blocks: Vec<Block>,
    /// Heads of a task, and tasks of a block and kv head.
    heads: usize,
    runs: usize,
    /// Split decode: per (task, span, query) the sums, then the state.
    pub(crate) partial: Vec<f32>,
    /// Split decode: per (task, query).
    joined: Vec<Joined>,
}

impl Plan {
    pub(crate) fn new(threads: usize, rows_max: usize) -> Self {
        // Fewer tasks than threads are split.
        let queries = if threads > 1 { threads * BLOCK_QUERIES } else { 0 };
        Self {
            blocks: Vec::with_capacity(rows_max),
            heads: 0,
            runs: 0,
            partial: vec![0.0; queries * SPANS_PER_THREAD * (HEAD_DIM_MAX + STATE)],
            joined: vec![Joined::default(); queries],
        }
    }

    /// Cuts the work of a call for so many threads; returns the most spans of a task.
    fn cut(&mut self, call: &Call<'_>, threads: usize) -> usize {
        let group = call.group();
        let least = group.div_ceil(BLOCK_QUERIES);
        let positions = (BLOCK_QUERIES / group.div_ceil(least)) as u32;
        self.blocks.clear();
        for (index, segment) in call.segments.iter().enumerate() {
            for from in (0..segment.len).step_by(positions as usize) {
                let len = positions.min(segment.len - from);
                self.blocks.push(Block { segment: index as u32, from, len });
            }
        }
        // Later positions see more: the longest tasks first keep the threads even at the end.
        self.blocks.reverse();
        let spans = self.blocks.iter().map(|block| call.spans(block).end).max().unwrap_or(0);
        let tasks = (self.blocks.len() * call.how.kv_heads * spans).max(1);
        let runs = threads.div_ceil(tasks).min(group.div_ceil(HEADS_TOGETHER)).max(least);
        self.heads = group.div_ceil(runs);
        self.runs = group.div_ceil(self.heads);
        spans
    }

    fn tasks(&self, call: &Call<'_>) -> usize {
        self.blocks.len() * call.how.kv_heads * self.runs
    }

    fn task(&self, call: &Call<'_>, index: usize) -> Task {
        let (rest, run) = (index / self.runs, index % self.runs);
        let (block, kv_head) = (self.blocks[rest / call.how.kv_heads], rest % call.how.kv_heads);
        let (from, group) = (run * self.heads, call.group());
        let heads = self.heads.min(group - from);
        Task { block, kv_head, head: kv_head * group + from, heads }
    }
}

/// Everything that a call works on.
pub(crate) struct Call<'a> {
    pub(crate) isa: Isa,
    pub(crate) how: &'a Attention<'a, Vector>,
    pub(crate) segments: &'a [Segment],
    /// `[rows, width]`; queries are the first heads of a row.
    pub(crate) q: &'a [f32],
    pub(crate) width: usize,
    pub(crate) cache: &'a Cache,
    pub(crate) layer: usize,
}

impl Call<'_> {
    /// Query heads of a kv head.
    fn group(&self) -> usize {
        self.how.heads / self.how.kv_heads
    }

    fn value_dim(&self) -> usize {
        self.cache.shape().value_dim()
    }

    fn check(&self) {
        let how = self.how;
        assert!(how.kv_heads > 0 && how.heads.is_multiple_of(how.kv_heads), "{how:?}");
        assert!((1..=HEAD_DIM_MAX).contains(&how.head_dim), "{how:?}");
        assert!(how.window != Some(0), "a window of at least 1");
        assert!(how.sinks.is_none_or(|s| s.values().len() == how.heads), "a sink for each head");
        let whole = |segment: &Segment| segment.first == 0;
        assert!(how.causal || self.segments.iter().all(whole), "a segment is a whole sequence");
    }

    fn segment(&self, block: &Block) -> &Segment {
        &self.segments[block.segment as usize]
    }

    /// Positions that the one at `offset` of a block sees.
    fn seen(&self, block: &Block, offset: u32) -> Range<usize> {
        let segment = self.segment(block);
        let position = segment.first + block.from + offset;
        let window = self.how.window;
        let from = window.map_or(0, |w| (position + 1).saturating_sub(w));
        let end = segment.first + segment.len;
        let to = match window {
            _ if self.how.causal => position + 1,
            Some(w) => end.min(position.saturating_add(w)),
            None => end,
        };
        from as usize..to as usize
    }

    /// Pages that some query of the block sees.
    fn pages(&self, block: &Block) -> Range<usize> {
        let (first, last) = (self.seen(block, 0), self.seen(block, block.len - 1));
        first.start / PAGE_TOKENS..last.end.div_ceil(PAGE_TOKENS)
    }

    /// Spans that hold those pages.
    fn spans(&self, block: &Block) -> Range<usize> {
        let pages = self.pages(block);
        pages.start / SPAN_PAGES..pages.end.div_ceil(SPAN_PAGES)
    }

    /// One span of one task: results in the worker's scratch.
    fn span(&self, task: &Task, span: usize, scratch: &mut Scratch) {
        let block = &task.block;
        let pages = self.pages(block);
        let pages = pages.start.max(span * SPAN_PAGES)..pages.end.min((span + 1) * SPAN_PAGES);
        let (segment, head_dim) = (self.segment(block), self.how.head_dim);
        scratch.queries.clear();
        for i in 0..block.len {
            let (row, seen) = ((segment.row + block.from + i) as usize, self.seen(block, i));
            for head in task.head..task.head + task.heads {
                let q = &self.q[row * self.width + head * head_dim..][..head_dim];
                scratch.queries.push(Query::new(q, seen.clone()));
            }
        }
        with_element!(self.cache.shape().element, T => {
            self.span_of::<T>(segment.slot, task.kv_head, pages, scratch);
        });
    }

    fn span_of<T: Element>(
        &self,
        slot: u32,
        kv_head: usize,
        pages: Range<usize>,
        scratch: &mut Scratch,
    ) {
        let (cache, layer, how) = (self.cache, self.layer, self.how);
        let (table, value_dim) = (cache.table(slot), self.value_dim());
        let page = move |index: usize| cache.read::<T>(layer, table[index], kv_head);
        let Scratch { sums, values, queries } = scratch;
        let vectors = queries.len() * value_dim.div_ceil(LANES);
        let sums = &mut sums.floats_mut().as_chunks_mut().0[..vectors];
        let turned = values.floats_mut();
        let span = Span { how, value_dim, pages, page, turned, queries, sums };
        run_span(self.isa, span, cache.shape().values);
    }

    /// Output of query `index` of a task.
    ///
    /// # Safety
    /// Nobody else holds this (row, head) of the output.
    #[expect(clippy::mut_from_ref, reason = "the caller promises that parts are disjoint")]
    unsafe fn output<'o>(
        &self,
        out: &'o Shared<'_, f32>,
        task: &Task,
        index: usize,
    ) -> &'o mut [f32] {
        let value_dim = self.value_dim();
        let row = (self.segment(&task.block).row + task.block.from) as usize + index / task.heads;
        let head = task.head + index % task.heads;
        // SAFETY: passed on to the caller.
        unsafe { out.part((row * self.how.heads + head) * value_dim, value_dim) }
    }

    /// Divides the sums of query `index` of a task by its mass.
    fn finish(&self, task: &Task, index: usize, joined: Joined, total: &mut [f32]) {
        let head = task.head + index % task.heads;
        let sink = self.how.sinks.map(|sinks| sinks.values()[head]);
        dispatch(self.isa, Finish { total, joined, sink });
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

/// `total /= mass`, to which a sink adds its own part.
struct Finish<'a> {
    total: &'a mut [f32],
    joined: Joined,
    sink: Option<f32>,
}

impl Kernel for Finish<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Self { total, joined: Joined { best, mass, .. }, sink } = self;
        let Some(sink) = sink else {
            total.iter_mut().for_each(|x| *x /= mass);
            return;
        };
        let greater = if sink > best { sink } else { best };
        let old = exp_one(s, best - greater);
        let mass = mass * old + exp_one(s, sink - greater);
        total.iter_mut().for_each(|x| *x = *x * old / mass);
    }
}

/// Attention of all segments into `out` `[rows, heads * value_dim]`.
pub(crate) fn attention(
    pool: &Pool,
    call: &Call<'_>,
    scratch: &PerWorker<Scratch>,
    plan: &mut Plan,
    out: &mut [f32],
) {
    call.check();
    let spans = plan.cut(call, pool.threads());
    let (tasks, out) = (plan.tasks(call), Shared::new(out));
    if tasks == 0 {
        return;
    }
    if tasks < pool.threads() {
        split(pool, call, scratch, plan, spans, &out);
        return;
    }
    let (plan, value_dim) = (&*plan, call.value_dim());
    pool.run(tasks, &|index, worker| {
        let task = plan.task(call, index);
        // SAFETY: the worker's own scratch, taken once.
        let scratch = unsafe { scratch.of(worker) };
        let mut joined = [Joined::default(); BLOCK_QUERIES];
        for span in call.spans(&task.block) {
            call.span(&task, span, scratch);
            let padded = value_dim.next_multiple_of(LANES);
            let sums = scratch.sums.floats();
            for (i, query) in scratch.queries.iter().enumerate() {
                if !query.seen {
                    continue;
                }
                // SAFETY: each (row, head) of the output belongs to one task.
                let total = unsafe { call.output(&out, &task, i) };
                let part = &sums[i * padded..][..value_dim];
                let (best, mass) = (query.best, query.mass_sum());
                dispatch(call.isa, Join { total, joined: &mut joined[i], part, best, mass });
            }
        }
        for (i, joined) in joined[..task.queries()].iter().enumerate() {
            // SAFETY: as above.
            call.finish(&task, i, *joined, unsafe { call.output(&out, &task, i) });
        }
    });
}

/// Few tasks: as many spans at once as there is room for, each into its own partial result, then
/// joined in order.
fn split(
    pool: &Pool,
    call: &Call<'_>,
    scratch: &PerWorker<Scratch>,
    plan: &mut Plan,
    spans: usize,
    out: &Shared<'_, f32>,
) {
    let (tasks, value_dim) = (plan.tasks(call), call.value_dim());
    let queries_max = (0..tasks).map(|t| plan.task(call, t).queries()).max().unwrap_or(0);
    let record = value_dim + STATE;
    let mut partial = std::mem::take(&mut plan.partial);
    let mut joined = std::mem::take(&mut plan.joined);
    let at_once = (partial.len() / (tasks * queries_max * record)).min(spans);
    assert!(at_once > 0 && tasks * queries_max <= joined.len(), "{tasks} tasks to split");
    joined[..tasks * queries_max].fill(Joined::default());
    for first in (0..spans).step_by(at_once) {
        let wave = first..spans.min(first + at_once);
        let shared = Shared::new(&mut partial);
        pool.run(tasks * wave.len(), &|index, worker| {
            let task = plan.task(call, index / wave.len());
            // SAFETY: the worker's own scratch, taken once.
            let scratch = unsafe { scratch.of(worker) };
            call.span(&task, wave.start + index % wave.len(), scratch);
            let sums = scratch.sums.floats();
            for (i, query) in scratch.queries.iter().enumerate() {
                // SAFETY: each (task, span, query) has a record of its own.
                let part = unsafe { shared.part((index * queries_max + i) * record, record) };
                let padded = value_dim.next_multiple_of(LANES);
                part[..value_dim].copy_from_slice(&sums[i * padded..][..value_dim]);
                let seen = f32::from(u8::from(query.seen));
                part[value_dim..].copy_from_slice(&[query.best, query.mass_sum(), seen]);
            }
        });
        let (partial, joined) = (&partial, Shared::new(&mut joined));
        pool.run(tasks, &|index, _| {
            let task = plan.task(call, index);
            // SAFETY: each task has its own.
            let joined = unsafe { joined.part(index * queries_max, queries_max) };
            for (i, joined) in joined[..task.queries()].iter_mut().enumerate() {
                // SAFETY: each (row, head) of the output belongs to one task.
                let total = unsafe { call.output(out, &task, i) };
                for span in 0..wave.len() {
                    let at = ((index * wave.len() + span) * queries_max + i) * record;
                    let (part, state) = partial[at..][..record].split_at(value_dim);
                    if state[2] != 0.0 {
                        let (best, mass) = (state[0], state[1]);
                        let (total, joined) = (&mut *total, &mut *joined);
                        dispatch(call.isa, Join { total, joined, part, best, mass });
                    }
                }
                if wave.end == spans {
                    call.finish(&task, i, *joined, total);
                }
            }
        });
    }
    (plan.partial, plan.joined) = (partial, joined);
}
