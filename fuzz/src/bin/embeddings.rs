//! Requests of embeddings and scores.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Bodies, hearth_fuzz::requests::embeddings);
