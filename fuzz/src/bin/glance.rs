//! Bodies of which a part is read.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Bodies, hearth_fuzz::requests::glance);
