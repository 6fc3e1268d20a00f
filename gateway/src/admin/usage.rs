//! What was used and what it cost: reports, the ledger's lines, and everybody's own.

use axum::http::request::Parts;
use govern::budget::window::Period;
use govern::directory::Directory;
use govern::ledger::Entry;
use govern::report::{self, Bucket, Cursor, Dimension, EntryQuery, ReportError, Row};
use govern::role::Permission;
use govern::store::batch::QUARTER_MS;
use govern::{Governor, Id, Millis, Scope};
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Page};
use super::asked::{self, Asked};
use super::caller::Caller;
use super::check;
use super::query::{Known, Query};
use super::refusal::Refusal;
use super::table::{Gives, Method, Pick, Place, Route, Shape};

/// The place of an id.
type ScopeOf = fn(Id) -> Scope;

/// What narrows a report, and the place that each names.
const PLACES: [(&str, ScopeOf); 5] = [
    ("organisation", Scope::Organisation),
    ("team", Scope::Team),
    ("project", Scope::Project),
    ("user", Scope::User),
    ("key", Scope::Key),
];

const FILTERS: [Known; 7] = [
    ("organisation", "Only this organisation's."),
    ("team", "Only this team's."),
    ("project", "Only this project's."),
    ("user", "Only this user's."),
    ("key", "Only this key's."),
    ("model", "Only this model's."),
    ("label", "Only what was this secret: public, internal, confidential or restricted."),
];

const RANGE: [Known; 3] = [
    (
        "from",
        "The first time: 2026-11-01, 2026-11-01T12:00:00Z or milliseconds since 1970; the \
              first of this month where nothing is said.",
    ),
    ("to", "The first time after it; now where nothing is said."),
    (
        "time_zone",
        "IANA name of the zone in which days begin; the organisation's where nothing is \
                   said.",
    ),
];

const SHAPE: [Known; 3] = [
    (
        "group_by",
        "What rows are told apart by: some of organisation, team, project, user, key, \
                  model, label, with commas.",
    ),
    ("bucket", "Cuts the time into hour, day, week or month."),
    ("format", "json or csv."),
];

/// `GET /usage` and `GET /ledger`.
pub(super) fn routes() -> Vec<Route> {
    let needs = (Permission::UsageRead, Place::Named(Pick(place)));
    let summary = "Sums usage and cost, by any dimension and stretch of time.";
    let usage = Route::new((Method::Get, "/usage"), needs, summary, |a| Box::pin(sums(a)));
    let needs = (Permission::UsageRead, Place::Named(Pick(place)));
    let summary = "Lists lines of the ledger, the newest first.";
    let ledger = Route::new((Method::Get, "/ledger"), needs, summary, |a| Box::pin(lines(a)));
    let pages = [
        ("limit", "Lines on a page, 1 to 200; 50 where nothing is said."),
        ("after", "The `last_id` of the page before."),
    ];
    vec![
        usage.asks(&FILTERS).asks(&RANGE).asks(&SHAPE),
        ledger.asks(&FILTERS).asks(&RANGE).asks(&pages).gives(Gives::List(Shape::of::<Entry>())),
    ]
}

/// All filters hold at once, so whoever may see one of the places named may see what is left of it.
/// Who names none means all that they may see at the top.
fn place(caller: &Caller<'_>, asked: &Asked) -> Result<Scope, Refusal> {
    let permission = asked.route.permission();
    let id = |text| Id::of(text).unwrap_or_default();
    let named: Vec<Scope> = PLACES
        .iter()
        .filter_map(|(name, scope)| asked.query.get(name).map(|text| scope(id(text))))
        .collect();
    if let Some(place) = named.iter().find(|place| caller.may(permission, place)) {
        return Ok(place.clone());
    }
    match named.iter().find(|place| caller.sees(place)).or_else(|| named.first()) {
        Some(place) => Ok(place.clone()),
        None => widest(caller, permission),
    }
}

/// Everything, or the caller's own organisation.
pub(super) fn widest(caller: &Caller<'_>, permission: Permission) -> Result<Scope, Refusal> {
    let own = Scope::Organisation(caller.organisation.clone());
    let places = [Scope::Everything, own];
    let found = places.into_iter().find(|place| caller.may(permission, place));
    found.ok_or_else(|| Refusal::lacking(permission))
}

/// The organisation that a place lies in, by which every report is bounded.
fn bound(asked: &Asked) -> Result<Option<Id>, Refusal> {
    let directory = asked.governor.directory();
    let (caller, place) = asked.judge(&directory, asked.governor.now())?;
    Ok(caller.directory.organisation_of(&place).cloned())
}

async fn sums(asked: Asked) -> Result<Answer, Refusal> {
    let query = report_query(&asked.governor, &asked.query, own_zone(&asked), bound(&asked)?)?;
    asked.governor.caught_up().await;
    let rows = report::usage(asked.governor.store(), &query).await?;
    if csv(&asked.query)? {
        let text = report::csv::write(&query, &rows)?;
        return Ok(Answer::text("text/csv; charset=utf-8", text));
    }
    let directory = asked.governor.directory();
    let (caller, _) = asked.judge(&directory, asked.governor.now())?;
    let name = |dimension, id: &str| name_of(&directory, dimension, id, |scope| caller.sees(scope));
    Ok(Answer::json(&shown(&query, &rows, name)))
}

fn own_zone(asked: &Asked) -> &str {
    &asked.principal.organisation.time_zone
}

fn csv(query: &Query) -> Result<bool, Refusal> {
    match query.get("format") {
        None | Some("json") => Ok(false),
        Some("csv") => Ok(true),
        Some(_) => Err(Refusal::invalid("format", "'format' is json or csv.")),
    }
}

/// What is asked for, in the report's words.
fn report_query(
    governor: &Governor,
    query: &Query,
    own_zone: &str,
    organisation: Option<Id>,
) -> Result<report::Query, Refusal> {
    let time_zone = query.get("time_zone").unwrap_or(own_zone);
    let zone = check::zone("time_zone", time_zone)?;
    let (from, to) = range(governor, query, &zone)?;
    let words = query.get("group_by").unwrap_or_default();
    let words = words.split(',').map(str::trim).filter(|word| !word.is_empty());
    let group_by = words
        .map(|word| word.parse::<Dimension>().map_err(|why| invalid("group_by", &why)))
        .collect::<Result<_, _>>()?;
    let bucket = query
        .get("bucket")
        .map(|word| word.parse::<Bucket>().map_err(|why| invalid("bucket", &why)));
    Ok(report::Query {
        organisation,
        filters: filters(query),
        group_by,
        from,
        to,
        bucket: bucket.transpose()?,
        time_zone: time_zone.to_owned(),
    })
}

fn invalid(field: &'static str, why: &dyn std::fmt::Display) -> Refusal {
    Refusal::invalid(field, format!("'{field}': {why}."))
}

fn filters(query: &Query) -> Vec<(Dimension, String)> {
    let value = |dimension: &Dimension| query.get(dimension.name()).map(str::to_owned);
    Dimension::ALL.iter().filter_map(|one| value(one).map(|value| (*one, value))).collect()
}

/// From the first of this month to the end of this quarter of an hour.
fn range(governor: &Governor, query: &Query, zone: &TimeZone) -> Result<(Millis, Millis), Refusal> {
    let now = governor.now();
    let from = query.time("from", zone)?.unwrap_or_else(|| Period::Month.start(now, zone).max(0));
    let end = (now.div_euclid(QUARTER_MS) + 1) * QUARTER_MS;
    Ok((from, query.time("to", zone)?.unwrap_or(end)))
}

/// A report as JSON.
fn shown(
    query: &report::Query,
    rows: &[Row],
    name: impl Fn(Dimension, &str) -> Option<String>,
) -> Value {
    let data = rows.iter().map(|row| {
        let (mut about, mut names) = (Map::new(), Map::new());
        for (dimension, value) in query.group_by.iter().zip(&row.about) {
            about.insert(dimension.name().to_owned(), json!(value));
            if let Some(name) = name(*dimension, value) {
                names.insert(dimension.name().to_owned(), json!(name));
            }
        }
        json!({
            "about": about,
            "names": names,
            "start": row.start,
            "requests": row.requests,
            "input_tokens": row.input_tokens,
            "cache_read_tokens": row.cache_read_tokens,
            "output_tokens": row.output_tokens,
            "cost_nano_usd": row.cost,
            "cost_usd": row.cost.decimals(),
        })
    });
    json!({
        "object": "usage",
        "from": query.from,
        "to": query.to,
        "time_zone": query.time_zone,
        "bucket": query.bucket.map(Bucket::name),
        "data": data.collect::<Vec<_>>(),
    })
}

/// What people call a thing, if it is there and the caller may know.
fn name_of(
    directory: &Directory,
    dimension: Dimension,
    id: &str,
    may: impl Fn(&Scope) -> bool,
) -> Option<String> {
    let id = Id::of(id)?;
    let scope = match dimension {
        Dimension::Organisation => Scope::Organisation(id.clone()),
        Dimension::Team => Scope::Team(id.clone()),
        Dimension::Project => Scope::Project(id.clone()),
        Dimension::User => Scope::User(id.clone()),
        Dimension::Key => Scope::Key(id.clone()),
        Dimension::Model | Dimension::Label => return None,
    };
    if !may(&scope) {
        return None;
    }
    match dimension {
        Dimension::Organisation => directory.organisation(&id).map(|found| found.name.clone()),
        Dimension::Team => directory.team(&id).map(|found| found.name.clone()),
        Dimension::Project => directory.project(&id).map(|found| found.name.clone()),
        Dimension::User => directory.user(&id).map(|found| found.email.clone()),
        Dimension::Key => directory.key(&id).map(|found| found.label.clone()),
        Dimension::Model | Dimension::Label => None,
    }
}

async fn lines(asked: Asked) -> Result<Answer, Refusal> {
    let organisation = bound(&asked)?;
    let zone = check::zone("time_zone", asked.query.get("time_zone").unwrap_or(own_zone(&asked)))?;
    let (from, to) = range(&asked.governor, &asked.query, &zone)?;
    let query = EntryQuery {
        organisation,
        filters: filters(&asked.query),
        from,
        to,
        after: cursor(&asked.query)?,
        limit: asked.query.limit()?,
    };
    asked.governor.caught_up().await;
    let (entries, next) = report::entries(asked.governor.store(), &query).await?;
    let data = entries.iter().map(serde_json::to_value).collect::<Result<_, _>>();
    let data = data.map_err(Refusal::internal)?;
    Ok(Answer::json(&Page::new(data, next.map(|next| next.to_string()))))
}

/// Where the page before ended.
pub(super) fn cursor(query: &Query) -> Result<Option<Cursor>, Refusal> {
    query.get("after").map(|text| text.parse::<Cursor>().map_err(Refusal::from)).transpose()
}

const OF: Known = ("of", "key or user: what this key has used, or all keys of its user.");

/// `GET /v1/usage`: what the caller has used. The key that is shown is all that it needs.
pub(super) async fn of_caller(governor: &Governor, parts: &Parts) -> Result<Answer, Refusal> {
    let principal = asked::principal(&parts.extensions)?;
    let known: Vec<Known> = RANGE.iter().chain(&SHAPE).copied().chain([OF]).collect();
    let query = Query::read(&parts.uri, &known)?;
    let key = principal.key.as_ref().map(|key| key.id.to_string());
    let user = principal.user.as_ref().map(|user| user.id.to_string());
    let filter = match (query.get("of"), key, user) {
        (None | Some("key"), Some(key), _) => (Dimension::Key, key),
        (None | Some("user"), _, Some(user)) => (Dimension::User, user),
        _ => return Err(Refusal::invalid("of", "'of' is key or user, one that this caller has.")),
    };
    let (zone, own) = (&principal.organisation.time_zone, &principal.organisation.id);
    let mut report = report_query(governor, &query, zone, Some(own.clone()))?;
    report.filters.push(filter);
    governor.caught_up().await;
    let rows = report::usage(governor.store(), &report).await?;
    if csv(&query)? {
        return Ok(Answer::text("text/csv; charset=utf-8", report::csv::write(&report, &rows)?));
    }
    let scopes = principal.scopes();
    let directory = governor.directory();
    let name =
        |dimension, id: &str| name_of(&directory, dimension, id, |scope| scopes.contains(scope));
    Ok(Answer::json(&shown(&report, &rows, name)))
}

impl From<ReportError> for Refusal {
    fn from(error: ReportError) -> Self {
        let field = match &error {
            ReportError::Store(_) => None,
            ReportError::Quarter(field) => Some(*field),
            ReportError::Range => Some("from"),
            ReportError::Zone(_) => Some("time_zone"),
            ReportError::Twice(_) | ReportError::Rows => Some("group_by"),
            ReportError::Limit => Some("limit"),
            ReportError::Cursor => Some("after"),
            ReportError::Filters => Some("query"),
        };
        match (field, error) {
            (_, ReportError::Store(error)) => error.into(),
            (field, error) => Self::invalid(field.unwrap_or("query"), format!("{error}.")),
        }
    }
}
