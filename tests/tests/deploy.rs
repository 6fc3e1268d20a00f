//! What `deploy/` shows and alerts on exists: each metric of the dashboard and of the alert rules
//! is one that a running server reports.

use std::collections::BTreeSet;
use std::fs;

use hearth_tests::http::{open_as, request};
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
    // A queue of one place, so that a refusal happens and its series exists too; and a cache.
    let narrow = ["--rows-max", "1", "--queue-max", "1", "--cache-enabled", "true"];
    let server = Server::start(&narrow);
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
    let mut reported = names(&metrics);
    reported.extend(names(&governed()));
    for file in [
        "deploy/grafana/hearth.json",
        "deploy/prometheus/alerts.yml",
        "deploy/RUNBOOK.md",
        "docs/govern.md",
        "docs/routing.md",
    ] {
        let text = fs::read_to_string(root().join(file)).expect(file);
        let used = names(&text);
        assert!(!used.is_empty(), "{file} names no metric");
        // Only there with a GPU, here or at a node; with nodes; with a place to export to; with
        // shared rates.
        let elsewhere = [
            "gpu_",
            "node_gpu_",
            "cluster_",
            "audit_export_",
            "alerts_",
            "delivery_",
            "rates_shared",
        ];
        for name in used {
            let known = reported.contains(&name)
                || elsewhere.iter().any(|begin| name["hearth_".len()..].starts_with(begin));
            assert!(known, "{file} uses {name}, which the server does not report");
        }
    }
}

/// What a server shows that has keys, a database and a pool: one provider that is not there, and a
/// model behind it that answers.
fn governed() -> String {
    let folder = std::env::temp_dir().join(format!("hearth-deploy-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    let config = folder.join("hearth.toml");
    let text = "[providers.gone]\nkind = \"compatible\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                [pools.p]\ntargets = [\"gone/m\", \"demo\"]\n";
    fs::write(&config, text).expect("a file");
    let config = config.to_str().expect("a plain path");
    let data = folder.join("data");
    let args = ["--config", config, "--data", data.to_str().expect("a plain path")];
    let server = Server::start(&args);
    let key = server.banner.iter().find(|line| line.starts_with("first key"));
    let key = key.and_then(|line| line.split_whitespace().last()).expect("a first key");
    let ask = |method: &str, path: &str, body: &str| {
        let got = open_as(&server.url, Some(key), method, path, body).expect("sent");
        let got = got.finish().expect("an answer");
        assert_eq!(got.status, 200, "{path}: {}", got.body);
        got.body
    };
    ask("POST", "/v1/completions", r#"{"model":"p","prompt":"Hello","max_tokens":2}"#);
    let none = open_as(&server.url, Some("of nobody"), "GET", "/metrics", "").expect("sent");
    assert_eq!(none.status, 401);
    let metrics = ask("GET", "/metrics", "");
    drop(server);
    let _ = fs::remove_dir_all(&folder);
    metrics
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

/// Prometheus is given the key that it shows, Grafana the dashboard and whom to ask.
#[test]
fn what_shows_figures_finds_what_it_is_told_of() {
    let read = |file: &str| fs::read_to_string(root().join("deploy").join(file)).expect(file);
    let compose = read("compose.yaml");
    let has = |text: &str, part: &str| assert!(text.contains(part), "{part} is not in\n{text}");
    for part in [
        "  prometheus:\n",
        "./prometheus:/etc/prometheus:ro",
        "secrets: [{ source: hearth_key, mode: 0444 }]",
        "  hearth_key: { environment: HEARTH_API_KEY }",
        "./grafana:/etc/grafana/provisioning/dashboards:ro",
        "./grafana/datasources:/etc/grafana/provisioning/datasources:ro",
    ] {
        has(&compose, part);
    }
    has(&read("prometheus/prometheus.yml"), "credentials_file: /run/secrets/hearth_key");
    has(&read("prometheus/prometheus.yml"), "scrape_interval: 10s");
    has(&read("grafana/dashboards.yaml"), "path: /etc/grafana/provisioning/dashboards }");
    has(&read("grafana/datasources/prometheus.yaml"), "url: http://prometheus:9090");
    has(&read("grafana/datasources/prometheus.yaml"), "timeInterval: 10s");
}

#[test]
fn what_starts_nodes_sets_options_that_exist_and_finds_them() {
    let read = |file: &str| fs::read_to_string(root().join(file)).expect(file);
    let options = read("docs/config.md");
    for file in ["deploy/compose.yaml", "deploy/compose.nodes.yaml", "deploy/kubernetes.yaml"] {
        let text = read(file);
        let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        let variables: BTreeSet<&str> = words.filter(|word| word.starts_with("HEARTH_")).collect();
        assert!(!variables.is_empty(), "{file} sets nothing");
        for name in variables {
            assert!(options.contains(&format!("- variable: `{name}`")), "{file}: {name} is none");
        }
    }
    // A gateway looks where nodes listen, under a name that the file gives them.
    let named = "kind: Service\nmetadata: { name: hearth-nodes }";
    for (file, option, service) in [
        ("deploy/compose.nodes.yaml", "HEARTH_CLUSTER_DNS", "\n  node:\n"),
        ("deploy/kubernetes.yaml", "HEARTH_CLUSTER_KUBERNETES", named),
    ] {
        let text = read(file);
        let (_, set) = text.split_once(option).expect("the option");
        let (_, found) = set.split_once("http://").expect("a name of nodes");
        let end = found.find(|c: char| c == '"' || c.is_whitespace()).unwrap_or(found.len());
        let (host, port) = found[..end].split_once(':').expect("a host and a port");
        // One that has a name is a port of the service.
        let numbered = text.split_once(&format!("{{ name: {port}, port: "));
        let port = numbered.map_or(port, |(_, rest)| rest.split(' ').next().unwrap_or_default());
        let listens = format!("[\"node\", \"--listen\", \"0.0.0.0:{port}\"]");
        assert!(service.contains(host) && text.contains(service), "{file}: nobody is {host}");
        assert!(text.contains(&listens), "{file}: nobody listens on {port}");
        assert!(read("docs/cluster.md").contains(file), "docs/cluster.md does not name {file}");
    }
}
