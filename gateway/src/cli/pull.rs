//! `hearth pull org/name[@revision]`.

use super::exit::{self, Failure, Outcome};
use crate::config::source::{is_name, is_repo};
use crate::pull::{Hub, PullError};

/// Flags of `hearth pull`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model, `org/name` or `org/name@revision`
    model: String,
    /// Only weights whose name matches, with `*` for any characters; may be repeated
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
}

/// Fetches the model and prints where it lies.
///
/// # Errors
/// It could not be fetched; the message says what to do.
pub fn run(args: &Args) -> Outcome {
    let (repo, revision) = args.model.split_once('@').unwrap_or((&args.model, "main"));
    if !is_repo(repo) || !is_name(revision) {
        return Err(exit::usage(format!("`{}` is not org/name or org/name@revision", args.model)));
    }
    let hub = Hub::from_env(|name| std::env::var(name).ok());
    let runtime = super::runtime(2)?;
    let snapshot = runtime.block_on(hub.pull(repo, revision, &args.include))?;
    exit::print(&format!("{}\n", snapshot.display()))
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        let text = error.to_string();
        match error {
            PullError::NotFound { .. } | PullError::Offline(_) | PullError::Network(_) => {
                exit::unavailable(text)
            }
            PullError::Damaged { .. } => exit::data(text),
            PullError::Disk { .. } => exit::cannot_write(text),
            PullError::Choose(_) => exit::usage(text),
        }
    }
}
