//! How long a provider may take where its section says nothing. The page of providers and
//! `hearth providers NAME` tell these very numbers.

use std::time::Duration;

/// For a connection, name, proxy and TLS included.
pub const CONNECT: Duration = Duration::from_secs(5);

/// To the head of an answer, and to a stream's next event: models that think are silent for long.
pub const FIRST_BYTE: Duration = Duration::from_secs(300);

/// Without a byte in the middle of an answer.
pub const IDLE: Duration = Duration::from_secs(120);

/// To the end of an answer that is no stream.
pub const TOTAL: Duration = Duration::from_secs(600);

/// To the end of a stream.
pub const STREAM: Duration = Duration::from_secs(3600);

/// All of them, by the options that say otherwise.
pub const ALL: [(&str, Duration); 5] = [
    ("connect_timeout", CONNECT),
    ("first_byte_timeout", FIRST_BYTE),
    ("idle_timeout", IDLE),
    ("total_timeout", TOTAL),
    ("stream_timeout", STREAM),
];

/// What counts where this option is absent; `None`: it is no time.
#[must_use]
pub fn usual(option: &str) -> Option<Duration> {
    ALL.iter().find(|(name, _)| *name == option).map(|(_, time)| *time)
}
