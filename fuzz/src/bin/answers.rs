//! Providers' whole answers and errors, in every dialect.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::Bodies, hearth_fuzz::streams::answers);
