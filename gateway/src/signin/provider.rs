//! The way to an identity provider and back.

use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use govern::identity::mapping::{self, Arrival};
use govern::identity::{jwt::Claims, same};
use govern::store::documents::Edit;
use govern::{Denied, Id, Rule};
use serde::Deserialize;
use serde_json::json;
use wire::ErrorKind;

use super::answer::{Head, Manner, told};
use super::cookie::Kind;
use super::oidc::{FLOW_MS, Flow, Oidc};
use super::session::Target;
use super::{Inner, SignIn, Unchanged, local};
use crate::api::Failure;

/// Sends a browser to the provider.
pub(super) async fn start(
    State(signin): State<SignIn>,
    Path(name): Path<String>,
    Query(target): Query<Target>,
) -> Response {
    let result = async {
        let inner = &signin.0;
        let oidc = inner.provider(&name)?;
        let to = local(target.return_to.as_deref()).to_owned();
        let (url, flow) = oidc.start(to, inner.governor.now()).await?;
        let mut response = Redirect::to(&url).into_response();
        let sealed = inner.seal(&json!(flow), &place(&name));
        inner.cookies.set(response.headers_mut(), Kind::Flow, &sealed, FLOW_MS / 1000);
        Ok(response)
    };
    told(Manner::Page, result.await)
}

/// What the provider has a browser bring along.
#[derive(Deserialize)]
pub(super) struct Back {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    error: Option<String>,
    /// RFC 9207: which provider it is.
    #[serde(default)]
    iss: Option<String>,
}

/// Takes a browser back from the provider.
pub(super) async fn callback(
    State(signin): State<SignIn>,
    Path(name): Path<String>,
    Query(back): Query<Back>,
    request: Request,
) -> Response {
    let inner = &signin.0;
    let head = Head::of(&request);
    drop(request);
    let mut response = told(Manner::Page, take_back(inner, &name, back, &head).await);
    // Good for one way only, however it ended.
    inner.cookies.clear(response.headers_mut(), Kind::Flow);
    response
}

async fn take_back(
    inner: &Inner,
    name: &str,
    back: Back,
    head: &Head,
) -> Result<Response, Failure> {
    let oidc = inner.provider(name)?;
    let foreign = || {
        let message = "this sign-in did not begin in this browser, or too long ago; begin anew";
        Denied::new(Rule::Permission, message)
    };
    let sealed = inner.cookies.read(&head.headers, Kind::Flow).ok_or_else(foreign)?;
    let flow: Flow = inner.open(sealed, &place(name)).ok_or_else(foreign)?;
    let state = back.state.unwrap_or_default();
    let other = back.iss.is_some_and(|iss| iss != oidc.provider.issuer);
    if other || !same(state.as_bytes(), flow.state.as_bytes()) {
        return Err(foreign().into());
    }
    if let Some(error) = back.error {
        let plain: String = error.chars().filter(char::is_ascii_graphic).take(64).collect();
        tracing::info!(provider = name, error = plain, "a provider signed nobody in");
        let message = format!("{} signed nobody in", oidc.provider.title);
        return Err(Denied::new(Rule::Permission, message).into());
    }
    let code = back.code.ok_or_else(foreign)?;
    let claims = oidc.finish(code, &flow, inner.governor.now()).await?;
    let user = inner.arrive(oidc, &claims).await?;
    let to = Redirect::to(local(Some(&flow.return_to))).into_response();
    Ok(inner.begin(head, &user, &format!("oidc:{name}"), to).await?)
}

fn place(name: &str) -> String {
    format!("signin/oidc/{name}")
}

impl Inner {
    fn provider(&self, name: &str) -> Result<&Oidc, Failure> {
        let found = self.providers.iter().find(|one| one.provider.name == name);
        found.ok_or_else(|| {
            let message = "No provider of this name is set up here.";
            Failure::new(ErrorKind::NotFound, "not_found", message)
        })
    }

    /// The account of a person, made or brought up to date.
    async fn arrive(&self, oidc: &Oidc, claims: &Claims) -> Result<Id, Denied> {
        let provider = &oidc.provider;
        let edited = self.governor.edit(|directory, now| {
            let arrival = mapping::person(directory, &provider.name, &provider.people, claims, now)
                .map_err(Unchanged::Denied)?;
            let Arrival { user, before } = arrival;
            let changed = before.as_ref().is_none_or(|before| **before != user);
            let action = if before.is_some() { "user_updated" } else { "user_created" };
            let about = json!({
                "provider": provider.name, "teams": user.teams, "grants": user.grants,
            });
            let note = self.line(action, Some((&user.id, &user.organisation)), &about);
            let edits = if changed { vec![Edit::put(&user)] } else { Vec::new() };
            Ok::<_, Unchanged>((edits, note, user.id))
        });
        edited.await.map_err(Denied::from)
    }
}
