//! Products of plain numbers: the vendor's library where it has one, `ops/matmul_tiles.cu` on
//! tensor cores, `ops/matmul_wide.cu` in f32 for everything else.

use bytemuck::{Pod, Zeroable};
use kernels::Error;

use super::few::Heads;
use super::operands::Operands;
use super::weight::FinishArg;
use crate::gpu::{Address, Gpu, Kernel, ProductShape, Shape};
use crate::ops::kernel;
use crate::record::Record;
use crate::tensor::{Kind, Tensor, TensorArg};

/// Rows up to which a warp makes one column of the result.
const WIDE_FEW: usize = 8;
/// Sides of a block's tile, threads.
const LARGE: (usize, u32) = (128, 256);
const SMALL: (usize, u32) = (64, 128);
/// Threads and columns of a block of `wide_few`; threads and side of `wide_tile`.
const WIDE: [(u32, usize); 2] = [(128, 4), (256, 64)];

/// The kernels.
pub(super) struct Dense {
    wide_few: Kernel,
    wide_tile: Kernel,
    /// For 16-bit operands, of which kind: small, large.
    tiles: Option<(Kind, [Kernel; 2])>,
    blocks_wanted: usize,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct DenseArgs {
    x: TensorArg,
    w: TensorArg,
    out: TensorArg,
    finish: FinishArg,
    rows: u32,
    outputs: u32,
    x_stride: u32,
    out_stride: u32,
    first: u32,
    pad: u32,
}

/// One product.
pub(super) struct Product<'a> {
    pub(super) rows: usize,
    pub(super) x: TensorArg,
    /// `[heads * outputs, cols]`.
    pub(super) w: TensorArg,
    pub(super) heads: Heads,
    pub(super) out: &'a Tensor,
    /// Column of the result that row 0 of w writes.
    pub(super) first: usize,
    pub(super) finish: FinishArg,
}

impl Product<'_> {
    /// Its shape for the vendor's library, and where its result begins; `None` where the library
    /// would not find addresses aligned as rows are.
    pub(super) fn library(&self, operands: Kind) -> Option<(ProductShape, Address)> {
        let &Product { rows, x, w, heads, out, first, .. } = self;
        let kinds = [x.kind, w.kind].iter().all(|&kind| kind == operands as u32);
        if heads.heads != 1 || !kinds {
            return None;
        }
        let to = out.address + (first * out.kind.bytes()) as Address;
        let aligned = |address: Address, columns: usize, bytes: usize| {
            address.trailing_zeros() >= (columns * bytes).trailing_zeros().min(4)
        };
        let bytes = operands.bytes();
        let all = aligned(x.address, x.width as usize, bytes)
            && aligned(w.address, w.width as usize, bytes)
            && aligned(to, out.width, out.kind.bytes());
        let shape = ProductShape {
            rows: rows as u32,
            outputs: heads.outputs as u32,
            inputs: w.width,
            x_stride: x.width,
            out_stride: out.width as u32,
            operands: operands.element(),
            out: out.kind.element(),
        };
        all.then_some((shape, to))
    }
}

impl Dense {
    /// `operand`: of the tensor cores, if they are used.
    pub(super) fn load<G: Gpu>(
        gpu: &mut G,
        operand: Kind,
        blocks_wanted: usize,
    ) -> Result<Self, Error> {
        let mut find = |file, name| kernel::<DenseArgs, G>(gpu, file, name);
        let (wide_few, wide_tile) =
            (find("matmul_wide.cu", "wide_few")?, find("matmul_wide.cu", "wide_tile")?);
        let mut tiles = |names: [&'static str; 2]| -> Result<_, Error> {
            let [small, large] = names.map(|name| find("matmul_tiles.cu", name));
            Ok(Some((operand, [small?, large?])))
        };
        let tiles = match operand {
            Kind::Bf16 => tiles(["tiles_bf16_64", "tiles_bf16_128"])?,
            Kind::F16 => tiles(["tiles_f16_64", "tiles_f16_128"])?,
            Kind::F32 => None,
        };
        Ok(Self { wide_few, wide_tile, tiles, blocks_wanted })
    }

    /// On the vendor's library, if it takes this product.
    pub(super) fn on_library<G: Gpu>(
        (gpu, record): (&mut G, &mut Record),
        operands: &Operands,
        kind: Kind,
        product: &Product<'_>,
    ) -> bool {
        let Some((shape, to)) = product.library(kind) else { return false };
        let Some(found) = gpu.product(&shape) else { return false };
        record.multiply(found, [product.x.address, product.w.address, to], 1.0);
        if product.finish != FinishArg::NONE {
            let columns = (product.first, product.heads.outputs);
            operands.finish(record, (product.out, product.rows), columns, product.finish);
        }
        true
    }

    /// On tensor cores; `None` where the operands are not 16 bits of the one type that they
    /// multiply, or not 16-byte aligned.
    pub(super) fn on_tiles(&self, record: &mut Record, product: &Product<'_>) -> Option<()> {
        let &Product { rows, x, w, heads, .. } = product;
        let (operand, [small, large]) = self.tiles?;
        let aligned = [x.width, w.width, heads.x_stride as u32].iter().all(|n| n.is_multiple_of(8))
            && [x.address, w.address].iter().all(|address| address.is_multiple_of(16));
        if !aligned || [x.kind, w.kind].iter().any(|&kind| kind != operand as u32) {
            return None;
        }
        let grid = |side: usize| {
            [heads.outputs.div_ceil(side), rows.div_ceil(side), heads.heads].map(|n| n as u32)
        };
        // Half of the wanted blocks is one a multiprocessor.
        let blocks: usize = grid(LARGE.0).iter().map(|&n| n as usize).product();
        let fills = rows > SMALL.0 && 2 * blocks >= self.blocks_wanted;
        let (kernel, (side, threads)) = if fills { (large, LARGE) } else { (small, SMALL) };
        let shape = Shape { grid: grid(side), threads, shared_bytes: 0 };
        record.launch(kernel, shape, &args(product));
        Some(())
    }

    /// In f32 on CUDA cores: any kinds, any shape.
    pub(super) fn on_wide(&self, record: &mut Record, product: &Product<'_>) {
        let Heads { heads, outputs, .. } = product.heads;
        let few = product.rows <= WIDE_FEW;
        let [few_shape, tile] = WIDE;
        let (kernel, (threads, side)) =
            if few { (self.wide_few, few_shape) } else { (self.wide_tile, tile) };
        let down = if few { 1 } else { product.rows.div_ceil(side) };
        let grid = [outputs.div_ceil(side), down, heads].map(|n| n as u32);
        record.launch(kernel, Shape { grid, threads, shared_bytes: 0 }, &args(product));
    }
}

fn args(product: &Product<'_>) -> DenseArgs {
    let &Product { rows, x, w, heads, out, first, finish } = product;
    DenseArgs {
        x,
        w,
        out: out.arg(),
        finish,
        rows: rows as u32,
        outputs: heads.outputs as u32,
        x_stride: heads.x_stride as u32,
        out_stride: heads.out_stride as u32,
        first: first as u32,
        pad: 0,
    }
}
