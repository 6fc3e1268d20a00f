//! JSON Schemas.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Schemas, hearth_fuzz::texts::schema);
