//! Which sums a stretch of the calendar is made of: whole days of UTC, and quarters of an hour at
//! its edges. Where an edge lies in a day's second half, the whole day is taken and its rest is
//! taken off again: a day in Berlin is a day of UTC less its last hours, and the last hours of the
//! day before. Sums are whole numbers, so what is taken off is taken off exactly.

use super::buckets::Stretch;
use crate::Millis;
use crate::store::batch::DAY_MS;

/// A part of a stretch that one table has the sums of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// The start of the stretch that it counts in.
    pub(super) start: Millis,
    /// Its first millisecond.
    pub(super) from: Millis,
    /// The first millisecond after it.
    pub(super) to: Millis,
    /// 1, or -1 where it is taken off.
    pub(super) sign: i64,
}

/// What stretches are made of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pieces {
    /// Of the sums of whole days.
    pub(super) days: Vec<Piece>,
    /// Of the sums of quarters.
    pub(super) quarters: Vec<Piece>,
}

impl Pieces {
    pub(super) fn of(stretches: &[Stretch]) -> Self {
        let mut pieces = Self::default();
        stretches.iter().for_each(|stretch| pieces.add(*stretch));
        pieces
    }

    fn add(&mut self, stretch: Stretch) {
        let Stretch { start, from, to } = stretch;
        let nearest = |at: Millis| (at + DAY_MS / 2).div_euclid(DAY_MS) * DAY_MS;
        let (first, last) = (nearest(from), nearest(to));
        let piece = |from, to, sign| Piece { start, from, to, sign };
        if first >= last || (first - from).abs() + (last - to).abs() >= to - from {
            // Its edges are longer than itself.
            self.quarters.extend((from < to).then(|| piece(from, to, 1)));
            return;
        }
        self.days.push(piece(first, last, 1));
        let edges = [(from, first, 1), (first, from, -1), (last, to, 1), (to, last, -1)];
        let there = edges.into_iter().filter(|(from, to, _)| from < to);
        self.quarters.extend(there.map(|(from, to, sign)| piece(from, to, sign)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::batch::QUARTER_MS;

    /// Every quarter of a stretch counts once and no other one counts at all, however its edges
    /// lie.
    #[test]
    fn every_quarter_counts_once() {
        let quarters = |day: i64, quarter: i64| day * DAY_MS + quarter * QUARTER_MS;
        for from in (0..96).map(|at| quarters(20_000, at)) {
            for length in [1, 4, 50, 95, 96, 97, 140, 144, 200, 96 * 7, 96 * 30 + 4] {
                let to = from + length * QUARTER_MS;
                let pieces = Pieces::of(&[Stretch { start: 7, from, to }]);
                let all = pieces.days.iter().chain(&pieces.quarters);
                let mut counted = std::collections::BTreeMap::<i64, i64>::new();
                for piece in all {
                    assert!(piece.start == 7 && piece.from < piece.to, "{piece:?}");
                    for at in (piece.from..piece.to).step_by(QUARTER_MS.unsigned_abs() as usize) {
                        *counted.entry(at).or_default() += piece.sign;
                    }
                }
                counted.retain(|_, times| *times != 0);
                assert!(counted.values().all(|times| *times == 1), "{from} {length}");
                assert_eq!(counted.keys().next(), Some(&from), "{length}");
                assert_eq!(i64::try_from(counted.len()), Ok(length), "{from}");
                let whole = pieces.days.iter().all(|one| one.from % DAY_MS == 0);
                assert!(whole && pieces.days.iter().all(|one| one.to % DAY_MS == 0));
                let read: i64 = pieces.quarters.iter().map(|one| one.to - one.from).sum();
                assert!(read <= (to - from).min(DAY_MS), "{from} {length}: {read}");
            }
        }
        assert_eq!(Pieces::of(&[Stretch { start: 0, from: 5, to: 5 }]), Pieces::default());
    }
}
