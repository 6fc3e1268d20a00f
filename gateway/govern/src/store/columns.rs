//! The columns of tables that are written, read and copied in several places, in the order of the
//! schema.

/// Of the ledger.
pub(crate) const LEDGER: &[&str] = &[
    "operation",
    "attempt",
    "gateway",
    "admitted_at",
    "settled_at",
    "organisation",
    "team",
    "project",
    "user_id",
    "key_id",
    "model",
    "backend",
    "surface",
    "label",
    "price",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_nano_usd",
    "outcome",
    "request_id",
    "source",
    "first_token_ms",
    "duration_ms",
    "device_us",
    "service_tier",
    "arm",
];

/// Of sums over stretches of time: first the [`QUARTERS_ABOUT`] that are the key, then what is
/// summed up.
macro_rules! sums {
    ($stretch:literal) => {
        &[
            $stretch,
            "organisation",
            "team",
            "project",
            "user_id",
            "key_id",
            "model",
            "label",
            "requests",
            "input_tokens",
            "cache_read_tokens",
            "output_tokens",
            "cost_nano_usd",
        ]
    };
}

/// Of the sums over quarters of an hour.
pub(crate) const QUARTERS: &[&str] = sums!("quarter");

/// How many columns say what a sum is about.
pub(crate) const QUARTERS_ABOUT: usize = 8;

/// Of the sums over days.
pub(crate) const DAYS: &[&str] = sums!("day");

/// Of recorded texts.
pub(crate) const BODIES: &[&str] = &[
    "operation",
    "attempt",
    "organisation",
    "user_id",
    "key_id",
    "label",
    "at",
    "expires",
    "bytes",
    "content",
];

/// Of their keys.
pub(crate) const BODY_KEYS: &[&str] =
    &["operation", "attempt", "organisation", "user_id", "at", "expires", "sealed"];

/// Of what later requests go on with.
pub(crate) const KEPT: &[&str] = &[
    "row_id",
    "kind",
    "id",
    "organisation",
    "project",
    "user_id",
    "parent",
    "place",
    "label",
    "at",
    "expires",
    "lost_at",
    "stop",
    "content",
];

/// Of the audit.
pub(crate) const AUDIT: &[&str] =
    &["chain", "number", "at", "kind", "organisation", "body", "previous", "hash"];
