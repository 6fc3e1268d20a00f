//! Formats of strings and numbers.
//!
//! The specification lets an implementation treat a format as a remark. One that says which
//! characters a string has is enforced or refused; one that does not is dropped.

/// What a format of strings asks for.
pub(super) enum Format {
    /// The compiler knows it; beside it, an upper bound of the length, in code points.
    Compiler(&'static str, Option<u64>),
    /// A regular expression in the compiler's syntax, for the whole string.
    Pattern(String),
    /// Any string.
    Any,
}

/// Years 1 to 9999: common parsers know no year 0.
const YEAR: &str = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9][0-9]|[0-9][1-9][0-9]{2}|[1-9][0-9]{3})";
/// Days of all years; the compiler's own format has a 29 February each year.
const DAY: &str = "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])\
    |(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))";
/// Every fourth year, of full centuries every fourth.
const LEAP_YEAR: &str = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])\
    |(?:0[48]|[2468][048]|[13579][26])00)";
/// RFC 3339, without leap seconds: few parsers take them. Nanoseconds are the finest in use.
const TIME: &str = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?\
    (?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
/// RFC 4648.
const BASE64: &str = "(?:[A-Za-z0-9+\\/]{4})*(?:[A-Za-z0-9+\\/]{2}==|[A-Za-z0-9+\\/]{3}=)?";
const BASE64_URL: &str = "(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?";

/// Formats that name no characters: a display hint, something about a file's existence, or that
/// there is a pattern.
const ANY: [&str; 8] = [
    "binary",
    "directory-path",
    "ends_with",
    "file-path",
    "includes",
    "password",
    "path",
    "starts_with",
];

/// Formats that zod writes beside the pattern that is their whole meaning.
const PATTERNED: [&str; 15] = [
    "cidrv4",
    "cidrv6",
    "cuid",
    "cuid2",
    "e164",
    "emoji",
    "guid",
    "jwt",
    "ksuid",
    "lowercase",
    "nanoid",
    "regex",
    "ulid",
    "uppercase",
    "xid",
];

/// A format of strings. None: it cannot be enforced.
pub(super) fn text(name: &str, beside_pattern: bool) -> Option<Format> {
    let date = || format!("(?:{YEAR}-{DAY}|{LEAP_YEAR}-02-29)");
    let whole = |pattern: &str| Some(Format::Pattern(format!("^(?:{pattern})$")));
    match name {
        "date" => whole(&date()),
        "time" => whole(TIME),
        "date-time" => whole(&format!("{}T{TIME}", date())),
        "byte" | "base64" => whole(BASE64),
        "base64url" => whole(BASE64_URL),
        "duration" => Some(Format::Compiler("duration", None)),
        // RFC 5321: 64 for the local part, 255 for the domain.
        "email" => Some(Format::Compiler("email", Some(254))),
        "hostname" => Some(Format::Compiler("hostname", Some(253))),
        "ipv4" => Some(Format::Compiler("ipv4", None)),
        "ipv6" => Some(Format::Compiler("ipv6", None)),
        "uuid" => Some(Format::Compiler("uuid", None)),
        "uri" => Some(Format::Compiler("uri", None)),
        _ if ANY.contains(&name) => Some(Format::Any),
        _ if beside_pattern && PATTERNED.contains(&name) => Some(Format::Any),
        _ => None,
    }
}

/// The part of an e-mail address before the `@`, which the compiler does not bound.
pub(super) const LOCAL_PART: &str = "^(?:[^@\\x00]{1,64}@(?s:.)*)$";

/// A format of numbers: its bounds, if it has any. None: it is not one of numbers.
pub(super) fn number(name: &str) -> Option<Option<(f64, f64)>> {
    let signed = |bits: i32| Some(Some((-2_f64.powi(bits - 1), 2_f64.powi(bits - 1) - 1.0)));
    let unsigned = |bits: i32| Some(Some((0.0, 2_f64.powi(bits) - 1.0)));
    match name {
        "float" | "double" => Some(None),
        "int8" => signed(8),
        "int16" => signed(16),
        "int32" => signed(32),
        // Bounds above 2^53 are cut to what the compiler holds.
        "int64" => signed(64),
        "uint8" => unsigned(8),
        "uint16" => unsigned(16),
        "uint32" => unsigned(32),
        "uint64" => unsigned(64),
        _ => None,
    }
}
