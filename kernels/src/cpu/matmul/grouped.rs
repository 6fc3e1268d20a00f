//! Products of groups of rows, each group with a matrix of its own, as one product.
//!
//! Why so: a step gives each expert a row or two. A run of the pool per expert would spend its
//! time on waking threads, so all groups are staged in one run and multiplied in another; tasks
//! are the same rectangles as in `plan`, so weights are read once and a row's numbers are those
//! of a product of its own. It must not know what the groups are.

use super::plan::{Cut, Product, TASKS_PER_THREAD, kind_of, rows_at_once, staging_of, stagings};
use super::staging::{Kind, StageRow, Target, Tiles};
use super::wide::dispatch;
use crate::compute::Error;
use crate::cpu::isa::Isa;
use crate::cpu::matrix::layout::VECTOR;
use crate::cpu::matrix::{Matrix, Memory, Part};
use crate::cpu::pool::Pool;

/// Room for staged rows and for the list of what is to be done. Claimed at set-up.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Rows in tiles, then rows that go to several groups, as they are copied from.
    staged: Option<Memory>,
    rows: usize,
    sources: usize,
    row_bytes: usize,
    /// `[groups]`: where a group's rows are staged, in rows.
    places: Vec<usize>,
    units: Vec<Unit>,
}

/// How rows are staged: see [`stagings`].
type Staged = (Kind, Option<usize>);

/// A part of a group's matrix by the group's rows.
#[derive(Clone, Copy)]
struct Unit {
    group: u32,
    part: u32,
    cut: Cut,
    /// The first of its tasks.
    task: usize,
}

/// Groups of rows and their matrices.
#[derive(Clone, Copy)]
pub(crate) struct Groups<'a> {
    /// Activations, rows of the matrices' width.
    pub(crate) x: &'a [f32],
    /// The row of `x` that a row of the groups is; `None`: the same.
    pub(crate) from: Option<&'a [u32]>,
    /// `[groups + 1]`: group g has rows `starts[g]..starts[g + 1]`.
    pub(crate) starts: &'a [u32],
    /// One for each group, all of one shape.
    pub(crate) matrices: &'a [Matrix],
    /// A bias for each group, one after the other.
    pub(crate) bias: Option<&'a [f32]>,
}

impl Scratch {
    /// Makes room for so many rows in all groups together, of so many different ones.
    ///
    /// # Errors
    /// No memory; what was reserved before stays.
    pub(crate) fn reserve_rows(&mut self, rows: usize, sources: usize) -> Result<(), Error> {
        // Padding makes 3 rows 4 and 9 rows 12, and no number of rows more than a third longer.
        let padded = rows.saturating_add(rows / 3).saturating_add(1);
        self.reserve(padded.max(self.rows), sources.max(self.sources), self.row_bytes)
    }

    /// Makes room for products with these.
    ///
    /// # Errors
    /// As [`Scratch::reserve_rows`].
    pub(crate) fn reserve_matrices(&mut self, matrices: &[Matrix]) -> Result<(), Error> {
        let bytes = |matrix: &Matrix| {
            let parts = matrix.parts().iter();
            let row = parts.map(|part| row_bytes(kind_of(part.arithmetic), matrix.cols()));
            row.max().unwrap_or(0)
        };
        let row_bytes = matrices.iter().map(bytes).max().unwrap_or(0);
        self.reserve(self.rows, self.sources, row_bytes.max(self.row_bytes))?;
        let units = matrices.iter().map(|matrix| matrix.parts().len()).sum::<usize>();
        self.units.reserve(units.saturating_sub(self.units.len()));
        self.places.reserve(matrices.len().saturating_sub(self.places.len()));
        Ok(())
    }

    fn reserve(&mut self, rows: usize, sources: usize, row_bytes: usize) -> Result<(), Error> {
        let wanted = Self { rows, sources, row_bytes, ..Self::default() };
        let bytes = wanted.sources_at().saturating_add(sources.saturating_mul(row_bytes));
        if bytes > self.staged.as_ref().map_or(0, Memory::len) {
            self.staged = Some(Memory::zeroed(bytes, "activations of routed products")?);
        }
        (self.rows, self.sources, self.row_bytes) = (rows, sources, row_bytes);
        Ok(())
    }

    /// First byte of the rows to copy from.
    fn sources_at(&self) -> usize {
        let bytes = self.rows.saturating_mul(self.row_bytes);
        bytes.checked_next_multiple_of(VECTOR).unwrap_or(usize::MAX)
    }
}

fn row_bytes(kind: Kind, cols: usize) -> usize {
    let (step, steps) = kind.steps(cols);
    step * steps
}

impl Groups<'_> {
    fn rows(&self, group: usize) -> std::ops::Range<usize> {
        self.starts[group] as usize..self.starts[group + 1] as usize
    }

    /// `out[r] = matrix of r's group * x[r] + bias of r's group`, for all rows of all groups.
    ///
    /// # Panics
    /// Sizes that do not fit each other or what the scratch reserved: a bug in the caller.
    pub(crate) fn multiply(&self, pool: &Pool, scratch: &mut Scratch, out: &mut [f32]) {
        let count = self.matrices.len();
        assert_eq!(self.starts.len(), count + 1, "a range of rows for each matrix");
        let rows = self.starts[count] as usize;
        let Some(first) = self.matrices.first().filter(|_| rows > 0) else { return };
        let (features, cols) = (first.rows(), first.cols());
        assert!(self.matrices.iter().all(|m| m.rows() == features && m.cols() == cols), "shapes");
        assert_eq!(out.len(), rows * features, "output of {rows} x {features}");
        assert!(self.bias.is_none_or(|b| b.len() == count * features), "a bias for each matrix");
        assert!(self.from.is_none_or(|from| from.len() == rows), "a source for each row");
        let (isa, out) = (first.isa(), out.as_mut_ptr());
        let orders = self.matrices.iter().map(|matrix| matrix.orders().len()).max().unwrap_or(0);
        for staging in stagings(orders) {
            if self.plan(pool, scratch, staging, isa) > 0 {
                // Orders are the groups' own, so what is staged in one cannot be shared.
                let copied = self.from.is_some() && staging.1.is_none();
                if copied {
                    self.stage_sources(pool, scratch, staging.0, isa);
                }
                self.stage(pool, scratch, staging, (isa, copied));
                self.products(pool, scratch, staging.0, out);
            }
        }
    }

    /// Lists the products of this staging; how many tasks they are.
    fn plan(&self, pool: &Pool, scratch: &mut Scratch, staging: Staged, isa: Isa) -> usize {
        let max = rows_at_once(isa, staging.0);
        let wanted = if pool.threads() == 1 { 1 } else { pool.threads() * TASKS_PER_THREAD };
        let parts = |group: usize| {
            let parts = self.matrices[group].parts().iter().enumerate();
            parts.filter(move |(_, part)| staging_of(part) == staging)
        };
        let active = || (0..self.matrices.len()).filter(|&group| !self.rows(group).is_empty());
        let tiles = |group: usize| Tiles::new(self.rows(group).len(), max);
        let work = |part: &Part, group: usize| part.panels() * tiles(group).count();
        let all: usize = active().flat_map(|g| parts(g).map(move |p| work(p.1, g))).sum();
        scratch.units.clear();
        if all == 0 {
            return 0;
        }
        scratch.places.clear();
        let (mut place, mut task) = (0, 0);
        for group in 0..self.matrices.len() {
            scratch.places.push(place);
            if self.rows(group).is_empty() {
                continue;
            }
            place += tiles(group).padded();
            for (part, data) in parts(group) {
                let share = (wanted * work(data, group)).div_ceil(all);
                let cut = Cut::new(data, tiles(group).count(), share);
                scratch.units.push(Unit { group: group as u32, part: part as u32, cut, task });
                task += cut.tasks();
            }
        }
        assert!(place <= scratch.rows, "more rows than the scratch reserved");
        task
    }

    /// Stages each row of `x` once, to be copied to the groups it goes to: rounding it for each
    /// would take a fifth of a product of many rows.
    fn stage_sources(&self, pool: &Pool, scratch: &mut Scratch, kind: Kind, isa: Isa) {
        let cols = self.matrices[0].cols();
        let rows = self.x.len() / cols;
        assert!(rows <= scratch.sources, "more different rows than the scratch reserved");
        assert!(row_bytes(kind, cols) <= scratch.row_bytes, "longer rows than reserved");
        let at = scratch.sources_at();
        let out = Target(scratch.staged.as_mut().expect("reserved: there are rows").as_mut_ptr());
        let rows_per_task = (8192 / cols).clamp(1, 16);
        pool.run(rows.div_ceil(rows_per_task), &|task, _| {
            for row in task * rows_per_task..rows.min((task + 1) * rows_per_task) {
                let x = &self.x[row * cols..][..cols];
                let out = out.at(at + row * row_bytes(kind, cols));
                // SAFETY: there is room for so many rows, and each has its own.
                unsafe { dispatch(isa, StageRow { x, order: None, kind, stride: 1, out }) };
            }
        });
    }

    /// Puts the rows of all groups into tiles.
    fn stage(
        &self,
        pool: &Pool,
        scratch: &mut Scratch,
        (kind, order): Staged,
        (isa, copied): (Isa, bool),
    ) {
        let cols = self.matrices[0].cols();
        let (step, steps) = kind.steps(cols);
        assert!(step * steps <= scratch.row_bytes, "longer rows than the scratch reserved");
        let (max, rows) = (rows_at_once(isa, kind), self.starts[self.matrices.len()] as usize);
        let (places, sources_at) = (&scratch.places, scratch.sources_at());
        let staged = scratch.staged.as_mut().expect("reserved: there are rows");
        let out_start = Target(staged.as_mut_ptr());
        let rows_per_task = (8192 / cols).clamp(1, 16);
        pool.run(rows.div_ceil(rows_per_task), &|task, _| {
            let from = task * rows_per_task;
            let mut group = self.starts.partition_point(|&s| s as usize <= from) - 1;
            for row in from..rows.min(from + rows_per_task) {
                while self.rows(group).end <= row {
                    group += 1;
                }
                let inside = row - self.rows(group).start;
                let tile = Tiles::new(self.rows(group).len(), max).get(inside / max);
                let place = places[group] + tile.first;
                let out = out_start.at((place * steps + inside - tile.first) * step);
                let source = self.from.map_or(row, |from| from[row] as usize);
                let stride = tile.padded;
                if copied {
                    let from = out_start.at(sources_at + source * step * steps).cast_const();
                    // SAFETY: as below; `stage_sources` has written the row there.
                    unsafe { copy_steps(from, kind, steps, stride, out) };
                    continue;
                }
                let x = &self.x[source * cols..][..cols];
                // Where a group has no such order, nothing reads what is staged for it.
                let order = order.and_then(|order| self.matrices[group].orders().get(order));
                let order = order.map(Vec::as_slice);
                // SAFETY: `plan` found room for all groups with their padding; each row has
                // places of its own.
                unsafe { dispatch(isa, StageRow { x, order, kind, stride, out }) };
            }
        });
    }

    fn products(&self, pool: &Pool, scratch: &Scratch, kind: Kind, out: *mut f32) {
        let matrix = &self.matrices[0];
        let (isa, cols, features) = (matrix.isa(), matrix.cols(), matrix.rows());
        let max = rows_at_once(isa, kind);
        let (step, steps) = kind.steps(cols);
        let Scratch { units, places, staged, .. } = scratch;
        let staged = staged.as_ref().expect("reserved: there are rows");
        let tasks = units.last().map_or(0, |unit| unit.task + unit.cut.tasks());
        let out = Target(out.cast());
        pool.run(tasks, &|task, _| {
            let unit = units[units.partition_point(|unit| unit.task <= task) - 1];
            let group = unit.group as usize;
            let rows = self.rows(group);
            let product = Product {
                isa,
                kind,
                tiles: Tiles::new(rows.len(), max),
                cols,
                staged: staged.as_ptr().wrapping_add(places[group] * steps * step),
                bias: self.bias.map(|bias| &bias[group * features..][..features]),
                out: out.at(rows.start * features * size_of::<f32>()).cast(),
                out_stride: features,
            };
            let part = &self.matrices[group].parts()[unit.part as usize];
            product.task(part, unit.cut, task - unit.task);
        });
    }
}

/// Copies the steps of a row that was staged by itself to places `stride` steps apart.
///
/// # Safety
/// `from` has `steps` steps of this kind, and `out` room for them; both are aligned to a step.
unsafe fn copy_steps(from: *const u8, kind: Kind, steps: usize, stride: usize, out: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        if kind == Kind::Bytes {
            for step in 0..steps {
                let from = from.cast::<[u64; 8]>().add(step);
                out.cast::<[u64; 8]>().add(step * stride).write(from.read());
            }
        } else if stride == 1 {
            out.cast::<u32>().copy_from_nonoverlapping(from.cast(), steps);
        } else {
            for step in 0..steps {
                out.cast::<u32>().add(step * stride).write(from.cast::<u32>().add(step).read());
            }
        }
    }
}
