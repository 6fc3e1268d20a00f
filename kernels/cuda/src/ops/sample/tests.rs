//! What draws do beside drawing: memory, payloads, records, and the token that stays on the device.

use kernels::{Drawn, Precision};

use super::*;
use crate::emulator::Emulator;
use crate::gpu::Pinned;

const ROWS: usize = 16;
const VOCAB: usize = 37;

fn config() -> CudaConfig {
    CudaConfig {
        precision: Precision::Float32,
        rows_max: ROWS,
        slots: ROWS,
        context_max: 64,
        vocab: VOCAB,
        width_max: 64,
        attended_max: 64,
        graphs: true,
    }
}

fn greedy(frequency_penalty: f32) -> Sampler {
    Sampler { frequency_penalty, ..Sampler::greedy() }
}

/// Ops of a step without the device above them.
struct Rig {
    gpu: Emulator,
    sampling: Sampling,
    payload: Payload,
    record: Record,
    logits: Tensor,
    read: Pinned,
}

impl Rig {
    fn new() -> Self {
        let mut gpu = Emulator::new(3);
        let sampling = Sampling::new(&mut gpu, &config(), 2).expect("memory");
        let pinned = gpu.pinned(1 << 16).expect("memory");
        let device = gpu.claim("lists", 1 << 16).expect("memory");
        let bytes = ROWS * VOCAB * 4;
        let address = gpu.claim("logits", bytes).expect("memory");
        gpu.fill(address, bytes, 0);
        let read = gpu.pinned(4 * ROWS).expect("memory");
        let logits = Tensor { address, rows: ROWS, width: VOCAB, kind: Kind::F32 };
        let (payload, record) = (Payload::new(pinned, device), Record::default());
        Self { gpu, sampling, payload, record, logits, read }
    }

    fn begin(&mut self, turn: usize) {
        self.payload.clear();
        self.record.clear();
        self.sampling.begin(turn);
    }

    fn start(&mut self, slot: u32, sampler: &Sampler) {
        let before = (&mut self.record, &mut self.payload);
        self.sampling.start(before, slot, &[1, 2], 1, sampler);
    }

    fn sample(&mut self, rows: &[SampleRow], turn: usize) {
        self.sample_masked(rows, &[], turn);
    }

    fn sample_masked(&mut self, rows: &[SampleRow], masks: &[u32], turn: usize) {
        let Self { sampling, record, payload, logits, .. } = self;
        sampling.sample(record, (payload, turn), logits, (rows, masks));
    }

    fn run(&mut self, turn: usize) -> Drawn {
        let Self { gpu, sampling, payload, record, .. } = self;
        payload.send(gpu);
        sampling.upload(gpu, turn);
        record.queue(gpu);
        sampling.download(gpu, turn);
        gpu.synchronize().expect("no fault");
        let mut drawn = Drawn::default();
        sampling.collect(turn, &mut drawn);
        drawn
    }

    fn last(&mut self) -> Vec<u32> {
        let at = self.sampling.last();
        self.gpu.download(at, 4 * ROWS, &mut self.read, 0);
        self.gpu.synchronize().expect("no fault");
        let words = self.read.bytes().as_chunks::<4>().0;
        words.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }
}

fn row(slot: u32, position: u32) -> SampleRow {
    SampleRow { slot, position, draft: None, logprobs: None, mask: None }
}

#[test]
fn memory_is_what_was_said() {
    let mut gpu = Emulator::new(1);
    let free = gpu.free_bytes();
    let sampling = Sampling::new(&mut gpu, &config(), 3).expect("memory");
    assert_eq!(free - gpu.free_bytes(), bytes(&config()) as u64);
    drop(sampling);
}

#[test]
fn a_start_takes_what_was_said() {
    let mut rig = Rig::new();
    let tokens: Vec<u32> = (0..64).collect();
    let full = Sampler {
        logit_bias: (0..4096).map(|token| (token, 1.0)).collect(),
        banned: tokens.clone(),
        ..greedy(1.0)
    };
    assert_eq!(start_bytes(&tokens, &full), start_bytes_max(&config()));
    for (sampler, tokens) in [(greedy(0.0), 64), (greedy(1.0), 1), (greedy(1.0), 3), (full, 64)] {
        rig.begin(0);
        rig.payload.number(0);
        let before = rig.payload.used();
        let tokens = &tokens_of(tokens)[..];
        rig.sampling.start((&mut rig.record, &mut rig.payload), 0, tokens, 1, &sampler);
        let (took, said) = (rig.payload.used() - before, start_bytes(tokens, &sampler));
        assert!(took <= said && said < took + 32, "{took} of {said}");
    }
}

fn tokens_of(n: u32) -> Vec<u32> {
    (0..n).collect()
}

/// What varies between steps of a size must not be in their records: they could not be graphs.
#[test]
fn steps_of_a_size_have_one_record() {
    let mut rig = Rig::new();
    rig.begin(0);
    (0..ROWS as u32).for_each(|slot| rig.start(slot, &greedy(0.0)));
    rig.run(0);
    let mut records = Vec::new();
    for n in [9, 14, 16] {
        rig.begin(0);
        // All rows have the same mask, another share of them each time.
        let with_top = |slot: u32| SampleRow {
            logprobs: Some(n + slot % 2),
            mask: slot.is_multiple_of(n - 7).then_some(1),
            ..row(slot, n)
        };
        let masks = [[0; 2], [1 << 20, 0]].concat();
        rig.sample_masked(&(0..n).rev().map(with_top).collect::<Vec<_>>(), &masks, 0);
        let known: Vec<LogprobRow> =
            (0..n).map(|slot| LogprobRow { slot, position: n, token: n, top: slot % 3 }).collect();
        let Rig { sampling, record, payload, logits, .. } = &mut rig;
        sampling.score(record, (payload, 0), logits, &known);
        records.push(rig.record.clone());
        let drawn = rig.run(0);
        assert_eq!((drawn.tokens.len(), drawn.logprobs.len()), (n as usize, 2 * n as usize));
        assert!(drawn.logprobs.iter().all(|scored| scored.rank > 0));
        let wanted = (0..n).rev().map(|slot| if slot % (n - 7) == 0 { 20 } else { 0 });
        let drawn: Vec<u32> = drawn.tokens.iter().map(|(_, token)| token.expect("one")).collect();
        assert_eq!(drawn, wanted.collect::<Vec<_>>());
    }
    assert!(records.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn the_last_token_stays_on_the_device() {
    let mut rig = Rig::new();
    assert_eq!(rig.last(), [0; ROWS]);
    rig.begin(0);
    rig.start(2, &greedy(1.0));
    rig.start(5, &greedy(0.0));
    // All alike: 0 at first. Then what was drawn counts, and so does token 2 of the output.
    rig.sample(&[row(2, 2), row(5, 2)], 0);
    assert_eq!(rig.run(0).tokens, [(2, Some(0)), (5, Some(0))]);
    for want in [1, 3, 4] {
        rig.begin(1);
        rig.sample(&[row(5, 3), row(2, 3)], 1);
        assert_eq!(rig.run(1).tokens, [(5, Some(0)), (2, Some(want))]);
        let mut last = [0; ROWS];
        last[2] = want;
        assert_eq!(rig.last(), last);
    }
    // A row without a token leaves it.
    let Rig { gpu, logits, .. } = &mut rig;
    gpu.fill(logits.address, ROWS * VOCAB * 4, 0xff);
    rig.begin(0);
    rig.sample(&[row(2, 4)], 0);
    assert_eq!(rig.run(0).tokens, [(2, None)]);
    assert_eq!(rig.last()[2], 4);
    // A slot that starts anew has forgotten.
    let Rig { gpu, logits, .. } = &mut rig;
    gpu.fill(logits.address, ROWS * VOCAB * 4, 0);
    rig.begin(1);
    rig.sampling.end(2);
    rig.start(2, &greedy(1.0));
    rig.run(1);
    assert_eq!(rig.last()[2], 0);
    rig.begin(0);
    rig.sample(&[row(2, 2)], 0);
    assert_eq!(rig.run(0).tokens, [(2, Some(0))]);
}

#[test]
#[should_panic(expected = "draws twice")]
fn a_slot_draws_once_a_step() {
    let mut rig = Rig::new();
    rig.begin(0);
    rig.start(1, &greedy(0.0));
    rig.sample(&[row(1, 2), row(1, 3)], 0);
}

#[test]
#[should_panic(expected = "not started")]
fn a_slot_starts_before_it_draws() {
    let mut rig = Rig::new();
    rig.begin(0);
    rig.sample(&[row(1, 2)], 0);
}
