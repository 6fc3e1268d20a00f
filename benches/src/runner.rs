//! The runner's own time per decode step: everything but the kernels. It runs on a device that
//! computes nothing, so what is left is the translation of a batch, the walk through the layers
//! and the reading of results. This is host time that a GPU would wait for.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use engine::cuda::load_on;
use engine::plan::Plan;
use engine::runner::Runner;
use engine::start::{Loaded, StartError};
use engine::transformer::Transformer;
use kernels::{CacheElement, CacheShape, CacheValues, Compute, Precision};
use scheduler::types::{Batch, Engine, Logits, PageGrant, Row, RowStart, Sampling, StepOutput};
use serde_json::{Value, json};

use crate::null_gpu::NullGpu;

#[path = "../../engine/tests/common/fake.rs"]
mod fake;
use fake::{Fake, NoWeights, Script, small_spec};

/// What one decode step of 256 rows may cost outside the kernels.
pub const LIMIT_US: f64 = 60.0;

/// Times `steps` decode steps of `rows` rows through a model of `layers` layers.
///
/// # Errors
/// The runner could not be set up.
pub fn run(rows: usize, layers: usize, steps: usize) -> Result<Value, StartError> {
    let (plan, spec) = (plan(rows, layers), small_spec(layers));
    let mut device = Fake::new(Rc::new(RefCell::new(Script::default())));
    let model = Transformer::load(&mut device, &spec, &NoWeights::of(&spec), &plan)?;
    let cache = device.cache(plan.cache).expect("the fake has memory");
    let mut runner = Runner::new(Loaded { compute: device, model, cache }, &plan, 1);
    let mut figures = measure(&mut runner, rows, steps);
    figures["layers"] = layers.into();
    Ok(figures)
}

/// As [`run`], through the CUDA backend on a device that does nothing: steps are recorded, found
/// to be those of before, and replayed. The driver's own time for a graph comes on top.
///
/// # Errors
/// The runner could not be set up.
pub fn run_gpu(rows: usize, layers: usize, steps: usize) -> Result<Value, StartError> {
    let plan = Plan { precision: Precision::Bfloat16, gpu: true, ..plan(rows, layers) };
    let spec = small_spec(layers);
    let loaded = load_on(NullGpu::default(), &spec, &NoWeights::of(&spec), &plan)?;
    let mut runner = Runner::new(loaded, &plan, 2);
    let mut figures = measure(&mut runner, rows, steps);
    let gpu = runner.compute().gpu();
    figures["layers"] = layers.into();
    figures["replays"] = gpu.replays.into();
    Ok(figures)
}

fn measure(runner: &mut impl Engine, rows: usize, steps: usize) -> Value {
    let mut out = StepOutput::default();
    let mut batch = first_batch(rows as u32);
    let mut times_us = Vec::with_capacity(steps);
    for _ in 0..=steps {
        let started = Instant::now();
        runner.launch(&batch);
        runner.collect(&mut out).expect("a device that never fails");
        times_us.push(started.elapsed().as_nanos() as f64 / 1000.0);
        assert_eq!(out.samples.len(), rows, "samples");
        next_batch(&mut batch, &out);
    }
    // The first step starts all rows: no decode step does that.
    let mut times_us = times_us.split_off(1);
    times_us.sort_by(f64::total_cmp);
    let share = |share: f64| times_us[((times_us.len() - 1) as f64 * share) as usize];
    json!({
        "rows": rows,
        "steps": steps,
        "host_us_median": share(0.5),
        "host_us_p99": share(0.99),
        "host_us_limit": LIMIT_US,
    })
}

fn plan(rows: usize, layers: usize) -> Plan {
    Plan {
        precision: Precision::Float32,
        cache: CacheShape {
            layers,
            pages: 8 * rows,
            page_tokens: 16,
            kv_heads: 2,
            head_dim: 8,
            values: CacheValues::Own,
            element: CacheElement::F32,
            slots: rows,
            pages_per_slot: 256,
        },
        context: 4096,
        rows_max: rows,
        step_tokens_max: rows,
        threads: 1,
        gpu: false,
        weight_bytes: 0,
        cache_bytes: 0,
        activation_bytes: 0,
    }
}

/// All rows start with a prompt of one token.
fn first_batch(rows: u32) -> Batch {
    let start = |slot| RowStart {
        slot,
        tokens: vec![slot % 64],
        prompt_len: 1,
        sampling: Sampling::default(),
        stop_tokens: vec![2],
        stop_from: 1,
        adapter: 0,
        grammar: 0,
    };
    let row = |slot| {
        let logits = Logits::Sample;
        Row { slot, first: 0, len: 1, tokens_at: slot, late: false, drafts: 0, logits }
    };
    Batch {
        step: 1,
        starts: (0..rows).map(start).collect(),
        rows: (0..rows).map(row).collect(),
        tokens: (0..rows).map(|slot| slot % 64).collect(),
        ..Batch::default()
    }
}

/// The batch after this one: one more token per row, and a page where a row needs a new one.
fn next_batch(batch: &mut Batch, out: &StepOutput) {
    batch.step += 1;
    batch.starts.clear();
    batch.grants.clear();
    for (row, sample) in batch.rows.iter_mut().zip(&out.samples) {
        row.first = (row.first + 1) % 4096;
        batch.tokens[row.tokens_at as usize] = sample.token;
        if row.first % 16 == 0 {
            let (index, page) = (row.first / 16, row.slot);
            batch.grants.push(PageGrant { slot: row.slot, index, page });
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn runs_small() {
        let figures = super::run(8, 2, 20).unwrap();
        assert!(figures["host_us_median"].as_f64().unwrap() > 0.0);
        let figures = super::run_gpu(8, 2, 40).unwrap();
        assert!(figures["replays"].as_u64().unwrap() > 20, "{figures}");
    }
}
