//! Headers of safetensors files.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Safetensors, hearth_fuzz::models::safetensors);
