//! JSON Schemas: what is refused and how, and that what is accepted is held to, byte by byte.

#[path = "schema/cases.rs"]
mod cases;
#[path = "schema/engine.rs"]
mod engine;
#[path = "schema/hostile.rs"]
mod hostile;
#[path = "schema/keywords.rs"]
mod keywords;
#[path = "schema/numbers.rs"]
mod numbers;
#[path = "schema/suite.rs"]
mod suite;
