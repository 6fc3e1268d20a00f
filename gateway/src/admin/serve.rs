//! From the table to a router: every route walks the same way, so none can forget a step.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use govern::Governor;

use super::answer::Answer;
use super::asked::Asked;
use super::caller::Caller;
use super::refusal::{LACKING, Refusal};
use super::table::{Method, Route, routes};
use super::{BASE, documents, idempotency, usage};

/// Everything below `/admin/v1`. To stand behind a layer that puts an `Arc` of a
/// [`govern::Principal`] into the request's extensions, and [`crate::server::Peer`] where the
/// address is known.
pub fn router<S: Clone + Send + Sync + 'static>(governor: Governor) -> Router<S> {
    let mut router = Router::new()
        .route(BASE, get(documents::page))
        .route(&format!("{BASE}/openapi.json"), get(documents::openapi));
    for route in routes() {
        let filter = match route.method() {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Patch => MethodFilter::PATCH,
            Method::Delete => MethodFilter::DELETE,
        };
        let route = Arc::new(route);
        let path = route.path().to_owned();
        let serve = move |State(governor), request| serve(governor, Arc::clone(&route), request);
        router = router.route(&path, on(filter, serve));
    }
    router.with_state(governor)
}

/// `/v1/usage`: what the caller's own key has used, for whoever has a key.
pub fn own_usage<S: Clone + Send + Sync + 'static>(governor: Governor) -> Router<S> {
    Router::new().route("/v1/usage", get(own)).with_state(governor)
}

async fn own(State(governor): State<Governor>, request: Request) -> Response {
    respond(usage::of_caller(&governor, &request.into_parts().0).await)
}

async fn serve(governor: Governor, route: Arc<Route>, request: Request) -> Response {
    respond(answer(governor, route, request).await)
}

fn respond(answer: Result<Answer, Refusal>) -> Response {
    match answer {
        Ok(answer) => answer.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn answer(
    governor: Governor,
    route: Arc<Route>,
    request: Request,
) -> Result<Answer, Refusal> {
    let asked = Asked::read(governor, Arc::clone(&route), request).await?;
    if let Err(refusal) = judge(&asked) {
        note(&asked, &refusal);
        return Err(refusal);
    }
    match route.method() {
        Method::Post => idempotency::run(asked).await,
        Method::Get | Method::Patch | Method::Delete => route.run(asked).await,
    }
}

fn judge(asked: &Asked) -> Result<(), Refusal> {
    let now = asked.governor.now();
    let directory = asked.governor.directory();
    asked.judge(&directory, now).map(drop)
}

/// Whoever tries what they may not do leaves a line in the audit.
fn note(asked: &Asked, refusal: &Refusal) {
    if refusal.code() != LACKING || asked.route.method() == Method::Get {
        return;
    }
    let now = asked.governor.now();
    let organisation = {
        let directory = asked.governor.directory();
        let about = Caller::of(&asked.principal, &directory, now)
            .and_then(|caller| asked.route.about(&caller, asked));
        // The line is for those whose thing it was about: it names it.
        let whose = about.ok().and_then(|about| directory.organisation_of(&about).cloned());
        whose.filter(|_| !asked.id.is_empty())
    };
    let organisation = match (&organisation, asked.id.is_empty()) {
        (Some(whose), _) => whose.as_str(),
        (None, true) => asked.principal.organisation.id.as_str(),
        (None, false) => "",
    };
    let action = format!("{} {}", asked.route.method().name(), asked.route.path());
    let note = asked
        .note(now, &action, organisation)
        .with("refused", asked.route.permission().name())
        .with("target", asked.id.as_str());
    asked.governor.note(note.end());
}
