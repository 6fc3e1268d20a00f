//! This process's memory, CPU time and open files, from `/proc/self`, under the names that every
//! Prometheus client library uses.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Counter, Gauge, IntGauge, Registry};

use super::register;

/// Linux reports CPU time in ticks of USER_HZ, which its user-space interface fixes at 100.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process's series.
pub(super) struct Process {
    resident: IntGauge,
    cpu: Counter,
    open_files: IntGauge,
}

impl Process {
    pub(super) fn new(registry: &Registry) -> Self {
        let resident = IntGauge::new("process_resident_memory_bytes", "Resident memory.");
        let cpu = Counter::new("process_cpu_seconds_total", "CPU time, user and system.");
        let open_files = IntGauge::new("process_open_fds", "Open file descriptors.");
        let start = Gauge::new("process_start_time_seconds", "Start, in seconds since 1970.");
        let all = Self {
            resident: resident.expect("a valid metric"),
            cpu: cpu.expect("a valid metric"),
            open_files: open_files.expect("a valid metric"),
        };
        let start = start.expect("a valid metric");
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64()));
        register(registry, all.resident.clone());
        register(registry, all.cpu.clone());
        register(registry, all.open_files.clone());
        register(registry, start);
        all
    }

    /// Reads the figures; where there is no `/proc` they stay 0.
    pub(super) fn refresh(&self) {
        if let Some(bytes) = resident_bytes() {
            self.resident.set(bytes);
        }
        if let Some(seconds) = cpu_seconds() {
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
    }
}

fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Fields 14 and 15 of `/proc/self/stat`; the name in field 2 may hold spaces, so count from its
/// closing bracket.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}
