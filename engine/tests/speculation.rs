//! Drafts on the real engine, through the real scheduler: answers are those without them, to the
//! last bit of their log-probabilities, whatever is asked for and whatever happens on the way.

use std::sync::Arc;

use engine::model::{Dtype, ModelFiles};
use engine::start::start_cpu;
use scheduler::types::{Request, Token};
use scheduler::{DRAFTS_MAX, Stats};
use serde_json::json;
use text::grammar::{Answer as Shape, Grammar, Grammars, Plan as Form, lark};

mod common;
use common::serve::{Answer, Serve, demo_files, request};
use common::{Size, plan};

const ROOMY: Size = Size { rows: 8, step_tokens: 192, pages: 256 };

/// The least room: rows lose their pages, and few drafts find any.
const TIGHT: Size = Size { rows: 8, step_tokens: 40, pages: 40 };

/// A text that says most things twice, as one does that is edited.
const TEXT: &str = "The cat sat on the mat. The dog sat on the log. The cat saw the dog, and the \
                    dog saw the cat. ";

const LIST: u64 = 1;
const LETTER: u64 = 2;

struct Demo {
    files: ModelFiles,
    grammars: Vec<(u64, Arc<Grammar>)>,
}

fn demo() -> Demo {
    let files = demo_files();
    let grammars = Grammars::new(&files.text, &files.eos).expect("a tokenizer that can be held");
    let grammars = grammars.with_forced(Arc::new(demo_files().text));
    let pair = json!({
        "type": "object",
        "properties": {"name": {"enum": ["cat", "dog"]}, "age": {"type": "integer", "maximum": 9}},
        "required": ["name", "age"],
        "additionalProperties": false,
    });
    let list = json!({"type": "array", "items": pair, "minItems": 6, "maxItems": 6});
    let list = format!("start: {}\n", lark::json(&list).expect("a schema"));
    let letter =
        "start: (\"The cat sat on the mat. \" | \"The dog sat on the log. \")~6\n".to_owned();
    let compile = |(number, lark)| {
        let form = Form { thinking: None, answer: Shape::Held(lark) };
        (number, grammars.compile(&form).expect("a grammar"))
    };
    let grammars = [(LIST, list), (LETTER, letter)].into_iter().map(compile).collect();
    Demo { files, grammars }
}

impl Demo {
    fn serve(&self, size: Size, drafts_max: u32) -> Serve {
        let plan = plan(&self.files, Dtype::Float32, size);
        let runner = start_cpu(&self.files, &plan).unwrap_or_else(|error| panic!("{error}"));
        let mut serve = Serve::drafting(runner, &plan, drafts_max);
        for (number, grammar) in &self.grammars {
            serve.engine().set_grammar(*number, Arc::clone(grammar));
        }
        serve
    }

    /// A request that goes on to its end, whatever the model says.
    fn ask(&self, id: u64, text: &str, max_tokens: u32) -> Request {
        let prompt = self.files.text.encode(text, true).expect("text");
        let mut request = request(id, &prompt, max_tokens);
        (request.sampling.seed, request.salt) = (id, id);
        request
    }

    /// All kinds of wishes about a text that is repeated.
    fn crowd(&self) -> Vec<Request> {
        let twice = TEXT.repeat(2);
        let ask = |id, max_tokens| self.ask(id, &twice, max_tokens);
        let with = |id, change: &dyn Fn(&mut Request)| {
            let mut request = ask(id, 70);
            change(&mut request);
            if request.grammar > 0 {
                request.stop_tokens.clone_from(&self.files.eos);
            }
            request
        };
        vec![
            ask(0, 90),
            with(1, &|r| (r.sampling.temperature, r.sampling.top_p) = (0.7, 0.9)),
            with(2, &|r| (r.sampling.temperature, r.sampling.top_k) = (1.0, 20)),
            with(3, &|r| {
                (r.sampling.temperature, r.choices) = (0.5, 3);
                r.sampling.logprobs = Some(2);
            }),
            with(4, &|r| {
                (r.sampling.frequency_penalty, r.sampling.presence_penalty) = (0.05, 0.02);
                (r.sampling.repetition_penalty, r.sampling.logprobs) = (1.02, Some(4));
            }),
            with(5, &|r| r.sampling.logit_bias = vec![(r.prompt[3], -1.0), (r.prompt[5], 0.5)]),
            // Every word of the text may end it, but not at once.
            with(6, &|r| (r.stop_tokens, r.min_tokens) = (r.prompt[9..12].to_vec(), 25)),
            with(7, &|r| (r.max_tokens, r.allowance) = (60, 17)),
            with(8, &|r| (r.grammar, r.max_tokens) = (LIST, 160)),
            with(9, &|r| {
                (r.grammar, r.sampling.temperature) = (LIST, 0.8);
                (r.sampling.logprobs, r.sampling.frequency_penalty) = (Some(1), 0.01);
                r.max_tokens = 160;
            }),
            with(10, &|r| (r.grammar, r.max_tokens) = (LETTER, 160)),
            with(11, &|r| (r.prompt_logprobs, r.sampling.min_p) = (Some(1), 0.2)),
        ]
    }

    /// Runs the crowd with so many drafts at most; nothing but the times in it may differ.
    fn answers(&self, size: Size, drafts_max: u32, apart: u64) -> (Vec<Answer>, Stats, u64) {
        let mut serve = self.serve(size, drafts_max);
        let mut answers = serve.run_staggered(self.crowd(), apart);
        for usage in answers.iter_mut().map(|answer| &mut answer.usage) {
            (usage.queue_us, usage.prefill_us, usage.decode_us) = (0, 0, 0);
            (usage.preemptions, usage.cached_tokens) = (0, 0);
        }
        (answers, serve.stats(), serve.steps)
    }
}

/// Everything about an answer, floats as bits.
fn bits(answers: &[Answer]) -> Vec<(Vec<Token>, Vec<u32>, String)> {
    let all = |answer: &Answer| {
        let scores = answer.choices.iter().flat_map(|choice| &choice.logprobs);
        let scores = scores.chain(&answer.prompt_logprobs);
        let bits = scores.flat_map(|s| {
            let top = s.top.iter().map(|(_, value)| value.to_bits());
            [s.logprob.to_bits(), s.rank].into_iter().chain(top)
        });
        let tokens = answer.choices.iter().flat_map(|choice| choice.tokens.clone());
        let ends: Vec<_> = answer.choices.iter().map(|choice| choice.finish).collect();
        (tokens.collect(), bits.collect(), format!("{ends:?} {:?}", answer.usage))
    };
    answers.iter().map(all).collect()
}

#[test]
fn answers_are_the_same_with_and_without_drafts() {
    let demo = demo();
    let (want, without, steps) = demo.answers(ROOMY, 0, 0);
    assert_eq!((without.tokens_drafted, without.tokens_accepted), (0, 0));
    assert_eq!(want[7].choices[0].tokens.len(), 17, "the allowance");
    assert!(want[6].choices[0].tokens.len() > 25, "no stop token before its time");
    for (size, drafts_max, apart) in [
        (ROOMY, DRAFTS_MAX, 0),
        (ROOMY, 1, 0),
        (ROOMY, 4, 3),
        (TIGHT, DRAFTS_MAX, 0),
        (TIGHT, 3, 5),
    ] {
        let (got, stats, _) = demo.answers(size, drafts_max, apart);
        println!("{drafts_max} drafts, {} pages, every {apart}: {stats:?}", size.pages);
        for (at, (got, want)) in bits(&got).iter().zip(bits(&want)).enumerate() {
            assert_eq!(*got, want, "request {at} with {drafts_max} drafts, every {apart} steps");
        }
        assert!(stats.tokens_accepted > 50, "hardly any draft was drawn: {stats:?}");
        assert!(stats.tokens_drafted > stats.tokens_accepted, "none was refused: {stats:?}");
        assert!(size.pages > 40 || stats.preemptions > 0, "nothing was preempted: {stats:?}");
    }
    let (_, _, fewer) = demo.answers(ROOMY, DRAFTS_MAX, 0);
    assert!(fewer < steps, "{fewer} steps, {steps} without drafts");
}

#[test]
fn a_text_that_is_repeated_takes_fewer_steps() {
    let demo = demo();
    let ask = || vec![demo.ask(1, &TEXT.repeat(3), 120)];
    let mut without = demo.serve(ROOMY, 0);
    let want = without.run(ask());
    let mut with = demo.serve(ROOMY, DRAFTS_MAX);
    let got = with.run(ask());
    assert_eq!(got[0].choices, want[0].choices);
    let made = got[0].choices[0].tokens.len() as f64;
    let stats = with.stats();
    println!("{made} tokens in {} steps, {} without: {stats:?}", with.steps, without.steps);
    assert!(made / with.steps as f64 > 1.5, "{made} tokens in {} steps", with.steps);
}

/// A step that fails and a sequence that goes on elsewhere: both go on behind what was drawn.
#[test]
fn a_sequence_that_was_begun_elsewhere_drafts_from_what_was_made_of_it() {
    let demo = demo();
    let want = demo.serve(ROOMY, 0).run(vec![demo.ask(1, TEXT, 100)]);
    let made = &want[0].choices[0].tokens;
    let mut resumed = demo.ask(1, TEXT, 100);
    let half = scheduler::types::Made { tokens: made[..made.len() / 2].to_vec(), ended: false };
    resumed.made = vec![half];
    let mut serve = demo.serve(ROOMY, DRAFTS_MAX);
    let got = serve.run(vec![resumed]);
    assert_eq!(got[0].choices[0].tokens, made[made.len() / 2..]);
    assert!(serve.stats().tokens_accepted > 0, "{:?}", serve.stats());
}
