//! Databases to copy: of both kinds, with random rows in every table, or with a governor at work.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use govern::backup::{TABLES, Table};
use govern::governor::{Clock, EditError, OpenError};
use govern::ledger::writer::Note;
use govern::ledger::{Outcome, Tokens};
use govern::price::{ModelPrice, TokenPrices};
use govern::store::documents::Edit;
use govern::store::{Kind, Store, StoreError};
use govern::{Ask, Governor, Settings};
use hearth_tests::services::postgres;
use sqlx::{AssertSqlSafe, Row};

pub(super) const KINDS: [Kind; 2] = [Kind::Sqlite, Kind::Postgres];

/// A folder that goes with the test.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "hearth-backup-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    pub(super) fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// A database that is not there yet, or holds nothing.
    pub(super) fn fresh(&self, kind: Kind, name: &str) -> String {
        match kind {
            Kind::Sqlite => self.file(name),
            Kind::Postgres => postgres::shared().fresh(),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// Whatever may stand in a text; the number in it makes it differ from all others.
    fn text(&mut self, number: usize) -> String {
        let parts =
            ["", "'", "\"", "\\", "\n", "\r", "\u{1}", "ä", "🦀", "\u{2028}", "null", "{", ","];
        let mut text = number.to_string();
        for _ in 0..self.below(8) {
            text.push_str(parts[self.below(parts.len())]);
        }
        text
    }
}

/// Random rows in every table, `count` in each.
pub(super) async fn fill(url: &str, count: usize, seed: u64) {
    let mut random = Random(seed);
    let store = Store::open(url).await.expect("a store");
    let mut transaction = store.write().begin().await.expect("a transaction");
    for table in TABLES {
        for number in 0..count {
            let places: Vec<_> = (1..=table.columns.len()).map(|at| format!("${at}")).collect();
            let (names, places) = (table.columns.join(", "), places.join(", "));
            let sql = format!("INSERT INTO {} ({names}) VALUES ({places})", table.name);
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for column in table.columns {
                query = if table.texts.contains(column) {
                    query.bind(random.text(number))
                } else if *column == "revision" {
                    query.bind(i64::try_from(number).expect("few"))
                } else {
                    let extremes = [i64::MIN, i64::MAX, 0, -1];
                    let any = random.next().cast_signed();
                    query.bind(*extremes.get(random.below(16)).unwrap_or(&any))
                };
            }
            query.execute(&mut *transaction).await.expect("a row");
        }
    }
    transaction.commit().await.expect("committed");
    store.close().await;
}

/// Every row of every table, in an order of our own.
pub(super) async fn dump(url: &str) -> Vec<(&'static str, Vec<Vec<String>>)> {
    let store = Store::open(url).await.expect("a store");
    let mut all = Vec::new();
    for Table { name, columns, texts, .. } in TABLES {
        let sql = format!("SELECT {} FROM {name}", columns.join(", "));
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(store.read()).await.expect("rows");
        let cell = |row: &sqlx::any::AnyRow, at: usize| match texts.contains(&columns[at]) {
            true => row.get::<String, _>(at),
            false => row.get::<i64, _>(at).to_string(),
        };
        let cells = |row| (0..columns.len()).map(|at| cell(row, at)).collect();
        let mut rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
        rows.sort();
        all.push((*name, rows));
    }
    store.close().await;
    all
}

/// Opens a governor as soon as the one before it has let go; and the first start's key.
pub(super) async fn open(folder: &Folder, url: &str) -> (Governor, Option<String>) {
    let settings = Settings {
        url: url.to_owned(),
        journal: folder.file("journal").into(),
        gateway: "gateway-1".to_owned(),
        clock: Clock::System,
        fsync: govern::Fsync::default(),
        sharing: govern::Sharing::default(),
    };
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match Governor::open(&settings).await {
            Ok((governor, first)) => return (governor, first.map(|first| first.0.shown)),
            Err(OpenError::Journal(_) | OpenError::Store(StoreError::InUse(_)))
                if Instant::now() < until =>
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Prices, so that something costs something.
pub(super) async fn put_prices(governor: &Governor) {
    let rates = TokenPrices { input: 3000, output: 7000, ..TokenPrices::default() };
    let price = ModelPrice { model: "*".to_owned(), rates, ..ModelPrice::default() };
    let sheet = govern::entity::PriceSheet::new("prices", vec![price], 0);
    let edits = vec![Edit::put(&sheet)];
    let made = governor.edit(|_, _| Ok::<_, EditError>((edits, Note::default(), ())));
    made.await.expect("an edit");
}

/// One request, from the key to its line in the ledger, if `wait` says so.
pub(super) async fn ask(governor: &Governor, key: &str, output: u64, wait: bool) {
    let principal = governor.authenticate(Some(key), None).expect("a good key");
    let ask = Ask {
        model: format!("model-{}", output % 3),
        surface: "chat",
        input_tokens: 11,
        choices: 1,
        room: 1000,
        ..Ask::default()
    };
    let operation = governor.admit(&principal, &ask).expect("let in");
    operation.used(Tokens { input: 11, output, ..Tokens::default() }, Outcome::Done, 1);
    let receipt = operation.finish();
    if wait {
        receipt.durable(Duration::from_secs(20)).await;
        governor.flush().await;
    }
}
