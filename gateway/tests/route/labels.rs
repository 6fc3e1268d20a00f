//! Who never sees what: every label, every target, every fault. The provider itself looks whether
//! it may see what it is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use govern::policy::Label;
use serde_json::json;

use crate::caller::{Inbound, open, provider, request, send, until};
use crate::fake::{Fake, Setup};
use crate::governed::House;
use crate::speech::{answer, chunk, end, good, half, stream_head};
use crate::upstream::{Seen, Step, Upstream};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    LocalFull,
    LocalDead,
    Provider500,
    FirstCut,
    FirstSilent,
}

const FAULTS: [Fault; 6] = [
    Fault::None,
    Fault::LocalFull,
    Fault::LocalDead,
    Fault::Provider500,
    Fault::FirstCut,
    Fault::FirstSilent,
];

/// The label that a request bears in its own text, so that a provider can look.
fn label_of(seen: &Seen) -> Label {
    let text = String::from_utf8_lossy(&seen.body).into_owned();
    let found = Label::ALL.into_iter().find(|l| text.contains(&format!("this is {}", l.name())));
    found.expect("each request bears its label")
}

/// A provider that may see so much, and counts what it must not see.
async fn watching(most: Label, seen_wrong: &Arc<AtomicU64>) -> Upstream {
    let upstream = Upstream::start(|_| Vec::new()).await;
    behave(&upstream, most, seen_wrong, Fault::None);
    upstream
}

fn behave(upstream: &Upstream, most: Label, wrong: &Arc<AtomicU64>, fault: Fault) {
    let wrong = Arc::clone(wrong);
    upstream.turn(move |seen| {
        if label_of(seen) > most {
            wrong.fetch_add(1, Ordering::SeqCst);
        }
        match fault {
            Fault::Provider500 => answer(500, "", b"{}"),
            Fault::FirstSilent => vec![Step::Silence],
            Fault::FirstCut if seen.streams() => {
                vec![stream_head(), chunk(half(seen.tongue(), "cut")), end()]
            }
            Fault::FirstCut => vec![Step::Reset],
            _ => good(seen, most.name()),
        }
    });
}

/// Pools in which targets of all labels come in different orders and roles.
const POOLS: [(&str, &str); 5] = [
    ("rising", "targets = [\"public/m\", \"internal/m\", \"confidential/m\", \"restricted/m\"]"),
    ("falling", "targets = [\"restricted/m\", \"confidential/m\", \"internal/m\", \"public/m\"]"),
    (
        "home",
        "targets = [\"org/fake\"]\nfallback = [\"public/m\", \"rising\"]\noverflow = { to = \
         [\"public/m\", \"internal/m\"], when = { queue = 1 } }",
    ),
    (
        "chance",
        "strategy = \"weighted\"\nattempts = 9\ntargets = [\"public/m\", \"org/fake\", \
                \"internal/m\", \"confidential/m\"]",
    ),
    ("low", "targets = [\"public/m\", { target = \"restricted/m\", max_label = \"public\" }]"),
];

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_what_is_too_secret() {
    let house = House::new().await;
    let wrong = Arc::new(AtomicU64::new(0));
    let mut ups = Vec::new();
    for most in Label::ALL {
        ups.push((most, watching(most, &wrong).await));
    }
    let mut config = String::new();
    for (most, upstream) in &ups {
        let more = format!(
            "max_label = \"{}\"\nlost_fields = \"drop\"\nfirst_byte_timeout = \"700ms\"\n",
            most.name()
        );
        config += &provider(most.name(), "compatible", &upstream.url, &more);
    }
    for (name, pool) in POOLS {
        config += &format!("[pools.{name}]\n{pool}\n");
    }
    let plain = house.gateway(&config, Setup::default());
    let mut keys = Vec::new();
    for label in Label::ALL {
        let policy = json!({ "label": label.name() });
        keys.push((label, house.key(&plain.router, label.name(), policy).await));
    }
    let mut answered = 0;
    for fault in FAULTS {
        for (label, key) in &keys {
            for (name, pool) in POOLS {
                for (at, (most, upstream)) in ups.iter().enumerate() {
                    // The first one that is asked fails; all of them in turn with 500.
                    let first = at == 0 || name == "falling" && at == 3;
                    let own = match fault {
                        Fault::FirstCut | Fault::FirstSilent if !first => Fault::None,
                        fault => fault,
                    };
                    behave(upstream, *most, &wrong, own);
                }
                let (fake, held) = world(&house, &config, fault, key).await;
                for stream in [false, true] {
                    let status = one(&fake, key, (*label, name, pool), stream, &wrong, fault).await;
                    answered += u32::from(status == 200);
                }
                drop(held);
            }
        }
    }
    assert!(answered > 100, "{answered} answers: the faults leave nothing to look at");
    // And they looked: each saw something.
    assert!(ups.iter().all(|(_, upstream)| upstream.count() > 0));
}

/// A gateway with a local model that is well, full or dead.
async fn world(
    house: &House,
    config: &str,
    fault: Fault,
    key: &str,
) -> (Fake, Vec<Response<Body>>) {
    let setup = match fault {
        Fault::LocalFull => Setup {
            rows: 1,
            waiting: 1,
            endless: true,
            pace: Duration::from_millis(3),
            ..Setup::default()
        },
        Fault::LocalDead => Setup { fail_at: Some(0), ..Setup::default() },
        _ => Setup::default(),
    };
    let fake = house.gateway(config, setup);
    let mut held = Vec::new();
    let model = fake.models.first().expect("the fake");
    if fault == Fault::LocalFull {
        for waiting in 0..2 {
            let (path, mut body) = Inbound::Chat.request("org/fake", true, "hi");
            body["max_tokens"] = 4_000.into();
            held.push(open(&fake.router, request(key, &path, &body)).await);
            until("it waits", || model.engine.stats().waiting == waiting).await;
        }
    }
    if fault == Fault::LocalDead {
        let (path, body) = Inbound::Chat.request("org/fake", false, "hi");
        let dead = send(&fake.router, request(key, &path, &body)).await;
        assert!(dead.status >= 500, "{}", dead.text());
    }
    (fake, held)
}

/// One request; its status.
async fn one(
    fake: &Fake,
    key: &str,
    (label, name, pool): (Label, &str, &str),
    stream: bool,
    wrong: &Arc<AtomicU64>,
    fault: Fault,
) -> u16 {
    let text = format!("this is {}", label.name());
    let (path, mut body) = Inbound::Chat.request(name, stream, &text);
    body["max_tokens"] = 4.into();
    let got = send(&fake.router, request(key, &path, &body)).await;
    let case = format!("{fault:?} {label:?} {name} stream={stream}: {} {}", got.status, got.text());
    assert_eq!(wrong.load(Ordering::SeqCst), 0, "too secret for who saw it: {case}");
    let target = got.route().split(';').next().unwrap_or_default();
    let most = Label::ALL.into_iter().find(|most| target == format!("{}/m", most.name()));
    if let Some(most) = most {
        assert!(label <= most, "{case}");
        assert!(!(name == "low" && label > Label::Public), "{case}");
    }
    // Nobody may: that is said, with its reason, whatever else is wrong.
    if name == "low" && label > Label::Public {
        assert_eq!(got.status, 403, "{case}");
        assert!(got.text().contains("may see public at most"), "{case}");
        assert!(got.text().contains("\"code\":\"label\""), "{case}");
    } else {
        assert_ne!(got.status, 403, "{case}");
    }
    // Where all is well and somebody may, somebody does.
    if fault == Fault::None && !(name == "low" && label > Label::Public) {
        assert_eq!(got.status, if pool.contains("chance") { got.status } else { 200 }, "{case}");
    }
    got.status
}
