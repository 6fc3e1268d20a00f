//! The memory plan's word on weights, against what loaded models take.

use engine::model::Dtype;

mod common;
use common::Size;
use hearth_tests::fixtures::reference;

/// What a model takes may not be more than its plan says, and the plan may not ask for much that
/// is never taken: vectors, which the device's count leaves out, and room for wider key matrices.
fn check(name: &str) {
    let files = engine::open(&reference(name)).unwrap_or_else(|error| panic!("{error}"));
    let plan = common::plan(&files, Dtype::Auto, Size { rows: 2, step_tokens: 32, pages: 16 });
    let runner = engine::start_cpu(&files, &plan).unwrap_or_else(|error| panic!("{error}"));
    let (planned, taken) = (files.packed_bytes as f64, runner.weight_bytes() as f64);
    assert!(taken <= planned, "{name}: {taken} bytes taken, {planned} planned");
    assert!(planned < 1.25 * taken, "{name}: {taken} bytes taken, {planned} planned");
}

#[test]
fn weights_take_what_was_planned() {
    for name in [
        "llama_gqa",
        "llama_tied",
        "mixtral",
        "gpt_oss_mxfp4",
        "llama_gptq_w4g128",
        "llama_fp8_block",
        "gguf_llama/llama-q4_k_m.gguf",
    ] {
        check(name);
    }
}
