//! TLS, certificates of clients and trusted proxies, through the real binary.

mod authority;
mod certificates;
mod house;
mod proxies;
mod server;
