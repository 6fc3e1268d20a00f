//! Rows picked by number: `ops/gather.cu`.

use bytemuck::{Pod, Zeroable};
use kernels::Error;

use super::expand::StoredArg;
use super::{Rows, blocks, kernel};
use crate::gpu::{Address, Gpu, Kernel};
use crate::matrix::Matrix;
use crate::record::Record;
use crate::tensor::{Tensor, TensorArg};

const FILE: &str = "gather.cu";
const THREADS: u32 = 256;

/// The kernels.
pub(crate) struct Gather {
    embed: Kernel,
    embed_add: Kernel,
    select: Kernel,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct EmbedArgs {
    table: StoredArg,
    out: TensorArg,
    tokens: Address,
    slots: Address,
    last: Address,
    scale: f32,
    blanks: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct EmbedAddArgs {
    table: StoredArg,
    out: TensorArg,
    list: Address,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct SelectArgs {
    x: TensorArg,
    out: TensorArg,
    list: Address,
}

impl Gather {
    pub(crate) fn load<G: Gpu>(gpu: &mut G) -> Result<Self, Error> {
        let embed = kernel::<EmbedArgs, G>(gpu, FILE, "embed_rows")?;
        let embed_add = kernel::<EmbedAddArgs, G>(gpu, FILE, "embed_add_rows")?;
        let select = kernel::<SelectArgs, G>(gpu, FILE, "select_rows")?;
        Ok(Self { embed, embed_add, select })
    }

    /// `out[r] = scale * table[token of r]`; `last` is `[slots]` u32, the token that each slot drew
    /// last. Rows without a slot become 0.
    pub(crate) fn embed(
        &self,
        record: &mut Record,
        rows: &Rows,
        last: Address,
        (table, scale): (&Matrix, f32),
        out: &Tensor,
    ) {
        let out = out.of(rows.rows, table.cols()).arg();
        for (i, part) in table.parts.iter().enumerate() {
            let args = EmbedArgs {
                table: StoredArg::new(part, table.cols()),
                out,
                tokens: rows.tokens,
                slots: rows.slots,
                last,
                scale,
                blanks: u32::from(i == 0),
            };
            record.launch(self.embed, blocks(rows.rows, THREADS), &args);
        }
    }

    /// `out[r] += table[list[r]]`; `list` is `[rows]` u32.
    pub(crate) fn embed_add(
        &self,
        record: &mut Record,
        rows: usize,
        list: Address,
        table: &Matrix,
        out: &Tensor,
    ) {
        let out = out.of(rows, table.cols()).arg();
        for part in &table.parts {
            let args = EmbedAddArgs { table: StoredArg::new(part, table.cols()), out, list };
            record.launch(self.embed_add, blocks(rows, THREADS), &args);
        }
    }

    /// `out[i] = x[list[i]]`; `list` is `[rows]` u32.
    pub(crate) fn select(
        &self,
        record: &mut Record,
        rows: usize,
        list: Address,
        x: &Tensor,
        out: &Tensor,
    ) {
        let out = out.of(rows, x.width).arg();
        let args = SelectArgs { x: x.arg(), out, list };
        record.launch(self.select, blocks(rows, THREADS), &args);
    }
}
