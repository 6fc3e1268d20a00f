//! Threads for packing: loading a model is mostly that. Must not know what is packed.

use std::ops::Range;
use std::thread;

/// Threads at most: a few keep up with the bus.
const MOST: usize = 8;
/// Bytes that are done sooner than a thread is started.
const SMALL: usize = 256 << 10;

fn threads(bytes: usize) -> usize {
    if bytes < SMALL {
        return 1;
    }
    thread::available_parallelism().map_or(1, |n| n.get().min(MOST))
}

/// Cuts `out` into shares of whole units: `work(first, share)` writes units `first..`.
pub(super) fn fill(out: &mut [u8], unit: usize, work: impl Fn(usize, &mut [u8]) + Sync) {
    let units = out.len().div_ceil(unit);
    let share = units.div_ceil(threads(out.len())).max(1);
    if share >= units {
        return work(0, out);
    }
    thread::scope(|scope| {
        for (i, out) in out.chunks_mut(share * unit).enumerate() {
            let work = &work;
            scope.spawn(move || work(i * share, out));
        }
    });
}

/// Results of shares of `0..n`, in their order. `bytes` are read in all.
pub(super) fn fold<T: Send>(
    n: usize,
    bytes: usize,
    work: impl Fn(Range<usize>) -> T + Sync,
) -> Vec<T> {
    let share = n.div_ceil(threads(bytes)).max(1);
    if share >= n {
        return vec![work(0..n)];
    }
    thread::scope(|scope| {
        let work = &work;
        let shares = (0..n).step_by(share);
        let running: Vec<_> =
            shares.map(|at| scope.spawn(move || work(at..n.min(at + share)))).collect();
        running.into_iter().map(|share| share.join().expect("packing does not panic")).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::{SMALL, fill, fold};

    #[test]
    fn shares_are_everything_once_and_in_order() {
        for (len, unit) in [(0, 48), (1, 48), (1000, 48), (5 * SMALL + 20, 48), (SMALL, SMALL)] {
            let mut out = vec![0_u8; len];
            fill(&mut out, unit, |first, out| {
                for (i, byte) in out.iter_mut().enumerate() {
                    *byte = *byte + 1 + ((first + i / unit) % 200) as u8;
                }
            });
            let wanted = |i: usize| (1 + i / unit % 200) as u8;
            assert!(out.iter().enumerate().all(|(i, &byte)| byte == wanted(i)), "{len} by {unit}");
        }
        for (n, bytes) in [(0, 0), (7, 100), (1000, 9 * SMALL), (3, 9 * SMALL)] {
            let ranges = fold(n, bytes, |range| range);
            assert_eq!(
                ranges.into_iter().flatten().collect::<Vec<_>>(),
                (0..n).collect::<Vec<_>>()
            );
        }
    }
}
