//! What the end-to-end tests share: the real `hearth` binary as a child process on a free port.
//!
//! Nothing here imports the gateway: the tests see what a user sees.

pub mod dice;
pub mod fixtures;
pub mod http;
pub mod memory;
pub mod rsa;
pub mod server;
pub mod services;
pub mod simulation;
