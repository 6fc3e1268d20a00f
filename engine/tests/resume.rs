//! A request that another engine began goes on on this one: the real model, cut at every token,
//! gives what the undisturbed run gave, to the last bit of its log-probabilities.

use std::sync::Arc;

use engine::model::{Dtype, ModelFiles};
use scheduler::types::{Made, Refusal, Request, RequestId, Token};
use serde_json::json;
use text::grammar::{Answer as Shape, Grammar, Grammars, Plan as Form, lark};

mod common;
use common::Size;
use common::serve::{Answer, Choice, Serve, demo_files, request};

const ROOMY: Size = Size { rows: 12, step_tokens: 96, pages: 256 };
/// Sequences lose their pages in the middle.
const TIGHT: Size = Size { rows: 4, step_tokens: 48, pages: 9 };

/// Numbers of the grammars. Both tell what must come.
const PERSON: u64 = 1;
const FORMAL: u64 = 2;

const TOKENS: u32 = 36;

fn grammars(files: &ModelFiles) -> Vec<(u64, Arc<Grammar>)> {
    let grammars = Grammars::new(&files.text, &files.eos).expect("a tokenizer that can be held");
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
        },
        "required": ["name", "age"],
        "additionalProperties": false,
    });
    let person = format!("start: {}\n", lark::json(&schema).expect("a schema"));
    let formal = "start: (\"Dear\" | \"Hello\") \" customer, thank you for your letter of May.\"\n";
    let form = |text: String| Form { thinking: None, answer: Shape::Held(text) };
    let telling = grammars.with_forced(Arc::new(demo_files().text));
    vec![
        (PERSON, telling.compile(&form(person)).expect("a grammar")),
        (FORMAL, telling.compile(&form(formal.to_owned())).expect("a grammar")),
    ]
}

/// Whatever the draw of a token may depend on.
fn asked(files: &ModelFiles) -> Vec<Request> {
    let ask = |id: u64, text: &str, temperature: f32, grammar: u64| {
        let prompt = files.text.encode(text, true).expect("text");
        let mut request = request(id, &prompt, TOKENS);
        request.stop_tokens.clone_from(&files.eos);
        (request.sampling.seed, request.sampling.temperature) = (id + 7, temperature);
        request.grammar = grammar;
        request
    };
    let mut counted = ask(1, "The old man and the", 1.0, 0);
    counted.sampling.repetition_penalty = 1.2;
    counted.sampling.presence_penalty = 0.3;
    counted.sampling.frequency_penalty = 0.4;
    counted.sampling.top_p = 0.9;
    let mut several = ask(2, "Once upon a time there was a house and in the house", 1.0, 0);
    (several.choices, several.min_tokens) = (2, 20);
    several.sampling.logprobs = Some(2);
    several.sampling.logit_bias = vec![(several.prompt[1], 2.0)];
    let mut scored = ask(3, "Tell me", 0.0, 0);
    scored.sampling.logprobs = Some(1);
    let mut penalised = ask(4, "The child", 0.9, PERSON);
    penalised.sampling.frequency_penalty = 0.2;
    vec![
        ask(0, "The house is", 0.0, 0),
        counted,
        several,
        scored,
        penalised,
        ask(5, "Her name was", 1.0, PERSON),
        ask(6, "Write to them.", 0.0, FORMAL),
    ]
}

fn serve(files: &ModelFiles, depth: usize, size: Size) -> Serve {
    let mut serve = match depth {
        1 => Serve::new(files, Dtype::Float32, size),
        _ => Serve::overlapped(files, Dtype::Float32, size),
    };
    for (number, grammar) in grammars(files) {
        serve.engine().set_grammar(number, grammar);
    }
    serve
}

/// The requests as they are sent again when each choice was cut behind so many tokens. `ends`:
/// the end of a choice that had come to it was still heard.
fn cut(asked: &[Request], whole: &[Answer], behind: usize, ends: bool) -> Vec<Request> {
    let again = |(request, answer): (&Request, &Answer)| {
        let made = |choice: &Choice| Made {
            tokens: choice.tokens[..behind.min(choice.tokens.len())].to_vec(),
            ended: behind > choice.tokens.len() || ends && behind == choice.tokens.len(),
        };
        let made = answer.choices.iter().map(made).collect();
        Request { id: RequestId(request.id.0 + 1000), made, ..request.clone() }
    };
    asked.iter().zip(whole).map(again).collect()
}

/// What comes behind the cut is what came in the undisturbed run.
fn compare(whole: &[Answer], rest: &[Answer], behind: usize) {
    for (number, (whole, rest)) in whole.iter().zip(rest).enumerate() {
        let spent = |answer: &Answer| (answer.usage.prompt_tokens, answer.usage.completion_tokens);
        assert_eq!(spent(rest), spent(whole), "request {number} cut behind {behind}");
        for (whole, rest) in whole.choices.iter().zip(&rest.choices) {
            let at = behind.min(whole.tokens.len());
            assert_eq!(rest.tokens, whole.tokens[at..], "request {number} cut behind {behind}");
            let scores = &whole.logprobs[at.min(whole.logprobs.len())..];
            assert_eq!(rest.logprobs, scores, "request {number} cut behind {behind}");
        }
    }
}

/// Nodes of one kind: with one step in flight grammars tell what must come, with two they do not,
/// and the same text may be cut into other tokens.
#[track_caller]
fn check_depth(depth: usize) {
    let files = demo_files();
    let asked = asked(&files);
    let whole = serve(&files, depth, ROOMY).run(asked.clone());
    let early = |choice: &Choice| choice.tokens.len() < TOKENS as usize;
    let choices = || whole.iter().flat_map(|answer| &answer.choices);
    assert!(choices().any(early) && !choices().all(early), "some stop, some are cut");
    // One has room and sees the same prompts again and again, one has too few pages.
    let mut nodes = [serve(&files, depth, ROOMY), serve(&files, depth, TIGHT)];
    let mut preemptions = 0;
    for behind in 0..=TOKENS as usize {
        let node = &mut nodes[behind % 2];
        let rest = node.run(cut(&asked, &whole, behind, behind % 4 < 2));
        compare(&whole, &rest, behind);
        preemptions += rest.iter().map(|answer| answer.usage.preemptions).sum::<u32>();
    }
    assert!(preemptions > 0, "the pool was large enough: nothing was preempted");
    // And nodes that know nothing.
    for behind in [1, 9, 30] {
        let rest = serve(&files, depth, ROOMY).run(cut(&asked, &whole, behind, true));
        compare(&whole, &rest, behind);
    }
}

#[test]
fn cut_at_every_token_the_rest_is_the_same() {
    check_depth(1);
}

#[test]
fn cut_at_every_token_with_two_steps_in_flight_too() {
    check_depth(2);
}

#[test]
fn tokens_that_a_grammar_does_not_know_end_their_request_alone() {
    let files = demo_files();
    let asked = asked(&files);
    let wrong: Vec<Token> = files.text.encode("no JSON at all", false).expect("text");
    for depth in [1, 2] {
        let mut node = serve(&files, depth, ROOMY);
        let mut whole = node.run(asked.clone());
        let mut requests = cut(&asked, &whole, 3, false);
        requests[5].made[0].tokens.clone_from(&wrong);
        let mut rest = node.run_refusing(requests, 0);
        let refused = rest.remove(5);
        assert!(matches!(refused.refused, Some(Refusal::Engine(_))), "{:?}", refused.refused);
        assert!(refused.choices[0].tokens.is_empty());
        assert_eq!(refused.usage.completion_tokens as usize, wrong.len());
        whole.remove(5);
        compare(&whole, &rest, 3);
    }
}
