//! `hearth bench engine`: how fast the engine runs a model on this machine's device, without a
//! server and without its weights: random ones take the same time.

use std::path::PathBuf;
use std::process::Command;

use clap::FromArgMatches as _;
use clap::builder::PossibleValuesParser;
use nvml_wrapper::Nvml;
use serde_json::{Value, json};

use super::append;
use crate::cli::exit::{self, Outcome};
use crate::config::{Config, Flags};
use crate::wiring::bench::{self, Subject, Wanted};
use crate::wiring::{self, WiringError};

/// Flags of `hearth bench engine`. Without --batch, --prompts, --mixed and --throughput it
/// measures batches of 1 to 256 and prompts of 2048 and 8192 tokens.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct EngineArgs {
    /// The shape of a known model, with random weights
    #[arg(long, value_name = "NAME", required_unless_present = "model")]
    #[arg(value_parser = PossibleValuesParser::new(bench::shape_names()))]
    shape: Option<String>,
    /// A model folder or a GGUF file
    #[arg(long, short, value_name = "PATH", conflicts_with_all = ["shape", "weights", "dtype"])]
    model: Option<PathBuf>,
    /// How the weights of --shape are made
    #[arg(long, value_name = "HOW", default_value = "random")]
    #[arg(value_parser = PossibleValuesParser::new(["random"]))]
    weights: String,
    /// What the matrices of --shape are stored in
    #[arg(long, value_name = "TYPE", default_value = "bf16")]
    #[arg(value_parser = PossibleValuesParser::new(bench::dtypes()))]
    dtype: String,
    /// Sequences that decode at once, each a measurement
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = count)]
    batch: Vec<usize>,
    /// Tokens of each sequence before it decodes
    #[arg(long, value_name = "TOKENS", default_value = "1024", value_parser = count)]
    context: usize,
    /// Decode steps that are timed
    #[arg(long, value_name = "N", default_value = "64", value_parser = count)]
    steps: usize,
    /// Prompts timed alone: their tokens
    #[arg(long, value_name = "TOKENS,...", value_delimiter = ',', value_parser = count)]
    prompts: Vec<usize>,
    /// Prompts of so many tokens arrive while 32 sequences decode
    #[arg(long, value_name = "TOKENS", num_args = 0..=1, default_missing_value = "8192")]
    #[arg(value_parser = count)]
    mixed: Option<usize>,
    /// Requests all at once: tokens of each prompt, tokens made for it, requests
    #[arg(long, value_name = "IN,OUT,N", value_parser = throughput)]
    throughput: Option<Throughput>,
    /// `auto`, `cpu` or `cuda:N`
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Type of keys and values: `auto` or `fp8`
    #[arg(long, value_name = "TYPE")]
    cache_dtype: Option<String>,
    /// Tokens computed in one step at most [default: as `hearth serve`]
    #[arg(long, value_name = "N")]
    step_tokens: Option<String>,
    /// Writes the figures as one JSON line to this file, behind what it holds
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Tokens of prompts, tokens made, requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Throughput([usize; 3]);

/// Far above what any measurement needs; products of two stay small.
const COUNT_MAX: usize = 1 << 20;

fn count(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(n) if (1..=COUNT_MAX).contains(&n) => Ok(n),
        _ => Err(format!("a whole number from 1 to {COUNT_MAX} is wanted")),
    }
}

fn throughput(text: &str) -> Result<Throughput, String> {
    let numbers = text.split(',').map(count).collect::<Result<Vec<_>, _>>()?;
    let three = <[usize; 3]>::try_from(numbers);
    three.map(Throughput).map_err(|_| "three numbers are wanted, such as 1000,1000,512".to_owned())
}

impl EngineArgs {
    fn subject(&self) -> Subject {
        match (&self.shape, &self.model) {
            (Some(shape), _) => Subject::Shape(shape.clone(), self.dtype.clone()),
            (None, Some(path)) => Subject::Path(path.clone()),
            (None, None) => unreachable!("clap asks for one of the two"),
        }
    }

    fn wanted(&self) -> Wanted {
        let (mut batches, mut prompts) = (self.batch.clone(), self.prompts.clone());
        let all = self.mixed.is_none() && self.throughput.is_none();
        if all && batches.is_empty() && prompts.is_empty() {
            (batches, prompts) = (vec![1, 8, 32, 128, 256], vec![2048, 8192]);
        }
        Wanted {
            batches,
            context: self.context,
            steps: self.steps,
            prompts,
            mixed: self.mixed,
            throughput: self.throughput.map(|Throughput(numbers)| numbers),
        }
    }

    /// The options that `hearth serve` has too, with the same checks, variables and file.
    fn config(&self) -> Result<Config, exit::Failure> {
        let given = [
            ("--device", &self.device),
            ("--cache-dtype", &self.cache_dtype),
            ("--step-tokens", &self.step_tokens),
        ];
        let words = given.into_iter().filter_map(|(flag, value)| Some((flag, value.as_ref()?)));
        let words = words.flat_map(|(flag, value)| [flag.to_owned(), value.clone()]);
        let command = clap::Command::new("bench").no_binary_name(true);
        let command = <Flags as clap::Args>::augment_args(command);
        let flags = command
            .try_get_matches_from(words)
            .and_then(|matches| Flags::from_arg_matches(&matches))
            .map_err(|error| exit::usage(error.to_string()))?;
        Ok(Config::load(&flags, std::env::vars())?.config)
    }
}

/// Measures, prints the figures as they come, and writes them down.
///
/// # Errors
/// The model does not open, fit or start, or the engine failed on the way.
pub(super) fn run(args: &EngineArgs) -> Outcome {
    let config = args.config()?;
    let target = wiring::Target::choose(&config)?;
    let (subject, wanted) = (args.subject(), args.wanted());
    let title = match &subject {
        Subject::Shape(shape, dtype) => format!("{shape}, random weights in {dtype}"),
        Subject::Path(path) => path.display().to_string(),
    };
    exit::print(&format!("{title}\ndevice      {target}\n"))?;
    // Who closed the pipe still gets the file.
    let mut line = |text: &str| drop(exit::print(text));
    let report = bench::run(&config, &target, (&subject, &wanted), &mut line)
        .map_err(|error: WiringError| exit::Failure::from(error))?;
    if let Some(path) = &args.json {
        append(path, &stamped(report.json))?;
    }
    report.failed.map_or(Ok(()), |why| Err(exit::internal(format!("broken off: {why}"))))
}

/// With what it takes to compare figures of different days.
fn stamped(figures: Value) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let driver = Nvml::init().and_then(|nvml| nvml.sys_driver_version()).ok();
    let mut line = json!({
        "bench": "engine", "commit": commit(), "driver": driver,
        "unix_s": now.map_or(0, |time| time.as_secs()),
    });
    if let (Value::Object(line), Value::Object(figures)) = (&mut line, figures) {
        line.extend(figures);
    }
    line
}

/// Of the tree that is measured: `HEARTH_COMMIT` where it travels without its history.
fn commit() -> Option<String> {
    if let Ok(named) = std::env::var("HEARTH_COMMIT") {
        return Some(named);
    }
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let output = git.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
