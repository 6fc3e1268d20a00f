//! Providers' streams of Bedrock's Converse.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Streams, hearth_fuzz::streams::converse);
