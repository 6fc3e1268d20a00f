//! Grammars in EBNF, and stop strings.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Grammars, hearth_fuzz::texts::grammar);
