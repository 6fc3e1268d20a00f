//! The functions inside an MLP and gates of rows: `ops/activation.cu`.

use bytemuck::{Pod, Zeroable};
use kernels::{Activation, Error};

use super::kernel;
use crate::gpu::{Gpu, Kernel, Shape};
use crate::record::Record;
use crate::tensor::{Tensor, TensorArg};

const FILE: &str = "activation.cu";
const THREADS: u32 = 128;
/// Elements of a thread of the `_wide` kernels.
const WIDE: usize = 8;

/// The kernels.
pub(crate) struct Activations {
    activate: [Kernel; 2],
    gate: [Kernel; 2],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ActivateArgs {
    x: TensorArg,
    out: TensorArg,
    function: u32,
    gated: u32,
    alpha: f32,
    limit: f32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GateArgs {
    x: TensorArg,
    gate: TensorArg,
}

impl Activations {
    pub(crate) fn load<G: Gpu>(gpu: &mut G) -> Result<Self, Error> {
        Ok(Self {
            activate: [
                kernel::<ActivateArgs, G>(gpu, FILE, "activate_any")?,
                kernel::<ActivateArgs, G>(gpu, FILE, "activate_wide")?,
            ],
            gate: [
                kernel::<GateArgs, G>(gpu, FILE, "gate_any")?,
                kernel::<GateArgs, G>(gpu, FILE, "gate_wide")?,
            ],
        })
    }

    /// `out[r] = f(x[r])`, or `f` of the first half of `x[r]` times the second.
    pub(crate) fn activate(
        &self,
        record: &mut Record,
        rows: usize,
        (x, f, gated): (&Tensor, Activation, bool),
        out: &Tensor,
    ) {
        assert!(gated || !matches!(f, Activation::Clamped { .. }), "{f:?} has a gate");
        let (function, alpha, limit) = match f {
            Activation::Silu => (0, 0.0, 0.0),
            Activation::Gelu => (1, 0.0, 0.0),
            Activation::GeluTanh => (2, 0.0, 0.0),
            Activation::Relu => (3, 0.0, 0.0),
            Activation::ReluSquared => (4, 0.0, 0.0),
            Activation::Clamped { alpha, limit } => (5, alpha, limit),
        };
        let width = out.width;
        let args = ActivateArgs {
            x: x.of(rows, if gated { 2 * width } else { width }).arg(),
            out: out.of(rows, width).arg(),
            function,
            gated: u32::from(gated),
            alpha,
            limit,
        };
        let (variant, shape) = grid(rows, width);
        record.launch(self.activate[variant], shape, &args);
    }

    /// `x[r] *= sigmoid(gate[r][0])`.
    pub(crate) fn gate_rows(&self, record: &mut Record, rows: usize, x: &Tensor, gate: &Tensor) {
        let width = x.width;
        let args = GateArgs { x: x.of(rows, width).arg(), gate: gate.of(rows, gate.width).arg() };
        let (variant, shape) = grid(rows, width);
        record.launch(self.gate[variant], shape, &args);
    }
}

/// Which variant, and its grid.
fn grid(rows: usize, width: usize) -> (usize, Shape) {
    let wide = width.is_multiple_of(WIDE);
    let threads = if wide { width / WIDE } else { width };
    let pieces = threads.div_ceil(THREADS as usize) as u32;
    let shape = Shape { grid: [rows as u32, pieces, 1], threads: THREADS, shared_bytes: 0 };
    (usize::from(wide), shape)
}
