//! AWQ: 4-bit codes packed along the output features, with a scale and a zero point per group of
//! input features (AutoAWQ's checkpoints, version `gemm`).
//!
//! ```text
//! qweight  I32 [in, out / 8]       8 outputs a word: half-byte n is output ORDER[n] of the word
//! qzeros   I32 [groups, out / 8]   the same
//! scales   F16 [groups, out]
//! W[o][i] = scales[i / group][o] * (code - zero[i / group][o])
//! ```

use kernels::Format;

use super::super::LoadError;
use super::super::matrix::Matrix;
use super::super::shards::{Tensor, Tensors};
use super::{Found, Want, blocks, bytes_of, codes_of, grid, group_within};
use crate::config::Fields;

const NAME: &str = "awq";
const BITS: usize = 4;
/// Outputs in a word.
const WORD: usize = 8;
/// Where each output of a word has its half-byte (the inverse of 0, 2, 4, 6, 1, 3, 5, 7).
const PLACE: [usize; WORD] = [0, 4, 1, 5, 2, 6, 3, 7];
const GROUP_MAX: f64 = 1e6;

/// What config.json says.
pub(crate) struct Settings {
    /// `None`: a whole row.
    group: Option<usize>,
}

impl Settings {
    pub(super) fn read(fields: &Fields) -> Result<Self, LoadError> {
        let version = fields.word("version")?.unwrap_or("gemm");
        if !version.eq_ignore_ascii_case("gemm") {
            return Err(fields.wrong("version", "layouts other than gemm are not supported"));
        }
        let bits = fields.count("bits", 64)?.or(fields.count("w_bit", 64)?);
        if bits.is_some_and(|bits| bits != BITS) {
            return Err(fields.wrong("bits", "widths other than 4 are not supported"));
        }
        let size = fields.number("group_size", -1.0, GROUP_MAX)?;
        match size.or(fields.number("q_group_size", -1.0, GROUP_MAX)?) {
            Some(-1.0) => Ok(Self { group: None }),
            Some(size) if size >= 1.0 && size.fract() == 0.0 => {
                Ok(Self { group: Some(size as usize) })
            }
            Some(_) => Err(fields.wrong("group_size", "is neither -1 nor a number of elements")),
            None => Err(fields.wrong("group_size", "is missing")),
        }
    }
}

/// Opens a matrix, if it is stored so.
pub(super) fn open<'a>(
    settings: &Settings,
    tensors: &'a Tensors,
    want: &Want<'_>,
) -> Result<Option<Found<'a>>, LoadError> {
    let module = want.module();
    let Some(qweight) = tensors.find(&format!("{module}.qweight")) else { return Ok(None) };
    want.single(NAME, &qweight)?;
    let &Want { rows, cols, .. } = want;
    let group = settings.group.unwrap_or(cols).min(cols);
    let groups = cols.div_ceil(group);
    let block = group_within(&qweight, group, cols)?;
    let Some(format) = codes_of(BITS, block) else { return Ok(None) };
    if !rows.is_multiple_of(WORD) {
        return Err(qweight.wrong(format!("has {rows} outputs, no whole number of words")));
    }
    qweight.expect(&["I32"], &[cols, rows / WORD])?;
    let need = |name: &str| tensors.need(&format!("{module}.{name}"));
    let (qzeros, scales) = (need("qzeros")?, need("scales")?);
    qzeros.expect(&["I32"], &[groups, rows / WORD])?;
    scales.expect(&["F16", "BF16", "F32"], &[groups, rows])?;
    let used = [qweight, qzeros, scales];
    let (bytes, block) = (bytes_of(&used), block.len());
    let values = Vec::new();
    let matrix =
        Packed { qweight, qzeros, scales, group, block, format, rows, cols, bytes, values };
    Ok(Some(Found::coded(matrix, &used)))
}

struct Packed<'a> {
    qweight: Tensor<'a>,
    qzeros: Tensor<'a>,
    scales: Tensor<'a>,
    group: usize,
    /// Elements of a block that is written.
    block: usize,
    format: Format,
    rows: usize,
    cols: usize,
    bytes: u64,
    /// The scales, once read.
    values: Vec<f32>,
}

impl Packed<'_> {
    /// The half-byte of output `row` in line `line` of a packed tensor.
    fn half_byte(&self, tensor: &Tensor<'_>, line: usize, row: usize) -> u32 {
        let word = blocks::word(tensor, line * (self.rows / WORD) + row / WORD);
        word >> (BITS * PLACE[row % WORD]) & 15
    }
}

impl Matrix for Packed<'_> {
    fn format(&self) -> Format {
        self.format
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn prepare(&mut self) -> Result<Option<Vec<u32>>, LoadError> {
        self.values = grid::finite(&self.scales)?;
        Ok(None)
    }

    fn write(&self, first: usize, out: &mut [u8]) {
        let row_bytes = self.format.row_bytes(self.cols);
        let size = self.format.block_bytes();
        // Blocks outside, rows inside: rows are what lies side by side in these tensors.
        for at in 0..self.cols / self.block {
            let group = at * self.block / self.group;
            for (row, out) in (first..).zip(out.chunks_exact_mut(row_bytes)) {
                let scale = self.values[group * self.rows + row];
                let zero = self.half_byte(&self.qzeros, group, row) as u16;
                blocks::head(&mut out[at * size..], scale, zero);
            }
            for pair in 0..self.block / 2 {
                let col = at * self.block + 2 * pair;
                for (row, out) in (first..).zip(out.chunks_exact_mut(row_bytes)) {
                    let [low, high] =
                        [col, col + 1].map(|col| self.half_byte(&self.qweight, col, row));
                    out[at * size + blocks::HEAD + pair] = (low | high << BITS) as u8;
                }
            }
        }
    }
}
