//! A gateway with a governor, or several on one database; and callers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use gateway::api::Door;
use govern::governor::Clock;
use govern::secret::{Keyring, Master};
use govern::{Governor, Settings};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

use crate::fake::{Fake, Setup};

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// The body, where the status is this.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// The error's code, where the status is this.
    #[track_caller]
    pub(crate) fn code(&self, status: u16) -> String {
        self.expect(status)["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A caller of a gateway.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) router: Router,
    pub(crate) key: String,
}

impl Caller {
    pub(crate) fn new(fake: &Fake, key: &str) -> Self {
        Self { router: fake.router.clone(), key: key.to_owned() }
    }

    /// The same at another gateway, once that has heard of the key.
    pub(crate) async fn at(&self, fake: &Fake) -> Self {
        let there = Self::new(fake, &self.key);
        for _ in 0..2_000 {
            if there.get("/v1/models").await.status == 200 {
                return there;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it never hears of the key");
    }

    pub(crate) fn request(&self, line: &str, body: &Value) -> Request<Body> {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let mut request = Request::builder().method(method).uri(path);
        if !self.key.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        request = request.header("content-type", "application/json");
        let body = if body.is_null() { Body::empty() } else { body.to_string().into() };
        request.body(body).expect("a request")
    }

    /// The head of an answer, its body unread.
    pub(crate) async fn open(&self, request: Request<Body>) -> Response<Body> {
        let service = TowerToHyperService::new(self.router.clone());
        service.call(request).await.expect("a router does not fail")
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.open(request).await.into_parts();
        let whole = tokio::time::timeout(Duration::from_secs(60), body.collect()).await;
        let bytes = whole.expect("an end").expect("a whole body").to_bytes().to_vec();
        Answer { status: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    pub(crate) async fn ask(&self, line: &str, body: &Value) -> Answer {
        self.send(self.request(line, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &Value::Null).await
    }

    /// A response of the fake model, with more fields.
    pub(crate) async fn respond(&self, input: &str, more: &Value) -> Answer {
        let mut body = json!({ "model": "org/fake", "input": input, "temperature": 0 });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        self.ask("POST /v1/responses", &body).await
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// A governor on a database.
pub(crate) struct House {
    pub(crate) governor: Governor,
    pub(crate) root: String,
    settings: Settings,
    folder: Arc<Folder>,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn keyring() -> Arc<Keyring> {
    let text = "5b".repeat(31) + "5c";
    Arc::new(Keyring { current: Master::parse(&text).expect("a key"), old: Vec::new() })
}

impl House {
    /// On SQLite, or at this URL.
    pub(crate) async fn new(url: Option<String>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hearth-kept-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let settings = Settings {
            url: url.unwrap_or_else(|| folder.join("hearth.db").display().to_string()),
            journal: folder.join("journal"),
            gateway: "gateway-1".to_owned(),
            clock: Clock::System,
            fsync: govern::Fsync::default(),
            sharing: govern::Sharing::default(),
        };
        let (governor, first) = Governor::open(&settings).await.expect("a governor");
        governor.record_with(keyring());
        let root = first.map(|first| first.0.shown).unwrap_or_default();
        Self { governor, root, settings, folder: Arc::new(Folder(folder)) }
    }

    /// Another process on the same database, which has to let go of it first where it is a file.
    pub(crate) async fn again(self) -> Self {
        let Self { governor, root, settings, folder } = self;
        governor.flush().await;
        drop(governor);
        for _ in 0..2_000 {
            if let Ok((governor, _)) = Governor::open(&settings).await {
                governor.record_with(keyring());
                return Self { governor, root, settings, folder };
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it is in use for ever");
    }

    /// A second gateway on the same server.
    pub(crate) async fn beside(&self) -> Self {
        let mut settings = self.settings.clone();
        settings.gateway = "gateway-2".to_owned();
        settings.journal = self.folder.0.join("journal-2");
        let (governor, _) = Governor::open(&settings).await.expect("a governor");
        governor.record_with(keyring());
        let (root, folder) = (self.root.clone(), Arc::clone(&self.folder));
        Self { governor, root, settings, folder }
    }

    /// A gateway of this house, with a fake model.
    pub(crate) fn gateway(&self, setup: Setup) -> Fake {
        let door = Some(Door::Governed(self.governor.clone(), None));
        Fake::start(Setup { door, ..setup })
    }

    /// What an administrator asks, which has to work.
    pub(crate) async fn admin(&self, fake: &Fake, line: &str, body: &Value) -> Value {
        let line = line.replacen(' ', " /admin/v1", 1);
        let got = Caller::new(fake, &self.root).ask(&line, body).await;
        assert!(got.status < 300, "{line}: {} {}", got.status, got.text());
        got.json()
    }

    /// A project of a policy.
    pub(crate) async fn project(&self, fake: &Fake, name: &str, policy: Value) -> String {
        let team = self.admin(fake, "POST /teams", &json!({ "name": name })).await;
        let project = json!({ "team": team["id"], "name": name, "policy": policy });
        text(&self.admin(fake, "POST /projects", &project).await["id"])
    }

    /// Somebody with a key of a policy in a project.
    pub(crate) async fn caller(&self, fake: &Fake, project: &str, policy: Value) -> Caller {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let label = format!("key {}", COUNT.fetch_add(1, Ordering::Relaxed));
        let key = json!({ "label": label, "project": project, "policy": policy });
        let key = self.admin(fake, "POST /keys", &key).await;
        Caller::new(fake, &text(&key["key"]))
    }

    /// Two who share a project, and one of another.
    pub(crate) async fn people(&self, fake: &Fake) -> [Caller; 3] {
        let (one, other) = (
            self.project(fake, "one", json!({})).await,
            self.project(fake, "other", json!({})).await,
        );
        [
            self.caller(fake, &one, json!({})).await,
            self.caller(fake, &one, json!({})).await,
            self.caller(fake, &other, json!({})).await,
        ]
    }

    /// The lines of the ledger, the newest first.
    pub(crate) async fn ledger(&self, fake: &Fake) -> Vec<Value> {
        self.governor.flush().await;
        let page = self.admin(fake, "GET /ledger?limit=200", &Value::Null).await;
        page["data"].as_array().expect("lines").clone()
    }

    pub(crate) async fn run(&self, sql: &'static str) {
        let done = sqlx::query(sql).execute(self.governor.store().write()).await.expect("run");
        assert!(done.rows_affected() > 0, "nothing was changed");
    }
}
