//! bitsandbytes: 4-bit codes of a table (NF4, FP4) with an absolute maximum per block, and 8-bit
//! integers with one per row.
//!
//! ```text
//! weight                                U8 [out * in / 2, 1]   element 2i in the high half
//! weight.absmax                         F32 [blocks], or U8 where it is quantized once more:
//! weight.nested_absmax                  F32 [blocks / nested_blocksize]
//! weight.nested_quant_map               F32 [256]
//! weight.quant_map                      F32 [16]
//! weight.quant_state.bitsandbytes__nf4  U8, JSON: blocksize, shape, nested_offset, ...
//!
//! weight  I8 [out, in]      SCB  F32 [out]      W = weight * SCB / 127
//! ```
//! Blocks run through the whole matrix, row after row. absmax = nested_quant_map\[code\] *
//! nested_absmax + nested_offset. Layout: the library's `QuantState.as_dict`.

use kernels::{Format, Group};
use serde::Deserialize;

use super::super::LoadError;
use super::super::matrix::Matrix;
use super::super::shards::{Tensor, Tensors};
use super::{Found, Want, blocks, bytes_of, grid, group_within};

const NAME: &str = "bitsandbytes";
/// Elements of a block of the kernels' formats.
const BLOCK: usize = 64;
/// The library's tables of 16 values; the kernels have the same ones.
const KINDS: [(&str, Format); 2] = [("nf4", Format::Nf4), ("fp4", Format::Fp4)];
/// The JSON has a dozen short fields.
const STATE_BYTES_MAX: usize = 4096;

#[derive(Deserialize)]
struct State {
    blocksize: usize,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f32>,
}

/// Opens a matrix, if it is stored so.
pub(super) fn open<'a>(
    tensors: &'a Tensors,
    want: &Want<'_>,
) -> Result<Option<Found<'a>>, LoadError> {
    let name = want.name;
    let Some(weight) = tensors.find(name) else { return Ok(None) };
    match weight.dtype.name {
        "I8" => integers(tensors, weight, want).map(Some),
        "U8" => {
            for (kind, format) in KINDS {
                let state = format!("{name}.quant_state.bitsandbytes__{kind}");
                if let Some(state) = tensors.find(&state) {
                    return halves(tensors, weight, state, format, want).map(Some);
                }
            }
            let problem = "has no quant_state.bitsandbytes__nf4 (or fp4) beside it";
            Err(weight.wrong(problem))
        }
        _ => Ok(None),
    }
}

fn integers<'a>(
    tensors: &'a Tensors,
    weight: Tensor<'a>,
    want: &Want<'_>,
) -> Result<Found<'a>, LoadError> {
    want.single(NAME, &weight)?;
    let &Want { rows, cols, .. } = want;
    weight.expect(&["I8"], &[rows, cols])?;
    let scale = tensors.need(&format!("{}.SCB", want.module()))?;
    scale.expect(&["F32"], &[rows])?;
    let mut used = vec![weight, scale];
    if let Some(layout) = tensors.find(&format!("{}.weight_format", want.module())) {
        // 0 is "row"; the others are layouts of particular GPUs.
        if layout.bytes.iter().any(|&byte| byte != 0) {
            return Err(layout.wrong("names a layout other than rows, which is not supported"));
        }
        used.push(layout);
    }
    let group = group_within(&weight, cols, cols)?;
    let bytes = bytes_of(&used);
    let matrix = Integers { weight, scale, group, cols, bytes, values: Vec::new() };
    Ok(Found::coded(matrix, &used))
}

struct Integers<'a> {
    weight: Tensor<'a>,
    scale: Tensor<'a>,
    group: Group,
    cols: usize,
    bytes: u64,
    /// The scales, once read.
    values: Vec<f32>,
}

impl Matrix for Integers<'_> {
    fn format(&self) -> Format {
        Format::U8(self.group)
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn prepare(&mut self) -> Result<Option<Vec<u32>>, LoadError> {
        self.values = grid::finite(&self.scale)?;
        Ok(None)
    }

    fn write(&self, first: usize, out: &mut [u8]) {
        let (group, row_bytes) = (self.group.len(), self.format().row_bytes(self.cols));
        for (row, out) in (first..).zip(out.chunks_exact_mut(row_bytes)) {
            let codes = self.weight.bytes[row * self.cols..][..self.cols].chunks_exact(group);
            for (out, codes) in out.chunks_exact_mut(blocks::HEAD + group).zip(codes) {
                blocks::head(out, self.values[row] / 127.0, 128);
                for (out, code) in out[blocks::HEAD..].iter_mut().zip(codes) {
                    *out = code ^ 0x80;
                }
            }
        }
    }
}

fn halves<'a>(
    tensors: &'a Tensors,
    weight: Tensor<'a>,
    state: Tensor<'a>,
    format: Format,
    want: &Want<'_>,
) -> Result<Found<'a>, LoadError> {
    want.single(NAME, &weight)?;
    let &Want { rows, cols, name, .. } = want;
    weight.expect(&["U8"], &[rows * cols / 2, 1])?;
    let json = state.bytes.get(..state.bytes.len().min(STATE_BYTES_MAX)).unwrap_or_default();
    let State { blocksize, shape, nested_blocksize, nested_offset } = serde_json::from_slice(json)
        .map_err(|e| state.wrong(format!("does not describe how its matrix is stored: {e}")))?;
    if shape != [rows, cols] {
        return Err(state.wrong(format!("says {shape:?}; config.json asks for {rows} x {cols}")));
    }
    if blocksize == 0 || !blocksize.is_multiple_of(BLOCK) || !cols.is_multiple_of(BLOCK) {
        let problem = format!(
            "has blocks of {blocksize} in rows of {cols}; both have to be multiples of {BLOCK}"
        );
        return Err(state.wrong(problem));
    }
    let blocks = (rows * cols).div_ceil(blocksize);
    let part = |what: &str| tensors.need(&format!("{name}.{what}"));
    let (absmax, map) = (part("absmax")?, part("quant_map")?);
    map.expect(&["F32"], &[16])?;
    let mut used = vec![weight, state, absmax, map];
    let nested = match (nested_blocksize, nested_offset) {
        (Some(size), Some(offset)) if size > 0 => {
            let (maxima, map) = (part("nested_absmax")?, part("nested_quant_map")?);
            absmax.expect(&["U8"], &[blocks])?;
            maxima.expect(&["F32"], &[blocks.div_ceil(size)])?;
            map.expect(&["F32"], &[256])?;
            used.extend([maxima, map]);
            Some(Nested { maxima, map, size, offset })
        }
        _ => {
            absmax.expect(&["F32"], &[blocks])?;
            None
        }
    };
    let bytes = bytes_of(&used);
    let values = Vec::new();
    let matrix = Halves { weight, absmax, map, nested, format, blocksize, cols, bytes, values };
    Ok(Found::coded(matrix, &used))
}

/// Absolute maxima that are quantized themselves.
struct Nested<'a> {
    maxima: Tensor<'a>,
    map: Tensor<'a>,
    size: usize,
    offset: f32,
}

struct Halves<'a> {
    weight: Tensor<'a>,
    absmax: Tensor<'a>,
    map: Tensor<'a>,
    nested: Option<Nested<'a>>,
    format: Format,
    blocksize: usize,
    cols: usize,
    bytes: u64,
    /// The absolute maxima, once read.
    values: Vec<f32>,
}

impl Halves<'_> {
    /// The file's table has to be the one that the kernels know.
    fn check_map(&self) -> Result<(), LoadError> {
        let found = grid::finite(&self.map)?;
        let mut block = vec![0; self.format.block_bytes()];
        block[..4].copy_from_slice(&1_f32.to_le_bytes());
        for (byte, out) in block[4..].iter_mut().enumerate() {
            let code = (2 * byte % 16) as u8;
            *out = code << 4 | (code + 1);
        }
        let mut known = [0.0; BLOCK];
        kernels::reference::dequant::row(self.format, &block, &mut known);
        if found.iter().zip(known).all(|(found, known)| (found - known).abs() <= 1e-6) {
            return Ok(());
        }
        Err(self.map.wrong("is not the library's table, and other tables are not supported"))
    }
}

impl Matrix for Halves<'_> {
    fn format(&self) -> Format {
        self.format
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn prepare(&mut self) -> Result<Option<Vec<u32>>, LoadError> {
        self.check_map()?;
        self.values = match &self.nested {
            None => grid::finite(&self.absmax)?,
            Some(Nested { maxima, map, size, offset }) => {
                let (maxima, map) = (grid::finite(maxima)?, grid::finite(map)?);
                let codes = self.absmax.bytes.iter().enumerate();
                codes.map(|(at, &code)| map[code as usize] * maxima[at / size] + offset).collect()
            }
        };
        Ok(None)
    }

    fn write(&self, first: usize, out: &mut [u8]) {
        let size = self.format.block_bytes();
        let start = first * self.cols / BLOCK;
        for (at, out) in (start..).zip(out.chunks_exact_mut(size)) {
            let absmax = self.values[at * BLOCK / self.blocksize];
            out[..4].copy_from_slice(&absmax.to_le_bytes());
            out[4..].copy_from_slice(&self.weight.bytes[at * BLOCK / 2..][..BLOCK / 2]);
        }
    }
}
