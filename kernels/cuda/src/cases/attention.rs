//! Attention over pages that lie in no order, in a pool that is full of NaN where nothing was
//! written: prefill, continued chunks and decode in one batch.

mod rig;
mod table;

use super::{Open, Outcome};
use crate::gpu::Gpu;

pub(super) fn cases<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    table::all().iter().map(|case| rig::run(open, case)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::pages::check;
    use crate::emulator::Emulator;

    #[test]
    fn equals_the_reference() {
        check(cases, Emulator::new);
    }

    /// So many blocks are wanted that every context is cut as finely as it may be, or so few that
    /// hardly any is.
    #[test]
    fn ranges_join() {
        let cases = |open: Open<'_, Emulator>| {
            table::long().iter().map(|case| rig::run(open, case)).collect()
        };
        for multiprocessors in [1, 40] {
            check(cases, |seed| Emulator::with(90, multiprocessors, seed));
        }
    }

    /// Contexts that grow, and are cut into more ranges, leave a step the same graph.
    #[test]
    fn decode_is_replayed() {
        for case in table::decode() {
            let mut open = |config| {
                crate::device::Cuda::new(Emulator::with(90, 8, 5), config).expect("a device")
            };
            let (outcome, graphs) = rig::run_graphs(&mut open, &case);
            assert!(outcome.passed() && graphs == 1, "{outcome:?}, {graphs} graphs");
        }
    }
}
