//! A node that is late with the first of an answer gets company, where a pool says so: another
//! node is asked beside it, and whoever speaks first has the request.

use std::time::{Duration, Instant};

use gateway::backend::local::EngineState;
use gateway::route::Routes;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::client::{Answer, open, post};
use crate::failing::{Deed, Fate};
use crate::fake::Setup;
use crate::kit::{Gateway, SPEECH, Site, ask, chat, said, until};

const CHAT: &str = "/v1/chat/completions";

/// Two nodes, and a pool of their model that gives company.
struct Pair {
    gateway: Gateway,
    sites: [Site; 2],
    fates: [Fate; 2],
    /// What is answered, undisturbed.
    wanted: Value,
    /// The node that is asked first.
    first: usize,
}

impl Pair {
    async fn start(after: &str, more: &str) -> Self {
        let setup = || Setup { speech: SPEECH, ..Setup::default() };
        let mut sites = [Site::start(setup()).await, Site::start(setup()).await];
        let fates = [Fate::default(), Fate::default()];
        for (site, fate) in sites.iter_mut().zip(&fates) {
            site.wire = fate.wire(site.router.clone()).await;
        }
        let pool =
            format!("[pools.p]\ntargets = [\"org/fake\"]\nhedge_after = \"{after}\"\n{more}");
        let routing = toml::from_str(&pool).expect("a pool");
        let routes = Routes::new(&routing, &["org/fake".to_owned()]).expect("routes");
        let nodes = [sites[0].wire.address, sites[1].wire.address];
        let gateway = Gateway::routed(&nodes, routes);
        gateway.nodes(2).await;
        gateway.model("org/fake").await;
        let mut pair = Self { gateway, sites, fates, wanted: Value::Null, first: 0 };
        // Whoever answers it holds its pages, and is asked first from then on.
        let mut alone = body(false);
        alone["model"] = json!("org/fake");
        let answer = ask(&pair.gateway.router, &alone).await;
        pair.first = pair.of(&answer);
        pair.wanted = said(&answer);
        pair
    }

    /// Whom an answer's head names.
    fn of(&self, answer: &Answer) -> usize {
        let route = answer.headers["x-hearth-route"].to_str().expect("text");
        usize::from(!route.contains(&self.sites[0].wire.address.to_string()))
    }

    /// The node that is asked first, and the other.
    fn both(&self) -> [(&Site, &Fate); 2] {
        [self.first, 1 - self.first].map(|at| (&self.sites[at], &self.fates[at]))
    }

    fn asks(&self) -> JoinHandle<Answer> {
        let router = self.gateway.router.clone();
        tokio::spawn(async move { post(&router, CHAT, body(false).to_string()).await })
    }

    async fn is_answered(&self, asked: JoinHandle<Answer>) {
        let answer = asked.await.expect("no panic");
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(said(&answer), self.wanted);
    }

    fn company(&self) -> f64 {
        self.gateway.figure("hearth_pool_retries_total{kind=\"hedge\",pool=\"p\"}")
    }

    fn resumed(&self) -> f64 {
        self.gateway.figure("hearth_cluster_resumes_total{model=\"org/fake\"}")
    }

    async fn nothing_is_left(&self) {
        for site in &self.sites {
            site.fake.gate.open();
            let engine = site.model().engine.clone();
            until("it goes on", || engine.state() == EngineState::Ready).await;
            until("nothing is left there", || engine.open() == 0).await;
            site.fake.idle().await;
        }
    }
}

fn body(stream: bool) -> Value {
    chat(&json!({ "model": "p", "stream": stream, "seed": 7 }))
}

fn open_at(site: &Site) -> usize {
    site.model().engine.open()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_late_gets_company() {
    // It does not take it, its line is dead, or its device is busy with something else.
    for way in 0..3 {
        let pair = Pair::start("50ms", "").await;
        let [(first, fate), _] = pair.both();
        match way {
            0 => fate.is(Deed::SaysNothing),
            1 => first.wire.stall(true),
            _ => first.fake.gate.close(),
        }
        let begun = Instant::now();
        pair.is_answered(pair.asks()).await;
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(45) && took < Duration::from_secs(1), "{took:?}");
        assert_eq!((pair.company(), pair.resumed()), (1.0, 0.0), "{way}");
        let streamed = post(&pair.gateway.router, CHAT, body(true).to_string()).await;
        assert!(streamed.body.ends_with("data: [DONE]\n\n"), "{way}: {}", streamed.body);
        first.wire.stall(false);
        pair.nothing_is_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn company_that_gives_nothing_changes_nothing() {
    for deed in [Deed::Refuses, Deed::BreaksOff, Deed::Fails, Deed::Full, Deed::SaysNothing] {
        let pair = Pair::start("50ms", "").await;
        let [(first, _), (_, fate)] = pair.both();
        first.fake.gate.close();
        fate.is(deed);
        let asked = pair.asks();
        until("it has company", || fate.asked() == 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!((open_at(first), asked.is_finished()), (1, false), "{deed:?}");
        first.fake.gate.open();
        pair.is_answered(asked).await;
        assert_eq!((fate.asked(), pair.company()), (1, 1.0), "{deed:?}: once");
        fate.is(Deed::Well);
        pair.nothing_is_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_lost_leaves_it_to_company() {
    let pair = Pair::start("50ms", "").await;
    let [(first, _), (other, fate)] = pair.both();
    first.fake.gate.close();
    other.fake.gate.close();
    let asked = pair.asks();
    until("it has company", || open_at(other) == 1).await;
    first.wire.cut();
    pair.gateway.nodes(1).await;
    assert!(!asked.is_finished());
    other.fake.gate.open();
    pair.is_answered(asked).await;
    assert_eq!((fate.asked(), pair.resumed()), (1, 0.0), "it was under way there");
    pair.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_leaves_ends_it_at_both() {
    let pair = Pair::start("50ms", "").await;
    let [(first, _), (other, _)] = pair.both();
    first.fake.gate.close();
    other.fake.gate.close();
    let reader = open(&pair.gateway.router, CHAT, body(true).to_string()).await;
    until("it has company", || open_at(other) == 1).await;
    drop(reader);
    pair.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn company_is_for_those_who_may_have_it() {
    // A pool that tries nobody twice, one whose tries are used up, and one with patience.
    for (after, more, company) in
        [("20ms", "attempts = 1\n", 0.0), ("20ms", "", 27.0), ("20s", "", 0.0)]
    {
        let pair = Pair::start(after, more).await;
        for _ in 0..40 {
            pair.sites.iter().for_each(|site| site.fake.gate.close());
            let asked = pair.asks();
            tokio::time::sleep(Duration::from_millis(60)).await;
            pair.sites.iter().for_each(|site| site.fake.gate.open());
            pair.is_answered(asked).await;
        }
        assert!((pair.company() - company).abs() < 1.5, "{after} {more}: {}", pair.company());
        pair.nothing_is_left().await;
    }
}
