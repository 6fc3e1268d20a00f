//! Block-diagonal products: each head of a row by its own rows of one matrix.

use kernels::HeadBlocks;

use super::dense::Product;
use super::few::{Few, Heads};
use super::weight::FinishArg;
use super::{FEW, Matmul, is_plain_other};
use crate::gpu::Gpu;
use crate::matrix::{Layout, Matrix};
use crate::record::Record;
use crate::tensor::{Kind, Tensor, TensorArg};

impl Matmul {
    /// Head h of `out[r]` is block h of w by head h of `x[r]`.
    pub(crate) fn heads<G: Gpu>(
        &self,
        gpu: &mut G,
        record: &mut Record,
        rows: usize,
        (x, w, blocks): (&Tensor, &Matrix, HeadBlocks),
        out: &Tensor,
    ) {
        let HeadBlocks { heads, x_stride, out_stride } = blocks;
        assert!(heads > 0 && w.rows.is_multiple_of(heads), "a block for each of {heads} heads");
        let outputs = w.rows / heads;
        assert!((heads - 1) * x_stride + w.cols <= x.width, "heads of {} in {}", w.cols, x.width);
        assert!((heads - 1) * out_stride + outputs <= out.width, "heads of {outputs}");
        assert!(heads == 1 || outputs <= out_stride, "heads write columns of their own");
        assert!(rows <= x.rows.min(out.rows), "{rows} rows");
        let all = Heads { heads, outputs, x_stride, out_stride };
        if !self.heads_at_once(record, rows, (x, w, all), out) {
            self.heads_one_by_one((gpu, record), rows, (x, w, all), out);
        }
    }

    /// All heads in one launch, where weights and rows lie so that a kernel can.
    fn heads_at_once(
        &self,
        record: &mut Record,
        rows: usize,
        (x, w, heads): (&Tensor, &Matrix, Heads),
        out: &Tensor,
    ) -> bool {
        let [part] = &w.parts[..] else { return false };
        if part.order != 0 {
            return false;
        }
        let (x, finish) = (x.arg(), FinishArg::NONE);
        let takes = x.kind == self.operand as u32 && Few::takes(part, &x, w.cols, &heads);
        let few = self.few.as_ref().filter(|_| takes && !is_plain_other(part, self.operand));
        if let Layout::Plain(kind) = part.layout {
            let w = TensorArg { address: part.data, width: w.cols as u32, kind: kind as u32 };
            let product = Product { rows, x, w, heads, out, first: 0, finish };
            if few.is_none() || rows > FEW {
                self.on_own(record, &product);
                return true;
            }
        }
        let Some(few) = few else { return false };
        few.multiply(record, (rows, x), (part, w.cols), &heads, (out, finish));
        true
    }

    /// Any parts, any sizes.
    fn heads_one_by_one<G: Gpu>(
        &self,
        (gpu, record): (&mut G, &mut Record),
        rows: usize,
        (x, w, heads): (&Tensor, &Matrix, Heads),
        out: &Tensor,
    ) {
        for head in 0..heads.heads {
            let (from, until) = (head * heads.outputs, (head + 1) * heads.outputs);
            for part in &w.parts {
                let here = from.max(part.first)..until.min(part.first + part.rows);
                if here.is_empty() {
                    continue;
                }
                let first = head * heads.x_stride;
                let bytes = rows * w.cols * self.operand.bytes();
                let to = (self.converted.first(bytes), self.operand);
                let columns = (first, w.cols);
                let x = self.operands.convert(record, (x.arg(), rows), columns, part.order, to);
                let kind = match part.layout {
                    Layout::Plain(kind) => kind,
                    Layout::F8 { .. } | Layout::Codes(_) => self.operand,
                };
                let of_part = here.start - part.first..here.end - part.first;
                let column = head * heads.out_stride + here.start - from;
                let start = of_part.start;
                self.stretches(record, (part, w.cols), of_part, kind, |record, w, some| {
                    let heads = Heads::one(some.len());
                    let first = column + some.start - start;
                    let finish = FinishArg::NONE;
                    let product = Product { rows, x, w, heads, out, first, finish };
                    let library = if w.kind == x.kind { self.operand } else { Kind::F32 };
                    self.dense((gpu, record), library, &product);
                });
            }
        }
    }
}
