//! Ops on buffers: what a decoder computes, on CPU and on CUDA devices.
//!
//! This crate speaks pointers and shapes. It does not know what a model, a request or a tokenizer
//! is. [`Compute`] is the seam: the engine's transformer is written once against it, and each
//! kind of device implements it. `reference` holds the same ops as plain f32 loops; tests check
//! every other version against it.

#![allow(unsafe_code, reason = "SIMD and shared-buffer access live here, and only here")]

pub mod codes;
pub mod compute;
pub mod cpu;
pub mod format;
pub mod quantize;
pub mod reference;

pub use compute::{
    Activation, Attention, Beyond, CacheElement, CacheShape, CacheValues, Compute, Drawn, Error,
    Fault, Grant, Head, HeadBlocks, HeadNorm, Kept, LatentProjection, LogprobRow, MatrixPart, Norm,
    NormKind, Precision, Projection, Rope, Router, RouterGroups, RouterScore, SampleRow, Sampler,
    Segment, Step, chains, mask_words,
};
pub use format::{Format, Group};
