//! A stretch of a panel of codes as f32, exactly the numbers that the weights stand for.

use super::codes::{Coded, FORMATS, Minimum};
use super::wide::{Kernel, Wide, dispatch};
use crate::cpu::isa::Isa;
use crate::cpu::matrix::layout::{GROUP, GROUPS, Layout, PAIR};

/// Writes elements `from..to` of k of a panel to `out`, as one half of a panel of plain numbers:
/// 16 f32, then 16 that are not touched.
///
/// # Safety
/// `panel` is a panel of `layout` with these elements; `out` has room. `from` and `to`
/// are multiples of 32.
pub(super) unsafe fn widen(
    isa: Isa,
    layout: &Layout,
    panel: *const u8,
    (from, to): (usize, usize),
    out: *mut f32,
) {
    // SAFETY: offsets as the layout says; the rest is the caller's promise.
    unsafe {
        macro_rules! formats {
            ($($id:literal)*) => {
                match FORMATS.iter().position(|&f| f == layout.format) {
                    $(Some($id) => dispatch(isa, Codes::<$id> { panel, from, to, out }),)*
                    _ => unreachable!("plain numbers are widened in registers"),
                }
            };
        }
        formats!(0 1 2 3 4 5 6 7 8 9);
    }
}

struct Codes<const F: usize> {
    panel: *const u8,
    from: usize,
    to: usize,
    out: *mut f32,
}

impl<const F: usize> Kernel for Codes<F> {
    #[inline(always)]
    unsafe fn run<S: Wide>(self, s: S) {
        let bias = s.splat(Coded::<F>::BIAS as f32);
        for g in self.from / GROUP..self.to / GROUP {
            // SAFETY: the caller's promise.
            unsafe {
                let block = self.panel.add(g / GROUPS * Coded::<F>::SUPER_BYTES);
                let codes = Coded::<F>::SCALE_BYTES + g % GROUPS * Coded::<F>::GROUP_BYTES;
                s.prefetch(block.wrapping_add(codes + 4096));
                let scales = Coded::<F>::scales(s, block, g % GROUPS);
                let words = Coded::<F>::unpack(s, block, g % GROUPS);
                let out = self.out.add((g * GROUP - self.from) * PAIR);
                for (j, &word) in words.iter().enumerate() {
                    for b in 0..4 {
                        let code = s.number(s.and(s.shr(word, 8 * b as u32), 255));
                        // Not fused: the format's definition rounds the product first.
                        let weight = s.mul(scales.scale[j / 4], s.sub(code, bias));
                        let minimum = scales.minimum[j / 4];
                        let weight = match Coded::<F>::MINIMUM {
                            Minimum::None => weight,
                            Minimum::Added => s.add(weight, minimum),
                            Minimum::Subtracted => s.sub(weight, minimum),
                        };
                        s.store(out.add((4 * j + b) * PAIR), weight);
                    }
                }
            }
        }
    }
}
