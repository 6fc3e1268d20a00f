//! A copy has every row of what there was at one moment, and nothing that was cut or altered gets
//! into a database.

#[path = "backup/damage.rs"]
mod damage;
#[path = "money/records.rs"]
mod records;
#[path = "backup/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use govern::audit::{Record, verify};
use govern::backup::{BackupError, NOT_BACKED_UP, RUNNING, Rows, TABLES, backup, migrate, restore};
use govern::store::{Kind, Store};
use records::all_records;
use sqlx::{AssertSqlSafe, Row};
use world::{Folder, KINDS, ask, dump, fill, open, put_prices};

async fn backed_up(url: &str) -> (Vec<u8>, Rows) {
    let mut out = Vec::new();
    let rows = backup(url, 1_795_276_800_000, &mut out).await.expect("a backup");
    (out, rows)
}

/// What a database says of its own tables: their columns, and whether these are texts.
async fn catalogue(store: &Store) -> BTreeMap<String, Vec<(String, bool)>> {
    let sql = match store.kind() {
        Kind::Sqlite => {
            "SELECT m.name AS t, c.name AS c, c.type AS k FROM sqlite_master m, \
             pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' \
             ORDER BY m.name, c.cid"
        }
        Kind::Postgres => {
            "SELECT CAST(table_name AS TEXT) AS t, CAST(column_name AS TEXT) AS c, \
             CAST(data_type AS TEXT) AS k FROM information_schema.columns \
             WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position"
        }
    };
    let mut tables: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for row in sqlx::query(sql).fetch_all(store.read()).await.expect("a catalogue") {
        let [table, column, kind] = ["t", "c", "k"].map(|name| row.get::<String, _>(name));
        tables.entry(table).or_default().push((column, kind.eq_ignore_ascii_case("text")));
    }
    // Which migrations there were: a database that is restored has its own.
    tables.remove("_sqlx_migrations").expect("a migrated database");
    for running in RUNNING {
        tables.remove(running).expect("a table of gateways that run");
    }
    tables
}

#[tokio::test]
async fn no_table_and_no_column_is_forgotten() {
    let folder = Folder::new();
    let ours: BTreeMap<_, Vec<_>> = TABLES
        .iter()
        .chain(NOT_BACKED_UP)
        .map(|table| {
            let column = |name: &&str| ((*name).to_owned(), table.texts.contains(name));
            (table.name.to_owned(), table.columns.iter().map(column).collect())
        })
        .collect();
    for kind in KINDS {
        let store = Store::open(&folder.fresh(kind, "a.db")).await.expect("a store");
        assert_eq!(catalogue(&store).await, ours, "{kind:?}");
        store.close().await;
    }
}

#[tokio::test]
async fn every_row_comes_through() {
    let folder = Folder::new();
    for (seed, kind) in (1..).zip(KINDS) {
        let from = folder.fresh(kind, "from.db");
        fill(&from, 700, seed).await;
        let wanted = dump(&from).await;
        let (text, rows) = backed_up(&from).await;
        assert_eq!(rows["documents"], 700);
        // A schema without use has one counter.
        assert_eq!(rows["counters"], 701);
        for other in KINDS {
            let to = folder.fresh(other, &format!("restored-{seed}.db"));
            assert_eq!(restore(&text[..], &to, false).await.expect("restored"), rows);
            assert!(dump(&to).await == wanted, "{kind:?} to {other:?}");
            // The same once more, in place of itself.
            let again = restore(&text[..], &to, false).await;
            assert!(matches!(again, Err(BackupError::NotEmpty("documents"))), "{again:?}");
            restore(&text[..], &to, true).await.expect("restored");
            assert!(dump(&to).await == wanted, "{kind:?} to {other:?}, twice");

            let to = folder.fresh(other, &format!("moved-{seed}.db"));
            assert_eq!(migrate(&from, &to, false).await.expect("moved"), rows);
            assert!(dump(&to).await == wanted, "{kind:?} moved to {other:?}");
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_made() {
    let folder = Folder::new();
    let none = folder.file("none.db");
    let missing = backup(&none, 0, &mut Vec::new()).await;
    assert!(matches!(missing, Err(BackupError::Missing(_))), "{missing:?}");
    let missing = migrate(&none, &folder.file("to.db"), false).await;
    assert!(matches!(missing, Err(BackupError::Missing(_))), "{missing:?}");
    assert!(!std::path::Path::new(&none).exists());
    std::fs::write(&none, b"").expect("a file");
    for foreign in [none, folder.fresh(Kind::Postgres, "")] {
        let refused = backup(&foreign, 0, &mut Vec::new()).await;
        assert!(matches!(refused, Err(BackupError::Schema(_))), "{refused:?}");
    }
}

/// Sums of the ledger and of the quarters, and requests by ledger and by audit.
async fn sums(url: &str) -> [[i64; 4]; 2] {
    let store = Store::open(url).await.expect("a store");
    let of = |table: &str, count: &str| {
        let all = ["input_tokens", "output_tokens", "cost_nano_usd"];
        let all = all.map(|name| format!("CAST(COALESCE(SUM({name}), 0) AS BIGINT)")).join(", ");
        format!("SELECT CAST({count} AS BIGINT), {all} FROM {table}")
    };
    let mut found = [[0; 4]; 2];
    let queries = [of("ledger", "COUNT(*)"), of("quarters", "COALESCE(SUM(requests), 0)")];
    for (found, sql) in found.iter_mut().zip(queries) {
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(store.read()).await.expect("sums");
        *found = [0, 1, 2, 3].map(|at| row.get(at));
    }
    store.close().await;
    found
}

async fn records(url: &str) -> Vec<Record> {
    let store = Store::open(url).await.expect("a store");
    let records = all_records(&store).await;
    store.close().await;
    records
}

/// Backups beside a writer: each is a state that there was.
async fn beside_a_writer(kind: Kind) {
    let folder = Folder::new();
    let url = folder.fresh(kind, "hearth.db");
    let (governor, key) = open(&folder, &url).await;
    let key = key.expect("the first key");
    put_prices(&governor).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (governor, key, stop) = (governor.clone(), key.clone(), Arc::clone(&stop));
        async move {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                ask(&governor, &key, number % 97, number % 8 == 0).await;
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
        }
    });
    let mut counts = Vec::new();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let (text, rows) = backed_up(&url).await;
        let refused = restore(&text[..], &url, true).await;
        assert!(matches!(refused, Err(BackupError::InUse(_))), "{refused:?}");
        let to = folder.file(&format!("copy-{}.db", counts.len()));
        restore(&text[..], &to, false).await.expect("restored");
        let [ledger, quarters] = sums(&to).await;
        assert_eq!(ledger, quarters);
        assert!(ledger[3] > 0);
        let audit = records(&to).await;
        verify(audit.iter().cloned(), &[]).expect("a whole chain");
        let requests = audit.iter().filter(|record| record.kind == "request").count();
        assert_eq!(i64::try_from(requests), Ok(ledger[0]));
        assert_eq!(rows["ledger"], ledger[0].unsigned_abs());
        counts.push(ledger[0]);
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("it wrote");
    eprintln!("{kind:?}: lines at each backup: {counts:?}");
    assert!(counts.windows(2).all(|two| two[0] < two[1]), "it wrote all the time: {counts:?}");
    let to = folder.file("moved.db");
    let refused = migrate(&url, &to, false).await;
    assert!(matches!(refused, Err(BackupError::InUse(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_beside_a_writer_is_one_moment() {
    for kind in KINDS {
        beside_a_writer(kind).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_governor_goes_on_where_the_backup_ends() {
    for (kind, other) in [KINDS, [Kind::Postgres, Kind::Sqlite]].map(|[a, b]| (a, b)) {
        let folder = Folder::new();
        let url = folder.fresh(kind, "hearth.db");
        let (governor, key) = open(&folder, &url).await;
        let key = key.expect("the first key");
        put_prices(&governor).await;
        for number in 0..20 {
            ask(&governor, &key, number, true).await;
        }
        let (text, _) = backed_up(&url).await;
        let before = records(&url).await;
        drop(governor);

        let folder = Folder::new();
        let url = folder.fresh(other, "hearth.db");
        restore(&text[..], &url, false).await.expect("restored");
        let (governor, first) = open(&folder, &url).await;
        assert!(first.is_none(), "it is no first start");
        let sheet = govern::entity::PriceSheet::new("later", Vec::new(), 5);
        let edits = vec![govern::store::documents::Edit::put(&sheet)];
        let note = govern::ledger::writer::Note::default();
        let made = governor.edit(|_, _| Ok::<_, govern::governor::EditError>((edits, note, ())));
        made.await.expect("revisions go on");
        ask(&governor, &key, 5, true).await;
        let after = records(&url).await;
        assert_eq!(after.len(), before.len() + 2);
        assert_eq!(after[..before.len()], before[..]);
        verify(after.into_iter(), &[]).expect("a whole chain");
        let [ledger, quarters] = sums(&url).await;
        assert_eq!((ledger, ledger[0]), (quarters, 21));
    }
}
