//! Latent attention's projections.

use kernels::{
    CacheElement, CacheValues, Compute, Kept, LatentProjection, NormKind, Precision, reference,
};

use super::{LAYER, ROWS, Weights, begin, places, rope, shape, unit, untouched};
use crate::cases::pages::{Pages, kept, page_of};
use crate::cases::{Bench, Numbers, Open, Outcome, PRECISIONS, all_rounded, config};
use crate::device::CudaConfig;
use crate::gpu::Gpu;
use crate::tensor::Kind;

use CacheElement::{Bf16, F8E4M3, F16, F32};

#[derive(Debug, Clone, Copy)]
struct Case {
    heads: usize,
    plain: usize,
    latent: usize,
    /// Rotated elements, interleaved.
    rope: (usize, bool),
    kind: NormKind,
    precision: Precision,
    element: CacheElement,
}

fn table() -> Vec<Case> {
    let of = |heads, plain, latent, rope| Case {
        heads,
        plain,
        latent,
        rope,
        kind: NormKind::Rms,
        precision: Precision::Bfloat16,
        element: Bf16,
    };
    let exact = |case| Case { precision: Precision::Float32, element: F32, ..case };
    vec![
        exact(of(3, 5, 17, (4, true))),
        exact(of(1, 0, 1, (2, false))),
        Case { kind: NormKind::Layer, ..exact(of(18, 8, 48, (16, true))) },
        of(5, 16, 128, (64, true)),
        Case { element: F8E4M3, ..of(17, 3, 512, (64, false)) },
        Case { element: F16, precision: Precision::Float16, ..of(2, 128, 64, (30, true)) },
    ]
}

pub(super) fn cases<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    table().iter().flat_map(|case| one(open, case)).collect()
}

fn one<G: Gpu>(open: Open<'_, G>, case: &Case) -> [Outcome; 3] {
    let &Case { heads, plain, latent, rope: (rotated, interleaved), kind, element, .. } = case;
    let (key, head) = (latent + rotated, plain + rotated);
    let mut device = open(CudaConfig { width_max: heads * key, ..config(case.precision, ROWS) });
    let shape = shape(1, key, CacheValues::InKeys { dim: latent }, element);
    let mut cache = device.cache(shape).expect("memory");
    let weights = Weights::new(&mut device, 3, latent, kind == NormKind::Layer);
    let activations = Kind::of(Kept::Rounded, case.precision);
    let list = |seed, len| all_rounded(activations, &Numbers::new(seed).list(len, 1.0));
    let (q, kv) = (list(5, ROWS * heads * head), list(6, ROWS * key));
    let (q_loaded, kv_loaded) =
        (device.put(ROWS, &q, Kept::Rounded), device.put(ROWS, &kv, Kept::Rounded));
    // The part that a product fills stays NaN.
    let mut out = device.blank(ROWS, heads * key, Kept::Rounded);
    let mut angles = device.blank(ROWS, rotated, Kept::Exact);
    let mut pages = Pages::new(shape);
    begin(&mut device, &mut cache, &pages);
    device.rope_table(&rope(case.rope), &mut angles);
    let how = LatentProjection {
        heads,
        plain,
        latent,
        norm: weights.norm(kind),
        rope: &angles,
        interleaved,
    };
    device.project_latent(&q_loaded, &kv_loaded, &how, &mut cache, LAYER, &mut out);
    device.finish();
    pages.fetch(&mut device, &cache);

    let (mut q_want, mut got, mut want) = (Vec::new(), Vec::new(), Vec::new());
    let rope = rope(case.rope);
    for ((q, kv), (slot, position)) in q.chunks(heads * head).zip(kv.chunks(key)).zip(places()) {
        let turned = |x: &[f32]| {
            let mut x = x.to_vec();
            reference::rope::rotate(&mut x, &rope, position as u32, position as u32 + 1);
            x
        };
        for q in q.chunks(head) {
            q_want.extend(std::iter::repeat_n(f32::NAN, latent).chain(turned(&q[plain..])));
        }
        let page = page_of(&shape, slot, position / 16);
        got.extend(pages.get([LAYER, page, 0, 0], position));
        let key = [weights.apply(kind, &kv[..latent], 0), turned(&kv[latent..])].concat();
        want.extend(key.iter().map(|&x| kept(element, x)));
    }
    let name = format!("project_latent {case:?}");
    let kind_unit = PRECISIONS.iter().find(|(p, _)| *p == case.precision).expect("listed").1;
    // As of the other projections.
    let limit = |unit: f32| 2.0 * unit.max(8.0 * f32::EPSILON);
    let q_got = device.get(&out, ROWS);
    [
        Outcome::of(format!("{name}: queries"), &q_got, &q_want, 4.0, limit(kind_unit)),
        Outcome::of(format!("{name}: cache"), &got, &want, 4.0, limit(unit(element))),
        untouched(&name, &pages, &shape),
    ]
}
