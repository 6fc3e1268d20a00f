//! Mixtures of experts: rows choose experts, are multiplied in groups, and summed up again.
//!
//! Between [`route`] and [`combine`] the rows stand sorted by expert, so that each expert's
//! weights are read once for all of its rows. Every choice and every sum depends on its own row
//! only, in a set order: a row gets the same bits in any batch. It must not know what an expert
//! computes.

use super::isa::Isa;
use super::lanes::{Kernel, LANES, Lanes, dispatch};
use super::math::exp;
use super::matmul::grouped::{Groups, Scratch};
use super::matrix::Matrix;
use super::pool::Pool;
use super::rows::for_rows;
use super::tensor::{PerWorker, Shared, Vector};
use crate::compute::{Error, Router, RouterGroups, RouterScore};

/// The matrices of a layer's experts, all `[out, in]`.
#[derive(Debug)]
pub struct Experts {
    matrices: Vec<Matrix>,
}

impl Experts {
    /// # Panics
    /// No matrix, or matrices of several shapes: a bug in the caller.
    pub(crate) fn new(matrices: Vec<Matrix>) -> Self {
        let shape = |matrix: &Matrix| (matrix.rows(), matrix.cols());
        let first = shape(matrices.first().expect("at least one expert"));
        assert!(matrices.iter().all(|m| shape(m) == first), "experts of one shape");
        Self { matrices }
    }

    /// Output features.
    pub(crate) fn rows(&self) -> usize {
        self.matrices[0].rows()
    }

    /// Input features.
    pub(crate) fn cols(&self) -> usize {
        self.matrices[0].cols()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.matrices.iter().map(Matrix::bytes).sum()
    }
}

/// Which rows go to which experts, with what weight.
pub struct Routes {
    top_k: usize,
    /// Rows that were routed last.
    rows: usize,
    /// `[rows, top_k]` experts, best first.
    chosen: Vec<u32>,
    /// `[rows, top_k]`.
    weights: Vec<f32>,
    /// `[rows, top_k]`: where the row stands for this expert, sorted by expert.
    places: Vec<u32>,
    /// `[rows * top_k]`: the row that stands there.
    sources: Vec<u32>,
    /// `[experts + 1]`: where the rows of an expert begin.
    starts: Vec<u32>,
    scratch: PerWorker<Room>,
}

/// What one row's choice needs.
struct Room {
    scores: Vec<f32>,
    keys: Vec<f32>,
    groups: Vec<f32>,
    kept: Vec<u32>,
}

impl Routes {
    /// # Errors
    /// No memory.
    ///
    /// # Panics
    /// No expert, or more experts per row than there are.
    pub(crate) fn new(
        workers: usize,
        rows: usize,
        top_k: usize,
        experts: usize,
    ) -> Result<Self, Error> {
        assert!(0 < top_k && top_k <= experts, "{top_k} of {experts} experts");
        let all = rows.saturating_mul(top_k);
        let room = || Room {
            scores: vec![0.0; experts],
            keys: vec![0.0; experts],
            groups: vec![0.0; experts],
            kept: vec![0; experts],
        };
        Ok(Self {
            top_k,
            rows: 0,
            chosen: zeros(all)?,
            weights: zeros(all)?,
            places: zeros(all)?,
            sources: zeros(all)?,
            starts: zeros(experts + 1)?,
            scratch: PerWorker::new(workers, room),
        })
    }

    /// Rows of a routed tensor.
    pub(crate) fn routed(&self) -> usize {
        self.rows * self.top_k
    }

    /// Rows that were routed.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Experts to choose from.
    pub(crate) fn experts(&self) -> usize {
        self.starts.len() - 1
    }

    /// The experts of a row, best first: number, weight, and where the row stands for it.
    #[cfg(test)]
    pub(crate) fn of_row(&self, row: usize) -> impl Iterator<Item = (usize, f32, usize)> {
        (row * self.top_k..(row + 1) * self.top_k)
            .map(|i| (self.chosen[i] as usize, self.weights[i], self.places[i] as usize))
    }

    /// Sorts the rows by expert; rows of an expert stay in order.
    fn sort(&mut self) {
        let chosen = &self.chosen[..self.rows * self.top_k];
        self.starts.fill(0);
        for &expert in chosen {
            self.starts[expert as usize + 1] += 1;
        }
        for expert in 1..self.starts.len() {
            self.starts[expert] += self.starts[expert - 1];
        }
        for (i, &expert) in chosen.iter().enumerate() {
            let next = &mut self.starts[expert as usize];
            self.places[i] = *next;
            self.sources[*next as usize] = (i / self.top_k) as u32;
            *next += 1;
        }
        // Each start has moved to the next one's.
        let experts = self.experts();
        self.starts.copy_within(..experts, 1);
        self.starts[0] = 0;
    }
}

fn zeros<T: Clone + Default>(len: usize) -> Result<Vec<T>, Error> {
    let mut list = Vec::new();
    let wanted = len.saturating_mul(size_of::<T>());
    let missing = |_| Error::OutOfMemory { what: "routes", wanted };
    list.try_reserve_exact(len).map_err(missing)?;
    list.resize(len, T::default());
    Ok(list)
}

/// Every row of `logits` `[rows, experts]` chooses its experts. A row with a NaN chooses, too, but
/// its weights are NaN.
pub(crate) fn route(
    pool: &Pool,
    isa: Isa,
    logits: &[f32],
    how: &Router<'_, Vector>,
    routes: &mut Routes,
) {
    let (experts, top_k) = (routes.experts(), routes.top_k);
    let correction = how.correction.map(Vector::values);
    assert_eq!(how.top_k, top_k, "experts per row");
    assert!(correction.is_none_or(|c| c.len() == experts), "a correction for each expert");
    if let Some(groups) = how.groups {
        let count = groups.count;
        assert!(count > 0 && experts.is_multiple_of(count), "{count} groups of equal size");
        assert!(groups.kept <= count, "{} of {count} groups", groups.kept);
        assert!(groups.kept * (experts / count) >= top_k, "too few groups to choose from");
    }
    routes.rows = logits.len() / experts;
    assert!(routes.routed() <= routes.chosen.len(), "more rows than the routes claimed");
    let (chosen, weights) = (Shared::new(&mut routes.chosen), Shared::new(&mut routes.weights));
    // Choosing costs about as much as some passes over the scores.
    for_rows(pool, routes.rows, 8 * experts, &|range, worker| {
        // SAFETY: the task's own worker number, taken once.
        let room = unsafe { routes.scratch.of(worker) };
        for row in range {
            // SAFETY: each row belongs to one task.
            let (chosen, weights) =
                unsafe { (chosen.part(row * top_k, top_k), weights.part(row * top_k, top_k)) };
            let logits = &logits[row * experts..][..experts];
            dispatch(isa, Scores { logits, score: how.score, out: &mut room.scores });
            choose(how, correction, room, chosen);
            weigh(how, room, chosen, weights);
        }
    });
    routes.sort();
}

/// From logits to scores.
struct Scores<'a> {
    logits: &'a [f32],
    score: RouterScore,
    out: &'a mut [f32],
}

impl Kernel for Scores<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Self { logits, score, out } = self;
        // A NaN is no maximum, but makes its own power and so the sum a NaN.
        let shift = match score {
            RouterScore::Softmax => logits.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            RouterScore::Sigmoid => 0.0,
        };
        for (x, out) in logits.chunks(LANES).zip(out.chunks_mut(LANES)) {
            let x = s.sub(s.load_part(x, 0.0), s.splat(shift));
            let one = s.splat(1.0);
            let score = match score {
                RouterScore::Softmax => exp(s, x),
                RouterScore::Sigmoid => s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x)))),
            };
            s.store_part(out, score);
        }
        if score == RouterScore::Softmax {
            let sum: f32 = out.iter().sum();
            out.iter_mut().for_each(|score| *score /= sum);
        }
    }
}

/// The experts with the greatest keys, best first, into `chosen`.
fn choose(
    how: &Router<'_, Vector>,
    correction: Option<&[f32]>,
    room: &mut Room,
    chosen: &mut [u32],
) {
    let Room { scores, keys, groups, kept } = room;
    match correction {
        Some(correction) => {
            for ((key, score), correction) in keys.iter_mut().zip(&*scores).zip(correction) {
                *key = score + correction;
            }
        }
        None => keys.copy_from_slice(scores),
    }
    let Some(RouterGroups { count, kept: groups_kept, two_best }) = how.groups else {
        return best(keys, 0..keys.len() as u32, chosen);
    };
    let size = keys.len() / count;
    for (group, keys) in groups.iter_mut().zip(keys.chunks_exact(size)) {
        *group = group_score(keys, two_best);
    }
    let kept = &mut kept[..groups_kept];
    best(&groups[..count], 0..count as u32, kept);
    kept.sort_unstable();
    let size = size as u32;
    best(keys, kept.iter().flat_map(|&group| group * size..(group + 1) * size), chosen);
}

fn group_score(keys: &[f32], two_best: bool) -> f32 {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &key in keys {
        if key > first {
            (first, second) = (key, first);
        } else if key > second {
            second = key;
        }
    }
    if two_best && keys.len() > 1 { first + second } else { first }
}

/// Which of `ids`, which ascend, have the greatest keys: best first, ties by the smaller id, a NaN
/// after all numbers. There are at least as many as `out` wants.
fn best(keys: &[f32], ids: impl Iterator<Item = u32>, out: &mut [u32]) {
    let mut filled = 0;
    for id in ids {
        let key = keys[id as usize];
        let better = |other: u32| {
            let other = keys[other as usize];
            key > other || other.is_nan() && !key.is_nan()
        };
        if filled == out.len() {
            if !better(out[filled - 1]) {
                continue;
            }
        } else {
            filled += 1;
        }
        let mut at = filled - 1;
        while at > 0 && better(out[at - 1]) {
            out[at] = out[at - 1];
            at -= 1;
        }
        out[at] = id;
    }
    assert_eq!(filled, out.len(), "fewer candidates than wanted");
}

/// The weights of the chosen.
fn weigh(how: &Router<'_, Vector>, room: &Room, chosen: &[u32], weights: &mut [f32]) {
    for (weight, &expert) in weights.iter_mut().zip(chosen) {
        *weight = room.scores[expert as usize];
    }
    let sum = if how.normalise { weights.iter().sum::<f32>() + 1e-20 } else { 1.0 };
    let broken = room.scores.iter().chain(&room.keys).any(|x| x.is_nan());
    for weight in weights {
        *weight = if broken { f32::NAN } else { *weight / sum * how.scale };
    }
}

/// Products of rows with their experts' matrices.
pub(crate) struct Call<'a> {
    /// `[rows, in]` if `spread`, otherwise `[rows * top_k, in]`, sorted by expert.
    pub(crate) x: &'a [f32],
    pub(crate) spread: bool,
    pub(crate) experts: &'a Experts,
    /// `[experts * out]`.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) routes: &'a Routes,
}

/// `out` `[rows * top_k, out]` is sorted by expert.
pub(crate) fn expert_matmul(pool: &Pool, scratch: &mut Scratch, call: &Call<'_>, out: &mut [f32]) {
    let Call { x, spread, experts, bias, routes } = *call;
    assert_eq!(experts.matrices.len(), routes.experts(), "routes to these experts");
    let from = spread.then(|| &routes.sources[..routes.routed()]);
    let starts = &routes.starts;
    Groups { x, from, starts, matrices: &experts.matrices, bias }.multiply(pool, scratch, out);
}

/// A weighted sum of rows.
struct Sum<'a> {
    x: &'a [f32],
    places: &'a [u32],
    weights: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Sum<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let width = self.out.len();
        for (i, out) in self.out.chunks_mut(LANES).enumerate() {
            let mut sum = s.splat(0.0);
            for (&place, &weight) in self.places.iter().zip(self.weights) {
                let x = &self.x[place as usize * width + i * LANES..][..out.len()];
                sum = s.fma(s.load_part(x, 0.0), s.splat(weight), sum);
            }
            s.store_part(out, sum);
        }
    }
}

/// `out[r]` = the weighted sum of row r's experts in `x` `[rows * top_k, width]`, best first.
pub(crate) fn combine(
    pool: &Pool,
    isa: Isa,
    x: &[f32],
    routes: &Routes,
    width: usize,
    out: &mut [f32],
) {
    assert!(x.len() == routes.routed() * width && out.len() == routes.rows * width, "sum shapes");
    let (top_k, out) = (routes.top_k, Shared::new(out));
    for_rows(pool, routes.rows, top_k * width, &|range, _| {
        for row in range {
            // SAFETY: each row belongs to one task.
            let out = unsafe { out.part(row * width, width) };
            let places = &routes.places[row * top_k..][..top_k];
            let weights = &routes.weights[row * top_k..][..top_k];
            dispatch(isa, Sum { x, places, weights, out });
        }
    });
}
