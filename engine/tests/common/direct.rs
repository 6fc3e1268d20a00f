//! One sequence on an engine, without a scheduler: the shortest way from a prompt to tokens.

use scheduler::types::{
    Batch, Engine, Logits, Logprobs, PAGE_TOKENS, PageGrant, Row, RowStart, Sampling, StepOutput,
    Token,
};

/// Prompt tokens per step.
const STRETCH: usize = 100;
const SLOT: u32 = 0;

/// Draws `count` tokens after `prompt`; pages are those from 0 on.
pub(crate) fn draw(
    engine: &mut impl Engine,
    prompt: &[Token],
    count: usize,
    sampling: &Sampling,
) -> (Vec<Token>, Vec<Logprobs>) {
    let mut known = prompt.to_vec();
    let mut logprobs = Vec::new();
    let mut computed = 0;
    let mut batch = Batch { starts: vec![start(prompt, sampling)], ..Batch::default() };
    let mut out = StepOutput::default();
    while known.len() < prompt.len() + count {
        let next = known.len().min(computed + STRETCH);
        batch.step += 1;
        batch.grants = (computed.div_ceil(PAGE_TOKENS)..next.div_ceil(PAGE_TOKENS))
            .map(|index| PageGrant { slot: SLOT, index: index as u32, page: index as u32 })
            .collect();
        batch.rows = vec![Row {
            slot: SLOT,
            first: computed as u32,
            len: (next - computed) as u32,
            tokens_at: 0,
            late: false,
            drafts: 0,
            logits: if next == known.len() { Logits::Sample } else { Logits::No },
        }];
        batch.tokens = known[computed..next].to_vec();
        engine.launch(&batch);
        engine.collect(&mut out).expect("a sound step");
        assert_eq!((out.step, out.failed.len()), (batch.step, 0), "{:?}", out.failed);
        for sample in out.samples.drain(..) {
            known.push(sample.token);
            logprobs.extend(sample.logprobs.map(|logprobs| *logprobs));
        }
        batch.starts.clear();
        computed = next;
    }
    engine.launch(&Batch { step: batch.step + 1, ends: vec![SLOT], ..Batch::default() });
    engine.collect(&mut out).expect("a sound step");
    (known.split_off(prompt.len()), logprobs)
}

fn start(prompt: &[Token], sampling: &Sampling) -> RowStart {
    RowStart {
        slot: SLOT,
        tokens: prompt.to_vec(),
        prompt_len: prompt.len() as u32,
        sampling: sampling.clone(),
        stop_tokens: Vec::new(),
        stop_from: 0,
        adapter: 0,
        grammar: 0,
    }
}
