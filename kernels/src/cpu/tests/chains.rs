//! Chains of draws: they give what the same draws give one step at a time, to the bit, and end
//! where a draft is not drawn.

use super::{Numbers, begin, cpu, isas, tensor};
use crate::compute::{Compute, Drawn, SampleRow, Sampler, Scored};
use crate::cpu::{Cpu, DRAFTS_MAX};
use crate::reference::numbers;

const VOCAB: usize = 40;
const MADE: usize = 24;
/// Of the first draw.
const POSITION: u32 = 3;

/// One sequence's logits at each position, whatever was drawn before it.
struct Case {
    sampler: Sampler,
    logits: Vec<f32>,
    masks: Vec<u32>,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let on = |bit: u64| seed >> bit & 1 == 1;
        let sampler = Sampler {
            temperature: if on(0) { 1.2 } else { 0.0 },
            top_p: if on(1) { 0.9 } else { 1.0 },
            repetition_penalty: if on(2) { 1.3 } else { 1.0 },
            presence_penalty: if on(3) { 0.4 } else { 0.0 },
            frequency_penalty: if on(4) { 0.7 } else { 0.0 },
            logit_bias: if on(5) { vec![(3, 2.0), (7, -3.0)] } else { Vec::new() },
            banned: vec![1, 2],
            banned_until: POSITION + 9,
            seed,
            ..Sampler::plain()
        };
        let logits = numbers.list(MADE * VOCAB, 3.0);
        let masks = (0..MADE).flat_map(|_| numbers::mask(&mut numbers, VOCAB, 1)).collect();
        Self { sampler, logits, masks }
    }

    fn ready(&self, mut cpu: Cpu) -> Cpu {
        cpu.start_slot(0, &[5, 5, 9], 2, &self.sampler);
        cpu
    }

    /// Draws from position `at` on, with these tokens for drafts.
    fn draw(&self, cpu: &mut Cpu, at: usize, drafts: &[u32], logprobs: bool) -> Drawn {
        let count = drafts.len() + 1;
        let words = self.masks.len() / MADE;
        let mut x = tensor(cpu, count, &self.logits[at * VOCAB..][..count * VOCAB]);
        let masks = &self.masks[at * words..][..count * words];
        let row = |i: usize| SampleRow {
            slot: 0,
            position: POSITION + (at + i) as u32,
            draft: drafts.get(i).copied(),
            logprobs: logprobs.then_some(4),
            mask: (at + i).is_multiple_of(3).then_some(i as u32),
        };
        begin(cpu, count);
        cpu.sample(&mut x, &(0..count).map(row).collect::<Vec<_>>(), masks);
        cpu.end();
        let mut drawn = Drawn::default();
        cpu.collect(&mut drawn).expect("no fault");
        drawn
    }
}

/// The tokens of a drawn chain, all of which are there.
fn tokens(drawn: &Drawn) -> Vec<u32> {
    drawn.tokens.iter().map(|(_, token)| token.expect("a token")).collect()
}

#[test]
fn a_chain_draws_what_single_draws_do() {
    let mut refused = 0;
    for isa in isas() {
        for seed in 0..64 {
            let case = Case::new(seed);
            let mut alone = case.ready(cpu(isa, 1, DRAFTS_MAX + 1, VOCAB));
            let (mut want, mut scores): (Vec<u32>, Vec<Scored>) = Default::default();
            for at in 0..MADE {
                let drawn = case.draw(&mut alone, at, &[], true);
                want.extend(tokens(&drawn));
                scores.extend(drawn.logprobs);
            }
            let mut numbers = Numbers::new(seed);
            let mut chained = case.ready(cpu(isa, 2, DRAFTS_MAX + 1, VOCAB));
            let mut got = Vec::new();
            while got.len() < MADE {
                let at = got.len();
                let count = numbers.below(DRAFTS_MAX.min(MADE - at - 1) + 1);
                let mut drafts = want[at..at + count].to_vec();
                let wrong = numbers.below(2 * count + 1);
                if let Some(draft) = drafts.get_mut(wrong) {
                    *draft = (*draft + 1) % VOCAB as u32;
                    refused += 1;
                }
                let drawn = case.draw(&mut chained, at, &drafts, true);
                got.extend(tokens(&drawn));
                assert_eq!(got.len() - at, count.min(wrong) + 1, "up to the wrong one");
                assert_eq!(drawn.logprobs, scores[at..got.len()]);
            }
            assert_eq!(got, want, "seed {seed}");
        }
    }
    assert!(refused > 50, "{refused} drafts refused");
}

#[test]
fn a_chain_ends_where_nothing_can_be_drawn() {
    let mut case = Case::new(0);
    let mut alone = case.ready(cpu(isas()[0], 1, 8, VOCAB));
    let want: Vec<u32> =
        (0..3).flat_map(|at| tokens(&case.draw(&mut alone, at, &[], false))).collect();
    case.logits[2 * VOCAB + 5] = f32::NAN;
    let mut chained = case.ready(cpu(isas()[0], 1, 8, VOCAB));
    let drawn = case.draw(&mut chained, 0, &want, false);
    assert_eq!(drawn.tokens, [(0, Some(want[0])), (0, Some(want[1])), (0, None)]);
}

#[test]
fn chains_of_several_slots_do_not_touch_each_other() {
    let mut cpu = cpu(isas()[0], 2, 8, VOCAB);
    let flat = Sampler { frequency_penalty: 1.0, ..Sampler::greedy() };
    let mut logits = vec![0.0; 6 * VOCAB];
    for slot in 0..3 {
        cpu.start_slot(slot, &[1, 2], 1, &flat);
        // Both rows of a slot like token 10 most, then 20: it is drawn once, since it counts.
        for row in 2 * slot..2 * slot + 2 {
            logits[row as usize * VOCAB + 10] = 2.0;
            logits[row as usize * VOCAB + 20] = 1.5;
        }
    }
    let drafts = [Some(10), None, Some(20), None, Some(10), None];
    let row = |(i, draft): (u32, &Option<u32>)| SampleRow {
        slot: i / 2,
        position: 2 + i % 2,
        draft: *draft,
        logprobs: None,
        mask: None,
    };
    let rows: Vec<SampleRow> = (0..).zip(&drafts).map(row).collect();
    let mut x = tensor(&mut cpu, 6, &logits);
    begin(&mut cpu, 6);
    cpu.sample(&mut x, &rows, &[]);
    cpu.end();
    let mut drawn = Drawn::default();
    cpu.collect(&mut drawn).expect("no fault");
    let pairs = [(0, Some(10)), (0, Some(20)), (1, Some(10)), (2, Some(10)), (2, Some(20))];
    assert_eq!(drawn.tokens, pairs);
}
