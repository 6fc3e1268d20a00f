//! What this machine is: read from `/proc`, `/sys` and the dynamic linker's folders, without
//! opening a device.

use std::fs;
use std::path::{Path, PathBuf};

pub use crate::pull::free_bytes as free_disk;

/// Most files that this process may have open.
#[must_use]
pub fn open_files_limit() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The instruction sets of the CPU that matter for models.
#[must_use]
pub fn instruction_sets() -> Vec<&'static str> {
    let wanted = ["avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile"];
    let arm = ["asimd", "asimddp", "i8mm", "bf16", "sve"];
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|l| l.starts_with("flags") || l.starts_with("Features"));
    let flags: Vec<&str> = flags.unwrap_or_default().split_ascii_whitespace().collect();
    wanted.into_iter().chain(arm).filter(|name| flags.contains(name)).collect()
}

/// The CUDA driver's library, or why there is none. Looks where the dynamic linker does.
///
/// # Errors
/// What was not found, for people.
pub fn cuda_driver() -> Result<PathBuf, String> {
    const NAME: &str = "libcuda.so.1";
    const FOLDERS: &[&str] = &[
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/lib/x86_64-linux-gnu",
        "/usr/local/nvidia/lib64",
        "/usr/local/cuda/compat",
        "/run/opengl-driver/lib",
        "/usr/lib/wsl/lib",
    ];
    let named = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let named = named.split(':').filter(|folder| !folder.is_empty()).map(Path::new);
    named
        .chain(FOLDERS.iter().map(Path::new))
        .map(|folder| folder.join(NAME))
        .find(|path| path.exists())
        .ok_or_else(|| format!("{NAME} not found"))
}
