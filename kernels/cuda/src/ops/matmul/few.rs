//! Products of few rows with weights as they lie: `ops/matmul_few_*.cu`.

use bytemuck::{Pod, Zeroable};
use kernels::Error;

use super::weight::{FinishArg, WeightArg};
use crate::gpu::{Gpu, Kernel, Shape};
use crate::matrix::{Codes, Layout, Offset, Part};
use crate::ops::kernel;
use crate::record::Record;
use crate::tensor::{Kind, Tensor, TensorArg};

const THREADS: u32 = 256;
/// Rows that are multiplied at once, by kernel, and columns of the result of a block.
const ROWS: [(usize, usize); 4] = [(8, 16), (16, 16), (32, 32), (64, 16)];

macro_rules! names {
    ($($layout:literal)*) => {
        [$(($layout, [
            concat!("few_", $layout, "_n1"),
            concat!("few_", $layout, "_n2"),
            concat!("few_", $layout, "_n4"),
            concat!("few_", $layout, "_n8"),
        ])),*]
    };
}

const LAYOUTS: usize = 17;
/// Kernels by layout, then by rows.
const NAMES: [(&str, [&str; 4]); LAYOUTS] = names!(
    "plain" "f8_s2" "f8_s4"
    "codes4_s1" "codes4_s2" "codes4_s4" "codes4_zero_s2" "codes4_zero_s4"
    "codes4_minimum_s1" "codes4_minimum_s2"
    "table4_s1" "table4_s2" "table4_s4"
    "codes8_s1" "codes8_s2" "codes8_zero_s2" "codes8_minimum_s2"
);

/// Which of [`NAMES`] multiplies a layout.
fn layout_name(layout: &Layout) -> &'static str {
    let (bits, group, offset, table) = match *layout {
        Layout::Plain(_) => return "plain",
        Layout::F8 { block: 32 } => return "f8_s2",
        Layout::F8 { .. } => return "f8_s4",
        Layout::Codes(Codes { bits, group, offset, table, .. }) => (bits, group, offset, table),
    };
    match (bits, table, offset, group) {
        (4, None, Offset::None, 16) => "codes4_s1",
        (4, None, Offset::None, 32) => "codes4_s2",
        (4, None, Offset::None, 64..) => "codes4_s4",
        (4, None, Offset::Zero, 32) => "codes4_zero_s2",
        (4, None, Offset::Zero, 64..) => "codes4_zero_s4",
        (4, None, Offset::Minimum, 16) => "codes4_minimum_s1",
        (4, None, Offset::Minimum, 32) => "codes4_minimum_s2",
        (4, Some(_), Offset::None, 16) => "table4_s1",
        (4, Some(_), Offset::None, 32) => "table4_s2",
        (4, Some(_), Offset::None, 64..) => "table4_s4",
        (8, None, Offset::None, 16) => "codes8_s1",
        (8, None, Offset::None, 32..) => "codes8_s2",
        (8, None, Offset::Zero, 32..) => "codes8_zero_s2",
        (8, None, Offset::Minimum, 32..) => "codes8_minimum_s2",
        _ => unreachable!("no format has {layout:?}"),
    }
}

/// The kernels for one type of operands.
pub(super) struct Few {
    kernels: [[Kernel; 4]; LAYOUTS],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct FewArgs {
    x: TensorArg,
    out: TensorArg,
    w: WeightArg,
    finish: FinishArg,
    rows: u32,
    outputs: u32,
    x_stride: u32,
    out_stride: u32,
}

/// Heads of a block-diagonal product; a plain one has one head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) heads: usize,
    /// Rows of w of a head.
    pub(super) outputs: usize,
    /// Columns from head to head.
    pub(super) x_stride: usize,
    pub(super) out_stride: usize,
}

impl Heads {
    /// No heads, `outputs` rows of w.
    pub(super) const fn one(outputs: usize) -> Self {
        Self { heads: 1, outputs, x_stride: 0, out_stride: 0 }
    }
}

impl Few {
    pub(super) fn load<G: Gpu>(gpu: &mut G, operand: Kind) -> Result<Self, Error> {
        let file = match operand {
            Kind::Bf16 => "matmul_few_bf16.cu",
            Kind::F16 => "matmul_few_f16.cu",
            Kind::F32 => unreachable!("tensor cores multiply 16-bit operands"),
        };
        let mut kernels = [[Kernel(0); 4]; LAYOUTS];
        for (kernels, (_, names)) in kernels.iter_mut().zip(NAMES) {
            for (found, name) in kernels.iter_mut().zip(names) {
                *found = kernel::<FewArgs, G>(gpu, file, name)?;
            }
        }
        Ok(Self { kernels })
    }

    /// Whether the kernels can read such operands: x 16 bytes at a time, and tiles of codes whole.
    pub(super) fn takes(part: &Part, x: &TensorArg, cols: usize, heads: &Heads) -> bool {
        let aligned = |columns: usize| columns.is_multiple_of(8);
        let rows = match part.layout {
            Layout::Plain(_) | Layout::F8 { .. } => aligned(cols),
            Layout::Codes(_) => heads.heads == 1 || heads.outputs.is_multiple_of(16),
        };
        rows && aligned(x.width as usize)
            && aligned(heads.x_stride)
            && x.address.is_multiple_of(16)
            && part.data.is_multiple_of(16)
    }

    /// `x` has the operands' type.
    pub(super) fn multiply(
        &self,
        record: &mut Record,
        (rows, x): (usize, TensorArg),
        (part, cols): (&Part, usize),
        heads: &Heads,
        (out, finish): (&Tensor, FinishArg),
    ) {
        let which = ROWS.iter().position(|&(most, _)| rows <= most).unwrap_or(ROWS.len() - 1);
        let (at_once, columns) = ROWS[which];
        let args = FewArgs {
            x,
            out: out.arg(),
            w: WeightArg::of(part, cols),
            finish,
            rows: rows as u32,
            outputs: heads.outputs as u32,
            x_stride: heads.x_stride as u32,
            out_stride: heads.out_stride as u32,
        };
        let grid = [heads.outputs.div_ceil(columns), rows.div_ceil(at_once), heads.heads];
        let shape = Shape { grid: grid.map(|n| n as u32), threads: THREADS, shared_bytes: 0 };
        let layout = layout_name(&part.layout);
        let at = NAMES.iter().position(|(name, _)| *name == layout).expect("it is listed");
        record.launch(self.kernels[at][which], shape, &args);
    }
}
