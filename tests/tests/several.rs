//! Two real gateways on one PostgreSQL: keys made and revoked at one hold at the other, both spend
//! one budget and never more, and one that is killed comes back to what it owes. Two on one Redis
//! besides: they share rates, and go on without it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hearth_tests::http::{Answer, open_as};
use hearth_tests::server::Server;
use hearth_tests::services::{Redis, Stop, postgres};
use serde_json::{Value, json};

/// Nano-dollars of a token of prompts and of answers.
const INPUT: i64 = 1_000;
const OUTPUT: i64 = 10_000;

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(folder: &Path, name: &str, url: &str) -> Server {
    start_with(folder, name, url, &[])
}

fn start_with(folder: &Path, name: &str, url: &str, more: &[&str]) -> Server {
    let data = folder.join(name);
    let data = data.to_str().expect("a plain path");
    Server::start(&[&["--data", data, "--store-url", url, "--gateway", name], more].concat())
}

/// The key that a first start prints.
fn first_key(server: &Server) -> String {
    let first = server.banner.iter().find(|line| line.starts_with("first key"));
    first.and_then(|line| line.split_whitespace().last()).expect("a first key").to_owned()
}

fn ask(server: &Server, key: &str, line: &str, body: &Value) -> Answer {
    let (method, path) = line.split_once(' ').expect("a method and a path");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let stream = open_as(&server.url, Some(key), method, path, &body).expect("sent");
    stream.finish().expect("an answer")
}

fn admin(server: &Server, key: &str, line: &str, body: &Value) -> Value {
    let answer = ask(server, key, line, body);
    assert!(answer.status < 300, "{line}: {} {}", answer.status, answer.body);
    serde_json::from_str(&answer.body).expect("json")
}

fn id(value: &Value) -> String {
    value["id"].as_str().expect("an id").to_owned()
}

/// How long until a key has this status at a server.
fn until(server: &Server, key: &str, line: &str, status: u16) -> Duration {
    let begun = Instant::now();
    while ask(server, key, line, &Value::Null).status != status {
        assert!(begun.elapsed() < Duration::from_secs(10), "never {status}");
        std::thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

fn chat(max_tokens: u32, stream: bool) -> Value {
    json!({
        "model": "demo", "max_tokens": max_tokens, "stream": stream, "ignore_eos": true,
        "messages": [{ "role": "user", "content": "Tell me about the sea." }],
    })
}

/// Asks until the budget has said no so often in a row; what the answers cost.
fn spend(server: &Server, key: &str, tokens: u32, enough: u32) -> i64 {
    let (mut cost, mut refused) = (0, 0);
    while refused < enough {
        let answer = ask(server, key, "POST /v1/chat/completions", &chat(tokens, false));
        match answer.status {
            200 => {
                let body: Value = serde_json::from_str(&answer.body).expect("json");
                let count = |name: &str| body["usage"][name].as_i64().expect("tokens");
                cost += count("prompt_tokens") * INPUT + count("completion_tokens") * OUTPUT;
                refused = 0;
            }
            429 => {
                assert!(answer.body.contains("insufficient_quota"), "{}", answer.body);
                refused += 1;
            }
            // Money could not be had in time.
            status => assert_eq!(status, 503, "{}", answer.body),
        }
    }
    cost
}

/// A team with a project and a key, each made at one gateway and known at the other within a
/// second.
fn made_at_one_holds_at_the_other(a: &Server, b: &Server, root: &str) -> (String, Value) {
    let models = json!([{ "model": "*", "input": INPUT * 1000, "output": OUTPUT * 1000 }]);
    admin(a, root, "POST /admin/v1/prices", &json!({ "name": "first", "models": models }));
    let team = id(&admin(a, root, "POST /admin/v1/teams", &json!({ "name": "t" })));
    let heard = until(b, root, &format!("GET /admin/v1/teams/{team}"), 200);
    assert!(heard < Duration::from_secs(1), "{heard:?}");
    let project = json!({ "team": team, "name": "p" });
    let project = id(&admin(b, root, "POST /admin/v1/projects", &project));
    until(a, root, &format!("GET /admin/v1/projects/{project}"), 200);
    let made = admin(a, root, "POST /admin/v1/keys", &json!({ "label": "k", "project": project }));
    let key = made["key"].as_str().expect("the key itself");
    assert!(until(b, key, "GET /v1/models", 200) < Duration::from_secs(1));
    (team, made)
}

fn kill_in_an_answer(server: &mut Server, key: &str) {
    let body = chat(3_000, true).to_string();
    let stream = open_as(&server.url, Some(key), "POST", "/v1/chat/completions", &body);
    let mut stream = stream.expect("sent");
    assert_eq!(stream.status, 200);
    for _ in 0..30 {
        stream.event().expect("an event").expect("more to come");
    }
    let killed = std::process::Command::new("kill").args(["-9", &server.id().to_string()]).status();
    assert!(killed.expect("kill runs").success());
    server.wait();
}

#[test]
fn two_gateways_are_one_deployment() {
    let url = postgres::shared().fresh();
    let name = format!("hearth-several-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    std::fs::create_dir_all(&folder.0).expect("a folder");
    let mut a = start(&folder.0, "a", &url);
    let root = first_key(&a);
    let b = start(&folder.0, "b", &url);
    assert!(!b.banner.iter().any(|line| line.starts_with("first key")), "{:?}", b.banner);

    let (team, made) = made_at_one_holds_at_the_other(&a, &b, &root);
    let key = made["key"].as_str().expect("the key itself").to_owned();

    // Both spend one budget: to its end, and never more.
    let limit = 20_000_000;
    let budget = json!({
        "name": "shared", "scope": format!("team:{team}"),
        "limits": [{ "period": "total", "nano_usd": limit }],
    });
    let budget = id(&admin(&b, &root, "POST /admin/v1/budgets", &budget));
    let mut spent = std::thread::scope(|scope| {
        let (a, key) = (&a, &key);
        let tasks: Vec<_> = [a, &b, a, &b]
            .into_iter()
            .zip([16, 16, 3, 70])
            .map(|(server, tokens)| scope.spawn(move || spend(server, key, tokens, 3)))
            .collect();
        tasks.into_iter().map(|task| task.join().expect("no panic")).sum::<i64>()
    });
    assert!(spent <= limit, "{spent}");
    spent += spend(&a, &key, 1, 8);
    let least = 60 * INPUT + OUTPUT;
    assert!(spent <= limit && spent + least > limit, "{spent} of {limit}");
    let refused = ask(&b, &key, "POST /v1/chat/completions", &chat(1, false));
    assert_eq!(refused.status, 429, "{}", refused.body);

    // One is killed in the middle of an answer, and pays for what it had handed out.
    let raise = json!({
        "limit": 0, "nano_usd": 40_000_000, "until": 4_000_000_000_000_i64, "reason": "a fair",
    });
    admin(&b, &root, &format!("POST /admin/v1/budgets/{budget}/raise"), &raise);
    kill_in_an_answer(&mut a, &key);
    assert_eq!(ask(&b, &key, "GET /v1/models", &Value::Null).status, 200);
    let begun = Instant::now();
    let a = start(&folder.0, "a", &url);
    assert!(begun.elapsed() < Duration::from_secs(25), "its own lease does not keep it out");
    let ledger = admin(&b, &root, "GET /admin/v1/ledger?limit=1", &Value::Null);
    let line = &ledger["data"][0];
    assert_eq!((&line["outcome"], &line["gateway"]), (&json!("recovered"), &json!("a")));
    let spent = spent + line["cost"].as_i64().expect("nano") + spend(&b, &key, 200, 3);
    let spent = spent + spend(&a, &key, 1, 8);
    let allowed = limit + 40_000_000;
    assert!(spent <= allowed && spent + least > allowed, "{spent} of {allowed}");

    // A revoked key ends at both, and both chains are whole.
    admin(&b, &root, &format!("POST /admin/v1/keys/{}/revoke", id(&made)), &json!({}));
    assert!(until(&a, &key, "GET /v1/models", 401) < Duration::from_secs(1));
    for server in [&a, &b] {
        let verified = admin(server, &root, "GET /admin/v1/audit/verify", &Value::Null);
        assert!(verified.get("broken").is_none_or(Value::is_null), "{verified}");
    }
}

/// A key of a team with a rate, known at both.
fn limited(servers: [&Server; 2], root: &str, name: &str, per_minute: u32) -> String {
    let [a, b] = servers;
    let policy = json!({ "rates": [{ "requests_per_minute": per_minute }] });
    let team = json!({ "name": name, "policy": policy });
    let team = id(&admin(a, root, "POST /admin/v1/teams", &team));
    let project = json!({ "team": team, "name": name });
    let project = id(&admin(a, root, "POST /admin/v1/projects", &project));
    let key = json!({ "label": name, "project": project });
    let key = admin(a, root, "POST /admin/v1/keys", &key);
    let key = key["key"].as_str().expect("the key itself").to_owned();
    until(b, &key, "GET /v1/models", 200);
    key
}

fn short(server: &Server, key: &str) -> Answer {
    ask(server, key, "POST /v1/chat/completions", &chat(1, false))
}

/// Asks until a rate has said no a few times in a row; how often it did not.
fn until_refused(server: &Server, key: &str) -> u32 {
    let (mut admitted, mut refused) = (0, 0);
    while refused < 3 {
        let answer = short(server, key);
        match answer.status {
            200 => (admitted, refused) = (admitted + 1, 0),
            status => {
                assert_eq!(status, 429, "{}", answer.body);
                assert!(answer.body.contains("rate_limit"), "{}", answer.body);
                refused += 1;
            }
        }
    }
    admitted
}

/// What is left of the rate after another request.
fn remaining(server: &Server, key: &str) -> i64 {
    let answer = short(server, key);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let left = answer.header("x-ratelimit-remaining-requests").expect("a rate");
    left.parse().expect("a number")
}

/// Whether what is asked at one counts at the other: more than the other one's own request does.
fn are_one(a: &Server, b: &Server, key: &str) -> bool {
    let before = remaining(b, key);
    for _ in 0..6 {
        remaining(a, key);
    }
    before - remaining(b, key) >= 5
}

#[test]
fn two_gateways_share_rates_and_go_on_without_their_redis() {
    const RATE: u32 = 30;
    let (url, redis) = (postgres::shared().fresh(), Redis::start());
    let name = format!("hearth-several-rates-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    std::fs::create_dir_all(&folder.0).expect("a folder");
    let more = ["--redis", &redis.url()];
    let a = start_with(&folder.0, "a", &url, &more);
    let root = first_key(&a);
    let b = start_with(&folder.0, "b", &url, &more);

    // One rate for both, to the request.
    let key = limited([&a, &b], &root, "few", RATE);
    let begun = Instant::now();
    let admitted: u32 = std::thread::scope(|scope| {
        let key = &key;
        let tasks: Vec<_> = [&a, &b, &a, &b]
            .map(|server| scope.spawn(move || until_refused(server, key)))
            .into_iter()
            .collect();
        tasks.into_iter().map(|task| task.join().expect("no panic")).sum()
    });
    // What a minute gives comes back bit by bit while it is asked for.
    let again = u32::try_from(begun.elapsed().as_millis()).expect("seconds") * RATE / 60_000;
    assert!((RATE..=RATE + again + 1).contains(&admitted), "{admitted} of {RATE} and {again}");

    // Killed under load: each counts for itself, nobody is unknown, and nobody waits for long.
    let many = limited([&a, &b], &root, "many", 600);
    assert!(are_one(&a, &b, &many), "before");
    redis.stop(Stop::Immediate);
    let (mut served, mut longest) = (0, Duration::ZERO);
    for server in [&a, &b].into_iter().cycle().take(40) {
        let begun = Instant::now();
        let answer = short(server, &many);
        longest = longest.max(begun.elapsed());
        assert!([200, 503].contains(&answer.status), "{} {}", answer.status, answer.body);
        served += u32::from(answer.status == 200);
        assert_eq!(ask(server, &many, "GET /v1/models", &Value::Null).status, 200);
    }
    assert!(served >= 30 && longest < Duration::from_secs(5), "{served} {longest:?}");
    assert!(!are_one(&a, &b, &many), "each for itself");
    let alone = until_refused(&a, &key);
    assert!(alone <= RATE + 1, "{alone}");
    assert_eq!(ask(&a, "hk-000000000000-nobody", "GET /v1/models", &Value::Null).status, 401);

    redis.start_again();
    let begun = Instant::now();
    while !are_one(&a, &b, &many) {
        assert!(begun.elapsed() < Duration::from_secs(20), "never one again");
    }
}
