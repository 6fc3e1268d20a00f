//! Grammars in the runner alone, on a device that computes nothing and draws what masks allow: when
//! it waits for what, steps that fail, and grammars that go.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use engine::runner::Runner;
use engine::start::Loaded;
use engine::transformer::Transformer;
use kernels::{CacheElement, Compute, Fault as DeviceFault, Precision};
use scheduler::types::{
    Batch, Engine, Logits, Refusal, Request, Row, RowStart, Sampling, StepOutput, Token,
};
use text::grammar::{Answer, Grammar, Grammars, Plan as Form, lark};

mod common;
#[allow(dead_code, reason = "the part that other tests need")]
#[path = "common/fake.rs"]
mod fake;

use common::serve::{Serve, demo_files, request};
use common::{Size, plan_of};
use fake::{Fake, NoWeights, Script, small_spec};

const SIZE: Size = Size { rows: 4, step_tokens: 16, pages: 64 };

struct Rig {
    runner: Runner<Fake>,
    script: Rc<RefCell<Script>>,
    plan: engine::plan::Plan,
    /// Numbers of 20 digits.
    grammar: Arc<Grammar>,
    eos: Vec<Token>,
}

/// A runner that knows the grammar as number 1.
fn rig(depth: usize) -> Rig {
    let files = demo_files();
    let grammars = Grammars::new(&files.text, &files.eos).expect("a tokenizer that can be held");
    let form = Form { thinking: None, answer: Answer::Held(lark::regex("[0-9]{20}")) };
    let grammar = grammars.compile(&form).expect("a grammar");
    let script = Rc::new(RefCell::new(Script { record: true, ..Script::default() }));
    let mut device = Fake::new(Rc::clone(&script));
    let spec = engine::spec::ModelSpec { vocab: files.spec.vocab, ..small_spec(1) };
    let plan = plan_of(&spec, 0, (Precision::Float32, CacheElement::F32), SIZE);
    let model = Transformer::load(&mut device, &spec, &NoWeights::of(&spec), &plan).unwrap();
    let cache = device.cache(plan.cache).unwrap();
    let mut runner = Runner::new(Loaded { compute: device, model, cache }, &plan, depth);
    runner.set_grammar(1, Arc::clone(&grammar));
    Rig { runner, script, plan, grammar, eos: files.eos }
}

/// The start of a sequence with a prompt of one token.
fn start(slot: u32, grammar: u64) -> RowStart {
    RowStart {
        slot,
        tokens: vec![7],
        prompt_len: 1,
        sampling: Sampling::default(),
        stop_tokens: Vec::new(),
        stop_from: 0,
        adapter: 0,
        grammar,
    }
}

/// One row for each of these slots: their token at `first`, or one that is not known yet.
fn decode(step: u64, slots: &[u32], first: u32, known: Option<&StepOutput>) -> Batch {
    let row = |(at, &slot): (u32, &u32)| {
        let late = known.is_none() && first > 0;
        Row { slot, first, len: 1, tokens_at: at, late, drafts: 0, logits: Logits::Sample }
    };
    let token = |i: usize| known.map_or(0, |out| out.samples[i].token);
    Batch {
        step,
        rows: (0..).zip(slots).map(row).collect(),
        tokens: (0..slots.len()).map(token).collect(),
        ..Batch::default()
    }
}

fn calls(rig: &Rig) -> Vec<&'static str> {
    std::mem::take(&mut rig.script.borrow_mut().calls)
}

#[test]
fn a_draw_stays_open_only_for_a_mask_that_needs_a_late_token() {
    let mut rig = rig(2);
    let mut out = StepOutput::default();
    rig.runner
        .launch(&Batch { starts: vec![start(0, 1), start(1, 0)], ..decode(1, &[0, 1], 0, None) });
    assert_eq!(calls(&rig), ["sample", "end"], "a prompt's mask needs nothing of the device");
    rig.runner.launch(&decode(2, &[1], 1, None));
    assert_eq!(calls(&rig), ["sample", "end"], "no row of it is held");
    rig.runner.collect(&mut out).expect("a sound step");
    assert_eq!(calls(&rig), ["collect"]);
    rig.runner
        .launch(&Batch { tokens: vec![out.samples[0].token], ..decode(3, &[0], 1, Some(&out)) });
    assert_eq!(calls(&rig), ["sample", "end"], "its token was known");
    rig.runner.collect(&mut out).expect("a sound step");
    calls(&rig);
    rig.runner.launch(&decode(4, &[0], 2, None));
    assert_eq!(calls(&rig), ["flush"]);
    rig.runner.collect(&mut out).expect("a sound step");
    assert_eq!(calls(&rig), ["collect", "sample", "end"]);
    rig.runner.collect(&mut out).expect("a sound step");
    assert_eq!((out.step, out.samples.len(), out.failed.len()), (4, 1, 0));
    let masked: Vec<bool> =
        rig.script.borrow().sampled.iter().flatten().map(|row| row.mask.is_some()).collect();
    assert_eq!(masked, [true, false, false, true, true]);
}

#[test]
fn a_sequence_keeps_its_grammar_when_the_number_goes() {
    let mut rig = rig(1);
    let mut out = StepOutput::default();
    rig.runner.launch(&Batch { starts: vec![start(0, 1)], ..decode(1, &[0], 0, None) });
    rig.runner.collect(&mut out).expect("a sound step");
    rig.runner.drop_grammar(1);
    let batch = decode(2, &[0], 1, Some(&out));
    rig.runner.launch(&Batch { starts: vec![start(3, 1)], ..batch });
    rig.runner.collect(&mut out).expect("a sound step");
    assert_eq!((out.samples.len(), out.failed.len()), (1, 0));
    // One that starts now has none.
    rig.runner.launch(&decode(3, &[3], 0, None));
    rig.runner.collect(&mut out).expect("a sound step");
    assert_eq!(out.failed, [(3, "the engine has no grammar 1".to_owned())]);
    assert!(out.samples.is_empty());
    // A slot that is given back and taken again is another sequence's.
    rig.runner.set_grammar(2, Arc::clone(&rig.grammar));
    let starts = vec![start(3, 2), start(0, 0)];
    rig.runner.launch(&Batch { ends: vec![0, 3], starts, ..decode(4, &[0, 3], 0, None) });
    rig.runner.collect(&mut out).expect("a sound step");
    assert_eq!((out.samples.len(), out.failed.len()), (2, 0));
}

/// With two steps in flight the device draws once more behind a sequence's end.
#[test]
fn what_is_drawn_behind_an_end_fails_nothing() {
    let mut rig = rig(2);
    let mut out = StepOutput::default();
    let ending = RowStart { stop_tokens: rig.eos.clone(), ..start(0, 1) };
    rig.runner.launch(&Batch { starts: vec![ending], ..decode(1, &[0], 0, None) });
    let mut drawn = Vec::new();
    for step in 2..30 {
        rig.runner.launch(&decode(u64::from(step), &[0], step - 1, None));
        rig.runner.collect(&mut out).expect("a sound step");
        assert_eq!((out.samples.len(), out.failed.len()), (1, 0), "{drawn:?}");
        drawn.push(out.samples[0].token);
    }
    let end = drawn.iter().position(|token| rig.eos.contains(token)).expect("an end");
    let script = rig.script.borrow();
    let masked = script.sampled.iter().flatten().map(|row| row.mask.is_some());
    assert!(masked.enumerate().all(|(i, masked)| masked == (i <= end)), "{drawn:?}");
}

/// Slots that start again and again while workers still have the states of those before.
#[test]
fn states_of_sequences_that_are_gone_are_nobodys() {
    let mut rig = rig(1);
    let mut out = StepOutput::default();
    for step in 1..60 {
        let starts = (0..4).map(|slot| start(slot, 1)).collect();
        let slots: &[u32] = if step % 7 == 0 { &[0, 1, 2, 3] } else { &[2] };
        rig.runner.launch(&Batch { starts, ..decode(step, slots, 0, None) });
        rig.runner.collect(&mut out).expect("a sound step");
        assert_eq!((out.samples.len(), out.failed.len()), (slots.len(), 0));
    }
}

/// Whole answers under faults that come with these calls of `collect`.
fn answers(depth: usize, faults: VecDeque<Option<DeviceFault>>) -> Vec<common::serve::Answer> {
    let Rig { runner, script, plan, eos, .. } = rig(depth);
    script.borrow_mut().faults = faults;
    let ask = |id| {
        let grammar = u64::from(id != 1);
        Request { stop_tokens: eos.clone(), grammar, ..request(id, &[5, 6, 7], 30) }
    };
    Serve::over(runner, &plan).run_refusing((0..3).map(ask).collect(), 0)
}

#[test]
fn a_step_that_fails_is_drawn_again_under_the_same_masks() {
    let files = demo_files();
    for depth in [1, 2] {
        let want = answers(depth, VecDeque::new());
        for held in [0, 2] {
            let choice = &want[held].choices[0];
            let said = files.text.decode(&choice.tokens, true);
            assert!(said.len() == 20 && said.bytes().all(|byte| byte.is_ascii_digit()), "{said}");
        }
        for sound in 0..24 {
            let mut faults = VecDeque::from(vec![None; sound]);
            faults.push_back(Some(DeviceFault::Step("hiccup".to_owned())));
            let got = answers(depth, faults);
            for (got, want) in got.iter().zip(&want) {
                assert_eq!(got.refused, None, "after {sound} at depth {depth}");
                assert_eq!(got.choices, want.choices, "after {sound} at depth {depth}");
            }
        }
    }
}

#[test]
fn a_device_that_stays_lost_ends_every_request() {
    for depth in [1, 2] {
        for sound in 0..6 {
            let mut faults = VecDeque::from(vec![None; sound]);
            faults.push_back(Some(DeviceFault::Lost("gone".to_owned())));
            for answer in answers(depth, faults) {
                assert_eq!(answer.refused, Some(Refusal::Engine("gone".to_owned())));
            }
        }
    }
}
