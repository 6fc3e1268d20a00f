//! Every op against its plain reference, over one table of odd shapes per op. This file holds what
//! the tests share: instruction sets to run on, numbers, and a device with tensors.

mod attention;
mod chains;
mod experts;
mod low_rank;
mod ops;
mod routed_speed;
mod sample;
mod speed;
mod steps;

use super::isa::Isa;
use super::{Cpu, CpuConfig, Tensor};
use crate::compute::{
    CacheElement, CacheShape, CacheValues, Compute, Kept, Precision, Segment, Step,
};

pub(crate) use crate::reference::numbers::Numbers;

/// One instruction set per [`super::lanes::Lanes`].
pub(crate) fn isas() -> Vec<Isa> {
    let mut isas: Vec<Isa> = Vec::new();
    for isa in Isa::available() {
        let kind = |isa: &Isa| (isa.has_avx2(), isa.has_avx512());
        if !isas.iter().any(|other| kind(other) == kind(&isa)) {
            isas.push(isa);
        }
    }
    isas
}

/// A device with room for `rows` rows.
pub(crate) fn cpu(isa: Isa, threads: usize, rows: usize, vocab: usize) -> Cpu {
    Cpu::new(CpuConfig {
        threads,
        precision: Precision::Float32,
        rows_max: rows,
        slots: rows.max(4),
        context_max: 4096,
        vocab,
        isa,
    })
}

/// A tensor of these rows.
pub(crate) fn tensor(cpu: &mut Cpu, rows: usize, values: &[f32]) -> Tensor {
    let mut tensor = cpu.tensor(rows, values.len() / rows, Kept::Exact).expect("memory");
    tensor.first_mut(rows).copy_from_slice(values);
    tensor
}

/// A cache of one page for a step that needs none.
pub(crate) const ONE_PAGE: CacheShape = CacheShape {
    layers: 1,
    pages: 1,
    page_tokens: 16,
    kv_heads: 1,
    head_dim: 1,
    values: CacheValues::Own,
    element: CacheElement::F32,
    slots: 1,
    pages_per_slot: 1,
};

/// A segment that is neither late nor adapted.
pub(crate) fn segment(slot: u32, first: u32, len: u32, row: u32) -> Segment {
    Segment { slot, first, len, row, late: false, adapter: 0 }
}

/// Begins a step of `rows` rows of slot 0 that needs no pages.
pub(crate) fn begin(cpu: &mut Cpu, rows: usize) {
    let mut cache = cpu.cache(ONE_PAGE).expect("memory");
    let segments = [segment(0, 0, rows as u32, 0)];
    let tokens = vec![0; rows];
    cpu.begin(Step { tokens: &tokens, segments: &segments, grants: &[] }, &mut cache);
}

/// Each number is within `ulps` units of the last place of `scale`, or of its own size.
pub(crate) fn assert_near(what: &str, got: &[f32], want: &[f32], scale: f32, ulps: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let limit = ulps * f32::EPSILON * want.abs().max(scale);
        assert!((got - want).abs() <= limit, "{what} [{i}]: {got}, want {want}, limit {limit}");
    }
}
