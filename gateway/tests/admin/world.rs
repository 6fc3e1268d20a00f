//! A governor on a file of its own, and requests to it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use gateway::admin;
use gateway::api::Failure;
use govern::governor::Clock;
use govern::ledger::{Outcome, Tokens};
use govern::{Ask, Governor, Id, Settings};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

/// 2026-11-01T12:00:00Z
pub(crate) const NOW: i64 = 1_793_534_400_000;

/// A deployment.
pub(crate) struct World {
    pub(crate) governor: Governor,
    pub(crate) router: Router,
    /// A key that may do everything.
    pub(crate) root: String,
    pub(crate) clock: Arc<AtomicI64>,
    folder: PathBuf,
    count: AtomicU64,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The answer as JSON, if it has this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    /// The field that a refusal names.
    #[track_caller]
    pub(crate) fn refuses(&self, status: u16, param: &str) {
        let body = self.expect(status);
        assert_eq!(body["error"]["param"], json!(param), "{}", self.text);
    }

    /// The code of a refusal.
    #[track_caller]
    pub(crate) fn code(&self, status: u16, code: &str) {
        let body = self.expect(status);
        assert_eq!(body["error"]["code"], json!(code), "{}", self.text);
    }
}

/// The id of an answer.
pub(crate) fn id(value: &Value) -> Id {
    Id::of(value["id"].as_str().expect("an id")).expect("an id")
}

/// The key of an answer that shows one.
pub(crate) fn shown(made: &Value) -> &str {
    made["key"].as_str().expect("a key")
}

impl World {
    pub(crate) async fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("hearth-admin-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let clock = Arc::new(AtomicI64::new(NOW));
        let settings = Settings {
            url: folder.join("hearth.db").display().to_string(),
            journal: folder.join("journal"),
            gateway: "gateway-1".to_owned(),
            clock: Clock::Set(Arc::clone(&clock)),
            fsync: govern::Fsync::default(),
            sharing: govern::Sharing::default(),
        };
        let (governor, first) = Governor::open(&settings).await.expect("a governor");
        let root = first.expect("a first start").0.shown;
        let routes = admin::router(governor.clone()).merge(admin::own_usage(governor.clone()));
        let router = routes.layer(from_fn_with_state(governor.clone(), let_in));
        Self { governor, router, root, clock, folder, count: AtomicU64::new(0) }
    }

    /// A name that nothing else has.
    pub(crate) fn name(&self, word: &str) -> String {
        format!("{word}-{}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) async fn send(&self, request: Request) -> Answer {
        let service = TowerToHyperService::new(self.router.clone());
        let response = service.call(request).await.expect("a router does not fail");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a whole body").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("answers are UTF-8");
        Answer { status, text }
    }

    pub(crate) async fn ask(&self, key: &str, line: &str, body: &Value) -> Answer {
        self.ask_with(key, line, body, None).await
    }

    /// `POST /teams` with a body; `Null` sends none. Paths begin at `/admin/v1`.
    pub(crate) async fn ask_with(
        &self,
        key: &str,
        line: &str,
        body: &Value,
        idempotency: Option<&str>,
    ) -> Answer {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let path = match path.strip_prefix("/v1") {
            Some(_) => path.to_owned(),
            None => format!("{}{path}", admin::BASE),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(AUTHORIZATION, format!("Bearer {key}"));
        if let Some(name) = idempotency {
            request = request.header("idempotency-key", name);
        }
        let body = match body {
            Value::Null => Body::empty(),
            body => {
                request = request.header(CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
        };
        self.send(request.body(body).expect("a request")).await
    }

    /// As the key that may do everything.
    pub(crate) async fn root(&self, line: &str, body: &Value) -> Answer {
        self.ask(&self.root, line, body).await
    }

    /// Makes something as the key that may do everything.
    #[track_caller]
    pub(crate) fn make<'a>(
        &'a self,
        line: &'a str,
        body: Value,
    ) -> impl Future<Output = Value> + 'a {
        let here = std::panic::Location::caller();
        async move {
            let answer = self.root(line, &body).await;
            assert_eq!(answer.status, 201, "{here}: {}", answer.text);
            answer.json()
        }
    }

    /// A branch of a tree with one of everything, made within an organisation.
    pub(crate) async fn branch(&self, organisation: &Id, word: &str) -> Branch {
        let team = self.make(
            "POST /teams",
            json!({
            "name": self.name(word), "organisation": organisation }),
        );
        let team = id(&team.await);
        let project = self.make("POST /projects", json!({ "name": self.name(word), "team": team }));
        let project = id(&project.await);
        Branch { word: word.to_owned(), organisation: organisation.clone(), team, project }
    }

    /// An organisation.
    pub(crate) async fn organisation(&self, word: &str) -> Id {
        id(&self.make("POST /organisations", json!({ "name": self.name(word) })).await)
    }

    /// A key with a role in a scope, in a project.
    pub(crate) async fn key(&self, project: &Id, role: &str, scope: &str) -> String {
        let made = self.make(
            "POST /keys",
            json!({
                "label": self.name("caller"),
                "project": project,
                "grants": [{ "role": role, "scope": scope }],
            }),
        );
        shown(&made.await).to_owned()
    }

    /// Uses a model for so many tokens of input.
    pub(crate) fn spend(&self, key: &str, input: u64) {
        let principal = self.governor.authenticate(Some(key), None).expect("known");
        let ask = Ask {
            model: "small".to_owned(),
            surface: "embeddings",
            input_tokens: input,
            choices: 1,
            ..Ask::default()
        };
        let operation = self.governor.admit(&principal, &ask).expect("there is money");
        operation.used(Tokens { input, ..Tokens::default() }, Outcome::Done, 0);
        drop(operation.finish());
    }
}

/// A team and a project of it.
#[derive(Clone)]
pub(crate) struct Branch {
    pub(crate) word: String,
    pub(crate) organisation: Id,
    pub(crate) team: Id,
    pub(crate) project: Id,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What the server's own layer does.
async fn let_in(State(governor): State<Governor>, mut request: Request, next: Next) -> Response {
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer "));
    let source = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    match governor.authenticate(shown, source) {
        Ok(principal) => {
            request.extensions_mut().insert(Arc::new(principal));
            next.run(request).await
        }
        Err(denied) => Failure::from(denied).into_response(),
    }
}
