//! The session itself: how it begins, who it is, how it ends; and the page of ways to begin one.

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::HeaderMap;
use axum::response::{Html, IntoResponse as _, Response};
use govern::identity::principal::signed_in;
use govern::identity::session::{LIFE_MS, csrf};
use govern::{Denied, Id, Rule};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Head, Manner, done, read, told};
use super::cookie::Kind;
use super::entry::{CSRF, fits, from_our_page, person, unavailable};
use super::{Inner, SignIn, local, page};
use crate::api::Failure;

/// Where somebody wants to go.
#[derive(Deserialize)]
pub(super) struct Target {
    #[serde(default)]
    pub(super) return_to: Option<String>,
}

/// The ways to sign in; or who has.
pub(super) async fn ways(
    State(signin): State<SignIn>,
    Query(target): Query<Target>,
    request: Request,
) -> Response {
    let inner = &signin.0;
    let head = Head::of(&request);
    drop(request);
    if let Some(token) = inner.cookies.read(&head.headers, Kind::Session)
        && let Ok((_, principal)) = person(&signin, token, head.source).await
    {
        let who = principal.user.map(|user| user.email.clone()).unwrap_or_default();
        return Html(page::signed_in(&who, &csrf(token))).into_response();
    }
    let providers = inner.providers.iter().map(|one| &one.provider);
    let names = providers.map(|provider| (provider.name.as_str(), provider.title.as_str()));
    let to = local(target.return_to.as_deref());
    Html(page::ways(names, inner.passwords, to)).into_response()
}

/// Who has signed in, and the proof that changes ask for.
pub(super) async fn me(State(signin): State<SignIn>, request: Request) -> Response {
    let head = Head::of(&request);
    drop(request);
    let result = async {
        let token = cookie(&signin, &head.headers)?;
        let (session, principal) = person(&signin, token, head.source).await?;
        let user = principal.user.as_ref().ok_or_else(nobody)?;
        let body = json!({
            "user": { "id": user.id, "email": user.email, "name": user.name },
            "organisation": {
                "id": principal.organisation.id, "name": principal.organisation.name,
            },
            "teams": user.teams,
            "grants": principal.grants,
            "way": session.way,
            "totp": user.totp.is_some(),
            "created_at": session.created_at,
            "ends_at": session.created_at.saturating_add(LIFE_MS),
            "csrf": csrf(token),
        });
        Ok(Json(body).into_response())
    };
    told(Manner::Json, result.await)
}

/// Ends the session.
pub(super) async fn end(State(signin): State<SignIn>, request: Request) -> Response {
    let head = Head::of(&request);
    told(head.manner, end_it(&signin, &head, request).await)
}

/// A page's form cannot set a header: it has the proof in a field.
#[derive(Deserialize)]
struct Proof {
    csrf: String,
}

async fn end_it(signin: &SignIn, head: &Head, request: Request) -> Result<Response, Failure> {
    from_our_page(signin, &head.headers)?;
    let token = cookie(signin, &head.headers)?;
    let proof = match head.manner {
        Manner::Page => Some(read::<Proof>(request).await?.csrf),
        Manner::Json => header(&head.headers).map(str::to_owned),
    };
    fits(token, proof.as_deref())?;
    let inner = &signin.0;
    let found = inner.sessions.find(token, inner.governor.now()).await.map_err(unavailable)?;
    inner.sessions.end(token).await.map_err(unavailable)?;
    if let Some(session) = found {
        let organisation = inner.organisation_of(&session.user);
        let whose = organisation.as_ref().map(|organisation| (&session.user, organisation));
        inner.governor.note(inner.line("sign_out", whose, &json!({})));
    }
    let mut response = done(head.manner, "/signin", json!({ "signed_out": true }));
    inner.cookies.clear(response.headers_mut(), Kind::Session);
    Ok(response)
}

/// The token that a browser shows.
pub(super) fn cookie<'a>(signin: &SignIn, headers: &'a HeaderMap) -> Result<&'a str, Denied> {
    signin.0.cookies.read(headers, Kind::Session).ok_or_else(nobody)
}

fn nobody() -> Denied {
    Denied::new(Rule::UnknownKey, "nobody has signed in; do so at /signin")
}

/// The proof in the header.
pub(super) fn header(headers: &HeaderMap) -> Option<&str> {
    headers.get(CSRF).and_then(|value| value.to_str().ok())
}

impl Inner {
    /// Lets a person in whose identity is proved: under a new token, and the one that the browser
    /// had is void, so that nobody can have put it there.
    pub(super) async fn begin(
        &self,
        head: &Head,
        user: &Id,
        way: &str,
        mut response: Response,
    ) -> Result<Response, Denied> {
        let now = self.governor.now();
        let principal = signed_in(&self.governor.directory(), user, head.source, now)?;
        if let Some(old) = self.cookies.read(&head.headers, Kind::Session) {
            self.sessions.end(old).await.map_err(unavailable)?;
        }
        let token = self.sessions.begin(user, way, now).await.map_err(unavailable)?;
        let cookies = self.cookies;
        let headers = response.headers_mut();
        cookies.set(headers, Kind::Session, token.expose(), LIFE_MS / 1000);
        let about = json!({ "way": way, "source": head.source });
        let whose = Some((user, &principal.organisation.id));
        self.governor.note(self.line("sign_in", whose, &about));
        Ok(response)
    }

    pub(super) fn organisation_of(&self, user: &Id) -> Option<Id> {
        self.governor.directory().user(user).map(|user| user.organisation.clone())
    }
}
