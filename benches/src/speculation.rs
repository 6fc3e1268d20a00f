//! What drafts bring: tokens per CPU-second with and without them, in turns of one run, where
//! answers repeat what stands before them and where they do not. The second is what must not become
//! slower. The demo answers real questions, but is so small that reading its weights costs little;
//! models of a true shape with random weights say what is to be had where it costs much.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ::engine::CpuRunner;
use ::engine::model::{Dtype, ModelFiles};
use ::engine::plan::{Plan, PlanOptions};
use ::scheduler::types::{Command, Event, Request, RequestId, Token};
use ::scheduler::{Config, DRAFTS_MAX, Progress, Scheduler};
use anyhow::bail;
use serde_json::{Value, json};
use text::ChatInput;

use crate::random_model::{HALF_BILLION, Mix};
use crate::record::{cpu_seconds, median};

/// Requests of a turn.
const REQUESTS: usize = 8;

/// Longest answer; most of the demo's end before.
const MADE: u32 = 160;

/// What is measured.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Turns of each case; the median is reported.
    pub rounds: usize,
    /// Where models of random weights lie, or are to be written; `None`: the demo alone.
    pub models: Option<PathBuf>,
}

/// What is asked, and with what in place of `@`.
struct Case {
    name: &'static str,
    asks: &'static str,
    about: [&'static str; 4],
}

const CASES: [Case; 2] = [
    Case {
        name: "repeat",
        asks: "Repeat exactly: @ @",
        about: [
            "The quick brown fox jumps over the lazy dog near the old river.",
            "My order number is 48213 and the parcel should arrive on Monday at noon.",
            "The library opens at nine and closes at six, but on Friday it closes at four.",
            "Blue, green, red, yellow, black, white, orange and purple are all colours.",
        ],
    },
    Case {
        name: "chat",
        asks: "@",
        about: [
            "Tell me a long story about a fox and a river.",
            "What is the capital of France, and what do people speak there?",
            "Hello! Who are you and what can you do for me?",
            "Tell me a story about a small boat in a big storm.",
        ],
    },
];

/// What a turn asks.
struct Work {
    name: &'static str,
    prompts: Vec<Vec<Token>>,
    temperature: f32,
    /// What ends an answer before its time.
    eos: Vec<Token>,
}

/// Runs all cases, one sequence at a time and all at once.
///
/// # Errors
/// A model cannot be written or does not start, or a request is refused.
pub fn run(options: &Options) -> anyhow::Result<Value> {
    let Options { rounds, models } = options;
    let mut out = Vec::new();
    println!(
        "{:<8} {:<8} {:>5} {:>12} {:>12} {:>6} {:>12} {:>9}",
        "model", "answers", "batch", "tok/s", "with drafts", "ratio", "tokens/step", "accepted"
    );
    let demo = ::engine::open_demo();
    measure("demo", &demo, &asked(&demo)?, *rounds, &mut out)?;
    if let Some(folder) = models {
        for mix in [Mix::Q8_0, Mix::Q4KM] {
            let files = ::engine::open(&random(folder, mix)?)?;
            measure(mix.name(), &files, &random_work(), *rounds, &mut out)?;
        }
    }
    Ok(json!(out))
}

/// A half-billion-parameter model whose weights mean nothing.
fn random(folder: &Path, mix: Mix) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("half-{}.gguf", mix.name()));
    if !path.exists() {
        std::fs::create_dir_all(folder)?;
        crate::random_model::write(&path, HALF_BILLION, mix)?;
    }
    Ok(path)
}

/// What such a model says greedily soon goes round in a circle, and what it draws never repeats.
fn random_work() -> [Work; 2] {
    let prompt = |seed: usize| (0..64).map(move |at| ((seed * 64 + at) * 7919 % 100_000) as Token);
    let work = |name, temperature| Work {
        name,
        prompts: (0..REQUESTS).map(|seed| prompt(seed).collect()).collect(),
        temperature,
        eos: Vec::new(),
    };
    [work("circle", 0.0), work("noise", 1.0)]
}

fn asked(files: &ModelFiles) -> anyhow::Result<Vec<Work>> {
    let work = |case: &Case| {
        let (prompts, eos) = (case.prompts(files)?, files.eos.clone());
        Ok(Work { name: case.name, prompts, temperature: 0.0, eos })
    };
    CASES.iter().map(work).collect()
}

/// Measures one model.
fn measure(
    model: &str,
    files: &ModelFiles,
    works: &[Work],
    rounds: usize,
    out: &mut Vec<Value>,
) -> anyhow::Result<()> {
    let plan = plan(files)?;
    let mut modes = [mode(files, &plan, 0)?, mode(files, &plan, DRAFTS_MAX)?];
    for (work, batch) in works.iter().flat_map(|work| [1, REQUESTS].map(|batch| (work, batch))) {
        let mut speeds = [Vec::new(), Vec::new()];
        let mut turns = [Turn::default(), Turn::default()];
        // The first round pays for page faults, and teaches what steps cost.
        for round in 0..=rounds {
            for (at, mode) in modes.iter_mut().enumerate() {
                let turn = mode.turn(work, batch)?;
                if round > 0 {
                    speeds[at].push(f64::from(turn.tokens) / turn.seconds);
                    turns[at].add(&turn);
                }
            }
        }
        if turns[0].tokens != turns[1].tokens {
            bail!("drafts changed an answer: {turns:?}");
        }
        let [without, with] = speeds.each_mut().map(|speeds| median(speeds));
        let ratio = with / without;
        let per_step = f64::from(turns[1].tokens) / turns[1].rows as f64;
        let accepted = turns[1].accepted as f64 / turns[1].drafted.max(1) as f64;
        let name = work.name;
        println!(
            "{model:<8} {name:<8} {batch:>5} {without:>12.0} {with:>12.0} {ratio:>6.2} \
             {per_step:>12.2} {accepted:>9.2}"
        );
        out.push(json!({
            "model": model, "answers": name, "batch": batch, "tokens_per_cpu_s": without,
            "drafts_tokens_per_cpu_s": with, "ratio": ratio, "tokens_per_row": per_step,
            "drafted": turns[1].drafted, "accepted": turns[1].accepted,
        }));
    }
    Ok(())
}

impl Case {
    fn prompts(&self, files: &ModelFiles) -> anyhow::Result<Vec<Vec<Token>>> {
        let prompt = |at: usize| {
            let content = self.asks.replace('@', self.about[at % self.about.len()]);
            let chat = ChatInput {
                messages: vec![json!({"role": "user", "content": content})],
                add_generation_prompt: true,
                ..ChatInput::default()
            };
            Ok(files.text.encode(&files.text.render_chat(&chat)?, false)?)
        };
        (0..REQUESTS).map(prompt).collect()
    }
}

fn plan(files: &ModelFiles) -> anyhow::Result<Plan> {
    let options = PlanOptions {
        dtype: Dtype::Auto,
        threads: 1,
        context: Some(1024),
        cache_bytes: None,
        cache_element: None,
        rows_max: REQUESTS,
        step_tokens_max: 512,
    };
    Ok(::engine::plan::plan(files, &options, ::engine::plan::memory_available())?)
}

/// The engine with or without drafts.
struct Mode {
    scheduler: Scheduler<CpuRunner>,
    started: Instant,
    next_id: u64,
}

/// What a turn took and made.
#[derive(Debug, Default)]
struct Turn {
    tokens: u32,
    seconds: f64,
    /// Rows that made them.
    rows: u64,
    drafted: u64,
    accepted: u64,
}

impl Turn {
    fn add(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.seconds += other.seconds;
        self.rows += other.rows;
        self.drafted += other.drafted;
        self.accepted += other.accepted;
    }
}

fn mode(files: &ModelFiles, plan: &Plan, drafts_max: u32) -> anyhow::Result<Mode> {
    let config = Config { prefix_cache: false, drafts_max, ..::engine::scheduler_config(plan) };
    let scheduler = Scheduler::new(::engine::start_cpu(files, plan)?, config);
    Ok(Mode { scheduler, started: Instant::now(), next_id: 0 })
}

impl Mode {
    /// Answers all prompts, so many at once.
    fn turn(&mut self, work: &Work, batch: usize) -> anyhow::Result<Turn> {
        let before = (cpu_seconds(), self.scheduler.stats());
        let mut turn = Turn::default();
        for prompts in work.prompts.chunks(batch) {
            turn.tokens += self.answer(prompts, work)?;
        }
        let stats = self.scheduler.stats();
        turn.seconds = cpu_seconds() - before.0;
        turn.drafted = stats.tokens_drafted - before.1.tokens_drafted;
        turn.accepted = stats.tokens_accepted - before.1.tokens_accepted;
        turn.rows = u64::from(turn.tokens) - turn.accepted;
        Ok(turn)
    }

    fn answer(&mut self, prompts: &[Vec<Token>], work: &Work) -> anyhow::Result<u32> {
        let (mut inbox, mut outbox) = (VecDeque::new(), Vec::new());
        for prompt in prompts {
            self.next_id += 1;
            let mut request = Request::greedy(RequestId(self.next_id), prompt.clone(), MADE);
            request.stop_tokens.clone_from(&work.eos);
            request.sampling.temperature = work.temperature;
            request.sampling.seed = prompt.iter().map(|&token| u64::from(token)).sum();
            inbox.push_back(Command::Submit(Box::new(request)));
        }
        let mut tokens = 0;
        loop {
            let now = self.started.elapsed().as_micros() as u64;
            let progress = self.scheduler.tick(now, &mut inbox, &mut outbox);
            for event in outbox.drain(..) {
                match event {
                    Event::Token { .. } => tokens += 1,
                    Event::Refused(_, why, _) => bail!("a request was refused: {why:?}"),
                    _ => {}
                }
            }
            if matches!(progress, Progress::Idle { .. }) {
                return Ok(tokens);
            }
        }
    }
}
