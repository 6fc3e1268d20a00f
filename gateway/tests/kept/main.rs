//! What is kept for later requests to go on with, and answers that are given again: over HTTP, with
//! a governor on both databases and without one.

#[allow(dead_code, reason = "shared with the tests of the API, which use all of it")]
#[path = "../api/fake.rs"]
mod fake;

#[allow(dead_code, reason = "shared with the tests of the API, which use all of it")]
#[path = "../api/reader.rs"]
mod reader;

mod background;
mod cache;
mod cache_read;
mod conversations;
mod far;
mod house;
mod passed;
mod responses;
