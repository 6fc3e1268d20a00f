//! A step's beginning and end: rows and segments into the payload, the payload and the work into
//! the queue.

use kernels::{Segment, Step};

use super::{Cuda, RING};
use crate::gpu::Gpu;
use crate::ops::cache::{self, Cache};
use crate::ops::{LATE, NONE, Rows};
use crate::step::{Payload, bucket};
use crate::tensor::{Kind, Tensor};

/// Block table entries in one list.
const GRANTS_AT_ONCE: usize = 4096;

/// Before the first step.
pub(super) fn no_rows() -> Rows {
    Rows { rows: 0, count: 0, tokens: 0, positions: 0, slots: 0, sequences: 0, adapters: 0 }
}

impl<G: Gpu> Cuda<G> {
    /// Makes the current turn's buffers ours. The step that used them before was collected: at
    /// most two are under way, and there are three.
    pub(super) fn open_turn(&mut self) {
        if std::mem::replace(&mut self.open, true) {
            return;
        }
        assert!(self.ended.len() < RING, "at most two steps ended and not collected");
        let turn = &mut self.turns[self.turn];
        turn.step.clear();
        turn.starts.clear();
        self.before.clear();
        self.record.clear();
        self.ops.sample.begin(self.turn);
        self.ops.attention.begin();
        self.flushed = false;
    }

    pub(super) fn begin_step(&mut self, step: &Step<'_>, cache: &mut Cache) {
        let rows = step.tokens.len();
        assert!(rows <= self.config.rows_max, "{rows} rows, {} at most", self.config.rows_max);
        self.segments.clear();
        self.segments.extend_from_slice(step.segments);
        for grants in step.grants.chunks(GRANTS_AT_ONCE) {
            if self.turns[self.turn].starts.room() < cache::grant_bytes(grants.len()) {
                self.flush_starts();
            }
            let starts = &mut self.turns[self.turn].starts;
            cache.grant(&mut self.before, starts, grants);
        }
        let payload = &mut self.turns[self.turn].step;
        let prompt_len = |slot| self.ops.sample.prompt_len(slot);
        self.rows = put_rows(payload, step, prompt_len);
    }

    /// Sends up what the payload has gained and queues the work recorded since.
    fn queue_recorded(&mut self) {
        let Self { gpu, turns, turn, before, record, graphs, ops, flushed, .. } = self;
        let current = &turns[*turn];
        if !*flushed {
            gpu.mark(current.marks[0]);
        }
        current.starts.send(gpu);
        current.step.send(gpu);
        ops.sample.upload(gpu, *turn);
        before.queue(gpu);
        if !record.is_empty() {
            graphs.queue(gpu, record);
        }
    }

    /// Queues what the step has recorded so far. What follows is a second record, with lists
    /// behind those that are on their way: both are the same each time for steps of one size, so
    /// both are replayed as graphs. What the device waits between them counts as the step's time.
    pub(super) fn flush_step(&mut self) {
        self.open_turn();
        self.queue_recorded();
        self.flushed = true;
        self.before.clear();
        self.record.clear();
        let turn = &mut self.turns[self.turn];
        turn.starts.sent();
        turn.step.sent();
    }

    /// Queues what the step has recorded, and the copy of what it drew.
    pub(super) fn end_step(&mut self) {
        self.open_turn();
        self.queue_recorded();
        let Self { gpu, turns, turn, ops, .. } = self;
        ops.sample.download(gpu, *turn);
        gpu.mark(turns[*turn].marks[1]);
        self.ended.push_back(*turn);
        self.turn = (*turn + 1) % RING;
        self.open = false;
    }

    /// More slots start than the buffer holds: those so far are started at once.
    pub(super) fn flush_starts(&mut self) {
        let Self { gpu, turns, turn, before, .. } = self;
        let starts = &mut turns[*turn].starts;
        starts.send(gpu);
        before.queue(gpu);
        // A fault stays with the device: the step that follows reports it.
        let _ = gpu.synchronize();
        before.clear();
        starts.clear();
    }

    /// Runs what is recorded and copies a row out.
    pub(super) fn read_row(&mut self, x: &Tensor, row: usize, out: &mut [f32]) {
        assert!(row < x.rows && out.len() == x.width, "row {row} of {x:?}");
        let Self { gpu, turns, turn, before, record, read, ops, .. } = self;
        if self.open {
            turns[*turn].starts.send(gpu);
            turns[*turn].step.send(gpu);
            ops.sample.upload(gpu, *turn);
            before.queue(gpu);
            record.queue(gpu);
            before.clear();
            record.clear();
        }
        let bytes = x.bytes(1);
        gpu.download(x.address + (row * bytes) as u64, bytes, read, 0);
        if gpu.synchronize().is_err() {
            return out.fill(f32::NAN);
        }
        let bytes = &read.bytes()[..bytes];
        match x.kind {
            Kind::F32 => out.copy_from_slice(bytemuck::cast_slice(bytes)),
            Kind::Bf16 => widen::<half::bf16>(bytes, out),
            Kind::F16 => widen::<half::f16>(bytes, out),
        }
    }
}

fn widen<T: bytemuck::Pod + Into<f32>>(bytes: &[u8], out: &mut [f32]) {
    let values: &[T] = bytemuck::cast_slice(bytes);
    out.iter_mut().zip(values).for_each(|(out, &value)| *out = value.into());
}

/// Where each row stands, as lists.
fn put_rows(payload: &mut Payload, step: &Step<'_>, prompt_len: impl Fn(u32) -> u32) -> Rows {
    let real = step.tokens.len();
    let rows = bucket(real);
    let count = payload.number(real);
    let (tokens, list) = payload.claim(rows, 0_u32);
    list[..real].copy_from_slice(step.tokens);
    for segment in step.segments.iter().filter(|segment| segment.late) {
        assert_eq!(segment.len, 1, "a late segment has one token");
        list[segment.row as usize] = LATE;
    }
    let mut each = |blank: u32, value: &dyn Fn(&Segment, u32) -> u32| {
        let (address, list) = payload.claim(rows, blank);
        let mut at = 0;
        for segment in step.segments {
            assert_eq!(segment.row as usize, at, "segments in order of their rows");
            for i in 0..segment.len {
                list[at] = value(segment, i);
                at += 1;
            }
        }
        assert_eq!(at, real, "a token for each row");
        address
    };
    let positions = each(0, &|segment, i| segment.first + i);
    let slots = each(NONE, &|segment, _| segment.slot);
    let sequences = each(1, &|segment, i| prompt_len(segment.slot).max(segment.first + i + 1));
    let adapters = each(0, &|segment, _| segment.adapter);
    Rows { rows, count, tokens, positions, slots, sequences, adapters }
}
