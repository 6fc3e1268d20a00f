//! Embeds cubins made ahead of time: those in the folder that `HEARTH_CUBINS` names, as
//! `hearth kernels build --out FOLDER` writes it. Without the variable none are embedded, and the
//! program compiles kernels when it starts. Stale cubins are refused here, not found out there.

// Both files are the crate's own: what is digested here is what is digested there.
#[allow(dead_code, unreachable_pub, reason = "public in the crate, used in part here")]
#[path = "src/compile/recipe.rs"]
mod recipe;
#[allow(dead_code, unreachable_pub, reason = "as above")]
#[path = "src/sources.rs"]
mod sources;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=HEARTH_CUBINS");
    for path in ["build.rs", "ops", "src/sources.rs", "src/compile/recipe.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let folder = std::env::var_os("HEARTH_CUBINS").filter(|value| !value.is_empty());
    let table = match folder.map(PathBuf::from).map(|folder| embed(&folder)) {
        None => Ok(String::new()),
        Some(table) => table,
    };
    match table {
        Ok(rows) => {
            let text = format!("static EMBEDDED: &[Embedded] = &[{rows}];\n");
            let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
            std::fs::write(Path::new(&out).join("embedded.rs"), text).expect("OUT_DIR is writable");
        }
        Err(why) => {
            println!("cargo::error=HEARTH_CUBINS: {why}");
            std::process::exit(1);
        }
    }
}

/// The rows of the table, from the folder's manifest; or what is wrong with it.
pub(crate) fn embed(folder: &Path) -> Result<String, String> {
    // A relative path would be relative to this crate: surprising from the workspace's root.
    if !folder.is_absolute() {
        return Err(format!("{} is not an absolute path", folder.display()));
    }
    println!("cargo::rerun-if-changed={}", folder.display());
    let manifest = folder.join("manifest.txt");
    let text = std::fs::read_to_string(&manifest).map_err(|e| {
        format!("{}: {e}; was `hearth kernels build` broken off?", manifest.display())
    })?;
    let mut lines = text.lines();
    if lines.next() != Some("hearth cubins 1") {
        return Err(format!("{} is not a list of cubins", manifest.display()));
    }
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split(' ').collect()).collect();
    for (file, text) in sources::FILES {
        let digest = recipe::digest(file, text, sources::HEADERS);
        if !lines.iter().any(|line| line[..] == ["source", file, &digest]) {
            return Err(format!(
                "{} was made from another {file}: unset it, build, run `hearth kernels build`, \
                 set it, build again",
                folder.display()
            ));
        }
    }
    let mut rows = String::new();
    for line in &lines {
        match line[..] {
            ["cubin", file, arch, nvrtc, digest] => {
                let path = folder.join(format!("{file}.{arch}.cubin"));
                let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                if recipe::digest_of_bytes(&bytes) != digest {
                    return Err(format!("{} is not what the manifest says", path.display()));
                }
                let _ = write!(
                    rows,
                    "Embedded {{ file: {file:?}, arch: {arch:?}, nvrtc: {nvrtc:?}, \
                     bytes: include_bytes!({path:?}) }},"
                );
            }
            ["source", _, _] => {}
            _ => return Err(format!("{}: {line:?}", manifest.display())),
        }
    }
    Ok(rows)
}
