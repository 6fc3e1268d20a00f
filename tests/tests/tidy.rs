//! House rules that a machine can check: sizes, headers, dead files, import rules, paths that the
//! architecture page names. A rule that fails says which file, which line and why it is a rule.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE_LINES_MAX: usize = 600;
const FN_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 100;
const ARCHITECTURE_LINES_MAX: usize = 250;
const TRACKED_BYTES_MAX: u64 = 32 << 20;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

/// Tracked and new files, relative to the root.
fn files() -> Vec<PathBuf> {
    let list = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    let mut out: Vec<_> = String::from_utf8(list.stdout)
        .expect("paths are UTF-8")
        .split('\0')
        .filter(|p| !p.is_empty())
        .map(PathBuf::from)
        .filter(|p| root().join(p).is_file())
        .collect();
    out.sort();
    assert!(out.len() > 20, "git found only {} files", out.len());
    out
}

fn sources() -> Vec<(PathBuf, String)> {
    files()
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "rs"))
        .map(|p| {
            let text = fs::read_to_string(root().join(&p)).expect("sources are UTF-8");
            (p, text)
        })
        .collect()
}

fn report(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}\n  {}", found.join("\n  "));
}

#[test]
fn files_open_with_a_header_and_stay_small() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            found.push(format!("{}: {lines} lines", path.display()));
        }
        let first = text.lines().find(|l| !l.starts_with("#![") && !l.is_empty()).unwrap_or("");
        if !first.starts_with("//!") {
            found.push(format!("{}: no `//!` header", path.display()));
        }
    }
    report("a file has a header that says what it is, and at most 600 lines", &found);
}

#[test]
fn lines_fit_the_page() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        for (i, line) in text.lines().enumerate() {
            // A long string literal cannot be wrapped by rustfmt.
            let columns = line.chars().count();
            if columns > LINE_COLUMNS_MAX && !line.contains('"') && !line.contains("http") {
                found.push(format!("{}:{}: {columns} columns", path.display(), i + 1));
            }
        }
    }
    report("lines have at most 100 columns", &found);
}

/// Functions of a formatted file as (name, first line, lines). rustfmt closes a function in the
/// column that it opened in, which makes braces easy to pair.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let head = line.trim_start();
        let is_fn = !head.starts_with("//")
            && (head.starts_with("fn ") || head.contains(" fn ") && head.contains('('))
            && head.split(" fn ").next().is_some_and(|before| {
                before.starts_with("fn ")
                    || before.split(' ').all(|w| {
                        w.starts_with("pub")
                            || ["const", "async", "unsafe", "extern", "\"C\""].contains(&w)
                    })
            });
        if !is_fn {
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        let Some(end) = lines[i..].iter().position(|l| *l == close) else { continue };
        let ends_first = lines[i..i + end].iter().any(|l| {
            l.len() - l.trim_start().len() == indent && (l.ends_with(';') || l.ends_with(" {}"))
        });
        if !ends_first {
            let name = head.split("fn ").nth(1).unwrap_or("").to_owned();
            let name = name.split(['(', '<']).next().unwrap_or("").to_owned();
            out.push((name, i + 1, end + 1));
        }
    }
    out
}

#[test]
fn functions_fit_a_screen() {
    let mut found = Vec::new();
    let mut seen = 0;
    for (path, text) in sources() {
        for (name, line, lines) in functions(&text) {
            seen += 1;
            if lines > FN_LINES_MAX {
                found.push(format!("{}:{line}: fn {name} has {lines} lines", path.display()));
            }
        }
    }
    assert!(seen > 100, "the function finder is broken: {seen} found");
    report("a function has at most 70 lines", &found);
}

#[test]
fn every_source_file_is_compiled() {
    let all = sources();
    let mut found = Vec::new();
    for (path, _) in &all {
        let name = path.file_stem().and_then(|s| s.to_str()).expect("file name");
        let dir = path.parent().expect("folder");
        let is_root = ["lib", "main", "build"].contains(&name)
            || dir.ends_with("tests")
            || dir.ends_with("examples")
            || dir.ends_with("bin")
            || dir.ends_with("benches");
        if is_root && name != "mod" {
            continue;
        }
        let (module, owner) = if name == "mod" {
            (dir.file_name(), dir.parent())
        } else {
            (path.file_stem(), Some(dir))
        };
        let module = module.and_then(|m| m.to_str()).expect("module name");
        let owner = owner.expect("owner");
        let declared = all.iter().any(|(p, text)| {
            let near = p.parent() == Some(owner)
                || owner.file_name() == p.file_stem() && p.parent() == owner.parent();
            near && text.lines().any(|l| {
                let l = l.trim().trim_end_matches(';');
                let word = l.rsplit(' ').next();
                l.contains("mod ") && word == Some(module)
            })
        }) || all.iter().any(|(_, text)| {
            let elsewhere = format!("/{name}.rs\"]");
            text.lines().any(|l| l.starts_with("#[path") && l.ends_with(&elsewhere))
        });
        if !declared {
            found.push(format!("{}: no `mod {module}` anywhere", path.display()));
        }
    }
    report("no dead source files", &found);
}

/// Own crates that each crate may import, and outside crates that it must not.
const IMPORTS: &[(&str, &[&str], &[&str])] = &[
    ("scheduler", &[], &["*"]),
    ("kernels", &[], &["tokio", "axum", "serde_json", "tokenizers"]),
    ("engine/text", &[], &["tokio", "axum", "reqwest", "hyper"]),
    ("engine", &["scheduler", "kernels", "text"], &["tokio", "axum", "reqwest", "hyper"]),
    ("gateway/wire", &[], &["tokio", "axum", "reqwest", "hyper", "futures-util"]),
    ("gateway/govern", &[], &["axum", "hyper", "reqwest"]),
    ("gateway", &["engine", "govern", "scheduler", "text", "wire"], &["cudarc", "kernels"]),
];
const OWN: &[&str] = &[
    "benches",
    "engine",
    "gateway",
    "govern",
    "hearth-tests",
    "kernels",
    "scheduler",
    "text",
    "wire",
];

#[test]
fn layers_import_only_what_lies_below() {
    let mut found = Vec::new();
    for (folder, own, banned) in IMPORTS {
        let manifest = root().join(folder).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).expect("manifest");
        let section = text.split("[dependencies]").nth(1).unwrap_or("");
        let section = section.split("\n[").next().unwrap_or("");
        for line in section.lines().filter(|l| l.contains('=') && !l.starts_with('#')) {
            let name = line.split(['=', '.']).next().unwrap_or("").trim();
            let allowed = if OWN.contains(&name) {
                own.contains(&name)
            } else {
                !banned.contains(&name) && !banned.contains(&"*")
            };
            if !allowed {
                found.push(format!("{folder}/Cargo.toml: must not depend on {name}"));
            }
        }
    }
    report("no layer knows the layer above it (ARCHITECTURE.md)", &found);
}

/// (text, where it is allowed, why it is banned elsewhere)
const BANNED: &[(&str, &[&str], &str)] = &[
    ("unbounded_channel", &["tests/tests/tidy.rs"], "every queue has a bound"),
    (
        "env::var(",
        // The program in engine/compat is its own gateway.
        &["gateway/", "tests/", "benches/", "engine/compat/"],
        "only the gateway reads the environment",
    ),
    (
        "StatusCode::",
        &[
            "gateway/src/api/",
            "gateway/src/cluster/",
            "gateway/src/server.rs",
            "gateway/src/pull",
            "gateway/tests/",
            "tests/tests/tidy.rs",
        ],
        "one layer answers HTTP, one fetches models, one speaks to other machines of ours",
    ),
    (
        "unsafe {",
        &["kernels/", "engine/src/weights/", "gateway/src/allocator.rs", "benches/", "tests/"],
        "unsafe code lives in kernels, the file mapping and the allocator",
    ),
    (
        "engine::",
        &[
            "engine/",
            "tests/",
            "benches/",
            "fuzz/src/models.rs",
            "gateway/src/backend/local.rs",
            "gateway/src/wiring.rs",
            // Commands that look at files or write them; each is a part of the wiring.
            "gateway/src/wiring/",
        ],
        "the gateway knows the engine in two places",
    ),
    (
        "HashMap",
        &["kernels/", "engine/", "gateway/", "tests/", "benches/", "scheduler/clippy.toml"],
        "the scheduler iterates nothing in hash order",
    ),
    (
        "std::time",
        &["kernels/", "engine/", "gateway/", "tests/", "benches/", "scheduler/clippy.toml"],
        "the scheduler reads no clock",
    ),
];

#[test]
fn banned_words_stay_where_they_belong() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        let place = path.to_string_lossy().replace('\\', "/");
        for (word, allowed, why) in BANNED {
            if allowed.iter().any(|a| place.starts_with(a)) {
                continue;
            }
            for (i, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or("");
                let hit = code.match_indices(word).any(|(at, _)| {
                    !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                });
                if hit {
                    found.push(format!("{place}:{}: `{word}`: {why}", i + 1));
                }
            }
        }
    }
    report("words that are banned outside certain files", &found);
}

#[test]
fn main_is_a_table_of_contents() {
    let text = fs::read_to_string(root().join("gateway/src/main.rs")).expect("main.rs");
    let lines = text.lines().count();
    assert!(lines <= 130, "gateway/src/main.rs has {lines} lines: at most 130");
}

#[test]
fn the_architecture_page_names_only_what_exists() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    assert!(page.lines().count() <= ARCHITECTURE_LINES_MAX, "one page: at most 250 lines");
    let mut found = Vec::new();
    let mut named = 0;
    for piece in page.split('`').skip(1).step_by(2) {
        let looks_like_path =
            piece.contains('/') && !piece.contains([' ', '*', '<', '{', ':', '|', '(']);
        let top = piece.split('/').next().unwrap_or("");
        if !looks_like_path || top.is_empty() || !root().join(top).exists() {
            continue;
        }
        named += 1;
        if !root().join(piece).exists() {
            found.push(format!("ARCHITECTURE.md names `{piece}`, which does not exist"));
        }
    }
    assert!(named > 20, "the page names only {named} paths");
    report("the map shows the house as it stands", &found);
}

#[test]
fn the_tree_stays_light() {
    let total: u64 =
        files().iter().map(|p| fs::metadata(root().join(p)).map_or(0, |m| m.len())).sum();
    assert!(total <= TRACKED_BYTES_MAX, "{} MiB tracked: at most 32", total >> 20);
}

#[test]
fn the_shipped_binary_has_a_profile_of_its_compiler() {
    let toolchain = fs::read_to_string(root().join("rust-toolchain.toml")).expect("a toolchain");
    let channel = toolchain.split('"').nth(1).expect("its channel");
    let profile = format!("deploy/profile/{channel}-x86_64-unknown-linux-gnu.profdata.gz");
    assert!(root().join(&profile).exists(), "no {profile}: `make profile` makes it");
}
