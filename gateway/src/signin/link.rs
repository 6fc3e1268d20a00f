//! How somebody gets a first password, or a new one: an administrator makes a link, good for one
//! time and a day, and hands it over.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{Html, IntoResponse as _, Response};
use govern::entity::User;
use govern::identity::session::LINK_MS;
use govern::role::{Permission, no_wider};
use govern::store::documents::Edit;
use govern::{Denied, Id, Principal, Rule, Scope};
use serde::Deserialize;
use serde_json::json;
use wire::ErrorKind;

use super::answer::{Head, Manner, done, read, told};
use super::entry::{from_our_page, principal_of, shown, unavailable};
use super::{Inner, SignIn, Unchanged, page};
use crate::api::Failure;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    user: Id,
}

/// Makes a link. Asks for `users.write` where the person is, and for all that the person may do:
/// whoever sets a password can sign in with it.
pub(super) async fn make(State(signin): State<SignIn>, request: Request) -> Response {
    told(Manner::Json, make_it(&signin, request).await)
}

async fn make_it(signin: &SignIn, request: Request) -> Result<Response, Failure> {
    let inner = &signin.0;
    let (head, method) = (Head::of(&request), request.method().clone());
    // Who asks, before what: a stranger learns nothing of how bodies are read.
    let known = principal_of(signin, &head.headers, &method, head.source).await?;
    let principal = match known {
        Some(principal) => principal,
        None => inner.governor.authenticate(shown(&head.headers), head.source)?,
    };
    let Whose { user } = read(request).await?;
    let organisation = may_set(inner, &principal, &user)?;
    let now = inner.governor.now();
    let token = inner.sessions.link(&user, now).await.map_err(unavailable)?;
    let by = principal.key.as_ref().map(|key| &key.id);
    let by = by.or(principal.user.as_ref().map(|user| &user.id));
    let note = inner.line("password_link_made", Some((&user, &organisation)), &json!({ "by": by }));
    inner.governor.note(note);
    Ok(Json(json!({
        "url": format!("{}/signin/link/{}", inner.origin, token.expose()),
        "expires_at": now.saturating_add(LINK_MS),
    }))
    .into_response())
}

/// Whether somebody may set this person's password; the person's organisation. Whoever is out of
/// reach does not exist.
fn may_set(inner: &Inner, principal: &Principal, user: &Id) -> Result<Id, Failure> {
    let nobody = || Failure::new(ErrorKind::NotFound, "not_found", "There is no such user.");
    let directory = inner.governor.directory();
    let place = Scope::User(user.clone());
    let held = directory.permissions(&principal.grants, &place);
    let user = directory.user(user).filter(|_| held.contains(&Permission::UsersWrite));
    let user = user.ok_or_else(nobody)?;
    let refuse = |message: String| Failure::from(Denied::new(Rule::Permission, message));
    no_wider(&directory, &principal.grants, &user.grants).map_err(refuse)?;
    if user.service || user.disabled {
        return Err(refuse("Services and disabled people do not sign in.".to_owned()));
    }
    Ok(user.organisation.clone())
}

fn void() -> Failure {
    let message = "This link was used, or is too old; ask for a new one.";
    Failure::new(ErrorKind::NotFound, "not_found", message)
}

/// The page of a link.
pub(super) async fn form(
    State(signin): State<SignIn>,
    Path(token): Path<String>,
    request: Request,
) -> Response {
    let head = Head::of(&request);
    drop(request);
    let result = async {
        let user = linked(&signin.0, &token, &head).await?;
        let who = signin.0.governor.directory().user(&user).map(|user| user.email.clone());
        Ok(Html(page::new_password(&who.ok_or_else(void)?)).into_response())
    };
    told(Manner::Page, result.await)
}

/// Whose link this is. Guesses are slowed down, right ones not.
async fn linked(inner: &Inner, token: &str, head: &Head) -> Result<Id, Failure> {
    let (account, source) = (format!("link {token}"), head.source);
    inner.attempt(&account, source)?;
    let found = inner.sessions.linked(token, inner.governor.now()).await.map_err(unavailable)?;
    let user = found.ok_or_else(void)?;
    inner.succeeded(&account, source);
    Ok(user)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    password: String,
}

/// Sets the password. Whatever was begun with the old one is over.
pub(super) async fn set(
    State(signin): State<SignIn>,
    Path(token): Path<String>,
    request: Request,
) -> Response {
    let head = Head::of(&request);
    told(head.manner, set_it(&signin, &head, &token, request).await)
}

async fn set_it(
    signin: &SignIn,
    head: &Head,
    token: &str,
    request: Request,
) -> Result<Response, Failure> {
    from_our_page(signin, &head.headers)?;
    let inner = &signin.0;
    linked(inner, token, head).await?;
    let New { password } = read(request).await?;
    let hashed = inner.hashed(password).await?;
    // Only now is it used: a password that is too short costs nobody the link.
    let used = inner.sessions.use_link(token, inner.governor.now()).await;
    let id = used.map_err(unavailable)?.ok_or_else(void)?;
    let edited = inner.governor.edit(|directory, _| {
        let refuse = || Unchanged::Denied(Denied::new(Rule::DisabledUser, "this account is shut"));
        let able = |user: &&std::sync::Arc<User>| !user.service && !user.disabled;
        let user = directory.user(&id).filter(able).ok_or_else(refuse)?;
        let changed = User { password: Some(hashed), ..User::clone(user) };
        let note = inner.line("password_set", Some((&user.id, &user.organisation)), &json!({}));
        Ok::<_, Unchanged>((vec![Edit::put(&changed)], note, ()))
    });
    edited.await.map_err(Denied::from)?;
    inner.sessions.end_all(&id).await.map_err(unavailable)?;
    Ok(done(head.manner, "/signin", json!({ "password_set": true })))
}
