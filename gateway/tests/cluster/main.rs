//! Gateways and nodes of one cluster, with everything that can go wrong between them: who is let
//! in, what is told, where requests go, and that no answer shows that its node was lost.

#[allow(dead_code, reason = "shared with the tests of the API, which use all of it")]
#[path = "../api/fake.rs"]
mod fake;

#[allow(dead_code, reason = "shared with the tests of the API, which use all of it")]
#[path = "../api/client.rs"]
mod client;

#[allow(dead_code, reason = "shared with the tests of the API, which use all of it")]
#[path = "../api/reader.rs"]
mod reader;

#[allow(dead_code, reason = "shared with the tests of TLS, which use all of it")]
#[path = "../tls/authority.rs"]
mod authority;

mod adapters;
mod allowance;
mod beside;
mod choice;
mod command;
mod demo;
mod door;
mod failing;
mod garbage;
mod gpus;
mod kit;
mod kubernetes;
mod loading;
mod lost;
mod names;
mod poison;
mod read;
mod secret;
mod wire;
