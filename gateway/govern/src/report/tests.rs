//! Reports against a plain fold over the entries that were written, on both databases.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use hearth_tests::services::postgres;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;

use super::{
    Bucket, Cursor, Dimension, EntryQuery, FILTERS_MAX, Query, RecordQuery, ReportError, Row,
    chains, entries, records, stream_chain, usage,
};
use crate::audit::{Chain, Record};
use crate::ledger::{Entry, Outcome, ServiceTier, Tokens};
use crate::policy::Label;
use crate::store::Store;
use crate::store::batch::{Batch, QUARTER_MS};
use crate::{Id, Millis, Money};

/// 2026-10-17, midnight in UTC: clocks in Berlin are set back eight days later, then a month ends.
const BEGIN: Millis = 1_792_195_200_000;
const DAYS: i64 = 40;
const DAY_MS: i64 = 96 * QUARTER_MS;

/// A database of one test's own. SQLite's file goes with it.
struct Database {
    store: Store,
    file: Option<PathBuf>,
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(file) = &self.file else { return };
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", file.display()));
        }
    }
}

/// Runs a test on both.
fn on_both(test: &impl AsyncFn(&Store)) {
    let runtime = Runtime::new().expect("a runtime");
    let name = Id::new("hearth-report", 0);
    let file = std::env::temp_dir().join(format!("{name}.db"));
    let url = file.to_str().expect("plain").to_owned();
    for (url, file) in [(url, Some(file)), (postgres::shared().fresh(), None)] {
        runtime.block_on(async {
            let store = Store::open(&url).await.expect(&url);
            let database = Database { store, file };
            test(&database.store).await;
            database.store.close().await;
        });
    }
}

/// What a strategy makes first; the same in each run.
fn made<S: Strategy>(strategy: S) -> S::Value {
    let mut runner = TestRunner::deterministic();
    strategy.new_tree(&mut runner).expect("it makes values").current()
}

fn some_entry() -> impl Strategy<Value = Entry> {
    let who = (0..3_u32, 0..3_u32, 0..3_u32, 0..4_u32, 0..5_u32, 0..3_usize, 0..4_usize);
    let used = (0..5000_u64, 0..5000_u64, 0..900_u64, 0..9_000_000_i64);
    let how = (0..5_usize, 0..100_i64);
    (who, 0..DAYS * DAY_MS, used, how).prop_map(|(who, at, used, (outcome, time))| {
        let (organisation, team, project, user, key, model, label) = who;
        let (input, cache_read, output, cost) = used;
        Entry {
            operation: Id::default(),
            attempt: 1,
            gateway: "gw".into(),
            admitted_at: BEGIN + at,
            settled_at: BEGIN + at + time,
            organisation: format!("org_{organisation}").into(),
            team: format!("team_{organisation}_{team}").into(),
            project: format!("proj_{organisation}_{team}_{project}").into(),
            user: if user == 0 { "".into() } else { format!("user_{user}").into() },
            key: format!("key_{key}").into(),
            model: ["demo", "Größe", "=cmd|'x'!A1"][model].into(),
            backend: "local".into(),
            surface: "chat".into(),
            label: Label::ALL[label],
            price: "price_1".into(),
            tokens: Tokens { input, cache_read, cache_write: 1, output, reasoning: 2 },
            cost: Money(cost),
            outcome: Outcome::ALL[outcome],
            request_id: "req".into(),
            source: "127.0.0.1".into(),
            first_token_ms: time / 2,
            duration_ms: time,
            device_us: output,
            service_tier: ServiceTier::ALL[model % 2],
            arm: ["a", ""][model % 2].into(),
        }
    })
}

/// Entries of their own operations, some at the first and last millisecond of quarters.
fn some_entries(count: usize) -> Vec<Entry> {
    let mut all = made(vec(some_entry(), count));
    for (number, entry) in all.iter_mut().enumerate() {
        entry.operation = Id::of(&format!("op_{:04}", number * 7919 % count)).expect("a name");
        let quarter = entry.admitted_at / QUARTER_MS * QUARTER_MS;
        match number % 10 {
            0 => entry.admitted_at = quarter,
            1 => entry.admitted_at = quarter + QUARTER_MS - 1,
            _ => {}
        }
    }
    all
}

async fn write(store: &Store, entries: Vec<Entry>, records: Vec<Record>) {
    let entries = entries.into_iter().map(Arc::new).collect();
    let batch = Arc::new(Batch { entries, records, ..Batch::default() });
    store.commit(&batch).await.expect("written");
    // Again, as after an answer that was lost.
    store.commit(&batch).await.expect("written");
}

fn value(entry: &Entry, dimension: Dimension) -> &str {
    match dimension {
        Dimension::Organisation => &entry.organisation,
        Dimension::Team => &entry.team,
        Dimension::Project => &entry.project,
        Dimension::User => &entry.user,
        Dimension::Key => &entry.key,
        Dimension::Model => &entry.model,
        Dimension::Label => entry.label.name(),
    }
}

fn passes(entry: &Entry, organisation: Option<&Id>, filters: &[(Dimension, String)]) -> bool {
    let any = |dimension: Dimension| {
        let mut wanted = filters.iter().filter(|(of, _)| *of == dimension).peekable();
        wanted.peek().is_none() || wanted.any(|(_, text)| text == value(entry, dimension))
    };
    organisation.is_none_or(|id| id.as_str() == &*entry.organisation)
        && Dimension::ALL.into_iter().all(any)
}

/// Where the calendar begins a stretch, by jiff's own words; none of the zones tried here sets its
/// clocks at midnight, nor by part of an hour.
fn begins(bucket: Bucket, at: Millis, zone: &TimeZone) -> Millis {
    let local: Zoned = Timestamp::from_millisecond(at).expect("a time").to_zoned(zone.clone());
    let start = match bucket {
        Bucket::Hour => {
            let since = i64::from(local.minute()) * 60_000 + i64::from(local.second()) * 1000;
            return at - since - i64::from(local.millisecond());
        }
        Bucket::Day => local,
        Bucket::Week if local.weekday() == Weekday::Monday => local,
        Bucket::Week => local.nth_weekday(-1, Weekday::Monday).expect("a Monday"),
        Bucket::Month => local.first_of_month().expect("a first"),
    };
    start.start_of_day().expect("a midnight").timestamp().as_millisecond()
}

fn fold(all: &[Entry], query: &Query) -> Vec<Row> {
    let zone = TimeZone::get(&query.time_zone).expect("known");
    let mut sums: BTreeMap<(Option<Millis>, Vec<String>), Row> = BTreeMap::new();
    for entry in all {
        let within = (query.from..query.to).contains(&entry.admitted_at);
        if !within || !passes(entry, query.organisation.as_ref(), &query.filters) {
            continue;
        }
        let start = query.bucket.map(|bucket| begins(bucket, entry.admitted_at, &zone));
        let about: Vec<String> =
            query.group_by.iter().map(|by| value(entry, *by).to_owned()).collect();
        let row = sums.entry((start, about.clone())).or_default();
        let number = |tokens: u64| i64::try_from(tokens).expect("few");
        *row = Row {
            about,
            start,
            requests: row.requests + 1,
            input_tokens: row.input_tokens + number(entry.tokens.input),
            cache_read_tokens: row.cache_read_tokens + number(entry.tokens.cache_read),
            output_tokens: row.output_tokens + number(entry.tokens.output),
            cost: Money(row.cost.0 + entry.cost.0),
        };
    }
    let mut rows: Vec<Row> = sums.into_values().collect();
    rows.sort_by(|a, b| a.start.cmp(&b.start).then(b.cost.cmp(&a.cost)));
    rows
}

fn some_query() -> impl Strategy<Value = Query> {
    let zones = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"];
    let quarters = (DAYS + 4) * 96;
    let values: Vec<(Dimension, String)> = vec![
        (Dimension::Team, "team_0_1".to_owned()),
        (Dimension::Team, "team_1_0".to_owned()),
        (Dimension::User, String::new()),
        (Dimension::Model, "Größe".to_owned()),
        (Dimension::Model, "demo".to_owned()),
        (Dimension::Key, "' OR 1=1 --".to_owned()),
        (Dimension::Label, "public".to_owned()),
    ];
    (
        (proptest::option::of(0..4_u32), proptest::sample::subsequence(values, 0..3)),
        proptest::sample::subsequence(Dimension::ALL.to_vec(), 0..4),
        (0..quarters, 0..quarters),
        proptest::option::of(0..4_usize),
        0..4_usize,
    )
        .prop_map(move |((organisation, filters), mut group_by, (a, b), bucket, zone)| {
            group_by.reverse();
            let at = |quarter: i64| BEGIN - 2 * DAY_MS + quarter * QUARTER_MS;
            Query {
                organisation: organisation.and_then(|id| Id::of(&format!("org_{id}"))),
                filters,
                group_by,
                from: at(a.min(b)),
                to: at(a.max(b)),
                bucket: bucket.map(|at| Bucket::ALL[at]),
                time_zone: zones[zone].to_owned(),
            }
        })
}

#[test]
fn sums_are_those_of_the_entries() {
    let all = some_entries(1500);
    let mut queries = made(vec(some_query(), 300));
    let whole = Query {
        to: BEGIN + DAYS * DAY_MS,
        time_zone: "Europe/Berlin".to_owned(),
        ..Query::default()
    };
    for bucket in Bucket::ALL {
        queries.push(Query { bucket: Some(bucket), from: BEGIN, ..whole.clone() });
    }
    queries.push(whole);
    on_both(&async |store| {
        write(store, all.clone(), Vec::new()).await;
        let mut rows = 0;
        for query in &queries {
            let found = usage(store, query).await.expect("a report");
            assert_eq!(found, fold(&all, query), "{query:?}");
            rows += found.len();
        }
        assert!(rows > 10_000, "queries that find something: {rows}");
    });
}

#[test]
fn months_end_where_the_zone_says() {
    // The last quarter of October and the first of November in Berlin, an hour before UTC's.
    let november = 1_793_487_600_000;
    let entry = |number: i64, at: Millis| Entry {
        operation: Id::of(&format!("op_{number}")).expect("a name"),
        admitted_at: at,
        cost: Money(number),
        ..Entry::default()
    };
    on_both(&async |store| {
        write(store, vec![entry(1, november - 1), entry(2, november)], Vec::new()).await;
        let found = async |zone: &str, bucket: Bucket| -> Vec<(Option<Millis>, i64)> {
            let query = Query {
                from: november - DAY_MS,
                to: november + DAY_MS,
                bucket: Some(bucket),
                time_zone: zone.to_owned(),
                ..Query::default()
            };
            let rows = usage(store, &query).await.expect("a report");
            rows.iter().map(|row| (row.start, row.cost.0)).collect()
        };
        // 2026-10-01 in Berlin, still in summer time; 2026-10-01 in UTC.
        let october = 1_790_805_600_000;
        let berlin = found("Europe/Berlin", Bucket::Month).await;
        assert_eq!(berlin, [(Some(october), 1), (Some(november), 2)]);
        let utc = found("UTC", Bucket::Month).await;
        assert_eq!(utc, [(Some(1_790_812_800_000), 3)]);
        let hours = found("UTC", Bucket::Hour).await;
        assert_eq!(hours, [(Some(november - 3_600_000), 1), (Some(november), 2)]);
    });
}

#[test]
fn what_cannot_be_answered_is_refused() {
    let query = Query { to: DAY_MS, time_zone: "UTC".to_owned(), ..Query::default() };
    let filters = vec![(Dimension::Team, String::new()); FILTERS_MAX + 1];
    let hour = Some(Bucket::Hour);
    let far = 10_001 * 4 * QUARTER_MS;
    let refused = [
        (Query { from: 1, ..query.clone() }, "`from` must fall on a quarter"),
        (Query { to: DAY_MS - 1, ..query.clone() }, "`to` must fall on a quarter"),
        (Query { from: 2 * DAY_MS, ..query.clone() }, "range"),
        (Query { from: -DAY_MS, ..query.clone() }, "range"),
        (Query { to: i64::MAX / QUARTER_MS * QUARTER_MS, ..query.clone() }, "range"),
        (Query { time_zone: "Mars".to_owned(), ..query.clone() }, "`Mars` is no time zone"),
        (Query { group_by: vec![Dimension::Team; 2], ..query.clone() }, "`team` is asked for"),
        (Query { filters, ..query.clone() }, "at most 100 filters"),
        (Query { to: far, bucket: hour, ..query.clone() }, "more than 10000 rows"),
    ];
    on_both(&async |store| {
        for (wrong, why) in &refused {
            let said = usage(store, wrong).await.expect_err(why).to_string();
            assert!(said.contains(why), "{said}");
        }
        let nothing = [
            query.clone(),
            Query { from: DAY_MS, bucket: hour, ..query.clone() },
            Query { bucket: hour, ..query.clone() },
            Query { to: far - 4 * QUARTER_MS, bucket: hour, ..query.clone() },
        ];
        for empty in nothing {
            assert_eq!(usage(store, &empty).await.expect("a report"), [], "{empty:?}");
        }
    });
}

#[test]
fn a_report_has_at_most_ten_thousand_rows() {
    let entry = |number: usize| Entry {
        operation: Id::of(&format!("op_{number}")).expect("a name"),
        key: format!("key_{number:05}").into(),
        ..Entry::default()
    };
    let query = Query {
        to: DAY_MS,
        group_by: vec![Dimension::Key],
        time_zone: "UTC".to_owned(),
        ..Query::default()
    };
    on_both(&async |store| {
        write(store, (0..10_000).map(entry).collect(), Vec::new()).await;
        let rows = usage(store, &query).await.expect("a report");
        assert_eq!(rows.len(), 10_000);
        assert!(rows.windows(2).all(|pair| pair[0].about < pair[1].about), "equal costs: by name");
        write(store, vec![entry(10_000)], Vec::new()).await;
        let refused = usage(store, &query).await;
        assert!(matches!(refused, Err(ReportError::Rows)), "{refused:?}");
        let filters = vec![(Dimension::Key, "key_00007".to_owned())];
        let narrow = usage(store, &Query { filters, ..query.clone() }).await;
        assert_eq!(narrow.expect("a report").len(), 1);
    });
}

#[test]
fn lines_come_in_pages_newest_first() {
    let mut all = some_entries(400);
    // Many at one time: pages end within them.
    for entry in &mut all[..100] {
        entry.admitted_at = BEGIN + DAY_MS;
    }
    let query = EntryQuery {
        organisation: Id::of("org_1"),
        filters: vec![
            (Dimension::Model, "demo".to_owned()),
            (Dimension::Model, "Größe".to_owned()),
        ],
        from: BEGIN,
        to: BEGIN + 30 * DAY_MS,
        after: None,
        limit: 7,
    };
    let mut expect = all.clone();
    expect.retain(|entry| {
        passes(entry, query.organisation.as_ref(), &query.filters) && entry.admitted_at < query.to
    });
    expect.sort_by(|a, b| {
        (b.admitted_at, &b.operation, b.attempt).cmp(&(a.admitted_at, &a.operation, a.attempt))
    });
    assert!(expect.len() > 50, "{}", expect.len());
    on_both(&async |store| {
        write(store, all.clone(), Vec::new()).await;
        let (mut found, mut query) = (Vec::new(), query.clone());
        loop {
            let (page, next) = entries(store, &query).await.expect("a page");
            assert!(page.len() <= 7);
            found.extend(page);
            let Some(next) = next else { break };
            assert_eq!(found.len() % 7, 0, "only the last page is short");
            query.after = Some(next.to_string().parse().expect("its own cursor"));
        }
        assert_eq!(found, expect);
        for limit in [0, 1001] {
            let refused = entries(store, &EntryQuery { limit, ..query.clone() }).await;
            assert!(matches!(refused, Err(ReportError::Limit)), "{refused:?}");
        }
    });
}

/// Two chains of 1,100 records each: more than one reading of a chain, with times that meet.
fn two_chains() -> Vec<Record> {
    let mut all = Vec::new();
    for name in ["gw-b", "gw-a"] {
        let mut chain = Chain::begin(name);
        for number in 0..1100_i64 {
            let kind = if number % 3 == 0 { "admin" } else { "request" };
            let organisation = if number % 2 == 0 { "org_1" } else { "" };
            all.push(chain.next(BEGIN + number / 5, kind, organisation, format!("[{number}]")));
        }
    }
    all
}

#[test]
fn records_come_in_pages_and_chains_whole() {
    let all = two_chains();
    let query = RecordQuery {
        organisation: Id::of("org_1"),
        kind: Some("admin".to_owned()),
        from: BEGIN + 10,
        to: BEGIN + 200,
        after: None,
        limit: 50,
    };
    let mut expect = all.clone();
    expect.retain(|record| {
        record.organisation == "org_1"
            && record.kind == "admin"
            && (query.from..query.to).contains(&record.at)
    });
    expect.sort_by(|a, b| (b.at, &b.chain, b.number).cmp(&(a.at, &a.chain, a.number)));
    on_both(&async |store| {
        write(store, Vec::new(), all.clone()).await;
        let (mut found, mut after): (Vec<Record>, Option<Cursor>) = (Vec::new(), None);
        loop {
            let page = RecordQuery { after, ..query.clone() };
            let (page, next) = records(store, &page).await.expect("a page");
            found.extend(page);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expect);

        assert_eq!(chains(store).await.expect("chains"), ["gw-a", "gw-b"]);
        let mut found = Vec::new();
        let end = stream_chain(store, "gw-b", |record| {
            found.push(record);
            ControlFlow::<()>::Continue(())
        });
        assert_eq!(end.await.expect("a chain"), None);
        assert_eq!(found, all[..1100]);
        let end = stream_chain(store, "gw-a", |record| match record.number {
            1005 => ControlFlow::Break(record.body),
            _ => ControlFlow::Continue(()),
        });
        assert_eq!(end.await.expect("a chain"), Some("[1004]".to_owned()));
        let end = stream_chain(store, "nobody", |_| ControlFlow::Break(()));
        assert_eq!(end.await.expect("no chain"), None);
    });
}
