//! The gated activation of a decoder's MLP.

use super::isa::Isa;
use super::lanes::{Kernel, LANES, Lanes, dispatch};
use super::math::silu;
use super::pool::Pool;
use super::rows::for_rows;
use super::tensor::Shared;

/// `out = silu(gate) * up`.
struct SiluMul<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for SiluMul<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let (gate, gate_rest) = self.gate.as_chunks::<LANES>();
        let (up, up_rest) = self.up.as_chunks::<LANES>();
        let (out, out_rest) = self.out.as_chunks_mut::<LANES>();
        for ((gate, up), out) in gate.iter().zip(up).zip(out) {
            s.store(out, s.mul(silu(s, s.load(gate)), s.load(up)));
        }
        let rest = s.mul(silu(s, s.load_part(gate_rest, 0.0)), s.load_part(up_rest, 0.0));
        s.store_part(out_rest, rest);
    }
}

/// `out[r][i] = silu(gate_up[r][i]) * gate_up[r][width + i]` for rows of `out` of `width`.
pub(crate) fn silu_mul(pool: &Pool, isa: Isa, gate_up: &[f32], out: &mut [f32], width: usize) {
    assert_eq!(gate_up.len(), 2 * out.len(), "gate and up are twice as wide as the result");
    let (rows, out) = (out.len() / width, Shared::new(out));
    for_rows(pool, rows, width, &|range, _| {
        for row in range {
            let (gate, up) = gate_up[row * 2 * width..][..2 * width].split_at(width);
            // SAFETY: each row belongs to one task.
            let out = unsafe { out.part(row * width, width) };
            dispatch(isa, SiluMul { gate, up, out });
        }
    });
}
