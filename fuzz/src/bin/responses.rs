//! Requests of OpenAI's Responses and conversations.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Bodies, hearth_fuzz::requests::responses);
