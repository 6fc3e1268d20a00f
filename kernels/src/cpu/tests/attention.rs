//! Projection and attention over pages: against the reference, and bit by bit the same however
//! the positions are split into steps, batches, blocks and threads.

use super::{Numbers, assert_near, cpu, isas, tensor};
use crate::compute::{
    Attention, CacheElement, CacheShape, Compute, Grant, Projection, Rope, Segment, Step,
};
use crate::cpu::cache::with_element;
use crate::cpu::isa::Isa;
use crate::cpu::{Cache, Cpu, Tensor, Vector, rounded};
use crate::reference;

/// One kind of attention.
#[derive(Debug, Clone, Copy)]
struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    element: CacheElement,
    window: Option<u32>,
    soft_cap: Option<f32>,
    /// Rotated dimensions, interleaved.
    rope: (usize, bool),
    norms: bool,
}

use CacheElement::{Bf16, F16, F32};

const PLAIN: Case = Case {
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    element: F32,
    window: None,
    soft_cap: None,
    rope: (64, false),
    norms: false,
};

fn cases() -> Vec<Case> {
    let heads = |heads, kv_heads, head_dim| Case { heads, kv_heads, head_dim, ..PLAIN };
    let plain =
        |heads_, kv, dim, rotated| Case { rope: (rotated, false), ..heads(heads_, kv, dim) };
    vec![
        PLAIN,
        Case { element: Bf16, ..PLAIN },
        Case { element: F16, ..PLAIN },
        Case { window: Some(1), ..PLAIN },
        Case { window: Some(5), ..PLAIN },
        Case { window: Some(16), element: Bf16, ..PLAIN },
        Case { window: Some(33), ..PLAIN },
        Case { soft_cap: Some(2.0), norms: true, ..PLAIN },
        Case { soft_cap: Some(30.0), window: Some(20), element: F16, ..PLAIN },
        Case { norms: true, rope: (32, true), ..PLAIN },
        plain(1, 1, 1, 0),
        plain(3, 1, 2, 2),
        plain(7, 1, 15, 14),
        plain(14, 2, 17, 0),
        plain(5, 5, 80, 20),
        Case { element: F16, norms: true, ..plain(9, 3, 120, 120) },
        Case { element: Bf16, ..plain(8, 1, 128, 128) },
        Case { element: Bf16, ..plain(13, 13, 33, 32) },
        plain(2, 1, 256, 64),
        plain(2, 1, 512, 512),
        plain(64, 1, 16, 16),
    ]
}

/// Cos and sin scale with the magnitude; 1.1 shows that it is used.
fn rope(case: &Case) -> Rope {
    let pairs = case.rope.0 / 2;
    let inv_freq = (0..pairs).map(|i| 10_000f32.powf(-(i as f32) / pairs as f32)).collect();
    Rope { inv_freq, magnitude: 1.1, interleaved: case.rope.1 }
}

/// A device with two slots, whose pages lie in no order and are full of NaN.
struct Rig {
    case: Case,
    cpu: Cpu,
    cache: Cache,
    norms: Option<[Vector; 2]>,
}

const LAYER: usize = 1;

impl Rig {
    fn new(case: Case, isa: Isa, threads: usize, context: usize) -> Self {
        let pages_per_slot = context.div_ceil(16);
        let shape = CacheShape {
            layers: 2,
            pages: 2 * pages_per_slot,
            page_tokens: 16,
            kv_heads: case.kv_heads,
            head_dim: case.head_dim,
            element: case.element,
            slots: 2,
            pages_per_slot,
        };
        let mut cpu = cpu(isa, threads, 2 * context, 8);
        let mut cache = cpu.cache(shape).expect("memory");
        let grants: Vec<Grant> = (0..2 * pages_per_slot)
            .map(|page| Grant {
                slot: page as u32 % 2,
                index: (page / 2) as u32,
                // Backwards, the slots mixed.
                page: (2 * pages_per_slot - 1 - page) as u32,
            })
            .collect();
        let empty = Step { tokens: &[], segments: &[], grants: &grants };
        cpu.begin(empty, &mut cache);
        for slot in 0..2 {
            for position in 0..16 * pages_per_slot as u32 {
                for head in 0..case.kv_heads {
                    let nan = vec![f32::NAN; case.head_dim];
                    let put = (slot, position);
                    let writer = cache.writer();
                    // SAFETY: nothing runs beside this.
                    with_element!(case.element, T => unsafe {
                        writer.put::<T>(LAYER, put, head, &nan, &nan);
                    });
                }
            }
        }
        let mut load = |seed| {
            let weight = Numbers::new(seed).list(case.head_dim, 1.0);
            cpu.load_vector(&weight).expect("memory")
        };
        let norms = case.norms.then(|| [load(1), load(2)]);
        Self { case, cpu, cache, norms }
    }

    fn width(&self) -> usize {
        (self.case.heads + 2 * self.case.kv_heads) * self.case.head_dim
    }

    fn how(&self) -> Attention {
        let Case { heads, kv_heads, head_dim, window, soft_cap, .. } = self.case;
        let scale = 1.0 / (head_dim as f32).sqrt();
        Attention { heads, kv_heads, head_dim, scale, window, soft_cap }
    }

    /// Runs a step of segments (slot, first, len) over rows of `qkv` `[slot][position]`; returns
    /// the rows of the output.
    fn step(&mut self, segments: &[(u32, usize, usize)], qkv: &[Vec<f32>; 2]) -> Vec<Vec<f32>> {
        let (mut list, mut x, width) = (Vec::new(), Vec::new(), self.width());
        for &(slot, first, len) in segments {
            let row = (x.len() / width) as u32;
            x.extend_from_slice(&qkv[slot as usize][first * width..][..len * width]);
            let (first, len) = (first as u32, len as u32);
            list.push(Segment { slot, first, len, row, late: false });
        }
        let rows = x.len() / width;
        let tokens = vec![0; rows];
        let (rope, rotated) = (rope(&self.case), self.case.rope.0);
        let mut qkv = tensor(&mut self.cpu, rows, &x);
        let mut table: Tensor = self.cpu.tensor(rows, rotated).expect("memory");
        let out_width = self.case.heads * self.case.head_dim;
        let mut out = self.cpu.tensor(rows, out_width).expect("memory");
        let how = self.how();
        let Self { case, cpu, cache, norms } = self;
        cpu.begin(Step { tokens: &tokens, segments: &list, grants: &[] }, cache);
        if rotated > 0 {
            cpu.rope_table(&rope, &mut table);
        }
        let projection = Projection {
            heads: case.heads,
            kv_heads: case.kv_heads,
            head_dim: case.head_dim,
            q_norm: norms.as_ref().map(|n| &n[0]),
            k_norm: norms.as_ref().map(|n| &n[1]),
            norm_eps: 1e-6,
            rope: (rotated > 0).then_some(&table),
            interleaved: case.rope.1,
        };
        cpu.project(&mut qkv, &projection, cache, LAYER);
        cpu.attention(&qkv, &how, cache, LAYER, &mut out);
        cpu.end();
        cpu.collect(&mut Default::default()).expect("no fault");
        out.first(rows).chunks(out_width).map(<[f32]>::to_vec).collect()
    }

    /// What the reference gives for all positions of a slot.
    fn want(&self, qkv: &[f32]) -> Vec<Vec<f32>> {
        let Case { heads, kv_heads, head_dim, element, .. } = self.case;
        let (rope, how) = (rope(&self.case), self.how());
        let head = |row: &[f32], index: usize, norm: Option<&Vector>, position: usize| {
            let mut head = row[index * head_dim..][..head_dim].to_vec();
            if let Some(weight) = norm {
                head = reference::norm::rms_norm(&head, weight.values(), 1e-6);
            }
            reference::rope::rotate(&mut head, &rope, position as u32);
            head
        };
        let round = |x: Vec<f32>| x.into_iter().map(|x| rounded(element, x)).collect::<Vec<f32>>();
        let norms = self.norms.as_ref();
        let rows: Vec<&[f32]> = qkv.chunks(self.width()).collect();
        let mut out = vec![Vec::new(); rows.len()];
        for kv in 0..kv_heads {
            let key = |(position, row): (usize, &&[f32])| {
                round(head(row, heads + kv, norms.map(|n| &n[1]), position))
            };
            let value = |row: &&[f32]| {
                round(row[(heads + kv_heads + kv) * head_dim..][..head_dim].to_vec())
            };
            let keys: Vec<Vec<f32>> = rows.iter().enumerate().map(key).collect();
            let values: Vec<Vec<f32>> = rows.iter().map(value).collect();
            let group = heads / kv_heads;
            for (position, row) in rows.iter().enumerate() {
                for index in kv * group..(kv + 1) * group {
                    let q = head(row, index, norms.map(|n| &n[0]), position);
                    let one = reference::attention::attention(&q, &keys, &values, position, &how);
                    out[position].extend(one);
                }
            }
        }
        out
    }
}

fn numbers(case: &Case, context: usize) -> [Vec<f32>; 2] {
    let width = (case.heads + 2 * case.kv_heads) * case.head_dim;
    [1, 2].map(|seed| Numbers::new(seed).list(context * width, 1.0))
}

/// Error allowed, in units of the last place of 1. A key that the f32 and the f64 rotation round
/// to different neighbours moves a score by the element's epsilon; f32 sums differ by some ulp.
fn ulps(element: CacheElement) -> f32 {
    match element {
        F32 => 64.0,
        F16 => 64.0 * 1024.0 / 8.0,
        Bf16 => 64.0 * 1024.0,
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

/// Ways to compute positions 0..n of both slots: steps of segments.
fn ways(n: usize) -> Vec<Vec<Vec<(u32, usize, usize)>>> {
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
    vec![
        alone([chunks(0, &[n]), chunks(1, &[n])].concat()),
        alone([chunks(1, &[1]), chunks(0, &[1])].concat()),
        alone([chunks(0, &[7, 16, 1, 3]), chunks(1, &[33, 2])].concat()),
        joined(&[n], &[1]),
        joined(&[5, 1], &[1, 17]),
    ]
}

fn all_ways_agree(case: Case, isa: Isa, threads: &[usize], context: usize) {
    let qkv = numbers(&case, context);
    let mut first: Option<Vec<Vec<u32>>> = None;
    for &threads in threads {
        for (way, steps) in ways(context).into_iter().enumerate() {
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
    for case in [one, Case { window: Some(1100), element: Bf16, ..one }] {
        let context = 2100;
        let qkv = numbers(&case, context);
        let mut first = None;
        for (threads, chunk) in [(1, context), (1, 300), (7, 512)] {
            let mut rig = Rig::new(case, Isa::detect(), threads, context);
            let mut last = Vec::new();
            for at in (0..context - 3).step_by(chunk) {
                last = rig.step(&[(0, at, chunk.min(context - 3 - at))], &qkv);
            }
            let mut rows = vec![last.pop().expect("a row")];
            for at in context - 3..context {
                rows.extend(rig.step(&[(0, at, 1)], &qkv));
            }
            let bits: Vec<u32> = rows.into_iter().flatten().map(f32::to_bits).collect();
            assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "{threads} threads");
            if threads == 1 && chunk == context {
                let want = rig.want(&qkv[0]);
                let got: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
                assert_near("spans", &got, &want[context - 4..].concat(), 1.0, ulps(case.element));
            }
        }
    }
}
