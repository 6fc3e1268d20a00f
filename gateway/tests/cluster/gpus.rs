//! What nodes tell of their GPUs, as the gateway shows it: readings made up by the test, since
//! machines that run it have none.

use std::sync::atomic::Ordering;
use std::time::Duration;

use gateway::metrics::GpuReading;

use crate::fake::Setup;
use crate::garbage::{fingerprint, pretend, whole};
use crate::kit::{Gateway, Site, until};

fn reading(index: u32) -> GpuReading {
    GpuReading {
        index,
        uuid: format!("GPU-{index}"),
        name: "NVIDIA H100 \"80GB\"".to_owned(),
        busy_percent: Some(25),
        memory_used_bytes: Some(60_000_000_000),
        memory_total_bytes: Some(80_000_000_000),
        celsius: Some(61),
        milliwatts: Some(450_500),
    }
}

/// All lines about the GPUs of nodes, without their beginning and without the node's name.
fn shown(gateway: &Gateway, node: &str) -> Vec<String> {
    let text = gateway.metrics.render();
    let lines = text.lines().filter_map(|line| line.strip_prefix("hearth_node_gpu_"));
    lines.map(|line| line.replace(node, "NODE")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_are_shown_for_as_long_as_the_node_tells_them() {
    let site = Site::start(Setup::default()).await;
    let node = site.wire.address.to_string();
    let gateway = Gateway::of(&[&site]).await;
    assert_eq!(shown(&gateway, &node), [""; 0], "this node has none");

    let poor = GpuReading { busy_percent: None, celsius: None, milliwatts: None, ..reading(1) };
    site.node.tell_gpus(vec![reading(0), poor]);
    let labels = |index| {
        let name = "NVIDIA H100 \\\"80GB\\\"";
        format!("{{gpu=\"{index}\",name=\"{name}\",node=\"NODE\",uuid=\"GPU-{index}\"}}")
    };
    let of = |figure: &str, index: u32, value: &str| format!("{figure}{} {value}", labels(index));
    let expected = [
        of("memory_total_bytes", 0, "80000000000"),
        of("memory_total_bytes", 1, "80000000000"),
        of("memory_used_bytes", 0, "60000000000"),
        of("memory_used_bytes", 1, "60000000000"),
        of("power_watts", 0, "450.5"),
        of("temperature_celsius", 0, "61"),
        of("utilization_ratio", 0, "0.25"),
    ];
    until("both are shown", || shown(&gateway, &node) == expected).await;
    the_dashboard_asks_for_these(&gateway.metrics.render());

    // One is gone, the other works more.
    site.node.tell_gpus(vec![GpuReading { busy_percent: Some(100), ..reading(0) }]);
    until("the change is shown", || {
        let now = shown(&gateway, &node);
        now.len() == 5 && now.contains(&of("utilization_ratio", 0, "1"))
    })
    .await;
    site.wire.kill(true);
    gateway.nodes(0).await;
    until("its series have ended", || shown(&gateway, &node).is_empty()).await;
    // And come back with it.
    site.wire.kill(false);
    until("they are shown again", || shown(&gateway, &node).len() == 5).await;
}

/// Names of the dashboard, which no server without such nodes reports.
fn the_dashboard_asks_for_these(reported: &str) {
    let dashboard = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/grafana/hearth.json");
    let dashboard = std::fs::read_to_string(dashboard).expect("the dashboard");
    let named = dashboard.match_indices("hearth_node_gpu_").map(|(at, _)| {
        let rest = &dashboard[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    });
    let named: Vec<&str> = named.collect();
    assert!(!named.is_empty());
    for name in named {
        assert!(reported.contains(&format!("\n{name}{{")), "{name} is not reported");
    }
}

/// As it goes over the wire: a node of the test's own says it once and is silent then.
#[tokio::test(flavor = "multi_thread")]
async fn the_words_are_these_and_what_cannot_be_is_not_shown() {
    let site = Site::start(Setup::default()).await;
    let print = fingerprint(&site).await;
    let state = move |count: usize| {
        // Memory in use: at first some, then less of the same, then more than there is.
        let used = [7, 5, 11][count % 3];
        let mut lines = whole(&print, 7);
        let gpu = format!(
            "{{\"index\":0,\"uuid\":\"u\",\"name\":\"n\",\"busy_percent\":null,\
             \"memory_used_bytes\":{used},\"memory_total_bytes\":10}}"
        );
        let delta = format!(
            "{{\"delta\":{{\"version\":8,\"draining\":false,\"models\":[],\"gpus\":[{gpu}]}}}}\n"
        );
        lines.extend(delta.into_bytes());
        lines
    };
    let (address, states, _) = pretend(&site, state, |_| Vec::new()).await;
    let gateway = Gateway::start(&[address]);
    let used = |bytes: u32| {
        let labels = "{gpu=\"0\",name=\"n\",node=\"NODE\",uuid=\"u\"}";
        let total = format!("memory_total_bytes{labels} 10");
        vec![total, format!("memory_used_bytes{labels} {bytes}")]
    };
    for bytes in [7, 5] {
        until("it is shown", || shown(&gateway, &address.to_string()) == used(bytes)).await;
    }
    // The third time it is out at once; whatever it tells then is shown nowhere.
    until("it tells what cannot be", || states.load(Ordering::SeqCst) >= 3).await;
    let begun = std::time::Instant::now();
    while states.load(Ordering::SeqCst) == 3 && begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(shown(&gateway, &address.to_string()), [""; 0]);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
