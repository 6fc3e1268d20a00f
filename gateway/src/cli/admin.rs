//! `hearth admin`: keys, teams, budgets, usage and audit of a running server, through its admin
//! API. It decides nothing: what it prints is what the server answers.

mod audit;
mod budgets;
mod client;
mod explain;
mod keys;
mod prices;
mod show;
mod tree;
mod usage;

use clap::Subcommand;

use super::exit::Outcome;
use crate::config::Secret;
use client::Client;

/// Flags of `hearth admin`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A key whose role allows it comes from --key or HEARTH_ADMIN_KEY; the first start of `hearth serve` \
prints one.\n\nA team with $5 a month and a key:\n  \
hearth admin keys create --team research --project bots --label ci --create\n  \
hearth admin budgets create --name research --team research --month 5")]
pub struct Args {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: Command,
}

/// The server, and how its answers are printed.
#[derive(Debug, clap::Args)]
struct Server {
    /// The server
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "HEARTH_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    url: String,
    /// A key that may do this; other users of a machine see command lines, so rather set the
    /// variable
    #[arg(id = "admin_key", long = "key", global = true, value_name = "KEY", env = "HEARTH_ADMIN_KEY",
        hide_env_values = true, value_parser = secret)]
    key: Option<Secret>,
    /// Print what the server answers
    #[arg(long, global = true)]
    json: bool,
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text.trim().to_owned()))
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make, list, rotate and revoke keys
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Make, list and delete teams
    #[command(subcommand)]
    Teams(tree::Teams),
    /// Make, list and delete projects
    #[command(subcommand)]
    Projects(tree::Projects),
    /// Make, list and disable users
    #[command(subcommand)]
    Users(tree::Users),
    /// Make, list, raise and delete budgets
    #[command(subcommand)]
    Budgets(budgets::Budgets),
    /// Put price sheets in force, and list them
    #[command(subcommand)]
    Prices(prices::Prices),
    /// Sum what was used and what it cost
    Usage(usage::Usage),
    /// List, verify and export the audit
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Say why a request would be served, or not
    Explain(explain::Explain),
}

/// Does one thing.
///
/// # Errors
/// The server is not there, or refuses.
pub fn run(args: &Args) -> Outcome {
    let Args { server, command } = args;
    super::runtime(1)?.block_on(async {
        let client = Client::new(&server.url, server.key.as_ref(), server.json)?;
        match command {
            Command::Keys(command) => command.run(&client).await,
            Command::Teams(command) => command.run(&client).await,
            Command::Projects(command) => command.run(&client).await,
            Command::Users(command) => command.run(&client).await,
            Command::Budgets(command) => command.run(&client).await,
            Command::Prices(command) => command.run(&client).await,
            Command::Usage(command) => command.run(&client).await,
            Command::Audit(command) => command.run(&client).await,
            Command::Explain(command) => command.run(&client).await,
        }
    })
}
