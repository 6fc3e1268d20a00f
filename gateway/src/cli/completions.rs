//! `hearth completions bash|zsh|fish`.

use clap::Command;
use clap_complete::Shell;

use super::exit::{self, Outcome};

/// Flags of `hearth completions`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "bash: hearth completions bash > ~/.local/share/bash-completion/completions/hearth"
)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Writes the script for `command`.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &Args, command: &mut Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "hearth", &mut script);
    exit::print(&String::from_utf8_lossy(&script))
}
