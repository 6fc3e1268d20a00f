//! The binary `hearth`. This file only says what there is; each command has a file in `cli`.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use gateway::allocator::Allocator;
use gateway::cli::{
    admin, backup, bench, chat, completions, doctor, exit, inspect, kernels, migrate, node, plan,
    providers, pull, quantize, restore, route, serve,
};
use gateway::config::reference;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Serves language models on your own machines.
#[derive(Parser)]
#[command(name = "hearth", version, max_term_width = 100, propagate_version = true)]
#[command(after_help = "Start with `hearth serve`, then `hearth chat` in another terminal.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve models over HTTP, for OpenAI clients
    Serve(serve::Args),
    /// Make tokens for gateways on other machines
    Node(node::Args),
    /// Talk to a served model in this terminal
    Chat(chat::Args),
    /// Administer keys, teams, budgets, usage, audit of a running server
    Admin(Box<admin::Args>),
    /// Write all that the database holds into one file, while the server runs
    Backup(backup::Args),
    /// Fill a database from a backup
    Restore(restore::Args),
    /// Copy everything from one database to another: SQLite to PostgreSQL, or back
    Migrate(migrate::Args),
    /// Fetch a model from a hub into the cache that Python tools share
    Pull(pull::Args),
    /// Say what a model will take, without loading it
    Plan(plan::Args),
    /// List the kinds of providers that can answer beside this machine
    Providers(providers::Args),
    /// Say who would answer a request
    Route(route::Args),
    /// Describe a model: family, size, formats, tokenizer, what it will take
    Inspect(inspect::Args),
    /// Write a smaller GGUF file of a model
    Quantize(quantize::Args),
    /// Compile the GPU kernels ahead
    Kernels(kernels::Args),
    /// Measure a server or an engine
    Bench(Box<bench::Args>),
    /// Check this machine and say what to do
    Doctor(doctor::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the reference page of all options
    #[command(hide = true)]
    ConfigReference {
        /// As a configuration file with every default
        #[arg(long)]
        toml: bool,
    },
}

fn main() -> ExitCode {
    // First of all: whoever opens a TLS connection later needs a provider to be there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::of_clap(&error),
    };
    exit::of(match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Node(args) => node::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Admin(args) => admin::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Providers(args) => providers::run(&args),
        Command::Route(args) => route::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Kernels(args) => kernels::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args, &mut Cli::command()),
        Command::ConfigReference { toml: false } => exit::print(&reference::page()),
        Command::ConfigReference { toml: true } => exit::print(&reference::file()),
    })
}
