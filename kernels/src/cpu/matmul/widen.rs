//! A stretch of a panel of codes as f32, exactly the numbers that the weights stand for.

use super::codes::{CODINGS, Coded};
use super::wide::{Kernel, Wide, dispatch};
use crate::cpu::isa::Isa;
use crate::cpu::matrix::coding::{Codes, Minimum};
use crate::cpu::matrix::layout::{Floats, GROUP, GROUPS, Layout, PAIR, PANEL, Packing, QUAD};

/// Writes elements `from..to` of k of 16 rows of a panel, its `quarter`th, to `out`, as one half
/// of a panel of plain numbers: 16 f32, then 16 that are not touched.
///
/// # Safety
/// `panel` is a panel of `layout` with these rows and elements; `out` has room. `from` and `to`
/// are multiples of 32.
pub(super) unsafe fn widen(
    isa: Isa,
    layout: &Layout,
    (panel, quarter): (*const u8, usize),
    (from, to): (usize, usize),
    out: *mut f32,
) {
    let span = Span { panel, from, to, out };
    // SAFETY: offsets as the layout says; the rest is the caller's promise.
    unsafe {
        macro_rules! codings {
            ($codes:ident: $($id:literal)*) => {
                match CODINGS.iter().position(|&c| c == $codes.coding) {
                    $(Some($id) => dispatch(isa, Coded32::<$id>(span, $codes)),)*
                    _ => unreachable!("all codings are listed"),
                }
            };
        }
        match layout.packing {
            Packing::Codes(codes) => codings!(codes: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),
            Packing::Floats(floats) => dispatch(isa, SmallFloats(span, floats, quarter)),
            Packing::Plain => unreachable!("plain numbers are widened in registers"),
        }
    }
}

#[derive(Clone, Copy)]
struct Span {
    panel: *const u8,
    from: usize,
    to: usize,
    out: *mut f32,
}

struct Coded32<const C: usize>(Span, Codes);

impl<const C: usize> Kernel for Coded32<C> {
    #[inline(always)]
    unsafe fn run<S: Wide>(self, s: S) {
        let Self(span, codes) = self;
        let bias = s.splat(Coded::<C>::BIAS as f32);
        for g in span.from / GROUP..span.to / GROUP {
            // SAFETY: the caller's promise.
            unsafe {
                let block = span.panel.add(g / GROUPS * codes.super_bytes());
                let at = codes.scale_bytes + g % GROUPS * codes.group_bytes;
                s.prefetch(block.wrapping_add(at + 4096));
                let scales = Coded::<C>::scales(s, &codes, block, g % GROUPS);
                let words = Coded::<C>::unpack(s, &codes, block, g % GROUPS);
                let out = span.out.add((g * GROUP - span.from) * PAIR);
                for (j, &word) in words.iter().enumerate() {
                    for b in 0..4 {
                        let code = s.sub(s.number(s.and(s.shr(word, 8 * b as u32), 255)), bias);
                        let (scale, minimum) = (scales.scale[j / 4], scales.minimum[j / 4]);
                        // Not fused: the format's definition rounds the product first.
                        let weight = match Coded::<C>::MINIMUM {
                            Minimum::None => s.mul(scale, code),
                            Minimum::Added => s.add(s.mul(scale, code), minimum),
                            Minimum::Subtracted => s.sub(s.mul(scale, code), minimum),
                            Minimum::Zero => s.mul(scale, s.sub(code, minimum)),
                        };
                        s.store(out.add((4 * j + b) * PAIR), weight);
                    }
                }
            }
        }
    }
}

struct SmallFloats(Span, Floats, usize);

impl Kernel for SmallFloats {
    #[inline(always)]
    unsafe fn run<S: Wide>(self, s: S) {
        let Self(span, floats, quarter) = self;
        // SAFETY: the caller's promise; elements are whole groups of 32.
        unsafe {
            for from in (span.from..span.to).step_by(GROUP) {
                let block = span.panel.add(from / floats.block * floats.bytes());
                let scale = s.load(block.add(4 * PANEL * quarter).cast());
                let codes = block.add(Floats::SCALES + floats.codes(from % floats.block));
                s.prefetch(codes.wrapping_add(4096));
                let out = span.out.add((from - span.from) * PAIR);
                match floats.table {
                    None => {
                        let scale = e4m3_scale(s, scale);
                        for k in 0..GROUP {
                            let code = codes.add(k * QUAD + quarter * PANEL);
                            s.store(out.add(k * PAIR), s.mul(scale, s.load_e4m3(code)));
                        }
                    }
                    Some(table) => {
                        let table = s.load(table.as_ptr());
                        for v in 0..GROUP / 8 {
                            let words = s.bytes(codes.add((v * QUAD + quarter * PANEL) * 4));
                            for i in 0..8 {
                                let value = s.pick(table, s.shr(words, 4 * i as u32));
                                s.store(out.add((8 * v + i) * PAIR), s.mul(scale, value));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What [`Wide::load_e4m3`] leaves to the scale. No rounding: packing refuses scales that large.
#[inline(always)]
pub(super) fn e4m3_scale<S: Wide>(s: S, scale: S::F) -> S::F {
    s.mul(scale, s.splat(256.0))
}
