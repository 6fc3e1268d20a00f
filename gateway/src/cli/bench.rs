//! `hearth bench`: `engine` measures the engine alone; `serve` makes load from many callers and
//! says what they see.
//!
//! Open loop: requests are sent at random times of a given mean rate (a Poisson process) whether
//! or not earlier ones were answered, as strangers do, and latency counts from the moment a
//! request was due. A closed loop slows down with the server and so hides its worst moments.

mod load;
mod local;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use super::exit::{self, Outcome};
use super::http::Server;
use load::Load;
use report::Report;

/// Flags of `hearth bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Load on a server's chat endpoint
    Serve(ServeArgs),
    /// The engine alone, on random weights in the shape of a known model
    Engine(local::EngineArgs),
}

/// Flags of `hearth bench serve`.
#[derive(Debug, Clone, clap::Args)]
struct ServeArgs {
    #[command(flatten)]
    server: Server,
    /// The model [default: the server's first]
    #[arg(long, short, value_name = "NAME")]
    model: Option<String>,
    /// Mean requests per second, at random times; without it a closed loop runs
    #[arg(long, value_name = "X", value_parser = positive)]
    rate: Option<f64>,
    /// Requests in flight at most [default: 8 in a closed loop, 1024 with --rate]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: Option<u16>,
    /// Requests in all
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    requests: u32,
    /// Words of each prompt; the report shows how many tokens they were
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_least_one)]
    input: u32,
    /// Tokens of each answer
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    output: u32,
    /// Lets answers end where the model ends them, instead of at --output
    #[arg(long)]
    natural: bool,
    /// The same seed gives the same prompts at the same times
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Writes the report as one JSON line to this file, behind what it holds
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Goodput counts requests whose first token came within this many milliseconds ...
    #[arg(long, value_name = "MS", default_value_t = 1000.0, value_parser = positive)]
    slo_ttft: f64,
    /// ... and whose other tokens took this many milliseconds on average
    #[arg(long, value_name = "MS", default_value_t = 100.0, value_parser = positive)]
    slo_itl: f64,
}

fn at_least_one(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("a whole number above 0 is wanted".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x > 0.0 && x.is_finite() => Ok(x),
        _ => Err("a number above 0 is wanted".to_owned()),
    }
}

/// Measures and prints what came of it.
///
/// # Errors
/// The server is not there, or not one request was answered; or see [`local::run`].
pub fn run(args: &Args) -> Outcome {
    match &args.what {
        What::Serve(args) => serve(args),
        What::Engine(args) => local::run(args),
    }
}

fn serve(args: &ServeArgs) -> Outcome {
    super::runtime(2)?.block_on(async {
        let connection = args.server.connect()?;
        let model = match args.model.clone() {
            Some(model) => model,
            None => connection.models().await?.into_iter().next().ok_or_else(|| {
                exit::unavailable(
                    "the server has no model of its own yet; try again in a moment, or name one \
                     with --model",
                )
            })?,
        };
        let closed = if args.rate.is_some() { 1024 } else { 8 };
        let load = Load {
            connection,
            model: model.clone(),
            rate: args.rate,
            concurrency: args.concurrency.unwrap_or(closed).into(),
            requests: args.requests,
            input_words: args.input,
            output_tokens: args.output,
            natural: args.natural,
            seed: args.seed,
        };
        let (results, took) = load.run().await;
        let report = Report::new(&results, took, args.slo_ttft, args.slo_itl);
        exit::print(&report.table())?;
        if let Some(path) = &args.json {
            append(path, &report.json(&load.json()))?;
        }
        match results.iter().find_map(|result| result.as_ref().err()) {
            Some(first) if report.answered() == 0 => {
                Err(exit::unavailable(format!("no request was answered. The first: {first}")))
            }
            Some(first) => exit::print(&format!("first error: {first}\n")),
            None => Ok(()),
        }
    })
}

fn append(path: &PathBuf, line: &serde_json::Value) -> Outcome {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| writeln!(file, "{line}"))
        .map_err(|error| exit::cannot_write(format!("{}: {error}", path.display())))
}

/// Milliseconds of a duration.
fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
