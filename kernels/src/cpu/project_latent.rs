//! Latent attention: from compressed keys to cache entries, and the rotated part of the queries.

use super::attention::HEAD_DIM_MAX;
use super::cache::Element;
use super::lanes::{Kernel, Lanes, dispatch};
use super::norm::{Norm, Weights};
use super::pool::Pool;
use super::project::Call;
use super::rope::rotate;
use super::rows::for_rows;
use super::tensor::{Shared, Tensor, Vector};
use crate::compute::LatentProjection;

/// What all rows share.
pub(crate) struct Shape<'a> {
    pub(crate) heads: usize,
    pub(crate) plain: usize,
    pub(crate) latent: usize,
    pub(crate) rotated: usize,
    norm: Weights<'a>,
    /// `[rows, rotated]`.
    table: &'a [f32],
    interleaved: bool,
}

impl<'a> Shape<'a> {
    /// That of a step of `rows` rows.
    pub(crate) fn new(how: &LatentProjection<'a, Vector, Tensor>, rows: usize) -> Self {
        Self {
            heads: how.heads,
            plain: how.plain,
            latent: how.latent,
            rotated: how.rope.width(),
            norm: Weights::of(&how.norm),
            table: how.rope.first(rows),
            interleaved: how.interleaved,
        }
    }

    /// Elements of a key.
    pub(crate) fn key(&self) -> usize {
        self.latent + self.rotated
    }
}

/// One row: its key into `key`, its queries' rotated parts into `out`.
struct Row<'a> {
    shape: &'a Shape<'a>,
    q: &'a [f32],
    kv: &'a [f32],
    table: &'a [f32],
    key: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for Row<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Lanes>(self, s: S) {
        let Self { shape, q, kv, table, key, out } = self;
        let (latent, rest) = key.split_at_mut(shape.latent);
        Norm { x: Some(&kv[..shape.latent]), how: shape.norm, out: latent }.run(s);
        rest.copy_from_slice(&kv[shape.latent..]);
        rotate(rest, table, shape.interleaved);
        let heads = q.chunks_exact(shape.plain + shape.rotated);
        for (q, out) in heads.zip(out.chunks_exact_mut(shape.key())) {
            let out = &mut out[shape.latent..];
            out.copy_from_slice(&q[shape.plain..]);
            rotate(out, table, shape.interleaved);
        }
    }
}

/// Stores the keys `[latent | rotated]` of all rows of `kv`, and turns the last part of each head
/// of `q` `[rows, heads * (plain + rotated)]` into that of `out` `[rows, heads * key]`.
pub(crate) fn project_latent<T: Element>(
    pool: &Pool,
    call: &Call<'_, '_>,
    shape: &Shape<'_>,
    (q, kv): (&[f32], &[f32]),
    out: &mut [f32],
) {
    let &Call { isa, places, writer, layer } = call;
    let (rows, key_len) = (places.len(), shape.key());
    let (q_width, width) = (shape.heads * (shape.plain + shape.rotated), shape.heads * key_len);
    assert!(key_len <= HEAD_DIM_MAX, "a key of {key_len}");
    assert!(q.len() == rows * q_width && kv.len() == rows * key_len, "projection width");
    assert_eq!(out.len(), rows * width, "projection width");
    let out = Shared::new(out);
    for_rows(pool, rows, q_width, &|range, _| {
        let mut key = [0.0; HEAD_DIM_MAX];
        let key = &mut key[..key_len];
        for row in range {
            let (q, kv) = (&q[row * q_width..][..q_width], &kv[row * key_len..][..key_len]);
            let table = &shape.table[row * shape.rotated..][..shape.rotated];
            // SAFETY: each row belongs to one task.
            let out = unsafe { out.part(row * width, width) };
            dispatch(isa, Row { shape, q, kv, table, key: &mut *key, out });
            let place = (places[row].slot, places[row].position);
            // SAFETY: rows are different positions of different slots, and each row belongs to
            // one task; attention runs after all of them.
            unsafe { writer.put::<T>(layer, place, 0, key, &[]) };
        }
    });
}
