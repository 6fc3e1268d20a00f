//! Providers' streams of OpenAI's chat.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Streams, hearth_fuzz::streams::chat);
