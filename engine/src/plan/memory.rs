//! How much memory this process may still take: what the machine has, and what the control
//! groups around the process allow (containers, systemd units), whichever is less.
//!
//! Sources: proc(5) for `/proc/meminfo`; the kernel's cgroup-v1 and cgroup-v2 documents.

use std::path::{Path, PathBuf};

/// Bytes at hand, page cache that can be dropped included. `u64::MAX` where nothing is known.
#[must_use]
pub fn memory_available() -> u64 {
    available_under(Path::new("/"))
}

fn available_under(root: &Path) -> u64 {
    let meminfo = std::fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let machine = from_meminfo(&meminfo).unwrap_or(u64::MAX);
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    groups.lines().filter_map(|line| from_group(root, line)).fold(machine, u64::min)
}

fn from_meminfo(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Files of one cgroup version.
struct Files {
    mount: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// The line of `memory.stat` that counts droppable page cache.
    droppable: &'static str,
}

const V1: Files = Files {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    droppable: "total_inactive_file ",
};
const V2: Files = Files {
    mount: "sys/fs/cgroup",
    limit: "memory.max",
    usage: "memory.current",
    droppable: "inactive_file ",
};

/// What the group of a line of `/proc/self/cgroup`, and every group above it, leaves.
fn from_group(root: &Path, line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let files = match controllers {
        "" => V2,
        v1 if v1.split(',').any(|name| name == "memory") => V1,
        _ => return None,
    };
    let mount = root.join(files.mount);
    let mut group: PathBuf = mount.join(path.trim_start_matches('/'));
    let mut least = None;
    // Inside a container the path may not be visible; the mount's top then is the own group.
    while group.starts_with(&mount) {
        if let Some(left) = left_in(&group, &files) {
            least = Some(least.map_or(left, |least: u64| least.min(left)));
        }
        if !group.pop() {
            break;
        }
    }
    least
}

fn left_in(group: &Path, files: &Files) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    // `max` is not a number: no limit here.
    let limit = number(files.limit)?;
    let usage = number(files.usage).unwrap_or(0);
    let stat = read("memory.stat").unwrap_or_default();
    let droppable = stat.lines().find_map(|line| line.strip_prefix(files.droppable));
    let droppable = droppable.and_then(|number| number.trim().parse().ok()).unwrap_or(0);
    Some(limit.saturating_sub(usage.saturating_sub(droppable)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn this_machine_has_some() {
        assert!(memory_available() > 1 << 20);
    }

    #[test]
    fn the_tightest_group_counts() {
        let root = std::env::temp_dir().join(format!("hearth-cgroup-{}", std::process::id()));
        let group = root.join("sys/fs/cgroup/box/unit");
        fs::create_dir_all(&group).unwrap();
        fs::create_dir_all(root.join("proc/self")).unwrap();
        let write = |path: &str, text: &str| fs::write(root.join(path), text).unwrap();
        write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n");
        assert_eq!(available_under(&root), 8000 << 10, "no groups");
        write("proc/self/cgroup", "0::/box/unit\n");
        write("sys/fs/cgroup/box/unit/memory.max", "max\n");
        assert_eq!(available_under(&root), 8000 << 10, "no limit");
        write("sys/fs/cgroup/box/memory.max", "1000000\n");
        write("sys/fs/cgroup/box/memory.current", "700000\n");
        write("sys/fs/cgroup/box/memory.stat", "anon 5\ninactive_file 100000\n");
        assert_eq!(available_under(&root), 400_000, "the group above limits");
        fs::remove_dir_all(&root).unwrap();
    }
}
