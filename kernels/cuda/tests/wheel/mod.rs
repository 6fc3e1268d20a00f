//! Where `tests/tools.sh nvrtc` installs NVIDIA's compiler.

use std::path::{Path, PathBuf};

/// Its folder; `None` when it is not installed, or `HEARTH_NVRTC` names another.
pub(crate) fn wheel() -> Option<PathBuf> {
    if std::env::var_os("HEARTH_NVRTC").is_some() {
        return None;
    }
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/.venv/lib");
    let pythons = lib.read_dir().into_iter().flatten().flatten();
    pythons
        .map(|python| python.path().join("site-packages/nvidia/cuda_nvrtc/lib"))
        .find(|folder| folder.is_dir())
}
