//! Projection and attention over pages: against the reference, and bit by bit the same however
//! the positions are split into steps, batches, blocks and threads.

mod cases;
mod rig;

use super::{assert_near, isas};
use crate::compute::CacheElement;
use crate::cpu::isa::Isa;
use cases::{Case, PLAIN, cases};
use rig::{Rig, numbers};

use CacheElement::{Bf16, F16, F32};

/// Error allowed, in units of the last place of 1. A key that the f32 and the f64 rotation round
/// to different neighbours moves a score by the element's epsilon; f32 sums differ by some ulp.
fn ulps(element: CacheElement) -> f32 {
    match element {
        F32 => 64.0,
        F16 => 64.0 * 1024.0 / 8.0,
        Bf16 => 64.0 * 1024.0,
        CacheElement::F8E4M3 => unreachable!("not on CPU"),
    }
}

#[test]
fn equals_the_reference() {
    for isa in isas() {
        for case in cases() {
            let context = 53;
            let mut rig = Rig::new(case, isa, 2, context);
            let qkv = numbers(&case, context);
            let got = rig.step(&[(0, 0, context), (1, 0, context)], &qkv);
            for (slot, got) in got.chunks(context).enumerate() {
                let want = rig.want(&qkv[slot]);
                let ulps = ulps(case.element);
                for (position, (got, want)) in got.iter().zip(&want).enumerate() {
                    let what = format!("{case:?} {} slot {slot} at {position}", isa.name());
                    assert_near(&what, got, want, 1.0, ulps);
                }
            }
        }
    }
}

/// Steps of segments (slot, first, len).
type Way = Vec<Vec<(u32, usize, usize)>>;

/// Ways to compute positions 0..n of both slots.
fn ways(case: &Case, n: usize) -> Vec<Way> {
    let chunks = |slot: u32, sizes: &[usize]| {
        let (mut at, mut list, mut i) = (0, Vec::new(), 0);
        while at < n {
            let len = sizes[i % sizes.len()].min(n - at);
            list.push((slot, at, len));
            (at, i) = (at + len, i + 1);
        }
        list
    };
    let alone = |list: Vec<(u32, usize, usize)>| list.into_iter().map(|s| vec![s]).collect();
    let joined = |sizes_a: &[usize], sizes_b: &[usize]| {
        let (a, b) = (chunks(0, sizes_a), chunks(1, sizes_b));
        let step = |i: usize| [a.get(i), b.get(i)].into_iter().flatten().copied().collect();
        (0..a.len().max(b.len())).map(step).collect()
    };
    let mut ways = vec![
        alone([chunks(0, &[n]), chunks(1, &[n])].concat()),
        joined(&[n], &[n]),
        alone([chunks(1, &[1]), chunks(0, &[1])].concat()),
        alone([chunks(0, &[7, 16, 1, 3]), chunks(1, &[33, 2])].concat()),
        joined(&[n], &[1]),
        joined(&[5, 1], &[1, 17]),
    ];
    if !case.causal {
        // Only whole sequences.
        ways.truncate(2);
    }
    ways
}

fn all_ways_agree(case: Case, isa: Isa, threads: &[usize], context: usize) {
    let qkv = numbers(&case, context);
    let mut first: Option<Vec<Vec<u32>>> = None;
    for &threads in threads {
        for (way, steps) in ways(&case, context).into_iter().enumerate() {
            let mut rig = Rig::new(case, isa, threads, context);
            let mut got = vec![Vec::new(); 2 * context];
            for step in steps {
                let mut rows = rig.step(&step, &qkv).into_iter();
                for (slot, first, len) in step {
                    for position in first..first + len {
                        let row = rows.next().expect("a row for each position");
                        let bits = row.into_iter().map(f32::to_bits).collect();
                        got[slot as usize * context + position] = bits;
                    }
                }
            }
            let same = first.get_or_insert_with(|| got.clone());
            for (i, (got, same)) in got.iter().zip(same).enumerate() {
                let what = format!("{case:?}, {}, {threads} threads, way {way}", isa.name());
                assert!(got == same, "{what}: row {i} differs");
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_chunks_batches_or_threads() {
    for isa in isas() {
        for case in cases() {
            all_ways_agree(case, isa, &[1, 5], 53);
        }
    }
}

#[test]
fn bits_do_not_depend_on_how_spans_are_run() {
    // Longer than two spans of 1024; one kv head and many threads make spans tasks of their own.
    let one = Case { heads: 2, kv_heads: 1, head_dim: 16, rope: (16, false), ..PLAIN };
    let cases = [
        one,
        Case { window: Some(1100), element: Bf16, ..one },
        Case { sinks: true, ..one },
        Case { latent: Some((3, 10)), rope: (6, true), sinks: true, ..one },
        Case { heads: 20, head_dim: 4, rope: (4, false), ..one },
    ];
    for case in cases {
        let context = 2100;
        let qkv = numbers(&case, context);
        let mut first = None;
        for (threads, chunk, waves) in
            [(1, context, false), (1, 300, false), (7, 512, false), (7, 512, true)]
        {
            let mut rig = Rig::new(case, Isa::detect(), threads, context);
            let mut last = Vec::new();
            for at in (0..context - 3).step_by(chunk) {
                last = rig.step(&[(0, at, chunk.min(context - 3 - at))], &qkv);
            }
            let mut rows = vec![last.pop().expect("a row")];
            if waves {
                rig.room_for_few_spans();
            }
            for at in context - 3..context {
                rows.extend(rig.step(&[(0, at, 1)], &qkv));
            }
            let bits: Vec<u32> = rows.into_iter().flatten().map(f32::to_bits).collect();
            let same = *first.get_or_insert_with(|| bits.clone()) == bits;
            assert!(same, "{case:?}, {threads} threads, waves {waves}");
            if threads == 1 && chunk == context {
                let want = rig.want(&qkv[0]);
                let got: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
                assert_near("spans", &got, &want[context - 4..].concat(), 1.0, ulps(case.element));
            }
        }
    }
}

#[test]
fn whole_sequences_see_both_ways_over_spans() {
    let case = Case { heads: 1, kv_heads: 1, head_dim: 4, rope: (0, false), ..PLAIN };
    let context = 1100;
    for case in [
        Case { causal: false, sinks: true, ..case },
        Case { causal: false, window: Some(60), ..case },
    ] {
        let qkv = numbers(&case, context);
        let mut first = None;
        for threads in [1, 40] {
            let mut rig = Rig::new(case, Isa::detect(), threads, context);
            let got = rig.step(&[(1, 0, context)], &qkv).concat();
            assert_near("both ways", &got, &rig.want(&qkv[1]).concat(), 1.0, ulps(case.element));
            assert!(*first.get_or_insert_with(|| got.clone()) == got, "{threads} threads");
        }
    }
}
