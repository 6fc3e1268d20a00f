//! Block-diagonal products: each head of a row by its own block of rows of one matrix.
//!
//! Heads are staged as rows of their own, as many at once as the scratch holds, and multiplied as
//! in `plan`. A block that does not begin and end where panels do (small models) goes panel by
//! panel through a buffer, of which only the block's columns are kept; the numbers are the same.

use std::ops::Range;

use super::Scratch;
use super::plan::{Product, ROWS_TILED, TASK_BYTES, rows_at_once, staging_of, stagings};
use super::staging::{Kind, StageRow, Target, Tiles};
use super::wide::dispatch;
use crate::compute::HeadBlocks;
use crate::cpu::matrix::layout::QUAD;
use crate::cpu::matrix::{Matrix, Part};
use crate::cpu::pool::Pool;

/// Rows of a tile at most, see `staging`.
const TILE: usize = 16;

/// One product of this kind.
struct Diagonal<'a> {
    kind: Kind,
    /// The order of the parts' columns.
    order: Option<&'a [u32]>,
    matrix: &'a Matrix,
    blocks: HeadBlocks,
    tiles: Tiles,
    rows: usize,
    x: &'a [f32],
    x_width: usize,
    out: Target,
    out_width: usize,
    staged: Target,
}

/// Head h of `out[r]` is block h of `matrix` `[heads * block_out, block_in]` by head h of `x[r]`.
/// `x` is `[rows, x_width]`, `out` as long as `rows` times its own width.
///
/// # Panics
/// Sizes that do not fit each other or what the scratch reserved: a bug in the caller.
pub(crate) fn diagonal(
    pool: &Pool,
    scratch: &mut Scratch,
    (x, x_width): (&[f32], usize),
    matrix: &Matrix,
    blocks: HeadBlocks,
    (out, out_width): (&mut [f32], usize),
) {
    let HeadBlocks { heads, x_stride, out_stride } = blocks;
    assert!(heads > 0 && matrix.rows().is_multiple_of(heads), "a block for each of {heads} heads");
    let (block_in, block_out) = (matrix.cols(), matrix.rows() / heads);
    assert!((heads - 1) * x_stride + block_in <= x_width, "heads of {block_in} in {x_width}");
    assert!((heads - 1) * out_stride + block_out <= out_width, "heads of {block_out}");
    assert!(heads == 1 || block_out <= out_stride, "heads write columns of their own");
    let rows = x.len() / x_width;
    assert_eq!(out.len(), rows * out_width, "output of {rows} x {out_width}");
    if rows == 0 {
        return;
    }
    assert!(rows <= scratch.rows && block_in <= scratch.cols, "more than the scratch reserved");
    let staged = scratch.staged.as_mut().expect("reserved: rows are not 0");
    let out = Target(out.as_mut_ptr().cast());
    for (kind, order) in stagings(matrix.orders().len()) {
        let parts = || matrix.parts().iter().filter(|p| staging_of(p) == (kind, order));
        if parts().next().is_none() {
            continue;
        }
        let tiles = Tiles::new(rows, rows_at_once(matrix.isa(), kind));
        let (step, steps) = kind.steps(block_in);
        let at_once = (staged.len() / (tiles.padded() * steps * step)).min(heads);
        let staged = Target(staged.as_mut_ptr());
        let order = order.map(|order| matrix.orders()[order].as_slice());
        let product = Diagonal {
            kind,
            order,
            matrix,
            blocks,
            tiles,
            rows,
            x,
            x_width,
            out,
            out_width,
            staged,
        };
        for first in (0..heads).step_by(at_once) {
            let heads = first..heads.min(first + at_once);
            product.stage(pool, heads.clone());
            parts().for_each(|part| product.products(pool, part, heads.clone()));
        }
    }
}

impl Diagonal<'_> {
    /// Where a head is staged, in bytes; `head` counts from the first one staged.
    fn place(&self, head: usize) -> usize {
        let (step, steps) = self.kind.steps(self.matrix.cols());
        head * self.tiles.padded() * steps * step
    }

    fn stage(&self, pool: &Pool, heads: Range<usize>) {
        let (isa, kind, cols) = (self.matrix.isa(), self.kind, self.matrix.cols());
        let (step, steps) = kind.steps(cols);
        let max = rows_at_once(isa, kind);
        let all = heads.len() * self.rows;
        let per_task = (8192 / cols).clamp(1, 64);
        pool.run(all.div_ceil(per_task), &|task, _| {
            for i in task * per_task..all.min((task + 1) * per_task) {
                let (head, row) = (i / self.rows, i % self.rows);
                let tile = self.tiles.get(row / max);
                let at = (tile.first * steps + row - tile.first) * step;
                let out = self.staged.at(self.place(head) + at);
                let column = (heads.start + head) * self.blocks.x_stride;
                let x = &self.x[row * self.x_width + column..][..cols];
                let order = self.order;
                // SAFETY: the caller stages as many heads as there is room for; each row of a
                // head has places of its own.
                unsafe { dispatch(isa, StageRow { x, order, kind, stride: tile.padded, out }) };
            }
        });
    }

    fn products(&self, pool: &Pool, part: &Part, heads: Range<usize>) {
        let block_out = self.matrix.rows() / self.blocks.heads;
        let size = part.layout.rows;
        let least = TASK_BYTES.div_ceil(part.layout.panel);
        let each = if self.tiles.count() == 1 { least } else { ROWS_TILED / size };
        // A block that begins inside a panel touches one more.
        let cuts = (block_out.div_ceil(size) + 1).div_ceil(each);
        pool.run(heads.len() * cuts, &|task, _| {
            let (staged, cut) = (task / cuts, task % cuts);
            let head = heads.start + staged;
            let first = (head * block_out).max(part.first);
            let last = ((head + 1) * block_out).min(part.first + part.rows);
            if first >= last {
                return;
            }
            let block = (first - part.first, last - part.first);
            let panels = (block.0 / size + cut * each, block.1.div_ceil(size));
            let panels = (panels.0, panels.1.min(panels.0 + each));
            if panels.0 < panels.1 {
                self.task(part, (head, staged), block, panels);
            }
        });
    }

    /// Some panels of the rows `block` of a part.
    fn task(
        &self,
        part: &Part,
        (head, staged): (usize, usize),
        block: (usize, usize),
        panels: (usize, usize),
    ) {
        let block_out = self.matrix.rows() / self.blocks.heads;
        // The column of the matrix's row 0: rows count from the head's.
        let to = |row: usize, of: usize| {
            let column = head * self.blocks.out_stride + of;
            let column = column.wrapping_sub(head * block_out);
            let at = (row * self.out_width).wrapping_add(column);
            self.out.at(at.wrapping_mul(size_of::<f32>())).cast::<f32>()
        };
        let product = Product {
            isa: self.matrix.isa(),
            kind: self.kind,
            tiles: self.tiles,
            cols: self.matrix.cols(),
            staged: self.staged.at(self.place(staged)),
            bias: None,
            out: to(0, 0),
            out_stride: self.out_width,
        };
        let size = part.layout.rows;
        let ends = block.1.is_multiple_of(size) || block.1 == part.rows;
        if block.0.is_multiple_of(size) && ends {
            return product.rectangle(part, panels, (0, self.tiles.count()));
        }
        for panel in panels.0..panels.1 {
            let first = panel * size;
            let (from, until) = (first.max(block.0), (first + size).min(block.1));
            for tile in 0..self.tiles.count() {
                let mut room = [0.0_f32; TILE * QUAD];
                let rows = self.tiles.get(tile);
                let column = part.first + first;
                let out = room.as_mut_ptr().wrapping_sub(rows.first * QUAD + column);
                let product = Product { out, out_stride: QUAD, ..product };
                product.rectangle(part, (panel, panel + 1), (tile, tile + 1));
                for (r, sums) in room.chunks_exact(QUAD).take(rows.rows).enumerate() {
                    let sums = &sums[from - first..until - first];
                    let out = to(rows.first + r, part.first + from);
                    // SAFETY: these columns of the row are this head's, and this task's alone.
                    unsafe { out.copy_from_nonoverlapping(sums.as_ptr(), sums.len()) };
                }
            }
        }
    }
}
