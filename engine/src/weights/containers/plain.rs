//! Tensors that are not quantized, and 8-bit floats without scales.
//!
//! e5m2 is the upper half of an IEEE half, and e4m3 a part of its range, so both widen to f16
//! without rounding; matrices of e4m3 stay in 8 bits.

use half::f16;
use kernels::{Format, Group};

use super::super::matrix::{Matrix, Opened, Stored};
use super::super::shards::{Tensor, Tensors};
use super::super::{LoadError, shape_text};
use super::{Found, Want};

/// Opens a tensor as it is. `floats`: 8-bit floats need no scale.
pub(super) fn open<'a>(
    tensors: &'a Tensors,
    want: &Want<'_>,
    floats: bool,
) -> Result<Found<'a>, LoadError> {
    let tensor = tensors.need(want.name)?;
    let bytes = slab(&tensor, want)?;
    let &Want { rows, cols, transposed, .. } = want;
    let stored = |format| Opened::Stored(Stored { format, bytes, rows, cols, transposed });
    let block = Group::G32;
    let opened = match (tensor.dtype.format, tensor.dtype.name) {
        (Some(format), _) => stored(format),
        (None, "F8_E4M3") if floats && !transposed && cols.is_multiple_of(block.len()) => {
            Opened::Coded(Box::new(Unscaled { bytes, cols }))
        }
        (None, "F8_E4M3") if floats => Opened::Coded(Box::new(Widened::new(bytes, want, e4m3))),
        (None, "F8_E5M2") if floats => Opened::Coded(Box::new(Widened::new(bytes, want, e5m2))),
        (None, found @ ("F8_E4M3" | "F8_E5M2")) => {
            return Err(tensor.wrong(format!("has elements of type {found}, but no scales")));
        }
        (None, found) => {
            return Err(tensor.wrong(format!(
                "has elements of type {found}; F32, F16, BF16, F8_E4M3 and F8_E5M2 are supported"
            )));
        }
    };
    Ok(Found { opened, used: vec![tensor.name], quantized: false })
}

/// Checks a tensor's shape and cuts the wanted matrix out of a stack.
fn slab<'a>(tensor: &Tensor<'a>, want: &Want<'_>) -> Result<&'a [u8], LoadError> {
    let (rows, cols) = (want.rows as u64, want.cols as u64);
    let mut wanted = match (want.vector, want.transposed) {
        (true, _) => vec![rows],
        (false, true) => vec![cols, rows],
        (false, false) => vec![rows, cols],
    };
    if let Some(slab) = want.slab {
        wanted.insert(0, slab.of as u64);
    }
    if !super::super::fits(tensor.dims, &wanted) {
        let (wanted, found) = (shape_text(&wanted), shape_text(tensor.dims));
        return Err(tensor.wrong(format!("is {found}; config.json asks for {wanted}")));
    }
    Ok(match want.slab {
        None => tensor.bytes,
        Some(slab) => {
            let each = tensor.bytes.len() / slab.of.max(1);
            tensor.bytes.get(slab.index * each..(slab.index + 1) * each).unwrap_or_default()
        }
    })
}

/// e4m3 with a scale of 1.
struct Unscaled<'a> {
    bytes: &'a [u8],
    cols: usize,
}

impl Matrix for Unscaled<'_> {
    fn format(&self) -> Format {
        Format::F8E4M3(Group::G32)
    }

    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn write(&self, first: usize, out: &mut [u8]) {
        let block = Group::G32.len();
        let stored = self.bytes[first * self.cols..].chunks_exact(block);
        for (out, codes) in out.chunks_exact_mut(4 + block).zip(stored) {
            out[..4].copy_from_slice(&1_f32.to_le_bytes());
            out[4..].copy_from_slice(codes);
        }
    }
}

/// 8-bit floats as f16.
struct Widened<'a> {
    bytes: &'a [u8],
    rows: usize,
    cols: usize,
    transposed: bool,
    widen: fn(u8) -> f16,
}

impl<'a> Widened<'a> {
    fn new(bytes: &'a [u8], want: &Want<'_>, widen: fn(u8) -> f16) -> Self {
        let &Want { rows, cols, transposed, .. } = want;
        Self { bytes, rows, cols, transposed, widen }
    }
}

impl Matrix for Widened<'_> {
    fn format(&self) -> Format {
        Format::F16
    }

    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn write(&self, first: usize, out: &mut [u8]) {
        for (row, out) in (first..).zip(out.chunks_exact_mut(2 * self.cols)) {
            for (col, out) in out.chunks_exact_mut(2).enumerate() {
                let at =
                    if self.transposed { col * self.rows + row } else { row * self.cols + col };
                out.copy_from_slice(&(self.widen)(self.bytes[at]).to_le_bytes());
            }
        }
    }
}

fn e5m2(code: u8) -> f16 {
    f16::from_bits(u16::from(code) << 8)
}

/// OCP's e4m3: exponent bias 7, no infinities, one NaN of each sign.
pub(super) fn e4m3(code: u8) -> f16 {
    let (exponent, fraction) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction * 2_f32.powi(-9),
        _ => (8.0 + fraction) * 2_f32.powi(exponent - 10),
    };
    f16::from_f32(if code & 0x80 == 0 { size } else { -size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_floats() {
        for (code, wanted) in
            [(0x00, 0.0), (0x01, 1.0 / 512.0), (0x38, 1.0), (0x7e, 448.0), (0xb9, -1.125)]
        {
            assert_eq!(e4m3(code).to_f32(), wanted, "{code:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        for (code, wanted) in [(0x3c, 1.0), (0x7b, 57344.0), (0x81, -(2_f32.powi(-16)))] {
            assert_eq!(e5m2(code).to_f32(), wanted, "{code:#x}");
        }
    }
}
