//! A dry run over ledgers that the production path made: without a change it refuses nothing that
//! was let in, and with one what a plain reading of the ledger says.

#[path = "money/shop.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod shop;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use govern::budget::window::Period;
use govern::directory::Directory;
use govern::entity::{Budget, Entity as _, Limit, Organisation, PriceSheet};
use govern::governor::Clock;
use govern::ledger::{Outcome, ServiceTier, Tokens};
use govern::policy::Policy;
use govern::policy::dry::{self, Findings, Question};
use govern::price::{DevicePrice, ModelPrice, TokenPrices};
use govern::report::{EntryQuery, entries};
use govern::store::Store;
use govern::store::batch::{DAY_MS, QUARTER_MS};
use govern::store::documents::Edit;
use govern::{Ask, Id, Money, Operation, Scope};
use hearth_tests::services::postgres;
use shop::{BEGIN, Folder, Shop, limit, put, settings};
use sqlx::Executor as _;

/// A shop whose clock goes on a little with all that happens.
struct World {
    shop: Shop,
    clock: Arc<AtomicI64>,
    random: u64,
}

impl World {
    async fn open(folder: &Folder, price: ModelPrice, seed: u64) -> Self {
        let clock = Arc::new(AtomicI64::new(BEGIN));
        let settings = settings(&folder.0, None, Clock::Set(Arc::clone(&clock)));
        Self { shop: Shop::open(&settings, price).await, clock, random: seed }
    }

    /// SplitMix64.
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn pass(&mut self, most_ms: u64) {
        let ms = 1 + i64::try_from(self.below(most_ms)).expect("few");
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    fn begin(&mut self) -> Option<(Arc<Operation>, u64)> {
        let ask = Ask {
            model: ["model", "other"][usize::from(self.below(4) == 0)].to_owned(),
            surface: "chat",
            input_tokens: self.below(3000),
            choices: 1 + u32::try_from(self.below(3)).expect("few"),
            max_output: Some(1 + u32::try_from(self.below(300)).expect("few")),
            room: 4000,
            source: "10.1.2.3".into(),
            service_tier: ServiceTier::ALL[usize::from(self.below(3) == 0)],
            backend: ["", "a provider"][usize::from(self.below(2) == 0)].to_owned(),
            ..Ask::default()
        };
        let operation = self.shop.governor.admit(&self.shop.principal, &ask).ok()?;
        Some((operation, ask.input_tokens))
    }

    fn end(&mut self, operation: &Operation, input: u64) {
        let most = u64::from(operation.max_output());
        let wanted = self.below(most + 1);
        let mut made = 0;
        while made < wanted && made < u64::from(operation.allowance()) {
            made += 1;
            operation.made(u32::try_from(made).expect("few"));
        }
        let outcome = [Outcome::Done, Outcome::Cancelled, Outcome::Failed][match self.below(10) {
            0 => 2,
            1 | 2 => 1,
            _ => 0,
        }];
        let cache_read = self.below(input + 1);
        operation.ran_for(self.below(5_000_000));
        operation.served(ServiceTier::ALL[usize::from(self.below(3) > 0)]);
        let tokens = Tokens { input, cache_read, output: made, ..Tokens::default() };
        operation.used(tokens, outcome, 1);
        drop(operation.finish());
    }

    /// Requests of three days, many at once; how many were let in, and how many were not.
    fn live(&mut self, steps: usize) -> (u64, u64) {
        let mut open: Vec<(Arc<Operation>, u64)> = Vec::new();
        let (mut admitted, mut refused) = (0, 0);
        for _ in 0..steps {
            // Every moment is its own: a replay knows no order within one.
            self.pass(2 * 3 * 86_400_000 / steps as u64);
            if open.len() < 12 && self.below(100) < 55 {
                match self.begin() {
                    Some(operation) => {
                        admitted += 1;
                        open.push(operation);
                    }
                    None => refused += 1,
                }
            } else if !open.is_empty() {
                let at = usize::try_from(self.below(open.len() as u64)).expect("few");
                let (operation, input) = open.swap_remove(at);
                self.end(&operation, input);
            }
        }
        for (operation, input) in open {
            self.pass(1000);
            self.end(&operation, input);
        }
        (admitted, refused)
    }

    /// The organisation with other rules.
    fn with_policy(&self, policy: Policy) -> Edit {
        let directory = self.shop.governor.directory();
        let organisation = directory.organisation(&self.shop.organisation).expect("it is there");
        let mut organisation = Organisation::clone(organisation);
        organisation.policy = policy;
        Edit::put(&organisation)
    }

    async fn replay(&self, change: impl FnOnce(&mut Question)) -> Findings {
        self.shop.governor.flush().await;
        let question = self.question(change);
        dry::run(self.shop.governor.store(), &question).await.expect("findings")
    }

    /// Everything, through the directory as it is, or changed.
    fn question(&self, change: impl FnOnce(&mut Question)) -> Question {
        let directory = Arc::new(Directory::clone(&self.shop.governor.directory()));
        let (from, to) = (BEGIN / QUARTER_MS * QUARTER_MS, self.clock.load(Ordering::SeqCst) + 1);
        let organisation = Some(self.shop.organisation.clone());
        let mut question = Question { organisation, from, to, directory, sheet: None };
        change(&mut question);
        question
    }
}

/// Budgets of several windows and scopes, some of one model, some soft.
fn budgets(world: &mut World) -> Vec<Edit> {
    let scopes = [
        Scope::Organisation(world.shop.organisation.clone()),
        Scope::Project(world.shop.project.clone()),
    ];
    let mut edits = Vec::new();
    for (number, scope) in scopes.into_iter().chain([Scope::Everything]).enumerate() {
        let mut limits: Vec<Limit> = Vec::new();
        for period in [Period::Day, Period::Week, Period::Total] {
            let nano = i64::try_from(100_000_000 + world.below(400_000_000)).expect("few");
            limits.push(Limit { period, soft: world.below(4) == 0, ..limit(nano) });
        }
        let budget = Budget {
            name: format!("budget {number}"),
            scope,
            model: (world.below(2) == 0).then(|| "mod*".to_owned()),
            time_zone: Some("Europe/Berlin".to_owned()),
            ..world.shop.budget(limits)
        };
        edits.push(Edit::put(&Budget { id: Id::new(Budget::KIND, BEGIN), ..budget }));
    }
    edits
}

fn prices(seed: u64) -> ModelPrice {
    let rates = TokenPrices {
        input: 3_000_000,
        output: 15_000_000,
        cache_read: Some(300_000),
        cache_write: Some(3_750_000),
    };
    let device = DevicePrice {
        gpu_second: 900_000,
        kwh: 300_000_000,
        watts: 400,
        us_per_token_max: Some(4_000),
    };
    let device = seed.is_multiple_of(2).then_some(device);
    let batch = TokenPrices { input: 1_500_000, output: 7_500_000, ..TokenPrices::default() };
    ModelPrice { model: "*".to_owned(), rates, batch: Some(batch), device, ..ModelPrice::default() }
}

async fn unchanged(seed: u64) -> (u64, u64) {
    let folder = Folder::new(&format!("dry-{seed}"));
    let mut world = World::open(&folder, prices(seed), seed).await;
    let mut edits = budgets(&mut world);
    let policy = r#"{"max_tokens": 100000, "max_context": 100000, "networks": ["10.0.0.0/8"],
        "hours": [{"from": "00:00", "to": "24:00", "time_zone": "Europe/Berlin"}]}"#;
    let policy: Policy = serde_json::from_str(policy).expect("a policy");
    edits.push(world.with_policy(policy));
    put(&world.shop.governor, edits).await;
    let (admitted, refused) = world.live(900);
    for everybody in [false, true] {
        let found = world
            .replay(|question| {
                if everybody {
                    question.organisation = None;
                }
            })
            .await;
        assert_eq!(found.requests, admitted, "seed {seed}");
        assert_eq!(
            (found.refused, found.cut, found.shortened),
            (0, 0, 0),
            "seed {seed}: {found:?}"
        );
        assert_eq!(found.would_be, found.recorded, "seed {seed}");
        assert!(found.recorded > Money::ZERO, "seed {seed}, {admitted} {refused}: {found:?}");
        let left_out = found.not_judged.iter().any(|not| not.what == "everything");
        assert_eq!(left_out, !everybody);
    }
    (admitted, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_change_nothing_is_refused_that_was_let_in() {
    let (mut admitted, mut refused) = (0, 0);
    for seed in 1..=12 {
        let found = unchanged(seed).await;
        (admitted, refused) = (admitted + found.0, refused + found.1);
    }
    println!("{admitted} were let in, {refused} were not");
    assert!(admitted > 1000 && refused > 200, "budgets were met: {admitted} {refused}");
}

/// The directory with a change.
fn with(question: &mut Question, edit: &Edit) {
    let mut directory = Directory::clone(&question.directory);
    directory.apply(&edit.change()).expect("a change");
    question.directory = Arc::new(directory);
}

async fn ledger(world: &World) -> Vec<govern::ledger::Entry> {
    let (organisation, after) = (None, None);
    let query =
        EntryQuery { organisation, filters: vec![], from: 0, to: i64::MAX, after, limit: 1000 };
    let (mut all, next) = entries(world.shop.governor.store(), &query).await.expect("lines");
    assert!(next.is_none(), "one page");
    all.reverse();
    all
}

/// What each kind of change refuses, against a plain reading of the ledger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_refuse_what_a_plain_reading_says() {
    let folder = Folder::new("dry-changes");
    let mut world = World::open(&folder, prices(1), 77).await;
    let (admitted, _) = world.live(700);
    world.shop.governor.flush().await;
    let ledger = ledger(&world).await;
    assert_eq!(ledger.len() as u64, admitted);
    let count = |f: &dyn Fn(&govern::ledger::Entry) -> bool| {
        ledger.iter().filter(|entry| f(entry)).count() as u64
    };
    let policy = |json: &str| {
        let edit = world.with_policy(serde_json::from_str(json).expect(json));
        world.replay(move |question| with(question, &edit))
    };

    let found = policy(r#"{"models": ["mod*"]}"#).await;
    assert_eq!(found.refused, count(&|entry| &*entry.model == "other"));
    assert!(found.refused > 20);
    assert_eq!(found.by_rule[0].name, "model_not_allowed");
    assert_eq!((found.by_model.len(), found.by_model[0].name.as_str()), (1, "other"));
    assert_eq!((found.by_key.len(), found.by_key[0].requests), (1, found.refused));
    assert_eq!(found.by_team[0].name, *ledger[0].team);
    let first = ledger.iter().find(|entry| &*entry.model == "other").expect("one");
    assert_eq!(found.examples[0].operation, first.operation.to_string());
    assert_eq!(found.examples.len(), 20);
    let kept: i64 = ledger.iter().filter(|e| &*e.model != "other").map(|e| e.cost.0).sum();
    assert_eq!(found.would_be, Money(kept));

    let found = policy(r#"{"max_context": 1500}"#).await;
    let over = |entry: &govern::ledger::Entry| {
        entry.tokens.input + u64::from(entry.tokens.output > 0) > 1500
    };
    assert_eq!(found.refused, count(&over));
    let long = |entry: &govern::ledger::Entry| entry.tokens.input + entry.tokens.output > 1500;
    assert_eq!(found.shortened, count(&|entry| !over(entry) && long(entry)));
    let found = policy(r#"{"max_tokens": 40}"#).await;
    assert_eq!(found.shortened, count(&|entry| entry.tokens.output > 40));
    assert!(found.shortened > 20 && found.refused == 0 && found.would_be < found.recorded);
    let found = policy(r#"{"networks": ["192.168.0.0/16"]}"#).await;
    assert_eq!((found.refused, found.would_be), (admitted, Money::ZERO));
    let hours = r#"{"hours": [{"from": "09:00", "to": "17:00", "time_zone": "UTC"}]}"#;
    let found = policy(hours).await;
    let hour = |entry: &govern::ledger::Entry| entry.admitted_at.rem_euclid(DAY_MS) / 3_600_000;
    assert_eq!(found.refused, count(&|entry| !(9..17).contains(&hour(entry))));
    changes_of_money(&world, &ledger, admitted).await;
}

/// Prices and budgets.
async fn changes_of_money(world: &World, ledger: &[govern::ledger::Entry], admitted: u64) {
    // Prices: twice as dear, of all that was used.
    let mut dear = prices(1);
    (dear.rates.input, dear.rates.output) = (6_000_000, 30_000_000);
    dear.rates.cache_read = Some(600_000);
    dear.batch =
        Some(TokenPrices { input: 3_000_000, output: 15_000_000, ..TokenPrices::default() });
    let sheet = PriceSheet::new("dear", vec![dear], 0);
    let found = world.replay(|question| question.sheet = Some(Arc::new(sheet))).await;
    assert_eq!((found.refused, found.would_be), (0, Money(2 * found.recorded.0)));

    // A budget of a day: what it lets through fits it, in each day of its zone.
    let scope = Scope::Organisation(world.shop.organisation.clone());
    let limits = vec![Limit { period: Period::Day, ..limit(40_000_000) }];
    let budget = Budget { scope, time_zone: Some("UTC".to_owned()), ..world.shop.budget(limits) };
    let days: std::collections::BTreeSet<i64> =
        ledger.iter().map(|entry| entry.admitted_at.div_euclid(DAY_MS)).collect();
    let edit = Edit::put(&budget);
    let found = world.replay(|question| with(question, &edit)).await;
    assert!(found.refused > 20 && found.by_rule[0].name == "insufficient_quota", "{found:?}");
    let most = 40_000_000 * i64::try_from(days.len()).expect("few");
    assert!(found.would_be <= Money(most) && found.would_be.0 > most / 2, "{found:?}");
    // What was spent in the window before the range counts too.
    let limits = vec![limit(found.recorded.0 / 2)];
    let half = Edit::put(&Budget { limits, ..budget.clone() });
    let whole = world.replay(|question| with(question, &half)).await;
    let late = world.replay(|question| {
        with(question, &half);
        question.from = (BEGIN / DAY_MS + 3) * DAY_MS;
    });
    let late = late.await;
    assert!(whole.refused > 0 && late.refused == late.requests, "{late:?}");
    // A price of time without a bound, and none at all.
    let open = DevicePrice { gpu_second: 5, ..DevicePrice::default() };
    let open = ModelPrice { model: "model".to_owned(), device: Some(open), ..prices(1) };
    let sheet = Arc::new(PriceSheet::new("open", vec![open], 0));
    let found = world.replay(|question| {
        with(question, &edit);
        question.sheet = Some(sheet);
    });
    let found = found.await;
    assert_eq!((found.refused, found.by_rule[0].name.as_str()), (admitted, "model_without_price"));
}

/// A million lines in less than ten seconds, where it is optimised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half a minute, and its bound is for a release build"]
async fn a_million_lines_are_replayed_in_ten_seconds() {
    const LINES: &str = "
        WITH RECURSIVE numbers (n) AS (
            SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 999999)
        INSERT INTO ledger SELECT 'op_0k3v8w2n5q7r' || (10000000 + n), 1, 'gateway-1',
            BEGIN + n * 500, BEGIN + n * 500 + 2000 + n % 9000, 'ORG', 'TEAM', 'PROJ', '', 'KEY',
            'model-' || (n % 7), 'local', 'chat', 'internal', '', n % 7000, n % 3000, 0, n % 900, 0,
            n % 900 * 600, 'done', 'req-0k3v8w2n5q7r', '10.0.0.1', 40, 900, 500, 'default', ''
        FROM numbers";
    let folder = Folder::new("dry-million");
    let mut world = World::open(&folder, prices(2), 5).await;
    let edits = budgets(&mut world);
    put(&world.shop.governor, edits).await;
    let key = world.shop.principal.key.clone().expect("a key").id.to_string();
    let team = world.shop.principal.team.clone().expect("a team").id.to_string();
    let sql = LINES
        .replace("BEGIN", &BEGIN.to_string())
        .replace("ORG", world.shop.organisation.as_str())
        .replace("PROJ", world.shop.project.as_str())
        .replace("TEAM", &team)
        .replace("KEY", &key);
    let store = Store::open(&folder.0.join("hearth.db").display().to_string()).await.expect("it");
    store.write().execute(sqlx::AssertSqlSafe(sql)).await.expect("lines");
    world.clock.fetch_add(7 * DAY_MS, Ordering::SeqCst);
    let begun = Instant::now();
    let found = world.replay(|_| {}).await;
    let took = begun.elapsed();
    println!("{} lines in {took:?}: {} refused, {} cut", found.requests, found.refused, found.cut);
    assert!(found.requests == 1_000_000 && found.refused > 0);
    assert!(took.as_secs() < 10, "{took:?}");
}

/// The same ledger in the other database says the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_databases_say_the_same() {
    let folder = Folder::new("dry-both");
    let mut world = World::open(&folder, prices(2), 21).await;
    world.live(400);
    let edit = world.with_policy(serde_json::from_str(r#"{"models": ["mod*"]}"#).expect("rules"));
    let question = world.question(|question| {
        with(question, &edit);
        let scope = Scope::Everything;
        let budget = Edit::put(&Budget { scope, ..world.shop.budget(vec![limit(500_000_000)]) });
        with(question, &budget);
        (question.organisation, question.from) = (None, (BEGIN / DAY_MS + 1) * DAY_MS);
    });
    world.shop.governor.flush().await;
    let found = dry::run(world.shop.governor.store(), &question).await.expect("findings");
    assert!(found.refused > 0 && found.refused < found.requests, "{found:?}");
    drop(world);
    let (from, to) = (folder.0.join("hearth.db").display().to_string(), postgres::shared().fresh());
    while let Err(error) = govern::backup::migrate(&from, &to, false).await {
        // The writer ends a moment after the last who uses it.
        assert!(matches!(error, govern::backup::BackupError::InUse(_)), "{error}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let store = Store::open(&to).await.expect("a store");
    assert_eq!(dry::run(&store, &question).await.expect("findings"), found);
    store.close().await;
}
