//! The ops as plain f32 loops: the oracle for every other version.

pub mod activation;
pub mod attention;
pub mod experts;
pub mod low_rank;
pub mod norm;
pub mod numbers;
pub mod rope;
pub mod sample;

pub mod dequant;
pub mod matmul;
