//! Models' answers with calls, in every format.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Calls, hearth_fuzz::texts::calls);
