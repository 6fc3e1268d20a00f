//! Alerts: what is told, once, and kept until it has arrived; and how far others have got with the
//! audit. On both databases.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use govern::audit::{Broken, Chain, Fault, Record};
use govern::budget::window::Period;
use govern::deliver::{Notice, Place, Reached};
use govern::entity::{Budget, Limit, PriceSheet, Raise};
use govern::governor::{Clock, EditError, OpenError};
use govern::ledger::writer::Note;
use govern::ledger::{Outcome, Tokens};
use govern::price::{ModelPrice, TokenPrices};
use govern::store::documents::Edit;
use govern::store::{Store, StoreError};
use govern::{Ask, Governor, Id, Millis, Money, Rule, Scope, Settings, Sharing};
use hearth_tests::services::postgres;
use serde_json::{Value, json};

/// 2026-11-21T15:46:40Z
const NOW: Millis = 1_795_276_000_000;

/// A folder that goes with the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hearth-deliver-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    /// An empty database of each kind.
    fn databases(&self) -> [String; 2] {
        [self.0.join("hearth.db").display().to_string(), postgres::shared().fresh()]
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn budget(limits: Vec<Limit>) -> Budget {
    Budget {
        id: Id::of("bud_0k3v8w2n5q7r1s4t6x9z").expect("an id"),
        organisation: Id::of("org_0k3v8w2n5q7r1s4t6x9z").expect("an id"),
        name: "research\nBcc: all@example.org".to_owned(),
        scope: Scope::Team(Id::of("team_0k3v8w2n5q7r1s4t6x9z").expect("an id")),
        model: None,
        limits,
        time_zone: Some("Europe/Berlin".to_owned()),
        created_at: 0,
    }
}

fn limit(period: Period, nano_usd: Money, soft: bool) -> Limit {
    Limit { period, nano_usd, soft, alert_percent: vec![80], raises: Vec::new() }
}

#[test]
fn alerts_say_all_in_dollars() {
    let month = budget(vec![limit(Period::Month, Money::dollars(5), false)]);
    let reached = Reached {
        budget: &month,
        limit: 0,
        percent: 80,
        allowed: Money::dollars(5),
        spent: Money(4_010_000_000),
        held: Some(Money(250_000_000)),
        // 2026-12-01, midnight in Berlin.
        resets_at: Some(1_796_079_600_000),
    };
    let notice = reached.notice("gateway-1", Some("research"), NOW);
    assert_eq!(
        notice.title,
        "Budget research Bcc: all@example.org: 80 % reached, $4.01 of $5.00 is spent this month"
    );
    assert_eq!(
        notice.text,
        "Budget:  research Bcc: all@example.org\n\
         Scope:   research (team:team_0k3v8w2n5q7r1s4t6x9z)\n\
         Models:  all\n\
         Window:  month, from 2026-11-01 00:00 Europe/Berlin\n\
         Spent:   $4.01 of $5.00 (80 %)\n\
         Held:    $0.25 by requests that run\n\
         Resets:  2026-12-01 00:00 Europe/Berlin\n\n\
         Requests go on. Seen by gateway gateway-1.\n"
    );
    let body = &notice.body;
    assert_eq!((&body["id"], &body["kind"]), (&json!(notice.id), &json!("budget_share")));
    assert_eq!(body["at"], "2026-11-21T15:46:40Z");
    assert_eq!(
        body["budget"],
        json!({
            "id": month.id, "name": month.name, "organisation": month.organisation,
            "scope": "team:team_0k3v8w2n5q7r1s4t6x9z", "model": null, "window": "month",
            "window_start": "2026-10-31T23:00:00Z", "resets_at": "2026-11-30T23:00:00Z",
            "time_zone": "Europe/Berlin", "soft": false, "threshold_percent": 80, "percent": 80,
            "spent_usd": "4.01", "limit_usd": "5.00", "held_usd": "0.25",
        })
    );
    let hard = Reached { percent: 100, ..reached.clone() }.notice("g", None, NOW);
    assert_eq!(hard.kind, "budget_hard_limit");
    assert!(hard.text.contains("refused until it resets"), "{}", hard.text);
    let total = budget(vec![limit(Period::Total, Money::dollars(5), true)]);
    let soft = Reached { budget: &total, percent: 100, resets_at: None, ..reached.clone() };
    let soft = soft.notice("g", None, NOW);
    assert_eq!((soft.kind, soft.forget_at), ("budget_soft_limit", Millis::MAX));
    assert!(soft.text.contains("Resets:  never") && soft.text.contains("soft"), "{}", soft.text);
    // Another amount, window or share is another alert; another moment is not.
    let id = reached.id();
    assert_eq!(id, Reached { spent: Money::dollars(5), held: None, ..reached.clone() }.id());
    let raised = Reached { allowed: Money::dollars(6), ..reached.clone() };
    let later = Reached { resets_at: Some(1_798_758_000_000), ..reached.clone() };
    let more = Reached { percent: 90, ..reached.clone() };
    for other in [raised, later, more] {
        assert_ne!(id, other.id(), "{other:?}");
    }
    let broken = |number| Broken { chain: "a".to_owned(), number, why: Fault::Hash };
    let [one, two] = [3, 4].map(|number| Notice::broken(&broken(number), "g", NOW));
    assert_eq!(one.kind, "audit_broken");
    assert!(one.title.contains("record 3") && one.id != two.id);
    assert_eq!(one.id, Notice::broken(&broken(3), "h", NOW + 1000).id);
    let away = Notice::away(NOW - 61_000, "g", NOW);
    assert_eq!((away.kind, away.title.contains("61 seconds")), ("database_away", true));
}

/// A shop with one key and one budget.
struct Shop {
    governor: Governor,
    key: String,
    clock: Arc<AtomicI64>,
    settings: Settings,
}

impl Shop {
    async fn open(folder: &Folder, url: &str, limits: Vec<Limit>) -> Self {
        let clock = Arc::new(AtomicI64::new(NOW));
        let settings = Settings {
            url: url.to_owned(),
            journal: folder.0.join(format!("journal-{}", url.len())),
            gateway: "gateway-1".to_owned(),
            clock: Clock::Set(Arc::clone(&clock)),
            fsync: govern::Fsync::default(),
            sharing: Sharing::default(),
        };
        let (governor, first) = Governor::open(&settings).await.expect("a governor");
        let key = first.expect("a first start").0.shown;
        let principal = governor.authenticate(Some(&key), None).expect("good");
        // A micro-dollar for each token.
        let rates = TokenPrices { input: 1_000_000, output: 1_000_000, ..TokenPrices::default() };
        let price = ModelPrice { model: "*".to_owned(), rates, ..ModelPrice::default() };
        let organisation = principal.organisation.id.clone();
        let scope = Scope::Organisation(organisation.clone());
        let budget = Budget { organisation, scope, name: "all".to_owned(), ..budget(limits) };
        let shop = Self { governor, key, clock, settings };
        shop.edit(vec![Edit::put(&PriceSheet::new("p", vec![price], 0)), Edit::put(&budget)]).await;
        shop
    }

    async fn edit(&self, edits: Vec<Edit>) {
        let made = self.governor.edit(|_, _| Ok::<_, EditError>((edits, Note::default(), ())));
        made.await.expect("an edit");
    }

    /// A request with so many tokens of prompt that makes so many; whether it was let in.
    async fn ask(&self, input: u64, output: u64) -> bool {
        let principal = self.governor.authenticate(Some(&self.key), None).expect("good");
        let ask = Ask {
            model: "m".to_owned(),
            surface: "chat",
            input_tokens: input,
            choices: 1,
            room: 1000,
            ..Ask::default()
        };
        let operation = loop {
            self.governor.stock_up(&principal, &ask).await;
            match self.governor.admit(&principal, &ask) {
                Ok(operation) => break operation,
                Err(denied) if denied.rule == Rule::Unavailable => self.governor.flush().await,
                Err(_) => return false,
            }
        };
        operation.used(Tokens { input, output, ..Tokens::default() }, Outcome::Done, 1);
        drop(operation.finish());
        self.governor.flush().await;
        true
    }

    /// Kinds and percent of all that waits.
    fn told(&self) -> Vec<(&'static str, Value)> {
        let notices = self.governor.notices(usize::MAX);
        self.governor.taken(notices.len());
        let brief = |n: Notice| (n.kind, n.body["budget"]["percent"].clone());
        notices.into_iter().map(brief).collect()
    }

    async fn again(self) -> Self {
        self.governor.flush().await;
        let Self { governor, key, clock, settings } = self;
        drop(governor);
        loop {
            match Governor::open(&settings).await {
                Ok((governor, _)) => return Self { governor, key, clock, settings },
                Err(OpenError::Journal(_) | OpenError::Store(StoreError::InUse(_))) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test]
async fn limits_are_told_once_for_each_window_and_amount() {
    let folder = Folder::new();
    for url in folder.databases() {
        let micro = |micro: i64| Money(micro * 1000);
        let soft = limit(Period::Month, micro(50), true);
        let shop = Shop::open(&folder, &url, vec![limit(Period::Day, micro(100), false), soft]);
        let shop = shop.await;
        assert!(shop.ask(1, 38).await && shop.told().is_empty());
        assert!(shop.ask(1, 10).await);
        assert_eq!(shop.told(), [("budget_soft_limit", json!(100))]);
        assert!(shop.ask(1, 29).await);
        assert_eq!(shop.told(), [("budget_share", json!(80))]);
        assert!(shop.ask(1, 19).await);
        assert_eq!(shop.told(), [("budget_hard_limit", json!(100))]);
        assert!(!shop.ask(1, 4).await && !shop.ask(1, 4).await);
        assert_eq!(shop.told(), [], "told already");

        // The next day, a request is refused before all is spent: that is the limit as well.
        shop.clock.fetch_add(86_400_000, Ordering::SeqCst);
        assert!(shop.ask(1, 80).await);
        assert_eq!(shop.told(), [("budget_share", json!(81))]);
        for _ in 0..3 {
            assert!(!shop.ask(30, 1).await);
        }
        assert_eq!(shop.told(), [("budget_hard_limit", json!(81))]);

        // More money, and its shares count again; what was told of the old amount is not.
        let mut raised = {
            let directory = shop.governor.directory();
            Budget::clone(directory.budgets().next().expect("the budget"))
        };
        let now = shop.governor.now();
        let raise =
            Raise { nano_usd: micro(100), from: 0, until: now + 3_600_000, reason: "x".to_owned() };
        raised.limits[0].raises.push(raise);
        shop.edit(vec![Edit::put(&raised)]).await;
        assert!(shop.ask(1, 89).await);
        assert_eq!(shop.told(), [("budget_share", json!(85))]);

        // A new process does not know what was told, and the id does.
        assert!(shop.ask(1, 0).await && shop.told().is_empty());
        let shop = shop.again().await;
        assert!(shop.ask(1, 0).await);
        let again = shop.governor.notices(9);
        assert_eq!(
            again.iter().map(|n| n.kind).collect::<Vec<_>>(),
            ["budget_share", "budget_soft_limit"]
        );
        let store = shop.governor.store();
        let channels = ["webhook:1".to_owned(), "mail:2".to_owned()];
        assert_eq!(store.post(&again, &channels, NOW).await.expect("posted"), 2);
        assert_eq!(store.post(&again, &channels, NOW).await.expect("posted"), 0);
        assert_eq!(store.undelivered("mail:2").await.expect("a count"), 2);
    }
}

fn notice(number: i64, at: Millis) -> Notice {
    let broken = Broken { chain: "a".to_owned(), number, why: Fault::Hash };
    Notice::broken(&broken, "g", at)
}

#[tokio::test]
async fn a_delivery_belongs_to_one_until_it_has_arrived() {
    let folder = Folder::new();
    for url in folder.databases() {
        let [one, two] =
            [Store::open(&url).await, Store::open(&url).await].map(|s| s.expect("a store"));
        let channel = "webhook:1";
        let (first, second) = (notice(1, NOW), notice(2, NOW + 1));
        let both = [first.clone(), second.clone()];
        one.post(&both, &[channel.to_owned()], NOW + 2).await.expect("posted");
        let due = |store: &Store, now: Millis| {
            let store = store.clone();
            async move { store.due(channel, now, now + 60_000).await.expect("asked") }
        };
        assert_eq!(due(&one, NOW).await, None, "too early");
        // Both look at once: nobody takes what the other has.
        let (a, b) = tokio::join!(due(&one, NOW + 2), due(&two, NOW + 2));
        let mut all: Vec<_> = a.into_iter().chain(b).collect();
        while let Some(more) = due(&one, NOW + 2).await {
            all.push(more);
        }
        let mut ids: Vec<&str> = all.iter().map(|due| due.alert.as_str()).collect();
        ids.sort_unstable();
        let mut wanted = [first.id.as_str(), second.id.as_str()];
        wanted.sort_unstable();
        assert_eq!(ids, wanted);
        let of = |id: &str| all.iter().find(|due| due.alert == id).expect("due").clone();
        let taken = of(&first.id);
        assert_eq!((taken.attempt, &taken.body), (1, &first.body.to_string()));
        one.delivered(&first.id, channel).await.expect("delivered");
        // The other one did not arrive; later its second attempt is due.
        two.postponed(&of(&second.id), channel, NOW + 500).await.expect("postponed");
        assert_eq!(due(&two, NOW + 499).await, None);
        let again = due(&two, NOW + 500).await.expect("due again");
        assert_eq!((again.alert.as_str(), again.attempt), (second.id.as_str(), 2));
        // Whoever took it died. It is due again after its time, or at a start.
        assert_eq!(due(&one, NOW + 60_499).await, None);
        one.all_due(channel, NOW + 600).await.expect("all due");
        let third = due(&one, NOW + 600).await.expect("due at a start");
        // What the one before took it for does not count any more.
        two.postponed(&again, channel, NOW).await.expect("nothing");
        assert_eq!(due(&two, NOW + 60_599).await, None);
        assert_eq!(third.attempt, 3);

        // After a week it is given up; the alert is remembered as long as it has to be.
        let week = 7 * 24 * 3_600_000;
        assert_eq!(one.forget(NOW + week).await.expect("forgotten"), 0);
        assert_eq!(one.forget(NOW + week + 1).await.expect("forgotten"), 1);
        assert_eq!(one.post(&both, &[], NOW).await.expect("posted"), 0, "still known");
        one.forget(second.forget_at).await.expect("forgotten");
        assert_eq!(one.post(&both, &[], NOW).await.expect("posted"), 2, "and now new");
    }
}

/// However many look at once, each delivery is taken by one of them.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_what_another_has() {
    let folder = Folder::new();
    for url in folder.databases() {
        let store = Store::open(&url).await.expect("a store");
        let all: Vec<Notice> = (0..40).map(|number| notice(number, NOW)).collect();
        store.post(&all, &["webhook:1".to_owned()], NOW).await.expect("posted");
        let mut takers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let url = url.clone();
            takers.spawn(async move {
                let store = Store::open(&url).await.expect("a store");
                let mut taken = Vec::new();
                while store.undelivered("webhook:1").await.expect("a count") > 0 {
                    let due = store.due("webhook:1", NOW, NOW + 60_000).await.expect("asked");
                    let Some(due) = due else { continue };
                    store.delivered(&due.alert, "webhook:1").await.expect("delivered");
                    taken.push(due.alert);
                }
                taken
            });
        }
        let mut taken: Vec<String> = takers.join_all().await.concat();
        taken.sort();
        let mut wanted: Vec<String> = all.into_iter().map(|notice| notice.id).collect();
        wanted.sort();
        assert_eq!(taken, wanted);
    }
}

async fn write(store: &Store, records: &[Record]) {
    for record in records {
        let sql = "INSERT INTO audit (chain, number, at, kind, organisation, body, previous, hash) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let query = sqlx::query(sql)
            .bind(&record.chain)
            .bind(record.number)
            .bind(record.at)
            .bind(&record.kind)
            .bind(&record.organisation)
            .bind(&record.body)
            .bind(&record.previous)
            .bind(&record.hash);
        query.execute(store.write()).await.expect("written");
    }
}

#[tokio::test]
async fn a_place_moves_for_whoever_knows_where_it_was() {
    let folder = Folder::new();
    for url in folder.databases() {
        let store = Store::open(&url).await.expect("a store");
        let mut chain = Chain::begin("a");
        let body = |n: i64| format!("{{\"n\":\"{}\"}}", "x".repeat(100 * n as usize));
        let records: Vec<Record> = (0..6).map(|n| chain.next(NOW, "admin", "", body(n))).collect();
        write(&store, &records).await;
        assert_eq!(store.head("a").await.expect("a head"), 6);
        assert_eq!(store.head("b").await.expect("a head"), 0);
        let behind = |number, count, bytes| {
            let store = store.clone();
            async move {
                let found = store.records_behind("a", number, count, bytes).await.expect("records");
                found.into_iter().map(|record| record.number).collect::<Vec<_>>()
            }
        };
        assert_eq!(behind(0, 3, 10_000).await, [1, 2, 3]);
        assert_eq!(behind(4, 100, 10_000).await, [5, 6]);
        assert_eq!(behind(0, 100, 150).await, [1, 2, 3], "up to the bytes, and one beyond");
        assert!(behind(6, 100, 10_000).await.is_empty());

        let begin = store.place("s", "a").await.expect("a place");
        assert_eq!(begin, Place::begin("a"));
        let mut two = begin.clone();
        for record in &records[..2] {
            assert_eq!(two.pass(record), None);
        }
        assert!(store.advance("s", &begin, &two).await.expect("advanced"));
        assert!(
            !store.advance("s", &begin, &two).await.expect("asked"),
            "it was not there any more"
        );
        assert_eq!(store.place("s", "a").await.expect("a place"), two);
        assert_eq!(store.place("t", "a").await.expect("a place"), begin, "of another sink");
        let mut three = two.clone();
        three.pass(&records[2]);
        assert!(store.advance("s", &two, &three).await.expect("advanced"));
        assert!(!store.advance("s", &two, &three).await.expect("asked"));
        assert_eq!(store.place("s", "a").await.expect("a place"), three);
    }
}
