//! Runs a case: what every slot's positions hold, the steps on the device, and the reference.

use kernels::{
    Attention, CacheShape, CacheValues, Compute, Kept, Precision, Segment, Step, reference,
};

use super::table::{Case, Part};
use crate::cases::pages::{Pages, grants, kept, page_of};
use crate::cases::{Bench, Numbers, Open, Outcome, PRECISIONS, all_rounded, config};
use crate::device::{Cuda, CudaConfig};
use crate::gpu::Gpu;
use crate::ops::cache::Cache;
use crate::tensor::{Kind, Tensor, Vector};

const SLOTS: usize = 4;
const LAYER: usize = 1;
/// Values are smaller than this: what an error is measured by.
const SCALE: f32 = 2.0;

/// Numbers of this deviation; uniform, because many are needed.
fn draw(numbers: &mut Numbers, n: usize, deviation: f32) -> Vec<f32> {
    (0..n).map(|_| numbers.unit() * 3f32.sqrt() * deviation).collect()
}

/// The queries of a position, as activations keep them. Scores then have a deviation of 3: some
/// keys count for much, some for nothing.
fn queries(case: &Case, slot: usize, position: usize) -> Vec<f32> {
    let kind = Kind::of(Kept::Rounded, case.precision);
    let mut numbers = Numbers::new((1000 * slot + position) as u64);
    all_rounded(kind, &draw(&mut numbers, case.heads * case.head_dim, 3.0))
}

/// What the cache keeps of a slot: `[kv_head][position]`.
struct Slot {
    keys: Vec<Vec<Vec<f32>>>,
    values: Vec<Vec<Vec<f32>>>,
}

impl Slot {
    fn new(case: &Case, seed: u64, context: usize) -> Self {
        let mut numbers = Numbers::new(seed);
        let mut list = |len: usize| -> Vec<Vec<Vec<f32>>> {
            let mut one = || -> Vec<f32> {
                draw(&mut numbers, len, 1.0).iter().map(|&x| kept(case.element, x)).collect()
            };
            (0..case.kv_heads).map(|_| (0..context).map(|_| one()).collect()).collect()
        };
        let keys = list(case.head_dim);
        let values = match case.values {
            None => list(case.head_dim),
            Some(dim) => {
                let of =
                    |head: &Vec<Vec<f32>>| head.iter().map(|key| key[..dim].to_vec()).collect();
                keys.iter().map(of).collect()
            }
        };
        Self { keys, values }
    }
}

fn shape(case: &Case, context: usize) -> CacheShape {
    let pages_per_slot = context.div_ceil(16) + 1;
    CacheShape {
        layers: 2,
        pages: SLOTS * pages_per_slot,
        page_tokens: 16,
        kv_heads: case.kv_heads,
        head_dim: case.head_dim,
        values: case.values.map_or(CacheValues::Own, |dim| CacheValues::InKeys { dim }),
        element: case.element,
        slots: SLOTS,
        pages_per_slot,
    }
}

fn how<'a, V>(case: &Case, sinks: Option<&'a V>) -> Attention<'a, V> {
    let &Case { heads, kv_heads, head_dim, window, soft_cap, causal, .. } = case;
    let scale = 1.0 / (head_dim as f32).sqrt();
    Attention { heads, kv_heads, head_dim, scale, causal, window, soft_cap, sinks }
}

/// Greatest error in units of [`SCALE`].
fn limit(case: &Case) -> f32 {
    let unit = PRECISIONS.iter().find(|(p, _)| *p == case.precision).expect("listed").1;
    match case.precision {
        // Scores of some 10 in units of log2, and their ex2.
        Precision::Float32 => 40.0 * unit,
        // Results are rounded by half a unit; so are weights, whose errors hardly add up.
        Precision::Bfloat16 | Precision::Float16 => unit,
    }
}

/// A case on a device.
struct Run<'a, G: Gpu> {
    case: &'a Case,
    device: Cuda<G>,
    cache: Cache,
    shape: CacheShape,
    pages: Pages,
    slots: Vec<Slot>,
    /// Positions of each slot that are in the cache.
    written: [usize; SLOTS],
    sinks: Option<(Vector, Vec<f32>)>,
    q: Tensor,
    out: Tensor,
}

impl<G: Gpu> Run<'_, G> {
    /// Positions `0..end` of a slot are in the cache, no others.
    fn fill(&mut self, slot: usize, end: usize) {
        let written = std::mem::replace(&mut self.written[slot], end);
        for head in 0..self.case.kv_heads {
            for position in written..end {
                let page = page_of(&self.shape, slot, position / 16);
                let Slot { keys, values, .. } = &self.slots[slot];
                self.pages.put([LAYER, page, 0, head], position, &keys[head][position]);
                if self.case.values.is_none() {
                    self.pages.put([LAYER, page, 1, head], position, &values[head][position]);
                }
            }
        }
    }

    fn step(&mut self, parts: &[Part]) -> (Vec<f32>, Vec<f32>) {
        let mut segments = Vec::new();
        let mut q = Vec::new();
        for part in parts {
            self.fill(part.slot, part.first + part.len);
            let row = segments.iter().map(|s: &Segment| s.len).sum();
            let (slot, first, len) = (part.slot as u32, part.first as u32, part.len as u32);
            segments.push(Segment { slot, first, len, row, late: part.late, adapter: 0 });
            let positions = part.first..part.first + part.len;
            q.extend(positions.flat_map(|position| queries(self.case, part.slot, position)));
        }
        let Self { case, device, cache, pages, sinks, q: queries, out, .. } = self;
        pages.send(device, cache);
        device.write(queries, &q);
        device.gpu().fill(out.address, out.bytes(out.rows), 0xff);
        let rows: usize = parts.iter().map(|part| part.len).sum();
        let tokens = vec![0; rows];
        device.begin(Step { tokens: &tokens, segments: &segments, grants: &[] }, cache);
        let how = how(case, sinks.as_ref().map(|(vector, _)| vector));
        device.attention(queries, &how, cache, LAYER, out);
        device.finish();
        (device.get(out, rows), self.want(parts))
    }

    fn want(&self, parts: &[Part]) -> Vec<f32> {
        let case = self.case;
        let how = how::<()>(case, None);
        let mut out = Vec::new();
        for part in parts {
            let (slot, end) = (&self.slots[part.slot], part.first + part.len);
            for position in part.first..end {
                let queries = queries(case, part.slot, position);
                for head in 0..case.heads {
                    let kv = head * case.kv_heads / case.heads;
                    let q = &queries[head * case.head_dim..][..case.head_dim];
                    let (keys, values) = (&slot.keys[kv][..end], &slot.values[kv][..end]);
                    let sink = self.sinks.as_ref().map(|(_, sinks)| sinks[head]);
                    out.extend(reference::attention::attention(
                        q, keys, values, position, &how, sink,
                    ));
                }
            }
        }
        out
    }
}

fn new<'a, G: Gpu>(open: Open<'_, G>, case: &'a Case, graphs: bool) -> Run<'a, G> {
    let steps = case.steps;
    let rows = |step: &&[Part]| step.iter().map(|part| part.len).sum::<usize>();
    let rows_max = steps.iter().map(rows).max().expect("a step");
    let context = |slot: usize| {
        let parts = steps.iter().flat_map(|step| step.iter()).filter(|part| part.slot == slot);
        parts.map(|part| part.first + part.len).max().unwrap_or(0)
    };
    let shape = shape(case, (0..SLOTS).map(context).max().expect("slots"));
    let attended_max = case.heads * shape.value_dim();
    let width_max = case.heads * case.head_dim;
    let base = config(case.precision, rows_max);
    let mut device = open(CudaConfig { attended_max, width_max, graphs, ..base });
    let mut cache = device.cache(shape).expect("memory");
    device.begin(Step { tokens: &[], segments: &[], grants: &grants(&shape) }, &mut cache);
    device.finish();
    let sinks = case.sinks.then(|| {
        let list = Numbers::new(99).list(case.heads, 2.0);
        (device.load_vector(&list).expect("memory"), list)
    });
    let slots = (0..SLOTS).map(|slot| Slot::new(case, slot as u64 + 1, context(slot))).collect();
    let q = device.blank(rows_max, width_max, Kept::Rounded);
    let out = device.blank(rows_max, attended_max, Kept::Rounded);
    let pages = Pages::new(shape);
    Run { case, device, cache, shape, pages, slots, written: [0; SLOTS], sinks, q, out }
}

/// All steps of a case.
pub(super) fn run<G: Gpu>(open: Open<'_, G>, case: &Case) -> Outcome {
    let mut run = new(open, case, false);
    all_steps(&mut run)
}

/// All steps of a case on a device that makes graphs of them; how many were made.
#[cfg(test)]
pub(super) fn run_graphs<G: Gpu>(open: Open<'_, G>, case: &Case) -> (Outcome, usize) {
    let mut run = new(open, case, true);
    (all_steps(&mut run), run.device.graphs())
}

fn all_steps<G: Gpu>(run: &mut Run<'_, G>) -> Outcome {
    let case = run.case;
    let (mut got, mut want) = (Vec::new(), Vec::new());
    for step in case.steps {
        let (g, w) = run.step(step);
        got.extend(g);
        want.extend(w);
    }
    let &Case { heads, kv_heads, head_dim, element, window, causal, .. } = case;
    let name = format!(
        "attention {heads}/{kv_heads}x{head_dim} {:?} over {element:?}, window {window:?}, cap \
         {:?}, sinks {}, causal {causal}, values {:?}, {} steps",
        case.precision,
        case.soft_cap,
        case.sinks,
        case.values,
        case.steps.len()
    );
    Outcome::of(name, &got, &want, SCALE, limit(case))
}
