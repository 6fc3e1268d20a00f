//! Names that several answer to, over providers that fail as they are told to: who is asked, what
//! the caller sees, and who never sees what.

#[allow(dead_code, reason = "shared with the tests of the API, which use all of it")]
#[path = "../api/fake.rs"]
mod fake;

#[allow(dead_code, reason = "shared with the tests of the API, which use all of it")]
#[path = "../api/reader.rs"]
mod reader;

#[allow(dead_code, reason = "shared with the tests of the cluster, which use all of it")]
#[path = "../cluster/wire.rs"]
mod line;

mod amazon;
mod announced;
mod barred;
mod bedrock;
mod breaker;
mod caller;
mod chaos;
mod chosen;
mod command;
mod continued;
mod counted;
mod explain;
mod faults;
mod governed;
mod headers;
mod hedging;
mod kinds;
mod known;
mod labels;
mod large;
mod leaving;
mod listed;
mod mirror;
mod nodes;
mod onward;
mod overflow;
mod paid;
mod passed;
mod pooling;
mod prompts;
mod recorded;
mod seam;
mod several;
mod speech;
mod sticky;
mod strategies;
mod tiers;
mod upstream;
mod vertex;
