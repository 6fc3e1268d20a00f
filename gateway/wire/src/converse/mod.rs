//! Amazon Bedrock's Converse, spoken to providers alone: requests are written by `render`, answers
//! read by `read`, and the frames in which a stream comes found by [`frames`]. The model's name is
//! in the path.

mod events;
pub mod frames;
mod read;
mod render;
mod turns;

pub use frames::Frames;
pub use read::{Reader, read_answer, read_error};
pub use render::render;
