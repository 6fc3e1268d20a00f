//! `hearth inspect` and `hearth quantize` as a user runs them: help, the demo model, errors.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use hearth_tests::server::hearth;
use serde_json::Value;

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(hearth());
    // No cache, so that nothing on this machine is found.
    command.args(args).env("HF_HUB_CACHE", env!("CARGO_TARGET_TMPDIR")).env("HF_HUB_OFFLINE", "1");
    command.output().expect("hearth runs")
}

/// What a command prints when it ends well.
#[track_caller]
fn good(args: &[&str]) -> String {
    let output = run(args);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{args:?}: {out}{err}");
    out
}

/// A command that ends with `code` and says `expect`.
#[track_caller]
fn bad(args: &[&str], code: i32, expect: &str) {
    let output = run(args);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
    assert!(err.contains(expect), "{args:?}: {err}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn scratch(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("models").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn demo() -> String {
    hearth_tests::fixtures::demo().display().to_string()
}

#[test]
fn help_says_what_they_take() {
    let help = good(&["--help"]);
    assert!(help.contains("inspect") && help.contains("quantize"), "{help}");
    let help = good(&["quantize", "--help"]);
    for word in ["IN", "OUT", "--to", "--threads", "--force", "q4_k_m", "iq4_xs", "bf16"] {
        assert!(help.contains(word), "no {word}: {help}");
    }
    let help = good(&["inspect", "--help"]);
    assert!(help.contains("MODEL") && help.contains("--json"), "{help}");
}

#[test]
fn inspect_describes_the_demo() {
    let page = good(&["inspect", &demo()]);
    let lines = page.lines().count();
    assert!(lines <= 30, "one screen: {page}");
    let words =
        ["llama", "bf16", "6 layers", "2048 tokens", "byte-level BPE", "tool calls as hermes"];
    for word in words.into_iter().chain(["device", "weights", "do_sample false"]) {
        assert!(page.contains(word), "no {word}: {page}");
    }
    let found: Value = serde_json::from_str(&good(&["inspect", "demo", "--json"])).expect("JSON");
    assert_eq!(found["family"], "llama");
    assert_eq!(found["parameters"], found["parameters_active"]);
    assert_eq!(found["layers"], 6);
    assert_eq!(found["formats"][0]["format"], "bf16");
    assert_eq!(found["chat"]["template"], true);
    assert!(found["plan"]["weight_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{found}");
}

#[test]
fn errors_name_the_file_and_the_reason() {
    let folder = scratch("errors");
    let empty = folder.display().to_string();
    let gguf = folder.join("broken.gguf");
    fs::write(&gguf, b"GGUF\x07\0\0\0").expect("written");
    let gguf = gguf.display().to_string();
    let out = folder.join("out.gguf").display().to_string();
    bad(&["inspect", "./none"], 64, "there is no file or directory");
    bad(&["inspect", "org/none"], 65, "org/none: is not in the cache");
    bad(&["inspect", &empty], 65, "broken.gguf: give that file's path");
    bad(&["inspect", &gguf], 65, "is GGUF version 7");
    bad(&["quantize", &gguf, &out, "--to", "q8_0"], 65, "is GGUF version 7");
    bad(&["quantize", &demo(), &out, "--to", "q9_9"], 64, "q4_k_m");
    bad(&["quantize", &demo(), &out], 64, "--to");
    bad(&["quantize", &demo(), &empty, "--to", "q8_0"], 64, "is a folder");
    bad(&["quantize", &demo(), "/proc/none/x.gguf", "--to", "q8_0"], 73, "nothing was left");
}

#[test]
fn quantize_writes_a_file_that_inspect_reads() {
    let folder = scratch("demo");
    let out = folder.join("demo.gguf").display().to_string();
    let summary = good(&["quantize", &demo(), &out, "--to", "q4_k_m", "--threads", "2"]);
    for word in ["before", "after", "bits per weight", "q4_k", "q6_k", "mean error"] {
        assert!(summary.contains(word), "no {word}: {summary}");
    }
    bad(&["quantize", &demo(), &out, "--to", "q8_0"], 64, "--force replaces it");
    bad(&["quantize", &out, &out, "--to", "q8_0", "--force"], 64, "is the source itself");
    let page = good(&["inspect", &out]);
    assert!(page.contains("q4_k") && page.contains("tool calls as hermes"), "{page}");
    let twice = folder.join("twice.gguf").display().to_string();
    let summary = good(&["quantize", &out, &twice, "--to", "q4_0", "--quiet"]);
    assert!(summary.contains("lose quality twice"), "{summary}");
    let left = fs::read_dir(&folder).expect("a folder").count();
    assert_eq!(left, 2, "only what was asked for");
}
