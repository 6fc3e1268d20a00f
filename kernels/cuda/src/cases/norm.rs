//! Norms and additions.

use kernels::{Compute, Kept, Norm, NormKind, reference};

use super::{Bench, Numbers, Open, Outcome, PRECISIONS, all_rounded, config};
use crate::device::CudaConfig;
use crate::gpu::Gpu;
use crate::tensor::Kind;

const EPS: f32 = 1e-5;

/// Rows and width: one element, less than a warp, odd, a whole block, more than registers hold.
const SHAPES: [(usize, usize); 6] = [(1, 1), (3, 7), (9, 130), (2, 256), (5, 896), (2, 8200)];

pub(super) fn cases<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let mut out = Vec::new();
    for (precision, unit) in PRECISIONS {
        for (rows, width) in SHAPES {
            for kind in [NormKind::Rms, NormKind::Layer] {
                let width_max = width.max(1024);
                let mut device = open(CudaConfig { width_max, ..config(precision, rows) });
                let rounded = Kind::of(Kept::Rounded, precision);
                let mut numbers = Numbers::new(width as u64);
                let x = numbers.list(rows * width, 2.0);
                let delta = all_rounded(rounded, &numbers.list(rows * width, 1.0));
                let (weight, bias) = (numbers.list(width, 1.0), numbers.list(width, 0.5));

                let mut residual = device.put(rows, &x, Kept::Exact);
                let added = device.put(rows, &delta, Kept::Rounded);
                let mut normed = device.blank(rows, width, Kept::Rounded);
                let [w, b] = [&weight, &bias].map(|v| device.load_vector(v).expect("memory"));
                let how = Norm { kind, weight: &w, bias: Some(&b), eps: EPS };
                device.begin_rows(rows);
                device.add_norm(&mut residual, &added, 0.5, &how, &mut normed);
                device.add(&mut residual, &added, -0.5);
                device.finish();

                let sums: Vec<f32> = x.iter().zip(&delta).map(|(x, d)| x + 0.5 * d).collect();
                let want: Vec<f32> = sums
                    .chunks(width)
                    .flat_map(|row| reference::norm::norm(kind, row, &weight, Some(&bias), EPS))
                    .collect();
                let name = format!("add_norm {kind:?} {rows}x{width} {precision:?}");
                // A norm gives numbers of about 1, here up to 12; sums of n squares lose some ulp.
                let limit = 8.0 * unit.max(16.0 * f32::EPSILON);
                let got = device.get(&normed, rows);
                out.push(Outcome::of(name.clone(), &got, &want, 1.0, limit));
                let got = device.get(&residual, rows);
                out.push(Outcome::of(format!("{name}: add"), &got, &x, 1.0, 8.0 * f32::EPSILON));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn equal_the_reference() {
        check(super::cases);
    }
}
