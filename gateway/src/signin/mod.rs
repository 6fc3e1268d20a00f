//! How people sign in: at an identity provider (OpenID Connect), or with a password and one-time
//! codes; and how a door knows them and services with tokens again ([`principal_of`]).
//!
//! Handlers here read forms and JSON, keep cookies and ask `govern`, which decides. Nothing is
//! remembered in this process but the failures that slow guessing down and providers' public keys:
//! a browser may begin at one gateway and end at another.

mod answer;
mod cookie;
mod entry;
mod fetch;
pub mod file;
mod link;
pub mod master;
mod oidc;
mod page;
mod password;
mod provider;
mod second;
mod session;
mod settings;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::map_response;
use axum::routing::{get, post};
use govern::governor::EditError;
use govern::identity::jwt::{Fetch, Issuers};
use govern::identity::mapping::{GroupRule, People};
use govern::identity::session::Sessions;
use govern::identity::throttle::Throttle;
use govern::ledger::writer::Note;
use govern::secret::Keyring;
use govern::{Denied, Governor, Id, Millis, Rule};
use serde_json::{Value, json};

use cookie::Cookies;
use fetch::Http;
use oidc::Oidc;
use password::Hashing;

pub use entry::principal_of;
pub use settings::{Provider, Settings, SettingsError};

/// Bytes of a form: an address, a password and a path.
const BODY_BYTES_MAX: usize = 16 << 10;

/// Everything that signing in works with. Cheap to copy.
#[derive(Clone)]
pub struct SignIn(Arc<Inner>);

struct Inner {
    governor: Governor,
    sessions: Sessions,
    issuers: Issuers,
    providers: Vec<Oidc>,
    passwords: bool,
    keyring: Arc<Keyring>,
    origin: String,
    cookies: Cookies,
    throttle: Mutex<Throttle>,
    hashing: Hashing,
}

impl SignIn {
    /// Ready to let people in. Nobody is asked anything yet.
    ///
    /// # Errors
    /// The settings make no sense.
    pub fn new(governor: Governor, settings: Settings) -> Result<Self, SettingsError> {
        let (origin, secure) = settings.check()?;
        let Settings { issuers, providers, passwords, keyring, .. } = settings;
        let http = Http::new()?;
        let fetch: Arc<dyn Fetch> = Arc::new(http.clone());
        let providers = providers.into_iter().map(|one| Oidc::new(one, &origin, &http)).collect();
        Ok(Self(Arc::new(Inner {
            sessions: Sessions::of(governor.store()),
            issuers: Issuers::new(issuers, &fetch),
            cookies: Cookies { secure },
            throttle: Mutex::default(),
            hashing: Hashing::default(),
            governor,
            providers,
            passwords,
            keyring,
            origin,
        })))
    }

    /// What groups mean, by organisation.
    #[must_use]
    pub fn rules(&self) -> HashMap<Id, Vec<GroupRule>> {
        let mut rules: HashMap<Id, Vec<GroupRule>> = HashMap::new();
        for Oidc { provider, .. } in &self.0.providers {
            let People { organisation, groups, .. } = &provider.people;
            rules.entry(organisation.clone()).or_default().extend(groups.iter().cloned());
        }
        rules
    }

    /// The sessions, for whoever disables people: `end_all` ends a person's at once.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }
}

/// All routes below `/signin`, and `/signout`. None of them asks for a key.
pub fn router(signin: &SignIn) -> Router {
    let mut router = Router::new()
        .route("/signin", get(session::ways))
        .route("/signin/me", get(session::me))
        .route("/signout", post(session::end))
        .route("/signin/oidc/{name}", get(provider::start))
        .route("/signin/oidc/{name}/callback", get(provider::callback));
    if signin.0.passwords {
        router = router
            .route("/signin/password", post(password::check))
            .route("/signin/totp", get(second::form).post(second::check))
            .route("/signin/totp/enrol", post(second::enrol))
            .route("/signin/totp/enrol/confirm", post(second::confirm))
            .route("/signin/link", post(link::make))
            .route("/signin/link/{token}", get(link::form).post(link::set));
    }
    router
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(map_response(answer::guard))
        .with_state(signin.clone())
}

impl Inner {
    /// Begins an attempt, which counts as failed until [`Inner::succeeded`] is called.
    fn attempt(&self, account: &str, source: Option<std::net::IpAddr>) -> Result<(), Denied> {
        let now = self.governor.now();
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        throttle.attempt(account, source, now).map_err(|seconds| {
            let message = format!("too many attempts; the next one counts in {seconds} s");
            Denied::new(Rule::RequestRate, message).after(seconds)
        })
    }

    fn succeeded(&self, account: &str, source: Option<std::net::IpAddr>) {
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        throttle.succeeded(account, source);
    }

    /// A line for the audit.
    fn line(&self, action: &str, user: Option<(&Id, &Id)>, more: &Value) -> Note {
        let (user, organisation) =
            user.map_or_else(Default::default, |(u, o)| (u.to_string(), o.to_string()));
        let body = json!({ "action": action, "user": user, "about": more }).to_string();
        Note { at: self.governor.now(), kind: "signin".to_owned(), organisation, body }
    }

    /// Text for a browser to keep for us: sealed, and good until some time.
    fn seal(&self, what: &Value, place: &str) -> String {
        self.keyring.seal(what.to_string().as_bytes(), place)
    }

    /// What was sealed so, if it was and its time is not over (`expires_at`).
    fn open<T: serde::de::DeserializeOwned>(&self, sealed: &str, place: &str) -> Option<T> {
        let opened = self.keyring.open(sealed, place).ok()?;
        let value: Value = serde_json::from_slice(opened.expose()).ok()?;
        let good = value["expires_at"].as_i64().is_some_and(|at: Millis| self.governor.now() < at);
        good.then(|| serde_json::from_value(value).ok()).flatten()
    }
}

/// Why an account was not changed.
enum Unchanged {
    Denied(Denied),
    Edit(EditError),
}

impl From<EditError> for Unchanged {
    fn from(error: EditError) -> Self {
        Self::Edit(error)
    }
}

impl From<Unchanged> for Denied {
    fn from(unchanged: Unchanged) -> Self {
        match unchanged {
            Unchanged::Denied(denied) => denied,
            Unchanged::Edit(error) => {
                tracing::error!(%error, "an account could not be changed");
                let message = "The account cannot be changed at the moment; try again.";
                Self::new(Rule::Unavailable, message).after(1)
            }
        }
    }
}

/// A path of ours to go to after signing in; anything else leads to the start page. Browsers take
/// `//` and `/\` for another host, and leave out tabs and line ends before they look.
fn local(path: Option<&str>) -> &str {
    let Some(path) = path else { return "/" };
    let plain = path.len() <= 512 && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if plain && path.starts_with('/') && !path.starts_with("//") { path } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::local;

    #[test]
    fn paths_lead_nowhere_else() {
        for (path, expect) in [
            ("/", "/"),
            ("/admin/v1?x=1#y", "/admin/v1?x=1#y"),
            ("", "/"),
            ("admin", "/"),
            ("//example.org", "/"),
            ("/\\example.org", "/"),
            ("\\\\example.org", "/"),
            ("/\t/example.org", "/"),
            ("/\n/example.org", "/"),
            (" //example.org", "/"),
            ("https://example.org", "/"),
            ("javascript:alert(1)", "/"),
            ("/é", "/"),
        ] {
            assert_eq!(local(Some(path)), expect, "{path:?}");
        }
        assert_eq!(local(Some(&format!("/{}", "a".repeat(512)))), "/");
        assert_eq!(local(None), "/");
    }
}
