//! The CUDA sources, as text: what NVRTC compiles, what is hashed, what the emulator builds.

macro_rules! texts {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("../ops/", $name)))),*] };
}

/// Files that kernels include, by name.
pub const HEADERS: &[(&str, &str)] = texts!(
    "attention.cuh"
    "cache.cuh"
    "cut.cuh"
    "dense.cuh"
    "device.cuh"
    "expert.cuh"
    "expert_matmul.cuh"
    "matmul_few.cuh"
    "row.cuh"
    "slots.cuh"
    "stored.cuh"
    "weights.cuh"
);

/// Files with kernels, by name.
pub const FILES: &[(&str, &str)] = texts!(
    "activation.cu"
    "attention_join.cu"
    "attention_plain.cu"
    "attention_split.cu"
    "attention_tile.cu"
    "cache.cu"
    "combine.cu"
    "expand.cu"
    "expert_matmul_bf16.cu"
    "expert_matmul_f16.cu"
    "expert_wide.cu"
    "gather.cu"
    "low_rank.cu"
    "matmul_few_bf16.cu"
    "matmul_few_f16.cu"
    "matmul_tiles.cu"
    "matmul_wide.cu"
    "norm.cu"
    "project.cu"
    "project_latent.cu"
    "rope.cu"
    "route.cu"
    "rows_f8.cu"
    "sample.cu"
    "score.cu"
    "slots.cu"
);

/// The text of a file with kernels.
#[must_use]
pub fn file(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(file, _)| *file == name).map(|(_, text)| *text)
}

/// The names of a file's kernels, in their order.
#[must_use]
pub fn kernels(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("KERNEL(")?.split(',').next()).collect()
}

/// Kernels that may keep bytes in local memory, on which architecture, and how many. Every other
/// kernel has to keep everything in registers: a spill costs it its speed.
pub const SPILLING: &[(&str, &str, u32)] = &[
    // Q2_K with 17 to 64 rows: scales and minima for each 16 elements.
    ("few_codes4_minimum_s1_n4", "sm_120", 64),
    ("few_codes4_minimum_s1_n8", "sm_120", 64),
    // Q3_K and Q6_K experts with many rows.
    ("expert_many_codes8_s1", "sm_100a", 8),
    // Once a row: the state of a draw.
    ("sample_rows", "sm_120", 64),
];

/// Kernels that may have a stack frame: the exact sine of large angles needs an array.
pub const WITH_STACK: &[&str] = &["rope_table"];
