//! Budgets in memory. [`books`] is the only place where money is granted: what was spent and what
//! is held never exceed a hard limit, whoever asks at the same time.

pub mod books;
pub mod window;

pub use books::{Books, Hold, Payer, Refusal};
