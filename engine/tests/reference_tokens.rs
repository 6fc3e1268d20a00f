//! The demo model must give exactly the tokens that Hugging Face transformers gave in float32:
//! each prompt alone, and all prompts in batches of 16 with chunked prompts, shared pages, and a
//! pool so small that sequences lose their pages and are computed again.

use engine::model::Dtype;
use hearth_tests::fixtures;
use scheduler::types::{Logprobs, Request, Sampling, Token};
use serde::Deserialize;

mod common;
use common::Size;
use common::direct::draw;
use common::serve::{Serve, demo_files, request};

const LOGPROB: f32 = 2e-4;

#[derive(Deserialize)]
struct Stored {
    id: String,
    prompt_ids: Vec<u32>,
    output_ids: Vec<u32>,
    top5: Vec<Vec<(u32, f32)>>,
}

fn stored() -> Vec<Stored> {
    let lines = fixtures::packed(&common::data().join("reference.jsonl")).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    let stored: Vec<Stored> =
        lines.lines().map(|line| serde_json::from_str(line).expect("a reference")).collect();
    assert_eq!(stored.len(), 40);
    stored
}

/// Greedy, end tokens ignored, five alternatives.
fn ask(id: u64, stored: &Stored) -> Request {
    let mut request = request(id, &stored.prompt_ids, stored.output_ids.len() as u32);
    request.sampling.logprobs = Some(5);
    request
}

/// Largest difference of a log-probability.
fn check(stored: &Stored, tokens: &[Token], logprobs: &[Logprobs]) -> f32 {
    assert_eq!(tokens, stored.output_ids, "{}", stored.id);
    assert_eq!(logprobs.len(), stored.top5.len(), "{}", stored.id);
    let mut worst: f32 = 0.0;
    for (step, (found, top)) in logprobs.iter().zip(&stored.top5).enumerate() {
        let diff = top_diff(found, top);
        assert!(diff < LOGPROB, "{} step {step}: {found:?}, stored {top:?}", stored.id);
        let chosen = (found.logprob - top[0].1).abs();
        assert!(chosen < LOGPROB && found.rank == 1, "{} step {step}: {found:?}", stored.id);
        worst = worst.max(diff);
    }
    worst
}

/// Values are compared place by place. Ids need not be: stored values are rounded, so places of
/// equal value may swap.
fn top_diff(found: &Logprobs, stored: &[(u32, f32)]) -> f32 {
    assert_eq!(found.top.len(), stored.len(), "alternatives");
    let values = found.top.iter().zip(stored).map(|(a, b)| (a.1 - b.1).abs());
    let same_ids = stored.iter().map(|(id, value)| {
        let found = found.top.iter().find(|(other, _)| other == id);
        // The fifth may be a tie with the sixth.
        found.map_or(value - found_last(stored), |(_, other)| (other - value).abs())
    });
    values.chain(same_ids).fold(0.0, f32::max)
}

fn found_last(stored: &[(u32, f32)]) -> f32 {
    stored.last().expect("alternatives").1
}

#[test]
fn each_prompt_alone() {
    let files = demo_files();
    let plan = common::plan(&files, Dtype::Float32, Size { rows: 1, step_tokens: 128, pages: 128 });
    let mut engine = engine::start_cpu(&files, &plan).unwrap_or_else(|error| panic!("{error}"));
    let sampling = Sampling { temperature: 0.0, logprobs: Some(5), ..Sampling::default() };
    let mut worst: f32 = 0.0;
    for stored in stored() {
        let count = stored.output_ids.len();
        let (tokens, logprobs) = draw(&mut engine, &stored.prompt_ids, count, &sampling);
        worst = worst.max(check(&stored, &tokens, &logprobs));
    }
    println!("alone: 40 of 40, log-probabilities within {worst:.1e}");
}

/// Pages of a pool that the longest sequence nearly fills: sixteen cannot stay in it.
fn tight(stored: &[Stored]) -> Size {
    let longest = stored.iter().map(|s| s.prompt_ids.len() + s.output_ids.len()).max().unwrap();
    Size { rows: 16, step_tokens: 48, pages: longest.div_ceil(16) + 16 }
}

fn check_crowd(mut serve: Serve, stored: &[Stored]) {
    let mut worst: f32 = 0.0;
    let (mut preemptions, mut cached) = (0, 0);
    // The second round finds what the pool still holds of the first.
    for round in 0..2 {
        let ids = round * 100..;
        let requests = ids.zip(stored).map(|(id, stored)| ask(id, stored)).collect();
        let answers = serve.run(requests);
        for (stored, answer) in stored.iter().zip(&answers) {
            let choice = &answer.choices[0];
            worst = worst.max(check(stored, &choice.tokens, &choice.logprobs));
            preemptions += answer.usage.preemptions;
            cached += answer.usage.cached_tokens;
        }
    }
    println!(
        "batched: 80 of 80, log-probabilities within {worst:.1e}, {preemptions} preemptions, \
         {cached} prompt tokens from shared pages, {} steps",
        serve.steps
    );
    assert!(preemptions > 0, "the pool was large enough for all: nothing was preempted");
    assert!(cached > 0, "no page was shared");
}

#[test]
fn sixteen_at_once_in_a_pool_too_small_for_them() {
    let (files, stored) = (demo_files(), stored());
    check_crowd(Serve::new(&files, Dtype::Float32, tight(&stored)), &stored);
}

#[test]
fn sixteen_at_once_with_two_steps_in_flight() {
    let (files, stored) = (demo_files(), stored());
    check_crowd(Serve::overlapped(&files, Dtype::Float32, tight(&stored)), &stored);
}
