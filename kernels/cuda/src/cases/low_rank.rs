//! Low-rank additions.

use kernels::{
    CacheElement, CacheShape, CacheValues, Compute, Error, Kept, Precision, Segment, Step,
    reference,
};

use super::{Bench, Numbers, Open, Outcome, PRECISIONS, all_rounded, config};
use crate::device::Cuda;
use crate::gpu::Gpu;
use crate::ops::low_rank::LowRank;
use crate::tensor::Kind;

/// Ranks of the adapters; 0: it has nothing for this matrix.
const RANKS: [usize; 5] = [16, 0, 8, 5, 64];

/// Lengths and adapters of segments: mixed in one batch, with none, without a pair, beyond the
/// list; many rows of one; padded buckets.
const BATCHES: [&[(u32, u32)]; 4] = [
    &[(1, 1)],
    &[(3, 0)],
    &[(1, 3), (7, 0), (2, 1), (1, 2), (1, 3), (5, 4), (1, 5), (1, 6), (1, 1)],
    &[(9, 1), (6, 4), (2, 0)],
];

/// Rows of a step at most.
const ROWS_MAX: usize = 20;

/// Inputs and outputs: one of each, odd ones, whole blocks, more than a block.
const SHAPES: [(usize, usize); 5] = [(1, 1), (15, 63), (16, 64), (264, 65), (100, 520)];

/// Factors of one adapter.
struct Factors {
    down: Vec<f32>,
    up: Vec<f32>,
    rank: usize,
    scale: f32,
}

impl Factors {
    fn new(numbers: &mut Numbers, kind: Kind, (cols, out): (usize, usize), rank: usize) -> Self {
        // So small that f16 would keep few digits of them as they are.
        let small = if kind == Kind::F16 { 1e-6 } else { 0.5 };
        let mut list = |n: usize| numbers.list(n, 0.5 * small);
        let (down, up) = (list(rank * cols), list(out * rank));
        let scale = (0.5 + rank as f32 / 8.0) / small;
        // f16 is compared with what bf16 keeps: an adapter as it is trained.
        let kind = if kind == Kind::F16 { Kind::Bf16 } else { kind };
        Self { down: all_rounded(kind, &down), up: all_rounded(kind, &up), rank, scale }
    }

    fn load<G: Gpu>(&self, device: &mut Cuda<G>) -> LowRank {
        device.load_low_rank(&self.down, &self.up, self.rank, self.scale).expect("memory")
    }
}

pub(super) fn cases<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let mut out = Vec::new();
    for precision in PRECISIONS {
        for shape in SHAPES {
            let mut device = open(config(precision.0, ROWS_MAX));
            let each = |batch| additions(&mut device, precision, batch, shape, &RANKS);
            out.extend(BATCHES.map(each));
        }
        // The greatest rank, and one that is odd.
        let mut device = open(config(precision.0, ROWS_MAX));
        let (batch, ranks) = (&[(1, 1), (1, 2)], &[256, 255]);
        out.push(additions(&mut device, precision, batch, (40, 24), ranks));
    }
    out.push(alone(open));
    out.push(nan_stays(open));
    out.push(given_back(open));
    out
}

/// Begins a step of segments of these lengths and adapters.
fn begin<G: Gpu>(device: &mut Cuda<G>, segments: &[(u32, u32)]) {
    let shape = CacheShape {
        layers: 1,
        pages: 1,
        page_tokens: 16,
        kv_heads: 1,
        head_dim: 8,
        values: CacheValues::Own,
        element: CacheElement::F32,
        slots: 1,
        pages_per_slot: 1,
    };
    let mut cache = device.cache(shape).expect("memory");
    let mut row = 0;
    let mut segment = |&(len, adapter): &(u32, u32)| {
        let segment = Segment { slot: 0, first: 0, len, row, late: false, adapter };
        row += len;
        segment
    };
    let segments: Vec<_> = segments.iter().map(&mut segment).collect();
    let tokens = vec![0; row as usize];
    device.begin(Step { tokens: &tokens, segments: &segments, grants: &[] }, &mut cache);
}

/// What is added to `out` `[rows, first + outs + 3]` at column `first`, in units of what may be
/// lost: rounding of the result, and of sums.
fn additions<G: Gpu>(
    device: &mut Cuda<G>,
    (precision, unit): (Precision, f32),
    segments: &[(u32, u32)],
    (cols, outs): (usize, usize),
    ranks: &[usize],
) -> Outcome {
    let rows = segments.iter().map(|s| s.0 as usize).sum();
    let (first, kind) = (2, Kind::of(Kept::Rounded, precision));
    let width = first + outs + 3;
    let mut numbers = Numbers::new((cols + outs) as u64);
    let factors: Vec<_> = ranks
        .iter()
        .map(|&rank| Factors::new(&mut numbers, kind, (cols, outs), rank.max(1)))
        .collect();
    let pairs: Vec<_> =
        factors.iter().zip(ranks).map(|(f, &rank)| (rank > 0).then(|| f.load(device))).collect();
    let x = all_rounded(kind, &numbers.list(rows * cols, 1.0));
    let old = all_rounded(kind, &numbers.list(rows * width, 1.0));
    let (all, mut sum) =
        (device.put(rows, &x, Kept::Rounded), device.put(rows, &old, Kept::Rounded));
    begin(device, segments);
    device.adapt(&all, &pairs, first, &mut sum);
    device.finish();
    let mut got = device.get(&sum, rows);
    let mut want = old;
    let of_row = segments.iter().flat_map(|&(len, adapter)| (0..len).map(move |_| adapter));
    for (row, adapter) in of_row.enumerate() {
        let Some(at) = (adapter as usize)
            .checked_sub(1)
            .filter(|&at| ranks.get(at).is_some_and(|&rank| rank > 0))
        else {
            // Compared exactly below.
            continue;
        };
        let Factors { down, up, rank, scale } = &factors[at];
        let x = &x[row * cols..][..cols];
        let added = reference::low_rank::low_rank(x, down, up, *scale);
        // Sums of products of about 1 and a quarter of the factors' size.
        let size = 0.25 * (scale * greatest(down) * greatest(up)) * ((rank * cols) as f32).sqrt();
        for (i, added) in added.iter().enumerate() {
            let at = row * width + first + i;
            want[at] += *added as f32;
            let allowed = unit * want[at].abs() + 64.0 * f32::EPSILON * size.max(1.0);
            got[at] = (got[at] - want[at]) / allowed;
            want[at] = 0.0;
        }
    }
    let name = format!("adapt {segments:?} {cols} to {outs}, {ranks:?} {precision:?}");
    Outcome::of(name, &got, &want, 1.0, 1.0)
}

fn greatest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |a, x| x.abs().max(a))
}

/// A row by itself gets the bits that it gets in a batch.
fn alone<G: Gpu>(open: Open<'_, G>) -> Outcome {
    let segments = BATCHES[2];
    let mut device = open(config(Precision::Bfloat16, ROWS_MAX));
    let mut numbers = Numbers::new(5);
    let factors: Vec<_> =
        RANKS.map(|rank| Factors::new(&mut numbers, Kind::Bf16, (300, 70), rank.max(1))).into();
    let pairs: Vec<_> = factors.iter().map(|f| Some(f.load(&mut device))).collect();
    let (x, old) = (numbers.list(20 * 300, 1.0), numbers.list(20 * 70, 1.0));
    let (all, mut sum) = (device.put(20, &x, Kept::Rounded), device.put(20, &old, Kept::Exact));
    begin(&mut device, segments);
    device.adapt(&all, &pairs, 0, &mut sum);
    device.finish();
    let together = device.get(&sum, 20);
    let mut single = Vec::new();
    let of_row = segments.iter().flat_map(|&(len, adapter)| (0..len).map(move |_| adapter));
    for (row, adapter) in of_row.enumerate() {
        let one = device.put(1, &x[row * 300..][..300], Kept::Rounded);
        let mut out = device.put(1, &old[row * 70..][..70], Kept::Exact);
        begin(&mut device, &[(1, adapter)]);
        device.adapt(&one, &pairs, 0, &mut out);
        device.finish();
        single.extend(device.get(&out, 1));
    }
    Outcome::of("adapt, rows alone".into(), &single, &together, 1.0, 0.0)
}

/// A NaN in a row stays in it.
fn nan_stays<G: Gpu>(open: Open<'_, G>) -> Outcome {
    let mut device = open(config(Precision::Float32, 2));
    let factors = Factors::new(&mut Numbers::new(1), Kind::F32, (40, 20), 4);
    let pair = [Some(factors.load(&mut device))];
    let mut x = vec![1.0; 80];
    x[50] = f32::NAN;
    let (x, mut out) = (device.put(2, &x, Kept::Exact), device.put(2, &[0.0; 40], Kept::Exact));
    begin(&mut device, &[(2, 1)]);
    device.adapt(&x, &pair, 0, &mut out);
    device.finish();
    let lost: Vec<f32> =
        device.get(&out, 2).iter().map(|x| f32::from(u8::from(x.is_nan()))).collect();
    let want: Vec<f32> = (0..40).map(|i| f32::from(u8::from(i >= 20))).collect();
    Outcome::of("adapt, a NaN in one row".into(), &lost, &want, 1.0, 0.0)
}

/// A rank that the kernels do not have is refused by name; dropped pairs give their memory back.
fn given_back<G: Gpu>(open: Open<'_, G>) -> Outcome {
    let mut device = open(config(Precision::Float32, 1));
    let refused = device.load_low_rank(&[0.0; 257], &[0.0; 257], 257, 1.0);
    let named = matches!(refused, Err(Error::Unsupported(text)) if text.contains("rank 257"));
    let large = vec![0.5; 1 << 20];
    let mut free = Vec::new();
    for _ in 0..4 {
        let pair = device.load_low_rank(&large, &large, 16, 1.0).expect("memory");
        assert!(pair.bytes() >= 8 << 20, "both factors are there");
        free.push(device.gpu().free_bytes());
    }
    // The second is loaded after the first was given back, and so on.
    let same = free.iter().all(|&bytes| bytes == free[0]);
    let failed = f32::from(u8::from(!(named && same)));
    Outcome::of("adapt, what is refused and given back".into(), &[failed], &[0.0], 1.0, 0.0)
}

#[cfg(test)]
mod tests {
    use crate::cases::tests::check;

    #[test]
    fn equals_the_reference() {
        check(super::cases);
    }
}
