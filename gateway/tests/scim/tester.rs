//! A program that tries servers for what the RFCs ask (`scim2-tester`), against the real routes.

use std::path::Path;
use std::process::Command;

use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checker_of_servers_finds_nothing() {
    let world = World::new("tester").await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the root");
    let python = root.join("tests/.venv/bin/python");
    assert!(python.exists(), "no Python clients: run `make test` (or tests/tools.sh python)");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/scim/v2", listener.local_addr().expect("an address"));
    let router = world.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let key = world.key.clone();
    let run = move || {
        let script = root.join("tests/clients/scim.py");
        Command::new(python).arg(script).arg(url).arg(key).output().expect("Python runs")
    };
    let output = tokio::task::spawn_blocking(run).await.expect("a thread");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains(" checks passed"), "{said}");
}
