//! The admin API over a real governor on a real file: who may do what, and that nobody learns of
//! what is not theirs; the command line against it.

mod command;
mod documents;
mod idempotency;
mod inputs;
mod keys;
mod lists;
mod money;
mod policy;
mod rights;
mod things;
mod world;
