//! Rates that several gateways share, on a real Redis: what they let in together, and what they do
//! while it is slow, gone or empty. Gateways are [`govern::limit::Limits`] of one process here; the
//! last test has two whole governors.

#[path = "rates/among.rs"]
mod among;
#[path = "rates/house.rs"]
mod house;
#[path = "rates/outage.rs"]
mod outage;
#[path = "rates/places.rs"]
mod places;
#[path = "rates/random.rs"]
mod random;
#[path = "money/shop.rs"]
#[allow(dead_code, reason = "budgets and engines are other tests' business")]
mod shop;
