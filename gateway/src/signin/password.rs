//! Signing in with a password. Whoever is not known here is answered with the same words, after
//! the same work.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use govern::identity::mapping::by_email;
use govern::identity::password::verify;
use govern::secret::Secret;
use govern::{Denied, Rule};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::answer::{Head, done, read, told};
use super::cookie::Kind;
use super::entry::from_our_page;
use super::{Inner, SignIn, local, second};
use crate::api::Failure;

/// Passwords that are hashed at once: 19 MiB and a core each.
const RUNNING_MAX: usize = 4;
/// Those and the ones that wait: at 20 ms each the last of them waits for a third of a second.
const WAITING_MAX: usize = 64;

/// Where passwords are hashed: off the runtime's threads, so many at once.
pub(super) struct Hashing {
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Default for Hashing {
    fn default() -> Self {
        let running = Arc::new(Semaphore::new(RUNNING_MAX));
        Self { running, waiting: Semaphore::new(WAITING_MAX) }
    }
}

impl Hashing {
    /// Runs something slow.
    ///
    /// # Errors
    /// Too many wait already.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Denied> {
        let busy = || {
            let message = "Too many people sign in at this moment; try again.";
            Denied::new(Rule::Unavailable, message).after(1)
        };
        let _waits = self.waiting.try_acquire().map_err(|_| busy())?;
        let runs = Arc::clone(&self.running).acquire_owned().await.map_err(|_| busy())?;
        let hashed = tokio::task::spawn_blocking(move || {
            // Until the work is done, even where nobody waits for it any more.
            let _runs = runs;
            work()
        });
        hashed.await.map_err(|error| {
            tracing::error!(%error, "hashing a password failed");
            busy()
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    email: String,
    password: String,
    #[serde(default)]
    organisation: Option<String>,
    #[serde(default)]
    return_to: Option<String>,
}

/// The first step: address and password.
pub(super) async fn check(State(signin): State<SignIn>, request: Request) -> Response {
    let head = Head::of(&request);
    told(head.manner, check_it(&signin, &head, request).await)
}

async fn check_it(signin: &SignIn, head: &Head, request: Request) -> Result<Response, Failure> {
    from_our_page(signin, &head.headers)?;
    let inner = &signin.0;
    let source = head.source;
    let Given { email, password, organisation, return_to } = read(request).await?;
    let organisation = organisation.filter(|name| !name.is_empty());
    inner.attempt(&email, source)?;
    let user = by_email(&inner.governor.directory(), &email, organisation.as_deref());
    let kept = user.as_ref().and_then(|user| user.password.clone());
    let password = Secret::new(password);
    let proved = inner.hashing.run(move || verify(password.expose(), kept.as_deref())).await?;
    let Some(user) = user.as_ref().filter(|_| proved) else {
        let whose = user.as_ref().map(|user| (&user.id, &user.organisation));
        inner.governor.note(inner.line("sign_in_refused", whose, &json!({ "source": source })));
        let message = "the address or the password is wrong";
        return Err(Denied::new(Rule::UnknownKey, message).into());
    };
    inner.succeeded(&email, source);
    let to = local(return_to.as_deref());
    if user.totp.is_some() {
        let mut response = done(head.manner, "/signin/totp", json!({ "next": "totp" }));
        second::expect(inner, response.headers_mut(), &user.id, to);
        return Ok(response);
    }
    let response = done(head.manner, to, json!({ "signed_in": true, "return_to": to }));
    Ok(inner.begin(head, &user.id, "password", response).await?)
}

impl Inner {
    /// Hashes a password that is to be set.
    pub(super) async fn hashed(&self, password: String) -> Result<String, Failure> {
        use wire::ErrorKind::Invalid;
        let password = Secret::new(password);
        let hash = move || govern::identity::password::hash(password.expose());
        let hashed = self.hashing.run(hash).await?;
        hashed.map_err(|error| Failure::new(Invalid, "invalid_password", error.to_string()))
    }
}

/// Forgets who was half in.
pub(super) fn forget(inner: &Inner, response: &mut Response) {
    inner.cookies.clear(response.headers_mut(), Kind::Second);
}
