//! How products of routed rows are launched: which kernel for which layout.

use bytemuck::{Pod, Zeroable};
use kernels::{Error, Kept, Precision};

use super::Routes;
use super::matrices::{Alike, Experts, ExpertsPart};
use crate::gpu::{Address, Gpu, Kernel, Shape};
use crate::ops::kernel;
use crate::record::Record;
use crate::tensor::{Kind, Tensor, TensorArg, Vector};

/// Threads of a block, of all kernels.
const THREADS: u32 = 128;
/// Rows of a tile up to which `expert_few_*` multiply it.
const FEW: usize = 8;

/// Products of rows with their experts' matrices.
pub(crate) struct Call<'a> {
    /// `[rows, in]` if `spread`, otherwise `[rows * top_k, in]`, sorted by expert.
    pub(crate) x: &'a Tensor,
    pub(crate) w: &'a Experts,
    /// `[experts * out]`.
    pub(crate) bias: Option<&'a Vector>,
    pub(crate) routes: &'a Routes,
    pub(crate) spread: bool,
    /// `[rows * top_k, out]`, sorted by expert.
    pub(crate) out: &'a Tensor,
}

/// The kernels.
pub(super) struct Products {
    wide: Kernel,
    /// What tensor cores multiply; `None` in f32.
    operands: Option<Operands>,
}

/// Kernels for operands of one type.
struct Operands {
    kind: Kind,
    /// By [`NAMES`], and by whether tiles are large.
    kernels: Vec<[Kernel; 2]>,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ExpertArgs {
    x: TensorArg,
    out: TensorArg,
    experts: Address,
    table: Address,
    bias: Address,
    tiles: Address,
    number: Address,
    sources: Address,
    rows: u32,
    cols: u32,
    first: u32,
    layout: u32,
}

macro_rules! names {
    ($($layout:literal)*) => {
        [$(($layout, [concat!("expert_few_", $layout), concat!("expert_many_", $layout)])),*]
    };
}

/// Layouts as the kernels' names have them; `sN`: N steps of 16 columns share a scale, or more.
const NAMES: [(&str, [&str; 2]); 14] = names!(
    "plain" "f8_s2" "f8_s4" "codes4_s1" "codes4_s2" "codes4_s4" "codes4_minimum_s1"
    "codes4_minimum_s2" "table4_s1" "table4_s2" "table4_s4" "codes8_s1" "codes8_s2"
    "codes8_minimum_s2"
);

impl Products {
    pub(super) fn load<G: Gpu>(gpu: &mut G, precision: Precision) -> Result<Self, Error> {
        let wide = kernel::<ExpertArgs, G>(gpu, "expert_wide.cu", "expert_wide")?;
        let kind = Kind::of(Kept::Rounded, precision);
        let file = match kind {
            Kind::F32 => return Ok(Self { wide, operands: None }),
            Kind::Bf16 => "expert_matmul_bf16.cu",
            Kind::F16 => "expert_matmul_f16.cu",
        };
        let mut both = |[few, many]: [&'static str; 2]| -> Result<[Kernel; 2], Error> {
            Ok([
                kernel::<ExpertArgs, G>(gpu, file, few)?,
                kernel::<ExpertArgs, G>(gpu, file, many)?,
            ])
        };
        let kernels = NAMES.iter().map(|(_, names)| both(*names)).collect::<Result<_, _>>()?;
        Ok(Self { wide, operands: Some(Operands { kind, kernels }) })
    }

    pub(super) fn matmul(&self, record: &mut Record, rows: usize, call: &Call<'_>) {
        let &Call { x, w, bias, routes, spread, out } = call;
        let (routed, width) = (rows * routes.top_k, w.rows());
        assert_eq!(w.matrices.len(), routes.experts, "routes to these experts");
        x.of(if spread { rows } else { routed }, w.cols());
        out.of(routed, width);
        assert!(bias.is_none_or(|bias| bias.len == routes.experts * width), "a bias for each");
        let tiles = routes.tiles_max(rows) as u32;
        for part in &w.parts {
            let (kernel, outputs) = self.choose(part, x, routes.tile > FEW);
            let grid = [part.part.rows.div_ceil(outputs) as u32, tiles, 1];
            record.launch(
                kernel,
                Shape { grid, threads: THREADS, shared_bytes: 0 },
                &args(call, part),
            );
        }
    }

    /// The kernel for a part, and the outputs of a block.
    fn choose(&self, part: &ExpertsPart, x: &Tensor, many: bool) -> (Kernel, usize) {
        let suitable = self.operands.as_ref().filter(|operands| operands.kind == x.kind);
        let found = suitable.and_then(|operands| {
            let name = name(part, operands.kind, x.width)?;
            let at = NAMES.iter().position(|(layout, _)| *layout == name)?;
            Some(operands.kernels[at][usize::from(many)])
        });
        match (found, many) {
            (Some(kernel), false) => (kernel, 16),
            (Some(kernel), true) => (kernel, 128),
            (None, _) => (self.wide, 16),
        }
    }
}

/// What tensor cores multiply a part as; `None`: they do not.
fn name(part: &ExpertsPart, operands: Kind, cols: usize) -> Option<&'static str> {
    let of = |names: [&'static str; 3]| match part.group {
        0..32 => names[0],
        32..64 => names[1],
        _ => names[2],
    };
    if part.ordered {
        return None;
    }
    match part.alike {
        Alike::Plain(kind) if kind == operands && cols.is_multiple_of(8) => Some("plain"),
        Alike::F8 if cols.is_multiple_of(32) && part.group >= 32 => {
            Some(of(["f8_s2", "f8_s2", "f8_s4"]))
        }
        Alike::Codes { .. } if !cols.is_multiple_of(4) => None,
        Alike::Codes { bits: 4, minimum: false, table: None } => {
            Some(of(["codes4_s1", "codes4_s2", "codes4_s4"]))
        }
        Alike::Codes { bits: 4, minimum: false, table: Some(_) } => {
            Some(of(["table4_s1", "table4_s2", "table4_s4"]))
        }
        Alike::Codes { bits: 4, minimum: true, table: None } => {
            Some(of(["codes4_minimum_s1", "codes4_minimum_s2", "codes4_minimum_s2"]))
        }
        Alike::Codes { bits: 8, minimum: false, table: None } => {
            Some(of(["codes8_s1", "codes8_s2", "codes8_s2"]))
        }
        // No format has such codes in groups of 16.
        Alike::Codes { bits: 8, minimum: true, table: None } if part.group >= 32 => {
            Some("codes8_minimum_s2")
        }
        Alike::Plain(_) | Alike::F8 | Alike::Codes { .. } => None,
    }
}

fn args(call: &Call<'_>, part: &ExpertsPart) -> ExpertArgs {
    let layout = match part.alike {
        Alike::Plain(kind) => kind as u32,
        Alike::F8 => 3,
        Alike::Codes { bits: 4, .. } => 4,
        Alike::Codes { .. } => 5,
    };
    ExpertArgs {
        x: call.x.arg(),
        out: call.out.arg(),
        experts: part.table,
        table: part.part.table,
        bias: call.bias.map_or(0, |bias| bias.address),
        tiles: call.routes.tiles,
        number: call.routes.number,
        sources: if call.spread { call.routes.sources } else { 0 },
        rows: part.part.rows as u32,
        cols: call.w.cols() as u32,
        first: part.part.first as u32,
        layout,
    }
}
