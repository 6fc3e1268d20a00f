//! Bedrock's Converse: frames out of any bytes, what a stream and an answer mean, what a model is
//! asked.

mod frames;
mod reading;
mod render;
