//! Matrix products. For each part of a matrix one of four ways, by its layout, the number of rows
//! and the device:
//!
//! - few rows: weights as they lie, straight to tensor cores ([`few`]);
//! - more rows of plain numbers: the vendor's library, or our own tiles ([`dense`]);
//! - more rows of e4m3 with a scale a row: x becomes e4m3 too, where the device multiplies that;
//! - more rows of other codes: a stretch of weights at a time becomes plain numbers in scratch.
//!
//! f32 arithmetic is the fifth, on CUDA cores. What a product is for is not known here.

use std::ops::Range;

use kernels::{Error, Kept};

use crate::arch::Arch;
use crate::device::CudaConfig;
use crate::gpu::{Address, Element, Gpu, ProductShape};
use crate::matrix::{Layout, Matrix, Part};
use crate::ops::expand::Expand;
use crate::record::Record;
use crate::step::bucket;
use crate::tensor::{Kind, Scratch, Tensor, TensorArg, Vector};

mod dense;
mod few;
mod heads;
mod operands;
mod weight;

use dense::{Dense, Product};
use few::{Few, Heads};
use operands::{By, Operands};
use weight::FinishArg;

/// Bytes of weights that are plain numbers at a time, at most: what a large device's cache holds.
const EXPANDED_BYTES_MAX: usize = 64 << 20;
/// Rows of the widest matrix, in f32, that fit always.
const EXPANDED_ROWS: usize = 2048;
/// Rows of weights in scratch are multiples of this: whole tiles of every kernel.
const EXPANDED_STEP: usize = 128;
/// Rows up to which the kernel for few rows reads weights once.
const FEW: usize = 64;
/// Rows up to which a warp for each column is better than the library's f32 products.
const WIDE_FEW: usize = 8;
/// Sums of e4m3 pairs reach 448 * 448 a column, more than f16 holds: so much smaller they fit, up
/// to 20,000 columns.
const F8_TO_F16: f32 = 1.0 / 65536.0;

/// What happens to a product before it is stored: `cap(scale * product + ...)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Finish {
    pub(crate) scale: f32,
    pub(crate) soft_cap: Option<f32>,
}

impl Finish {
    /// Nothing.
    pub(crate) const NONE: Self = Self { scale: 1.0, soft_cap: None };
}

/// `out[r] = cap(scale * (w * x[r] + bias))`.
pub(crate) struct Call<'a> {
    pub(crate) rows: usize,
    pub(crate) x: &'a Tensor,
    pub(crate) w: &'a Matrix,
    pub(crate) bias: Option<&'a Vector>,
    pub(crate) out: &'a Tensor,
    pub(crate) finish: Finish,
}

/// The kernels and their scratch.
pub(crate) struct Matmul {
    /// Type of the operands of products; f32 where nothing is rounded.
    operand: Kind,
    arch: Arch,
    /// Where operands have 16 bits.
    few: Option<Few>,
    dense: Dense,
    operands: Operands,
    expand: Expand,
    /// Weights as plain numbers.
    expanded: Scratch,
    /// x as operands.
    converted: Scratch,
}

/// Bytes of scratch: expanded weights, converted rows.
fn sizes(config: &CudaConfig) -> [usize; 2] {
    let expanded = EXPANDED_BYTES_MAX.min(4 * EXPANDED_ROWS * config.width_max);
    let operand = Kind::of(Kept::Rounded, config.precision);
    let converted = bucket(config.rows_max) * config.width_max * operand.bytes();
    [expanded, converted].map(|bytes| bytes.next_multiple_of(256).max(256))
}

/// Bytes of device memory that products claim when they are set up.
pub(crate) fn scratch_bytes(config: &CudaConfig) -> usize {
    sizes(config).iter().sum()
}

/// A part to be multiplied.
struct Job<'a> {
    rows: usize,
    /// As the caller gave it.
    x: TensorArg,
    part: &'a Part,
    cols: usize,
    out: &'a Tensor,
    finish: FinishArg,
}

/// Which order x has in the scratch, if it is there.
type Held = Option<Address>;

impl Matmul {
    pub(crate) fn new<G: Gpu>(gpu: &mut G, arch: Arch, config: &CudaConfig) -> Result<Self, Error> {
        let operand = Kind::of(Kept::Rounded, config.precision);
        let few = match operand {
            Kind::F32 => None,
            Kind::Bf16 | Kind::F16 => Some(Few::load(gpu, operand)?),
        };
        let [expanded, converted] = sizes(config);
        Ok(Self {
            operand,
            arch,
            few,
            dense: Dense::load(gpu, operand, arch.blocks_wanted)?,
            operands: Operands::load(gpu)?,
            expand: Expand::load(gpu)?,
            expanded: Scratch::claim(gpu, "weights as plain numbers", expanded)?,
            converted: Scratch::claim(gpu, "operands of products", converted)?,
        })
    }

    /// Every row of x by every row of w.
    pub(crate) fn matmul<G: Gpu>(&self, gpu: &mut G, record: &mut Record, call: &Call<'_>) {
        let &Call { rows, x, w, bias, out, finish } = call;
        let (cols, finish) = (w.cols, FinishArg::new(bias, finish));
        let x = x.of(rows, cols).arg();
        out.of(rows, w.rows);
        assert!(bias.is_none_or(|bias| bias.len == w.rows), "a bias for each output");
        let mut held = None;
        for part in &w.parts {
            let job = Job { rows, x, part, cols, out, finish };
            match &self.few {
                Some(few) if !is_plain_other(part, self.operand) => {
                    self.on_tensor_cores((gpu, record), few, &job, &mut held);
                }
                _ => self.in_f32((gpu, record), &job, &mut held),
            }
        }
    }

    fn on_tensor_cores<G: Gpu>(
        &self,
        (gpu, record): (&mut G, &mut Record),
        few: &Few,
        job: &Job<'_>,
        held: &mut Held,
    ) {
        let &Job { rows, part, cols, out, finish, .. } = job;
        let plain = matches!(part.layout, Layout::Plain(_));
        let most = if plain { self.arch.few_rows_plain } else { self.arch.few_rows_codes };
        if rows > most && self.in_f8((gpu, record), job) {
            // It needs the same scratch.
            *held = None;
            return;
        }
        let x = self.operand(record, job, held);
        let one = Heads::one(part.rows);
        let takes = Few::takes(part, &x, cols, &one);
        if takes && rows <= most {
            return few.multiply(record, (rows, x), (part, cols), &one, (out, finish));
        }
        if !plain {
            return self.expanded((gpu, record), job, x, self.operand);
        }
        let product = self.product(job, x, self.operand);
        if Dense::on_library((gpu, record), &self.operands, self.operand, &product) {
            return;
        }
        if takes && rows <= FEW {
            return few.multiply(record, (rows, x), (part, cols), &one, (out, finish));
        }
        self.on_own(record, &product);
    }

    /// Nothing rounded, or weights of another type than the operands of tensor cores.
    fn in_f32<G: Gpu>(&self, (gpu, record): (&mut G, &mut Record), job: &Job<'_>, held: &mut Held) {
        let x = if job.part.order == 0 { job.x } else { self.operand(record, job, held) };
        match job.part.layout {
            Layout::Plain(kind) => {
                let product = self.product(job, x, kind);
                self.dense((gpu, record), Kind::F32, &product);
            }
            Layout::F8 { .. } | Layout::Codes(_) => {
                self.expanded((gpu, record), job, x, Kind::F32);
            }
        }
    }

    /// x in the type of operands, its columns in the part's order: as it is, or in scratch.
    fn operand(&self, record: &mut Record, job: &Job<'_>, held: &mut Held) -> TensorArg {
        let order = job.part.order;
        if job.x.kind == self.operand as u32 && order == 0 {
            return job.x;
        }
        let bytes = job.rows * job.cols * self.operand.bytes();
        let to = (self.converted.first(bytes), self.operand);
        if *held == Some(order) {
            return TensorArg { address: to.0, width: job.cols as u32, kind: to.1 as u32 };
        }
        *held = Some(order);
        self.operands.convert(record, (job.x, job.rows), (0, job.cols), order, to)
    }

    /// The whole part, whose numbers are plain.
    fn product<'a>(&self, job: &Job<'a>, x: TensorArg, kind: Kind) -> Product<'a> {
        let &Job { rows, part, cols, out, finish, .. } = job;
        let w = TensorArg { address: part.data, width: cols as u32, kind: kind as u32 };
        Product { rows, x, w, heads: Heads::one(part.rows), out, first: part.first, finish }
    }

    /// Plain numbers, on the library or by own kernels; `kind` is the library's type of operands.
    fn dense<G: Gpu>(
        &self,
        (gpu, record): (&mut G, &mut Record),
        kind: Kind,
        product: &Product<'_>,
    ) {
        let asks = kind != Kind::F32 || product.rows > WIDE_FEW;
        if !asks || !Dense::on_library((gpu, record), &self.operands, kind, product) {
            self.on_own(record, product);
        }
    }

    fn on_own(&self, record: &mut Record, product: &Product<'_>) {
        if self.dense.on_tiles(record, product).is_none() {
            self.dense.on_wide(record, product);
        }
    }

    /// A part whose weights become plain numbers of type `kind`, a stretch at a time.
    fn expanded<G: Gpu>(
        &self,
        (gpu, record): (&mut G, &mut Record),
        job: &Job<'_>,
        x: TensorArg,
        kind: Kind,
    ) {
        let whole = self.product(job, x, kind);
        self.stretches(record, (job.part, job.cols), 0..job.part.rows, kind, |record, w, rows| {
            let heads = Heads::one(rows.len());
            let product = Product { w, heads, first: job.part.first + rows.start, ..whole };
            self.dense((gpu, record), kind, &product);
        });
    }

    /// Calls with rows of a part in scratch until all of `rows` were.
    fn stretches(
        &self,
        record: &mut Record,
        (part, cols): (&Part, usize),
        rows: Range<usize>,
        kind: Kind,
        mut each: impl FnMut(&mut Record, TensorArg, Range<usize>),
    ) {
        let fit = self.expanded.bytes / (cols * kind.bytes());
        let at_once = (fit / EXPANDED_STEP * EXPANDED_STEP).max(1);
        for first in rows.clone().step_by(at_once) {
            let some = first..rows.end.min(first + at_once);
            let address = self.expanded.first(some.len() * cols * kind.bytes());
            self.expand.rows(record, part, cols, some.clone(), address, kind);
            each(record, TensorArg { address, width: cols as u32, kind: kind as u32 }, some);
        }
    }

    /// e4m3 by e4m3, where weights have a scale a row and the device and its library can.
    fn in_f8<G: Gpu>(&self, (gpu, record): (&mut G, &mut Record), job: &Job<'_>) -> bool {
        let &Job { rows, x, part, cols, out, finish } = job;
        let whole = matches!(part.layout, Layout::F8 { block } if block == cols);
        let to = out.address + (part.first * out.kind.bytes()) as Address;
        if !self.arch.f8_products || !whole || part.order != 0 || !to.is_multiple_of(16) {
            return false;
        }
        let shape = ProductShape {
            rows: rows as u32,
            outputs: part.rows as u32,
            inputs: cols as u32,
            x_stride: cols as u32,
            out_stride: out.width as u32,
            operands: Element::F8,
            out: out.kind.element(),
        };
        let Some(product) = gpu.product(&shape) else { return false };
        // Behind the rows their scales: together less than the 16-bit operands that the scratch
        // is made for.
        let scales = (rows * cols).next_multiple_of(16);
        let room = self.converted.first(scales + 4 * rows);
        let scales = room + scales as Address;
        self.operands.to_f8(record, (x, rows), [room, scales]);
        let small = if out.kind == Kind::F16 { F8_TO_F16 } else { 1.0 };
        record.multiply(product, [room, part.data, to], small);
        let by = By { rows: scales, columns: part.scales, factor: 1.0 / small };
        self.operands.finish_by(record, (out, rows), (part.first, part.rows), by, finish);
        true
    }
}

/// Plain numbers of another type than `operand`.
fn is_plain_other(part: &Part, operand: Kind) -> bool {
    matches!(part.layout, Layout::Plain(kind) if kind != operand)
}

#[cfg(test)]
mod tests {
    use kernels::Precision;

    use super::*;
    use crate::cases::config;
    use crate::emulator::Emulator;

    #[test]
    fn scratch_is_what_was_planned() {
        for precision in [Precision::Float32, Precision::Bfloat16, Precision::Float16] {
            let (mut gpu, config) = (Emulator::new(1), config(precision, 77));
            let arch = Arch::of(gpu.properties()).expect("kernels for it");
            let free = gpu.free_bytes();
            let _products = Matmul::new(&mut gpu, arch, &config).expect("memory");
            assert_eq!(free - gpu.free_bytes(), scratch_bytes(&config) as u64, "{precision:?}");
        }
    }
}
