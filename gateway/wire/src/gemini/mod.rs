//! Google's dialect: `generateContent`, `streamGenerateContent`, `countTokens` and models, as the
//! Gemini API and Vertex AI speak it. The model and the method are in the path. Requests are
//! brought to one form by `proto` and read by `request`, `contents`, `part`, `tools`, `config` and
//! `schema`; what is accepted, ignored or refused by name stands in the tables of `policy`.
//! Answers are written by `answer` and `stream`; as a provider's they are read by `read`, after
//! requests that `render` writes. How signatures find their way back is told in `seal`.

mod answer;
mod calls;
mod chunk;
mod config;
mod contents;
mod part;
mod policy;
mod proto;
mod read;
mod render;
mod request;
mod schema;
mod seal;
mod stream;
mod tools;
mod turns;

pub use answer::{answer, error, model, models};
pub use read::{Reader, read_answer, read_error};
pub use render::render;
pub use request::{Method, count_answer, parse, parse_count, parse_forward, route};
pub use seal::{bare_id, is_googles};
pub use stream::{Array, Framing, Writer};
