//! GPTQ: 2, 3, 4 or 8-bit codes packed along the input features, with a scale and a zero point
//! per group of them (AutoGPTQ's and GPTQModel's checkpoints).
//!
//! ```text
//! qweight  I32 [in * bits / 32, out]      codes of a column of W, lowest bits first
//! qzeros   I32 [groups, out * bits / 32]  zero points, less 1 in the first version
//! scales   F16 [groups, out]
//! g_idx    I32 [in]                       the group of each input; absent: in order
//! W[o][i] = scales[g][o] * (code - zero[g][o]), g = g_idx[i]
//! ```
//!
//! With act-order the columns of a group lie apart: they are written group after group, and the
//! matrix says which input each belongs to.

use kernels::Format;
use regex::Regex;

use super::super::LoadError;
use super::super::matrix::Matrix;
use super::super::shards::{Tensor, Tensors};
use super::columns::Columns;
use super::{Found, Want, blocks, bytes_of, codes_of, grid, group_within, pattern, shown};
use crate::config::Fields;

const NAME: &str = "gptq";
/// Groups are a few hundred elements; this is wider than any row.
const GROUP_MAX: f64 = 1e6;

/// What config.json says.
pub(crate) struct Settings {
    scheme: Scheme,
    /// Zero points are stored less 1.
    offset: u32,
    act_order: bool,
    /// Modules that differ; the first that matches counts. `None`: not quantized.
    dynamic: Vec<(Regex, Option<Scheme>)>,
}

#[derive(Clone, Copy)]
struct Scheme {
    bits: usize,
    /// `None`: a whole row.
    group: Option<usize>,
}

impl Scheme {
    fn read(fields: &Fields, usual: Option<Self>) -> Result<Self, LoadError> {
        let bits = match (fields.count("bits", 8)?, usual) {
            (Some(bits), _) => bits,
            (None, Some(usual)) => usual.bits,
            (None, None) => return Err(fields.wrong("bits", "is missing")),
        };
        if ![2, 3, 4, 8].contains(&bits) {
            let problem = format!("{bits} is not supported; 2, 3, 4 and 8 are");
            return Err(fields.wrong("bits", &problem));
        }
        let group = match (fields.number("group_size", -1.0, GROUP_MAX)?, usual) {
            (Some(-1.0), _) => None,
            (Some(size), _) if size >= 1.0 && size.fract() == 0.0 => Some(size as usize),
            (None, Some(usual)) => usual.group,
            (Some(size), _) => {
                let problem = format!("{size} is neither -1 nor a number of elements");
                return Err(fields.wrong("group_size", &problem));
            }
            (None, None) => return Err(fields.wrong("group_size", "is missing")),
        };
        Ok(Self { bits, group })
    }
}

impl Settings {
    pub(super) fn read(fields: &Fields) -> Result<Self, LoadError> {
        let stored = fields.word("checkpoint_format")?.or(fields.word("format")?);
        let offset = match stored {
            None | Some("gptq") => 1,
            Some("gptq_v2") => 0,
            Some(other) => {
                let problem = format!("{} is not supported; gptq and gptq_v2 are", shown(other));
                return Err(fields.wrong("checkpoint_format", &problem));
            }
        };
        if fields.flag("is_marlin_format")?.unwrap_or(false) {
            return Err(fields.wrong(
                "is_marlin_format",
                "weights packed for one kernel are not \
                supported; take the repository's ordinary GPTQ files",
            ));
        }
        if fields.word("pack_dtype")?.is_some_and(|kind| kind != "int32") {
            return Err(fields.wrong("pack_dtype", "words other than int32 are not supported"));
        }
        let scheme = Scheme::read(fields, None)?;
        let mut dynamic = Vec::new();
        if let Some(list) = fields.object("dynamic")? {
            for key in list.keys() {
                let (expression, off) = match (key.strip_prefix("-:"), key.strip_prefix("+:")) {
                    (Some(expression), _) => (expression, true),
                    (None, Some(expression)) => (expression, false),
                    (None, None) => (key, false),
                };
                let regex = pattern::compile(&list, key, expression)?;
                let of = match list.object(key)? {
                    Some(fields) if !off => Some(Scheme::read(&fields, Some(scheme))?),
                    _ => None,
                };
                dynamic.push((regex, of.or((!off).then_some(scheme))));
            }
        }
        let act_order = fields.flag("desc_act")?.unwrap_or(false);
        Ok(Self { scheme, offset, act_order, dynamic })
    }

    fn of(&self, module: &str) -> Option<Scheme> {
        let special = self.dynamic.iter().find(|(regex, _)| regex.is_match(module));
        special.map_or(Some(self.scheme), |(_, scheme)| *scheme)
    }
}

/// Opens a matrix, if it is stored so.
pub(super) fn open<'a>(
    settings: &Settings,
    tensors: &'a Tensors,
    want: &Want<'_>,
) -> Result<Option<Found<'a>>, LoadError> {
    let module = want.module();
    let tensor = |name: &str| tensors.find(&format!("{module}.{name}"));
    let Some(qweight) = tensor("qweight") else { return Ok(None) };
    want.single(NAME, &qweight)?;
    let Some(Scheme { bits, group }) = settings.of(module) else {
        return Err(qweight.wrong("is quantized, but config.json's `dynamic` leaves it out"));
    };
    let &Want { rows, cols, .. } = want;
    let group = group.unwrap_or(cols).min(cols);
    let groups = cols.div_ceil(group);
    let block = group_within(&qweight, group, cols)?;
    let Some(format) = codes_of(bits, block) else { return Ok(None) };
    if !(rows * bits).is_multiple_of(32) {
        let problem = format!("has {rows} zero points of {bits} bits, no whole number of words");
        return Err(qweight.wrong(problem));
    }
    qweight.expect(&["I32"], &[cols * bits / 32, rows])?;
    let need = |name: &str| tensors.need(&format!("{module}.{name}"));
    let (qzeros, scales) = (need("qzeros")?, need("scales")?);
    qzeros.expect(&["I32"], &[groups, rows * bits / 32])?;
    scales.expect(&["F16", "BF16", "F32"], &[groups, rows])?;
    let g_idx = tensor("g_idx");
    match &g_idx {
        Some(g_idx) => g_idx.expect(&["I32"], &[cols])?,
        None if settings.act_order && groups > 1 => {
            return Err(need("g_idx").err().unwrap_or_else(|| qweight.wrong("needs its g_idx")));
        }
        None => {}
    }
    let mut used = vec![qweight, qzeros, scales];
    used.extend(g_idx);
    let matrix = Packed {
        qweight,
        qzeros,
        scales,
        g_idx,
        offset: settings.offset,
        bits,
        group,
        groups,
        block: block.len(),
        format,
        rows,
        cols,
        bytes: bytes_of(&used),
        values: Vec::new(),
        columns: Columns::plain(0, 1, 1),
    };
    Ok(Some(Found::coded(matrix, &used)))
}

struct Packed<'a> {
    qweight: Tensor<'a>,
    qzeros: Tensor<'a>,
    scales: Tensor<'a>,
    g_idx: Option<Tensor<'a>>,
    offset: u32,
    bits: usize,
    group: usize,
    groups: usize,
    /// Elements of a block that is written.
    block: usize,
    format: Format,
    rows: usize,
    cols: usize,
    bytes: u64,
    /// The scales, once read.
    values: Vec<f32>,
    columns: Columns,
}

impl Packed<'_> {
    /// The zero point of a group of a row.
    fn zero(&self, group: usize, row: usize) -> u16 {
        let line = group * self.rows * self.bits / 32;
        (blocks::field(&self.qzeros, line, 1, self.bits, row) + self.offset) as u16
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
        self.columns = match &self.g_idx {
            Some(g_idx) => Columns::of_index(g_idx, self.cols, self.groups, self.block)?,
            None => Columns::plain(self.cols, self.group, self.block),
        };
        Ok(self.columns.order.clone())
    }

    fn write(&self, first: usize, out: &mut [u8]) {
        let row_bytes = self.format.row_bytes(self.cols);
        let size = self.format.block_bytes();
        let words = self.block * self.bits / 32;
        // Blocks outside, rows inside: rows are what lies side by side in these tensors.
        for (at, &group) in self.columns.groups.iter().enumerate() {
            let group = group as usize;
            for (row, out) in (first..).zip(out.chunks_exact_mut(row_bytes)) {
                let scale = self.values[group * self.rows + row];
                blocks::head(&mut out[at * size..], scale, self.zero(group, row));
            }
            let codes = at * size + blocks::HEAD;
            if self.columns.order.is_none() {
                // The words of a block are in the order in which it is written.
                for word in 0..words {
                    let line = (at * words + word) * self.rows;
                    for (row, out) in (first..).zip(out.chunks_exact_mut(row_bytes)) {
                        let word_of = blocks::word(&self.qweight, line + row);
                        out[codes + 4 * word..][..4].copy_from_slice(&word_of.to_le_bytes());
                    }
                }
                continue;
            }
            for element in 0..self.block {
                let col = self.columns.stored(at * self.block + element);
                for (row, out) in (first..).zip(out.chunks_exact_mut(row_bytes)) {
                    let code = blocks::field(&self.qweight, row, self.rows, self.bits, col);
                    blocks::put(&mut out[codes..], self.bits, element, code);
                }
            }
        }
    }
}
