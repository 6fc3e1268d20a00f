//! From projections to rotated queries and cache entries: `ops/project.cu` and
//! `ops/project_latent.cu`.

use bytemuck::{Pod, Zeroable};
use kernels::{CacheValues, Error, HeadNorm, LatentProjection, Norm, NormKind, Projection};

use super::cache::{Cache, CacheArg, HEAD_DIM_MAX};
use super::{Rows, kernel};
use crate::gpu::{Address, Gpu, Kernel, Shape};
use crate::record::Record;
use crate::tensor::{Kind, Tensor, TensorArg, Vector};

/// Threads of `project_rows`, and the heads that they do at a time.
const THREADS: u32 = 256;
const WARPS: usize = 8;
/// Threads of `project_latent`, and the heads of a block.
const LATENT_THREADS: u32 = 128;
const LATENT_HEADS: usize = 16;

/// The kernels.
pub(crate) struct Project {
    rows: Kernel,
    latent: Kernel,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct HeadNormArg {
    weight: Address,
    bias: Address,
    eps: f32,
    reach: u32,
    stride: u32,
    centered: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ProjectArgs {
    qkv: TensorArg,
    cache: CacheArg,
    q: HeadNormArg,
    k: HeadNormArg,
    table: Address,
    positions: Address,
    slots: Address,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    rotated: u32,
    interleaved: u32,
    pad: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct LatentArgs {
    q: TensorArg,
    kv: TensorArg,
    out: TensorArg,
    cache: CacheArg,
    weight: Address,
    bias: Address,
    table: Address,
    positions: Address,
    slots: Address,
    eps: f32,
    centered: u32,
    heads: u32,
    plain: u32,
    latent: u32,
    rotated: u32,
    interleaved: u32,
    pad: u32,
}

/// A norm of `heads` heads as the kernel takes it.
fn head_norm(
    norm: Option<&(HeadNorm, Norm<'_, Vector>)>,
    heads: usize,
    head_dim: usize,
) -> HeadNormArg {
    let Some((reach, norm)) = norm else { return HeadNormArg::zeroed() };
    let width = norm.weight.len;
    let shared = *reach == HeadNorm::Each && width == head_dim;
    assert!(shared || width == heads * head_dim, "weights of a {reach:?} norm");
    assert!(norm.bias.is_none_or(|bias| bias.len == width), "bias of a {reach:?} norm");
    HeadNormArg {
        weight: norm.weight.address,
        bias: norm.bias.map_or(0, |bias| bias.address),
        eps: norm.eps,
        reach: if *reach == HeadNorm::Each { 1 } else { 2 },
        stride: if shared { 0 } else { head_dim as u32 },
        centered: u32::from(norm.kind == NormKind::Layer),
    }
}

/// Address and width of a table of angles.
fn table(rope: Option<&Tensor>, rows: usize, most: usize) -> (Address, u32) {
    let Some(rope) = rope else { return (0, 0) };
    assert_eq!(rope.kind, Kind::F32, "angles are exact");
    assert!(rope.width <= most && rope.width.is_multiple_of(2), "rotated beyond the head");
    (rope.of(rows, rope.width).address, rope.width as u32)
}

impl Project {
    pub(crate) fn load<G: Gpu>(gpu: &mut G) -> Result<Self, Error> {
        let rows = kernel::<ProjectArgs, G>(gpu, "project.cu", "project_rows")?;
        let latent = kernel::<LatentArgs, G>(gpu, "project_latent.cu", "project_latent")?;
        Ok(Self { rows, latent })
    }

    /// Norms and rotates queries in place and keys; keys and values go to the cache.
    pub(crate) fn project(
        &self,
        record: &mut Record,
        rows: &Rows,
        qkv: &Tensor,
        how: &Projection<'_, Vector, Tensor>,
        cache: &Cache,
        layer: usize,
    ) {
        let &Projection { heads, kv_heads, head_dim, .. } = how;
        let shape = cache.shape();
        assert!(shape.kv_heads == kv_heads && shape.head_dim == head_dim, "{shape:?}");
        assert_eq!(shape.values, CacheValues::Own, "values of their own");
        let (table, rotated) = table(how.rope, rows.rows, head_dim);
        let args = ProjectArgs {
            qkv: qkv.of(rows.rows, (heads + 2 * kv_heads) * head_dim).arg(),
            cache: cache.arg(layer),
            q: head_norm(how.q_norm.as_ref(), heads, head_dim),
            k: head_norm(how.k_norm.as_ref(), kv_heads, head_dim),
            table,
            positions: rows.positions,
            slots: rows.slots,
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            head_dim: head_dim as u32,
            rotated,
            interleaved: u32::from(how.interleaved),
            pad: 0,
        };
        let whole = [args.q, args.k].iter().any(|norm| norm.reach == 2);
        let parts = if whole { 1 } else { (heads + 2 * kv_heads).div_ceil(WARPS) };
        let grid = [rows.rows as u32, parts as u32, 1];
        record.launch(self.rows, Shape { grid, threads: THREADS, shared_bytes: 0 }, &args);
    }

    /// Latent attention: the compressed keys of `kv` go to the cache, the rotated parts of `q` to
    /// `out`.
    pub(crate) fn project_latent(
        &self,
        record: &mut Record,
        rows: &Rows,
        (q, kv): (&Tensor, &Tensor),
        how: &LatentProjection<'_, Vector, Tensor>,
        (cache, layer): (&Cache, usize),
        out: &Tensor,
    ) {
        let &LatentProjection { heads, plain, latent, .. } = how;
        let (table, rotated) = table(Some(how.rope), rows.rows, HEAD_DIM_MAX);
        let size = latent + rotated as usize;
        let shape = cache.shape();
        assert!(shape.kv_heads == 1 && shape.head_dim == size, "{shape:?}");
        assert_eq!(shape.values, CacheValues::InKeys { dim: latent }, "values in keys");
        assert_eq!(how.norm.weight.len, latent, "weights of the latent's norm");
        let args = LatentArgs {
            q: q.of(rows.rows, heads * (plain + rotated as usize)).arg(),
            kv: kv.of(rows.rows, size).arg(),
            out: out.of(rows.rows, heads * size).arg(),
            cache: cache.arg(layer),
            weight: how.norm.weight.address,
            bias: how.norm.bias.map_or(0, |bias| bias.address),
            table,
            positions: rows.positions,
            slots: rows.slots,
            eps: how.norm.eps,
            centered: u32::from(how.norm.kind == NormKind::Layer),
            heads: heads as u32,
            plain: plain as u32,
            latent: latent as u32,
            rotated,
            interleaved: u32::from(how.interleaved),
            pad: 0,
        };
        let grid = [rows.rows as u32, 1 + heads.div_ceil(LATENT_HEADS) as u32, 1];
        let shape = Shape { grid, threads: LATENT_THREADS, shared_bytes: 0 };
        record.launch(self.latent, shape, &args);
    }
}
