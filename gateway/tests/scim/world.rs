//! A governor on a file of its own, two organisations, and requests to them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use gateway::api::Failure;
use gateway::scim;
use govern::entity::{Entity, Grant, Key, Organisation, Team, User};
use govern::governor::{Clock, EditError};
use govern::identity::key::Minted;
use govern::identity::mapping::GroupRule;
use govern::ledger::writer::Note;
use govern::store::documents::Edit;
use govern::{Governor, Id, Scope, Settings};
use hearth_tests::http::is_as_long_as_it_says;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

/// A deployment.
pub(crate) struct World {
    pub(crate) governor: Governor,
    pub(crate) router: Router,
    /// The organisation with rules.
    pub(crate) home: Id,
    pub(crate) other: Id,
    /// Who is in the group `ml` is in it, as a developer.
    pub(crate) team: Id,
    /// A provisioner's key at home.
    pub(crate) key: String,
    folder: PathBuf,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// A refusal in SCIM's shape.
    #[track_caller]
    pub(crate) fn refuses(self, status: u16, kind: Option<&str>) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.kind, "application/scim+json");
        assert_eq!(self.body["schemas"], json!(["urn:ietf:params:scim:api:messages:2.0:Error"]));
        assert_eq!(self.body["status"], json!(status.to_string()));
        assert_eq!(self.body["scimType"].as_str(), kind, "{}", self.body);
        assert!(self.body["detail"].as_str().is_some_and(|why| !why.is_empty()));
    }
}

/// A role somewhere.
pub(crate) fn grant(role: &str, scope: Scope) -> Grant {
    Grant { role: role.to_owned(), scope }
}

impl World {
    pub(crate) async fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("hearth-scim-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let settings = Settings {
            url: folder.join("hearth.db").display().to_string(),
            journal: folder.join("journal"),
            gateway: "gateway-1".to_owned(),
            clock: Clock::System,
            fsync: govern::Fsync::default(),
            sharing: govern::Sharing::default(),
        };
        let (governor, _) = Governor::open(&settings).await.expect("a governor");
        let home = governor.directory().organisations().next().expect("one").id.clone();
        let other = Organisation::new("other", 1);
        let team = Team {
            id: Id::new(Team::KIND, 1),
            organisation: home.clone(),
            name: "ml".to_owned(),
            ..Team::default()
        };
        let rule = GroupRule {
            group: "ML Team".to_owned(),
            team: Some(team.id.clone()),
            grant: Some(grant("developer", Scope::Team(team.id.clone()))),
        };
        let rules = Arc::new(HashMap::from([(home.clone(), vec![rule])]));
        let router = scim::router(governor.clone(), rules);
        let router = router.layer(from_fn_with_state(governor.clone(), let_in));
        let (other, key) = (other.id.clone(), String::new());
        let mut world = Self { governor, router, home, other, team: team.id.clone(), key, folder };
        let mut other = Organisation::new("other", 1);
        other.id = world.other.clone();
        world.put(&other).await;
        world.put(&team).await;
        let here = Scope::Organisation(world.home.clone());
        world.key = world.key_of(&world.home, vec![grant("provisioner", here)]).await;
        world
    }

    pub(crate) async fn put<E: Entity>(&self, entity: &E) {
        let edited = self.governor.edit(|_, at| {
            let note = Note { at, kind: "test".to_owned(), ..Note::default() };
            Ok::<_, EditError>((vec![Edit::put(entity)], note, ()))
        });
        edited.await.expect("an edit");
    }

    /// A key with these grants.
    pub(crate) async fn key_of(&self, organisation: &Id, grants: Vec<Grant>) -> String {
        let minted = Minted::new();
        let key = Key {
            id: Id::new(Key::KIND, 1),
            organisation: organisation.clone(),
            label: "idp".to_owned(),
            prefix: minted.prefix.clone(),
            hash: minted.hash.clone(),
            grants,
            ..Key::default()
        };
        self.put(&key).await;
        minted.shown
    }

    pub(crate) fn user(&self, id: &Value) -> Option<Arc<User>> {
        let id = Id::of(id.as_str().expect("an id")).expect("an id");
        self.governor.directory().user(&id).cloned()
    }

    /// As the provisioner at home.
    pub(crate) async fn send(&self, line: &str, body: Value) -> Answer {
        self.send_as(&self.key, line, body).await
    }

    pub(crate) async fn send_as(&self, key: &str, line: &str, body: Value) -> Answer {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let path = path.replace(' ', "%20").replace('"', "%22").replace('[', "%5B");
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{}", scim::BASE, path.replace(']', "%5D")))
            .header(AUTHORIZATION, format!("Bearer {key}"))
            .header(CONTENT_TYPE, "application/scim+json; charset=utf-8");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.body(axum::body::Body::from(body)).expect("a request");
        let service = TowerToHyperService::new(self.router.clone());
        let answer = service.call(request).await.expect("a router does not fail");
        let status = answer.status().as_u16();
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().to_owned();
        let said = answer.headers().get("content-length").cloned();
        let bytes = answer.into_body().collect().await.expect("a whole body").to_bytes();
        is_as_long_as_it_says(said.as_ref().map(HeaderValue::as_bytes), bytes.len());
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Answer { status, kind, body }
    }

    /// Somebody as Okta makes them.
    pub(crate) async fn person(&self, name: &str) -> Value {
        let body = json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "userName": name,
            "name": { "givenName": "Test", "familyName": "User" },
            "emails": [{ "primary": true, "value": name, "type": "work" }],
            "displayName": "Test User",
            "externalId": format!("00u{name}"),
            "active": true,
        });
        self.send("POST /Users", body).await.expect(201)
    }

    /// What the audit has.
    pub(crate) async fn audit(&self) -> String {
        self.governor.flush().await;
        let rows = sqlx::query_scalar::<_, String>("SELECT body FROM audit ORDER BY number");
        rows.fetch_all(self.governor.store().read()).await.expect("rows").join("\n")
    }
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
    match governor.authenticate(shown, Some(IpAddr::V4(Ipv4Addr::LOCALHOST))) {
        Ok(principal) => {
            request.extensions_mut().insert(Arc::new(principal));
            next.run(request).await
        }
        Err(denied) => Failure::from(denied).into_response(),
    }
}
