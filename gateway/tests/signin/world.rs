//! A server with people, a provider beside it, and a clock that tests set.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::{Extension, Json, Router};
use gateway::api::Failure;
use gateway::server::Peer;
use gateway::signin::{Provider, Settings, SignIn, principal_of, router};
use govern::entity::{Entity, Grant, Team, User};
use govern::governor::{Clock, EditError};
use govern::identity::jwt::Issuer;
use govern::identity::mapping::{GroupRule, People, ProjectOf, Services};
use govern::identity::password;
use govern::ledger::writer::Note;
use govern::secret::{Keyring, Master, Secret};
use govern::store::documents::Edit;
use govern::{Governor, Id, Millis, Scope};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::browser::Browser;

/// The password of everybody who has one.
pub(super) const PASSWORD: &str = "correct horse battery";

/// The provider's process.
pub(super) struct Corp {
    child: Child,
    pub(super) issuer: String,
}

impl Corp {
    fn start(redirect: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the root");
        let folder = root.join("tests/clients/node");
        let packages = folder.join("node_modules/oidc-provider");
        assert!(packages.exists(), "no Node.js clients: run `make test` (or tests/tools.sh node)");
        let mut child = Command::new("node")
            .arg(folder.join("provider.mjs"))
            .arg(redirect)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node runs");
        let mut line = String::new();
        let out = child.stdout.take().expect("its pipe");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        Self { child, issuer: said["issuer"].as_str().expect("an issuer").to_owned() }
    }

    /// Asks it for something; see `provider.mjs`.
    pub(super) async fn ask(&self, what: &str, body: Value) -> Value {
        let url = format!("{}/test/{what}", self.issuer);
        let answer = reqwest::Client::new().post(url).json(&body).send().await.expect("an answer");
        answer.json().await.expect("JSON")
    }
}

impl Drop for Corp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a test has.
pub(super) struct World {
    pub(super) origin: String,
    pub(super) governor: Governor,
    pub(super) signin: SignIn,
    pub(super) keyring: Arc<Keyring>,
    pub(super) corp: Option<Corp>,
    pub(super) owner_key: String,
    pub(super) home: Id,
    pub(super) project: Id,
    pub(super) research: Id,
    clock: Arc<AtomicI64>,
    folder: PathBuf,
}

impl World {
    /// A server with passwords only.
    pub(super) async fn plain() -> Self {
        Self::start(false).await
    }

    /// A server beside a provider.
    pub(super) async fn with_provider() -> Self {
        Self::start(true).await
    }

    async fn start(provider: bool) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("hearth-signin-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let since = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_millis();
        let clock = Arc::new(AtomicI64::new(Millis::try_from(since).expect("few")));
        let settings = govern::Settings {
            url: folder.join("hearth.db").display().to_string(),
            journal: folder.join("journal"),
            gateway: "test".to_owned(),
            clock: Clock::Set(Arc::clone(&clock)),
            fsync: govern::Fsync::default(),
            sharing: govern::Sharing::default(),
        };
        let (governor, first) = Governor::open(&settings).await.expect("a governor");
        let (home, project) = {
            let directory = governor.directory();
            let project = directory.projects().next().expect("the first project");
            (directory.organisations().next().expect("one").id.clone(), project.id.clone())
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let origin = format!("http://{}", listener.local_addr().expect("an address"));
        let corp = provider.then(|| Corp::start(&format!("{origin}/signin/oidc/corp/callback")));
        let research = Team {
            id: Id::new(Team::KIND, 1),
            organisation: home.clone(),
            name: "research".to_owned(),
            ..Team::default()
        };
        put(&governor, vec![Edit::put(&research)]).await;
        let master = Master::parse(Master::generate().expose()).expect("a key");
        let keyring = Arc::new(Keyring { current: master, old: Vec::new() });
        let settings = settings_of(&origin, corp.as_ref(), &keyring, &home, &project, &research.id);
        let signin = SignIn::new(governor.clone(), settings).expect("good settings");
        serve(listener, &signin);
        let owner_key = first.expect("the first start").0.shown;
        let research = research.id;
        Self {
            origin,
            governor,
            signin,
            keyring,
            corp,
            owner_key,
            home,
            project,
            research,
            clock,
            folder,
        }
    }

    pub(super) fn browser(&self) -> Browser {
        Browser::new(&self.origin)
    }

    pub(super) fn corp(&self) -> &Corp {
        self.corp.as_ref().expect("a provider")
    }

    pub(super) fn later(&self, ms: Millis) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    /// Somebody with a password.
    pub(super) async fn person(&self, email: &str) -> User {
        let user = User {
            id: Id::new(User::KIND, self.governor.now()),
            organisation: self.home.clone(),
            email: email.to_owned(),
            password: Some(password::hash(PASSWORD).expect("long enough")),
            grants: vec![Grant {
                role: "developer".to_owned(),
                scope: Scope::Team(self.research.clone()),
            }],
            ..User::default()
        };
        self.put(&user).await;
        user
    }

    pub(super) async fn put<E: Entity>(&self, entity: &E) {
        put(&self.governor, vec![Edit::put(entity)]).await;
    }

    pub(super) fn user(&self, email: &str) -> Option<User> {
        let directory = self.governor.directory();
        let found = directory.users().find(|user| user.email == email);
        found.map(|user| User::clone(user))
    }

    /// A browser in which this person has signed in with the password.
    pub(super) async fn signed_in(&self, email: &str) -> Browser {
        let mut browser = self.browser();
        let answer = browser.form("/signin/password", &login(email, PASSWORD)).await;
        assert_eq!(answer.status, 303, "{answer:?}");
        browser
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(super) fn login<'a>(email: &'a str, password: &'a str) -> [(&'static str, &'a str); 2] {
    [("email", email), ("password", password)]
}

async fn put(governor: &Governor, edits: Vec<Edit>) {
    let edited = governor.edit(|_, now| {
        let note = Note { at: now, kind: "test".to_owned(), ..Note::default() };
        Ok::<_, EditError>((edits, note, ()))
    });
    edited.await.expect("an edit");
}

fn settings_of(
    origin: &str,
    corp: Option<&Corp>,
    keyring: &Arc<Keyring>,
    home: &Id,
    project: &Id,
    research: &Id,
) -> Settings {
    let providers = corp.map(|corp| Provider {
        name: "corp".to_owned(),
        title: "Corp <&>".to_owned(),
        issuer: corp.issuer.clone(),
        client_id: "hearth".to_owned(),
        client_secret: Some(Secret::new("a-secret-of-thirty-two-characters".to_owned())),
        scopes: ["email", "profile", "groups"].map(str::to_owned).to_vec(),
        people: People {
            organisation: home.clone(),
            domains: vec!["example.org".to_owned()],
            emails_are_verified: false,
            groups_claim: "groups".to_owned(),
            groups: vec![GroupRule {
                group: "lab".to_owned(),
                team: Some(research.clone()),
                grant: Some(Grant {
                    role: "developer".to_owned(),
                    scope: Scope::Team(research.clone()),
                }),
            }],
        },
    });
    let issuers = corp.map(|corp| Issuer {
        name: "corp".to_owned(),
        issuer: corp.issuer.clone(),
        audience: "hearth-services".to_owned(),
        jwks_url: format!("{}/jwks", corp.issuer),
        services: Services {
            organisation: home.clone(),
            project: ProjectOf::One(project.clone()),
            user: None,
        },
    });
    Settings {
        origin: origin.to_owned(),
        issuers: issuers.into_iter().collect(),
        providers: providers.into_iter().collect(),
        passwords: true,
        keyring: Arc::clone(keyring),
    }
}

/// Serves the routes, and one that tells who came through the hook.
fn serve(listener: TcpListener, signin: &SignIn) {
    let probe = Router::new().route("/probe", any(probe)).with_state(signin.clone());
    let peer = Peer(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
    let app = router(signin).merge(probe).layer(Extension(peer));
    tokio::spawn(async move { axum::serve(listener, app).await });
}

async fn probe(State(signin): State<SignIn>, request: Request) -> Response {
    let source = request.extensions().get::<Peer>().map(|peer| peer.0);
    let (parts, _) = request.into_parts();
    match principal_of(&signin, &parts.headers, &parts.method, source).await {
        Ok(None) => Json(json!({ "who": null })).into_response(),
        Ok(Some(principal)) => Json(json!({
            "who": principal.user.map(|user| user.email.clone()),
            "project": principal.project.map(|project| project.id.clone()),
            "grants": principal.grants,
        }))
        .into_response(),
        Err(denied) => Failure::from(denied).into_response(),
    }
}
