//! Texts that a policy asks for, over HTTP: what was asked and what was answered, sealed where they
//! lie, read by whoever may, erased from the database's own files, over when their time is.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use govern::governor::Clock;
use govern::secret::{Keyring, Master};
use serde_json::{Value, json};
use sqlx::Row as _;

use crate::caller::{Answer, Inbound, request, send};
use crate::fake::{Fake, SPEECH, Setup};
use crate::governed::House;

const BEGIN: i64 = 1_793_534_400_000;
const DAY_MS: i64 = 86_400_000;

/// What nobody may find in a file.
const SECRET: &str = "the-red-door-4711";

async fn ask(router: &Router, key: &str, line: &str, body: &Value) -> Answer {
    let (method, path) = line.split_once(' ').expect("a method and a path");
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let request = Request::builder()
        .method(method)
        .uri(format!("/admin/v1{path}"))
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json");
    send(router, request.body(Body::from(text)).expect("a request")).await
}

/// The files of a folder that have these bytes in them.
fn found_in(folder: &Path, what: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a file");
        if bytes.windows(what.len()).any(|window| window == what) {
            found.push(path.display().to_string());
        }
    }
    found
}

struct Recorded {
    house: House,
    clock: Arc<AtomicI64>,
    fake: Fake,
    key: String,
}

impl Recorded {
    async fn new() -> Self {
        let clock = Arc::new(AtomicI64::new(BEGIN));
        let house = House::at(Clock::Set(Arc::clone(&clock))).await;
        let master = Master::parse(&("5b".repeat(31) + "5c")).expect("a key");
        house.governor.record_with(Arc::new(Keyring { current: master, old: Vec::new() }));
        let fake = house.gateway("", Setup::default());
        let key = house.key(&fake.router, "told", json!({ "record": "full" })).await;
        Self { house, clock, fake, key }
    }

    /// Says something, and returns what was sent and what came back.
    async fn say(&self, inbound: Inbound, stream: bool) -> (String, String) {
        let (path, body) = inbound.request("org/fake", stream, SECRET);
        let got = send(&self.fake.router, request(&self.key, &path, &body)).await;
        assert_eq!(got.status, 200, "{}", got.text());
        (body.to_string(), got.text())
    }

    async fn list(&self) -> Vec<Value> {
        let page = self.house.admin(&self.fake.router, "GET /bodies?limit=200", &Value::Null).await;
        page["data"].as_array().expect("texts").clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_is_read_by_whoever_may_and_by_nobody_else() {
    let told = Recorded::new().await;
    let (router, root) = (&told.fake.router, &told.house);
    // One whose project asks for nothing is not recorded.
    let silent = root.key(router, "silent", json!({})).await;
    let (path, body) = Inbound::Chat.request("org/fake", false, SECRET);
    assert_eq!(send(router, request(&silent, &path, &body)).await.status, 200);
    assert!(told.list().await.is_empty());
    let mut said = Vec::new();
    for inbound in Inbound::ALL {
        for stream in [false, true] {
            said.push(told.say(inbound, stream).await);
        }
    }
    let listed = told.list().await;
    assert_eq!(listed.len(), said.len());
    let mut read = Vec::new();
    for one in &listed {
        assert!(one.get("request").is_none() && one.get("answer").is_none(), "{one}");
        let line = format!("GET /bodies/{}", one["operation"].as_str().expect("an id"));
        let whole = root.admin(router, &line, &Value::Null).await;
        let attempt = &whole["attempts"][0];
        let text = |name: &str| attempt[name].as_str().expect("a text").to_owned();
        let (request, answer) = (text("request"), text("answer"));
        assert_eq!(attempt["bytes"], request.len() + answer.len(), "{attempt}");
        read.push((request, answer));
        // Nobody else: neither whoever said it, nor an auditor, nor another organisation's owner.
        for key in [&told.key, &silent] {
            assert_eq!(ask(router, key, &line, &Value::Null).await.status, 404);
        }
    }
    said.sort();
    read.sort();
    assert_eq!(read, said, "to the byte, streams and their ends among them");
    assert!(read.iter().any(|(_, answer)| answer.contains("[DONE]")));
    assert!(read.iter().any(|(_, answer)| answer.contains(SPEECH)));

    let other = root.admin(router, "POST /organisations", &json!({ "name": "other" })).await;
    let line = format!("GET /bodies/{}", listed[0]["operation"].as_str().expect("an id"));
    for (role, at, status) in [("auditor", None, 403), ("owner", Some(&other["id"]), 404)] {
        let team = match at {
            Some(at) => json!({ "name": role, "organisation": at }),
            None => json!({ "name": role }),
        };
        let team = root.admin(router, "POST /teams", &team).await;
        let project = json!({ "name": role, "team": team["id"] });
        let project = root.admin(router, "POST /projects", &project).await;
        let home = team["organisation"].as_str().expect("an organisation");
        let grant = json!({ "role": role, "scope": format!("organisation:{home}") });
        let key = json!({ "label": role, "project": project["id"], "grants": [grant] });
        let key = root.admin(router, "POST /keys", &key).await;
        let key = key["key"].as_str().expect("the key itself");
        let got = ask(router, key, &line, &Value::Null).await;
        assert_eq!(got.status, status, "{role}: {}", got.text());
        let abroad =
            format!("{line}?organisation={}", listed[0]["organisation"].as_str().expect("it"));
        let got = ask(router, key, &abroad, &Value::Null).await;
        assert_eq!(got.status, status, "{role}: {}", got.text());
        if status == 404 {
            let page = ask(router, key, "GET /bodies", &Value::Null).await;
            assert!(page.text().contains("\"data\":[]"), "{}", page.text());
        }
    }
    let trail = root.admin(router, "GET /audit?kind=admin&limit=200", &Value::Null).await;
    assert_eq!(trail.to_string().matches("bodies.read").count(), listed.len());
    assert_eq!(found_in(&root.folder, SECRET.as_bytes()), Vec::<String>::new());
    assert_eq!(found_in(&root.folder, SPEECH.as_bytes()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_lies_in_no_file_and_what_is_over_is_gone() {
    let told = Recorded::new().await;
    let (router, root) = (&told.fake.router, &told.house);
    told.say(Inbound::Chat, false).await;
    told.say(Inbound::Messages, true).await;
    let listed = told.list().await;
    assert_eq!(listed.len(), 2);
    let sql = "SELECT bodies.content, body_keys.sealed FROM bodies JOIN body_keys \
               ON body_keys.operation = bodies.operation";
    let rows = sqlx::query(sql).fetch_all(root.governor.store().read()).await.expect("texts");
    let sealed: Vec<String> = rows.iter().flat_map(|row| [row.get(0), row.get(1)]).collect();
    assert_eq!(sealed.len(), 4);
    for text in &sealed {
        // A row that is longer than a page of the file lies in pieces.
        assert!(!found_in(&root.folder, &text.as_bytes()[..64]).is_empty(), "it lies there");
    }
    let line = "DELETE /bodies?before=2036-01-01";
    assert_eq!(ask(router, &told.key, line, &Value::Null).await.status, 404);
    assert_eq!(root.admin(router, line, &Value::Null).await["erased"], 2);
    assert!(told.list().await.is_empty());
    for text in &sealed {
        let bytes = text.as_bytes();
        for piece in [&bytes[..64], &bytes[bytes.len() - 64..]] {
            assert_eq!(found_in(&root.folder, piece), Vec::<String>::new());
        }
    }
    // What is over goes by itself when the next text comes: a day, by the organisation's word.
    let home = listed[0]["organisation"].as_str().expect("an organisation");
    let days = json!({ "retention_days": { "public": 1, "internal": 1 } });
    root.admin(router, &format!("PATCH /organisations/{home}"), &days).await;
    told.say(Inbound::Chat, true).await;
    let old = told.list().await;
    assert_eq!(old[0]["expires"], json!(BEGIN + DAY_MS));
    told.clock.store(BEGIN + DAY_MS - 1, Ordering::SeqCst);
    told.say(Inbound::Responses, false).await;
    assert_eq!(told.list().await.len(), 2);
    told.clock.store(BEGIN + DAY_MS + 3_600_000, Ordering::SeqCst);
    told.say(Inbound::Messages, false).await;
    let left = told.list().await;
    assert!(left.len() == 2 && !left.contains(&old[0]), "{left:?}");
}
