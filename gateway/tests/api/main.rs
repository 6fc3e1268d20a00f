//! The HTTP surface over a scripted engine: what a client sees, byte for byte, without a model.

mod chunks;
mod client;
mod crowds;
mod errors;
mod fake;
mod golden;
mod lifecycle;
mod overhead;
mod pooling;
mod reader;
mod tools;
