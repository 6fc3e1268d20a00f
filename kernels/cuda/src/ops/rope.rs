//! The rotation table of a step: `ops/rope.cu`.

use bytemuck::{Pod, Zeroable};
use kernels::{Beyond, Error, Rope};

use super::{Rows, blocks, kernel};
use crate::gpu::{Address, Gpu, Kernel};
use crate::record::Record;
use crate::step::Payload;
use crate::tensor::{Kind, Tensor};

const THREADS: u32 = 128;

/// The kernel.
pub(crate) struct Ropes {
    table: Kernel,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RopeArgs {
    out: Address,
    positions: Address,
    sequences: Address,
    inv_freq: Address,
    other: Address,
    magnitude: f32,
    theta: f32,
    factor: f32,
    limit: u32,
    beyond: u32,
    pairs: u32,
}

impl Ropes {
    pub(crate) fn load<G: Gpu>(gpu: &mut G) -> Result<Self, Error> {
        Ok(Self { table: kernel::<RopeArgs, G>(gpu, "rope.cu", "rope_table")? })
    }

    /// Cosines, then sines, of each row's position: `out` `[rows, 2 * inv_freq.len()]`.
    pub(crate) fn table(
        &self,
        record: &mut Record,
        payload: &mut Payload,
        rows: &Rows,
        rope: &Rope,
        out: &Tensor,
    ) {
        let pairs = rope.inv_freq.len();
        assert_eq!(out.kind, Kind::F32, "angles are exact");
        let args = RopeArgs {
            out: out.of(rows.rows, 2 * pairs).address,
            positions: rows.positions,
            sequences: rows.sequences,
            // The same in each step, at the same address in steps that are launched alike.
            inv_freq: payload.list(&rope.inv_freq, pairs, 0.0),
            other: 0,
            magnitude: rope.magnitude,
            theta: 0.0,
            factor: 0.0,
            limit: 0,
            beyond: 0,
            pairs: pairs as u32,
        };
        let args = match &rope.beyond {
            None => args,
            Some(Beyond::Long { limit, inv_freq }) => {
                assert_eq!(inv_freq.len(), pairs, "long frequencies");
                let other = payload.list(inv_freq, pairs, 0.0);
                RopeArgs { other, limit: *limit, beyond: 1, ..args }
            }
            &Some(Beyond::Dynamic { limit, theta, factor }) => {
                RopeArgs { theta, factor, limit, beyond: 2, ..args }
            }
        };
        record.launch(self.table, blocks(rows.rows, THREADS), &args);
    }
}
