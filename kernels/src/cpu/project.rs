//! From a fused projection row to rotated queries and cache entries.

use super::cache::{Element, Writer};
use super::isa::Isa;
use super::lanes::{Kernel, Lanes, dispatch};
use super::norm::Norm;
use super::pool::Pool;
use super::rope::rotate;
use super::rows::for_rows;
use super::step::Place;
use super::tensor::Shared;

/// What all rows share.
pub(crate) struct Shape<'a> {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) q_norm: Option<&'a [f32]>,
    pub(crate) k_norm: Option<&'a [f32]>,
    pub(crate) norm_eps: f32,
    /// `[rows, rotated]` and `rotated`.
    pub(crate) rope: Option<(&'a [f32], usize)>,
    pub(crate) interleaved: bool,
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
        for head in q.chunks_exact_mut(head_dim) {
            prepare(s, head, shape.q_norm, shape, table);
        }
        let heads = k.chunks_exact_mut(head_dim).zip(v.chunks_exact(head_dim));
        for (head, (key, value)) in heads.enumerate() {
            prepare(s, key, shape.k_norm, shape, table);
            // SAFETY: rows are different positions of different slots, and each row belongs to
            // one task; attention runs after all of them.
            unsafe { writer.put::<T>(layer, (place.slot, place.position), head, key, value) };
        }
    }
}

/// Norm and rotation of one head.
#[inline(always)]
fn prepare<S: Lanes>(
    s: S,
    head: &mut [f32],
    norm: Option<&[f32]>,
    shape: &Shape<'_>,
    table: Option<&[f32]>,
) {
    if let Some(weight) = norm {
        Norm { x: None, weight, eps: shape.norm_eps, out: head }.run(s);
    }
    if let Some(table) = table {
        rotate(head, table, shape.interleaved);
    }
}

/// Norms and rotates the queries and keys of all rows in place; stores keys and values.
pub(crate) fn project<T: Element>(
    pool: &Pool,
    isa: Isa,
    shape: &Shape<'_>,
    qkv: &mut [f32],
    places: &[Place],
    (writer, layer): (&Writer<'_>, usize),
) {
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
