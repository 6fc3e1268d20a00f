//! `hearth admin`: keys, teams, budgets, usage and audit of a running server, through its admin
//! API. It decides nothing: what it prints is what the server answers. `recover` and `secrets` are
//! for the machine itself, where no server runs.

mod audit;
mod bodies;
mod budgets;
mod client;
mod explain;
mod keys;
mod policy;
mod prices;
mod recover;
mod secrets;
pub(super) mod show;
mod tree;
mod usage;

use std::path::PathBuf;

use clap::Subcommand;
use govern::Governor;

use super::exit::{self, Failure, Outcome};
use crate::config::{Config, Flags, Secret};
use crate::governing;
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
    /// List, read and erase recorded texts of requests and answers
    #[command(subcommand)]
    Bodies(bodies::Bodies),
    /// Try changes on the requests in the ledger
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Say why a request would be served, or not
    Explain(explain::Explain),
    /// Make a key that may do everything, where the first one was lost and no server runs
    Recover(House),
    /// Seal everything with a new master key, while no server runs
    #[command(subcommand)]
    Secrets(secrets::Secrets),
}

/// Does one thing.
///
/// # Errors
/// The server is not there, or refuses.
pub fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Recover(house) => recover::run(house),
        Command::Secrets(command) => command.run(),
        _ => through_server(args),
    }
}

fn through_server(args: &Args) -> Outcome {
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
            Command::Bodies(command) => command.run(&client).await,
            Command::Policy(command) => command.run(&client).await,
            Command::Explain(command) => command.run(&client).await,
            Command::Recover(_) | Command::Secrets(_) => unreachable!("these need no server"),
        }
    })
}

/// Where the database of a server lies that does not run.
#[derive(Debug, clap::Args)]
struct House {
    /// The server's folder [default: store.data of the configuration]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Configuration file [default: hearth.toml here, when there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl House {
    /// The server's configuration.
    fn config(&self) -> Result<(Config, PathBuf), Failure> {
        let flags = Flags::of_file(self.config.clone());
        let flags = match &self.data {
            Some(data) => flags.and("store.data", data.display().to_string()),
            None => flags,
        };
        let config = Config::load(&flags, std::env::vars())?.config;
        let Some(data) = config.data.clone() else {
            return Err(exit::usage("which folder? Name it with --data or HEARTH_DATA"));
        };
        if !data.join("journal").exists() {
            let why = format!("{}: no server has kept anything there", data.display());
            return Err(exit::usage(why));
        }
        Ok((config, data))
    }

    /// Its governor, for this process alone.
    async fn open(&self, config: &Config) -> Result<Governor, Failure> {
        match governing::open(config).await {
            Ok(Some((governor, _))) => Ok(governor),
            Ok(None) => Err(exit::usage("which folder? Name it with --data or HEARTH_DATA")),
            Err(error) => {
                let text = format!("{error}. Stop the server first, if one runs");
                Err(exit::environment(text))
            }
        }
    }
}
