//! What a device drew, put into the scheduler's words: samples in the batch's order, prompt
//! log-probabilities gathered per slot, rows without usable numbers reported as failed.

use kernels::compute::Scored;
use kernels::{Drawn, chains};
use scheduler::types::{Logprobs, PromptLogprobs, Sample, StepOutput};

use super::Asked;

/// Overwrites `out`. Samples' log-probabilities come first in `drawn.logprobs`, in the order of
/// the samples that asked; then those of prompt tokens, in the order they were asked for.
pub(super) fn fill(asked: &mut Asked, drawn: &mut Drawn, out: &mut StepOutput) {
    let StepOutput { step, elapsed_us, samples, prompt_logprobs, failed } = out;
    *step = asked.step;
    *elapsed_us = drawn.elapsed_us;
    samples.clear();
    prompt_logprobs.clear();
    failed.clear();
    failed.append(&mut asked.failed);
    let mut scored = drawn.logprobs.iter_mut();
    let mut tokens = drawn.tokens.iter();
    for chain in chains(&asked.samples) {
        for (ahead, row) in chain.iter().enumerate() {
            let &(slot, token) = tokens.next().expect("a draw for every row that could draw");
            assert_eq!(slot, row.slot, "tokens drawn out of order");
            // Asked for is reported, even where no token was drawn and the numbers mean nothing.
            let scores =
                row.logprobs.map(|_| scored.next().expect("a score for every row that asked"));
            match token {
                Some(token) => {
                    let logprobs = scores.map(|scored| Box::new(logprobs(scored)));
                    samples.push(Sample { slot, token, logprobs, forced: Vec::new() });
                }
                // Behind a draft that was drawn it is for the next step to say so.
                None if ahead > 0 => {}
                None => fail(failed, slot, NOTHING_DRAWN),
            }
            if token.is_none() || token != row.draft {
                break;
            }
        }
    }
    assert!(tokens.next().is_none(), "drawn behind a draft that was not");
    for row in &asked.scores {
        let scored = scored.next().expect("a score for every prompt token asked for");
        assert_eq!((scored.slot, scored.position), (row.slot, row.position), "scores out of order");
        if scored.logprob.is_nan() {
            fail(failed, row.slot, NOT_A_NUMBER);
            continue;
        }
        if prompt_logprobs.last().is_none_or(|(slot, _)| *slot != row.slot) {
            let entries = Vec::new();
            prompt_logprobs.push((row.slot, PromptLogprobs { first: row.position, entries }));
        }
        let (_, stretch) = prompt_logprobs.last_mut().expect("pushed above");
        stretch.entries.push(logprobs(scored));
    }
    if !failed.is_empty() {
        samples.retain(|sample| failed.iter().all(|(slot, _)| *slot != sample.slot));
        prompt_logprobs.retain(|(at, _)| failed.iter().all(|(slot, _)| slot != at));
    }
}

/// What is wrong with a row first is what is said of it.
fn fail(failed: &mut Vec<(u32, String)>, slot: u32, why: &str) {
    if failed.iter().all(|(other, _)| *other != slot) {
        failed.push((slot, why.to_owned()));
    }
}

const NOTHING_DRAWN: &str = "no token could be drawn: the model's logits are not numbers \
     (damaged weights, or an overflow in this precision), or logit_bias forbids every token that \
     may come";

const NOT_A_NUMBER: &str = "the model's logits are not numbers: \
     damaged weights, or an overflow in this precision";

fn logprobs(scored: &mut Scored) -> Logprobs {
    let top = std::mem::take(&mut scored.top);
    Logprobs { logprob: scored.logprob, rank: scored.rank, top }
}
