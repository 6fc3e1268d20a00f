//! How a command ends: its exit code (after `sysexits.h`, listed in docs/config.md) and one
//! message that says what to do next.

use std::io::Write as _;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::wiring::WiringError;

/// A command's result.
pub type Outcome = Result<(), Failure>;

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The process's exit code.
    pub code: u8,
    /// For the person at the terminal. Empty: all is said already.
    pub message: String,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(message: impl Into<String>) -> Failure {
            Failure { code: $code, message: message.into() }
        })*
    };
}

kinds! {
    /// A flag, a variable or the configuration file is wrong.
    usage = 64;
    /// A model's files, or a backup, are damaged or of a kind that is not supported.
    data = 65;
    /// Something outside is not there: the server, the hub, a database, a device.
    unavailable = 69;
    /// A fault inside the program.
    internal = 70;
    /// A file cannot be written.
    cannot_write = 73;
    /// This machine cannot do what was asked.
    environment = 78;
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        usage(error.to_string())
    }
}

impl From<WiringError> for Failure {
    fn from(error: WiringError) -> Self {
        let text = error.to_string();
        match error {
            WiringError::Pull(error) => error.into(),
            WiringError::Files(_) => data(text),
            WiringError::Device(_) => unavailable(text),
            WiringError::Plan(_) | WiringError::Start(_) | WiringError::Thread(_) => {
                environment(text)
            }
        }
    }
}

/// Prints the failure, if any, and turns it into the process's exit code.
#[must_use]
pub fn of(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                // Nobody is left to tell when standard error is closed.
                let _ = writeln!(std::io::stderr(), "hearth: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Help and version end well; everything else that clap reports is wrong usage.
#[must_use]
pub fn of_clap(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS }
}

/// Writes a command's product. A reader that went away (`| head`) is no failure.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(cannot_write(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}
