//! Rotary position embedding: the table of a step and the rotation of a head.
//!
//! Angles are f32 products, as in the models' own code, and their cosines and sines are those of
//! the system's math library: at position 100,000 a cheaper reduction would turn the whole head.

use super::pool::Pool;
use super::rows::for_rows;
use super::step::Place;
use super::tensor::Shared;
use crate::compute::{Beyond, Rope};

/// Frequencies of one sequence.
#[derive(Clone, Copy)]
enum Frequencies<'a> {
    Listed(&'a [f32]),
    /// `base^(-i / pairs)`.
    Powers(f32),
}

impl<'a> Frequencies<'a> {
    /// Those of a sequence of so many tokens.
    fn of(rope: &'a Rope, sequence: u32) -> Self {
        let pairs = rope.inv_freq.len();
        match &rope.beyond {
            Some(Beyond::Long { limit, inv_freq }) if sequence > *limit => {
                assert_eq!(inv_freq.len(), pairs, "long frequencies");
                Self::Listed(inv_freq)
            }
            &Some(Beyond::Dynamic { limit, theta, factor }) if sequence > limit => {
                let (theta, factor, dim) =
                    (f64::from(theta), f64::from(factor), 2.0 * pairs as f64);
                let stretch = factor * f64::from(sequence) / f64::from(limit) - (factor - 1.0);
                // The base as f64 and its powers as f32, as in the models' own code.
                Self::Powers((theta * stretch.powf(dim / (dim - 2.0))) as f32)
            }
            _ => Self::Listed(&rope.inv_freq),
        }
    }

    fn get(self, i: usize, pairs: usize) -> f32 {
        match self {
            Self::Listed(list) => list[i],
            Self::Powers(base) => 1.0 / base.powf((2 * i) as f32 / (2 * pairs) as f32),
        }
    }
}

/// Cosines, then sines, of every row's position: `out` `[rows, 2 * inv_freq.len()]`.
pub(crate) fn rope_table(pool: &Pool, rope: &Rope, places: &[Place], out: &mut [f32]) {
    let pairs = rope.inv_freq.len();
    assert_eq!(out.len(), places.len() * 2 * pairs, "rope table");
    let out = Shared::new(out);
    // A sine costs some 20 times an addition.
    for_rows(pool, places.len(), 20 * pairs, &|range, _| {
        for row in range {
            // SAFETY: each row belongs to one task.
            let row_out = unsafe { out.part(row * 2 * pairs, 2 * pairs) };
            let (cos, sin) = row_out.split_at_mut(pairs);
            let frequencies = Frequencies::of(rope, places[row].sequence);
            for i in 0..pairs {
                let angle = places[row].position as f32 * frequencies.get(i, pairs);
                cos[i] = angle.cos() * rope.magnitude;
                sin[i] = angle.sin() * rope.magnitude;
            }
        }
    });
}

/// Turns the first `table.len()` dimensions of a head; the rest stay.
#[inline(always)]
pub(crate) fn rotate(head: &mut [f32], table: &[f32], interleaved: bool) {
    let pairs = table.len() / 2;
    let (cos, sin) = table.split_at(pairs);
    let head = &mut head[..2 * pairs];
    if interleaved {
        for ((pair, c), s) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
            let [a, b] = *pair;
            *pair = [a * c - b * s, b * c + a * s];
        }
    } else {
        let (low, high) = head.split_at_mut(pairs);
        for (((a, b), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
        }
    }
}
