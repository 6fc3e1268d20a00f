//! The binary `hearth-compat`: one model on mistralrs behind OpenAI's chat API, for architectures
//! that Hearth does not run itself. This file only says what there is.

mod api;
mod args;
mod error;
mod model;
mod parts;
mod request;
mod serve;
mod stop;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let outcome = args::Args::parse().check().and_then(|options| {
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        let outcome = runtime.block_on(serve::run(options));
        // A load or an engine thread may still run: nobody waits for it.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("hearth-compat: {message}");
            ExitCode::FAILURE
        }
    }
}
