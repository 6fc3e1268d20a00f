//! `bench`: runs the benchmarks and records them. `make bench ARGS="engine --peer DIR"`.

use std::io::stdout;
use std::path::{Path, PathBuf};

use benches::random_model::Mix;
use benches::{
    demo, engine, formats, gateway, govern, grammar, kernels, load, overhead, record, runner,
    scheduler, speculation,
};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::json;

#[derive(Parser)]
#[command(about = "Runs Hearth's benchmarks and appends the figures to benches/results")]
struct Args {
    #[command(subcommand)]
    what: What,
    /// Print only.
    #[arg(long, global = true)]
    no_record: bool,
}

#[derive(Subcommand)]
enum What {
    /// Everything below, without a peer.
    All,
    /// Matrix products by format and batch size; with a peer every quantized format beside it.
    Kernels {
        /// Folder of llama.cpp's benchmarks, as benches/peers/llama_cpp.sh leaves it (DIR/bin).
        #[arg(long)]
        peer: Option<PathBuf>,
    },
    /// Cost of `Scheduler::tick`.
    Scheduler,
    /// Host time per decode step outside the kernels.
    Runner,
    /// Reservations of money per second, with SQLite on disk.
    Govern,
    /// What governing costs a request: the release binary with and without it, in one run.
    Overhead {
        /// The binary; by default the one built beside this program.
        #[arg(long)]
        hearth: Option<PathBuf>,
        /// Turns of each case; the median is reported.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// Requests of each turn.
        #[arg(long, default_value_t = 400)]
        requests: usize,
    },
    /// What the gateway costs in front of a provider, beside nginx and beside nothing.
    Gateway {
        /// The binary; by default the one built beside this program.
        #[arg(long)]
        hearth: Option<PathBuf>,
        /// An earlier one, measured in the same turns; nothing is recorded then.
        #[arg(long)]
        before: Option<PathBuf>,
        /// Only these cases; nothing is recorded then.
        #[arg(long)]
        case: Vec<gateway::Case>,
        /// Turns of each case; the median is reported.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Grammars: compiling a schema, and the mask of each token.
    Grammar {
        /// Folder of a model whose tokenizer is used; by default one of 128k made-up words.
        #[arg(long)]
        tokenizer: Option<PathBuf>,
        /// Answers walked through.
        #[arg(long, default_value_t = 40)]
        answers: usize,
    },
    /// Tokens per CPU-second with and without drafts, on the demo and on random models.
    Speculation {
        /// Turns of each case; the median is reported.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Where the random models are written and kept (1 GB).
        #[arg(long, default_value = "target/bench-models")]
        models: PathBuf,
    },
    /// Start, memory and prefix cache of the release binary with the demo model.
    Demo {
        /// The binary; by default the one built beside this program.
        #[arg(long)]
        hearth: Option<PathBuf>,
    },
    /// Time and memory from a file to a ready model, beside reading the file.
    Load {
        /// Where the models are written and kept (3 GB).
        #[arg(long, default_value = "target/bench-models")]
        models: PathBuf,
        /// Rounds; the median is reported.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Tokens per CPU-second on one thread, with random half-billion-parameter models.
    Engine {
        /// Folder of llama.cpp's benchmarks, as benches/peers/llama_cpp.sh leaves it (DIR/bin).
        #[arg(long)]
        peer: Option<PathBuf>,
        /// Where the models are written and kept (2 GB).
        #[arg(long, default_value = "target/bench-models")]
        models: PathBuf,
        /// Rounds; the median is reported.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Only this mix.
        #[arg(long)]
        mix: Option<MixName>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum MixName {
    Bf16,
    Q8_0,
    Q4KM,
}

fn main() -> anyhow::Result<()> {
    let Args { what, no_record } = Args::parse();
    let record = |bench: &str, figures: &serde_json::Value| {
        if no_record { Ok(()) } else { record::append(bench, figures) }
    };
    match what {
        What::All => {
            kernels::run(&kernels::Options::full(), &mut stdout())?;
            record("scheduler", &tick())?;
            record("runner", &host()?)?;
            record("govern", &reservations()?)?;
            record("grammar", &held(None, 40)?)?;
        }
        What::Kernels { peer: None } => kernels::run(&kernels::Options::full(), &mut stdout())?,
        What::Kernels { peer } => {
            record("formats", &formats::run(&formats::Options::full(), peer.as_deref())?)?;
        }
        What::Scheduler => record("scheduler", &tick())?,
        What::Runner => record("runner", &host()?)?,
        What::Govern => record("govern", &reservations()?)?,
        What::Overhead { hearth, rounds, requests } => {
            let beside = std::env::current_exe()?.with_file_name("hearth");
            let hearth = hearth.unwrap_or(beside);
            let figures = overhead::run(&overhead::Options { hearth, rounds, requests })?;
            println!("{figures:#}");
            record("govern", &figures)?;
        }
        What::Gateway { hearth, before, case, rounds } => {
            let beside = std::env::current_exe()?.with_file_name("hearth");
            let mut options = gateway::Options::full(hearth.unwrap_or(beside), rounds);
            let whole = before.is_none() && case.is_empty();
            options.before = before;
            if !case.is_empty() {
                options.cases = case;
            }
            let figures = gateway::run(&options)?;
            println!("{figures:#}");
            if whole {
                record("gateway", &figures)?;
            }
        }
        What::Grammar { tokenizer, answers } => {
            record("grammar", &held(tokenizer.as_deref(), answers)?)?;
        }
        What::Speculation { rounds, models } => {
            let options = speculation::Options { rounds, models: Some(models) };
            record("speculation", &speculation::run(&options)?)?;
        }
        What::Demo { hearth } => {
            let beside = std::env::current_exe()?.with_file_name("hearth");
            record("demo", &demo::run(&hearth.unwrap_or(beside))?)?;
        }
        What::Load { models, rounds } => {
            let mixes = vec![Mix::Bf16, Mix::Q8_0, Mix::Q4KM];
            let options = load::Options { folder: models, rounds, tiny: false, mixes };
            record("load", &load::run(&options)?)?;
        }
        What::Engine { peer, models, rounds, mix } => {
            let mixes = match mix {
                None => vec![Mix::Q8_0, Mix::Q4KM, Mix::Bf16],
                Some(MixName::Bf16) => vec![Mix::Bf16],
                Some(MixName::Q8_0) => vec![Mix::Q8_0],
                Some(MixName::Q4KM) => vec![Mix::Q4KM],
            };
            let options = engine::Options { folder: models, peer, rounds, tiny: false, mixes };
            record("engine_cpu", &engine::run(&options)?)?;
        }
    }
    Ok(())
}

fn tick() -> serde_json::Value {
    println!("{:>6} {:>8} {:>12} {:>12}", "rows", "waiting", "median us", "p99 us");
    let mut out = Vec::new();
    for (rows, waiting) in [(16, 1000), (64, 1000), (256, 1000), (1024, 1000), (4096, 1000)] {
        let bench = scheduler::run(rows, waiting, 2000);
        let (median, p99) = (bench.median_ns as f64 / 1e3, bench.p99_ns as f64 / 1e3);
        println!("{rows:>6} {waiting:>8} {median:>12.2} {p99:>12.2}");
        out.push(json!({ "rows": rows, "waiting": waiting, "median_us": median, "p99_us": p99 }));
    }
    json!(out)
}

fn reservations() -> anyhow::Result<serde_json::Value> {
    let figures = govern::run(&[1, 16, 256], 5.0, 50_000)?;
    println!("{figures:#}");
    Ok(figures)
}

fn held(tokenizer: Option<&Path>, answers: usize) -> anyhow::Result<serde_json::Value> {
    let figures = grammar::run(tokenizer, answers)?;
    println!("{figures:#}");
    Ok(figures)
}

fn host() -> anyhow::Result<serde_json::Value> {
    let mut out = Vec::new();
    for rows in [1, 16, 64, 256] {
        let figures = runner::run(rows, 32, 500)?;
        println!("{figures}");
        out.push(figures);
    }
    println!("through the CUDA backend:");
    for rows in [1, 16, 64, 256] {
        let mut figures = runner::run_gpu(rows, 32, 500)?;
        figures["device"] = "null".into();
        println!("{figures}");
        out.push(figures);
    }
    Ok(json!(out))
}
