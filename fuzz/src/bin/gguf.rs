//! Headers of GGUF files.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Gguf, hearth_fuzz::models::gguf);
