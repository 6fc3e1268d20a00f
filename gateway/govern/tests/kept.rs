//! Responses, conversations and items: a project finds its own again, in their order and after a
//! restart, and nobody else's; what is deleted or over can be read from no copy.

#[path = "money/shop.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod shop;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use govern::bodies::Erase;
use govern::entity::Organisation;
use govern::governor::Clock;
use govern::kept::{CHAIN_MAX, KeptError, Kind, Range, Sheet, Tenant};
use govern::policy::Label;
use govern::secret::{Keyring, Master, Secret};
use govern::store::documents::Edit;
use govern::{Governor, Id};
use hearth_tests::services::postgres;
use shop::{BEGIN, Folder, Shop, price, put, settings};
use sqlx::AssertSqlSafe;

const DAY_MS: i64 = 86_400_000;
const SECRET: &str = "the red door's code is 4711";
const DAYS: u32 = 30;

fn keyring() -> Arc<Keyring> {
    let text = "5b".repeat(31) + "5c";
    Arc::new(Keyring { current: Master::parse(&text).expect("a key"), old: Vec::new() })
}

struct World {
    governor: Governor,
    tenant: Tenant,
    clock: Arc<AtomicI64>,
    folder: Folder,
    url: String,
}

impl World {
    async fn open(name: &str, url: Option<String>) -> Self {
        let folder = Folder::new(&format!("kept-{name}"));
        let url = url.unwrap_or_else(|| folder.0.join("hearth.db").display().to_string());
        Self::again(folder, url).await
    }

    async fn again(folder: Folder, url: String) -> Self {
        let clock = Arc::new(AtomicI64::new(BEGIN));
        let settings = settings(&folder.0, Some(url.clone()), Clock::Set(Arc::clone(&clock)));
        let shop = Shop::open(&settings, price(0, 0)).await;
        let tenant = Tenant::of(&shop.principal).expect("a project");
        shop.governor.record_with(keyring());
        Self { governor: shop.governor, tenant, clock, folder, url }
    }

    async fn keep(&self, sheets: Vec<Sheet>, into: Option<&str>) -> Result<(), KeptError> {
        self.governor.keep(&self.tenant, sheets, (into, DAYS)).await
    }

    async fn response(&self, id: &str, parent: &str) {
        let made = Sheet { parent: parent.to_owned(), ..sheet(Kind::Response, id, SECRET) };
        self.keep(vec![made], None).await.expect("kept");
    }

    async fn conversation(&self, id: &str, items: &[&str]) {
        self.keep(vec![sheet(Kind::Conversation, id, "{}")], None).await.expect("kept");
        for item in items {
            self.item(id, item).await.expect("kept");
        }
    }

    async fn item(&self, conversation: &str, id: &str) -> Result<(), KeptError> {
        let made = Sheet { parent: conversation.to_owned(), ..sheet(Kind::Item, id, SECRET) };
        self.keep(vec![made], Some(conversation)).await
    }

    async fn chain(&self, id: &str) -> Result<Vec<String>, KeptError> {
        let found = self.governor.kept_chain(&self.tenant, id).await?;
        Ok(found.into_iter().map(|sheet| sheet.id).collect())
    }

    async fn items(&self, conversation: &str, range: Range) -> Vec<String> {
        let found = self.governor.kept_items(&self.tenant, conversation, range).await;
        found.expect("items").into_iter().map(|sheet| sheet.id).collect()
    }

    async fn kept(&self, name: (Kind, &str, &str)) -> Result<Option<String>, KeptError> {
        let found = self.governor.kept(&self.tenant, name).await?;
        Ok(found.map(|sheet| String::from_utf8(sheet.content.expose().clone()).expect("text")))
    }

    async fn run(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        let done = sqlx::query(sql).execute(self.governor.store().write()).await.expect("run");
        assert!(done.rows_affected() > 0, "nothing was changed");
    }
}

fn sheet(kind: Kind, id: &str, content: &str) -> Sheet {
    Sheet {
        kind,
        id: id.to_owned(),
        parent: String::new(),
        place: 0,
        label: Label::Internal,
        at: BEGIN,
        lost_at: 0,
        content: Secret::new(content.as_bytes().to_vec()),
    }
}

const ALL: Range = Range { after: None, ascending: true, limit: 100 };

/// Both databases.
async fn both<F: Future<Output = ()>>(name: &str, test: impl Fn(World) -> F) {
    test(World::open(&format!("{name}-sqlite"), None).await).await;
    let url = Some(postgres::shared().fresh());
    test(World::open(&format!("{name}-postgres"), url).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_outlive_a_restart() {
    both("chains", |world| async move {
        world.response("resp_a", "").await;
        world.response("resp_b", "resp_a").await;
        world.response("resp_c", "resp_b").await;
        world.response("resp_d", "resp_a").await;
        let World { governor, folder, url, .. } = world;
        governor.store().close().await;
        drop(governor);
        let world = World::again(folder, url).await;
        assert_eq!(world.chain("resp_c").await.expect("it"), ["resp_a", "resp_b", "resp_c"]);
        assert_eq!(world.chain("resp_d").await.expect("it"), ["resp_a", "resp_d"]);
        let found = world.kept((Kind::Response, "", "resp_b")).await.expect("it");
        assert_eq!(found.as_deref(), Some(SECRET));
        assert!(matches!(world.chain("resp_x").await, Err(KeptError::Missing(_))));
        // What one goes on with is named when it is gone.
        let gone = world.governor.forget(&world.tenant, (Kind::Response, "", "resp_a")).await;
        assert!(gone.expect("deleted"));
        match world.chain("resp_c").await {
            Err(KeptError::Missing(id)) => assert_eq!(id, "resp_a"),
            other => panic!("{other:?}"),
        }
        assert!(world.kept((Kind::Response, "", "resp_c")).await.expect("it").is_some());
        // A ring that somebody made, and a chain without end.
        world.response("resp_r", "resp_s").await;
        world.response("resp_s", "resp_r").await;
        assert!(matches!(world.chain("resp_r").await, Err(KeptError::Missing(_))));
        let long = (0..=CHAIN_MAX).map(|at| Sheet {
            parent: if at == 0 { String::new() } else { format!("long_{}", at - 1) },
            ..sheet(Kind::Response, &format!("long_{at}"), "")
        });
        world.keep(long.collect(), None).await.expect("kept");
        let last = |at: usize| format!("long_{at}");
        assert_eq!(world.chain(&last(CHAIN_MAX - 1)).await.expect("it").len(), CHAIN_MAX);
        assert!(matches!(world.chain(&last(CHAIN_MAX)).await, Err(KeptError::Missing(_))));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_have_an_order_whoever_adds_them() {
    both("items", |world| async move {
        world.conversation("conv_a", &["m1", "m2"]).await;
        world.conversation("conv_b", &["m1"]).await;
        assert!(matches!(world.item("conv_a", "m2").await, Err(KeptError::Twice(_))));
        assert!(matches!(world.item("conv_x", "m9").await, Err(KeptError::Missing(_))));
        // Many at once: each batch stays together.
        let batch = |number: usize| {
            let (governor, tenant) = (world.governor.clone(), world.tenant.clone());
            async move {
                let item = |at| Sheet {
                    parent: "conv_a".to_owned(),
                    ..sheet(Kind::Item, &format!("n{number}_{at}"), "x")
                };
                let items = (0..3).map(item).collect();
                governor.keep(&tenant, items, (Some("conv_a"), DAYS)).await.expect("kept");
            }
        };
        futures_util::future::join_all((0..8).map(batch)).await;
        let all = world.items("conv_a", ALL).await;
        assert_eq!((all.len(), &*all[0], &*all[1]), (26, "m1", "m2"));
        for three in all[2..].chunks(3) {
            let first = three[0].strip_suffix("_0").expect("the first of a batch");
            assert_eq!(three[1..], [format!("{first}_1"), format!("{first}_2")]);
        }
        // Pages, from both ends.
        let mut backward = Vec::new();
        let mut after = None;
        loop {
            let range = Range { after, ascending: false, limit: 7 };
            let page = world.governor.kept_items(&world.tenant, "conv_a", range).await;
            let page = page.expect("a page");
            let Some(last) = page.last() else { break };
            after = Some(last.place);
            backward.extend(page.into_iter().map(|sheet| sheet.id));
        }
        backward.reverse();
        assert_eq!(backward, all);
        // What is more secret makes all of it so.
        let kept = world.governor.kept(&world.tenant, (Kind::Conversation, "", "conv_a")).await;
        assert_eq!(kept.expect("it").expect("there").label, Label::Internal);
        let secret = Sheet {
            parent: "conv_a".to_owned(),
            label: Label::Restricted,
            ..sheet(Kind::Item, "secret", "x")
        };
        world.keep(vec![secret], Some("conv_a")).await.expect("kept");
        world.item("conv_a", "plain").await.expect("kept");
        let other = sheet(Kind::Conversation, "conv_a", r#"{"a":"b"}"#);
        world.governor.keep_over(&world.tenant, other, DAYS).await.expect("kept");
        let kept = world.governor.kept(&world.tenant, (Kind::Conversation, "", "conv_a")).await;
        let kept = kept.expect("it").expect("there");
        assert_eq!((kept.label, kept.place), (Label::Restricted, 28));
        assert_eq!(kept.content.expose(), br#"{"a":"b"}"#);
        // One goes, then all of it; the other conversation stays.
        let item = (Kind::Item, "conv_a", "m1");
        assert!(world.governor.forget(&world.tenant, item).await.expect("deleted"));
        assert!(!world.governor.forget(&world.tenant, item).await.expect("gone already"));
        let whole = (Kind::Conversation, "", "conv_a");
        assert!(world.governor.forget(&world.tenant, whole).await.expect("deleted"));
        assert!(world.items("conv_a", ALL).await.is_empty());
        assert_eq!(world.items("conv_b", ALL).await, ["m1"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_sees_joins_changes_or_deletes() {
    both("tenants", |world| async move {
        world.response("resp_a", "").await;
        world.conversation("conv_a", &["m1"]).await;
        let own = world.tenant.clone();
        let id = |text: &str| Id::of(text).expect("an id");
        let strangers = [
            Tenant { project: id("proj_other"), ..own.clone() },
            Tenant { organisation: id("org_other"), ..own.clone() },
            Tenant { organisation: id("org_other"), project: id("proj_other"), ..own.clone() },
        ];
        let names = [
            (Kind::Response, "", "resp_a"),
            (Kind::Conversation, "", "conv_a"),
            (Kind::Item, "conv_a", "m1"),
        ];
        for stranger in &strangers {
            let governor = &world.governor;
            for name in names {
                assert!(governor.kept(stranger, name).await.expect("an answer").is_none());
                assert!(!governor.forget(stranger, name).await.expect("an answer"));
                let over = sheet(name.0, name.2, "theirs");
                let over = governor.keep_over(stranger, over, DAYS).await;
                assert!(matches!(over, Err(KeptError::Missing(_))), "{over:?}");
            }
            let chain = governor.kept_chain(stranger, "resp_a").await;
            assert!(matches!(chain, Err(KeptError::Missing(_))));
            assert!(governor.kept_items(stranger, "conv_a", ALL).await.expect("none").is_empty());
            let item = Sheet { parent: "conv_a".into(), ..sheet(Kind::Item, "m2", "x") };
            let added = governor.keep(stranger, vec![item], (Some("conv_a"), DAYS)).await;
            assert!(matches!(added, Err(KeptError::Missing(_))), "{added:?}");
            let making = governor.still_making(stranger, "resp_a", 1).await.expect("an answer");
            assert_eq!(making, None);
            governor.stop_making(stranger, "resp_a").await.expect("nothing");
            // One that goes on with somebody else's finds nothing there.
            let on = Sheet { parent: "resp_a".into(), ..sheet(Kind::Response, "resp_z", "x") };
            governor.keep(stranger, vec![on], (None, DAYS)).await.expect("kept");
            match governor.kept_chain(stranger, "resp_z").await {
                Err(KeptError::Missing(id)) => assert_eq!(id, "resp_a"),
                other => panic!("{other:?}"),
            }
        }
        let making = world.governor.still_making(&own, "resp_a", 1).await.expect("an answer");
        assert_eq!(making, Some(false), "nobody has stopped it");
        for name in names {
            assert!(world.kept(name).await.expect("it").is_some(), "{name:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_altered_or_moved_open_nothing() {
    both("damage", |world| async move {
        for id in ["resp_a", "resp_b", "resp_c", "resp_d"] {
            world.response(id, "").await;
        }
        let altered = |id: &'static str| {
            let world = &world;
            async move {
                let read = world.kept((Kind::Response, "", id)).await;
                assert!(matches!(read, Err(KeptError::Sealed(_))), "{id}: {read:?}");
                assert!(world.chain(id).await.is_err(), "{id}");
            }
        };
        world.run("UPDATE kept SET content = 'v1.x' WHERE id = 'resp_a'").await;
        altered("resp_a").await;
        let moved = "UPDATE kept SET content = (SELECT content FROM kept k WHERE k.id = 'resp_c') \
                     WHERE id = 'resp_b'";
        world.run(moved).await;
        altered("resp_b").await;
        // Under another project its content belongs to nobody.
        world.run("UPDATE kept SET project = 'proj_thief' WHERE id = 'resp_c'").await;
        let project = Id::of("proj_thief").expect("an id");
        let thief = Tenant { project, ..world.tenant.clone() };
        let stolen = world.governor.kept(&thief, (Kind::Response, "", "resp_c")).await;
        assert!(matches!(stolen, Err(KeptError::Sealed(_))), "{stolen:?}");
        let key = "DELETE FROM body_keys WHERE operation IN \
                   (SELECT row_id FROM kept WHERE id = 'resp_d')";
        world.run(key).await;
        let erased = world.kept((Kind::Response, "", "resp_d")).await;
        assert!(matches!(erased, Err(KeptError::Erased)), "{erased:?}");
        world.run("UPDATE kept SET label = 'red' WHERE id = 'resp_d'").await;
        let read = world.kept((Kind::Response, "", "resp_d")).await;
        assert!(matches!(read, Err(KeptError::Store(_))), "{read:?}");
        // It can be deleted all the same.
        for id in ["resp_a", "resp_b", "resp_d"] {
            let name = (Kind::Response, "", id);
            assert!(world.governor.forget(&world.tenant, name).await.expect("deleted"), "{id}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_for_as_long_as_is_said() {
    both("retention", |world| async move {
        let mut organisation = {
            let directory = world.governor.directory();
            Organisation::clone(directory.organisation(&world.tenant.organisation).expect("it"))
        };
        organisation.retention_days = [(Label::Restricted, 2)].into();
        put(&world.governor, vec![Edit::put(&organisation)]).await;
        world.response("resp_long", "").await;
        let short = Sheet { label: Label::Restricted, ..sheet(Kind::Response, "resp_short", "x") };
        world.keep(vec![short], None).await.expect("kept");
        world.conversation("conv_a", &["m1"]).await;
        let there = |name: (Kind, &'static str, &'static str)| {
            let world = &world;
            async move { world.kept(name).await.expect("an answer").is_some() }
        };
        let (long, short) = ((Kind::Response, "", "resp_long"), (Kind::Response, "", "resp_short"));
        assert!(there(long).await && there(short).await);
        world.clock.store(BEGIN + 2 * DAY_MS, Ordering::SeqCst);
        assert!(there(long).await && !there(short).await, "two days are over");
        // A conversation that goes on is kept on; its items are as old as they are.
        world.clock.store(BEGIN + 29 * DAY_MS, Ordering::SeqCst);
        world.item("conv_a", "m2").await.expect("kept");
        world.clock.store(BEGIN + 30 * DAY_MS, Ordering::SeqCst);
        assert!(!there(long).await && there((Kind::Conversation, "", "conv_a")).await);
        assert_eq!(world.items("conv_a", ALL).await, ["m2"]);
        // What is over is deleted, with its key.
        world.governor.recorded().await;
        world.governor.recorded().await;
        for (table, left) in [("kept", 2_i64), ("body_keys", 2)] {
            let sql = AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
            let count = sqlx::query_scalar::<_, i64>(sql);
            let found = count.fetch_one(world.governor.store().read()).await.expect("a count");
            assert_eq!(found, left, "{table}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_and_erased_for_good() {
    let world = World::open("sealed", None).await;
    world.response("resp_a", "").await;
    world.response("resp_b", "").await;
    world.conversation("conv_a", &["m1"]).await;
    let lies = |what: &str| {
        ["", "-wal"].iter().any(|end| {
            let bytes = std::fs::read(format!("{}{end}", world.url)).expect("a file");
            bytes.windows(what.len()).any(|part| part == what.as_bytes())
        })
    };
    assert!(!lies(SECRET), "it lies open in the database");
    let sql = "SELECT sealed FROM body_keys WHERE operation IN \
               (SELECT row_id FROM kept WHERE id = 'resp_a')";
    let key = sqlx::query_scalar::<_, String>(sql);
    let key = key.fetch_one(world.governor.store().read()).await.expect("a key");
    assert!(lies(&key), "what a deleted key would be looked for by");
    let name = (Kind::Response, "", "resp_a");
    assert!(world.governor.forget(&world.tenant, name).await.expect("deleted"));
    assert!(!lies(&key), "the key is gone from the file");
    // Whoever erases what an organisation has said erases these too. A part is no text.
    let part = Sheet { parent: "resp_b".to_owned(), ..sheet(Kind::Part, "msg_b", "null") };
    world.keep(vec![part], None).await.expect("kept");
    let organisation = world.tenant.organisation.clone();
    let all = Erase { organisation, user: None, before: None };
    assert_eq!(world.governor.erase_bodies(all).await.expect("erased"), 3);
    let all = [
        (Kind::Response, "", "resp_b"),
        (Kind::Item, "conv_a", "m1"),
        (Kind::Part, "resp_b", "msg_b"),
    ];
    for name in all {
        assert!(world.kept(name).await.expect("an answer").is_none());
    }
}

/// Another gateway on the same database reads what one has kept, and is heard when it asks that a
/// response be stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_gateway_finds_it() {
    let world = World::open("several", Some(postgres::shared().fresh())).await;
    let folder = Folder::new("kept-several-other");
    let clock = Clock::Set(Arc::clone(&world.clock));
    let mut other = settings(&folder.0, Some(world.url.clone()), clock);
    other.gateway = "gateway-2".to_owned();
    let other = shop::open(&other).await;
    other.record_with(keyring());
    let making = Sheet { lost_at: BEGIN + 10, ..sheet(Kind::Response, "resp_a", SECRET) };
    world.keep(vec![making], None).await.expect("kept");
    let name = (Kind::Response, "", "resp_a");
    let found = other.kept(&world.tenant, name).await.expect("it").expect("there");
    assert_eq!((found.content.expose().as_slice(), found.lost_at), (SECRET.as_bytes(), BEGIN + 10));
    let alive = || world.governor.still_making(&world.tenant, "resp_a", 50);
    assert_eq!(alive().await.expect("an answer"), Some(false));
    other.stop_making(&world.tenant, "resp_a").await.expect("asked");
    assert_eq!(alive().await.expect("an answer"), Some(true));
    let found = other.kept(&world.tenant, name).await.expect("it").expect("there");
    assert_eq!(found.lost_at, BEGIN + 50);
    assert!(other.forget(&world.tenant, name).await.expect("deleted"));
    assert_eq!(alive().await.expect("an answer"), None, "it was deleted");
    let late = sheet(Kind::Response, "resp_a", "whole");
    let late = world.governor.keep_over(&world.tenant, late, DAYS).await;
    assert!(matches!(late, Err(KeptError::Missing(_))), "it stays deleted: {late:?}");
}
