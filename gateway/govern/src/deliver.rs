//! What leaves this machine by itself: alerts to people, the audit to other places. Here is what of
//! it is a function of its inputs: what an alert says, when the next try is due, whether what is
//! exported follows what was exported before. Sockets are not known here.

pub mod backoff;
pub mod notice;
pub mod place;

pub use backoff::pause;
pub use notice::{Notice, Reached};
pub use place::Place;
