//! Requests of OpenAI's chat.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Bodies, hearth_fuzz::requests::chat);
