//! Draws and log-probabilities against the reference that sorts. Masses are whole numbers and cuts
//! are exact, so a draw is right or wrong: an error is the number of wrong ones. Draws that lie on
//! a threshold, where rounding decides, are not compared.

use kernels::cpu::random::random_bits;
use kernels::reference::{numbers, sample as reference};
use kernels::{
    Compute, Drawn, LogprobRow, Precision, SampleRow, Sampler, Segment, Step, mask_words,
};

use super::{Bench, Numbers, Open, Outcome, config};
use crate::device::{Cuda, CudaConfig};
use crate::gpu::Gpu;
use crate::ops::cache::Cache;
use crate::tensor::Tensor;

#[cfg(test)]
mod tests;

/// One element, less than a group of four, some, one that kernels cannot read in fours.
const VOCABS: [usize; 4] = [1, 5, 300, 4099];
const ROWS: [usize; 3] = [1, 3, 17];
/// f32 weights carry an error of some 1e-6.
const MARGIN: f64 = 1e-5;
/// Masses are exact to 1e-9 of the sum; neighbours in a large flat row lie 1e-5 apart.
const MARGIN_LARGE: f64 = 1e-7;

pub(super) fn cases<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let mut out = Vec::new();
    for vocab in VOCABS {
        out.extend(draws(open, vocab, false));
        out.extend(draws(open, vocab, true));
    }
    out.extend(large(open));
    out.push(nothing(open));
    for vocab in [1, 33, 700, 20_011] {
        out.push(scores(open, vocab));
    }
    out.push(many_biases(open));
    out.push(chained(open, false));
    out.push(chained(open, true));
    out.push(distribution(open));
    out
}

/// A device with room for logits.
struct Rig<G: Gpu> {
    device: Cuda<G>,
    cache: Cache,
    logits: Tensor,
    vocab: usize,
}

impl<G: Gpu> Rig<G> {
    fn new(open: Open<'_, G>, rows: usize, vocab: usize) -> Self {
        let shape = CudaConfig { vocab, slots: rows.max(4), ..config(Precision::Float32, rows) };
        let mut device = open(shape);
        let cache = device.cache(kernels::CacheShape {
            layers: 1,
            pages: 1,
            page_tokens: 16,
            kv_heads: 1,
            head_dim: 8,
            values: kernels::CacheValues::Own,
            element: kernels::CacheElement::Bf16,
            slots: 1,
            pages_per_slot: 1,
        });
        let cache = cache.expect("memory");
        let logits = device.blank(rows, vocab, kernels::Kept::Exact);
        Self { device, cache, logits, vocab }
    }

    /// Ends a step that draws and scores the same logits.
    fn end(&mut self, logits: &[f32], rows: &[SampleRow], known: &[LogprobRow], masks: &[u32]) {
        self.begin(logits);
        self.draws(rows, known, masks);
    }

    fn begin(&mut self, logits: &[f32]) {
        let n = logits.len() / self.vocab;
        let Self { device, cache, logits: room, .. } = self;
        device.write(room, logits);
        let segment = Segment { slot: 0, first: 0, len: n as u32, row: 0, late: false, adapter: 0 };
        let tokens = vec![0; n];
        device.begin(Step { tokens: &tokens, segments: &[segment], grants: &[] }, cache);
    }

    fn draws(&mut self, rows: &[SampleRow], known: &[LogprobRow], masks: &[u32]) {
        let Self { device, logits: room, .. } = self;
        if !known.is_empty() {
            device.score(room, known);
        }
        device.sample(room, rows, masks);
        device.end();
    }

    fn collect(&mut self) -> Drawn {
        let mut drawn = Drawn::default();
        self.device.collect(&mut drawn).expect("no fault");
        drawn
    }

    /// Draws row i from slot i.
    fn draw(&mut self, logits: &[f32], positions: &[u32]) -> Vec<Option<u32>> {
        self.draw_masked(logits, positions, &[])
    }

    /// As [`Rig::draw`], row i under mask i where there are masks.
    fn draw_masked(
        &mut self,
        logits: &[f32],
        positions: &[u32],
        masks: &[u32],
    ) -> Vec<Option<u32>> {
        let mask = |slot| (!masks.is_empty()).then_some(slot);
        let row = |(slot, &position)| SampleRow {
            slot,
            position,
            draft: None,
            logprobs: None,
            mask: mask(slot),
        };
        let rows: Vec<SampleRow> = (0..).zip(positions).map(row).collect();
        self.end(logits, &rows, &[], masks);
        let drawn = self.collect();
        let slots: Vec<u32> = drawn.tokens.iter().map(|(slot, _)| *slot).collect();
        assert_eq!(slots, (0..rows.len() as u32).collect::<Vec<_>>(), "tokens in order of rows");
        drawn.tokens.into_iter().map(|(_, token)| token).collect()
    }
}

/// Logits of different shapes: a few tokens ahead, flat, peaked, many ties, some impossible, all
/// alike, all but one impossible, huge.
fn logits(numbers: &mut Numbers, vocab: usize, kind: usize) -> Vec<f32> {
    let mut x = numbers.list(vocab, [3.0, 0.2, 8.0, 1.0][kind % 4]);
    match kind {
        4 | 5 => x.iter_mut().for_each(|x| *x = (*x * 2.0).round() / 2.0),
        6 => {
            for _ in 0..vocab / 2 {
                x[numbers.below(vocab)] = f32::NEG_INFINITY;
            }
            x[vocab / 2] = 0.0;
        }
        7 => x.fill(1.0),
        8 => {
            x.fill(f32::NEG_INFINITY);
            x[vocab / 3] = -7.0;
        }
        9 => x.iter_mut().for_each(|x| *x *= 1e37),
        _ => {}
    }
    x
}
const KINDS: usize = 10;

/// Counts draws that differ.
#[derive(Default)]
struct Tally {
    all: usize,
    close: usize,
    wrong: usize,
}

impl Tally {
    fn compare(&mut self, got: Option<u32>, (want, margin): (Option<u32>, f64), least: f64) {
        self.all += 1;
        self.close += usize::from(margin < least);
        self.wrong += usize::from(margin >= least && got != want);
    }

    fn outcomes(&self, name: &str) -> [Outcome; 2] {
        let close = self.close as f32 / self.all as f32;
        let of = |name: String, error: f32, limit: f32| Outcome { name, error, limit };
        [
            of(format!("{name}: wrong of {}", self.all), self.wrong as f32, 0.0),
            // A set may be kept exactly at a threshold: top_p of ties, min_p of 1.
            of(format!("{name}: share too close to compare"), close, 0.3),
        ]
    }
}

/// Everything alone and combined, slots that start anew with tokens of their own.
fn draws<G: Gpu>(open: Open<'_, G>, vocab: usize, masked: bool) -> [Outcome; 2] {
    let mut tally = Tally::default();
    let mut numbers = Numbers::new(vocab as u64 + u64::from(masked));
    for rows in ROWS {
        let mut rig = Rig::new(open, rows, vocab);
        for kind in 0..KINDS {
            let (mut x, mut wants, mut positions) = (Vec::new(), Vec::new(), Vec::new());
            let mut masks = Vec::new();
            for slot in 0..rows as u32 {
                let row = logits(&mut numbers, vocab, kind);
                let sampler = numbers::sampler(&mut numbers, vocab);
                let kind = slot as usize + kind;
                let mask = masked.then(|| numbers::mask(&mut numbers, vocab, kind));
                masks.extend(mask.iter().flatten());
                let history: Vec<u32> = (0..6).map(|_| numbers.below(vocab) as u32).collect();
                let position = numbers.below(6) as u32;
                rig.device.end_slot(slot);
                rig.device.start_slot(slot, &history, 4, &sampler);
                let (prompt, output) = history.split_at(4);
                let mask = mask.as_deref();
                let seen = reference::prepared(&row, &sampler, prompt, output, position, mask);
                let bits = random_bits(sampler.seed, position);
                wants.push(reference::draw(&seen, &sampler, bits));
                x.extend(row);
                positions.push(position);
            }
            for (got, want) in rig.draw_masked(&x, &positions, &masks).into_iter().zip(wants) {
                tally.compare(got, want, MARGIN);
            }
        }
    }
    let masks = if masked { " under masks" } else { "" };
    tally.outcomes(&format!("sample {vocab}{masks}"))
}

/// Rows that no list of candidates holds.
fn large<G: Gpu>(open: Open<'_, G>) -> [Outcome; 2] {
    let vocab = 32_000;
    let samplers = [
        Sampler::plain(),
        Sampler { top_k: 40, ..Sampler::plain() },
        Sampler { top_k: 256, typical_p: 0.7, ..Sampler::plain() },
        Sampler { top_p: 0.9, ..Sampler::plain() },
        Sampler { top_p: 0.95, top_k: 100, temperature: 0.7, ..Sampler::plain() },
        Sampler { top_k: 9_000, ..Sampler::plain() },
        Sampler { top_k: 30_000, top_p: 0.98, typical_p: 0.9, ..Sampler::plain() },
        Sampler { typical_p: 0.9, ..Sampler::plain() },
        Sampler { min_p: 0.05, top_p: 0.9, ..Sampler::plain() },
        Sampler { min_p: 0.001, ..Sampler::plain() },
        Sampler::greedy(),
        // All alike: 700 of the first, and a share that is no whole number of them.
        Sampler { top_k: 700, ..Sampler::plain() },
        Sampler { top_p: 0.30001, ..Sampler::plain() },
        Sampler { typical_p: 0.70001, top_k: 20_000, ..Sampler::plain() },
        Sampler { top_k: 5, ..Sampler::plain() },
    ];
    let rows = samplers.len();
    let mut rig = Rig::new(open, rows, vocab);
    let mut numbers = Numbers::new(3);
    for (slot, sampler) in (0..).zip(&samplers) {
        rig.device.start_slot(slot, &[0], 1, sampler);
    }
    let mut tally = Tally::default();
    for (round, scale) in (0..).zip([2.5, 0.5, 5.0]) {
        let mut x = numbers.list(rows * vocab, scale);
        x[11 * vocab..].fill(1.5);
        let positions = vec![round; rows];
        let masks: Vec<u32> =
            (0..rows).flat_map(|kind| numbers::mask(&mut numbers, vocab, kind + 1)).collect();
        for masked in [false, true] {
            let masks = if masked { masks.as_slice() } else { &[] };
            let got = rig.draw_masked(&x, &positions, masks);
            for (i, (got, sampler)) in got.into_iter().zip(&samplers).enumerate() {
                let mask = masked.then(|| &masks[i * mask_words(vocab)..]);
                let row = &x[i * vocab..][..vocab];
                let seen = reference::prepared(row, sampler, &[0], &[], round, mask);
                let want = reference::draw(&seen, sampler, random_bits(0, round));
                tally.compare(got, want, MARGIN_LARGE);
            }
        }
    }
    tally.outcomes("sample 32000")
}

/// NaN, +inf, nothing possible: no token and no log-probabilities.
fn nothing<G: Gpu>(open: Open<'_, G>) -> Outcome {
    let mut rig = Rig::new(open, 5, 40);
    let mut wrong = 0;
    for temperature in [0.0, 1.0] {
        let banned =
            Sampler { temperature, banned: vec![3, 7, 3], banned_until: 2, ..Sampler::plain() };
        (0..5).for_each(|slot| rig.device.start_slot(slot, &[1], 1, &banned));
        let mut x = vec![0.0; 5 * 40];
        // A NaN that is banned is still a NaN.
        x[3] = f32::NAN;
        x[40 + 5] = f32::NAN;
        x[80..120].fill(f32::NEG_INFINITY);
        x[120 + 39] = f32::INFINITY;
        // A NaN that is masked, too; and what is left is masked.
        let masks = [[1 << 9, 0], [1 << 3, 0]].concat();
        // Only the banned ones are possible.
        x[160..].fill(f32::NEG_INFINITY);
        (x[163], x[167]) = (2.0, 1.0);
        let mask = |slot| [None, Some(0), None, None, Some(1)][slot as usize];
        let row = |slot| SampleRow {
            slot,
            position: 1,
            draft: None,
            logprobs: Some(3),
            mask: mask(slot),
        };
        rig.end(&x, &(0..5).map(row).collect::<Vec<_>>(), &[], &masks);
        let drawn = rig.collect();
        wrong += drawn.tokens.iter().filter(|(_, token)| token.is_some()).count();
        let unknown = |s: &kernels::compute::Scored| {
            s.rank == 0 && s.token == 0 && s.logprob.is_nan() && s.top.is_empty()
        };
        wrong += drawn.logprobs.iter().filter(|scored| !unknown(scored)).count();
        wrong += usize::from(drawn.logprobs.len() != 5);
        // Bans end.
        let got = rig.draw(&x, &[2; 5]);
        let possible = matches!(got[4], Some(3 | 7)) && (temperature > 0.0 || got[4] == Some(3));
        wrong += usize::from(!possible) + got[..4].iter().filter(|got| got.is_some()).count();
    }
    Outcome { name: "sample of nothing".to_owned(), error: wrong as f32, limit: 0.0 }
}

/// Log-probabilities of drawn and of given tokens; what changes the draw does not change them.
fn scores<G: Gpu>(open: Open<'_, G>, vocab: usize) -> Outcome {
    let rows = KINDS as u32;
    let mut rig = Rig::new(open, KINDS, vocab);
    let mut numbers = Numbers::new(vocab as u64);
    let sampler = Sampler {
        repetition_penalty: 2.0,
        frequency_penalty: 1.0,
        logit_bias: vec![(0, 3.0), (vocab as u32 / 2, -1.0), (0, 1.0)],
        banned: vec![vocab as u32 - 1, 0],
        banned_until: if vocab > 2 { 9 } else { 0 },
        top_k: 3,
        ..Sampler::plain()
    };
    (0..rows).for_each(|slot| rig.device.start_slot(slot, &[0, 0, 0], 1, &sampler));
    let x: Vec<f32> = (0..KINDS).flat_map(|kind| logits(&mut numbers, vocab, kind)).collect();
    let top = |i: u32| if i == 2 { 128 } else { 5 };
    // About half of the tokens, and those that the rows drew before its mask may be gone.
    let masks = numbers::mask(&mut numbers, vocab, 0);
    let masked = |i: u32| (vocab > 33 && i.is_multiple_of(3)).then_some(0);
    let ask = |i| SampleRow {
        slot: i,
        position: i,
        draft: None,
        logprobs: (i != 1).then_some(top(i)),
        mask: masked(i),
    };
    let asked: Vec<SampleRow> = (0..rows).map(ask).collect();
    let known: Vec<LogprobRow> = (0..rows)
        .map(|i| LogprobRow { slot: i, position: i, token: i * 7 % vocab as u32, top: i })
        .collect();
    rig.end(&x, &asked, &known, &masks);
    let drawn = rig.collect();
    let of_drawn = asked.iter().filter(|row| row.logprobs.is_some()).map(|row| {
        let token = drawn.tokens[row.position as usize].1.expect("a token");
        (row.position, token, top(row.position))
    });
    let of_known = known.iter().map(|row| (row.position, row.token, row.top));
    let wanted: Vec<(u32, u32, u32)> = of_known.chain(of_drawn).collect();
    let mut wrong = usize::from(drawn.logprobs.len() != wanted.len());
    // An f32 logarithm of up to 90 is rounded to 4e-6; the exponential is off by 2 ulp.
    let near = |a: f32, b: f32| a == b || (a - b).abs() < 1e-6 * b.abs().max(1.0);
    for (scored, (row, token, top)) in drawn.logprobs.iter().zip(wanted) {
        let x = &x[row as usize * vocab..][..vocab];
        let (logprob, rank, best) = reference::logprobs(x, token, top as usize);
        let whole = (scored.position, scored.slot, scored.token, scored.rank, scored.top.len())
            == (row, row, token, rank, best.len());
        let alike =
            |(got, want): (&(u32, f32), &(u32, f32))| got.0 == want.0 && near(got.1, want.1);
        let fits = near(scored.logprob, logprob) && scored.top.iter().zip(&best).all(alike);
        wrong += usize::from(!whole || !fits);
    }
    Outcome { name: format!("log-probabilities {vocab}"), error: wrong as f32, limit: 0.0 }
}

/// As many entries of bias and bans as a request may have, some twice, some beyond the vocabulary.
fn many_biases<G: Gpu>(open: Open<'_, G>) -> Outcome {
    let vocab = 2_003;
    let mut rig = Rig::new(open, 2, vocab);
    let mut numbers = Numbers::new(9);
    let row = numbers.list(vocab, 1.0);
    let mut entry = || (numbers.below(vocab) as u32, numbers.normal());
    let logit_bias: Vec<(u32, f32)> = (0..4096).map(|_| entry()).collect();
    let banned: Vec<u32> = (0..64).map(|_| numbers.below(vocab) as u32).collect();
    let biased =
        Sampler { logit_bias, banned, banned_until: 100, temperature: 0.5, ..Sampler::plain() };
    rig.device.start_slot(0, &[0], 1, &biased);
    // Greedy: any wrong sum may show.
    let greedy = Sampler { temperature: 0.0, ..biased.clone() };
    rig.device.start_slot(1, &[0], 1, &greedy);
    let mut tally = Tally::default();
    for position in 0..8 {
        let got = rig.draw(&row.repeat(2), &[position; 2]);
        for (got, sampler) in got.into_iter().zip([&biased, &greedy]) {
            let seen = reference::prepared(&row, sampler, &[0], &[], position, None);
            tally.compare(got, reference::draw(&seen, sampler, random_bits(0, position)), MARGIN);
        }
    }
    let beyond = Sampler { logit_bias: vec![(5_000, 9.0)], banned: vec![2_003], ..greedy };
    rig.device.start_slot(0, &[4_000_000], 1, &Sampler { presence_penalty: 1.0, ..beyond });
    let want = reference::draw(&row, &Sampler::greedy(), 0);
    tally.compare(rig.draw(&row, &[0])[0], want, MARGIN);
    Outcome { name: "sample with 4096 biases".to_owned(), error: tally.wrong as f32, limit: 0.0 }
}

/// Steps that are ended before the one before is collected: what that one drew counts already. Or
/// begun and flushed before: then masks forbid what it drew.
fn chained<G: Gpu>(open: Open<'_, G>, flushed: bool) -> Outcome {
    let vocab = 24;
    let mut rig = Rig::new(open, 3, vocab);
    let mut numbers = Numbers::new(5);
    let row = numbers.list(vocab, 1.0);
    let samplers = [
        Sampler { frequency_penalty: 0.4, temperature: 0.0, ..Sampler::plain() },
        Sampler { presence_penalty: 0.9, repetition_penalty: 1.2, seed: 4, ..Sampler::plain() },
        Sampler { seed: 8, ..Sampler::plain() },
    ];
    let (prompt, mut output) = (vec![3, 7, 7], vec![vec![5]; 3]);
    for (slot, sampler) in (0..).zip(&samplers) {
        rig.device.start_slot(slot, &[3, 7, 7, 5], 3, sampler);
    }
    let mut tally = Tally::default();
    let mut masks = vec![u32::MAX; 3];
    let mut compare = |drawn: &Drawn, step: u32, masks: &mut [u32]| {
        let all = samplers.iter().zip(&mut output).zip(&drawn.tokens).zip(masks);
        for (((sampler, output), (_, got)), mask) in all {
            let seen = reference::prepared(&row, sampler, &prompt, output, step, Some(&[*mask]));
            let want = reference::draw(&seen, sampler, random_bits(sampler.seed, step));
            tally.compare(*got, want, MARGIN);
            output.extend(got);
            *mask = if flushed { !(1 << got.unwrap_or(0)) } else { u32::MAX };
        }
    };
    let steps = 40;
    for step in 0..steps {
        rig.begin(&row.repeat(3));
        if flushed {
            rig.device.flush();
            if step > 0 {
                compare(&rig.collect(), step - 1, &mut masks);
            }
        }
        let mask = |slot| flushed.then_some(slot);
        let ask = |slot| SampleRow {
            slot,
            position: step,
            draft: None,
            logprobs: None,
            mask: mask(slot),
        };
        rig.draws(&[0, 1, 2].map(ask), &[], &masks);
        if !flushed && step > 0 {
            compare(&rig.collect(), step - 1, &mut masks);
        }
    }
    compare(&rig.collect(), steps - 1, &mut masks);
    let name = format!("sample in chains{}", if flushed { ", flushed" } else { "" });
    Outcome { name, error: tally.wrong as f32, limit: 0.0 }
}

/// Pearson's sum over draws of many seeds and positions.
fn distribution<G: Gpu>(open: Open<'_, G>) -> Outcome {
    let (vocab, rows) = (50, 64);
    let mut rig = Rig::new(open, rows, vocab);
    let row = Numbers::new(11).list(vocab, 1.0);
    for slot in 0..rows as u32 {
        rig.device.start_slot(
            slot,
            &[0],
            1,
            &Sampler { seed: u64::from(slot), ..Sampler::plain() },
        );
    }
    let mut counts = vec![0_u32; vocab];
    let (x, steps) = (row.repeat(rows), 60);
    for step in 0..steps {
        for token in rig.draw(&x, &vec![step; rows]) {
            counts[token.expect("a token") as usize] += 1;
        }
    }
    let weights: Vec<f64> = row.iter().map(|&x| f64::from(x).exp()).collect();
    let total: f64 = weights.iter().sum();
    let n = f64::from(steps) * rows as f64;
    let terms = counts.iter().zip(&weights).map(|(&count, weight)| {
        let expected = n * weight / total;
        (f64::from(count) - expected).powi(2) / expected
    });
    // 49 degrees of freedom: mean 49, standard deviation 9.9; five of them above.
    let name = format!("sample: chi-square of {n} draws");
    Outcome { name, error: terms.sum::<f64>() as f32, limit: 99.0 }
}
