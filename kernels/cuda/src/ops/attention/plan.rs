//! Which pieces of work a step's attention is cut into, as lists for the device.
//!
//! Few positions of a segment (decode) are a piece of their own, and long contexts are cut into
//! ranges so that the pieces fill the device; many positions (prefill) are cut into blocks of as
//! many queries as a tile has. The lists have rounded room, so that steps of the same sizes launch
//! the same grids whatever their contexts are. It must not know kernels.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use kernels::Segment;

use crate::gpu::Address;
use crate::step::{Payload, bucket};

/// No partial results: `NO_PART` of attention.cuh.
const WHOLE: u32 = u32::MAX;
/// Positions of a range at least: fewer take less time than joining them.
const RANGE_MIN: usize = 128;
/// Ranges start at multiples of this: what a warp of the split kernel reads at a time.
const RANGE_STEP: usize = 64;

/// What pieces depend on beside the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// Positions that a piece of few has at most.
    pub(super) few: usize,
    /// Positions of a tile; 0: there are no tiles, every position is one of few.
    pub(super) tile: usize,
    /// Pieces whose blocks fill the device, at least 1.
    pub(super) wanted: usize,
    /// Rows of partial results that there is room for.
    pub(super) parts_max: usize,
    pub(super) causal: bool,
    pub(super) window: Option<u32>,
}

/// Twin of `Item` in attention.cuh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(16))]
struct Item {
    row: u32,
    len: u32,
    slot: u32,
    first: u32,
    from: u32,
    to: u32,
    part: u32,
    pad: u32,
}

/// A list on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct List {
    /// Its entries.
    pub(super) at: Address,
    /// Where their number is.
    pub(super) count: Address,
    /// What the number is at most in steps that are launched alike.
    pub(super) room: usize,
}

/// The pieces of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Few positions each, and which of them are to be joined.
    pub(super) few: Option<(List, List)>,
    /// A tile's worth of positions each.
    pub(super) tiles: Option<List>,
}

/// Lists while they are made.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    few: Vec<Item>,
    tiles: Vec<Item>,
    ranges: Vec<Item>,
    joins: Vec<[u32; 4]>,
}

impl Key {
    /// Positions that the `i`-th of a segment sees.
    fn seen(&self, segment: &Segment, i: u32) -> Range<u32> {
        let position = segment.first + i;
        let end = segment.first + segment.len;
        let from = self.window.map_or(0, |w| (position + 1).saturating_sub(w));
        let to = match self.window {
            _ if self.causal => position + 1,
            Some(w) => end.min(position.saturating_add(w)),
            None => end,
        };
        from..to
    }

    /// Positions `at..at + len` of a segment.
    fn item(&self, segment: &Segment, at: u32, len: u32) -> Item {
        let from = self.seen(segment, at).start;
        let to = self.seen(segment, at + len - 1).end;
        let (row, first) = (segment.row + at, segment.first + at);
        Item { row, len, slot: segment.slot, first, from, to, part: WHOLE, pad: 0 }
    }
}

impl Item {
    /// First position of its ranges' grid.
    fn start(&self) -> usize {
        self.from as usize / RANGE_STEP * RANGE_STEP
    }

    /// Positions from there on.
    fn span(&self) -> usize {
        self.to as usize - self.start()
    }

    /// Rows of partial results when it is cut into ranges of `range`.
    fn parts(&self, range: usize) -> usize {
        match self.span().div_ceil(range) {
            0 | 1 => 0,
            ranges => ranges * self.len as usize,
        }
    }
}

impl Cutter {
    /// Cuts the work of a step and writes it into the payload.
    pub(super) fn cut(&mut self, key: &Key, segments: &[Segment], payload: &mut Payload) -> Plan {
        self.few.clear();
        self.tiles.clear();
        for segment in segments {
            assert!(key.causal || segment.first == 0, "a segment is a whole sequence");
            let few = segment.len as usize <= key.few || key.tile == 0;
            let (size, list) =
                if few { (key.few, &mut self.few) } else { (key.tile, &mut self.tiles) };
            let blocks = (0..segment.len).step_by(size);
            let block = |at| key.item(segment, at, (size as u32).min(segment.len - at));
            list.extend(blocks.map(block));
        }
        let few = (!self.few.is_empty()).then(|| self.few(key, payload));
        // Later positions see more: the longest tiles first keep the device even at the end.
        self.tiles.reverse();
        let tiles = (!self.tiles.is_empty())
            .then(|| list(payload, &self.tiles, bucket(self.tiles.len()), Item::zeroed()));
        Plan { few, tiles }
    }

    /// Ranges of the pieces of few positions.
    fn few(&mut self, key: &Key, payload: &mut Payload) -> (List, List) {
        let wanted = key.wanted;
        let range = self.range(key);
        self.ranges.clear();
        self.joins.clear();
        let mut part = 0;
        for item in &self.few {
            let parts = item.parts(range) as u32;
            if parts == 0 {
                self.ranges.push(*item);
                continue;
            }
            self.joins.push([item.row, item.len, part, parts / item.len]);
            for (i, at) in (item.start()..item.to as usize).step_by(range).enumerate() {
                let (from, to) = (item.from.max(at as u32), item.to.min((at + range) as u32));
                let part = part + i as u32 * item.len;
                self.ranges.push(Item { from, to, part, ..*item });
            }
            part += parts;
        }
        let pieces = bucket(self.few.len());
        let ranges = list(payload, &self.ranges, pieces + wanted, Item::zeroed());
        let joins = list(payload, &self.joins, pieces.min(wanted), [0; 4]);
        (ranges, joins)
    }

    /// Positions of a range: as many as give the wanted number of ranges of all contexts together,
    /// more where partial results would not fit.
    fn range(&self, key: &Key) -> usize {
        let total: usize = self.few.iter().map(Item::span).sum();
        let mut range = total.div_ceil(key.wanted).max(RANGE_MIN).next_multiple_of(RANGE_STEP);
        let parts = |range| self.few.iter().map(|item| item.parts(range)).sum::<usize>();
        while parts(range) > key.parts_max {
            range *= 2;
        }
        range
    }
}

/// Entries with room for more.
fn list<T: Pod>(payload: &mut Payload, entries: &[T], room: usize, blank: T) -> List {
    assert!(entries.len() <= room, "{} pieces of attention, room for {room}", entries.len());
    let count = payload.number(entries.len());
    List { at: payload.list(entries, room, blank), count, room }
}
