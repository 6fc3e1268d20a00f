//! Providers' streams of OpenAI's Responses.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Streams, hearth_fuzz::streams::responses);
