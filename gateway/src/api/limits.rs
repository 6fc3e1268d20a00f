//! What one stranger may take: every bound of the HTTP side in one place, asserted against each
//! other where they depend on one another. The engine's own bounds are the scheduler's.

use std::time::Duration;

/// Bounds of the HTTP side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body.
    pub body_bytes_max: usize,
    /// All bodies together that are read or wait to be prepared: some of the largest, thousands as
    /// they usually are.
    pub bodies_bytes_max: usize,
    /// Longest silence while a body is being sent.
    pub body_idle: Duration,
    /// Longest time for a whole body: bytes that trickle hold memory as well as silence does.
    pub body_total: Duration,
    /// Requests between their head and the last byte of their answer. More are told to come back.
    pub requests_max: usize,
    /// Bodies above this are parsed and tokenized on threads made for work that blocks: it takes
    /// milliseconds, in which the runtime's thread would serve nobody else.
    pub inline_bytes_max: usize,
    /// Prompts parsed and tokenized at once on those threads.
    pub heavy_max: usize,
    /// Silence in a stream after which a comment is sent.
    pub ping_every: Duration,
    /// Days that responses and conversations are kept, where an organisation says nothing else.
    pub kept_days: u32,
    /// What one request may ask for.
    pub request: wire::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 8 << 20,
            bodies_bytes_max: 256 << 20,
            body_idle: Duration::from_secs(10),
            body_total: Duration::from_secs(120),
            requests_max: 4096,
            inline_bytes_max: 4 << 10,
            heavy_max: std::thread::available_parallelism().map_or(2, usize::from),
            ping_every: Duration::from_secs(5),
            kept_days: 30,
            request: wire::Limits::default(),
        }
    }
}

impl Limits {
    /// The usual bounds, for bodies of another size.
    #[must_use]
    pub fn for_bodies(body_bytes_max: usize) -> Self {
        let usual = Self::default();
        let bodies_bytes_max = usual.bodies_bytes_max.max(body_bytes_max.saturating_mul(4));
        Self { body_bytes_max, bodies_bytes_max, ..usual }
    }

    /// Asserts the bounds against each other.
    ///
    /// # Panics
    /// A bound makes no sense.
    pub fn check(&self) {
        assert!(self.body_bytes_max > 0 && self.requests_max > 0, "nothing could be served");
        assert!(self.body_bytes_max <= self.bodies_bytes_max, "the largest body has no room");
        assert!(self.body_idle <= self.body_total, "a silence is part of the whole");
        assert!(self.heavy_max > 0, "large prompts would wait forever");
        assert!(!self.ping_every.is_zero(), "comments without end");
        assert!(
            self.request.choices_max <= scheduler::CHOICES_MAX,
            "the scheduler refuses that many choices"
        );
    }
}
