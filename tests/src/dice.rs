//! Chance by seed, and what it does to bytes.

/// Numbers by seed.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `most`.
    ///
    /// # Panics
    /// Never: half of 64 bits fit.
    pub fn below(&mut self, most: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("small") % most.max(1)
    }

    /// The bytes with some of them changed, lost, doubled or cut off.
    pub fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(3) {
            if out.is_empty() {
                break;
            }
            let at = self.below(out.len());
            match self.below(6) {
                0 => out[at] = u8::try_from(self.below(256)).expect("a byte"),
                1 => drop(out.remove(at)),
                2 => out.truncate(at),
                3 => out.insert(at, b"\n{}[],:\"9-"[self.below(10)]),
                4 => {
                    let end = (at + self.below(20)).min(out.len());
                    let part = out[at..end].to_vec();
                    out.splice(at..at, part);
                }
                _ => {
                    let digits = ["18446744073709551616", "-1", "1e99", "4294967296", "null", "0"];
                    let digits = digits[self.below(6)].bytes();
                    out.splice(at..at, digits);
                }
            }
        }
        out
    }
}
