//! Tokens per CPU-second of the whole engine (scheduler, runner, kernels) on one thread, beside
//! llama.cpp on the same file in the same minutes. CPU time is steadier than wall time on shared
//! machines.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ::engine::model::Dtype;
use ::engine::plan::PlanOptions;
use ::scheduler::types::{Command, Event, Request, RequestId};
use ::scheduler::{Config, Progress, Scheduler};
use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::peer::LlamaCpp;
use crate::random_model::{HALF_BILLION, Mix, Shape, TINY};
use crate::record::{cpu_seconds, median};

/// What is measured.
pub struct Options {
    /// Where the random models are written and kept.
    pub folder: PathBuf,
    /// Folder of llama.cpp's benchmarks; `None` measures only ourselves.
    pub peer: Option<PathBuf>,
    /// Rounds; the median of each figure is reported.
    pub rounds: usize,
    /// A few hundred kilobytes instead of half a billion parameters.
    pub tiny: bool,
    /// Mixes measured.
    pub mixes: Vec<Mix>,
}

/// Requests of one measurement.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    streams: usize,
    prompt: usize,
    made: usize,
    /// What the figure counts.
    counted: Counted,
}

#[derive(Clone, Copy, PartialEq)]
enum Counted {
    Prompt,
    Made,
}

const LOADS: [Load; 4] = [
    Load { name: "prefill_512", streams: 1, prompt: 512, made: 1, counted: Counted::Prompt },
    Load { name: "decode", streams: 1, prompt: 1, made: 64, counted: Counted::Made },
    Load { name: "streams_8", streams: 8, prompt: 36, made: 32, counted: Counted::Made },
    Load { name: "streams_16", streams: 16, prompt: 36, made: 32, counted: Counted::Made },
];

/// Runs all loads on all mixes and prints a table.
///
/// # Errors
/// A model cannot be written or run, or the peer does not start.
pub fn run(options: &Options) -> anyhow::Result<Value> {
    let mut out = serde_json::Map::new();
    println!("{:<8} {:<12} {:>10} {:>10} {:>7}", "weights", "load", "hearth", "llama.cpp", "ratio");
    for mix in &options.mixes {
        let shape = if options.tiny { TINY } else { HALF_BILLION };
        let path = model(&options.folder, shape, *mix, options.tiny)?;
        let mut ours = start(&path, shape.vocab)?;
        let mut figures = serde_json::Map::new();
        for load in LOADS {
            let mut mine = Vec::new();
            let mut theirs = Vec::new();
            for round in 0..options.rounds {
                mine.push(ours.measure(load, round as u64)?);
                if let Some(bin) = &options.peer {
                    theirs.push(peer(&LlamaCpp { bin, model: &path }, load)?);
                }
            }
            let mine = median(&mut mine);
            let theirs = if theirs.is_empty() { f64::NAN } else { median(&mut theirs) };
            println!(
                "{:<8} {:<12} {mine:>10.1} {theirs:>10.1} {:>7.2}",
                mix.name(),
                load.name,
                mine / theirs
            );
            let peer = (!theirs.is_nan()).then_some(theirs);
            let ratio = peer.map(|t| mine / t);
            figures.insert(
                load.name.into(),
                json!({
                    "hearth_tokens_per_cpu_s": mine,
                    "llama_cpp_tokens_per_cpu_s": peer,
                    "ratio": ratio,
                }),
            );
        }
        out.insert(mix.name().into(), Value::Object(figures));
    }
    Ok(Value::Object(out))
}

fn peer(peer: &LlamaCpp<'_>, load: Load) -> anyhow::Result<f64> {
    match (load.streams, load.counted) {
        (1, Counted::Prompt) => peer.single(load.prompt, 0),
        (1, Counted::Made) => peer.single(0, load.made),
        (streams, _) => peer.streams(streams, load.prompt, load.made),
    }
}

fn model(folder: &Path, shape: Shape, mix: Mix, tiny: bool) -> anyhow::Result<PathBuf> {
    let size = if tiny { "tiny" } else { "half" };
    let path = folder.join(format!("{size}-{}.gguf", mix.name()));
    if !path.exists() {
        std::fs::create_dir_all(folder)?;
        crate::random_model::write(&path, shape, mix)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(path)
}

/// An engine on one thread under its scheduler.
struct Ours {
    scheduler: Scheduler<::engine::CpuRunner>,
    vocab: usize,
    started: Instant,
    next_id: u64,
}

fn start(path: &Path, vocab: usize) -> anyhow::Result<Ours> {
    let files = ::engine::open(path)?;
    let options = PlanOptions {
        dtype: Dtype::Auto,
        threads: 1,
        context: Some(2048),
        cache_bytes: None,
        cache_element: None,
        rows_max: 16,
        step_tokens_max: 512,
    };
    let plan = ::engine::plan::plan(&files, &options, ::engine::plan::memory_available())?;
    let runner = ::engine::start_cpu(&files, &plan)?;
    let config = Config {
        prefix_cache: false,
        target_itl_us: 10_000_000,
        // A model of random weights repeats itself: guessing that is no measure of anything.
        drafts_max: 0,
        ..::engine::scheduler_config(&plan)
    };
    let scheduler = Scheduler::new(runner, config);
    Ok(Ours { scheduler, vocab, started: Instant::now(), next_id: 0 })
}

impl Ours {
    /// Tokens per CPU-second.
    fn measure(&mut self, load: Load, seed: u64) -> anyhow::Result<f64> {
        // The first pass of a load pays for page faults.
        self.pass(load, seed)?;
        let repeats = if load.streams == 1 { 3 } else { 2 };
        let before = cpu_seconds();
        for repeat in 0..repeats {
            self.pass(load, seed + repeat + 1)?;
        }
        let tokens = match load.counted {
            Counted::Prompt => load.prompt,
            Counted::Made => load.streams * load.made,
        };
        Ok((repeats as usize * tokens) as f64 / (cpu_seconds() - before))
    }

    fn pass(&mut self, load: Load, seed: u64) -> anyhow::Result<()> {
        let mut inbox = VecDeque::new();
        let mut outbox = Vec::new();
        for stream in 0..load.streams {
            self.next_id += 1;
            let prompt = (0..load.prompt)
                .map(|i| ((seed as usize * 7919 + stream * 104_729 + i * 31) % self.vocab) as u32)
                .collect();
            let request = Request::greedy(RequestId(self.next_id), prompt, load.made as u32);
            inbox.push_back(Command::Submit(Box::new(request)));
        }
        let mut ended = 0;
        while ended < load.streams {
            let now = self.started.elapsed().as_micros() as u64;
            let progress = self.scheduler.tick(now, &mut inbox, &mut outbox);
            for event in outbox.drain(..) {
                match event {
                    Event::End(..) => ended += 1,
                    Event::Refused(_, why, _) => bail!("a request was refused: {why:?}"),
                    _ => {}
                }
            }
            if matches!(progress, Progress::Idle { .. }) && ended < load.streams {
                bail!("the scheduler went idle with requests open");
            }
        }
        Ok(())
    }
}
