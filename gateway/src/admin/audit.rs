//! The audit trail: its records, whether it is whole, and all of it for elsewhere.

use std::ops::ControlFlow;

use bytes::Bytes;
use futures_util::stream::try_unfold;
use govern::audit::{Anchor, Record, Verifier};
use govern::deliver::Notice;
use govern::report::{self, RecordQuery};
use govern::role::Permission;
use govern::{Governor, Id, Millis, Scope};
use serde_json::json;

use super::answer::{Answer, Page};
use super::asked::Asked;
use super::caller::Caller;
use super::check;
use super::query::Known;
use super::refusal::Refusal;
use super::table::{Gives, Method, Pick, Place, Route, Shape};
use super::usage::{cursor, widest};

const FILTERS: [Known; 4] = [
    ("organisation", "Only this organisation's."),
    ("kind", "Only records of this kind: admin, request, ..."),
    ("from", "The first time: 2026-11-01, 2026-11-01T12:00:00Z or milliseconds since 1970."),
    ("to", "The first time after it."),
];

const ANCHOR: Known =
    ("anchor", "A record that was written down elsewhere, CHAIN:NUMBER:HASH: it must be there.");

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    let needs = || (Permission::AuditRead, Place::Named(Pick(place)));
    let summary = "Lists records of the audit, the newest first.";
    let list = Route::new((Method::Get, "/audit"), needs(), summary, |a| Box::pin(list(a)));
    let pages = [
        ("limit", "Records on a page, 1 to 200; 50 where nothing is said."),
        ("after", "The `last_id` of the page before."),
    ];
    // A chain is of a gateway and holds every organisation's records.
    let whole = (Permission::AuditRead, Place::Everything);
    let summary = "Verifies all chains of the audit: nothing altered, dropped or put in another \
                   order. The answer has `summary`, or `broken` with the first trouble.";
    let verify =
        Route::new((Method::Get, "/audit/verify"), whole, summary, |a| Box::pin(verify(a)));
    let summary = "Records of the audit as JSON lines, the newest first.";
    let export = Route::new((Method::Get, "/audit/export"), needs(), summary, |a| {
        Box::pin(async move { export(&a) })
    });
    vec![
        list.asks(&FILTERS).asks(&pages).gives(Gives::List(Shape::of::<Record>())),
        verify.asks(&[ANCHOR]),
        export.asks(&FILTERS).gives(Gives::Text(LINES)),
    ]
}

const LINES: &str = "application/x-ndjson";

fn place(caller: &Caller<'_>, asked: &Asked) -> Result<Scope, Refusal> {
    match asked.query.get("organisation") {
        Some(text) => Ok(Scope::Organisation(Id::of(text).unwrap_or_default())),
        None => widest(caller, asked.route.permission()),
    }
}

fn record_query(asked: &Asked, limit: u32) -> Result<RecordQuery, Refusal> {
    let zone = check::zone("time_zone", &asked.principal.organisation.time_zone)?;
    let organisation = {
        let directory = asked.governor.directory();
        let (caller, place) = asked.judge(&directory, asked.governor.now())?;
        caller.directory.organisation_of(&place).cloned()
    };
    Ok(RecordQuery {
        organisation,
        kind: asked.query.get("kind").map(str::to_owned),
        from: asked.query.time("from", &zone)?.unwrap_or(Millis::MIN),
        to: asked.query.time("to", &zone)?.unwrap_or(Millis::MAX),
        after: cursor(&asked.query)?,
        limit,
    })
}

async fn list(asked: Asked) -> Result<Answer, Refusal> {
    let query = record_query(&asked, asked.query.limit()?)?;
    asked.governor.caught_up().await;
    let (records, next) = report::records(asked.governor.store(), &query).await?;
    let data = records.iter().map(serde_json::to_value).collect::<Result<_, _>>();
    let data = data.map_err(Refusal::internal)?;
    Ok(Answer::json(&Page::new(data, next.map(|next| next.to_string()))))
}

async fn verify(asked: Asked) -> Result<Answer, Refusal> {
    let anchors: Vec<Anchor> =
        match asked.query.get("anchor") {
            Some(text) => vec![anchor(text).ok_or_else(|| {
                Refusal::invalid("anchor", "'anchor' is written CHAIN:NUMBER:HASH.")
            })?],
            None => Vec::new(),
        };
    // What was decided before this was asked is in the chains.
    asked.governor.flush().await;
    let store = asked.governor.store();
    let mut verifier = Verifier::new(&anchors);
    let mut broken = None;
    for chain in report::chains(store).await? {
        broken = report::stream_chain(store, &chain, |record| match verifier.push(&record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(broken) => ControlFlow::Break(broken),
        })
        .await?;
        if broken.is_some() {
            break;
        }
    }
    let outcome = broken.map_or_else(|| verifier.finish(), Err);
    Ok(match outcome {
        Ok(summary) => Answer::json(&json!({ "summary": summary })),
        Err(broken) => {
            let governor = &asked.governor;
            governor.tell(Notice::broken(&broken, governor.gateway(), governor.now()));
            let (number, why) = (broken.number, broken.why.to_string());
            let broken = json!({ "chain": broken.chain, "number": number, "why": why });
            Answer::json(&json!({ "broken": broken }))
        }
    })
}

/// Names of chains may hold colons, numbers and hashes do not.
fn anchor(text: &str) -> Option<Anchor> {
    let mut parts = text.rsplitn(3, ':');
    let hash = parts.next()?.to_owned();
    let number = parts.next()?.parse().ok()?;
    let chain = parts.next()?.to_owned();
    Some(Anchor { chain, number, hash, day: "the day of the anchor".to_owned() })
}

fn export(asked: &Asked) -> Result<Answer, Refusal> {
    let query = record_query(asked, report::LIMIT_MAX)?;
    let state = Some((asked.governor.clone(), query));
    Ok(Answer::stream(
        LINES,
        try_unfold(state, |state| async move {
            let Some((governor, query)) = state else { return Ok(None) };
            governor.caught_up().await;
            let (text, next) = lines(&governor, &query).await.map_err(std::io::Error::other)?;
            let next = next.map(|after| (governor, RecordQuery { after: Some(after), ..query }));
            Ok(Some((Bytes::from(text), next)))
        }),
    ))
}

async fn lines(
    governor: &Governor,
    query: &RecordQuery,
) -> Result<(Vec<u8>, Option<report::Cursor>), report::ReportError> {
    let (records, next) = report::records(governor.store(), query).await?;
    let mut out = Vec::new();
    for record in &records {
        // Memory takes everything.
        let _ = govern::audit::export::write_json_line(&mut out, record);
    }
    Ok((out, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_read() {
        let read = anchor("gate:way:7:abcd").expect("an anchor");
        assert_eq!((read.chain.as_str(), read.number, read.hash.as_str()), ("gate:way", 7, "abcd"));
        for wrong in ["", "a", "a:b", "a:b:c"] {
            assert!(anchor(wrong).is_none(), "{wrong}");
        }
    }
}
