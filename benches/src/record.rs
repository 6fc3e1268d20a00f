//! One JSON line per bench run, with commit and machine, appended to `benches/results`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::{Value, json};

/// Appends `figures` under the bench's name.
///
/// # Errors
/// The results folder cannot be written.
pub fn append(bench: &str, figures: &Value) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("results").join(format!("{bench}.jsonl"));
    let line = json!({
        "bench": bench,
        "commit": command("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
        "date": command("date", &["-u", "+%Y-%m-%dT%H:%MZ"]),
        "machine": machine(),
        "figures": figures,
    });
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    writeln!(file, "{line}")?;
    Ok(())
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpu.lines()
            .find(|l| l.starts_with(name))
            .and_then(|l| l.split(':').nth(1))
            .map_or("unknown", str::trim)
            .to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "{} family {} model {}, {cores} cores",
        field("model name"),
        field("cpu family"),
        field("model\t")
    )
}

fn command(program: &str, args: &[&str]) -> String {
    Command::new(program)
        .args(args)
        .output()
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        .unwrap_or_default()
}

/// CPU time in seconds of this process, all threads, user and system.
#[must_use]
pub fn cpu_seconds() -> f64 {
    rusage(libc::RUSAGE_SELF)
}

/// CPU time in seconds of all ended child processes.
#[must_use]
pub fn children_cpu_seconds() -> f64 {
    rusage(libc::RUSAGE_CHILDREN)
}

#[allow(unsafe_code, reason = "getrusage has no safe wrapper in std")]
fn rusage(who: libc::c_int) -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a live rusage; zeroed bytes are a valid value of it.
    let usage = unsafe {
        libc::getrusage(who, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The middle value.
///
/// # Panics
/// The list is empty.
#[must_use]
pub fn median(values: &mut [f64]) -> f64 {
    assert!(!values.is_empty(), "a median of nothing");
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
