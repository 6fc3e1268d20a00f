//! `hearth node` and the cluster's options, as an operator meets them.

use std::process::Command;

/// Runs the binary, which has to refuse.
fn refused(args: &[&str], env: &[(&str, &str)], part: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_hearth"))
        .args(args)
        .current_dir(std::env::temp_dir())
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .expect("hearth runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{args:?}: {text}");
    assert!(text.contains(part), "{args:?}: `{part}` is missing in: {text}");
}

#[test]
fn what_is_not_safe_or_makes_no_sense_is_refused() {
    let token = [("HEARTH_CLUSTER_TOKEN", "a-token-of-some-length")];
    let node = "http://127.0.0.1:8100";
    refused(&["node", "--listen", "0.0.0.0:0"], &[], "without a token only this machine");
    refused(&["node", "--model", "none"], &token, "there is nobody to answer");
    refused(&["node", "--join", node], &[], "cluster.token");
    refused(&["node", "--cluster-node", node], &token, "that is the gateway's part");
    refused(&["serve", "--join", node], &token, "only a node names itself");
    refused(&["serve", "--model", "none", "--cluster-node", node], &[], "nodes ask for it");
    refused(&["serve", "--model", "none"], &[], "there is nobody to answer");
    refused(&["serve", "--cluster-node", "10.0.0.5"], &token, "http://HOST:PORT");
    let service = "--cluster-kubernetes";
    refused(&["serve", service, "http://nodes"], &token, "the port is missing");
    refused(&["serve", service, "http://nodes:http"], &token, "cluster.kubernetes_api");
    refused(
        &["serve", service, "http://nodes:1", "--cluster-kubernetes-api", "http://10.0.0.1"],
        &token,
        "https://HOST:PORT",
    );
    refused(&["node", service, "http://nodes:1"], &token, "that is the gateway's part");
    refused(&["serve", "--cluster-token", "short"], &[], "at least 8 characters");
    // A token within the cluster is no key for callers.
    refused(&["serve", "--listen", "0.0.0.0:0"], &token, "without a key only this machine");
}
