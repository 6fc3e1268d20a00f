//! Tensors by name, widened to f32: the small ones that stand behind a model (poolers,
//! classifiers) and are computed on the host.

use std::borrow::Cow;

use super::shards::{Tensor, Tensors};
use super::{LoadError, TensorView, widen};

const TYPES: [&str; 3] = ["F32", "F16", "BF16"];

impl Tensors {
    /// The elements of a tensor of this shape, outermost dimension first; `None`: there is none
    /// of this name.
    ///
    /// # Errors
    /// It has another shape, or elements that are not floating point.
    pub(crate) fn plain(&self, name: &str, dims: &[usize]) -> Result<Option<Vec<f32>>, LoadError> {
        self.find(name).map(|tensor| elements(&tensor, dims)).transpose()
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// As [`Tensors::plain`], and it has to be there.
    ///
    /// # Errors
    /// As [`Tensors::plain`]; or it is missing.
    pub(crate) fn need_plain(&self, name: &str, dims: &[usize]) -> Result<Vec<f32>, LoadError> {
        self.plain(name, dims)?.ok_or_else(|| self.missing(name))
    }
}

fn elements(tensor: &Tensor<'_>, dims: &[usize]) -> Result<Vec<f32>, LoadError> {
    tensor.expect(&TYPES, dims)?;
    let wrong = || tensor.wrong("is not of plain numbers");
    let format = tensor.dtype.format.ok_or_else(wrong)?;
    let cols = dims.iter().product();
    let bytes = Cow::Borrowed(tensor.bytes);
    widen(&TensorView { format, rows: 1, cols, bytes, order: None }).ok_or_else(wrong)
}
