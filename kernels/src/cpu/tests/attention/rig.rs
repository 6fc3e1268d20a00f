//! A device with two slots, whose pages lie in no order and are full of NaN, and what the
//! reference gives in its place.

use super::cases::Case;
use crate::compute::{
    Attention, CacheShape, CacheValues, Compute, Grant, HeadNorm, Kept, LatentProjection, Norm,
    NormKind, Projection, Rope, Step,
};
use crate::cpu::cache::with_element;
use crate::cpu::isa::Isa;
use crate::cpu::tests::{Numbers, cpu, segment, tensor};
use crate::cpu::{Cache, Cpu, Tensor, Vector, rounded};
use crate::reference;

const LAYER: usize = 1;
const EPS: f32 = 1e-6;

/// Cos and sin scale with the magnitude; 1.1 shows that it is used.
fn rope(case: &Case) -> Rope {
    let pairs = case.rope.0 / 2;
    let inv_freq = (0..pairs).map(|i| 10_000f32.powf(-(i as f32) / pairs as f32)).collect();
    Rope { inv_freq, magnitude: 1.1, interleaved: case.rope.1, beyond: None }
}

/// Columns of a row of numbers: queries (of latent attention those that are rotated, then the
/// others), then keys and values.
fn widths(case: &Case) -> [usize; 3] {
    let Case { heads, kv_heads, head_dim, .. } = *case;
    match case.latent {
        None => [heads * head_dim, 0, 2 * kv_heads * head_dim],
        Some((plain, latent)) => [heads * (plain + case.rope.0), heads * latent, head_dim],
    }
}

pub(super) fn numbers(case: &Case, context: usize) -> [Vec<f32>; 2] {
    let width: usize = widths(case).iter().sum();
    [1, 2].map(|seed| Numbers::new(seed).list(context * width, 1.0))
}

/// Weight and bias.
type Weights = (Vector, Option<Vector>);

pub(super) struct Rig {
    case: Case,
    cpu: Cpu,
    cache: Cache,
    /// Of queries and of keys; of latent attention that of the latent.
    norms: Option<[Weights; 2]>,
    sinks: Option<Vector>,
}

/// A cache of two slots, filled with NaN.
fn cache(case: &Case, cpu: &mut Cpu, context: usize) -> Cache {
    let pages_per_slot = context.div_ceil(16);
    let values = match case.latent {
        Some((_, dim)) => CacheValues::InKeys { dim },
        None => CacheValues::Own,
    };
    let shape = CacheShape {
        layers: 2,
        pages: 2 * pages_per_slot,
        page_tokens: 16,
        kv_heads: case.kv_heads,
        head_dim: case.head_dim,
        values,
        element: case.element,
        slots: 2,
        pages_per_slot,
    };
    let mut cache = cpu.cache(shape).expect("memory");
    let grants: Vec<Grant> = (0..2 * pages_per_slot)
        .map(|page| Grant {
            slot: page as u32 % 2,
            index: (page / 2) as u32,
            // Backwards, the slots mixed.
            page: (2 * pages_per_slot - 1 - page) as u32,
        })
        .collect();
    cpu.begin(Step { tokens: &[], segments: &[], grants: &grants }, &mut cache);
    let key = vec![f32::NAN; case.head_dim];
    let value = if values == CacheValues::Own { &key[..] } else { &[] };
    for slot in 0..2 {
        for position in 0..16 * pages_per_slot as u32 {
            for head in 0..case.kv_heads {
                let (put, writer) = ((slot, position), cache.writer());
                // SAFETY: nothing runs beside this.
                with_element!(case.element, T => unsafe {
                    writer.put::<T>(LAYER, put, head, &key, value);
                });
            }
        }
    }
    cache
}

impl Rig {
    pub(super) fn new(case: Case, isa: Isa, threads: usize, context: usize) -> Self {
        let mut cpu = cpu(isa, threads, 2 * context, 8);
        let cache = cache(&case, &mut cpu, context);
        let mut load = |seed, len| {
            let list = Numbers::new(seed).list(len, 1.0);
            cpu.load_vector(&list).expect("memory")
        };
        let sinks = case.sinks.then(|| load(5, case.heads));
        let mut weights =
            |seed, len, bias: bool| (load(seed, len), bias.then(|| load(seed + 9, len)));
        let norms = match (case.latent, case.norms) {
            (Some((_, latent)), _) => Some([weights(1, latent, false), weights(2, latent, false)]),
            (None, Some(norms)) => {
                let len = |heads| if norms.own { heads * case.head_dim } else { case.head_dim };
                let (q, k) = (len(case.heads), len(case.kv_heads));
                Some([weights(1, q, norms.bias), weights(2, k, norms.bias)])
            }
            (None, None) => None,
        };
        Self { case, cpu, cache, norms, sinks }
    }

    /// Leaves a decode of one row so little room that its spans are joined in several waves.
    pub(super) fn room_for_few_spans(&mut self) {
        let Case { heads, head_dim, .. } = self.case;
        self.cpu.plan.partial.truncate((heads + 1) * (head_dim + 3));
    }

    /// Runs a step of segments (slot, first, len) over rows of `x` `[slot][position]`; returns
    /// the rows of the output.
    pub(super) fn step(
        &mut self,
        segments: &[(u32, usize, usize)],
        x: &[Vec<f32>; 2],
    ) -> Vec<Vec<f32>> {
        let width: usize = widths(&self.case).iter().sum();
        let (mut list, mut rows) = (Vec::new(), Vec::new());
        for &(slot, first, len) in segments {
            list.push(segment(slot, first as u32, len as u32, rows.len() as u32));
            rows.extend(x[slot as usize][first * width..][..len * width].chunks(width));
        }
        let tokens = vec![0; rows.len()];
        let (rope, rotated) = (rope(&self.case), self.case.rope.0);
        let mut table: Tensor = self.cpu.tensor(rows.len(), rotated, Kept::Exact).expect("memory");
        self.cpu.begin(Step { tokens: &tokens, segments: &list, grants: &[] }, &mut self.cache);
        if rotated > 0 {
            self.cpu.rope_table(&rope, &mut table);
        }
        let q = match self.case.latent {
            None => self.project(&rows, &table),
            Some((plain, latent)) => self.project_latent(&rows, &table, plain, latent),
        };
        let Self { case, cpu, cache, sinks, .. } = self;
        let out_width = case.heads * cache.shape().value_dim();
        let mut out = cpu.tensor(rows.len(), out_width, Kept::Exact).expect("memory");
        cpu.attention(&q, &how(case, sinks.as_ref()), cache, LAYER, &mut out);
        cpu.end();
        cpu.collect(&mut Default::default()).expect("no fault");
        out.first(rows.len()).chunks(out_width).map(<[f32]>::to_vec).collect()
    }

    fn project(&mut self, rows: &[&[f32]], table: &Tensor) -> Tensor {
        let Self { case, cpu, cache, norms, .. } = self;
        let mut qkv = tensor(cpu, rows.len(), &rows.concat());
        let projection = Projection {
            heads: case.heads,
            kv_heads: case.kv_heads,
            head_dim: case.head_dim,
            q_norm: norm(case, norms.as_ref(), 0),
            k_norm: norm(case, norms.as_ref(), 1),
            rope: (case.rope.0 > 0).then_some(table),
            interleaved: case.rope.1,
        };
        cpu.project(&mut qkv, &projection, cache, LAYER);
        qkv
    }

    fn project_latent(
        &mut self,
        rows: &[&[f32]],
        table: &Tensor,
        plain: usize,
        latent: usize,
    ) -> Tensor {
        let Self { case, cpu, cache, norms, .. } = self;
        let [turned, others, _] = widths(case);
        let columns = |from: usize, to: usize| -> Vec<f32> {
            rows.iter().flat_map(|row| row[from..to].to_vec()).collect()
        };
        let q = tensor(cpu, rows.len(), &columns(0, turned));
        let kv = tensor(cpu, rows.len(), &columns(turned + others, rows[0].len()));
        // What a product would have left in the latent part of each head.
        let head = |part: &[f32]| [part, &vec![f32::NAN; case.rope.0]].concat();
        let row =
            |row: &&[f32]| row[turned..turned + others].chunks(latent).flat_map(head).collect();
        let filled: Vec<Vec<f32>> = rows.iter().map(row).collect();
        let mut out = tensor(cpu, rows.len(), &filled.concat());
        let how = LatentProjection {
            heads: case.heads,
            plain,
            latent,
            norm: norm(case, norms.as_ref(), 1).expect("a norm").1,
            rope: table,
            interleaved: case.rope.1,
        };
        cpu.project_latent(&q, &kv, &how, cache, LAYER, &mut out);
        out
    }

    /// What the reference gives for all positions of a slot.
    pub(super) fn want(&self, x: &[f32]) -> Vec<Vec<f32>> {
        let case = &self.case;
        let how = how(case, self.sinks.as_ref());
        let width: usize = widths(case).iter().sum();
        let rows: Vec<&[f32]> = x.chunks(width).collect();
        let of = |(position, row): (usize, &&[f32])| self.heads(row, position as u32);
        let all: Vec<Heads> = rows.iter().enumerate().map(of).collect();
        let mut out = vec![Vec::new(); rows.len()];
        for head in 0..case.heads {
            let kv = head * case.kv_heads / case.heads;
            let keys: Vec<Vec<f32>> = all.iter().map(|heads| heads.keys[kv].clone()).collect();
            let values: Vec<Vec<f32>> = all.iter().map(|heads| heads.values[kv].clone()).collect();
            let sink = self.sinks.as_ref().map(|sinks| sinks.values()[head]);
            for (position, out) in out.iter_mut().enumerate() {
                let q = &all[position].queries[head];
                let one = reference::attention::attention(q, &keys, &values, position, &how, sink);
                out.extend(one);
            }
        }
        out
    }

    /// Queries, keys and values of a position, keys and values as the cache holds them.
    fn heads(&self, row: &[f32], position: u32) -> Heads {
        let Case { heads, kv_heads, head_dim, element, .. } = self.case;
        let (rope, [turned, others, _]) = (rope(&self.case), widths(&self.case));
        let turn = |head: &mut [f32]| {
            reference::rope::rotate(head, &rope, position, position + 1);
        };
        let round = |x: &[f32]| x.iter().map(|&x| rounded(element, x)).collect::<Vec<f32>>();
        let normed = |x: &[f32], index, at| match norm(&self.case, self.norms.as_ref(), index) {
            None => x.to_vec(),
            Some((_, how)) => {
                let part = |v: &Vector| {
                    let at = if v.values().len() == x.len() { 0 } else { at };
                    v.values()[at..at + x.len()].to_vec()
                };
                let (weight, bias) = (part(how.weight), how.bias.map(part));
                reference::norm::norm(how.kind, x, &weight, bias.as_deref(), EPS)
            }
        };
        if let Some((plain, latent)) = self.case.latent {
            let mut key = normed(&row[turned + others..][..latent], 1, 0);
            key.extend_from_slice(&row[turned + others + latent..]);
            turn(&mut key[latent..]);
            let key = round(&key);
            let query = |head: usize| {
                let mut q = row[turned + head * latent..][..latent].to_vec();
                let size = plain + self.case.rope.0;
                q.extend_from_slice(&row[head * size..][plain..size]);
                turn(&mut q[latent..]);
                q
            };
            let values = vec![key[..latent].to_vec()];
            return Heads { queries: (0..heads).map(query).collect(), keys: vec![key], values };
        }
        let (q, kv) = row.split_at(heads * head_dim);
        let (k, v) = kv.split_at(kv_heads * head_dim);
        let whole = self.case.norms.is_some_and(|n| n.reach == HeadNorm::Whole);
        let prepare = |x: &[f32], index| -> Vec<Vec<f32>> {
            let x = if whole { normed(x, index, 0) } else { x.to_vec() };
            let one = |(i, head): (usize, &[f32])| {
                let mut head =
                    if whole { head.to_vec() } else { normed(head, index, i * head_dim) };
                turn(&mut head);
                head
            };
            x.chunks(head_dim).enumerate().map(one).collect()
        };
        Heads {
            queries: prepare(q, 0),
            keys: prepare(k, 1).iter().map(|key| round(key)).collect(),
            values: v.chunks(head_dim).map(round).collect(),
        }
    }
}

/// One position: a list per head.
struct Heads {
    queries: Vec<Vec<f32>>,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

fn how<'a>(case: &Case, sinks: Option<&'a Vector>) -> Attention<'a, Vector> {
    let Case { heads, kv_heads, head_dim, window, soft_cap, causal, .. } = *case;
    let scale = 1.0 / (head_dim as f32).sqrt();
    Attention { heads, kv_heads, head_dim, scale, causal, window, soft_cap, sinks }
}

fn norm<'a>(
    case: &Case,
    norms: Option<&'a [Weights; 2]>,
    index: usize,
) -> Option<(HeadNorm, Norm<'a, Vector>)> {
    let (weight, bias) = &norms?[index];
    let (reach, kind) = case.norms.map_or((HeadNorm::Each, NormKind::Rms), |n| (n.reach, n.kind));
    Some((reach, Norm { kind, weight, bias: bias.as_ref(), eps: EPS }))
}
