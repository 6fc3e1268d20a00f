//! OpenAI's Responses: a list of items in, a list of items out, and a conversation that the server
//! may keep. A request is parsed by [`parse`] and its relatives ([`Request`]), items become
//! messages in `items`, with their texts in `content` and their seals in `seal`; what is accepted
//! or refused by name stands in the tables of `policy`. The answer is one [`Response`], written
//! whole or, by [`Writer`], as a stream. A request that a provider of this dialect gets as it came
//! is a [`Passing`], and its answer [`Passed`]. [`Reader`] and [`render()`] are the wire's other
//! side.
//!
//! Nothing is kept here: where a request goes on with an earlier response, whoever keeps those
//! hands their items to [`Request::join`]. Conversations have routes of their own
//! ([`conversations`]).

mod beyond;
mod content;
pub mod conversations;
mod echo;
mod events;
mod items;
mod keeping;
mod outline;
mod output;
mod passed;
mod passing;
mod policy;
mod read;
mod render;
mod request;
mod response;
mod rest;
mod seal;
mod stream;
mod tools;

pub use crate::openai::answer::error;
pub use crate::openai::read_error;
pub use echo::Echo;
pub use items::{references, resolve};
pub use keeping::Keeping;
pub use outline::Outline;
pub use passed::Passed;
pub use passing::{Before, Passing, Seals, Whom};
pub use read::{Reader, read_answer};
pub use render::render;
pub use request::{Request, parse, parse_count, parse_forward};
pub use response::{Response, Status, answer, count_answer, deleted, item_list, shown, shown_item};
pub use rest::{Begun, Place};
pub use stream::Writer;

/// Makes an id that was never made before and begins with the prefix and `_`: `msg` gives
/// `msg_...`.
pub type Ids<'a> = dyn FnMut(&str) -> String + Send + 'a;
