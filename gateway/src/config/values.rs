//! How single values are written: sizes, times, addresses, secrets. Each parser returns
//! what is wrong and what would be right, for a person who has never seen this program.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use govern::Fsync;
use scheduler::DRAFTS_MAX;
use text::tools::Format;

/// Where models run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A GPU when there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// This GPU.
    Cuda(u32),
}

/// Arithmetic of the products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// What the files hold.
    Auto,
    /// float32.
    Float32,
    /// bfloat16.
    Bfloat16,
    /// float16.
    Float16,
}

/// Type of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheDtype {
    /// That of the arithmetic.
    Auto,
    /// e4m3, one byte.
    Fp8,
}

/// Whether tokens are guessed ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speculation {
    /// Where it pays.
    Auto,
    /// Never.
    Off,
    /// Where it pays, so many in a step of a sequence.
    AtMost(u32),
}

/// What a model may take of a GPU's memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GpuMemory {
    /// A share of all of it.
    Share(f64),
    /// So many bytes.
    Size(u64),
}

/// What models are there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// What their files say.
    Auto,
    /// They continue texts.
    Generate,
    /// They make vectors.
    Embed,
    /// They score pairs.
    Rerank,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// A text that must not get into logs: it prints as dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret from elsewhere than the configuration.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

pub(super) fn secret(text: &str) -> Result<Secret, String> {
    if text.len() < 8 {
        return Err("a key needs at least 8 characters; `openssl rand -hex 24` makes one".into());
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a key may hold visible ASCII characters only: it goes into a header".into());
    }
    Ok(Secret(text.to_owned()))
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    // Names are resolved, so that `localhost:8080` works.
    let mut found = text
        .to_socket_addrs()
        .map_err(|_| format!("`{text}` is not an address such as 127.0.0.1:8080 or [::1]:8080"))?;
    found.next().ok_or_else(|| format!("`{text}` has no address"))
}

/// A whole number between two bounds.
pub(super) fn count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let plain = text.replace('_', "");
    match plain.parse::<usize>() {
        Ok(n) if (least..=most).contains(&n) => Ok(n),
        _ => Err(format!("`{text}` is not a whole number between {least} and {most}")),
    }
}

/// `auto` or a value.
pub(super) fn auto<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text == "auto" { Ok(None) } else { parse(text).map(Some) }
}

/// Units of sizes: binary and decimal ones are different things, and both are in use.
const SIZES: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
    ("", 1),
];

/// A number of bytes between two bounds: `16MiB`, `1.5GB`, `4096`.
pub(super) fn size(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let wrong = || {
        format!(
            "`{text}` is not a size between {} and {}; write it like 512MiB or 8GiB",
            show_size(least),
            show_size(most)
        )
    };
    let (number, unit) = split_unit(text);
    let scale = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let (&(_, scale), number) = scale.zip(number).ok_or_else(wrong)?;
    let bytes = scaled(number, scale);
    if (least..=most).contains(&bytes) { Ok(bytes) } else { Err(wrong()) }
}

/// As [`size`], for what is held in memory.
pub(super) fn size_usize(text: &str, least: u64, most: u64) -> Result<usize, String> {
    let bytes = size(text, least, most)?;
    usize::try_from(bytes).map_err(|_| format!("`{text}` is more than this machine can address"))
}

/// Units of times, in milliseconds.
const TIMES: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// A time between two bounds in milliseconds: `250ms`, `30s`, `10m`, `1h`. The unit is required.
pub(super) fn time(text: &str, least_ms: u64, most_ms: u64) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "`{text}` is not a time between {} and {}; write it with its unit, like 250ms, 30s \
             or 10m",
            show_time(Duration::from_millis(least_ms)),
            show_time(Duration::from_millis(most_ms))
        )
    };
    let (number, unit) = split_unit(text);
    let scale = TIMES.iter().find(|(name, _)| *name == unit);
    let (&(_, scale), number) = scale.zip(number).ok_or_else(wrong)?;
    let ms = scaled(number, scale);
    if (least_ms..=most_ms).contains(&ms) { Ok(Duration::from_millis(ms)) } else { Err(wrong()) }
}

fn split_unit(text: &str) -> (Option<f64>, &str) {
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number = text[..end].trim().parse::<f64>().ok();
    (number.filter(|n| n.is_finite() && *n >= 0.0), text[end..].trim())
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the number is finite and not negative; too large saturates and fails its bound"
)]
fn scaled(number: f64, scale: u64) -> u64 {
    (number * scale as f64) as u64
}

/// A size for people: the largest binary unit in which it is at least one.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    let unit = SIZES[..4].iter().rev().find(|(_, scale)| bytes >= *scale);
    match unit {
        Some((name, scale)) if bytes.is_multiple_of(*scale) => format!("{} {name}", bytes / scale),
        Some((name, scale)) => {
            // Tenths in whole numbers: 10 * bytes stays far below 2^64 for sizes of memory.
            let tenths = bytes.saturating_mul(10) / scale;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// A time for people, as it would be written in the file.
#[must_use]
pub fn show_time(time: Duration) -> String {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let unit = TIMES.iter().rev().find(|(_, scale)| ms >= *scale && ms % scale == 0);
    unit.map_or_else(|| format!("{ms}ms"), |(name, scale)| format!("{}{name}", ms / scale))
}

pub(super) fn device(text: &str) -> Result<Device, String> {
    match text {
        "auto" => Ok(Device::Auto),
        "cpu" => Ok(Device::Cpu),
        "cuda" => Ok(Device::Cuda(0)),
        _ => text
            .strip_prefix("cuda:")
            .and_then(|index| index.parse().ok())
            .map(Device::Cuda)
            .ok_or_else(|| format!("`{text}` is not a device; use auto, cpu or cuda:N")),
    }
}

pub(super) fn task(text: &str) -> Result<Task, String> {
    match text {
        "auto" => Ok(Task::Auto),
        "generate" => Ok(Task::Generate),
        "embed" => Ok(Task::Embed),
        "rerank" => Ok(Task::Rerank),
        _ => Err(format!("wanted auto, generate, embed or rerank, found '{text}'")),
    }
}

pub(super) fn dtype(text: &str) -> Result<Dtype, String> {
    match text {
        "auto" => Ok(Dtype::Auto),
        "float32" | "f32" => Ok(Dtype::Float32),
        "bfloat16" | "bf16" => Ok(Dtype::Bfloat16),
        "float16" | "f16" => Ok(Dtype::Float16),
        _ => Err(format!("`{text}` is not one of auto, float32, bfloat16, float16")),
    }
}

pub(super) fn cache_dtype(text: &str) -> Result<CacheDtype, String> {
    match text {
        "auto" => Ok(CacheDtype::Auto),
        "fp8" | "fp8_e4m3" => Ok(CacheDtype::Fp8),
        _ => Err(format!("`{text}` is not one of auto, fp8")),
    }
}

pub(super) fn fsync(text: &str) -> Result<Fsync, String> {
    match text {
        "always" => Ok(Fsync::Always),
        "everysec" => Ok(Fsync::EverySecond),
        _ => Err(format!("`{text}` is not one of always, everysec")),
    }
}

pub(super) fn speculation(text: &str) -> Result<Speculation, String> {
    match text {
        "auto" => Ok(Speculation::Auto),
        "off" => Ok(Speculation::Off),
        _ => match text.parse() {
            Ok(most @ 1..=DRAFTS_MAX) => Ok(Speculation::AtMost(most)),
            _ => Err(format!("`{text}` is not auto, off or a number from 1 to {DRAFTS_MAX}")),
        },
    }
}

/// A share between 0.05 and 1, or a size with its unit.
pub(super) fn gpu_memory(text: &str) -> Result<GpuMemory, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.05..=1.0).contains(&share) => Ok(GpuMemory::Share(share)),
        Ok(_) => Err(format!("`{text}` is not a share between 0.05 and 1, nor a size like 20GiB")),
        Err(_) => size(text, 64 << 20, 1 << 45).map(GpuMemory::Size),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("`{text}` is not one of text, json")),
    }
}

pub(super) fn log_level(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("`{text}` is not a log filter such as info or info,gateway=debug")),
    }
}

/// A folder that is there, or nothing.
/// A folder that is made when it is not there.
pub(super) fn new_folder_or_none(text: &str) -> Result<Option<PathBuf>, String> {
    let path = Some(PathBuf::from(text)).filter(|_| !text.is_empty());
    match &path {
        Some(path) if path.exists() && !path.is_dir() => Err(format!("`{text}` is no folder")),
        _ => Ok(path),
    }
}

/// Something that is not to be shown, or nothing.
pub(super) fn secret_or_none(text: &str) -> Result<Option<Secret>, String> {
    Ok(Some(Secret(text.to_owned())).filter(|_| !text.is_empty()))
}

/// The URL of a Redis.
pub(super) fn redis_or_none(text: &str) -> Result<Option<Secret>, String> {
    let url = secret_or_none(text)?;
    url.as_ref().map(|url| govern::limit::shared::Settings::new(url.reveal())).transpose()?;
    Ok(url)
}

/// A short plain name.
pub(super) fn name(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) {
        return Err(format!("`{text}` is not a name of up to 64 letters, digits, - _ and ."));
    }
    Ok(text.to_owned())
}

pub(super) fn folder_or_none(text: &str) -> Result<Option<PathBuf>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(text);
    if path.is_dir() { Ok(Some(path)) } else { Err(format!("there is no folder `{text}`")) }
}

pub(super) fn tool_format(text: &str) -> Result<Option<&'static Format>, String> {
    if text == "auto" {
        return Ok(None);
    }
    let names = || Format::ALL.iter().map(|format| format.name).collect::<Vec<_>>().join(", ");
    Format::named(text).map(Some).ok_or_else(|| format!("expected auto, {}", names()))
}

pub(super) fn file_or_none(text: &str) -> Result<Option<PathBuf>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(text);
    if path.is_file() { Ok(Some(path)) } else { Err(format!("there is no file `{text}`")) }
}

/// Logical cores that this process may use, by its affinity mask and its cgroup's quota.
pub(super) fn usable_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Physical cores that this process may use. Two hyper-threads share one core's vector units, so
/// a thread per logical CPU only makes them wait for each other.
#[must_use]
pub fn physical_cores() -> usize {
    let usable = usable_cores();
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut cores = BTreeSet::new();
    let mut package = "";
    for line in info.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        match key.trim() {
            "physical id" => package = value.trim(),
            "core id" => {
                cores.insert((package, value.trim()));
            }
            _ => {}
        }
    }
    if cores.is_empty() { usable } else { usable.min(cores.len()) }
}

/// The known word that a misspelled one probably means.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let close = |distance: usize| distance <= 2 || distance * 5 <= word.len();
    known
        .map(|other| (edits(word, other), other))
        .filter(|(distance, _)| close(*distance))
        .min()
        .map(|(_, other)| other)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_back_what_they_show() {
        for (text, bytes) in [("16MiB", 16 << 20), ("1.5GB", 1_500_000_000), ("4096", 4096)] {
            assert_eq!(size(text, 0, u64::MAX), Ok(bytes), "{text}");
        }
        for text in ["250ms", "30s", "10m", "1h"] {
            assert_eq!(time(text, 0, u64::MAX).map(show_time).as_deref(), Ok(text));
        }
        assert_eq!(show_size((3 << 30) / 2), "1.5 GiB");
        for wrong in ["", "MiB", "-1MiB", "nan", "1 XB", "1e999"] {
            assert!(size(wrong, 0, 1 << 50).is_err(), "{wrong}");
        }
        for wrong in ["30", "s", "-1s", "1d"] {
            assert!(time(wrong, 0, u64::MAX).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_recognised() {
        let known = || ["server.listen", "server.drain", "models"].into_iter();
        assert_eq!(nearest("sever.listen", known()), Some("server.listen"));
        assert_eq!(nearest("model", known()), Some("models"));
        assert_eq!(nearest("frobnicate", known()), None);
    }
}
