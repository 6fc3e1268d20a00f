//! Options of answers that are given again.

use std::time::Duration;

use super::options::{Opt, one};
use super::{Config, Secret, values};

/// `[cache]`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Caching {
    /// Answers are given again.
    pub enabled: bool,
    /// Requests too whose answers are drawn by chance.
    pub any: bool,
    /// For how long.
    pub ttl: Duration,
    /// Bytes of all answers in memory.
    pub bytes_max: usize,
    /// What several gateways share.
    pub redis: Option<Secret>,
}

/// What must hold between these options; an error names the option.
pub(super) fn check(config: &Config) -> Result<(), (&'static str, &'static str)> {
    let Config { cache, data, .. } = config;
    if cache.redis.is_some() && !cache.enabled {
        return Err(("cache.redis", "cache.enabled is not set, so nothing would be shared"));
    }
    if cache.redis.is_some() && data.is_none() {
        return Err((
            "cache.redis",
            "store.data is missing: what is shared is sealed with its key",
        ));
    }
    if cache.any && !cache.enabled {
        return Err(("cache.any", "cache.enabled is not set, so there is no cache"));
    }
    Ok(())
}

fn truth(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{text}` is neither `true` nor `false`")),
    }
}

pub(super) const ENABLED: Opt = Opt {
    key: "cache.enabled",
    env: "HEARTH_CACHE_ENABLED",
    flag: "cache-enabled",
    value: "BOOL",
    default: "false",
    list: false,
    doc: "Answers are given again to the same request of the same project, and one under way is \
          joined (docs/caching.md). Only where `temperature` is 0 or a `seed` is given.",
    set: |c, t| one(&mut c.cache.enabled, t, truth),
};

pub(super) const ANY: Opt = Opt {
    key: "cache.any",
    env: "HEARTH_CACHE_ANY",
    flag: "cache-any",
    value: "BOOL",
    default: "false",
    list: false,
    doc: "Requests too whose answers are drawn by chance: the same one gets the same answer.",
    set: |c, t| one(&mut c.cache.any, t, truth),
};

pub(super) const TTL: Opt = Opt {
    key: "cache.ttl",
    env: "HEARTH_CACHE_TTL",
    flag: "cache-ttl",
    value: "TIME",
    default: "10m",
    list: false,
    doc: "How long an answer is given again.",
    set: |c, t| one(&mut c.cache.ttl, t, |s| values::time(s, 100, 30 * 86_400_000)),
};

pub(super) const BYTES_MAX: Opt = Opt {
    key: "cache.bytes_max",
    env: "HEARTH_CACHE_BYTES_MAX",
    flag: "cache-bytes-max",
    value: "SIZE",
    default: "64MiB",
    list: false,
    doc: "Memory for answers; the one unused for longest goes first. One longer than a sixteenth \
          of it is not kept.",
    set: |c, t| one(&mut c.cache.bytes_max, t, |s| values::size_usize(s, 1 << 16, 1 << 36)),
};

pub(super) const REDIS: Opt = Opt {
    key: "cache.redis",
    env: "HEARTH_CACHE_REDIS",
    flag: "cache-redis",
    value: "URL",
    default: "",
    list: false,
    doc: "Redis or Valkey where several gateways share answers, sealed with their master key. May \
          hold a password: prefer the variable. Empty: each gateway for itself.",
    set: |c, t| one(&mut c.cache.redis, t, values::redis_or_none),
};
