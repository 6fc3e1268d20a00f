//! Stored matrices as numbers and back, where a device is to get them in another form than the
//! file's.

use half::{bf16, f16};
use kernels::Format;
use kernels::reference::dequant;

use crate::start::StartError;
use crate::weights::TensorView;

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

/// In an element type: bf16, f16, or else f32.
pub(super) fn narrow(values: &[f32], format: Format) -> Vec<u8> {
    match format {
        Format::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        Format::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}
