//! `hearth providers [NAME]...`: the tables of kinds and models, from which nothing is asked over
//! the network.

use super::exit::{self, Failure, Outcome};
use crate::upstream::{self, Kind, kinds::KINDS, models, reference};

/// Flags of `hearth providers`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A price sheet to begin with, from list prices that bind nobody; look at it before it is set:\n  \
hearth providers openai anthropic --prices > prices.json\n  \
hearth admin prices set prices.json\n\n\
Of a section of hearth.toml that is not called as its kind is ([providers.work]):\n  \
hearth providers work=openai --prices")]
pub struct Args {
    /// Kinds: each with the lines for hearth.toml, and the models that are known of it
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// One JSON object per kind
    #[arg(long)]
    json: bool,
    /// A price sheet of the models that are known, of all kinds or of these
    #[arg(long, conflicts_with = "json")]
    prices: bool,
}

/// Prints the table, rows of it, or a price sheet.
///
/// # Errors
/// There is no such kind, or nothing is known of its models.
pub fn run(args: &Args) -> Outcome {
    if args.prices {
        return prices(&args.names);
    }
    let kinds: Vec<&Kind> = if args.names.is_empty() {
        KINDS.iter().collect()
    } else {
        args.names.iter().map(|name| named(name)).collect::<Result<_, _>>()?
    };
    let text = match (args.names.is_empty(), args.json) {
        (_, true) => kinds.into_iter().map(|kind| format!("{}\n", reference::json(kind))).collect(),
        (true, false) => reference::table(),
        (false, false) => kinds.into_iter().map(reference::details).collect::<Vec<_>>().join("\n"),
    };
    exit::print(&text)
}

fn named(name: &str) -> Result<&'static Kind, Failure> {
    Kind::named(name).ok_or_else(|| {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        exit::usage(format!("there is no kind `{name}`; known are {}", known.join(", ")))
    })
}

fn prices(names: &[String]) -> Outcome {
    let sections: Vec<(&str, &Kind)> = if names.is_empty() {
        KINDS.iter().map(|kind| (kind.name, kind)).collect()
    } else {
        names.iter().map(|name| section(name)).collect::<Result<_, _>>()?
    };
    exit::print(&models::sheet(&sections))
}

/// `KIND`, or `SECTION=KIND`.
fn section(text: &str) -> Result<(&str, &'static Kind), Failure> {
    let (section, kind) = text.split_once('=').unwrap_or((text, text));
    let kind = named(kind)?;
    upstream::check_name(section).map_err(|why| exit::usage(format!("`{section}`: {why}")))?;
    if models::of(kind).next().is_none() {
        return Err(exit::usage(format!("no models of the kind `{}` are known", kind.name)));
    }
    Ok((section, kind))
}
