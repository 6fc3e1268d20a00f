//! Operands and results of products on the vendor's library: `ops/rows_f8.cu`.

use bytemuck::{Pod, Zeroable};
use kernels::Error;

use super::weight::FinishArg;
use crate::gpu::{Address, Gpu, Kernel};
use crate::ops::{blocks, kernel};
use crate::record::Record;
use crate::tensor::{Kind, Tensor, TensorArg};

const FILE: &str = "rows_f8.cu";
const THREADS: u32 = 256;

/// The kernels.
pub(super) struct Operands {
    rows: Kernel,
    f8: Kernel,
    finish: Kernel,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct OperandArgs {
    x: TensorArg,
    out: TensorArg,
    order: Address,
    count: u64,
    first: u32,
    pad: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct F8Args {
    x: TensorArg,
    out: Address,
    scales: Address,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct FinishArgs {
    out: TensorArg,
    rows_by: Address,
    columns_by: Address,
    finish: FinishArg,
    count: u64,
    first: u32,
    columns: u32,
    factor: f32,
    pad: u32,
}

/// What a result is multiplied by: its row's f32, its column's, and a number.
#[derive(Debug, Clone, Copy)]
pub(super) struct By {
    pub(super) rows: Address,
    pub(super) columns: Address,
    pub(super) factor: f32,
}

impl Operands {
    pub(super) fn load<G: Gpu>(gpu: &mut G) -> Result<Self, Error> {
        Ok(Self {
            rows: kernel::<OperandArgs, G>(gpu, FILE, "operand_rows")?,
            f8: kernel::<F8Args, G>(gpu, FILE, "operand_f8")?,
            finish: kernel::<FinishArgs, G>(gpu, FILE, "finish_rows")?,
        })
    }

    /// Columns `first..first + cols` of `rows` rows of x, as `kind`, in `order`, to `out`.
    pub(super) fn convert(
        &self,
        record: &mut Record,
        (x, rows): (TensorArg, usize),
        (first, cols): (usize, usize),
        order: Address,
        (out, kind): (Address, Kind),
    ) -> TensorArg {
        let out = TensorArg { address: out, width: cols as u32, kind: kind as u32 };
        let count = rows * cols.div_ceil(4);
        let args = OperandArgs { x, out, order, count: count as u64, first: first as u32, pad: 0 };
        record.launch(self.rows, blocks(count.div_ceil(THREADS as usize), THREADS), &args);
        out
    }

    /// All of x as e4m3fn, to `out`, and a scale for each row, to `scales`.
    pub(super) fn to_f8(
        &self,
        record: &mut Record,
        (x, rows): (TensorArg, usize),
        [out, scales]: [Address; 2],
    ) {
        record.launch(self.f8, blocks(rows, THREADS), &F8Args { x, out, scales });
    }

    /// Bias, scale and cap of some columns of a result, in place.
    pub(super) fn finish(
        &self,
        record: &mut Record,
        out: (&Tensor, usize),
        columns: (usize, usize),
        finish: FinishArg,
    ) {
        self.finish_by(record, out, columns, By { rows: 0, columns: 0, factor: 1.0 }, finish);
    }

    /// As [`Operands::finish`], multiplied first.
    pub(super) fn finish_by(
        &self,
        record: &mut Record,
        (out, rows): (&Tensor, usize),
        (first, columns): (usize, usize),
        by: By,
        finish: FinishArg,
    ) {
        let count = rows * columns;
        let args = FinishArgs {
            out: out.arg(),
            rows_by: by.rows,
            columns_by: by.columns,
            finish,
            count: count as u64,
            first: first as u32,
            columns: columns as u32,
            factor: by.factor,
            pad: 0,
        };
        record.launch(self.finish, blocks(count.div_ceil(THREADS as usize), THREADS), &args);
    }
}
