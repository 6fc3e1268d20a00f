//! A gateway as a process would be it: a runtime, a governor, a folder of its own; it can be closed
//! in order, or end in the middle.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use govern::entity::Budget;
use govern::governor::{Clock, EditError};
use govern::ledger::writer::Note;
use govern::store::documents::Edit;
use govern::{Denied, Governor, Operation, Settings, Sharing};
use sqlx::Row as _;
use tokio::runtime::{Builder, Runtime};

use super::shop::{Shop, open, price, settings};

/// Nano-dollars a token, of prompts and of answers.
pub(super) const INPUT: u64 = 3;
pub(super) const OUTPUT: u64 = 7;

/// How often an engine asks for money before it gives a request up.
const WAITS: u32 = 12;

/// Quick, so that tests are.
pub(super) fn quick() -> Sharing {
    Sharing {
        lease: Duration::from_secs(3),
        renew: Duration::from_millis(200),
        poll: Duration::from_millis(50),
        lost: Duration::from_mins(10),
        ..Sharing::default()
    }
}

pub(super) struct Gateway {
    runtime: Option<Runtime>,
    shop: Option<Arc<Shop>>,
    pub(super) settings: Settings,
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

impl Gateway {
    pub(super) fn new(
        folder: &Path,
        name: &str,
        url: &str,
        clock: &Clock,
        sharing: Sharing,
    ) -> Self {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let settings = settings(&folder, Some(url.to_owned()), clock.clone());
        Self::of(Settings { gateway: name.to_owned(), sharing, ..settings })
    }

    pub(super) fn of(settings: Settings) -> Self {
        let runtime = runtime();
        let shop = runtime.block_on(Shop::open(&settings, price(INPUT, OUTPUT)));
        Self { runtime: Some(runtime), shop: Some(Arc::new(shop)), settings }
    }

    /// Opens and says why not.
    pub(super) fn refused(settings: &Settings) -> Option<String> {
        let runtime = runtime();
        runtime.block_on(Governor::open(settings)).err().map(|error| error.to_string())
    }

    pub(super) fn shop(&self) -> &Arc<Shop> {
        self.shop.as_ref().expect("it lives")
    }

    pub(super) fn governor(&self) -> &Governor {
        &self.shop().governor
    }

    pub(super) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("it lives").block_on(future)
    }

    pub(super) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it lives")
    }

    pub(super) fn put(&self, edits: Vec<Edit>) -> Result<(), EditError> {
        let judge = |_: &_, _| Ok::<_, EditError>((edits, Note::default(), ()));
        self.run(self.governor().edit(judge))
    }

    pub(super) fn admit(&self, input: u64, output: u32) -> Result<Arc<Operation>, Denied> {
        self.run(admit(self.shop(), input, output))
    }

    /// Lets in as soon as there is money again.
    pub(super) fn admit_within(&self, output: u32, patience: Duration) -> Arc<Operation> {
        within(patience, || self.admit(0, output))
    }

    /// An engine: makes all tokens that are paid for, up to so many.
    pub(super) fn generate(&self, operation: &Operation, most: u32) -> u32 {
        self.run(generate(self.governor(), operation, most))
    }

    /// Serves one request to its end, and returns its cost.
    pub(super) fn serve(&self, output: u32) -> i64 {
        let operation = self.admit_within(output, Duration::from_secs(5));
        let made = self.generate(&operation, output);
        operation.answered(made.into(), 0);
        operation.finish().cost.0
    }

    /// Ends in order: everything is written, and what was leased is free.
    pub(super) fn close(mut self) {
        let settings = self.settings.clone();
        drop(self.shop.take());
        // The writer ends by itself when nobody can give it anything any more.
        let runtime = self.runtime.take().expect("it lives");
        within(Duration::from_secs(10), || {
            runtime.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
            govern::journal::Journal::open(&settings.journal)
        });
    }

    /// Ends in the middle of everything, like a process that is killed. Returns what it takes to
    /// come back: its journal as it was.
    pub(super) fn crash(mut self) -> Settings {
        self.runtime.take().expect("it lives").shutdown_background();
        let folder = self.settings.journal.parent().expect("a folder").to_owned();
        let copy = PathBuf::from(format!("{}+", folder.display()));
        std::fs::create_dir_all(&copy).expect("a folder");
        for file in ["journal", "journal.id"] {
            std::fs::copy(folder.join(file), copy.join(file)).expect("a copy");
        }
        Settings { journal: copy.join("journal"), ..self.settings.clone() }
    }

    /// What slices there are of a budget in the database, by journal.
    pub(super) fn slices(&self, budget: &Budget) -> Vec<i64> {
        let sql = "SELECT granted FROM slices WHERE budget = $1 AND granted > 0 ORDER BY granted";
        let query = sqlx::query(sql).bind(budget.id.as_str());
        let rows = self.run(query.fetch_all(self.governor().store().read())).expect("slices");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The ledger's sum.
    pub(super) fn ledger(&self) -> i64 {
        self.run(self.governor().flush());
        let sql = "SELECT CAST(COALESCE(SUM(cost_nano_usd), 0) AS BIGINT) FROM ledger";
        let row = self.run(sqlx::query(sql).fetch_one(self.governor().store().read()));
        row.expect("a sum").get(0)
    }

    /// How many records of the audit say this.
    pub(super) fn told(&self, action: &str) -> usize {
        self.run(self.governor().flush());
        let sql = "SELECT body FROM audit WHERE kind = 'gateway'";
        let rows = self.run(sqlx::query(sql).fetch_all(self.governor().store().read()));
        let rows = rows.expect("the audit");
        rows.iter().filter(|row| row.get::<String, _>(0).contains(action)).count()
    }
}

/// Money first, then the rest.
pub(super) async fn admit(shop: &Shop, input: u64, output: u32) -> Result<Arc<Operation>, Denied> {
    shop.governor.stock_up(&shop.principal, &shop.ask("", input, output)).await;
    shop.admit(input, output)
}

/// Makes all tokens that are paid for, up to so many, and says how many that were. An engine is
/// slower than this: what it asks for is there before it has made the tokens in between.
pub(super) async fn generate(governor: &Governor, operation: &Operation, most: u32) -> u32 {
    let mut made = 0;
    let mut waits = 0;
    while made < most {
        if made < operation.allowance() {
            made += 1;
            operation.made(made);
            operation.hands_out(made.into(), 0);
            waits = 0;
        } else if waits < WAITS && made < operation.max_output() {
            waits += 1;
            governor.flush().await;
            if operation.made(made).is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } else {
            break;
        }
    }
    made
}

/// Tries until it comes true.
pub(super) fn within<T, E: std::fmt::Debug>(
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let until = Instant::now() + patience;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(why) => assert!(Instant::now() < until, "not within {patience:?}: {why:?}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for something to be true.
pub(super) fn wait(patience: Duration, what: &str, mut is: impl FnMut() -> bool) {
    within(patience, || if is() { Ok(()) } else { Err(what.to_owned()) });
}

/// A gateway that comes back, as soon as nobody has its journal.
pub(super) fn back(settings: &Settings) -> Gateway {
    let runtime = runtime();
    drop(runtime.block_on(open(settings)));
    drop(runtime);
    Gateway::of(settings.clone())
}
