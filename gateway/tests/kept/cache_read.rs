//! Vectors, rankings and scores that are given again: they are the same each time, so nothing has
//! to be said for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use axum::http::HeaderValue;
use gateway::backend::Task;
use gateway::backend::embed::Options;
use scheduler::types::Fault;
use serde_json::{Value, json};

use crate::cache::{caching, got};
use crate::fake::Fake;
use crate::house::{Answer, Caller, House};
use crate::reader::{Reader, pool_model};

const EMBED: &str = "POST /v1/embeddings";

/// What reads beside the fake that writes.
struct Readers {
    /// Steps of both.
    steps: Arc<AtomicUsize>,
    /// Where a test holds the one that embeds.
    gate: Option<Sender<Result<(), Fault>>>,
}

/// A model that embeds, `e`, and one that ranks, `r`.
fn beside(fake: &Fake, holds: bool) -> Readers {
    let steps = Arc::new(AtomicUsize::new(0));
    let (send, receive) = channel();
    let mut gate = holds.then_some(receive);
    for (id, task) in [("e", Task::Embed), ("r", Task::Rerank)] {
        let reader =
            Reader { scores: task == Task::Rerank, steps: Arc::clone(&steps), gate: gate.take() };
        let options = Options {
            name: id.to_owned(),
            queue_max: 64,
            request_timeout: None,
            step_timeout: None,
        };
        fake.models.add_pool(pool_model((id, task), reader, options, fake.metrics.model(id)));
    }
    Readers { steps, gate: holds.then_some(send) }
}

impl Readers {
    fn steps(&self) -> usize {
        self.steps.load(Ordering::SeqCst)
    }
}

fn all() -> [(&'static str, Value); 4] {
    let documents = json!(["abc", "x", "abz"]);
    [
        (EMBED, json!({ "model": "e", "input": ["ab", "cde"] })),
        ("POST /v1/rerank", json!({ "model": "r", "query": "q", "documents": documents })),
        ("POST /v2/rerank", json!({ "model": "r", "query": "q", "documents": documents })),
        ("POST /v1/score", json!({ "model": "r", "text_1": "a", "text_2": ["b", "c"] })),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_again_on_every_route() {
    let house = House::new(None).await;
    for governed in [false, true] {
        let fake = if governed { house.gateway(caching()) } else { Fake::start(caching()) };
        let readers = beside(&fake, false);
        let caller =
            if governed { house.people(&fake).await[0].clone() } else { Caller::new(&fake, "") };
        for (number, (line, body)) in all().into_iter().enumerate() {
            let first = caller.ask(line, &body).await;
            assert_eq!((first.status, &*got(&first)), (200, "miss"), "{line} {}", first.text());
            // The order of fields is nothing, and nor is white space.
            let fields = body.as_object().expect("fields").iter().rev();
            let turned: Vec<String> = fields.map(|(k, v)| format!("{k:?} : {v}")).collect();
            let mut turned = caller
                .request(line, &json!(0))
                .map(|_| axum::body::Body::from(format!("{{ {} }}", turned.join(" , "))));
            turned.headers_mut().insert("x-request-id", HeaderValue::from_static("mine"));
            let again = caller.send(turned).await;
            assert_eq!((again.status, &*got(&again)), (200, "hit"), "{line} {}", again.text());
            assert_eq!(
                (&again.bytes, again.header("x-request-id")),
                (&first.bytes, "mine"),
                "{line}"
            );
            assert_eq!(readers.steps(), number + 1, "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_else_is_asked_is_made() {
    let fake = Fake::start(caching());
    let readers = beside(&fake, false);
    let caller = Caller::new(&fake, "");
    let plain = json!({ "model": "e", "input": "abc" });
    assert_eq!(got(&caller.ask(EMBED, &plain).await), "miss");
    for more in [
        json!({ "input": "abd" }),
        json!({ "input": ["abc"] }),
        json!({ "dimensions": 2 }),
        json!({ "encoding_format": "base64" }),
    ] {
        let mut body = plain.clone();
        more.as_object().expect("fields").iter().for_each(|(k, v)| body[k] = v.clone());
        assert_eq!(got(&caller.ask(EMBED, &body).await), "miss", "{more}");
        assert_eq!(got(&caller.ask(EMBED, &body).await), "hit", "{more}");
    }
    let said = |word: &'static str| {
        let mut request = caller.request(EMBED, &plain);
        request.headers_mut().insert("x-hearth-cache", HeaderValue::from_static(word));
        request
    };
    for (word, expect) in [("only-if-cached", "hit"), ("no-cache", "miss"), ("off", "off")] {
        assert_eq!(got(&caller.send(said(word)).await), expect, "{word}");
    }
    assert_eq!(readers.steps(), 7);
    // What is refused is refused again.
    let wrong = json!({ "model": "e", "input": "far more than twelve tokens" });
    for _ in 0..2 {
        let refused = caller.ask(EMBED, &wrong).await;
        assert_eq!((refused.status, &*got(&refused)), (400, ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn never_across_tenants_or_labels_and_hits_cost_nothing() {
    let house = House::new(None).await;
    let fake = house.gateway(caching());
    let readers = beside(&fake, false);
    let models = json!([{ "model": "*", "input": 1_000_000, "output": 0 }]);
    house.admin(&fake, "POST /prices", &json!({ "name": "p", "models": models })).await;
    let [ada, bob, stranger] = house.people(&fake).await;
    let project = house.project(&fake, "third", json!({})).await;
    let secret = house.caller(&fake, &project, json!({ "label": "restricted" })).await;
    let open = house.caller(&fake, &project, json!({})).await;
    let none = house.caller(&fake, &project, json!({ "models": ["other"] })).await;
    let (line, body) = &all()[0];
    let made = ada.ask(line, body).await;
    assert_eq!((&*got(&made), made.header("x-hearth-cost")), ("miss", "0.000005"));
    let hit = bob.ask(line, body).await;
    assert_eq!((&*got(&hit), hit.header("x-hearth-cost")), ("hit", "0.00"));
    let mut lines = house.ledger(&fake).await;
    assert_eq!(lines.len(), 2);
    lines.sort_by_key(|line| line["backend"] != "cache");
    let [hit, miss] = &lines[..] else { panic!("two lines") };
    assert_eq!((&hit["backend"], &miss["backend"]), (&json!("cache"), &json!("local")));
    assert_eq!((&hit["cost"], &hit["tokens"]["input"]), (&json!(0), &json!(0)));
    assert_eq!((&miss["cost"], &miss["tokens"]["input"]), (&json!(5_000), &json!(5)));
    assert_eq!((&hit["surface"], &hit["model"]), (&miss["surface"], &miss["model"]));
    for caller in [&stranger, &open, &secret] {
        assert_eq!(got(&caller.ask(line, body).await), "miss");
        assert_eq!(got(&caller.ask(line, body).await), "hit", "their own");
    }
    assert_eq!(none.ask(line, body).await.status, 403, "who may not ask gets nothing");
    assert_eq!(readers.steps(), 4);
}

/// So many ask the same while the first of them is read.
async fn at_once(caller: &Caller, readers: &Readers, count: usize) -> Vec<Answer> {
    let before = readers.steps();
    let ask = |_| {
        let caller = caller.clone();
        tokio::spawn(async move { caller.ask(EMBED, &all()[0].1).await })
    };
    let asked: Vec<_> = (0..count).map(ask).collect();
    while readers.steps() == before {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    readers.gate.as_ref().expect("a gate").send(Ok(())).expect("it waits");
    let mut answers = Vec::with_capacity(count);
    for asked in asked {
        answers.push(asked.await.expect("an answer"));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_read_once_and_what_breaks_is_not_kept() {
    let house = House::new(None).await;
    let fake = house.gateway(caching());
    let readers = beside(&fake, true);
    let [ada, ..] = house.people(&fake).await;
    let gate = readers.gate.as_ref().expect("a gate");
    gate.send(Err(Fault::Step("a hiccup".to_owned()))).expect("it waits");
    let broken = ada.ask(EMBED, &all()[0].1).await;
    assert_eq!(broken.status, 500, "{}", broken.text());
    let answers = at_once(&ada, &readers, 50).await;
    let mut found = std::collections::BTreeMap::<String, usize>::new();
    for answer in &answers {
        assert_eq!((answer.status, &answer.bytes), (200, &answers[0].bytes), "{}", answer.text());
        *found.entry(got(answer)).or_default() += 1;
    }
    assert_eq!(found.get("miss"), Some(&1), "{found:?}");
    assert!(found.get("joined").is_some_and(|count| *count > 10), "{found:?}");
    assert_eq!(readers.steps(), 2, "one that broke, and one for all");
    let ledger = house.ledger(&fake).await;
    let cached = ledger.iter().filter(|line| line["backend"] == "cache").count();
    assert_eq!(cached, 49);
}
