//! The plain data that crosses the scheduler's seams: requests and commands come in from the
//! gateway, events go back, batches go down to an engine, step outputs come up.
//! Nothing here holds a lock, a channel, a clock or a device type.

mod batch;
mod event;
mod request;

pub use batch::{
    Batch, Engine, Fault, Logits, Logprobs, PageGrant, PromptLogprobs, Row, RowStart, Sample,
    StepOutput,
};
pub use event::{Event, Finish, Refusal, Usage};
pub use request::{Command, Made, Request, RequestId, Sampling};

/// A token id. Vocabularies of today end below 2^18, so 32 bits are plenty.
pub type Token = u32;

/// Time since an arbitrary start, in microseconds. The caller owns the clock.
pub type Micros = u64;

/// Tokens in one KV page: the granularity of allocation, of sharing and of content hashes.
pub const PAGE_TOKENS: usize = 16;
