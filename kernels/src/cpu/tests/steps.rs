//! Steps in flight, late tokens, slots that start again, and histories.

use super::{ONE_PAGE, cpu, isas, segment, tensor};
use crate::compute::{
    CacheShape, Compute, Drawn, Kept, MatrixPart, SampleRow, Sampler, Segment, Step,
};
use crate::cpu::isa::Isa;
use crate::cpu::{Cache, Cpu};
use crate::format::Format;

const VOCAB: usize = 16;

fn small_cache(cpu: &mut Cpu) -> Cache {
    let shape = CacheShape { pages: 4, head_dim: 2, slots: 4, ..ONE_PAGE };
    cpu.cache(shape).expect("memory")
}

/// Logits that are best at `token`.
fn at(token: u32) -> Vec<f32> {
    (0..VOCAB as u32).map(|t| if t == token { 5.0 } else { t as f32 * 0.01 }).collect()
}

fn sample(cpu: &mut Cpu, rows: &[(u32, Vec<f32>)], position: u32) {
    let x: Vec<f32> = rows.iter().flat_map(|row| row.1.clone()).collect();
    let mut logits = tensor(cpu, rows.len(), &x);
    let row = |row: &(u32, Vec<f32>)| SampleRow {
        slot: row.0,
        position,
        draft: None,
        logprobs: None,
        mask: None,
    };
    let rows: Vec<SampleRow> = rows.iter().map(row).collect();
    cpu.sample(&mut logits, &rows, &[]);
}

#[test]
fn late_tokens_are_what_the_slot_drew_last() {
    for isa in isas() {
        let mut cpu = cpu(isa, 2, 8, VOCAB);
        let mut cache = small_cache(&mut cpu);
        // Row t of the table is [t, t, ...].
        let bytes: Vec<u8> = (0..VOCAB).flat_map(|t| (t as f32).to_le_bytes().repeat(32)).collect();
        let part =
            MatrixPart { format: Format::F32, rows: VOCAB, cols: 32, bytes: &bytes, order: None };
        let table = cpu.load_matrix(&[part]).expect("a matrix");
        let mut x = cpu.tensor(8, 32, Kept::Exact).expect("memory");
        cpu.start_slot(1, &[2, 3], 2, &Sampler::greedy());
        cpu.start_slot(2, &[9], 1, &Sampler::greedy());
        let segments = [segment(1, 0, 2, 0), segment(2, 0, 1, 2)];
        cpu.begin(Step { tokens: &[2, 3, 9], segments: &segments, grants: &[] }, &mut cache);
        sample(&mut cpu, &[(1, at(6)), (2, at(11))], 2);
        cpu.end();
        // The next step begins before this one is collected.
        let late = |slot, first, row| Segment { late: true, ..segment(slot, first, 1, row) };
        let segments = [late(2, 1, 0), late(1, 2, 1)];
        cpu.begin(Step { tokens: &[0, 0], segments: &segments, grants: &[] }, &mut cache);
        cpu.embed(&table, 1.0, &mut x);
        sample(&mut cpu, &[(2, at(1))], 3);
        cpu.end();
        assert_eq!([x.first(2)[0], x.first(2)[32]], [11.0, 6.0]);
        let mut drawn = Drawn::default();
        cpu.collect(&mut drawn).expect("no fault");
        assert_eq!(drawn.tokens, [(1, Some(6)), (2, Some(11))]);
        cpu.collect(&mut drawn).expect("no fault");
        assert_eq!(drawn.tokens, [(2, Some(1))]);
    }
}

#[test]
fn a_slot_that_starts_again_forgets() {
    let mut cpu = cpu(Isa::detect(), 1, 8, VOCAB);
    let mut cache = small_cache(&mut cpu);
    let mut drawn = Drawn::default();
    let mut draws = |cpu: &mut Cpu, n: u32| -> Vec<u32> {
        let draw = |i| {
            let segments = [segment(0, i, 1, 0)];
            cpu.begin(Step { tokens: &[0], segments: &segments, grants: &[] }, &mut cache);
            sample(cpu, &[(0, at(4))], i + 1);
            cpu.end();
            cpu.collect(&mut drawn).expect("no fault");
            drawn.tokens[0].1.expect("a token")
        };
        (0..n).map(draw).collect()
    };
    // A presence penalty of 10 takes the best token out of the running once it was drawn; of the
    // others the largest id is best. What the prompt holds is not penalised.
    let sampler = Sampler { presence_penalty: 10.0, ..Sampler::greedy() };
    for _ in 0..2 {
        cpu.start_slot(0, &[4, 15], 2, &sampler);
        assert_eq!(draws(&mut cpu, 3), [4, 15, 14]);
        cpu.end_slot(0);
    }
    // After a preemption the tokens made before count as output.
    cpu.start_slot(0, &[4, 15, 4, 15], 2, &sampler);
    assert_eq!(draws(&mut cpu, 2), [14, 13]);
    // Started again without having been ended, and without penalties.
    cpu.start_slot(0, &[4], 1, &Sampler::greedy());
    assert_eq!(draws(&mut cpu, 2), [4, 4]);
}

#[test]
#[should_panic(expected = "a position without a page")]
fn a_position_without_a_page_is_a_bug_of_the_caller() {
    use crate::compute::Projection;
    let mut cpu = cpu(Isa::detect(), 1, 8, VOCAB);
    let mut cache = small_cache(&mut cpu);
    let segments = [segment(3, 0, 1, 0)];
    cpu.begin(Step { tokens: &[0], segments: &segments, grants: &[] }, &mut cache);
    let mut qkv = cpu.tensor(1, 6, Kept::Exact).expect("memory");
    let how = Projection {
        heads: 1,
        kv_heads: 1,
        head_dim: 2,
        q_norm: None,
        k_norm: None,
        rope: None,
        interleaved: false,
    };
    cpu.project(&mut qkv, &how, &mut cache, 0);
}
