//! Draws and log-probabilities against the reference that sorts, and the distribution of draws.

use super::{Numbers, begin, cpu, isas, tensor};
use crate::compute::{Compute, Drawn, LogprobRow, SampleRow, Sampler, mask_words};
use crate::cpu::Cpu;
use crate::cpu::isa::Isa;
use crate::cpu::random::random_bits;
use crate::reference::{numbers, sample as reference};

/// Draws one token per row of logits, at positions from `position` on, from slot 0.
fn draw(cpu: &mut Cpu, logits: &[f32], vocab: usize, position: u32) -> Vec<Option<u32>> {
    draw_of(cpu, logits, vocab, position, &[])
}

/// As [`draw`], row i under mask i where there are masks.
fn draw_of(
    cpu: &mut Cpu,
    logits: &[f32],
    vocab: usize,
    position: u32,
    masks: &[u32],
) -> Vec<Option<u32>> {
    let rows = logits.len() / vocab;
    let mut x = tensor(cpu, rows, logits);
    let mask = |i| (!masks.is_empty()).then_some(i);
    let row = |i| SampleRow {
        slot: 0,
        position: position + i,
        draft: None,
        logprobs: None,
        mask: mask(i),
    };
    let list: Vec<SampleRow> = (0..rows as u32).map(row).collect();
    begin(cpu, rows);
    cpu.sample(&mut x, &list, masks);
    cpu.end();
    let mut drawn = Drawn::default();
    cpu.collect(&mut drawn).expect("no fault");
    drawn.tokens.into_iter().map(|(_, token)| token).collect()
}

/// Logits of different shapes: a few tokens ahead, flat, many ties, some impossible.
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
        _ => {}
    }
    x
}

#[test]
fn draws_equal_the_reference() {
    let (mut all, mut close) = (0, 0);
    for isa in isas() {
        for vocab in [1, 2, 15, 16, 17, 300, 511, 512, 513, 1100, 5003] {
            let mut cpu = cpu(isa, 2, 4, vocab);
            let mut numbers = Numbers::new(vocab as u64);
            // Every other round has no mask.
            for round in 0..320 {
                let masked = round % 2 == 1;
                let x = logits(&mut numbers, vocab, round / 2 % 8);
                let mask = numbers::mask(&mut numbers, vocab, round / 2);
                let mask = if masked { mask.as_slice() } else { &[] };
                let sampler = numbers::sampler(&mut numbers, vocab);
                let history: Vec<u32> = (0..6).map(|_| numbers.below(vocab) as u32).collect();
                cpu.start_slot(0, &history, 4, &sampler);
                let position = numbers.below(6) as u32;
                let got = draw_of(&mut cpu, &x, vocab, position, mask)[0];
                let (prompt, output) = history.split_at(4);
                let mask = masked.then_some(mask);
                let x = reference::prepared(&x, &sampler, prompt, output, position, mask);
                let bits = random_bits(sampler.seed, position);
                let (want, margin) = reference::draw(&x, &sampler, bits);
                all += 1;
                // f32 weights carry an error of some 1e-6.
                if margin < 1e-5 {
                    close += 1;
                    continue;
                }
                assert_eq!(got, want, "{} {vocab} {round} {sampler:?}", isa.name());
            }
        }
    }
    // Where a set is kept exactly at a threshold (top_p of ties, min_p of 1), nothing is compared.
    assert!(close * 5 < all, "{close} of {all} draws are too close to compare");
}

/// What the mask leaves is drawn as if the rest did not exist, and all of it is no mask at all.
#[test]
fn masks_leave_what_they_name() {
    for isa in isas() {
        for vocab in [1, 31, 32, 33, 63, 64, 70, 4099] {
            let mut cpu = cpu(isa, 2, 8, vocab);
            let mut numbers = Numbers::new(vocab as u64);
            let words = mask_words(vocab);
            for temperature in [0.0, 1.0] {
                cpu.start_slot(0, &[0], 1, &Sampler { temperature, ..Sampler::plain() });
                let x = numbers.list(8 * vocab, 2.0);
                let free = draw(&mut cpu, &x, vocab, 0);
                let all = vec![u32::MAX; 8 * words];
                assert_eq!(draw_of(&mut cpu, &x, vocab, 0, &all), free, "{vocab}");
                // One token each, the first and the last among them.
                let only: Vec<usize> =
                    (0..8).map(|i| [0, vocab - 1, numbers.below(vocab)][i % 3]).collect();
                let mut masks = vec![0; 8 * words];
                for (mask, token) in masks.chunks_mut(words).zip(&only) {
                    mask[token / 32] = 1 << (token % 32);
                }
                let wanted: Vec<_> = only.iter().map(|&token| Some(token as u32)).collect();
                assert_eq!(draw_of(&mut cpu, &x, vocab, 0, &masks), wanted, "{vocab}");
                // None, but for bits behind the last token.
                let beyond = |word| (32 * word..32 * word + 32).map(|token| token >= vocab);
                let bits = |word| beyond(word).rev().fold(0, |bits, set| 2 * bits + u32::from(set));
                let nothing: Vec<u32> = (0..words).map(bits).collect();
                assert_eq!(draw_of(&mut cpu, &x, vocab, 0, &nothing.repeat(8)), [None; 8]);
            }
        }
    }
}

#[test]
fn large_vocabulary_equals_the_reference() {
    let vocab = 151_936;
    let mut cpu = cpu(Isa::detect(), 2, 4, vocab);
    let mut numbers = Numbers::new(3);
    let on = Sampler::plain();
    let samplers = [
        on.clone(),
        Sampler { top_k: 40, ..on.clone() },
        Sampler { top_p: 0.9, ..on.clone() },
        Sampler { top_p: 0.95, top_k: 100, temperature: 0.7, ..on.clone() },
        Sampler { top_k: 20_000, ..on.clone() },
        Sampler { typical_p: 0.9, ..on.clone() },
        Sampler { min_p: 0.05, top_p: 0.9, ..on.clone() },
        Sampler { temperature: 0.0, ..on },
    ];
    let mut compared = 0;
    for (i, sampler) in samplers.into_iter().cycle().take(24).enumerate() {
        let x = numbers.list(vocab, [2.5, 0.5, 5.0][i / 8]);
        cpu.start_slot(0, &[0], 1, &sampler);
        let got = draw(&mut cpu, &x, vocab, i as u32)[0];
        let (want, margin) = reference::draw(&x, &sampler, random_bits(0, i as u32));
        // Neighbours lie 1e-5 apart in a flat distribution, sums of masses are exact to 1e-9.
        if margin > 1e-7 {
            compared += 1;
            assert_eq!(got, want, "{sampler:?}, margin {margin}");
        }
    }
    assert!(compared >= 12, "{compared} draws compared");
}

#[test]
fn rows_that_give_nothing() {
    for isa in isas() {
        let mut cpu = cpu(isa, 2, 4, 40);
        for temperature in [0.0, 1.0] {
            let sampler =
                Sampler { temperature, banned: vec![3, 7], banned_until: 2, ..Sampler::plain() };
            cpu.start_slot(0, &[1], 1, &sampler);
            let mut x = vec![0.0; 4 * 40];
            x[40 + 5] = f32::NAN;
            // A NaN that is banned is still a NaN.
            x[3] = f32::NAN;
            let mut masked = x.clone();
            x[80..120].fill(f32::NEG_INFINITY);
            x[120 + 39] = f32::INFINITY;
            assert_eq!(draw(&mut cpu, &x, 40, 0), [None; 4]);
            // Under masks that leave token 9 alone, a NaN shows and +inf does not.
            masked[120 + 39] = f32::INFINITY;
            let only = [1 << 9, 0].repeat(4);
            let got = draw_of(&mut cpu, &masked, 40, 0, &only);
            assert_eq!(got, [None, None, Some(9), Some(9)]);
            // All but the banned ones are impossible: nothing at 0 and 1, the first of them at 2.
            let mut x = vec![f32::NEG_INFINITY; 40];
            (x[3], x[7]) = (2.0, 1.0);
            assert_eq!(draw(&mut cpu, &[x.clone(), x.clone()].concat(), 40, 0), [None; 2]);
            if temperature == 0.0 {
                assert_eq!(draw(&mut cpu, &x, 40, 2), [Some(3)]);
            }
        }
    }
}

#[test]
fn logprobs_equal_the_reference() {
    for isa in isas() {
        for vocab in [1, 16, 33, 700, 20_011] {
            let mut cpu = cpu(isa, 2, 8, vocab);
            let mut numbers = Numbers::new(vocab as u64);
            // Penalties, bans and masks change the draw but not what is reported.
            let sampler = Sampler {
                repetition_penalty: 2.0,
                frequency_penalty: 1.0,
                logit_bias: vec![(0, 3.0)],
                top_k: 3,
                ..Sampler::plain()
            };
            cpu.start_slot(0, &[0, 0, 0], 1, &sampler);
            let x: Vec<f32> = (0..8).flat_map(|kind| logits(&mut numbers, vocab, kind)).collect();
            let mut given = tensor(&mut cpu, 8, &x);
            let masks: Vec<u32> =
                (0..8).flat_map(|i| numbers::mask(&mut numbers, vocab, [4, 0][i % 2])).collect();
            let masked = |i: u32| (i.is_multiple_of(3) && vocab > 16).then_some(i);
            let ask = |i| SampleRow {
                slot: 0,
                position: i,
                draft: None,
                logprobs: (i != 1).then_some(5),
                mask: masked(i),
            };
            let rows: Vec<SampleRow> = (0..8).map(ask).collect();
            let known: Vec<LogprobRow> = (0..8)
                .map(|i| LogprobRow { slot: i, position: i, token: i % vocab as u32, top: i })
                .collect();
            begin(&mut cpu, 8);
            let scored = tensor(&mut cpu, 8, &x);
            cpu.sample(&mut given, &rows, &masks);
            cpu.score(&scored, &known);
            cpu.end();
            let mut drawn = Drawn::default();
            cpu.collect(&mut drawn).expect("no fault");
            let asked = rows.iter().filter(|row| row.logprobs.is_some()).map(|row| {
                let token = drawn.tokens[row.position as usize].1.expect("a token");
                (row.position, token, 5)
            });
            let wanted: Vec<(u32, u32, u32)> =
                asked.chain(known.iter().map(|row| (row.position, row.token, row.top))).collect();
            assert_eq!(drawn.logprobs.len(), wanted.len());
            for (scored, (row, token, top)) in drawn.logprobs.iter().zip(wanted) {
                let x = &x[row as usize * vocab..][..vocab];
                let (logprob, rank, best) = reference::logprobs(x, token, top as usize);
                assert_eq!((scored.position, scored.token, scored.rank), (row, token, rank));
                let near = |a: f32, b: f32| a == b || (a - b).abs() < 1e-6 * b.abs().max(1.0);
                assert!(near(scored.logprob, logprob), "{} {logprob}", scored.logprob);
                assert_eq!(scored.top.len(), best.len());
                for (got, want) in scored.top.iter().zip(best) {
                    assert!(got.0 == want.0 && near(got.1, want.1), "{got:?} {want:?}");
                }
            }
        }
    }
}

/// Pearson's sum over the draws of 400 x 500 positions and the shares that they should have.
fn chi_square(counts: &[u32], shares: &[f64]) -> f64 {
    let n = f64::from(counts.iter().sum::<u32>());
    let term =
        |(&count, &share): (&u32, &f64)| (f64::from(count) - n * share).powi(2) / (n * share);
    counts.iter().zip(shares).map(term).sum()
}

#[test]
fn draws_follow_the_distribution() {
    let vocab = 50;
    let row = Numbers::new(11).list(vocab, 1.0);
    let shares = |temperature: f64| -> Vec<f64> {
        let weights: Vec<f64> = row.iter().map(|&x| (f64::from(x) / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|w| w / total).collect()
    };
    let mut cpu = cpu(Isa::detect(), 2, 500, vocab);
    cpu.start_slot(0, &[0], 1, &Sampler { seed: 42, ..Sampler::plain() });
    let rows = row.repeat(500);
    let mut counts = vec![0u32; vocab];
    let (mut pairs, mut last) = ([0u32; 4], None);
    for step in 0..400 {
        for token in draw(&mut cpu, &rows, vocab, step * 500) {
            let token = token.expect("a token");
            counts[token as usize] += 1;
            // Neighbouring positions are independent: even and odd tokens as pairs.
            let odd = token as usize % 2;
            if let Some(last) = last.replace(odd) {
                pairs[2 * last + odd] += 1;
            }
        }
    }
    // 49 degrees of freedom: mean 49, standard deviation 9.9; five of them above.
    let good = chi_square(&counts, &shares(1.0));
    assert!(good < 99.0, "chi-square {good}");
    // The test can fail: a temperature that is off by 3 % is found out.
    let bad = chi_square(&counts, &shares(1.03));
    assert!(bad > 99.0, "chi-square {bad} of a wrong distribution");
    let odd: f64 = shares(1.0).iter().skip(1).step_by(2).sum();
    let joint = [(1.0 - odd) * (1.0 - odd), (1.0 - odd) * odd, odd * (1.0 - odd), odd * odd];
    let together = chi_square(&pairs, &joint);
    // 3 degrees of freedom, one in a million.
    assert!(together < 31.0, "chi-square {together} of pairs");
}

#[test]
fn seeds_give_independent_streams() {
    // First draws of 65,536 neighbouring seeds, in 16 equal parts: 15 degrees of freedom.
    let mut counts = [0u32; 16];
    (0..65_536).for_each(|seed| counts[(random_bits(seed, 7) >> 60) as usize] += 1);
    let value = chi_square(&counts, &[1.0 / 16.0; 16]);
    assert!(value < 50.0, "chi-square {value}");
}
