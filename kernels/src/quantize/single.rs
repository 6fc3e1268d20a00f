//! Blocks of 32 with one scale (`Q4_0`, `Q5_0`, `Q8_0`, `Iq4Nl`), or scale and minimum (`Q4_1`,
//! `Q5_1`).

use super::search::{self, Levels, Table, Whole, inverse, whole};
use super::{half, store};
use crate::Format;

/// The scale to store for values of `levels`: one whose grid holds all of them, else the better
/// of the plain and the searched one.
fn scale(values: &[f32], levels: &impl Levels) -> f32 {
    let Some(size) = search::size(values) else { return 0.0 };
    let most = search::extreme(values);
    for end in levels.ends() {
        for level in 1..=end.abs() as i32 {
            let scale = half(most / (level as f32).copysign(end)).to_f32();
            if holds(values, levels, scale) {
                return scale;
            }
        }
    }
    let normal = search::normal(values, size);
    let weights = search::weights(&normal);
    let searched = search::scale(&normal, &weights, levels) * size;
    let plain = levels.ends().map(|end| most / end);
    let stored = |scale: f32| half(scale).to_f32();
    let error = |scale: f32| search::error(&normal, &weights, levels, scale / size);
    [searched, plain[0], plain[1]]
        .map(stored)
        .into_iter()
        .fold(stored(searched), |best, scale| if error(scale) < error(best) { scale } else { best })
}

/// Whether every value is a level times `scale`, to the last bit.
fn holds(values: &[f32], levels: &impl Levels, scale: f32) -> bool {
    let inverse = inverse(scale);
    inverse != 0.0 && values.iter().all(|&value| scale * levels.level(value * inverse) == value)
}

pub(super) fn q8_0(values: &[f32], out: &mut [u8]) {
    // Levels are so close here that the plain scale is as good as any, and all of its codes count.
    let levels = Whole(-127.0, 127.0);
    let scale = scale(values, &levels);
    store(scale, out, 0);
    let inverse = inverse(scale);
    for (out, value) in out[2..].iter_mut().zip(values) {
        *out = levels.level(value * inverse) as i8 as u8;
    }
}

/// Codes are levels plus half of their number.
pub(super) fn centred(format: Format, values: &[f32], out: &mut [u8]) {
    let middle = if format == Format::Q4_0 { 8.0 } else { 16.0 };
    let levels = Whole(-middle, middle - 1.0);
    let scale = scale(values, &levels);
    store(scale, out, 0);
    let inverse = inverse(scale);
    codes(format, out, |i| (levels.level(values[i] * inverse) + middle) as u8);
}

pub(super) fn shifted(format: Format, values: &[f32], out: &mut [u8]) {
    let top = if format == Format::Q4_1 { 15.0 } else { 31.0 };
    let [scale, shift] = line(values, top);
    store(scale, out, 0);
    store(shift, out, 2);
    let inverse = inverse(scale);
    codes(format, out, |i| whole(((values[i] - shift) * inverse).clamp(0.0, top)) as u8);
}

/// As [`scale`], with a minimum.
fn line(values: &[f32], top: f32) -> [f32; 2] {
    let stored = |line: [f32; 2]| line.map(|number| half(number).to_f32());
    let Some(size) = search::size(values) else { return [0.0; 2] };
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let [_, shift] = stored([0.0, low]);
    for level in 1..=top as i32 {
        let [scale, _] = stored([(high - shift) / level as f32, 0.0]);
        let inverse = inverse(scale);
        let code = |value: f32| whole(((value - shift) * inverse).clamp(0.0, top));
        if values.iter().all(|&value| scale * code(value) + shift == value) {
            return [scale, shift];
        }
    }
    let normal = search::normal(values, size);
    let weights = search::weights(&normal);
    let [scale, shift] = search::line(&normal, &weights, top, false);
    let searched = stored([scale * size, shift * size]);
    let plain = stored([(high - low) / top, low]);
    let error = |[scale, shift]: [f32; 2]| {
        search::line_error(&normal, &weights, top, [scale / size, shift / size])
    };
    if error(plain) < error(searched) { plain } else { searched }
}

/// Element i < 16 is the low half of byte i, element i + 16 the high half; fifth bits stand apart.
fn codes(format: Format, out: &mut [u8], code: impl Fn(usize) -> u8) {
    let (bits_at, codes_at) = match format {
        Format::Q4_0 => (None, 2),
        Format::Q4_1 => (None, 4),
        Format::Q5_0 => (Some(2), 6),
        _ => (Some(4), 8),
    };
    out[bits_at.unwrap_or(codes_at)..].fill(0);
    for i in 0..32 {
        let code = code(i);
        out[codes_at + i % 16] |= (code & 15) << (i / 16 * 4);
        if let Some(at) = bits_at {
            out[at + i / 8] |= (code >> 4) << (i % 8);
        }
    }
}

pub(super) fn iq4_nl(values: &[f32], out: &mut [u8]) {
    let scale = scale(values, &Table);
    store(scale, out, 0);
    let inverse = inverse(scale);
    for i in 0..16 {
        let code = |i: usize| Table.code(values[i] * inverse);
        out[2 + i] = code(i) | code(16 + i) << 4;
    }
}
