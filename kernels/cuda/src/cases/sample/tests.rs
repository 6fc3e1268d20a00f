//! The table on the emulator.

use super::*;
use crate::emulator::Emulator;

#[test]
fn on_the_emulator() {
    let mut open = |config| Cuda::new(Emulator::new(1), config).expect("the kernels are there");
    for outcome in cases(&mut open) {
        assert!(outcome.passed(), "{outcome:?}");
    }
}
