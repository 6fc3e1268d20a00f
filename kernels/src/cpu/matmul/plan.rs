//! Cuts a product into tasks and walks each in an order that the caches like.
//!
//! One tile of rows (decode): weights are read once, from memory; a task is a run of panels. More
//! tiles (prefill): a task keeps a stretch of k of a few panels in the first-level cache while
//! the tiles pass by.

use std::iter;

use super::bytes::{self, BytesTile};
use super::floats::{self, FloatsTile, Widened};
use super::fused::{self, FusedTile};
use super::output::Output;
use super::staging::{Kind, Staging, Tile, Tiles};
use super::widen::widen;
use crate::Format;
use crate::cpu::isa::Isa;
use crate::cpu::matrix::layout::{GROUP, PAIR, PANEL, Packing, VECTOR};
use crate::cpu::matrix::{Arithmetic, Matrix, Memory, Part};
use crate::cpu::pool::Pool;

/// Rows of weights that pass by a tile together when there are several tiles.
pub(super) const ROWS_TILED: usize = 128;
/// Runs of panels are multiples of so many rows: what `widened` does at once.
const ROWS_RUN: usize = Widened::PANELS * PANEL;
/// Least bytes of weights in a task of one tile: some microseconds of work.
pub(super) const TASK_BYTES: usize = 64 << 10;
/// Tasks for each thread, so that a slow thread holds up little.
pub(super) const TASKS_PER_THREAD: usize = 4;
/// Groups of k in a stretch, whole super-blocks: the codes of a panel (8 KiB at most) and a
/// tile's activations (16 KiB) stay in the first-level cache.
const GROUPS: usize = 16;
/// Vectors of k in a stretch of f32 or bf16 weights.
const STEPS: usize = 256;

/// All kinds of arithmetic.
const KINDS: [Kind; 4] = [Kind::Bytes, Kind::Floats, Kind::Rounded, Kind::Pairs];

/// What all tasks of a product share.
pub(super) struct Product<'a> {
    pub(super) isa: Isa,
    pub(super) kind: Kind,
    pub(super) tiles: Tiles,
    pub(super) cols: usize,
    /// Staged activations.
    pub(super) staged: *const u8,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
}

// SAFETY: activations are only read; tasks write disjoint rectangles of the output.
unsafe impl Sync for Product<'_> {}

/// Computes the product, one kind of arithmetic after the other. Sizes have been checked.
pub(super) fn run(
    pool: &Pool,
    staged: &mut Memory,
    x: &[f32],
    matrix: &Matrix,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    let (isa, cols) = (matrix.isa(), matrix.cols());
    for (kind, order) in stagings(matrix.orders().len()) {
        let parts = || matrix.parts().iter().filter(|p| staging_of(p) == (kind, order));
        if parts().next().is_none() {
            continue;
        }
        let tiles = Tiles::new(x.len() / cols, rows_at_once(isa, kind));
        let order = order.map(|order| matrix.orders()[order].as_slice());
        Staging { x, cols, order, kind, tiles }.run(pool, isa, staged);
        let product = Product {
            isa,
            kind,
            tiles,
            cols,
            staged: staged.as_ptr(),
            bias,
            out: out.as_mut_ptr(),
            out_stride: matrix.rows(),
        };
        let wanted = if pool.threads() == 1 { 1 } else { pool.threads() * TASKS_PER_THREAD };
        let cuts = |part: &Part| Cut::new(part, product.tiles.count(), wanted);
        let tasks = parts().map(|p| cuts(p).tasks()).sum::<usize>();
        pool.run(tasks, &|task, _| {
            let mut task = task;
            for part in parts() {
                let cut = cuts(part);
                if task < cut.tasks() {
                    return product.task(part, cut, task);
                }
                task -= cut.tasks();
            }
        });
    }
}

/// Activations are staged once for each kind of arithmetic and order of columns: all that parts
/// of matrices with so many orders may need.
pub(super) fn stagings(orders: usize) -> impl Iterator<Item = (Kind, Option<usize>)> {
    let orders = move || iter::once(None).chain((0..orders).map(Some));
    KINDS.into_iter().flat_map(move |kind| orders().map(move |order| (kind, order)))
}

/// Which of them a part needs.
pub(super) fn staging_of(part: &Part) -> (Kind, Option<usize>) {
    (kind_of(part.arithmetic), part.order)
}

pub(super) fn kind_of(arithmetic: Arithmetic) -> Kind {
    match arithmetic {
        Arithmetic::Bytes => Kind::Bytes,
        Arithmetic::Float { round: false } => Kind::Floats,
        Arithmetic::Float { round: true } => Kind::Rounded,
        Arithmetic::Bf16Pairs => Kind::Pairs,
    }
}

/// Rows of a tile: what the kernels of the instruction set hold in registers.
pub(super) fn rows_at_once(isa: Isa, kind: Kind) -> usize {
    match kind {
        Kind::Bytes if isa.has_avx512() => 16,
        Kind::Bytes if isa.has_avx2() => 4,
        Kind::Bytes => 2,
        _ if isa.has_avx512() => 12,
        _ if isa.has_avx2() => 6,
        _ => 4,
    }
}

/// How a part is cut: runs of panels x runs of tiles.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    panels: usize,
    tiles: usize,
    panels_each: usize,
    tiles_each: usize,
}

impl Cut {
    /// Into about so many tasks, or more where the caches want smaller ones.
    pub(super) fn new(part: &Part, tiles: usize, tasks: usize) -> Self {
        let panels = part.panels();
        let run = ROWS_RUN / part.layout.rows;
        let fair = panels.div_ceil(tasks).next_multiple_of(run);
        if tiles == 1 {
            let least = TASK_BYTES.div_ceil(part.layout.panel).next_multiple_of(run);
            return Self { panels, tiles, panels_each: fair.max(least), tiles_each: 1 };
        }
        let panels_each = fair.min(ROWS_TILED / part.layout.rows);
        let runs = panels.div_ceil(panels_each);
        let tiles_each = tiles.div_ceil(tasks.div_ceil(runs));
        Self { panels, tiles, panels_each, tiles_each }
    }

    pub(super) fn tasks(self) -> usize {
        self.panels.div_ceil(self.panels_each) * self.tiles.div_ceil(self.tiles_each)
    }
}

impl Product<'_> {
    pub(super) fn task(&self, part: &Part, cut: Cut, task: usize) {
        let runs = cut.panels.div_ceil(cut.panels_each);
        let panel = task % runs * cut.panels_each;
        let panels = (panel, (panel + cut.panels_each).min(cut.panels));
        let tile = task / runs * cut.tiles_each;
        let tiles = (tile, (tile + cut.tiles_each).min(cut.tiles));
        self.rectangle(part, panels, tiles);
    }

    /// Some panels by some tiles.
    pub(super) fn rectangle(&self, part: &Part, panels: (usize, usize), tiles: (usize, usize)) {
        match (self.kind, part.layout.format) {
            (Kind::Bytes, _) => self.bytes(part, panels, tiles),
            (Kind::Pairs, _) => self.vectors(part, panels, tiles, floats::PAIRS),
            (_, Format::F32) => self.vectors(part, panels, tiles, floats::F32),
            (_, Format::F16) => self.vectors(part, panels, tiles, floats::F16),
            (_, Format::Bf16) => self.vectors(part, panels, tiles, floats::BF16),
            _ if self.tiles.rows() <= fused::ROWS && self.fused(part, panels) => {}
            _ => self.widened(part, panels, tiles),
        }
    }

    /// First byte of a panel.
    fn panel(part: &Part, panel: usize) -> *const u8 {
        debug_assert!(panel < part.panels(), "panel {panel}");
        part.data.as_ptr().wrapping_add(panel * part.layout.panel)
    }

    /// A tile and its staged activations from step `step` on.
    fn tile(&self, tile: usize, step: usize) -> (Tile, *const u8) {
        let tile = self.tiles.get(tile);
        let (bytes, steps) = self.kind.steps(self.cols);
        let at = tile.first * steps + step * tile.padded;
        (tile, self.staged.wrapping_add(at * bytes))
    }

    fn output(&self, part: &Part, tile: Tile, panels: (usize, usize), first: bool) -> Output {
        let (first_row, rows) = (panels.0 * part.layout.rows, panels.1 * part.layout.rows);
        let column = part.first + first_row;
        let columns = part.rows.min(rows) - first_row;
        let bias = self.bias.map_or(std::ptr::null(), |b| b[column..].as_ptr());
        Output {
            start: self.out.wrapping_add(tile.first * self.out_stride + column),
            stride: self.out_stride,
            rows: tile.rows,
            columns,
            panels: columns.div_ceil(PANEL),
            first,
            bias,
        }
    }

    fn bytes(&self, part: &Part, panels: (usize, usize), tiles: (usize, usize)) {
        let Packing::Codes(codes) = part.layout.packing else {
            unreachable!("only codes are multiplied as bytes")
        };
        let groups = self.cols / GROUP;
        let stretch = if tiles.1 - tiles.0 == 1 { groups } else { GROUPS };
        for from in (0..groups).step_by(stretch) {
            for index in tiles.0..tiles.1 {
                let (tile, x) = self.tile(index, 0);
                let kernel = BytesTile {
                    panels: Self::panel(part, panels.0),
                    panel_bytes: part.layout.panel,
                    codes,
                    groups: (from, groups.min(from + stretch)),
                    cold: index == tiles.0,
                    x: x.cast(),
                    out: self.output(part, tile, panels, from == 0),
                };
                // SAFETY: panels, blocks and output were sized for these rows and groups, and no
                // other task has this rectangle of the output.
                unsafe { bytes::run(self.isa, tile.padded, kernel) };
            }
        }
    }

    /// Weights that kernels take as they lie: plain numbers.
    fn vectors(&self, part: &Part, panels: (usize, usize), tiles: (usize, usize), weights: usize) {
        let (_, steps) = self.kind.steps(self.cols);
        let one = tiles.1 - tiles.0 == 1;
        // One panel fills half of the first-level cache; more would push each other out.
        let (stretch, at_once) = if one { (steps, panels.1 - panels.0) } else { (STEPS, 1) };
        for from in (0..steps).step_by(stretch) {
            for panel in (panels.0..panels.1).step_by(at_once) {
                let panels = (panel, panels.1.min(panel + at_once));
                let vectors = Vectors {
                    start: Self::panel(part, panel).wrapping_add(floats::bytes_of(weights, from)),
                    panel_bytes: part.layout.panel,
                    weights,
                    steps: (from, steps.min(from + stretch)),
                };
                self.floats(part, panels, tiles, vectors);
            }
        }
    }

    /// Weights that are widened first.
    fn widened(&self, part: &Part, panels: (usize, usize), tiles: (usize, usize)) {
        let mut room = Widened::zeroed();
        let room_bytes = 2 * Widened::STEPS * VECTOR;
        // Panels at a time, and sixteens of rows in each.
        let (at_once, each) = (ROWS_RUN / part.layout.rows, part.layout.rows / PANEL);
        for panel in (panels.0..panels.1).step_by(at_once) {
            let panels = (panel, panels.1.min(panel + at_once));
            for from in (0..self.cols).step_by(Widened::STEPS) {
                let steps = (from, self.cols.min(from + Widened::STEPS));
                let room = room.0.as_mut_ptr().cast::<f32>();
                for i in 0..(panels.1 - panels.0) * each {
                    let out = room.wrapping_add(i / 2 * Widened::STEPS * PAIR + i % 2 * PANEL);
                    let rows = (Self::panel(part, panels.0 + i / each), i % each);
                    // SAFETY: the panel is there, and `room` has a place for each of these.
                    unsafe { widen(self.isa, &part.layout, rows, steps, out) };
                }
                let start = room.cast_const().cast();
                let panel_bytes = room_bytes;
                let vectors = Vectors { start, panel_bytes, weights: floats::F32, steps };
                self.floats(part, panels, tiles, vectors);
            }
        }
    }

    /// Small floats by few rows, widened in registers; whether that is what the part holds.
    fn fused(&self, part: &Part, panels: (usize, usize)) -> bool {
        let Packing::Floats(floats) = part.layout.packing else { return false };
        let (tile, x) = self.tile(0, 0);
        let kernel = FusedTile {
            panels: Self::panel(part, panels.0),
            panel_bytes: part.layout.panel,
            blocks: self.cols / floats.block,
            floats,
            x: x.cast(),
            out: self.output(part, tile, panels, true),
        };
        // SAFETY: as in `bytes`.
        unsafe { fused::run(self.isa, tile.padded, kernel) };
        true
    }

    /// Tiles by panels.
    fn floats(&self, part: &Part, panels: (usize, usize), tiles: (usize, usize), from: Vectors) {
        let Vectors { start, panel_bytes, weights, steps } = from;
        for index in tiles.0..tiles.1 {
            let (tile, x) = self.tile(index, steps.0);
            let kernel = FloatsTile {
                panels: start,
                panel_bytes,
                cold: index == tiles.0,
                steps: steps.1 - steps.0,
                x: x.cast(),
                out: self.output(part, tile, panels, steps.0 == 0),
            };
            // SAFETY: as in `bytes`.
            unsafe { floats::run(self.isa, weights, tile.padded, kernel) };
        }
    }
}

/// Panels of plain numbers.
#[derive(Clone, Copy)]
struct Vectors {
    /// The first panel, at the first step.
    start: *const u8,
    panel_bytes: usize,
    /// What they hold: a `W` of `floats`.
    weights: usize,
    /// Steps of k.
    steps: (usize, usize),
}
