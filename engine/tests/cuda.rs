//! Whole models through the CUDA backend, on the emulator: every kernel, launch and copy of a real
//! forward pass, the scheduler with two steps in flight, graphs, and a device that is lost. The
//! bars are those of the CPU.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cuda::Cuda;
use cuda::emulator::Emulator;
use cuda::gpu::Gpu;
use cuda::nvidia::Nvidia;
use engine::cuda::load_on;
use engine::model::{Dtype, ModelFiles};
use engine::plan::{Plan, PlanOptions, Room};
use engine::runner::Runner;
use engine::start::Loaded;

mod common;
use common::reference::Reference;
use common::rig::{Rig, SIZE};
use common::rounding::{Difference, PLAIN, forced, largest};
use common::serve::{Serve, demo_files, request};
use common::{Size, plan};

type Device = Cuda<Emulator>;

/// Of two correct computations in float32, as in `logits`.
const LOGIT: f32 = 5e-4;
/// Decode steps that are compared: an emulated step takes a hundred times a real one.
const STEPS: usize = 6;

fn open(reference: &Reference) -> ModelFiles {
    engine::open(&reference.model).unwrap_or_else(|error| panic!("{}: {error}", reference.name))
}

fn emulator(seed: u64) -> Emulator {
    Emulator::with(80, 4, seed)
}

fn load<G: Gpu>(files: &ModelFiles, plan: &Plan, gpu: G) -> Loaded<Cuda<G>> {
    load_on(gpu, &files.spec, files.weights.as_ref(), plan)
        .unwrap_or_else(|error| panic!("{}: {error}", files.path.display()))
}

fn rig<G: Gpu>(files: &ModelFiles, dtype: Dtype, gpu: G) -> Rig<Cuda<G>> {
    Rig::over(load(files, &plan(files, dtype, SIZE), gpu))
}

/// A prompt in uneven stretches.
fn stretches(len: usize) -> Vec<usize> {
    let mut stretches = vec![13; len / 13];
    stretches.extend((!len.is_multiple_of(13)).then_some(len % 13));
    stretches
}

fn check_float32(reference: &Reference, gpu: impl Gpu) {
    let mut rig = rig(&open(reference), Dtype::Float32, gpu);
    let prompt = &reference.prompts[2];
    let stored = reference.tensors.floats("p2.last_logits");
    for stretches in [vec![prompt.input_ids.len()], stretches(prompt.input_ids.len())] {
        let logits = rig.logits(&prompt.input_ids, &stretches);
        let diff = largest(logits.last().expect("some"), &stored);
        let name = &reference.name;
        println!("{name:20} float32 in {} stretches: {diff:.1e}", stretches.len());
        assert!(diff < LOGIT, "{name} in {} stretches: logits differ by {diff}", stretches.len());
    }
}

/// As `logits::check_rounded`, over fewer steps.
fn check_rounded(reference: &Reference, dtype: Dtype, limit: Difference, gpu: impl Gpu) {
    let files = open(reference);
    let (mut exact, mut rounded) = (Rig::new(&files, Dtype::Float32), rig(&files, dtype, gpu));
    let prompt = &reference.prompts[1];
    let len = prompt.input_ids.len();
    let tokens = &forced(prompt)[..len + STEPS];
    let mut stretches = vec![len];
    stretches.extend([1; STEPS]);
    let a = exact.logits(tokens, &stretches)[len - 1..].concat();
    let b = rounded.logits(tokens, &stretches)[len - 1..].concat();
    let max = largest(&b, &a);
    let sum: f64 = a.iter().zip(&b).map(|(a, b)| f64::from((a - b).abs())).sum();
    let mean = (sum / a.len() as f64) as f32;
    let name = &reference.name;
    println!("{name:20} {dtype:?}: mean {mean:.4}, max {max:.3}");
    // Few steps: the mean of one prompt scatters around that of all.
    assert!(mean < 1.5 * limit.mean, "{name} {dtype:?}: mean {mean}, limit {limit:?}");
    assert!(max < 2.0 * limit.max, "{name} {dtype:?}: max {max}, limit {limit:?}");
}

#[test]
fn float32_gives_the_numbers_the_authors_define() {
    for model in &PLAIN {
        check_float32(&Reference::folder(model.name), emulator(1));
    }
}

#[test]
fn bfloat16_rounds_no_more_than_transformers_does() {
    for model in &PLAIN {
        check_rounded(&Reference::folder(model.name), Dtype::Bfloat16, model.bf16, emulator(2));
    }
}

#[test]
fn float16_rounds_no_more_than_transformers_does() {
    for model in &PLAIN {
        check_rounded(&Reference::folder(model.name), Dtype::Float16, model.f16, emulator(3));
    }
}

/// Weights that stay quantized, with 16-bit activations: as close as plain weights in that type.
fn check_quantized<G: Gpu>(open: fn() -> G) {
    let limit = Difference { mean: 0.07, max: 0.6 };
    for name in ["llama_gptq_w4g128", "llama_awq_w4g128", "llama_ct_int4", "llama_fp8_block"] {
        check_rounded(&Reference::folder(name), Dtype::Bfloat16, limit, open());
    }
    for reference in Reference::all_gguf() {
        check_rounded(&reference, Dtype::Float16, limit, open());
    }
}

#[test]
fn quantized_weights_stay_close() {
    check_quantized(|| emulator(4));
}

fn card() -> Nvidia {
    Nvidia::open(0).unwrap_or_else(|error| panic!("{error}"))
}

/// The same models and bars on the card at hand: `tests/gpu/run.sh`.
#[test]
#[ignore = "needs a GPU"]
fn on_a_card_models_give_the_same_numbers() {
    for model in &PLAIN {
        let reference = Reference::folder(model.name);
        check_float32(&reference, card());
        check_rounded(&reference, Dtype::Bfloat16, model.bf16, card());
        check_rounded(&reference, Dtype::Float16, model.f16, card());
    }
}

#[test]
#[ignore = "needs a GPU"]
fn on_a_card_quantized_weights_stay_close() {
    check_quantized(card);
}

/// What is claimed is what the plan says, rounding up to whole 256 bytes aside.
#[test]
fn the_plan_is_kept() {
    let options = PlanOptions {
        dtype: Dtype::Auto,
        threads: 1,
        context: Some(128),
        cache_bytes: None,
        cache_element: None,
        rows_max: 4,
        step_tokens_max: 64,
    };
    let folders = ["llama_gqa", "llama_gptq_w4g128", "llama_fp8_block", "gpt_oss"];
    let all = folders.map(Reference::folder).into_iter().chain(Reference::all_gguf());
    for files in all.map(|reference| open(&reference)).chain([demo_files()]) {
        let gpu = emulator(1);
        let free = gpu.free_bytes();
        let room = Room::Gpu { bytes: free, blocks: 2 * 4 };
        let plan = engine::plan::plan(&files, &options, room).expect("it fits");
        let mut loaded =
            load_on(gpu, &files.spec, files.weights.as_ref(), &plan).expect("it loads");
        let claimed = free - loaded.compute.gpu().free_bytes();
        let (name, total) = (files.path.display(), plan.total_bytes());
        let weights = loaded.model.weight_bytes(&loaded.compute) as u64;
        println!(
            "{name}: planned {total}, claimed {claimed}; weights {weights} of {}",
            plan.weight_bytes
        );
        assert!(claimed <= total, "{name}: {claimed} claimed, {total} planned");
        assert!(
            claimed as f64 > 0.998 * total as f64,
            "{name}: {claimed} claimed, {total} planned"
        );
    }
}

const CROWD: Size = Size { rows: 4, step_tokens: 32, pages: 24 };

/// Prompts of the demo, and the tokens that a CPU draws for them in float32.
fn asked(files: &ModelFiles) -> Vec<scheduler::types::Request> {
    let prompts = ["The house is", "Once upon a time there", "1 + 2 =", "A", "Tell me", "Why"];
    let ask = |(id, text): (u64, &str)| {
        let prompt = files.text.encode(text, true).expect("text");
        let mut request = request(id, &prompt, 10);
        if id % 2 == 1 {
            // Draws, with everything that a slot keeps on the device.
            request.sampling.temperature = 0.8;
            request.sampling.top_p = 0.9;
            request.sampling.repetition_penalty = 1.1;
            request.sampling.seed = id;
        }
        request
    };
    (0..).zip(prompts).map(ask).collect()
}

fn serve(files: &ModelFiles, fails_in: Option<u64>) -> (Serve<Device>, Arc<AtomicU32>) {
    let plan = plan(files, Dtype::Float32, CROWD);
    let mut loaded = load(files, &plan, emulator(7));
    if let Some(launches) = fails_in {
        loaded.compute.gpu().fail_at(launches);
    }
    let rebuilt = Arc::new(AtomicU32::new(0));
    let (count, spec) = (Arc::clone(&rebuilt), files.spec.clone());
    let (weights, again) = (Arc::clone(&files.weights), plan.clone());
    let rebuild = move || {
        count.fetch_add(1, Ordering::Relaxed);
        load_on(emulator(8), &spec, weights.as_ref(), &again)
    };
    let runner = Runner::new(loaded, &plan, 2).with_recovery(Box::new(rebuild));
    (Serve::over(runner, &plan), rebuilt)
}

#[test]
fn serves_what_the_cpu_serves_with_two_steps_in_flight() {
    let files = demo_files();
    let want = Serve::overlapped(&files, Dtype::Float32, CROWD).run(asked(&files));
    let (mut device, rebuilt) = serve(&files, None);
    let got = device.run(asked(&files));
    for (got, want) in got.iter().zip(&want) {
        assert_eq!(got.choices[0].tokens, want.choices[0].tokens);
        assert_eq!(got.choices[0].finish, want.choices[0].finish);
    }
    assert_eq!(rebuilt.load(Ordering::Relaxed), 0);
    let compute = device.engine().compute();
    assert!(compute.graphs() > 0, "no step came again");
    println!("{} graphs, {} replays", compute.graphs(), compute.gpu().replays());
    assert!(compute.gpu().replays() > 0, "no graph was used");
}

#[test]
fn a_device_that_is_lost_comes_back_and_nobody_notices() {
    let files = demo_files();
    let want = Serve::overlapped(&files, Dtype::Float32, CROWD).run(asked(&files));
    for launches in [1, 150, 700] {
        let (mut device, rebuilt) = serve(&files, Some(launches));
        let got = device.run(asked(&files));
        for (got, want) in got.iter().zip(&want) {
            assert_eq!(got.choices[0].tokens, want.choices[0].tokens, "lost at {launches}");
        }
        assert_eq!(rebuilt.load(Ordering::Relaxed), 1, "lost at {launches}");
    }
}
