//! Quantized containers of Hugging Face checkpoints: how one matrix is stored as several tensors.
//!
//! config.json says which container a checkpoint uses; what a single matrix is stored as, its
//! tensors say, because lists of exceptions in config.json are kept by hand and often wrong. Each
//! container finds the tensors of a matrix, checks their types and shapes and writes rows in one
//! of the kernels' formats, whose values are exactly the container's. None knows roles or
//! families.

use std::path::Path;

use kernels::{Format, Group};

use super::matrix::{Matrix, Opened};
use super::shards::{Tensor, Tensors};
use super::{LoadError, Slab, shown};
use crate::config::Fields;

mod awq;
mod bitsandbytes;
mod blocks;
mod columns;
mod compressed;
mod fp8;
mod gptq;
mod grid;
mod mxfp4;
mod pattern;
mod plain;
#[cfg(test)]
mod tests;

/// See `fp8`.
pub(super) const INPUTS_NOT_ROUNDED: &str = "the files ask for activations rounded to 8 bits; \
    they are not rounded here, so input scales have no effect";

/// How a checkpoint stores its quantized matrices.
pub(crate) enum Container {
    /// None are quantized.
    Plain,
    /// Codes packed along the input, a scale and a zero point per group.
    Gptq(gptq::Settings),
    /// Codes packed along the output.
    Awq(awq::Settings),
    /// 8-bit floats with scales.
    Fp8(fp8::Settings),
    /// The compressed-tensors library's several layouts.
    Compressed(compressed::Settings),
    /// 4-bit floats of gpt-oss's experts.
    Mxfp4,
    /// bitsandbytes' 4-bit tables and 8-bit integers.
    Bitsandbytes,
}

/// A matrix or vector that is looked for.
#[derive(Clone, Copy)]
pub(super) struct Want<'n> {
    /// Its name, `.weight` or `.bias` included where there is one.
    pub(super) name: &'n str,
    /// Rows of the stored matrix; elements of a vector.
    pub(super) rows: usize,
    /// Columns; 1 for a vector.
    pub(super) cols: usize,
    /// One of a stack.
    pub(super) slab: Option<Slab>,
    /// Plain tensors are stored `[cols, rows]`.
    pub(super) transposed: bool,
    /// It has one dimension.
    pub(super) vector: bool,
}

impl<'n> Want<'n> {
    /// The name of what has a weight, which other tensors of a container start with.
    fn module(&self) -> &'n str {
        self.name.strip_suffix(".weight").unwrap_or(self.name)
    }

    /// For containers that have no stacks of matrices and no other direction.
    fn single(&self, container: &str, tensor: &Tensor<'_>) -> Result<(), LoadError> {
        let what = match (self.slab, self.transposed) {
            (None, false) => return Ok(()),
            (Some(_), _) => "stacked matrices",
            (None, true) => "matrices stored [in, out]",
        };
        Err(tensor.wrong(format!("is stored as {container}; {what} are not supported in it")))
    }
}

/// What was found for a [`Want`].
pub(super) struct Found<'a> {
    pub(super) opened: Opened<'a>,
    /// The names of all tensors that it is made of.
    pub(super) used: Vec<&'a str>,
    /// It is in the checkpoint's container.
    pub(super) quantized: bool,
}

impl<'a> Found<'a> {
    fn coded(matrix: impl Matrix + 'a, used: &[Tensor<'a>]) -> Self {
        let used = used.iter().map(|tensor| tensor.name).collect();
        Self { opened: Opened::Coded(Box::new(matrix)), used, quantized: true }
    }
}

impl Container {
    /// Reads config.json's `quantization_config`, or the file that stands for it.
    ///
    /// # Errors
    /// A container that is not supported, or settings that make no sense.
    pub(crate) fn read(config: &Fields, beside: Option<&Fields>) -> Result<Self, LoadError> {
        for key in ["quantization_config", "compression_config"] {
            if let Some(fields) = config.object(key)? {
                return Self::from_fields(&fields);
            }
        }
        if let Some(text) = config.object("text_config")?
            && let Some(fields) = text.object("quantization_config")?
        {
            return Self::from_fields(&fields);
        }
        match beside {
            None => Ok(Self::Plain),
            Some(file) => match file.object("quantization")? {
                Some(fields) => Ok(Self::Fp8(fp8::Settings::modelopt(&fields)?)),
                None => Self::from_fields_of(file, file.word("quant_method")?.unwrap_or("gptq")),
            },
        }
    }

    /// The file beside config.json that names a container, if config.json does not.
    pub(crate) fn files() -> [&'static str; 2] {
        ["hf_quant_config.json", "quantize_config.json"]
    }

    fn from_fields(fields: &Fields) -> Result<Self, LoadError> {
        match fields.word("quant_method")? {
            Some(method) => Self::from_fields_of(fields, method),
            None if fields.get("quant_algo").is_some() => {
                Ok(Self::Fp8(fp8::Settings::modelopt(fields)?))
            }
            None => Err(fields.wrong("quant_method", "is missing")),
        }
    }

    fn from_fields_of(fields: &Fields, method: &str) -> Result<Self, LoadError> {
        Ok(match method {
            "gptq" => Self::Gptq(gptq::Settings::read(fields)?),
            "awq" => Self::Awq(awq::Settings::read(fields)?),
            "fp8" | "fbgemm_fp8" => Self::Fp8(fp8::Settings::read(fields)?),
            "modelopt" => Self::Fp8(fp8::Settings::modelopt(fields)?),
            "compressed-tensors" => Self::Compressed(compressed::Settings::read(fields)?),
            "mxfp4" => Self::Mxfp4,
            "bitsandbytes" => Self::Bitsandbytes,
            other => {
                let problem = format!(
                    "quantization method {} is not supported; gptq, awq, fp8, fbgemm_fp8, \
                     modelopt (FP8), compressed-tensors, mxfp4 and bitsandbytes are",
                    shown(other)
                );
                return Err(fields.wrong("quant_method", &problem));
            }
        })
    }

    /// As config.json spells it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Plain => "none",
            Self::Gptq(_) => "gptq",
            Self::Awq(_) => "awq",
            Self::Fp8(_) => "fp8",
            Self::Compressed(_) => "compressed-tensors",
            Self::Mxfp4 => "mxfp4",
            Self::Bitsandbytes => "bitsandbytes",
        }
    }

    /// What of it has no effect here, for the operator.
    pub(super) fn note(&self) -> Option<&'static str> {
        let rounds = match self {
            Self::Fp8(_) => true,
            Self::Compressed(settings) => settings.rounds_inputs,
            _ => false,
        };
        rounds.then_some(INPUTS_NOT_ROUNDED)
    }

    /// Finds the tensors of a matrix or vector. Reads no weights.
    ///
    /// # Errors
    /// Missing, of another type or shape, or stored twice.
    pub(super) fn open<'a>(
        &self,
        tensors: &'a Tensors,
        want: &Want<'_>,
    ) -> Result<Found<'a>, LoadError> {
        if !want.vector {
            let quantized = match self {
                Self::Plain => None,
                Self::Gptq(settings) => gptq::open(settings, tensors, want)?,
                Self::Awq(settings) => awq::open(settings, tensors, want)?,
                Self::Fp8(settings) => fp8::open(settings, tensors, want)?,
                Self::Compressed(settings) => compressed::open(settings, tensors, want)?,
                Self::Mxfp4 => mxfp4::open(tensors, want)?,
                Self::Bitsandbytes => bitsandbytes::open(tensors, want)?,
            };
            if let Some(found) = quantized {
                return Ok(found);
            }
        }
        plain::open(tensors, want, matches!(self, Self::Plain))
    }
}

/// Reads the first of [`Container::files`] that a folder has.
pub(crate) fn beside(folder: &Path, bytes_max: u64) -> Result<Option<Fields>, LoadError> {
    for name in Container::files() {
        let path = folder.join(name);
        if path.exists() {
            let bytes = super::read_small(&path, bytes_max)?;
            return Ok(Some(Fields::parse(&path, &bytes)?));
        }
    }
    Ok(None)
}

/// The longest of the kernels' groups that fits into groups of `group` elements and into rows of
/// `cols`; containers with longer groups have their scale repeated.
fn group_within(tensor: &Tensor<'_>, group: usize, cols: usize) -> Result<Group, LoadError> {
    let fits =
        |known: &&Group| group.is_multiple_of(known.len()) && cols.is_multiple_of(known.len());
    Group::ALL.iter().rev().find(fits).copied().ok_or_else(|| {
        tensor.wrong(format!(
            "has a scale for {group} elements in rows of {cols}; both have to be multiples of {}",
            Group::G32.len()
        ))
    })
}

/// The format of codes of so many bits.
fn codes_of(bits: usize, group: Group) -> Option<Format> {
    match bits {
        2 => Some(Format::U2(group)),
        3 => Some(Format::U3(group)),
        4 => Some(Format::U4(group)),
        8 => Some(Format::U8(group)),
        _ => None,
    }
}

fn bytes_of(tensors: &[Tensor<'_>]) -> u64 {
    tensors.iter().map(|tensor| tensor.bytes.len() as u64).sum()
}
