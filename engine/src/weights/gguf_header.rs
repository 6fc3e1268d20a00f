//! The header of a GGUF file, from its first byte to where the data starts: bounds, alignment
//! and the type of every tensor are checked here, so that nobody else has to.
//!
//! Source: the GGUF specification (ggml, `docs/gguf.md`).

use std::collections::BTreeMap;
use std::ops::Range;

use kernels::Format;

use super::gguf_value::{Cursor, Value};
use super::{shape_text, shown};

/// Published headers have some forty keys.
const KEYS_MAX: u64 = 1 << 14;
/// A thousand layers of the largest kind stay well below.
const TENSORS_MAX: u64 = 1 << 17;
/// The specification's limit of a key is 65,535 bytes and of a tensor's name 64.
const NAME_BYTES_MAX: usize = 1024;
/// Offsets and the start of the data are multiples of this unless the file says otherwise.
const ALIGNMENT_DEFAULT: u64 = 32;
const ALIGNMENT_MAX: u64 = 1 << 20;

/// One tensor, dimensions turned around: outermost first, as everywhere else here.
pub(super) struct Tensor {
    pub(super) dims: Vec<u64>,
    pub(super) format: Format,
    pub(super) place: Range<usize>,
}

/// All keys and tensors of a file.
pub(super) struct Header {
    pub(super) values: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, Tensor>,
}

/// Reads and checks the header of a whole file; errors are plain text.
pub(super) fn parse(bytes: &[u8]) -> Result<Header, String> {
    let mut cursor = Cursor { bytes, at: 0 };
    if cursor.take(4)? != b"GGUF" {
        return Err("is not a GGUF file".to_owned());
    }
    match cursor.u32()? {
        2 | 3 => {}
        1 => return Err("is GGUF version 1; convert it again, 2 and 3 are supported".to_owned()),
        version if version.swap_bytes() <= 3 => {
            return Err("is a big-endian file; convert it to little endian".to_owned());
        }
        version => return Err(format!("is GGUF version {version}; 2 and 3 are supported")),
    }
    let (tensor_count, key_count) = (cursor.u64()?, cursor.u64()?);
    if tensor_count > TENSORS_MAX || key_count > KEYS_MAX {
        return Err(format!(
            "claims {tensor_count} tensors and {key_count} keys; \
             no model has more than {TENSORS_MAX} and {KEYS_MAX}"
        ));
    }
    let mut values = BTreeMap::new();
    for index in 0..key_count {
        let key = name(&mut cursor).map_err(|e| format!("key {index}: {e}"))?;
        let value = cursor.value().map_err(|e| format!("key {}: {e}", shown(key)))?;
        if values.insert(key.to_owned(), value).is_some() {
            return Err(format!("key {} occurs twice", shown(key)));
        }
    }
    let alignment = match values.get("general.alignment") {
        None => ALIGNMENT_DEFAULT,
        Some(value) => match value.whole() {
            Some(whole) if whole.is_power_of_two() && whole <= ALIGNMENT_MAX => whole,
            _ => return Err("general.alignment: wanted a power of two".to_owned()),
        },
    };
    let mut raw = Vec::new();
    for index in 0..tensor_count {
        let name = name(&mut cursor).map_err(|e| format!("tensor {index}: {e}"))?;
        let tensor = tensor(&mut cursor).map_err(|e| format!("tensor {}: {e}", shown(name)))?;
        raw.push((name, tensor));
    }
    let data_start = (cursor.at as u64).next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    for (name, tensor) in raw {
        let tensor = tensor
            .place(data_start, bytes.len() as u64, alignment)
            .map_err(|e| format!("tensor {}: {e}", shown(name)))?;
        if tensors.insert(name.to_owned(), tensor).is_some() {
            return Err(format!("tensor {} occurs twice", shown(name)));
        }
    }
    Ok(Header { values, tensors })
}

fn name<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, String> {
    let at = cursor.at;
    let name = cursor.text()?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!("the name at offset {at} has {} bytes", name.len()));
    }
    Ok(name)
}

/// A tensor's entry as it is spelled.
struct RawTensor {
    dims: Vec<u64>,
    format: Format,
    offset: u64,
}

fn tensor(cursor: &mut Cursor<'_>) -> Result<RawTensor, String> {
    let count = cursor.u32()?;
    if !(1..=4).contains(&count) {
        return Err(format!("has {count} dimensions, wanted 1 to 4"));
    }
    let mut dims = (0..count).map(|_| cursor.u64()).collect::<Result<Vec<_>, _>>()?;
    dims.reverse();
    let number = cursor.u32()?;
    let format = format(number)?;
    Ok(RawTensor { dims, format, offset: cursor.u64()? })
}

impl RawTensor {
    fn place(self, start: u64, file_len: u64, alignment: u64) -> Result<Tensor, String> {
        let cols = self.dims.last().copied().unwrap_or(0);
        let block = self.format.block_len() as u64;
        if !cols.is_multiple_of(block) {
            return Err(format!("rows of {cols} elements are not made of blocks of {block}"));
        }
        if !self.offset.is_multiple_of(alignment) {
            return Err(format!("offset {} is not a multiple of {alignment}", self.offset));
        }
        let row_bytes = (cols / block).checked_mul(self.format.block_bytes() as u64);
        let rows = self.dims.iter().rev().skip(1);
        let bytes = rows.fold(row_bytes, |sum, &dim| sum?.checked_mul(dim));
        let first = start.checked_add(self.offset);
        let end = first.zip(bytes).and_then(|(first, bytes)| first.checked_add(bytes));
        match first.zip(end) {
            Some((first, end)) if end <= file_len => {
                let place = first as usize..end as usize;
                Ok(Tensor { dims: self.dims, format: self.format, place })
            }
            _ => Err(format!(
                "{} elements at offset {} do not lie in the file of {file_len} bytes; \
                 was the download cut off?",
                shape_text(&self.dims),
                self.offset
            )),
        }
    }
}

/// A tensor type by its number in ggml.
fn format(number: u32) -> Result<Format, String> {
    Ok(match number {
        0 => Format::F32,
        1 => Format::F16,
        2 => Format::Q4_0,
        3 => Format::Q4_1,
        6 => Format::Q5_0,
        7 => Format::Q5_1,
        8 => Format::Q8_0,
        10 => Format::Q2K,
        11 => Format::Q3K,
        12 => Format::Q4K,
        13 => Format::Q5K,
        14 => Format::Q6K,
        16 => Format::Iq2Xxs,
        17 => Format::Iq2Xs,
        18 => Format::Iq3Xxs,
        19 => Format::Iq1S,
        20 => Format::Iq4Nl,
        21 => Format::Iq3S,
        22 => Format::Iq2S,
        23 => Format::Iq4Xs,
        29 => Format::Iq1M,
        30 => Format::Bf16,
        34 => Format::Tq1_0,
        35 => Format::Tq2_0,
        39 => Format::Mxfp4,
        other => return Err(not_a_weight(other)),
    })
}

/// Why a type is not read, and what to take instead.
fn not_a_weight(number: u32) -> String {
    let name = match number {
        4 => "Q4_2 (retired)",
        5 => "Q4_3 (retired)",
        9 => "Q8_1",
        15 => "Q8_K",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        31 => "Q4_0_4_4 (retired)",
        32 => "Q4_0_4_8 (retired)",
        33 => "Q4_0_8_8 (retired)",
        36 => "IQ4_NL_4_4 (retired)",
        37 => "IQ4_NL_4_8 (retired)",
        38 => "IQ4_NL_8_8 (retired)",
        40 => "NVFP4",
        other => return format!("type number {other} is not known; convert the model again"),
    };
    format!("type {name} is not supported; take a file in Q4_K_M, Q5_K_M, Q6_K, Q8_0 or F16")
}
