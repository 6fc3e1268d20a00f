//! From a fused projection row to rotated queries and cache entries.

use super::cache::{Element, Writer};
use super::isa::Isa;
use super::lanes::{Kernel, Lanes, dispatch};
use super::norm::{Norm, Weights};
use super::pool::Pool;
use super::rope::rotate;
use super::rows::for_rows;
use super::step::Place;
use super::tensor::{Shared, Tensor, Vector};
use crate::compute::{HeadNorm, Projection};

/// Where rows belong and where their keys and values go.
pub(crate) struct Call<'a, 'c> {
    pub(crate) isa: Isa,
    pub(crate) places: &'a [Place],
    pub(crate) writer: &'a Writer<'c>,
    pub(crate) layer: usize,
}

/// What all rows share.
pub(crate) struct Shape<'a> {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    q_norm: Option<(HeadNorm, Weights<'a>)>,
    k_norm: Option<(HeadNorm, Weights<'a>)>,
    /// `[rows, rotated]` and `rotated`.
    rope: Option<(&'a [f32], usize)>,
    interleaved: bool,
}

impl<'a> Shape<'a> {
    /// That of a step of `rows` rows.
    pub(crate) fn new(how: &Projection<'a, Vector, Tensor>, rows: usize) -> Self {
        let (heads, kv_heads, head_dim) = (how.heads, how.kv_heads, how.head_dim);
        let norm = |(reach, norm), heads| {
            let norm = Weights::of(&norm);
            let shared = reach == HeadNorm::Each && norm.width() == head_dim;
            assert!(shared || norm.width() == heads * head_dim, "weights of a {reach:?} norm");
            (reach, norm)
        };
        let rope = how.rope.map(|table| (table.first(rows), table.width()));
        assert!(rope.is_none_or(|(_, rotated)| rotated <= head_dim), "rotated beyond the head");
        Self {
            heads,
            kv_heads,
            head_dim,
            q_norm: how.q_norm.map(|n| norm(n, heads)),
            k_norm: how.k_norm.map(|n| norm(n, kv_heads)),
            rope,
            interleaved: how.interleaved,
        }
    }

    /// Norm and rotation of the heads of a row's queries or keys.
    #[inline(always)]
    fn prepare<S: Lanes>(
        &self,
        s: S,
        heads: &mut [f32],
        norm: Option<(HeadNorm, Weights<'_>)>,
        table: Option<&[f32]>,
    ) {
        let head_dim = self.head_dim;
        if let Some((HeadNorm::Whole, how)) = norm {
            Norm { x: None, how, out: &mut *heads }.run(s);
        }
        for (i, head) in heads.chunks_exact_mut(head_dim).enumerate() {
            if let Some((HeadNorm::Each, how)) = norm {
                let at = if how.width() == head_dim { 0 } else { i * head_dim };
                Norm { x: None, how: how.part(at, head_dim), out: &mut *head }.run(s);
            }
            if let Some(table) = table {
                rotate(head, table, self.interleaved);
            }
        }
    }
}

/// One row `[q | k | v]`.
struct Row<'a, 'c, T> {
    shape: &'a Shape<'a>,
    row: &'a mut [f32],
    table: Option<&'a [f32]>,
    writer: &'a Writer<'c>,
    layer: usize,
    place: Place,
    element: std::marker::PhantomData<T>,
}

impl<T: Element> Kernel for Row<'_, '_, T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Self { shape, row, table, writer, layer, place, .. } = self;
        let head_dim = shape.head_dim;
        let (q, kv) = row.split_at_mut(shape.heads * head_dim);
        let (k, v) = kv.split_at_mut(shape.kv_heads * head_dim);
        shape.prepare(s, q, shape.q_norm, table);
        shape.prepare(s, k, shape.k_norm, table);
        let heads = k.chunks_exact(head_dim).zip(v.chunks_exact(head_dim));
        for (head, (key, value)) in heads.enumerate() {
            // SAFETY: rows are different positions of different slots, and each row belongs to
            // one task; attention runs after all of them.
            unsafe { writer.put::<T>(layer, (place.slot, place.position), head, key, value) };
        }
    }
}

/// Norms and rotates the queries and keys of all rows in place; stores keys and values.
pub(crate) fn project<T: Element>(
    pool: &Pool,
    call: &Call<'_, '_>,
    shape: &Shape<'_>,
    qkv: &mut [f32],
) {
    let &Call { isa, places, writer, layer } = call;
    let width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
    assert_eq!(qkv.len(), places.len() * width, "projection width");
    let qkv = Shared::new(qkv);
    for_rows(pool, places.len(), width, &|range, _| {
        for row in range {
            let table = shape.rope.map(|(table, rotated)| &table[row * rotated..][..rotated]);
            let place = places[row];
            // SAFETY: each row belongs to one task.
            let row = unsafe { qkv.part(row * width, width) };
            let element = std::marker::PhantomData::<T>;
            dispatch(isa, Row { shape, row, table, writer, layer, place, element });
        }
    });
}
