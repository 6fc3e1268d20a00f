//! The official clients of OpenAI, Anthropic and Google, of PyPI and of npm, against the real
//! binary: a model of its own, and the same model behind providers of every dialect, through a
//! second server that has none.

use std::fs;
use std::path::Path;
use std::process::Command;

use hearth_tests::server::{Server, root};

/// Runs the clients; each case once for each model.
fn run(server: &Server, models: &[&str]) {
    let python = root().join("tests/.venv/bin/python");
    assert!(python.exists(), "no Python clients: run `make test` (or tests/tools.sh python)");
    let packages = root().join("tests/clients/node/node_modules/package.installed.json");
    assert!(packages.exists(), "no Node.js clients: run `make test` (or tests/tools.sh node)");
    script(&python, "dialects_client.py", server, models);
    script(Path::new("node"), "node/dialects.mjs", server, models);
}

fn script(program: &Path, script: &str, server: &Server, models: &[&str]) {
    let out = Command::new(program)
        .arg(root().join("tests/clients").join(script))
        .args([&server.url, "test-key"])
        .args(models)
        .output()
        .expect("the clients run");
    let text = String::from_utf8_lossy(&out.stdout);
    let errors = String::from_utf8_lossy(&out.stderr);
    println!("{script}:\n{text}");
    assert!(out.status.success() && text.contains(", 0 failed"), "{text}\n{errors}");
}

#[test]
fn official_clients_work_here_and_through_providers() {
    let back = Server::start(&["--model", "demo", "--api-key", "test-key"]);
    run(&back, &["demo"]);
    let url = &back.url;
    // One provider of each dialect, and one that speaks several: all are the server above.
    let provider = |name: &str, kind: &str, path: &str| {
        format!(
            "[providers.{name}]\nkind = \"{kind}\"\nkey = \"test-key\"\nbase_url = \"{url}{path}\"\n"
        )
    };
    let config = [
        provider("many", "hearth", "/v1"),
        provider("chat", "compatible", "/v1"),
        provider("claude", "anthropic", "/v1"),
        provider("google", "gemini", "/v1beta"),
    ];
    let folder = std::env::temp_dir().join(format!("hearth-dialects-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("hearth.toml");
    fs::write(&file, config.concat()).expect("a configuration");
    let path = file.to_str().expect("UTF-8");
    let front = Server::start(&["--config", path, "--model", "none", "--api-key", "test-key"]);
    run(&front, &["many/demo", "chat/demo", "claude/demo", "google/demo"]);
    drop(front);
    fs::remove_dir_all(folder).expect("removed");
}
