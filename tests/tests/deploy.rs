//! What `deploy/` shows and alerts on exists: each metric of the dashboard and of the alert rules
//! is one that a running server reports.

use std::collections::BTreeSet;
use std::fs;

use hearth_tests::http::request;
use hearth_tests::server::{Server, root};

/// Metric names in a text, without the suffixes that histograms add.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("hearth_") || word.starts_with("process_"))
        .map(|word| {
            ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| word.strip_suffix(suffix))
                .unwrap_or(word)
                .to_owned()
        })
        .collect()
}

#[test]
fn the_dashboard_and_the_alerts_use_metrics_that_exist() {
    // A queue of one place, so that a refusal happens and its series exists too.
    let server = Server::start(&["--rows-max", "1", "--queue-max", "1"]);
    // And one request under a grammar.
    let held = r#"{"model":"demo","prompt":"Hello","structured_outputs":{"choice":["yes"]}}"#;
    let held = request(&server.url, "POST", "/v1/completions", held).expect("an answer");
    assert_eq!(held.status, 200, "{}", held.body);
    let long = r#"{"model":"demo","prompt":"Hello","max_tokens":1500,"ignore_eos":true,
        "stream":true}"#;
    let open: Vec<_> = (0..6)
        .map(|_| hearth_tests::http::open(&server.url, "POST", "/v1/completions", long))
        .collect();
    drop(open);
    let metrics = request(&server.url, "GET", "/metrics", "").expect("metrics").body;
    let reported = names(&metrics);
    for file in ["deploy/grafana/hearth.json", "deploy/prometheus/alerts.yml", "deploy/RUNBOOK.md"]
    {
        let text = fs::read_to_string(root().join(file)).expect(file);
        let used = names(&text);
        assert!(!used.is_empty(), "{file} names no metric");
        for name in used {
            // GPU figures are only there with a GPU.
            let known = reported.contains(&name) || name.starts_with("hearth_gpu_");
            assert!(known, "{file} uses {name}, which the server does not report");
        }
    }
}

#[test]
fn the_runbook_has_every_section_that_alerts_point_to() {
    let runbook = fs::read_to_string(root().join("deploy/RUNBOOK.md")).expect("runbook");
    let alerts = fs::read_to_string(root().join("deploy/prometheus/alerts.yml")).expect("alerts");
    let sections: BTreeSet<String> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| title.to_lowercase().replace(' ', "-"))
        .collect();
    let mut links = 0;
    for piece in alerts.split("RUNBOOK.md#").skip(1) {
        let anchor = piece.split('"').next().unwrap_or_default();
        assert!(sections.contains(anchor), "alerts point to #{anchor}, which is missing");
        links += 1;
    }
    assert!(links >= 5, "{links} links");
}
