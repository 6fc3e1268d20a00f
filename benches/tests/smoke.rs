//! Every bench runs tiny, so that it cannot rot. No figure is checked here: test machines are busy.

use benches::random_model::Mix;
use benches::{engine, grammar, kernels, load, runner, scheduler, speculation};

#[test]
fn kernels_run() {
    let mut table = Vec::new();
    kernels::run(&kernels::Options::tiny(), &mut table).expect("a table");
    assert!(String::from_utf8_lossy(&table).lines().count() > 3);
}

#[test]
fn ticks_run() {
    assert!(scheduler::run(16, 32, 50).median_ns > 0);
}

#[test]
fn grammars_run() {
    let figures = grammar::run(None, 1).expect("figures");
    assert!(figures["tokens"].as_u64() > Some(100), "{figures}");
}

#[test]
fn drafts_run() {
    let options = speculation::Options { rounds: 1, models: None };
    let figures = speculation::run(&options).expect("answers that are the same with and without");
    assert!(figures[0]["ratio"].as_f64() > Some(0.0), "{figures}");
}

#[test]
fn runner_runs() {
    let figures = runner::run(4, 2, 5).expect("a fake device");
    assert!(figures["host_us_median"].as_f64() > Some(0.0));
}

#[test]
fn engine_runs_random_models_of_every_mix() {
    let folder = std::env::temp_dir().join(format!("hearth-bench-{}", std::process::id()));
    let mixes = vec![Mix::Bf16, Mix::Q8_0, Mix::Q4KM];
    let options =
        engine::Options { folder: folder.clone(), peer: None, rounds: 1, tiny: true, mixes };
    let figures = engine::run(&options).expect("figures");
    let _ = std::fs::remove_dir_all(folder);
    for mix in ["bf16", "q8_0", "q4_k_m"] {
        assert!(figures[mix]["decode"]["hearth_tokens_per_cpu_s"].as_f64() > Some(0.0), "{mix}");
    }
}

#[test]
fn models_load() {
    let folder = std::env::temp_dir().join(format!("hearth-load-{}", std::process::id()));
    let mixes = vec![Mix::Bf16, Mix::Q4KM];
    let options = load::Options { folder: folder.clone(), rounds: 1, tiny: true, mixes };
    let figures = load::run(&options).expect("figures");
    let _ = std::fs::remove_dir_all(folder);
    assert!(figures["bf16"]["weights_s"].as_f64() > Some(0.0));
}
