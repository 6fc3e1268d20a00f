//! `hearth restore FILE`: fills a database from a backup, all of it or nothing.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Instant;

use govern::backup::restore;

use super::backup::{Place, summary};
use super::exit::{self, Outcome};
use crate::governing;

/// Flags of `hearth restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Stop every server that uses the database first. Secrets stay sealed: the server needs the master \
key that it had.")]
pub struct Args {
    /// The backup; `-`: standard input
    #[arg(value_name = "FILE")]
    from: PathBuf,
    #[command(flatten)]
    place: Place,
    /// Put the backup in the place of what the database holds
    #[arg(long)]
    replace: bool,
}

/// Restores, and says what came back.
///
/// # Errors
/// The backup is damaged, or the database is in use, not empty or not there.
pub fn run(args: &Args) -> Outcome {
    let begun = Instant::now();
    let (url, folder) = args.place.find()?;
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let runtime = super::runtime(1)?;
    let from_input = args.from == Path::new("-");
    let file = if from_input { None } else { Some(File::open(&args.from)) };
    let file = file.transpose().map_err(|error| exit::usage(failed(&args.from, error)))?;
    if let Some(folder) = folder {
        let made = governing::make(&folder);
        made.map_err(|error| exit::cannot_write(failed(&folder, error)))?;
    }
    let rows = match file {
        Some(file) => runtime.block_on(restore(BufReader::new(file), &url, args.replace)),
        None => runtime.block_on(restore(std::io::stdin().lock(), &url, args.replace)),
    }?;
    exit::print(&summary("restored", &rows, begun))
}
