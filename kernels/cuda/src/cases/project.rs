//! Projections: what is left of the queries, what the cache holds, and what it must not.

mod latent;

use kernels::{
    CacheElement, CacheShape, CacheValues, Compute, HeadNorm, Kept, Norm, NormKind, Precision,
    Projection, Rope, Segment, Step, reference,
};

use super::pages::{Pages, grants, kept, page_of};
use super::{Bench, Numbers, Open, Outcome, PRECISIONS, all_rounded, config};
use crate::device::{Cuda, CudaConfig};
use crate::gpu::Gpu;
use crate::ops::cache::Cache;
use crate::tensor::{Kind, Vector};

use CacheElement::{Bf16, F8E4M3, F16, F32};

const LAYER: usize = 1;
const EPS: f32 = 1e-6;
/// Slots, first positions and lengths: ten rows, which are rounded up; pages are crossed.
const PARTS: [(u32, u32, u32); 3] = [(2, 0, 4), (0, 29, 5), (3, 16, 1)];
const ROWS: usize = 10;

/// Norms of queries and keys.
#[derive(Debug, Clone, Copy)]
struct Norms {
    reach: HeadNorm,
    kind: NormKind,
    /// Each head has weights of its own.
    own: bool,
    bias: bool,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    precision: Precision,
    element: CacheElement,
    norms: Option<Norms>,
    /// Rotated elements, interleaved.
    rope: (usize, bool),
}

const PLAIN: Case = Case {
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    precision: Precision::Bfloat16,
    element: Bf16,
    norms: None,
    rope: (64, false),
};
const EXACT: Case = Case { precision: Precision::Float32, element: F32, ..PLAIN };
const EACH: Norms = Norms { reach: HeadNorm::Each, kind: NormKind::Rms, own: false, bias: false };

fn table() -> Vec<Case> {
    let norms = Some(EACH);
    let own = Some(Norms { own: true, bias: true, kind: NormKind::Layer, ..EACH });
    let whole = Some(Norms { reach: HeadNorm::Whole, own: true, ..EACH });
    let whole_layer = own.map(|n| Norms { reach: HeadNorm::Whole, ..n });
    let of = |heads, kv_heads, head_dim, rotated| Case {
        heads,
        kv_heads,
        head_dim,
        rope: (rotated, false),
        ..PLAIN
    };
    let half = Case { precision: Precision::Float16, element: F16, ..PLAIN };
    vec![
        PLAIN,
        EXACT,
        half,
        Case { element: F8E4M3, ..PLAIN },
        Case { element: F32, norms, ..half },
        Case { norms, rope: (32, true), ..EXACT },
        Case { norms: own, rope: (32, false), ..EXACT },
        Case { norms: whole, ..EXACT },
        Case { norms: whole_layer, precision: Precision::Float32, element: F32, ..of(5, 1, 9, 4) },
        Case { norms: whole, element: F8E4M3, ..of(20, 4, 128, 128) },
        Case { rope: (0, false), ..PLAIN },
        Case { rope: (6, true), ..of(3, 1, 20, 6) },
        Case { element: F8E4M3, ..of(2, 2, 15, 14) },
        of(1, 1, 1, 0),
        of(17, 1, 80, 20),
        of(2, 1, 512, 512),
        Case { norms: own, ..of(2, 1, 640, 2) },
    ]
}

/// Half of the unit in the last place of 1 in a cache.
fn unit(element: CacheElement) -> f32 {
    match element {
        F32 => f32::EPSILON,
        Bf16 => 1.0 / 256.0,
        F16 => 1.0 / 2048.0,
        F8E4M3 => 1.0 / 16.0,
    }
}

fn rope((rotated, interleaved): (usize, bool)) -> Rope {
    let pairs = rotated / 2;
    let inv_freq = (0..pairs).map(|i| 10_000f32.powf(-(i as f32) / pairs as f32)).collect();
    // 1.1 shows that the magnitude is used.
    Rope { inv_freq, magnitude: 1.1, interleaved, beyond: None }
}

fn shape(
    kv_heads: usize,
    head_dim: usize,
    values: CacheValues,
    element: CacheElement,
) -> CacheShape {
    CacheShape {
        layers: 2,
        pages: 12,
        page_tokens: 16,
        kv_heads,
        head_dim,
        values,
        element,
        slots: 4,
        pages_per_slot: 3,
    }
}

fn segments() -> Vec<Segment> {
    let mut row = 0;
    let one = |(slot, first, len)| {
        let segment = Segment { slot, first, len, row, late: false, adapter: 0 };
        row += len;
        segment
    };
    PARTS.into_iter().map(one).collect()
}

/// Slot and position of each row.
fn places() -> Vec<(usize, usize)> {
    let all = |(slot, first, len): (u32, u32, u32)| {
        (first..first + len).map(move |position| (slot as usize, position as usize))
    };
    PARTS.into_iter().flat_map(all).collect()
}

/// Begins a step of [`PARTS`] with pages for all.
fn begin<G: Gpu>(device: &mut Cuda<G>, cache: &mut Cache, pages: &Pages) {
    pages.send(device, cache);
    let (grants, segments) = (grants(cache.shape()), segments());
    device.begin(Step { tokens: &[0; ROWS], segments: &segments, grants: &grants }, cache);
}

/// Weight and bias of a norm.
struct Weights {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    loaded: (Vector, Option<Vector>),
}

impl Weights {
    fn new<G: Gpu>(device: &mut Cuda<G>, seed: u64, len: usize, bias: bool) -> Self {
        let mut numbers = Numbers::new(seed);
        let weight = numbers.list(len, 1.0);
        let bias = bias.then(|| numbers.list(len, 0.5));
        let mut load = |list: &[f32]| device.load_vector(list).expect("memory");
        let loaded = (load(&weight), bias.as_deref().map(load));
        Self { weight, bias, loaded }
    }

    fn norm(&self, kind: NormKind) -> Norm<'_, Vector> {
        Norm { kind, weight: &self.loaded.0, bias: self.loaded.1.as_ref(), eps: EPS }
    }

    /// The reference's norm with the weights from `at` on.
    fn apply(&self, kind: NormKind, x: &[f32], at: usize) -> Vec<f32> {
        let part = |list: &[f32]| list[at..at + x.len()].to_vec();
        let bias = self.bias.as_deref().map(part);
        reference::norm::norm(kind, x, &part(&self.weight), bias.as_deref(), EPS)
    }
}

/// Norm and rotation of some heads, by the reference.
fn prepared(case: &Case, x: &[f32], weights: Option<&Weights>, position: usize) -> Vec<f32> {
    let dim = case.head_dim;
    let mut out = match (case.norms, weights) {
        (Some(Norms { reach: HeadNorm::Whole, kind, .. }), Some(weights)) => {
            weights.apply(kind, x, 0)
        }
        (Some(norms), Some(weights)) => {
            let at = |head| if norms.own { head * dim } else { 0 };
            let one = |(head, x)| weights.apply(norms.kind, x, at(head));
            x.chunks(dim).enumerate().flat_map(one).collect()
        }
        _ => x.to_vec(),
    };
    let (rope, position) = (rope(case.rope), position as u32);
    for head in out.chunks_mut(dim) {
        reference::rope::rotate(head, &rope, position, position + 1);
    }
    out
}

pub(super) fn cases<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let mut out: Vec<Outcome> = table().iter().flat_map(|case| one(open, case)).collect();
    out.extend(latent::cases(open));
    out
}

fn one<G: Gpu>(open: Open<'_, G>, case: &Case) -> [Outcome; 3] {
    let &Case { heads, kv_heads, head_dim, element, .. } = case;
    let width = (heads + 2 * kv_heads) * head_dim;
    let mut device = open(CudaConfig { width_max: width, ..config(case.precision, ROWS) });
    let shape = shape(kv_heads, head_dim, CacheValues::Own, element);
    let mut cache = device.cache(shape).expect("memory");
    let len = |heads: usize, norms: Norms| if norms.own { heads * head_dim } else { head_dim };
    let mut weights =
        |seed, heads| case.norms.map(|n| Weights::new(&mut device, seed, len(heads, n), n.bias));
    let (q_weights, k_weights) = (weights(1, heads), weights(2, kv_heads));
    let kind = Kind::of(Kept::Rounded, case.precision);
    let x = all_rounded(kind, &Numbers::new(7).list(ROWS * width, 1.0));
    let mut qkv = device.put(ROWS, &x, Kept::Rounded);
    let mut angles = device.blank(ROWS, case.rope.0.max(1), Kept::Exact);
    let mut pages = Pages::new(shape);
    begin(&mut device, &mut cache, &pages);
    if case.rope.0 > 0 {
        device.rope_table(&rope(case.rope), &mut angles);
    }
    let how = Projection {
        heads,
        kv_heads,
        head_dim,
        q_norm: q_weights.as_ref().zip(case.norms).map(|(w, n)| (n.reach, w.norm(n.kind))),
        k_norm: k_weights.as_ref().zip(case.norms).map(|(w, n)| (n.reach, w.norm(n.kind))),
        rope: (case.rope.0 > 0).then_some(&angles),
        interleaved: case.rope.1,
    };
    device.project(&mut qkv, &how, &mut cache, LAYER);
    device.finish();
    pages.fetch(&mut device, &cache);

    let (q_width, k_width) = (heads * head_dim, kv_heads * head_dim);
    let (mut q_got, mut q_want) = (Vec::new(), Vec::new());
    let (mut got, mut want) = (Vec::new(), Vec::new());
    let rows = device.get(&qkv, ROWS);
    for ((row, x), (slot, position)) in rows.chunks(width).zip(x.chunks(width)).zip(places()) {
        let (q, kv) = x.split_at(q_width);
        let (k, v) = kv.split_at(k_width);
        q_got.extend_from_slice(&row[..q_width]);
        q_want.extend(prepared(case, q, q_weights.as_ref(), position));
        let k = prepared(case, k, k_weights.as_ref(), position);
        for head in 0..kv_heads {
            let page = page_of(&shape, slot, position / 16);
            for (half, x) in [&k, v].into_iter().enumerate() {
                got.extend(pages.get([LAYER, page, half, head], position));
                let x = &x[head * head_dim..][..head_dim];
                want.extend(x.iter().map(|&x| kept(element, x)));
            }
        }
    }
    let name = format!("project {case:?}");
    let kind_unit = PRECISIONS.iter().find(|(p, _)| *p == case.precision).expect("listed").1;
    // Queries and keys reach some 4, which they are rounded at once; in f32 some ulp are lost. A
    // key may fall on the other side of a tie.
    let limit = |unit: f32| 2.0 * unit.max(8.0 * f32::EPSILON);
    [
        Outcome::of(format!("{name}: queries"), &q_got, &q_want, 4.0, limit(kind_unit)),
        Outcome::of(format!("{name}: cache"), &got, &want, 4.0, limit(unit(element))),
        untouched(&name, &pages, &shape),
    ]
}

/// Positions that no row stands at are as they were.
fn untouched(name: &str, pages: &Pages, shape: &CacheShape) -> Outcome {
    let written = places();
    let halves = if shape.values == CacheValues::Own { 2 } else { 1 };
    let mut touched = 0;
    for (slot, position) in (0..4).flat_map(|slot| (0..48).map(move |at| (slot, at))) {
        let page = page_of(shape, slot, position / 16);
        for (layer, half) in (0..2).flat_map(|layer| (0..halves).map(move |half| (layer, half))) {
            let expected = layer == LAYER && written.contains(&(slot, position));
            let all = (0..shape.kv_heads)
                .all(|head| pages.untouched([layer, page, half, head], position) != expected);
            touched += usize::from(!all);
        }
    }
    Outcome { name: format!("{name}: other positions"), error: touched as f32, limit: 0.0 }
}

#[cfg(test)]
mod tests {
    use crate::cases::pages::check;
    use crate::emulator::Emulator;

    #[test]
    fn equals_the_reference() {
        check(super::cases, Emulator::new);
    }
}
