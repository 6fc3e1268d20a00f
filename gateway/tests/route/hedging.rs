//! Who is slow to begin gets company; and what fails before its first token is answered by another
//! one, here as well as at a provider.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::caller::{Inbound, ask, gateway, provider, request, routes, send, until};
use crate::fake::{Fake, Setup};
use crate::governed::House;
use crate::speech::good;
use crate::upstream::{Step, Upstream};

fn config(slow: &Upstream, quick: &Upstream, more: &str) -> String {
    format!(
        "{}{}[pools.p]\ntargets = [\"slow/m\", \"quick/m\"]\n{more}",
        provider("slow", "compatible", &slow.url, "lost_fields = \"drop\"\n"),
        provider("quick", "compatible", &quick.url, "lost_fields = \"drop\"\n"),
    )
}

const AFTER: &str = "hedge_after = \"150ms\"\n";

/// The second one answers long before the first one's time is over, and the first one's connection
/// is given up at once.
#[tokio::test(flavor = "multi_thread")]
async fn the_quicker_one_answers_and_the_other_is_left() {
    let slow = Upstream::start(|_| vec![Step::Silence]).await;
    let quick = Upstream::well("quick").await;
    let router = gateway(&config(&slow, &quick, AFTER));
    let mut times = 0;
    for inbound in Inbound::ALL {
        for stream in [false, true] {
            let begun = Instant::now();
            let got = ask(&router, inbound, "p", stream).await;
            times += 1;
            assert_eq!(got.status, 200, "{inbound:?}: {}", got.text());
            assert!(got.text().contains("quick"), "{inbound:?}: {}", got.text());
            assert_eq!(got.route(), "quick/m; pool=p; reason=priority; attempt=2");
            let took = begun.elapsed();
            assert!(took > Duration::from_millis(150) && took < Duration::from_secs(5), "{took:?}");
            until("the slow one is left", || slow.left() == times).await;
        }
    }
    // To be slow is no fault.
    assert_eq!((slow.count(), quick.count()), (times, times));
}

/// The first one may still be the quicker one; and whoever answers in time has no company.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_may_win() {
    let first = Upstream::start(|seen| {
        let mut steps = vec![Step::Pause(Duration::from_millis(500))];
        steps.extend(good(seen, "first"));
        steps
    })
    .await;
    let second = Upstream::start(|_| vec![Step::Silence]).await;
    let router = gateway(&config(&first, &second, AFTER));
    for (times, stream) in (1..).zip([false, true]) {
        let got = ask(&router, Inbound::Chat, "p", stream).await;
        assert!(got.text().contains("first"), "{}", got.text());
        assert_eq!(got.route(), "slow/m; pool=p; reason=priority; attempt=2");
        until("the second is left", || second.left() == times).await;
    }
    first.turn(|seen| good(seen, "first"));
    let got = ask(&router, Inbound::Chat, "p", true).await;
    assert_eq!(got.route(), "slow/m; pool=p; reason=priority; attempt=1");
    assert_eq!(second.count(), 2);
}

/// When the company fails the first one is still waited for; when both fail the next one is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_beside_is_no_failure() {
    let slow = Upstream::start(|seen| {
        let mut steps = vec![Step::Pause(Duration::from_millis(600))];
        steps.extend(good(seen, "slow"));
        steps
    })
    .await;
    let ill = Upstream::start(|_| vec![Step::Reset]).await;
    let router = gateway(&config(&slow, &ill, AFTER));
    let got = ask(&router, Inbound::Chat, "p", true).await;
    assert_eq!(got.route(), "slow/m; pool=p; reason=priority; attempt=2");
    assert_eq!(ill.count(), 1);
    slow.turn(|_| vec![Step::Pause(Duration::from_millis(600)), Step::Reset]);
    let third = Upstream::well("third").await;
    let more = provider("third", "compatible", &third.url, "");
    let three = format!("{more}{}", config(&slow, &ill, AFTER))
        .replace("\"quick/m\"]", "\"quick/m\", \"third/m\"]");
    let got = ask(&gateway(&three), Inbound::Chat, "p", true).await;
    assert_eq!(got.route(), "third/m; pool=p; reason=priority; attempt=3");
}

/// Company counts as a try again: when everybody is slow it must not double what everybody has to
/// do.
#[tokio::test(flavor = "multi_thread")]
async fn company_has_a_bound() {
    let slow = Upstream::start(|seen| {
        let mut steps = vec![Step::Pause(Duration::from_millis(200))];
        steps.extend(good(seen, "slow"));
        steps
    })
    .await;
    let other = Upstream::start(|_| vec![Step::Silence]).await;
    let router = gateway(&config(&slow, &other, "hedge_after = \"1ms\"\n"));
    let all = (0..100).map(|_| ask(&router, Inbound::Chat, "p", false));
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(|got| got.status == 200));
    // Twenty in hand, and a fifth of the requests.
    let asked = other.count();
    assert!((20..=40).contains(&asked), "{asked} of 100 had company");
}

/// One operation, a line for each; who answers pays, and the other one's money is free at once.
#[tokio::test(flavor = "multi_thread")]
async fn the_one_that_lost_costs_nothing() {
    let slow = Upstream::start(|_| vec![Step::Silence]).await;
    let quick = Upstream::well("quick").await;
    let house = House::new().await;
    let fake = house.gateway(&config(&slow, &quick, AFTER), Setup::default());
    let key = house.key(&fake.router, "team", json!({})).await;
    for stream in [false, true] {
        let (path, body) = Inbound::Chat.request("p", stream, "hi");
        let got = send(&fake.router, request(&key, &path, &body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
    let lines = house.settled(&fake.router, 4).await;
    let mut found: Vec<String> = lines
        .iter()
        .map(|line| {
            let tokens = &line["tokens"];
            let (backend, attempt, outcome) =
                (&line["backend"], &line["attempt"], &line["outcome"]);
            format!("{backend} {attempt} {outcome} {} {}", tokens["input"], tokens["output"])
        })
        .collect();
    found.sort();
    assert!(found[0].starts_with("\"quick\" 2 \"done\" "), "{found:?}");
    assert!(found[0].ends_with(" 3") && found[1].ends_with(" 3"), "{found:?}");
    assert_eq!(found[2..], ["\"slow\" 1 \"cancelled\" 0 0"; 2]);
    let operations: std::collections::BTreeSet<_> =
        lines.iter().map(|line| line["operation"].to_string()).collect();
    assert_eq!(operations.len(), 2);
}

/// Company is the quicker one by its first token, and not by being asked.
#[tokio::test(flavor = "multi_thread")]
async fn company_here_wins_by_its_first_token() {
    let slow = Upstream::start(|seen| {
        let mut steps = vec![Step::Pause(Duration::from_millis(600))];
        steps.extend(good(seen, "slow"));
        steps
    })
    .await;
    let config = format!(
        "{}[pools.p]\ntargets = [\"slow/m\", \"org/fake\"]\n{AFTER}",
        provider("slow", "compatible", &slow.url, ""),
    );
    let routes = routes(&config, &["org/fake"]).expect("a configuration");
    let fake = Fake::start(Setup { routes, ..Setup::default() });
    fake.gate.close();
    let got = ask(&fake.router, Inbound::Chat, "p", true).await;
    assert_eq!(got.route(), "slow/m; pool=p; reason=priority; attempt=2", "{}", got.text());
    fake.gate.open();
}

/// A model of this server that is asked beside a provider, or the other way round: one
/// operation, and who lost has no tokens in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_here_and_a_provider_share_an_operation() {
    let slow = Upstream::start(|_| vec![Step::Silence]).await;
    let quick = Upstream::well("quick").await;
    let providers = |more: &str| {
        let slow = provider("slow", "compatible", &slow.url, "");
        format!("{slow}{}{more}", provider("quick", "compatible", &quick.url, ""))
    };
    for here_first in [false, true] {
        let order = if here_first { ["org/fake", "quick/m"] } else { ["slow/m", "org/fake"] };
        let pool = format!("[pools.p]\ntargets = {order:?}\n{AFTER}");
        let house = House::new().await;
        let fake = house.gateway(&providers(&pool), Setup::default());
        let key = house.key(&fake.router, "team", json!({})).await;
        for stream in [false, true] {
            if here_first {
                fake.gate.close();
            }
            let (path, body) = Inbound::Chat.request("p", stream, "hi");
            let got = send(&fake.router, request(&key, &path, &body)).await;
            assert_eq!(got.status, 200, "{}", got.text());
            assert!(got.route().starts_with(order[1]), "{}", got.route());
            fake.gate.open();
            fake.idle().await;
        }
        let lines = house.settled(&fake.router, 4).await;
        let mut found: Vec<String> = lines
            .iter()
            .map(|line| format!("{} {} {}", line["attempt"], line["model"], line["outcome"]))
            .collect();
        found.sort();
        let [first, second] = order;
        let (first, second) =
            (format!("1 \"{first}\" \"cancelled\""), format!("2 \"{second}\" \"done\""));
        assert_eq!(found, [first.clone(), first, second.clone(), second]);
        let operations: std::collections::BTreeSet<_> =
            lines.iter().map(|line| line["operation"].to_string()).collect();
        assert_eq!(operations.len(), 2, "{lines:?}");
        let lost = lines.iter().filter(|line| line["attempt"] == 1);
        assert!(lost.clone().all(|line| line["cost"] == 0 && line["tokens"]["output"] == 0));
    }
}

/// An engine that dies before its first token has said nothing yet: another one answers.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_early_is_replaced() {
    let cloud = Upstream::well("cloud").await;
    for stream in [false, true] {
        let config = format!(
            "{}[pools.p]\ntargets = [\"org/fake\"]\nfallback = [\"cloud/m\"]\n",
            provider("cloud", "compatible", &cloud.url, ""),
        );
        let fake = Fake::start(Setup {
            fail_at: Some(0),
            routes: routes(&config, &["org/fake"]).expect("a configuration"),
            ..Setup::default()
        });
        let got = ask(&fake.router, Inbound::Chat, "p", stream).await;
        assert_eq!(got.status, 200, "{}", got.text());
        assert_eq!(got.route(), "cloud/m; pool=p; reason=priority; attempt=2");
    }
}

/// Our own engine is as slow as anybody: its queue gets company too, and is left at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_slow_gets_company() {
    let cloud = Upstream::well("cloud").await;
    let config = format!(
        "{}[pools.p]\ntargets = [\"org/fake\", \"cloud/m\"]\n{AFTER}",
        provider("cloud", "compatible", &cloud.url, ""),
    );
    let routes = routes(&config, &["org/fake"]).expect("a configuration");
    let fake = Fake::start(Setup { routes, ..Setup::default() });
    fake.gate.close();
    for stream in [false, true] {
        let got = ask(&fake.router, Inbound::Chat, "p", stream).await;
        assert_eq!(got.route(), "cloud/m; pool=p; reason=priority; attempt=2");
    }
    fake.gate.open();
    fake.idle().await;
    let got = ask(&fake.router, Inbound::Chat, "p", true).await;
    assert_eq!(got.route(), "org/fake; pool=p; reason=priority; attempt=1");
}
