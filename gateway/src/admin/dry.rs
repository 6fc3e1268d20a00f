//! What a change would have made of the requests in the ledger. Nothing is changed; the audit says
//! who looked.

use std::sync::Arc;

use govern::directory::Directory;
use govern::entity::{Budget, Entity, Key, Organisation, PriceSheet, Project, Team, User};
use govern::policy::Policy;
use govern::policy::dry::{self, Count, Findings, Question};
use govern::price::ModelPrice;
use govern::role::Permission;
use govern::store::batch::QUARTER_MS;
use govern::store::documents::Edit;
use govern::{Id, Millis, Scope};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::answer::Answer;
use super::asked::Asked;
use super::caller::Caller;
use super::check;
use super::refusal::Refusal;
use super::resource::{Changeable, Resource};
use super::table::{Method, Pick, Place, Route};
use super::usage::widest;

/// Changes of one dry run.
const CHANGES_MAX: usize = 100;

/// One at a time: it reads the whole ledger.
static RUNNING: Semaphore = Semaphore::const_new(1);

/// A range of the ledger, and what would be different.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DryRun {
    /// Whose requests; all that the caller may see at the top where nothing is said.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    organisation: Option<Id>,
    /// The first time: a day, a time or milliseconds since 1970. Falls on a quarter of an hour.
    #[schema(value_type = String)]
    from: Value,
    /// The first time after it; now where nothing is said.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    to: Option<Value>,
    /// None: what the rules of today would have made of it.
    #[serde(default)]
    changes: Vec<Change>,
}

/// One thing that would be different.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Change {
    kind: Kind,
    /// The thing that changes; without one a budget or a sheet is new.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    id: Option<Id>,
    /// A policy: the whole one. A budget: as it is made or changed, `null` to delete it. A price:
    /// `{"models": [...]}`, in the place of all sheets.
    #[serde(default)]
    #[schema(value_type = Object)]
    body: Value,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// Rules of an organisation, team, project, user or key.
    Policy,
    Budget,
    Price,
}

/// Prices of a dry run.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prices {
    #[serde(default)]
    name: String,
    models: Vec<ModelPrice>,
}

/// `POST /policy/dry-run`
pub(super) fn route() -> Route {
    let pick = Pick(|caller, asked| {
        let run: DryRun = asked.body()?;
        match run.organisation {
            Some(id) => Ok(Scope::Organisation(id)),
            None => widest(caller, asked.route.permission()),
        }
    });
    let needs = (Permission::UsageRead, Place::Named(pick));
    let summary = "Replays the ledger through changed policies, budgets or prices, and changes \
                   nothing.";
    Route::new((Method::Post, "/policy/dry-run"), needs, summary, |a| Box::pin(dry_run(a)))
        .takes::<DryRun>()
}

async fn dry_run(asked: Asked) -> Result<Answer, Refusal> {
    let run: DryRun = asked.body()?;
    let question = question(&asked, &run)?;
    let Ok(_turn) = RUNNING.try_acquire() else {
        let message = "Another dry run is under way; try again when it has ended.";
        return Err(Refusal::conflict("dry_run_in_progress", message));
    };
    let governor = &asked.governor;
    let organisation = question.organisation.as_ref().map(Id::as_str).unwrap_or_default();
    let note = asked
        .note(governor.now(), "policy.dry_run", organisation)
        .with("from", question.from)
        .with("to", question.to)
        .with("changes", run.changes.len());
    governor.note(note.end());
    governor.caught_up().await;
    let found = dry::run(governor.store(), &question).await?;
    Ok(Answer::json(&shown(&question, &found)))
}

fn question(asked: &Asked, run: &DryRun) -> Result<Question, Refusal> {
    if run.changes.len() > CHANGES_MAX {
        let why = format!("'changes' has at most {CHANGES_MAX} entries.");
        return Err(Refusal::invalid("changes", why));
    }
    let now = asked.governor.now();
    let from = time(asked, "from", &run.from)?;
    let end = (now.div_euclid(QUARTER_MS) + 1) * QUARTER_MS;
    let to = run.to.as_ref().map_or(Ok(end), |to| time(asked, "to", to))?;
    let directory = asked.governor.directory();
    let (caller, place) = asked.judge(&directory, now)?;
    let organisation = caller.directory.organisation_of(&place).cloned();
    let mut changed = Directory::clone(&directory);
    let mut sheet = None;
    for (at, change) in run.changes.iter().enumerate() {
        let done = match change.kind {
            Kind::Price => prices(change, now).map(|prices| sheet = Some(Arc::new(prices))),
            Kind::Policy => {
                policy(&changed, change, &place).and_then(|edit| apply(&mut changed, &edit))
            }
            Kind::Budget => budget(&changed, change, (&caller, &place))
                .and_then(|edit| apply(&mut changed, &edit)),
        };
        done.map_err(|refusal| refusal.within(&format!("changes[{at}].")))?;
    }
    Ok(Question { organisation, from, to, directory: Arc::new(changed), sheet })
}

fn time(asked: &Asked, field: &str, value: &Value) -> Result<Millis, Refusal> {
    let zone = check::zone("time_zone", &asked.principal.organisation.time_zone)?;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    check::time(&text, &zone).ok_or_else(|| {
        let why = format!("'{field}' is a day, a time or milliseconds since 1970.");
        Refusal::invalid(field, why)
    })
}

fn apply(directory: &mut Directory, edit: &Edit) -> Result<(), Refusal> {
    directory.apply(&edit.change()).map_err(Refusal::internal)
}

fn read<T: DeserializeOwned>(body: &Value) -> Result<T, Refusal> {
    T::deserialize(body).map_err(|error| Refusal::invalid("body", format!("'body': {error}.")))
}

/// What lies outside the place that is asked about does not exist here.
fn here(directory: &Directory, place: &Scope, scope: &Scope) -> Result<(), Refusal> {
    if directory.covers(place, scope) { Ok(()) } else { Err(Refusal::hidden()) }
}

fn policy(directory: &Directory, change: &Change, place: &Scope) -> Result<Edit, Refusal> {
    let policy: Policy = read(&change.body)?;
    check::policy(&policy)?;
    let Some(id) = &change.id else {
        return Err(Refusal::invalid("id", "'id' names whose policy it is."));
    };
    let within = |scope: Scope| here(directory, place, &scope);
    let kind = id.as_str().split('_').next().unwrap_or_default();
    macro_rules! changed {
        ($find:ident, $scope:ident) => {{
            let mut made = directory.$find(id).ok_or_else(Refusal::hidden)?.as_ref().clone();
            within(Scope::$scope(id.clone()))?;
            made.policy = policy;
            Ok(Edit::put(&made))
        }};
    }
    match kind {
        Organisation::KIND => changed!(organisation, Organisation),
        Team::KIND => changed!(team, Team),
        Project::KIND => changed!(project, Project),
        User::KIND => changed!(user, User),
        Key::KIND => changed!(key, Key),
        _ => Err(Refusal::hidden()),
    }
}

fn budget(
    directory: &Directory,
    change: &Change,
    (caller, place): (&Caller<'_>, &Scope),
) -> Result<Edit, Refusal> {
    let Some(id) = &change.id else {
        let new: <Budget as Resource>::New = read(&change.body)?;
        let scope = Budget::place_of(&new, caller)?;
        here(directory, place, &scope)?;
        return Ok(Edit::put(&Budget::make(new, caller, &scope)?));
    };
    let old = directory.budget(id).ok_or_else(Refusal::hidden)?;
    here(directory, place, &old.scope)?;
    if change.body.is_null() {
        return Ok(Edit::delete(&**old));
    }
    let change: <Budget as Changeable>::Change = read(&change.body)?;
    Ok(Edit::put(&old.change(change, caller)?))
}

fn prices(change: &Change, now: Millis) -> Result<PriceSheet, Refusal> {
    let Prices { name, models } = read(&change.body)?;
    let sheet = PriceSheet::new(&name, models, now);
    sheet.check().map_err(|why| Refusal::invalid("body", format!("{why}.")))?;
    Ok(sheet)
}

fn shown(question: &Question, found: &Findings) -> Value {
    let counts = |counts: &[Count]| -> Vec<Value> {
        let one = |count: &Count| json!({ "name": count.name, "requests": count.requests });
        counts.iter().map(one).collect()
    };
    let examples = found.examples.iter();
    let examples = examples.map(|one| json!({ "operation": one.operation, "rule": one.rule }));
    let not_judged = found.not_judged.iter();
    let not_judged =
        not_judged.map(|one| json!({ "what": one.what, "requests": one.requests, "why": one.why }));
    json!({
        "object": "dry_run",
        "organisation": question.organisation,
        "from": question.from,
        "to": question.to,
        "requests": found.requests,
        "refused": found.refused,
        "shortened": found.shortened,
        "cut": found.cut,
        "recorded_nano_usd": found.recorded,
        "would_be_nano_usd": found.would_be,
        "by_rule": counts(&found.by_rule),
        "by_key": counts(&found.by_key),
        "by_team": counts(&found.by_team),
        "by_model": counts(&found.by_model),
        "examples": examples.collect::<Vec<_>>(),
        "not_judged": not_judged.collect::<Vec<_>>(),
    })
}
