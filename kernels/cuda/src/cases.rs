//! The kernels against their plain references: one table per op, for any device. Tests run the
//! tables on the emulator, `hearth doctor --gpu` on the card at hand.

use kernels::{Compute, Drawn, Kept, Precision, Segment, Step};

use crate::device::{Cuda, CudaConfig};
use crate::gpu::Gpu;
use crate::tensor::{Kind, Tensor};

mod activation;
mod attention;
mod experts;
mod gather;
mod low_rank;
mod matmul;
mod matrix;
mod norm;
mod pages;
mod project;
mod rope;
pub(crate) mod sample;

pub(crate) use kernels::reference::numbers::Numbers;

/// What a case gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The op and what is odd about the case.
    pub name: String,
    /// Greatest difference to the reference, in units of the case's own scale. NaN where one of
    /// the two held a NaN that the other did not.
    pub error: f32,
    /// What is allowed.
    pub limit: f32,
}

impl Outcome {
    /// Whether it is within its limit.
    #[must_use]
    pub fn passed(&self) -> bool {
        // A NaN is no pass.
        self.error <= self.limit
    }

    /// Compares numbers; `scale` is what an error of 1 is: the size of the sums they come from.
    pub(crate) fn of(name: String, got: &[f32], want: &[f32], scale: f32, limit: f32) -> Self {
        assert_eq!(got.len(), want.len(), "{name}");
        let difference = |(got, want): (&f32, &f32)| match (got.is_nan(), want.is_nan()) {
            (true, true) => 0.0,
            _ if got == want => 0.0,
            _ => (got - want).abs() / scale,
        };
        // `max` drops NaNs: here they must stay.
        let worst = |a: f32, b: f32| if b.is_nan() || b > a { b } else { a };
        let error = got.iter().zip(want).map(difference).fold(0.0, worst);
        Self { name, error, limit }
    }
}

/// Opens a fresh device for a case.
pub type Open<'a, G> = &'a mut dyn FnMut(CudaConfig) -> Cuda<G>;

/// All tables.
pub fn all<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let tables = [
        norm::cases::<G>,
        activation::cases::<G>,
        experts::cases::<G>,
        low_rank::cases::<G>,
        matrix::cases::<G>,
        gather::cases::<G>,
        matmul::cases::<G>,
        rope::cases::<G>,
        project::cases::<G>,
        attention::cases::<G>,
        sample::cases::<G>,
    ];
    tables.iter().flat_map(|table| table(open)).collect()
}

/// A device that any case could ask for.
#[must_use]
pub fn small() -> CudaConfig {
    config(Precision::Float32, 8)
}

/// A device for steps of up to `rows` rows.
pub(crate) fn config(precision: Precision, rows: usize) -> CudaConfig {
    CudaConfig {
        precision,
        rows_max: rows,
        slots: 4,
        context_max: 512,
        vocab: 300,
        width_max: 1024,
        attended_max: 1024,
        graphs: false,
    }
}

/// The precisions, and the unit of the last place of the numbers that products read in them.
pub(crate) const PRECISIONS: [(Precision, f32); 3] = [
    (Precision::Float32, f32::EPSILON),
    (Precision::Bfloat16, 1.0 / 256.0),
    (Precision::Float16, 1.0 / 2048.0),
];

/// The value that a tensor of `kind` keeps of `x`.
pub(crate) fn rounded(kind: Kind, x: f32) -> f32 {
    match kind {
        Kind::F32 => x,
        Kind::Bf16 => half::bf16::from_f32(x).to_f32(),
        Kind::F16 => half::f16::from_f32(x).to_f32(),
    }
}

/// As [`rounded`], each.
pub(crate) fn all_rounded(kind: Kind, x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| rounded(kind, x)).collect()
}

/// What tests of ops do with a device.
pub(crate) trait Bench {
    /// A tensor of these rows.
    fn put(&mut self, rows: usize, values: &[f32], kept: Kept) -> Tensor;
    /// An empty tensor, full of NaN.
    fn blank(&mut self, rows: usize, width: usize, kept: Kept) -> Tensor;
    /// Begins a step of `rows` rows of slot 0 that needs no pages.
    fn begin_rows(&mut self, rows: usize);
    /// Ends the step and waits.
    fn finish(&mut self) -> Drawn;
    /// The first rows of a tensor. Call it after [`Bench::finish`].
    fn get(&mut self, x: &Tensor, rows: usize) -> Vec<f32>;
}

impl<G: Gpu> Bench for Cuda<G> {
    fn put(&mut self, rows: usize, values: &[f32], kept: Kept) -> Tensor {
        let width = values.len() / rows;
        let tensor = self.blank(rows, width, kept);
        self.write(&tensor, values);
        tensor
    }

    fn blank(&mut self, rows: usize, width: usize, kept: Kept) -> Tensor {
        let tensor = self.tensor(rows, width, kept).expect("memory");
        let bytes = tensor.bytes(tensor.rows);
        self.gpu().fill(tensor.address, bytes, 0xff);
        tensor
    }

    fn begin_rows(&mut self, rows: usize) {
        let mut cache = self.cache(kernels::CacheShape {
            layers: 1,
            pages: 1,
            page_tokens: 16,
            kv_heads: 1,
            head_dim: 8,
            values: kernels::CacheValues::Own,
            element: kernels::CacheElement::Bf16,
            slots: 1,
            pages_per_slot: 1,
        });
        let cache = cache.as_mut().expect("memory");
        let segment =
            Segment { slot: 0, first: 0, len: rows as u32, row: 0, late: false, adapter: 0 };
        let tokens = vec![0; rows];
        self.begin(Step { tokens: &tokens, segments: &[segment], grants: &[] }, cache);
    }

    fn finish(&mut self) -> Drawn {
        self.end();
        let mut drawn = Drawn::default();
        self.collect(&mut drawn).expect("no fault");
        drawn
    }

    fn get(&mut self, x: &Tensor, rows: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows * x.width];
        for (row, out) in out.chunks_exact_mut(x.width).enumerate() {
            self.read(x, row, out);
        }
        out
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Open, Outcome};
    use crate::device::Cuda;
    use crate::emulator::Emulator;

    /// Runs a table on the emulator, each case with another order of threads and blocks.
    pub(crate) fn check(table: fn(Open<'_, Emulator>) -> Vec<Outcome>) {
        let mut seed = 0;
        let outcomes = table(&mut |config| {
            seed += 1;
            Cuda::new(Emulator::new(seed), config).expect("a device")
        });
        assert!(!outcomes.is_empty(), "an empty table");
        let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed()).collect();
        assert!(failed.is_empty(), "{} of {}: {failed:#?}", failed.len(), outcomes.len());
    }
}
