//! A model served through the real scheduler, without a gateway: requests in, whole answers out.

use std::collections::{BTreeMap, VecDeque};

use engine::model::{Dtype, ModelFiles};
use engine::plan::Plan;
use engine::runner::Runner;
use engine::start::{cpu_config, load, scheduler_config, start_cpu};
use kernels::Compute;
use kernels::cpu::Cpu;
use scheduler::types::{
    Batch, Command, Engine, Event, Fault, Finish, Logprobs, Refusal, Request, RequestId,
    StepOutput, Token, Usage,
};
use scheduler::{Config, DRAFTS_MAX, Progress, Scheduler, Stats};

use super::{Size, plan};

/// A request that is greedy and ends at `max_tokens`, for a test to change.
pub(crate) fn request(id: u64, prompt: &[Token], max_tokens: u32) -> Request {
    Request::greedy(RequestId(id), prompt.to_vec(), max_tokens)
}

/// The demo model of the repository.
pub(crate) fn demo_files() -> ModelFiles {
    let folder = hearth_tests::fixtures::demo();
    engine::open(&folder).unwrap_or_else(|error| panic!("{error}"))
}

/// Everything that came back for one request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) choices: Vec<Choice>,
    pub(crate) prompt_logprobs: Vec<Logprobs>,
    pub(crate) usage: Usage,
    /// Why there is no more of it.
    pub(crate) refused: Option<Refusal>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Choice {
    pub(crate) tokens: Vec<Token>,
    pub(crate) logprobs: Vec<Logprobs>,
    pub(crate) finish: Option<Finish>,
}

/// A runner whose steps all take the same time: that of a shared machine must not decide what a
/// test's steps hold.
struct Steady<C: Compute>(Runner<C>);

impl<C: Compute> Engine for Steady<C> {
    fn depth(&self) -> usize {
        self.0.depth()
    }

    fn drafts_max(&self) -> u32 {
        self.0.drafts_max()
    }

    fn launch(&mut self, batch: &Batch) {
        self.0.launch(batch);
    }

    fn collect(&mut self, out: &mut StepOutput) -> Result<(), Fault> {
        self.0.collect(out)?;
        out.elapsed_us = 1000;
        Ok(())
    }
}

pub(crate) struct Serve<C: Compute = Cpu> {
    scheduler: Scheduler<Steady<C>>,
    now: u64,
    /// Ticks so far.
    pub(crate) steps: u64,
}

impl Serve {
    pub(crate) fn new(files: &ModelFiles, dtype: Dtype, size: Size) -> Self {
        let plan = plan(files, dtype, size);
        let runner = start_cpu(files, &plan).unwrap_or_else(|error| panic!("{error}"));
        Self::over(runner, &plan)
    }

    /// With two steps in flight, as on a device that queues work: the tokens of a step are not
    /// known when the next one is planned.
    pub(crate) fn overlapped(files: &ModelFiles, dtype: Dtype, size: Size) -> Self {
        let plan = plan(files, dtype, size);
        let device = Cpu::new(cpu_config(&files.spec, &plan));
        let loaded = load(device, &files.spec, files.weights.as_ref(), &plan);
        let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
        Self::over(Runner::new(loaded, &plan, 2), &plan)
    }
}

impl<C: Compute> Serve<C> {
    /// A runner of any device.
    pub(crate) fn over(runner: Runner<C>, plan: &Plan) -> Self {
        Self::drafting(runner, plan, DRAFTS_MAX)
    }

    /// As [`Serve::over`], with so many drafts in a row at most.
    pub(crate) fn drafting(runner: Runner<C>, plan: &Plan, drafts_max: u32) -> Self {
        let config = Config { target_itl_us: 0, drafts_max, ..scheduler_config(plan) };
        Self { scheduler: Scheduler::new(Steady(runner), config), now: 0, steps: 0 }
    }

    /// The engine, between two runs.
    pub(crate) fn engine(&mut self) -> &mut Runner<C> {
        &mut self.scheduler.engine_mut().0
    }

    /// What the scheduler counted.
    pub(crate) fn stats(&self) -> Stats {
        self.scheduler.stats()
    }

    /// Runs requests that come all at once, and gives their answers in the same order.
    pub(crate) fn run(&mut self, requests: Vec<Request>) -> Vec<Answer> {
        self.run_staggered(requests, 0)
    }

    /// As [`Serve::run`], with a request coming every `apart` steps.
    pub(crate) fn run_staggered(&mut self, requests: Vec<Request>, apart: u64) -> Vec<Answer> {
        let answers = self.run_refusing(requests, apart);
        for answer in &answers {
            assert_eq!(answer.refused, None);
        }
        answers
    }

    /// As [`Serve::run_staggered`], where requests may be refused.
    pub(crate) fn run_refusing(&mut self, requests: Vec<Request>, apart: u64) -> Vec<Answer> {
        let blank = |request: &Request| Answer {
            choices: vec![Choice::default(); request.choices as usize],
            ..Answer::default()
        };
        let order: Vec<RequestId> = requests.iter().map(|request| request.id).collect();
        let mut answers: BTreeMap<RequestId, Answer> =
            requests.iter().map(|request| (request.id, blank(request))).collect();
        let mut coming: VecDeque<Request> = requests.into();
        let (mut inbox, mut outbox) = (VecDeque::new(), Vec::new());
        let mut open = order.len();
        let start = self.steps;
        while open > 0 {
            while coming.front().is_some()
                && (apart == 0 || (order.len() - coming.len()) as u64 * apart <= self.steps - start)
            {
                let request = coming.pop_front().expect("a request");
                inbox.push_back(Command::Submit(Box::new(request)));
            }
            let progress = self.scheduler.tick(self.now, &mut inbox, &mut outbox);
            (self.now, self.steps) = (self.now + 1000, self.steps + 1);
            for event in outbox.drain(..) {
                open -= usize::from(note(&mut answers, event));
            }
            let idle = matches!(progress, Progress::Idle { .. });
            assert!(!idle || coming.len() == open, "idle with {open} requests unanswered");
        }
        // One more step may be on its way; then nothing may be held by anybody.
        while self.scheduler.tick(self.now, &mut inbox, &mut outbox) == Progress::Busy {}
        assert!(outbox.is_empty(), "events after the end: {outbox:?}");
        self.scheduler.check_idle();
        order.iter().map(|id| answers.remove(id).expect("an answer")).collect()
    }
}

/// Whether the event ends its request.
fn note(answers: &mut BTreeMap<RequestId, Answer>, event: Event) -> bool {
    match event {
        Event::PromptLogprobs(id, stretch) => {
            let answer = answers.get_mut(&id).expect("a known request");
            assert_eq!(stretch.first as usize, answer.prompt_logprobs.len() + 1, "in order");
            answer.prompt_logprobs.extend(stretch.entries);
        }
        Event::Token { id, choice, token, logprobs } => {
            let choice = &mut answers.get_mut(&id).expect("known").choices[choice as usize];
            choice.tokens.push(token);
            choice.logprobs.extend(logprobs.map(|logprobs| *logprobs));
        }
        Event::ChoiceEnd { id, choice, reason } => {
            let choice = &mut answers.get_mut(&id).expect("known").choices[choice as usize];
            assert_eq!(choice.finish.replace(reason), None, "a choice ends once");
        }
        Event::End(id, usage) => {
            answers.get_mut(&id).expect("known").usage = usage;
            return true;
        }
        Event::Refused(id, refusal, usage) => {
            let answer = answers.get_mut(&id).expect("known");
            (answer.refused, answer.usage) = (Some(refusal), usage);
            return true;
        }
    }
    false
}
