//! The ops of [`kernels`] on NVIDIA GPUs: [`Cuda`] implements [`kernels::Compute`].
//!
//! A crate of its own, because its sources are other languages and change together: CUDA C++ under
//! `ops/`, one op a file, and beside each the Rust that launches it, under `src/ops`. It is built
//! without nvcc: NVRTC compiles at first start, or ahead of time into cubins. Nothing here knows a
//! model; below [`gpu::Gpu`] nothing knows an op.

#![allow(unsafe_code, reason = "device memory and the driver are reached through raw addresses")]

pub mod arch;
pub mod cases;
pub mod compile;
pub mod cubins;
mod device;
#[cfg(any(test, feature = "emulator"))]
pub mod emulator;
pub mod gpu;
mod matrix;
pub mod measure;
pub mod nvidia;
mod ops;
mod record;
pub mod sources;
mod step;
mod tensor;
mod upload;

pub use device::{Cuda, CudaConfig, Memory, memory, rounded_rows};
pub use matrix::{Matrix, matrix_bytes, parts_bytes};
pub use ops::cache::cache_bytes;
pub use tensor::{Kind, Tensor, Vector};
