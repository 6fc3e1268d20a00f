//! `hearth quantize IN OUT --to FORMAT`: a smaller file of a model, for any program that reads
//! GGUF.

use std::io::Write as _;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;

use super::exit::{self, Failure, Outcome};
use crate::config::values::physical_cores;
use crate::wiring::quantize::{self, QuantizeError};

/// Flags of `hearth quantize`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a folder in the layout of Hugging Face, or a .gguf file
    #[arg(value_name = "IN")]
    from: PathBuf,
    /// The file to write
    #[arg(value_name = "OUT")]
    to: PathBuf,
    /// The format, or mixture of formats; q4_k_m is a good first choice
    #[arg(long = "to", value_name = "FORMAT", value_parser = PossibleValuesParser::new(quantize::mixtures()))]
    format: String,
    /// Threads [default: one per core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Replace OUT if it is there
    #[arg(long)]
    force: bool,
    /// No line per tensor
    #[arg(long)]
    quiet: bool,
}

/// Writes the file and prints what became of the weights.
///
/// # Errors
/// The source does not open or has no form in GGUF; the target is there or cannot be written.
pub fn run(args: &Args) -> Outcome {
    let threads = args.threads.map_or_else(physical_cores, usize::from);
    let mut line = |text: &str| {
        if !args.quiet {
            // Progress is no product: a closed standard error stops nothing.
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
    };
    let paths = (args.from.as_path(), args.to.as_path());
    let summary = quantize::quantize(paths, &args.format, threads, args.force, &mut line)?;
    exit::print(&summary)
}

impl From<QuantizeError> for Failure {
    fn from(error: QuantizeError) -> Self {
        let text = error.to_string();
        match error {
            QuantizeError::Source(_) => exit::data(text),
            QuantizeError::Target(_) => exit::usage(text),
            QuantizeError::Write(_) => exit::cannot_write(text),
        }
    }
}
