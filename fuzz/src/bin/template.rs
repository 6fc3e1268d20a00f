//! Chat templates.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Templates, hearth_fuzz::texts::template);
