//! `hearth providers [NAME]`: the table of kinds, from which nothing is asked over the network.

use super::exit::{self, Outcome};
use crate::upstream::{Kind, kinds::KINDS, reference};

/// Flags of `hearth providers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One kind, with the lines for hearth.toml
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// One JSON object per kind
    #[arg(long)]
    json: bool,
}

/// Prints the table, or one row of it.
///
/// # Errors
/// There is no such kind.
pub fn run(args: &Args) -> Outcome {
    let kinds: Vec<&Kind> = match &args.name {
        None => KINDS.iter().collect(),
        Some(name) => vec![Kind::named(name).ok_or_else(|| {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            exit::usage(format!("there is no kind `{name}`; known are {}", known.join(", ")))
        })?],
    };
    let text = match (&args.name, args.json) {
        (_, true) => kinds.into_iter().map(|kind| format!("{}\n", reference::json(kind))).collect(),
        (None, false) => reference::table(),
        (Some(_), false) => kinds.into_iter().map(reference::details).collect(),
    };
    exit::print(&text)
}
