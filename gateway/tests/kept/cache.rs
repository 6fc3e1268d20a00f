//! Answers that are given again: to whom, and to whom not.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response};
use gateway::api::cache::Settings;
use gateway::config::routing::Routing;
use gateway::route::Routes;
use hearth_tests::services::redis::Redis;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use hearth_tests::services::postgres;

use crate::fake::{Fake, Setup};
use crate::house::{Answer, Caller, House};

fn settings() -> Settings {
    let (ttl, bytes_max) = (Duration::from_secs(600), 4 << 20);
    Settings { ttl, bytes_max, any: false, shared: None }
}

pub(crate) fn caching() -> Setup {
    Setup { cache: Some(settings()), ..Setup::default() }
}

const CHAT: &str = "POST /v1/chat/completions";

fn chat(stream: bool) -> Value {
    let turns = json!([{ "role": "user", "content": "hi" }]);
    json!({ "model": "org/fake", "messages": turns, "temperature": 0, "stream": stream })
}

/// A request in each dialect, streamed or not.
fn all() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for stream in [false, true] {
        let turns = json!([{ "role": "user", "content": "hi" }]);
        let base = json!({ "model": "org/fake", "temperature": 0, "stream": stream });
        let with = |name: &str, value: Value, more: Value| {
            let mut body = base.clone();
            body[name] = value;
            more.as_object().expect("fields").iter().for_each(|(k, v)| body[k] = v.clone());
            body
        };
        all.push((CHAT.to_owned(), with("messages", turns.clone(), json!({}))));
        all.push(("POST /v1/completions".to_owned(), with("prompt", json!("hi"), json!({}))));
        all.push((
            "POST /v1/messages".to_owned(),
            with("messages", turns, json!({ "max_tokens": 64 })),
        ));
        let fresh = json!({ "store": false });
        all.push(("POST /v1/responses".to_owned(), with("input", json!("hi"), fresh)));
        let how = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
        let turns = json!([{ "role": "user", "parts": [{ "text": "hi" }] }]);
        let body = json!({ "contents": turns, "generationConfig": { "temperature": 0 } });
        all.push((format!("POST /v1beta/models/org/fake:{how}"), body));
    }
    all
}

pub(crate) fn got(answer: &Answer) -> String {
    answer.header("x-hearth-cache").to_owned()
}

/// The same of an answer whose body is unread.
fn mark(answer: &Response<Body>) -> &str {
    answer.headers().get("x-hearth-cache").map_or("", |value| value.to_str().expect("text"))
}

/// A request with a word in the cache's header.
fn wishing(caller: &Caller, word: &str, body: &Value) -> Request<Body> {
    let mut request = caller.request(CHAT, body);
    let value = HeaderValue::from_str(word).expect("a value");
    request.headers_mut().insert("x-hearth-cache", value);
    request
}

/// Sequences that have run to an end.
async fn runs(fake: &Fake) -> u64 {
    fake.idle().await;
    let text = fake.metrics.render();
    let ended = text.lines().filter(|line| line.starts_with("hearth_request_success_total{"));
    ended
        .map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a count"))
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_again_in_every_dialect() {
    let house = House::new(None).await;
    for governed in [false, true] {
        let fake = if governed { house.gateway(caching()) } else { Fake::start(caching()) };
        let caller =
            if governed { house.people(&fake).await[0].clone() } else { Caller::new(&fake, "") };
        for (line, body) in all() {
            let first = caller.ask(&line, &body).await;
            assert_eq!((first.status, &*got(&first)), (200, "miss"), "{line} {}", first.text());
            let again = caller.ask(&line, &body).await;
            assert_eq!((again.status, &*got(&again)), (200, "hit"), "{line}");
            // All but what it has cost the first.
            let cost = ",\"hearth\":{\"cost_usd\":\"0.00\"}";
            let (first_text, again_text) = (first.text().replace(cost, ""), again.text());
            let told = |line: &&str| !line.is_empty() && !line.starts_with(": hearth ");
            let plain: Vec<_> = first_text.lines().filter(told).collect();
            let given: Vec<_> = again_text.lines().filter(|line| !line.is_empty()).collect();
            assert_eq!(given, plain, "{line} {body}");
            assert!(governed || again.bytes == first.bytes);
            assert_eq!(again.header("content-type"), first.header("content-type"));
            assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_header_says_is_done() {
    let fake = Fake::start(caching());
    let caller = Caller::new(&fake, "");
    let body = chat(false);
    let ask = async |word: &str| caller.send(wishing(&caller, word, &body)).await;
    assert_eq!(ask("only-if-cached").await.code(504), "not_cached");
    assert_eq!(got(&ask("no-store").await), "miss");
    assert_eq!(got(&ask("off").await), "off");
    assert_eq!(ask("only-if-cached").await.status, 504, "nothing was stored");
    let first = ask("").await;
    assert_eq!(got(&first), "miss");
    assert_eq!(got(&ask("only-if-cached").await), "hit");
    assert_eq!(got(&ask("no-store").await), "hit");
    let anew = ask("no-cache").await;
    assert_eq!(got(&anew), "miss");
    assert_ne!(anew.bytes, first.bytes, "it has an id of its own");
    assert_eq!(ask("").await.bytes, anew.bytes, "and is given from now on");
    let wrong = ask("max-age=5").await.expect(400);
    assert_eq!(wrong["error"]["param"], "x-hearth-cache");
    assert_eq!(ask("only-if-cached, no-cache").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_not_drawn_by_chance() {
    let check = async |any: bool, line: &str, body: &Value, expect: &str| {
        let cache = Some(Settings { any, ..settings() });
        let fake = Fake::start(Setup { cache, ..Setup::default() });
        let caller = Caller::new(&fake, "");
        caller.ask(line, body).await;
        let again = caller.ask(line, body).await;
        assert_eq!((again.status, &*got(&again)), (200, expect), "{line} {body} {}", again.text());
    };
    let chat = |name: &str, value: Value| {
        let turns = json!([{ "role": "user", "content": "hi" }]);
        let mut body = json!({ "model": "org/fake", "messages": turns });
        body[name] = value;
        body
    };
    check(false, CHAT, &chat("temperature", json!(0.5)), "off").await;
    check(false, CHAT, &chat("temperature", Value::Null), "off").await;
    check(false, CHAT, &chat("temperature", json!(0.0)), "hit").await;
    check(false, CHAT, &chat("seed", json!(7)), "hit").await;
    check(true, CHAT, &chat("temperature", json!(0.5)), "hit").await;
    // One that is kept has an id that others must not get.
    let kept = json!({ "model": "org/fake", "input": "hi", "temperature": 0 });
    check(true, "POST /v1/responses", &kept, "off").await;
    // Without the option nothing says anything.
    let fake = Fake::start(Setup::default());
    let caller = Caller::new(&fake, "");
    assert_eq!(got(&caller.ask(CHAT, &chat("temperature", json!(0))).await), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn never_across_tenants_or_labels() {
    let house = House::new(None).await;
    let fake = house.gateway(caching());
    let project = house.project(&fake, "one", json!({})).await;
    let other = house.project(&fake, "other", json!({})).await;
    let ada = house.caller(&fake, &project, json!({})).await;
    let bob = house.caller(&fake, &project, json!({})).await;
    let stranger = house.caller(&fake, &other, json!({})).await;
    let secret = house.caller(&fake, &project, json!({ "label": "restricted" })).await;
    let short = house.caller(&fake, &project, json!({ "max_tokens": 3 })).await;
    let none = house.caller(&fake, &project, json!({ "models": ["other"] })).await;
    let context = house.caller(&fake, &project, json!({ "max_context": 2 })).await;
    for stream in [false, true] {
        let body = chat(stream);
        assert_eq!(got(&ada.ask(CHAT, &body).await), "miss");
        assert_eq!(got(&bob.ask(CHAT, &body).await), "hit", "who shares a project shares answers");
        for caller in [&stranger, &secret, &short] {
            assert_eq!(got(&caller.ask(CHAT, &body).await), "miss");
            assert_eq!(got(&caller.ask(CHAT, &body).await), "hit", "their own");
        }
        // Who may not ask gets nothing, though it is there.
        assert_eq!(none.ask(CHAT, &body).await.status, 403);
        assert_eq!(context.ask(CHAT, &body).await.status, 403);
        assert_eq!(context.send(wishing(&context, "only-if-cached", &body)).await.status, 504);
        assert_eq!(Caller::new(&fake, "nobody").ask(CHAT, &body).await.status, 401);
    }
    // Where nobody governs, keys are tenants.
    let fake = Fake::start(Setup { keys: vec!["ada", "eve"], ..caching() });
    for key in ["ada", "eve"] {
        assert_eq!(got(&Caller::new(&fake, key).ask(CHAT, &chat(false)).await), "miss");
    }
}

/// A hit costs nothing and is in the books; a rate counts it.
#[tokio::test(flavor = "multi_thread")]
async fn hits_are_booked_for_nothing() {
    let house = House::new(None).await;
    let fake = house.gateway(caching());
    let models = json!([{ "model": "*", "input": 1_000_000, "output": 1_000_000 }]);
    let prices = json!({ "name": "p", "models": models });
    house.admin(&fake, "POST /prices", &prices).await;
    let project = house.project(&fake, "one", json!({})).await;
    let policy = json!({ "rates": [{ "requests_per_minute": 4 }] });
    let ada = house.caller(&fake, &project, policy).await;
    for stream in [false, true] {
        assert_eq!(got(&ada.ask(CHAT, &chat(stream)).await), "miss");
        let hit = ada.ask(CHAT, &chat(stream)).await;
        assert_eq!((&*got(&hit), hit.header("x-hearth-cost")), ("hit", "0.00"));
        assert!(!hit.text().contains("cost_usd"), "{}", hit.text());
        let mut lines = house.ledger(&fake).await;
        // Within a millisecond their order is chance.
        lines[..2].sort_by_key(|line| line["backend"] != "cache");
        let [hit, miss] = &lines[..2] else { panic!("two lines") };
        assert_eq!((&hit["backend"], &miss["backend"]), (&json!("cache"), &json!("local")));
        assert_eq!((&hit["cost"], &hit["outcome"]), (&json!(0), &json!("done")));
        assert_eq!((&hit["tokens"]["input"], &hit["tokens"]["output"]), (&json!(0), &json!(0)));
        assert!(miss["tokens"]["output"].as_u64().expect("a count") > 0);
        assert_eq!((&hit["surface"], &hit["model"]), (&miss["surface"], &miss["model"]));
    }
    assert_eq!(ada.ask(CHAT, &chat(false)).await.status, 429, "hits are requests too");
}

/// So many ask the same before the first of them is answered.
async fn at_once(fake: &Fake, caller: &Caller, count: usize, body: &Value) -> Vec<Answer> {
    fake.gate.close();
    let ask = |_| {
        let (caller, body) = (caller.clone(), body.clone());
        tokio::spawn(async move { caller.ask(CHAT, &body).await })
    };
    let asked: Vec<_> = (0..count).map(ask).collect();
    while fake.steps.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    fake.gate.open();
    let mut answers = Vec::with_capacity(count);
    for asked in asked {
        answers.push(asked.await.expect("an answer"));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_are_one() {
    let house = House::new(None).await;
    for stream in [false, true] {
        let fake = house.gateway(caching());
        let name = format!("team {stream}");
        let project = house.project(&fake, &name, json!({})).await;
        let ada = house.caller(&fake, &project, json!({})).await;
        let answers = at_once(&fake, &ada, 100, &chat(stream)).await;
        let mut found = std::collections::BTreeMap::<String, usize>::new();
        let mut first: Option<String> = None;
        for answer in answers {
            assert_eq!(answer.status, 200, "{}", answer.text());
            *found.entry(got(&answer)).or_default() += 1;
            let text: String =
                answer.text().lines().filter(|line| !line.starts_with(": hearth")).collect();
            assert_eq!(*first.get_or_insert_with(|| text.clone()), text);
        }
        assert_eq!(found.get("miss"), Some(&1), "{found:?}");
        assert!(found.get("joined").is_some_and(|count| *count > 10), "{found:?}");
        assert_eq!(runs(&fake).await, 1, "{found:?}");
        let ledger = house.ledger(&fake).await;
        let cached = ledger.iter().take(100).filter(|line| line["backend"] == "cache");
        assert_eq!(cached.count(), 99);
    }
}

/// What `/metrics` shows under this name.
fn figure(fake: &Fake, name: &str) -> u64 {
    let text = fake.metrics.render();
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value).unwrap_or_else(|| panic!("{name} is missing in\n{text}"))
}

/// The same by what an answer got.
fn given(fake: &Fake, result: &str) -> u64 {
    figure(fake, &format!("hearth_answer_cache_answers_total{{result=\"{result}\"}}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_say_what_the_answers_said() {
    let bare = Fake::start(Setup::default());
    assert!(!bare.metrics.render().contains("hearth_answer_cache"), "there is none");
    let fake = Fake::start(caching());
    let caller = Caller::new(&fake, "");
    let answers = at_once(&fake, &caller, 20, &chat(false)).await;
    let mut said = std::collections::BTreeMap::<String, u64>::new();
    for answer in answers {
        *said.entry(got(&answer)).or_default() += 1;
    }
    let mut other = chat(true);
    other["seed"] = json!(1);
    let mut bodies = Vec::new();
    for (word, body) in [("", &chat(false)), ("", &other), ("", &other), ("off", &other)] {
        let answer = caller.send(wishing(&caller, word, body)).await;
        *said.entry(got(&answer)).or_default() += 1;
        bodies.push(answer.bytes.len() as u64);
    }
    // A refusal is no answer.
    let mut none = chat(false);
    none["seed"] = json!(2);
    assert_eq!(caller.send(wishing(&caller, "only-if-cached", &none)).await.status, 504);
    assert!(["hit", "miss", "joined", "off"].iter().all(|what| said.contains_key(*what)));
    for (what, count) in &said {
        assert_eq!(given(&fake, what), *count, "{what} of {said:?}");
    }
    assert_eq!(given(&fake, "shared"), 0);
    assert_eq!(figure(&fake, "hearth_answer_cache_stored_total"), 2);
    assert_eq!(figure(&fake, "hearth_answer_cache_entries"), 2);
    let beside = figure(&fake, "hearth_answer_cache_bytes") - bodies[0] - bodies[1];
    assert_eq!(beside, 2 * 1024, "what each takes beside its body");
}

/// Reads a body until something stands in it.
async fn until(body: &mut Body, what: &str) -> String {
    let mut all = String::new();
    while !all.contains(what) {
        let frame = body.frame().await.expect("more").expect("a frame");
        all += &String::from_utf8_lossy(frame.data_ref().expect("data"));
    }
    all
}

/// Whoever leaves, the others read on; when all have left, nobody makes it any more.
#[tokio::test(flavor = "multi_thread")]
async fn readers_come_and_go() {
    let pace = Duration::from_millis(2);
    let fake = Fake::start(Setup { endless: true, pace, ..caching() });
    let caller = Caller::new(&fake, "");
    let mut body = chat(true);
    body["max_tokens"] = json!(60);
    let open = async |body: &Value| caller.open(caller.request(CHAT, body)).await;
    let (first, second, third) = (open(&body).await, open(&body).await, open(&body).await);
    assert_eq!((mark(&first), mark(&second), mark(&third)), ("miss", "joined", "joined"));
    let mut first = first.into_body();
    until(&mut first, "Hello").await;
    drop((first, second));
    let whole = third.into_body().collect().await.expect("whole").to_bytes();
    let whole = String::from_utf8(whole.to_vec()).expect("text");
    assert!(whole.contains("Hello") && whole.ends_with("data: [DONE]\n\n"), "{whole}");
    assert_eq!(runs(&fake).await, 1);
    let again = caller.ask(CHAT, &body).await;
    assert_eq!((&*got(&again), again.text()), ("hit", whole));
    // All leave.
    body["max_tokens"] = json!(4000);
    let (first, second) = (open(&body).await, open(&body).await);
    let mut first = first.into_body();
    until(&mut first, "Hello").await;
    drop((first, second));
    fake.idle().await;
    assert_eq!(mark(&open(&body).await), "miss", "what nobody heard to its end is not kept");
}

/// What broke is not given again, and says so to all who read it.
#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_is_not_kept() {
    for stream in [false, true] {
        let fake = Fake::start(Setup { fail_at: Some(5), ..caching() });
        let caller = Caller::new(&fake, "");
        let answers = at_once(&fake, &caller, 4, &chat(stream)).await;
        for answer in answers {
            let text = answer.text();
            assert!(answer.status >= 500 || text.contains("\"error\""), "{text}");
            assert!(!text.contains("[DONE]"), "{text}");
        }
        let later = caller.send(wishing(&caller, "only-if-cached", &chat(stream))).await;
        assert_eq!(later.code(504), "not_cached");
    }
}

/// One longer than there is room for goes through, to all who have come before that.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_goes_through() {
    let cache = Some(Settings { bytes_max: 1 << 14, ..settings() });
    let fake = Fake::start(Setup { endless: true, cache, ..Setup::default() });
    let caller = Caller::new(&fake, "");
    let mut body = chat(true);
    body["max_tokens"] = json!(2000);
    let answers = at_once(&fake, &caller, 3, &body).await;
    for answer in answers {
        let text = answer.text();
        assert!(text.ends_with("data: [DONE]\n\n") && text.matches('.').count() > 1900);
    }
    assert_eq!(mark(&caller.open(caller.request(CHAT, &body)).await), "miss");
}

/// What the server says to a command.
fn said(redis: &Redis, command: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).expect("a connection");
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).expect("asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

/// Two gateways share answers, sealed; a server that is away is as good as one that is empty.
#[tokio::test(flavor = "multi_thread")]
async fn gateways_share_answers() {
    let redis = Redis::start();
    let one = House::new(Some(postgres::shared().fresh())).await;
    let other = one.beside().await;
    let shared = async || Some(govern::cache::Shared::start(&redis.url()).await.expect("a link"));
    let setup = async || Setup {
        cache: Some(Settings { shared: shared().await, ..settings() }),
        ..Setup::default()
    };
    let (here, there) = (one.gateway(setup().await), other.gateway(setup().await));
    let [ada, _, stranger] = one.people(&here).await;
    let (elsewhere, stranger) = (ada.at(&there).await, stranger.at(&there).await);
    for stream in [false, true] {
        let first = ada.ask(CHAT, &chat(stream)).await;
        assert_eq!(got(&first), "miss");
        // It goes there behind the answer.
        let mut found = elsewhere.send(wishing(&ada, "only-if-cached", &chat(stream))).await;
        for _ in 0..500 {
            if found.status == 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            found = elsewhere.send(wishing(&ada, "only-if-cached", &chat(stream))).await;
        }
        assert_eq!(got(&found), "hit", "{}", found.text());
        assert_eq!(given(&there, "shared"), 1 + u64::from(stream), "it came over the server");
        let id = |answer: &Answer| {
            let text = answer.text();
            let at = text.find("chatcmpl-").expect("an id");
            text[at..at + 33].to_owned()
        };
        assert_eq!(id(&found), id(&first));
        assert_eq!(got(&stranger.ask(CHAT, &chat(stream)).await), "miss");
    }
    let names = said(&redis, "KEYS hearth:answer:*");
    let name = names.lines().find(|line| line.starts_with("hearth:answer:")).expect("one");
    let sealed = said(&redis, &format!("GET {name}"));
    assert!(sealed.contains("v1.") && !sealed.contains("Hello") && !sealed.contains("chatcmpl"));
    drop(redis);
    let mut body = chat(false);
    body["seed"] = json!(1);
    assert_eq!(got(&ada.ask(CHAT, &body).await), "miss");
    assert_eq!(got(&ada.ask(CHAT, &body).await), "hit", "from memory");
}

/// What came from another gateway gets no younger here.
#[tokio::test(flavor = "multi_thread")]
async fn a_shared_answer_is_as_old_as_it_is() {
    let redis = Redis::start();
    let one = House::new(Some(postgres::shared().fresh())).await;
    let other = one.beside().await;
    let ttl = Duration::from_millis(1_500);
    let setup = async || {
        let shared = govern::cache::Shared::start(&redis.url()).await.expect("a link");
        let cache = Some(Settings { shared: Some(shared), ttl, ..settings() });
        Setup { cache, ..Setup::default() }
    };
    let (here, there) = (one.gateway(setup().await), other.gateway(setup().await));
    let [ada, ..] = one.people(&here).await;
    let elsewhere = ada.at(&there).await;
    assert_eq!(got(&ada.ask(CHAT, &chat(false)).await), "miss");
    tokio::time::sleep(ttl * 2 / 3).await;
    assert_eq!(got(&elsewhere.ask(CHAT, &chat(false)).await), "hit");
    assert_eq!(given(&there, "shared"), 1);
    tokio::time::sleep(ttl / 2).await;
    assert_eq!(got(&elsewhere.ask(CHAT, &chat(false)).await), "miss");
}

/// A provider's answers are given again like our own, passed on or translated.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_providers_too() {
    let far = Fake::start(Setup::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = far.router.clone();
    let served = tokio::spawn(async move { axum::serve(listener, router).await });
    let config = format!(
        "[providers.p]\nkind = \"compatible\"\nbase_url = \"http://{address}/v1\"\n\
         lost_fields = \"drop\"\n"
    );
    let routing: Routing = toml::from_str(&config).expect("a configuration");
    let routes = Routes::new(&routing, &[]).expect("routes");
    let house = House::new(None).await;
    let fake = house.gateway(Setup { routes, ..caching() });
    let [ada, _, stranger] = house.people(&fake).await;
    for (line, mut body) in all() {
        if line.ends_with("/completions") && !line.contains("chat") {
            continue;
        }
        let line = line.replace("models/org/fake", "models/p/org/fake");
        if body.get("model").is_some() {
            body["model"] = json!("p/org/fake");
        }
        for (caller, expect) in [(&ada, "miss"), (&ada, "hit"), (&stranger, "miss")] {
            let answer = caller.ask(&line, &body).await;
            assert_eq!((answer.status, &*got(&answer)), (200, expect), "{line} {}", answer.text());
            assert!(answer.text().contains("three"), "{}", answer.text());
            let route = answer.header("x-hearth-route");
            assert_eq!(route.is_empty(), expect == "hit", "{route}");
        }
        // Within a millisecond their order is chance.
        let lines = house.ledger(&fake).await;
        let hit = lines[..3].iter().find(|line| line["backend"] == "cache").expect("a hit");
        assert_eq!(hit["model"], "p/org/fake");
    }
    served.abort();
}
