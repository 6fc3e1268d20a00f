//! Answers held to grammars on the real engine, through the real scheduler: on a CPU, with two
//! steps in flight, on an emulated GPU; preempted, failed and lost in the middle.

use std::sync::Arc;

use cuda::Cuda;
use cuda::emulator::Emulator;
use engine::cuda::load_on;
use engine::model::{Dtype, ModelFiles};
use engine::runner::Runner;
use kernels::Compute;
use scheduler::types::{Finish, Refusal, Request, Token};
use serde_json::{Value, json};
use text::grammar::{Answer as Shape, Grammar, Grammars, Plan as Form, lark};

mod common;
use common::rig::Rig;
use common::serve::{Answer, Choice, Serve, demo_files, request};
use common::{Size, log_softmax, plan};

const ROOMY: Size = Size { rows: 8, step_tokens: 64, pages: 128 };

/// Numbers of the grammars of these tests.
const PERSON: u64 = 1;
const WORD: u64 = 2;
const LIST: u64 = 3;
const FREE: u64 = 4;
const FORMAL: u64 = 5;
/// The same, telling what must come.
const FORCED: u64 = 6;
/// Of none.
const UNKNOWN: u64 = 9;

/// The demo and grammars for it.
struct Demo {
    files: ModelFiles,
    grammars: Vec<(u64, Arc<Grammar>)>,
}

fn demo() -> Demo {
    let files = demo_files();
    let grammars = Grammars::new(&files.text, &files.eos).expect("a tokenizer that can be held");
    let person = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "colour": {"enum": ["red", "green", "blue"]},
        },
        "required": ["name", "age", "colour"],
        "additionalProperties": false,
    });
    let number = json!({"type": "integer", "minimum": 100, "maximum": 999});
    let list = json!({"type": "array", "items": number, "minItems": 14, "maxItems": 14});
    let json = |schema| format!("start: {}\n", lark::json(&schema).expect("a schema"));
    let held = [
        (PERSON, Shape::Held(json(person))),
        (WORD, Shape::Held(lark::choice(&["yes", "no", "perhaps"]))),
        (LIST, Shape::Held(json(list))),
        (FREE, Shape::Free),
    ];
    let compile = |(number, answer): (u64, Shape)| {
        let form = Form { thinking: None, answer };
        (number, grammars.compile(&form).expect("a grammar"))
    };
    let mut all: Vec<_> = held.into_iter().map(compile).collect();
    let formal = "start: (\"Dear\" | \"Hello\") \" customer, thank you for your letter of the first of \
                  May, which we have read with pleasure.\"\n";
    let formal = || Form { thinking: None, answer: Shape::Held(formal.to_owned()) };
    all.push((FORMAL, grammars.compile(&formal()).expect("a grammar")));
    let telling = grammars.with_forced(Arc::new(demo_files().text));
    all.push((FORCED, telling.compile(&formal()).expect("a grammar")));
    // Kept from before it would tell nothing.
    assert!(!Arc::ptr_eq(&all[all.len() - 1].1, &all[all.len() - 2].1));
    Demo { files, grammars: all }
}

impl Demo {
    /// A device that knows the grammars.
    fn ready<C: Compute>(&self, mut serve: Serve<C>) -> Serve<C> {
        for (number, grammar) in &self.grammars {
            serve.engine().set_grammar(*number, Arc::clone(grammar));
        }
        serve
    }

    fn cpu(&self, size: Size) -> Serve {
        self.ready(Serve::new(&self.files, Dtype::Float32, size))
    }

    fn overlapped(&self, size: Size) -> Serve {
        self.ready(Serve::overlapped(&self.files, Dtype::Float32, size))
    }

    /// An emulated GPU; lost after so many launches, and then another.
    fn gpu(&self, size: Size, fails_in: Option<u64>) -> Serve<Cuda<Emulator>> {
        let plan = plan(&self.files, Dtype::Float32, size);
        let (spec, weights) = (self.files.spec.clone(), Arc::clone(&self.files.weights));
        let again = plan.clone();
        let load =
            move |seed| load_on(Emulator::with(80, 4, seed), &spec, weights.as_ref(), &again);
        let mut loaded = load(1).unwrap_or_else(|error| panic!("{error}"));
        if let Some(launches) = fails_in {
            loaded.compute.gpu().fail_at(launches);
        }
        let runner = Runner::new(loaded, &plan, 2).with_recovery(Box::new(move || load(2)));
        self.ready(Serve::over(runner, &plan))
    }

    fn ask(&self, id: u64, text: &str, grammar: u64, max_tokens: u32) -> Request {
        let prompt = self.files.text.encode(text, true).expect("text");
        let mut request = request(id, &prompt, max_tokens);
        request.stop_tokens.clone_from(&self.files.eos);
        // Choices have seeds of their own; nothing of a prompt is shared.
        (request.sampling.seed, request.salt) = (id, id);
        request.grammar = grammar;
        request
    }

    /// All kinds of wishes, two of them without a grammar.
    fn crowd(&self) -> Vec<Request> {
        let mut warm = self.ask(1, "Once upon a time there", PERSON, 60);
        warm.sampling.temperature = 0.9;
        warm.sampling.top_p = 0.95;
        warm.sampling.repetition_penalty = 1.1;
        let mut choices = self.ask(3, "Will it rain?", WORD, 20);
        (choices.choices, choices.sampling.temperature) = (3, 1.5);
        let mut listed = self.ask(4, "1 + 2 =", LIST, 240);
        listed.sampling.temperature = 1.0;
        listed.sampling.top_k = 40;
        listed.sampling.logprobs = Some(3);
        let mut free = self.ask(5, "Tell me", 0, 12);
        free.sampling.temperature = 0.8;
        vec![
            self.ask(0, "The house is", PERSON, 60),
            warm,
            self.ask(2, "A", 0, 10),
            choices,
            listed,
            free,
            self.ask(6, "Why", FREE, 12),
        ]
    }

    /// Fewer of them: an emulated step takes a hundred times a real one.
    fn few(&self) -> Vec<Request> {
        let mut all = self.crowd();
        all.retain(|request| ![0, 4, 6].contains(&request.id.0));
        all
    }

    /// What was written, without the token that ended it.
    fn text(&self, choice: &Choice) -> String {
        let last = choice.tokens.last().expect("a token");
        let end = usize::from(self.files.eos.contains(last));
        self.files.text.decode(&choice.tokens[..choice.tokens.len() - end], false)
    }

    /// Held answers are what their grammars say, and whole.
    fn check(&self, request: &Request, answer: &Answer) {
        for choice in &answer.choices {
            let said = self.text(choice);
            let value = || serde_json::from_str::<Value>(&said).expect("JSON");
            let fits = match request.grammar {
                PERSON => {
                    value()["age"].is_u64() && value().as_object().is_some_and(|o| o.len() == 3)
                }
                WORD => ["yes", "no", "perhaps"].contains(&said.as_str()),
                LIST => value().as_array().is_some_and(|list| list.len() == 14),
                _ => continue,
            };
            assert!(fits, "{said}");
            assert_eq!(choice.finish, Some(Finish::Stop), "{said}");
        }
    }
}

/// Of every choice of every request.
fn tokens(answers: &[Answer]) -> Vec<&[Token]> {
    let choices = answers.iter().flat_map(|answer| &answer.choices);
    choices.map(|choice| choice.tokens.as_slice()).collect()
}

#[test]
fn a_schema_holds_a_run_at_any_depth() {
    let demo = demo();
    let want = demo.cpu(ROOMY).run(demo.crowd());
    for (request, answer) in demo.crowd().iter().zip(&want) {
        demo.check(request, answer);
    }
    let got = demo.overlapped(ROOMY).run(demo.crowd());
    assert_eq!(tokens(&got), tokens(&want));
    // Rows come and go: masks are made for other slots each time.
    for apart in [1, 3] {
        let got = demo.overlapped(ROOMY).run_staggered(demo.crowd(), apart);
        assert_eq!(tokens(&got), tokens(&want), "every {apart} steps");
    }
}

#[test]
fn a_gpu_draws_under_the_same_masks_with_two_steps_in_flight() {
    let demo = demo();
    let want = demo.cpu(ROOMY).run(demo.few());
    let mut serve = demo.gpu(ROOMY, None);
    let got = serve.run(demo.few());
    assert_eq!(tokens(&got), tokens(&want));
    let compute = serve.engine().compute();
    let (graphs, replays) = (compute.graphs(), compute.gpu().replays());
    println!("{graphs} graphs, {replays} replays");
    // Both parts of a step that comes again are.
    assert!(graphs > 1 && replays > 20, "{graphs} graphs, {replays} replays");
}

#[test]
fn a_device_that_is_lost_in_the_middle_changes_nothing() {
    let demo = demo();
    let want = demo.cpu(ROOMY).run(demo.few());
    for launches in [300, 1500] {
        let got = demo.gpu(ROOMY, Some(launches)).run(demo.few());
        assert_eq!(tokens(&got), tokens(&want), "lost at {launches}");
    }
}

#[test]
fn a_preempted_sequence_goes_on_where_its_grammar_was() {
    let demo = demo();
    let requests = || -> Vec<Request> {
        let one = |id| {
            let words = "a story of the house and the garden ".repeat(2 + id as usize);
            let mut request = demo.ask(id, &words, LIST, 240);
            request.sampling.temperature = 1.0;
            request
        };
        (0..8).map(one).collect()
    };
    let mut calm = demo.cpu(ROOMY);
    let want: Vec<Answer> =
        requests().into_iter().map(|request| calm.run(vec![request]).remove(0)).collect();
    let tight = Size { rows: 8, step_tokens: 72, pages: 24 };
    for mut serve in [demo.cpu(tight), demo.overlapped(tight)] {
        let got = serve.run(requests());
        let preemptions: u32 = got.iter().map(|answer| answer.usage.preemptions).sum();
        assert!(preemptions > 0, "the pool was large enough: nothing was preempted");
        assert_eq!(tokens(&got), tokens(&want), "{preemptions} preemptions");
    }
    requests().iter().zip(&want).for_each(|(request, answer)| demo.check(request, answer));
}

#[test]
fn a_row_without_a_grammar_does_not_notice_its_neighbours() {
    let demo = demo();
    let plain = || {
        let mut request = demo.ask(50, "The old man and the", 0, 40);
        request.sampling.temperature = 0.9;
        request.sampling.logprobs = Some(4);
        request
    };
    let bits = |answer: &Answer| -> Vec<(Token, u32)> {
        let choice = &answer.choices[0];
        let own =
            choice.tokens.iter().zip(&choice.logprobs).map(|(t, s)| (*t, s.logprob.to_bits()));
        let others = choice.logprobs.iter().flat_map(|scores| &scores.top);
        own.chain(others.map(|(token, value)| (*token, value.to_bits()))).collect()
    };
    let alone = demo.cpu(ROOMY).run(vec![plain()]);
    for mut serve in [demo.cpu(ROOMY), demo.overlapped(ROOMY)] {
        let mut requests = demo.crowd();
        requests.insert(2, plain());
        assert_eq!(bits(&serve.run(requests)[2]), bits(&alone[0]));
    }
}

#[test]
fn log_probabilities_are_those_before_the_mask() {
    let demo = demo();
    let mut request = demo.ask(1, "The house is", PERSON, 60);
    request.sampling.logprobs = Some(5);
    let prompt = request.prompt.clone();
    let answer = demo.overlapped(ROOMY).run(vec![request]).remove(0);
    let choice = &answer.choices[0];
    let all = [prompt.as_slice(), &choice.tokens].concat();
    let logits = Rig::new(&demo.files, Dtype::Float32).logits(&all, &[all.len()]);
    let mut forced = 0;
    for (step, (token, scores)) in choice.tokens.iter().zip(&choice.logprobs).enumerate() {
        let want = log_softmax(&logits[prompt.len() - 1 + step]);
        let diff = (scores.logprob - want[*token as usize]).abs();
        assert!(diff < 2e-4, "step {step}: off by {diff}");
        let best = want.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert!((scores.top[0].1 - best).abs() < 2e-4, "step {step}: {:?}", scores.top);
        forced += usize::from(scores.rank > 1);
    }
    assert!(forced > 3, "the mask left what the model would have said anyway");
}

#[test]
fn an_answer_does_not_end_before_min_tokens_unless_its_grammar_does() {
    let demo = demo();
    for serve in [Demo::cpu, Demo::overlapped] {
        let mut long = demo.ask(1, "The house is", FREE, 40);
        long.min_tokens = 30;
        let mut word = demo.ask(2, "Will it rain?", WORD, 20);
        word.min_tokens = 9;
        let free = Request { min_tokens: 0, ..demo.ask(3, "The house is", FREE, 40) };
        let answers = serve(&demo, ROOMY).run(vec![long, word, free]);
        let (long, word) = (&answers[0].choices[0].tokens, &answers[1].choices[0].tokens);
        let ends = |token: &Token| demo.files.eos.contains(token);
        assert!(!long[..30].iter().any(ends), "{long:?}");
        // Only its end is left: the answer is complete.
        let said = word.iter().position(ends).expect("an end");
        assert!(said < 9 && word.len() == said + 1, "{word:?}");
        assert_eq!(answers[1].choices[0].finish, Some(Finish::Stop));
        // Without it the model says the same and stops where it wants to.
        let free = &answers[2].choices[0].tokens;
        let shared = free.iter().position(ends).unwrap_or(free.len()).min(long.len());
        assert_eq!(free[..shared], long[..shared]);
    }
}

#[test]
fn what_must_come_is_not_asked_for() {
    let demo = demo();
    let ask = |grammar| (0..3).map(|id| demo.ask(id, "Write to them.", grammar, 90)).collect();
    let said = |answers: &[Answer]| -> Vec<String> {
        let choices = answers.iter().flat_map(|answer| &answer.choices);
        choices.map(|choice| demo.files.text.decode(&choice.tokens, true)).collect()
    };
    let mut drawn = demo.cpu(ROOMY);
    let want = said(&drawn.run(ask(FORMAL)));
    assert!(want[0].ends_with("read with pleasure."), "{want:?}");
    // Few pages: sequences lose theirs in the middle, and go on behind tokens that were forced.
    for size in [ROOMY, Size { rows: 3, step_tokens: 32, pages: 12 }] {
        let mut told = demo.cpu(size);
        assert_eq!(said(&told.run(ask(FORCED))), want);
        assert!(size.pages < 128 || told.steps * 2 < drawn.steps, "{} steps", told.steps);
    }
    // With two steps in flight nothing is forced: the next draw is under way.
    assert_eq!(said(&demo.overlapped(ROOMY).run(ask(FORCED))), want);
    // Penalties count what was drawn, log-probabilities are those of a draw: each is asked for.
    let mut counted: Vec<Request> = ask(FORCED);
    counted[0].sampling.frequency_penalty = 0.1;
    counted[1].sampling.logprobs = Some(1);
    let mut told = demo.cpu(ROOMY);
    let answers = told.run(counted);
    assert_eq!(said(&answers)[1..], want[1..]);
    let scored = &answers[1].choices[0];
    assert_eq!(scored.logprobs.len(), scored.tokens.len());
}

#[test]
fn a_sequence_that_its_grammar_gives_up_ends_alone() {
    let demo = demo();
    let want = demo.cpu(ROOMY).run(demo.crowd());
    for mut serve in [demo.cpu(ROOMY), demo.overlapped(ROOMY)] {
        let mut requests = demo.crowd();
        requests.insert(1, demo.ask(60, "Say", UNKNOWN, 20));
        let mut got = serve.run_refusing(requests, 1);
        let why = "the engine has no grammar 9".to_owned();
        assert_eq!(got.remove(1).refused, Some(Refusal::Engine(why)));
        assert_eq!(tokens(&got), tokens(&want));
    }
}
