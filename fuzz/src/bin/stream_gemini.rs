//! Providers' streams of Google's generateContent.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Streams, hearth_fuzz::streams::gemini);
