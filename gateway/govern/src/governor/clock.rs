//! Where the time comes from: the system, or a test.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::Millis;

/// A clock.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system's.
    #[default]
    System,
    /// One that a test sets.
    Set(Arc<AtomicI64>),
}

impl Clock {
    /// Milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> Millis {
        match self {
            Self::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
            }
            Self::Set(time) => time.load(Ordering::SeqCst),
        }
    }

    /// Microseconds of a clock that nobody sets, from a beginning of its own.
    #[must_use]
    pub fn micros(&self) -> i64 {
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        match self {
            Self::System => {
                let since = BEGIN.get_or_init(Instant::now).elapsed().as_micros();
                i64::try_from(since).unwrap_or(i64::MAX)
            }
            Self::Set(_) => self.now().saturating_mul(1000),
        }
    }
}
