//! What the build script embeds, and what it refuses.

use std::path::{Path, PathBuf};

use cuda::compile::recipe::digest_of_bytes;
use cuda::cubins::build;

#[allow(dead_code, reason = "its main function is the build's")]
#[path = "../build.rs"]
mod script;

/// A folder as `hearth kernels build` leaves it, with one cubin that is none.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("embed-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    let built = build(&[], &folder, &|_| {}).unwrap();
    assert!(built.is_empty(), "no architecture was asked for");
    std::fs::write(folder.join("norm.cu.sm_80.cubin"), b"machine code").unwrap();
    let line = format!("cubin norm.cu sm_80 12.8 {}\n", digest_of_bytes(b"machine code"));
    edit(&folder, |text| text + &line);
    folder
}

fn edit(folder: &Path, change: impl FnOnce(String) -> String) {
    let path = folder.join("manifest.txt");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, change(text)).unwrap();
}

#[test]
fn what_was_built_is_embedded() {
    let folder = folder("good");
    let rows = script::embed(&folder).unwrap();
    let cubin = folder.join("norm.cu.sm_80.cubin");
    let expect = format!(
        "Embedded {{ file: \"norm.cu\", arch: \"sm_80\", nvrtc: \"12.8\", \
         bytes: include_bytes!({cubin:?}) }},"
    );
    assert_eq!(rows, expect);
}

#[test]
fn what_is_stale_or_broken_is_refused() {
    let check = |name: &str, change: &dyn Fn(&Path), expect: &str| {
        let folder = folder(name);
        change(&folder);
        let why = script::embed(&folder).unwrap_err();
        assert!(why.contains(expect), "{name}: {why}");
    };
    let stale = |folder: &Path| {
        edit(folder, |text| text.replace("source norm.cu ", "source norm.cu 0"));
    };
    check("stale", &stale, "was made from another norm.cu: unset it, build, run");
    let changed = |folder: &Path| {
        std::fs::write(folder.join("norm.cu.sm_80.cubin"), b"other code").unwrap();
    };
    check("changed", &changed, "norm.cu.sm_80.cubin is not what the manifest says");
    let broken_off = |folder: &Path| std::fs::remove_file(folder.join("manifest.txt")).unwrap();
    check("broken-off", &broken_off, "was `hearth kernels build` broken off?");
    let other = |folder: &Path| edit(folder, |text| format!("something else\n{text}"));
    check("other", &other, "is not a list of cubins");
    let why = script::embed(Path::new("relative")).unwrap_err();
    assert_eq!(why, "relative is not an absolute path");
}
