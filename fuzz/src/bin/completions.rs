//! Requests of plain completions, tokens and adapters.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Bodies, hearth_fuzz::requests::completions);
