//! Requests of rankings.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Bodies, hearth_fuzz::requests::rerank);
