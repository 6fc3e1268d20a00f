//! Providers' streams of Anthropic's Messages.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Streams, hearth_fuzz::streams::messages);
