//! The second factor: one-time codes from an app, and how an app is enrolled.
//!
//! Between password and code, and between a fresh secret and its first code, what is known lies
//! sealed in the browser. A code counts once, at whichever gateway.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{Html, IntoResponse as _, Response};
use govern::entity::User;
use govern::identity::principal::signed_in;
use govern::identity::session::totp_place;
use govern::identity::totp::Totp;
use govern::store::documents::Edit;
use govern::{Denied, Id, Millis, Principal, Rule};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer::{Head, Manner, done, read, told};
use super::cookie::Kind;
use super::entry::{fits, from_our_page, person, unavailable};
use super::password::forget;
use super::session::{cookie, header};
use super::{Inner, SignIn, Unchanged, local, page};
use crate::api::Failure;

/// Time to look at the app, and to enrol one.
const WAIT_MS: Millis = 5 * 60_000;
const ENROL_MS: Millis = 15 * 60_000;

/// Where the note about a right password belongs.
const HALF: &str = "signin/second";

/// Somebody whose password was right.
#[derive(Serialize, Deserialize)]
struct Half {
    user: Id,
    return_to: String,
    expires_at: Millis,
}

/// Has a browser keep that a password was right.
pub(super) fn expect(inner: &Inner, headers: &mut HeaderMap, user: &Id, return_to: &str) {
    let expires_at = inner.governor.now().saturating_add(WAIT_MS);
    let half = Half { user: user.clone(), return_to: return_to.to_owned(), expires_at };
    inner.cookies.set(headers, Kind::Second, &inner.seal(&json!(half), HALF), WAIT_MS / 1000);
}

/// The page that asks for a code.
pub(super) async fn form() -> Response {
    Html(page::code()).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Code {
    code: String,
}

/// The second step: a code.
pub(super) async fn check(State(signin): State<SignIn>, request: Request) -> Response {
    let head = Head::of(&request);
    told(head.manner, check_it(&signin, &head, request).await)
}

async fn check_it(signin: &SignIn, head: &Head, request: Request) -> Result<Response, Failure> {
    from_our_page(signin, &head.headers)?;
    let inner = &signin.0;
    let half: Option<Half> =
        inner.cookies.read(&head.headers, Kind::Second).and_then(|sealed| inner.open(sealed, HALF));
    let half = half.ok_or_else(|| {
        Denied::new(Rule::UnknownKey, "the password comes first, and not long before; begin anew")
    })?;
    let Code { code } = read(request).await?;
    let user = inner.governor.directory().user(&half.user).cloned();
    let user = user.filter(|user| user.totp.is_some()).ok_or_else(wrong)?;
    inner.code_counts(&user, &code, head.source).await?;
    let to = local(Some(&half.return_to));
    let response = done(head.manner, to, json!({ "signed_in": true, "return_to": to }));
    let mut response = inner.begin(head, &user.id, "password", response).await?;
    forget(inner, &mut response);
    Ok(response)
}

fn wrong() -> Denied {
    Denied::new(Rule::UnknownKey, "the code is wrong, or was used before")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enrol {
    /// A code of the app that is enrolled already.
    #[serde(default)]
    code: Option<String>,
}

/// A fresh secret and where it goes to, for whoever has signed in.
#[derive(Serialize, Deserialize)]
struct Enrolment {
    secret: String,
    expires_at: Millis,
}

fn enrolment_place(user: &Id) -> String {
    format!("{}/new", totp_place(user))
}

/// Makes a secret. It counts once an app has shown that it has it.
pub(super) async fn enrol(State(signin): State<SignIn>, request: Request) -> Response {
    told(Manner::Json, enrol_it(&signin, request).await)
}

async fn enrol_it(signin: &SignIn, request: Request) -> Result<Response, Failure> {
    let inner = &signin.0;
    let head = Head::of(&request);
    let Enrol { code } = read(request).await?;
    let (principal, user) = acting(signin, &head).await?;
    // Whoever has got hold of a session must not put another app in the place of its owner's.
    if user.totp.is_some() {
        let code = code.ok_or_else(|| {
            Denied::new(Rule::Permission, "an app is enrolled: 'code' must be one of its codes")
        })?;
        inner.code_counts(&user, &code, head.source).await?;
    }
    let secret = Totp::new();
    let expires_at = inner.governor.now().saturating_add(ENROL_MS);
    let enrolment = Enrolment { secret: secret.base32(), expires_at };
    Ok(Json(json!({
        "secret": secret.base32(),
        "uri": secret.uri(&format!("Hearth {}", principal.organisation.name), &user.email),
        "enrolment": inner.seal(&json!(enrolment), &enrolment_place(&user.id)),
        "expires_at": expires_at,
    }))
    .into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirm {
    /// What [`enrol`] gave.
    enrolment: String,
    /// The app's first code.
    code: String,
}

/// Keeps the secret: from now on signing in asks for codes.
pub(super) async fn confirm(State(signin): State<SignIn>, request: Request) -> Response {
    told(Manner::Json, confirm_it(&signin, request).await)
}

async fn confirm_it(signin: &SignIn, request: Request) -> Result<Response, Failure> {
    let inner = &signin.0;
    let head = Head::of(&request);
    let Confirm { enrolment, code } = read(request).await?;
    let (_, user) = acting(signin, &head).await?;
    let opened: Option<Enrolment> = inner.open(&enrolment, &enrolment_place(&user.id));
    let secret = opened.and_then(|opened| Totp::of_base32(&opened.secret)).ok_or_else(|| {
        Denied::new(Rule::Permission, "this enrolment is not yours, or too old; begin anew")
    })?;
    inner.counts(&user.id, &secret, &code, head.source).await?;
    let sealed = inner.keyring.seal(secret.base32().as_bytes(), &totp_place(&user.id));
    let before = user.totp.clone();
    let edited = inner.governor.edit(|directory, now| {
        let gone = || Unchanged::Denied(wrong());
        signed_in(directory, &user.id, head.source, now).map_err(Unchanged::Denied)?;
        // Of two enrolments at once the first one counts.
        let user = directory.user(&user.id).filter(|user| user.totp == before).ok_or_else(gone)?;
        let changed = User { totp: Some(sealed), ..User::clone(user) };
        let note = inner.line("totp_enrolled", Some((&user.id, &user.organisation)), &json!({}));
        Ok::<_, Unchanged>((vec![Edit::put(&changed)], note, ()))
    });
    edited.await.map_err(Denied::from)?;
    Ok(Json(json!({ "totp": true })).into_response())
}

/// Somebody who has signed in, on a page of ours.
async fn acting(signin: &SignIn, head: &Head) -> Result<(Principal, Arc<User>), Denied> {
    let headers = &head.headers;
    from_our_page(signin, headers)?;
    let token = cookie(signin, headers)?;
    fits(token, header(headers))?;
    let (_, principal) = person(signin, token, head.source).await?;
    let user = principal.user.clone().ok_or_else(wrong)?;
    Ok((principal, user))
}

impl Inner {
    /// Takes a code of somebody's app as used.
    async fn code_counts(
        &self,
        user: &User,
        code: &str,
        source: Option<std::net::IpAddr>,
    ) -> Result<(), Denied> {
        let sealed = user.totp.as_deref().ok_or_else(wrong)?;
        let opened = self.keyring.open(sealed, &totp_place(&user.id)).map_err(|error| {
            tracing::error!(%error, user = %user.id, "the secret of one-time codes is shut");
            let message = "one-time codes cannot be checked at the moment; ask an administrator";
            Denied::new(Rule::Unavailable, message)
        })?;
        let text = opened.into_text().ok_or_else(wrong)?;
        let secret = Totp::of_base32(text.expose()).ok_or_else(wrong)?;
        self.counts(&user.id, &secret, code, source).await
    }

    /// Takes a code of this secret as used. Guessing is slowed down like that of passwords.
    async fn counts(
        &self,
        user: &Id,
        secret: &Totp,
        code: &str,
        source: Option<std::net::IpAddr>,
    ) -> Result<(), Denied> {
        let account = format!("totp {user}");
        self.attempt(&account, source)?;
        let last = self.sessions.last_step(user).await.map_err(unavailable)?;
        let now = self.governor.now();
        let step = secret.verify(code.trim(), now, last).ok_or_else(wrong)?;
        if !self.sessions.use_step(user, step).await.map_err(unavailable)? {
            return Err(wrong());
        }
        self.succeeded(&account, source);
        Ok(())
    }
}
