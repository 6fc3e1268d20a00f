//! The openai package from PyPI drives the real binary with the demo model.

use std::process::Command;

use hearth_tests::server::{Server, root};

#[test]
fn the_openai_package_works_unchanged() {
    let python = root().join("tests/.venv/bin/python");
    assert!(python.exists(), "no Python clients: run `make test` (or tests/tools.sh python)");
    let server = Server::start(&["--model", "demo", "--api-key", "test-key"]);
    let script = root().join("tests/clients/openai_client.py");
    let out = Command::new(python)
        .arg(script)
        .args([&server.url, "test-key"])
        .output()
        .expect("python runs");
    let text = String::from_utf8_lossy(&out.stdout);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}\n{errors}");
    assert!(text.contains("0 failed"), "{text}");
}
