//! Who shows a cookie or a token: the hook for whatever door there is.

use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method};
use govern::identity::session::{Session, csrf_fits};
use govern::identity::{Principal, jwt, mapping, principal};
use govern::store::StoreError;
use govern::{Denied, Rule};

use super::SignIn;
use super::cookie::Kind;

/// The header that shows that a request was made by our own page.
pub(super) const CSRF: &str = "x-hearth-csrf";

/// Who asks: the service whose token is shown where a key would be (three parts with dots), or the
/// person whose session a cookie names. `None` where neither is shown: then it is a key's
/// turn. Whatever is shown as a key or token counts before any cookie.
///
/// # Errors
/// What is shown is not good, or not from there, or not now; or a cookie alone asks for a change.
pub async fn principal_of(
    signin: &SignIn,
    headers: &HeaderMap,
    method: &Method,
    source: Option<IpAddr>,
) -> Result<Option<Principal>, Denied> {
    if let Some(shown) = shown(headers) {
        if !jwt::is_token(shown) {
            return Ok(None);
        }
        return service(signin, shown, source).await.map(Some);
    }
    let Some(token) = signin.0.cookies.read(headers, Kind::Session) else { return Ok(None) };
    if !method.is_safe() {
        from_our_page(signin, headers)?;
        let shown = headers.get(CSRF).and_then(|value| value.to_str().ok());
        fits(token, shown)?;
    }
    person(signin, token, source).await.map(|(_, principal)| Some(principal))
}

/// What is shown as a key or token: OpenAI's header first, then Anthropic's. What is no text is
/// neither, but shown.
pub(super) fn shown(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).map(|value| {
        let (scheme, token) = value.to_str().ok().and_then(|v| v.split_at_checked(7))?;
        scheme.eq_ignore_ascii_case("bearer ").then(|| token.trim())
    });
    let plain = || headers.get("x-api-key").map(|value| value.to_str().ok().map(str::trim));
    bearer.or_else(plain).map(Option::unwrap_or_default)
}

async fn service(
    signin: &SignIn,
    token: &str,
    source: Option<IpAddr>,
) -> Result<Principal, Denied> {
    let now = signin.0.governor.now();
    let (issuer, claims) = signin.0.issuers.claims(token, now).await?;
    mapping::service(&signin.0.governor.directory(), issuer, &claims, source, now)
}

/// The session of a token, and the person. Whoever is disabled loses all sessions.
pub(super) async fn person(
    signin: &SignIn,
    token: &str,
    source: Option<IpAddr>,
) -> Result<(Session, Principal), Denied> {
    let inner = &signin.0;
    let now = inner.governor.now();
    let session = inner.sessions.find(token, now).await.map_err(unavailable)?.ok_or_else(|| {
        Denied::new(Rule::UnknownKey, "this session is over; sign in again at /signin")
    })?;
    let found = principal::signed_in(&inner.governor.directory(), &session.user, source, now);
    match found {
        Ok(principal) => Ok((session, principal)),
        Err(denied) => {
            if denied.rule == Rule::DisabledUser {
                inner.sessions.end_all(&session.user).await.map_err(unavailable)?;
            }
            Err(denied)
        }
    }
}

/// Whether a request that changes something comes from a page of ours: browsers say so.
pub(super) fn from_our_page(signin: &SignIn, headers: &HeaderMap) -> Result<(), Denied> {
    let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes);
    if origin == Some(signin.0.origin.as_bytes()) {
        return Ok(());
    }
    let message = format!("this must come from a page of {}", signin.0.origin);
    Err(Denied::new(Rule::Permission, message))
}

/// Whether the session's own proof is shown.
pub(super) fn fits(token: &str, shown: Option<&str>) -> Result<(), Denied> {
    if shown.is_some_and(|shown| csrf_fits(token, shown)) {
        return Ok(());
    }
    let message = format!("the header '{CSRF}' must hold what GET /signin/me gives as 'csrf'");
    Err(Denied::new(Rule::Permission, message))
}

/// The database is away: that says nothing about whoever asks.
#[allow(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
pub(super) fn unavailable(error: StoreError) -> Denied {
    tracing::error!(%error, "sessions cannot be read or kept");
    let message = "Sessions cannot be read at the moment; try again.";
    Denied::new(Rule::Unavailable, message).after(1)
}
