//! Low-rank additions against the plain loops, and a row alone against the same row in a batch.

use super::{Numbers, assert_near, cpu, isas, tensor};
use crate::compute::{CacheElement, CacheShape, CacheValues, Compute, Kept, Segment, Step};
use crate::cpu::isa::Isa;
use crate::cpu::{Cpu, LowRank};
use crate::reference::low_rank::low_rank;

/// Factors of one adapter.
pub(crate) struct Factors {
    down: Vec<f32>,
    up: Vec<f32>,
    rank: usize,
    scale: f32,
}

impl Factors {
    pub(crate) fn new(numbers: &mut Numbers, cols: usize, out: usize, rank: usize) -> Self {
        let (down, up) = (numbers.list(rank * cols, 0.5), numbers.list(out * rank, 0.5));
        Self { down, up, rank, scale: 0.5 + rank as f32 / 8.0 }
    }

    pub(crate) fn load(&self, cpu: &mut Cpu) -> LowRank {
        cpu.load_low_rank(&self.down, &self.up, self.rank, self.scale).expect("memory")
    }
}

/// Begins a step of segments of these lengths and adapters.
pub(crate) fn begin(cpu: &mut Cpu, segments: &[(u32, u32)]) {
    let shape = CacheShape {
        layers: 1,
        pages: 1,
        page_tokens: 16,
        kv_heads: 1,
        head_dim: 1,
        values: CacheValues::Own,
        element: CacheElement::F32,
        slots: 1,
        pages_per_slot: 1,
    };
    let mut cache = cpu.cache(shape).expect("memory");
    let mut row = 0;
    let mut segment = |&(len, adapter): &(u32, u32)| {
        let segment = Segment { slot: 0, first: 0, len, row, late: false, adapter };
        row += len;
        segment
    };
    let segments: Vec<_> = segments.iter().map(&mut segment).collect();
    cpu.begin(
        Step { tokens: &vec![0; row as usize], segments: &segments, grants: &[] },
        &mut cache,
    );
}

/// What is added to `out` `[rows, first + out + 3]` at column `first`.
fn check(isa: Isa, segments: &[(u32, u32)], cols: usize, out: usize, ranks: &[usize]) {
    let rows: u32 = segments.iter().map(|s| s.0).sum();
    let (rows, first) = (rows as usize, 2);
    let width = first + out + 3;
    let mut numbers = Numbers::new((cols + out) as u64);
    let mut cpu = cpu(isa, 2, rows, 8);
    let factors: Vec<_> =
        ranks.iter().map(|&rank| Factors::new(&mut numbers, cols, out, rank.max(1))).collect();
    // Rank 0: this adapter has nothing for this matrix.
    let pairs: Vec<_> =
        factors.iter().zip(ranks).map(|(f, &rank)| (rank > 0).then(|| f.load(&mut cpu))).collect();
    let x = numbers.list(rows * cols, 1.0);
    let old = numbers.list(rows * width, 1.0);
    let (all, mut sum) = (tensor(&mut cpu, rows, &x), tensor(&mut cpu, rows, &old));
    begin(&mut cpu, segments);
    cpu.adapt(&all, &pairs, first, &mut sum);
    let of_row = segments.iter().flat_map(|&(len, adapter)| (0..len).map(move |_| adapter));
    for (row, adapter) in of_row.enumerate() {
        let (x, old) = (&x[row * cols..][..cols], &old[row * width..][..width]);
        let got = &sum.first(rows)[row * width..][..width];
        let mut want: Vec<f32> = old.to_vec();
        let mut size = 0.0;
        if adapter > 0 && ranks[adapter as usize - 1] > 0 {
            let Factors { down, up, rank, scale } = &factors[adapter as usize - 1];
            let added = low_rank(x, down, up, *scale);
            want[first..].iter_mut().zip(&added).for_each(|(w, a)| *w += *a as f32);
            size = scale * ((rank * cols) as f32).sqrt();
        } else {
            assert_eq!(got, old, "row {row} has nothing to add");
        }
        assert_eq!(got[..first], old[..first]);
        assert_eq!(got[first + out..], old[first + out..]);
        assert_near(&format!("row {row} of {segments:?}"), got, &want, size, 32.0);
        // The row by itself.
        let (one, mut alone) = (tensor(&mut cpu, 1, x), tensor(&mut cpu, 1, old));
        begin(&mut cpu, &[(1, adapter)]);
        cpu.adapt(&one, &pairs, first, &mut alone);
        assert_eq!(alone.first(1), got, "row {row} alone");
    }
}

#[test]
fn additions_are_those_of_the_reference_in_any_batch() {
    let ranks = [16, 0, 8, 5, 64];
    let mixed = [(1, 3), (7, 0), (2, 1), (1, 2), (1, 3), (5, 4), (1, 5), (1, 1)];
    for isa in isas() {
        for (cols, out) in [(1, 1), (15, 63), (16, 64), (100, 65), (1500, 200), (2100, 16)] {
            check(isa, &[(1, 1)], cols, out, &ranks);
            check(isa, &[(3, 0)], cols, out, &ranks);
            check(isa, &mixed, cols, out, &ranks);
            check(isa, &[(70, 1), (6, 4)], cols, out, &ranks);
        }
    }
}

#[test]
fn a_nan_in_a_row_stays_in_it() {
    let mut cpu = cpu(Isa::detect(), 1, 2, 8);
    let pair = [Some(Factors::new(&mut Numbers::new(1), 40, 20, 4).load(&mut cpu))];
    let mut x = vec![1.0; 80];
    x[50] = f32::NAN;
    let (x, mut out) = (tensor(&mut cpu, 2, &x), cpu.tensor(2, 20, Kept::Exact).expect("memory"));
    begin(&mut cpu, &[(2, 1)]);
    cpu.adapt(&x, &pair, 0, &mut out);
    let (ok, broken) = out.first(2).split_at(20);
    assert!(ok.iter().all(|x| x.is_finite()) && broken.iter().all(|x| x.is_nan()));
}
