//! The commands of the binary, one file each, with the same two names in every file: `Args`, what
//! clap reads, and `run`.

pub mod admin;
pub mod backup;
pub mod bench;
pub mod chat;
pub mod completions;
pub mod doctor;
pub mod exit;
mod http;
pub mod inspect;
pub mod kernels;
mod logs;
pub mod migrate;
pub mod node;
pub mod plan;
pub mod providers;
pub mod pull;
pub mod quantize;
pub mod restore;
pub mod route;
pub mod serve;

/// The runtime of a command that talks to the network.
///
/// # Errors
/// The system gives no threads.
fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, exit::Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("gateway")
        .enable_all()
        .build()
        .map_err(|error| exit::internal(format!("the async runtime does not start: {error}")))
}
