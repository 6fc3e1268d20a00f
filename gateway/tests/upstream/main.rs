//! Providers as a stranger on the other side of the wire sees them: what is sent, what is believed,
//! what is refused.

mod connections;
mod far;
mod pages;
mod refusals;
mod served;
mod signed;
