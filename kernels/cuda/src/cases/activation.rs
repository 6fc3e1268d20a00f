//! The functions inside an MLP and gates of rows.

use kernels::{Activation, Compute, Kept, Precision, reference};

use super::{Bench, Numbers, Open, Outcome, PRECISIONS, all_rounded, config};
use crate::device::CudaConfig;
use crate::gpu::Gpu;
use crate::tensor::Kind;

const ACTIVATIONS: [Activation; 6] = [
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::ReluSquared,
    Activation::Clamped { alpha: 1.702, limit: 7.0 },
];

/// Rows, width, copies of each row: one element, odd widths, whole blocks, more than a block.
const SHAPES: [(usize, usize, usize); 6] =
    [(1, 1, 1), (3, 7, 2), (9, 130, 1), (2, 256, 3), (5, 896, 1), (1, 2056, 1)];

/// The exponential multiplies the rounding of its argument by the argument: up to 90, and that is
/// rounded three times in Gelu's tanh form.
const ULPS: f32 = 128.0;

pub(super) fn cases<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let mut out = Vec::new();
    for (precision, unit) in PRECISIONS {
        for shape in SHAPES {
            out.extend(activations(open, (precision, unit), shape));
            out.push(gate(open, (precision, unit), shape));
        }
    }
    out.extend(far_out(open));
    out
}

/// Differences in units of the result; those of small ones in units of `floor`.
pub(super) fn relative(
    name: String,
    (got, want): (&[f32], &[f32]),
    floor: f32,
    limit: f32,
) -> Outcome {
    let by = |x: &[f32]| -> Vec<f32> {
        x.iter().zip(want).map(|(x, want)| x / want.abs().max(floor)).collect()
    };
    Outcome::of(name, &by(got), &by(want), 1.0, limit)
}

fn activations<G: Gpu>(
    open: Open<'_, G>,
    (precision, unit): (Precision, f32),
    (rows, width, copies): (usize, usize, usize),
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let kind = Kind::of(Kept::Rounded, precision);
    let mut device = open(CudaConfig { width_max: 2 * width, ..config(precision, rows) });
    for (f, gated) in ACTIVATIONS.into_iter().flat_map(|f| [(f, true), (f, false)]) {
        if !gated && matches!(f, Activation::Clamped { .. }) {
            continue;
        }
        let (all, from) = (rows * copies, if gated { 2 * width } else { width });
        let x = all_rounded(kind, &Numbers::new(width as u64).list(all * from, 4.0));
        let row = |row: &[f32]| reference::activation::activate(f, gated, row);
        let want: Vec<f32> = x.chunks(from).flat_map(row).collect();
        let x = device.put(all, &x, Kept::Rounded);
        let mut out = device.blank(all, width, Kept::Rounded);
        device.begin_rows(rows);
        device.activate(&x, f, gated, copies, &mut out);
        device.finish();
        let name = format!("activate {f:?} gated {gated} {rows}x{width} by {copies} {precision:?}");
        // A unit is the rounding of what is stored.
        let limit = unit + ULPS * f32::EPSILON;
        // Of what f16 keeps as a subnormal only the step, 2^-24, is sure.
        outcomes.push(relative(name, (&device.get(&out, all), &want), 1e-3, limit));
    }
    outcomes
}

fn gate<G: Gpu>(
    open: Open<'_, G>,
    (precision, unit): (Precision, f32),
    (rows, width, _): (usize, usize, usize),
) -> Outcome {
    let mut device = open(CudaConfig { width_max: width, ..config(precision, rows) });
    let kind = Kind::of(Kept::Rounded, precision);
    let mut numbers = Numbers::new(width as u64);
    let x = all_rounded(kind, &numbers.list(rows * width, 2.0));
    // Only the first column counts.
    let gates = all_rounded(kind, &numbers.list(rows * 3, 3.0));
    let row = |(x, gate): (&[f32], &[f32])| reference::activation::gate(x, gate[0]);
    let want: Vec<f32> = x.chunks(width).zip(gates.chunks(3)).flat_map(row).collect();
    let mut x = device.put(rows, &x, Kept::Rounded);
    let gates = device.put(rows, &gates, Kept::Rounded);
    device.begin_rows(rows);
    device.gate_rows(&mut x, &gates);
    device.finish();
    let name = format!("gate_rows {rows}x{width} {precision:?}");
    let limit = unit + 8.0 * f32::EPSILON;
    relative(name, (&device.get(&x, rows), &want), 1e-3, limit)
}

/// Numbers that are none, and numbers far out: by both variants.
fn far_out<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let x = [f32::INFINITY, 1e30, -1e30, 0.0, -0.0, 50.0, -50.0, f32::NAN];
    let mut outcomes = Vec::new();
    let mut device = open(config(Precision::Float32, 1));
    for (f, width) in ACTIVATIONS[..5].iter().flat_map(|&f| [(f, 7), (f, 8)]) {
        let mut want = reference::activation::activate(f, false, &x[8 - width..]);
        want[width - 1] = f32::NAN;
        let x = device.put(1, &x[8 - width..], Kept::Exact);
        let mut out = device.blank(1, width, Kept::Exact);
        device.begin_rows(1);
        device.activate(&x, f, false, 1, &mut out);
        device.finish();
        let name = format!("activate {f:?} far out {width}");
        let limit = ULPS * f32::EPSILON;
        outcomes.push(relative(name, (&device.get(&out, 1), &want), 1e-3, limit));
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use crate::cases::tests::check;

    #[test]
    fn equals_the_reference() {
        check(super::cases);
    }
}
