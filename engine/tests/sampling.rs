//! Drawing tokens on the real engine, through the real scheduler: what a seed promises, and what
//! each sampling option does, against logits of the same model computed one step at a time.

use engine::model::{Dtype, ModelFiles};
use hearth_tests::fixtures;
use scheduler::types::{Finish, Request, Token};

mod common;
use common::reference::Reference;
use common::rig::Rig;
use common::serve::{Answer, Serve, demo_files, request};
use common::{Size, argmax, log_softmax};

const ROOMY: Size = Size { rows: 8, step_tokens: 128, pages: 256 };

/// A model of random weights: its distributions are wide, so every draw counts.
fn files() -> ModelFiles {
    engine::open(&Reference::folder("llama_gqa").model).unwrap_or_else(|error| panic!("{error}"))
}

fn prompt(seed: u32, len: u32) -> Vec<Token> {
    (0..len).map(|i| (seed * 97 + i * i * 31 + i * 7) % 360).collect()
}

fn random(id: u64, seed: u64, prompt: &[Token], max_tokens: u32) -> Request {
    let mut request = request(id, prompt, max_tokens);
    request.sampling.temperature = 0.9;
    request.sampling.seed = seed;
    request.sampling.logprobs = Some(3);
    request.salt = id;
    request
}

/// A crowd with all kinds of wishes.
fn crowd(count: u64) -> Vec<Request> {
    (0..count)
        .map(|n| {
            let prompt = prompt(n as u32 + 5, 3 + 11 * (n as u32 % 7));
            let mut request = random(100 + n, n * 3, &prompt, 9 + 5 * (n as u32 % 9));
            request.sampling.top_k = if n % 2 == 0 { 20 } else { 0 };
            request.sampling.top_p = if n % 3 == 0 { 0.8 } else { 1.0 };
            request.sampling.frequency_penalty = if n % 4 == 0 { 0.5 } else { 0.0 };
            request.choices = 1 + u32::from(n % 5 == 0);
            request
        })
        .collect()
}

/// Tokens with the bits of their log-probabilities, each drawn one before its alternatives.
fn bits(answer: &Answer) -> Vec<(Token, u32)> {
    let choice = &answer.choices[0];
    assert_eq!(choice.tokens.len(), choice.logprobs.len());
    let pairs = choice.tokens.iter().zip(&choice.logprobs);
    pairs
        .flat_map(|(token, scores)| {
            let drawn = std::iter::once((*token, scores.logprob));
            drawn.chain(scores.top.iter().copied()).map(|(id, value)| (id, value.to_bits()))
        })
        .collect()
}

#[test]
fn a_seed_gives_the_same_text_whatever_else_runs() {
    let quantized = fixtures::reference("gguf_llama/llama-q4_k_m.gguf");
    let quantized = engine::open(&quantized).unwrap_or_else(|error| panic!("{error}"));
    let files = files();
    let kinds = [
        (&files, Dtype::Float32),
        (&files, Dtype::Bfloat16),
        (&files, Dtype::Float16),
        (&quantized, Dtype::Auto),
    ];
    for (files, dtype) in kinds {
        let ours = |id| random(id, 42, &prompt(1, 37), 48);
        let alone = Serve::new(files, dtype, ROOMY).run(vec![ours(1)]);
        let expected = bits(&alone[0]);
        for (apart, place) in [(0, 0), (0, 5), (2, 3), (7, 11)] {
            let mut requests = crowd(12);
            requests.insert(place, ours(1));
            let answers = Serve::new(files, dtype, ROOMY).run_staggered(requests, apart);
            assert_eq!(bits(&answers[place]), expected, "{dtype:?}, every {apart} steps");
        }
    }
}

#[test]
fn a_preempted_sequence_goes_on_as_if_nothing_had_happened() {
    let files = demo_files();
    let prompts: Vec<Vec<Token>> = (0..8).map(|n| prompt(n, 40 + 9 * n)).collect();
    let requests = || -> Vec<Request> {
        let ids = 0..;
        ids.zip(&prompts).map(|(id, prompt)| random(id, id + 7, prompt, 60)).collect()
    };
    let mut calm = Serve::new(&files, Dtype::Float32, ROOMY);
    let expected: Vec<_> =
        requests().into_iter().map(|request| calm.run(vec![request]).remove(0)).collect();
    let tight = Size { rows: 8, step_tokens: 72, pages: 24 };
    for mut serve in [
        Serve::new(&files, Dtype::Float32, tight),
        Serve::overlapped(&files, Dtype::Float32, tight),
    ] {
        let answers = serve.run(requests());
        let preemptions: u32 = answers.iter().map(|answer| answer.usage.preemptions).sum();
        println!("{preemptions} preemptions");
        assert!(preemptions > 0, "the pool was large enough: nothing was preempted");
        for (found, expected) in answers.iter().zip(&expected) {
            assert_eq!(bits(found), bits(expected));
        }
    }
}

#[test]
fn choices_of_one_prompt_draw_from_streams_of_their_own() {
    let files = files();
    let ask = |seed| {
        let mut request = random(1, seed, &prompt(3, 20), 24);
        request.choices = 4;
        Serve::new(&files, Dtype::Float32, ROOMY).run(vec![request]).remove(0)
    };
    let (answer, again, other) = (ask(5), ask(5), ask(6));
    assert_eq!(answer.choices, again.choices, "the same seed");
    for (n, choice) in answer.choices.iter().enumerate() {
        assert_eq!(choice.tokens.len(), 24);
        assert!(answer.choices[..n].iter().all(|before| before.tokens != choice.tokens));
        assert_ne!(choice.tokens, other.choices[n].tokens, "another seed");
    }
}

#[test]
fn stop_tokens_cannot_come_before_min_tokens() {
    let files = demo_files();
    let prompt = files.text.encode("<|begin_of_text|><|im_start|>user\nWhat is 2 + 2?", false);
    let tail = files.text.encode("<|im_end|>\n<|im_start|>assistant\n", false).unwrap();
    let prompt = [prompt.unwrap(), tail].concat();
    let mut serve = Serve::new(&files, Dtype::Float32, ROOMY);
    let mut ask = |min_tokens: u32| {
        let mut request = request(u64::from(min_tokens), &prompt, 40);
        request.stop_tokens.clone_from(&files.eos);
        request.min_tokens = min_tokens;
        serve.run(vec![request]).remove(0).choices.remove(0)
    };
    let free = ask(0);
    let len = free.tokens.len() as u32;
    assert_eq!(free.finish, Some(Finish::Stop));
    assert!((2..20).contains(&len), "{len} tokens");
    // The stop token comes after `len - 1` others: asking for as many changes nothing.
    assert_eq!(ask(len - 1), free);
    for more in [len, len + 9] {
        let longer = ask(more);
        let shared = len as usize - 1;
        assert_eq!(longer.tokens[..shared], free.tokens[..shared]);
        assert!(longer.tokens.len() > more as usize, "{longer:?}");
        let (banned, _) = longer.tokens.split_at(more as usize);
        assert!(banned.iter().all(|token| !files.eos.contains(token)), "{longer:?}");
    }
}

/// Every token must be the best one of the model's own logits after `change`.
fn check_greedy(
    set: impl Fn(&mut Request),
    change: impl Fn(&mut [f32], &[Token], &[Token]),
) -> Vec<Token> {
    let files = files();
    let prompt = prompt(9, 30);
    let mut request = request(1, &prompt, 60);
    set(&mut request);
    let answer = Serve::new(&files, Dtype::Float32, ROOMY).run(vec![request]).remove(0);
    let made = &answer.choices[0].tokens;
    let all = [prompt.as_slice(), made].concat();
    let logits = Rig::new(&files, Dtype::Float32).logits(&all, &[all.len()]);
    for (step, token) in made.iter().enumerate() {
        let mut logits = logits[prompt.len() - 1 + step].clone();
        change(&mut logits, &prompt, &made[..step]);
        let best = logits[argmax(&logits) as usize];
        let short = best - logits[*token as usize];
        assert!(short < 1e-3, "step {step}: token {token} is {short} below the best");
    }
    made.clone()
}

/// How often a list holds its most frequent token.
fn most_frequent(tokens: &[Token]) -> usize {
    tokens.iter().map(|token| tokens.iter().filter(|other| *other == token).count()).max().unwrap()
}

#[test]
fn presence_and_frequency_penalties_count_made_tokens_only() {
    let free = check_greedy(|_| {}, |_, _, _| {});
    let set = |request: &mut Request| {
        request.sampling.presence_penalty = 1.5;
        request.sampling.frequency_penalty = 2.0;
    };
    let made = check_greedy(set, |logits, _, made| {
        for (id, logit) in logits.iter_mut().enumerate() {
            let count = made.iter().filter(|token| **token as usize == id).count() as f32;
            *logit -= 2.0 * count + if count > 0.0 { 1.5 } else { 0.0 };
        }
    });
    assert!(most_frequent(&made) <= most_frequent(&free));
    assert_ne!(made, free);
}

#[test]
fn the_repetition_penalty_counts_the_prompt_too() {
    let set = |request: &mut Request| request.sampling.repetition_penalty = 1.3;
    check_greedy(set, |logits, prompt, made| {
        for (id, logit) in logits.iter_mut().enumerate() {
            if prompt.iter().chain(made).any(|token| *token as usize == id) {
                *logit = if *logit > 0.0 { *logit / 1.3 } else { *logit * 1.3 };
            }
        }
    });
}

#[test]
fn a_logit_bias_forces_and_forbids() {
    let free = check_greedy(|_| {}, |_, _, _| {});
    let forbidden = free[0];
    let set = |request: &mut Request| {
        request.sampling.logit_bias = vec![(forbidden, f32::NEG_INFINITY), (17, 3.0)];
    };
    let made = check_greedy(set, |logits, _, _| {
        logits[forbidden as usize] = f32::NEG_INFINITY;
        logits[17] += 3.0;
    });
    assert!(!made.contains(&forbidden));
    let set = |request: &mut Request| request.sampling.logit_bias = vec![(200, 100.0)];
    let made = check_greedy(set, |logits, _, _| logits[200] += 100.0);
    assert!(made.iter().all(|token| *token == 200));
}

#[test]
fn one_candidate_is_no_choice() {
    let files = files();
    let mut lonely = request(1, &prompt(1, 5), 4);
    lonely.sampling.top_k = 1;
    lonely.sampling.temperature = 1.0;
    let greedy = request(2, &prompt(1, 5), 4);
    let answers = Serve::new(&files, Dtype::Float32, ROOMY).run(vec![lonely, greedy]);
    assert_eq!(answers[0].choices, answers[1].choices);
}

#[test]
fn logprobs_are_of_the_model_before_temperature_and_penalties() {
    let files = files();
    let prompt = prompt(4, 30);
    let mut request = request(1, &prompt, 20);
    request.prompt_logprobs = Some(4);
    request.sampling.temperature = 1.4;
    request.sampling.presence_penalty = 1.0;
    request.sampling.seed = 11;
    request.sampling.logprobs = Some(100);
    // Stretches of the prompt, so that some predicted tokens lie behind their stretch.
    let size = Size { rows: 8, step_tokens: 16, pages: 64 };
    let answer = Serve::new(&files, Dtype::Float32, size).run(vec![request]).remove(0);
    let choice = &answer.choices[0];
    let all = [prompt.as_slice(), &choice.tokens].concat();
    let logits = Rig::new(&files, Dtype::Float32).logits(&all, &[all.len()]);
    assert_eq!(answer.prompt_logprobs.len(), prompt.len() - 1);
    let scores = answer.prompt_logprobs.iter().chain(&choice.logprobs);
    for (before, (scores, logits)) in scores.zip(&logits).enumerate() {
        let expected = log_softmax(logits);
        let token = all[before + 1] as usize;
        let position = before + 1;
        let diff = (scores.logprob - expected[token]).abs();
        assert!(diff < 2e-4, "position {position}: off by {diff}");
        let above = expected.iter().filter(|value| **value > expected[token] + 1e-4).count();
        let below = expected.iter().filter(|value| **value >= expected[token] - 1e-4).count();
        let rank = scores.rank as usize;
        assert!(above < rank && rank <= below, "position {position}: rank {rank}");
        let count = if position < prompt.len() { 4 } else { 100 };
        assert_eq!(scores.top.len(), count);
        // Ids of equal values are ordered by their logits, which may differ where these do not.
        assert!(scores.top.is_sorted_by(|a, b| a.1 >= b.1), "position {position}");
        let mass: f32 = scores.top.iter().map(|(_, value)| value.exp()).sum();
        assert!(mass < 1.0001, "position {position}: the top holds {mass}");
        for (id, value) in &scores.top {
            let diff = (value - expected[*id as usize]).abs();
            assert!(diff < 2e-4, "position {position}, token {id}: off by {diff}");
        }
    }
}
