//! The key matrices of latent attention, turned for their absorbed use.
//!
//! A file keeps each head's `[plain, latent]`; queries are taken to the latent by its transpose.
//! Turning needs numbers, so a quantized one is widened: to f32 where the model computes in
//! float32, else to 16 bits. It is a few per cent of a model's weights.

use half::{bf16, f16};
use kernels::reference::dequant;
use kernels::{Compute, Format, MatrixPart, Precision};

use super::Loader;
use crate::spec::{LatentSpec, LayerPart, Role};
use crate::start::StartError;
use crate::weights::TensorView;

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

/// The numbers of a tensor.
pub(super) fn widen(view: &TensorView<'_>) -> Result<Vec<f32>, StartError> {
    if view.order.is_some() {
        let problem = "a matrix that has to be widened is stored in another order".to_owned();
        return Err(StartError::Unsupported(problem));
    }
    let mut wide = vec![0.0; view.rows * view.cols];
    let row_bytes = view.format.row_bytes(view.cols);
    let rows = view.bytes.chunks_exact(row_bytes).zip(wide.chunks_exact_mut(view.cols));
    for (bytes, row) in rows {
        dequant::row(view.format, bytes, row);
    }
    Ok(wide)
}

fn narrow(values: &[f32], format: Format) -> Vec<u8> {
    match format {
        Format::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        Format::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}
