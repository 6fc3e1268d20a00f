//! `hearth migrate FROM TO`: from SQLite to PostgreSQL, or back.

use std::time::Instant;

use govern::backup::migrate;

use super::backup::{address, summary};
use super::exit::{self, Outcome};

/// Flags of `hearth migrate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Stop the server first, start it with the new database afterwards, and keep its store.data: the \
journal of what was open lies there.\n\n  \
hearth migrate /var/lib/hearth/hearth.db postgres://hearth@db/hearth")]
pub struct Args {
    /// A file of SQLite, or postgres://USER@HOST/NAME; env:NAME where that holds a password
    #[arg(value_name = "FROM")]
    from: String,
    /// The same: a database that holds nothing yet
    #[arg(value_name = "TO")]
    to: String,
    /// Put the copy in the place of what TO holds
    #[arg(long)]
    replace: bool,
}

/// Copies, and says what.
///
/// # Errors
/// A database is in use, not there, or holds something already.
pub fn run(args: &Args) -> Outcome {
    let begun = Instant::now();
    let (from, to) = (address(&args.from)?, address(&args.to)?);
    let rows = super::runtime(1)?.block_on(migrate(&from, &to, args.replace))?;
    exit::print(&summary("copied", &rows, begun))
}
