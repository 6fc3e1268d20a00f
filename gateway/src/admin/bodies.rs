//! Recorded texts of requests and answers: what there is, one of them, and erasing them. Whoever
//! reads or erases one leaves a line in the audit.

use govern::bodies::{About, Body, BodyError, Erase};
use govern::role::Permission;
use govern::{Id, Scope};
use serde_json::{Value, json};

use super::answer::{Answer, Page};
use super::asked::Asked;
use super::caller::Caller;
use super::check;
use super::query::Known;
use super::refusal::Refusal;
use super::table::{Method, Pick, Place, Route};
use super::usage::cursor;

const ORGANISATION: Known = ("organisation", "Whose; the caller's own where nothing is said.");
const USER: Known = ("user", "Only this user's.");
const BEFORE: Known =
    ("before", "Only of requests let in before: a day, a time or milliseconds since 1970.");

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    let reads = || (Permission::BodiesRead, Place::Named(Pick(place)));
    let summary = "Lists recorded texts, the newest first, without what they say.";
    let list = Route::new((Method::Get, "/bodies"), reads(), summary, |a| Box::pin(list(a)));
    let pages = [
        ("limit", "Texts on a page, 1 to 200; 50 where nothing is said."),
        ("after", "The `last_id` of the page before."),
    ];
    let summary = "Shows what was said in an operation's attempts; the id is the operation's.";
    let one = Route::new((Method::Get, "/bodies/{id}"), reads(), summary, |a| Box::pin(one(a)));
    let needs = (Permission::BodiesErase, Place::Named(Pick(place)));
    let summary = "Erases recorded texts and their keys: a person's, or those before a time.";
    let erase = Route::new((Method::Delete, "/bodies"), needs, summary, |a| Box::pin(erase(a)));
    vec![
        list.asks(&[ORGANISATION, USER]).asks(&pages),
        one.asks(&[ORGANISATION]),
        erase.asks(&[ORGANISATION, USER, BEFORE]),
    ]
}

fn place(caller: &Caller<'_>, asked: &Asked) -> Result<Scope, Refusal> {
    let named = asked.query.get("organisation").map(|text| Id::of(text).unwrap_or_default());
    Ok(Scope::Organisation(named.unwrap_or_else(|| caller.organisation.clone())))
}

fn organisation(asked: &Asked) -> Result<Id, Refusal> {
    let directory = asked.governor.directory();
    let (caller, place) = asked.judge(&directory, asked.governor.now())?;
    caller.directory.organisation_of(&place).cloned().ok_or_else(Refusal::hidden)
}

fn user(asked: &Asked) -> Option<Id> {
    // What can be no id is nobody's.
    asked.query.get("user").map(|text| Id::of(text).unwrap_or_default())
}

async fn list(asked: Asked) -> Result<Answer, Refusal> {
    let (organisation, user) = (organisation(&asked)?, user(&asked));
    let (after, limit) = (cursor(&asked.query)?, asked.query.limit()?);
    asked.governor.recorded().await;
    let store = asked.governor.store();
    let found = store.bodies(&organisation, user.as_ref(), after.as_ref(), limit).await?;
    let data = found.0.iter().map(shown).collect();
    Ok(Answer::json(&Page::new(data, found.1.map(|next| next.to_string()))))
}

fn shown(about: &About) -> Value {
    json!({
        "operation": about.operation,
        "attempt": about.attempt,
        "organisation": about.organisation,
        "user": about.user,
        "key": about.key,
        "label": about.label,
        "at": about.at,
        "expires": about.expires,
        "bytes": about.bytes,
    })
}

async fn one(asked: Asked) -> Result<Answer, Refusal> {
    let organisation = organisation(&asked)?;
    asked.governor.recorded().await;
    let found = asked.governor.bodies_of(&organisation, &asked.id).await?;
    if found.is_empty() {
        return Err(Refusal::hidden());
    }
    let now = asked.governor.now();
    let note = asked.note(now, "bodies.read", organisation.as_str());
    asked.governor.note(note.with("target", asked.id.as_str()).end());
    let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
    let said = |Body { about, request, answer }: &Body| {
        let mut shown = shown(about);
        shown["request"] = json!(text(request.expose()));
        shown["answer"] = json!(text(answer.expose()));
        shown
    };
    let attempts: Vec<Value> = found.iter().map(said).collect();
    Ok(Answer::json(&json!({ "id": asked.id, "attempts": attempts })).with_secret())
}

async fn erase(asked: Asked) -> Result<Answer, Refusal> {
    let (organisation, user) = (organisation(&asked)?, user(&asked));
    let zone = check::zone("time_zone", &asked.principal.organisation.time_zone)?;
    let before = asked.query.time("before", &zone)?;
    if user.is_none() && before.is_none() {
        return Err(Refusal::invalid("user", "Say 'user' or 'before', or both."));
    }
    let mut note = asked.note(asked.governor.now(), "bodies.erase", organisation.as_str());
    if let Some(user) = &user {
        note = note.with("target", user.as_str());
    }
    if let Some(before) = before {
        note = note.with("before", before);
    }
    let count = asked.governor.erase_bodies(Erase { organisation, user, before }).await?;
    asked.governor.note(note.with("erased", count).end());
    Ok(Answer::json(&json!({ "erased": count })))
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Store(error) => error.into(),
            BodyError::Erased => {
                Self::conflict("body_erased", "Its key was erased: nobody can read it any more.")
            }
            error @ (BodyError::Sealed(_) | BodyError::NoKey) => Self::internal(error),
        }
    }
}
