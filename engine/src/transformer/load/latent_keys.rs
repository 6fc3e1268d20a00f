//! The key matrices of latent attention, turned for their absorbed use.
//!
//! A file keeps each head's `[plain, latent]`; queries are taken to the latent by its transpose.
//! Turning needs numbers, so a quantized one is widened: to f32 where the model computes in
//! float32, else to 16 bits. It is a few per cent of a model's weights.

use kernels::{Compute, Format, MatrixPart, Precision};

use super::Loader;
use super::numbers::{narrow, widen};
use crate::spec::{LatentSpec, LayerPart, Role};
use crate::start::StartError;

impl<C: Compute> Loader<'_, C> {
    /// `[heads * latent, plain]`.
    pub(super) fn key_up(
        &mut self,
        n: usize,
        heads: usize,
        latent: &LatentSpec,
    ) -> Result<C::Matrix, StartError> {
        let role = Role::Layer(n, LayerPart::KeyUp);
        let (rows, cols) = (heads * latent.latent, latent.plain);
        if latent.keys_transposed {
            return self.matrix(&[(role, rows)], cols);
        }
        let view = self.weights.tensor(role, heads * latent.plain, latent.latent)?;
        let wide = widen(&view)?;
        let mut turned = vec![0.0; wide.len()];
        let block = latent.plain * latent.latent;
        for (from, to) in wide.chunks_exact(block).zip(turned.chunks_exact_mut(block)) {
            for (i, row) in from.chunks_exact(latent.latent).enumerate() {
                for (j, &x) in row.iter().enumerate() {
                    to[j * latent.plain + i] = x;
                }
            }
        }
        let format = match (self.precision, view.format) {
            (Precision::Float32, _) | (_, Format::F32) => Format::F32,
            (_, Format::Bf16) => Format::Bf16,
            _ => Format::F16,
        };
        let bytes = narrow(&turned, format);
        self.load(&[MatrixPart { format, rows, cols, bytes: &bytes, order: None }])
    }
}
