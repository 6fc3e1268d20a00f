//! 8-bit floats (e4m3) with scales: one for a tensor, one for each row, or one for each block of
//! rows and columns (DeepSeek's and Qwen's `fp8`, Meta's `fbgemm_fp8`, NVIDIA's ModelOpt).
//!
//! ```text
//! weight            F8_E4M3 [out, in]
//! weight_scale      [], [out, 1] or [out]
//! weight_scale_inv  [ceil(out / high), ceil(in / wide)]; in spite of its name it multiplies
//! W = weight * scale
//! ```
//!
//! These checkpoints ask for activations rounded to 8-bit floats as well, with scales that are
//! stored (`input_scale`) or found on the way. That is a faster approximation of the product and
//! not part of what the weights mean: activations are not rounded here, so `input_scale` has no
//! effect.

use kernels::{Format, Group};

use super::super::LoadError;
use super::super::matrix::Matrix;
use super::super::shards::{Tensor, Tensors};
use super::grid::Grid;
use super::{Found, Want, bytes_of, group_within, plain, shown};
use crate::config::Fields;

const NAME: &str = "fp8";
/// What published checkpoints with blocks have.
const BLOCK: [usize; 2] = [128, 128];
const BLOCK_MAX: u64 = 1 << 20;

/// What config.json says.
pub(crate) struct Settings {
    /// Rows and columns of a block.
    block: [usize; 2],
}

impl Settings {
    pub(super) fn read(fields: &Fields) -> Result<Self, LoadError> {
        if let Some(format) = fields.word("fmt")?.filter(|&format| format != "e4m3") {
            let problem = format!("{} is not supported; e4m3 is", shown(format));
            return Err(fields.wrong("fmt", &problem));
        }
        let block = match fields.get("weight_block_size") {
            None => BLOCK,
            Some(value) => block_of(value).ok_or_else(|| {
                fields.wrong("weight_block_size", "wanted a list of two numbers of elements")
            })?,
        };
        Ok(Self { block })
    }

    /// Reads ModelOpt's settings.
    pub(super) fn modelopt(fields: &Fields) -> Result<Self, LoadError> {
        match fields.word("quant_algo")? {
            Some("FP8" | "FP8_PER_CHANNEL_PER_TOKEN" | "FP8_PB_WO") => Ok(Self { block: BLOCK }),
            Some(other) => {
                let problem = format!("{} is not supported; FP8 is", shown(other));
                Err(fields.wrong("quant_algo", &problem))
            }
            None => Err(fields.wrong("quant_algo", "is missing")),
        }
    }
}

/// `[high, wide]` out of a configuration.
pub(super) fn block_of(value: &serde_json::Value) -> Option<[usize; 2]> {
    let [high, wide] = value.as_array()?.as_slice() else { return None };
    let size = |value: &serde_json::Value| {
        value.as_u64().filter(|size| (1..=BLOCK_MAX).contains(size)).map(|size| size as usize)
    };
    Some([size(high)?, size(wide)?])
}

/// Opens a matrix, if it is stored so.
pub(super) fn open<'a>(
    settings: &Settings,
    tensors: &'a Tensors,
    want: &Want<'_>,
) -> Result<Option<Found<'a>>, LoadError> {
    let weight = tensors.find(want.name).filter(|tensor| tensor.dtype.name == "F8_E4M3");
    let Some(weight) = weight else { return Ok(None) };
    let module = want.module();
    let scale = |name: &str| tensors.find(&format!("{module}.{name}"));
    let scale = match (scale("weight_scale_inv"), scale("weight_scale")) {
        (Some(scale), None) | (None, Some(scale)) => scale,
        (None, None) => return Err(tensors.missing(&format!("{module}.weight_scale"))),
        (Some(_), Some(scale)) => return Err(scale.wrong("stands beside weight_scale_inv")),
    };
    scaled(weight, scale, settings.block, want).map(Some)
}

/// A matrix of e4m3 with scales.
pub(super) fn scaled<'a>(
    weight: Tensor<'a>,
    scale: Tensor<'a>,
    block: [usize; 2],
    want: &Want<'_>,
) -> Result<Found<'a>, LoadError> {
    want.single(NAME, &weight)?;
    let &Want { rows, cols, .. } = want;
    weight.expect(&["F8_E4M3"], &[rows, cols])?;
    let scale = Grid::new(scale, rows, cols, Some(block))?;
    let group = group_within(&scale.tensor(), scale.wide(), cols).ok();
    let used = [weight, scale.tensor()];
    let bytes = bytes_of(&used);
    Ok(Found::coded(Scaled { weight, scale, group, cols, bytes }, &used))
}

struct Scaled<'a> {
    weight: Tensor<'a>,
    scale: Grid<'a>,
    /// `None`: rows are not made of whole groups, and are written as f32.
    group: Option<Group>,
    cols: usize,
    bytes: u64,
}

impl Matrix for Scaled<'_> {
    fn format(&self) -> Format {
        self.group.map_or(Format::F32, Format::F8E4M3)
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn prepare(&mut self) -> Result<Option<Vec<u32>>, LoadError> {
        self.scale.prepare()?;
        Ok(None)
    }

    fn write(&self, first: usize, out: &mut [u8]) {
        let row_bytes = self.format().row_bytes(self.cols);
        for (row, out) in (first..).zip(out.chunks_exact_mut(row_bytes)) {
            let codes = &self.weight.bytes[row * self.cols..][..self.cols];
            let Some(group) = self.group.map(Group::len) else {
                for (col, (out, &code)) in out.chunks_exact_mut(4).zip(codes).enumerate() {
                    let value = plain::e4m3(code).to_f32() * self.scale.at(row, col);
                    out.copy_from_slice(&value.to_le_bytes());
                }
                continue;
            };
            let codes = codes.chunks_exact(group);
            for (at, (out, codes)) in out.chunks_exact_mut(4 + group).zip(codes).enumerate() {
                let scale = self.scale.at(row, at * group);
                out[..4].copy_from_slice(&scale.to_le_bytes());
                out[4..].copy_from_slice(codes);
            }
        }
    }
}
