//! Requests of Anthropic's Messages.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Bodies, hearth_fuzz::requests::messages);
