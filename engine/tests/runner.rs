//! The runner alone, on a device that computes nothing: what reaches the device, and what is
//! made of its answers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use engine::plan::Plan;
use engine::runner::Runner;
use engine::spec::ModelSpec;
use engine::start::{Loaded, load, scheduler_config};
use engine::transformer::Transformer;
use kernels::{CacheElement, CacheShape, CacheValues, Compute, Fault as DeviceFault, Precision};
use scheduler::types::{
    Batch, Engine, Fault, Logits, PageGrant, Row, RowStart, Sampling, StepOutput,
};

#[path = "common/fake.rs"]
mod fake;
use fake::{Fake, NoWeights, Script, drawn_at, small_spec};

fn plan(rows_max: usize, step_tokens_max: usize) -> Plan {
    let cache = CacheShape {
        layers: 2,
        pages: 64,
        page_tokens: 16,
        kv_heads: 2,
        head_dim: 8,
        values: CacheValues::Own,
        element: CacheElement::F32,
        slots: rows_max,
        pages_per_slot: 16,
    };
    Plan {
        precision: Precision::Float32,
        cache,
        context: 256,
        rows_max,
        step_tokens_max,
        threads: 1,
        gpu: false,
        weight_bytes: 0,
        cache_bytes: 0,
        activation_bytes: 0,
    }
}

fn runner(rows_max: usize, depth: usize) -> (Runner<Fake>, Rc<RefCell<Script>>) {
    let script = Rc::new(RefCell::new(Script { record: true, ..Script::default() }));
    let mut device = Fake::new(Rc::clone(&script));
    let (spec, plan) = (small_spec(2), plan(rows_max, 512));
    let model = Transformer::load(&mut device, &spec, &NoWeights::of(&spec), &plan).unwrap();
    let cache = device.cache(plan.cache).unwrap();
    (Runner::new(Loaded { compute: device, model, cache }, &plan, depth), script)
}

fn start(slot: u32, prompt: &[u32], sampling: Sampling) -> RowStart {
    let prompt_len = prompt.len() as u32;
    let (tokens, stop_from) = (prompt.to_vec(), prompt_len + 2);
    RowStart {
        slot,
        tokens,
        prompt_len,
        sampling,
        stop_tokens: vec![5],
        stop_from,
        adapter: 0,
        grammar: 0,
    }
}

/// One row per slot, each of one token at `first`.
fn decode(step: u64, slots: u32, first: u32) -> Batch {
    let row = |slot| {
        let logits = Logits::Sample;
        Row { slot, first, len: 1, tokens_at: slot, late: false, drafts: 0, logits }
    };
    let rows: Vec<Row> = (0..slots).map(row).collect();
    Batch { step, tokens: vec![1; rows.len()], rows, ..Batch::default() }
}

fn step(runner: &mut Runner<Fake>, batch: &Batch) -> Result<StepOutput, Fault> {
    let mut out = StepOutput::default();
    runner.launch(batch);
    runner.collect(&mut out).map(|()| out)
}

#[test]
fn slots_grants_and_samplers_reach_the_device() {
    let (mut runner, script) = runner(4, 1);
    let sampling = Sampling {
        temperature: 0.5,
        top_p: 0.9,
        top_k: 7,
        min_p: 0.1,
        typical_p: 0.8,
        repetition_penalty: 1.1,
        presence_penalty: 0.2,
        frequency_penalty: 0.3,
        logit_bias: vec![(3, -1.0)],
        seed: 99,
        logprobs: None,
    };
    let batch = Batch {
        step: 1,
        ends: vec![2],
        starts: vec![start(2, &[1, 2, 3], sampling), start(0, &[4], Sampling::default())],
        grants: vec![PageGrant { slot: 2, index: 0, page: 9 }],
        rows: vec![Row {
            slot: 2,
            first: 0,
            len: 3,
            tokens_at: 0,
            late: false,
            drafts: 0,
            logits: Logits::Sample,
        }],
        tokens: vec![1, 2, 3],
    };
    let out = step(&mut runner, &batch).unwrap();
    assert_eq!((out.step, out.elapsed_us), (1, 7));
    assert_eq!(out.samples.len(), 1);
    assert_eq!((out.samples[0].slot, out.samples[0].token), (2, drawn_at(2, 3)));
    let script = script.borrow();
    assert_eq!(script.ended, [2]);
    assert_eq!(script.granted, [(2, 0, 9)]);
    let (slot, tokens, prompt_len, sampler) = &script.started[0];
    assert_eq!((*slot, tokens.as_slice(), *prompt_len), (2, [1, 2, 3].as_slice(), 3));
    assert_eq!((sampler.temperature, sampler.top_p, sampler.top_k), (0.5, 0.9, 7));
    assert_eq!((sampler.min_p, sampler.typical_p, sampler.seed), (0.1, 0.8, 99));
    assert_eq!((sampler.presence_penalty, sampler.frequency_penalty), (0.2, 0.3));
    assert_eq!((sampler.repetition_penalty, &sampler.logit_bias), (1.1, &vec![(3, -1.0)]));
    assert_eq!((sampler.banned.as_slice(), sampler.banned_until), ([5].as_slice(), 5));
    // The second start must not inherit anything from the first.
    let plain = &script.started[1].3;
    assert_eq!((plain.temperature, plain.top_k, plain.seed), (1.0, 0, 0));
    assert!(plain.logit_bias.is_empty());
}

#[test]
fn samples_come_in_batch_order_however_many_buffers_of_logits_they_take() {
    let (mut runner, script) = runner(300, 1);
    let starts = (0..300).map(|slot| start(slot, &[1], Sampling::default())).collect();
    let batch = Batch { starts, ..decode(1, 300, 0) };
    let out = step(&mut runner, &batch).unwrap();
    let expected: Vec<_> = (0..300).map(|slot| (slot, drawn_at(slot, 1))).collect();
    let samples: Vec<_> = out.samples.iter().map(|sample| (sample.slot, sample.token)).collect();
    assert_eq!(samples, expected);
    assert!(script.borrow().sampled.len() > 1, "one buffer of logits held all 300 rows");
}

/// Rows of three to eighteen positions: chains do not line up with the buffers of logits.
#[test]
fn drafts_are_drawn_as_far_as_they_hold_however_many_buffers_of_logits_they_take() {
    let (mut runner, script) = runner(40, 1);
    let wishes = Sampling { logprobs: Some(1), ..Sampling::default() };
    let starts = (0..40).map(|slot| start(slot, &[1], wishes.clone())).collect();
    let mut batch = Batch { step: 1, starts, ..Batch::default() };
    let mut expected = Vec::new();
    for slot in 0..40 {
        let (drafts, holds) = (slot % 16, slot % 5);
        let tokens_at = batch.tokens.len() as u32;
        batch.tokens.push(1);
        for ahead in 0..drafts {
            let wrong = u32::from(ahead == holds);
            batch.tokens.push(drawn_at(slot, 1 + ahead) + wrong);
        }
        let (len, logits) = (1 + drafts, Logits::Sample);
        batch.rows.push(Row { slot, first: 0, len, tokens_at, late: false, drafts, logits });
        expected.extend((0..=drafts.min(holds)).map(|at| (slot, drawn_at(slot, 1 + at), true)));
    }
    let out = step(&mut runner, &batch).unwrap();
    let samples: Vec<_> =
        out.samples.iter().map(|s| (s.slot, s.token, s.logprobs.is_some())).collect();
    assert_eq!(samples, expected);
    let script = script.borrow();
    assert!(script.sampled.len() > 5, "{} buffers of logits", script.sampled.len());
    assert!(script.sampled.iter().all(|rows| rows.last().is_some_and(|row| row.draft.is_none())));
}

#[test]
fn prompt_logprobs_cover_every_prompt_token_but_the_first_once() {
    let (mut runner, script) = runner(2, 1);
    let prompt: Vec<u32> = (10..22).collect();
    let wishes = Sampling { logprobs: Some(2), ..Sampling::default() };
    let stretch = |at: u64, first: u32, len: u32, sample: bool| Batch {
        step: at,
        starts: if at == 1 { vec![start(1, &prompt, wishes.clone())] } else { Vec::new() },
        rows: vec![Row {
            slot: 1,
            first,
            len,
            tokens_at: 0,
            late: false,
            drafts: 0,
            logits: Logits::Prompt { top: 3, sample },
        }],
        tokens: prompt[first as usize..(first + len) as usize].to_vec(),
        ..Batch::default()
    };
    let a = step(&mut runner, &stretch(1, 0, 5, false)).unwrap();
    let b = step(&mut runner, &stretch(2, 5, 7, true)).unwrap();
    assert!(a.samples.is_empty());
    assert_eq!((a.prompt_logprobs[0].0, a.prompt_logprobs[0].1.first), (1, 1));
    assert_eq!(a.prompt_logprobs[0].1.entries.len(), 5);
    assert_eq!(b.prompt_logprobs[0].1.first, 6);
    assert_eq!(b.prompt_logprobs[0].1.entries.len(), 6);
    assert_eq!(b.prompt_logprobs[0].1.entries[0].top.len(), 3);
    assert_eq!(b.samples[0].logprobs.as_ref().unwrap().top.len(), 2);
    let script = script.borrow();
    let scored = script.scored.iter().flatten();
    let scored: Vec<_> = scored.map(|row| (row.position, row.token)).collect();
    let expected: Vec<_> = (1..12).map(|at| (at, prompt[at as usize])).collect();
    assert_eq!(scored, expected);
}

#[test]
fn a_row_without_numbers_fails_alone() {
    let (mut runner, script) = runner(4, 1);
    let wishes = Sampling { logprobs: Some(1), ..Sampling::default() };
    let starts = (0..4).map(|slot| start(slot, &[1, 2], wishes.clone())).collect();
    script.borrow_mut().broken = vec![1, 3];
    let mut batch = Batch { starts, ..decode(1, 4, 0) };
    batch.rows[3].len = 2;
    batch.rows[3].logits = Logits::Prompt { top: 1, sample: true };
    batch.tokens.push(2);
    let out = step(&mut runner, &batch).unwrap();
    let slots: Vec<_> = out.samples.iter().map(|sample| sample.slot).collect();
    let failed: Vec<_> = out.failed.iter().map(|(slot, _)| *slot).collect();
    assert_eq!((slots, failed), (vec![0, 2], vec![1, 3]));
    assert!(out.prompt_logprobs.is_empty());
    assert!(out.failed[0].1.contains("not numbers"), "{}", out.failed[0].1);
    // The next step is sound again.
    script.borrow_mut().broken.clear();
    let out = step(&mut runner, &decode(2, 4, 1)).unwrap();
    assert_eq!((out.samples.len(), out.failed.len()), (4, 0));
}

#[test]
fn a_failed_step_takes_the_step_behind_it_along() {
    let (mut runner, script) = runner(2, 2);
    let fault = DeviceFault::Step("hiccup".to_owned());
    script.borrow_mut().faults = VecDeque::from([Some(fault), None, None]);
    let starts = (0..2).map(|slot| start(slot, &[1], Sampling::default())).collect();
    let mut out = StepOutput::default();
    runner.launch(&Batch { starts, ..decode(1, 2, 0) });
    runner.launch(&decode(2, 2, 1));
    assert_eq!(runner.collect(&mut out), Err(Fault::Step("hiccup".to_owned())));
    assert!(matches!(runner.collect(&mut out), Err(Fault::Step(_))));
    runner.launch(&decode(3, 2, 0));
    assert_eq!(runner.collect(&mut out), Ok(()));
    assert_eq!((out.step, out.samples.len()), (3, 2));
}

#[test]
fn a_lost_device_is_final() {
    let (mut runner, script) = runner(1, 1);
    let fault = DeviceFault::Lost("fell off the bus".to_owned());
    script.borrow_mut().faults = VecDeque::from([Some(fault)]);
    let starts = vec![start(0, &[1], Sampling::default())];
    let result = step(&mut runner, &Batch { starts, ..decode(1, 1, 0) });
    assert_eq!(result, Err(Fault::Dead("fell off the bus".to_owned())));
}

#[test]
fn a_batch_that_only_gives_slots_back_is_a_step_too() {
    let (mut runner, script) = runner(2, 1);
    let batch = Batch { step: 1, ends: vec![1], ..Batch::default() };
    let out = step(&mut runner, &batch).unwrap();
    assert_eq!((out.step, out.samples.len()), (1, 0));
    assert_eq!(script.borrow().ended, [1]);
}

#[test]
fn a_plan_gives_the_scheduler_its_limits() {
    let config = scheduler_config(&plan(8, 512));
    assert_eq!((config.rows_max, config.pages, config.context_max), (8, 64, 256));
    assert_eq!(config.step_tokens_max, 512);
    // A step that holds little more than its rows still moves a prompt on.
    for step_tokens_max in [9, 20, 512] {
        scheduler_config(&plan(8, step_tokens_max)).check();
    }
}

fn failure(full_for: Option<&'static str>, spec: &ModelSpec) -> String {
    let script = Rc::new(RefCell::new(Script { full_for, ..Script::default() }));
    let result = load(Fake::new(script), spec, &NoWeights::of(spec), &plan(4, 64));
    result.err().expect("a failure").to_string()
}

#[test]
fn a_device_without_memory_says_which_part_of_the_plan_did_not_fit() {
    let spec = small_spec(2);
    let cases = [
        ("matrix", "1000 bytes for the weights. Take a smaller or a quantized model"),
        ("tensor", "for the activations. Ask for fewer tokens per step"),
        ("cache", "262144 bytes for the KV cache. Ask for a smaller KV cache"),
    ];
    for (full_for, expected) in cases {
        let text = failure(Some(full_for), &spec);
        assert!(text.starts_with("out of memory: ") && text.contains(expected), "{text}");
    }
}

#[test]
fn layers_of_different_shapes_are_refused_by_name() {
    let mut spec = small_spec(2);
    spec.layers[1].attention.heads += 2;
    let text = failure(None, &spec);
    assert_eq!(text, "this model cannot be run: layer 1 has other attention widths than layer 0");
}
